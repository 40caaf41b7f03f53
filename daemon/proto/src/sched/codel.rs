//! Controlled delay: which packets of a queue leave too late to be of use (RFC 8289).
//!
//! A [`Codel`] watches how long each packet that is about to leave has waited. Once no packet of a
//! whole interval waited less than the target, it takes out one packet, and then more, ever sooner,
//! until the queue is short again. A queue that only holds a burst is left alone.
//!
//! # Contract
//!
//! - [`Codel::judge`] is asked once for each packet that comes to the head of the queue.
//! - What is done with a packet that is to go (drop or mark) is the caller's matter.

use crate::time::{Duration, Instant};

/// The state of one queue
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codel {
    /// When the queue will have been too long for an interval
    above_until: Option<Instant>,
    /// Whether packets are being taken out
    dropping: bool,
    next_drop: Instant,
    /// Packets taken out in a row
    count: u32,
    /// The same when this row began
    count_before: u32,
}

/// How long packets may wait
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Patience {
    /// Wait that is fine for ever
    pub(super) target: Duration,
    /// Time for which a longer wait is fine: about a round trip
    pub(super) interval: Duration,
}

/// What is to become of a packet
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It leaves
    Pass,
    /// It goes, so that its sender slows down
    Drop,
}

impl Codel {
    /// Judges the packet at the head of a queue of so many bytes, which has waited for so long
    pub(super) fn judge(
        &mut self,
        waited: Duration,
        backlog: usize,
        patience: &Patience,
        now: Instant,
    ) -> Verdict {
        let bad = self.is_bad(waited, backlog, patience, now);
        if !self.dropping {
            if !bad {
                return Verdict::Pass;
            }
            self.enter(patience, now);
            return Verdict::Drop;
        }
        self.dropping = bad;
        if !bad || now < self.next_drop {
            return Verdict::Pass;
        }
        self.count = self.count.saturating_add(1);
        self.next_drop += pause(patience, self.count);
        Verdict::Drop
    }

    /// Tells whether the queue was too long for a whole interval
    fn is_bad(
        &mut self,
        waited: Duration,
        backlog: usize,
        patience: &Patience,
        now: Instant,
    ) -> bool {
        if waited < patience.target || backlog <= ONE_PACKET {
            self.above_until = None;
            return false;
        }
        now >= *self.above_until.get_or_insert(now + patience.interval)
    }

    /// Begins to take packets out, at the pace of last time if that was not long ago
    fn enter(&mut self, patience: &Patience, now: Instant) {
        let row = self.count.saturating_sub(self.count_before);
        let recent = now.since(self.next_drop) < patience.interval * 16;
        self.count = if row > 1 && recent { row } else { 1 };
        self.count_before = self.count;
        self.dropping = true;
        self.next_drop = now + pause(patience, self.count);
    }
}

/// Time between two packets that are taken out: shorter with each, as the square root of their number
fn pause(patience: &Patience, count: u32) -> Duration {
    patience.interval.div_f64(f64::from(count.max(1)).sqrt())
}

/// A backlog of one packet is no queue
const ONE_PACKET: usize = 1500;

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { target: Duration::from_millis(5), interval: Duration::from_millis(100) };

    #[test]
    fn burst_that_drains_within_an_interval_loses_nothing() {
        let mut codel = Codel::default();

        let drops = (0..90).filter(|at| judge(&mut codel, 95 - at, *at) == Verdict::Drop).count();

        assert_eq!(drops, 0);
    }

    #[test]
    fn standing_queue_loses_one_packet_after_an_interval_then_more_and_more() {
        let mut codel = Codel::default();

        let drops: Vec<u64> =
            (0..2000).filter(|at| judge(&mut codel, 20, *at) == Verdict::Drop).collect();

        assert_eq!(drops.first(), Some(&100));
        let pauses: Vec<u64> = drops.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..3], [100, 71, 58]);
        assert!(pauses.is_sorted_by(|one, other| one + 1 >= *other), "{pauses:?}");
    }

    #[test]
    fn short_wait_ends_the_dropping_and_the_pace_is_remembered() {
        let mut codel = Codel::default();
        let before = (0..1000).filter(|at| judge(&mut codel, 20, *at) == Verdict::Drop).count();
        assert!(before > 10);

        assert_eq!(judge(&mut codel, 1, 1000), Verdict::Pass);
        let after = (1001..1201).filter(|at| judge(&mut codel, 20, *at) == Verdict::Drop).count();

        assert!(after > 2, "{after}");
    }

    #[test]
    fn last_packet_always_passes() {
        let mut codel = Codel::default();

        let verdicts = (0..2000)
            .map(|at| codel.judge(millis(500), 1400, &PATIENCE, Instant::ZERO + millis(at)));

        assert!(verdicts.into_iter().all(|verdict| verdict == Verdict::Pass));
    }

    fn judge(codel: &mut Codel, waited: u64, at: u64) -> Verdict {
        codel.judge(millis(waited), 100_000, &PATIENCE, Instant::ZERO + millis(at))
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
}
