//! Members that come by an invitation, and go when they are revoked.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use fastvpn_tests::lab::star::NETWORK;
use fastvpn_tests::lab::wire::Captured;
use fastvpn_tests::lab::{Node, SOON, Star, StarPlan, until};

use crate::runner::cases;
use crate::support::{BRIEF, assert_silent, await_path, await_up, plan};

cases![
    member_of_the_configuration_is_not_revoked_by_the_tool,
    member_that_is_revoked_is_cut_off_everywhere_within_two_seconds,
    members_and_addresses_outlive_a_hub_that_is_killed,
    new_name_of_a_member_is_seen_by_all,
    secret_of_an_invitation_is_never_on_the_wire_in_clear,
];

fn member_that_is_revoked_is_cut_off_everywhere_within_two_seconds() {
    let mut star = star_with_guest();
    let guest = address(&star.peers[1]);
    star.peers[0].reaches(guest, BRIEF).unwrap();
    await_path(&star.peers[0], "tokyo", "direct", BRIEF);
    await_path(&star.peers[1], "peer1", "direct", BRIEF);

    let start = Instant::now();
    done(&star.hub, &["member", "revoke", "tokyo"]);
    assert!(until(BRIEF, || star.peers[0].peer("tokyo").is_err()), "still known");
    let gone = start.elapsed();

    assert!(gone < Duration::from_secs(2), "{gone:?}");
    assert_silent(&star.peers[0], guest);
    assert_silent(&star.peers[1], star.ip(0));
    let listed = member(&star.hub, "tokyo");
    assert_eq!(
        (listed["standing"].as_str(), listed["online"].as_bool()),
        (Some("revoked"), Some(false))
    );

    // nor does it come back by itself, or after a restart
    star.peers[1].stop().unwrap();
    star.peers[1].start().unwrap();
    let refused = || star.hub.refused(NETWORK, "not-member").unwrap() > 0;
    assert!(until(SOON, refused), "it never tried");
    assert!(star.peers[0].peer("tokyo").is_err());
    assert_ne!(star.peers[1].status(NETWORK).unwrap()["state"], "up");

    done(&star.hub, &["member", "approve", "tokyo"]);
    await_up(&star.peers[1], SOON);
    star.peers[0].reaches(guest, BRIEF).unwrap();
}

fn member_of_the_configuration_is_not_revoked_by_the_tool() {
    let star = star_with_guest();

    let refused = star.hub.ctl(&["--json", "member", "revoke", "peer1"]).unwrap();

    assert_eq!(refused.code, 1, "{refused:?}");
    let error = &refused.json().unwrap()["error"];
    assert_eq!(error["code"], "Configured");
    let file = star.hub.config_file(NETWORK).display().to_string();
    let line = star.hub_config(1).lines().position(|line| line == "[[member]]").unwrap() + 1;
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&format!("{file}, line {line}")), "{message}");
    assert_eq!(member(&star.hub, "peer1")["source"], "configuration");
    assert_eq!(member(&star.hub, "tokyo")["source"], "store");
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
}

fn new_name_of_a_member_is_seen_by_all() {
    let star = star_with_guest();
    star.peers[0].await_peer("tokyo", "known", BRIEF, |_| true).unwrap();

    done(&star.hub, &["member", "rename", "tokyo", "kyoto"]);

    star.peers[0].await_peer("kyoto", "known", BRIEF, |_| true).unwrap();
    assert!(star.peers[0].peer("tokyo").is_err());
    star.peers[0].reaches(address(&star.peers[1]), BRIEF).unwrap();
}

fn members_and_addresses_outlive_a_hub_that_is_killed() {
    let mut star = star_with_guest();
    let guest = address(&star.peers[1]);
    let invitation = invite(&star, "osaka");

    star.hub.kill().unwrap();
    star.hub.start().unwrap();
    star.hub.await_peer("tokyo", "connected", SOON, |peer| peer["state"] == "connected").unwrap();

    assert_eq!(address(&star.peers[1]), guest);
    let open = star.hub.ctl(&["--json", "invitation", "list"]).unwrap().json().unwrap();
    assert_eq!(open["invitations"][0]["name"], "osaka", "{open}");
    assert!(!invitation.is_empty());
    done(&star.hub, &["invitation", "cancel", "osaka"]);
}

fn secret_of_an_invitation_is_never_on_the_wire_in_clear() {
    let star = star();
    let invitation = invite(&star, "tokyo");
    let secret = secret_of(&invitation);
    star.lab.wire.tap();

    done(&star.peers[1], &["join", &invitation, "--name", NETWORK]);

    let taken: Vec<Captured> = star.lab.wire.captured();
    let seen = |wanted: &[u8]| {
        taken.iter().any(|one| one.packet.windows(wanted.len()).any(|part| part == wanted))
    };
    // an init is a message of 1024 bytes: its registration was among what was captured
    assert!(taken.iter().any(|one| one.packet.len() == 20 + 8 + 1024), "no init");
    assert!(!seen(&secret), "the secret was on the wire");
    assert!(!seen(invitation.as_bytes()));
    // the check itself works
    assert!(seen(&taken[0].packet[20..36]));
}

/// A hub and one peer that are up, and a machine whose daemon knows no network
fn star() -> Star {
    let mut star = Star::new(StarPlan { network_key: true, ..plan() }).unwrap();
    star.hub.configure(NETWORK, &star.hub_config(1)).unwrap();
    std::fs::remove_file(star.peers[1].config_file(NETWORK)).unwrap();
    star.hub.start().unwrap();
    for peer in &mut star.peers {
        peer.start().unwrap();
    }
    await_up(&star.hub, SOON);
    await_up(&star.peers[0], SOON);
    star
}

/// A hub, a peer of its configuration, and one that came by an invitation, as `tokyo`
fn star_with_guest() -> Star {
    let star = star();
    let invitation = invite(&star, "tokyo");
    done(&star.peers[1], &["join", &invitation, "--name", NETWORK]);
    star
}

fn invite(star: &Star, name: &str) -> String {
    let endpoint = star.hub_endpoint(1).to_string();
    let invited = star.hub.ctl(&["invite", name, "--endpoint", &endpoint]).unwrap();
    assert_eq!(invited.code, 0, "{invited:?}");
    invited.stdout.trim().to_owned()
}

fn done(node: &Node, arguments: &[&str]) {
    let answer = node.ctl(arguments).unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
}

fn member(hub: &Node, name: &str) -> serde_json::Value {
    let members = hub.ctl(&["--json", "member", "list"]).unwrap().json().unwrap();
    let members = members["members"].as_array().unwrap().clone();
    members.into_iter().find(|member| member["name"] == name).unwrap()
}

/// The first overlay address of a peer
fn address(node: &Node) -> IpAddr {
    let status = node.status(NETWORK).unwrap();
    let text = status["addresses"][0].as_str().unwrap().split('/').next().unwrap();
    text.parse().unwrap()
}

/// The secret in an invitation: after version, length, two names, the hub's key and the network's
fn secret_of(invitation: &str) -> Vec<u8> {
    let digits = invitation.strip_prefix("FASTVPN:").unwrap().bytes().map(|digit| match digit {
        b'A'..=b'Z' => digit - b'A',
        digit => digit - b'2' + 26,
    });
    let bits: Vec<u8> =
        digits.flat_map(|digit| (0..5).rev().map(move |bit| digit >> bit & 1)).collect();
    let bytes = bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit));
    let bytes: Vec<u8> = bytes.collect();
    let member = 3 + 1 + usize::from(bytes[3]);
    let key = member + 1 + usize::from(bytes[member]);
    assert_eq!(bytes[key + 32], 1, "it has a network key");
    let secret = key + 32 + 1 + 32;
    bytes[secret..secret + 16].to_vec()
}
