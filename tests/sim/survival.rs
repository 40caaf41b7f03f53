//! Blackouts, restarts and sleep heal without a hand.

use fastvpn_proto::limits::SESSION_SILENCE;
use fastvpn_proto::node::{DownReason, Event};
use fastvpn_tests::link::{ms, secs};
use fastvpn_tests::world::{Flow, HostId, World};

use crate::{clean, count, downs, ups, world};

#[test]
fn session_survives_ten_minutes_of_blackout() {
    let mut world = world(700);
    let (peer, hub) = world.pair(clean(50));
    world.run(secs(30));

    world.link(peer, hub, clean(50).down());
    world.run(secs(600));
    world.link(peer, hub, clean(50));
    let healed = heal(&mut world, peer, hub);

    assert!(healed < 40, "{healed} s");
    for host in [peer, hub] {
        assert_eq!((ups(&world, host), downs(&world, host)), (1, 0), "the session goes on");
    }
}

#[test]
fn session_survives_a_blackout_under_traffic() {
    let mut world = world(701);
    let (peer, hub) = world.pair(clean(50));
    let there = world.stream(peer, hub, Flow::new(10, 300).lasting(secs(900)));
    let back = world.stream(hub, peer, Flow::new(10, 300).lasting(secs(900)));
    world.run(secs(60));

    world.link(peer, hub, clean(50).down());
    world.run(secs(600));
    world.link(peer, hub, clean(50));
    world.run(secs(245));

    for stream in [there, back] {
        let report = world.report(stream);
        assert!(report.longest_gap < secs(615), "{report}");
        let report = world.report_since(stream, world.now() - secs(100));
        assert_eq!(report.lost(), 0, "{report}");
    }
    assert_eq!((ups(&world, peer), ups(&world, hub)), (1, 1));
}

#[test]
fn session_ends_after_its_silence_and_a_new_one_begins() {
    let mut world = world(702);
    let (peer, hub) = world.pair(clean(50));

    world.link(peer, hub, clean(50).down());
    world.run(SESSION_SILENCE + secs(60));

    for host in [peer, hub] {
        let silence =
            |event: &Event| matches!(event, Event::SessionDown { reason: DownReason::Silence, .. });
        assert_eq!(count(&world, host, silence), 1);
    }
    world.link(peer, hub, clean(50));
    world.run_until_connected(peer, hub, secs(60));
}

#[test]
fn restarted_peer_is_back_in_moments() {
    let mut world = world(703);
    let (peer, hub) = world.pair(clean(50));
    world.run(secs(30));

    world.restart(peer);
    world.run(secs(1));

    assert!(heal(&mut world, peer, hub) < 3);
    let restarted =
        |event: &Event| matches!(event, Event::SessionDown { reason: DownReason::Restarted, .. });
    assert_eq!(count(&world, hub, restarted), 1);
    assert_eq!(ups(&world, hub), 2);
}

#[test]
fn restarted_hub_is_found_again_by_its_peers() {
    let mut world = world(704);
    let (hub, peers) = world.star(5);
    world.run(secs(30));
    assert!(peers.iter().all(|peer| world.connected(*peer, hub)));

    world.restart(hub);

    for peer in peers {
        let healed = heal(&mut world, peer, hub);
        assert!(healed < 40, "{healed} s");
    }
}

#[test]
fn peers_find_each_other_after_either_restarted() {
    for restarted in [0, 1] {
        let mut world = world(705);
        let pair = [world.peer(), world.peer()];
        world.link(pair[0], pair[1], clean(50));
        world.introduce(pair[0], pair[1], None);
        world.send(pair[0], pair[1], 100);
        world.run_until_connected(pair[0], pair[1], secs(5));
        world.run(secs(20));

        world.restart(pair[restarted]);

        let healed = heal(&mut world, pair[0], pair[1]);
        assert!(healed < 40, "{healed} s after {restarted} restarted");
    }
}

#[test]
fn both_restarted_at_once_meet_again() {
    let mut world = world(706);
    let (peer, hub) = world.pair(clean(50));
    world.run(secs(30));

    world.restart(peer);
    world.restart(hub);

    assert!(heal(&mut world, peer, hub) < 10);
}

#[test]
fn hub_gone_for_five_minutes_is_found_again() {
    let mut world = world(707);
    let (peer, hub) = world.pair(clean(50));
    world.run(secs(30));

    world.restart(peer);
    world.run(secs(5));
    world.kill(hub);
    world.run(secs(300));
    world.restart(hub);

    let healed = heal(&mut world, peer, hub);
    assert!(healed < 40, "{healed} s");
}

#[test]
fn machine_that_slept_an_hour_is_back_in_moments() {
    let mut world = world(708);
    let (peer, hub) = world.pair(clean(50));
    world.run(secs(30));

    world.sleep(peer);
    world.run(secs(3_600));
    world.wake(peer);

    let healed = heal(&mut world, peer, hub);
    assert!(healed < 20, "{healed} s");
}

#[test]
fn machine_that_slept_five_minutes_keeps_its_session() {
    let mut world = world(709);
    let (peer, hub) = world.pair(clean(50));
    world.run(secs(30));

    world.sleep(peer);
    world.run(secs(300));
    world.wake(peer);

    let healed = heal(&mut world, peer, hub);
    assert!(healed < 20, "{healed} s");
    assert_eq!((ups(&world, peer), ups(&world, hub)), (1, 1));
}

#[test]
fn closed_session_is_told_at_once() {
    let mut world = world(710);
    let (peer, hub) = world.pair(clean(50));

    world.command(peer, fastvpn_proto::node::Command::Close);
    world.run(ms(100));

    let closed =
        |event: &Event| matches!(event, Event::SessionDown { reason: DownReason::Closed, .. });
    assert_eq!(count(&world, hub, closed), 1);
}

/// Sends a packet each way every second until one of both has arrived, and returns the seconds
fn heal(world: &mut World, one: HostId, other: HostId) -> u64 {
    for second in 1..=120 {
        let packets = [world.send(one, other, 200), world.send(other, one, 200)];
        world.run(secs(1));
        if packets.iter().all(|packet| world.arrived(*packet)) {
            return second;
        }
    }
    world.fail("did not heal within two minutes")
}
