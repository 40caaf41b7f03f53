//! When our kernel sees its data acknowledged: at once, or along with the answer.
//!
//! Where questions and answers follow each other quickly, an acknowledgement of its own costs as much as
//! the data that it is for. So after [`QUICK`] answers in a row that came within [`ANSWER`], that of a
//! small segment waits as long for the next one to carry it: the "pingpong" mode of Linux, with a delay
//! that is a thousandth of what RFC 1122 (4.2.3.2) permits. A second segment is acknowledged at once, and an
//! answer that does not come ends the mode.
//!
//! # Contract
//!
//! - After each call [`Acks::deadline`] may have moved; then [`Acks::take_due`] is to be asked.

use crate::time::{Duration, Instant};

/// What is to be acknowledged, and when
#[derive(Debug, Default)]
pub(super) struct Acks {
    due: Due,
    /// When a small segment came that was not answered since
    asked: Option<Instant>,
    /// Until when an acknowledgement waits for an answer
    wait: Option<Instant>,
    /// Answers in a row that came soon
    quick: u32,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Due {
    #[default]
    Nothing,
    /// An answer may carry it
    Small,
    Now,
}

impl Acks {
    /// Wants an acknowledgement at once
    pub(super) fn want(&mut self) {
        self.due = Due::Now;
    }

    /// Wants an acknowledgement of `len` bytes that came in order
    pub(super) fn want_for(&mut self, len: usize) {
        let another = self.wait.is_some() || self.due != Due::Nothing;
        self.due = if another || len > SMALL { Due::Now } else { Due::Small };
    }

    /// Records that data which acknowledges all is written to the kernel
    pub(super) fn on_answer(&mut self, now: Instant) {
        if let Some(asked) = self.asked.take() {
            self.quick = if now.since(asked) <= ANSWER { self.quick.saturating_add(1) } else { 0 };
        }
        self.on_told();
    }

    /// Records that an acknowledgement is written to the kernel
    pub(super) fn on_told(&mut self) {
        self.due = Due::Nothing;
        self.wait = None;
    }

    /// Tells whether an acknowledgement is to be written now
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        match core::mem::take(&mut self.due) {
            Due::Now => true,
            Due::Small => {
                self.asked = Some(now);
                let waits = self.quick >= QUICK;
                self.wait = waits.then(|| now + ANSWER);
                !waits
            }
            Due::Nothing if self.wait.is_some_and(|at| now >= at) => {
                *self = Self::default();
                true
            }
            Due::Nothing => false,
        }
    }

    /// Returns until when an acknowledgement waits for an answer, if one does
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.wait
    }
}

/// Time for which an acknowledgement waits for an answer
const ANSWER: Duration = Duration::from_micros(400);
/// Answers in a row after which the next one is awaited
const QUICK: u32 = 4;
/// Bytes of a question: about the least segment that every network carries
const SMALL: usize = 536;

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(100);

    /// Questions and answers, each after `pause`; returns how many were acknowledged alone
    fn talk(acks: &mut Acks, now: &mut Instant, turns: u32, pause: Duration) -> usize {
        let mut alone = 0;
        for _ in 0..turns {
            *now += pause;
            acks.want_for(1);
            alone += usize::from(acks.take_due(*now));
            *now += pause;
            alone += usize::from(acks.take_due(*now));
            acks.on_answer(*now);
        }
        alone
    }

    fn talking() -> (Acks, Instant) {
        let (mut acks, mut now) = (Acks::default(), Instant::from_nanos(1_000_000_000));
        talk(&mut acks, &mut now, QUICK, SOON);
        (acks, now)
    }

    #[test]
    fn answers_that_come_quickly_carry_the_acknowledgements() {
        let (mut acks, mut now) = (Acks::default(), Instant::from_nanos(1_000_000_000));

        assert_eq!(talk(&mut acks, &mut now, QUICK, SOON), QUICK as usize);
        assert_eq!(talk(&mut acks, &mut now, 100, SOON), 0);
        assert_eq!(acks.deadline(), None);
    }

    #[test]
    fn answers_that_take_their_time_are_not_awaited() {
        let (mut acks, mut now) = (Acks::default(), Instant::from_nanos(1_000_000_000));

        for _ in 0..100 {
            assert_eq!(talk(&mut acks, &mut now, 1, 5 * SOON), 1);
            assert_eq!(acks.quick, 0);
        }
    }

    #[test]
    fn answer_that_does_not_come_ends_it() {
        let (mut acks, mut now) = talking();
        acks.want_for(1);
        assert!(!acks.take_due(now));
        let at = acks.deadline().unwrap();

        assert!(!acks.take_due(at - Duration::from_nanos(1)));
        assert!(acks.take_due(at));

        now = at;
        assert_eq!(acks.deadline(), None);
        assert_eq!(talk(&mut acks, &mut now, QUICK, SOON), QUICK as usize);
    }

    #[test]
    fn second_segment_a_large_one_and_whatever_is_urgent_wait_for_nothing() {
        let (mut acks, now) = talking();
        acks.want_for(1);
        assert!(!acks.take_due(now));
        acks.want_for(1);
        assert!(acks.take_due(now), "the second");

        let (mut acks, now) = talking();
        acks.want_for(1000);
        assert!(acks.take_due(now), "a large one");

        let (mut acks, now) = talking();
        acks.want_for(1);
        acks.want();
        assert!(acks.take_due(now), "out of order");
    }
}
