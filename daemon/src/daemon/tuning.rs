//! How the engine of a network's node is set: as configured, less what its budget forbids.
//!
//! A [`Tuning`] follows the configuration, the quota and the network's share of what the node as a
//! whole may send, and knows what the node was told, so that it is told only what is new.

use fastvpn_proto::node::{Command, Engine, Traffic};
use fastvpn_proto::time::Instant;

use super::action::Action;
use super::budget::Budget;
use super::share::Share;
use crate::config::EngineConfig;

/// The settings of one node's engine
#[derive(Debug)]
pub(super) struct Tuning {
    pub(super) budget: Budget,
    /// What it may send of what the node as a whole may
    pub(super) share: Share,
    /// What was sent since this was asked for, headers included
    spent: Traffic,
    /// What the running plane has told so far
    counted: Traffic,
    /// What the node was told
    told: Engine,
}

/// Whether the plane of a network runs
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Plane {
    /// It does
    Running,
    /// It has just been stopped
    Stopping,
    /// There is none, or not yet
    Waiting,
}

impl Tuning {
    /// Makes the settings of a node that does not run
    pub(super) fn new(owner: String) -> Self {
        Self {
            budget: Budget::new(owner),
            share: Share::default(),
            spent: Traffic::default(),
            counted: Traffic::default(),
            told: Engine::default(),
        }
    }

    /// Returns how a node begins that is about to be started
    pub(super) fn on_start(&mut self, config: &EngineConfig) -> Engine {
        self.counted = Traffic::default();
        self.told = self.engine(config);
        self.told
    }

    /// Takes all messages that the node has sent since its start
    pub(super) fn on_total(&mut self, sent: Traffic, now: Instant) {
        let packets = sent.packets.saturating_sub(self.counted.packets);
        let bytes = sent.bytes.saturating_sub(self.counted.bytes) + packets * HEADERS;
        self.counted = sent;
        self.spent.packets += packets;
        self.spent.bytes += bytes;
        self.budget.on_sent(bytes, now);
    }

    /// Takes what was sent since this was last asked for
    pub(super) fn take_spent(&mut self) -> Traffic {
        core::mem::take(&mut self.spent)
    }

    /// Does what is due: reads and writes the used quota, sets the engine
    pub(super) fn settle(
        &mut self,
        config: &EngineConfig,
        plane: Plane,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let old = self.budget.set(config.bounds.quota, now);
        if self.budget.recall() {
            out.push(Action::Recall);
        }
        let used = match plane {
            Plane::Stopping => self.budget.keep(now),
            Plane::Running | Plane::Waiting => self.budget.poll(now),
        };
        // What is asked for after the stop is done after it, when nobody may wait any more.
        let stop = out.iter().position(|action| matches!(action, Action::Stop { .. }));
        for used in [old, used].into_iter().flatten() {
            out.insert(stop.unwrap_or(out.len()), Action::Keep(used));
        }
        let engine = self.engine(config);
        if plane == Plane::Running && self.told != engine {
            self.told = engine;
            out.push(Action::Node(Command::Configure(engine)));
        }
    }

    fn engine(&self, config: &EngineConfig) -> Engine {
        let mut engine = config.engine();
        self.budget.restrict(&mut engine);
        self.share.restrict(&mut engine);
        engine
    }
}

/// Bytes of the IPv6 and UDP headers of a message; of IPv4 they are fewer, which errs on the safe side
const HEADERS: u64 = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::fixture::secs;

    #[test]
    fn headers_count_and_a_new_plane_begins_at_nothing() {
        let mut tuning = Tuning::new("home".to_owned());
        let config = EngineConfig::default();

        tuning.on_total(Traffic { packets: 10, bytes: 10_000 }, secs(1));
        tuning.on_total(Traffic { packets: 20, bytes: 20_000 }, secs(2));
        tuning.on_start(&config);
        tuning.on_total(Traffic { packets: 1, bytes: 1_000 }, secs(3));

        let spent = Traffic { packets: 21, bytes: 21_000 + 21 * 48 };
        assert_eq!(tuning.take_spent(), spent);
        assert_eq!(tuning.take_spent(), Traffic::default());
    }
}
