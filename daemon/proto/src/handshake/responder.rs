//! The answering end of a handshake.
//!
//! [`receive`] opens an init and tells who sent it and what it says; [`Received::answer`] makes the
//! response. Between the two the node, or the control side, decides whether to answer at all: a
//! [`Received`] that is dropped leaves no trace.

use zeroize::Zeroizing;

use super::{Digest, Established, Local, cipher_of, seals_of_responder};
use crate::crypto::cookie::MacKey;
use crate::crypto::noise::Noise;
use crate::crypto::{CryptoRng, PublicKey, draw};
use crate::node::{BootId, REPLY_MAX, Refusal};
use crate::wire::message::{
    Init, InitPayload, MAC_LEN, RESPONSE_HEADER_LEN, Response, ResponsePayload,
};

/// An init that opened: it was made by who has the private key of `key`, some time
///
/// It may be a replay; only a data message under the keys that follow proves that it is not.
#[derive(Debug)]
pub struct Received {
    /// Who made it
    pub key: PublicKey,
    /// Boot id of its sender
    pub boot: BootId,
    /// Number of the init among all that its sender made since its boot
    pub sequence: u64,
    /// What its sender says of itself
    pub hello: Vec<u8>,
    /// Index by which its sender wants to be addressed
    pub remote_index: u32,
    /// Names the init
    pub digest: Digest,
    features: u32,
    noise: Noise,
}

/// Opens an init
///
/// This costs three multiplications on the curve; [`crate::node::admission`] goes first.
pub fn receive(local: &Local, bytes: &[u8], rng: &mut impl CryptoRng) -> Result<Received, Refusal> {
    let init = Init::parse(bytes)?;
    if !local.verify_mac(init.macs.before_first, init.macs.first) {
        return Err(Refusal::NoMac);
    }
    let mut noise = Noise::responder(&local.private, &local.network_key, draw(rng))
        .map_err(|_| Refusal::Handshake)?;
    let payload = Zeroizing::new(noise.read(init.noise).map_err(|_| Refusal::Handshake)?);
    let key = noise.remote().ok_or(Refusal::Handshake)?;
    if key == local.public {
        return Err(Refusal::Handshake);
    }
    let payload = InitPayload::parse(&payload)?;
    Ok(Received {
        key,
        boot: payload.boot,
        sequence: payload.sequence,
        hello: payload.hello.to_vec(),
        remote_index: init.sender,
        digest: Digest::of(bytes)?,
        features: payload.features,
        noise,
    })
}

impl Received {
    /// Makes the response, and the keys that it leads to
    ///
    /// A reply of more than [`REPLY_MAX`] bytes is [`Refusal::Malformed`].
    pub fn answer(
        mut self,
        local: &Local,
        local_index: u32,
        reply: &[u8],
    ) -> Result<(Vec<u8>, Established), Refusal> {
        if reply.len() > REPLY_MAX {
            return Err(Refusal::Malformed);
        }
        let features = self.features & local.features();
        let payload = ResponsePayload { features, boot: local.boot, reply }.encode();
        let mut bytes = Response::start(local_index, self.remote_index, payload.len());
        let mac_at = bytes.len() - 2 * MAC_LEN;
        self.noise
            .write(&payload, &mut bytes[RESPONSE_HEADER_LEN..mac_at])
            .map_err(|_| Refusal::Handshake)?;
        let tag = MacKey::new(&self.key, &local.network_key).tag(&bytes[..mac_at]);
        bytes[mac_at..mac_at + MAC_LEN].copy_from_slice(&tag);
        let cipher = cipher_of(features);
        let (seal, open) = seals_of_responder(self.noise.split(), cipher);
        let established = Established {
            cipher,
            seal,
            open,
            local_index,
            remote_index: self.remote_index,
            remote: self.key,
            boot: self.boot,
            greeting: self.hello,
            initiator: false,
            sequence: self.sequence,
        };
        Ok((bytes, established))
    }
}
