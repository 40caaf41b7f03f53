//! Why an incoming message or packet was refused, and how often.

use thiserror::Error;

/// Why an incoming message or packet was refused
///
/// A refusal is ordinary input from an open port, not a fault of this program. The node counts it,
/// traces it and forgets it; it never sends anything in answer, and never changes any state.
#[derive(Clone, Copy, Debug, Eq, Error, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Refusal {
    /// The seal did not open under any key of the session
    #[error("seal does not open")]
    BadSeal,
    /// A cookie was asked for and the message has none, or a wrong one
    #[error("no valid cookie under load")]
    Cookie,
    /// The init failed in the Noise handshake
    #[error("handshake does not open")]
    Handshake,
    /// Too many inits from that address, or for that member
    #[error("too many handshakes")]
    Limited,
    /// A frame or inner packet is malformed
    #[error("malformed content")]
    Malformed,
    /// The first MAC is wrong: the sender does not know our public key and the network key
    #[error("wrong first MAC")]
    NoMac,
    /// There is no memory for what a split connection brings that was silent; it will be sent again
    #[error("no memory")]
    NoRoom,
    /// An inner packet for which no peer is known
    #[error("no route")]
    NoRoute,
    /// The control side said no
    #[error("not a member")]
    NotMember,
    /// The number was seen before, or is too old to tell; or the init belongs to the past
    #[error("replayed or too old")]
    Replayed,
    /// An inner packet whose source address does not belong to its sender
    #[error("source address is not the sender's")]
    Source,
    /// The control side did not decide in time, or too many are waiting
    #[error("undecided")]
    Undecided,
    /// The message ends before its header says it does, or has an impossible length
    #[error("wrong length")]
    Truncated,
    /// No session here uses that index
    #[error("no session with that index")]
    UnknownSession,
    /// The kind of message is unknown
    #[error("unknown kind of message")]
    UnknownType,
}

impl Refusal {
    /// All refusals, in the order of their counters
    pub const ALL: [Self; 15] = [
        Self::BadSeal,
        Self::Cookie,
        Self::Handshake,
        Self::Limited,
        Self::Malformed,
        Self::NoMac,
        Self::NoRoom,
        Self::NoRoute,
        Self::NotMember,
        Self::Replayed,
        Self::Source,
        Self::Undecided,
        Self::Truncated,
        Self::UnknownSession,
        Self::UnknownType,
    ];

    /// Returns the name of the counter, as the bus and the tool show it
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadSeal => "bad-seal",
            Self::Cookie => "cookie",
            Self::Handshake => "handshake",
            Self::Limited => "limited",
            Self::Malformed => "malformed",
            Self::NoMac => "no-mac",
            Self::NoRoom => "no-room",
            Self::NoRoute => "no-route",
            Self::NotMember => "not-member",
            Self::Replayed => "replayed",
            Self::Source => "source",
            Self::Undecided => "undecided",
            Self::Truncated => "truncated",
            Self::UnknownSession => "unknown-session",
            Self::UnknownType => "unknown-type",
        }
    }
}

/// How often each refusal happened
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Refusals([u64; Refusal::ALL.len()]);

impl Refusals {
    /// Counts one
    pub fn count(&mut self, refusal: Refusal) {
        if let Some(slot) = Refusal::ALL.iter().position(|known| *known == refusal) {
            self.0[slot] += 1;
        }
    }

    /// Adds what was counted elsewhere
    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// Returns how often `refusal` happened
    pub fn of(&self, refusal: Refusal) -> u64 {
        Refusal::ALL.iter().position(|known| *known == refusal).map_or(0, |slot| self.0[slot])
    }

    /// Goes through all refusals and their counts
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().zip(self.0)
    }

    /// Returns the sum of all counts
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}
