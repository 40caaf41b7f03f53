//! How the engine of a network's node is set: as configured, less what its budget forbids.
//!
//! A [`Tuning`] follows the configuration, the quota and the network's share of what the node as a
//! whole may send, and knows what the node was told, so that it is told only what is new.

use fastvpn_proto::node::{Command, Engine, Traffic};
use fastvpn_proto::time::Instant;

use super::action::Action;
use super::budget::Budget;
use crate::config::EngineConfig;

/// The settings of one node's engine
#[derive(Debug)]
pub(super) struct Tuning {
    pub(super) budget: Budget,
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
        Self { budget: Budget::new(owner), told: Engine::default() }
    }

    /// Returns how a node begins that is about to be started
    pub(super) fn on_start(&mut self, config: &EngineConfig) -> Engine {
        self.budget.on_begin();
        self.told = self.engine(config);
        self.told
    }

    /// Takes all messages that the node has sent since its start
    pub(super) fn on_total(&mut self, sent: Traffic, now: Instant) {
        self.budget.on_total(sent, now);
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
        engine
    }
}
