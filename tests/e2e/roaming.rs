//! Addresses that change, ways that are blocked, boxes that translate.

use std::sync::Arc;
use std::time::Duration;

use fastvpn_tests::lab::load::Transfer;
use fastvpn_tests::lab::nat::{Nat, NatKind};
use fastvpn_tests::lab::star::{Families, NETWORK, node, number};
use fastvpn_tests::lab::{Host, Lab, Node, Pass, Star, StarPlan, outer_v4};
use fastvpn_tests::link::{LinkConfig, mbit, ms};

use crate::runner::cases;
use crate::support::{BRIEF, LONG, await_path, plan, probes, star};

cases![
    address_changes_during_a_transfer,
    blocked_udp_is_relayed_and_stays_private,
    hub_address_change_of_a_peer_is_pushed,
    peer_behind_nat_is_reached["nft"],
    peers_behind_symmetric_nats_reach_each_other["nft"],
];

fn address_changes_during_a_transfer() {
    let link = LinkConfig::new().delay(ms(20)).rate(mbit(50));
    let star = Star::up(StarPlan { link, ..plan() }).unwrap();
    let probes = probes(&star);
    let (from, to) = (&star.peers[0].host, &star.peers[1].host);
    let transfer = Transfer::start(from, to, star.at(1, 7100), 24 << 20).unwrap();
    assert!(transfer.reaches(4 << 20, LONG));

    star.move_peer(0, number(0), 41).unwrap();
    star.peers[1]
        .await_peer("peer1", "at its new address", BRIEF, |peer| {
            peer["path"]["endpoint"].as_str().is_some_and(|at| at.starts_with("198.51.100.41:"))
        })
        .unwrap();

    transfer.finish(LONG).unwrap();
    let report = probes.finish().unwrap();
    assert!(report.longest_gap < Duration::from_secs(1), "{:?}", report.longest_gap);
}

fn hub_address_change_of_a_peer_is_pushed() {
    let star = star();

    // no session between the peers yet: only the hub can tell the new address
    star.move_peer(1, number(1), 42).unwrap();
    star.hub
        .await_peer("peer2", "at its new address", BRIEF, |peer| {
            peer["path"]["endpoint"].as_str().is_some_and(|at| at.starts_with("198.51.100.42:"))
        })
        .unwrap();

    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    await_path(&star.peers[0], "peer2", "direct", BRIEF);
}

fn blocked_udp_is_relayed_and_stays_private() {
    let mut star = Star::new(plan()).unwrap();
    for peer in 0..2 {
        // with TCP they would still reach each other straight
        let config = format!("carrier = \"udp\"\n{}", star.peer_config(peer));
        star.peers[peer].configure(NETWORK, &config).unwrap();
    }
    star.start().unwrap();
    let (one, other) = (star.peer_ports[0], star.peer_ports[1]);
    star.lab.wire.udp(one, other, Pass::No);

    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    await_path(&star.peers[0], "peer2", "relayed", BRIEF);
    await_path(&star.peers[1], "peer1", "relayed", BRIEF);
    let (from, to) = (&star.peers[0].host, &star.peers[1].host);
    star.lab.wire.tap();
    Transfer::start(from, to, star.at(1, 7100), 2 << 20).unwrap().finish(LONG).unwrap();
    assert!(!star.lab.wire.captured().is_empty());
    // the hub carried it all, and none of it came out of its interface
    let hub = star.hub.status("lab").unwrap();
    let carried = star.lab.wire.counters(one, star.hub_port).delivered.bytes;
    assert!(carried > 2 << 20, "{carried}");
    assert!(hub["counters"]["received"]["bytes"].as_u64().unwrap_or(0) < 1 << 20, "{hub}");

    star.lab.wire.udp(one, other, Pass::Yes);
    await_path(&star.peers[0], "peer2", "direct", LONG);
    await_path(&star.peers[1], "peer1", "direct", LONG);
}

/// A star whose first peers are each behind a box
fn behind(kinds: &[NatKind]) -> (Star, Vec<Nat>) {
    let lab = Lab::new().unwrap();
    let hub = node(&lab, "hub", 1, Families::V4).unwrap();
    let (mut peers, mut ports, mut boxes) = (Vec::new(), Vec::new(), Vec::new());
    for peer in 0..2 {
        let name = format!("peer{}", peer + 1);
        match kinds.get(peer) {
            Some(kind) => {
                let host = Host::new(&name).unwrap();
                let nat = Nat::new(&lab.wire, outer_v4(number(peer)), &host, *kind).unwrap();
                ports.push(nat.port);
                boxes.push(nat);
                peers.push(Node::new(Arc::new(host), lab.directory()).unwrap());
            }
            None => {
                let (node, port) = node(&lab, &name, number(peer), Families::V4).unwrap();
                ports.push(port);
                peers.push(node);
            }
        }
    }
    let mut star = Star::assemble(lab, plan(), hub, peers, ports).unwrap();
    star.start().unwrap();
    (star, boxes)
}

fn peer_behind_nat_is_reached() {
    let (star, _boxes) = behind(&[NatKind::PortRestricted]);

    // from outside first: the way in is closed until the one inside has called
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    await_path(&star.peers[1], "peer1", "direct", LONG);
}

fn peers_behind_symmetric_nats_reach_each_other() {
    let (star, _boxes) = behind(&[NatKind::Symmetric, NatKind::Symmetric]);

    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    await_path(&star.peers[1], "peer1", "relayed", BRIEF);
}
