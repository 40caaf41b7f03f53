//! `fastvpnctl ping`: asks a peer through its session, again and again.

use std::net::IpAddr;
use std::time::Duration;

use fastvpn_dbus::tree::{Peer, Tree};
use fastvpn_dbus::{Bus, PingAnswer};
use tokio::time::{MissedTickBehavior, interval};

use super::peers::road;
use super::{Absent, Daemon, Patience, chosen};
use crate::args::PingArguments;
use crate::failure::Failure;
use crate::json::{PingDocument, Summary, SummaryDocument, millis};
use crate::nearest::nearest;
use crate::output::{Form, Output};
use crate::render::{milliseconds, percent, plain};

pub(super) async fn run(
    bus: &Bus,
    output: &Output,
    arguments: &PingArguments,
) -> Result<(), Failure> {
    // A ping waits for up to a minute.
    let daemon = Daemon::open(bus, Absent::Fail, Patience::Long).await?;
    let tree = daemon.tree().await?;
    if let Some(network) = &arguments.network {
        chosen(&tree, Some(network))?;
    }
    let network = network(&tree, arguments)?;
    let mut tally = Tally::default();
    let result = tokio::select! {
        result = pings(&daemon, output, &tree, &network, arguments, &mut tally) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if tally.sent > 0 {
        summarise(output, &arguments.peer, &tally)?;
    }
    match result {
        Ok(()) if tally.sent == 0 || tally.answered > 0 => Ok(()),
        Ok(()) => Err(Failure::Failed("Timeout", no_answer(&arguments.peer))),
        Err(failure) => Err(failure),
    }
}

async fn pings(
    daemon: &Daemon<'_>,
    output: &Output,
    tree: &Tree,
    network: &str,
    arguments: &PingArguments,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let manager = daemon.manager().await?;
    let timeout_ms = u32::try_from(arguments.timeout.as_millis()).unwrap_or(u32::MAX);
    let mut pace = interval(arguments.interval);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for seq in 1..=arguments.count.unwrap_or(u64::MAX) {
        pace.tick().await;
        let answer = manager.ping(network, &arguments.peer, timeout_ms).await;
        let answer =
            answer.map_err(|error| hinted(daemon.failure(error), tree, &arguments.peer))?;
        tally.count(&answer);
        match output.form {
            Form::Json => output.json(&PingDocument::new(network, seq, &answer))?,
            Form::Text => output.line(&line(tree, &arguments.peer, seq, &answer))?,
        }
    }
    Ok(())
}

fn summarise(output: &Output, peer: &str, tally: &Tally) -> Result<(), Failure> {
    let summary = tally.summary();
    match output.form {
        Form::Json => output.json(&SummaryDocument { summary }),
        Form::Text => output.text(&summary_text(peer, &summary)),
    }
}

/// The network to ask in: the one that was named, or the only one with such a peer
fn network(tree: &Tree, arguments: &PingArguments) -> Result<String, Failure> {
    if let Some(network) = &arguments.network {
        return Ok(network.clone());
    }
    let wanted = arguments.peer.as_str();
    let with = tree.peers.values().filter(|peer| is(peer, wanted));
    let mut found: Vec<_> = with.map(|peer| tree.network_of(peer)).collect();
    found.sort_unstable();
    found.dedup();
    let networks: Vec<_> = tree.networks.values().collect();
    match (found.as_slice(), networks.as_slice()) {
        ([network], _) => Ok((*network).to_owned()),
        // It may know better, or why it cannot.
        ([], [network]) => Ok(network.facts.name.clone()),
        ([], _) => {
            let message = format!("no network has a peer {}; see: fastvpnctl peers", plain(wanted));
            Err(hinted(Failure::Failed("NoPeer", message), tree, wanted))
        }
        (several, _) => {
            let (wanted, several) = (plain(wanted), several.join(", "));
            let message = format!("{several} have a peer {wanted}; choose one with --network");
            Err(Failure::Failed("Ambiguous", message))
        }
    }
}

/// Whether the peer is called so, has that key, or that address
fn is(peer: &Peer, wanted: &str) -> bool {
    let facts = &peer.facts;
    let address: Option<IpAddr> = wanted.parse().ok();
    let has = |text: &String| address.is_some() && text.parse().ok() == address;
    facts.name == wanted || facts.public_key == wanted || facts.addresses.iter().any(has)
}

fn line(tree: &Tree, peer: &str, seq: u64, answer: &PingAnswer) -> String {
    if !answer.answered {
        return plain(&format!("no answer from {peer}: seq={seq}"));
    }
    let time = milliseconds(Some(millis(answer.rtt_us)));
    let road = road(tree, &answer.path_kind, &answer.endpoint);
    plain(&format!("answer from {peer}: seq={seq} time={time} {} {road}", answer.path_kind))
}

fn summary_text(peer: &str, summary: &Summary) -> String {
    let Summary { sent, answered, loss, .. } = summary;
    let loss = percent(*loss);
    let peer = plain(peer);
    let mut text = format!("--- {peer} ---\n{sent} sent, {answered} answered, {loss} lost\n");
    if *answered > 0 {
        let (least, mean, most) = (summary.rtt_min_ms, summary.rtt_avg_ms, summary.rtt_max_ms);
        let times = [least, mean, most].map(milliseconds).join(" / ");
        text.push_str(&format!("time min / mean / max: {times}\n"));
    }
    text
}

/// A peer that is not known, with the one that may be meant
fn hinted(failure: Failure, tree: &Tree, wanted: &str) -> Failure {
    let names = tree.peers.values().map(|peer| peer.facts.name.as_str());
    match (failure, nearest(wanted, names.filter(|name| *name != wanted))) {
        (Failure::Failed("NoPeer", message), Some(meant)) => {
            Failure::Failed("NoPeer", format!("{message}; did you mean {}?", plain(meant)))
        }
        (failure, _) => failure,
    }
}

fn no_answer(peer: &str) -> String {
    format!("{} did not answer", plain(peer))
}

/// What came of the pings so far
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    sent: u64,
    answered: u64,
    total: Duration,
    least: Option<u64>,
    most: Option<u64>,
}

impl Tally {
    fn count(&mut self, answer: &PingAnswer) {
        self.sent += 1;
        if answer.answered {
            let rtt = answer.rtt_us;
            self.answered += 1;
            self.total += Duration::from_micros(rtt);
            self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
            self.most = Some(self.most.map_or(rtt, |most| most.max(rtt)));
        }
    }

    fn summary(&self) -> Summary {
        let lost = self.sent - self.answered;
        let mean = self.total.as_secs_f64() * 1000.0 / self.answered as f64;
        Summary {
            sent: self.sent,
            answered: self.answered,
            loss: if self.sent == 0 { 0.0 } else { lost as f64 / self.sent as f64 },
            rtt_min_ms: self.least.map(millis),
            // To the microsecond, as it was measured.
            rtt_avg_ms: (self.answered > 0).then(|| (mean * 1000.0).round() / 1000.0),
            rtt_max_ms: self.most.map(millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{self, key, tokyo, tree};

    #[test]
    fn tally_counts_times_of_answers_only() {
        let mut tally = Tally::default();

        tally.count(&answer(10_000));
        tally.count(&PingAnswer::default());
        tally.count(&answer(31_000));
        tally.count(&answer(20_000));

        let summary = tally.summary();
        assert_eq!((summary.sent, summary.answered, summary.loss), (4, 3, 0.25));
        assert_eq!(
            summary_text("tokyo", &summary),
            "--- tokyo ---\n4 sent, 3 answered, 25 % lost\n\
             time min / mean / max: 10.0 ms / 20.3 ms / 31.0 ms\n"
        );
    }

    #[test]
    fn summary_without_answers_has_no_times() {
        let mut tally = Tally::default();

        tally.count(&PingAnswer::default());

        assert_eq!(tally.summary().rtt_avg_ms, None);
        assert_eq!(
            summary_text("x", &tally.summary()),
            "--- x ---\n1 sent, 0 answered, 100 % lost\n"
        );
    }

    #[test]
    fn peer_is_found_by_name_key_and_any_form_of_its_address() {
        let mut peer = tokyo();
        peer.facts.addresses.push("fd00::1".to_owned());

        for wanted in ["tokyo", &key(1), "172.16.97.102", "fd00:0::0001"] {
            assert!(is(&peer, wanted), "{wanted}");
        }
        assert!(!is(&peer, "172.16.97.1"));
    }

    #[test]
    fn network_is_guessed_only_where_it_is_certain() {
        let mut tree = tree();
        let ask = |tree: &Tree, peer: &str| network(tree, &arguments(peer));
        assert_eq!(ask(&tree, "tokyo").unwrap(), "office");
        assert_eq!(ask(&tree, "nobody").unwrap(), "office");

        let (home, mut peer) = (fastvpn_dbus::network_path("home"), tokyo());
        let mut network = samples::network();
        network.facts.name = "home".to_owned();
        tree.networks.insert(home.to_string(), network);
        assert_eq!(ask(&tree, "tokyo").unwrap(), "office");
        assert_eq!(ask(&tree, "nobody").unwrap_err().exit_code(), 1);

        peer.facts.network = home;
        tree.peers.insert("/home/tokyo".to_owned(), peer);
        let failure = ask(&tree, "tokyo").unwrap_err();
        let message = failure.document().unwrap().error.message.to_owned();
        assert_eq!(message, "home, office have a peer tokyo; choose one with --network");
    }

    #[test]
    fn line_tells_time_and_way() {
        let tree = tree();

        assert_eq!(
            line(&tree, "tokyo", 3, &answer(31_200)),
            "answer from tokyo: seq=3 time=31.2 ms direct 203.0.113.5:8796"
        );
        assert_eq!(line(&tree, "tokyo", 4, &PingAnswer::default()), "no answer from tokyo: seq=4");
    }

    fn answer(rtt_us: u64) -> PingAnswer {
        PingAnswer {
            answered: true,
            rtt_us,
            peer: key(1),
            path_kind: "direct".to_owned(),
            endpoint: "203.0.113.5:8796".to_owned(),
        }
    }

    fn arguments(peer: &str) -> PingArguments {
        PingArguments {
            peer: peer.to_owned(),
            network: None,
            count: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
        }
    }
}
