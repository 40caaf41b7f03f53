//! The errors that a router sends: "fragmentation needed" and "packet too big".

use std::net::{Ipv4Addr, Ipv6Addr};

/// Address of the router in its own IPv4 messages (from the block for documentation)
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// Address of the router in its own IPv6 messages
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe);

/// Makes the error for a packet that exceeds `mtu`; nothing where the sender did not ask for one
///
/// An IPv4 packet that may be fragmented gets none: this router does not fragment, it drops.
pub(super) fn too_big(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 28 && packet[6] & 0x40 != 0 => Some(v4(packet, mtu)),
        6 if packet.len() >= 40 => Some(v6(packet, mtu)),
        _ => None,
    }
}

fn v4(packet: &[u8], mtu: usize) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(548)];
    let len = 28 + quoted.len();
    let mut error = Vec::with_capacity(len);
    error.extend([0x45, 0]);
    error.extend((len as u16).to_be_bytes());
    error.extend([0, 0, 0, 0, 64, 1, 0, 0]);
    error.extend(ROUTER_V4.octets());
    error.extend(&packet[12..16]);
    let sum = checksum(&error, 0);
    error[10..12].copy_from_slice(&sum.to_be_bytes());
    error.extend([3, 4, 0, 0, 0, 0]);
    error.extend((mtu as u16).to_be_bytes());
    error.extend(quoted);
    let sum = checksum(&error[20..], 0);
    error[22..24].copy_from_slice(&sum.to_be_bytes());
    error
}

fn v6(packet: &[u8], mtu: usize) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(1232)];
    let len = 8 + quoted.len();
    let mut error = Vec::with_capacity(40 + len);
    error.extend([0x60, 0, 0, 0]);
    error.extend((len as u16).to_be_bytes());
    error.extend([58, 64]);
    error.extend(ROUTER_V6.octets());
    error.extend(&packet[8..24]);
    error.extend([2, 0, 0, 0]);
    error.extend((mtu as u32).to_be_bytes());
    error.extend(quoted);
    // the pseudo header: both addresses, the length, the protocol
    let pseudo = checksum(&error[8..40], len as u32 + 58);
    let sum = checksum(&error[40..], u32::from(!pseudo));
    error[42..44].copy_from_slice(&sum.to_be_bytes());
    error
}

/// Internet checksum (RFC 1071) of `bytes`, on top of `start`
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
