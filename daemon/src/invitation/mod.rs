//! An invitation: all that a new machine needs to join a network, in one word.
//!
//! ```text
//! FASTVPN:  base32( version  length  body  checksum )
//!                   1 byte   2       …     4, CRC-32 of all before it
//! ```
//!
//! The text is in capitals and digits, which a QR code holds in least space; it is read in small
//! letters as well, and with white space anywhere, as terminals and letters break it. Version,
//! length and checksum stay where they are in all versions, so that a text that was cut off or
//! damaged is told from one of a newer version. The checksum finds mistakes, not forgeries.
//!
//! # Contract
//!
//! What is read keeps all limits of this module: names are names, and each endpoint is `HOST:PORT`
//! without a character that would mean anything in a file. Writing leaves out endpoints that are
//! none, and those beyond [`ENDPOINTS_MAX`], so that it yields something that can be read.
//!
//! # Not here
//!
//! Whether the hub will take it: that is known to the hub alone.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use fastvpn_proto::crypto::{InvitationSecret, NetworkKey, PublicKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::handle::NetworkName;

/// Endpoints of a hub that an invitation can name
pub const ENDPOINTS_MAX: usize = 8;

/// All that a new machine needs to join a network
#[derive(Clone)]
pub struct Invitation {
    /// What the hub calls the network; the new machine may call it otherwise
    pub network: NetworkName,
    /// What the hub will call the new member
    pub member: String,
    /// Identity of the hub
    pub hub_key: PublicKey,
    /// Where the hub is, each `HOST:PORT`; the best first
    pub endpoints: Vec<String>,
    /// Pre-shared key of the network; all zero where none is set
    pub network_key: NetworkKey,
    /// What proves to the hub that this is its invitation
    pub secret: InvitationSecret,
}

/// Why a text is not an invitation
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum InvitationError {
    /// Something is behind its end
    #[error("the invitation has {0} characters too many: copy it alone")]
    BeyondEnd(usize),
    /// It ends too early
    #[error("the invitation is cut off after {0} characters: copy it whole")]
    CutOff(usize),
    /// A character was changed
    #[error("the invitation is damaged: copy it again, or ask for a new one")]
    Damaged,
    /// It was made by a newer fastvpn
    #[error(
        "the invitation is of version {0}, which this fastvpn does not know: install a newer one"
    )]
    NewerVersion(u8),
    /// It is something else
    #[error("that is no invitation: one begins with {PREFIX}")]
    NoInvitation,
}

impl Invitation {
    fn body(&self) -> Zeroizing<Vec<u8>> {
        // Room for all from the start, so that no copy is left behind.
        let mut body = Zeroizing::new(Vec::with_capacity(BODY_MAX));
        write_text(self.network.as_str(), &mut body);
        write_text(&self.member, &mut body);
        body.extend_from_slice(self.hub_key.as_bytes());
        if self.network_key.as_bytes() == &[0; 32] {
            body.push(0);
        } else {
            body.push(1);
            body.extend_from_slice(self.network_key.as_bytes());
        }
        body.extend_from_slice(self.secret.as_bytes());
        let endpoints = self.endpoints.iter().filter_map(|text| text.parse::<Endpoint>().ok());
        let endpoints: Vec<_> = endpoints.take(ENDPOINTS_MAX).collect();
        body.push(endpoints.len() as u8);
        endpoints.iter().for_each(|endpoint| endpoint.write(&mut body));
        body
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let network = reader.text()?.parse().ok()?;
        let member = reader.text().filter(|name| is_member_name(name))?.to_owned();
        let hub_key = PublicKey::from_bytes(reader.array()?);
        let network_key = match reader.byte()? {
            0 => NetworkKey::default(),
            1 => NetworkKey::from_bytes(reader.array()?),
            _ => return None,
        };
        let secret = InvitationSecret::from_bytes(reader.array()?);
        let count = usize::from(reader.byte()?);
        if !(1..=ENDPOINTS_MAX).contains(&count) || hub_key.as_bytes() == &[0; 32] {
            return None;
        }
        let endpoint = |_| Endpoint::read(&mut reader).map(|endpoint| endpoint.to_string());
        let endpoints = (0..count).map(endpoint).collect::<Option<_>>()?;
        let whole = reader.0.is_empty();
        let read = Self { network, member, hub_key, endpoints, network_key, secret };
        whole.then_some(read)
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        let mut bytes = Zeroizing::new(Vec::with_capacity(BODY_MAX + ENVELOPE));
        bytes.push(VERSION);
        // a body is far shorter than 64 KiB
        bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&body);
        let checksum = crc32(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        f.write_str(PREFIX)?;
        f.write_str(&base32(&bytes))
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation({} to {})", self.member, self.network)
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let mut digits = Zeroizing::new(Vec::with_capacity(text.len()));
        digits.extend(text.bytes().filter(|byte| !byte.is_ascii_whitespace()));
        digits.make_ascii_uppercase();
        let prefix = PREFIX.as_bytes();
        let Some(digits) = digits.strip_prefix(prefix) else {
            let begun = !digits.is_empty() && prefix.starts_with(&digits);
            return Err(if begun {
                InvitationError::CutOff(digits.len())
            } else {
                InvitationError::NoInvitation
            });
        };
        let there = prefix.len() + digits.len();
        let Some(head) = digits.get(..HEAD_DIGITS) else {
            return Err(InvitationError::CutOff(there));
        };
        let head = unbase32(head).ok_or(InvitationError::Damaged)?;
        let [version, high, low, ..] = head[..] else { return Err(InvitationError::Damaged) };
        let body = usize::from(u16::from_be_bytes([high, low]));
        if body > BODY_MAX && version <= VERSION {
            return Err(InvitationError::Damaged);
        }
        let whole = prefix.len() + digits_of(body + ENVELOPE);
        if there < whole {
            return Err(InvitationError::CutOff(there));
        }
        if there > whole {
            return Err(InvitationError::BeyondEnd(there - whole));
        }
        let bytes = unbase32(digits).ok_or(InvitationError::Damaged)?;
        // The last digit has bits to spare.
        if base32(&bytes).as_bytes() != digits {
            return Err(InvitationError::Damaged);
        }
        let (bytes, checksum) = bytes.split_last_chunk().ok_or(InvitationError::Damaged)?;
        if crc32(bytes) != u32::from_be_bytes(*checksum) {
            return Err(InvitationError::Damaged);
        }
        if version != VERSION {
            return Err(InvitationError::NewerVersion(version));
        }
        Self::read(&bytes[HEAD..]).ok_or(InvitationError::Damaged)
    }
}

/// Where a hub is, in an invitation
#[derive(Clone, Debug, Eq, PartialEq)]
enum Endpoint {
    Four(SocketAddrV4),
    Name(String, u16),
    Six(SocketAddrV6),
}

impl Endpoint {
    fn write(&self, out: &mut Vec<u8>) {
        let port = match self {
            Self::Four(addr) => {
                out.push(FOUR);
                out.extend_from_slice(&addr.ip().octets());
                addr.port()
            }
            Self::Name(name, port) => {
                out.push(NAME);
                write_text(name, out);
                *port
            }
            Self::Six(addr) => {
                out.push(SIX);
                out.extend_from_slice(&addr.ip().octets());
                addr.port()
            }
        };
        out.extend_from_slice(&port.to_be_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let endpoint = match reader.byte()? {
            FOUR => {
                let addr = Ipv4Addr::from(reader.array()?);
                Self::Four(SocketAddrV4::new(addr, reader.port()?))
            }
            NAME => {
                let name = reader.text().filter(|name| is_host_name(name))?.to_owned();
                Self::Name(name, reader.port()?)
            }
            SIX => {
                let addr = Ipv6Addr::from(reader.array()?);
                Self::Six(SocketAddrV6::new(addr, reader.port()?, 0, 0))
            }
            _ => return None,
        };
        Some(endpoint)
    }
}

impl FromStr for Endpoint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(addr) = text.parse::<SocketAddrV4>() {
            return if addr.port() > 0 { Ok(Self::Four(addr)) } else { Err(()) };
        }
        if let Ok(addr) = text.parse::<SocketAddrV6>() {
            return if addr.port() > 0 { Ok(Self::Six(addr)) } else { Err(()) };
        }
        let (name, port) = text.rsplit_once(':').ok_or(())?;
        match port.parse() {
            Ok(port) if port > 0 && is_host_name(name) => Ok(Self::Name(name.to_owned(), port)),
            Ok(_) | Err(_) => Err(()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Four(addr) => addr.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Six(addr) => addr.fmt(f),
        }
    }
}

/// What is left to read
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn port(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes).filter(|port| *port > 0)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.byte()?;
        std::str::from_utf8(self.take(usize::from(len))?).ok()
    }
}

/// Writes a text of at most 255 bytes; of a longer one, which no name is, the beginning
fn write_text(text: &str, out: &mut Vec<u8>) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn is_member_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(plain)
}

/// Tells whether a text can only be a host's name; the configuration looks at it more closely
fn is_host_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=253).contains(&name.len()) && name.bytes().all(plain)
}

/// The checksum of Ethernet and of zip
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// Writes bytes in base32 (RFC 4648, section 6), without padding
fn base32(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(digits_of(bytes.len())));
    let (mut bits, mut have) = (0_u32, 0);
    for byte in bytes {
        bits = (bits << 8 | u32::from(*byte)) & 0xfff;
        have += 8;
        while have >= 5 {
            have -= 5;
            text.push(digit(bits >> have));
        }
    }
    if have > 0 {
        text.push(digit(bits << (5 - have)));
    }
    text
}

/// Reads what [`base32`] wrote, and whole bytes at the beginning of it
fn unbase32(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() * 5 / 8));
    let (mut bits, mut have) = (0_u32, 0);
    for digit in digits {
        let value = ALPHABET.iter().position(|other| other == digit)?;
        bits = (bits << 5 | value as u32) & 0xfff;
        have += 5;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    Some(bytes)
}

fn digit(bits: u32) -> char {
    char::from(ALPHABET[(bits & 31) as usize])
}

/// Digits of so many bytes in base32
const fn digits_of(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

const PREFIX: &str = "FASTVPN:";
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const VERSION: u8 = 1;
/// Version and length
const HEAD: usize = 3;
/// All around the body
const ENVELOPE: usize = HEAD + 4;
/// Digits that hold the head
const HEAD_DIGITS: usize = digits_of(HEAD);
/// Longest body: all names and endpoints as long as they can be
const BODY_MAX: usize = 16 + 64 + 32 + 33 + 16 + 1 + ENDPOINTS_MAX * 257;

// Kinds of endpoints
const NAME: u8 = 0;
const FOUR: u8 = 4;
const SIX: u8 = 6;

#[cfg(test)]
mod tests;
