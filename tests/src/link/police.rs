//! A policer: a bucket of tokens, and no queue; what finds no token is dropped.

use fastvpn_proto::time::Instant;
use serde::{Deserialize, Serialize};

use super::rate::Rate;

/// How much passes
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policer {
    /// In the long run
    pub rate: Rate,
    /// At once, in bytes
    pub burst: u64,
}

/// The tokens that are left
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// Bytes that were taken and have not come back yet
    missing: f64,
    since: Instant,
}

impl Bucket {
    /// Takes tokens for an item, if there are enough
    pub(super) fn admits(&mut self, police: Policer, bytes: usize, now: Instant) -> bool {
        let back = police.rate.bits() as f64 / 8.0 * now.since(self.since).as_secs_f64();
        self.missing = (self.missing - back).max(0.0);
        self.since = now;
        let admits = self.missing + bytes as f64 <= police.burst as f64;
        if admits {
            self.missing += bytes as f64;
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{mbit, ms};

    #[test]
    fn burst_passes_and_then_the_rate() {
        // 1000 bytes are back after 1 ms
        let police = Policer { rate: mbit(8), burst: 5_000 };
        let mut bucket = Bucket::default();
        let start = Instant::ZERO + ms(1);

        let passed = (0..10).filter(|_| bucket.admits(police, 1_000, start)).count();
        assert_eq!(passed, 5);
        let later = (1..=100).filter(|time| {
            let now = start + ms(1) * *time;
            [bucket.admits(police, 1_000, now), bucket.admits(police, 1_000, now)].contains(&true)
        });
        assert_eq!(later.count(), 100);
    }
}
