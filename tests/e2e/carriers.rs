//! Stream carriers: where UDP is blocked, where they are asked for, and what strangers may cost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use fastvpn_tests::lab::load::{self, Transfer};
use fastvpn_tests::lab::star::{Families, HUB_PORT, NETWORK};
use fastvpn_tests::lab::{Node, Pass, Star, StarPlan, outer_v4, until};
use fastvpn_tests::link::{LinkConfig, mbit, ms};

use crate::runner::cases;
use crate::support::{BRIEF, LONG, await_path, await_up, plan, star};

cases![
    blocked_udp_to_the_hub_is_answered_by_tcp_until_it_is_back,
    blocked_udp_between_peers_is_answered_by_tcp_until_it_is_back,
    broken_connection_is_made_again_in_mid_transfer["ss"],
    carrier_kcp_carries_everything_by_kcp,
    carrier_tcp_carries_everything_by_tcp,
    hub_on_both_families_is_reached_over_streams_by_either,
    hub_with_udp_alone_takes_no_connections_until_it_is_told_to,
    network_that_never_sees_udp_comes_up_over_tcp,
    restarted_hub_is_found_again_over_kcp,
    restarted_hub_is_found_again_over_tcp,
    strangers_who_connect_are_closed_and_cost_little,
    strangers_who_send_segments_get_no_session,
];

/// Between any two of the first three hosts, or only between two of them
fn block(star: &Star, passes: Pass) {
    let ports = [star.hub_port, star.peer_ports[0], star.peer_ports[1]];
    for (at, one) in ports.iter().enumerate() {
        for other in &ports[at + 1..] {
            star.lab.wire.udp(*one, *other, passes);
        }
    }
}

fn over(carrier: &str) -> Star {
    Star::up(chosen(carrier)).unwrap()
}

fn chosen(carrier: &str) -> StarPlan {
    let lines = format!("carrier = \"{carrier}\"\nlisten = \"0.0.0.0:{HUB_PORT}\"\n");
    StarPlan { peer_lines: lines, ..plan() }
}

/// Ping and a transfer, both ways
fn all_works(star: &Star) {
    let (one, other) = (&star.peers[0], &star.peers[1]);
    one.reaches(star.ip(1), BRIEF).unwrap();
    other.reaches(star.ip(0), BRIEF).unwrap();
    let there = Transfer::start(&one.host, &other.host, star.at(1, 7100), 3 << 20).unwrap();
    let back = Transfer::start(&other.host, &one.host, star.at(0, 7100), 3 << 20).unwrap();
    there.finish(LONG).unwrap();
    back.finish(LONG).unwrap();
}

fn await_hub_path(star: &Star, kind: &str, patience: Duration) {
    for (at, name) in ["peer1", "peer2"].iter().enumerate().take(star.peers.len()) {
        star.hub
            .await_peer(name, &format!("{kind} path to {at}"), patience, |peer| {
                peer["path"]["kind"] == kind
            })
            .unwrap();
    }
}

fn network_that_never_sees_udp_comes_up_over_tcp() {
    let mut star = Star::new(plan()).unwrap();
    block(&star, Pass::No);

    star.start().unwrap();

    await_hub_path(&star, "tcp", BRIEF);
    all_works(&star);
    await_path(&star.peers[0], "peer2", "tcp", LONG);
}

fn blocked_udp_to_the_hub_is_answered_by_tcp_until_it_is_back() {
    let star = star();
    await_hub_path(&star, "direct", BRIEF);

    block(&star, Pass::No);
    await_hub_path(&star, "tcp", LONG);
    all_works(&star);

    block(&star, Pass::Yes);
    await_hub_path(&star, "direct", LONG);
    all_works(&star);
}

fn blocked_udp_between_peers_is_answered_by_tcp_until_it_is_back() {
    let star = star();
    let (one, other) = (star.peer_ports[0], star.peer_ports[1]);
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    await_path(&star.peers[0], "peer2", "direct", BRIEF);

    star.lab.wire.udp(one, other, Pass::No);
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    await_path(&star.peers[0], "peer2", "tcp", LONG);
    await_path(&star.peers[1], "peer1", "tcp", LONG);
    await_hub_path(&star, "direct", BRIEF);
    all_works(&star);

    star.lab.wire.udp(one, other, Pass::Yes);
    await_path(&star.peers[0], "peer2", "direct", LONG);
    await_path(&star.peers[1], "peer1", "direct", LONG);
}

fn carrier_tcp_carries_everything_by_tcp() {
    carries_everything("tcp");
}

fn carrier_kcp_carries_everything_by_kcp() {
    carries_everything("kcp");
}

fn carries_everything(carrier: &str) {
    let star = over(carrier);

    await_hub_path(&star, carrier, BRIEF);
    all_works(&star);
    await_path(&star.peers[0], "peer2", carrier, LONG);
    await_path(&star.peers[1], "peer1", carrier, LONG);
    let report = load::ping(&star.peers[0].host, star.ip(1), 20, Duration::from_millis(50));
    assert_eq!(report.unwrap().received, 20);
}

fn hub_on_both_families_is_reached_over_streams_by_either() {
    for carrier in ["tcp", "kcp"] {
        // the peers have no address in common: the hub relays
        let outer = vec![Families::Both, Families::V4, Families::V6];
        let peer_lines = format!("carrier = \"{carrier}\"\n");
        let star = Star::up(StarPlan { outer, peer_lines, ..plan() }).unwrap();

        await_hub_path(&star, carrier, BRIEF);
        all_works(&star);
        await_path(&star.peers[0], "peer2", "relayed", BRIEF);
    }
}

fn hub_with_udp_alone_takes_no_connections_until_it_is_told_to() {
    let mut star = Star::new(plan()).unwrap();
    let auto = star.hub_config(2);
    let alone = format!("carrier = \"udp\"\n{auto}");
    star.hub.configure(NETWORK, &alone).unwrap();
    star.start().unwrap();
    let connects = |star: &Star| star.peers[0].host.run(|_| connect().is_ok());
    assert!(!connects(&star));

    for (text, wanted) in [(&auto, true), (&alone, false)] {
        star.hub.configure(NETWORK, text).unwrap();
        assert_eq!(star.hub.ctl(&["reload"]).unwrap().code, 0);
        assert!(until(BRIEF, || connects(&star) == wanted), "{text}");
    }
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
}

fn restarted_hub_is_found_again_over_tcp() {
    hub_restarts(over("tcp"), "tcp");
}

fn restarted_hub_is_found_again_over_kcp() {
    hub_restarts(over("kcp"), "kcp");
}

fn hub_restarts(mut star: Star, carrier: &str) {
    star.hub.kill().unwrap();
    std::thread::sleep(Duration::from_secs(2));

    star.hub.start().unwrap();

    await_hub_path(&star, carrier, LONG);
    for peer in &star.peers {
        await_up(peer, LONG);
    }
    all_works(&star);
}

fn broken_connection_is_made_again_in_mid_transfer() {
    let link = LinkConfig::new().delay(ms(10)).rate(mbit(20));
    let star = Star::up(StarPlan { link, ..chosen("tcp") }).unwrap();
    let (from, to) = (&star.peers[0], &star.peers[1]);
    from.reaches(star.ip(1), BRIEF).unwrap();
    await_path(from, "peer2", "tcp", LONG);
    await_path(to, "peer1", "tcp", LONG);
    let transfer = Transfer::start(&from.host, &to.host, star.at(1, 7100), 12 << 20).unwrap();
    assert!(transfer.reaches(2 << 20, LONG));

    // the transfer's own connection is in the namespaces as well, with another port
    let ended = |node: &Node| node.log().matches("connection ended").count();
    let before = ended(from) + ended(to);
    for peer in [from, to] {
        let ports = ["(", "sport", "=", ":8796", "or", "dport", "=", ":8796", ")"];
        let all = [&["-K", "-t", "state", "established"][..], &ports].concat();
        peer.host.must("ss", &all, "").unwrap();
    }

    transfer.finish(LONG).unwrap();
    assert!(ended(from) + ended(to) >= before + 2, "nothing was broken");
    await_path(from, "peer2", "tcp", LONG);
}

fn strangers_who_connect_are_closed_and_cost_little() {
    let star = star();
    let (host, _) = star.lab.host("stranger", &[outer_v4(66).into()]).unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    let before = star.hub.descriptors().unwrap();

    let memory = star.hub.memory_kib().unwrap();
    let sent = host.run(|_| {
        let mut silent = Vec::new();
        let mut noisy = 0;
        for number in 0..3000 {
            let Ok(mut stream) = connect() else { continue };
            if number % 2 == 0 {
                let words: &[u8] = match number % 6 {
                    0 => b"GET / HTTP/1.1\r\n\r\n",
                    2 => &[0x04, 0x00, 1, 2, 3, 4, 5, 6],
                    _ => &[0; 64],
                };
                let _ = stream.write_all(words);
                noisy += 1;
            }
            silent.push(stream);
            if silent.len() > 500 {
                silent.remove(0);
            }
        }
        noisy
    });
    assert!(sent > 1000, "{sent} connections");

    let most = star.hub.descriptors().unwrap();
    assert!(most <= before + 40, "{most} descriptors, {before} before");
    let grown = star.hub.memory_kib().unwrap().saturating_sub(memory);
    assert!(grown < 24 << 10, "{grown} KiB more");
    let took = host.run(|_| silent_for());
    assert!(took < Duration::from_secs(8), "a silent stranger stayed for {took:?}");
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
    honest_comes_over_tcp(&star);
    assert!(star.hub.descriptors().unwrap() <= before + 8);
}

/// After the strangers, a member comes over TCP
fn honest_comes_over_tcp(star: &Star) {
    let member = &star.peers[1];
    assert_eq!(member.ctl(&["disconnect", NETWORK]).unwrap().code, 0);
    let text = format!("carrier = \"tcp\"\n{}", star.peer_config(1));
    member.configure(NETWORK, &text).unwrap();
    assert_eq!(member.ctl(&["reload"]).unwrap().code, 0);
    assert_eq!(member.ctl(&["connect", NETWORK]).unwrap().code, 0);
    await_path(&star.hub, "peer2", "tcp", LONG);
    member.reaches(star.ip(0), BRIEF).unwrap();
}

fn strangers_who_send_segments_get_no_session() {
    let star = over("kcp");
    let (host, port) = star.lab.host("stranger", &[outer_v4(66).into()]).unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    let (before, memory) = (star.hub.descriptors().unwrap(), star.hub.memory_kib().unwrap());

    host.run(|_| {
        for number in 0..3000u32 {
            // each from a port of its own, with a segment as stock KCP would begin with
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let mut segment = (number + 1).to_le_bytes().to_vec();
            segment.extend([81, 0, 0, 1]);
            segment.extend([0; 12]);
            segment.extend(1026u32.to_le_bytes());
            segment.extend([4, 0]);
            segment.extend([1; 1024]);
            let len = if number % 3 == 0 { 24 } else { segment.len() };
            socket.send_to(&segment[..len], (outer_v4(1), HUB_PORT + 1)).unwrap();
            if number % 50 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });

    assert!(star.hub.descriptors().unwrap() <= before + 2, "sessions were made");
    let grown = star.hub.memory_kib().unwrap().saturating_sub(memory);
    assert!(grown < 24 << 10, "{grown} KiB more");
    assert_eq!(star.lab.wire.counters(star.hub_port, port).pushed.items, 0, "answered");
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
}

fn connect() -> std::io::Result<TcpStream> {
    let hub = SocketAddr::from((outer_v4(1), HUB_PORT));
    TcpStream::connect_timeout(&hub, Duration::from_secs(2))
}

/// Connects and says nothing until it is closed; returns how long that took
fn silent_for() -> Duration {
    let start = Instant::now();
    let mut stream = connect().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "a stranger was answered");
    start.elapsed()
}
