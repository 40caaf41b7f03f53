//! Ranking of paths, and when to move.
//!
//! The best path is the one that answers; among those one that the configuration asks for, then UDP,
//! then a stream, then a relay; among those the one in use, unless another is clearly nearer. A path that the other node moved to has replaced the old one
//! already when it was proven.

use super::Path;
use crate::node::{Carrier, Choice, Way};
use crate::time::{Duration, Instant};

/// Returns the position of the best proven path; `current` is the one in use
pub fn best(paths: &[Path], current: Option<u8>, choice: Choice, now: Instant) -> Option<usize> {
    let proven = paths.iter().enumerate().filter(|(_, path)| path.is_proven());
    proven.min_by_key(|(_, path)| rank(path, current, choice, now)).map(|(at, _)| at)
}

/// What kind of way it is, the best kind first
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Over the carrier that the configuration asks for
    Chosen,
    /// Straight over UDP
    Udp,
    /// Straight over a stream
    Stream,
    /// Through another node
    Relayed,
}

/// Returns what kind of way this is to a node for which the configuration says `choice`
pub fn kind(way: Way, choice: Choice) -> Kind {
    match (way, choice) {
        (Way::Relayed(_), _) => Kind::Relayed,
        (Way::Direct(_), Choice::Auto | Choice::Udp)
        | (Way::Stream(Carrier::Tcp, _), Choice::Tcp)
        | (Way::Stream(Carrier::Kcp, _), Choice::Kcp) => Kind::Chosen,
        (Way::Direct(_), Choice::Tcp | Choice::Kcp) => Kind::Udp,
        (Way::Stream(..), Choice::Auto | Choice::Udp | Choice::Tcp | Choice::Kcp) => Kind::Stream,
    }
}

fn rank(path: &Path, current: Option<u8>, choice: Choice, now: Instant) -> (bool, Kind, Duration) {
    let rtt = path.rtt.smoothed().unwrap_or(crate::limits::INITIAL_RTT);
    // Staying is worth a fifth of the round trip and some noise: paths that are alike do not flap.
    let rtt =
        if current == Some(path.number) { rtt.mul_f32(0.8).saturating_sub(NOISE) } else { rtt };
    (path.is_unresponsive(now), kind(path.way, choice), rtt)
}

/// Difference of round-trip times that is not worth a move
const NOISE: Duration = Duration::from_millis(2);
