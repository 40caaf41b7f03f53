//! ICMP errors about segments: which connection they are about, and which segment would have fitted.

use core::net::{IpAddr, SocketAddr};

use super::segment::Ends;
use crate::ip::numbers::TCP;
use crate::ip::{Packet, V6_HEADER, icmp};

/// Returns the connection whose segment an ICMP error quotes, as if the segment's sender were local,
/// and the MTU that was too small for it, where that is the error
pub(super) fn quoted_segment(packet: &Packet<'_>) -> Option<(Ends, Option<u16>)> {
    let (src, dst) = icmp::quoted(packet)?;
    let bytes = packet.payload();
    let inner = bytes.get(ICMP_HEADER..)?;
    let (protocol, header) = match src {
        IpAddr::V4(_) => (*inner.get(9)?, usize::from(inner.first()? & 0xf) * 4),
        IpAddr::V6(_) => (*inner.get(6)?, V6_HEADER),
    };
    if protocol != TCP {
        return None;
    }
    let [s0, s1, d0, d1] = *inner.get(header..)?.first_chunk()?;
    let ends = Ends {
        local: SocketAddr::new(src, u16::from_be_bytes([s0, s1])),
        remote: SocketAddr::new(dst, u16::from_be_bytes([d0, d1])),
    };
    let narrow = match (packet.is_v4(), bytes.first(), bytes.get(1)) {
        (true, Some(&UNREACHABLE), Some(&TOO_BIG_V4)) | (false, Some(&TOO_BIG_V6), _) => {
            // Either version has it in the last two bytes of the header.
            bytes.get(6..8).map(|mtu| u16::from_be_bytes([mtu[0], mtu[1]]))
        }
        _ => None,
    };
    Some((ends, narrow))
}

const ICMP_HEADER: usize = 8;
/// Destination unreachable, and the code that tells of an MTU
const UNREACHABLE: u8 = 3;
const TOO_BIG_V4: u8 = 4;
/// Packet too big, of ICMPv6
const TOO_BIG_V6: u8 = 2;
