//! `fastvpnctl status`: the networks, or one of them in full.

use fastvpn_dbus::Bus;
use fastvpn_dbus::tree::{Network, Tree};
use fastvpn_dbus::types::{Apply, NetworkFacts};

use super::{Absent, Daemon, Patience, chosen, unix_now};
use crate::failure::Failure;
use crate::json::StatusDocument;
use crate::output::{Form, Output};
use crate::render::{
    Cell, Column, Screen, Table, Tone, ahead, bytes, decimal_bytes, facts, percent, plain,
};

pub(super) async fn run(bus: &Bus, output: &Output, name: Option<&str>) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Fail, Patience::Short).await?;
    let tree = daemon.tree().await?;
    let networks = chosen(&tree, name)?;
    match (output.form, networks.as_slice()) {
        (Form::Json, networks) => output.json(&StatusDocument::new(networks.iter().copied())),
        (Form::Text, []) => output.line(NOTHING),
        (Form::Text, [network]) if name.is_some() => {
            output.text(&details(&tree, network, unix_now().as_secs(), output.screen))
        }
        (Form::Text, networks) => output.text(&overview(&tree, networks, output.screen)),
    }
}

/// A line for each network, and below it what is wrong
/// The interface, and who sets it up where that is not the daemon
fn interface(known: &NetworkFacts) -> String {
    if known.interface.is_empty() || known.apply != Apply::Caller.as_str() {
        return known.interface.clone();
    }
    format!("{} (set up by NetworkManager, or whoever has it connected)", known.interface)
}

fn overview(tree: &Tree, networks: &[&Network], screen: Screen) -> String {
    let bounded = networks.iter().any(|network| network.facts.quota > 0);
    let mut columns = vec![
        Column::left("NETWORK", 0),
        Column::left("ROLE", 6),
        Column::left("STATE", 0),
        Column::left("INTERFACE", 5),
        Column::left("ADDRESSES", 0),
        Column::left("HUB", 7),
        Column::right("PEERS", 2),
        Column::right("SENT", 3),
        Column::right("RECEIVED", 4),
    ];
    columns.extend(bounded.then(|| Column::right("QUOTA", 1)));
    let mut table = Table::new(&columns);
    for network in networks {
        let known = &network.facts;
        let mut cells = vec![
            Cell::new(&known.name),
            Cell::new(&known.role),
            Cell::state(&known.state),
            Cell::new(dash(&known.interface)),
            Cell::new(dash(&known.addresses.join(", "))),
            hub(network),
            Cell::new(peers(tree, network)),
            Cell::new(bytes(counter(network, "tx-bytes"))),
            Cell::new(bytes(counter(network, "rx-bytes"))),
        ];
        cells.extend(bounded.then(|| quota(network)));
        table.row(cells);
    }
    let mut text = table.render(screen);
    let troubled = networks.iter().filter(|network| !network.facts.detail.is_empty());
    for network in troubled {
        text.push_str(&plain(&format!("{}: {}", network.facts.name, network.facts.detail)));
        text.push('\n');
    }
    text
}

/// All that is known of one network
fn details(tree: &Tree, network: &Network, now: u64, screen: Screen) -> String {
    let known = &network.facts;
    let traffic = |packets, bytes_of| {
        let count = counter(network, packets);
        format!("{} in {count} packets", bytes(counter(network, bytes_of)))
    };
    let refusals = network.figures.refusals.iter();
    let refusals: Vec<_> = refusals.map(|(name, count)| format!("{name} {count}")).collect();
    let mtu = if known.mtu > 0 { known.mtu.to_string() } else { String::new() };
    let hub = if known.hub_key.is_empty() { Cell::new("") } else { hub(network) };
    let overflowed = match counter(network, "wire-rx-overflowed") {
        0 => String::new(),
        count => format!("{count} messages dropped by the system before they were read"),
    };
    let lines = [
        ("network", Cell::new(&known.name)),
        ("role", Cell::new(&known.role)),
        ("state", Cell::state(&known.state)),
        ("detail", Cell::new(&known.detail)),
        ("interface", Cell::new(interface(known))),
        ("addresses", Cell::new(known.addresses.join(", "))),
        ("subnets", Cell::new(known.subnets.join(", "))),
        ("MTU", Cell::new(mtu)),
        ("public key", Cell::new(&known.public_key)),
        ("listen", Cell::new(&known.listen)),
        ("buffers", Cell::new(buffers(network))),
        ("hub", hub),
        ("hub's key", Cell::new(&known.hub_key)),
        ("names", Cell::new(names(network))),
        ("to use them", Cell::new(how_to_ask(network))),
        ("peers", Cell::new(peers(tree, network))),
        ("sent", Cell::new(traffic("tx-packets", "tx-bytes"))),
        ("received", Cell::new(traffic("rx-packets", "rx-bytes"))),
        ("on the wire", Cell::new(wire(network))),
        ("quota", Cell::new(quota_in_full(network, now))),
        ("dropped", Cell::new(counter(network, "dropped").to_string())),
        ("overflowed", Cell::new(overflowed)),
        ("refused", Cell::new(refusals.join(", "))),
    ];
    facts(&lines, screen.colour)
}

/// Room for messages that wait in the system
fn buffers(network: &Network) -> String {
    let known = &network.facts;
    if known.receive_buffer == 0 {
        return String::new();
    }
    let (receive, send) = (bytes(known.receive_buffer), bytes(known.send_buffer));
    format!("{receive} to receive, {send} to send")
}

/// What nodes are called, and who knows
fn names(network: &Network) -> String {
    let known = &network.facts;
    if known.dns_suffix.is_empty() {
        return String::new();
    }
    let name = format!("NAME.{}", known.dns_suffix);
    let who = match known.dns_state.as_str() {
        "announced" => "systemd-resolved asks here",
        "caller" => "as whoever asked for the network has set it up",
        "pending" => "systemd-resolved is being told",
        "unannounced" => "systemd-resolved does not run, so nobody asks here",
        _ => &known.dns_detail,
    };
    if who.is_empty() { name } else { format!("{name}, {who}") }
}

/// What to do where nobody asks us by himself; empty where somebody does
pub(super) fn how_to_ask(network: &Network) -> String {
    let known = &network.facts;
    let told = !matches!(known.dns_state.as_str(), "refused" | "unannounced");
    let Some((addr, port)) = known.dns_server.rsplit_once(':').filter(|_| !told) else {
        return String::new();
    };
    let addr = addr.trim_matches(['[', ']']);
    let suffix = &known.dns_suffix;
    format!("dig @{addr} -p {port} NAME.{suffix}; for dnsmasq: server=/{suffix}/{addr}#{port}")
}

/// Messages of both directions; nothing before there were any
fn wire(network: &Network) -> String {
    let of = |direction: &str| {
        let messages = counter(network, &format!("wire-{direction}-messages"));
        let size = bytes(counter(network, &format!("wire-{direction}-bytes")));
        format!("{size} in {messages} messages")
    };
    let any = counter(network, "wire-tx-messages") + counter(network, "wire-rx-messages") > 0;
    if any { format!("sent {}, received {}", of("tx"), of("rx")) } else { String::new() }
}

/// How much of the quota is used
fn quota(network: &Network) -> Cell {
    if network.facts.quota == 0 {
        return Cell::toned("-", Tone::Faint);
    }
    let share = quota_share(network);
    let tone = match share {
        share if share >= 1.0 => Tone::Bad,
        share if share >= 0.8 => Tone::Uneasy,
        _ => Tone::Plain,
    };
    Cell::toned(percent(share), tone)
}

fn quota_in_full(network: &Network, now: u64) -> String {
    let known = &network.facts;
    if known.quota == 0 {
        return String::new();
    }
    let used = decimal_bytes(network.figures.quota_used);
    let share = percent(quota_share(network));
    let (all, period) = (decimal_bytes(known.quota), &known.quota_period);
    let anew = ahead(known.quota_until, now);
    format!("{used} of {all} a {period} sent ({share}), anew {anew}")
}

fn quota_share(network: &Network) -> f64 {
    network.figures.quota_used as f64 / network.facts.quota as f64
}

fn hub(network: &Network) -> Cell {
    let known = &network.facts;
    match (known.hub_key.is_empty(), known.hub_alive) {
        (true, _) => Cell::toned("-", Tone::Faint),
        (false, true) => Cell::new(&known.hub_endpoint),
        (false, false) => Cell::toned(format!("{} (silent)", known.hub_endpoint), Tone::Uneasy),
    }
}

/// How many peers have a session, of how many
fn peers(tree: &Tree, network: &Network) -> String {
    let name = &network.facts.name;
    let of_network = || tree.peers.values().filter(|peer| tree.network_of(peer) == name);
    let connected = of_network().filter(|peer| peer.facts.state == "connected").count();
    format!("{connected}/{}", of_network().count())
}

fn counter(network: &Network, name: &str) -> u64 {
    network.figures.statistics.get(name).copied().unwrap_or(0)
}

/// A dash where there is nothing
fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

const NOTHING: &str = "no networks are configured; with an invitation run: fastvpnctl join \
                       INVITATION, to make one: fastvpnctl hub init NAME --subnet ADDRESS/LENGTH";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Colour;
    use crate::render::samples::{key, tree};

    const PAPER: Screen = Screen { width: None, colour: Colour::Never };

    #[test]
    fn overview_has_a_line_for_each_network() {
        let tree = tree();

        let text = overview(&tree, &chosen(&tree, None).unwrap(), PAPER);

        assert_eq!(
            text,
            "NETWORK  ROLE  STATE  INTERFACE    ADDRESSES         HUB                   PEERS   SENT  RECEIVED  QUOTA\n\
             office   peer  up     fvpn-office  172.16.97.101/24  hub.example.net:8796    1/1  300 B   2.0 KiB   82 %\n"
        );
    }

    #[test]
    fn overview_fits_a_terminal_of_eighty_columns() {
        let tree = tree();
        let screen = Screen { width: Some(80), colour: Colour::Never };

        let text = overview(&tree, &chosen(&tree, None).unwrap(), screen);

        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("172.16.97.101/24") && text.contains("1/1"), "{text}");
    }

    #[test]
    fn what_is_wrong_stands_below() {
        let mut tree = tree();
        let office = tree.networks.values_mut().next().unwrap();
        office.facts.state = "hub-lost".to_owned();
        office.facts.detail = "no answer from hub.example.net:8796".to_owned();
        office.facts.hub_alive = false;

        let text = overview(&tree, &chosen(&tree, None).unwrap(), PAPER);

        assert!(text.contains("hub.example.net:8796 (silent)"), "{text}");
        assert!(text.ends_with("office: no answer from hub.example.net:8796\n"), "{text}");
    }

    #[test]
    fn details_tell_what_was_dropped_unread_without_blaming_a_limit() {
        let mut tree = tree();
        let office = tree.networks.values_mut().next().unwrap();
        office.figures.statistics.insert("wire-rx-overflowed".to_owned(), 7);

        let text = details(&tree, chosen(&tree, Some("office")).unwrap()[0], 1_701_000_000, PAPER);

        let line = "overflowed: 7 messages dropped by the system before they were read\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn details_tell_what_room_the_system_has_granted() {
        let tree = tree();

        let text = details(&tree, chosen(&tree, Some("office")).unwrap()[0], 1_701_000_000, PAPER);

        assert!(text.contains("buffers: 4.0 MiB to receive, 4.0 MiB to send\n"), "{text}");
    }

    #[test]
    fn details_say_how_to_use_names_where_nobody_was_told() {
        let mut tree = tree();
        let of = |tree: &Tree| {
            details(tree, chosen(tree, Some("office")).unwrap()[0], 1_701_000_000, PAPER)
        };
        let text = of(&tree);
        assert!(
            text.contains("names: NAME.office.fastvpn, systemd-resolved asks here\n"),
            "{text}"
        );
        assert!(!text.contains("to use them"), "{text}");

        let office = tree.networks.values_mut().next().unwrap();
        office.facts.dns_state = "unannounced".to_owned();
        office.facts.dns_server = "[fd00::1]:5353".to_owned();

        let text = of(&tree);
        let how = "to use them: dig @fd00::1 -p 5353 NAME.office.fastvpn; \
                   for dnsmasq: server=/office.fastvpn/fd00::1#5353\n";
        assert!(text.contains(how), "{text}");
    }

    #[test]
    fn details_leave_out_what_is_empty() {
        let tree = tree();

        let text = details(&tree, chosen(&tree, Some("office")).unwrap()[0], 1_701_000_000, PAPER);

        assert!(text.contains(&format!("public key: {}\n", key(9))), "{text}");
        assert!(text.contains("refused: replayed 4\n"), "{text}");
        let quota = "quota: 820 kB of 1.00 MB a month sent (82 %), anew in 4 days\n";
        assert!(text.contains(quota), "{text}");
        assert!(!text.contains("on the wire"), "{text}");
        assert!(!text.contains("detail"), "{text}");
    }
}
