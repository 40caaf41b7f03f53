//! The control tool against a daemon: tables, JSON, exit codes, live changes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use fastvpn_tests::lab::SOON;
use fastvpn_tests::lab::star::{INTERFACE, NETWORK};

use crate::runner::cases;
use crate::support::{BRIEF, await_up, star};

cases![
    connect_and_disconnect_last,
    daemon_that_is_not_there_is_said,
    monitor_shows_a_peer_that_goes,
    ping_measures_through_the_session,
    status_and_peers_tell_what_is,
];

fn status_and_peers_tell_what_is() {
    let star = star();
    let peer = &star.peers[0];
    peer.reaches(star.ip(1), BRIEF).unwrap();

    let status = peer.status(NETWORK).unwrap();
    assert_eq!(status["role"], "peer");
    assert_eq!(status["state"], "up");
    assert_eq!(status["interface"], INTERFACE);
    assert_eq!(status["public_key"], star.keys[1].public);
    assert_eq!(status["hub"]["public_key"], star.keys[0].public);
    assert_eq!(status["hub"]["alive"], true);
    let addresses = status["addresses"].to_string();
    assert!(addresses.contains("10.97.0.11/24") && addresses.contains("fd97::b/64"), "{addresses}");

    let other = peer
        .await_peer("peer2", "connected", BRIEF, |peer| {
            peer["state"] == "connected" && peer["path"]["rtt_ms"].is_number()
        })
        .unwrap();
    assert_eq!(other["public_key"], star.keys[2].public);
    assert!(other["path"]["rtt_ms"].as_f64().is_some_and(|rtt| rtt >= 20.0), "{other}");

    let hub = star.hub.status(NETWORK).unwrap();
    assert_eq!(hub["role"], "hub");
    assert_eq!(star.hub.peers().unwrap().len(), 2);

    for (arguments, words) in [
        (&["status"][..], &["lab", "up", "fvpn-lab"][..]),
        (&["peers"], &["peer2", "connected", "10.97.0.12"]),
    ] {
        let answer = peer.ctl(arguments).unwrap();
        assert_eq!(answer.code, 0);
        for word in words {
            assert!(answer.stdout.contains(word), "no {word} in\n{}", answer.stdout);
        }
        // colour is for terminals
        assert!(!answer.stdout.contains('\u{1b}'));
    }
}

fn ping_measures_through_the_session() {
    let star = star();
    let peer = &star.peers[0];

    for target in ["peer2", &star.keys[2].public, "10.97.0.12"] {
        let answer = peer.ctl(&["ping", "-c2", "-i0.1", target]).unwrap();
        assert_eq!(answer.code, 0, "{target}: {} {}", answer.stdout, answer.stderr);
    }
    let answer = peer.ctl(&["--json", "ping", "-c2", "-i0.1", "peer2"]).unwrap();
    assert_eq!(answer.code, 0);
    for line in answer.stdout.lines().filter(|line| line.starts_with('{')) {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }

    let unknown = peer.ctl(&["ping", "-c1", "nobody"]).unwrap();
    assert_eq!(unknown.code, 1, "{} {}", unknown.stdout, unknown.stderr);
    assert!(unknown.stderr.contains("nobody"), "{}", unknown.stderr);
}

fn connect_and_disconnect_last() {
    let star = star();
    let peer = &star.peers[0];

    assert_eq!(peer.ctl(&["disconnect", NETWORK]).unwrap().code, 0);
    assert_eq!(peer.status(NETWORK).unwrap()["state"], "down");
    assert!(!peer.host.devices().unwrap().contains(&INTERFACE.to_owned()));
    // a second time is no error
    assert_eq!(peer.ctl(&["disconnect", NETWORK]).unwrap().code, 0);

    assert_eq!(peer.ctl(&["connect", NETWORK]).unwrap().code, 0);
    await_up(peer, Duration::from_secs(1));
    peer.reaches(star.ip(1), BRIEF).unwrap();
    let unknown = peer.ctl(&["connect", "nowhere"]).unwrap();
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("nowhere"), "{}", unknown.stderr);
}

fn monitor_shows_a_peer_that_goes() {
    let mut star = star();
    let mut command = star.peers[0].ctl_command().unwrap();
    command.args(["--json", "monitor"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut monitor = star.peers[0].host.spawn(command).unwrap();
    let output = BufReader::new(monitor.stdout.take().unwrap());
    let (lines, seen) = mpsc::channel();
    std::thread::spawn(move || {
        output.lines().map_while(Result::ok).for_each(|line| {
            let _ = lines.send(line);
        });
    });
    // it says what is there before it says what changes
    assert!(seen.recv_timeout(SOON).is_ok());

    star.peers[1].stop().unwrap();

    let key = star.keys[2].public.clone();
    let mut said = Vec::new();
    let told = fastvpn_tests::lab::until(SOON, || {
        said.extend(seen.try_iter());
        said.iter().any(|line: &String| {
            line.contains("removed") && (line.contains("peer2") || line.contains(&key))
        })
    });
    let _ = monitor.kill();
    let _ = monitor.wait();
    assert!(told, "{}", said.join("\n"));
}

fn daemon_that_is_not_there_is_said() {
    let mut star = star();
    star.peers[0].stop().unwrap();

    let answer = star.peers[0].ctl(&["status"]).unwrap();
    assert_eq!(answer.code, 3);
    assert!(!answer.stderr.trim().is_empty());
    assert_eq!(star.peers[0].ctl(&["nonsense"]).unwrap().code, 2);
}
