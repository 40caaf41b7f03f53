//! Packets fit whatever the path carries, and the path's MTU is found.

use fastvpn_tests::link::{percent, secs};
use fastvpn_tests::world::{Flow, HostId, TooBig, World};

use crate::{clean, world};

#[test]
fn full_packets_pass_a_path_of_1280() {
    let mut world = world(1_000);
    let (peer, hub) = world.pair(clean(30).mtu(1_280));

    let there = world.stream(peer, hub, Flow::new(50, 1_400).lasting(secs(20)));
    let back = world.stream(hub, peer, Flow::new(50, 1_400).over_ipv6().lasting(secs(20)));
    world.run(secs(21));

    for stream in [there, back] {
        let report = world.report(stream);
        assert_eq!(report.lost(), 0, "{report}");
    }
}

#[test]
fn fragments_survive_loss_no_worse_than_their_number() {
    let mut world = world(1_001);
    let (peer, hub) = world.pair(clean(30).mtu(1_280).loss(percent(5)));

    let stream = world.stream(peer, hub, Flow::new(50, 1_400).lasting(secs(40)));
    world.run(secs(42));

    let report = world.report(stream);
    assert!(report.loss() < 0.14, "two fragments each: {report}");
}

#[test]
fn search_finds_1472() {
    let mut world = world(1_002);
    let (peer, hub) = world.pair(clean(30).mtu(1_500));

    world.run(secs(30));

    assert_eq!(mtu(&world, peer, hub), 1_472);
    assert_eq!(mtu(&world, hub, peer), 1_472);
}

#[test]
fn search_finds_1472_at_twenty_percent_loss() {
    let mut world = world(1_003);
    let (peer, hub) = world.pair(clean(30).mtu(1_500).loss(percent(20)));

    world.stream(peer, hub, Flow::new(10, 300).lasting(secs(120)));
    world.run(secs(120));

    let found = mtu(&world, peer, hub);
    assert!((1_300..=1_472).contains(&found), "{found}");
}

#[test]
fn black_hole_heals() {
    for too_big in [TooBig::Silent, TooBig::Told] {
        let mut world = world(1_004);
        let (peer, hub) = world.pair(clean(30).mtu(1_500));
        world.too_big(peer, hub, too_big);
        let stream = world.stream(peer, hub, Flow::new(50, 1_400).lasting(secs(120)));
        world.run(secs(30));

        world.link(peer, hub, clean(30).mtu(1_300));
        world.run(secs(91));

        let report = world.report(stream);
        assert!(report.longest_gap < secs(15), "{too_big:?}: {report}");
        let report = world.report_since(stream, world.now() - secs(60));
        assert_eq!(report.lost(), 0, "{too_big:?}: {report}");
        assert!(mtu(&world, peer, hub) <= 1_272, "{too_big:?}");
    }
}

#[test]
fn larger_mtu_is_found_after_a_while() {
    let mut world = world(1_005);
    let (peer, hub) = world.pair(clean(30).mtu(1_300));
    world.run(secs(60));
    assert!(mtu(&world, peer, hub) <= 1_272);

    world.link(peer, hub, clean(30).mtu(1_500));
    world.stream(peer, hub, Flow::new(5, 300).lasting(secs(1_200)));
    world.run(secs(1_200));

    assert_eq!(mtu(&world, peer, hub), 1_472);
}

fn mtu(world: &World, host: HostId, peer: HostId) -> u16 {
    let path = world.peer_stats(host, peer).and_then(|stats| stats.path);
    path.map_or(0, |path| path.mtu)
}
