//! When the next message may leave.
//!
//! A [`Pacer`] lets bytes leave at a rate, in trains: one wake-up for each message would cost more
//! than the message (RFC 9002 section 7.7). Who comes late makes up for it, a quarter above the rate
//! and in trains of the usual length, so that a slow processor does not lower the rate.
//!
//! # Contract
//!
//! - [`Pacer::budget`] is not zero at [`Pacer::open_at`], and time alone opens it.
//! - A train is at most [`TRAIN`] long at the rate, [`CATCH_UP`] times that where it makes up for
//!   lateness, and a few messages where that is more.

use crate::time::{Duration, Instant};

/// Spreads messages over time
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    /// Nothing: no limit
    pace: Option<Pace>,
    /// When all that left would have left at the rate
    due: Instant,
    /// The same at the rate at which lateness is made up for
    gate: Instant,
}

/// A rate, and what follows from it
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Bytes a second
    rate: f64,
    /// Nanoseconds that a byte takes
    byte: f64,
    /// Length of a train
    ahead: Duration,
}

impl Pacer {
    /// Begins without a limit
    pub(super) fn new() -> Self {
        Self { pace: None, due: Instant::ZERO, gate: Instant::ZERO }
    }

    /// Sets the rate in bytes a second
    pub(super) fn set_rate(&mut self, rate: f64) {
        let rate = rate.max(1.0);
        self.pace = Some(Pace { rate, byte: 1e9 / rate, ahead: ahead(rate) });
    }

    /// Records that `bytes` left; returns when they would have left without trains and lateness
    pub(super) fn on_sent(&mut self, bytes: usize, now: Instant) -> Instant {
        let Some(Pace { byte, .. }) = self.pace else { return now };
        let due = self.due.max(now - LATE_MAX);
        let nanos = (bytes as f64 * byte).min(HOUR) + 0.5;
        self.due = due + Duration::from_nanos(nanos as u64);
        self.gate = self.gate.max(now) + Duration::from_nanos((nanos / CATCH_UP) as u64);
        due
    }

    /// Returns the bytes that may leave now; where it is not nothing, a whole message may
    pub(super) fn budget(&self, now: Instant) -> usize {
        let Some(Pace { rate, ahead, .. }) = self.pace else { return usize::MAX };
        let since = (now + ahead).since(self.due.max(self.gate)).min(ahead);
        (since.as_secs_f64() * rate).ceil() as usize
    }

    /// Returns when [`Pacer::budget`] opens, if it is not open
    pub(super) fn open_at(&self) -> Instant {
        self.due.max(self.gate)
    }
}

/// Returns the length of a train
fn ahead(rate: f64) -> Duration {
    TRAIN.max(time_of(TRAIN_MESSAGES * MESSAGE, rate))
}

/// Returns the time that so many bytes take
pub(super) fn time_of(bytes: f64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(bytes / rate).unwrap_or(Duration::from_secs(3600))
}

/// Longest time that a message takes, in nanoseconds
const HOUR: f64 = 3600e9;
/// Longest train, at the rate
const TRAIN: Duration = Duration::from_millis(1);
/// Messages that may follow one another at any rate; the last may exceed it, so that they are two
const TRAIN_MESSAGES: f64 = 1.5;
/// Size of a usual message
pub(super) const MESSAGE: f64 = 1452.0;
/// How much above the rate lateness is made up for
const CATCH_UP: f64 = 1.25;
/// Lateness beyond which it is forgotten
const LATE_MAX: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_at_the_rate() {
        for rate in [20_000.0, 1e6, 12.5e6, 1e9] {
            let mut pacer = Pacer::new();
            pacer.set_rate(rate);
            let (mut now, mut bytes) = (at(0), 0);
            let end = at(2_000_000);
            while now < end {
                bytes += train(&mut pacer, now);
                assert!(pacer.open_at() > now);
                now = pacer.open_at();
            }
            let mean = bytes as f64 / 2.0;
            assert!((mean / rate - 1.0).abs() < 0.1, "{mean} at {rate}");
        }
    }

    #[test]
    fn train_is_short_but_never_a_single_message() {
        for (rate, most) in [(20_000.0, 3 * 1452), (12.5e6, 15_625 + 1452), (1e9, 1_251_452)] {
            let mut pacer = Pacer::new();
            pacer.set_rate(rate);
            for n in 0..5 {
                train(&mut pacer, at(n * 1_000_000));
            }

            let bytes = train(&mut pacer, at(9_000_000));

            assert!((2 * 1452..=most).contains(&bytes), "{bytes} at {rate}");
        }
    }

    #[test]
    fn lateness_is_made_up_for_little_by_little() {
        let mut pacer = Pacer::new();
        pacer.set_rate(12.5e6);
        train(&mut pacer, at(0));

        let (mut now, mut bytes) = (at(9_000), 0);
        while now < at(99_000) {
            let one = train(&mut pacer, now);
            assert!(one <= 15_625 + 1452, "{one}");
            bytes += one;
            now = pacer.open_at().max(now + Duration::from_micros(100));
        }

        let fair = 12.5e6 * 0.099;
        assert!((bytes as f64 / fair - 1.0).abs() < 0.05, "{bytes} of {fair}");
    }

    fn train(pacer: &mut Pacer, now: Instant) -> usize {
        let mut bytes = 0;
        while pacer.budget(now) > 0 {
            pacer.on_sent(1452, now);
            bytes += 1452;
        }
        bytes
    }

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }
}
