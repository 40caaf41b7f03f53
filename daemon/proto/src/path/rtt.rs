//! Round-trip time of one path.
//!
//! [`Rtt`] smooths samples as TCP does (RFC 6298, RFC 9002 section 5), remembers the smallest one of
//! late, and says how long to wait before a silent tail is probed. Samples come without the time for
//! which the far end held its acknowledgement back.
//!
//! # Not here
//!
//! When a sample is taken is for `sent` to know; PROTOCOL.md, section "Acknowledgement, RTT and loss".

use crate::limits::{ACK_DELAY, ACK_MOST, INITIAL_RTT};
use crate::time::{Duration, Instant};

/// Smoothed, smallest and latest round-trip time
#[derive(Clone, Debug, Default)]
pub struct Rtt {
    latest: Option<Duration>,
    smoothed: Option<Duration>,
    var: Duration,
    /// Smallest sample of the span that began then, and of the span before it
    span: Option<(Instant, Duration)>,
    span_before: Option<Duration>,
}

impl Rtt {
    /// Makes an estimate without samples
    pub const fn new() -> Self {
        Self { latest: None, smoothed: None, var: Duration::ZERO, span: None, span_before: None }
    }

    /// Takes a sample
    pub fn on_sample(&mut self, rtt: Duration, now: Instant) {
        self.latest = Some(rtt);
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.var = rtt / 2;
            }
            Some(smoothed) => {
                self.var = (self.var * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
        self.note_min(rtt, now);
    }

    /// Forgets all samples: the path leads elsewhere now
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Returns the smoothed round-trip time; nothing before the first sample
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Returns the last sample
    pub fn latest(&self) -> Option<Duration> {
        self.latest
    }

    /// Returns the mean deviation
    pub fn var(&self) -> Duration {
        self.var
    }

    /// Returns the smallest sample of the last 15 to 30 seconds in which there were samples
    pub fn min(&self) -> Option<Duration> {
        let (_, min) = self.span?;
        Some(self.span_before.map_or(min, |before| before.min(min)))
    }

    /// Returns how long to wait for an acknowledgement before the tail is probed (RFC 9002, 6.2.1)
    pub fn pto(&self) -> Duration {
        let (smoothed, var) = match self.smoothed {
            None => (INITIAL_RTT, INITIAL_RTT / 2),
            Some(smoothed) => (smoothed, self.var),
        };
        smoothed + (var * 4).max(GRANULARITY) + ACK_DELAY.max(smoothed / ACK_MOST)
    }

    fn note_min(&mut self, rtt: Duration, now: Instant) {
        self.span = match self.span {
            Some((began, min)) if now.since(began) < SPAN => Some((began, min.min(rtt))),
            Some((began, min)) => {
                self.span_before = (now.since(began) < SPAN * 2).then_some(min);
                Some((now, rtt))
            }
            None => Some((now, rtt)),
        };
    }
}

/// Half of the time for which a small sample counts as the minimum
const SPAN: Duration = Duration::from_secs(15);
/// Least allowance for deviation (RFC 9002's kGranularity)
const GRANULARITY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_sample_sets_all_and_later_ones_smooth() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.pto(), INITIAL_RTT * 3 + INITIAL_RTT / ACK_MOST);

        rtt.on_sample(ms(200), at(0));
        assert_eq!((rtt.smoothed(), rtt.var()), (Some(ms(200)), ms(100)));

        rtt.on_sample(ms(280), at(1));
        assert_eq!((rtt.smoothed(), rtt.var()), (Some(ms(210)), ms(95)));
        assert_eq!(rtt.pto(), ms(210 + 4 * 95) + ACK_DELAY);
        assert_eq!(rtt.latest(), Some(ms(280)));
    }

    #[test]
    fn minimum_is_forgotten_after_a_while_but_not_at_once() {
        let mut rtt = Rtt::new();
        rtt.on_sample(ms(50), at(0));

        (1..=15).for_each(|second| rtt.on_sample(ms(90), at(second)));
        assert_eq!(rtt.min(), Some(ms(50)));

        (16..=31).for_each(|second| rtt.on_sample(ms(90), at(second)));
        assert_eq!(rtt.min(), Some(ms(90)));
    }

    #[test]
    fn old_minimum_does_not_survive_a_long_silence() {
        let mut rtt = Rtt::new();
        rtt.on_sample(ms(50), at(0));

        rtt.on_sample(ms(90), at(60));

        assert_eq!(rtt.min(), Some(ms(90)));
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }
}
