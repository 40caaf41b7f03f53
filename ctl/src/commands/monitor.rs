//! `fastvpnctl monitor`: changes as they happen.
//!
//! Goes on when the daemon or the bus goes away, and starts over when they are back. Counters and
//! times are no news; `--json` says what is so of a network or peer whenever that changes.

use fastvpn_dbus::Bus;
use fastvpn_dbus::tree::{Change, Network, Peer, Tree};

use super::follow::{News, follow};
use super::peers::{road, title};
use super::unix_now;
use crate::failure::Failure;
use crate::json::{EventDocument, NetworkDocument, PeerDocument};
use crate::output::{Form, Output};
use crate::render::plain;

/// Shows changes until interrupted
pub(super) async fn run(bus: &Bus, output: &Output) -> Result<(), Failure> {
    follow(bus, |news| match news {
        News::Changed(tree, change) => tell_change(output, tree, change),
        News::Gone => tell_daemon(output, Presence::Gone),
        News::Here(tree) => {
            tell_daemon(output, Presence::Here)?;
            tell_all(output, tree)
        }
    })
    .await
}

/// Whether the daemon runs
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Presence {
    Gone,
    Here,
}

fn tell_daemon(output: &Output, presence: Presence) -> Result<(), Failure> {
    let running = presence == Presence::Here;
    match (output.form, running) {
        (Form::Json, running) => output.json(&EventDocument::Daemon { time: time(), running }),
        (Form::Text, true) => output.line("fastvpnd is running"),
        (Form::Text, false) => output.line("fastvpnd is not running; waiting for it"),
    }
}

fn tell_all(output: &Output, tree: &Tree) -> Result<(), Failure> {
    for network in tree.networks.values() {
        tell_network(output, "present", network, network_news(None, network))?;
    }
    for peer in tree.peers.values() {
        tell_peer(output, tree, "present", peer, peer_news(tree, None, peer))?;
    }
    Ok(())
}

fn tell_change(output: &Output, tree: &Tree, change: &Change) -> Result<(), Failure> {
    match change {
        Change::NetworkAdded(path) => match tree.networks.get(path) {
            Some(now) => tell_network(output, "added", now, network_news(None, now)),
            None => Ok(()),
        },
        Change::NetworkChanged(path, before) => match tree.networks.get(path) {
            Some(now) if now.facts != before.facts => {
                tell_network(output, "changed", now, network_news(Some(before), now))
            }
            Some(_) | None => Ok(()),
        },
        Change::NetworkRemoved(before) => {
            tell_network(output, "removed", before, vec!["is gone".to_owned()])
        }
        Change::PeerAdded(path) => match tree.peers.get(path) {
            Some(now) => tell_peer(output, tree, "added", now, peer_news(tree, None, now)),
            None => Ok(()),
        },
        Change::PeerChanged(path, before) => match tree.peers.get(path) {
            Some(now) if now.facts != before.facts => {
                tell_peer(output, tree, "changed", now, peer_news(tree, Some(before), now))
            }
            Some(_) | None => Ok(()),
        },
        Change::PeerRemoved(before) => {
            tell_peer(output, tree, "removed", before, vec!["is gone".to_owned()])
        }
    }
}

fn tell_network(
    output: &Output,
    change: &str,
    network: &Network,
    news: Vec<String>,
) -> Result<(), Failure> {
    if output.form == Form::Json {
        let network = NetworkDocument::new(network);
        return output.json(&EventDocument::Network { time: time(), change, network });
    }
    let name = &network.facts.name;
    news.iter().try_for_each(|news| output.line(&plain(&format!("{name}: {news}"))))
}

fn tell_peer(
    output: &Output,
    tree: &Tree,
    change: &str,
    peer: &Peer,
    news: Vec<String>,
) -> Result<(), Failure> {
    let network = tree.network_of(peer);
    if output.form == Form::Json {
        let peer = PeerDocument::new(network, peer);
        return output.json(&EventDocument::Peer { time: time(), change, peer });
    }
    let name = title(peer);
    news.iter().try_for_each(|news| output.line(&plain(&format!("{network}: {name} {news}"))))
}

/// What people should know of a network, compared to what it was
fn network_news(before: Option<&Network>, now: &Network) -> Vec<String> {
    let before = before.map(|before| &before.facts);
    let now = &now.facts;
    let mut news = Vec::new();
    if before.is_none_or(|before| (&before.state, &before.detail) != (&now.state, &now.detail)) {
        let detail =
            if now.detail.is_empty() { String::new() } else { format!(" ({})", now.detail) };
        news.push(format!("{}{detail}", now.state));
    }
    if before.is_some_and(|before| before.hub_alive != now.hub_alive) && !now.hub_key.is_empty() {
        news.push(if now.hub_alive { "the hub answers" } else { "the hub is silent" }.to_owned());
    }
    if before.is_some_and(|before| before.addresses != now.addresses) && !now.addresses.is_empty() {
        news.push(format!("addresses {}", now.addresses.join(", ")));
    }
    news
}

/// What people should know of a peer, compared to what it was
fn peer_news(tree: &Tree, before: Option<&Peer>, now: &Peer) -> Vec<String> {
    let before = before.map(|before| &before.facts);
    let now = &now.facts;
    let mut news = Vec::new();
    let moved = before.is_none_or(|before| {
        (&before.state, &before.path_kind, &before.endpoint)
            != (&now.state, &now.path_kind, &now.endpoint)
    });
    if moved {
        let way = road(tree, &now.path_kind, &now.endpoint);
        let way = if way.is_empty() { way } else { format!(", {way}") };
        news.push(format!("{}{way}", now.state));
    }
    if before.is_some_and(|before| before.addresses != now.addresses) {
        news.push(format!("has {}", now.addresses.join(", ")));
    }
    news
}

/// Unix seconds, to the millisecond
fn time() -> f64 {
    // Exact for a long time to come.
    unix_now().as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{key, network, tokyo, tree};

    #[test]
    fn new_network_is_news_and_its_counters_are_not() {
        let before = network();
        let mut now = network();
        now.figures.statistics.insert("tx-bytes".to_owned(), 9999);

        assert_eq!(network_news(None, &now), ["up"]);
        assert!(network_news(Some(&before), &now).is_empty());
    }

    #[test]
    fn lost_hub_is_told_with_the_reason() {
        let before = network();
        let mut now = network();
        now.facts.state = "hub-lost".to_owned();
        now.facts.detail = "no answer".to_owned();
        now.facts.hub_alive = false;

        let news = network_news(Some(&before), &now);

        assert_eq!(news, ["hub-lost (no answer)", "the hub is silent"]);
    }

    #[test]
    fn path_that_moves_is_news() {
        let before = tokyo();
        let mut now = tokyo();
        now.facts.path_kind = "relayed".to_owned();
        now.facts.endpoint = key(8);

        let news = peer_news(&tree(), Some(&before), &now);

        assert_eq!(news, ["connected, via the hub"]);
    }

    #[test]
    fn peer_that_gets_another_address_is_news() {
        let before = tokyo();
        let mut now = tokyo();
        now.facts.addresses = vec!["172.16.97.103".to_owned()];

        assert_eq!(peer_news(&tree(), Some(&before), &now), ["has 172.16.97.103"]);
    }
}
