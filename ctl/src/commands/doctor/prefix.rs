//! Addresses with a length, as routes have them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses that begin alike
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Prefix {
    first: IpAddr,
    length: u8,
}

impl Prefix {
    /// Makes the prefix that an address is in; nothing if the length cannot be
    pub(super) fn new(addr: IpAddr, length: u8) -> Option<Self> {
        let first = match addr {
            IpAddr::V4(addr) => {
                let mask = u32::MAX.checked_shl(32_u32.checked_sub(length.into())?).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() & mask))
            }
            IpAddr::V6(addr) => {
                let mask = u128::MAX.checked_shl(128_u32.checked_sub(length.into())?).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & mask))
            }
        };
        Some(Self { first, length })
    }

    /// Reads `172.16.97.101/24`; an address alone is a prefix of its own
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (addr, length) = match text.split_once('/') {
            Some((addr, length)) => (addr.parse().ok()?, length.parse().ok()?),
            None => {
                let addr: IpAddr = text.parse().ok()?;
                (addr, if addr.is_ipv4() { 32 } else { 128 })
            }
        };
        Self::new(addr, length)
    }

    /// Tells whether all of `other` is in it
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.length <= other.length
            && Self::new(other.first, self.length).is_some_and(|wide| wide == *self)
    }

    /// Tells whether it can be the way to other machines: no multicast, no link-local addresses
    pub(super) fn is_ordinary(&self) -> bool {
        match self.first {
            IpAddr::V4(first) => !first.is_multicast() && !first.is_link_local(),
            IpAddr::V6(first) => !first.is_multicast() && !first.is_unicast_link_local(),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_covers_itself_and_what_is_narrower() {
        let of = |text| Prefix::parse(text).unwrap();

        assert_eq!(of("172.16.97.101/24").to_string(), "172.16.97.0/24");
        assert!(of("172.16.97.0/24").covers(&of("172.16.97.7")));
        assert!(of("172.16.97.0/24").covers(&of("172.16.97.0/24")));
        assert!(!of("172.16.97.0/24").covers(&of("172.16.0.0/16")));
        assert!(!of("172.16.97.0/24").covers(&of("172.16.98.0/25")));
        assert!(of("fd00::/8").covers(&of("fd12::1")) && !of("::/0").covers(&of("1.2.3.4")));
        assert!(of("0.0.0.0/0").covers(&of("1.2.3.4")));
    }

    #[test]
    fn nonsense_is_no_prefix() {
        for text in ["", "x", "1.2.3.4/33", "::/129", "1.2.3/8", "1.2.3.4/-1"] {
            assert_eq!(Prefix::parse(text), None, "{text}");
        }
    }
}
