//! The two MACs of an init or response, and the cookie that proves an address under load.
//!
//! PROTOCOL.md, section "Cookies"; the construction is WireGuard's (paper, section 5.4.7). When a
//! cookie is asked for is decided in `node::admission`.

use core::fmt;

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, Mac, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use rand_chacha::rand_core::CryptoRng;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{NetworkKey, PublicKey, draw};
use crate::limits::{COOKIE_SECRET_LIFE, TAG_LEN};
use crate::time::Instant;
use crate::wire::message::{COOKIE_NONCE_LEN, CookieReply, Init, MAC_LEN, SEALED_COOKIE_LEN};

/// Key of the first MAC of all messages to one node of the network
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct MacKey([u8; 32]);

impl MacKey {
    /// Makes the key for messages to `receiver`
    pub(crate) fn new(receiver: &PublicKey, network_key: &NetworkKey) -> Self {
        Self(hash(&[MAC_LABEL, receiver.as_bytes(), network_key.as_bytes()]))
    }

    /// Computes the first MAC of a message
    pub(crate) fn tag(&self, before: &[u8]) -> [u8; MAC_LEN] {
        mac(&self.0, before).finalize_fixed().into()
    }

    /// Checks the first MAC of a message, in constant time
    pub(crate) fn verify(&self, before: &[u8], tag: &[u8; MAC_LEN]) -> bool {
        mac(&self.0, before).verify_slice(tag).is_ok()
    }
}

/// What a node under load gives to an address, and wants to see used from there
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Cookie([u8; COOKIE_BYTES]);

impl Cookie {
    /// Computes the second MAC of a message
    pub(crate) fn tag(&self, before: &[u8]) -> [u8; MAC_LEN] {
        mac(&self.0, before).finalize_fixed().into()
    }

    /// Writes the message that gives this cookie to the sender of `init`
    pub(crate) fn seal(
        &self,
        receiver: &PublicKey,
        network_key: &NetworkKey,
        init: &Init<'_>,
        rng: &mut impl CryptoRng,
    ) -> Vec<u8> {
        let nonce = *draw(rng);
        let key = cookie_key(receiver, network_key, &nonce);
        let mut sealed = [0; SEALED_COOKIE_LEN];
        let (body, end) = sealed.split_at_mut(COOKIE_BYTES);
        body.copy_from_slice(&self.0);
        let tag = key
            .seal_in_place_separate_tag(zero_nonce(), Aad::from(init.macs.first), body)
            .expect("a cookie is far below what the cipher can seal");
        end.copy_from_slice(tag.as_ref());
        CookieReply { receiver: init.sender, nonce: &nonce, sealed: &sealed }.encode()
    }

    /// Opens the cookie that `receiver` sent for the init whose first MAC was `first_mac`
    pub(crate) fn open(
        receiver: &PublicKey,
        network_key: &NetworkKey,
        first_mac: &[u8; MAC_LEN],
        reply: &CookieReply<'_>,
    ) -> Option<Self> {
        let mut sealed = Zeroizing::new(*reply.sealed);
        let body = cookie_key(receiver, network_key, reply.nonce)
            .open_in_place(zero_nonce(), Aad::from(first_mac), &mut *sealed)
            .ok()?;
        body.try_into().ok().map(Self)
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// The secret behind cookies, renewed before it grows old; the one before it is still accepted
#[derive(Default)]
pub(crate) struct Secrets {
    current: Option<Secret>,
    previous: Option<Secret>,
}

struct Secret {
    key: Zeroizing<[u8; 32]>,
    since: Instant,
}

impl Secrets {
    /// Makes the cookie of `source`
    pub(crate) fn cookie(
        &mut self,
        source: &[u8],
        rng: &mut impl CryptoRng,
        now: Instant,
    ) -> Cookie {
        self.age(now);
        self.current.get_or_insert_with(|| Secret { key: draw(rng), since: now }).cookie(source)
    }

    /// Checks the second MAC of a message that came from `source`
    pub(crate) fn verify(
        &mut self,
        source: &[u8],
        before: &[u8],
        tag: &[u8; MAC_LEN],
        now: Instant,
    ) -> bool {
        self.age(now);
        [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .any(|secret| mac(&secret.cookie(source).0, before).verify_slice(tag).is_ok())
    }

    fn age(&mut self, now: Instant) {
        if self.current.as_ref().is_some_and(|secret| now >= secret.since + COOKIE_SECRET_LIFE) {
            self.previous = self.current.take();
        }
        if self.previous.as_ref().is_some_and(|secret| now >= secret.since + COOKIE_SECRET_LIFE * 2)
        {
            self.previous = None;
        }
    }
}

impl Secret {
    fn cookie(&self, source: &[u8]) -> Cookie {
        Cookie(mac(&*self.key, source).finalize_fixed().into())
    }
}

/// BLAKE2s of 16 bytes, keyed, over `data`
fn mac(key: &[u8], data: &[u8]) -> Blake2sMac<U16> {
    let mac = <Blake2sMac<U16> as Mac>::new_from_slice(key).expect("BLAKE2s takes up to 32 bytes");
    mac.chain(data)
}

/// BLAKE2s of 32 bytes over `parts`, one after the other
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = <Blake2s256 as Digest>::new();
    for part in parts {
        Digest::update(&mut hash, part);
    }
    Digest::finalize(hash).into()
}

fn cookie_key(
    receiver: &PublicKey,
    network_key: &NetworkKey,
    nonce: &[u8; COOKIE_NONCE_LEN],
) -> LessSafeKey {
    let key =
        Zeroizing::new(hash(&[COOKIE_LABEL, receiver.as_bytes(), network_key.as_bytes(), nonce]));
    LessSafeKey::new(
        UnboundKey::new(&CHACHA20_POLY1305, &*key).expect("the cipher takes 32 bytes of key"),
    )
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

const MAC_LABEL: &[u8] = b"fastvpn mac1";
const COOKIE_LABEL: &[u8] = b"fastvpn cookie";
const COOKIE_BYTES: usize = SEALED_COOKIE_LEN - TAG_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::testing::{at, rng};

    #[test]
    fn first_mac_needs_both_keys() {
        let [receiver, other] = [1, 2].map(|id| PublicKey::from_bytes([id; 32]));
        let [network, none] = [NetworkKey::from_bytes([3; 32]), NetworkKey::default()];
        let key = MacKey::new(&receiver, &network);
        let tag = key.tag(b"message");

        assert!(key.verify(b"message", &tag));
        assert!(!key.verify(b"massage", &tag));
        assert!(!MacKey::new(&other, &network).verify(b"message", &tag));
        assert!(!MacKey::new(&receiver, &none).verify(b"message", &tag));
    }

    #[test]
    fn cookie_is_good_for_one_source() {
        let mut secrets = Secrets::default();
        let tag = secrets.cookie(b"here", &mut rng(0), at(0)).tag(b"message");

        assert!(secrets.verify(b"here", b"message", &tag, at(1)));
        assert!(!secrets.verify(b"there", b"message", &tag, at(1)));
        assert!(!secrets.verify(b"here", b"massage", &tag, at(1)));
    }

    #[test]
    fn cookie_outlives_one_change_of_the_secret() {
        let mut secrets = Secrets::default();
        let mut rng = rng(0);
        let tag = secrets.cookie(b"here", &mut rng, at(0)).tag(b"message");

        assert!(secrets.verify(b"here", b"message", &tag, at(119_999)));
        let next = secrets.cookie(b"here", &mut rng, at(120_000)).tag(b"message");

        assert_ne!(tag, next);
        assert!(secrets.verify(b"here", b"message", &tag, at(239_999)));
        assert!(!secrets.verify(b"here", b"message", &tag, at(240_000)));
        assert!(secrets.verify(b"here", b"message", &next, at(359_999)));
    }

    #[test]
    fn without_a_secret_nothing_is_proven() {
        let mut secrets = Secrets::default();

        assert!(!secrets.verify(b"here", b"message", &[0; MAC_LEN], at(0)));
    }
}
