//! A node that is about to end, and the other one that may be as well.
//!
//! Split connections outlive one of their two nodes, never both at once. As a goodbye is under way for half
//! a round trip, a node announces it first: it ends when the other one has acknowledged that, which then
//! knows. If both are about to end, one of them goes first, and the other one awaits its return.
//! PROTOCOL.md, section "Restart".

use super::Session;
use crate::time::{Duration, Instant};

/// How far the end of either node has come
#[derive(Debug, Default)]
pub(super) struct Leave {
    ours: Ours,
    /// Whether our end is put off for that of the other node
    second: bool,
    /// Whether the other node has announced its end
    other: bool,
}

/// The end of our node
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Ours {
    /// It goes on
    #[default]
    Far,
    /// It is about to end; nobody has to know as long as no connection is split
    Near,
    /// It has to be announced, for the first time at this one or again
    Unsaid(Instant),
    /// It was announced, for the first time at this time
    Said(Instant),
    /// The other node knows, since this time
    Known(Instant),
}

impl Leave {
    /// Our node is about to end; `second` if it lets the other one go first when both are
    fn begin(&mut self, second: bool) {
        if self.ours == Ours::Far {
            (self.ours, self.second) = (Ours::Near, second);
        }
    }

    /// Connections are split with the other node: it has to know, once it matters
    pub(super) fn on_connections(&mut self, now: Instant) {
        if self.ours == Ours::Near {
            self.ours = Ours::Unsaid(now);
        }
    }

    /// Tells whether it is to be announced
    pub(super) fn has_output(&self) -> bool {
        matches!(self.ours, Ours::Unsaid(_))
    }

    /// Records that it was announced
    pub(super) fn on_sent(&mut self) {
        if let Ours::Unsaid(since) = self.ours {
            self.ours = Ours::Said(since);
        }
    }

    /// The announcement was lost
    pub(super) fn on_lost(&mut self) {
        if let Ours::Said(since) = self.ours {
            self.ours = Ours::Unsaid(since);
        }
    }

    /// The announcement has arrived
    pub(super) fn on_acked(&mut self, now: Instant) {
        if matches!(self.ours, Ours::Unsaid(_) | Ours::Said(_)) {
            self.ours = Ours::Known(now);
        }
    }

    /// The other node has announced its end
    pub(super) fn on_announced(&mut self) {
        self.other = true;
    }

    /// Tells whether our node may end, as far as the other one is concerned, if connections are split with it
    fn may_end(&self, now: Instant) -> bool {
        match self.ours {
            _ if self.awaits_other() => false,
            Ours::Far | Ours::Near => false,
            Ours::Known(_) => true,
            // If it was about to end itself, it may have gone: then its goodbye, or its return, is under way.
            Ours::Unsaid(_) | Ours::Said(_) if self.other => false,
            Ours::Unsaid(since) | Ours::Said(since) => now >= since + PATIENCE,
        }
    }

    /// Tells whether the other node is to go, and come back, before ours
    fn awaits_other(&self) -> bool {
        self.second && self.other
    }

    /// Does what time demands: whoever is awaited hears of us again and again, so that it shows if it has gone and its
    /// goodbye was lost
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Ours::Known(since) = self.ours
            && self.awaits_other()
            && now >= since + AGAIN
        {
            self.ours = Ours::Unsaid(now);
        }
    }

    /// Returns when time will change anything
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.ours {
            Ours::Known(since) => self.awaits_other().then_some(since + AGAIN),
            Ours::Far | Ours::Near => None,
            // That nothing is awaited any more is no reason to be called again.
            Ours::Unsaid(since) | Ours::Said(since) => {
                Some(since + PATIENCE).filter(|at| *at > now)
            }
        }
    }
}

impl Session {
    /// Takes nothing more from the kernels of split connections: the node is about to end; `second` if it lets the
    /// other one go first when both are
    pub fn drain(&mut self, second: bool) {
        self.tcp.drain();
        self.leave.begin(second);
    }

    /// Tells whether split connections have nothing here that anybody would miss, and the other node keeps its half
    /// of them
    pub fn is_drained(&self, now: Instant) -> bool {
        self.tcp.is_drained() && (self.tcp.is_empty() || self.leave.may_end(now))
    }
}

/// How long an answer is awaited: a few round trips of the longest paths
const PATIENCE: Duration = Duration::from_secs(2);
/// After which time whoever is awaited is told again
const AGAIN: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// Our node has announced its end, at 0
    fn said(second: bool) -> Leave {
        let mut leave = Leave::default();
        leave.begin(second);
        assert!(!leave.has_output() && !leave.may_end(at(0)));
        leave.on_connections(at(0));
        assert!(leave.has_output());
        leave.on_sent();
        assert!(!leave.has_output());
        leave
    }

    #[test]
    fn end_is_said_again_until_it_is_known() {
        let mut leave = said(false);

        leave.on_lost();
        assert!(leave.has_output() && !leave.may_end(at(1000)));
        leave.on_sent();
        leave.on_acked(at(1000));
        leave.on_lost();

        assert!(!leave.has_output() && leave.may_end(at(1000)));
        assert_eq!(leave.deadline(at(1000)), None);
        leave.handle_timeout(at(5000));
        assert!(!leave.has_output() && leave.may_end(at(5000)));
    }

    #[test]
    fn answer_is_awaited_for_a_while_and_for_longer_from_who_may_have_gone() {
        let mut leave = said(false);
        assert_eq!(leave.deadline(at(0)), Some(at(2000)));
        assert!(!leave.may_end(at(1999)) && leave.may_end(at(2000)));
        assert_eq!(leave.deadline(at(2000)), None);

        leave.on_announced();
        assert!(!leave.may_end(at(2000)));
        leave.on_acked(at(3000));
        assert!(leave.may_end(at(3000)));
    }

    #[test]
    fn who_goes_second_never_goes_before_the_other_and_looks_after_it() {
        let mut leave = said(true);
        leave.on_acked(at(100));
        assert!(leave.may_end(at(100)));

        leave.on_announced();
        assert!(!leave.may_end(at(100)) && !leave.may_end(at(10_000)));
        assert_eq!(leave.deadline(at(100)), Some(at(400)));
        leave.handle_timeout(at(399));
        assert!(!leave.has_output());
        leave.handle_timeout(at(400));
        assert!(leave.has_output());
    }

    #[test]
    fn node_that_goes_on_announces_nothing() {
        let mut leave = Leave::default();

        leave.on_connections(at(0));
        leave.on_announced();

        assert!(!leave.has_output() && leave.deadline(at(0)).is_none());
    }
}
