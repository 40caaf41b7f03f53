//! Networks as VPN connections of NetworkManager, made, found and deleted through its own D-Bus API.
//!
//! A network has at most one connection that is made here: it is found by what it says, a VPN of
//! fastvpn whose data are `network=NAME`, however people call it.
//!
//! # Contract
//!
//! - NetworkManager is the one on the bus of the daemon.
//! - Who is not root makes a connection of his own; root one for everybody.

use std::collections::HashMap;
use std::future::Future;

use fastvpn_dbus::Bus;
use fastvpn_dbus::types::{Apply, NetworkState};
use futures_util::StreamExt;
use rustix::process::geteuid;
use tokio::time::timeout;
use zbus::names::BusName;
use zbus::{
    Connection, MatchRule, MessageStream, ObjectPath, OwnedObjectPath, OwnedVariant, Variant, fdo,
    proxy,
};

use super::{Absent, CHANGE_PATIENCE, Daemon, Patience, agent, chosen};
use crate::failure::Failure;
use crate::json::ChangedDocument;
use crate::output::{Form, Output};
use crate::render::plain;

/// Makes a network a connection, and activates it
pub(super) async fn add(bus: &Bus, output: &Output, network: &str) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Start, Patience::Long).await?;
    let manager = NetworkManager::open(bus, &daemon.connection).await?;
    let tree = daemon.tree().await?;
    let facts = &chosen(&tree, Some(network))?[0].facts;
    if facts.role == "hub" {
        let why = format!("{network} is a hub here; NetworkManager connects peers only");
        return Err(Failure::Failed("NotPeer", why));
    }
    if facts.apply == Apply::Daemon.as_str() && facts.state != NetworkState::Down.as_str() {
        daemon.change(daemon.manager().await?.disconnect(network)).await?;
    }
    manager.bring_up(network).await?;
    match output.form {
        Form::Json => output.json(&ChangedDocument { network, state: "up" }),
        Form::Text => {
            said_up(output, network)?;
            output.line(
                "a network of /etc/fastvpn needs autoconnect = false, so that fastvpnd leaves it to \
                 NetworkManager",
            )
        }
    }
}

/// Deletes the connection of a network, which goes down if it is up in this way
pub(super) async fn remove(bus: &Bus, output: &Output, network: &str) -> Result<(), Failure> {
    let daemon = Daemon::open(bus, Absent::Wait, Patience::Long).await?;
    let manager = NetworkManager::open(bus, &daemon.connection).await?;
    if manager.delete(network).await? == 0 {
        let why = format!("NetworkManager has no connection for a network {}", plain(network));
        return Err(Failure::failed(why));
    }
    match output.form {
        Form::Json => output.json(&ChangedDocument { network, state: "removed" }),
        Form::Text => {
            output.line(&plain(&format!("{network} is no connection of NetworkManager any more")))
        }
    }
}

/// Says that a network is up in this way
pub(super) fn said_up(output: &Output, network: &str) -> Result<(), Failure> {
    let switch = "nmcli connection down, or the desktop's menu, takes it down";
    output
        .line(&plain(&format!("{network} is up, as a VPN connection of NetworkManager; {switch}")))
}

/// Deletes the connection of a network that is gone; nothing where there is none, or no NetworkManager
pub(super) async fn forget(
    bus: &Bus,
    connection: &Connection,
    network: &str,
) -> Result<(), Failure> {
    match NetworkManager::find(bus, connection).await? {
        Some(manager) => manager.delete(network).await.map(drop),
        None => Ok(()),
    }
}

/// NetworkManager, as far as it is of use here
pub(super) struct NetworkManager<'a> {
    bus: &'a Bus,
    connection: &'a Connection,
}

impl<'a> NetworkManager<'a> {
    /// Finds NetworkManager
    pub(super) async fn open(bus: &'a Bus, connection: &'a Connection) -> Result<Self, Failure> {
        let missing = || {
            let start = "start it with: systemctl start NetworkManager";
            Failure::failed(format!("NetworkManager is not running on the {bus}; {start}"))
        };
        Self::find(bus, connection).await?.ok_or_else(missing)
    }

    async fn find(bus: &'a Bus, connection: &'a Connection) -> Result<Option<Self>, Failure> {
        let runs = async {
            let dbus = fdo::DBusProxy::new(connection).await?;
            Ok(dbus.name_has_owner(BusName::from_static_str(SERVICE)?).await?)
        };
        let runs: zbus::Result<bool> = runs.await;
        let runs = runs.map_err(|error| Failure::of_bus(&error, bus))?;
        Ok(runs.then_some(Self { bus, connection }))
    }

    /// Makes sure that there is a connection for the network, and activates it
    pub(super) async fn bring_up(&self, network: &str) -> Result<(), Failure> {
        let path = match self.connections(network).await?.into_iter().next() {
            Some(path) => path,
            None => self.make(network).await?,
        };
        let states = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SERVICE)
            .interface(ACTIVE)
            .member("StateChanged")
            .build()
            .map_err(|error| failure("follow it", &error))?;
        let states = MessageStream::for_match_rule(states, self.connection, None).await;
        let mut states = states.map_err(|error| failure("follow it", &error))?;
        let manager =
            ManagerProxy::new(self.connection).await.map_err(|e| failure("ask it", &e))?;
        let none = ObjectPath::from_static_str_unchecked("/");
        let active = match self.call(manager.activate_connection(&path, &none, &none)).await? {
            Ok(active) => active,
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == ALREADY => return Ok(()),
            Err(error) => return Err(not_activated(network, &error.to_string())),
        };
        while let Some(signal) = states.next().await {
            let signal = signal.map_err(|error| failure("follow it", &error))?;
            let header = signal.header();
            if header.path().is_none_or(|path| path.as_str() != active.as_str()) {
                continue;
            }
            match signal.body().deserialize::<(u32, u32)>() {
                Ok((ACTIVATED, _)) => return Ok(()),
                Ok((DEACTIVATING | DEACTIVATED, reason)) => {
                    return Err(not_activated(network, why(reason)));
                }
                Ok(_) => {}
                Err(error) => return Err(failure("follow it", &error)),
            }
        }
        Err(not_activated(network, "the message bus is gone"))
    }

    /// Deletes all connections of the network; returns how many there were
    pub(super) async fn delete(&self, network: &str) -> Result<usize, Failure> {
        let connections = self.connections(network).await?;
        for path in &connections {
            let connection = self.profile(path).await?;
            let deleted = self.call(connection.delete()).await?;
            deleted.map_err(|error| failure("delete its connection", &error))?;
        }
        Ok(connections.len())
    }

    async fn make(&self, network: &str) -> Result<OwnedObjectPath, Failure> {
        let settings = SettingsProxy::new(self.connection).await;
        let settings = settings.map_err(|error| failure("ask it", &error))?;
        let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
        let owner = user.filter(|_| !geteuid().is_root());
        let made = self.call(settings.add_connection(profile(network, owner.as_deref()))).await?;
        made.map_err(|error| failure("make a connection", &error))
    }

    /// The connections that mean the network, among those that the caller may see
    async fn connections(&self, network: &str) -> Result<Vec<OwnedObjectPath>, Failure> {
        let settings = SettingsProxy::new(self.connection).await;
        let settings = settings.map_err(|error| failure("ask it", &error))?;
        let all = settings.list_connections().await.map_err(|error| failure("ask it", &error))?;
        let mut found = Vec::new();
        for path in all {
            // One that is deleted meanwhile, or another user's own, is none for us.
            let Ok(profile) = self.profile(&path).await?.get_settings().await else { continue };
            if means(&profile, network) {
                found.push(path);
            }
        }
        Ok(found)
    }

    async fn profile(&self, path: &OwnedObjectPath) -> Result<ProfileProxy<'static>, Failure> {
        let profile = ProfileProxy::new(self.connection, path.clone()).await;
        profile.map_err(|error| failure("ask it", &error))
    }

    /// Waits for the answer to a change, while polkit may ask people about it
    async fn call<T>(
        &self,
        call: impl Future<Output = zbus::Result<T>>,
    ) -> Result<zbus::Result<T>, Failure> {
        let silent = |_| Failure::failed("NetworkManager does not answer");
        agent::beside(self.bus, timeout(CHANGE_PATIENCE, call)).await?.map_err(silent)
    }
}

/// The connection of a network, as NetworkManager keeps it
fn profile<'a>(
    network: &'a str,
    owner: Option<&str>,
) -> HashMap<&'static str, HashMap<&'static str, Variant<'a>>> {
    let permissions: Vec<_> = owner.iter().map(|owner| format!("user:{owner}:")).collect();
    let data = HashMap::from([("network".to_owned(), network.to_owned())]);
    let automatic = || HashMap::from([("method", Variant::from("auto"))]);
    HashMap::from([
        (
            "connection",
            HashMap::from([
                ("id", Variant::from(network)),
                ("type", Variant::from("vpn")),
                ("autoconnect", Variant::from(false)),
                ("permissions", Variant::from(permissions)),
            ]),
        ),
        (
            "vpn",
            HashMap::from([("service-type", Variant::from(PLUGIN)), ("data", Variant::from(data))]),
        ),
        ("ipv4", automatic()),
        ("ipv6", automatic()),
    ])
}

/// Tells whether a connection means the network
fn means(profile: &HashMap<String, HashMap<String, OwnedVariant>>, network: &str) -> bool {
    let Some(vpn) = profile.get("vpn") else { return false };
    let ours = vpn.get("service-type").and_then(|value| <&str>::try_from(value).ok());
    let data = vpn.get("data").and_then(|value| value.try_clone().ok());
    let data = data.and_then(|value| HashMap::<String, String>::try_from(value).ok());
    ours == Some(PLUGIN)
        && data.is_some_and(|data| data.get("network").is_some_and(|name| name == network))
}

fn failure(what: &str, error: &zbus::Error) -> Failure {
    Failure::failed(format!("NetworkManager: cannot {what}: {error}"))
}

fn not_activated(network: &str, why: &str) -> Failure {
    Failure::failed(format!(
        "NetworkManager cannot bring {network} up: {why}; see: journalctl -u NetworkManager -g fastvpn"
    ))
}

/// What NetworkManager means by the number of a reason
fn why(reason: u32) -> &'static str {
    match reason {
        2 => "somebody has taken it down",
        3 => "the connection below it is gone",
        4 => "the network was taken down",
        5 => "fastvpnd cannot bring that network up for it",
        6 | 7 => "it took too long",
        8 => "its plugin does not start; is the package network-manager-fastvpn installed?",
        10 => "the hub refuses this machine",
        11 => "its connection was deleted",
        12 => "there is no connection below it; is this machine online?",
        _ => "the network does not come up; is its hub reachable?",
    }
}

#[proxy(
    interface = "org.freedesktop.NetworkManager",
    default_service = "org.freedesktop.NetworkManager",
    default_path = "/org/freedesktop/NetworkManager"
)]
trait Manager {
    #[zbus(allow_interactive_auth)]
    fn activate_connection(
        &self,
        connection: &ObjectPath<'_>,
        device: &ObjectPath<'_>,
        specific: &ObjectPath<'_>,
    ) -> zbus::Result<OwnedObjectPath>;
}

#[proxy(
    interface = "org.freedesktop.NetworkManager.Settings",
    default_service = "org.freedesktop.NetworkManager",
    default_path = "/org/freedesktop/NetworkManager/Settings"
)]
trait Settings {
    #[zbus(allow_interactive_auth)]
    fn add_connection(
        &self,
        connection: HashMap<&str, HashMap<&str, Variant<'_>>>,
    ) -> zbus::Result<OwnedObjectPath>;

    fn list_connections(&self) -> zbus::Result<Vec<OwnedObjectPath>>;
}

#[proxy(
    interface = "org.freedesktop.NetworkManager.Settings.Connection",
    default_service = "org.freedesktop.NetworkManager"
)]
trait Profile {
    #[zbus(allow_interactive_auth)]
    fn delete(&self) -> zbus::Result<()>;

    fn get_settings(&self) -> zbus::Result<HashMap<String, HashMap<String, OwnedVariant>>>;
}

/// Name of NetworkManager on the bus
const SERVICE: &str = "org.freedesktop.NetworkManager";
/// Interface of a connection that is active
const ACTIVE: &str = "org.freedesktop.NetworkManager.Connection.Active";
/// What NetworkManager says of a connection that is active
const ALREADY: &str = "org.freedesktop.NetworkManager.ConnectionAlreadyActive";
/// What NetworkManager knows our plugin by
const PLUGIN: &str = "org.freedesktop.NetworkManager.fastvpn";
/// States of a connection that is active
const ACTIVATED: u32 = 2;
const DEACTIVATING: u32 = 3;
const DEACTIVATED: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_that_is_made_is_found_again_by_its_network() {
        let made = stored(profile("home", Some("carol")));

        assert!(means(&made, "home"));
        assert!(!means(&made, "office"));
        let permissions = made["connection"]["permissions"].try_clone().unwrap();
        assert_eq!(Vec::<String>::try_from(permissions).unwrap(), ["user:carol:"]);
    }

    #[test]
    fn connection_of_root_is_for_everybody() {
        let made = stored(profile("home", None));

        let permissions = made["connection"]["permissions"].try_clone().unwrap();
        assert!(Vec::<String>::try_from(permissions).unwrap().is_empty());
    }

    #[test]
    fn connection_of_another_kind_is_not_ours() {
        let mut other = stored(profile("home", None));
        let vpn = other.get_mut("vpn").unwrap();
        let openvpn = Variant::from("org.freedesktop.NetworkManager.openvpn");
        vpn.insert("service-type".to_owned(), OwnedVariant::try_from(openvpn).unwrap());

        assert!(!means(&other, "home"));
        other.remove("vpn");
        assert!(!means(&other, "home"));
    }

    fn stored(
        profile: HashMap<&str, HashMap<&str, Variant<'_>>>,
    ) -> HashMap<String, HashMap<String, OwnedVariant>> {
        let own = |(key, value): (&str, Variant<'_>)| {
            (key.to_owned(), OwnedVariant::try_from(value).unwrap())
        };
        let section = |(name, values): (&str, HashMap<&str, Variant<'_>>)| {
            (name.to_owned(), values.into_iter().map(own).collect())
        };
        profile.into_iter().map(section).collect()
    }
}
