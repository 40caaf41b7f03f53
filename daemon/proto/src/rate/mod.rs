//! How many bytes may leave on one path now.

use crate::time::{Duration, Instant};

/// Rate control of one path
#[derive(Clone, Debug, Default)]
pub struct Rate {
    bound: Option<u64>,
}

/// What is remembered with each message in flight, for the sample that its acknowledgement makes
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mark {}

impl Rate {
    /// Begins without knowing anything of the path
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the most that may ever leave, in bytes a second
    pub fn set_bound(&mut self, bound: Option<u64>) {
        self.bound = bound;
    }

    /// Returns the bytes that may leave now with so many in flight
    pub fn budget(&self, _in_flight: usize, _now: Instant) -> usize {
        usize::MAX
    }

    /// Returns when [`Rate::budget`] opens by time alone
    pub fn send_at(&self, _in_flight: usize) -> Option<Instant> {
        None
    }

    /// Returns the rate that the path is believed to deliver, in bytes a second; nothing before the
    /// first round trip
    pub fn delivery_rate(&self) -> Option<u64> {
        None
    }

    /// Returns the standing queue that is seen at the bottleneck
    pub fn queue_delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns the path's own loss in parts per million, congestion left out
    pub fn own_loss_ppm(&self) -> u32 {
        0
    }
}
