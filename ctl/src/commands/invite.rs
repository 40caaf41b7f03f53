//! `fastvpnctl invite` and `fastvpnctl invitation`: newcomers of a hub's network.

use std::collections::HashMap;

use fastvpn_dbus::{Bus, InviteAnswer};
use zbus::Variant;

use super::members;
use super::{Absent, Daemon, Patience, qr, unix_now};
use crate::args::{InvitationCommand, InviteArguments};
use crate::failure::Failure;
use crate::json::{InvitationDocument, InvitationsDocument, InviteDocument, MemberDocument};
use crate::output::{Form, Output};
use crate::render::{Cell, Column, Table, ahead, plain};

/// Makes an invitation and shows it
pub(super) async fn make(
    bus: &Bus,
    output: &Output,
    arguments: &InviteArguments,
) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Fail, Patience::Long).await?;
    let hub = members::hub(&daemon, arguments.network.as_deref()).await?;
    let mut options = HashMap::from([("ttl", Variant::from(arguments.ttl.as_secs()))]);
    if arguments.approval {
        options.insert("approval", Variant::from(true));
    }
    for (name, values) in [
        ("address", &arguments.address),
        ("subnets", &arguments.subnet),
        ("endpoint", &arguments.endpoint),
    ] {
        if !values.is_empty() {
            options.insert(name, Variant::from(values.clone()));
        }
    }
    let made = daemon.change(hub.proxy.invite(&arguments.name, &options)).await?;
    if output.form == Form::Json {
        return output.json(&InviteDocument {
            network: &hub.network,
            member: &arguments.name,
            invitation: &made.invitation,
            expires: made.expires,
            endpoints: &made.endpoints,
        });
    }
    if !output.is_terminal() {
        // For a pipe to `fastvpnctl join -` on the new machine.
        return output.line(&plain(&made.invitation));
    }
    output.text(&explained(&hub.network, arguments, &made))?;
    if arguments.no_qr {
        return Ok(());
    }
    match qr::drawn(&made.invitation, output.screen) {
        Some(picture) => output.text(&format!("\n{picture}")),
        None => output.line("\n(this terminal is too narrow for a QR code)"),
    }
}

/// Lists or withdraws invitations
pub(super) async fn manage(
    bus: &Bus,
    output: &Output,
    command: &InvitationCommand,
) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Fail, Patience::Long).await?;
    match command {
        InvitationCommand::Cancel { name, network } => {
            let hub = members::hub(&daemon, network.as_deref()).await?;
            daemon.change(hub.proxy.cancel_invitation(name)).await?;
            match output.form {
                Form::Json => output.json(&MemberDocument {
                    network: &hub.network,
                    member: name,
                    standing: "withdrawn",
                }),
                Form::Text => output.line(&plain(&format!("the invitation of {name} is void"))),
            }
        }
        InvitationCommand::List { network } => list(&daemon, output, network.as_deref()).await,
    }
}

async fn list(daemon: &Daemon<'_>, output: &Output, network: Option<&str>) -> Result<(), Failure> {
    let mut found = Vec::new();
    for hub in members::hubs(daemon, network).await? {
        for invitation in daemon.change(hub.proxy.invitations()).await? {
            found.push((hub.network.clone(), invitation));
        }
    }
    if output.form == Form::Json {
        let invitations = found.iter().map(|(network, one)| InvitationDocument {
            network,
            name: &one.name,
            expires: one.expires,
            approval: one.approval,
        });
        return output.json(&InvitationsDocument { invitations: invitations.collect() });
    }
    if found.is_empty() {
        return output.line("no invitations are open; make one with: fastvpnctl invite NAME");
    }
    let now = unix_now().as_secs();
    let mut table = Table::new(&[
        Column::left("NETWORK", 1),
        Column::left("NAME", 0),
        Column::left("EXPIRES", 0),
        Column::left("APPROVAL", 2),
    ]);
    for (network, one) in &found {
        table.row(vec![
            Cell::new(network),
            Cell::new(&one.name),
            Cell::new(ahead(one.expires, now)),
            Cell::new(if one.approval { "needed" } else { "-" }),
        ]);
    }
    output.text(&table.render(output.screen))
}

/// What people are told of an invitation
fn explained(network: &str, arguments: &InviteArguments, made: &InviteAnswer) -> String {
    let (name, expires) = (&arguments.name, ahead(made.expires, unix_now().as_secs()));
    let lines = [
        format!("Invitation of {name} to {network}, for one machine; it expires {expires}."),
        format!("The hub is at {}.", made.endpoints.join(", ")),
        String::new(),
        "Whoever has it may join: hand it over in private. On the new machine:".to_owned(),
        String::new(),
        format!("  sudo fastvpnctl join {}", made.invitation),
    ];
    let mut text: String = lines.iter().map(|line| plain(line) + "\n").collect();
    if arguments.approval {
        let then = format!("Then approve it here: fastvpnctl member approve {name}");
        text += &format!("\n{}\n", plain(&then));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_invites_is_told_where_the_hub_is_and_what_to_do_on_the_new_machine() {
        let arguments = InviteArguments {
            name: "tokyo".to_owned(),
            network: None,
            ttl: Duration::from_secs(3600),
            approval: true,
            address: Vec::new(),
            subnet: Vec::new(),
            endpoint: Vec::new(),
            no_qr: false,
        };
        let made = InviteAnswer {
            invitation: "FASTVPN:ABC".to_owned(),
            expires: unix_now().as_secs() + 3600,
            endpoints: vec!["hub.example.net:8796".to_owned()],
        };

        let text = explained("home", &arguments, &made);

        assert!(text.starts_with("Invitation of tokyo to home"), "{text}");
        for part in [
            "hub.example.net:8796",
            "\n  sudo fastvpnctl join FASTVPN:ABC\n",
            "\n\nThen approve it here: fastvpnctl member approve tokyo\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
