//! `fastvpnctl peers`: who is in the networks, and how they are reached.

use fastvpn_dbus::Bus;
use fastvpn_dbus::tree::{Peer, Tree};

use super::{Absent, Daemon, Patience, chosen, unix_now};
use crate::failure::Failure;
use crate::json::{PeersDocument, known, millis, overhead};
use crate::output::{Form, Output};
use crate::render::{
    Cell, Column, Screen, Table, Tone, ago, bytes, milliseconds, percent, rate, short_key, times,
};

pub(super) async fn run(bus: &Bus, output: &Output, name: Option<&str>) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Fail, Patience::Short).await?;
    let tree = daemon.tree().await?;
    chosen(&tree, name)?;
    let peers = sorted(&tree, name);
    match (output.form, peers.as_slice()) {
        (Form::Json, peers) => output.json(&PeersDocument::new(&tree, peers.iter().copied())),
        (Form::Text, []) => output.line("no peers are known"),
        (Form::Text, peers) => {
            output.text(&overview(&tree, peers, unix_now().as_secs(), output.screen))
        }
    }
}

/// Peers of the network, or of all, by network and name
fn sorted<'a>(tree: &'a Tree, network: Option<&str>) -> Vec<&'a Peer> {
    let wanted = |peer: &&Peer| network.is_none_or(|name| tree.network_of(peer) == name);
    let mut peers: Vec<_> = tree.peers.values().filter(wanted).collect();
    let order = |peer: &Peer| {
        (tree.network_of(peer).to_owned(), peer.facts.name.clone(), peer.facts.public_key.clone())
    };
    peers.sort_by_cached_key(|peer| order(peer));
    peers
}

fn overview(tree: &Tree, peers: &[&Peer], now: u64, screen: Screen) -> String {
    let mut table = Table::new(&[
        Column::left("NETWORK", 5),
        Column::left("NAME", 0),
        Column::left("STATE", 0),
        Column::left("ADDRESSES", 0),
        Column::left("PATH", 2),
        Column::left("CARRIER", 6),
        Column::right("RTT", 1),
        Column::right("LOSS", 3),
        Column::right("RATE", 4),
        Column::right("WIRE", 10),
        Column::right("SENT", 7),
        Column::right("RECEIVED", 8),
        Column::left("SEEN", 9),
        Column::left("KEY", 11),
    ]);
    for peer in peers {
        let (facts, figures) = (&peer.facts, &peer.figures);
        let counter = |name| figures.statistics.get(name).copied().unwrap_or(0);
        let measured = known(figures.rtt_us);
        table.row(vec![
            Cell::new(tree.network_of(peer)),
            Cell::new(title(peer)),
            Cell::state(&facts.state),
            Cell::new(facts.addresses.join(", ")),
            path(tree, peer),
            Cell::new(carrier(&facts.path_kind)),
            Cell::new(milliseconds(measured.map(millis))),
            Cell::new(measured.map_or("-".to_owned(), |_| percent(figures.loss))),
            Cell::new(known(figures.rate).map_or("-".to_owned(), rate)),
            Cell::new(times(overhead(&figures.path_statistics))),
            Cell::new(bytes(counter("tx-bytes"))),
            Cell::new(bytes(counter("rx-bytes"))),
            Cell::new(ago(known(figures.last_seen), now)),
            Cell::toned(&facts.public_key, Tone::Faint),
        ]);
    }
    table.render(screen)
}

/// What people call the peer
pub(super) fn title(peer: &Peer) -> String {
    let facts = &peer.facts;
    let name =
        if facts.name.is_empty() { short_key(&facts.public_key) } else { facts.name.clone() };
    // A peer knows its hub by no other name.
    if facts.hub && name != "hub" { format!("{name} (hub)") } else { name }
}

/// How the peer is reached
fn path(tree: &Tree, peer: &Peer) -> Cell {
    match peer.facts.path_kind.as_str() {
        "" => Cell::toned("-", Tone::Faint),
        kind => Cell::new(road(tree, kind, &peer.facts.endpoint)),
    }
}

/// What takes messages to the peer
pub(super) fn carrier(kind: &str) -> &str {
    match kind {
        "" => "-",
        "direct" => "udp",
        other => other,
    }
}

/// The way in words: the address, or by whom it is relayed
pub(super) fn road(tree: &Tree, kind: &str, endpoint: &str) -> String {
    if kind != "relayed" {
        return endpoint.to_owned();
    }
    let relay = tree.peers.values().find(|peer| peer.facts.public_key == endpoint);
    let hub = || tree.networks.values().any(|network| network.facts.hub_key == endpoint);
    match relay {
        Some(relay) if !relay.facts.name.is_empty() => format!("via {}", relay.facts.name),
        Some(_) | None if hub() => "via the hub".to_owned(),
        Some(_) | None => format!("via {}", short_key(endpoint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Colour;
    use crate::render::samples::{key, tokyo, tree};

    const PAPER: Screen = Screen { width: None, colour: Colour::Never };

    #[test]
    fn overview_shows_how_each_peer_is_reached() {
        let tree = tree();

        let text = overview(&tree, &sorted(&tree, None), 1_700_000_012, PAPER);

        let expected = [
            ("NETWORK", "office"),
            ("NAME ", "tokyo"),
            ("STATE    ", "connected"),
            ("ADDRESSES    ", "172.16.97.102"),
            ("PATH            ", "203.0.113.5:8796"),
            ("CARRIER", "udp    "),
            ("    RTT", "31.2 ms"),
            ("LOSS", "25 %"),
            ("      RATE", "100 Mbit/s"),
            (" WIRE", "1.30x"),
            (" SENT", "300 B"),
            ("RECEIVED", " 2.0 KiB"),
            ("SEEN   ", "3 s ago"),
            ("KEY", &key(1)),
        ];
        let (titles, cells): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
        let cells = cells.join("  ").replace("office  ", "office   ");
        assert_eq!(text, format!("{}\n{cells}\n", titles.join("  ")));
    }

    #[test]
    fn overview_fits_a_terminal_of_eighty_columns() {
        let tree = tree();
        let screen = Screen { width: Some(80), colour: Colour::Never };

        let text = overview(&tree, &sorted(&tree, None), 1_700_000_012, screen);

        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("203.0.113.5:8796") && text.contains("31.2 ms"), "{text}");
    }

    #[test]
    fn relayed_path_names_the_relay() {
        let mut tree = tree();

        assert_eq!(road(&tree, "relayed", &key(8)), "via the hub");
        assert_eq!(road(&tree, "relayed", &key(1)), "via tokyo");
        assert_eq!(road(&tree, "relayed", &key(7)), "via BwcHBwcH…");
        let mut hub = tokyo();
        (hub.facts.public_key, hub.facts.name) = (key(8), "berlin".to_owned());
        tree.peers.insert("/hub".to_owned(), hub);
        assert_eq!(road(&tree, "relayed", &key(8)), "via berlin");
    }

    #[test]
    fn peer_without_a_name_is_called_by_its_key() {
        let mut peer = tokyo();
        peer.facts.name.clear();
        peer.facts.hub = true;

        assert_eq!(title(&peer), "AQEBAQEB… (hub)");
        peer.facts.name = "hub".to_owned();
        assert_eq!(title(&peer), "hub");
    }
}
