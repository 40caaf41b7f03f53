//! Bounds that a person set: bytes and messages a second, for all paths of a node together.

use crate::time::Instant;

/// Bounds of what one node sends
#[derive(Clone, Debug)]
pub struct Shaper {
    rate: Option<u64>,
    packet_rate: Option<u32>,
    open: Instant,
}

impl Shaper {
    /// Begins without bounds
    pub fn new(now: Instant) -> Self {
        Self { rate: None, packet_rate: None, open: now }
    }

    /// Sets the bounds: bytes and messages a second
    pub fn set(&mut self, rate: Option<u64>, packet_rate: Option<u32>, _now: Instant) {
        self.rate = rate;
        self.packet_rate = packet_rate;
    }

    /// Records that a message left, load or not
    pub fn on_sent(&mut self, _bytes: usize, _now: Instant) {}

    /// Tells whether load may leave now
    pub fn is_open(&self, now: Instant) -> bool {
        now >= self.open
    }

    /// Returns when load may leave next
    pub fn open_at(&self) -> Instant {
        self.open
    }
}
