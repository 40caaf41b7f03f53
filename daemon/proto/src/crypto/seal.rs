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
    pub(crate) fn new(cipher: Cipher, key: Zeroizing<[u8; 32]>) -> Self {
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
    pub(crate) fn new(cipher: Cipher, key: Zeroizing<[u8; 32]>) -> Self {
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
