//! Handshakes: how two nodes that know each other's keys come to fresh keys for data.
//!
//! PROTOCOL.md, section "Handshake". An [`Initiator`] tries until it is answered; `responder` takes
//! an init apart and answers it; a [`HalfOpen`] table keeps what was answered until the first data
//! message proves that the other node is there. Both ends with an [`Established`].
//!
//! # Not here
//!
//! Whether an init deserves work is decided in `node::admission`, whether its sender may talk to us
//! by the node and the control side, and what happens with the keys by the session.

pub mod initiator;
pub mod responder;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod vectors;

pub use initiator::Initiator;
pub use responder::{Received, receive};

use std::collections::VecDeque;

use crate::crypto::cookie::{MacKey, hash};
use crate::crypto::noise::Split;
use crate::crypto::{Cipher, NetworkKey, Open, PrivateKey, PublicKey, Seal};
use crate::limits::{HALF_OPEN_LIFE, HALF_OPEN_PER_PEER};
use crate::node::{BootId, Refusal, Way};
use crate::time::Instant;
use crate::wire::message::{FEATURE_AES, Init};

/// What a node brings to each of its handshakes
#[derive(Debug)]
pub struct Local {
    private: PrivateKey,
    public: PublicKey,
    network_key: NetworkKey,
    boot: BootId,
    preferred: Cipher,
    mac_key: MacKey,
}

impl Local {
    /// Computes what follows from a node's keys, once
    ///
    /// `preferred` is AES-256-GCM where this machine has instructions for it; it is used for data
    /// if both nodes prefer it.
    pub fn new(
        private: PrivateKey,
        network_key: NetworkKey,
        boot: BootId,
        preferred: Cipher,
    ) -> Self {
        let public = private.public_key();
        let mac_key = MacKey::new(&public, &network_key);
        Self { private, public, network_key, boot, preferred, mac_key }
    }

    /// Returns the node's public key
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Returns the node's boot id
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Returns the key of the network
    pub(crate) fn network_key(&self) -> &NetworkKey {
        &self.network_key
    }

    /// Checks the first MAC of a message to this node
    pub(crate) fn verify_mac(&self, before: &[u8], tag: &[u8; 16]) -> bool {
        self.mac_key.verify(before, tag)
    }

    fn features(&self) -> u32 {
        match self.preferred {
            Cipher::Aes256Gcm => FEATURE_AES,
            Cipher::ChaCha20Poly1305 => 0,
        }
    }
}

/// What a handshake gave
#[derive(Debug)]
pub struct Established {
    /// Cipher of both keys
    pub cipher: Cipher,
    /// Seals what we send
    pub seal: Seal,
    /// Opens what we receive
    pub open: Open,
    /// Index in messages to us
    pub local_index: u32,
    /// Index in messages to the other node
    pub remote_index: u32,
    /// Who the other node is
    pub remote: PublicKey,
    /// Boot id of the other node
    pub boot: BootId,
    /// Which session of the other node with us since its boot
    pub incarnation: u32,
    /// What the other node said: its hello if it initiated, its reply if we did
    pub greeting: Vec<u8>,
    /// Whether we initiated
    pub initiator: bool,
    /// Number of the init among all that its sender made since its boot
    pub sequence: u64,
}

/// Names an init: equal for the same init, come again
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Computes the digest of an init, whatever its second MAC
    pub fn of(bytes: &[u8]) -> Result<Self, Refusal> {
        Ok(Self(hash(&[Init::parse(bytes)?.macs.before_first])))
    }
}

/// The inits of one peer that were answered, until the first data message under their keys comes
///
/// At most [`HALF_OPEN_PER_PEER`] at a time, none older than [`HALF_OPEN_LIFE`].
#[derive(Debug, Default)]
pub struct HalfOpen {
    /// The oldest first
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    digest: Digest,
    response: Vec<u8>,
    established: Established,
    since: Instant,
    /// Ways that the response went
    ways: Vec<Way>,
}

impl HalfOpen {
    /// Remembers an answered init, and returns the local indices that are free because of it
    #[must_use]
    pub fn insert(
        &mut self,
        digest: Digest,
        response: Vec<u8>,
        established: Established,
        now: Instant,
    ) -> Vec<u32> {
        let mut freed = self.expire(now);
        while self.slots.len() >= HALF_OPEN_PER_PEER {
            freed.extend(self.slots.pop_front().map(|slot| slot.established.local_index));
        }
        self.slots.push_back(Slot { digest, response, established, since: now, ways: Vec::new() });
        freed
    }

    /// Records that the response to an init went by `way`
    pub fn on_answered(&mut self, digest: &Digest, way: Way) {
        let slot = self.slots.iter_mut().find(|slot| slot.digest == *digest);
        if let Some(slot) = slot.filter(|slot| slot.ways.len() < WAYS_KEPT)
            && !slot.ways.contains(&way)
        {
            slot.ways.push(way);
        }
    }

    /// Tells whether a message that opened under `local_index` and came by `way` proves that way:
    /// the response must have gone there, and to no other address that could be the sender's
    pub fn proves(&self, local_index: u32, way: Way) -> bool {
        let slot = self.slots.iter().find(|slot| slot.established.local_index == local_index);
        slot.is_some_and(|slot| {
            let direct = slot.ways.iter().filter(|way| !way.is_relayed()).count();
            slot.ways.contains(&way) && (way.is_relayed() || direct == 1)
        })
    }

    /// Moves out what was established under `local_index`, once a data message has opened with it
    pub fn take(&mut self, local_index: u32) -> Option<Established> {
        let at = self.slots.iter().position(|slot| slot.established.local_index == local_index)?;
        self.slots.remove(at).map(|slot| slot.established)
    }

    /// Forgets what is too old, and returns the local indices that are free because of it
    #[must_use]
    pub fn expire(&mut self, now: Instant) -> Vec<u32> {
        let old = self.slots.iter().take_while(|slot| now >= slot.since + HALF_OPEN_LIFE).count();
        self.slots.drain(..old).map(|slot| slot.established.local_index).collect()
    }

    /// Returns the response that the same init had before
    pub fn response(&self, digest: &Digest) -> Option<&[u8]> {
        self.slots.iter().find(|slot| slot.digest == *digest).map(|slot| slot.response.as_slice())
    }

    /// Shows what was established under `local_index`, to open the first data message with
    pub fn peek(&self, local_index: u32) -> Option<&Established> {
        self.slots
            .iter()
            .map(|slot| &slot.established)
            .find(|established| established.local_index == local_index)
    }

    /// Returns the local indices in use
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().map(|slot| slot.established.local_index)
    }

    /// Returns when [`Self::expire`] will next have something to forget
    pub fn deadline(&self) -> Option<Instant> {
        self.slots.front().map(|slot| slot.since + HALF_OPEN_LIFE)
    }
}

/// Ways that are remembered of one response
const WAYS_KEPT: usize = 4;

fn cipher_of(features: u32) -> Cipher {
    if features & FEATURE_AES == 0 { Cipher::ChaCha20Poly1305 } else { Cipher::Aes256Gcm }
}

/// Turns the keys of a handshake into a seal and an opener, for the initiator
fn seals_of_initiator(split: Split, cipher: Cipher) -> (Seal, Open) {
    (Seal::new(cipher, split.forward), Open::new(cipher, split.backward))
}

/// Turns the keys of a handshake into a seal and an opener, for the responder
fn seals_of_responder(split: Split, cipher: Cipher) -> (Seal, Open) {
    (Seal::new(cipher, split.backward), Open::new(cipher, split.forward))
}

#[cfg(test)]
mod tests {
    use super::testing::{Pair, at, rng};
    use super::*;
    use crate::wire::message::{DataHeader, number};

    #[test]
    fn both_ends_agree_on_keys_and_on_who_is_there() {
        for (first, second, agreed) in [
            (Cipher::Aes256Gcm, Cipher::Aes256Gcm, Cipher::Aes256Gcm),
            (Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305, Cipher::ChaCha20Poly1305),
            (Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305),
        ] {
            let mut pair = Pair::preferring(first, second);

            let (near, far) = pair.establish();

            assert_eq!((near.cipher, far.cipher), (agreed, agreed));
            assert_eq!((near.remote, far.remote), (pair.far.public(), pair.near.public()));
            assert_eq!((near.boot, far.boot), (pair.far.boot(), pair.near.boot()));
            assert_eq!((near.local_index, near.remote_index), (far.remote_index, far.local_index));
            assert_eq!((near.sequence, far.sequence), (1, 1));
            assert_eq!((near.initiator, far.initiator), (true, false));
            assert_eq!((&*near.greeting, &*far.greeting), (&b"reply"[..], &b"hello"[..]));
        }
    }

    #[test]
    fn each_end_opens_what_the_other_seals_and_not_its_own() {
        let (near, far) = Pair::new().establish();

        for (from, to) in [(&near, &far), (&far, &near)] {
            let mut message = seal(from, b"frames");
            let mut own = message.clone();

            assert_eq!(open(to, &mut message).as_deref(), Some(&b"frames"[..]));
            assert_eq!(open(from, &mut own), None);
        }
    }

    #[test]
    fn the_same_init_gets_the_same_response() {
        let mut pair = Pair::new();
        let init = pair.init(at(0));
        let received = receive(&pair.far, &init, &mut pair.rng).unwrap();
        let digest = received.digest;
        let (response, established) = received.answer(&pair.far, 7, 0, b"reply").unwrap();
        let mut half_open = HalfOpen::default();
        assert!(half_open.insert(digest, response.clone(), established, at(0)).is_empty());

        let mut again = init.clone();
        *again.last_mut().unwrap() ^= 1;

        assert_eq!(half_open.response(&Digest::of(&again).unwrap()), Some(&*response));
        let other = pair.init(at(9_000));
        assert_eq!(half_open.response(&Digest::of(&other).unwrap()), None);
    }

    #[test]
    fn half_open_gives_way_to_the_newest_and_names_the_freed_index() {
        let mut half_open = HalfOpen::default();

        let freed: Vec<_> = (0..5).map(|index| insert(&mut half_open, index, at(0))).collect();

        assert_eq!(freed, [vec![], vec![], vec![], vec![0], vec![1]]);
        assert_eq!(half_open.indices().collect::<Vec<_>>(), [2, 3, 4]);
        assert!(half_open.peek(1).is_none());
        assert!(half_open.peek(3).is_some());
    }

    #[test]
    fn half_open_is_forgotten_in_time_or_taken_once() {
        let mut half_open = HalfOpen::default();
        assert!(insert(&mut half_open, 1, at(0)).is_empty());
        assert!(insert(&mut half_open, 2, at(1_000)).is_empty());
        assert_eq!(half_open.deadline(), Some(at(15_000)));

        assert_eq!(half_open.expire(at(14_999)), []);
        assert_eq!(half_open.expire(at(15_000)), [1]);
        assert_eq!(half_open.take(2).map(|taken| taken.local_index), Some(2));

        assert!(half_open.take(2).is_none());
        assert_eq!(half_open.deadline(), None);
    }

    #[test]
    fn everything_follows_from_the_seed() {
        let run = |seed| {
            let mut pair = Pair::new();
            pair.rng = rng(seed);
            let init = pair.init(at(0));
            let received = receive(&pair.far, &init, &mut pair.rng).unwrap();
            let (response, far) = received.answer(&pair.far, 7, 0, b"").unwrap();
            (init, response, seal(&far, b"frames"))
        };

        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    fn insert(half_open: &mut HalfOpen, index: u32, now: Instant) -> Vec<u32> {
        let mut pair = Pair::new();
        pair.rng = rng(index as u8);
        let init = pair.init(now);
        let received = receive(&pair.far, &init, &mut pair.rng).unwrap();
        let digest = received.digest;
        let (response, established) = received.answer(&pair.far, index, 0, b"").unwrap();
        half_open.insert(digest, response, established, now)
    }

    fn seal(from: &Established, body: &[u8]) -> Vec<u8> {
        let header = DataHeader { receiver: from.remote_index, number: number(3, 9) };
        let mut message = header.encode().to_vec();
        message.extend(body);
        let tag = from.seal.seal(header.number, &header.encode(), &mut message[16..]);
        message.extend(tag);
        message
    }

    fn open(to: &Established, message: &mut [u8]) -> Option<Vec<u8>> {
        let header = DataHeader::parse(message).ok()?;
        let (head, sealed) = message.split_at_mut(16);
        let len = to.open.open(header.number, head, sealed)?;
        Some(sealed[..len].to_vec())
    }
}
