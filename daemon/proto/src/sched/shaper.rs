//! Bounds that a person set: bytes and messages a second, for all paths of a node together.
//!
//! A [`Shaper`] knows when all that was sent will have passed at the rate that is allowed. Load may
//! leave while that is near enough: 2 ms at the rate, and at least two messages, may leave at once.
//!
//! # Contract
//!
//! - All that leaves is counted ([`Shaper::on_sent`]), but only load has to ask. So acknowledgements
//!   and probes take from what is left to load, and never wait.

use super::meter::time_of;
use crate::time::{Duration, Instant};

/// Bounds of what one node sends
#[derive(Clone, Debug)]
pub struct Shaper {
    rate: Option<u64>,
    packet_rate: Option<u32>,
    /// When the bytes that were sent have passed
    bytes_pass: Instant,
    /// When the messages that were sent have passed
    messages_pass: Instant,
}

impl Shaper {
    /// Begins without bounds
    pub fn new(now: Instant) -> Self {
        Self { rate: None, packet_rate: None, bytes_pass: now, messages_pass: now }
    }

    /// Sets the bounds: bytes and messages a second
    pub fn set(&mut self, rate: Option<u64>, packet_rate: Option<u32>, now: Instant) {
        self.rate = rate.map(|rate| rate.max(1));
        self.packet_rate = packet_rate.map(|rate| rate.max(1));
        self.bytes_pass = now;
        self.messages_pass = now;
    }

    /// Records that a message left, load or not
    pub fn on_sent(&mut self, bytes: usize, now: Instant) {
        if let Some(rate) = self.rate {
            let pass = self.bytes_pass.max(now) + time_of(bytes as u64, rate);
            self.bytes_pass = pass.min(now + DEBT);
        }
        if let Some(rate) = self.packet_rate {
            let pass = self.messages_pass.max(now) + time_of(1, rate.into());
            self.messages_pass = pass.min(now + DEBT);
        }
    }

    /// Returns the bytes a second that are allowed
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Tells whether load may leave now
    pub fn is_open(&self, now: Instant) -> bool {
        now >= self.open_at()
    }

    /// Returns when load may leave next
    pub fn open_at(&self) -> Instant {
        let bytes = self.rate.map(|rate| self.bytes_pass - ahead(time_of(MESSAGE, rate)));
        let messages =
            self.packet_rate.map(|rate| self.messages_pass - ahead(time_of(1, rate.into())));
        bytes.max(messages).unwrap_or_default()
    }
}

/// Returns how far what was sent may lie ahead of time when one more message leaves
fn ahead(message: Duration) -> Duration {
    BURST.max(message * 2).saturating_sub(message)
}

/// How much may leave at once
const BURST: Duration = Duration::from_millis(2);
/// Bytes of a message, as far as bursts are concerned
const MESSAGE: u64 = 1500;
/// Most that load has to wait for what did not ask
const DEBT: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bounds_it_is_always_open() {
        let mut shaper = Shaper::new(at(5));

        (0..1000).for_each(|_| shaper.on_sent(1500, at(5)));

        assert!(shaper.is_open(at(5)));
    }

    #[test]
    fn rate_is_kept_and_bursts_are_two_milliseconds() {
        // 100 Mbit/s: 25,000 bytes in 2 ms
        let (total, longest) = run(Some(12_500_000), None, 1000);

        assert!((12_400_000..=12_525_000).contains(&total), "{total}");
        assert!(longest * 1000 <= 25_000, "{longest}");
        assert!(longest * 1000 >= 20_000, "{longest}");
    }

    #[test]
    fn slow_rate_lets_two_messages_out_at_once() {
        let (total, longest) = run(Some(12_500), None, 1500);

        assert!((12_400..=15_500).contains(&total), "{total}");
        assert_eq!(longest, 2);
    }

    #[test]
    fn messages_are_bounded_as_well() {
        let (total, longest) = run(None, Some(1000), 100);
        assert!((99_000..=100_300).contains(&total), "{total}");
        assert_eq!(longest, 2);

        let (total, longest) = run(Some(50_000), Some(1000), 100);
        assert!((49_500..=53_000).contains(&total), "{total}");
        assert!(longest <= 30, "{longest}");
    }

    #[test]
    fn what_does_not_ask_takes_from_load_but_not_for_ever() {
        let mut shaper = Shaper::new(at(0));
        shaper.set(Some(100_000), None, at(0));

        (0..10).for_each(|_| shaper.on_sent(1000, at(0)));
        assert!(!shaper.is_open(at(80)));
        assert!(shaper.is_open(at(90)));

        (0..10_000).for_each(|_| shaper.on_sent(1000, at(90)));
        assert!(shaper.is_open(at(340)));
    }

    /// Sends whenever it may for a second; returns bytes, and the most messages at one time
    fn run(rate: Option<u64>, packet_rate: Option<u32>, len: usize) -> (usize, usize) {
        let mut shaper = Shaper::new(at(0));
        shaper.set(rate, packet_rate, at(0));
        let (mut total, mut longest) = (0, 0);
        let mut now = at(0);
        while now < at(1000) {
            let mut burst = 0;
            while shaper.is_open(now) {
                shaper.on_sent(len, now);
                burst += 1;
            }
            longest = longest.max(burst);
            total += burst * len;
            now = shaper.open_at();
        }
        (total, longest)
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }
}
