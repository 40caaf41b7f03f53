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

pub use initiator::Initiator;
pub use responder::{Received, receive};

use std::collections::VecDeque;

use crate::crypto::cookie::{MacKey, hash};
use crate::crypto::noise::Split;
use crate::crypto::{Cipher, NetworkKey, Open, PrivateKey, PublicKey, Seal};
use crate::limits::{HALF_OPEN_LIFE, HALF_OPEN_PER_PEER};
use crate::node::{BootId, Refusal};
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
        self.slots.push_back(Slot { digest, response, established, since: now });
        freed
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
