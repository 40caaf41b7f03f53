//! The network carries: every family, every protocol, encrypted.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use fastvpn_tests::lab::load::{self, Transfer};
use fastvpn_tests::lab::{Families, Star, StarPlan, inner_v4, inner_v6, until};

use crate::runner::cases;
use crate::support::{BRIEF, await_path, plan, probes, star};

cases![
    content_is_never_readable_on_the_wire,
    families_outside_may_be_mixed,
    network_key_is_used,
    outside_may_be_ipv6_only,
    peers_reach_each_other_directly,
    tcp_udp_and_icmp_cross_unharmed,
];

fn peers_reach_each_other_directly() {
    let star = star();

    for target in star.inner(1) {
        star.peers[0].reaches(target, BRIEF).unwrap();
    }
    for hub in [IpAddr::from(inner_v4(1)), inner_v6(1).into()] {
        star.peers[1].reaches(hub, BRIEF).unwrap();
    }

    await_path(&star.peers[0], "peer2", "direct", BRIEF);
    await_path(&star.peers[1], "peer1", "direct", BRIEF);
    let report =
        load::ping(&star.peers[0].host, star.ip(1), 10, Duration::from_millis(50)).unwrap();
    assert_eq!(report.received, 10);
    // 20 ms are two ways of the direct link; by way of the hub it would be 40
    assert!(report.rtt_min().unwrap() < 30.0, "{report:?}");
    assert!(star.peers[0].host.devices().unwrap().contains(&"fvpn-lab".to_owned()));
}

fn outside_may_be_ipv6_only() {
    let star = Star::up(StarPlan { outer: vec![Families::V6], ..plan() }).unwrap();

    for target in star.inner(1) {
        star.peers[0].reaches(target, BRIEF).unwrap();
    }

    await_path(&star.peers[0], "peer2", "direct", BRIEF);
}

fn families_outside_may_be_mixed() {
    let outer = vec![Families::Both, Families::V4, Families::V6, Families::Both];
    let star = Star::up(StarPlan { outer, peers: 3, ..plan() }).unwrap();

    // the first two have no family in common, the third has one with each
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    star.peers[0].reaches(star.ip(2), BRIEF).unwrap();
    star.peers[1].reaches(star.ip(2), BRIEF).unwrap();

    await_path(&star.peers[0], "peer2", "relayed", BRIEF);
    await_path(&star.peers[0], "peer3", "direct", BRIEF);
    await_path(&star.peers[1], "peer3", "direct", BRIEF);
}

fn network_key_is_used() {
    let star = Star::up(StarPlan { network_key: true, ..plan() }).unwrap();

    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
}

fn tcp_udp_and_icmp_cross_unharmed() {
    let star = star();
    let probes = probes(&star);

    for peer in [1, 0] {
        let (from, to) = (&star.peers[1 - peer].host, &star.peers[peer].host);
        for target in star.inner(peer) {
            Transfer::start(from, to, (target, 7100).into(), 4 << 20)
                .unwrap()
                .finish(Duration::from_secs(30))
                .unwrap();
        }
    }
    // larger than the interface: the kernel cuts it before and joins it behind
    let mut large = star.peers[0].host.command("ping");
    large.args(["-c3", "-i0.1", "-W2", "-s8000", &star.ip(1).to_string()]);
    assert!(star.peers[0].host.output(large).unwrap().status.success());

    let report = probes.finish().unwrap();
    assert_eq!(report.duplicates, 0);
    assert!(report.received + 5 >= report.sent, "{} of {}", report.received, report.sent);
}

fn content_is_never_readable_on_the_wire() {
    const MARKER: &[u8] = b"this text must not be seen outside";
    let star = star();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    let (from, to) = (&star.peers[0].host, &star.peers[1].host);
    let target = star.at(1, 7200);
    let inbox = to.run(move |_| UdpSocket::bind(target)).unwrap();
    inbox.set_nonblocking(true).unwrap();
    let outbox = from.run(|_| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let seen = |packets: &[fastvpn_tests::lab::wire::Captured]| {
        packets.iter().any(|seen| seen.packet.windows(MARKER.len()).any(|part| part == MARKER))
    };

    star.lab.wire.tap();
    let mut buffer = [0; 100];
    assert!(until(BRIEF, || {
        outbox.send_to(MARKER, target).unwrap();
        matches!(inbox.recv(&mut buffer), Ok(len) if buffer[..len] == *MARKER)
    }));
    let inside = star.lab.wire.captured();
    assert!(!inside.is_empty());
    assert!(!seen(&inside), "the marker was on the wire");

    // the check itself works: outside of the network the marker is seen
    star.lab.wire.tap();
    outbox.send_to(MARKER, "198.51.100.12:9").unwrap();
    let mut outside = Vec::new();
    assert!(until(BRIEF, || {
        outside.extend(star.lab.wire.captured());
        star.lab.wire.tap();
        seen(&outside)
    }));
}
