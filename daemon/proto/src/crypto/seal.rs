//! The seal of data messages: pure functions of key, number and bytes.
//!
//! PROTOCOL.md, section "Messages". Which number may be used, and whether one was used before, is
//! not decided here: a number must never be sealed twice under one key.

use core::fmt;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::limits::TAG_LEN;

/// Cipher of data messages
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cipher {
    /// Where both nodes have instructions for it
    Aes256Gcm,
    /// Everywhere else
    ChaCha20Poly1305,
}

/// Seals messages in one direction
pub struct Seal(LessSafeKey);

/// Opens messages of one direction
pub struct Open(LessSafeKey);

impl Seal {
    /// Makes a seal of 32 bytes of key; `key` is wiped
    pub fn new(cipher: Cipher, key: Zeroizing<[u8; 32]>) -> Self {
        Self(less_safe(cipher, &key))
    }

    /// Encrypts `body` in place and returns the tag that goes after it
    pub fn seal(&self, number: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(number), Aad::from(header), body)
            .expect("a message is far below the 2^36 bytes that either cipher can seal");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }
}

impl Open {
    /// Makes an opener of 32 bytes of key; `key` is wiped
    pub fn new(cipher: Cipher, key: Zeroizing<[u8; 32]>) -> Self {
        Self(less_safe(cipher, &key))
    }

    /// Decrypts `sealed` (body and tag) in place and returns the length of the body at its front
    ///
    /// Where it does not open, `sealed` holds nothing of use.
    pub fn open(&self, number: u64, header: &[u8], sealed: &mut [u8]) -> Option<usize> {
        let body = self.0.open_in_place(nonce(number), Aad::from(header), sealed).ok()?;
        Some(body.len())
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Open(..)")
    }
}

fn less_safe(cipher: Cipher, key: &[u8; 32]) -> LessSafeKey {
    let algorithm = match cipher {
        Cipher::Aes256Gcm => &AES_256_GCM,
        Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("both ciphers take 32 bytes of key"))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

    #[test]
    fn flipped_bit_anywhere_is_refused() {
        for cipher in CIPHERS {
            let message = sealed(cipher, 7, b"header", b"body");

            for bit in 0..message.len() * 8 {
                let mut bad = message.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(opener(cipher).open(7, b"header", &mut bad), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn other_number_or_header_or_key_is_refused() {
        for cipher in CIPHERS {
            let message = sealed(cipher, 7, b"header", b"body");
            let stranger = Open::new(cipher, Zeroizing::new([2; 32]));

            assert_eq!(opener(cipher).open(8, b"header", &mut message.clone()), None);
            assert_eq!(opener(cipher).open(7, b"Header", &mut message.clone()), None);
            assert_eq!(stranger.open(7, b"header", &mut message.clone()), None);
        }
    }

    #[test]
    fn what_is_shorter_than_a_tag_is_refused() {
        for cipher in CIPHERS {
            for len in 0..TAG_LEN {
                assert_eq!(opener(cipher).open(0, b"", &mut vec![0; len]), None);
            }
        }
    }

    proptest! {
        #[test]
        fn body_round_trips(number: u64, header: [u8; 16], body in vec(any::<u8>(), 0..200)) {
            for cipher in CIPHERS {
                let mut message = sealed(cipher, number, &header, &body);

                let len = opener(cipher).open(number, &header, &mut message);

                prop_assert_eq!(len, Some(body.len()));
                prop_assert_eq!(&message[..body.len()], &body[..]);
            }
        }

        #[test]
        fn random_bytes_never_open(number: u64, bytes in vec(any::<u8>(), 0..200)) {
            for cipher in CIPHERS {
                prop_assert_eq!(opener(cipher).open(number, b"", &mut bytes.clone()), None);
            }
        }
    }

    fn sealed(cipher: Cipher, number: u64, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut message = body.to_vec();
        let seal = Seal::new(cipher, Zeroizing::new([1; 32]));
        let tag = seal.seal(number, header, &mut message);
        message.extend(tag);
        message
    }

    fn opener(cipher: Cipher) -> Open {
        Open::new(cipher, Zeroizing::new([1; 32]))
    }
}
