//! What the networks of this node may send together, and how they share it.
//!
//! The bounds of the node hold for the sum over all networks. Once a second each network that runs
//! gets a share: what it sent of late and half as much again, if that fits, and its part of what is
//! left; if it does not fit, those that want least get it first, and the rest share alike. So the sum
//! of the shares is the bound, an idle network leaves nearly all of it to the others, and one that
//! begins has its fair part a few seconds later. Whenever that second is not to be waited for (a network
//! begins or ends, the bounds change, the quota is used up) they are given anew at once, by what was last
//! measured, so that nobody ever sends without a share.

use fastvpn_proto::node::Engine;
use fastvpn_proto::time::{Duration, Instant};

use super::budget::Budget;
use super::network::Network;
use super::quota::{Level, TRICKLE, Used};
use crate::config::Bounds;

/// The bounds of the node, and what it has sent
#[derive(Debug)]
pub(super) struct Node {
    bounds: Bounds,
    pub(super) budget: Budget,
    /// When shares were given last
    shared_at: Instant,
    /// What they were given by
    shared: Option<Basis>,
}

/// What makes shares void when it changes
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Basis {
    networks: usize,
    bounds: Bounds,
    level: Level,
}

/// What one network may send of what the node may
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Share {
    /// Bytes a second
    rate: Option<u64>,
    /// Messages a second
    packet_rate: Option<u32>,
    /// How far the node's quota is used
    level: Level,
}

impl Node {
    /// Makes a node without bounds
    pub(super) fn new(now: Instant) -> Self {
        let budget = Budget::new(None);
        Self { bounds: Bounds::default(), budget, shared_at: now, shared: None }
    }

    /// Takes other bounds; returns what is to be written down of an old quota
    pub(super) fn set(&mut self, bounds: Bounds, now: Instant) -> Option<Used> {
        self.bounds = bounds;
        self.budget.set(bounds.quota, now)
    }

    /// Gives each network that may send its share, where that is due
    pub(super) fn share<'a>(
        &mut self,
        networks: impl Iterator<Item = &'a mut Network>,
        now: Instant,
    ) {
        let mut tunings = Vec::new();
        for network in networks {
            if network.may_send() {
                tunings.push(&mut network.tuning);
            } else {
                network.tuning.share = None;
            }
        }
        let all = tunings.iter().all(|tuning| tuning.share.is_some());
        let fresh = now.since(self.shared_at) < EVERY;
        if all && fresh && self.shared == Some(self.basis(tunings.len())) {
            return;
        }
        self.shared_at = now;
        let spent = tunings.iter_mut().map(|tuning| tuning.take_spent());
        self.budget.on_sent(spent.sum(), now);
        let basis = self.basis(tunings.len());
        self.shared = Some(basis);
        let level = basis.level;
        let rate = match (level, self.bounds.rate) {
            (Level::Spent, rate) => Some(rate.map_or(TRICKLE, |rate| rate.min(TRICKLE))),
            (Level::Free | Level::Warned | Level::Lean, rate) => rate,
        };
        let bytes: Vec<_> = tunings.iter().map(|tuning| tuning.pace().bytes).collect();
        let packets: Vec<_> = tunings.iter().map(|tuning| tuning.pace().packets).collect();
        let rates = rate.map(|rate| divide(rate, &bytes));
        let packet_rates = self.bounds.packet_rate.map(|rate| divide(rate.into(), &packets));
        for (index, tuning) in tunings.iter_mut().enumerate() {
            let of = |shares: &Option<Vec<u64>>| shares.as_ref().map(|shares| shares[index]);
            let packet_rate = of(&packet_rates).map(|rate| u32::try_from(rate).unwrap_or(u32::MAX));
            tuning.share = Some(Share { rate: of(&rates), packet_rate, level });
        }
    }

    fn basis(&self, networks: usize) -> Basis {
        Basis { networks, bounds: self.bounds, level: self.budget.level() }
    }
}

impl Share {
    /// Restricts an engine to the share
    pub(super) fn restrict(&self, engine: &mut Engine) {
        engine.rate = least(engine.rate, self.rate);
        engine.packet_rate = least(engine.packet_rate, self.packet_rate);
        match self.level {
            Level::Free | Level::Warned => {}
            Level::Lean | Level::Spent => engine.copies = 0,
        }
    }
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Divides what there is among those who used so much of late; no share is nothing
fn divide(all: u64, used: &[u64]) -> Vec<u64> {
    let count = used.len() as u64;
    let floor = all / (10 * count.max(1));
    let wants: Vec<_> = used.iter().map(|used| (used + used / 2).max(floor)).collect();
    let mut order: Vec<_> = (0..wants.len()).collect();
    order.sort_by_key(|index| wants[*index]);
    let mut shares = vec![0; wants.len()];
    let mut left = all;
    for (done, index) in order.into_iter().enumerate() {
        let fair = left / (count - done as u64);
        shares[index] = wants[index].min(fair);
        left -= shares[index];
    }
    for share in &mut shares {
        *share = (*share + left / count.max(1)).max(1);
    }
    shares
}

/// Time between two divisions
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_has_all_of_it() {
        assert_eq!(divide(1000, &[0]), [1000]);
        assert_eq!(divide(1000, &[5000]), [1000]);
        assert_eq!(divide(1000, &[]), Vec::<u64>::new());
    }

    #[test]
    fn idle_network_leaves_nearly_all_to_the_busy_one() {
        let shares = divide(1000, &[0, 1000]);

        assert_eq!(shares, [50, 950]);
    }

    #[test]
    fn busy_networks_share_alike_and_the_sum_is_the_bound() {
        assert_eq!(divide(1000, &[1000, 800]), [500, 500]);
        assert_eq!(divide(900, &[10, 600, 900]), [30, 435, 435]);
        for used in [&[0, 0, 0][..], &[1, 2, 3], &[400, 0, 90_000, 7], &[u64::MAX / 4; 2]] {
            let sum: u64 = divide(100_000, used).iter().sum();
            assert!((99_990..=100_000).contains(&sum), "{used:?} {sum}");
        }
    }

    #[test]
    fn network_that_begins_reaches_its_part_in_a_few_rounds() {
        let mut shares = divide(1_000_000, &[1_000_000, 0]);
        for _ in 0..6 {
            // both take what they get
            shares = divide(1_000_000, &shares);
        }

        assert!(shares[1] > 450_000, "{shares:?}");
    }

    #[test]
    fn smaller_bound_counts_and_a_used_quota_stops_copies() {
        let share = Share { rate: Some(5), packet_rate: None, level: Level::Lean };
        let mut engine = Engine { rate: Some(9), packet_rate: Some(7), ..Engine::default() };

        share.restrict(&mut engine);

        assert_eq!((engine.rate, engine.packet_rate, engine.copies), (Some(5), Some(7), 0));
    }
}
