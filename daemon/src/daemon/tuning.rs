//! How the engine of a network's node is set: as configured, less what its budget forbids.
//!
//! A [`Tuning`] follows the configuration, the quota and the network's share of what the node as a
//! whole may send, and knows what the node was told, so that it is told only what is new.

use fastvpn_proto::node::{Command, Engine, Traffic};
use fastvpn_proto::time::{Duration, Instant};

use super::action::Action;
use super::budget::Budget;
use super::share::Share;
use crate::config::EngineConfig;

/// The settings of one node's engine
#[derive(Debug)]
pub(super) struct Tuning {
    pub(super) budget: Budget,
    /// What it may send of what the node as a whole may; nothing while nothing may be sent
    pub(super) share: Option<Share>,
    /// Bytes that were sent since this was asked for, headers included
    spent: u64,
    /// What the running plane has told so far
    counted: Traffic,
    pace: Pace,
    /// What the node was told
    told: Engine,
}

/// How much the running plane sends in a second
#[derive(Debug, Default)]
struct Pace {
    /// When that was last measured; nothing before the plane told anything
    since: Option<Instant>,
    /// What was sent since
    sent: Traffic,
    /// What was measured
    measured: Traffic,
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
    pub(super) fn new(network: String) -> Self {
        Self {
            budget: Budget::new(Some(network)),
            share: None,
            spent: 0,
            counted: Traffic::default(),
            pace: Pace::default(),
            told: Engine::default(),
        }
    }

    /// Returns how a node begins that is about to be started
    pub(super) fn on_start(&mut self, config: &EngineConfig) -> Engine {
        self.counted = Traffic::default();
        self.pace = Pace::default();
        self.told = self.engine(config);
        self.told
    }

    /// Takes all messages that the node has sent since its start
    pub(super) fn on_total(&mut self, sent: Traffic, now: Instant) {
        let packets = sent.packets.saturating_sub(self.counted.packets);
        let bytes = sent.bytes.saturating_sub(self.counted.bytes) + packets * HEADERS;
        self.counted = sent;
        self.spent += bytes;
        self.pace.on_sent(Traffic { packets, bytes }, now);
        self.budget.on_sent(bytes, now);
    }

    /// Takes how many bytes were sent since this was last asked for
    pub(super) fn take_spent(&mut self) -> u64 {
        core::mem::take(&mut self.spent)
    }

    /// Returns what the running plane sends in a second
    pub(super) fn pace(&self) -> Traffic {
        self.pace.measured
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
        if let Some(share) = &self.share {
            share.restrict(&mut engine);
        }
        engine
    }
}

impl Pace {
    fn on_sent(&mut self, sent: Traffic, now: Instant) {
        self.sent.packets += sent.packets;
        self.sent.bytes += sent.bytes;
        // What a plane tells first it has sent within about that time.
        let elapsed = self.since.map_or(SPAN, |since| now.since(since));
        if elapsed < SPAN_MIN {
            return;
        }
        let a_second = |count: u64| (count as f64 / elapsed.as_secs_f64()) as u64;
        let Traffic { packets, bytes } = core::mem::take(&mut self.sent);
        self.measured = Traffic { packets: a_second(packets), bytes: a_second(bytes) };
        self.since = Some(now);
    }
}

/// Time between two words of a plane on what it has sent
const SPAN: Duration = Duration::from_secs(1);
/// Shortest time from which it is told what is sent in a second
const SPAN_MIN: Duration = Duration::from_millis(500);
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

        assert_eq!(tuning.take_spent(), 21_000 + 21 * 48);
        assert_eq!(tuning.take_spent(), 0);
    }

    #[test]
    fn pace_is_of_the_time_between_two_words_and_no_short_one_is_believed() {
        let mut tuning = Tuning::new("home".to_owned());
        let total = |packets| Traffic { packets, bytes: packets * 952 };
        let pace = |packets| Traffic { packets, bytes: packets * 1000 };

        tuning.on_total(total(10), secs(1));
        assert_eq!(tuning.pace(), pace(10));
        tuning.on_total(total(50), secs(3));
        assert_eq!(tuning.pace(), pace(20));
        tuning.on_total(total(100), secs(3) + Duration::from_millis(100));
        assert_eq!(tuning.pace(), pace(20));
        tuning.on_total(total(110), secs(4));
        assert_eq!(tuning.pace(), pace(60));
    }
}
