//! `org.fastvpn.Manager1`: connect, disconnect, reload, ping; networks made, joined and left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fastvpn_dbus::types::Apply as ApplyWord;
use fastvpn_dbus::{Bus, Error, network_path};
use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, interface};

use super::access::{Access, Action, nobody};
use super::callers::Callers;
use super::error::{misnamed, named};
use super::network::path_words;
use super::options::Options;
use super::publish::Rounds;
use crate::handle::{Apply, Bringer, Handle, HubSpec, JoinSpec, NetworkName, PingReply, Reloaded};
use crate::invitation::InvitationError;

/// The daemon as a whole
pub(super) struct Manager {
    access: Access,
    callers: Callers,
    daemon: Handle,
    /// A change is answered after it can be seen
    rounds: Arc<Rounds>,
}

impl Manager {
    /// Translates for callers on `bus`
    pub(super) fn new(bus: &Bus, daemon: Handle, rounds: Arc<Rounds>) -> Self {
        let callers = Callers::new(daemon.clone());
        Self { access: Access::new(bus), callers, daemon, rounds }
    }
}

// Answers are spelled out: of an alias zbus makes a single argument, a struct.
#[interface(name = "org.fastvpn.Manager1", introspection_docs = false)]
impl Manager {
    /// Brings a network up; succeeds at once if it is up
    #[zbus(out_args("network"))]
    async fn connect(
        &self,
        name: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<OwnedObjectPath, Error> {
        self.access.require(Action::Connect, &call, bus).await?;
        let (network, mut options) = (network(name)?, Options::new(options));
        let word = apply(&mut options)?;
        options.end()?;
        let apply = match word {
            ApplyWord::Caller => {
                let caller = call.sender().ok_or_else(nobody)?;
                Apply::Caller(self.callers.watch(caller, bus).await?)
            }
            ApplyWord::Daemon => Apply::Daemon,
        };
        self.daemon.connect(network, apply).await.map_err(named)?;
        self.rounds.catch_up().await;
        Ok(network_path(name))
    }

    /// Makes a hub
    #[zbus(out_args("network"))]
    async fn create_hub(
        &self,
        name: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<OwnedObjectPath, Error> {
        self.access.require(Action::CreateHub, &call, bus).await?;
        let spec = hub(network(name)?, Options::new(options))?;
        let made = self.daemon.create_hub(spec).await;
        self.rounds.catch_up().await;
        made.map_err(named)?;
        Ok(network_path(name))
    }

    /// Takes a network down; succeeds at once if it is down
    async fn disconnect(
        &self,
        name: &str,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.access.require(Action::Disconnect, &call, bus).await?;
        self.daemon.disconnect(network(name)?).await.map_err(named)?;
        self.rounds.catch_up().await;
        Ok(())
    }

    /// Joins a network by an invitation
    #[zbus(out_args("network"))]
    async fn join(
        &self,
        invitation: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<OwnedObjectPath, Error> {
        self.access.require(Action::Join, &call, bus).await?;
        let spec = invited(invitation, Options::new(options))?;
        let joined = self.daemon.join(spec).await;
        // after a failure nothing is left, which can be seen as well
        self.rounds.catch_up().await;
        Ok(network_path(joined.map_err(named)?.as_str()))
    }

    /// Takes a network down and deletes all that was made for it
    async fn leave(
        &self,
        name: &str,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.access.require(Action::Leave, &call, bus).await?;
        self.daemon.leave(network(name)?).await.map_err(named)?;
        self.rounds.catch_up().await;
        Ok(())
    }

    /// Asks a peer once, through its session
    #[zbus(out_args("answered", "rtt_us", "peer_key", "path_kind", "endpoint"))]
    async fn ping(
        &self,
        network_name: &str,
        peer: &str,
        timeout_ms: u32,
    ) -> Result<(bool, u64, String, String, String), Error> {
        let _slot = self.access.ping()?;
        let (network, peer) = (network(network_name)?, peer_text(peer)?);
        let reply = self.daemon.ping(network, peer, patience(timeout_ms)?).await.map_err(named)?;
        Ok(ping_wire(&reply))
    }

    /// Reads the configuration again; a bad one changes nothing
    #[zbus(out_args("added", "removed", "changed", "restarted"))]
    async fn reload(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(Vec<String>, Vec<String>, Vec<String>, Vec<String>), Error> {
        self.access.require(Action::Reload, &call, bus).await?;
        let reloaded = self.daemon.reload().await.map_err(named)?;
        self.rounds.catch_up().await;
        Ok(reloaded_wire(&reloaded))
    }

    /// Version of the daemon
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }
}

fn network(name: &str) -> Result<NetworkName, Error> {
    name.parse().map_err(misnamed)
}

fn hub(name: NetworkName, mut options: Options) -> Result<HubSpec, Error> {
    let spec = HubSpec {
        name,
        subnets: options.take("subnet")?.unwrap_or_default(),
        addresses: options.take("address")?.unwrap_or_default(),
        endpoint: options.take("endpoint")?,
        listen: options.take("listen")?,
        autoconnect: options.take("autoconnect")?.unwrap_or(true),
    };
    options.end()?;
    Ok(spec)
}

fn invited(invitation: &str, mut options: Options) -> Result<JoinSpec, Error> {
    let wrong = |error: InvitationError| Error::InvalidArgument(error.to_string());
    let invitation = invitation.parse().map_err(wrong)?;
    let name = options.take::<String>("name")?.map(|name| network(&name)).transpose()?;
    let bringer = match apply(&mut options)? {
        ApplyWord::Caller => Bringer::Caller,
        ApplyWord::Daemon => Bringer::Daemon,
    };
    options.end()?;
    Ok(JoinSpec { invitation, name, bringer })
}

/// Takes the option that says who applies addresses, routes and DNS
fn apply(options: &mut Options) -> Result<ApplyWord, Error> {
    let Some(given) = options.take::<String>("apply")? else { return Ok(ApplyWord::Daemon) };
    let words = [ApplyWord::Caller, ApplyWord::Daemon];
    let wrong = || Error::InvalidArgument("option \"apply\" is \"self\" or \"caller\"".to_owned());
    words.into_iter().find(|known| known.as_str() == given).ok_or_else(wrong)
}

fn peer_text(text: &str) -> Result<String, Error> {
    if (1..=PEER_TEXT_MAX).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    let wanted = format!("a peer is named in 1 to {PEER_TEXT_MAX} bytes");
    Err(Error::InvalidArgument(wanted))
}

fn patience(timeout_ms: u32) -> Result<Duration, Error> {
    if (1..=PATIENCE_MAX_MS).contains(&timeout_ms) {
        return Ok(Duration::from_millis(timeout_ms.into()));
    }
    Err(Error::InvalidArgument(format!("a timeout is 1 to {PATIENCE_MAX_MS} ms")))
}

fn ping_wire(reply: &PingReply) -> (bool, u64, String, String, String) {
    let (kind, endpoint) = path_words(reply.path.as_ref());
    let rtt = reply.rtt.map_or(0, micros);
    (reply.rtt.is_some(), rtt, reply.peer.to_string(), kind.to_owned(), endpoint)
}

fn reloaded_wire(reloaded: &Reloaded) -> (Vec<String>, Vec<String>, Vec<String>, Vec<String>) {
    let names = |names: &[NetworkName]| names.iter().map(ToString::to_string).collect();
    (
        names(&reloaded.added),
        names(&reloaded.removed),
        names(&reloaded.changed),
        names(&reloaded.restarted),
    )
}

/// Whole microseconds, at least one: zero says that there is no time
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Longest way to name a peer, in bytes
const PEER_TEXT_MAX: usize = 255;
/// Longest time to wait for a ping, in milliseconds
const PATIENCE_MAX_MS: u32 = 60_000;
