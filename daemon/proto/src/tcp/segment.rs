//! TCP segments: reading those of a kernel, writing those that it shall take for its partner's.
//!
//! # Contract
//!
//! [`Segment::parse`] returns only what is whole: lengths, checksum and fragmentation were checked.
//! What is no TCP segment, or one behind IPv6 extension headers, is nothing.

use core::net::{IpAddr, SocketAddr};

use crate::ip::checksum::{add, finish, partial, pseudo};
use crate::ip::numbers::TCP;
pub(super) use crate::ip::numbers::{ACK, FIN, PSH, RST, SYN, URG};
use crate::ip::{Body, Gso, Inner, Packet, Parcel, V4_HEADER, V6_HEADER};

/// Addresses and ports of a connection as one node sees it
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ends {
    /// The end on our side
    pub local: SocketAddr,
    /// The end on the other node's side
    pub remote: SocketAddr,
}

impl Ends {
    /// Returns the same connection as the other node sees it
    pub fn turned(self) -> Self {
        Self { local: self.remote, remote: self.local }
    }
}

/// A segment inside a packet
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    /// From whom and to whom, as if the sender were local
    pub(super) ends: Ends,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: &'a [u8],
    pub(super) data: &'a [u8],
    /// Traffic class, without the bits of ECN
    pub(super) class: u8,
}

/// Source and destination of a TCP packet, as if the source were local; only the first bytes are read
pub fn ends_of(packet: &Packet<'_>) -> Option<Ends> {
    let offset = packet.bytes().get(6..8).map(|field| u16::from_be_bytes([field[0], field[1]]));
    if packet.protocol() != TCP || packet.is_v4() && offset? & 0x3fff != 0 {
        return None;
    }
    let [s0, s1, d0, d1] = *packet.payload().first_chunk()?;
    let (src, dst) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    let local = SocketAddr::new(packet.src(), src);
    Some(Ends { local, remote: SocketAddr::new(packet.dst(), dst) })
}

/// Tells whether a packet may begin a connection, by as few bytes as possible
pub(super) fn is_syn(packet: &[u8]) -> bool {
    let at = match packet.first().map(|first| first >> 4) {
        Some(4) if packet.get(9) == Some(&TCP) => usize::from(packet[0] & 15) * 4,
        Some(6) if packet.get(6) == Some(&TCP) => V6_HEADER,
        Some(_) | None => return false,
    };
    packet.get(at + FLAGS).is_some_and(|flags| flags & (SYN | ACK) == SYN)
}

impl<'a> Segment<'a> {
    /// Reads a packet; that of a super-packet is not complete, and its device vouches for it
    pub(super) fn parse(packet: &Packet<'a>, gso: Option<Gso>) -> Option<Self> {
        let ends = ends_of(packet)?;
        let bytes = packet.payload();
        let header = bytes.first_chunk::<HEADER>()?;
        let len = usize::from(header[12] >> 4) * 4;
        if len < HEADER {
            return None;
        }
        let (head, data) = bytes.split_at_checked(len)?;
        if gso.is_none() && checksum(&ends, bytes) != 0 {
            return None;
        }
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let ip = packet.bytes();
        let class = if packet.is_v4() { ip[1] } else { ip[0] << 4 | ip[1] >> 4 };
        Some(Self {
            ends,
            seq: word(4),
            ack: word(8),
            flags: header[13],
            window: u16::from_be_bytes([header[14], header[15]]),
            urgent: u16::from_be_bytes([header[18], header[19]]),
            options: &head[HEADER..],
            data,
            class: class & !ECN,
        })
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Makes a packet of the segment
    pub(super) fn encode(&self) -> Vec<u8> {
        let tcp = HEADER + self.options.len() + self.data.len();
        let mut out = Vec::with_capacity(V6_HEADER + tcp);
        let start = self.headers(self.data.len(), &mut out);
        out.extend_from_slice(self.data);
        let sum = checksum(&self.ends, &out[start..]);
        out[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// Makes a packet of headers and `len` bytes that `fill` appends, into an empty `out`
    pub(super) fn encode_with(
        &self,
        len: usize,
        mut out: Vec<u8>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Parcel {
        let start = self.headers(len, &mut out);
        fill(&mut out);
        let sum = checksum(&self.ends, &out[start..]);
        out[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
        out.into()
    }

    /// Makes a super-packet of headers, into an empty `out`, and a body that is to be cut at `mss`
    ///
    /// Nobody reads the body for that: checksums are the business of whoever cuts it.
    pub(super) fn encode_super(&self, body: Body, mss: usize, mut out: Vec<u8>) -> Parcel {
        let start = self.headers(body.len(), &mut out);
        let tcp = out.len() - start + body.len();
        let sum = partial(pseudo(self.ends.local.ip(), self.ends.remote.ip(), TCP, tcp));
        out[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
        // The header of IP is short, and the segment no longer than a packet.
        let gso = Some(Gso { size: mss as u16, transport: start as u16 });
        Parcel::new(Inner { bytes: out, gso }, body)
    }

    /// Appends all headers before `len` bytes of data; returns where TCP's begins
    fn headers(&self, len: usize, out: &mut Vec<u8>) -> usize {
        let tcp = HEADER + self.options.len() + len;
        self.ip_header(tcp, out);
        let start = out.len();
        out.extend_from_slice(&self.ends.local.port().to_be_bytes());
        out.extend_from_slice(&self.ends.remote.port().to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.ack.to_be_bytes());
        // Options are multiples of four bytes, at most 40 of them.
        let words = (HEADER + self.options.len()) / 4;
        out.extend_from_slice(&[(words as u8) << 4, self.flags]);
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.urgent.to_be_bytes());
        out.extend_from_slice(self.options);
        start
    }

    fn ip_header(&self, tcp: usize, out: &mut Vec<u8>) {
        match (self.ends.local.ip(), self.ends.remote.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let total = u16::try_from(V4_HEADER + tcp).unwrap_or(u16::MAX).to_be_bytes();
                let dont_fragment = 0x40;
                out.extend_from_slice(&[0x45, self.class, total[0], total[1], 0, 0]);
                out.extend_from_slice(&[dont_fragment, 0, HOPS, TCP, 0, 0]);
                out.extend_from_slice(&src.octets());
                out.extend_from_slice(&dst.octets());
                let sum = finish(add(0, out)).to_be_bytes();
                out[10..12].copy_from_slice(&sum);
            }
            (src, dst) => {
                let total = u16::try_from(tcp).unwrap_or(u16::MAX).to_be_bytes();
                out.extend_from_slice(&[0x60 | self.class >> 4, self.class << 4, 0, 0]);
                out.extend_from_slice(&[total[0], total[1], TCP, HOPS]);
                out.extend_from_slice(&octets(src));
                out.extend_from_slice(&octets(dst));
            }
        }
    }
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// Checksum over a segment and its pseudo header; zero where the segment contains the right one
fn checksum(ends: &Ends, segment: &[u8]) -> u16 {
    finish(add(pseudo(ends.local.ip(), ends.remote.ip(), TCP, segment.len()), segment))
}

const HEADER: usize = 20;
/// Where the flags are in it
const FLAGS: usize = 13;
/// Bits of the traffic class that belong to ECN
const ECN: u8 = 3;
/// Hop limit of what we write
const HOPS: u8 = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(v6: bool) -> Ends {
        let (local, remote) =
            if v6 { ("[fd00::1]:1000", "[fd00::2]:80") } else { ("10.0.0.1:1000", "10.0.0.2:80") };
        Ends { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    #[test]
    fn segment_with_one_wrong_bit_is_none() {
        for v6 in [false, true] {
            let segment = sample(ends(v6), &[1, 2, 3]);
            let mut bytes = segment.encode();
            assert!(Segment::parse(&Packet::parse(&bytes).unwrap(), None).is_some());

            let last = bytes.len() - 1;
            bytes[last] ^= 4;

            assert!(Segment::parse(&Packet::parse(&bytes).unwrap(), None).is_none());
        }
    }

    fn sample(ends: Ends, data: &[u8]) -> Segment<'_> {
        Segment {
            ends,
            seq: 1,
            ack: 2,
            flags: ACK | PSH,
            window: 3,
            urgent: 0,
            options: &[],
            data,
            class: 0xb8,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            data in proptest::collection::vec(any::<u8>(), 0..80),
            v6 in any::<bool>(), seq in any::<u32>(), window in any::<u16>(),
        ) {
            let segment = Segment { seq, window, options: &[1, 1, 1, 0], ..sample(ends(v6), &data) };
            let bytes = segment.encode();

            let read = Segment::parse(&Packet::parse(&bytes).unwrap(), None).unwrap();

            prop_assert_eq!(
                (read.ends, read.seq, read.ack, read.flags, read.window, read.data, read.class),
                (ends(v6), seq, 2, ACK | PSH, window, &data[..], 0xb8),
            );
            prop_assert_eq!(read.options, segment.options);
        }

        #[test]
        fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let _ = Segment::parse(&packet, None);
            }
        }
    }
}
