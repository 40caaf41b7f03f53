//! How long an item is on its way: fixed, jittered, reordering.

use fastvpn_proto::time::{Duration, Instant};
use rand_chacha::rand_core::RngCore;
use serde::{Deserialize, Serialize};

use super::loss::{Share, unit};

/// Makes a duration of microseconds
pub const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// Makes a duration of milliseconds
pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Makes a duration of seconds
pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Time on the way
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delay {
    /// Mean
    #[serde(rename = "ms", with = "millis")]
    pub base: Duration,
    /// Largest deviation; all up to it have the same chance
    #[serde(rename = "jitter_ms", with = "millis")]
    pub jitter: Duration,
    /// Whether jitter lets items overtake each other
    pub order: Order,
    /// Share of items that skip the delay
    pub early: Share,
}

/// Whether items overtake each other
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// They do not: who would arrive too early waits
    #[default]
    Kept,
    /// They do
    Free,
}

impl Delay {
    /// Returns when an item arrives that set out at `left`, where the last one arrives at `last`
    pub(super) fn due(&self, left: Instant, last: Instant, chance: &mut impl RngCore) -> Instant {
        if self.early.hits(chance) {
            return left;
        }
        if self.jitter.is_zero() {
            return match self.order {
                Order::Kept if self.early.fraction() == 0.0 => (left + self.base).max(last),
                Order::Kept | Order::Free => left + self.base,
            };
        }
        let span = self.jitter.as_nanos() as f64 * 2.0;
        let drawn = Duration::from_nanos((unit(chance) * span) as u64);
        let due = (left + self.base + drawn - self.jitter).max(left);
        match self.order {
            Order::Kept => due.max(last),
            Order::Free => due,
        }
    }

    /// Returns the shortest possible time on the way
    pub(super) fn least(&self) -> Duration {
        if self.early.fraction() > 0.0 {
            return Duration::ZERO;
        }
        self.base.saturating_sub(self.jitter)
    }
}

/// Durations as milliseconds, for serde
pub(super) mod millis {
    use fastvpn_proto::time::Duration;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        (time.as_secs_f64() * 1000.0).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let millis = f64::deserialize(from)?;
        Duration::try_from_secs_f64(millis / 1000.0).map_err(D::Error::custom)
    }
}
