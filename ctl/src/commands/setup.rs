//! `fastvpnctl hub init`, `join` and `leave`: networks made, joined and left.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io::Read;
use std::time::Duration;

use fastvpn_dbus::Bus;
use fastvpn_dbus::tree::{Network, Tree};
use fastvpn_dbus::types::Apply;
use tokio::time::sleep;
use zbus::Variant;

use super::networkmanager::{self, NetworkManager};
use super::{Absent, Daemon, Patience, waiting};
use crate::args::{HubArguments, JoinArguments};
use crate::failure::Failure;
use crate::json::{ChangedDocument, MadeDocument};
use crate::output::{Form, Output};
use crate::render::plain;

/// Makes a hub, and says what to do next
pub(super) async fn init(bus: &Bus, output: &Output, hub: &HubArguments) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Start, Patience::Long).await?;
    let manager = daemon.manager().await?;
    let mut options = HashMap::from([("subnet", Variant::from(hub.subnet.clone()))]);
    if !hub.address.is_empty() {
        options.insert("address", Variant::from(hub.address.clone()));
    }
    let texts = [("endpoint", &hub.endpoint), ("listen", &hub.listen)];
    for (name, text) in texts {
        if let Some(text) = text {
            options.insert(name, Variant::from(text.as_str()));
        }
    }
    let call = daemon.change(manager.create_hub(&hub.name, &options));
    let path = waiting::beside(bus, output, &hub.name, call).await?;
    let tree = daemon.tree().await?;
    let network = made(&tree, path.as_str())?;
    if output.form == Form::Json {
        return output.json(&MadeDocument::new(network));
    }
    output.line(&plain(&format!("{}; it listens on {}", said(network), network.facts.listen)))?;
    if hub.endpoint.is_none() {
        output.line(
            "no --endpoint was given: invitations name this machine's own addresses, which others \
             reach only\nif it is not behind NAT",
        )?;
    }
    output.line("next, invite a machine: fastvpnctl invite NAME")
}

/// Joins a network by an invitation
pub(super) async fn join(bus: &Bus, output: &Output, join: &JoinArguments) -> Result<(), Failure> {
    let invitation = match join.invitation.as_str() {
        "-" => read_invitation()?,
        given => given.to_owned(),
    };
    let daemon = Daemon::open(bus, Absent::Start, Patience::Long).await?;
    let manager = daemon.manager().await?;
    let mut options = HashMap::new();
    if let Some(name) = &join.name {
        options.insert("name", Variant::from(name.as_str()));
    }
    if join.networkmanager {
        return join_for_networkmanager(&daemon, output, &invitation, options).await;
    }
    let before = names(&daemon.tree().await?);
    let joining = daemon.change(manager.join(&invitation, &options));
    let path = match output.form {
        Form::Json => joining.await?,
        Form::Text => beside(joining, progress(&daemon, output, &before)).await?,
    };
    let tree = daemon.tree().await?;
    let network = made(&tree, path.as_str())?;
    match output.form {
        Form::Json => output.json(&MadeDocument::new(network)),
        Form::Text => output.line(&plain(&said(network))),
    }
}

/// Joins a network that NetworkManager brings up, and has it do so
async fn join_for_networkmanager(
    daemon: &Daemon<'_>,
    output: &Output,
    invitation: &str,
    mut options: HashMap<&str, Variant<'_>>,
) -> Result<(), Failure> {
    let desktop = NetworkManager::open(daemon.bus, &daemon.connection).await?;
    let manager = daemon.manager().await?;
    options.insert("apply", Variant::from(Apply::Caller.as_str()));
    let path = daemon.change(manager.join(invitation, &options)).await?;
    let tree = daemon.tree().await?;
    let name = made(&tree, path.as_str())?.facts.name.as_str();
    if let Err(failure) = desktop.bring_up(name).await {
        // The hub may have welcomed it, and an invitation is good for once.
        if output.form == Form::Text {
            output.line(&plain(&format!(
                "{name} is joined; to try again: fastvpnctl networkmanager add {name}, to give \
                 up: fastvpnctl leave {name}"
            )))?;
        }
        return Err(failure);
    }
    match output.form {
        Form::Json => {
            let tree = daemon.tree().await?;
            output.json(&MadeDocument::new(made(&tree, path.as_str())?))
        }
        Form::Text => networkmanager::said_up(output, name),
    }
}

/// Takes a network down and deletes it
pub(super) async fn leave(bus: &Bus, output: &Output, network: &str) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Start, Patience::Long).await?;
    let manager = daemon.manager().await?;
    daemon.change_of(network, manager.leave(network)).await?;
    networkmanager::forget(bus, &daemon.connection, network).await?;
    match output.form {
        Form::Json => output.json(&ChangedDocument { network, state: "left" }),
        Form::Text => output.line(&format!("{network} is left; its keys are deleted")),
    }
}

/// Reads an invitation from standard input, where no list of processes shows it
fn read_invitation() -> Result<String, Failure> {
    let mut text = String::new();
    let input = std::io::stdin().lock();
    let read = input.take(INVITATION_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::failed(format!("cannot read the invitation: {error}")))?;
    Ok(text)
}

/// Waits for `work`; `beside` it goes on until then
async fn beside<T>(
    work: impl Future<Output = Result<T, Failure>>,
    beside: impl Future<Output = Result<(), Failure>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        // Who cannot be told about it can still be joined.
        _ = beside => {}
    }
    work.await
}

/// Says how far it has come, if that takes time
async fn progress(
    daemon: &Daemon<'_>,
    output: &Output,
    before: &BTreeSet<String>,
) -> Result<(), Failure> {
    let mut told = None;
    sleep(QUICK).await;
    loop {
        let tree = daemon.tree().await?;
        let new = tree.networks.values().find(|one| !before.contains(&one.facts.name));
        let step = new.map(step);
        if let Some(step) = &step
            && told != Some(step.clone())
        {
            output.line(&plain(step))?;
        }
        told = step.or(told);
        sleep(LOOK).await;
    }
}

/// Names what a network that is being joined has come to
fn step(network: &Network) -> String {
    let facts = &network.facts;
    match (facts.addresses.as_slice(), facts.detail.as_str()) {
        ([], "") if facts.hub_alive => "registered with the hub".to_owned(),
        ([], "") => format!("contacting the hub at {} …", facts.hub_endpoint),
        ([], detail) => detail.to_owned(),
        (addresses, _) => format!("got the address {}", addresses.join(", ")),
    }
}

/// Says in a sentence what became of a network
fn said(network: &Network) -> String {
    let facts = &network.facts;
    match facts.state.as_str() {
        "up" if facts.interface.is_empty() => format!("{} is up", facts.name),
        "up" => {
            let addresses = facts.addresses.join(", ");
            format!("{} is up: {addresses} on {}", facts.name, facts.interface)
        }
        "pending" => {
            format!("{} is joined, and {}; then it comes up by itself", facts.name, facts.detail)
        }
        state if facts.detail.is_empty() => format!("{} is {state}", facts.name),
        state => format!("{} is {state}: {}", facts.name, facts.detail),
    }
}

fn made<'a>(tree: &'a Tree, path: &str) -> Result<&'a Network, Failure> {
    let gone = || Failure::failed("the network was removed again meanwhile");
    tree.networks.get(path).ok_or_else(gone)
}

fn names(tree: &Tree) -> BTreeSet<String> {
    tree.networks.values().map(|network| network.facts.name.clone()).collect()
}

/// No invitation is longer
const INVITATION_MAX: u64 = 16 * 1024;
/// What is done in this time needs no progress
const QUICK: Duration = Duration::from_secs(1);
/// Time between two looks at how far it has come
const LOOK: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn progress_goes_from_the_hub_to_the_address() {
        let mut network = Network::default();
        network.facts.hub_endpoint = "hub.example.net:8796".to_owned();
        let contacting = step(&network);
        network.facts.hub_alive = true;
        let registered = step(&network);
        network.facts.addresses = vec!["172.16.97.2/24".to_owned()];
        let addressed = step(&network);

        assert_eq!(contacting, "contacting the hub at hub.example.net:8796 …");
        assert_eq!(registered, "registered with the hub");
        assert_eq!(addressed, "got the address 172.16.97.2/24");
    }

    #[test]
    fn what_became_of_it_is_said_with_what_matters() {
        let mut office = samples::tree().networks.into_values().next().unwrap();
        let up = said(&office);
        office.facts.state = "pending".to_owned();
        office.facts.detail = "the hub waits for approval".to_owned();

        assert!(up.starts_with("office is up: 172.16.97.101/24"), "{up}");
        assert_eq!(
            said(&office),
            "office is joined, and the hub waits for approval; then it comes up by itself"
        );
    }

    #[tokio::test]
    async fn trouble_of_the_progress_does_not_end_the_work() {
        let work = async {
            sleep(Duration::from_millis(20)).await;
            Ok(7)
        };
        let trouble = async { Err(Failure::failed("no tree")) };

        assert_eq!(beside(work, trouble).await.unwrap(), 7);
    }
}
