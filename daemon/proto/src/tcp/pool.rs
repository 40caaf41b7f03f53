//! Memory of all split connections of one node: what was promised, and to whom more may be.
//!
//! A byte of a connection may be kept only where it was promised before: as credit to the other
//! node, or as window to a kernel. The sum of all promises never exceeds the pool, so neither does
//! what is kept. Connections that are silent for long give back what they have, and take it again when they
//! are not. All shards of a node share one pool. One node of many that asks for more than others gets no more than
//! what it leaves free. What there is, and that it is taken, are one step: no shard promises what another one has
//! taken meanwhile.
//!
//! The memory behind that: bytes that were copied lie in pieces (`chunks`), of which a stream has two more at most
//! than its bytes need. Bytes that stayed in the buffer of their packet (`adopted`) fill three quarters of it or more,
//! so that they take a third more than was promised for them, if that much. Of the first buffer of a stream ever less
//! is needed; what is too much of it, less than the largest packet, goes when the connection is silent. What is
//! free ([`Shelf`], one for each shard) was in use before, by streams or by packets that travel as they are: 8 MiB at
//! most, 1 MiB once a stream that had use for it is silent or over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::buffers::{Buffers, Shelf};
use crate::limits::{LANE_CREDIT_FIRST, LANE_CREDIT_MAX, LANE_CREDIT_MIN, MEMORY_DEFAULT};

/// Memory of all split connections of one node
#[derive(Debug)]
pub struct Pool {
    /// Bytes in all
    pub size: usize,
    /// Bytes that were promised, by all shards of the node
    promised: Arc<AtomicUsize>,
    /// Those of them that are for connections with the node that is served now
    own: usize,
    /// Bytes of promise beyond which a connection with it gains nothing, as far as known
    useful: usize,
    /// What packets for the kernel are written into
    pub buffers: Buffers,
    /// What packets of the kernel are read into
    pub shelf: Shelf,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(MEMORY_DEFAULT)
    }
}

impl Pool {
    /// Begins with so many bytes, all free
    pub fn new(size: usize) -> Self {
        let (buffers, shelf) = (Buffers::new(BUFFERS), Shelf::default());
        Self { size, promised: Arc::default(), own: 0, useful: usize::MAX, buffers, shelf }
    }

    /// Makes the pool of another shard of the same node: what one promises is missing to the other
    #[must_use]
    pub fn share(&self) -> Self {
        Self { promised: Arc::clone(&self.promised), ..Self::new(self.size) }
    }

    /// Returns how many bytes were promised, by all shards together
    pub fn promised(&self) -> usize {
        self.promised.load(Ordering::Relaxed)
    }

    /// Serves connections with a node that were promised so much, and of which each gains nothing by more
    /// than `useful`, if that is known
    pub(super) fn enter(&mut self, held: usize, useful: Option<usize>) {
        self.own = held;
        self.useful = useful.unwrap_or(usize::MAX);
    }

    /// Returns what they were promised by now
    pub(super) fn leave(&self) -> usize {
        self.own
    }

    /// Takes what a new connection is promised, and returns how much that is in each direction; nothing where
    /// memory is short
    pub(super) fn take_first(&mut self) -> Option<usize> {
        // Both directions need as much.
        let taken =
            self.reserve(|pool, promised| 2 * pool.first_of(pool.own, promised).unwrap_or(0));
        (taken > 0).then_some(taken / 2)
    }

    /// Tells whether a new connection with a node that was promised `held` would be promised anything
    pub(super) fn has_first(&self, held: usize) -> bool {
        self.first_of(held, self.promised()).is_some()
    }

    /// Returns what that would be, where all were promised `promised`
    ///
    /// The whole first credit while less than half of what one node may have is in use, then ever
    /// less: with the third power of what is left, so that there is a little for many.
    fn first_of(&self, held: usize, promised: usize) -> Option<usize> {
        let (room, half) = (self.room(held, promised), self.half());
        // In 1/1024, so that no product is too large for the machine.
        let left = (room.min(half) as u64 * 1024 / half as u64) as usize;
        let share = LANE_CREDIT_FIRST / 1024 * left / 1024 * left / 1024 * left;
        let credit = share.min(self.size / 16).max(LANE_CREDIT_MIN);
        (room >= 2 * credit).then_some(credit)
    }

    /// Tells whether half of what one node may have is in use, whoever has it, or a new connection with a node
    /// that was promised `held` would get nothing on top of its first credit
    pub(super) fn is_short(&self, held: usize) -> bool {
        let promised = self.promised();
        promised > self.half() || self.room(held, promised) < self.size / 4
    }

    /// Half of what one node may have
    fn half(&self) -> usize {
        (self.size / 16 * 7).max(1)
    }

    /// Returns how much the connections with a node that was promised `own` may be promised on top, where all were
    /// promised `promised`
    ///
    /// While it is the only one, seven eighths of all; as soon as another one has any, no more than it
    /// leaves free. So whoever comes later always finds something.
    fn room(&self, own: usize, promised: usize) -> usize {
        let alone = promised <= own;
        let factor = if alone { 7 } else { 1 };
        let free = self.size.saturating_sub(promised);
        (factor * (free / (factor + 1))).saturating_sub(own / (factor + 1))
    }

    /// Returns how much of `wanted` a connection that has `held` may be promised on top
    ///
    /// A quarter of the pool is left for new connections with the same node, and no connection gets
    /// more than half of the rest, so that one never starves the others.
    pub(super) fn growth(&self, held: usize, wanted: usize) -> usize {
        let spare = self.room(self.own, self.promised()).saturating_sub(self.size / 4) / 2;
        // Far from what makes sequence numbers ambiguous, however much memory there is.
        let largest = (self.size / 4).min(LANE_CREDIT_MAX as usize / 4).min(self.useful);
        let largest = largest.saturating_sub(held);
        wanted.min(spare).min(largest)
    }

    #[cfg(test)]
    pub(crate) fn set_promised(&mut self, bytes: usize) {
        self.promised.store(bytes, Ordering::Relaxed);
    }

    /// Takes so many bytes, whether there are any or not
    #[cfg(test)]
    pub(super) fn take(&mut self, bytes: u64) {
        let bytes = clamped(bytes);
        self.promised.fetch_add(bytes, Ordering::Relaxed);
        self.own = self.own.saturating_add(bytes);
    }

    /// Takes as many bytes as there are, and returns how many
    ///
    /// The last eighth of all is for nodes that have less than that.
    pub(super) fn take_free(&mut self, bytes: u64) -> u64 {
        self.reserve(|pool, promised| pool.free_of(promised).min(clamped(bytes))) as u64
    }

    /// Takes as many bytes as leave enough to others, and returns how many
    pub(super) fn take_spare(&mut self, bytes: u64) -> u64 {
        let most = |pool: &Self, promised| {
            pool.free_of(promised).min(pool.room(pool.own, promised)).min(clamped(bytes))
        };
        self.reserve(most) as u64
    }

    /// Returns how much is free to the node that is served, where all were promised `promised`
    fn free_of(&self, promised: usize) -> usize {
        let eighth = self.size / 8;
        let left = if self.own < eighth { 0 } else { eighth };
        self.size.saturating_sub(promised).saturating_sub(left)
    }

    /// Takes what `most` says there is, given what was promised at the same moment; returns how much
    fn reserve(&mut self, most: impl Fn(&Self, usize) -> usize) -> usize {
        let mut taken = 0;
        // Asked again where another shard was faster.
        let take = |promised: usize| {
            taken = most(self, promised);
            Some(promised.saturating_add(taken))
        };
        // It always says how much.
        let _ = self.promised.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        self.own = self.own.saturating_add(taken);
        taken
    }

    pub(super) fn give(&mut self, bytes: u64) {
        let bytes = clamped(bytes);
        let give = |promised: usize| Some(promised.saturating_sub(bytes));
        let _ = self.promised.fetch_update(Ordering::Relaxed, Ordering::Relaxed, give);
        self.own = self.own.saturating_sub(bytes);
    }
}

fn clamped(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Buffers for packets that are kept
const BUFFERS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_credit_falls_with_what_is_left_until_there_is_none() {
        let mut pool = Pool::default();

        let credits: Vec<_> = core::iter::from_fn(|| pool.take_first()).collect();

        assert_eq!(credits.first(), Some(&LANE_CREDIT_FIRST));
        assert!(credits.is_sorted_by(|one, next| one >= next));
        assert_eq!(credits.last(), Some(&LANE_CREDIT_MIN));
        assert!(pool.promised() <= pool.size && credits.len() > 500, "{}", credits.len());
    }

    /// Takes all that one node gets, in connections of which each grows as far as it may
    fn take_all(pool: &mut Pool) -> usize {
        while let Some(credit) = pool.take_first() {
            pool.take(pool.growth(credit, usize::MAX) as u64);
        }
        pool.leave()
    }

    #[test]
    fn greedy_node_leaves_room_for_others_and_gets_no_more_once_they_are_there() {
        let mut pool = Pool::default();
        let greedy = take_all(&mut pool);
        assert!(greedy > pool.size / 4 * 3 && greedy <= pool.size / 8 * 7, "{greedy}");

        pool.enter(0, None);
        assert!(pool.take_first().is_some_and(|credit| credit >= LANE_CREDIT_MIN));
        let modest = take_all(&mut pool);
        assert!(modest > pool.size / 20, "{modest}");

        // What the second one has not taken is not for the first.
        pool.enter(greedy, None);
        assert_eq!((pool.take_first(), pool.growth(0, 1 << 20)), (None, 0));
    }

    #[test]
    fn memory_is_short_when_half_of_it_is_in_use_and_not_while_several_nodes_have_little() {
        let mut pool = Pool::default();
        pool.take(pool.half() as u64);
        assert!(!pool.is_short(pool.leave()));
        pool.take(1);
        assert!(pool.is_short(pool.leave()));

        let mut pool = Pool::default();
        let eighth = pool.size / 8;
        for _ in 0..3 {
            pool.enter(0, None);
            pool.take(eighth as u64);
        }
        assert!(!pool.is_short(eighth) && !pool.is_short(0));

        // One of two has nearly all that it may have.
        let mut pool = Pool::default();
        pool.take(eighth as u64 / 2);
        pool.enter(0, None);
        pool.take(3 * eighth as u64);
        assert!(pool.promised() < pool.size / 2);
        assert!(pool.is_short(pool.leave()) && !pool.is_short(0));
    }

    #[test]
    fn what_is_of_no_use_to_one_node_may_be_so_to_another() {
        let mut pool = Pool::default();
        let (near, far) = (1 << 20, pool.size / 4);

        pool.enter(0, Some(near));
        assert_eq!(pool.growth(near / 2, usize::MAX), near / 2);
        pool.enter(0, None);
        assert_eq!(pool.growth(near, usize::MAX), far - near);
    }

    #[test]
    fn node_that_has_much_leaves_the_last_eighth_to_those_that_have_little() {
        let mut pool = Pool::default();
        let eighth = pool.size as u64 / 8;

        let mut greedy = 0;
        while pool.take_free(1000) == 1000 {
            greedy += 1;
        }
        assert!(greedy * 1000 > 6 * eighth && pool.size - pool.promised() >= pool.size / 8);
        pool.enter(0, None);
        assert_eq!(pool.take_free(eighth), eighth);
    }

    #[test]
    fn shards_of_one_node_promise_no_more_than_there_is() {
        let mut one = Pool::new(1 << 20);
        let mut other = one.share();

        one.take(1 << 19);
        let rest = other.take_free(u64::MAX);

        assert_eq!((rest, other.take_free(1), one.take_free(1)), (1 << 19, 0, 0));
        assert_eq!([one.promised(), other.promised()], [1 << 20; 2]);
        one.give(1 << 19);
        assert_eq!(other.promised(), 1 << 19);
    }

    #[test]
    fn what_another_shard_takes_at_the_same_moment_is_not_taken_again() {
        let mut pool = Pool::new(1 << 20);
        let asked = core::cell::Cell::new(0);

        let taken = pool.reserve(|pool, promised| {
            if asked.replace(asked.get() + 1) == 0 {
                pool.share().take(1000);
            }
            pool.size - promised
        });

        assert_eq!((taken, pool.promised(), asked.get()), ((1 << 20) - 1000, 1 << 20, 2));
    }

    #[test]
    fn two_greedy_nodes_leave_something_to_a_third() {
        let mut pool = Pool::default();
        let mut held = [0; 3];
        for held in &mut held {
            pool.enter(0, None);
            *held = take_all(&mut pool);
        }

        assert!(held[2] >= 2 * LANE_CREDIT_MIN && pool.promised() <= pool.size, "{held:?}");
    }
}
