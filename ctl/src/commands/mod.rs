//! The commands, one function each.

mod agent;
pub(crate) mod doctor;
mod follow;
mod invite;
mod keygen;
mod members;
mod monitor;
mod networkmanager;
mod peers;
mod ping;
mod qr;
mod setup;
mod status;
pub(crate) mod top;
mod waiting;

use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastvpn_dbus::tree::{Network, Tree};
use fastvpn_dbus::{BUS_NAME, Bus, Error, ManagerProxy};
use tokio::time::timeout;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

use crate::args::{Arguments, Command, HubCommand, NetworkManagerCommand};
use crate::failure::Failure;
use crate::json::ChangedDocument;
use crate::nearest::nearest;
use crate::output::{Form, Output};
use crate::render::plain;

/// Does what the command line says
pub(crate) async fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let bus = &arguments.bus;
    match arguments.wanted() {
        Command::Status { network } => status::run(bus, output, network.as_deref()).await,
        Command::Peers { network } => peers::run(bus, output, network.as_deref()).await,
        Command::Connect { network } => connect(bus, output, &network).await,
        Command::Disconnect { network } => disconnect(bus, output, &network).await,
        Command::Doctor { network } => doctor::run(bus, output, network.as_deref()).await,
        Command::Hub { command: HubCommand::Init(hub) } => setup::init(bus, output, &hub).await,
        Command::Join(join) => setup::join(bus, output, &join).await,
        Command::Leave { network } => setup::leave(bus, output, &network).await,
        Command::Invite(invite) => invite::make(bus, output, &invite).await,
        Command::Invitation(command) => invite::manage(bus, output, &command).await,
        Command::Member(command) => members::run(bus, output, &command).await,
        Command::Monitor => monitor::run(bus, output).await,
        Command::Networkmanager { command: NetworkManagerCommand::Add { network } } => {
            networkmanager::add(bus, output, &network).await
        }
        Command::Networkmanager { command: NetworkManagerCommand::Remove { network } } => {
            networkmanager::remove(bus, output, &network).await
        }
        Command::Reload => reload(bus, output).await,
        Command::Keygen { public: false, file } => keygen::make(output, &file),
        Command::Keygen { public: true, file } => keygen::show(output, &file),
        Command::Ping(ping) => ping::run(bus, output, &ping).await,
        Command::Top(top) => top::run(bus, output, &top).await,
    }
}

async fn connect(bus: &Bus, output: &Output, network: &str) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Start, Patience::Long).await?;
    let manager = daemon.manager().await?;
    let options = HashMap::new();
    let call = daemon.change_of(network, manager.connect(network, &options));
    waiting::beside(bus, output, network, call).await?;
    match output.form {
        Form::Json => output.json(&ChangedDocument { network, state: "up" }),
        Form::Text => output.line(&format!("{network} is up")),
    }
}

async fn disconnect(bus: &Bus, output: &Output, network: &str) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Fail, Patience::Long).await?;
    let manager = daemon.manager().await?;
    daemon.change_of(network, manager.disconnect(network)).await?;
    match output.form {
        Form::Json => output.json(&ChangedDocument { network, state: "down" }),
        Form::Text => output.line(&format!("{network} is down")),
    }
}

async fn reload(bus: &Bus, output: &Output) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Fail, Patience::Long).await?;
    let manager = daemon.manager().await?;
    let reloaded = daemon.change(manager.reload()).await?;
    if output.form == Form::Json {
        return output.json(&reloaded);
    }
    let mut quiet = true;
    for (word, networks) in [
        ("added", &reloaded.added),
        ("removed", &reloaded.removed),
        ("changed", &reloaded.changed),
        ("restarted", &reloaded.restarted),
    ] {
        if !networks.is_empty() {
            quiet = false;
            output.line(&plain(&format!("{word}: {}", networks.join(", "))))?;
        }
    }
    if quiet { output.line("nothing changed") } else { Ok(()) }
}

/// A way to the daemon
#[derive(Debug)]
struct Daemon<'a> {
    bus: &'a Bus,
    connection: Connection,
}

/// What to do where the daemon does not run
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Absent {
    /// Say so: to look at something is no reason to start it
    Fail,
    /// Let the bus start it
    Start,
    /// Go on; it may come
    Wait,
}

/// How long the daemon may take for an answer
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Patience {
    /// To find out, or to fail
    Long,
    /// To say what it knows
    Short,
}

impl<'a> Daemon<'a> {
    async fn open(bus: &'a Bus, absent: Absent, patience: Patience) -> Result<Self, Failure> {
        let answer = match patience {
            Patience::Long => CHANGE_PATIENCE,
            Patience::Short => Duration::from_secs(25),
        };
        let connecting = bus.builder().method_timeout(answer).build();
        let connection = match timeout(BUS_PATIENCE, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(Failure::no_bus(bus, &error)),
            Err(_) => {
                return Err(Failure::Unreachable(format!("the {bus} does not answer")));
            }
        };
        let daemon = Self { bus, connection };
        match absent {
            Absent::Wait => {}
            Absent::Start if daemon.runs().await? => {}
            Absent::Start => daemon.start().await?,
            Absent::Fail if daemon.runs().await? => {}
            Absent::Fail => return Err(Failure::no_daemon(bus)),
        }
        Ok(daemon)
    }

    /// Tells whether somebody owns the daemon's name
    async fn runs(&self) -> Result<bool, Failure> {
        let name = BusName::from_static_str(BUS_NAME).map_err(|error| self.bus_failure(&error))?;
        let bus =
            DBusProxy::new(&self.connection).await.map_err(|error| self.bus_failure(&error))?;
        bus.name_has_owner(name).await.map_err(|error| self.bus_failure(&error.into()))
    }

    async fn start(&self) -> Result<(), Failure> {
        let (name, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
        let start = ("StartServiceByName", &(BUS_NAME, 0_u32));
        let started = self.connection.call_method(Some(name), path, Some(name), start.0, start.1);
        match started.await {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::no_daemon(self.bus)),
        }
    }

    async fn manager(&self) -> Result<ManagerProxy<'static>, Failure> {
        ManagerProxy::new(&self.connection).await.map_err(|error| self.bus_failure(&error))
    }

    /// Waits for the answer to a change, while polkit may ask people about it
    async fn change<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        // zbus bounds no call that people may be asked about.
        match agent::beside(self.bus, timeout(CHANGE_PATIENCE, call)).await? {
            Ok(answer) => answer.map_err(|error| self.failure(error)),
            Err(_) => Err(Failure::Unreachable("fastvpnd does not answer".to_owned())),
        }
    }

    /// Asks for everything that the daemon shows
    async fn tree(&self) -> Result<Tree, Failure> {
        Tree::load(&self.connection).await.map_err(|error| self.bus_failure(&error))
    }

    /// Waits for the answer to a change of a network; one that is not there is told with those that
    /// are
    async fn change_of<T>(
        &self,
        network: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        match self.change(call).await {
            Err(Failure::Failed("UnknownNetwork", message)) => match self.tree().await {
                Ok(tree) => Err(unknown(network, &tree.networks.values().collect::<Vec<_>>())),
                Err(_) => Err(Failure::Failed("UnknownNetwork", message)),
            },
            answer => answer,
        }
    }

    fn failure(&self, error: Error) -> Failure {
        Failure::of(error, self.bus)
    }

    fn bus_failure(&self, error: &zbus::Error) -> Failure {
        Failure::of_bus(error, self.bus)
    }
}

/// Returns the networks to show: all, or the one that was named
fn chosen<'a>(tree: &'a Tree, name: Option<&str>) -> Result<Vec<&'a Network>, Failure> {
    let mut networks: Vec<_> = tree.networks.values().collect();
    networks.sort_by(|one, other| one.facts.name.cmp(&other.facts.name));
    let Some(name) = name else { return Ok(networks) };
    match networks.iter().find(|network| network.facts.name == name) {
        Some(network) => Ok(vec![network]),
        None => Err(unknown(name, &networks)),
    }
}

fn unknown(name: &str, networks: &[&Network]) -> Failure {
    let known: Vec<_> = networks.iter().map(|network| network.facts.name.as_str()).collect();
    let help = match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None if known.is_empty() => "there is none at all".to_owned(),
        None => format!("there are: {}", known.join(", ")),
    };
    let message = format!("no network {} is configured; {help}", plain(name));
    Failure::Failed("UnknownNetwork", message)
}

/// Seconds of the Unix epoch, now
fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How long a change may take: people with their password, then the daemon
const CHANGE_PATIENCE: Duration = Duration::from_secs(300);
/// How long the bus may take to let us in
const BUS_PATIENCE: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn unknown_network_is_answered_with_those_that_are_known() {
        let tree = samples::tree();

        let failure = chosen(&tree, Some("ofice")).unwrap_err();

        assert_eq!(failure.exit_code(), 1);
        let document = failure.document().unwrap();
        assert_eq!(document.error.message, "no network ofice is configured; did you mean office?");
        let failure = chosen(&tree, Some("home")).unwrap_err();
        assert_eq!(
            failure.document().unwrap().error.message,
            "no network home is configured; there are: office"
        );
        assert_eq!(chosen(&tree, Some("office")).unwrap().len(), 1);
    }
}
