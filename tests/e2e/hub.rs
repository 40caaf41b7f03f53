//! The hub comes and goes, and so do peers.

use std::time::Duration;

use fastvpn_tests::lab::star::NETWORK;
use fastvpn_tests::lab::{SOON, Star, StarPlan, inner_v4, inner_v6, until};
use fastvpn_tests::link::LinkConfig;

use crate::runner::cases;
use crate::support::{BRIEF, LONG, assert_silent, await_up, plan, probes, star};

cases![
    all_restarted_at_once_find_each_other,
    hub_gives_addresses_and_remembers_them,
    hub_gone_keeps_the_network_where_wanted,
    hub_gone_stops_the_network_until_it_is_back,
    hub_restarted_does_not_disturb_peers,
    peer_killed_leaves_the_list_and_comes_back,
];

fn hub_restarted_does_not_disturb_peers() {
    let mut star = star();
    let probes = probes(&star);

    star.hub.kill().unwrap();
    star.hub.start().unwrap();
    for name in ["peer1", "peer2"] {
        star.hub.await_peer(name, "connected", BRIEF, |peer| peer["state"] == "connected").unwrap();
    }
    assert!(probes.more(50, BRIEF));

    let report = probes.finish().unwrap();
    assert!(report.longest_gap < Duration::from_millis(500), "{:?}", report.longest_gap);
    for peer in &star.peers {
        await_up(peer, BRIEF);
        peer.reaches(inner_v4(1).into(), BRIEF).unwrap();
    }
}

/// Cuts the hub off, or connects it again
fn cut(star: &Star, off: bool) {
    for port in &star.peer_ports {
        let link = star.plan.link.clone();
        star.lab.wire.both(*port, star.hub_port, &if off { link.down() } else { link });
    }
}

fn hub_gone_stops_the_network_until_it_is_back() {
    let star = star();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    let start = std::time::Instant::now();

    cut(&star, true);
    for peer in &star.peers {
        peer.await_state(NETWORK, "hub-lost", LONG).unwrap();
    }
    // retries after 1, 3 and 7 s come before it is given up
    assert!(start.elapsed() > Duration::from_secs(7), "{:?}", start.elapsed());
    assert!(star.peers[0].log().contains("ERROR"), "no error is logged");
    assert_silent(&star.peers[0], star.ip(1));
    std::thread::sleep(Duration::from_secs(30).saturating_sub(start.elapsed()));

    cut(&star, false);
    for peer in &star.peers {
        await_up(peer, LONG);
    }
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
}

fn hub_gone_keeps_the_network_where_wanted() {
    let lines = "hub_loss = \"keep\"\n".to_owned();
    let star = Star::up(StarPlan { peer_lines: lines, ..plan() }).unwrap();
    let probes = probes(&star);
    let start = std::time::Instant::now();

    cut(&star, true);
    for peer in &star.peers {
        peer.await_state(NETWORK, "hub-lost", LONG).unwrap();
    }
    std::thread::sleep(Duration::from_secs(30).saturating_sub(start.elapsed()));
    cut(&star, false);
    for peer in &star.peers {
        await_up(peer, LONG);
    }
    assert!(probes.more(100, BRIEF));

    let report = probes.finish().unwrap();
    assert!(report.longest_gap < Duration::from_millis(500), "{:?}", report.longest_gap);
}

fn peer_killed_leaves_the_list_and_comes_back() {
    let mut star = star();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    star.peers[1].kill().unwrap();
    assert!(until(LONG, || star.peers[0].peer("peer2").is_err()), "still listed");
    star.hub.await_peer("peer2", "offline", BRIEF, |peer| peer["state"] == "offline").unwrap();

    // what the killed daemon could have left: a device of ours, with our mark
    if fastvpn_tests::lab::has("ip") {
        let host = &star.peers[1].host;
        host.must("ip", &["tuntap", "add", "fvpn-lab", "mode", "tun"], "").unwrap();
        host.must("ip", &["link", "set", "fvpn-lab", "alias", "fastvpn:lab"], "").unwrap();
    }
    star.peers[1].start().unwrap();
    await_up(&star.peers[1], BRIEF);
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    // at once after the next kill, while everybody still holds the old session
    star.peers[1].kill().unwrap();
    star.peers[1].start().unwrap();
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
}

fn all_restarted_at_once_find_each_other() {
    let mut star = star();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    star.hub.kill().unwrap();
    star.peers.iter_mut().for_each(|peer| peer.kill().unwrap());
    // peers first: they have to wait for their hub
    star.peers.iter_mut().for_each(|peer| peer.start().unwrap());
    star.hub.start().unwrap();

    star.peers.iter().for_each(|peer| await_up(peer, SOON));
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
}

fn hub_gives_addresses_and_remembers_them() {
    let mut star = Star::new(StarPlan { link: LinkConfig::new(), ..plan() }).unwrap();
    let without = |text: String, from: &str| -> String {
        let keep = |line: &&str| !(line.starts_with("address") && line.contains(from));
        text.lines().filter(keep).fold(String::new(), |all, line| all + line + "\n")
    };
    let hub = without(without(star.hub_config(2), "10.97.0.11\""), "10.97.0.12\"");
    star.hub.configure(NETWORK, &hub).unwrap();
    for peer in 0..2 {
        let text = without(star.peer_config(peer), "10.97.");
        star.peers[peer].configure(NETWORK, &text).unwrap();
    }

    star.start().unwrap();

    let given = |star: &Star, peer: usize| {
        star.peers[peer].status(NETWORK).unwrap()["addresses"].to_string()
    };
    let (first, second) = (given(&star, 0), given(&star, 1));
    assert_ne!(first, second);
    assert!(first.contains("10.97.0.2/24") || second.contains("10.97.0.2/24"), "{first} {second}");
    star.peers[0].reaches(inner_v4(1).into(), BRIEF).unwrap();
    star.peers[0].reaches(inner_v6(1).into(), BRIEF).unwrap();

    // in another order, after a restart of the hub
    star.peers.iter_mut().for_each(|peer| assert!(peer.stop().unwrap().success()));
    star.hub.stop().unwrap();
    star.hub.start().unwrap();
    for peer in [1, 0] {
        star.peers[peer].start().unwrap();
        await_up(&star.peers[peer], BRIEF);
    }
    assert_eq!((given(&star, 0), given(&star, 1)), (first, second));
}
