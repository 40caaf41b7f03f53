//! A host: a real node with its addresses, and a stand-in for the control side.
//!
//! The stand-in knows members by key and answers [`Event::Stranger`] with them, as hub and peer do;
//! it decides nothing else. Each host's clock has a zero of its own, so that no instant can be
//! shared between nodes without a test noticing.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fastvpn_proto::crypto::{NetworkKey, PrivateKey, PublicKey};
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{
    Admission, Choice, Command, Contact, Engine, Event, Fleet, NodeConfig, PeerConfig, Ticket,
    Traffic,
};
use fastvpn_proto::time::{Duration, Instant};

use super::network::SiteId;

/// What a host's stand-in for a hub says in the response
pub const WELCOME: &[u8] = b"welcome";
/// What a host's stand-in for a peer says in the init
pub const REGISTER: &[u8] = b"register";
/// UDP port of all hosts
pub const PORT: u16 = 8_796;

/// What a host is before it starts
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Name, for failures
    pub name: String,
    /// Underlay addresses
    pub underlay: Vec<IpAddr>,
    /// Overlay addresses and subnets
    pub overlay: Vec<Prefix>,
    /// Pre-shared key of its network
    pub network_key: [u8; 32],
    /// What its node does with inits
    pub admission: Admission,
    /// Whether its node carries messages between others
    pub relay: bool,
    /// Silence of which its node tells
    pub silence: Duration,
    /// Whether it has AES instructions
    pub aes: bool,
    /// How long its control side takes to decide about a stranger
    pub decision: Duration,
    /// How its engine is set
    pub engine: Engine,
}

impl HostPlan {
    /// Plans a hub; all addresses follow from `number`
    pub fn hub(number: u16) -> Self {
        Self {
            name: format!("hub{number}"),
            admission: Admission::Ask,
            relay: true,
            ..Self::peer(number)
        }
    }

    /// Plans a peer; all addresses follow from `number`
    pub fn peer(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        let overlay = [
            IpAddr::V4(Ipv4Addr::new(10, 0, high, low)),
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number)),
        ];
        Self {
            name: format!("peer{number}"),
            underlay: vec![underlay4(number)],
            overlay: overlay.map(Prefix::host).to_vec(),
            network_key: [7; 32],
            admission: Admission::Known,
            relay: false,
            silence: Duration::from_secs(15),
            aes: true,
            decision: Duration::ZERO,
            engine: Engine::default(),
        }
    }

    /// Sets the underlay addresses
    #[must_use]
    pub fn underlay(mut self, addresses: Vec<IpAddr>) -> Self {
        self.underlay = addresses;
        self
    }

    /// Sets the engine
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Sets how long the control side takes to decide about a stranger
    #[must_use]
    pub fn decision(mut self, time: Duration) -> Self {
        self.decision = time;
        self
    }
}

/// Returns the IPv4 underlay address with a number
pub fn underlay4(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(100, 64, high, low))
}

/// Returns the IPv6 underlay address with a number
pub fn underlay6(number: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number))
}

/// Whether a host runs
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Power {
    /// Its node handles what comes
    On,
    /// Its node is there, but nothing reaches it and no timer runs
    Asleep,
    /// It has no node
    Off,
}

/// A node with its surroundings
pub(super) struct Host {
    pub(super) plan: HostPlan,
    pub(super) site: SiteId,
    pub(super) power: Power,
    /// Nothing while it is off, and while the node is being driven
    pub(super) node: Option<Fleet>,
    pub(super) private_key: PrivateKey,
    pub(super) key: PublicKey,
    /// Difference between the host's clock and the world's
    zero: Duration,
    /// Who may come, and who is known
    pub(super) members: BTreeMap<PublicKey, PeerConfig>,
    /// Those that the node was told of at its start, and is told of again after a restart
    pub(super) known: BTreeMap<PublicKey, PeerConfig>,
    pub(super) decisions: VecDeque<(Instant, Command)>,
    pub(super) events: Vec<(Instant, Event)>,
    /// Packets of the node itself: ICMP errors for our applications
    pub(super) notices: Vec<Vec<u8>>,
    /// Messages sent over the network
    pub(super) sent: Traffic,
}

impl Host {
    pub(super) fn new(plan: HostPlan, site: SiteId, key: [u8; 32], number: usize) -> Self {
        let private_key = PrivateKey::from_bytes(key);
        Self {
            plan,
            site,
            power: Power::Off,
            node: None,
            key: private_key.public_key(),
            private_key,
            zero: Duration::from_secs(1 + 1_000 * number as u64),
            members: BTreeMap::new(),
            known: BTreeMap::new(),
            decisions: VecDeque::new(),
            events: Vec::new(),
            notices: Vec::new(),
            sent: Traffic::default(),
        }
    }

    /// Turns the world's time into that of the host's clock
    pub(super) fn clock(&self, now: Instant) -> Instant {
        now + self.zero
    }

    /// Turns time of the host's clock into the world's
    pub(super) fn world_time(&self, local: Instant) -> Instant {
        if local == Instant::FAR { local } else { local - self.zero }
    }

    pub(super) fn node_config(&self, seed: [u8; 32]) -> NodeConfig {
        NodeConfig {
            private_key: self.private_key.clone(),
            network_key: NetworkKey::from_bytes(self.plan.network_key),
            seed,
            aes: self.plan.aes,
            admission: self.plan.admission,
            relay: self.plan.relay,
            silence: self.plan.silence,
            engine: self.plan.engine,
        }
    }

    /// Describes this host to another one
    pub(super) fn as_peer(&self, contact: Contact, hello: &[u8]) -> PeerConfig {
        let endpoints = match contact {
            Contact::Always | Contact::OnDemand => self.endpoints(),
            Contact::Await => Vec::new(),
        };
        PeerConfig {
            key: self.key,
            prefixes: self.plan.overlay.clone(),
            endpoints,
            carrier: Choice::Udp,
            tcp: None,
            relay: None,
            contact,
            hello: hello.to_vec(),
            boot: None,
        }
    }

    pub(super) fn endpoints(&self) -> Vec<SocketAddr> {
        self.plan.underlay.iter().map(|addr| SocketAddr::new(*addr, PORT)).collect()
    }

    /// Chooses a source address for a destination, as the plane and the kernel would: the wished
    /// one while the host still has it
    pub(super) fn source_for(&self, to: SocketAddr, wish: Option<IpAddr>) -> Option<SocketAddr> {
        let own = || self.plan.underlay.iter().filter(|addr| addr.is_ipv4() == to.is_ipv4());
        let wished = own().find(|addr| Some(**addr) == wish);
        wished.or_else(|| own().next()).map(|addr| SocketAddr::new(*addr, PORT))
    }

    /// Decides about a stranger
    pub(super) fn decide(&self, ticket: Ticket, key: PublicKey) -> Command {
        match self.members.get(&key) {
            Some(peer) => Command::Admit { ticket, peer: peer.clone(), reply: WELCOME.to_vec() },
            None => Command::Refuse { ticket },
        }
    }
}
