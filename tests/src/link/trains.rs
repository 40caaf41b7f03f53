//! What a sender with a faulty segmentation offload makes of its trains.

use serde::{Deserialize, Serialize};

/// What becomes of items that the sender's system cut from a train
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trains {
    /// They leave as they should
    #[default]
    Whole,
    /// All but the first of each train are lost
    Beheaded,
    /// All but the first of each train are damaged
    Mangled,
}
