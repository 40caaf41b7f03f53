//! Layout of init, response, cookie and data messages.
//!
//! PROTOCOL.md, section "Messages". All integers are big-endian. A view borrows the message and
//! names its parts; it vouches for type, version, reserved bytes and length, and for nothing else.

use crate::limits::{DATA_HEADER_LEN, INIT_LEN, MESSAGE_MAX, TAG_LEN, VERSION};
use crate::node::{BootId, HELLO_MAX, REPLY_MAX, Refusal};

/// Kind of a message, by its first byte
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// First message of a handshake
    Init,
    /// Second message of a handshake
    Response,
    /// Answer to an init under load
    Cookie,
    /// Sealed frames
    Data,
}

/// Tells the kind of a message, once its type and length are possible
pub fn parse_kind(bytes: &[u8]) -> Result<Kind, Refusal> {
    let (kind, shortest, longest) = match bytes.first() {
        None => return Err(Refusal::Truncated),
        Some(&INIT) => (Kind::Init, INIT_LEN, INIT_LEN),
        Some(&RESPONSE) => (Kind::Response, RESPONSE_MIN, INIT_LEN),
        Some(&COOKIE) => (Kind::Cookie, COOKIE_LEN, COOKIE_LEN),
        Some(&DATA) => (Kind::Data, DATA_HEADER_LEN + TAG_LEN, MESSAGE_MAX),
        Some(_) => return Err(Refusal::UnknownType),
    };
    if bytes.len() < shortest || bytes.len() > longest {
        return Err(Refusal::Truncated);
    }
    match kind {
        Kind::Init if bytes[1] != VERSION => Err(Refusal::UnknownType),
        Kind::Init if bytes[2..4] != [0; 2] => Err(Refusal::Malformed),
        Kind::Init => Ok(kind),
        Kind::Response | Kind::Cookie | Kind::Data if bytes[1..4] != [0; 3] => {
            Err(Refusal::Malformed)
        }
        Kind::Response | Kind::Cookie | Kind::Data => Ok(kind),
    }
}

/// Returns the index in a message that its receiver gave away, where the message is long enough for one; an init
/// has none
pub fn receiver(bytes: &[u8]) -> Option<u32> {
    let (_, at) = RECEIVERS.into_iter().find(|(kind, _)| bytes.first() == Some(kind))?;
    bytes.get(at..)?.first_chunk().map(|index| u32::from_be_bytes(*index))
}

/// The parts of an init
#[derive(Clone, Copy, Debug)]
pub struct Init<'a> {
    /// Index by which the sender wants to be addressed
    pub sender: u32,
    /// First message of the Noise handshake
    pub noise: &'a [u8],
    /// What the MACs cover
    pub macs: Macs<'a>,
}

/// The parts of a response
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Index by which the sender wants to be addressed
    pub sender: u32,
    /// Index that the sender of the init chose
    pub receiver: u32,
    /// Second message of the Noise handshake
    pub noise: &'a [u8],
    /// What the MACs cover
    pub macs: Macs<'a>,
}

/// The parts of a cookie message
#[derive(Clone, Copy, Debug)]
pub struct CookieReply<'a> {
    /// Index that the sender of the init chose
    pub receiver: u32,
    /// Makes the key under which the cookie is sealed unique
    pub nonce: &'a [u8; COOKIE_NONCE_LEN],
    /// Cookie and tag
    pub sealed: &'a [u8; SEALED_COOKIE_LEN],
}

/// The two MACs at the end of an init or response, and what each of them covers
#[derive(Clone, Copy, Debug)]
pub struct Macs<'a> {
    /// All before the first MAC
    pub before_first: &'a [u8],
    /// The first MAC
    pub first: &'a [u8; MAC_LEN],
    /// All before the second MAC
    pub before_second: &'a [u8],
    /// The second MAC
    pub second: &'a [u8; MAC_LEN],
}

impl<'a> Init<'a> {
    /// Finds the parts of an init
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        expect(bytes, Kind::Init)?;
        let ([sender], rest) = fields::<1>(bytes)?;
        let (macs, noise) = Macs::split(bytes, rest)?;
        Ok(Self { sender, noise, macs })
    }

    /// Begins an init: the header, and zeros for all that follows
    pub(crate) fn start(sender: u32) -> Vec<u8> {
        let mut bytes = vec![INIT, VERSION, 0, 0];
        bytes.extend(sender.to_be_bytes());
        bytes.resize(INIT_LEN, 0);
        bytes
    }
}

impl<'a> Response<'a> {
    /// Finds the parts of a response
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        expect(bytes, Kind::Response)?;
        let ([sender, receiver], rest) = fields::<2>(bytes)?;
        let (macs, noise) = Macs::split(bytes, rest)?;
        Ok(Self { sender, receiver, noise, macs })
    }

    /// Begins a response: the header, and zeros for a payload of `payload` bytes and all else
    pub(crate) fn start(sender: u32, receiver: u32, payload: usize) -> Vec<u8> {
        let mut bytes = vec![RESPONSE, 0, 0, 0];
        bytes.extend(sender.to_be_bytes());
        bytes.extend(receiver.to_be_bytes());
        bytes.resize(RESPONSE_HEADER_LEN + EPHEMERAL_LEN + payload + TAG_LEN + 2 * MAC_LEN, 0);
        bytes
    }
}

impl<'a> CookieReply<'a> {
    /// Finds the parts of a cookie message
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        expect(bytes, Kind::Cookie)?;
        let ([receiver], rest) = fields::<1>(bytes)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(Refusal::Truncated)?;
        let sealed = rest.try_into().map_err(|_| Refusal::Truncated)?;
        Ok(Self { receiver, nonce, sealed })
    }

    /// Writes a cookie message
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(COOKIE_LEN);
        bytes.extend([COOKIE, 0, 0, 0]);
        bytes.extend(self.receiver.to_be_bytes());
        bytes.extend(self.nonce);
        bytes.extend(self.sealed);
        bytes
    }
}

impl<'a> Macs<'a> {
    /// Takes the MACs off the end of `rest`, which is the end of `message`
    fn split(message: &'a [u8], rest: &'a [u8]) -> Result<(Self, &'a [u8]), Refusal> {
        let (before_second, second) =
            message.split_last_chunk::<MAC_LEN>().ok_or(Refusal::Truncated)?;
        let (before_first, first) =
            before_second.split_last_chunk::<MAC_LEN>().ok_or(Refusal::Truncated)?;
        let noise = rest
            .len()
            .checked_sub(2 * MAC_LEN)
            .map(|end| &rest[..end])
            .ok_or(Refusal::Truncated)?;
        Ok((Self { before_first, first, before_second, second }, noise))
    }
}

/// Header of a data message; all of it is associated data of the seal
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DataHeader {
    /// Index that the receiver chose in the handshake
    pub receiver: u32,
    /// Number of the message: path and count, see [`number`]
    pub number: u64,
}

impl DataHeader {
    /// Reads the header of a data message
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        expect(bytes, Kind::Data)?;
        let ([receiver, high, low], _) = fields::<3>(bytes)?;
        Ok(Self { receiver, number: u64::from(high) << 32 | u64::from(low) })
    }

    /// Writes the header
    pub fn encode(&self) -> [u8; DATA_HEADER_LEN] {
        let mut bytes = [0; DATA_HEADER_LEN];
        bytes[0] = DATA;
        bytes[4..8].copy_from_slice(&self.receiver.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }
}

/// Returns the path in a message's number
pub const fn path_of(number: u64) -> u8 {
    (number >> COUNT_BITS) as u8
}

/// Returns the count in a message's number
pub const fn count_of(number: u64) -> u64 {
    number & COUNT_MAX
}

/// Makes a message's number of its path and its count on that path, of 56 bits
pub const fn number(path: u8, count: u64) -> u64 {
    (path as u64) << COUNT_BITS | count & COUNT_MAX
}

/// What an init says under its seal
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InitPayload<'a> {
    /// What the sender wants, see [`FEATURE_AES`]; unknown bits are ignored
    pub features: u32,
    /// Boot id of the sender
    pub boot: BootId,
    /// Number of this init among all that the sender made since its boot; never twice the same
    pub sequence: u64,
    /// What the sender says of itself
    pub hello: &'a [u8],
    /// Which session of the sender with the receiver since its boot
    pub incarnation: u32,
}

/// What a response says under its seal
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResponsePayload<'a> {
    /// What both will do, see [`FEATURE_AES`]; unknown bits are ignored
    pub features: u32,
    /// Boot id of the sender
    pub boot: BootId,
    /// What the sender says to the initiator
    pub reply: &'a [u8],
    /// Which session of the sender with the receiver since its boot
    pub incarnation: u32,
}

impl<'a> InitPayload<'a> {
    /// Reads a payload; what follows the known fields is ignored
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let (&features, rest) = bytes.split_first_chunk().ok_or(Refusal::Malformed)?;
        let (&boot, rest) = rest.split_first_chunk().ok_or(Refusal::Malformed)?;
        let (&sequence, rest) = rest.split_first_chunk().ok_or(Refusal::Malformed)?;
        let (hello, rest) = text(rest, HELLO_MAX)?;
        Ok(Self {
            features: u32::from_be_bytes(features),
            boot: BootId(boot),
            sequence: u64::from_be_bytes(sequence),
            hello,
            incarnation: incarnation(rest),
        })
    }

    /// Writes the payload, padded so that the init has its one length
    ///
    /// A hello of more than [`HELLO_MAX`] bytes is cut.
    pub fn encode(&self) -> [u8; INIT_PAYLOAD_LEN] {
        let hello = &self.hello[..self.hello.len().min(HELLO_MAX)];
        let mut bytes = [0; INIT_PAYLOAD_LEN];
        bytes[..4].copy_from_slice(&self.features.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.boot.0);
        bytes[12..20].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[20..22].copy_from_slice(&(hello.len() as u16).to_be_bytes());
        let end = 22 + hello.len();
        bytes[22..end].copy_from_slice(hello);
        bytes[end..end + 4].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes
    }
}

impl<'a> ResponsePayload<'a> {
    /// Reads a payload; what follows the known fields is ignored
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let (&features, rest) = bytes.split_first_chunk().ok_or(Refusal::Malformed)?;
        let (&boot, rest) = rest.split_first_chunk().ok_or(Refusal::Malformed)?;
        let (reply, rest) = text(rest, REPLY_MAX)?;
        Ok(Self {
            features: u32::from_be_bytes(features),
            boot: BootId(boot),
            reply,
            incarnation: incarnation(rest),
        })
    }

    /// Writes the payload
    ///
    /// A reply of more than [`REPLY_MAX`] bytes is cut.
    pub fn encode(&self) -> Vec<u8> {
        let reply = &self.reply[..self.reply.len().min(REPLY_MAX)];
        let mut bytes = Vec::with_capacity(RESPONSE_PAYLOAD_MIN + reply.len());
        bytes.extend(self.features.to_be_bytes());
        bytes.extend(self.boot.0);
        bytes.extend((reply.len() as u16).to_be_bytes());
        bytes.extend(reply);
        if self.incarnation > 0 {
            bytes.extend(self.incarnation.to_be_bytes());
        }
        bytes
    }
}

fn expect(bytes: &[u8], kind: Kind) -> Result<(), Refusal> {
    if parse_kind(bytes)? == kind { Ok(()) } else { Err(Refusal::UnknownType) }
}

/// Reads the `N` integers after the first four bytes of a message; and returns the rest
fn fields<const N: usize>(bytes: &[u8]) -> Result<([u32; N], &[u8]), Refusal> {
    let mut rest = bytes.get(4..).ok_or(Refusal::Truncated)?;
    let mut integers = [0; N];
    for integer in &mut integers {
        let (&field, after) = rest.split_first_chunk().ok_or(Refusal::Truncated)?;
        *integer = u32::from_be_bytes(field);
        rest = after;
    }
    Ok((integers, rest))
}

/// Reads a length of 16 bits and as many bytes; and returns the rest
fn text(bytes: &[u8], longest: usize) -> Result<(&[u8], &[u8]), Refusal> {
    let (&len, rest) = bytes.split_first_chunk().ok_or(Refusal::Malformed)?;
    let len = usize::from(u16::from_be_bytes(len));
    if len > longest {
        return Err(Refusal::Malformed);
    }
    rest.split_at_checked(len).ok_or(Refusal::Malformed)
}

/// Reads the field that may be left out where it is zero
fn incarnation(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// First bytes of the messages that have the index of their receiver, each with the place of the index
pub const RECEIVERS: [(u8, usize); 3] = [(RESPONSE, 8), (COOKIE, 4), (DATA, 4)];

/// Feature: AES-256-GCM for data; wanted in an init, chosen in a response
pub const FEATURE_AES: u32 = 1;

/// Length of either MAC of an init or response
pub const MAC_LEN: usize = 16;
/// Length of a cookie message's nonce
pub const COOKIE_NONCE_LEN: usize = 32;
/// Length of a cookie and its tag
pub const SEALED_COOKIE_LEN: usize = 16 + TAG_LEN;
/// Length of a cookie message
pub const COOKIE_LEN: usize = 8 + COOKIE_NONCE_LEN + SEALED_COOKIE_LEN;
/// Length of an init's payload, padding included
pub const INIT_PAYLOAD_LEN: usize =
    INIT_LEN - INIT_HEADER_LEN - EPHEMERAL_LEN - (32 + TAG_LEN) - TAG_LEN - 2 * MAC_LEN;
/// Length of a response whose reply is empty, the shortest there is
pub const RESPONSE_MIN: usize =
    RESPONSE_HEADER_LEN + EPHEMERAL_LEN + RESPONSE_PAYLOAD_MIN + TAG_LEN + 2 * MAC_LEN;

pub(crate) const INIT_HEADER_LEN: usize = 8;
pub(crate) const RESPONSE_HEADER_LEN: usize = 12;

const INIT: u8 = 1;
const RESPONSE: u8 = 2;
const COOKIE: u8 = 3;
const DATA: u8 = 4;

const EPHEMERAL_LEN: usize = 32;
const INIT_PAYLOAD_MIN: usize = 4 + 8 + 8 + 2 + INCARNATION_LEN;
const RESPONSE_PAYLOAD_MIN: usize = 4 + 8 + 2;
const INCARNATION_LEN: usize = 4;
const COUNT_BITS: u32 = 56;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

const _: () = assert!(INIT_PAYLOAD_MIN + HELLO_MAX <= INIT_PAYLOAD_LEN);
const _: () = assert!(RESPONSE_MIN + REPLY_MAX + INCARNATION_LEN <= INIT_LEN);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_those_of_the_specification() {
        assert_eq!(INIT_PAYLOAD_LEN, 888);
        assert_eq!(RESPONSE_MIN, 106);
        assert_eq!(COOKIE_LEN, 72);
    }

    #[test]
    fn kind_is_told_by_type_and_length() {
        for (first, shortest, longest, kind) in [
            ([1, VERSION], INIT_LEN, INIT_LEN, Kind::Init),
            ([2, 0], 106, INIT_LEN, Kind::Response),
            ([3, 0], 72, 72, Kind::Cookie),
            ([4, 0], 32, MESSAGE_MAX, Kind::Data),
        ] {
            let of_length = |len| {
                let mut bytes = vec![0; len];
                bytes[..2].copy_from_slice(&first);
                parse_kind(&bytes)
            };

            assert_eq!(of_length(shortest), Ok(kind));
            assert_eq!(of_length(longest), Ok(kind));
            assert_eq!(of_length(shortest - 1), Err(Refusal::Truncated));
            assert_eq!(of_length(longest + 1), Err(Refusal::Truncated));
        }
    }

    #[test]
    fn receiver_is_where_views_find_it() {
        let response = Response::start(7, 8, RESPONSE_PAYLOAD_MIN);
        assert_eq!(receiver(&response), Some(Response::parse(&response).unwrap().receiver));
        let cookie = CookieReply { receiver: 9, nonce: &[0; 32], sealed: &[0; 32] }.encode();
        assert_eq!(receiver(&cookie), Some(9));
        assert_eq!(receiver(&DataHeader { receiver: 10, number: 0 }.encode()), Some(10));
        assert_eq!(receiver(&Init::start(7)), None);
        assert_eq!(receiver(&[DATA, 0, 0, 0, 1, 2, 3]), None);
        assert_eq!(receiver(&[]), None);
    }

    #[test]
    fn unknown_kind_and_version_and_reserved_bytes_are_refused() {
        let with = |at: usize, byte| {
            let mut bytes = Init::start(7);
            bytes[at] = byte;
            parse_kind(&bytes)
        };

        assert_eq!(parse_kind(&[]), Err(Refusal::Truncated));
        assert_eq!(with(0, 0), Err(Refusal::UnknownType));
        assert_eq!(with(0, 5), Err(Refusal::UnknownType));
        assert_eq!(with(1, VERSION + 1), Err(Refusal::UnknownType));
        assert_eq!(with(2, 1), Err(Refusal::Malformed));
        assert_eq!(with(3, 1), Err(Refusal::Malformed));
        assert_eq!(with(0, 2), Err(Refusal::Malformed));
    }

    #[test]
    fn init_is_taken_apart_where_the_specification_says() {
        let mut bytes = Init::start(0x0102_0304);
        for (at, byte) in bytes.iter_mut().enumerate().skip(8) {
            *byte = at as u8;
        }

        let init = Init::parse(&bytes).unwrap();

        assert_eq!(init.sender, 0x0102_0304);
        assert_eq!(init.noise, &bytes[8..992]);
        assert_eq!(init.macs.before_first, &bytes[..992]);
        assert_eq!(init.macs.first[..], bytes[992..1008]);
        assert_eq!(init.macs.before_second, &bytes[..1008]);
        assert_eq!(init.macs.second[..], bytes[1008..]);
    }

    #[test]
    fn response_is_taken_apart_where_the_specification_says() {
        let bytes = Response::start(1, 2, RESPONSE_PAYLOAD_MIN);

        let response = Response::parse(&bytes).unwrap();

        assert_eq!(bytes.len(), RESPONSE_MIN);
        assert_eq!((response.sender, response.receiver), (1, 2));
        assert_eq!(response.noise.as_ptr_range(), bytes[12..74].as_ptr_range());
    }

    #[test]
    fn path_is_the_upper_byte_of_a_number() {
        assert_eq!(number(0xab, 0x12), 0xab00_0000_0000_0012);
        assert_eq!(number(1, u64::MAX), 0x01ff_ffff_ffff_ffff);
    }

    #[test]
    fn unknown_features_and_what_follows_are_ignored() {
        let payload = ResponsePayload {
            features: u32::MAX,
            boot: BootId([1; 8]),
            reply: b"reply",
            incarnation: 7,
        };
        let mut bytes = payload.encode();
        bytes.extend(b"a field of the future");

        assert_eq!(ResponsePayload::parse(&bytes), Ok(payload));
    }

    #[test]
    fn length_beyond_the_payload_or_the_limit_is_refused() {
        let payload = InitPayload {
            features: 0,
            boot: BootId([0; 8]),
            sequence: 1,
            hello: b"",
            incarnation: 0,
        };
        for len in [HELLO_MAX as u16 + 1, u16::MAX] {
            let mut bytes = payload.encode();
            bytes[20..22].copy_from_slice(&len.to_be_bytes());

            assert_eq!(InitPayload::parse(&bytes), Err(Refusal::Malformed));
        }
        let mut short = payload.encode()[..32].to_vec();
        short[21] = 11;
        assert_eq!(InitPayload::parse(&short), Err(Refusal::Malformed));
    }

    proptest! {
        #[test]
        fn data_header_round_trips(receiver: u32, path: u8, count in 0..=COUNT_MAX) {
            let header = DataHeader { receiver, number: number(path, count) };
            let mut message = header.encode().to_vec();
            message.extend([0; TAG_LEN]);

            prop_assert_eq!(DataHeader::parse(&message), Ok(header));
            prop_assert_eq!((path_of(header.number), count_of(header.number)), (path, count));
        }

        #[test]
        fn cookie_message_round_trips(receiver: u32, nonce: [u8; 32], sealed: [u8; 32]) {
            let bytes = CookieReply { receiver, nonce: &nonce, sealed: &sealed }.encode();
            let reply = CookieReply::parse(&bytes).unwrap();

            prop_assert_eq!((reply.receiver, reply.nonce, reply.sealed), (receiver, &nonce, &sealed));
        }

        #[test]
        fn payloads_round_trip(
            features: u32,
            boot: [u8; 8],
            sequence: u64,
            said in vec(any::<u8>(), 0..=HELLO_MAX),
            incarnation: u32,
        ) {
            let boot = BootId(boot);
            let init = InitPayload { features, boot, sequence, hello: &said, incarnation };
            let response = ResponsePayload { features, boot, reply: &said, incarnation };

            let (init_bytes, response_bytes) = (init.encode(), response.encode());

            prop_assert_eq!(InitPayload::parse(&init_bytes), Ok(init));
            prop_assert_eq!(ResponsePayload::parse(&response_bytes), Ok(response));
        }

        #[test]
        fn random_payloads_never_panic(bytes in vec(any::<u8>(), 0..1200)) {
            if let Ok(payload) = InitPayload::parse(&bytes) {
                prop_assert!(payload.hello.len() <= HELLO_MAX);
            }
            if let Ok(payload) = ResponsePayload::parse(&bytes) {
                prop_assert!(payload.reply.len() <= REPLY_MAX);
            }
        }

        #[test]
        fn random_messages_never_panic_and_only_their_own_parser_takes_them(
            first in 0..6u8,
            second in 0..3u8,
            rest in vec(any::<u8>(), 0..1100),
        ) {
            let bytes = [vec![first, second, 0, 0], rest].concat();
            let kind = parse_kind(&bytes);

            prop_assert_eq!(Init::parse(&bytes).is_ok(), kind == Ok(Kind::Init));
            prop_assert_eq!(Response::parse(&bytes).is_ok(), kind == Ok(Kind::Response));
            prop_assert_eq!(CookieReply::parse(&bytes).is_ok(), kind == Ok(Kind::Cookie));
            prop_assert_eq!(DataHeader::parse(&bytes).is_ok(), kind == Ok(Kind::Data));
        }
    }
}
