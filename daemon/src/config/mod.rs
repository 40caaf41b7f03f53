//! The validated configuration.
//!
//! One file `NAME.toml` for each network. Reading reports all problems at once, each with its file,
//! line and key; a [`Config`] in hand cannot be wrong.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use fastvpn_proto::crypto::{NetworkKey, PrivateKey, PublicKey};
use fastvpn_proto::ip::Prefix;

use crate::handle::NetworkName;

/// All networks
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// By name
    pub networks: BTreeMap<NetworkName, NetworkConfig>,
}

/// One network
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Its name: the file's
    pub name: NetworkName,
    /// The file it was read from
    pub file: PathBuf,
    /// Whether it comes up when the daemon starts
    pub autoconnect: bool,
    /// Identity of this node
    pub private_key: PrivateKey,
    /// Pre-shared key of the network; all zero where none is set
    pub network_key: NetworkKey,
    /// UDP address to listen on
    pub listen: SocketAddr,
    /// Name of the TUN interface
    pub interface: String,
    /// MTU of the TUN interface, in bytes
    pub mtu: u16,
    /// Overlay addresses with their subnets; none: the hub gives one (peer), or no interface (hub)
    pub addresses: Vec<Prefix>,
    /// What only hubs or only peers have
    pub role: RoleConfig,
}

/// What only hubs or only peers have
#[derive(Clone, Debug)]
pub enum RoleConfig {
    /// A hub
    Hub(HubConfig),
    /// A peer
    Peer(PeerRoleConfig),
}

/// What only hubs have
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubConfig {
    /// How others reach it, for people and invitations
    pub endpoint: Option<String>,
    /// The overlay's subnets; addresses are given from them
    pub subnets: Vec<Prefix>,
    /// Who may join, ordered as in the file
    pub members: Vec<Member>,
    /// Silence after which a peer leaves the list
    pub timeout: std::time::Duration,
}

/// A node that the hub may admit
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// For people, and later for DNS
    pub name: String,
    /// Identity
    pub public_key: PublicKey,
    /// Its overlay addresses; none: the hub gives it one for each subnet
    pub addresses: Vec<IpAddr>,
    /// Subnets behind it that others may reach through it
    pub subnets: Vec<Prefix>,
}

/// What only peers have
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerRoleConfig {
    /// Hubs, in the order of preference; at least one
    pub hubs: Vec<HubAddress>,
    /// What to do when the hub does not answer
    pub hub_loss: HubLoss,
}

/// Where a hub is and who it is
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubAddress {
    /// `HOST:PORT`; the host may be a name
    pub endpoint: String,
    /// Identity
    pub public_key: PublicKey,
}

/// What a peer does when the hub does not answer
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HubLoss {
    /// Stop serving the TUN until the hub is back
    #[default]
    Stop,
    /// Go on with the peers that are known
    Keep,
}
