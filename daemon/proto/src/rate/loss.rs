//! What the path loses by itself.
//!
//! Loss that does not depend on our rate is the path's own, and no reason to slow down: at a rate of
//! `r` the path then carries `r` and delivers `(1 - p) r`. Loss that follows our rate up is
//! congestion (a full queue, a policer). The two look alike while the rate stays the same, so own
//! loss is believed only from a *trial*: a phase at a rate that the path has proved to *deliver*.
//! What is lost then is not lost for want of room.
//!
//! # Contract
//!
//! - A phase is begun as a trial or not; messages carry the number of their phase.
//! - A trial speaks when all of its messages are acknowledged or lost, and only if the phase was not
//!   spoiled in between ([`OwnLoss::spoil`]).

use std::collections::VecDeque;

/// The path's own loss
#[derive(Clone, Debug, Default)]
pub(super) struct OwnLoss {
    trials: VecDeque<Trial>,
    /// Messages of past trials, the recent ones weighing more, and those lost of them
    seen: f64,
    lost: f64,
    /// Messages of all trials that have spoken
    known: f64,
}

#[derive(Clone, Debug)]
struct Trial {
    phase: u32,
    sent: u32,
    acked: u32,
    lost: u32,
    open: bool,
    /// Whether a full queue may have dropped some of it
    doubtful: bool,
}

impl OwnLoss {
    /// Begins a trial: all that is sent in this phase is part of it
    pub(super) fn begin(&mut self, phase: u32) {
        self.end();
        if self.trials.len() >= TRIALS_MAX {
            self.trials.pop_front();
        }
        self.trials.push_back(Trial {
            phase,
            sent: 0,
            acked: 0,
            lost: 0,
            open: true,
            doubtful: false,
        });
    }

    /// Ends the trial, if there is one
    pub(super) fn end(&mut self) {
        if let Some(trial) = self.trials.back_mut() {
            trial.open = false;
        }
        self.conclude();
    }

    /// Doubts the trial of a phase: its messages met a queue
    ///
    /// It may show less loss than is known, but not more.
    pub(super) fn doubt(&mut self, phase: u32) {
        if let Some(trial) = self.trial(phase) {
            trial.doubtful = true;
        }
    }

    /// Takes back all trials from this phase on that have not spoken yet
    pub(super) fn spoil(&mut self, from: u32) {
        self.trials.retain(|trial| trial.phase < from);
    }

    /// Records that a message leaves
    pub(super) fn on_sent(&mut self) {
        if let Some(trial) = self.trials.back_mut().filter(|trial| trial.open) {
            trial.sent += 1;
        }
    }

    /// Records that a message of this phase arrived
    pub(super) fn on_acked(&mut self, phase: u32) {
        if let Some(trial) = self.trial(phase) {
            trial.acked += 1;
            self.conclude();
        }
    }

    /// Records that a message of this phase was lost
    pub(super) fn on_lost(&mut self, phase: u32) {
        if let Some(trial) = self.trial(phase) {
            trial.lost += 1;
            self.conclude();
        }
    }

    /// Records that a message of this phase that was called lost has arrived
    pub(super) fn on_spurious(&mut self, phase: u32) {
        if let Some(trial) = self.trial(phase) {
            trial.lost = trial.lost.saturating_sub(1);
            trial.acked += 1;
        } else {
            self.lost = (self.lost - 1.0).max(0.0);
        }
    }

    /// Returns the share of messages that the path loses by itself
    pub(super) fn share(&self) -> f64 {
        if self.seen < 1.0 { 0.0 } else { (self.lost / self.seen).min(SHARE_MAX) }
    }

    /// Returns how many messages this was learnt from so far
    pub(super) fn known(&self) -> f64 {
        self.known
    }

    fn trial(&mut self, phase: u32) -> Option<&mut Trial> {
        self.trials.iter_mut().find(|trial| trial.phase == phase)
    }

    fn conclude(&mut self) {
        while let Some(first) = self.trials.front() {
            if first.open || first.acked + first.lost < first.sent {
                return;
            }
            let (sent, lost) = (f64::from(first.sent), f64::from(first.lost));
            let doubtful = first.doubtful && lost > sent * self.share();
            self.trials.pop_front();
            if sent < 1.0 || lost / sent > SHARE_ODD || doubtful {
                continue;
            }
            let expected = sent * self.share();
            let clearly_less = lost + 3.0 * expected.sqrt() < expected;
            let keep = if clearly_less {
                KEEP_LESS
            } else {
                (1.0 - sent / MESSAGES).clamp(KEEP_MIN, KEEP_MAX)
            };
            self.known += sent;
            self.seen = self.seen * keep + sent;
            self.lost = self.lost * keep + lost;
        }
    }
}

/// Trials that may await their end
const TRIALS_MAX: usize = 4;
/// Largest share that is believed to be the path's own
const SHARE_MAX: f64 = 0.35;
/// Share from which on a trial is taken for an outage
const SHARE_ODD: f64 = 0.5;
/// Messages after which the past weighs little
const MESSAGES: f64 = 2000.0;
/// Least and most of the past that is kept at each trial
const KEEP_MIN: f64 = 0.5;
const KEEP_MAX: f64 = 0.8;
/// The same where a trial shows clearly less loss: what was believed was congestion
const KEEP_LESS: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_that_of_trials_alone() {
        let mut loss = OwnLoss::default();
        trial(&mut loss, 1, 95, 5);
        (0..50).for_each(|_| loss.on_lost(2));
        assert_eq!(loss.share(), 0.05);

        trial(&mut loss, 3, 100, 0);

        assert!(loss.share() < 0.03);
    }

    #[test]
    fn what_is_known_grows_with_each_trial() {
        let mut loss = OwnLoss::default();
        (0..20).for_each(|phase| trial(&mut loss, phase, 19, 1));

        assert_eq!(loss.known(), 400.0);
    }

    #[test]
    fn trial_speaks_when_all_of_it_is_known() {
        let mut loss = OwnLoss::default();
        loss.begin(1);
        (0..10).for_each(|_| loss.on_sent());
        (0..9).for_each(|_| loss.on_acked(1));
        loss.end();
        assert_eq!(loss.share(), 0.0);

        loss.on_lost(1);

        assert_eq!(loss.share(), 0.1);
    }

    #[test]
    fn outage_and_spoiled_trials_say_nothing() {
        let mut loss = OwnLoss::default();
        trial(&mut loss, 1, 10, 90);
        loss.begin(2);
        loss.on_sent();
        loss.spoil(0);
        loss.on_lost(2);

        assert_eq!(loss.share(), 0.0);
    }

    #[test]
    fn late_message_is_taken_out_again() {
        let mut loss = OwnLoss::default();
        trial(&mut loss, 1, 90, 10);

        (0..10).for_each(|_| loss.on_spurious(1));

        assert_eq!(loss.share(), 0.0);
    }

    fn trial(loss: &mut OwnLoss, phase: u32, acked: u32, lost: u32) {
        loss.begin(phase);
        (0..acked + lost).for_each(|_| loss.on_sent());
        (0..acked).for_each(|_| loss.on_acked(phase));
        (0..lost).for_each(|_| loss.on_lost(phase));
        loss.end();
    }
}
