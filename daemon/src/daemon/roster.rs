//! The list of live peers, as a peer keeps it.
//!
//! A [`Roster`] puts snapshots together from their parts, applies increments, and notices when it
//! missed one. It answers what has changed for the peer; what becomes of a session with a peer that
//! left the list is decided in `peer`.
//!
//! # Contract
//!
//! - Parts may come in any order and number; what does not fit leads to a request for a snapshot,
//!   and one request is open at a time.
//! - The node's own entry is never among the changes.

use std::collections::{BTreeMap, BTreeSet};

use fastvpn_proto::control::{Base, Entry, List};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::time::{Duration, Instant};

/// Time after which a request for a snapshot is repeated
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What is known of the hub's list
#[derive(Debug)]
pub(super) struct Roster {
    own: PublicKey,
    /// How the hub calls this node
    own_name: Option<String>,
    /// Subnets behind this node, as the hub says
    own_subnets: Vec<Prefix>,
    /// List and revision that is known completely
    at: Option<(u64, u64)>,
    entries: BTreeMap<PublicKey, Entry>,
    assembly: Option<Assembly>,
    asked: Option<Instant>,
}

/// A snapshot that is not complete yet
#[derive(Debug)]
struct Assembly {
    id: u64,
    revision: u64,
    seen: BTreeSet<PublicKey>,
}

/// What a part of the list changed
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// A peer is new, or something of it changed
    Set(Box<Entry>),
    /// A peer left the list; this is the last that was known of it
    Gone(Box<Entry>),
}

/// What a part of the list leads to
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Changes {
    /// In the order in which they are to be applied
    pub(super) changes: Vec<Change>,
    /// Whether the hub is to be asked for a snapshot
    pub(super) ask: bool,
}

impl Roster {
    /// Makes an empty list for the node with the key `own`
    pub(super) fn new(own: PublicKey) -> Self {
        Self {
            own,
            own_name: None,
            own_subnets: Vec::new(),
            at: None,
            entries: BTreeMap::new(),
            assembly: None,
            asked: None,
        }
    }

    /// Takes a part of the list from the hub
    #[must_use]
    pub(super) fn on_list(&mut self, list: List, now: Instant) -> Changes {
        match list.base {
            Base::Whole => {
                self.begin(&list);
                self.grow(list, Progress::Complete)
            }
            Base::Nothing => {
                self.begin(&list);
                self.grow(list, Progress::Partial)
            }
            Base::Continued if self.fits(&list) => self.grow(list, Progress::Partial),
            Base::Last if self.fits(&list) => self.grow(list, Progress::Complete),
            Base::Continued | Base::Last => self.missed(now),
            Base::Revision(base) => self.on_increment(base, list, now),
        }
    }

    /// Takes what the hub said of one peer when asked
    ///
    /// The peer is in the list from now on; the hub's next words about it count as ever.
    pub(super) fn on_answer(&mut self, entry: Entry) {
        if entry.key != self.own {
            if let Some(assembly) = &mut self.assembly {
                assembly.seen.insert(entry.key);
            }
            self.entries.insert(entry.key, entry);
        }
    }

    /// Returns whether the request for a snapshot is to be repeated, and notes that it was
    #[must_use]
    pub(super) fn poll(&mut self, now: Instant) -> bool {
        let due = self.asked.is_some_and(|asked| now >= asked + ASK_AGAIN);
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// Returns when [`Self::poll`] will next have something to say
    pub(super) fn deadline(&self) -> Instant {
        self.asked.map_or(Instant::FAR, |asked| asked + ASK_AGAIN)
    }

    /// Returns the entry of a peer
    pub(super) fn get(&self, key: &PublicKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Returns how the hub calls this node, once it has said so
    pub(super) fn own_name(&self) -> Option<&str> {
        self.own_name.as_deref()
    }

    /// Returns the subnets behind this node, as the hub says
    pub(super) fn own_subnets(&self) -> &[Prefix] {
        &self.own_subnets
    }

    /// Goes through all entries, ordered by key
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    fn begin(&mut self, list: &List) {
        let seen = BTreeSet::new();
        self.assembly = Some(Assembly { id: list.id, revision: list.revision, seen });
        self.at = None;
    }

    fn fits(&self, list: &List) -> bool {
        let of = |assembly: &Assembly| (assembly.id, assembly.revision);
        self.assembly.as_ref().map(of) == Some((list.id, list.revision))
    }

    /// Adds a part to the snapshot that is being put together
    fn grow(&mut self, list: List, progress: Progress) -> Changes {
        if let Some(assembly) = &mut self.assembly {
            assembly.seen.extend(list.upserts.iter().map(|entry| entry.key));
        }
        let mut changes = self.upsert(list.upserts);
        if progress == Progress::Complete {
            if let Some(assembly) = self.assembly.take() {
                let missing: Vec<_> = self
                    .entries
                    .keys()
                    .filter(|key| !assembly.seen.contains(*key))
                    .copied()
                    .collect();
                // Who has gone makes room for who took over its address.
                changes.splice(0..0, self.remove(missing));
            }
            self.at = Some((list.id, list.revision));
            self.asked = None;
        }
        Changes { changes, ask: false }
    }

    fn on_increment(&mut self, base: u64, list: List, now: Instant) -> Changes {
        match self.at {
            Some((id, own)) if id == list.id && own == base => {
                self.at = Some((list.id, list.revision));
                let mut changes = self.remove(list.removed);
                changes.extend(self.upsert(list.upserts));
                Changes { changes, ask: false }
            }
            // Overtaken by a snapshot that holds it already.
            Some((id, own)) if id == list.id && list.revision <= own => Changes::default(),
            Some(_) | None => self.missed(now),
        }
    }

    fn missed(&mut self, now: Instant) -> Changes {
        let ask = self.asked.is_none();
        if ask {
            self.asked = Some(now);
        }
        Changes { changes: Vec::new(), ask }
    }

    fn upsert(&mut self, entries: Vec<Entry>) -> Vec<Change> {
        let mut changes = Vec::new();
        for entry in entries {
            if entry.key == self.own {
                self.own_name = Some(entry.name);
                self.own_subnets = entry.subnets;
                continue;
            }
            if self.entries.get(&entry.key) == Some(&entry) {
                continue;
            }
            self.entries.insert(entry.key, entry.clone());
            changes.push(Change::Set(Box::new(entry)));
        }
        changes
    }

    fn remove(&mut self, keys: Vec<PublicKey>) -> Vec<Change> {
        let known = keys.into_iter().filter_map(|key| self.entries.remove(&key));
        known.map(|entry| Change::Gone(Box::new(entry))).collect()
    }
}

/// Whether a part of a snapshot is the last one
#[derive(Clone, Copy, Eq, PartialEq)]
enum Progress {
    Complete,
    Partial,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::fixture::{entry, key, ms};

    #[test]
    fn snapshot_in_parts_is_usable_at_once_and_removes_who_is_missing_at_its_end() {
        let mut roster = filled(&[1, 2, 3]);

        let first = roster.on_list(part(Base::Nothing, 9, &[2]), ms(0));
        let middle = roster.on_list(part(Base::Continued, 9, &[4]), ms(0));
        let last = roster.on_list(part(Base::Last, 9, &[5]), ms(0));

        assert!(first.changes.is_empty(), "{first:?}");
        assert_eq!(middle.changes, [set(4)]);
        assert_eq!(last.changes, [gone(1), gone(3), set(5)]);
        assert_eq!(roster.iter().count(), 3);
    }

    #[test]
    fn own_entry_says_how_the_hub_calls_this_node_and_is_no_change() {
        let mut roster = Roster::new(key(9));

        let got = roster.on_list(part(Base::Whole, 1, &[1, 9]), ms(0));

        assert_eq!(got.changes, [set(1)]);
        assert_eq!(roster.own_name(), Some("peer-9"));
    }

    #[test]
    fn increment_on_the_known_revision_is_applied() {
        let mut roster = filled(&[1, 2]);

        let got = roster.on_list(increment(1, 2, &[3], &[1]), ms(0));

        assert_eq!(got.changes, [gone(1), set(3)]);
        assert!(!got.ask);
    }

    #[test]
    fn missed_increment_asks_for_a_snapshot_once_and_again_after_a_while() {
        let mut roster = filled(&[1]);

        let first = roster.on_list(increment(2, 3, &[3], &[]), ms(0));
        let second = roster.on_list(increment(3, 4, &[4], &[]), ms(10));

        assert!(first.ask && first.changes.is_empty());
        assert!(!second.ask);
        assert_eq!(roster.deadline(), ms(5000));
        assert!(!roster.poll(ms(4999)) && roster.poll(ms(5000)) && !roster.poll(ms(5001)));
        assert_eq!(roster.on_list(part(Base::Whole, 4, &[1, 3, 4]), ms(5100)).changes.len(), 2);
        assert_eq!(roster.deadline(), Instant::FAR);
    }

    #[test]
    fn increment_that_a_snapshot_holds_already_is_nothing_new() {
        let mut roster = filled(&[1]);
        let _ = roster.on_list(part(Base::Whole, 5, &[1, 2]), ms(0));

        let got = roster.on_list(increment(3, 4, &[2], &[]), ms(0));

        assert_eq!(got, Changes::default());
    }

    #[test]
    fn list_of_a_restarted_hub_replaces_the_old_one() {
        let mut roster = filled(&[1, 2]);
        let fresh = List { id: 8, ..part(Base::Whole, 1, &[2]) };

        let got = roster.on_list(fresh, ms(0));

        assert_eq!(got.changes, [gone(1)]);
        let stale = roster.on_list(increment(1, 2, &[4], &[]), ms(0));
        assert!(stale.ask, "an increment of another list fits nothing");
    }

    #[test]
    fn part_that_continues_nothing_asks_for_a_snapshot() {
        let mut roster = Roster::new(key(99));

        assert!(roster.on_list(part(Base::Last, 3, &[1]), ms(0)).ask);
        assert_eq!(roster.iter().count(), 0);
    }

    #[test]
    fn own_entry_is_no_peer_and_says_what_is_behind_this_node() {
        let mut roster = Roster::new(key(1));
        let mut list = part(Base::Whole, 1, &[1, 2]);
        list.upserts[0].subnets = vec!["192.168.8.0/24".parse().unwrap()];

        let got = roster.on_list(list, ms(0));

        assert_eq!(got.changes, [set(2)]);
        assert_eq!(roster.own_name(), Some("peer-1"));
        assert_eq!(roster.own_subnets(), ["192.168.8.0/24".parse().unwrap()]);
    }

    fn filled(numbers: &[u16]) -> Roster {
        let mut roster = Roster::new(key(99));
        let _ = roster.on_list(part(Base::Whole, 1, numbers), ms(0));
        roster
    }

    fn part(base: Base, revision: u64, numbers: &[u16]) -> List {
        let upserts = numbers.iter().map(|n| entry(*n)).collect();
        List { id: 7, revision, base, upserts, removed: Vec::new() }
    }

    fn increment(base: u64, revision: u64, upserts: &[u16], removed: &[u16]) -> List {
        let removed = removed.iter().map(|n| key(*n)).collect();
        List { removed, ..part(Base::Revision(base), revision, upserts) }
    }

    fn gone(n: u16) -> Change {
        Change::Gone(Box::new(entry(n)))
    }

    fn set(n: u16) -> Change {
        Change::Set(Box::new(entry(n)))
    }
}
