//! How much something sends: whether it is thin, how fast it is, what it took of late.

use crate::time::{Duration, Instant};

/// What thin means
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Limit {
    /// Bytes a second
    pub(super) rate: u64,
    /// Bytes at once
    pub(super) burst: u64,
}

/// A leaky bucket: what leaked out is forgotten, what is in it tells whether a flow is thin
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Level {
    bytes: u64,
    since: Instant,
}

impl Level {
    /// Counts bytes in
    ///
    /// However much comes, a second of silence after a full bucket makes the flow thin again.
    pub(super) fn add(&mut self, bytes: usize, limit: &Limit, now: Instant) {
        let level = self.at(limit, now).saturating_add(bytes as u64);
        self.bytes = level.min(limit.burst.saturating_add(limit.rate));
        self.since = now;
    }

    /// Tells whether no more is in the bucket than may come at once
    pub(super) fn is_thin(&self, limit: &Limit, now: Instant) -> bool {
        self.at(limit, now) <= limit.burst
    }

    fn at(&self, limit: &Limit, now: Instant) -> u64 {
        self.bytes.saturating_sub(bytes_in(limit.rate, now.since(self.since)))
    }
}

/// Measures a rate
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    since: Instant,
    bytes: u64,
    rate: u64,
}

impl Meter {
    /// Counts bytes
    pub(super) fn add(&mut self, bytes: usize, now: Instant) {
        let span = now.since(self.since);
        if span >= SPAN {
            self.rate = rate_of(self.bytes, span);
            self.since = now;
            self.bytes = 0;
        }
        self.bytes += bytes as u64;
    }

    /// Returns the bytes a second of late, or more where they have just begun to come faster
    pub(super) fn rate(&self) -> u64 {
        self.rate.max(rate_of(self.bytes, SPAN))
    }
}

/// What was taken of an allowance in the last ten seconds
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// Bytes of each of the last seconds, the present one included
    slots: [u64; SLOTS],
    /// Number of the present second
    second: u64,
}

impl Window {
    /// Tells whether `bytes` more are at most `rate` a second on average
    pub(super) fn fits(&mut self, bytes: usize, rate: u64, now: Instant) -> bool {
        self.turn(now);
        let taken: u64 = self.slots.iter().sum();
        taken + bytes as u64 <= rate.saturating_mul(WINDOW.as_secs())
    }

    /// Counts bytes that were taken
    pub(super) fn count(&mut self, bytes: usize, now: Instant) {
        self.turn(now);
        self.slots[(self.second % SLOTS as u64) as usize] += bytes as u64;
    }

    fn turn(&mut self, now: Instant) {
        let second = now.as_nanos() / 1_000_000_000;
        for passed in (self.second + 1..=second).take(SLOTS) {
            self.slots[(passed % SLOTS as u64) as usize] = 0;
        }
        self.second = second.max(self.second);
    }
}

/// Returns the bytes that pass in some time at a rate
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * time.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Returns the time that bytes take at a rate
pub(super) fn time_of(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn rate_of(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / time.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Shortest time over which a rate is measured
const SPAN: Duration = Duration::from_millis(500);
/// Time over which an allowance is averaged
const WINDOW: Duration = Duration::from_secs(10);
/// One more than the window has seconds, as the present one is not over
const SLOTS: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { rate: 16_000, burst: 3_000 };

    #[test]
    fn steady_trickle_is_thin_and_a_steady_stream_is_not() {
        let (mut trickle, mut stream) = (Level::default(), Level::default());

        for at in (0..10_000).step_by(20) {
            trickle.add(300, &LIMIT, time(at));
            stream.add(400, &LIMIT, time(at));
        }

        assert!(trickle.is_thin(&LIMIT, time(10_000)));
        assert!(!stream.is_thin(&LIMIT, time(10_000)));
    }

    #[test]
    fn stream_that_ended_is_forgiven_after_a_second() {
        let mut level = Level::default();
        level.add(10_000_000, &LIMIT, time(0));

        assert!(!level.is_thin(&LIMIT, time(990)));
        assert!(level.is_thin(&LIMIT, time(1_010)));
    }

    #[test]
    fn rate_is_measured_and_grows_at_once() {
        let mut meter = Meter::default();
        for at in (0..3_000).step_by(10) {
            meter.add(1_000, time(at));
        }
        let steady = meter.rate();
        assert!((95_000..105_000).contains(&steady), "{steady}");

        meter.add(500_000, time(3_000));

        assert!(meter.rate() >= 1_000_000);
    }

    #[test]
    fn allowance_holds_over_any_ten_seconds() {
        let mut window = Window::default();
        let mut taken = Vec::new();
        for at in (0..60_000).step_by(7) {
            if window.fits(100, 1_000, time(at)) {
                window.count(100, time(at));
                taken.push(at);
            }
        }

        for start in (0..50_000).step_by(500) {
            let within = taken.iter().filter(|at| (start..start + 10_000).contains(*at)).count();
            assert!(within <= 100, "{within} from {start} ms on");
        }
        assert!(taken.len() > 500, "{}", taken.len());
    }

    #[test]
    fn allowance_is_whole_again_after_a_long_pause() {
        let mut window = Window::default();
        window.count(10_000, time(0));
        assert!(!window.fits(1, 1_000, time(9_999)));

        assert!(window.fits(10_000, 1_000, time(1_000_000)));
        window.count(10_000, time(1_000_000));
        assert!(!window.fits(1, 1_000, time(1_000_001)));
    }

    fn time(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }
}
