//! Two nodes that make handshakes, for tests.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::{Established, Initiator, Local, receive};
use crate::crypto::{Cipher, NetworkKey, PrivateKey};
use crate::node::BootId;
use crate::time::{Duration, Instant};

/// Two nodes, and an initiator from one to the other
pub(crate) struct Pair {
    pub(crate) near: Local,
    pub(crate) far: Local,
    pub(crate) initiator: Initiator,
    pub(crate) rng: ChaCha20Rng,
    sequence: u64,
    index: u32,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::preferring(Cipher::ChaCha20Poly1305, Cipher::ChaCha20Poly1305)
    }

    pub(crate) fn preferring(near: Cipher, far: Cipher) -> Self {
        Self::of(local(1, near), local(2, far))
    }

    pub(crate) fn of(near: Local, far: Local) -> Self {
        let initiator = Initiator::new(&near, far.public(), b"hello".to_vec(), None, at(0));
        Self { near, far, initiator, rng: rng(0), sequence: 0, index: 100 }
    }

    /// Gives the next init, which must be due
    pub(crate) fn init(&mut self, now: Instant) -> Vec<u8> {
        self.index += 1;
        self.initiator
            .poll(&self.near, &mut self.sequence, &mut self.rng, self.index, now)
            .expect("an init is due")
    }

    /// Answers an init at the far end
    pub(crate) fn answer(&mut self, init: &[u8], index: u32) -> (Vec<u8>, Established) {
        let received = receive(&self.far, init, &mut self.rng).unwrap();
        received.answer(&self.far, index, 0, b"reply").unwrap()
    }

    /// Makes a handshake without any trouble
    pub(crate) fn establish(&mut self) -> (Established, Established) {
        let init = self.init(at(0));
        let (response, far) = self.answer(&init, 200);
        let near = self.initiator.handle_response(&self.near, &response, at(0)).unwrap();
        (near, far)
    }
}

/// A node of the network whose key is all zero; each `id` has keys of its own
pub(crate) fn local(id: u8, preferred: Cipher) -> Local {
    let private = PrivateKey::from_bytes([id; 32]);
    Local::new(private, NetworkKey::default(), BootId([id; 8]), preferred)
}

pub(crate) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub(crate) fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}
