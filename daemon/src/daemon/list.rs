//! The hub's list of live peers, with revisions.
//!
//! A [`LiveList`] gathers changes and cuts them into increments, each from one revision to the next.
//! Changes that come close together share an increment, so that a thousand peers that come at once
//! do not cost a thousand pushes to each of them. Whom an increment is sent to is the hub's matter.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use fastvpn_proto::control::{Base, Entry, List, snapshot_parts};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::time::{Duration, Instant};

/// Shortest time between two increments
const SPACING: Duration = Duration::from_millis(20);
/// Changes in one increment: with the largest entries it still fits into a control message
const CHANGES_MAX: usize = 32;

/// Live peers by key, and what has changed since the last increment
#[derive(Debug)]
pub(super) struct LiveList {
    id: u64,
    revision: u64,
    entries: BTreeMap<PublicKey, Entry>,
    changed: BTreeSet<PublicKey>,
    not_before: Instant,
}

/// What a peer was offered in its welcome, to know what it still lacks when it is up
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Offer {
    revision: u64,
    /// Last entry that fitted; nothing if the list was complete
    cut_after: Option<Option<PublicKey>>,
}

impl LiveList {
    /// Makes an empty list; `id` must be another one than that of any earlier list of this hub
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            revision: 0,
            entries: BTreeMap::new(),
            changed: BTreeSet::new(),
            not_before: Instant::ZERO,
        }
    }

    /// Adds or changes a peer; returns whether anything changed
    pub(super) fn upsert(&mut self, entry: Entry) -> bool {
        if self.entries.get(&entry.key) == Some(&entry) {
            return false;
        }
        self.changed.insert(entry.key);
        self.entries.insert(entry.key, entry);
        true
    }

    /// Removes a peer; returns whether it was there
    pub(super) fn remove(&mut self, key: &PublicKey) -> bool {
        let was_there = self.entries.remove(key).is_some();
        if was_there {
            self.changed.insert(*key);
        }
        was_there
    }

    /// Takes the increments that are due at `now`
    #[must_use]
    pub(super) fn poll(&mut self, now: Instant) -> Vec<List> {
        if self.changed.is_empty() || now < self.not_before {
            return Vec::new();
        }
        self.not_before = now + SPACING;
        let changed: Vec<_> = core::mem::take(&mut self.changed).into_iter().collect();
        changed.chunks(CHANGES_MAX).map(|keys| self.increment(keys)).collect()
    }

    /// Returns when [`Self::poll`] will next have something to say
    pub(super) fn deadline(&self) -> Instant {
        if self.changed.is_empty() { Instant::FAR } else { self.not_before }
    }

    /// Returns a peer's entry
    pub(super) fn get(&self, key: &PublicKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Goes through all entries, ordered by key
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Returns the number of the list
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the revision of the last increment
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the whole list in messages, to be sent in this order
    pub(super) fn snapshot(&self) -> Vec<List> {
        let entries: Vec<_> = self.entries.values().cloned().collect();
        snapshot_parts(self.id, self.revision, &entries)
    }

    /// Remembers that the first `fitted` of `entries` fitted into a welcome
    pub(super) fn offer(&self, entries: &[Entry], fitted: usize) -> Offer {
        let cut_after =
            (fitted < entries.len()).then(|| entries[..fitted].last().map(|entry| entry.key));
        Offer { revision: self.revision, cut_after }
    }

    /// Returns what a peer with this offer lacks until it may be sent increments
    pub(super) fn complete(&self, offer: Option<Offer>) -> Vec<List> {
        match offer {
            Some(offer) if offer.revision == self.revision => match offer.cut_after {
                None => Vec::new(),
                Some(last) => self.rest(last),
            },
            Some(_) | None => self.snapshot(),
        }
    }

    /// The parts of a snapshot of which the peer has all up to `last`
    ///
    /// What has changed since, but is in no increment yet, may be here or not: the next increment
    /// brings it in any case.
    fn rest(&self, last: Option<PublicKey>) -> Vec<List> {
        let begin = last.map_or(Bound::Unbounded, Bound::Excluded);
        let entries: Vec<_> =
            self.entries.range((begin, Bound::Unbounded)).map(|(_, entry)| entry.clone()).collect();
        let mut parts = snapshot_parts(self.id, self.revision, &entries);
        for part in &mut parts {
            part.base = match part.base {
                Base::Nothing | Base::Continued => Base::Continued,
                Base::Last | Base::Whole => Base::Last,
                Base::Revision(revision) => Base::Revision(revision),
            };
        }
        parts
    }

    fn increment(&mut self, keys: &[PublicKey]) -> List {
        let base = Base::Revision(self.revision);
        self.revision += 1;
        let upserts = keys.iter().filter_map(|key| self.entries.get(key).cloned()).collect();
        let gone = |key: &&PublicKey| !self.entries.contains_key(*key);
        let removed = keys.iter().filter(gone).copied().collect();
        List { id: self.id, revision: self.revision, base, upserts, removed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::fixture::{entry, key, ms};

    #[test]
    fn changes_of_one_turn_share_an_increment() {
        let mut list = LiveList::new(7);
        list.upsert(entry(1));
        list.upsert(entry(2));
        list.remove(&key(1));

        let pushed = list.poll(ms(0));

        assert_eq!(pushed.len(), 1);
        assert_eq!((pushed[0].base, pushed[0].revision), (Base::Revision(0), 1));
        assert_eq!(pushed[0].upserts, [entry(2)]);
        assert_eq!(pushed[0].removed, [key(1)]);
    }

    #[test]
    fn entry_that_did_not_change_is_not_pushed() {
        let mut list = LiveList::new(7);
        list.upsert(entry(1));
        let _ = list.poll(ms(0));

        assert!(!list.upsert(entry(1)));
        assert!(list.poll(ms(100)).is_empty());
        assert_eq!(list.deadline(), Instant::FAR);
    }

    #[test]
    fn first_change_leaves_at_once_and_the_next_wait_a_little_for_more() {
        let mut list = LiveList::new(7);
        list.upsert(entry(1));
        assert_eq!(list.poll(ms(0)).len(), 1);

        list.upsert(entry(2));
        assert!(list.poll(ms(5)).is_empty());
        list.upsert(entry(3));

        assert_eq!(list.deadline(), ms(20));
        assert_eq!(list.poll(ms(20))[0].upserts.len(), 2);
    }

    #[test]
    fn many_changes_become_a_chain_of_increments() {
        let mut list = LiveList::new(7);
        for n in 0..80 {
            list.upsert(entry(n));
        }

        let pushed = list.poll(ms(0));

        let chain: Vec<_> = pushed.iter().map(|list| (list.base, list.revision)).collect();
        assert_eq!(chain, [(Base::Revision(0), 1), (Base::Revision(1), 2), (Base::Revision(2), 3)]);
        assert_eq!(pushed.iter().map(|list| list.upserts.len()).sum::<usize>(), 80);
    }

    #[test]
    fn peer_whose_welcome_was_cut_gets_the_rest_even_if_an_entry_before_the_cut_has_gone() {
        let mut list = LiveList::new(7);
        for n in 1..=4 {
            list.upsert(entry(n));
        }
        let _ = list.poll(ms(0));
        let entries: Vec<_> = list.iter().cloned().collect();
        let offer = list.offer(&entries, 2);

        list.remove(&key(1));
        let rest = list.complete(Some(offer));

        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].base, Base::Last);
        assert_eq!(rest[0].upserts, [entry(3), entry(4)]);
    }

    #[test]
    fn peer_with_an_old_offer_gets_the_whole_list() {
        let mut list = LiveList::new(7);
        list.upsert(entry(1));
        let _ = list.poll(ms(0));
        let offer = list.offer(&[entry(1)], 1);
        assert!(list.complete(Some(offer)).is_empty());

        list.upsert(entry(2));
        let _ = list.poll(ms(100));

        assert_eq!(list.complete(Some(offer))[0].upserts.len(), 2);
    }
}
