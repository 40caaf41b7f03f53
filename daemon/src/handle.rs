//! The typed door of the daemon.
//!
//! The bus, the control tool and the signals are translations of one [`Handle`]: commands go in, a
//! [`Snapshot`] of everything that may be seen comes out. Nothing here does anything.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{Carriage, Way};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::members::{
    InvitationView, Invite, Invited, MemberView, MembersReply, MembersRequest,
};
pub use self::setup::{Bringer, HubSpec, JoinSpec};

mod members;
mod setup;

/// Name of a network: 1 to 15 characters of `a-z`, `0-9` and `-`
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NetworkName(String);

/// Why a text is not the name of a network
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a network's name is 1 to 15 characters of a-z, 0-9 and '-'")]
pub struct NameError;

impl FromStr for NetworkName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=15).contains(&text.len());
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if fits && text.bytes().all(plain) { Ok(Self(text.to_owned())) } else { Err(NameError) }
    }
}

impl NetworkName {
    /// Returns the name as text
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Result of a request that may find its work already done
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome<T> {
    /// The request changed something
    Changed(T),
    /// Everything was so already
    Already(T),
}

/// Who gives a network's interface its addresses, routes and DNS, and brings it up
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Apply {
    /// Who asked for the network; it goes down with him
    Caller(Caller),
    /// The daemon itself
    #[default]
    Daemon,
}

/// Somebody who asks for something, as whoever serves him knows him
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Caller(pub String);

/// Why a request failed
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum HandleError {
    /// Too many requests at once; the same one may succeed a moment later
    #[error("{0}")]
    Busy(String),
    /// The configuration has problems; the old one stays in force
    #[error("the configuration has problems:\n{0}")]
    Config(String),
    /// It is in the administrator's files, which the daemon does not change
    #[error("{0}")]
    Configured(String),
    /// A name, address or device is taken by somebody else
    #[error("{0}")]
    Conflict(String),
    /// The network is up, and somebody else applies its addresses than was asked for
    #[error("{0}")]
    InUse(String),
    /// What was asked for cannot be, in this network
    #[error("{0}")]
    Invalid(String),
    /// There is no such invitation
    #[error("{0}")]
    NoInvitation(String),
    /// There is no such member
    #[error("{0}")]
    NoMember(String),
    /// A peer of that name or key is not known, or not alive
    #[error("no peer {0:?} in network {1}")]
    NoPeer(String, NetworkName),
    /// Only a hub can do that, and this node is none in the network
    #[error("this node is no hub of network {0}; ask the hub's administrator")]
    NotHub(NetworkName),
    /// The network is a hub's, and only a peer can do that
    #[error("network {0} is a hub, and a hub's addresses are set by fastvpnd itself")]
    NotPeer(NetworkName),
    /// The network is not up, so that the request makes no sense
    #[error("network {0} is not up")]
    NotUp(NetworkName),
    /// The hub does not let this node in, for this reason
    #[error("the hub refused: {0}")]
    Refused(String),
    /// The daemon is stopping
    #[error("the daemon is stopping")]
    Stopping,
    /// The system refused something (no permission, no device, …)
    #[error("{0}")]
    System(String),
    /// It took too long
    #[error("{0}")]
    Timeout(String),
    /// There is no such network in the configuration
    #[error("no network {0} is configured")]
    UnknownNetwork(String),
}

/// A request to the daemon; each carries the place for its answer
#[derive(Debug)]
pub enum Request {
    /// Bring a network up; answered when it is up, or failed
    Connect {
        /// Which one
        network: NetworkName,
        /// Who gives its interface addresses, routes and DNS
        apply: Apply,
        /// The answer
        reply: oneshot::Sender<Result<Outcome<()>, HandleError>>,
    },
    /// Make a hub; answered when it is up, or failed
    CreateHub(HubSpec, oneshot::Sender<Result<(), HandleError>>),
    /// Take a network down; it stays down until `Connect` or the next start
    Disconnect(NetworkName, oneshot::Sender<Result<Outcome<()>, HandleError>>),
    /// Join a network; answered when it is up, waits for approval, or failed
    Join(JoinSpec, oneshot::Sender<Result<NetworkName, HandleError>>),
    /// Take a network down and delete all that was made for it
    Leave(NetworkName, oneshot::Sender<Result<(), HandleError>>),
    /// Something that concerns the members of a hub
    Members {
        /// In which network
        network: NetworkName,
        /// What is wanted
        request: MembersRequest,
        /// The answer
        reply: oneshot::Sender<Result<MembersReply, HandleError>>,
    },
    /// Ask a peer once through its session
    Ping {
        /// In which network
        network: NetworkName,
        /// Its name, key, or one of its overlay addresses
        peer: String,
        /// How long to wait
        timeout: Duration,
        /// The answer
        reply: oneshot::Sender<Result<PingReply, HandleError>>,
    },
    /// A caller is gone: take down the networks that are up for him; nobody waits for an answer
    Release(Caller),
    /// Read the configuration again and apply what changed
    Reload(oneshot::Sender<Result<Reloaded, HandleError>>),
}

/// Answer of a peer to a ping
#[derive(Clone, Debug, PartialEq)]
pub struct PingReply {
    /// Round-trip time of the ping; nothing if it was lost
    pub rtt: Option<Duration>,
    /// The peer that was asked
    pub peer: PublicKey,
    /// The path that was used
    pub path: Option<PathView>,
}

/// What a reload did
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reloaded {
    /// Networks that are new
    pub added: Vec<NetworkName>,
    /// Networks whose file is gone; they were taken down
    pub removed: Vec<NetworkName>,
    /// Networks that were changed without dropping a session
    pub changed: Vec<NetworkName>,
    /// Networks that had to start anew, because the change could not be made live
    pub restarted: Vec<NetworkName>,
}

/// Cloneable door to the daemon
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Handle {
    /// Joins the two ends that the daemon serves
    pub fn new(requests: mpsc::Sender<Request>, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self { requests, snapshots }
    }

    /// Brings a network up; returns when it is up
    ///
    /// # Errors
    /// If there is no such network, it cannot come up, or it is up with another `apply`.
    pub async fn connect(
        &self,
        network: NetworkName,
        apply: Apply,
    ) -> Result<Outcome<()>, HandleError> {
        self.ask(|reply| Request::Connect { network, apply, reply }).await
    }

    /// Makes a hub; returns when it is up, or at once if it is not to come up by itself
    ///
    /// # Errors
    /// If a wish cannot be met; then there is no hub.
    pub async fn create_hub(&self, spec: HubSpec) -> Result<(), HandleError> {
        self.ask(|reply| Request::CreateHub(spec, reply)).await
    }

    /// Joins a network; returns what it is called here, when it is up or waits for approval
    ///
    /// # Errors
    /// If the hub does not answer or refuses, or the network cannot come up.
    pub async fn join(&self, spec: JoinSpec) -> Result<NetworkName, HandleError> {
        self.ask(|reply| Request::Join(spec, reply)).await
    }

    /// Takes a network down and deletes all that was made for it
    ///
    /// # Errors
    /// If there is none of that name, or it is the administrator's.
    pub async fn leave(&self, network: NetworkName) -> Result<(), HandleError> {
        self.ask(|reply| Request::Leave(network, reply)).await
    }

    /// Takes a network down
    ///
    /// # Errors
    /// If there is no such network.
    pub async fn disconnect(&self, network: NetworkName) -> Result<Outcome<()>, HandleError> {
        self.ask(|reply| Request::Disconnect(network, reply)).await
    }

    /// Asks a peer once through its session
    ///
    /// # Errors
    /// If the network is not up or the peer not known. A lost ping is no error.
    pub async fn ping(
        &self,
        network: NetworkName,
        peer: String,
        timeout: Duration,
    ) -> Result<PingReply, HandleError> {
        self.ask(|reply| Request::Ping { network, peer, timeout, reply }).await
    }

    /// Reads the configuration again
    ///
    /// # Errors
    /// If the configuration has problems; the old one stays in force.
    pub async fn reload(&self) -> Result<Reloaded, HandleError> {
        self.ask(Request::Reload).await
    }

    /// Takes down the networks that are up for a caller who is gone
    pub async fn release(&self, caller: Caller) {
        // A daemon that is stopping takes everything down anyway.
        let _ = self.requests.send(Request::Release(caller)).await;
    }

    /// Returns what can be seen now, and each later state of it
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, HandleError>>) -> Request,
    ) -> Result<T, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| HandleError::Stopping)?;
        answer.await.map_err(|_| HandleError::Stopping)?
    }
}

/// Everything that may be seen of the daemon
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Each configured network
    pub networks: BTreeMap<NetworkName, NetworkView>,
}

/// What may be seen of a network
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkView {
    /// What this node is in it
    pub role: Role,
    /// Where it is in its life
    pub state: NetworkState,
    /// A sentence on why it is in this state; empty where all is well
    pub detail: String,
    /// This node's public key
    pub public_key: PublicKey,
    /// Who gives the interface its addresses, routes and DNS
    pub apply: Apply,
    /// Name of the TUN interface; empty while there is none
    pub interface: String,
    /// Overlay addresses of this node
    pub addresses: Vec<Prefix>,
    /// Subnets behind this node, as the hub says
    pub subnets: Vec<Prefix>,
    /// What else is to be routed into the interface
    pub routes: Vec<Prefix>,
    /// Underlay address of the hub, as messages reach it; nothing before they do, and on a hub
    pub gateway: Option<IpAddr>,
    /// MTU of the interface, in bytes
    pub mtu: u16,
    /// UDP address that the node listens on, while it does
    pub listen: Option<SocketAddr>,
    /// Room in the system for messages that wait, while the node listens
    pub buffers: BuffersView,
    /// The hub, as a peer sees it
    pub hub: Option<HubView>,
    /// Inner packets sent
    pub sent: Counted,
    /// Inner packets received
    pub received: Counted,
    /// Packets dropped because a queue was full or a session did not come up
    pub dropped: u64,
    /// Messages that the system dropped before they were read: the socket's buffer was full, or their
    /// checksum bad
    pub overflowed: u64,
    /// Messages that left, for whomever, and their bytes
    pub wire_sent: Counted,
    /// Messages that arrived, from whomever, and their bytes
    pub wire_received: Counted,
    /// Names of the nodes
    pub dns: DnsView,
    /// Domains that are asked at the server of `dns`: of the names, and of the addresses
    pub domains: Vec<String>,
    /// What may still be sent, where that is bounded
    pub quota: Option<QuotaView>,
    /// Messages and packets refused, by reason
    pub refusals: BTreeMap<&'static str, u64>,
    /// The other nodes that are alive (peer), or all members (hub)
    pub peers: BTreeMap<PublicKey, PeerView>,
}

/// Room in the system for messages that wait, as it has granted, in bytes
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BuffersView {
    /// For those that arrived
    pub receive: u64,
    /// For those that are to leave
    pub send: u64,
}

/// How names of a network's nodes are served
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DnsView {
    /// The domain of the names; empty where there are none
    pub suffix: String,
    /// Where they are answered, while they are
    pub server: Option<SocketAddr>,
    /// Who knows
    pub state: DnsState,
    /// A sentence on what is wrong; empty where all is well
    pub detail: String,
}

/// Who knows where names of a network's nodes are answered
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DnsState {
    /// systemd-resolved: names work everywhere on this machine
    Announced,
    /// Whoever asked for the network is to see to it
    Caller,
    /// They are not answered: there is no port to be had
    Failed,
    /// There are no names, or not yet
    #[default]
    Off,
    /// systemd-resolved is being told
    Pending,
    /// Nobody: systemd-resolved does not take it
    Refused,
    /// Nobody: there is no systemd-resolved
    Unannounced,
}

/// What may be seen of a quota
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QuotaView {
    /// Bytes that may be sent in the period
    pub bytes: u64,
    /// Bytes that were sent in the present one
    pub used: u64,
    /// `day`, `week` or `month`
    pub period: &'static str,
    /// When the next one begins
    pub until: SystemTime,
}

/// A number of packets, and of their bytes
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counted {
    /// How many
    pub packets: u64,
    /// Their bytes
    pub bytes: u64,
}

/// What a node is in a network
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Knows and verifies members
    Hub,
    /// Carries packets to other peers
    Peer,
}

/// Where a network is in its life
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetworkState {
    /// Taken down, or not started
    Down,
    /// Registering with the hub, or setting up
    Connecting,
    /// The hub waits for its administrator to approve this node
    Pending,
    /// Carrying packets
    Up,
    /// The hub does not answer; what that means for packets is `hub_loss`
    HubLost,
    /// It cannot come up; tried again after a while where that may help
    Failed,
}

/// What may be seen of the hub
#[derive(Clone, Debug, PartialEq)]
pub struct HubView {
    /// Its public key
    pub public_key: PublicKey,
    /// As configured, host name or address
    pub endpoint: String,
    /// Whether it answers
    pub alive: bool,
}

/// What may be seen of another node
#[derive(Clone, Debug, PartialEq)]
pub struct PeerView {
    /// Its name
    pub name: String,
    /// Its overlay addresses
    pub addresses: Vec<IpAddr>,
    /// Subnets behind it
    pub subnets: Vec<Prefix>,
    /// Where we are with it
    pub state: PeerLink,
    /// Whether it is the hub
    pub hub: bool,
    /// The path in use
    pub path: Option<PathView>,
    /// How a TCP connection would be carried that this side opened now; nothing without a session
    pub tcp: Option<Carriage>,
    /// Inner packets sent to it
    pub sent: Counted,
    /// Inner packets received from it
    pub received: Counted,
    /// When the last handshake was completed
    pub last_handshake: Option<SystemTime>,
    /// When anything authentic was last heard
    pub last_seen: Option<SystemTime>,
}

/// Where we are with another node
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerLink {
    /// A member that is not alive (hub only)
    Offline,
    /// Alive, but there was no reason for a session
    Idle,
    /// A session is being made
    Connecting,
    /// There is a session
    Connected,
    /// There is a session, but the other node does not answer at the moment
    Unresponsive,
}

/// What may be seen of a path
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathView {
    /// How messages travel
    pub way: Way,
    /// Smoothed round-trip time
    pub rtt: Option<Duration>,
    /// Smallest round-trip time of late
    pub rtt_min: Option<Duration>,
    /// Share of our messages that were lost of late, from 0 to 1
    pub loss: f64,
    /// Largest message that is known to pass, in bytes of UDP payload
    pub mtu: u16,
    /// Bytes a second that the path is believed to deliver
    pub rate: Option<u64>,
    /// Queue that stands at the bottleneck
    pub queue_delay: Duration,
    /// Share of our messages that the path loses by itself, congestion left out, from 0 to 1
    pub own_loss: f64,
    /// Whether the kernel may cut trains of messages, as over UDP it may where that does no harm
    pub offload: bool,
    /// Messages sent on it, and their bytes
    pub sent: Counted,
    /// Messages of ours that were lost
    pub lost: u64,
    /// Messages of ours that met congestion, by the marks of routers
    pub congested: u64,
    /// What was sent, by cause
    pub spent: SpentView,
}

/// What was sent on a path, by cause
///
/// The rest of what was sent is headers, acknowledgements, probes and the control lane.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SpentView {
    /// Load for the first time
    pub fresh: Counted,
    /// Load once more, because it was lost
    pub repeats: Counted,
    /// Load once more, in case it is lost
    pub copies: Counted,
}
