//! What several cases need.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fastvpn_tests::lab::load::{self, Probes};
use fastvpn_tests::lab::star::NETWORK;
use fastvpn_tests::lab::{Node, Star, StarPlan};
use fastvpn_tests::link::{LinkConfig, ms};

/// Time for something that waits for a few round trips or retries
pub(crate) const BRIEF: Duration = Duration::from_secs(10);
/// Time for something that waits for the hub's timeout, or a peer's three retries
pub(crate) const LONG: Duration = Duration::from_secs(40);

/// A hub and two peers, 10 ms apart, all networks up
pub(crate) fn star() -> Star {
    Star::up(plan()).unwrap()
}

/// A hub and two peers, 10 ms apart
pub(crate) fn plan() -> StarPlan {
    StarPlan { link: LinkConfig::new().delay(ms(10)), ..StarPlan::default() }
}

/// Numbered packets each 10 ms from the first peer to the second one, already flowing
pub(crate) fn probes(star: &Star) -> Probes {
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    let target: SocketAddr = star.at(1, 7000);
    let interval = Duration::from_millis(10);
    let probes = Probes::start(&star.peers[0].host, &star.peers[1].host, target, interval).unwrap();
    assert!(probes.more(20, BRIEF), "probes do not arrive");
    probes
}

/// Whether a peer of `node` has a path of that kind
pub(crate) fn await_path(node: &Node, peer: &str, kind: &str, patience: Duration) {
    node.await_peer(peer, &format!("{kind} path"), patience, |peer| peer["path"]["kind"] == kind)
        .unwrap();
}

/// Asserts that not a single of some pings is answered
pub(crate) fn assert_silent(node: &Node, target: IpAddr) {
    let report = load::ping(&node.host, target, 5, Duration::from_millis(100)).unwrap();
    assert_eq!(report.received, 0, "{target} answers");
}

/// Waits until the network is up
pub(crate) fn await_up(node: &Node, patience: Duration) {
    node.await_state(NETWORK, "up", patience).unwrap();
}

/// Waits until the network has failed, and returns the sentence that says why
pub(crate) fn await_failure(node: &Node) -> String {
    let status = node.await_state(NETWORK, "failed", BRIEF).unwrap();
    status["detail"].as_str().unwrap_or_default().to_owned()
}

/// Waits until messages were refused for that reason
pub(crate) fn await_refusal(node: &Node, reason: &str) {
    node.await_status(NETWORK, &format!("refusing ({reason})"), BRIEF, |status| {
        status["refusals"][reason].as_u64().is_some_and(|count| count > 0)
    })
    .unwrap();
}
