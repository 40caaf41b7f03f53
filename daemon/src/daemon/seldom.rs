//! How often the same thing may be logged.

use fastvpn_proto::time::{Duration, Instant};

/// Lets one of a kind through each interval, and counts what it holds back
#[derive(Debug)]
pub(super) struct Seldom {
    interval: Duration,
    next: Instant,
    held: u64,
}

impl Seldom {
    /// Lets the first one through, and then one for each `interval`
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::ZERO, held: 0 }
    }

    /// Returns how many were held back since the last one that went through, if this one may go
    pub(super) fn allow(&mut self, now: Instant) -> Option<u64> {
        if now < self.next {
            self.held += 1;
            return None;
        }
        self.next = now + self.interval;
        Some(core::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_one_line_for_each_interval_and_the_count() {
        let mut seldom = Seldom::new(Duration::from_secs(10));
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);

        let first: Vec<_> = (0..10).map(|secs| seldom.allow(at(secs))).collect();

        assert_eq!(first[0], Some(0));
        assert!(first[1..].iter().all(Option::is_none));
        assert_eq!(seldom.allow(at(10)), Some(9));
    }
}
