//! Pulse of one path.
//!
//! A [`Heartbeat`] says when something must be sent so that the other node, and every NAT between
//! us, still believes in the path; and when we should stop believing in it ourselves. It sends and
//! measures nothing.
//!
//! # Contract
//!
//! - Any authentic message counts: one sent postpones the beat, one heard restores patience.
//! - After each `on_*` call and each [`Heartbeat::poll`] the deadline may have moved; ask again.
//! - [`Due::Lost`] is final.

use crate::time::{Duration, Instant};

/// Decides when an idle path needs a beat and when a silent one is lost
#[derive(Debug)]
pub struct Heartbeat {
    interval: Duration,
    /// How long the other node may stay silent
    patience: Duration,
    last_sent: Instant,
    last_heard: Instant,
}

/// What a path owes now that its deadline has passed
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// Send something that is answered
    Beat,
    /// The other node was silent for too long
    Lost,
}

impl Heartbeat {
    /// Starts with a path that was heard from at `now`
    ///
    /// `missed` beats in a row may stay without an answer; at the next one the path is lost.
    pub fn new(interval: Duration, missed: u32, now: Instant) -> Self {
        Self { interval, patience: interval * (missed + 1), last_sent: now, last_heard: now }
    }

    /// Records that a message left on the path
    pub fn on_sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// Records that an authentic message came on the path
    pub fn on_heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Takes what is due at `now`; a beat taken is a beat sent
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> Option<Due> {
        if now >= self.lost_at() {
            return Some(Due::Lost);
        }
        if now < self.beat_at() {
            return None;
        }
        self.last_sent = now;
        Some(Due::Beat)
    }

    /// Returns when [`Heartbeat::poll`] will next have something to say
    pub fn deadline(&self) -> Instant {
        self.beat_at().min(self.lost_at())
    }

    /// A path that only sends must hear something too: so it beats when nothing was heard
    fn beat_at(&self) -> Instant {
        self.last_sent + self.interval
    }

    fn lost_at(&self) -> Instant {
        self.last_heard + self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn busy_path_owes_no_beat() {
        let mut heart = Heartbeat::new(INTERVAL, 2, Instant::ZERO);

        heart.on_sent(at(9));

        assert_eq!(heart.poll(at(18)), None);
        assert_eq!(heart.deadline(), at(19));
    }

    #[test]
    fn silence_is_forgiven_twice_then_loses_the_path() {
        let mut heart = Heartbeat::new(INTERVAL, 2, Instant::ZERO);

        let taken: Vec<_> = (1..=3).map(|beat| heart.poll(at(beat * 10))).collect();

        assert_eq!(taken, [Some(Due::Beat), Some(Due::Beat), Some(Due::Lost)]);
    }

    #[test]
    fn one_message_heard_restores_all_patience() {
        let mut heart = Heartbeat::new(INTERVAL, 2, Instant::ZERO);
        assert_eq!(heart.poll(at(10)), Some(Due::Beat));

        heart.on_heard(at(11));

        assert_eq!(heart.poll(at(40)), Some(Due::Beat));
        assert_eq!(heart.poll(at(41)), Some(Due::Lost));
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }
}
