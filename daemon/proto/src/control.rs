//! What hub and peer say to each other: registration, the list of peers, its changes.
//!
//! A peer's [`Register`] travels in the init, the hub's [`Reply`] in the response, [`Message`]s in
//! the control lane. What a hub or a peer *decides* is not here. PROTOCOL.md, section "Hub and peer".

use core::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::crypto::PublicKey;
use crate::ip::Prefix;
use crate::node::BootId;

/// What a peer tells its hub when it comes (the hello of its init)
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Register {
    /// Name of the machine, for people; the hub's own name for the member goes first
    pub name: String,
    /// Overlay addresses that the peer's configuration claims; none: the hub gives one
    pub addresses: Vec<IpAddr>,
    /// Underlay addresses of the peer's own interfaces, with its port
    pub endpoints: Vec<SocketAddr>,
}

/// What the hub says at once (the reply of its response)
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// The peer is registered
    Welcome {
        /// The peer's overlay addresses, each with the length of its subnet
        addresses: Vec<Prefix>,
        /// The hub's own overlay addresses; none if it has no interface
        hub: Vec<IpAddr>,
        /// The first part of the list: as much as fits
        list: List,
    },
    /// The peer is a member, but cannot be registered as it wishes
    Refused {
        /// A sentence for the administrator of the peer
        reason: String,
    },
}

/// A part of the list of live peers
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct List {
    /// Which list: another number when the hub restarted, all revisions begin anew
    pub id: u64,
    /// Revision that the receiver has once it applied this
    pub revision: u64,
    /// What the changes are to be applied to
    pub base: Base,
    /// Peers that are new or changed
    pub upserts: Vec<Entry>,
    /// Peers that are gone
    pub removed: Vec<PublicKey>,
}

/// What a part of the list is to be applied to
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Base {
    /// To nothing: a snapshot begins here; `more` parts of the same revision follow
    #[default]
    Nothing,
    /// To the parts of the same snapshot that came before; this is not the last one
    Continued,
    /// To the parts of the same snapshot that came before; this is the last one
    Last,
    /// A snapshot in one part
    Whole,
    /// To the list at this revision; whoever has another one asks for a snapshot
    Revision(u64),
}

/// One live peer, as the hub describes it
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Identity
    pub key: PublicKey,
    /// Name, for people
    pub name: String,
    /// Boot id of its present session with the hub
    pub boot: BootId,
    /// Overlay addresses
    pub addresses: Vec<IpAddr>,
    /// Subnets behind it
    pub subnets: Vec<Prefix>,
    /// Underlay addresses where it may be reached: first where the hub sees it
    pub endpoints: Vec<SocketAddr>,
}

/// A message of the control lane
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// Peer to hub: my own underlay addresses are these now
    Endpoints(Vec<SocketAddr>),
    /// Hub to peer: the list, or a change of it
    List(List),
    /// Peer to hub: send me the whole list
    SnapshotRequest,
    /// Peer to hub: may this key talk to me?
    WhoIs(PublicKey),
    /// Hub to peer: the answer; nothing for who is no live member
    Answer {
        /// Who was asked about
        key: PublicKey,
        /// What the hub knows
        entry: Option<Entry>,
    },
}

/// Why bytes are no message of this module
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DecodeError {
    /// A count or length exceeds what is allowed
    #[error("count or length is too large")]
    TooLong,
    /// The bytes end too early
    #[error("bytes end too early")]
    Truncated,
    /// A kind is unknown
    #[error("unknown kind")]
    UnknownKind,
    /// A value is impossible
    #[error("impossible value")]
    Value,
}
