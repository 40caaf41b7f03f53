//! How much a reliable carrier is given at one time.
//!
//! A stream paces and repeats by itself; whatever is given to it beyond what it can send now waits
//! in a queue in which nothing can overtake. A [`Flow`] keeps that queue short: it counts the bytes
//! that the carrier holds, and allows as many as leave in 20 ms at the rate at which they left
//! of late.
//!
//! # Contract
//!
//! - The carrier tells of each byte that it was given when the byte has left it
//!   ([`Flow::on_written`]), or breaks.
//! - Bytes that the flow was not told of (handshakes) may be told of as written; they do no harm.

use crate::limits::{MESSAGE_MAX, MESSAGE_MIN};
use crate::time::{Duration, Instant};

/// What a reliable carrier holds of one path, and how much more it may be given
#[derive(Clone, Debug)]
pub struct Flow {
    /// Bytes given and not yet written
    held: usize,
    /// Bytes that may be held
    window: usize,
    /// Bytes a second that left while some were waiting
    rate: Option<u64>,
    /// Since when bytes were written without a pause, and how many
    busy: Option<(Instant, usize)>,
}

impl Flow {
    /// Begins with an idle carrier
    pub fn new() -> Self {
        Self { held: 0, window: WINDOW_FIRST, rate: None, busy: None }
    }

    /// Records that `bytes` were given to the carrier
    pub fn on_sent(&mut self, bytes: usize, now: Instant) {
        self.held += bytes;
        self.busy = self.busy.or(Some((now, 0)));
    }

    /// Records that `bytes` left the carrier
    pub fn on_written(&mut self, bytes: usize, now: Instant) {
        self.held = self.held.saturating_sub(bytes);
        let Some((since, written)) = self.busy else { return };
        let written = written + bytes;
        self.busy = (self.held > 0).then_some((since, written));
        let spent = now.since(since);
        if spent < SAMPLE {
            // What leaves at once leaves at no rate; the carrier could take more.
            if self.held == 0 {
                self.window = (self.window + bytes).min(WINDOW_MAX);
            }
            return;
        }
        let sample = written as u128 * 1_000_000_000 / spent.as_nanos().max(1);
        let sample = u64::try_from(sample).unwrap_or(u64::MAX);
        let rate = self.rate.map_or(sample, |rate| (3 * (rate / 4)).saturating_add(sample / 4));
        self.rate = Some(rate);
        let ahead = u128::from(rate) * AHEAD.as_nanos() / 1_000_000_000;
        self.window = usize::try_from(ahead).unwrap_or(WINDOW_MAX).clamp(WINDOW_MIN, WINDOW_MAX);
        self.busy = (self.held > 0).then_some((now, 0));
    }

    /// Returns how many bytes may be given now; where it is not nothing, a whole message may
    pub fn budget(&self) -> usize {
        self.window.saturating_sub(self.held)
    }

    /// Returns the largest message to send: a slow carrier is not blocked by one for long
    pub fn message(&self) -> usize {
        (self.window / 4).clamp(MESSAGE_MIN, MESSAGE_MAX)
    }

    /// Returns the bytes a second that the carrier took of late, where it was busy
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

/// Time for which the bytes held should last
const AHEAD: Duration = Duration::from_millis(20);
/// Shortest time over which a rate is taken
const SAMPLE: Duration = Duration::from_millis(20);
/// Bytes that may be held before the rate is known
const WINDOW_FIRST: usize = 64 * 1024;
/// Bytes that may be held on a slow carrier: two small messages and one to come
const WINDOW_MIN: usize = 4 * 1024;
/// Bytes that may be held on a fast carrier
const WINDOW_MAX: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_takes_from_the_budget_until_it_is_written() {
        let mut flow = Flow::new();
        flow.on_sent(WINDOW_FIRST - 1, at(0));
        assert_eq!(flow.budget(), 1);

        flow.on_sent(1000, at(0));
        assert_eq!(flow.budget(), 0);

        flow.on_written(WINDOW_FIRST, at(1));
        assert!(flow.budget() > 0);
    }

    #[test]
    fn slow_carrier_is_given_what_lasts_some_milliseconds() {
        let mut flow = Flow::new();

        drive(&mut flow, 1_000_000);

        let bound = 2 * usize::try_from(1_000_000 * AHEAD.as_millis() / 1000).unwrap();
        assert!(flow.held + flow.budget() <= bound, "{flow:?}");
        assert!(flow.rate().is_some_and(|rate| (900_000..1_100_000).contains(&rate)), "{flow:?}");
    }

    #[test]
    fn slow_carrier_is_given_small_messages_and_a_fast_one_large_ones() {
        let (mut slow, mut fast) = (Flow::new(), Flow::new());

        drive(&mut slow, 100_000);
        drive(&mut fast, 100_000_000);

        assert_eq!(slow.message(), MESSAGE_MIN);
        assert_eq!(fast.message(), MESSAGE_MAX);
    }

    #[test]
    fn carrier_that_takes_all_at_once_is_given_more() {
        let mut flow = Flow::new();

        for round in 0..100 {
            let bytes = flow.budget();
            flow.on_sent(bytes, at(round));
            flow.on_written(bytes, at(round));
        }

        assert_eq!(flow.budget(), WINDOW_MAX);
    }

    #[test]
    fn bytes_that_were_never_announced_do_no_harm() {
        let mut flow = Flow::new();

        flow.on_written(1_000_000, at(5));

        assert_eq!(flow.budget(), WINDOW_FIRST);
    }

    /// Keeps a carrier of so many bytes a second busy for two seconds
    fn drive(flow: &mut Flow, rate: usize) {
        for milli in 0..2000 {
            let leave = (rate / 1000).min(flow.held);
            flow.on_written(leave, at(milli));
            let more = flow.budget();
            flow.on_sent(more, at(milli));
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }
}
