//! Which inner packets are let through.

use fastvpn_proto::node::{Refusal, Traffic};
use fastvpn_tests::link::secs;
use fastvpn_tests::world::Family;

use crate::{clean, refused, world};

/// The oracle fails the test if a forged packet is delivered
#[test]
fn source_that_is_not_the_senders_is_refused() {
    let mut world = world(1_100);
    let (hub, peers) = world.star(2);
    world.run_until_connected(peers[0], hub, secs(5));
    world.run_until_connected(peers[1], hub, secs(5));

    let others = [
        world.overlay(peers[1], Family::V4),
        world.overlay(hub, Family::V4),
        world.overlay(peers[1], Family::V6),
        "203.0.113.9".parse().unwrap(),
    ];
    for src in others {
        world.forge(peers[0], src, hub, 200);
    }
    let honest = world.send(peers[0], hub, 200);
    world.run(secs(1));

    assert!(world.arrived(honest));
    assert_eq!(refused(&world, hub, Refusal::Source), others.len() as u64);
}

#[test]
fn packet_without_a_route_is_counted_and_answered_by_nobody() {
    let mut world = world(1_101);
    let (peer, hub) = world.pair(clean(10));
    let unknown = world.peer();
    world.run(secs(5));
    let before = world.sent(hub);

    let packet = world.send(peer, unknown, 200);
    world.run(secs(1));

    assert!(!world.arrived(packet));
    assert_eq!(refused(&world, peer, Refusal::NoRoute), 1);
    assert!(world.sent(hub).packets <= before.packets + 2);
}

#[test]
fn packets_and_bytes_are_counted_at_both_ends() {
    let mut world = world(1_102);
    let (peer, hub) = world.pair(clean(10));

    for _ in 0..10 {
        world.send(peer, hub, 500);
    }
    world.run(secs(1));

    let ten = Traffic { packets: 10, bytes: 5_000 };
    assert_eq!(world.peer_stats(peer, hub).map(|stats| stats.sent), Some(ten));
    assert_eq!(world.peer_stats(hub, peer).map(|stats| stats.received), Some(ten));
}
