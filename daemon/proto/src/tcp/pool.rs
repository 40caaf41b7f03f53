//! Memory of all split connections of one node: what was promised, and to whom more may be.
//!
//! A byte of a connection may be kept only where it was promised before: as credit to the other
//! node, or as window to a kernel. The sum of all promises never exceeds the pool, so neither does
//! what is kept.

use crate::limits::{LANE_CREDIT_FIRST, LANE_CREDIT_MIN, MEMORY_DEFAULT};

/// Memory of all split connections of one node
#[derive(Debug)]
pub struct Pool {
    /// Bytes in all
    pub size: usize,
    /// Bytes that were promised
    pub promised: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self { size: MEMORY_DEFAULT, promised: 0 }
    }
}

impl Pool {
    /// Returns what a new connection is promised in each direction; nothing where memory is short
    ///
    /// The whole first credit while less than half is in use, then ever less: with the third power
    /// of what is free, so that there is a little for many.
    pub(super) fn first(&self) -> Option<usize> {
        let free = self.free();
        let half = (self.size / 2).max(1);
        // In 1/1024, so that no product is too large for the machine.
        let left = (free.min(half) as u64 * 1024 / half as u64) as usize;
        let share = LANE_CREDIT_FIRST / 1024 * left / 1024 * left / 1024 * left;
        let credit = share.min(self.size / 16).max(LANE_CREDIT_MIN);
        // Both directions need as much.
        (free >= 2 * credit).then_some(credit)
    }

    /// Returns how much of `wanted` a connection that has `held` may be promised on top
    ///
    /// A quarter of the pool is left for new connections, and no connection gets more than half
    /// of the rest, so that one never starves the others.
    pub(super) fn growth(&self, held: usize, wanted: usize) -> usize {
        let spare = self.free().saturating_sub(self.size / 4) / 2;
        let largest = (self.size / 4).saturating_sub(held);
        wanted.min(spare).min(largest)
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.promised = self.promised.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    pub(super) fn give(&mut self, bytes: u64) {
        self.promised = self.promised.saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    fn free(&self) -> usize {
        self.size.saturating_sub(self.promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_credit_falls_with_what_is_left_until_there_is_none() {
        let mut pool = Pool::default();
        assert_eq!(pool.first(), Some(LANE_CREDIT_FIRST));
        let mut credits = Vec::new();

        while let Some(credit) = pool.first() {
            pool.take(2 * credit as u64);
            credits.push(credit);
        }

        assert!(credits.is_sorted_by(|one, next| one >= next));
        assert_eq!(credits.last(), Some(&LANE_CREDIT_MIN));
        assert!(pool.promised <= pool.size && credits.len() > 500, "{}", credits.len());
    }
}
