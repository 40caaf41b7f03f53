//! Peers reach each other through the hub where nothing else works; the hub cannot read it.
//!
//! That no plaintext is on any wire, the hub's included, is watched by the oracle in all tests.

use fastvpn_proto::node::{Command, Contact, PeerConfig, Way};
use fastvpn_tests::link::secs;
use fastvpn_tests::world::{Flow, HostId, World};

use crate::{clean, world};

#[test]
fn dead_direct_way_is_relayed_from_the_start() {
    let (mut world, hub, one, other) = triangle(800);
    world.link(one, other, clean(50).down());

    let packets = [world.send(one, other, 1_400), world.send(other, one, 100)];
    world.run(secs(10));

    assert!(packets.iter().all(|packet| world.arrived(*packet)));
    assert_eq!(world.way(one, other), Some(Way::Relayed(world.key(hub))));
    assert_eq!(world.way(other, one), Some(Way::Relayed(world.key(hub))));
    assert!(world.stats(hub).relayed.packets > 0);
}

#[test]
fn direct_way_is_used_where_it_works() {
    let (mut world, hub, one, other) = triangle(801);

    let stream = world.stream(one, other, Flow::new(50, 500).lasting(secs(10)));
    world.run(secs(11));

    let report = world.report(stream);
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(world.way(one, other), Some(Way::Direct(world.endpoint(other))));
    assert!(world.stats(hub).relayed.packets < 50, "{:?}", world.stats(hub).relayed);
}

#[test]
fn traffic_moves_to_the_relay_and_back() {
    let (mut world, hub, one, other) = triangle(802);
    let stream = world.stream(one, other, Flow::new(20, 500).lasting(secs(300)));
    let back = world.stream(other, one, Flow::new(20, 500).lasting(secs(300)));
    world.run(secs(30));
    assert_eq!(world.way(one, other), Some(Way::Direct(world.endpoint(other))));

    world.link(one, other, clean(50).down());
    world.run(secs(100));
    assert_eq!(world.way(one, other), Some(Way::Relayed(world.key(hub))));

    world.link(one, other, clean(50));
    let returned = world.now();
    world.run(secs(171));
    assert_eq!(world.way(one, other), Some(Way::Direct(world.endpoint(other))));
    assert_eq!(world.way(other, one), Some(Way::Direct(world.endpoint(one))));

    for stream in [stream, back] {
        let report = world.report(stream);
        assert!(report.longest_gap < secs(20), "{report}");
        let report = world.report_since(stream, returned);
        assert_eq!(report.lost(), 0, "the way back loses nothing: {report}");
    }
}

#[test]
fn way_that_is_dead_in_one_direction_is_not_used() {
    let (mut world, hub, one, other) = triangle(803);
    let stream = world.stream(one, other, Flow::new(20, 500).lasting(secs(100)));
    world.run(secs(20));

    world.one_way(one, other, clean(50).down());
    world.run(secs(81));

    let report = world.report_since(stream, world.now() - secs(40));
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(world.way(one, other), Some(Way::Relayed(world.key(hub))));
}

#[test]
fn node_that_is_no_relay_carries_nothing() {
    let mut world = world(804);
    let middle = world.peer();
    let (one, other) = (world.peer(), world.peer());
    world.introduce(one, middle, None);
    world.introduce(other, middle, None);
    world.introduce(one, other, Some(middle));
    world.link(one, other, clean(1).down());
    world.send(one, middle, 100);
    world.send(other, middle, 100);
    world.run(secs(2));

    let packet = world.send(one, other, 100);
    world.run(secs(10));

    assert!(!world.arrived(packet));
    assert_eq!(world.stats(middle).relayed.packets, 0);
}

#[test]
fn nothing_is_relayed_from_or_for_who_has_no_address_and_is_no_member_yet() {
    let (mut world, hub, one, other) = triangle(805);
    world.link(one, other, clean(50).down());
    let before = world.send(one, other, 100);
    world.run(secs(5));
    let relayed = world.stats(hub).relayed;

    let pending = PeerConfig { prefixes: Vec::new(), ..world.as_peer(one, Contact::Await) };
    world.command(hub, Command::SetPeer(pending));
    let after = [world.send(one, other, 100), world.send(other, one, 100)];
    world.run(secs(5));

    assert!(world.arrived(before) && relayed.packets > 0);
    assert!(!after.iter().any(|packet| world.arrived(*packet)));
    assert_eq!(world.stats(hub).relayed, relayed);
    assert!(world.connected(one, hub), "its session with the hub goes on");
}

fn triangle(number: u64) -> (World, HostId, HostId, HostId) {
    let mut world = world(number);
    world.every_link(clean(30));
    let (hub, peers) = world.star(2);
    world.link(peers[0], peers[1], clean(50));
    for peer in &peers {
        world.run_until_connected(*peer, hub, secs(5));
    }
    world.introduce(peers[0], peers[1], Some(hub));
    (world, hub, peers[0], peers[1])
}
