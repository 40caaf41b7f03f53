//! Known answers, as in PROTOCOL.md, section "Vectors".
//!
//! They were computed by an implementation that shares no code with this one.

use rand_chacha::rand_core::RngCore;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::*;
use crate::crypto::CryptoRng;
use crate::crypto::cookie::Cookie;
use crate::wire::message::{CookieReply, DataHeader, MAC_LEN, number};

#[test]
fn public_keys_follow_from_private_ones() {
    assert_eq!(hex(near().public().as_bytes()), NEAR_PUBLIC);
    assert_eq!(hex(far().public().as_bytes()), FAR_PUBLIC);
}

#[test]
fn init_and_response_and_first_messages_are_as_written() {
    let (near, far) = (near(), far());
    let mut initiator = Initiator::new(&near, far.public(), b"hello".to_vec(), None, Instant::ZERO);

    let init =
        initiator.poll(&near, &mut 0, &mut Counting(0x60), 0x0102_0304, Instant::ZERO).unwrap();
    let received = receive(&far, &init, &mut Counting(0x80)).unwrap();
    let (response, theirs) = received.answer(&far, 0x0506_0708, 0, b"welcome").unwrap();
    let ours = initiator.handle_response(&near, &response, Instant::ZERO).unwrap();

    assert_eq!(hex(&init[..40]), INIT_START);
    assert_eq!(hex(&init[40..88]), INIT_STATIC);
    assert_eq!(hex(&init[992..1008]), INIT_MAC1);
    assert_eq!(hex(&hash(&[&init])), INIT_DIGEST);
    assert_eq!(hex(&response), RESPONSE);
    assert_eq!(hex(&sealed(&ours, b"ping")), PING_AES);
    assert_eq!(ours.cipher, theirs.cipher);
}

#[test]
fn message_back_under_the_other_cipher_is_as_written() {
    let key = unhex(BACKWARD).try_into().unwrap();
    let seal = Seal::new(Cipher::ChaCha20Poly1305, zeroize::Zeroizing::new(key));
    let header = DataHeader { receiver: 0x0102_0304, number: number(1, 2) };
    let mut message = header.encode().to_vec();
    message.extend(b"pong");

    let tag = seal.seal(header.number, &header.encode(), &mut message[16..]);
    message.extend(tag);

    assert_eq!(hex(&message), PONG_CHACHA);
}

#[test]
fn cookie_opens_and_signs_as_written() {
    let bytes = unhex(COOKIE);
    let reply = CookieReply::parse(&bytes).unwrap();
    let first_mac: [u8; MAC_LEN] = unhex(INIT_MAC1).try_into().unwrap();
    let far = far();
    let init = {
        let mut initiator =
            Initiator::new(&near(), far.public(), b"hello".to_vec(), None, Instant::ZERO);
        initiator.poll(&near(), &mut 0, &mut Counting(0x60), 0x0102_0304, Instant::ZERO).unwrap()
    };

    let cookie = Cookie::open(&far.public(), far.network_key(), &first_mac, &reply).expect("opens");

    assert_eq!(hex(&cookie.tag(&init[..1008])), INIT_MAC2);
}

#[test]
fn data_nonce_is_the_number_in_network_order() {
    let key = [9; 32];
    let seal = Seal::new(Cipher::ChaCha20Poly1305, zeroize::Zeroizing::new(key));
    let plain = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
    let nonce = [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1];
    let (mut ours, mut theirs) = (*b"frames", *b"frames");

    let tag = seal.seal(number(3, 1), b"header", &mut ours);
    let expected = plain
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(b"header"),
            &mut theirs,
        )
        .unwrap();

    assert_eq!((ours, &tag[..]), (theirs, expected.as_ref()));
}

fn near() -> Local {
    node(0x00, 0xa0)
}

fn far() -> Local {
    node(0x20, 0xa8)
}

fn node(private: u8, boot: u8) -> Local {
    Local::new(
        PrivateKey::from_bytes(counting(private)),
        NetworkKey::from_bytes(counting(0x40)),
        BootId(counting(boot)),
        Cipher::Aes256Gcm,
    )
}

fn sealed(from: &Established, body: &[u8]) -> Vec<u8> {
    let header = DataHeader { receiver: from.remote_index, number: number(1, 2) };
    let mut message = header.encode().to_vec();
    message.extend(body);
    let tag = from.seal.seal(header.number, &header.encode(), &mut message[16..]);
    message.extend(tag);
    message
}

/// Bytes that count up from `first`
fn counting<const N: usize>(first: u8) -> [u8; N] {
    core::array::from_fn(|at| first + at as u8)
}

/// Chance that always counts up from the same byte
struct Counting(u8);

impl RngCore for Counting {
    fn next_u32(&mut self) -> u32 {
        0
    }

    fn next_u64(&mut self) -> u64 {
        0
    }

    fn fill_bytes(&mut self, dst: &mut [u8]) {
        for (at, byte) in dst.iter_mut().enumerate() {
            *byte = self.0 + at as u8;
        }
    }
}

impl CryptoRng for Counting {}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

const NEAR_PUBLIC: &str = "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f";
const FAR_PUBLIC: &str = "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254";
const INIT_START: &str = "0101000001020304\
    675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52f";
const INIT_STATIC: &str = "ccf3da42a2fbadbc5fdebe73c32081556adbdf4e24185a94955f013ce1b1bb07\
    7bf9bab096be6e0221e6c59d651ce82d";
const INIT_MAC1: &str = "fef9e5d6394d37a74de4f73758c6a742";
const INIT_DIGEST: &str = "ed2f6ee553707823fe68e9e94dc8070408984ddf5a36d36c63a9d49b40c266bc";
const RESPONSE: &str = "020000000506070801020304\
    493e82fc74464a59268817623d2053c5eb8e2cc4a988b4fee179ec6b010d531d\
    80d11947478939054cc66688e2e8c325cf835dd64d\
    c2308162330206ecb0a27a855151a70b\
    618f4b70d8e0a0b49a708ede586c0471\
    00000000000000000000000000000000";
const BACKWARD: &str = "37d94e99a16565e94cea6c09a30f69efa453498c2ad4fc9ea0c3e8f7adb7c062";
const PING_AES: &str = "04000000050607080100000000000002bac9f150\
    4835899c680538ae67087cb529d993dc";
const PONG_CHACHA: &str = "040000000102030401000000000000027b2070bf\
    395d4007c480299a1763e85de731919c";
const COOKIE: &str = "0300000001020304\
    e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff\
    348f0949203830eb172ff1722ee7fda18d6b08a92f9fc203e922a2f84c488861";
const INIT_MAC2: &str = "973d9ed7e616d43d0d08877781a7f4da";
