//! Where a TCP packet belongs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fastvpn_proto::ip::numbers::{ACK, FIN, RST, SYN, TCP};

/// Both ends of a connection, as one of them sees it
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Tuple {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

impl Tuple {
    /// Reads where an arriving packet belongs; nothing if it is not TCP
    pub(super) fn of_arriving(packet: &[u8]) -> Option<Self> {
        let (from, to, tcp) = match packet.first()? >> 4 {
            4 if packet.get(9) == Some(&TCP) => {
                let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
                let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
                let header = usize::from(packet[0] & 15) * 4;
                (IpAddr::V4(Ipv4Addr::from(from)), IpAddr::V4(Ipv4Addr::from(to)), header)
            }
            6 if packet.get(6) == Some(&TCP) => {
                let from: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
                let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
                (IpAddr::V6(Ipv6Addr::from(from)), IpAddr::V6(Ipv6Addr::from(to)), 40)
            }
            _ => return None,
        };
        let ports = packet.get(tcp..tcp + 4)?;
        let remote = SocketAddr::new(from, u16::from_be_bytes([ports[0], ports[1]]));
        let local = SocketAddr::new(to, u16::from_be_bytes([ports[2], ports[3]]));
        Some(Self { local, remote })
    }
}

/// Tells whether a TCP packet opens a connection
pub(super) fn is_syn(packet: &[u8]) -> bool {
    packet.get(header_len(packet) + 13).is_some_and(|flags| flags & (FIN | SYN | RST | ACK) == SYN)
}

/// Says what a TCP packet is
pub(crate) fn describe(packet: &[u8]) -> String {
    let tcp = packet.get(header_len(packet)..).map(smoltcp::wire::TcpPacket::new_checked);
    tcp.and_then(Result::ok).map_or_else(|| "no TCP".to_owned(), |tcp| tcp.to_string())
}

/// Returns the length of the IP header
fn header_len(packet: &[u8]) -> usize {
    match packet.first().map(|first| first >> 4) {
        Some(4) => usize::from(packet[0] & 15) * 4,
        Some(_) | None => 40,
    }
}
