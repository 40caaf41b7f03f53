//! Plain numbers of a node, for people to look at.

use super::refusal::Refusals;
use super::way::Way;
use crate::crypto::PublicKey;
use crate::time::{Duration, Instant};

/// Numbers of a node
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeStats {
    /// Messages and packets that were refused
    pub refusals: Refusals,
    /// Packets dropped because a queue was full or their session did not come up
    pub dropped: u64,
    /// Bytes and packets relayed between peers
    pub relayed: Traffic,
    /// Messages given to carriers, for whomever, and their bytes
    pub sent: Traffic,
    /// Messages that carriers brought, from whomever, and their bytes
    pub received: Traffic,
    /// Inner packets sent, to peers that are gone as well
    pub packets_sent: Traffic,
    /// Inner packets received, from peers that are gone as well
    pub packets_received: Traffic,
    /// Split connections, those included that are only remembered for the other node's sake
    pub connections: usize,
    /// Bytes of memory that split connections were promised
    pub promised: usize,
    /// Each known peer, ordered by key
    pub peers: Vec<PeerStats>,
}

impl NodeStats {
    /// Returns the numbers of a whole node, from those of its shards
    pub fn of_shards(shards: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::default();
        for shard in shards {
            whole.refusals.add(&shard.refusals);
            whole.dropped += shard.dropped;
            whole.relayed.add(shard.relayed);
            whole.sent.add(shard.sent);
            whole.received.add(shard.received);
            whole.packets_sent.add(shard.packets_sent);
            whole.packets_received.add(shard.packets_received);
            whole.connections += shard.connections;
            // Memory is common to all.
            whole.promised = whole.promised.max(shard.promised);
            whole.peers.extend(shard.peers);
        }
        whole.peers.sort_unstable_by_key(|peer| peer.key);
        whole
    }
}

/// Numbers of one peer; counters run on through all its sessions
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerStats {
    /// Who
    pub key: PublicKey,
    /// Whether there is a session, or one is being made
    pub state: PeerState,
    /// The path in use
    pub path: Option<PathStats>,
    /// How a TCP connection would be carried that our side opened now; nothing without a session
    pub tcp: Option<Carriage>,
    /// Inner packets sent to it
    pub sent: Traffic,
    /// Inner packets received from it
    pub received: Traffic,
    /// When the last handshake was completed
    pub last_handshake: Option<Instant>,
    /// When anything authentic was last heard
    pub last_heard: Option<Instant>,
}

/// How a TCP connection is carried
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carriage {
    /// As packets
    Plain,
    /// Split, as far as there is memory for it and the other node agrees
    Split,
}

impl Carriage {
    /// Returns its name in tables
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Split => "split",
        }
    }
}

/// Where we are with a peer
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerState {
    /// No session, and no reason for one
    Idle,
    /// A session is being made
    Connecting,
    /// There is a session
    Connected,
    /// There is a session, but its path does not answer at the moment
    Unresponsive,
}

/// Numbers of one path
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PathStats {
    /// How messages travel
    pub way: Way,
    /// Smoothed round-trip time; nothing before the first sample
    pub rtt: Option<Duration>,
    /// Smallest round-trip time of late
    pub rtt_min: Option<Duration>,
    /// Mean deviation of the round-trip time
    pub rtt_var: Duration,
    /// Messages of ours that were lost of late, in parts per million
    pub loss_ppm: u32,
    /// Largest message that is known to pass, in bytes of UDP payload
    pub mtu: u16,
    /// Messages sent, and their bytes
    pub sent: Traffic,
    /// Messages of ours that were lost
    pub lost: u64,
    /// Messages of ours that met congestion, by the marks of routers
    pub congested: u64,
    /// Bytes a second that the path is believed to deliver; nothing before the first round trip
    pub rate: Option<u64>,
    /// Queue that stands at the bottleneck
    pub queue_delay: Duration,
    /// The path's own loss, congestion left out, in parts per million
    pub own_loss_ppm: u32,
    /// Whether the kernel may cut trains, as over UDP it may where that was not seen to lose messages
    pub offload: bool,
    /// What was sent, by cause
    pub spent: Spent,
}

/// What was sent on a path, by cause: frames and their bytes
///
/// The difference to all bytes sent is headers, acknowledgements, probes and the control lane.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Spent {
    /// Load for the first time
    pub fresh: Traffic,
    /// Load of lanes once more, because it was lost
    pub repeats: Traffic,
    /// Load once more, in case it is lost
    pub copies: Traffic,
}

/// A number of packets or messages, and of their bytes
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// How many
    pub packets: u64,
    /// Their bytes
    pub bytes: u64,
}

impl Traffic {
    /// Counts one packet of `bytes`
    pub fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// Counts the packets of a super-packet of `bytes`
    pub(super) fn count_all(&mut self, packets: usize, bytes: usize) {
        self.packets += packets as u64;
        self.bytes += bytes as u64;
    }

    /// Adds what was counted elsewhere
    pub(super) fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}
