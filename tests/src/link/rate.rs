//! The bottleneck of a link: a rate, and a drop-tail queue in front of it.
//!
//! Items leave one after the other, each when its last bit has passed. What waits feels a change of
//! rate at once, and so does the item that is just passing.

use std::collections::VecDeque;

use fastvpn_proto::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

use super::delay::millis;

/// Bits per second
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Rate(u64);

/// Makes a rate of kilobits per second
pub const fn kbit(kilobits: u64) -> Rate {
    Rate(kilobits * 1_000)
}

/// Makes a rate of megabits per second
pub const fn mbit(megabits: u64) -> Rate {
    Rate(megabits * 1_000_000)
}

/// Makes a rate of gigabits per second
pub const fn gbit(gigabits: u64) -> Rate {
    Rate(gigabits * 1_000_000_000)
}

impl Rate {
    /// Makes a rate of bits per second
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the bits per second
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the time that `bits` take
    pub fn time_of(self, bits: u64) -> Duration {
        if self.0 == 0 {
            return Duration::from_nanos(u64::MAX);
        }
        let nanos = (u128::from(bits) * 1_000_000_000).div_ceil(u128::from(self.0));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Returns how many bytes pass in `time`
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0) * time.as_nanos() / 8_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Room in front of a bottleneck
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Queue {
    /// As much as passes in this time at the present rate
    #[serde(rename = "ms", with = "millis")]
    Time(Duration),
    /// So many bytes
    Bytes(u64),
    /// No limit
    Endless,
}

impl Default for Queue {
    fn default() -> Self {
        Self::Time(Duration::from_millis(100))
    }
}

/// Lets items through at a rate
#[derive(Debug)]
pub(super) struct Bottleneck<T> {
    rate: Option<Rate>,
    room: u64,
    /// With its size, and when it came
    waiting: VecDeque<(T, usize, Instant)>,
    bytes: u64,
    /// When the first waiting item has passed
    front_leaves: Instant,
    waits: Waits,
}

/// How long items have waited in front of a bottleneck
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Waits {
    /// How many have passed
    pub items: u64,
    /// How long all of them together waited
    pub total: Duration,
    /// The longest
    pub longest: Duration,
}

impl Waits {
    /// Returns how long an item waited on average, of those that passed since `before`
    pub fn mean_since(&self, before: &Self) -> Duration {
        let items = self.items - before.items;
        let total = self.total.saturating_sub(before.total);
        Duration::from_nanos((total.as_nanos() / u128::from(items.max(1))) as u64)
    }
}

impl<T> Bottleneck<T> {
    pub(super) fn new(rate: Option<Rate>, queue: Queue) -> Self {
        Self {
            room: room(rate, queue),
            rate,
            waiting: VecDeque::new(),
            bytes: 0,
            front_leaves: Instant::ZERO,
            waits: Waits::default(),
        }
    }

    /// Takes an item, or refuses it for want of room; an idle bottleneck takes any item
    pub(super) fn push(&mut self, item: T, bytes: usize, now: Instant) -> bool {
        if self.waiting.is_empty() {
            self.front_leaves = now + self.time_of(bytes);
        } else if self.bytes + bytes as u64 > self.room {
            return false;
        }
        self.bytes += bytes as u64;
        self.waiting.push_back((item, bytes, now));
        true
    }

    /// Returns the next item that has passed by `now`, its size, and when exactly that was
    pub(super) fn pop(&mut self, now: Instant) -> Option<(T, usize, Instant)> {
        if self.waiting.is_empty() || self.front_leaves > now {
            return None;
        }
        let (item, bytes, came) = self.waiting.pop_front()?;
        let left = self.front_leaves;
        self.bytes -= bytes as u64;
        if let Some((_, next, _)) = self.waiting.front() {
            self.front_leaves = left + self.time_of(*next);
        }
        let wait = left.since(came).saturating_sub(self.time_of(bytes));
        self.waits.items += 1;
        self.waits.total += wait;
        self.waits.longest = self.waits.longest.max(wait);
        Some((item, bytes, left))
    }

    pub(super) fn set(&mut self, rate: Option<Rate>, queue: Queue, now: Instant) {
        if let Some((_, bytes, _)) = self.waiting.front() {
            let whole = self.time_of(*bytes).as_nanos().max(1);
            let rest = self.front_leaves.since(now).as_nanos().min(whole);
            let bits = (*bytes as u128 * 8 * rest / whole) as u64;
            let time = rate.map_or(Duration::ZERO, |rate| rate.time_of(bits));
            self.front_leaves = now + time;
        }
        self.rate = rate;
        self.room = room(rate, queue);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.front_leaves)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn waits(&self) -> Waits {
        self.waits
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn time_of(&self, bytes: usize) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| rate.time_of(bytes as u64 * 8))
    }
}

fn room(rate: Option<Rate>, queue: Queue) -> u64 {
    match (queue, rate) {
        (Queue::Time(time), Some(rate)) => rate.bytes_in(time),
        (Queue::Bytes(bytes), Some(_)) => bytes,
        (Queue::Endless, _) | (_, None) => u64::MAX,
    }
}
