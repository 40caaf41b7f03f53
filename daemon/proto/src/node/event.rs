//! What a node tells: events for the control side, messages for the network.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use super::config::{BootId, Ticket};
use super::refusal::Refusal;
use super::way::{Carrier, Way};
use crate::crypto::PublicKey;
use crate::time::Duration;
use crate::wire::message::{Kind, parse_kind};

/// Something that the control side should know
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A message of the control lane arrived, in order
    Control {
        /// From whom
        peer: PublicKey,
        /// The message
        message: Vec<u8>,
    },
    /// It was seen whether a way carries trains as well that the kernel cuts as those that it does not;
    /// told when that changes, and where it does not from the beginning
    Offload {
        /// With whom
        peer: PublicKey,
        /// Which way
        way: Way,
        /// Whether trains are given to the kernel whole from now on
        works: bool,
    },
    /// The path in use changed: another address or carrier, or direct instead of relayed, or the reverse
    PathMoved {
        /// Of whom
        peer: PublicKey,
        /// The path in use now
        way: Way,
    },
    /// A ping had no answer in time
    PingLost {
        /// Who was asked
        peer: PublicKey,
        /// From [`super::Command::Ping`]
        id: u64,
    },
    /// A ping was answered
    Pong {
        /// Who answered
        peer: PublicKey,
        /// From [`super::Command::Ping`]
        id: u64,
        /// Round-trip time of this very message
        rtt: Duration,
    },
    /// A session ended; the peer stays known
    SessionDown {
        /// With whom
        peer: PublicKey,
        /// Why
        reason: DownReason,
    },
    /// A session began: the first message under its keys has opened. A change of keys is no event
    SessionUp {
        /// With whom
        peer: PublicKey,
        /// Boot id of the other node
        boot: BootId,
        /// What the other node said in the handshake: the hello if it initiated, the reply if we did
        greeting: Vec<u8>,
        /// Whether we initiated
        initiator: bool,
        /// The path in use
        way: Way,
    },
    /// Nothing was heard from a peer for [`super::NodeConfig::silence`]; told once in a silence
    Silent {
        /// Who is silent
        peer: PublicKey,
    },
    /// An init wants a decision: answer with [`super::Command::Admit`] or
    /// [`super::Command::Refuse`] within [`crate::limits::TICKET_LIFE`]
    Stranger {
        /// Names the init
        ticket: Ticket,
        /// Who sent it, proven by the handshake (but an init may be replayed)
        key: PublicKey,
        /// What it says of itself
        hello: Vec<u8>,
        /// Where the init came from
        way: Way,
    },
    /// A message of the control lane stayed without acknowledgement for
    /// [`crate::limits::PUSH_TIMEOUT`]; told once for a session
    Undelivered {
        /// To whom
        peer: PublicKey,
    },
}

/// Why a session ended
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DownReason {
    /// The other node said goodbye
    Closed,
    /// It was removed by command
    Removed,
    /// The other node restarted, or forgot the session; a new one has begun
    Restarted,
    /// Silence for [`crate::limits::SESSION_SILENCE`]
    Silence,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed by the other node",
            Self::Removed => "removed",
            Self::Restarted => "the other node restarted",
            Self::Silence => "silent for too long",
        })
    }
}

/// Where a message came from
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// What brought it
    pub carrier: Carrier,
    /// Sender's address; IPv4-mapped addresses already turned into IPv4
    pub remote: SocketAddr,
    /// Our address that it was sent to, where known
    pub local: Option<IpAddr>,
    /// What its IP header said of congestion
    pub ecn: Ecn,
}

/// What an outer IP header says of congestion (RFC 3168)
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ecn {
    /// It may not be marked (Not-ECT), or the carrier does not say
    #[default]
    Incapable,
    /// It may be marked, and is not (ECT(0))
    Capable,
    /// It met congestion (CE)
    Congested,
}

/// What a message proved of its sender, by being taken or refused
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Credential {
    /// Nothing yet: another shard is to say, by [`super::Node::poll_proved`]
    Unknown,
    /// Nothing: anyone could have sent it
    Nothing,
    /// The sender knows this node's public key and the network key, or repeats who does
    Key,
    /// The sender is the other node: the message was sealed, or answered, by it alone
    Identity,
}

impl Credential {
    /// Judges a message by its header and by what became of it
    pub(super) fn of(bytes: &[u8], result: Result<(), Refusal>) -> Self {
        match (parse_kind(bytes), result) {
            (Ok(Kind::Init), Err(Refusal::Malformed | Refusal::NoMac | Refusal::Truncated)) => {
                Self::Nothing
            }
            (Ok(Kind::Init), _) | (Ok(Kind::Cookie), Ok(())) => Self::Key,
            (Ok(Kind::Response | Kind::Data), Ok(())) => Self::Identity,
            (Ok(Kind::Response | Kind::Cookie | Kind::Data), Err(_)) | (Err(_), _) => Self::Nothing,
        }
    }
}

/// One or more messages of equal size to one address
///
/// The bytes are in the buffer that was given to [`super::Node::poll_transmit`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// What is to take them there
    pub carrier: Carrier,
    /// Whom they are for, or who is to carry them on
    pub peer: PublicKey,
    /// Where to
    pub remote: SocketAddr,
    /// Source address to use, where it matters
    pub local: Option<IpAddr>,
    /// What their IP headers are to say: capable or not
    pub ecn: Ecn,
    /// Size of each message but the last, where there are several
    pub segment: Option<usize>,
    /// Whether the kernel may cut them apart; otherwise each is to be given to it by itself
    pub offload: bool,
}

/// What a deadline is for; shown in traces
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Why {
    /// Acknowledgements were held back long enough
    Ack,
    /// A handshake is to be tried again
    Handshake,
    /// A path owes a heartbeat, or is too silent
    Heartbeat,
    /// Keys are to be renewed or forgotten
    Keys,
    /// A message counts as lost, or the tail is to be probed
    Loss,
    /// The rate of a path, or a bound, allows load to leave
    Pace,
    /// A path's MTU or address is to be probed
    Probe,
    /// A peer was silent for too long
    Silence,
    /// Tickets, cookies, fragments or waiting packets expire
    Sweep,
    /// A split connection waits for its kernel
    Tcp,
}
