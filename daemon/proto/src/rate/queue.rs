//! How long messages wait at the bottleneck.
//!
//! The time that a message takes one way is known but for a constant, the difference of two clocks;
//! above the smallest of late it is queue (as in LEDBAT, RFC 6817, and Timely). Links whose delay
//! varies by itself need care: samples are gathered in bins, of each bin a low quantile is compared
//! with the lowest such quantile, and what deviates even in the calmest bin is noise, for which the
//! threshold makes room. For the same reason the round trip of an empty path is the smallest *mean*
//! of a bin here, not the smallest sample: on a link whose jitter exceeds its delay nothing could be
//! kept in flight otherwise.
//!
//! # Contract
//!
//! - Delays are differences of two clocks; only their differences mean anything.
//! - [`Queue::close`] ends a bin; [`Queue::standing`] is then what was seen in it.

use super::filter::Lowest;
use crate::time::{Duration, Instant};

/// Queue at the bottleneck, noise of the path, and its round trip when empty
#[derive(Clone, Debug)]
pub(super) struct Queue {
    /// Of the present bin, in nanoseconds
    delays: Vec<i64>,
    trip_sum: f64,
    trip_deviation: f64,
    trips: u32,
    trips_began: Instant,
    /// Mean of the last bin, in seconds
    trip_mean: f64,
    /// Zero of the delays, so that they fit a float well
    zero: Option<i64>,
    /// In seconds, as all of these
    lowest: Lowest,
    noise: Lowest,
    trip: Lowest,
    trip_noise: Lowest,
    standing: f64,
    /// Smallest queue of late, and the largest, negated
    swing: (Lowest, Lowest),
    /// Since when the queue is known not to be empty, so that the lowest values are not forgotten
    held: Option<Instant>,
    /// Smallest and largest queue since then, but for the beginning
    level: Option<(f64, f64)>,
}

impl Queue {
    /// Begins without samples
    pub(super) fn new() -> Self {
        Self {
            delays: Vec::new(),
            trip_sum: 0.0,
            trip_deviation: 0.0,
            trips: 0,
            trips_began: Instant::ZERO,
            trip_mean: 0.0,
            zero: None,
            lowest: Lowest::new(MEMORY),
            noise: Lowest::new(MEMORY),
            trip: Lowest::new(MEMORY),
            trip_noise: Lowest::new(MEMORY),
            standing: 0.0,
            swing: (Lowest::new(SWING), Lowest::new(SWING)),
            held: None,
            level: None,
        }
    }

    /// Takes the time that a message took one way
    pub(super) fn on_delay(&mut self, delay: i64) {
        if self.delays.len() < SAMPLES_MAX {
            self.delays.push(delay);
        }
    }

    /// Takes the time from sending a message to its acknowledgement
    pub(super) fn on_trip(&mut self, trip: Duration) {
        let trip = trip.as_secs_f64();
        let mean = if self.trip_mean > 0.0 { self.trip_mean } else { trip };
        self.trip_sum += trip;
        self.trip_deviation += (trip - mean).abs();
        self.trips += 1;
    }

    /// Sets whether somebody is known to keep the queue full
    pub(super) fn set_held(&mut self, held: bool, now: Instant) {
        if held != self.held.is_some() {
            self.held = held.then_some(now);
            self.level = None;
        }
    }

    /// Tells whether what is taken for a queue that somebody keeps full is the way itself, which has
    /// become longer: no sender keeps a queue at one level
    pub(super) fn is_way(&self, now: Instant) -> bool {
        let long = LEVEL_TRIPS * self.trip_mean.max(LEVEL_TRIP_MIN);
        let seen = self.held.is_some_and(|held| now.since(held).as_secs_f64() > long);
        seen && self.level.is_some_and(|(low, high)| high - low < LEVEL * high)
    }

    /// Takes the present delay for that of an empty path
    pub(super) fn rebase(&mut self) {
        self.lowest = Lowest::new(MEMORY);
    }

    /// Takes the present delay and round trip for those of an empty path: it leads elsewhere
    pub(super) fn restart(&mut self) {
        self.rebase();
        self.trip = Lowest::new(MEMORY);
        self.swing = (Lowest::new(SWING), Lowest::new(SWING));
        self.held = None;
        self.level = None;
        self.standing = 0.0;
    }

    /// Ends a bin, if it has samples enough
    pub(super) fn close(&mut self, now: Instant) {
        self.close_trips(now);
        if self.delays.len() < SAMPLES {
            return;
        }
        let zero = *self.zero.get_or_insert(self.delays[0]);
        let at = self.delays.len() / QUANTILE;
        let (_, low, _) = self.delays.select_nth_unstable(at);
        let low = seconds(low.saturating_sub(zero));
        let all = self.delays.iter().map(|delay| seconds(delay.saturating_sub(zero)));
        let mean = all.clone().sum::<f64>() / self.delays.len() as f64;
        let noise = all.map(|delay| (delay - mean).abs()).sum::<f64>() / self.delays.len() as f64;
        let least = self.lowest.value().filter(|_| self.held.is_some()).unwrap_or(low);
        self.lowest.update(low.min(least), now);
        self.noise.update(noise, now);
        self.standing = low - self.lowest.value().unwrap_or(low);
        self.swing.0.update(self.standing, now);
        self.swing.1.update(-self.standing, now);
        self.delays.clear();
        let settled = |held: Instant| now.since(held).as_secs_f64() > 2.0 * self.trip_mean;
        if self.held.is_some_and(settled) {
            let (low, high) = self.level.unwrap_or((self.standing, self.standing));
            self.level = Some((low.min(self.standing), high.max(self.standing)));
        }
    }

    /// The mean round trip needs longer bins: what was lucky arrives first
    fn close_trips(&mut self, now: Instant) {
        let first = self.trip_mean == 0.0;
        let age = now.since(self.trips_began);
        if self.trips == 0 || !first && (self.trips < TRIPS || age < TRIPS_TIME) {
            return;
        }
        let trips = f64::from(self.trips);
        self.trip_mean = self.trip_sum / trips;
        let least = self.trip.value().filter(|_| self.held.is_some()).unwrap_or(self.trip_mean);
        self.trip.update(self.trip_mean.min(least), now);
        if !first && self.trips >= TRIPS {
            self.trip_noise.update(self.trip_deviation / trips, now);
        }
        (self.trip_sum, self.trip_deviation, self.trips) = (0.0, 0.0, 0);
        self.trips_began = now;
    }

    /// Returns the queue of the last bin, in seconds
    pub(super) fn standing(&self) -> f64 {
        self.standing
    }

    /// Returns the smallest queue of late, as a share of the largest
    pub(super) fn swing(&self) -> f64 {
        let (low, high) = (self.swing.0.value(), self.swing.1.value());
        low.unwrap_or(0.0) / high.map_or(1.0, |high| -high).max(1e-6)
    }

    /// Returns the queue from which on the path counts as full, in seconds
    pub(super) fn threshold(&self) -> f64 {
        (self.trip() * THRESHOLD_SHARE).clamp(THRESHOLD_MIN, THRESHOLD_MAX) + 1.2 * self.noise()
    }

    /// Returns the mean deviation of delay and round trip when the path is calm, in seconds
    pub(super) fn noise(&self) -> f64 {
        self.noise.value().unwrap_or(0.0).max(self.trip_noise())
    }

    /// Returns the mean time from sending to acknowledgement when the path is empty, in seconds;
    /// zero before the first
    pub(super) fn trip(&self) -> f64 {
        self.trip.value().unwrap_or(0.0)
    }

    /// Returns its mean deviation, in seconds
    pub(super) fn trip_noise(&self) -> f64 {
        self.trip_noise.value().unwrap_or(0.0)
    }
}

fn seconds(nanos: i64) -> f64 {
    nanos as f64 * 1e-9
}

/// Half of the time for which the lowest values count
const MEMORY: Duration = Duration::from_secs(5);
/// Half of the time in which a rival shows what he is
const SWING: Duration = Duration::from_secs(4);
/// How much a queue varies at least that somebody keeps full, as a share of it
const LEVEL: f64 = 0.08;
/// Round trips in which it does so (BBR has eight in a cycle), and the shortest one that counts
const LEVEL_TRIPS: f64 = 12.0;
const LEVEL_TRIP_MIN: f64 = 0.1;
/// Delays that a bin needs
const SAMPLES: usize = 12;
/// Delays that a bin holds
const SAMPLES_MAX: usize = 256;
/// The lowest one in so many is taken
const QUANTILE: usize = 8;
/// Round trips that a bin needs
const TRIPS: u32 = 16;
/// Time that a bin of round trips needs
const TRIPS_TIME: Duration = Duration::from_millis(40);
/// Share of the round trip that may stand as queue
const THRESHOLD_SHARE: f64 = 0.05;
/// Least queue that counts, in seconds
const THRESHOLD_MIN: f64 = 0.006;
/// Largest queue that does not count, but for noise
const THRESHOLD_MAX: f64 = 0.020;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_above_the_lowest_is_queue_whatever_the_clocks_say() {
        for offset in [0, -7_000_000_000_000, i64::MAX / 4] {
            let mut queue = Queue::new();
            bin(&mut queue, [offset + 50_000_000; 16], 1);
            bin(&mut queue, [offset + 65_000_000; 16], 2);
            assert!((queue.standing() - 0.015).abs() < 1e-6, "{queue:?}");
            bin(&mut queue, [offset + 50_000_000; 16], 3);
            assert!(queue.standing().abs() < 1e-6, "{queue:?}");
        }
    }

    #[test]
    fn jitter_is_noise_and_not_queue() {
        let mut queue = Queue::new();
        for number in 1..20 {
            let jitter = core::array::from_fn(|n| (n as i64 * 7 + number) % 10 * 2_000_000);
            bin(&mut queue, jitter, number as u64);
        }
        assert!(queue.noise() > 0.003, "{queue:?}");
        assert!(queue.standing() < queue.threshold() / 2.0, "{queue:?}");
    }

    #[test]
    fn longer_way_is_queue_at_first_and_then_the_way() {
        let mut queue = Queue::new();
        bin(&mut queue, [50_000_000; 16], 1);
        bin(&mut queue, [90_000_000; 16], 2);
        assert!(queue.standing() > 0.039);

        (3..14).for_each(|second| bin(&mut queue, [90_000_000; 16], second));

        assert!(queue.standing() < 0.001, "{queue:?}");
    }

    #[test]
    fn queue_that_never_changes_is_the_way_and_one_that_swings_is_not() {
        let held = |delay: fn(u64) -> i64| {
            let mut queue = Queue::new();
            bin(&mut queue, [50_000_000; 16], 1);
            queue.set_held(true, Instant::ZERO + Duration::from_secs(1));
            (2..20).for_each(|second| bin(&mut queue, [delay(second); 16], second));
            queue
        };
        let now = Instant::ZERO + Duration::from_secs(20);

        let mut longer = held(|_| 180_000_000);
        assert!(longer.is_way(now) && longer.standing() > 0.1, "{longer:?}");
        assert!(!held(|second| 150_000_000 + (second as i64 % 4) * 10_000_000).is_way(now));

        longer.restart();
        bin(&mut longer, [180_000_000; 16], 21);
        assert!(longer.standing() < 0.001, "{longer:?}");
    }

    fn bin(queue: &mut Queue, delays: [i64; 16], second: u64) {
        delays.into_iter().for_each(|delay| queue.on_delay(delay));
        queue.close(Instant::ZERO + Duration::from_secs(second));
    }
}
