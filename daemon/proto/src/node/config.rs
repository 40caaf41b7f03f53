//! What a node is told: its own parameters, its peers, and commands.

use core::net::SocketAddr;

use super::way::Choice;
use crate::crypto::{NetworkKey, PrivateKey, PublicKey};
use crate::ip::Prefix;
use crate::session::{Engine, TcpMode};
use crate::time::Duration;

/// Parameters of a node that do not change while it runs
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Identity
    pub private_key: PrivateKey,
    /// Pre-shared key of the network; all zero where none is set
    pub network_key: NetworkKey,
    /// Source of all chance: indices, ephemeral keys, challenges, the boot id
    pub seed: [u8; 32],
    /// Whether this node would have AES-256-GCM for data; used where the other one would, too
    pub aes: bool,
    /// What to do with inits
    pub admission: Admission,
    /// Whether to carry messages between peers (a hub does)
    pub relay: bool,
    /// Silence after which [`super::Event::Silent`] tells of a peer
    pub silence: Duration,
    /// How the engine is set; [`Command::Configure`] changes it later
    pub engine: Engine,
}

/// Which inits are answered without asking the control side
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Each init that would make a new session becomes a [`super::Event::Stranger`] (hub: it
    /// carries a registration); a change of keys is answered at once
    Ask,
    /// Inits of known peers are answered at once; only unknown keys are asked about (peer)
    Known,
}

/// A node that we may talk to
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerConfig {
    /// Identity
    pub key: PublicKey,
    /// Overlay addresses and subnets: routed to this peer, and allowed as source from it
    pub prefixes: Vec<Prefix>,
    /// Underlay addresses where it may be reached, the most likely one first
    pub endpoints: Vec<SocketAddr>,
    /// Which carrier may be used to reach it; the endpoints are that carrier's
    pub carrier: Choice,
    /// How TCP connections with it are carried; nothing: as [`Engine::tcp`] says
    pub tcp: Option<TcpMode>,
    /// The node through which it may be reached where no direct way works
    pub relay: Option<PublicKey>,
    /// When a session with it is made
    pub contact: Contact,
    /// What we say of ourselves when we start a session with it (a registration, to a hub)
    pub hello: Vec<u8>,
    /// Boot id that it is said to have now; another one in our session means it restarted
    pub boot: Option<BootId>,
}

/// When a session with a peer is made
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Contact {
    /// At once, and again and again until it succeeds (the hub, for its peers)
    Always,
    /// With the first packet for it
    OnDemand,
    /// Never by us: it comes to us (a hub waits for its members)
    Await,
}

/// Number that a node draws when it starts: the same node with another boot id has restarted
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BootId(pub [u8; 8]);

/// Names an init that waits for the control side's decision
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// What the control side asks of a node
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Answers the init behind `ticket` and knows its sender as `peer` from now on
    ///
    /// Nothing else changes until the first message under the new keys has opened.
    Admit {
        /// From [`super::Event::Stranger`]
        ticket: Ticket,
        /// How to know the sender; its key must be the sender's
        peer: PeerConfig,
        /// What we say in the response (a welcome, from a hub); at most [`super::REPLY_MAX`] bytes
        reply: Vec<u8>,
    },
    /// Says goodbye in all sessions; the node is of no use afterwards
    Close,
    /// Says goodbye to those peers to which a relay leads; for shards, before any of them takes [`Command::Close`]
    CloseRelayed,
    /// Sets the engine anew
    Configure(Engine),
    /// Takes nothing more from the kernels of split connections; once [`super::Node::is_drained`] says
    /// so, nothing is missed when the node ends
    Drain,
    /// Forgets a peer as [`Command::RemovePeer`] does, but not the split connections with it that wait
    /// for it to come back
    PeerAway(PublicKey),
    /// Addresses or routes of this machine changed: each path proves itself again, at once
    PathsChanged,
    /// Measures the round trip to a peer with one message; answered by [`super::Event::Pong`] or
    /// [`super::Event::PingLost`]
    Ping {
        /// Whom to ask
        peer: PublicKey,
        /// Returned with the answer
        id: u64,
        /// Time after which the ping counts as lost
        timeout: Duration,
    },
    /// Drops the init behind `ticket` without an answer
    Refuse {
        /// From [`super::Event::Stranger`]
        ticket: Ticket,
    },
    /// Forgets a peer, its session and its routes; says goodbye first
    RemovePeer(PublicKey),
    /// Sends a message in the control lane, reliably and in order
    ///
    /// Without a session the message is dropped.
    Send {
        /// To whom
        peer: PublicKey,
        /// At most [`crate::limits::CONTROL_MAX`] bytes
        message: Vec<u8>,
    },
    /// Makes a peer known, or replaces what is known of it; a session that exists goes on
    SetPeer(PeerConfig),
}
