//! What may be in flight while nothing is known of a path.
//!
//! The first full round trip tells the rate; until then, and as long as that is more, what may be in
//! flight grows with what arrives, as in slow start (RFC 5681), but by as much as the startup of the
//! cycle would: samples of the rate come later than acknowledgements do, and those of a path that
//! carried beats and pings until now tell nothing of what it can carry.
//!
//! # Contract
//!
//! It is no more than a multiple of what arrived in a round trip: where little is sent, little may be
//! (RFC 7661).

use super::pacer::MESSAGE;
use crate::time::Instant;

/// Window of a path of which little is known
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    window: f64,
    /// What has arrived in this round, and since when it lasts
    acked: f64,
    began: Instant,
    /// Whether the path was seen under full load
    seen: bool,
}

impl Opening {
    /// Begins with the first window
    pub(super) fn new() -> Self {
        Self { window: FIRST, acked: 0.0, began: Instant::ZERO, seen: false }
    }

    /// Takes so many bytes that have arrived
    pub(super) fn on_acked(&mut self, bytes: f64) {
        self.acked += bytes;
        if self.window < FIRST + (1.0 + GROWTH) * self.acked {
            self.window += GROWTH * bytes;
        }
    }

    /// A round ends on a path with such a round trip, in seconds
    pub(super) fn on_round(&mut self, trip: f64, now: Instant) {
        if trip <= 0.0 {
            return;
        }
        let took = now.since(self.began).as_secs_f64().max(trip);
        let arrived = self.acked * trip / took;
        self.window = self.window.min((1.0 + GROWTH) * arrived).max(FIRST);
        self.acked = 0.0;
        self.began = now;
    }

    /// A sample was taken of a path under full load
    pub(super) fn on_seen(&mut self) {
        self.seen = true;
    }

    /// Tells whether the path was seen under full load
    pub(super) fn is_seen(&self) -> bool {
        self.seen
    }

    /// Returns the bytes that may be in flight
    pub(super) fn window(&self) -> f64 {
        self.window
    }

    /// Returns the bytes a second that may leave on a path with such a round trip, in seconds
    ///
    /// The first window leaves at once, or nearly so: what comes first is often all there is.
    pub(super) fn pace(&self, trip: f64) -> f64 {
        let spread = if self.seen { 1.0 } else { AT_ONCE };
        self.window.max(spread * FIRST) / trip.max(TRIP_MIN)
    }
}

/// Bytes in flight before anything is known
pub(super) const FIRST: f64 = 32.0 * MESSAGE;
/// Growth of the window for each byte that arrives: a round trip multiplies it by 2.5 at most
const GROWTH: f64 = 1.5;
/// How much faster than evenly over a round trip the first window leaves
const AT_ONCE: f64 = 8.0;
/// Shortest round trip for that, in seconds
const TRIP_MIN: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_grows_with_what_arrives_where_it_is_used() {
        let mut opening = Opening::new();
        for round in 0..4 {
            opening.on_acked(opening.window());
            opening.on_round(0.1, at(100 * (round + 1)));
        }

        assert!((opening.window() / FIRST - 2.5_f64.powi(4)).abs() < 0.01);
    }

    #[test]
    fn window_follows_what_arrives_and_not_what_is_sent() {
        let mut opening = Opening::new();
        for round in 0..10 {
            opening.on_acked(100_000.0);
            opening.on_round(0.1, at(100 * (round + 1)));
        }

        assert!(opening.window() <= 250_000.0, "{}", opening.window());
    }

    #[test]
    fn beats_and_pings_open_nothing() {
        let mut opening = Opening::new();
        for round in 0..10_000 {
            opening.on_acked(100.0);
            opening.on_round(0.1, at(100 * (round + 1)));
        }

        assert!(opening.window() <= FIRST);
    }

    #[test]
    fn first_window_leaves_within_an_eighth_of_a_round_trip() {
        let pace = Opening::new().pace(0.2);

        assert!(FIRST / pace <= 0.2 / 8.0);
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + crate::time::Duration::from_millis(millis)
    }
}
