//! Finds out what `judge` judges: asks the bus, and reads what everybody may read.
//!
//! # Contract
//!
//! - Nothing is changed. A service is asked only if it is there; the one that knows of the clock is
//!   started by the question, and ends by itself.
//! - No question waits for longer than [`PATIENCE`], and one without an answer is no failure.

mod files;

use std::time::Duration;

use fastvpn_dbus::tree::Network;
use fastvpn_dbus::{BUS_NAME, Bus, NetworkProxy, network_path};
use serde::Serialize;
use tokio::net::lookup_host;
use tokio::time::timeout;
use zbus::fdo::{DBusProxy, PropertiesProxy};
use zbus::names::BusName;
use zbus::{Connection, DynamicType, Message, OwnedObjectPath};

use super::facts::{DaemonFacts, Firewall, MachineFacts, Polkit, SurroundingFacts, UnitFacts};
use crate::commands::Daemon;
use crate::failure::Failure;

/// Finds out about the daemon
pub(super) async fn daemon(daemon: &Daemon<'_>) -> Result<DaemonFacts, Failure> {
    let version = if daemon.runs().await? {
        let manager = daemon.manager().await?;
        timeout(PATIENCE, manager.version()).await.ok().and_then(Result::ok)
    } else {
        None
    };
    let on_system_bus = *daemon.bus == Bus::System;
    let system = System::on(&daemon.connection).await;
    let unit = if on_system_bus { system.unit("fastvpnd.service").await } else { None };
    let activatable = system.can_start(BUS_NAME);
    Ok(DaemonFacts { version, on_system_bus, activatable, unit })
}

/// Finds out about the machine where there is nobody to ask
pub(super) fn machine_alone() -> MachineFacts {
    files::machine()
}

/// Finds out about the machine; services are asked on the system bus only
pub(super) async fn machine(daemon: &Daemon<'_>) -> MachineFacts {
    let mut facts = machine_alone();
    if *daemon.bus != Bus::System {
        return facts;
    }
    let system = System::on(&daemon.connection).await;
    facts.polkit = Some(match files::polkit_actions() {
        _ if !system.can_start(POLKIT) && !system.runs(POLKIT).await => Polkit::Missing,
        Ok(()) => Polkit::Fine,
        Err(place) => Polkit::NoActions(place),
    });
    if system.runs(FIREWALLD).await {
        facts.firewalls.push(Firewall::Firewalld);
    }
    if system.is_active("nftables.service").await {
        facts.firewalls.push(Firewall::Nftables);
    }
    facts.networkd_removes =
        system.is_active("systemd-networkd.service").await && files::networkd_removes();
    // Asked only where it is there, as it is started for the question.
    if system.can_start(TIMEDATE) && system.runs(SYSTEMD).await {
        facts.clock_kept = system
            .get(TIMEDATE, "/org/freedesktop/timedate1", TIMEDATE, "NTPSynchronized")
            .await
            .and_then(|value| bool::try_from(value).ok());
    }
    facts
}

/// Finds out what surrounds one network
pub(super) async fn surroundings(daemon: &Daemon<'_>, network: &Network) -> SurroundingFacts {
    let known = &network.facts;
    let hub_name = match host(&known.hub_endpoint) {
        Some(name) => Some((name.to_owned(), resolve(&known.hub_endpoint).await)),
        None => None,
    };
    let network_manager = *daemon.bus == Bus::System
        && !known.interface.is_empty()
        && System::on(&daemon.connection).await.network_manager_has(&known.interface).await;
    SurroundingFacts { hub_name, network_manager, pending: pending(daemon, network).await }
}

/// Members of a hub that wait for somebody
async fn pending(daemon: &Daemon<'_>, network: &Network) -> Vec<String> {
    if network.facts.role != "hub" || network.facts.state == "down" {
        return Vec::new();
    }
    let path = network_path(&network.facts.name);
    let Ok(hub) = NetworkProxy::new(&daemon.connection, path).await else { return Vec::new() };
    let Ok(Ok(members)) = timeout(PATIENCE, hub.members()).await else { return Vec::new() };
    let pending = members.into_iter().filter(|member| member.standing == "pending");
    pending.map(|member| member.name).collect()
}

/// The name of a host and port, if it is no address
fn host(endpoint: &str) -> Option<&str> {
    let (host, _) = endpoint.rsplit_once(':')?;
    let address = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty() && address.parse::<std::net::IpAddr>().is_err()).then_some(host)
}

async fn resolve(endpoint: &str) -> Result<Vec<String>, String> {
    match timeout(PATIENCE, lookup_host(endpoint)).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<_> = found.map(|found| found.ip().to_string()).collect();
            addresses.dedup();
            if addresses.is_empty() { Err("none is known".to_owned()) } else { Ok(addresses) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the name server does not answer".to_owned()),
    }
}

/// Services beside the daemon on the same bus
struct System<'a> {
    connection: &'a Connection,
    startable: Vec<String>,
}

impl<'a> System<'a> {
    async fn on(connection: &'a Connection) -> Self {
        let mut system = Self { connection, startable: Vec::new() };
        if let Ok(bus) = DBusProxy::new(connection).await
            && let Ok(Ok(names)) = timeout(PATIENCE, bus.list_activatable_names()).await
        {
            system.startable = names.into_iter().map(|name| name.to_string()).collect();
        }
        system
    }

    fn can_start(&self, name: &str) -> bool {
        self.startable.iter().any(|known| known == name)
    }

    async fn runs(&self, name: &'static str) -> bool {
        let Ok(bus) = DBusProxy::new(self.connection).await else { return false };
        let Ok(name) = BusName::from_static_str(name) else { return false };
        matches!(timeout(PATIENCE, bus.name_has_owner(name)).await, Ok(Ok(true)))
    }

    /// Returns what systemd says of a unit, where systemd is there
    async fn unit(&self, name: &str) -> Option<UnitFacts> {
        if !self.runs(SYSTEMD).await {
            return None;
        }
        let manager = "org.freedesktop.systemd1.Manager";
        let root = "/org/freedesktop/systemd1";
        let file = match self.call(SYSTEMD, root, manager, "GetUnitFileState", &(name,)).await {
            Some(answer) => answer.body().deserialize::<String>().ok()?,
            None => String::new(),
        };
        let loaded = self.call(SYSTEMD, root, manager, "LoadUnit", &(name,)).await?;
        let unit = loaded.body().deserialize::<OwnedObjectPath>().ok()?;
        let text = async |interface: &str, property: &str| {
            let value = self.get(SYSTEMD, unit.as_str(), interface, property).await?;
            String::try_from(value).ok()
        };
        let active = text("org.freedesktop.systemd1.Unit", "ActiveState").await?;
        let result = text("org.freedesktop.systemd1.Service", "Result").await.unwrap_or_default();
        Some(UnitFacts { file, active, result })
    }

    async fn is_active(&self, unit: &str) -> bool {
        self.unit(unit).await.is_some_and(|unit| unit.active == "active")
    }

    /// Tells whether NetworkManager takes an interface for one that it manages
    async fn network_manager_has(&self, interface: &str) -> bool {
        if !self.runs(NETWORK_MANAGER).await {
            return false;
        }
        let root = "/org/freedesktop/NetworkManager";
        let member = "GetDeviceByIpIface";
        let device = self.call(NETWORK_MANAGER, root, NETWORK_MANAGER, member, &(interface,)).await;
        let Some(device) = device else { return false };
        let Ok(device) = device.body().deserialize::<OwnedObjectPath>() else { return false };
        let of_device = "org.freedesktop.NetworkManager.Device";
        let managed = self.get(NETWORK_MANAGER, device.as_str(), of_device, "Managed").await;
        managed.is_some_and(|managed| bool::try_from(managed).unwrap_or(false))
    }

    async fn get(
        &self,
        service: &str,
        path: &str,
        interface: &str,
        property: &str,
    ) -> Option<zbus::OwnedVariant> {
        let object = PropertiesProxy::builder(self.connection).destination(service.to_owned());
        let object = object.path(path.to_owned()).build();
        let object = object.await.ok()?;
        let interface = zbus::names::InterfaceName::try_from(interface.to_owned()).ok()?;
        timeout(PATIENCE, object.get(interface, property)).await.ok()?.ok()
    }

    async fn call(
        &self,
        service: &str,
        path: &str,
        interface: &str,
        member: &str,
        arguments: &(impl Serialize + DynamicType),
    ) -> Option<Message> {
        let call =
            self.connection.call_method(Some(service), path, Some(interface), member, arguments);
        timeout(PATIENCE, call).await.ok()?.ok()
    }
}

/// How long somebody may take for an answer
const PATIENCE: Duration = Duration::from_secs(5);
const FIREWALLD: &str = "org.fedoraproject.FirewallD1";
const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
const POLKIT: &str = "org.freedesktop.PolicyKit1";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const TIMEDATE: &str = "org.freedesktop.timedate1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_need_a_name_server() {
        assert_eq!(host("hub.example.net:8796"), Some("hub.example.net"));
        for endpoint in ["203.0.113.5:8796", "[2001:db8::1]:8796", "", ":1"] {
            assert_eq!(host(endpoint), None, "{endpoint}");
        }
    }
}
