//! Joins packets of one flow that follow each other into super-packets.
//!
//! The opposite of `gso`, by the rules of Linux's generic receive offload: only what can be cut into
//! exactly the same packets again is joined. A packet with a wrong checksum is left as it is.

use super::Packet;
use super::checksum::{add, finish, pseudo};
use super::gso::{Gso, Inner, TCP_HEADER, UDP_HEADER, make_partial};
use super::numbers::{ACK, FIN, PSH, TCP, UDP};
use super::packet::{V4_HEADER, V6_HEADER};

/// What becomes of a packet that meets an earlier one
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Merged {
    /// It is part of the earlier one now
    Joined,
    /// It belongs to the same flow, so that it must stay behind; and no later one may go before it
    Behind,
    /// It has nothing to do with the earlier one
    Apart,
}

/// Joins `next` to `inner` if it goes on where that ends
#[must_use]
pub fn merge(inner: &mut Inner, next: &[u8]) -> Merged {
    let Some((transport, protocol)) = flow(next) else { return Merged::Apart };
    let same = |at: core::ops::Range<usize>| inner.bytes.get(at.clone()) == next.get(at);
    if !same(0..1) || !same(transport..transport + 4) || !same(addresses(transport)) {
        return Merged::Apart;
    }
    let header = match protocol {
        TCP => transport + usize::from(next[transport + 12] >> 4) * 4,
        _ => transport + UDP_HEADER,
    };
    let whole = header >= transport + if protocol == TCP { TCP_HEADER } else { UDP_HEADER };
    let fits = header <= next.len().min(inner.bytes.len());
    if !whole || !fits || !like(inner, next, transport, header) {
        return Merged::Behind;
    }
    let (payload, whole) = (next.len() - header, inner.bytes.len() - header);
    let size = inner.gso.map_or(whole, |gso| usize::from(gso.size));
    let fits = payload > 0 && payload <= size && whole > 0 && whole.is_multiple_of(size);
    let count = whole / size.max(1);
    if !fits || inner.bytes.len() + payload > MERGED_MAX || count >= SEGMENTS_MAX {
        return Merged::Behind;
    }
    let follows = protocol == UDP
        || seq(&inner.bytes, transport).wrapping_add(whole as u32) == seq(next, transport);
    let follows = follows && (transport == V6_HEADER || id_follows(&inner.bytes, next, count));
    // What was joined has no checksum of its own any more.
    let sound =
        is_sound(next, transport) && (inner.gso.is_some() || is_sound(&inner.bytes, transport));
    if !follows || !sound {
        return Merged::Behind;
    }
    inner.bytes.extend_from_slice(&next[header..]);
    if protocol == TCP {
        inner.bytes[transport + 13] |= next[transport + 13] & PSH;
    }
    set_lengths(&mut inner.bytes, transport, protocol);
    make_partial(&mut inner.bytes, transport);
    // Sizes of packets fit.
    inner.gso = Some(Gso { size: size as u16, transport: transport as u16 });
    Merged::Joined
}

/// Returns where the transport header begins, and the protocol, of what may be joined at all
fn flow(bytes: &[u8]) -> Option<(usize, u8)> {
    let (transport, protocol, least) = match bytes.first()? {
        // No options, no fragments.
        0x45 => {
            let whole = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]) & 0x3fff == 0;
            (V4_HEADER, *bytes.get(9).filter(|_| whole)?, TCP_HEADER)
        }
        first if first >> 4 == 6 => (V6_HEADER, *bytes.get(6)?, TCP_HEADER),
        _ => return None,
    };
    let least = if protocol == UDP { UDP_HEADER } else { least };
    (matches!(protocol, TCP | UDP) && bytes.len() >= transport + least)
        .then_some((transport, protocol))
}

fn addresses(transport: usize) -> core::ops::Range<usize> {
    if transport == V4_HEADER { 12..V4_HEADER } else { 8..V6_HEADER }
}

/// Tells whether headers differ only in what cutting would make different again
fn like(inner: &Inner, next: &[u8], transport: usize, header: usize) -> bool {
    let before = &inner.bytes;
    let ip = if transport == V4_HEADER {
        // Traffic class, flags, hops; ids count on.
        before[1] == next[1] && before[6..10] == next[6..10]
    } else {
        before[..4] == next[..4] && before[6..8] == next[6..8]
    };
    if !ip
        || header == transport + UDP_HEADER
            && before[if transport == V4_HEADER { 9 } else { 6 }] == UDP
    {
        return ip;
    }
    let (one, other) = (&before[transport..header], &next[transport..header]);
    let flags = (one[13], other[13]);
    one[8..13] == other[8..13]
        && one[14..16] == other[14..16]
        && one[18..] == other[18..]
        // Whoever pushes has no more for now; and nothing but ACK, PSH, FIN at the end.
        && flags.0 == ACK
        && flags.1 & !PSH == ACK
        && flags.1 & FIN == 0
}

fn seq(bytes: &[u8], transport: usize) -> u32 {
    let at = transport + 4;
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Tells whether a packet has the number that cutting would give it, or one that means nothing: those of
/// packets that are never cut into fragments (RFC 6864)
fn id_follows(first: &[u8], next: &[u8], count: usize) -> bool {
    let id = |bytes: &[u8]| u16::from_be_bytes([bytes[4], bytes[5]]);
    let whole = next[6] & DONT_FRAGMENT != 0;
    // No more than 64.
    id(next) == id(first).wrapping_add(count as u16) || whole && id(next) == id(first)
}

fn is_sound(bytes: &[u8], transport: usize) -> bool {
    let Ok(view) = Packet::parse(bytes) else { return false };
    let (header, segment) = bytes.split_at(transport);
    let udp = view.protocol() == UDP;
    let none = udp && segment[6..8] == [0, 0];
    // What lies behind a datagram is none of its data (RFC 9868).
    let more = udp && usize::from(u16::from_be_bytes([segment[4], segment[5]])) != segment.len();
    let sum = pseudo(view.src(), view.dst(), view.protocol(), segment.len());
    let ip = transport == V6_HEADER || finish(add(0, header)) == 0;
    ip && !none && !more && finish(add(sum, segment)) == 0
}

fn set_lengths(bytes: &mut [u8], transport: usize, protocol: u8) {
    // No more than MERGED_MAX.
    let total = bytes.len() as u16;
    if transport == V4_HEADER {
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes[10..12].fill(0);
        let sum = finish(add(0, &bytes[..V4_HEADER])).to_be_bytes();
        bytes[10..12].copy_from_slice(&sum);
    } else {
        bytes[4..6].copy_from_slice(&(total - V6_HEADER as u16).to_be_bytes());
    }
    if protocol == UDP {
        let len = (total - transport as u16).to_be_bytes();
        bytes[transport + 4..transport + 6].copy_from_slice(&len);
    }
}

const DONT_FRAGMENT: u8 = 0x40;
/// Longest super-packet
const MERGED_MAX: usize = 65_535;
/// Segments of one super-packet (Linux takes so many of UDP)
const SEGMENTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Parcel;
    use super::super::gso::testing::{is_whole, packet};
    use super::*;

    /// Joins packets as a queue would, and returns what it would hold
    fn joined(packets: &[Vec<u8>]) -> Vec<Inner> {
        let mut queue: Vec<Inner> = Vec::new();
        for next in packets {
            let met = queue.last_mut().map_or(Merged::Apart, |inner| merge(inner, next));
            if met != Merged::Joined {
                queue.push(next.clone().into());
            }
        }
        queue
    }

    fn cut(queue: &[Inner]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for inner in queue {
            let parcel = Parcel::from(inner.clone());
            parcel.each(&mut Vec::new(), |packet| out.push(packet.to_vec()));
        }
        out
    }

    #[test]
    fn segments_that_follow_each_other_are_joined_and_can_be_cut_again() {
        for v6 in [false, true] {
            let data = |of: u32| (0..1000).map(|at| (at * of) as u8).collect::<Vec<u8>>();
            let mut packets: Vec<_> =
                (0..5).map(|at| packet(v6, TCP, at * 1000, ACK, &data(at))).collect();
            packets.push(packet(v6, TCP, 5000, ACK | PSH, &data(9)[..300]));

            let queue = joined(&packets);

            assert_eq!(queue.len(), 1);
            let mut again = cut(&queue);
            assert!(again.iter().all(|packet| is_whole(packet)));
            if !v6 {
                // Ids count on from the first one.
                for (packet, before) in again.iter_mut().zip(&packets) {
                    packet[4..6].copy_from_slice(&before[4..6]);
                    packet[10..12].copy_from_slice(&before[10..12]);
                }
            }
            assert_eq!(again, packets);
        }
    }

    #[test]
    fn datagrams_of_one_size_are_joined_up_to_a_shorter_one() {
        for v6 in [false, true] {
            let sizes = [500, 500, 500, 200, 500];
            let packets: Vec<_> =
                sizes.iter().map(|size| packet(v6, UDP, 0, 0, &vec![*size as u8; *size])).collect();

            let queue = joined(&packets);

            let packets = queue.iter().map(|inner| Parcel::from(inner.clone()).packets());
            assert_eq!(packets.collect::<Vec<_>>(), [4, 1]);
            assert_eq!(cut(&queue).len(), 5);
            assert!(cut(&queue).iter().all(|packet| is_whole(packet)));
        }
    }

    proptest! {
        /// Whatever is joined is cut into the same packets again, but for numbers that mean nothing
        #[test]
        fn what_is_joined_is_cut_as_it_was(
            v6: bool, tcp: bool, sizes in prop::collection::vec(1..60_usize, 2..6),
            changes in prop::collection::vec((0..6_usize, 0..80_usize, any::<u8>()), 0..3),
        ) {
            let (protocol, mut seq, mut packets) = (if tcp { TCP } else { UDP }, 77, Vec::new());
            for (number, len) in sizes.iter().enumerate() {
                // Mostly of one size, or nothing would ever be joined.
                let len = if *len < 50 { 50 } else { *len };
                let mut next = packet(v6, protocol, seq, ACK, &vec![number as u8; len]);
                seq += len as u32;
                for (_, at, flip) in changes.iter().filter(|(which, ..)| *which == number) {
                    let at = at % next.len();
                    next[at] ^= flip;
                }
                renew(&mut next);
                packets.push(next);
            }

            let mut again = cut(&joined(&packets));

            for (packet, before) in again.iter_mut().zip(&packets) {
                let free = !v6 && packet.len() == before.len() && before[6] & DONT_FRAGMENT != 0;
                if free {
                    packet[4..6].copy_from_slice(&before[4..6]);
                    packet[10..12].copy_from_slice(&before[10..12]);
                }
            }
            prop_assert_eq!(again, packets);
        }

        #[test]
        fn rubbish_never_panics(
            one in prop::collection::vec(any::<u8>(), 0..90),
            other in prop::collection::vec(any::<u8>(), 0..90),
            size: u16, transport in 0..80_u16,
        ) {
            for first in [0x45, 0x60] {
                let shape = |bytes: &[u8]| {
                    let mut bytes = bytes.to_vec();
                    if let Some(byte) = bytes.first_mut() {
                        *byte = first;
                    }
                    bytes
                };
                let (mut one, other) = (Inner::from(shape(&one)), shape(&other));
                let _ = merge(&mut one, &other);
                one.gso = Some(Gso { size, transport });
                let _ = merge(&mut one, &other);
                let mut pieces = 0;
                Parcel::from(one).each(&mut Vec::new(), |_| pieces += 1);
                prop_assert!(pieces <= 90);
            }
        }
    }

    /// Makes the checksums of a packet right where it still has a shape in which it can have any
    fn renew(packet: &mut [u8]) {
        let Some((transport, protocol)) = flow(packet) else { return };
        if transport == V4_HEADER {
            packet[10..12].fill(0);
            let sum = finish(add(0, &packet[..V4_HEADER])).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
        }
        let Ok(view) = Packet::parse(packet) else { return };
        let start = pseudo(view.src(), view.dst(), protocol, packet.len() - transport);
        let at = transport + if protocol == TCP { 16 } else { 6 };
        packet[at..at + 2].fill(0);
        let sum = match finish(add(start, &packet[transport..])) {
            0 if protocol == UDP => 0xffff,
            sum => sum,
        };
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    #[test]
    fn header_that_says_it_is_too_short_harms_nobody() {
        let first = packet(false, TCP, 0, ACK, &[1; 1000]);
        for words in 0..5 {
            let mut next = packet(false, TCP, 1000, ACK, &[2; 1000]);
            next[32] = words << 4;
            renew(&mut next);

            assert_eq!(merge(&mut first.clone().into(), &next), Merged::Behind);
            assert_eq!(merge(&mut next.clone().into(), &next), Merged::Behind);
        }
    }

    #[test]
    fn header_that_is_broken_is_not_mended() {
        let mut first = packet(false, UDP, 0, 0, &[1; 500]);
        first[11] ^= 1;

        let met = merge(&mut first.into(), &packet(false, UDP, 0, 0, &[2; 500]));

        assert_eq!(met, Merged::Behind);
    }

    #[test]
    fn options_behind_a_datagram_are_not_taken_for_its_data() {
        for v6 in [false, true] {
            let whole = packet(v6, UDP, 0, 0, &[1; 500]);
            let mut options = whole.clone();
            let at = if v6 { 40 } else { 20 };
            // The last hundred bytes are options (RFC 9868), of which the sum makes up for the length.
            let len = 408_u16;
            options[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
            options[at + 408..at + 410].copy_from_slice(&(0x0101_u16 + 100).to_be_bytes());
            assert!(is_whole(&options));

            assert_eq!(merge(&mut whole.clone().into(), &options), Merged::Behind);
            assert_eq!(merge(&mut options.into(), &whole), Merged::Behind);
        }
    }

    /// Changes a word of a packet, and another one so that its sum stays
    fn change_word(packet: &mut [u8], one: usize, sum: usize) {
        packet[one + 1] += 1;
        let before = u16::from_be_bytes([packet[sum], packet[sum + 1]]);
        let after = if before == 0 { 0xfffe } else { before - 1 };
        packet[sum..sum + 2].copy_from_slice(&after.to_be_bytes());
    }

    #[test]
    fn what_does_not_follow_or_is_not_alike_stays_behind() {
        let first = packet(false, TCP, 0, ACK, &[1; 1000]);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut next = packet(false, TCP, 1000, ACK, &[2; 1000]);
            change(&mut next);
            merge(&mut first.clone().into(), &next)
        };
        let other = |seq, flags, len| packet(false, TCP, seq, flags, &vec![2; len]);

        assert_eq!(with(&|_| {}), Merged::Joined);
        assert_eq!(with(&|next| *next = other(2000, ACK, 1000)), Merged::Behind);
        assert_eq!(with(&|next| *next = other(1000, ACK, 1001)), Merged::Behind);
        assert_eq!(with(&|next| *next = other(1000, ACK | FIN, 100)), Merged::Behind);
        assert_eq!(with(&|next| *next = other(1000, ACK, 0)), Merged::Behind);
        // Another window, a broken checksum, other hops.
        assert_eq!(with(&|next| next[34] = 9), Merged::Behind);
        assert_eq!(with(&|next| next[500] ^= 1), Merged::Behind);
        assert_eq!(with(&|next| next[8] = 9), Merged::Behind);
        // Neither the next number nor the same.
        assert_eq!(with(&|next| next[5] = 99), Merged::Behind);
        // Another port; a fragment.
        assert_eq!(with(&|next| next[21] = 9), Merged::Apart);
        assert_eq!(with(&|next| next[6] = 0x20), Merged::Apart);
        // A header that the kernel would refuse; an urgent pointer, though nothing is urgent.
        assert_eq!(with(&|next| next[10] ^= 1), Merged::Behind);
        assert_eq!(with(&|next| change_word(next, 38, 36)), Merged::Behind);
        let mut pushed = packet(false, TCP, 0, ACK | PSH, &[1; 1000]).into();
        assert_eq!(merge(&mut pushed, &other(1000, ACK, 1000)), Merged::Behind);
    }
}
