//! Changes of the configuration while the network carries.

use std::time::Duration;

use fastvpn_tests::lab::star::NETWORK;
use fastvpn_tests::lab::{Star, StarPlan, until};
use rustix::process::Signal;

use crate::runner::cases;
use crate::support::{BRIEF, assert_silent, await_up, plan, probes};

cases![
    bad_file_keeps_the_old_configuration,
    members_come_and_go_without_disturbing_others,
    network_comes_and_goes_with_its_file,
];

/// Three peers, of which the hub knows two; those are up
fn two_of_three() -> Star {
    let mut star = Star::new(StarPlan { peers: 3, ..plan() }).unwrap();
    star.hub.configure(NETWORK, &star.hub_config(2)).unwrap();
    star.hub.start().unwrap();
    star.peers[..2].iter_mut().for_each(|peer| peer.start().unwrap());
    star.peers[..2].iter().for_each(|peer| await_up(peer, BRIEF));
    star.peers[2].start().unwrap();
    star
}

fn members_come_and_go_without_disturbing_others() {
    let star = two_of_three();
    let probes = probes(&star);
    let handshake = |star: &Star| {
        let known = |peer: &serde_json::Value| peer["last_handshake"].is_number();
        let peer = star.peers[0].await_peer("peer2", "connected", BRIEF, known).unwrap();
        peer["last_handshake"].clone()
    };
    let before = handshake(&star);
    assert_eq!(star.peers[2].status(NETWORK).unwrap()["state"], "connecting");

    // added over the bus
    star.hub.configure(NETWORK, &star.hub_config(3)).unwrap();
    let answer = star.hub.ctl(&["reload"]).unwrap();
    assert_eq!(answer.code, 0, "{} {}", answer.stdout, answer.stderr);
    await_up(&star.peers[2], BRIEF);
    star.peers[2].reaches(star.ip(0), BRIEF).unwrap();
    star.peers[1].reaches(star.ip(2), BRIEF).unwrap();

    // removed by a signal
    star.hub.configure(NETWORK, &star.hub_config(2)).unwrap();
    star.hub.signal(Signal::HUP).unwrap();
    assert!(until(BRIEF, || star.peers[0].peer("peer3").is_err()), "still listed");
    assert_silent(&star.peers[2], star.ip(0));

    assert_eq!(handshake(&star), before, "the session was made anew");
    let report = probes.finish().unwrap();
    assert!(report.longest_gap < Duration::from_millis(300), "{:?}", report.longest_gap);
}

fn bad_file_keeps_the_old_configuration() {
    let star = two_of_three();
    let probes = probes(&star);

    star.hub.configure(NETWORK, "role = \"emperor\"\nsubnet = 7\n").unwrap();
    let answer = star.hub.ctl(&["reload"]).unwrap();

    assert_eq!(answer.code, 1, "{} {}", answer.stdout, answer.stderr);
    assert!(
        answer.stderr.contains("emperor") && answer.stderr.contains("lab.toml:1"),
        "{}",
        answer.stderr
    );
    star.hub.signal(Signal::HUP).unwrap();
    assert!(star.hub.logs_soon("emperor"));
    assert_eq!(star.hub.status(NETWORK).unwrap()["state"], "up");
    assert!(probes.more(50, BRIEF));
    let report = probes.finish().unwrap();
    assert!(report.longest_gap < Duration::from_millis(300), "{:?}", report.longest_gap);

    star.hub.configure(NETWORK, &star.hub_config(3)).unwrap();
    assert_eq!(star.hub.ctl(&["reload"]).unwrap().code, 0);
    await_up(&star.peers[2], BRIEF);
}

fn network_comes_and_goes_with_its_file() {
    let mut star = Star::new(plan()).unwrap();
    star.hub.start().unwrap();
    let file = star.peers[0].config_file(NETWORK);
    std::fs::remove_file(&file).unwrap();
    star.peers[0].start().unwrap();
    assert!(star.peers[0].status(NETWORK).is_err());

    star.peers[0].configure(NETWORK, &star.peer_config(0)).unwrap();
    assert_eq!(star.peers[0].ctl(&["reload"]).unwrap().code, 0);
    await_up(&star.peers[0], BRIEF);

    std::fs::remove_file(&file).unwrap();
    assert_eq!(star.peers[0].ctl(&["reload"]).unwrap().code, 0);
    assert!(until(BRIEF, || star.peers[0].status(NETWORK).is_err()), "still there");
    assert_eq!(star.peers[0].host.devices().unwrap(), ["lo", "wan0"]);
}
