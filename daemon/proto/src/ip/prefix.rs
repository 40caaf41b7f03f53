//! IP prefixes.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use thiserror::Error;

/// An IP address with the length of its network part
///
/// The host part is kept: `172.16.97.101/24` is an address in a subnet. [`Prefix::network`] drops it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why a text is not a prefix
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PrefixError {
    /// The part before the slash is no IP address
    #[error("not an IP address")]
    Address,
    /// The part after the slash is no number from 0 to 32 (IPv4) or 128 (IPv6)
    #[error("prefix length is not a number from 0 to {max}")]
    Length {
        /// Largest length of the address family
        max: u8,
    },
}

impl Prefix {
    /// Makes a prefix; `len` is in bits
    ///
    /// # Errors
    /// If `len` exceeds the bits of the address.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let max = bits(addr);
        if len > max { Err(PrefixError::Length { max }) } else { Ok(Self { addr, len }) }
    }

    /// Makes the prefix that holds this one address
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: bits(addr) }
    }

    /// Returns the address as given, host part included
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Returns the length in bits
    // A prefix of no bits is a prefix still; there is nothing to be empty.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Tells whether the prefix is one single address
    pub fn is_host(&self) -> bool {
        self.len == bits(self.addr)
    }

    /// Returns the prefix with all bits of the host part cleared
    pub fn network(&self) -> Self {
        let addr = match self.addr {
            IpAddr::V4(addr) => IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() & mask32(self.len))),
            IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & mask128(self.len))),
        };
        Self { addr, len: self.len }
    }

    /// Tells whether `addr` lies in the prefix; never for the other address family
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(own), IpAddr::V4(addr)) => {
                (own.to_bits() ^ addr.to_bits()) & mask32(self.len) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(addr)) => {
                (own.to_bits() ^ addr.to_bits()) & mask128(self.len) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Tells whether the two prefixes have an address in common
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.addr) && self.len <= other.len
            || other.contains(self.addr) && other.len <= self.len
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `ADDRESS/LENGTH`, or an address alone for a single host
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| PrefixError::Address)?;
        match len {
            None => Ok(Self::host(addr)),
            Some(len) => {
                let len = len.parse().map_err(|_| PrefixError::Length { max: bits(addr) })?;
                Self::new(addr, len)
            }
        }
    }
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn mask32(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

fn mask128(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_bad_text_says_what_is_wrong() {
        assert_eq!("172.16.97.101/24".parse::<Prefix>().unwrap().to_string(), "172.16.97.101/24");
        assert_eq!("fd00::1".parse::<Prefix>().unwrap().to_string(), "fd00::1/128");
        assert_eq!("1.2.3.4/33".parse::<Prefix>(), Err(PrefixError::Length { max: 32 }));
        assert_eq!("1.2.3/8".parse::<Prefix>(), Err(PrefixError::Address));
    }

    #[test]
    fn containment_respects_length_and_family() {
        let net: Prefix = "172.16.97.101/24".parse().unwrap();

        assert!(net.contains("172.16.97.7".parse().unwrap()));
        assert!(!net.contains("172.16.98.7".parse().unwrap()));
        assert!(!net.contains("fd00::1".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains("9.9.9.9".parse().unwrap()));
        assert_eq!(net.network().to_string(), "172.16.97.0/24");
    }

    #[test]
    fn overlap_is_symmetric() {
        let wide: Prefix = "10.0.0.0/8".parse().unwrap();
        let narrow: Prefix = "10.1.0.0/16".parse().unwrap();
        let other: Prefix = "11.0.0.0/8".parse().unwrap();

        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        assert!(!wide.overlaps(&other) && !other.overlaps(&wide));
    }
}
