//! Which items a link loses: uniform, bursty, scripted.

use std::collections::BTreeSet;

use rand_chacha::rand_core::RngCore;
use serde::{Deserialize, Serialize};

/// A share of all items, from nothing to all
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, PartialOrd, Serialize)]
#[serde(from = "f64", into = "f64")]
pub struct Share(f64);

/// Makes a share of per cent
pub fn percent(percent: impl Into<f64>) -> Share {
    Share((percent.into() / 100.0).clamp(0.0, 1.0))
}

impl From<f64> for Share {
    /// Reads per cent, as configuration files write them
    fn from(value: f64) -> Self {
        percent(value)
    }
}

impl From<Share> for f64 {
    /// Returns per cent
    fn from(share: Share) -> Self {
        share.0 * 100.0
    }
}

impl Share {
    /// Returns the share as a fraction of one
    pub fn fraction(self) -> f64 {
        self.0
    }

    /// Draws whether this one is hit; a share of nothing draws nothing
    pub fn hits(self, chance: &mut impl RngCore) -> bool {
        self.0 > 0.0 && unit(chance) < self.0
    }
}

/// Which items are lost
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// None
    #[default]
    None,
    /// Each with the same chance
    Random {
        /// Share of all items
        share: Share,
    },
    /// In bursts, by the model of Gilbert and Elliott with nothing lost between bursts
    Bursts {
        /// Share of all items
        share: Share,
        /// Mean number of items in a burst
        length: f64,
    },
    /// Exactly these, counted from 1
    Scripted {
        /// Numbers of the lost items
        numbers: BTreeSet<u64>,
    },
}

/// Where a link stands in its losses
#[derive(Debug, Default)]
pub(super) struct LossState {
    seen: u64,
    in_burst: bool,
}

impl LossState {
    /// Decides about the next item
    pub(super) fn loses(&mut self, loss: &Loss, chance: &mut impl RngCore) -> bool {
        self.seen += 1;
        match loss {
            Loss::None => false,
            Loss::Random { share } => share.hits(chance),
            Loss::Bursts { share, length } => self.bursts(share.0, *length, chance),
            Loss::Scripted { numbers } => numbers.contains(&self.seen),
        }
    }

    fn bursts(&mut self, share: f64, length: f64, chance: &mut impl RngCore) -> bool {
        if share >= 1.0 {
            return true;
        }
        let leave = 1.0 / length.max(1.0);
        let enter = share * leave / (1.0 - share);
        let draw = unit(chance);
        self.in_burst = if self.in_burst { draw >= leave } else { draw < enter };
        self.in_burst
    }
}

/// Draws from zero up to, not including, one
pub(super) fn unit(chance: &mut impl RngCore) -> f64 {
    (chance.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
