//! All peers of a node.
//!
//! A message, a packet or a turn must cost the same whether there is one peer or ten thousand. So what goes
//! through all of them says so ([`Peers::all`]), and tests count how many it visits.

use std::collections::BTreeMap;

use super::peer::Peer;
use crate::crypto::PublicKey;

/// All peers of a node, by their keys
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_key: BTreeMap<PublicKey, Peer>,
    /// How many were visited by whoever went through all
    #[cfg(test)]
    pub(super) visited: core::cell::Cell<usize>,
}

impl Peers {
    /// Returns a peer, which is made if it is new
    pub(super) fn enter(&mut self, key: PublicKey, new: impl FnOnce() -> Peer) -> &mut Peer {
        self.by_key.entry(key).or_insert_with(new)
    }

    pub(super) fn remove(&mut self, key: &PublicKey) -> Option<Peer> {
        self.by_key.remove(key)
    }

    pub(super) fn get(&self, key: &PublicKey) -> Option<&Peer> {
        self.by_key.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &PublicKey) -> Option<&mut Peer> {
        self.by_key.get_mut(key)
    }

    /// Goes through all: never for a message, a packet or a turn
    pub(super) fn all(&self) -> impl Iterator<Item = (&PublicKey, &Peer)> {
        #[cfg(test)]
        self.visited.set(self.visited.get() + self.by_key.len());
        self.by_key.iter()
    }

    /// The same, to change them
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (&PublicKey, &mut Peer)> {
        #[cfg(test)]
        self.visited.set(self.visited.get() + self.by_key.len());
        self.by_key.iter_mut()
    }
}
