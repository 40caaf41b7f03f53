//! The D-Bus API of fastvpnd: names, types, errors and client proxies.
//!
//! The daemon and all its clients share this crate, so that a name is written once. `README.md` says
//! in prose what each method does, which errors it gives and what will never change; `interfaces/`
//! holds the same as introspection XML.
//!
//! # Not here
//!
//! Nothing that decides. Whether a caller may do something, and what it does, is up to the daemon.

#![forbid(unsafe_code)]

mod error;
mod manager;
mod network;
mod peer;
pub mod tree;
pub mod types;

use std::fmt;
use std::str::FromStr;

use thiserror::Error as ThisError;
use zbus::OwnedObjectPath;
use zbus::connection::Builder;

pub use error::Error;
pub use manager::{ManagerProxy, PingAnswer, ReloadAnswer};
pub use network::{InvitationAnswer, InviteAnswer, NetworkProxy};
pub use peer::PeerProxy;

/// Bus name of the daemon
pub const BUS_NAME: &str = "org.fastvpn";
/// Object that carries Manager1 and the ObjectManager
pub const ROOT: &str = "/org/fastvpn";
/// Name of the manager's interface
pub const MANAGER: &str = "org.fastvpn.Manager1";
/// Name of a network's interface
pub const NETWORK: &str = "org.fastvpn.Network1";
/// Name of a peer's interface
pub const PEER: &str = "org.fastvpn.Peer1";

/// Returns the object path of the network `name`
///
/// A character that may not be in a path becomes `_` and its two hexadecimal digits, as systemd does.
pub fn network_path(name: &str) -> OwnedObjectPath {
    path(format!("{ROOT}/network/{}", escape(name)))
}

/// Returns the object path of the peer with this public key in the network `name`
pub fn peer_path(name: &str, key: &[u8; 32]) -> OwnedObjectPath {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    path(format!("{ROOT}/network/{}/peer/{hex}", escape(name)))
}

fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("_{byte:02x}"));
        }
    }
    // An element of a path is never empty.
    if text.is_empty() { "_".to_owned() } else { text }
}

fn path(text: String) -> OwnedObjectPath {
    OwnedObjectPath::try_from(text).expect("only letters, digits, '_' and single slashes")
}

/// Which message bus to use
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Bus {
    /// The bus at a D-Bus address, such as `unix:path=/run/bus`
    Address(String),
    /// The session bus of the caller
    Session,
    /// The system bus
    #[default]
    System,
}

/// Why a text does not name a bus
#[derive(Clone, Debug, Eq, PartialEq, ThisError)]
#[error("{0:?} is neither \"system\", \"session\" nor a D-Bus address such as unix:path=/run/bus")]
pub struct BusError(String);

impl Bus {
    /// Starts a connection to the bus
    pub fn builder<'a>(&self) -> Builder<'a> {
        match self {
            Self::Address(address) => Builder::address(address.as_str()),
            Self::Session => Builder::session(),
            Self::System => Builder::system(),
        }
    }
}

impl FromStr for Bus {
    type Err = BusError;

    fn from_str(text: &str) -> Result<Self, BusError> {
        match text {
            "session" => Ok(Self::Session),
            "system" => Ok(Self::System),
            address => match zbus::Address::try_from(address) {
                Ok(_) => Ok(Self::Address(address.to_owned())),
                Err(_) => Err(BusError(address.to_owned())),
            },
        }
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "bus at {address}"),
            Self::Session => f.write_str("session bus"),
            Self::System => f.write_str("system bus"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_that_differ_where_the_names_do() {
        assert_eq!(network_path("office").as_str(), "/org/fastvpn/network/office");
        assert_eq!(network_path("my-net").as_str(), "/org/fastvpn/network/my_2dnet");
        assert_ne!(network_path("a-b"), network_path("a2db"));
    }

    #[test]
    fn peer_is_found_below_its_network_by_its_key() {
        let path = peer_path("a-b", &[0xab; 32]);

        assert_eq!(path.as_str(), format!("/org/fastvpn/network/a_2db/peer/{}", "ab".repeat(32)));
    }

    #[test]
    fn bus_is_a_word_or_an_address() {
        assert_eq!("system".parse(), Ok(Bus::System));
        assert_eq!("session".parse(), Ok(Bus::Session));
        assert_eq!("unix:path=/x".parse(), Ok(Bus::Address("unix:path=/x".to_owned())));
        assert!("sytsem".parse::<Bus>().is_err());
    }
}
