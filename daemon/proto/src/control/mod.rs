//! What hub and peer say to each other: registration, the list of peers, its changes.
//!
//! A peer's [`Register`] travels in the init, the hub's [`Reply`] in the response, [`Message`]s in
//! the control lane. What a hub or a peer *decides* is not here. PROTOCOL.md, section "Hub and peer".
//!
//! # Contract
//!
//! Whatever is decoded keeps the limits of this module. Encoding leaves out what exceeds them, so
//! that it always yields something that decodes.

mod codec;

use core::net::{IpAddr, SocketAddr};

use thiserror::Error;

pub use codec::{ADDRESSES_MAX, NAME_MAX, REASON_MAX, SUBNETS_MAX};

use crate::crypto::{InvitationSecret, PublicKey};
use crate::ip::Prefix;
use crate::node::{BootId, REPLY_MAX};
use codec::Reader;

/// What a peer tells its hub when it comes (the hello of its init)
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Register {
    /// Name of the machine, for people; the hub's own name for the member goes first
    pub name: String,
    /// Overlay addresses that the peer's configuration claims; none: the hub gives one
    pub addresses: Vec<IpAddr>,
    /// Underlay addresses of the peer's own interfaces, with its port
    pub endpoints: Vec<SocketAddr>,
    /// The secret of the invitation that a newcomer comes by
    pub secret: Option<InvitationSecret>,
}

/// What the hub says at once (the reply of its response)
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// The peer is known, but somebody has to approve it before it is a member
    Pending,
    /// The peer is registered
    Welcome {
        /// The peer's overlay addresses, each with the length of its subnet
        addresses: Vec<Prefix>,
        /// The hub's own overlay addresses; none if it has no interface
        hub: Vec<IpAddr>,
        /// The first part of the list: as much as fits
        list: List,
    },
    /// The peer cannot be registered: as it wishes, or by the invitation that it has
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
    /// Hub to peer: the answer
    Answer {
        /// Who was asked about
        key: PublicKey,
        /// What the hub knows
        standing: Standing,
    },
}

/// What a node is to the hub
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// A member that is not alive at the moment
    Away,
    /// A live member
    Live(Entry),
    /// No member, or no longer: nobody should talk to it
    Stranger,
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

/// Bytes of a part of a snapshot, far below what the control lane carries in one message
pub const PART_MAX: usize = 16 * 1024;

impl Register {
    /// Returns the bytes, at most [`crate::node::HELLO_MAX`]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![REGISTER];
        codec::text(&self.name, NAME_MAX, &mut out);
        codec::list(&self.addresses, ADDRESSES_MAX, codec::address, &mut out);
        codec::list(&self.endpoints, ADDRESSES_MAX, codec::endpoint, &mut out);
        if let Some(secret) = &self.secret {
            out.push(SECRET);
            out.extend_from_slice(secret.as_bytes());
        }
        out
    }

    /// Reads what [`Self::encode`] wrote
    ///
    /// # Errors
    /// If the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != REGISTER {
            return Err(DecodeError::UnknownKind);
        }
        let register = Self {
            name: reader.text(NAME_MAX)?,
            addresses: reader.list(ADDRESSES_MAX, Reader::address)?,
            endpoints: reader.list(ADDRESSES_MAX, Reader::endpoint)?,
            secret: reader.optional(SECRET, Reader::secret)?,
        };
        reader.end()?;
        Ok(register)
    }
}

impl Reply {
    /// Makes a welcome with as many of `entries` as a response has room for, and says how many
    ///
    /// They are the first ones. The rest is to follow as further parts of the same snapshot.
    pub fn welcome_that_fits(
        addresses: Vec<Prefix>,
        hub: Vec<IpAddr>,
        id: u64,
        revision: u64,
        entries: &[Entry],
    ) -> (Self, usize) {
        let list = List { id, revision, base: Base::Whole, ..List::default() };
        let mut reply = Self::Welcome { addresses, hub, list };
        let room = REPLY_MAX.saturating_sub(reply.encode().len());
        let count = fitting(entries, room);
        if let Self::Welcome { list, .. } = &mut reply {
            list.upserts = entries[..count].to_vec();
            list.base = if count == entries.len() { Base::Whole } else { Base::Nothing };
        }
        (reply, count)
    }

    /// Returns the bytes; at most [`REPLY_MAX`], unless a list is in it that is too long for that
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Pending => out.push(PENDING),
            Self::Welcome { addresses, hub, list } => {
                out.push(WELCOME);
                codec::list(addresses, ADDRESSES_MAX, codec::prefix, &mut out);
                codec::list(hub, ADDRESSES_MAX, codec::address, &mut out);
                list.write(&mut out);
            }
            Self::Refused { reason } => {
                out.push(REFUSED);
                codec::text(reason, REASON_MAX, &mut out);
            }
        }
        out
    }

    /// Reads what [`Self::encode`] wrote
    ///
    /// # Errors
    /// If the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let reply = match reader.u8()? {
            PENDING => Self::Pending,
            WELCOME => Self::Welcome {
                addresses: reader.list(ADDRESSES_MAX, Reader::prefix)?,
                hub: reader.list(ADDRESSES_MAX, Reader::address)?,
                list: List::read(&mut reader)?,
            },
            REFUSED => Self::Refused { reason: reader.text(REASON_MAX)? },
            _ => return Err(DecodeError::UnknownKind),
        };
        reader.end()?;
        Ok(reply)
    }
}

impl Message {
    /// Returns the bytes
    ///
    /// A list should have come from [`snapshot_parts`], or be as small: a message of the control lane
    /// has at most [`crate::limits::CONTROL_MAX`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Endpoints(endpoints) => {
                out.push(ENDPOINTS);
                codec::list(endpoints, ADDRESSES_MAX, codec::endpoint, &mut out);
            }
            Self::List(list) => {
                out.push(LIST);
                list.write(&mut out);
            }
            Self::SnapshotRequest => out.push(SNAPSHOT_REQUEST),
            Self::WhoIs(key) => {
                out.push(WHO_IS);
                out.extend_from_slice(key.as_bytes());
            }
            Self::Answer { key, standing } => {
                out.push(ANSWER);
                out.extend_from_slice(key.as_bytes());
                match standing {
                    Standing::Stranger => out.push(0),
                    Standing::Live(entry) => {
                        out.push(1);
                        entry.write(&mut out);
                    }
                    Standing::Away => out.push(2),
                }
            }
        }
        out
    }

    /// Reads what [`Self::encode`] wrote
    ///
    /// # Errors
    /// If the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            ENDPOINTS => Self::Endpoints(reader.list(ADDRESSES_MAX, Reader::endpoint)?),
            LIST => Self::List(List::read(&mut reader)?),
            SNAPSHOT_REQUEST => Self::SnapshotRequest,
            WHO_IS => Self::WhoIs(reader.key()?),
            ANSWER => Self::Answer {
                key: reader.key()?,
                standing: match reader.u8()? {
                    0 => Standing::Stranger,
                    1 => Standing::Live(Entry::read(&mut reader)?),
                    2 => Standing::Away,
                    _ => return Err(DecodeError::Value),
                },
            },
            _ => return Err(DecodeError::UnknownKind),
        };
        reader.end()?;
        Ok(message)
    }
}

/// Cuts the whole list into messages of at most [`PART_MAX`] bytes, to be sent in this order
///
/// There is always at least one. Parts that follow a welcome are made of the entries that were left
/// out there, and their base is then [`Base::Continued`], or [`Base::Last`] for the last one.
pub fn snapshot_parts(id: u64, revision: u64, entries: &[Entry]) -> Vec<List> {
    let mut parts = Vec::new();
    let mut rest = entries;
    loop {
        let count = fitting(rest, PART_MAX - LIST_OVERHEAD).max(1).min(rest.len());
        let (upserts, after) = rest.split_at(count);
        let base = match (parts.is_empty(), after.is_empty()) {
            (true, true) => Base::Whole,
            (true, false) => Base::Nothing,
            (false, false) => Base::Continued,
            (false, true) => Base::Last,
        };
        parts.push(List { id, revision, base, upserts: upserts.to_vec(), removed: Vec::new() });
        rest = after;
        if rest.is_empty() {
            return parts;
        }
    }
}

impl List {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.revision.to_be_bytes());
        match self.base {
            Base::Nothing => out.push(0),
            Base::Continued => out.push(1),
            Base::Last => out.push(2),
            Base::Whole => out.push(3),
            Base::Revision(revision) => {
                out.push(4);
                out.extend_from_slice(&revision.to_be_bytes());
            }
        }
        codec::long_list(&self.upserts, Entry::write, out);
        codec::long_list(&self.removed, |key, out| out.extend_from_slice(key.as_bytes()), out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: reader.u64()?,
            revision: reader.u64()?,
            base: match reader.u8()? {
                0 => Base::Nothing,
                1 => Base::Continued,
                2 => Base::Last,
                3 => Base::Whole,
                4 => Base::Revision(reader.u64()?),
                _ => return Err(DecodeError::Value),
            },
            upserts: reader.long_list(ENTRY_MIN, Entry::read)?,
            removed: reader.long_list(KEY_LEN, Reader::key)?,
        })
    }
}

impl Entry {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        codec::text(&self.name, NAME_MAX, out);
        out.extend_from_slice(&self.boot.0);
        codec::list(&self.addresses, ADDRESSES_MAX, codec::address, out);
        codec::list(&self.subnets, SUBNETS_MAX, codec::prefix, out);
        codec::list(&self.endpoints, ADDRESSES_MAX, codec::endpoint, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.key()?,
            name: reader.text(NAME_MAX)?,
            boot: reader.boot()?,
            addresses: reader.list(ADDRESSES_MAX, Reader::address)?,
            subnets: reader.list(SUBNETS_MAX, Reader::prefix)?,
            endpoints: reader.list(ADDRESSES_MAX, Reader::endpoint)?,
        })
    }
}

/// Tells how many of the first entries take at most `room` bytes
fn fitting(entries: &[Entry], room: usize) -> usize {
    let mut bytes = Vec::new();
    let fits = |entry: &&Entry| {
        entry.write(&mut bytes);
        bytes.len() <= room
    };
    entries.iter().take_while(fits).count()
}

const KEY_LEN: usize = 32;
/// Key, boot id, and the four lengths of empty fields
const ENTRY_MIN: usize = KEY_LEN + 8 + 4;
/// A message's kind, and its list without entries
const LIST_OVERHEAD: usize = 1 + 8 + 8 + 9 + 2 + 2;

// The upper half of the first byte is the version of this encoding.
const REGISTER: u8 = 0x11;
const WELCOME: u8 = 0x12;
const REFUSED: u8 = 0x13;
const ENDPOINTS: u8 = 0x14;
const LIST: u8 = 0x15;
const SNAPSHOT_REQUEST: u8 = 0x16;
const WHO_IS: u8 = 0x17;
const ANSWER: u8 = 0x18;
const PENDING: u8 = 0x19;
/// What follows at the end of a registration is the secret of an invitation
const SECRET: u8 = 1;

#[cfg(test)]
mod tests;
