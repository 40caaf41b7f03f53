//! Packets that are read, and may stay where they are.
//!
//! # Contract
//!
//! - Whoever reads lends its [`PacketBuffer`] to the [`Shelf`] while the packet in it is looked at, and has a buffer
//!   that nobody else reads when that ends ([`Shelf::renew`]).
//! - Bytes are kept where they fill most of their buffer, so that the memory of all that is kept is four thirds of
//!   its bytes at most.

use core::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::ip::Share;
use crate::limits::PACKET_MAX;

/// Memory for one packet from a device, which nobody else has
///
/// It has a small part for ordinary packets, so that one that is kept takes no more memory with it than it needs, and
/// a large one. A packet is read into the small part first, and what does not fit there goes on in the large one,
/// behind room for the rest: a packet that fits lies in the small part alone, any other in the large one, whole.
#[derive(Debug)]
pub struct PacketBuffer {
    /// No longer than the large one
    small: Arc<[u8]>,
    large: Arc<[u8]>,
    /// Bytes of the packet in it
    len: usize,
}

/// Which part of a buffer a packet lies in
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Small,
    Large,
}

impl Default for PacketBuffer {
    /// Makes one whose small part has no room
    fn default() -> Self {
        Self::for_mtu(0)
    }
}

/// A packet that fills a large part, for tests
impl From<Vec<u8>> for PacketBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { small: Arc::default(), large: bytes.into(), len }
    }
}

/// The packet in it
impl Deref for PacketBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = match self.part() {
            Part::Small => &self.small,
            Part::Large => &self.large,
        };
        bytes.get(..self.len).unwrap_or(bytes)
    }
}

impl DerefMut for PacketBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        let bytes = match self.part() {
            Part::Small => own(&mut self.small),
            Part::Large => own(&mut self.large),
        };
        bytes.get_mut(..len).unwrap_or_default()
    }
}

impl PacketBuffer {
    /// Makes one for a device whose packets have up to so many bytes, where they are no super-packets
    #[must_use]
    pub fn for_mtu(mtu: u16) -> Self {
        Self { small: new_buffer(mtu.into()), large: new_buffer(PACKET_MAX), len: 0 }
    }

    /// Returns the pieces of memory that the next packet is to be read into, in this order
    pub fn pieces(&mut self) -> [&mut [u8]; 2] {
        let room = self.small.len();
        let (small, large) = (own(&mut self.small), own(&mut self.large));
        [small, large.get_mut(room..).unwrap_or_default()]
    }

    /// Has a packet of `len` bytes in it that was read into its pieces, as one piece; returns it
    pub fn on_read(&mut self, len: usize) -> &mut [u8] {
        self.len = len.min(self.large.len());
        if self.part() == Part::Large
            && let Some(room) = own(&mut self.large).get_mut(..self.small.len())
        {
            room.copy_from_slice(&self.small);
        }
        self
    }

    /// Has a packet in it, as if it was read
    pub fn put(&mut self, packet: &[u8]) {
        let mut rest = packet;
        for piece in self.pieces() {
            let (first, more) = rest.split_at(piece.len().min(rest.len()));
            piece[..first.len()].copy_from_slice(first);
            rest = more;
        }
        self.on_read(packet.len() - rest.len());
    }

    fn part(&self) -> Part {
        if self.len > self.small.len() { Part::Large } else { Part::Small }
    }
}

/// Packets that are read, and may stay in their buffers
#[derive(Debug)]
pub struct Shelf {
    /// What the packet that is looked at now lies in
    lent: Option<(Part, Arc<[u8]>)>,
    small: Stock,
    large: Stock,
}

/// Parts of one length that are free
#[derive(Debug)]
struct Stock {
    len: usize,
    free: Vec<Arc<[u8]>>,
    /// How many there are at most
    most: usize,
}

impl Default for Shelf {
    fn default() -> Self {
        Self { lent: None, small: Stock::small(0), large: Stock::new(PACKET_MAX, FREE_MAX) }
    }
}

impl Shelf {
    /// Lets the packet in a buffer, which is looked at next, be kept, until [`Shelf::renew`]
    pub fn lend(&mut self, buffer: &PacketBuffer) {
        if self.small.len != buffer.small.len() {
            // Another device.
            self.small = Stock::small(buffer.small.len());
        }
        let part = buffer.part();
        let bytes = match part {
            Part::Small => &buffer.small,
            Part::Large => &buffer.large,
        };
        self.lent = Some((part, Arc::clone(bytes)));
    }

    /// Ends that, and exchanges what was kept of the buffer for what is free
    pub fn renew(&mut self, buffer: &mut PacketBuffer) {
        self.lent = None;
        let (bytes, stock) = match buffer.part() {
            Part::Small => (&mut buffer.small, &mut self.small),
            Part::Large => (&mut buffer.large, &mut self.large),
        };
        if Arc::get_mut(bytes).is_none() {
            *bytes = stock.take();
        }
    }

    /// Keeps bytes of the packet that is looked at now where they are, if they fill most of a large part
    ///
    /// So no more memory is kept than four thirds of the bytes. Of ordinary packets nothing is: there would be many of
    /// them in a window, for which pieces of its own are better.
    #[must_use]
    pub fn keep(&self, bytes: &[u8]) -> Option<Share> {
        let (_, part) = self.lent.as_ref().filter(|(part, _)| *part == Part::Large)?;
        kept(part, bytes)
    }

    /// Keeps the packet that is looked at now where it is, if it fills most of the part that it lies in
    ///
    /// So no more memory is kept than four thirds of the bytes.
    #[must_use]
    pub fn keep_packet(&self, packet: &[u8]) -> Option<Share> {
        let (_, part) = self.lent.as_ref()?;
        kept(part, packet)
    }

    /// Takes back a part whose bytes nobody needs any more
    pub fn give(&mut self, bytes: Share) {
        let part = bytes.into_piece();
        let stock = if part.len() == PACKET_MAX { &mut self.large } else { &mut self.small };
        stock.give(part);
    }

    /// Gives back most of the large parts that are free: a stream that had use for many has none any more
    pub fn shrink(&mut self) {
        self.large.free.truncate(FREE_LEAST);
    }

    /// Returns how many large parts are free
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.large.free.len()
    }

    /// Returns how many small parts are free
    #[cfg(test)]
    pub(crate) fn free_small(&self) -> usize {
        self.small.free.len()
    }
}

impl Stock {
    fn new(len: usize, most: usize) -> Self {
        Self { len, free: Vec::new(), most }
    }

    fn small(len: usize) -> Self {
        Self::new(len, SMALL_BYTES / len.max(1))
    }

    fn take(&mut self) -> Arc<[u8]> {
        self.free.pop().unwrap_or_else(|| new_buffer(self.len))
    }

    /// Takes back what is as long as all others, and nobody reads
    fn give(&mut self, mut part: Arc<[u8]>) {
        if part.len() == self.len
            && self.free.len() < self.most
            && Arc::get_mut(&mut part).is_some()
        {
            self.free.push(part);
        }
    }
}

fn new_buffer(len: usize) -> Arc<[u8]> {
    core::iter::repeat_n(0, len).collect()
}

/// Returns memory that nobody else has, or it was exchanged
fn own(bytes: &mut Arc<[u8]>) -> &mut [u8] {
    Arc::get_mut(bytes).unwrap_or_default()
}

/// Shares bytes of a part that they fill for the most part
fn kept(part: &Arc<[u8]>, bytes: &[u8]) -> Option<Share> {
    if !fills(bytes.len(), part) {
        return None;
    }
    // If they lie elsewhere, the part has no such bytes.
    let start = bytes.as_ptr().addr().checked_sub(part.as_ptr().addr())?;
    Share::new(part, start..start.checked_add(bytes.len())?)
}

/// Tells whether so many bytes are enough to keep all of a buffer for them
pub(crate) fn fills(bytes: usize, buffer: &[u8]) -> bool {
    bytes >= buffer.len() - buffer.len() / 4
}

/// Large parts that are kept while nobody needs them: 8 MiB, as much as a long path may deliver at one time
const FREE_MAX: usize = 128;
/// The same where no stream is in a hurry
pub(crate) const FREE_LEAST: usize = 16;
/// Bytes of small parts that are kept while nobody needs them
const SMALL_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1400;

    /// A packet of so many bytes that repeat nowhere
    fn packet(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    #[test]
    fn packet_lies_in_one_piece_in_the_small_part_if_it_fits() {
        for mtu in [0, 1, MTU, u16::MAX] {
            let mut buffer = PacketBuffer::for_mtu(mtu);
            let [small, large] = buffer.pieces().map(|piece| piece.as_ptr());
            let first = usize::from(mtu);
            assert_eq!(buffer.pieces().map(|piece| piece.len()), [first, PACKET_MAX - first]);
            let around = [first.saturating_sub(1), first, first + 1, 2 * first, 9000, PACKET_MAX];
            for len in around.into_iter().filter(|len| *len <= PACKET_MAX) {
                buffer.put(&[0xee; PACKET_MAX]);

                buffer.put(&packet(len));

                assert!(*buffer == packet(len), "{len} of {mtu}");
                let place = if len > first { large.wrapping_sub(first) } else { small };
                assert_eq!(buffer.as_ptr(), place, "{len} of {mtu}");
                buffer[..].fill(3);
                assert!(*buffer == vec![3; len]);
            }
        }
    }

    #[test]
    fn device_that_says_it_has_read_more_than_there_is_room_for_has_read_what_there_is() {
        let mut buffer = PacketBuffer::for_mtu(MTU);
        for len in [PACKET_MAX + 1, usize::MAX] {
            assert_eq!(buffer.on_read(len).len(), PACKET_MAX);
        }
        buffer.put(&packet(PACKET_MAX + 1));
        assert!(*buffer == packet(PACKET_MAX));
    }

    #[test]
    fn bytes_that_fill_their_buffer_stay_where_they_are() {
        let (mut shelf, mut buffer) = (Shelf::default(), PacketBuffer::for_mtu(MTU));
        buffer.put(&[7; PACKET_MAX]);
        let place = buffer.as_ptr();
        shelf.lend(&buffer);

        let share = shelf.keep(&buffer[40..60_000]).unwrap();
        shelf.renew(&mut buffer);

        assert!(buffer.as_ptr() != place && share.bytes().as_ptr() == place.wrapping_add(40));
        buffer.put(&[9; PACKET_MAX]);
        assert!(buffer.len() == PACKET_MAX && share.bytes() == &[7; 59_960][..]);

        // It is the next one.
        shelf.give(share);
        shelf.lend(&buffer);
        let share = shelf.keep(&buffer[..60_000]).unwrap();
        shelf.renew(&mut buffer);
        assert!(buffer.as_ptr() == place && share.bytes() == &[9; 60_000][..]);
    }

    #[test]
    fn ordinary_packet_takes_the_small_part_with_it_and_the_next_is_read_elsewhere() {
        let (mut shelf, mut buffer) = (Shelf::default(), PacketBuffer::for_mtu(MTU));
        let large = buffer.pieces()[1].as_ptr();
        let mut kept = Vec::new();
        for len in [1400, 1050, 1228] {
            buffer.put(&packet(len));
            let place = buffer.as_ptr();
            shelf.lend(&buffer);
            kept.push((len, shelf.keep_packet(&buffer).unwrap()));
            shelf.renew(&mut buffer);
            assert!(kept.iter().all(|(_, kept)| kept.piece().len() == 1400));
            assert!(buffer.as_ptr() != place && buffer.pieces()[1].as_ptr() == large);
        }

        buffer.put(&[0xee; PACKET_MAX]);

        assert!(kept.iter().all(|(len, kept)| kept.bytes() == packet(*len)));
        let last = kept[2].1.bytes().as_ptr();
        kept.into_iter().for_each(|(_, kept)| shelf.give(kept));
        assert_eq!((shelf.free_small(), shelf.free()), (3, 0));
        buffer.put(&packet(1400));
        shelf.lend(&buffer);
        let _kept = shelf.keep_packet(&buffer);
        shelf.renew(&mut buffer);
        assert_eq!((shelf.free_small(), buffer.as_ptr()), (2, last));
    }

    #[test]
    fn buffer_is_not_kept_for_few_bytes_or_for_those_of_another_one() {
        let (mut shelf, mut buffer) = (Shelf::default(), PacketBuffer::for_mtu(MTU));
        let mut other = PacketBuffer::for_mtu(MTU);
        for (len, least) in [(PACKET_MAX, PACKET_MAX - PACKET_MAX / 4), (1400, 1050)] {
            buffer.put(&packet(len));
            other.put(&packet(len));
            let place = buffer.as_ptr();
            assert!(shelf.keep_packet(&buffer).is_none(), "nobody has lent it");

            shelf.lend(&buffer);
            assert!(shelf.keep_packet(&buffer[..least]).is_some());
            assert!(shelf.keep_packet(&buffer[..least - 1]).is_none());
            assert!(shelf.keep_packet(&other).is_none());
            shelf.renew(&mut buffer);

            assert!(buffer.as_ptr() == place && shelf.keep_packet(&buffer).is_none());
        }
    }

    #[test]
    fn stream_keeps_large_parts_alone() {
        let mut shelf = Shelf::default();
        let mut buffer = PacketBuffer::for_mtu(MTU);
        for (len, keeps) in [(1400, false), (1401, false), (PACKET_MAX, true)] {
            buffer.put(&packet(len));
            shelf.lend(&buffer);
            assert_eq!(shelf.keep(&buffer).is_some(), keeps, "{len}");
            shelf.renew(&mut buffer);
        }
    }

    #[test]
    fn shelf_takes_back_so_many_as_it_may_have_and_none_that_somebody_reads() {
        let mut shelf = Shelf::default();
        shelf.lend(&PacketBuffer::for_mtu(MTU));
        let share = |len| Share::new(&new_buffer(len), 0..len).unwrap();
        for (len, most) in [(PACKET_MAX, FREE_MAX), (1400, SMALL_BYTES / 1400)] {
            let read = share(len);
            shelf.give(read.clone());
            shelf.give(share(len - 1));
            shelf.give(share(0));
            assert!(
                !(shelf.large.free.iter().chain(&shelf.small.free)).any(|one| one.len() == len)
            );

            for _ in 0..2 * most {
                shelf.give(share(len));
            }
            let free = if len == PACKET_MAX { shelf.free() } else { shelf.free_small() };
            assert_eq!((free, read.bytes().len()), (most, len));
        }

        shelf.shrink();
        assert_eq!((shelf.free(), shelf.free_small()), (FREE_LEAST, SMALL_BYTES / 1400));
    }

    #[test]
    fn small_parts_of_a_device_that_is_gone_go_as_well() {
        let mut shelf = Shelf::default();
        let mut stays = None;
        let devices = [(1400, 0), (1400, 0), (1400, 1), (1280, 0), (1280, 0), (1280, 1), (1400, 0)];
        for (mtu, free) in devices {
            let mut buffer = PacketBuffer::for_mtu(mtu);
            buffer.put(&packet(mtu.into()));
            shelf.lend(&buffer);
            assert_eq!(shelf.free_small(), free, "{mtu}");
            let kept = shelf.keep_packet(&buffer);
            shelf.renew(&mut buffer);
            assert_eq!(buffer.pieces()[0].len(), mtu.into());

            // What waits longer than its device is there is of no use any more.
            stays.replace(kept.unwrap()).into_iter().for_each(|kept| shelf.give(kept));
            assert!(shelf.small.free.iter().all(|part| part.len() == mtu.into()));
        }
    }
}
