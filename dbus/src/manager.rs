//! Proxy of `org.fastvpn.Manager1`.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use zbus::{OwnedObjectPath, Type, Variant, proxy};

use crate::error::Error;

/// Answer of [`ManagerProxy::ping`]
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, Type)]
pub struct PingAnswer {
    /// Whether the peer answered in time
    pub answered: bool,
    /// Round-trip time in microseconds; 0 where it did not answer
    pub rtt_us: u64,
    /// Public key of the peer that was asked, in base64
    pub peer: String,
    /// `direct`, `relayed`, or empty where there is no path
    pub path_kind: String,
    /// UDP address of the path; of a relayed one the relay's public key in base64
    pub endpoint: String,
}

/// Answer of [`ManagerProxy::reload`]: names of networks
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, Type)]
pub struct ReloadAnswer {
    /// Networks that are new
    pub added: Vec<String>,
    /// Networks whose file is gone
    pub removed: Vec<String>,
    /// Networks that changed without losing a session
    pub changed: Vec<String>,
    /// Networks that had to start anew
    pub restarted: Vec<String>,
}

/// The daemon as a whole
///
/// With the methods that polkit decides about, polkit may ask for a password: they wait for that,
/// and zbus does not bound them by the connection's `method_timeout`.
#[proxy(
    interface = "org.fastvpn.Manager1",
    default_service = "org.fastvpn",
    default_path = "/org/fastvpn"
)]
pub trait Manager {
    /// Brings a network up; returns its object when it is up, at once if it is up already
    #[zbus(allow_interactive_auth)]
    fn connect(
        &self,
        name: &str,
        options: &HashMap<&str, Variant<'_>>,
    ) -> Result<OwnedObjectPath, Error>;

    /// Makes a hub; returns its object when it is up
    ///
    /// Options: `subnet` as (needed), `address` as, `endpoint` s, `listen` s, `autoconnect` b.
    #[zbus(allow_interactive_auth)]
    fn create_hub(
        &self,
        name: &str,
        options: &HashMap<&str, Variant<'_>>,
    ) -> Result<OwnedObjectPath, Error>;

    /// Takes a network down until the next `connect` or start of the daemon
    #[zbus(allow_interactive_auth)]
    fn disconnect(&self, name: &str) -> Result<(), Error>;

    /// Joins a network; returns its object when it is up, or waits for approval
    ///
    /// Options: `name` s, `apply` s.
    #[zbus(allow_interactive_auth)]
    fn join(
        &self,
        invitation: &str,
        options: &HashMap<&str, Variant<'_>>,
    ) -> Result<OwnedObjectPath, Error>;

    /// Takes a network down and deletes all that was made for it
    #[zbus(allow_interactive_auth)]
    fn leave(&self, name: &str) -> Result<(), Error>;

    /// Asks a peer once, through its session
    ///
    /// `peer` is a name, a public key in base64, or an overlay address.
    fn ping(&self, network: &str, peer: &str, timeout_ms: u32) -> Result<PingAnswer, Error>;

    /// Reads the configuration again
    #[zbus(allow_interactive_auth)]
    fn reload(&self) -> Result<ReloadAnswer, Error>;

    /// Version of the daemon
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
}
