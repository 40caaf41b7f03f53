//! What an ICMP error quotes.
//!
//! An error about a packet comes from a router, whose address may belong to nobody in the overlay.
//! It passes the source filter if the packet that it quotes was sent to its sender.

use core::net::IpAddr;

use super::numbers::{ICMP, ICMP_V6};
use super::packet::{Packet, V4_HEADER, V6_HEADER, v4_addr, v6_addr};

/// Returns source and destination of the packet that an ICMP error quotes
pub fn quoted(packet: &Packet<'_>) -> Option<(IpAddr, IpAddr)> {
    let payload = packet.payload();
    let kind = *payload.first()?;
    let inner = payload.get(ICMP_HEADER..)?;
    let version = inner.first()? >> 4;
    let v4_error = packet.is_v4() && packet.protocol() == ICMP && V4_ERRORS.contains(&kind);
    let v6_error = !packet.is_v4() && packet.protocol() == ICMP_V6 && kind < V6_INFORMATIONAL;
    if v4_error && version == 4 && inner.len() >= V4_HEADER {
        return Some((v4_addr(inner, 12).into(), v4_addr(inner, 16).into()));
    }
    if v6_error && version == 6 && inner.len() >= V6_HEADER {
        return Some((v6_addr(inner, 8).into(), v6_addr(inner, 24).into()));
    }
    None
}

const ICMP_HEADER: usize = 8;
/// Destination unreachable, source quench, redirect excluded, time exceeded, parameter problem
const V4_ERRORS: [u8; 4] = [3, 4, 11, 12];
/// ICMPv6 types from here on are no errors (RFC 4443)
const V6_INFORMATIONAL: u8 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn error_about(inner: &[u8], kind: u8) -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[9] = ICMP;
        packet[20] = kind;
        packet.extend_from_slice(inner);
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet
    }

    #[test]
    fn an_error_quotes_the_packet_it_is_about() {
        let mut inner = [0; 28];
        inner[0] = 0x45;
        inner[12..16].copy_from_slice(&[10, 0, 0, 1]);
        inner[16..20].copy_from_slice(&[10, 0, 0, 2]);
        let bytes = error_about(&inner, 3);

        let quote = quoted(&Packet::parse(&bytes).unwrap()).unwrap();

        assert_eq!(quote, ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()));
    }

    #[test]
    fn an_echo_quotes_nothing() {
        let bytes = error_about(&[0x45; 28], 8);

        assert_eq!(quoted(&Packet::parse(&bytes).unwrap()), None);
    }
}
