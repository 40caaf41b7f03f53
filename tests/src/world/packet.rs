//! Inner packets of the tests: well-formed UDP over IPv4 or IPv6 whose every byte follows from
//! their number, so that an arriving one can be compared without having been kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastvpn_proto::ip::numbers::UDP;

/// Fills all payloads; must never be seen on a wire
pub const MARKER: [u8; 16] = *b"PLAINTEXT-MARKER";

/// Smallest packet that holds a number, for either version of IP
pub const PACKET_LEAST: usize = IPV6_LEN + UDP_LEN + 8;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const PORT: u16 = 4_242;

/// Builds the packet with number `id`, `len` bytes long with all headers
///
/// # Panics
/// If the addresses are of different families, or `len` is too small.
pub fn build(id: u64, src: IpAddr, dst: IpAddr, len: usize) -> Vec<u8> {
    build_in(0, id, src, dst, len)
}

/// Builds a packet as [`build`] does, in the flow with that number: each has a source port of its own
///
/// # Panics
/// As [`build`] does.
pub(super) fn build_in(flow: u16, id: u64, src: IpAddr, dst: IpAddr, len: usize) -> Vec<u8> {
    let mut packet = Vec::with_capacity(len);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4_header(&mut packet, id, src, dst, len),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6_header(&mut packet, src, dst, len),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("{src} and {dst} are of different families")
        }
    }
    let header = packet.len();
    packet.extend(PORT.wrapping_add(flow).to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(((len - header) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(id.to_be_bytes());
    assert!(packet.len() <= len, "a packet of {len} bytes cannot hold its number");
    while packet.len() < len {
        let rest = (len - packet.len()).min(MARKER.len());
        packet.extend(&MARKER[..rest]);
    }
    let sum = udp_checksum(src, dst, &packet[header..]);
    packet[header + 6..header + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Reads the number of a packet of [`build`]; nothing if it is none
pub fn id_of(packet: &[u8]) -> Option<u64> {
    let (header, proto) = match packet.first()? >> 4 {
        4 => (IPV4_LEN, *packet.get(9)?),
        6 => (IPV6_LEN, *packet.get(6)?),
        _ => return None,
    };
    let port = packet.get(header + 2..header + 4)?;
    if proto != UDP || port != PORT.to_be_bytes() {
        return None;
    }
    let id = packet.get(header + UDP_LEN..header + UDP_LEN + 8)?;
    Some(u64::from_be_bytes(id.try_into().ok()?))
}

/// Tells whether part of a payload can be read in `message`
///
/// Payloads repeat [`MARKER`], so a few windows find any that is longer than two of them; each
/// message is looked through fully where it is short.
pub fn shows_plaintext(message: &[u8]) -> bool {
    const WINDOW: usize = 2 * MARKER.len();
    let has = |part: &[u8]| part.windows(MARKER.len()).any(|window| window == MARKER);
    if message.len() <= 8 * WINDOW {
        return has(message);
    }
    (1..8).any(|eighth| {
        let start = message.len() / 8 * eighth;
        has(&message[start..(start + WINDOW).min(message.len())])
    })
}

fn ipv4_header(packet: &mut Vec<u8>, id: u64, src: Ipv4Addr, dst: Ipv4Addr, len: usize) {
    packet.extend([0x45, 0]);
    packet.extend((len as u16).to_be_bytes());
    packet.extend((id as u16).to_be_bytes());
    packet.extend([0x40, 0, 64, UDP, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let sum = fold(sum_of(packet));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn ipv6_header(packet: &mut Vec<u8>, src: Ipv6Addr, dst: Ipv6Addr, len: usize) {
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(((len - IPV6_LEN) as u16).to_be_bytes());
    packet.extend([UDP, 64]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
}

fn udp_checksum(src: IpAddr, dst: IpAddr, udp: &[u8]) -> u16 {
    let addresses = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => sum_of(&src.octets()) + sum_of(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => sum_of(&src.octets()) + sum_of(&dst.octets()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    match fold(addresses + u64::from(UDP) + udp.len() as u64 + sum_of(udp)) {
        0 => 0xffff,
        sum => sum,
    }
}

fn sum_of(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks(2);
    pairs.map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_survives_in_both_families() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let packet = build(77, src.parse().unwrap(), dst.parse().unwrap(), 200);

            assert_eq!(packet.len(), 200);
            assert_eq!(id_of(&packet), Some(77));
            assert!(shows_plaintext(&packet));
        }
    }

    #[test]
    fn headers_sum_to_nothing() {
        let packet = build(1, "10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), 99);

        assert_eq!(fold(sum_of(&packet[..IPV4_LEN])), 0);
    }

    #[test]
    fn long_plaintext_is_found_anywhere() {
        let packet = build(1, "10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), 1400);

        assert!(shows_plaintext(&packet));
        assert!(!shows_plaintext(&[0; 1400]));
    }
}
