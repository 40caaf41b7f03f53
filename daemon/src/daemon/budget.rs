//! What a network, or the node as a whole, may still send.
//!
//! A [`Budget`] brings together the quota of the configuration, what was sent, the wall clock and what an earlier run wrote down; it logs when little is left, once for each level.

use std::time::SystemTime;

use fastvpn_proto::node::Engine;
use fastvpn_proto::time::{Duration, Instant};
use tracing::{error, info, warn};

use super::quota::{Day, Level, Meter, TRICKLE, Used};
use crate::config::Quota;
use crate::handle::QuotaView;

/// A quota, if there is one, and what was used of it
#[derive(Debug)]
pub(super) struct Budget {
    /// The network whose it is, for the log; none: of the node as a whole
    network: Option<String>,
    meter: Option<Meter>,
    /// The wall clock at the zero of all instants
    zero: SystemTime,
    /// Whether what was written down has been asked for
    asked: bool,
}

impl Budget {
    /// Makes a budget without a bound
    pub(super) fn new(network: Option<String>) -> Self {
        Self { network, meter: None, zero: SystemTime::UNIX_EPOCH, asked: false }
    }

    /// Takes the quota of the configuration; returns what is to be written down of an old one
    pub(super) fn set(&mut self, quota: Option<Quota>, now: Instant) -> Option<Used> {
        let today = self.today(now);
        match (&mut self.meter, quota) {
            (Some(meter), Some(quota)) => meter.set(quota, today),
            (None, Some(quota)) => self.meter = Some(Meter::new(quota, today, now)),
            (_, None) => {
                self.asked = false;
                return self.meter.take().and_then(|mut meter| meter.keep(now));
            }
        }
        None
    }

    /// Takes what the wall clock said at the zero of all instants
    pub(super) fn on_wall(&mut self, zero: SystemTime) {
        self.zero = zero;
    }

    /// Tells whether what an earlier run wrote down is to be read: once, and if there is a quota
    pub(super) fn recall(&mut self) -> bool {
        let wanted = self.meter.is_some() && !self.asked;
        self.asked |= wanted;
        wanted
    }

    /// Takes what an earlier run wrote down
    pub(super) fn on_recalled(&mut self, used: Option<Used>) {
        let (Some(meter), Some(used)) = (&mut self.meter, used) else { return };
        let before = meter.level();
        meter.on_recalled(used);
        let level = meter.level();
        if level > before {
            self.tell(level);
        }
    }

    /// Takes a number of bytes that were sent
    pub(super) fn on_sent(&mut self, bytes: u64, now: Instant) {
        let (today, of) = (self.today(now), self.whose());
        let Some(meter) = &mut self.meter else { return };
        let was = meter.level();
        if meter.on_day(today) && was != Level::Free {
            let (network, quota) = (self.network.as_deref(), meter.quota());
            info!(network, %quota, "quota {of}begins anew");
        }
        if let Some(level) = meter.on_sent(bytes) {
            self.tell(level);
        }
    }

    /// Returns what is to be written down now
    pub(super) fn poll(&mut self, now: Instant) -> Option<Used> {
        self.meter.as_mut().and_then(|meter| meter.poll(now))
    }

    /// Returns what is to be written down before an end
    pub(super) fn keep(&mut self, now: Instant) -> Option<Used> {
        self.meter.as_mut().and_then(|meter| meter.keep(now))
    }

    /// Restricts an engine as far as the quota is used
    pub(super) fn restrict(&self, engine: &mut Engine) {
        match self.level() {
            Level::Free | Level::Warned => {}
            Level::Lean => engine.copies = 0,
            Level::Spent => {
                engine.copies = 0;
                engine.rate = Some(engine.rate.map_or(TRICKLE, |rate| rate.min(TRICKLE)));
            }
        }
    }

    /// Returns how far the quota is used
    pub(super) fn level(&self) -> Level {
        self.meter.as_ref().map(Meter::level).unwrap_or_default()
    }

    /// Returns what may be seen of it
    pub(super) fn view(&self) -> Option<QuotaView> {
        let meter = self.meter.as_ref()?;
        Some(QuotaView {
            bytes: meter.quota().bytes,
            used: meter.used(),
            period: meter.quota().period.as_str(),
            until: meter.until().begins(),
        })
    }

    /// Returns a sentence on a quota that is used up; empty where there is something left
    pub(super) fn detail(&self) -> String {
        match &self.meter {
            Some(meter) if meter.level() == Level::Spent => {
                let (quota, until) = (meter.quota(), meter.until());
                format!("the quota of {quota} is used up; slowed to 64 kbit/s until {until}")
            }
            Some(_) | None => String::new(),
        }
    }

    fn tell(&self, level: Level) {
        let Some(meter) = &self.meter else { return };
        let (network, quota, until) = (self.network.as_deref(), meter.quota(), meter.until());
        let of = self.whose();
        match level {
            Level::Free => {}
            Level::Warned => warn!(network, %quota, %until, "80 % of the quota {of}is used"),
            Level::Lean => {
                warn!(network, %quota, %until, "90 % of the quota {of}is used; no more copies");
            }
            Level::Spent => {
                error!(network, %quota, %until, "quota {of}is used up; slowed to 64 kbit/s");
            }
        }
    }

    /// Words that tell the node's quota from that of a network, which the log names
    fn whose(&self) -> &'static str {
        if self.network.is_some() { "" } else { "of the node " }
    }

    fn today(&self, now: Instant) -> Day {
        let wall = self.zero.checked_add(Duration::from_nanos(now.as_nanos()));
        Day::of(wall.unwrap_or(self.zero))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Period;
    use crate::daemon::fixture::secs;

    const QUOTA: Quota = Quota { bytes: 100_000, period: Period::Day };

    #[test]
    fn copies_go_first_and_then_all_but_a_trickle() {
        let mut budget = budget();
        let restricted = |budget: &Budget| {
            let mut engine = Engine { rate: Some(1_000_000), ..Engine::default() };
            budget.restrict(&mut engine);
            (engine.copies, engine.rate)
        };

        budget.on_sent(89_999, secs(1));
        assert_eq!(restricted(&budget), (10, Some(1_000_000)));
        budget.on_sent(1, secs(1));
        assert_eq!(restricted(&budget), (0, Some(1_000_000)));
        budget.on_sent(10_000, secs(1));
        assert_eq!(restricted(&budget), (0, Some(TRICKLE)));
        assert_eq!(
            budget.detail(),
            "the quota of 100KB/day is used up; slowed to 64 kbit/s until 1970-01-02"
        );

        budget.on_sent(1, secs(24 * 60 * 60));
        assert_eq!(restricted(&budget), (10, Some(1_000_000)));
        assert_eq!(budget.detail(), "");
    }

    #[test]
    fn past_is_asked_for_once_and_again_after_the_quota_was_taken_away() {
        let mut budget = budget();
        assert!(budget.recall() && !budget.recall());
        budget.on_sent(7, secs(1));

        let kept = budget.set(None, secs(2));

        assert_eq!(kept.map(|used| used.bytes), Some(7));
        assert!(!budget.recall(), "there is no quota");
        budget.set(Some(QUOTA), secs(3));
        assert!(budget.recall());
        budget.on_recalled(kept);
        assert_eq!(budget.view().unwrap().used, 7);
    }

    fn budget() -> Budget {
        let mut budget = Budget::new(Some("home".to_owned()));
        budget.set(Some(QUOTA), secs(0));
        budget
    }
}
