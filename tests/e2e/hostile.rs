//! Strangers, wrong keys, replays, floods, and members that lie about their address.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use fastvpn_tests::lab::daemon::Key;
use fastvpn_tests::lab::star::{HUB_PORT, INTERFACE, NETWORK, restrict};
use fastvpn_tests::lab::wire::Captured;
use fastvpn_tests::lab::{Node, Star, StarPlan, inner_v4, load, outer_v4, until};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::runner::cases;
use crate::support::{BRIEF, await_refusal, await_up, plan, probes, star};

cases![
    address_of_another_member_is_refused_as_source,
    non_member_gets_no_answer,
    random_packets_do_not_disturb,
    replayed_packets_change_nothing,
    two_peers_that_claim_one_address_are_told,
    wrong_hub_key_gets_no_answer,
    wrong_network_key_gets_no_answer,
];

/// Starts the second peer only after its configuration was spoiled; the first one is up
fn start_with_spoiled(star: &mut Star, text: &str) {
    star.hub.start().unwrap();
    star.peers[0].start().unwrap();
    await_up(&star.peers[0], BRIEF);
    star.peers[1].configure(NETWORK, text).unwrap();
    star.peers[1].start().unwrap();
}

/// Asserts that the hub has heard the second peer and never said a word to it
fn assert_ignored(star: &Star, reason: &str) {
    await_refusal(&star.hub, reason);
    let (peer, hub) = (star.peer_ports[1], star.hub_port);
    assert!(star.lab.wire.counters(peer, hub).delivered.items > 0);
    assert_eq!(star.lab.wire.counters(hub, peer).pushed.items, 0, "the hub answered");
    assert_eq!(star.peers[1].status(NETWORK).unwrap()["state"], "connecting");
    assert!(star.peers[0].peer("peer2").is_err());
    star.peers[0].reaches(inner_v4(1).into(), BRIEF).unwrap();
}

fn non_member_gets_no_answer() {
    let mut star = Star::new(plan()).unwrap();
    let stranger: Key = star.peers[1].keygen("other").unwrap();
    let text = star.peer_config_with(1, &stranger, &star.keys[0].public);

    start_with_spoiled(&mut star, &text);

    assert_ignored(&star, "not-member");
}

fn wrong_hub_key_gets_no_answer() {
    let mut star = Star::new(plan()).unwrap();
    let other = star.peers[1].keygen("other").unwrap();
    let text = star.peer_config_with(1, &star.keys[2], &other.public);

    start_with_spoiled(&mut star, &text);

    assert_ignored(&star, "no-mac");
}

fn wrong_network_key_gets_no_answer() {
    let mut star = Star::new(StarPlan { network_key: true, ..plan() }).unwrap();
    let psk = star.peers[1].path("psk");
    std::fs::write(&psk, "YW5vdGhlciBuZXR3b3JrJ3Mga2V5IG9mIDMyIGJ5dGU=\n").unwrap();
    restrict(&psk).unwrap();
    let text = star.peer_config(1);

    start_with_spoiled(&mut star, &text);

    assert_ignored(&star, "no-mac");
}

fn replayed_packets_change_nothing() {
    let mut star = Star::new(plan()).unwrap();
    star.lab.wire.tap();
    star.start().unwrap();
    let probes = probes(&star);
    let taken: Vec<Captured> = star.lab.wire.captured();
    assert!(taken.len() > 20);

    // everything again, handshakes included, several times
    for _ in 0..3 {
        for captured in &taken {
            star.lab.wire.inject(captured.to, &captured.packet).unwrap();
        }
    }

    await_refusal(&star.hub, "replayed");
    await_refusal(&star.peers[1], "replayed");
    assert!(probes.more(100, BRIEF));
    let report = probes.finish().unwrap();
    assert_eq!(report.duplicates, 0, "a replayed packet came through");
    assert!(report.longest_gap < Duration::from_millis(300), "{:?}", report.longest_gap);
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
}

fn random_packets_do_not_disturb() {
    let star = star();
    let (host, stranger) = star.lab.host("stranger", &[outer_v4(66).into()]).unwrap();
    let probes = probes(&star);
    let socket = host.run(|_| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let mut chance = ChaCha8Rng::seed_from_u64(7);

    let start = Instant::now();
    let mut sent = 0u64;
    while start.elapsed() < Duration::from_secs(3) {
        for _ in 0..20 {
            let mut payload = vec![0; (chance.next_u32() % 1400) as usize];
            chance.fill_bytes(&mut payload);
            if let Some(first) = payload.first_mut() {
                // plausible kinds of messages as well as impossible ones
                *first %= 8;
            }
            socket.send_to(&payload, (outer_v4(1), HUB_PORT)).unwrap();
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }

    let before = sent;
    star.hub
        .await_status(NETWORK, "refusing", BRIEF, |status| {
            let refusals = status["refusals"].as_object().cloned().unwrap_or_default();
            refusals.values().filter_map(serde_json::Value::as_u64).sum::<u64>() > before / 2
        })
        .unwrap();
    assert_eq!(star.lab.wire.counters(star.hub_port, stranger).pushed.items, 0, "answered");
    assert!(probes.more(50, BRIEF));
    let report = probes.finish().unwrap();
    assert!(report.longest_gap < Duration::from_millis(500), "{:?}", report.longest_gap);
    // the log does not grow with the flood
    let lines = star.hub.log().lines().filter(|line| !line.contains("TRACE")).count();
    assert!(lines < 2_000, "{lines} lines for {sent} packets");
    late_member_still_comes(&star);
}

/// After a flood the hub still admits
fn late_member_still_comes(star: &Star) {
    assert_eq!(star.peers[1].ctl(&["disconnect", NETWORK]).unwrap().code, 0);
    assert_eq!(star.peers[1].ctl(&["connect", NETWORK]).unwrap().code, 0);
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
}

fn address_of_another_member_is_refused_as_source() {
    let star = Star::up(StarPlan { peers: 3, ..plan() }).unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    // the third peer's address on the first one's interface
    let forged = star.ip(2);
    star.peers[0].host.add_address(INTERFACE, forged, 32).unwrap();
    let mut ping = star.peers[0].host.command("ping");
    ping.args(["-c3", "-i0.1", "-W1", "-I", &forged.to_string(), &star.ip(1).to_string()]);
    assert!(!star.peers[0].host.output(ping).unwrap().status.success());

    let counted = |node: &Node| node.refused(NETWORK, "source").unwrap();
    // numbers are told once a second
    let refused = || counted(&star.peers[1]) + counted(&star.peers[0]) > 0;
    assert!(until(BRIEF, refused), "not counted");
    assert_eq!(load::ping(&star.peers[2].host, star.ip(1), 3, PAUSE).unwrap().received, 3);
}

fn two_peers_that_claim_one_address_are_told() {
    let mut star = Star::new(plan()).unwrap();
    // members without fixed addresses
    let hub: String = star
        .hub_config(2)
        .lines()
        .filter(|line| {
            !(line.starts_with("address")
                && line.contains("10.97.0.1")
                && !line.contains("10.97.0.1/"))
        })
        .fold(String::new(), |all, line| all + line + "\n");
    star.hub.configure(NETWORK, &hub).unwrap();
    let own = star.peer_config(1);
    let claimed = own.replace("10.97.0.12", "10.97.0.11").replace("fd97::c/", "fd97::b/");
    assert_ne!(own, claimed);

    start_with_spoiled(&mut star, &claimed);

    let status = star.peers[1]
        .await_status(NETWORK, "told of the conflict", BRIEF, |status| {
            status["state"] != "up"
                && status["detail"].as_str().is_some_and(|text| !text.is_empty())
        })
        .unwrap();
    assert!(status["detail"].as_str().unwrap().contains("10.97.0.11"), "{status}");
    star.peers[0].reaches(inner_v4(1).into(), BRIEF).unwrap();

    star.peers[1].configure(NETWORK, &own).unwrap();
    assert_eq!(star.peers[1].ctl(&["reload"]).unwrap().code, 0);
    await_up(&star.peers[1], BRIEF);
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
}

const PAUSE: Duration = Duration::from_millis(100);
