//! Bytes of control messages, written and read value by value.
//!
//! A [`Reader`] refuses what is too long before anything is allocated for it.

use core::net::{IpAddr, SocketAddr};

use super::DecodeError;
use crate::crypto::{InvitationSecret, PublicKey};
use crate::ip::Prefix;
use crate::node::BootId;

/// Addresses, or endpoints, that a node may have
pub const ADDRESSES_MAX: usize = 16;
/// Subnets that may be behind a node
pub const SUBNETS_MAX: usize = 64;
/// Bytes of a name
pub const NAME_MAX: usize = 63;
/// Bytes of the reason of a refusal
pub const REASON_MAX: usize = 255;

/// Takes values off the front of bytes
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Makes sure that nothing is left
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TooLong) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn key(&mut self) -> Result<PublicKey, DecodeError> {
        self.array().map(PublicKey::from_bytes)
    }

    pub(super) fn secret(&mut self) -> Result<InvitationSecret, DecodeError> {
        self.array().map(InvitationSecret::from_bytes)
    }

    pub(super) fn boot(&mut self) -> Result<BootId, DecodeError> {
        self.array().map(BootId)
    }

    /// A text of at most `max` bytes that can be shown to people as it is
    pub(super) fn text(&mut self, max: usize) -> Result<String, DecodeError> {
        let len = usize::from(self.u8()?);
        if len > max {
            return Err(DecodeError::TooLong);
        }
        let text = core::str::from_utf8(self.take(len)?).map_err(|_| DecodeError::Value)?;
        if text.chars().any(char::is_control) {
            return Err(DecodeError::Value);
        }
        Ok(text.to_owned())
    }

    pub(super) fn address(&mut self) -> Result<IpAddr, DecodeError> {
        match self.u8()? {
            FAMILY_4 => self.array::<4>().map(IpAddr::from),
            FAMILY_6 => self.array::<16>().map(IpAddr::from),
            _ => Err(DecodeError::Value),
        }
    }

    pub(super) fn endpoint(&mut self) -> Result<SocketAddr, DecodeError> {
        let address = self.address()?;
        Ok(SocketAddr::new(address, self.u16()?))
    }

    pub(super) fn prefix(&mut self) -> Result<Prefix, DecodeError> {
        let address = self.address()?;
        Prefix::new(address, self.u8()?).map_err(|_| DecodeError::Value)
    }

    /// What may follow at the end: nothing, or `mark` and a value
    pub(super) fn optional<V>(
        &mut self,
        mark: u8,
        value: impl Fn(&mut Self) -> Result<V, DecodeError>,
    ) -> Result<Option<V>, DecodeError> {
        match self.rest.first() {
            None => Ok(None),
            Some(first) if *first == mark => {
                self.rest = &self.rest[1..];
                value(self).map(Some)
            }
            Some(_) => Err(DecodeError::Value),
        }
    }

    /// A count in one byte, and as many values
    pub(super) fn list<V>(
        &mut self,
        max: usize,
        value: impl Fn(&mut Self) -> Result<V, DecodeError>,
    ) -> Result<Vec<V>, DecodeError> {
        let count = usize::from(self.u8()?);
        if count > max {
            return Err(DecodeError::TooLong);
        }
        (0..count).map(|_| value(self)).collect()
    }

    /// A count in two bytes, and as many values of at least `least` bytes each
    pub(super) fn long_list<V>(
        &mut self,
        least: usize,
        value: impl Fn(&mut Self) -> Result<V, DecodeError>,
    ) -> Result<Vec<V>, DecodeError> {
        let count = usize::from(self.u16()?);
        if count * least > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        (0..count).map(|_| value(self)).collect()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Appends a text, cut to `max` bytes and without what [`Reader::text`] would refuse
pub(super) fn text(text: &str, max: usize, out: &mut Vec<u8>) {
    let at = out.len();
    out.push(0);
    for char in text.chars().filter(|char| !char.is_control()) {
        if out.len() - at - 1 + char.len_utf8() > max.min(u8::MAX.into()) {
            break;
        }
        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out[at] = u8::try_from(out.len() - at - 1).unwrap_or(u8::MAX);
}

pub(super) fn address(address: &IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            out.push(FAMILY_4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(FAMILY_6);
            out.extend_from_slice(&address.octets());
        }
    }
}

pub(super) fn endpoint(endpoint: &SocketAddr, out: &mut Vec<u8>) {
    address(&endpoint.ip(), out);
    out.extend_from_slice(&endpoint.port().to_be_bytes());
}

pub(super) fn prefix(prefix: &Prefix, out: &mut Vec<u8>) {
    address(&prefix.addr(), out);
    out.push(prefix.len());
}

/// Appends a count in one byte and at most `max` values
pub(super) fn list<V>(values: &[V], max: usize, write: fn(&V, &mut Vec<u8>), out: &mut Vec<u8>) {
    let max = max.min(u8::MAX.into());
    let values = &values[..values.len().min(max)];
    out.push(u8::try_from(values.len()).unwrap_or(u8::MAX));
    values.iter().for_each(|value| write(value, out));
}

/// Appends a count in two bytes and at most as many values as it can tell
pub(super) fn long_list<V>(values: &[V], write: fn(&V, &mut Vec<u8>), out: &mut Vec<u8>) {
    let values = &values[..values.len().min(u16::MAX.into())];
    out.extend_from_slice(&u16::try_from(values.len()).unwrap_or(u16::MAX).to_be_bytes());
    values.iter().for_each(|value| write(value, out));
}

const FAMILY_4: u8 = 4;
const FAMILY_6: u8 = 6;
