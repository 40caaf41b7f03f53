//! Shards: how a node is divided, so that its peers use more than one processor.
//!
//! Each shard is a [`Node`](super::Node) of its own, with a thread, a socket and a queue of the device of its
//! own, and shares nothing with the others but what it promises (memory, bounds). A peer belongs to one shard for
//! good, by its key: its session, its connections and its handshakes are there. All shards have the same identity
//! and the same boot id, so that to others they are one node.
//!
//! # Whose a message is
//!
//! An index names a session, and its low bits ([`SHARD_BITS`]) the shard: so whoever brings messages can tell
//! ([`steer`]), before anybody has opened them. An init names nobody before it is opened; the first shard does that.
//! What comes to another shard all the same is handed over, see [`super::handover`].

use crate::crypto::PublicKey;
use crate::wire::message::receiver;

/// Which of a node's shards this is
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Shard {
    index: u8,
    count: u8,
}

impl Shard {
    /// The only one
    pub(super) const SOLE: Self = Self { index: 0, count: 1 };

    /// Returns all shards of a node
    pub(super) fn all(count: usize) -> impl Iterator<Item = Self> {
        let count = u8::try_from(count.clamp(1, SHARDS_MAX)).unwrap_or(1);
        (0..count).map(move |index| Self { index, count })
    }

    pub(super) fn index(self) -> u8 {
        self.index
    }

    pub(super) fn count(self) -> u8 {
        self.count
    }

    /// Tells whether it is the one that opens inits, and has all connections of stream carriers
    pub(super) fn is_first(self) -> bool {
        self.index == 0
    }

    /// Tells whether a peer belongs to it
    pub(super) fn keeps(self, key: &PublicKey) -> bool {
        self.other(key).is_none()
    }

    /// Returns the shard that a peer belongs to, where that is another one
    pub(super) fn other(self, key: &PublicKey) -> Option<u8> {
        let owner = u8::try_from(shard_of(key, self.count.into())).ok()?;
        (owner != self.index).then_some(owner)
    }

    /// Returns the shard that gave the index in a message away, where that is another one
    pub(super) fn other_of_message(self, message: &[u8]) -> Option<u8> {
        let owner = steer(message, self.count.into())?;
        let owner = u8::try_from(owner).ok()?;
        (owner != self.index).then_some(owner)
    }

    /// Makes an index of a random number
    pub(super) fn mark(self, random: u32) -> u32 {
        if self.count == 1 { random } else { random & !SHARD_BITS | u32::from(self.index) }
    }

    /// Goes through the numbers of the others
    pub(super) fn others(self) -> impl Iterator<Item = u8> {
        (0..self.count).filter(move |index| *index != self.index)
    }
}

/// Returns which of `count` shards has a peer
///
/// Public keys are like chance, so that each has about as many; which of them carry much is nothing one could know.
pub fn shard_of(peer: &PublicKey, count: usize) -> usize {
    usize::from(peer.as_bytes()[0]) % count.max(1)
}

/// Returns which of `count` shards has the session that a message belongs to, by its index; nothing for inits, and
/// where no shard can have given that index
pub fn steer(message: &[u8], count: usize) -> Option<usize> {
    let shard = (receiver(message)? & SHARD_BITS) as usize;
    (shard < count).then_some(shard)
}

/// Bits of an index that name the shard; the others are chance
pub const SHARD_BITS: u32 = 15;
/// Most shards of one node
pub const SHARDS_MAX: usize = SHARD_BITS as usize + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_belongs_to_one_shard_and_all_shards_have_some() {
        for count in [1, 2, 3, 16, 100] {
            let mut kept = vec![0; count.min(SHARDS_MAX)];
            for first in 0..=255 {
                let key = PublicKey::from_bytes([first; 32]);
                let owners: Vec<_> = Shard::all(count).filter(|shard| shard.keeps(&key)).collect();
                assert_eq!(owners.len(), 1);
                kept[usize::from(owners[0].index)] += 1;
            }
            let least = 256 / kept.len();
            assert!(kept.iter().all(|kept| *kept >= least));
        }
    }

    #[test]
    fn message_of_an_index_goes_to_who_gave_it_away() {
        for shard in Shard::all(5) {
            let mut message = [0; 40];
            message[0] = 4;
            message[4..8].copy_from_slice(&shard.mark(0xdead_beef).to_be_bytes());

            assert_eq!(steer(&message, 5), Some(shard.index.into()));
            assert_eq!(shard.other_of_message(&message), None);
        }
        assert_eq!(Shard::SOLE.mark(0xdead_beef), 0xdead_beef);
    }
}
