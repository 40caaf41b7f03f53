//! A borrowed view of one inner packet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// A packet whose header was checked
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    header: usize,
}

/// Why bytes are no IP packet
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PacketError {
    /// A length in the header is impossible
    #[error("impossible length")]
    Length,
    /// Neither IPv4 nor IPv6
    #[error("neither IPv4 nor IPv6")]
    Version,
}

impl<'a> Packet<'a> {
    /// Checks version and lengths
    ///
    /// # Errors
    /// If the bytes are shorter or longer than the packet says it is, or no IP packet at all.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        Self::parse_head(bytes, bytes.len())
    }

    /// Checks version and lengths of a packet of `len` bytes of which the first are at hand, the IP header
    /// among them; the view ends where they do
    pub(super) fn parse_head(bytes: &'a [u8], len: usize) -> Result<Self, PacketError> {
        match bytes.first().map(|byte| byte >> 4) {
            Some(4) => {
                let header = usize::from(bytes[0] & 0xf) * 4;
                if header < V4_HEADER || bytes.len() < header || total(bytes, 2) != len {
                    return Err(PacketError::Length);
                }
                Ok(Self { bytes, header })
            }
            Some(6) => {
                if bytes.len() < V6_HEADER || total(bytes, 4) + V6_HEADER != len {
                    return Err(PacketError::Length);
                }
                Ok(Self { bytes, header: V6_HEADER })
            }
            _ => Err(PacketError::Version),
        }
    }

    /// Returns the source address
    pub fn src(&self) -> IpAddr {
        self.addr(12, 8)
    }

    /// Returns the destination address
    pub fn dst(&self) -> IpAddr {
        self.addr(16, 24)
    }

    /// Returns the protocol (IPv4) or the next header (IPv6)
    pub fn protocol(&self) -> u8 {
        self.bytes[if self.is_v4() { 9 } else { 6 }]
    }

    /// Tells whether it is IPv4
    pub fn is_v4(&self) -> bool {
        self.bytes[0] >> 4 == 4
    }

    /// Returns the whole packet, as far as it is at hand
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns what follows the IP header (IPv6: the fixed one)
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header..]
    }

    fn addr(&self, v4: usize, v6: usize) -> IpAddr {
        if self.is_v4() { v4_addr(self.bytes, v4).into() } else { v6_addr(self.bytes, v6).into() }
    }
}

pub(super) fn v4_addr(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

pub(super) fn v6_addr(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    Ipv6Addr::from(octets)
}

fn total(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..at + 2) {
        Some(field) => usize::from(u16::from_be_bytes([field[0], field[1]])),
        None => usize::MAX - V6_HEADER,
    }
}

/// Bytes of a header of IPv4 without options
pub(crate) const V4_HEADER: usize = 20;
/// Bytes of the fixed header of IPv6
pub(crate) const V6_HEADER: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_from_both_versions() {
        let mut v4 = [0; 24];
        v4[0] = 0x45;
        v4[3] = 24;
        v4[12..16].copy_from_slice(&[10, 0, 0, 1]);
        v4[16..20].copy_from_slice(&[10, 0, 0, 2]);
        let mut v6 = [0; 41];
        v6[0] = 0x60;
        v6[5] = 1;
        v6[23] = 1;
        v6[39] = 2;

        let (four, six) = (Packet::parse(&v4).unwrap(), Packet::parse(&v6).unwrap());

        assert_eq!(
            (four.src().to_string(), four.dst().to_string()),
            ("10.0.0.1".into(), "10.0.0.2".into())
        );
        assert_eq!((six.src().to_string(), six.dst().to_string()), ("::1".into(), "::2".into()));
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let _ = (packet.src(), packet.dst(), packet.protocol(), packet.payload());
                let _ = crate::ip::icmp::quoted(&packet);
            }
        }
    }
}
