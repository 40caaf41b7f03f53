//! Where memory is short, TCP goes as it is over a path that is near and clean, and is split over others.

use fastvpn_proto::node::{Carriage, Command, Engine};
use fastvpn_proto::time::Duration;
use fastvpn_tests::link::{LinkConfig, mbit, ms, percent, secs};
use fastvpn_tests::world::{HostId, TcpId, Work, World};

use crate::world;

/// Enough in both directions to know a path
const LOAD: Work = Work::Both(8_000_000);
/// Somebody types, and looks at what comes back, for a minute
const TALK: Work =
    Work::Talk { rounds: 300, request: 50, answer: 400, pause: Duration::from_millis(200) };

/// A wire with a round trip of a millisecond
fn near() -> LinkConfig {
    LinkConfig::new().delay(Duration::from_micros(500)).rate(mbit(300)).queue(ms(30))
}

#[test]
fn near_and_clean_path_has_new_connections_as_packets_once_memory_is_short() {
    let mut world = world(2_300);
    let (peer, hub) = world.pair(near());
    carry(&mut world, peer, hub);
    let kept = world.tcp(peer, hub, TALK);
    world.run(ms(100));
    assert_eq!(splits(&world, peer), 1, "memory is plenty");

    squeeze(&mut world, &[peer, hub]);

    for host in [peer, hub] {
        assert_eq!(carriage(&world, host), Some(Carriage::Plain));
    }
    let fresh = [world.tcp(peer, hub, TALK), world.tcp(hub, peer, TALK)];
    world.run(ms(100));
    assert_eq!(
        (splits(&world, peer), splits(&world, hub)),
        (1, 1),
        "the first one stays what it is"
    );
    assert_all_end_well(&mut world, &[&[kept][..], &fresh[..]].concat());
}

#[test]
fn path_that_is_far_or_lossy_or_unknown_has_connections_split_though_memory_is_short() {
    let far = LinkConfig::new().delay(ms(15)).rate(mbit(300)).queue(ms(30));
    for (link, known) in [(far, true), (near().loss(percent(1)), true), (near(), false)] {
        let mut world = world(2_301);
        let (peer, hub) = world.pair(link);
        if known {
            carry(&mut world, peer, hub);
        }
        let kept = world.tcp(peer, hub, TALK);
        world.run(ms(100));
        squeeze(&mut world, &[peer, hub]);

        let fresh = [world.tcp(peer, hub, TALK), world.tcp(hub, peer, TALK)];
        world.run(ms(100));

        assert_eq!((splits(&world, peer), splits(&world, hub)), (3, 3));
        assert_all_end_well(&mut world, &[&[kept][..], &fresh[..]].concat());
    }
}

#[test]
fn loss_of_one_direction_alone_is_seen_at_both_ends() {
    let mut world = world(2_302);
    let (peer, hub) = world.pair(near());
    world.one_way(hub, peer, near().loss(percent(1)));
    carry(&mut world, peer, hub);
    let kept = world.tcp(peer, hub, TALK);
    world.run(ms(100));

    squeeze(&mut world, &[peer, hub]);

    for host in [peer, hub] {
        assert_eq!(carriage(&world, host), Some(Carriage::Split));
    }
    assert_all_end_well(&mut world, &[kept]);
}

#[test]
fn path_that_gets_worse_has_new_connections_split_and_old_ones_go_on_as_they_are() {
    let mut world = world(2_303);
    let (peer, hub) = world.pair(near());
    carry(&mut world, peer, hub);
    let kept = world.tcp(peer, hub, Work::Idle(secs(150)));
    world.run(ms(100));
    squeeze(&mut world, &[peer, hub]);
    let long =
        Work::Talk { rounds: 500, request: 50, answer: 400, pause: Duration::from_millis(200) };
    let plain = world.tcp(peer, hub, long);
    world.run(ms(100));
    assert_eq!(splits(&world, peer), 1);

    world.link(peer, hub, near().loss(percent(2)));
    carry(&mut world, peer, hub);
    let split = world.tcp(peer, hub, TALK);
    world.run(ms(100));

    assert_eq!((splits(&world, peer), splits(&world, hub)), (2, 2));
    assert_all_end_well(&mut world, &[kept, plain, split]);
}

/// Has the path carry enough to be known, its rate as well, and waits until no trace of that is left
fn carry(world: &mut World, peer: HostId, hub: HostId) {
    for _ in 0..4 {
        let load = world.tcp(peer, hub, LOAD);
        world.run_until_over(&[load], secs(60));
        world.run(secs(10));
    }
}

/// Leaves hosts no more memory than two connections were promised in the beginning
fn squeeze(world: &mut World, hosts: &[HostId]) {
    for host in hosts {
        let engine = Engine { memory: 2 << 20, ..Engine::default() };
        world.command(*host, Command::Configure(engine));
    }
}

/// Connections that a host splits
fn splits(world: &World, host: HostId) -> usize {
    world.stats(host).connections
}

/// How a host would carry a connection to the only node that it knows
fn carriage(world: &World, host: HostId) -> Option<Carriage> {
    world.stats(host).peers.first().and_then(|peer| peer.tcp)
}

fn assert_all_end_well(world: &mut World, all: &[TcpId]) {
    world.run_until_over(all, secs(120));
    assert!(all.iter().all(|id| !world.connection(*id).was_reset()));
}
