//! Who sends next: all load that waits in one session.
//!
//! The control lane and what a path owes for itself go before and are not here.

mod shaper;

use std::collections::VecDeque;

use crate::crypto::PublicKey;
use crate::tcp::Piece;
use crate::time::{Duration, Instant};
use crate::wire::frame::RELAY_OVERHEAD;

pub use self::shaper::Shaper;

/// All load that waits in one session
#[derive(Debug, Default)]
pub struct Scheduler {
    packets: VecDeque<Vec<u8>>,
    packet_bytes: usize,
    relays: VecDeque<(PublicKey, Vec<u8>)>,
    relay_bytes: usize,
    lanes: VecDeque<u32>,
}

/// What the path in use is like
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Capacity {
    /// Bytes a second that it delivers, where known
    pub rate: Option<u64>,
    /// Its own loss in parts per million
    pub loss_ppm: u32,
    /// Smoothed round-trip time
    pub rtt: Duration,
}

/// What leaves next
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next<'a> {
    /// An inner packet; with an id where copies of it may follow
    Datagram {
        /// The packet
        packet: &'a [u8],
        /// The number that its copies share
        id: Option<u32>,
    },
    /// The next frame of this lane
    Lane(u32),
    /// A copy of what a lane sent before
    Copy(Piece),
    /// Another node's message
    Relay {
        /// Whose
        node: PublicKey,
        /// The message
        message: &'a [u8],
    },
}

impl Scheduler {
    /// Queues an inner packet; tells whether there was room
    #[must_use]
    pub fn push_packet(&mut self, packet: Vec<u8>, _now: Instant) -> bool {
        let fits = self.packet_bytes + packet.len() <= QUEUE_BYTES;
        if fits {
            self.packet_bytes += packet.len();
            self.packets.push_back(packet);
        }
        fits
    }

    /// Queues a message to carry for another node; tells whether there was room
    #[must_use]
    pub fn push_relayed(&mut self, node: PublicKey, message: Vec<u8>, _now: Instant) -> bool {
        // The name counts as well: messages of no length must not pile up.
        let bytes = RELAY_OVERHEAD + message.len();
        let fits = self.relay_bytes + bytes <= RELAY_BYTES;
        if fits {
            self.relay_bytes += bytes;
            self.relays.push_back((node, message));
        }
        fits
    }

    /// A lane has something to send
    pub fn wake_lane(&mut self, conv: u32) {
        if !self.lanes.contains(&conv) {
            self.lanes.push_back(conv);
        }
    }

    /// Tells whether anything may leave now
    pub fn has_output(&self, _capacity: &Capacity, _now: Instant) -> bool {
        !self.packets.is_empty() || !self.relays.is_empty() || !self.lanes.is_empty()
    }

    /// Returns what leaves next, without taking it
    pub fn next(&mut self, _capacity: &Capacity, _now: Instant) -> Option<Next<'_>> {
        if let Some((node, message)) = self.relays.front() {
            return Some(Next::Relay { node: *node, message });
        }
        if let Some(conv) = self.lanes.front() {
            return Some(Next::Lane(*conv));
        }
        self.packets.front().map(|packet| Next::Datagram { packet, id: None })
    }

    /// Takes what [`Scheduler::next`] named: it left in `bytes` bytes, as this piece if a lane's
    pub fn take(&mut self, _piece: Option<Piece>, _bytes: usize, _now: Instant) -> Option<Vec<u8>> {
        if let Some((_, message)) = self.relays.pop_front() {
            self.relay_bytes -= RELAY_OVERHEAD + message.len();
            return None;
        }
        if let Some(conv) = self.lanes.pop_front() {
            self.lanes.push_back(conv);
            return None;
        }
        let packet = self.packets.pop_front()?;
        self.packet_bytes -= packet.len();
        Some(packet)
    }

    /// The lane that [`Scheduler::next`] named has nothing to send any more
    pub fn sleep_lane(&mut self, conv: u32) {
        self.lanes.retain(|lane| *lane != conv);
    }

    /// Returns when something may leave that may not now (a copy that waits)
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// Bytes of inner packets that wait
const QUEUE_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of other nodes' messages that wait
const RELAY_BYTES: usize = 512 * 1024;
