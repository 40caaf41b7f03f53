//! Peers behind address translators.

use fastvpn_proto::node::{Contact, Way};
use fastvpn_tests::link::secs;
use fastvpn_tests::world::nat::NatConfig;
use fastvpn_tests::world::{Flow, HostId, World};

use crate::{clean, downs, world};

#[test]
fn mapping_of_an_idle_peer_stays_open() {
    for nat in all() {
        let mut world = world(1_500);
        let (hub, peer) = (world.hub(), world.peer());
        world.behind_nat(peer, nat.expiry(secs(30)));
        world.join(peer, hub);
        world.run_until_connected(peer, hub, secs(5));

        world.run(secs(600));
        let packet = world.send(hub, peer, 300);
        world.run(secs(1));

        assert!(world.arrived(packet), "{nat:?}");
        assert_eq!(downs(&world, hub), 0);
    }
}

#[test]
fn forgotten_mapping_is_a_move() {
    let mut world = world(1_501);
    let (hub, peer) = (world.hub(), world.peer());
    world.behind_nat(peer, NatConfig::symmetric());
    world.join(peer, hub);
    world.run_until_connected(peer, hub, secs(5));
    let stream = world.stream(hub, peer, Flow::new(20, 300).lasting(secs(60)));
    world.run(secs(10));

    world.forget_mappings(peer);
    world.run(secs(51));

    let report = world.report_since(stream, world.now() - secs(30));
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(downs(&world, hub), 0);
}

#[test]
fn peers_behind_nats_reach_each_other_one_way_or_another() {
    for nat in all() {
        for other_nat in all() {
            let (world, one, other, hub) = two_behind(nat, other_nat);
            let way = world.way(one, other);
            let relayed = way == Some(Way::Relayed(world.key(hub)));
            let both_mapped = [nat, other_nat].iter().all(|nat| *nat != NatConfig::symmetric());
            assert!(way.is_some(), "{nat:?} {other_nat:?}");
            assert!(!(both_mapped && relayed), "{nat:?} and {other_nat:?} allow a direct way");
        }
    }
}

fn all() -> [NatConfig; 4] {
    [
        NatConfig::full_cone(),
        NatConfig::address_restricted(),
        NatConfig::port_restricted(),
        NatConfig::symmetric(),
    ]
}

/// Introduces two peers by the addresses that the hub sees, and lets them talk
fn two_behind(nat: NatConfig, other_nat: NatConfig) -> (World, HostId, HostId, HostId) {
    let mut world = world(1_502);
    world.every_link(clean(20));
    let (hub, one, other) = (world.hub(), world.peer(), world.peer());
    for (peer, nat) in [(one, nat), (other, other_nat)] {
        world.behind_nat(peer, nat);
        world.join(peer, hub);
        world.run_until_connected(peer, hub, secs(5));
    }
    for (to, of) in [(one, other), (other, one)] {
        let mut config = world.as_peer(of, Contact::OnDemand);
        config.endpoints = match world.way(hub, of) {
            Some(Way::Direct(seen)) => vec![seen],
            Some(Way::Relayed(_) | Way::Stream(..)) | None => Vec::new(),
        };
        config.relay = Some(world.key(hub));
        world.know(to, config);
    }
    let there = world.stream(one, other, Flow::new(10, 300).lasting(secs(40)));
    let back = world.stream(other, one, Flow::new(10, 300).lasting(secs(40)));
    world.run(secs(41));
    for stream in [there, back] {
        let report = world.report_since(stream, world.now() - secs(20));
        assert_eq!(report.lost(), 0, "{nat:?} {other_nat:?}: {report}");
    }
    (world, one, other, hub)
}
