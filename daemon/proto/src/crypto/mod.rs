//! Keys, and the seal and opening of messages.
//!
//! Secrets are wiped when dropped and never printed.

pub(crate) mod cookie;
pub(crate) mod noise;
mod seal;

pub use rand_chacha::rand_core::CryptoRng;
pub use seal::{Cipher, Open, Seal};

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use base64ct::{Base64, Encoding};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Identity of a node: its X25519 public key
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct PublicKey([u8; 32]);

/// X25519 private key of a node
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

/// Pre-shared key of a network; all zero where none is set
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct NetworkKey([u8; 32]);

/// What an invitation lets its bearer prove: that it was invited
#[derive(Clone, Eq, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct InvitationSecret([u8; 16]);

/// Why a text is not a key
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a key is 32 bytes in base64, 44 characters that end in '='")]
pub struct KeyError;

impl PublicKey {
    /// Makes a key of its bytes
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Ord for PublicKey {
    /// Compares the bytes: the first eight as one number, which settles it in maps of many peers
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64::encode_string(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    /// Shows the first characters, enough to tell keys apart in a log
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64::encode_string(&self.0)[..8])
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl PrivateKey {
    /// Makes a key of its bytes
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Computes the public key that belongs to this one
    pub fn public_key(&self) -> PublicKey {
        noise::public_key(self)
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl NetworkKey {
    /// Makes a key of its bytes
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for NetworkKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(..)")
    }
}

impl InvitationSecret {
    /// Makes a secret of its bytes
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Computes what may be kept of it: enough to know it again, and not to use it
    pub fn digest(&self) -> [u8; 32] {
        cookie::hash(&[INVITATION_LABEL, &self.0])
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSecret(..)")
    }
}

/// Draws 32 bytes of chance
pub(crate) fn draw(rng: &mut impl CryptoRng) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *bytes);
    bytes
}

fn decode(text: &str) -> Result<[u8; 32], KeyError> {
    let mut bytes = [0; 32];
    let decoded = Base64::decode(text.trim(), &mut bytes).map_err(|_| KeyError)?;
    if decoded.len() == 32 { Ok(bytes) } else { Err(KeyError) }
}

const INVITATION_LABEL: &[u8] = b"fastvpn invitation";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn public_keys_are_in_the_order_of_their_bytes(
            one in any::<[u8; 32]>(), other in any::<[u8; 32]>(), same in 0_usize..=32,
        ) {
            let mut other = other;
            other[..same].copy_from_slice(&one[..same]);

            let [a, b] = [one, other].map(PublicKey::from_bytes);

            prop_assert_eq!(a.cmp(&b), one.cmp(&other));
        }
    }

    #[test]
    fn what_is_kept_of_an_invitation_tells_secrets_apart_and_none_of_them() {
        let [one, other] = [1, 2].map(|byte| InvitationSecret::from_bytes([byte; 16]));

        assert_eq!(one.digest(), one.clone().digest());
        assert_ne!(one.digest(), other.digest());
        assert_eq!(format!("{one:?}"), "InvitationSecret(..)");
    }

    /// RFC 7748, section 6.1
    #[test]
    fn public_key_is_that_of_the_standard() {
        let private = PrivateKey::from_bytes([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ]);

        let public = private.public_key();

        assert_eq!(public.to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }
}
