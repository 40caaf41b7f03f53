//! Ranking of paths, and when to move.
//!
//! The best path is the one that answers; among those a direct one; among those the one in use,
//! unless another is clearly nearer. A path that the other node moved to has replaced the old one
//! already when it was proven.

use super::Path;
use crate::node::Way;
use crate::time::{Duration, Instant};

/// Returns the position of the best proven path; `current` is the one in use
pub fn best(paths: &[Path], current: Option<u8>, now: Instant) -> Option<usize> {
    let proven = paths.iter().enumerate().filter(|(_, path)| path.is_proven());
    proven.min_by_key(|(_, path)| rank(path, current, now)).map(|(at, _)| at)
}

fn rank(path: &Path, current: Option<u8>, now: Instant) -> (bool, bool, Duration) {
    let relayed = matches!(path.way, Way::Relayed(_));
    let rtt = path.rtt.smoothed().unwrap_or(crate::limits::INITIAL_RTT);
    // Staying is worth a fifth of the round trip and some noise: paths that are alike do not flap.
    let rtt =
        if current == Some(path.number) { rtt.mul_f32(0.8).saturating_sub(NOISE) } else { rtt };
    (path.is_unresponsive(now), relayed, rtt)
}

/// Difference of round-trip times that is not worth a move
const NOISE: Duration = Duration::from_millis(2);
