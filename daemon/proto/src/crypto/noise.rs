//! The Noise handshake: transcript and key schedule.
//!
//! PROTOCOL.md, section "Handshake". What the payloads say, and when a handshake is made, is not
//! here. All chance comes from the caller, as the 32 bytes of the ephemeral key.

use core::fmt;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{NetworkKey, PrivateKey, PublicKey};
use crate::limits::VERSION;

/// One handshake, from either end
pub(crate) struct Noise(HandshakeState);

/// The two keys that a handshake gave
pub(crate) struct Split {
    /// From the initiator to the responder
    pub(crate) forward: Zeroizing<[u8; 32]>,
    /// From the responder to the initiator
    pub(crate) backward: Zeroizing<[u8; 32]>,
}

/// The handshake does not open, or cannot be made with these keys
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("handshake does not open")]
pub(crate) struct NoiseError;

impl Noise {
    /// Starts a handshake with the node that has the key `remote`
    pub(crate) fn initiator(
        private: &PrivateKey,
        network_key: &NetworkKey,
        remote: &PublicKey,
        ephemeral: Zeroizing<[u8; 32]>,
    ) -> Result<Self, NoiseError> {
        let state = builder(private, network_key, ephemeral)?
            .remote_public_key(remote.as_bytes())?
            .build_initiator()?;
        Ok(Self(state))
    }

    /// Waits for the handshake of a node that will say who it is
    pub(crate) fn responder(
        private: &PrivateKey,
        network_key: &NetworkKey,
        ephemeral: Zeroizing<[u8; 32]>,
    ) -> Result<Self, NoiseError> {
        Ok(Self(builder(private, network_key, ephemeral)?.build_responder()?))
    }

    /// Writes the next message; `out` must have exactly the room for it
    pub(crate) fn write(&mut self, payload: &[u8], out: &mut [u8]) -> Result<(), NoiseError> {
        let written = self.0.write_message(payload, out)?;
        if written == out.len() { Ok(()) } else { Err(NoiseError) }
    }

    /// Reads the next message and returns its payload
    ///
    /// One that does not open leaves the handshake as it was.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut payload = vec![0; message.len()];
        let len = self.0.read_message(message, &mut payload)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// Returns the other node's key, once it is known
    pub(crate) fn remote(&self) -> Option<PublicKey> {
        self.0.get_remote_static()?.try_into().ok().map(PublicKey::from_bytes)
    }

    /// Returns the keys of the finished handshake
    pub(crate) fn split(mut self) -> Split {
        let (forward, backward) = self.0.dangerously_get_raw_split();
        Split { forward: Zeroizing::new(forward), backward: Zeroizing::new(backward) }
    }
}

impl fmt::Debug for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Noise(..)")
    }
}

impl From<snow::Error> for NoiseError {
    fn from(_: snow::Error) -> Self {
        Self
    }
}

/// Computes the public key of a private one
pub(super) fn public_key(private: &PrivateKey) -> PublicKey {
    let mut dh = DefaultResolver
        .resolve_dh(&DHChoice::Curve25519)
        .expect("snow is built with its feature use-curve25519");
    dh.set(private.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(dh.pubkey());
    PublicKey::from_bytes(bytes)
}

fn builder<'key>(
    private: &'key PrivateKey,
    network_key: &'key NetworkKey,
    ephemeral: Zeroizing<[u8; 32]>,
) -> Result<Builder<'key>, NoiseError> {
    let builder = Builder::with_resolver(PATTERN.parse()?, Box::new(Primitives { ephemeral }))
        .prologue(PROLOGUE)?
        .local_private_key(private.as_bytes())?
        .psk(2, network_key.as_bytes())?;
    Ok(builder)
}

/// Snow's own primitives, but with our chance and no weak points of the curve
struct Primitives {
    ephemeral: Zeroizing<[u8; 32]>,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let inner = DefaultResolver.resolve_dh(choice)?;
        Some(Box::new(Contributory(inner)))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives 32 bytes once: the ephemeral key of a handshake, all the chance there is in it
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let bytes = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != bytes.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&*bytes);
        Ok(())
    }
}

/// A Diffie-Hellman that refuses keys which make the secret all zero, whatever ours is
struct Contributory(Box<dyn Dh>);

impl Dh for Contributory {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn pub_len(&self) -> usize {
        self.0.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.0.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.0.set(privkey);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.0.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.0.pubkey()
    }

    fn privkey(&self) -> &[u8] {
        self.0.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        self.0.dh(pubkey, out)?;
        let any = out.iter().take(self.0.dh_len()).fold(0, |any, byte| any | byte);
        if any == 0 { Err(snow::Error::Dh) } else { Ok(()) }
    }
}

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = &[b'f', b'a', b's', b't', b'v', b'p', b'n', VERSION];
