//! `fastvpnctl member`: who belongs to a hub's network.

use fastvpn_dbus::types::MemberAnswer;
use fastvpn_dbus::{Bus, NetworkProxy, network_path};

use super::{Absent, Daemon, Patience, chosen, unix_now};
use crate::args::MemberCommand;
use crate::failure::Failure;
use crate::json::{MemberDocument, MemberRow, MembersDocument, RenamedDocument};
use crate::output::{Form, Output};
use crate::render::{Cell, Column, Screen, Table, Tone, ago, plain};

/// A network whose hub the daemon is
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) network: String,
    pub(super) proxy: NetworkProxy<'static>,
}

/// Does what the command says
pub(super) async fn run(
    bus: &Bus,
    output: &Output,
    command: &MemberCommand,
) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Fail, Patience::Long).await?;
    match command {
        MemberCommand::Approve { who, network } => {
            let hub = hub(&daemon, network.as_deref()).await?;
            daemon.change(hub.proxy.approve_member(who)).await?;
            told(output, &hub, who, "approved")
        }
        MemberCommand::List { network } => list(&daemon, output, network.as_deref()).await,
        MemberCommand::Rename { who, name, network } => {
            let hub = hub(&daemon, network.as_deref()).await?;
            daemon.change(hub.proxy.rename_member(who, name)).await?;
            match output.form {
                Form::Json => {
                    output.json(&RenamedDocument { network: &hub.network, member: who, name })
                }
                Form::Text => output.line(&plain(&format!("{who} is called {name} now"))),
            }
        }
        MemberCommand::Revoke { who, network } => {
            let hub = hub(&daemon, network.as_deref()).await?;
            daemon.change(hub.proxy.revoke_member(who)).await?;
            told(output, &hub, who, "revoked")
        }
    }
}

/// Returns the hub that was named, or the only one
pub(super) async fn hub(daemon: &Daemon<'_>, network: Option<&str>) -> Result<Hub, Failure> {
    let mut hubs = hubs(daemon, network).await?;
    match (hubs.pop(), hubs.is_empty()) {
        (Some(hub), true) => Ok(hub),
        (last, _) => {
            let mut names: Vec<_> = hubs.iter().map(|hub| hub.network.as_str()).collect();
            names.extend(last.iter().map(|hub| hub.network.as_str()));
            let message = format!(
                "this machine is the hub of several networks; say which with \
                                   --network: {}",
                names.join(", ")
            );
            Err(Failure::Failed("Ambiguous", plain(&message)))
        }
    }
}

/// Returns all hubs, or the one that was named; at least one
pub(super) async fn hubs(daemon: &Daemon<'_>, network: Option<&str>) -> Result<Vec<Hub>, Failure> {
    let tree = daemon.tree().await?;
    let mut hubs = Vec::new();
    for found in chosen(&tree, network)? {
        // Of a network that was named the daemon says itself that it is no hub there.
        if network.is_none() && found.facts.role != "hub" {
            continue;
        }
        let path = network_path(&found.facts.name);
        let proxy = NetworkProxy::new(&daemon.connection, path).await;
        let proxy = proxy.map_err(|error| daemon.bus_failure(&error))?;
        hubs.push(Hub { network: found.facts.name.clone(), proxy });
    }
    if hubs.is_empty() {
        let message = "this machine is the hub of no network; members are managed on the hub, and \
                       one is made with: fastvpnctl hub init NAME --subnet CIDR";
        return Err(Failure::Failed("NotHub", message.to_owned()));
    }
    Ok(hubs)
}

async fn list(daemon: &Daemon<'_>, output: &Output, network: Option<&str>) -> Result<(), Failure> {
    let mut found = Vec::new();
    for hub in hubs(daemon, network).await? {
        let members = hub.proxy.members().await.map_err(|error| daemon.failure(error))?;
        found.extend(members.into_iter().map(|member| (hub.network.clone(), member)));
    }
    match (output.form, found.as_slice()) {
        (Form::Json, found) => output.json(&MembersDocument {
            members: found.iter().map(|(network, member)| MemberRow { network, member }).collect(),
        }),
        (Form::Text, []) => output.line("no members yet; invite one with: fastvpnctl invite NAME"),
        (Form::Text, found) => output.text(&overview(found, unix_now().as_secs(), output.screen)),
    }
}

fn overview(found: &[(String, MemberAnswer)], now: u64, screen: Screen) -> String {
    let mut table = Table::new(&[
        Column::left("NETWORK", 5),
        Column::left("NAME", 0),
        Column::left("STANDING", 0),
        Column::left("ONLINE", 1),
        Column::left("ADDRESSES", 0),
        Column::left("SUBNETS", 4),
        Column::left("SOURCE", 2),
        Column::left("SINCE", 6),
        Column::left("KEY", 3),
    ]);
    for (network, member) in found {
        let since = Some(member.since).filter(|since| *since != 0);
        let standing = match member.standing.as_str() {
            "approved" => Tone::Plain,
            "pending" => Tone::Uneasy,
            _ => Tone::Faint,
        };
        table.row(vec![
            Cell::new(network),
            Cell::new(&member.name),
            Cell::toned(&member.standing, standing),
            Cell::new(if member.online { "yes" } else { "no" }),
            Cell::new(dash(member.addresses.join(", "))),
            Cell::new(dash(member.subnets.join(", "))),
            Cell::new(&member.source),
            Cell::new(since.map_or_else(|| "-".to_owned(), |since| ago(Some(since), now))),
            Cell::toned(&member.public_key, Tone::Faint),
        ]);
    }
    table.render(screen)
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn told(output: &Output, hub: &Hub, who: &str, standing: &str) -> Result<(), Failure> {
    match output.form {
        Form::Json => output.json(&MemberDocument { network: &hub.network, member: who, standing }),
        Form::Text => output.line(&plain(&format!("{who} is {standing} in {}", hub.network))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Colour;

    #[test]
    fn overview_tells_standing_and_source_and_fits_eighty_columns() {
        let member = MemberAnswer {
            name: "tokyo".to_owned(),
            public_key: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned(),
            addresses: vec!["172.16.97.102".to_owned()],
            subnets: Vec::new(),
            standing: "pending".to_owned(),
            source: "store".to_owned(),
            online: false,
            since: 1_700_000_000,
        };
        let found = [("office".to_owned(), member)];

        let wide = overview(&found, 1_700_000_060, Screen { width: None, colour: Colour::Never });
        let narrow =
            overview(&found, 1_700_000_060, Screen { width: Some(80), colour: Colour::Never });

        for word in ["office", "tokyo", "pending", "no", "172.16.97.102", "store", "AQEB"] {
            assert!(wide.contains(word), "{word} in {wide}");
        }
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(narrow.contains("tokyo") && narrow.contains("pending"), "{narrow}");
    }
}
