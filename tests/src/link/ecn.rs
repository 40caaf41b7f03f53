//! Marks of congestion (ECN): when a bottleneck sets them, and what a wire makes of them.

use fastvpn_proto::node::Ecn;
use fastvpn_proto::time::Duration;
use serde::{Deserialize, Serialize};

use super::delay::millis;

/// When a bottleneck marks what can be marked
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Where an item has to wait for longer than this
    #[serde(rename = "ms", with = "millis")]
    pub above: Duration,
}

/// What becomes of the two bits on the way
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bits {
    /// They stay
    #[default]
    Kept,
    /// They are cleared
    Cleared,
    /// What is capable is marked, always
    Set,
    /// What is capable is dropped
    Dropped,
}

impl Bits {
    /// Returns the bits of an item that came with these; nothing where it is dropped
    pub(super) fn pass(self, ecn: Ecn) -> Option<Ecn> {
        match (self, ecn) {
            (Self::Kept, ecn) => Some(ecn),
            (Self::Cleared, _) | (Self::Set | Self::Dropped, Ecn::Incapable) => {
                Some(Ecn::Incapable)
            }
            (Self::Set, Ecn::Capable | Ecn::Congested) => Some(Ecn::Congested),
            (Self::Dropped, Ecn::Capable | Ecn::Congested) => None,
        }
    }
}
