//! How messages travel: carriers, and the ways that use them.

use core::fmt;
use core::net::SocketAddr;

use crate::crypto::PublicKey;

/// What takes messages from one machine to another
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Carrier {
    /// Each message is one UDP payload; it may be lost, and the session paces and repeats
    #[default]
    Udp,
    /// A TCP connection, for networks that block or throttle UDP; it paces and repeats by itself
    Tcp,
    /// Stock KCP, which paces and repeats by itself
    Kcp,
}

/// Which carrier may be used to reach a node
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Choice {
    /// UDP; TCP where UDP has no answer, until it has one again
    #[default]
    Auto,
    /// UDP alone
    Udp,
    /// TCP alone
    Tcp,
    /// KCP alone
    Kcp,
}

/// How messages travel to a peer
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Way {
    /// Straight, to this UDP address
    Direct(SocketAddr),
    /// Through this node
    Relayed(PublicKey),
    /// Straight, over a stream carrier's connection with this address
    Stream(Carrier, SocketAddr),
}

impl Carrier {
    /// Returns its name in configurations and tables
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Kcp => "kcp",
        }
    }
}

impl Choice {
    /// Returns its name in configurations and tables
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Kcp => "kcp",
        }
    }

    /// Goes through the carriers that may be used, the preferred one first
    pub(crate) fn carriers(self) -> &'static [Carrier] {
        match self {
            Self::Auto => &[Carrier::Udp, Carrier::Tcp],
            Self::Udp => &[Carrier::Udp],
            Self::Tcp => &[Carrier::Tcp],
            Self::Kcp => &[Carrier::Kcp],
        }
    }
}

impl Way {
    /// Returns the way straight to an address
    pub fn over(carrier: Carrier, remote: SocketAddr) -> Self {
        match carrier {
            Carrier::Udp => Self::Direct(remote),
            Carrier::Tcp | Carrier::Kcp => Self::Stream(carrier, remote),
        }
    }

    /// Tells whether it goes through another node
    pub fn is_relayed(self) -> bool {
        matches!(self, Self::Relayed(_))
    }

    /// Tells whether what is sent on it arrives in order and whole, or the way breaks
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Stream(..))
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
