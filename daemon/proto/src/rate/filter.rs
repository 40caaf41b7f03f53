//! Extremes of late: the largest over rounds, the smallest over a time.
//!
//! Both are what Nichols' windowed filters are for (as in BBR, draft-ietf-ccwg-bbr section 5.5.5 and
//! 5.5.6), with slots in place of ranked samples: it matters more here that a value can be taken
//! back than that it is exact to one sample.
//!
//! # Contract
//!
//! - [`Largest`] ages only when it is told so; rounds without a full load must not age it.
//! - [`Lowest`] ages with the samples that it is given; silence keeps what was known.

use crate::time::{Duration, Instant};

/// Largest value of the last rounds
#[derive(Clone, Debug, Default)]
pub(super) struct Largest {
    slots: [f64; ROUNDS],
    at: usize,
}

impl Largest {
    /// Takes a value of the present round
    pub(super) fn update(&mut self, value: f64) {
        self.slots[self.at] = self.slots[self.at].max(value);
    }

    /// Begins the next round
    pub(super) fn advance(&mut self) {
        self.at = (self.at + 1) % ROUNDS;
        self.slots[self.at] = 0.0;
    }

    /// Forgets all larger values
    pub(super) fn lower(&mut self, value: f64) {
        for slot in &mut self.slots {
            *slot = slot.min(value);
        }
        self.update(value);
    }

    /// Returns the largest value; nothing where there was none
    pub(super) fn value(&self) -> Option<f64> {
        let largest = self.slots.iter().copied().fold(0.0, f64::max);
        (largest > 0.0).then_some(largest)
    }
}

/// Smallest value of a span of time, which may be up to twice as long
#[derive(Clone, Debug)]
pub(super) struct Lowest {
    span: Duration,
    began: Instant,
    present: Option<f64>,
    before: Option<f64>,
}

impl Lowest {
    /// Begins without a value
    pub(super) fn new(span: Duration) -> Self {
        Self { span, began: Instant::ZERO, present: None, before: None }
    }

    /// Takes a value
    pub(super) fn update(&mut self, value: f64, now: Instant) {
        let age = now.since(self.began);
        if age >= self.span {
            self.before = self.present.filter(|_| age < self.span * 2);
            self.present = None;
            self.began = now;
        }
        self.present = Some(self.present.map_or(value, |lowest| lowest.min(value)));
    }

    /// Returns the smallest value; nothing where there was none
    pub(super) fn value(&self) -> Option<f64> {
        match (self.present, self.before) {
            (Some(present), Some(before)) => Some(present.min(before)),
            (present, before) => present.or(before),
        }
    }
}

/// Rounds for which a value counts
const ROUNDS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_value_counts_for_some_rounds_and_no_longer() {
        let mut largest = Largest::default();
        assert_eq!(largest.value(), None);
        largest.update(9.0);
        for _ in 1..ROUNDS {
            largest.advance();
            largest.update(4.0);
        }
        assert_eq!(largest.value(), Some(9.0));

        largest.advance();

        assert_eq!(largest.value(), Some(4.0));
    }

    #[test]
    fn lowered_filter_forgets_what_was_larger() {
        let mut largest = Largest::default();
        largest.update(9.0);
        largest.advance();
        largest.update(8.0);

        largest.lower(5.0);

        assert_eq!(largest.value(), Some(5.0));
    }

    #[test]
    fn lowest_value_is_forgotten_after_a_while_but_not_at_once() {
        let mut lowest = Lowest::new(Duration::from_secs(5));
        lowest.update(3.0, at(0));

        (1..10).for_each(|second| lowest.update(7.0, at(second)));
        assert_eq!(lowest.value(), Some(3.0));

        (10..12).for_each(|second| lowest.update(7.0, at(second)));
        assert_eq!(lowest.value(), Some(7.0));
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }
}
