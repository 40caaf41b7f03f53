//! What a node believes of its paths is near the truth.

use fastvpn_proto::node::PathStats;
use fastvpn_proto::time::Duration;
use fastvpn_tests::link::{ms, percent, secs};
use fastvpn_tests::world::{Flow, HostId, World};

use crate::{clean, world};

#[test]
fn round_trip_and_loss_are_near_the_truth() {
    for loss in [0u32, 5, 20] {
        let mut world = world(1_200);
        let (peer, hub) = world.pair(clean(80).loss(percent(loss)));

        world.stream(peer, hub, Flow::new(100, 300).lasting(secs(60)));
        world.stream(hub, peer, Flow::new(100, 300).lasting(secs(60)));
        world.run(secs(60));

        for (host, other) in [(peer, hub), (hub, peer)] {
            let path = path(&world, host, other);
            assert_near(path.rtt.unwrap_or_default(), ms(160), ms(10));
            assert_near(path.rtt_min.unwrap_or_default(), ms(160), ms(5));
            let measured = f64::from(path.loss_ppm) / 10_000.0;
            let wrong = (measured - f64::from(loss)).abs();
            assert!(wrong <= 0.3 + f64::from(loss) * 0.3, "{measured} % measured at {loss} %");
        }
    }
}

#[test]
fn round_trip_follows_a_change() {
    let mut world = world(1_201);
    let (peer, hub) = world.pair(clean(20));
    world.stream(peer, hub, Flow::new(50, 300).lasting(secs(60)));
    world.run(secs(20));
    assert_near(path(&world, peer, hub).rtt.unwrap_or_default(), ms(40), ms(6));

    world.link(peer, hub, clean(150));
    world.run(secs(10));

    assert_near(path(&world, peer, hub).rtt.unwrap_or_default(), ms(300), ms(15));
}

#[test]
fn idle_path_still_knows_its_round_trip() {
    let mut world = world(1_202);
    let (peer, hub) = world.pair(clean(70));

    world.run(secs(300));

    assert_near(path(&world, peer, hub).rtt.unwrap_or_default(), ms(140), ms(10));
}

#[test]
fn ping_measures_one_round_trip() {
    let mut world = world(1_203);
    let (peer, hub) = world.pair(clean(75));

    let answered = world.ping(peer, hub, secs(1));
    world.run(secs(1));
    world.link(peer, hub, clean(75).down());
    let lost = world.ping(peer, hub, secs(1));
    world.run(secs(2));

    let rtt = world.pong(peer, answered).and_then(Result::ok).unwrap_or_default();
    assert_near(rtt, ms(150), ms(5));
    assert_eq!(world.pong(peer, lost), Some(Err(())));
}

#[test]
fn ping_loss_is_that_of_the_link() {
    let mut world = world(1_204);
    let (peer, hub) = world.pair(clean(50).loss(percent(20)));

    let mut pings = Vec::new();
    for _ in 0..500 {
        pings.push(world.ping(peer, hub, secs(1)));
        world.run(ms(100));
    }
    world.run(secs(2));

    let lost = pings.iter().filter(|ping| world.pong(peer, **ping) == Some(Err(()))).count();
    let answered = pings.iter().filter(|ping| matches!(world.pong(peer, **ping), Some(Ok(_))));
    assert_eq!(lost + answered.count(), 500, "each ping has one outcome");
    // 36 % of round trips lose one of their two messages
    assert!((130..=230).contains(&lost), "{lost}");
}

fn path(world: &World, host: HostId, peer: HostId) -> PathStats {
    let path = world.peer_stats(host, peer).and_then(|stats| stats.path);
    path.unwrap_or_else(|| world.fail("there is no path"))
}

fn assert_near(value: Duration, truth: Duration, tolerance: Duration) {
    assert!(value.abs_diff(truth) <= tolerance, "{value:?} instead of {truth:?}");
}
