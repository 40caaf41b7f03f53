//! The header before each packet of a TUN with offload: `struct virtio_net_hdr` of Linux.
//!
//! It says what the kernel has left to us, or is to do: cut a super-packet into segments, or complete a
//! checksum. A checksum that is left over where nothing is to be cut is completed here, so that the
//! node sees ordinary packets and super-packets only.

use fastvpn_proto::ip::checksum::{add, finish};
use fastvpn_proto::ip::{Gso, Parcel};

/// Bytes of the header
pub(super) const LEN: usize = 10;

/// Reads what the kernel put before a packet, and completes that where it must be
///
/// Nothing where it asks for what nobody offered.
pub(super) fn read(header: [u8; LEN], packet: &mut [u8]) -> Option<Option<Gso>> {
    let [flags, kind, _, _, s0, s1, c0, c1, o0, o1] = header;
    let size = u16::from_ne_bytes([s0, s1]);
    let (start, offset) = (u16::from_ne_bytes([c0, c1]), u16::from_ne_bytes([o0, o1]));
    match kind & !ECN {
        NONE if flags & NEEDS_CHECKSUM != 0 => {
            complete(packet, start.into(), offset.into())?;
            Some(None)
        }
        NONE => Some(None),
        TCP_V4 | TCP_V6 | UDP_SEGMENTS if size > 0 => {
            let whole = packet.len().checked_sub(start.into())? <= usize::from(size);
            if flags & NEEDS_CHECKSUM == 0 {
                return None;
            }
            if whole {
                // It is one segment already.
                complete(packet, start.into(), offset.into())?;
                return Some(None);
            }
            Some(Some(Gso { size, transport: start }))
        }
        _ => None,
    }
}

/// Writes what the kernel is to do with a packet
pub(super) fn write(packet: &Parcel) -> [u8; LEN] {
    let Some(cutter) = packet.cutter() else { return [0; LEN] };
    let (kind, offset) = match (cutter.is_udp(), cutter.is_v4()) {
        (true, _) => (UDP_SEGMENTS, 6_u16),
        (false, true) => (TCP_V4, 16),
        (false, false) => (TCP_V6, 16),
    };
    let kind = if cutter.has_reduced_window() { kind | ECN } else { kind };
    let header = u16::try_from(cutter.header()).unwrap_or(u16::MAX).to_ne_bytes();
    let Gso { size, transport } = cutter.gso();
    let (size, start, offset) = (size.to_ne_bytes(), transport.to_ne_bytes(), offset.to_ne_bytes());
    [
        NEEDS_CHECKSUM,
        kind,
        header[0],
        header[1],
        size[0],
        size[1],
        start[0],
        start[1],
        offset[0],
        offset[1],
    ]
}

/// Tells whether a header has the kernel cut datagrams of UDP, which not all can
pub(super) fn cuts_udp(header: [u8; LEN]) -> bool {
    header[1] == UDP_SEGMENTS
}

/// Completes a checksum that covers the pseudo header so far
fn complete(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let segment = packet.get_mut(start..)?;
    let sum = finish(add(0, segment)).to_be_bytes();
    // Zero would say that a UDP datagram has none; all ones mean the same.
    let sum = if sum == [0, 0] { [0xff, 0xff] } else { sum };
    segment.get_mut(offset..offset + 2)?.copy_from_slice(&sum);
    Some(())
}

const NEEDS_CHECKSUM: u8 = 1;
const NONE: u8 = 0;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP_SEGMENTS: u8 = 5;
const ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use fastvpn_proto::ip::Inner;
    use fastvpn_proto::ip::checksum::{partial, pseudo};
    use fastvpn_proto::ip::numbers::{TCP, UDP};

    use super::*;

    /// Makes a UDP packet whose checksum is left to the device
    fn unfinished(len: usize) -> Vec<u8> {
        let mut packet = vec![7; 28 + len];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, UDP, 0, 0]);
        packet[2..4].copy_from_slice(&(28 + len as u16).to_be_bytes());
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[24..26].copy_from_slice(&(8 + len as u16).to_be_bytes());
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let sum = partial(pseudo(src, dst, UDP, 8 + len));
        packet[26..28].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn header(kind: u8, size: u16) -> [u8; LEN] {
        let size = size.to_ne_bytes();
        let (start, offset) = (20_u16.to_ne_bytes(), 6_u16.to_ne_bytes());
        [NEEDS_CHECKSUM, kind, 28, 0, size[0], size[1], start[0], start[1], offset[0], offset[1]]
    }

    #[test]
    fn checksum_that_is_left_over_is_completed() {
        for (kind, size) in [(NONE, 0), (UDP_SEGMENTS, 500)] {
            let mut packet = unfinished(101);

            assert_eq!(read(header(kind, size), &mut packet), Some(None));

            let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
            assert_eq!(finish(add(pseudo(src, dst, UDP, 109), &packet[20..])), 0);
        }
    }

    #[test]
    fn no_datagram_says_that_it_has_no_checksum() {
        let completed_with = |first: u16| {
            let mut packet = unfinished(100);
            packet[28..30].copy_from_slice(&first.to_be_bytes());
            assert_eq!(read(header(NONE, 0), &mut packet), Some(None));
            u16::from_be_bytes([packet[26], packet[27]])
        };

        // With that in its data, its sum comes to zero.
        assert_eq!(completed_with(completed_with(0)), 0xffff);
    }

    #[test]
    fn super_packet_is_read_as_it_was_written() {
        let mut packet = unfinished(3000);
        let gso = Gso { size: 1000, transport: 20 };
        let inner = Inner { bytes: packet.clone(), gso: Some(gso) };

        let header = write(&inner.clone().into());

        assert_eq!(read(header, &mut packet), Some(Some(gso)));
        assert_eq!((packet, write(&Parcel::default())), (inner.bytes, [0; LEN]));
    }

    #[test]
    fn extension_headers_do_not_hide_what_is_to_be_cut() {
        let mut bytes = vec![7; 40 + 8 + 8 + 3000];
        bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 60, 64]);
        bytes[4..6].copy_from_slice(&3016_u16.to_be_bytes());
        bytes[40..48].copy_from_slice(&[UDP, 0, 1, 4, 0, 0, 0, 0]);
        let inner = Inner { bytes, gso: Some(Gso { size: 1000, transport: 48 }) };

        let header = write(&inner.into());

        assert!(cuts_udp(header));
        let word = |at| u16::from_ne_bytes([header[at], header[at + 1]]);
        assert_eq!([word(2), word(4), word(6), word(8)], [56, 1000, 48, 6]);
    }

    #[test]
    fn segments_of_ipv6_are_not_taken_for_those_of_ipv4() {
        let mut bytes = vec![0; 60 + 3000];
        bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, TCP, 64]);
        bytes[4..6].copy_from_slice(&3020_u16.to_be_bytes());
        bytes[52] = 0x50;

        let header = write(&Inner { bytes, gso: Some(Gso { size: 1000, transport: 40 }) }.into());

        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        assert_eq!(header[..2], [NEEDS_CHECKSUM, TCP_V6]);
        assert_eq!([word(2), word(4), word(6), word(8)], [60, 1000, 40, 16]);
    }

    #[test]
    fn reduced_window_is_told_by_the_first_segment_alone() {
        let mut bytes = vec![0; 40 + 3000];
        bytes[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, TCP, 0, 0]);
        bytes[2..4].copy_from_slice(&3040_u16.to_be_bytes());
        bytes[32] = 0x50;
        let gso = Some(Gso { size: 1000, transport: 20 });
        for (flags, kind) in [(0x10, TCP_V4), (0x90, TCP_V4 | ECN)] {
            bytes[33] = flags;

            assert_eq!(write(&Inner { bytes: bytes.clone(), gso }.into())[1], kind);
        }
    }

    #[test]
    fn what_nobody_offered_is_refused() {
        let mut packet = unfinished(3000);
        assert_eq!(read(header(3, 1000), &mut packet), None);
        let mut no_sum = header(TCP_V4, 1000);
        no_sum[0] = 0;
        assert_eq!(read(no_sum, &mut packet), None);
        let mut beyond = header(NONE, 0);
        beyond[6..8].copy_from_slice(&5000_u16.to_ne_bytes());
        assert_eq!(read(beyond, &mut packet), None);
    }
}
