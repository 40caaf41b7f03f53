//! Super-packets: many segments of one flow in one packet, and how they are cut.
//!
//! A device with segmentation offload (Linux: TSO, USO) hands over one packet with the payload of up
//! to 64 KiB of segments behind one header, and takes such packets. [`Gso`] says where they are to be
//! cut, and that the transport checksum covers the pseudo header alone so far. [`Cutter`] cuts them
//! for whoever cannot take them whole.

use super::checksum::{add, finish, partial, pseudo};
use super::numbers::{CWR, FIN, PSH, TCP, UDP};
use super::packet::V6_HEADER;
use super::{Body, Packet};

/// How a super-packet is to be cut
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gso {
    /// Bytes of payload in each segment; the last one may have fewer
    pub size: u16,
    /// Where the TCP or UDP header begins
    pub transport: u16,
}

/// An inner packet or super-packet that is whole but for what `gso` says
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Inner<B = Vec<u8>> {
    /// From the IP header on
    pub bytes: B,
    /// How it is to be cut; nothing where it is an ordinary packet
    pub gso: Option<Gso>,
}

impl<B> From<B> for Inner<B> {
    fn from(bytes: B) -> Self {
        Self { bytes, gso: None }
    }
}

/// Cuts a super-packet into its packets, one after the other
#[derive(Clone, Debug)]
pub struct Cutter<'a> {
    packet: Packet<'a>,
    /// Rest of the payload, where not all of it lies in the packet
    body: Option<&'a Body>,
    transport: usize,
    /// Where the payload begins
    header: usize,
    size: usize,
    kind: Kind,
    /// Bytes of payload in all
    payload: usize,
    /// Bytes of it that were cut off
    done: usize,
    count: u16,
    /// What all pseudo headers have in common
    addresses: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Tcp,
    Udp,
}

impl<'a> Cutter<'a> {
    /// Looks at a super-packet; nothing where it is neither TCP nor UDP, or its headers make no sense
    pub fn new(bytes: &'a [u8], gso: Gso) -> Option<Self> {
        Self::of(Packet::parse(bytes).ok()?, None, gso)
    }

    /// The same for a view whose payload goes on in a body
    pub(super) fn of(packet: Packet<'a>, body: Option<&'a Body>, gso: Gso) -> Option<Self> {
        let bytes = packet.bytes();
        let transport = usize::from(gso.transport);
        let size = usize::from(gso.size);
        let first = if packet.is_v4() { bytes.len() - packet.payload().len() } else { V6_HEADER };
        let plain = transport == first;
        let protocol =
            if plain { packet.protocol() } else { next_header(bytes, first, transport)? };
        let (kind, header) = match protocol {
            TCP => {
                let words = usize::from(bytes.get(transport + 12)? >> 4);
                (Kind::Tcp, transport + words.max(TCP_HEADER / 4) * 4)
            }
            UDP => (Kind::Udp, transport + UDP_HEADER),
            _ => return None,
        };
        let fits = size > 0 && transport >= first && header <= bytes.len();
        let fragment = packet.is_v4() && u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff != 0;
        let addresses = pseudo(packet.src(), packet.dst(), protocol, 0);
        (fits && !fragment).then(|| Self {
            packet,
            body,
            transport,
            header,
            size,
            kind,
            payload: bytes.len() - header + body.map_or(0, Body::len),
            done: 0,
            count: 0,
            addresses,
        })
    }

    /// Returns how the super-packet is to be cut
    pub fn gso(&self) -> Gso {
        // Both were made of such numbers.
        Gso { size: self.size as u16, transport: self.transport as u16 }
    }

    /// Returns how many packets there are in all
    pub fn segments(&self) -> usize {
        self.payload.div_ceil(self.size).max(1)
    }

    /// Returns how many bytes all headers have together
    pub fn header(&self) -> usize {
        self.header
    }

    /// Tells whether it is IPv4
    pub fn is_v4(&self) -> bool {
        self.packet.is_v4()
    }

    /// Tells whether it is cut into datagrams of UDP, and not into segments of TCP
    pub fn is_udp(&self) -> bool {
        self.kind == Kind::Udp
    }

    /// Tells whether its sender has reduced its window, which the first segment alone is to say (RFC 3168)
    pub fn has_reduced_window(&self) -> bool {
        self.kind == Kind::Tcp && self.packet.bytes()[self.transport + 13] & CWR != 0
    }

    /// Writes the next packet into `out`, which is cleared first; false where there is none
    pub fn next(&mut self, out: &mut Vec<u8>) -> bool {
        if self.count > 0 && self.done >= self.payload {
            return false;
        }
        let end = self.payload.min(self.done + self.size);
        let last = end == self.payload;
        out.clear();
        out.extend_from_slice(&self.packet.bytes()[..self.header]);
        self.copy(self.done, end, out);
        self.fix_ip(out);
        match self.kind {
            Kind::Tcp => self.fix_tcp(out, last),
            Kind::Udp => self.fix_udp(out),
        }
        self.done = end;
        self.count = self.count.wrapping_add(1);
        true
    }

    /// Appends the payload between two places
    fn copy(&self, start: usize, end: usize, out: &mut Vec<u8>) {
        let own = core::iter::once(&self.packet.bytes()[self.header..]);
        let mut at = 0;
        for piece in own.chain(self.body.into_iter().flat_map(Body::pieces)) {
            let inside = |place: usize| place.saturating_sub(at).min(piece.len());
            out.extend_from_slice(&piece[inside(start)..inside(end)]);
            at += piece.len();
        }
    }

    fn fix_ip(&self, out: &mut [u8]) {
        // A piece is never longer than the whole, which had a length.
        let len = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
        if !self.packet.is_v4() {
            let total = len(out.len() - V6_HEADER);
            out[4..6].copy_from_slice(&total);
            return;
        }
        let header = usize::from(out[0] & 0xf) * 4;
        let total = len(out.len());
        out[2..4].copy_from_slice(&total);
        let id = u16::from_be_bytes([out[4], out[5]]).wrapping_add(self.count).to_be_bytes();
        out[4..6].copy_from_slice(&id);
        out[10..12].fill(0);
        let sum = finish(add(0, &out[..header])).to_be_bytes();
        out[10..12].copy_from_slice(&sum);
    }

    fn fix_tcp(&self, out: &mut [u8], last: bool) {
        let segment = &mut out[self.transport..];
        let seq = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        // No more than 64 KiB.
        let seq = seq.wrapping_add(self.done as u32).to_be_bytes();
        segment[4..8].copy_from_slice(&seq);
        if !last {
            segment[13] &= !(FIN | PSH);
        }
        if self.count > 0 {
            segment[13] &= !CWR;
        }
        segment[16..18].fill(0);
        let sum = finish(add(self.addresses + segment.len() as u64, segment)).to_be_bytes();
        segment[16..18].copy_from_slice(&sum);
    }

    fn fix_udp(&self, out: &mut [u8]) {
        let segment = &mut out[self.transport..];
        let len = u16::try_from(segment.len()).unwrap_or(u16::MAX).to_be_bytes();
        segment[4..6].copy_from_slice(&len);
        segment[6..8].fill(0);
        let sum = match finish(add(self.addresses + segment.len() as u64, segment)) {
            // Zero would say that there is none (RFC 768).
            0 => 0xffff,
            sum => sum,
        };
        segment[6..8].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Makes a super-packet of a packet whose headers fit: the checksum is left to whoever cuts it
pub(super) fn make_partial(packet: &mut [u8], transport: usize) {
    let Ok(view) = Packet::parse(packet) else { return };
    let (protocol, len) = (view.protocol(), packet.len() - transport);
    let sum = partial(pseudo(view.src(), view.dst(), protocol, len)).to_be_bytes();
    let at = transport + if protocol == TCP { 16 } else { 6 };
    packet[at..at + 2].copy_from_slice(&sum);
}

/// Follows the extension headers of IPv6 up to a header
fn next_header(bytes: &[u8], mut at: usize, to: usize) -> Option<u8> {
    let mut next = *bytes.get(6)?;
    if bytes[0] >> 4 != 6 {
        return None;
    }
    while at < to {
        let skippable = matches!(next, HOP_BY_HOP | ROUTING | DESTINATION);
        let (kind, len) = (*bytes.get(at)?, *bytes.get(at + 1)?);
        if !skippable {
            return None;
        }
        next = kind;
        at += 8 * (usize::from(len) + 1);
    }
    (at == to).then_some(next)
}

pub(super) const TCP_HEADER: usize = 20;
pub(super) const UDP_HEADER: usize = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Makes a packet of a flow, whole
    pub(crate) fn packet(v6: bool, protocol: u8, seq: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let transport = if protocol == TCP { TCP_HEADER } else { UDP_HEADER } + data.len();
        let mut out = Vec::new();
        if v6 {
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&(transport as u16).to_be_bytes());
            out.extend_from_slice(&[protocol, 64]);
            out.extend_from_slice(&[0xfd; 16]);
            out.extend_from_slice(&[0xfc; 16]);
        } else {
            out.extend_from_slice(&[0x45, 0]);
            out.extend_from_slice(&(20 + transport as u16).to_be_bytes());
            out.extend_from_slice(&[0, 7, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = finish(add(0, &out)).to_be_bytes();
            out[10..12].copy_from_slice(&sum);
        }
        let start = out.len();
        out.extend_from_slice(&[3, 232, 0, 80]);
        if protocol == TCP {
            out.extend_from_slice(&seq.to_be_bytes());
            out.extend_from_slice(&[0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        } else {
            out.extend_from_slice(&(transport as u16).to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        out.extend_from_slice(data);
        let view = Packet::parse(&out).unwrap();
        let sum = pseudo(view.src(), view.dst(), protocol, transport);
        let sum = finish(add(sum, &out[start..])).to_be_bytes();
        let at = start + if protocol == TCP { 16 } else { 6 };
        out[at..at + 2].copy_from_slice(&sum);
        out
    }

    /// Tells whether all checksums are right
    pub(crate) fn is_whole(bytes: &[u8]) -> bool {
        let Ok(view) = Packet::parse(bytes) else { return false };
        let sum = pseudo(view.src(), view.dst(), view.protocol(), view.payload().len());
        let header = &bytes[..bytes.len() - view.payload().len()];
        let ip = !view.is_v4() || finish(add(0, header)) == 0;
        ip && finish(add(sum, view.payload())) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::Parcel;
    use super::super::numbers::{ACK, ICMP};
    use super::testing::{is_whole, packet};
    use super::*;

    fn cut(bytes: &[u8], size: u16) -> Vec<Vec<u8>> {
        let transport = if bytes[0] >> 4 == 4 { 20 } else { 40 };
        let inner = Inner { bytes: bytes.to_vec(), gso: Some(Gso { size, transport }) };
        let parcel = Parcel::from(inner);
        let mut out = Vec::new();
        parcel.each(&mut Vec::new(), |packet| out.push(packet.to_vec()));
        assert_eq!(out.len(), parcel.packets());
        out
    }

    #[test]
    fn tcp_is_cut_into_segments_that_follow_each_other() {
        let data: Vec<u8> = (0..2500_u32).map(|at| at as u8).collect();
        for v6 in [false, true] {
            let packets = cut(&packet(v6, TCP, u32::MAX - 500, ACK | PSH | FIN | CWR, &data), 1000);

            assert!(packets.iter().all(|packet| is_whole(packet)));
            let header = if v6 { 60 } else { 40 };
            let seen: Vec<u8> =
                packets.iter().flat_map(|packet| packet[header..].to_vec()).collect();
            assert_eq!(seen, data);
            let field = |packet: &Vec<u8>| {
                let seq = packet[header - 16..header - 12].try_into().unwrap();
                (u32::from_be_bytes(seq), packet[header - 7])
            };
            let fields: Vec<_> = packets.iter().map(field).collect();
            let start = u32::MAX - 500;
            assert_eq!(
                fields,
                [
                    (start, ACK | CWR),
                    (start.wrapping_add(1000), ACK),
                    (start.wrapping_add(2000), ACK | PSH | FIN),
                ]
            );
        }
    }

    #[test]
    fn udp_is_cut_into_datagrams_of_their_own() {
        for v6 in [false, true] {
            let packets = cut(&packet(v6, UDP, 0, 0, &[7; 2400]), 1000);

            assert!(packets.iter().all(|packet| is_whole(packet)));
            let header = if v6 { 48 } else { 28 };
            let sizes: Vec<_> = packets.iter().map(|packet| packet.len() - header).collect();
            assert_eq!(sizes, [1000, 1000, 400]);
        }
    }

    #[test]
    fn packets_of_ipv4_have_ids_that_count_on() {
        let packets = cut(&packet(false, UDP, 0, 0, &[7; 2400]), 1000);

        let id = |packet: &Vec<u8>| u16::from_be_bytes([packet[4], packet[5]]);
        assert_eq!(packets.iter().map(id).collect::<Vec<_>>(), [7, 8, 9]);
    }

    #[test]
    fn no_datagram_says_that_it_has_no_checksum() {
        let cut_with = |first: u16| {
            let data: Vec<u8> = first.to_be_bytes().into_iter().chain([7; 1500]).collect();
            let datagram = cut(&packet(false, UDP, 0, 0, &data), 1000).swap_remove(0);
            (u16::from_be_bytes([datagram[26], datagram[27]]), is_whole(&datagram))
        };
        let (sum, _) = cut_with(0);

        // With that in its data, its sum comes to zero.
        assert_eq!(cut_with(sum), (0xffff, true));
    }

    #[test]
    fn rubbish_is_not_cut() {
        let good = packet(false, TCP, 1, ACK, &[1; 100]);
        let gso = |size, transport| Gso { size, transport };
        assert!(Cutter::new(&good, gso(0, 20)).is_none());
        assert!(Cutter::new(&good, gso(10, 16)).is_none());
        assert!(Cutter::new(&good, gso(10, 500)).is_none());
        assert!(Cutter::new(&good[..30], gso(10, 20)).is_none());
        let mut icmp = good;
        icmp[9] = ICMP;
        assert!(Cutter::new(&icmp, gso(10, 20)).is_none());
    }

    #[test]
    fn extension_headers_are_followed() {
        let mut long = packet(true, TCP, 1, ACK, &[5; 300]);
        long.splice(40..40, [TCP, 0, 0, 0, 0, 0, 0, 0]);
        long[6] = DESTINATION;
        let len = (long.len() as u16 - 40).to_be_bytes();
        long[4..6].copy_from_slice(&len);
        let mut cutter = Cutter::new(&long, Gso { size: 200, transport: 48 }).unwrap();

        let (mut out, mut sizes) = (Vec::new(), Vec::new());
        while cutter.next(&mut out) {
            sizes.push(out.len());
        }

        assert_eq!(sizes, [40 + 8 + 20 + 200, 40 + 8 + 20 + 100]);
    }
}
