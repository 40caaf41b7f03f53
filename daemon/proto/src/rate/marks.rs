//! What marks of congestion mean for the rate.
//!
//! A router marks a message in place of dropping it: its queue is longer than it likes. That is what a
//! full queue says, only sooner and without a measurement; it is not loss, and nothing is wrong with
//! the path. So marks do what a full queue does, and no more than once a round trip, as what is marked
//! meanwhile left before the answer.

use super::cycle::Phase;
use crate::time::{Duration, Instant};

/// When marks are answered next
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// What is acknowledged before then was sent before the last answer
    quiet: Instant,
}

/// What to do
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Answer {
    /// Where to go
    pub(super) phase: Phase,
    /// What to keep of the rate
    pub(super) keep: f64,
}

impl Marks {
    /// Takes marks; returns the answer, if one is due
    pub(super) fn on_marks(
        &mut self,
        phase: Phase,
        trip: Duration,
        now: Instant,
    ) -> Option<Answer> {
        if now < self.quiet {
            return None;
        }
        let answer = match phase {
            // More was asked for than there is; what there is was measured.
            Phase::Startup | Phase::Fast => Answer { phase: Phase::Drain, keep: 1.0 },
            Phase::Up => Answer { phase: Phase::Down, keep: 1.0 },
            // What was believed is a little too much.
            Phase::Cruise => Answer { phase: Phase::Down, keep: CRUISE },
            Phase::Rival => Answer { phase: Phase::Down, keep: RIVAL },
            Phase::Drain | Phase::Down | Phase::Resume => return None,
        };
        self.quiet = now + trip;
        Some(answer)
    }
}

/// Share of the rate that is kept where it made a queue by itself
const CRUISE: f64 = 0.98;
/// The same beside somebody who fills the queue, and is told so as well
const RIVAL: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_end_what_makes_a_queue_and_are_answered_once_a_round_trip() {
        let mut marks = Marks::default();
        let trip = Duration::from_millis(100);

        let up = marks.on_marks(Phase::Up, trip, at(1000));

        assert_eq!(up, Some(Answer { phase: Phase::Down, keep: 1.0 }));
        assert_eq!(marks.on_marks(Phase::Cruise, trip, at(1099)), None);
        let cruise = marks.on_marks(Phase::Cruise, trip, at(1100));
        assert_eq!(cruise, Some(Answer { phase: Phase::Down, keep: 0.98 }));
    }

    #[test]
    fn queue_that_is_being_emptied_needs_no_answer() {
        let mut marks = Marks::default();
        let trip = Duration::from_millis(100);
        for phase in [Phase::Drain, Phase::Down, Phase::Resume] {
            assert_eq!(marks.on_marks(phase, trip, at(1000)), None);
        }
        let startup = marks.on_marks(Phase::Startup, trip, at(1000));
        assert_eq!(startup.map(|answer| answer.phase), Some(Phase::Drain));
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }
}
