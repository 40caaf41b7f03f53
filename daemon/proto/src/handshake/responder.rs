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
    /// Which session of its sender with us since its boot
    pub incarnation: u32,
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
        incarnation: payload.incarnation,
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
    /// `incarnation` tells which session of ours with the initiator the keys are for. A reply of more
    /// than [`REPLY_MAX`] bytes is [`Refusal::Malformed`].
    pub fn answer(
        mut self,
        local: &Local,
        local_index: u32,
        incarnation: u32,
        reply: &[u8],
    ) -> Result<(Vec<u8>, Established), Refusal> {
        if reply.len() > REPLY_MAX {
            return Err(Refusal::Malformed);
        }
        let features = self.features & local.features();
        let payload = ResponsePayload { features, boot: local.boot, reply, incarnation }.encode();
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
            incarnation: self.incarnation,
            greeting: self.hello,
            initiator: false,
            sequence: self.sequence,
        };
        Ok((bytes, established))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Cipher, NetworkKey, PrivateKey};
    use crate::handshake::testing::{Pair, at, local, rng};
    use crate::limits::INIT_LEN;

    #[test]
    fn init_tells_who_sent_it_and_when_of_its_boot() {
        let mut pair = Pair::new();
        pair.init(at(0));
        let second = pair.init(at(5_000));

        let received = receive(&pair.far, &second, &mut pair.rng).unwrap();

        assert_eq!(received.key, pair.near.public());
        assert_eq!(received.boot, pair.near.boot());
        assert_eq!(received.sequence, 2);
        assert_eq!(received.hello, b"hello");
        assert_eq!(received.remote_index, 102);
    }

    #[test]
    fn replay_shows_the_same_sequence() {
        let mut pair = Pair::new();
        let init = pair.init(at(0));

        let first = receive(&pair.far, &init, &mut pair.rng).unwrap();
        let replay = receive(&pair.far, &init, &mut pair.rng).unwrap();

        assert_eq!((first.boot, first.sequence), (replay.boot, replay.sequence));
        assert_eq!(first.digest, replay.digest);
    }

    #[test]
    fn other_network_key_is_refused_before_any_work() {
        let private = PrivateKey::from_bytes([2; 32]);
        let boot = BootId::default();
        let network_key = NetworkKey::from_bytes([1; 32]);
        let far = Local::new(private, network_key, boot, Cipher::ChaCha20Poly1305);
        let mut pair = Pair::of(local(1, Cipher::ChaCha20Poly1305), far);
        let init = pair.init(at(0));

        assert_eq!(receive(&pair.far, &init, &mut pair.rng).unwrap_err(), Refusal::NoMac);
    }

    #[test]
    fn init_for_another_node_is_refused() {
        let init = Pair::new().init(at(0));
        let third = local(3, Cipher::ChaCha20Poly1305);

        assert_eq!(receive(&third, &init, &mut rng(0)).unwrap_err(), Refusal::NoMac);
    }

    #[test]
    fn valid_mac_alone_opens_nothing() {
        let mut pair = Pair::new();
        let mut init = pair.init(at(0));
        init[200] ^= 1;
        let mac_at = INIT_LEN - 2 * MAC_LEN;
        let tag = MacKey::new(&pair.far.public, &pair.far.network_key).tag(&init[..mac_at]);
        init[mac_at..mac_at + MAC_LEN].copy_from_slice(&tag);

        assert_eq!(receive(&pair.far, &init, &mut pair.rng).unwrap_err(), Refusal::Handshake);
    }

    #[test]
    fn node_does_not_shake_hands_with_itself() {
        let this = local(1, Cipher::ChaCha20Poly1305);
        let same = local(1, Cipher::ChaCha20Poly1305);
        let mut pair = Pair::of(this, same);
        let init = pair.init(at(0));

        assert_eq!(receive(&pair.far, &init, &mut pair.rng).unwrap_err(), Refusal::Handshake);
    }

    #[test]
    fn flipped_bit_anywhere_in_an_init_is_refused() {
        let mut pair = Pair::new();
        let init = pair.init(at(0));

        // the second MAC counts only where a cookie was asked for
        for bit in 0..(INIT_LEN - MAC_LEN) * 8 {
            let mut bad = init.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(receive(&pair.far, &bad, &mut pair.rng).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn response_is_never_longer_than_the_init() {
        for (len, fits) in [(0, true), (REPLY_MAX, true), (REPLY_MAX + 1, false)] {
            let mut pair = Pair::new();
            let init = pair.init(at(0));
            let received = receive(&pair.far, &init, &mut pair.rng).unwrap();

            let answer = received.answer(&pair.far, 1, u32::MAX, &vec![7; len]);

            assert_eq!(answer.is_ok(), fits, "reply of {len} bytes");
            if let Ok((response, _)) = answer {
                assert!(response.len() <= init.len());
                let near = pair.initiator.handle_response(&pair.near, &response, at(1)).unwrap();
                assert_eq!(near.greeting, vec![7; len]);
            }
        }
    }
}
