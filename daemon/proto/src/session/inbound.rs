//! What the other node sends on one of its paths.
//!
//! It numbers its messages for each path by itself. Here is what we must remember of one such
//! sequence: which numbers came, which we must still acknowledge, and from where the highest came.

use super::received::Received;
use super::replay::Replay;
use crate::node::Way;

/// One of the other node's paths, as it reaches us
#[derive(Debug)]
pub struct Inbound {
    /// Which numbers came
    pub replay: Replay,
    /// What is to be acknowledged
    pub received: Received,
    /// Highest number so far
    pub highest: u64,
    /// Where the highest number came from
    pub way: Way,
}

impl Inbound {
    /// Begins with the first message, from `way`
    pub fn new(way: Way) -> Self {
        Self { replay: Replay::new(), received: Received::new(), highest: 0, way }
    }
}
