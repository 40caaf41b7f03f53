//! Whether a path is so near and clean that TCP does well over it by itself.
//!
//! A [`Quality`] counts what became of the messages of both nodes on a path, and tells whether the path
//! is *easy*: there the kernels at both ends know of a loss at once and lose little by it. A connection
//! that travels as packets is nearly as fast there as one that is split, and needs no memory of ours. What
//! is not known is not easy.
//!
//! # Contract
//!
//! - All losses count, whatever their cause: a kernel's TCP answers to each of them.
//! - After [`Quality::judge`] [`Quality::is_easy`] may have changed; it does not waver at a limit, as a
//!   path has to be better to become easy than to stay it.
//!
//! # Not here
//!
//! Which kinds of way may be easy at all, and what follows for a connection, is said by the session.

use crate::time::{Duration, Instant};

/// What is known of how near and clean a path is
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// Messages of ours
    ours: Tally,
    /// Messages of the other node
    theirs: Tally,
    /// Where the other node's numbers stood when they were last looked at
    seen: Option<Progress>,
    easy: bool,
    /// When the past was last made to weigh less
    aged: Instant,
}

/// How far the numbers of one path of the other node have come
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Which path of its
    pub path: u8,
    /// How many numbers there were, from the first that arrived to the largest
    pub numbers: u64,
    /// How many of them arrived
    pub arrived: u64,
}

/// Messages of late, and how many of them were lost
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    messages: f64,
    lost: f64,
    /// Messages since the last one that was lost
    run: f64,
}

impl Quality {
    /// Takes what became of messages of ours; `late` counted as lost before, and have arrived
    pub fn on_resolved(&mut self, acked: usize, lost: usize, late: usize) {
        let lost_now = lost as f64 - late as f64;
        self.ours.add((acked + lost).saturating_sub(late) as f64, lost_now);
    }

    /// Takes how far the other node's messages have come
    pub fn on_progress(&mut self, at: Progress) {
        if let Some(before) = self.seen.filter(|before| before.path == at.path) {
            let numbers = at.numbers.saturating_sub(before.numbers) as f64;
            let arrived = at.arrived.saturating_sub(before.arrived) as f64;
            // More than all arrive where some were overtaken and counted as lost before.
            self.theirs.add(numbers, numbers - arrived);
        }
        self.seen = Some(at);
    }

    /// Judges the path anew; `rtt` is the smallest round-trip time of late
    pub fn judge(&mut self, rtt: Option<Duration>, now: Instant) {
        let tallies = [&mut self.ours, &mut self.theirs];
        let aged = now.since(self.aged) > AGE;
        if self.easy {
            let near = rtt.is_some_and(|rtt| rtt <= RTT_STAYS);
            self.easy = near && tallies.iter().all(|tally| tally.stays_clean());
        } else if rtt.is_some_and(|rtt| rtt <= RTT_BECOMES)
            && tallies.iter().all(|tally| tally.run >= RUN)
        {
            self.easy = true;
            // What was lost before that, when some node filled the path for the first time, is over.
            tallies.into_iter().for_each(Tally::begin_clean);
        }
        if aged {
            self.ours.age();
            self.theirs.age();
            self.aged = now;
        }
    }

    /// Tells whether the path is near and clean
    pub fn is_easy(&self) -> bool {
        self.easy
    }
}

impl Tally {
    /// Counts messages; fewer than none are lost where late ones make up for it
    fn add(&mut self, messages: f64, lost: f64) {
        self.messages += messages;
        self.lost = (self.lost + lost).max(0.0);
        self.run = if lost > 0.0 { 0.0 } else { self.run + messages };
        if self.messages > MANY {
            self.messages /= 2.0;
            self.lost /= 2.0;
        }
    }

    fn begin_clean(&mut self) {
        self.messages = self.run.min(MANY);
        self.lost = 0.0;
    }

    fn age(&mut self) {
        self.messages /= 2.0;
        self.lost /= 2.0;
        self.run /= 2.0;
    }

    fn stays_clean(&self) -> bool {
        self.messages >= FEW && self.lost <= self.messages * LOSS_STAYS
    }
}

/// Largest round-trip time of a path that becomes easy
const RTT_BECOMES: Duration = Duration::from_millis(10);
/// Largest round-trip time of one that stays so
const RTT_STAYS: Duration = Duration::from_millis(20);
/// Messages without a loss, in each direction, after which a path becomes easy
const RUN: f64 = 4000.0;
/// Largest share of messages lost, in either direction, with which one stays so
const LOSS_STAYS: f64 = 0.0003;
/// Messages of late, in either direction, without which nothing is known any more
const FEW: f64 = 500.0;
/// Messages beyond which the past weighs less
const MANY: f64 = 32_768.0;
/// Age at which the past weighs less in any case
const AGE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_not_easy_before_enough_is_known_of_both_directions() {
        let mut path = Path::default();
        path.theirs(0, 0);
        assert!(!path.is_easy_at(1));

        path.ours(10_000, 0);
        assert!(!path.is_easy_at(1), "one way alone");

        path.theirs(10_000, 0);
        assert!(path.is_easy_at(1));
    }

    #[test]
    fn far_path_is_not_easy_however_clean_it_is() {
        let mut path = Path::clean();
        path.quality.judge(None, path.now);
        assert!(!path.quality.is_easy());

        assert!(!path.is_easy_at(11));
        assert!(path.is_easy_at(10));
    }

    #[test]
    fn loss_in_either_direction_is_loss() {
        for direction in [Path::ours, Path::theirs] {
            let mut path = Path::clean();
            assert!(path.is_easy_at(1));

            direction(&mut path, 1980, 20);

            assert!(!path.is_easy_at(1));
            direction(&mut path, 3999, 0);
            assert!(!path.is_easy_at(1));
        }
    }

    #[test]
    fn path_at_a_limit_does_not_waver() {
        let mut path = Path::clean();
        assert!(path.is_easy_at(1));

        // Neither as near nor as clean as it has to be to become easy.
        path.ours(2998, 2);
        assert!(path.is_easy_at(15));

        assert!(!path.is_easy_at(21));
        assert!(!path.is_easy_at(15));
        assert!(!path.is_easy_at(1));
    }

    #[test]
    fn what_was_lost_when_the_path_was_filled_is_forgotten_after_some_thousand_messages() {
        let mut path = Path::clean();
        path.ours(9_000, 1_000);
        assert!(!path.is_easy_at(1));

        path.ours(4_000, 0);

        assert!(path.is_easy_at(1));
        path.ours(10_000, 1);
        assert!(path.is_easy_at(1));
    }

    #[test]
    fn path_that_loses_one_in_a_thousand_is_hardly_ever_easy() {
        let mut path = Path::clean();
        let mut easy = 0;
        for _ in 0..1000 {
            path.ours(999, 1);
            easy += usize::from(path.is_easy_at(1));
        }

        assert!(easy < 10, "{easy}");
    }

    #[test]
    fn late_messages_were_not_lost() {
        let mut path = Path::clean();
        assert!(path.is_easy_at(1));

        path.ours(1_000, 100);
        path.quality.on_resolved(100, 0, 100);
        path.theirs(900, 100);
        path.at.arrived += 100;
        path.theirs(0, 0);

        assert!(path.is_easy_at(1));
    }

    #[test]
    fn knowledge_of_long_ago_is_none() {
        let mut path = Path::clean();
        let pass = |path: &mut Path, times: u32| {
            (0..times).for_each(|_| {
                path.now += AGE + Duration::from_secs(1);
                path.is_easy_at(1);
            });
        };
        assert!(path.is_easy_at(1));

        pass(&mut path, 4);
        assert!(path.is_easy_at(1), "it was in use a while ago");

        pass(&mut path, 5);
        assert!(!path.is_easy_at(1));
    }

    #[test]
    fn other_path_of_the_other_node_has_other_numbers() {
        let mut path = Path::clean();

        path.at = Progress { path: 1, numbers: 50_000, arrived: 10 };
        path.theirs(0, 0);

        assert!(path.is_easy_at(1));
    }

    /// A path, and where the other node's numbers stand on it
    #[derive(Default)]
    struct Path {
        quality: Quality,
        at: Progress,
        now: Instant,
    }

    impl Path {
        /// One that carried ten thousand messages in both directions, and lost none
        fn clean() -> Self {
            let mut path = Self { now: Instant::ZERO + Duration::from_secs(1), ..Self::default() };
            path.theirs(0, 0);
            path.ours(10_000, 0);
            path.theirs(10_000, 0);
            path
        }

        fn ours(&mut self, arrive: u32, lost: u32) {
            self.quality.on_resolved(arrive as usize, lost as usize, 0);
        }

        fn theirs(&mut self, arrive: u32, lost: u32) {
            self.at.numbers += u64::from(arrive + lost);
            self.at.arrived += u64::from(arrive);
            self.quality.on_progress(self.at);
        }

        fn is_easy_at(&mut self, millis: u64) -> bool {
            self.quality.judge(Some(Duration::from_millis(millis)), self.now);
            self.quality.is_easy()
        }
    }
}
