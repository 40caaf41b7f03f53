//! What `doctor` looks at, as plain values.
//!
//! Gathered by `gather`, judged by `judge`; what could not be found out is `None` or empty, and
//! nothing is said about it.

use std::path::PathBuf;

use super::prefix::Prefix;

/// The daemon and the way to it
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct DaemonFacts {
    /// Version of the daemon that answers; nothing: none does
    pub(super) version: Option<String>,
    /// Whether it is to be found on the system bus, with systemd behind it
    pub(super) on_system_bus: bool,
    /// Whether the bus can start it
    pub(super) activatable: bool,
    /// Its unit, where systemd runs
    pub(super) unit: Option<UnitFacts>,
}

/// What systemd says of a unit
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct UnitFacts {
    /// `enabled`, `disabled`, `masked`, …; empty: there is no such unit
    pub(super) file: String,
    /// `active`, `inactive`, `failed`, …
    pub(super) active: String,
    /// `success`, `exit-code`, … of its last run
    pub(super) result: String,
}

/// The system around the daemon
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MachineFacts {
    pub(super) tun: Option<Tun>,
    pub(super) polkit: Option<Polkit>,
    /// What looks like a firewall
    pub(super) firewalls: Vec<Firewall>,
    /// Whether systemd-networkd runs, and removes routes and rules that are not its own
    pub(super) networkd_removes: bool,
    /// Largest buffer that a socket may have, in bytes
    pub(super) rmem_max: Option<u64>,
    /// Whether IPv4 and IPv6 packets are forwarded
    pub(super) forwards: (Option<bool>, Option<bool>),
    /// All routes of the main table
    pub(super) routes: Vec<Route>,
    /// How many seconds the clock is behind the time at which this program was made
    pub(super) clock_behind: u64,
    /// Whether the clock is kept right by somebody
    pub(super) clock_kept: Option<bool>,
}

/// The device file of tunnels
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Tun {
    /// Others than root may not open it; its mode
    Closed(u32),
    /// It is as it should be
    Fine,
    /// It is no device
    Foreign,
    /// There is none
    Missing,
}

/// Who decides what users may change
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Polkit {
    /// It is there and knows our actions
    Fine,
    /// There is none
    Missing,
    /// It does not know our actions, which are to be in this directory
    NoActions(PathBuf),
}

/// A program that keeps a firewall
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Firewall {
    Firewalld,
    Nftables,
    /// With its rules, if they may be read
    Ufw(Option<String>),
}

/// One route
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Route {
    pub(super) interface: String,
    pub(super) to: Prefix,
}

/// What the system says of one network
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SurroundingFacts {
    /// Addresses of the hub's name, or why there are none; nothing where it has no name
    pub(super) hub_name: Option<(String, Result<Vec<String>, String>)>,
    /// Members of a hub that wait for approval
    pub(super) pending: Vec<String>,
    /// Whether NetworkManager takes the interface for one that it manages
    pub(super) network_manager: bool,
}
