//! Buffers of packets that a window keeps in place of copies of their bytes.
//!
//! They lie in a window between bytes that were copied, and [`Adopted`] tells where: for each offset of the stream
//! whether it is in one of them, and how many of the bytes before it are.
//!
//! # Contract
//!
//! - Buffers are adopted in the order of the stream. Nobody writes to them.
//! - Each is filled by its bytes for the most part, so that four thirds of them bound the memory; but for the
//!   first one, of which the window needs ever less, until it is trimmed.

use core::ops::Range;
use std::collections::VecDeque;

use crate::buffers::{Shelf, fills};
use crate::ip::Share;

/// Buffers in a window of a stream, by where their bytes belong
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub(super) list: VecDeque<Adoptee>,
    /// Bytes of all that there ever were
    total: u64,
}

/// A buffer, and where it is in the stream
#[derive(Debug)]
pub(super) struct Adoptee {
    /// Offset of its first byte
    start: u64,
    /// Bytes of all that were adopted before it
    before: u64,
    pub(super) bytes: Share,
}

/// Where bytes of a window lie
pub(super) enum Place<'a> {
    /// Some of those of a buffer
    Adopted(&'a Share, Range<usize>),
    /// They were copied, up to an offset
    Copied(u64),
}

impl Adopted {
    /// Adopts the bytes from an offset on, behind all others
    pub(super) fn push(&mut self, start: u64, bytes: Share) {
        let len = bytes.len() as u64;
        self.list.push_back(Adoptee { start, before: self.total, bytes });
        self.total += len;
    }

    /// Returns where the bytes from an offset to a later one begin to lie
    pub(super) fn place(&self, from: u64, to: u64) -> Place<'_> {
        match self.list.get(self.find(from)) {
            Some(next) if next.start < to => match next.index(from) {
                Some(first) => {
                    let last = next.index(to).unwrap_or(usize::MAX).min(next.bytes.len());
                    Place::Adopted(&next.bytes, first..last)
                }
                None => Place::Copied(next.start),
            },
            Some(_) | None => Place::Copied(to),
        }
    }

    /// Returns how many bytes before an offset are in buffers, counted from the beginning of the stream
    pub(super) fn before(&self, offset: u64) -> u64 {
        self.list
            .get(self.find(offset))
            .map_or(self.total, |next| next.before + offset.saturating_sub(next.start))
    }

    /// Gives back the buffers that lie before an offset
    pub(super) fn advance(&mut self, base: u64, shelf: &mut Shelf) {
        while self.list.front().is_some_and(|first| first.end() <= base) {
            self.list.pop_front().into_iter().for_each(|first| shelf.give(first.bytes));
        }
    }

    /// Gives all of them back, for good
    pub(super) fn clear(&mut self, shelf: &mut Shelf) {
        self.list.drain(..).for_each(|adoptee| shelf.give(adoptee.bytes));
        self.leave(shelf);
    }

    /// Copies what is left of the first buffer, from an offset on, where that fills it no more for the most part
    ///
    /// No others are needed soon.
    pub(super) fn trim(&mut self, base: u64, shelf: &mut Shelf) {
        self.leave(shelf);
        let Some(first) = self.list.front_mut() else { return };
        let bytes = first.index(base).and_then(|gone| first.bytes.bytes().get(gone..));
        let Some(bytes) = bytes.filter(|bytes| !fills(bytes.len(), first.bytes.piece())) else {
            return;
        };
        let Some(copy) = Share::new(&bytes.into(), 0..bytes.len()) else { return };
        shelf.give(core::mem::replace(&mut first.bytes, copy));
        first.before += base - first.start;
        first.start = base;
    }

    /// Leaves the shelf as it was before
    fn leave(&self, shelf: &mut Shelf) {
        if self.total > 0 {
            shelf.shrink();
        }
    }

    /// Returns how much memory the buffers have
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.list.iter().map(|adoptee| adoptee.bytes.piece().len()).sum()
    }

    /// Returns the first one that ends behind an offset
    fn find(&self, offset: u64) -> usize {
        match self.list.front() {
            None => 0,
            // What is asked for most.
            Some(first) if offset < first.end() => 0,
            Some(_) => self.list.partition_point(|adoptee| adoptee.end() <= offset),
        }
    }
}

impl Adoptee {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Returns the number of the byte at an offset, which is not before the first
    fn index(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.start)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::near::Near;
    use super::super::pool::Pool;
    use crate::buffers::PacketBuffer;
    use crate::limits::PACKET_MAX;

    const FIRST: usize = 512 * 1024;

    fn begin(pool: &mut Pool) -> Near {
        pool.take(FIRST as u64);
        let mut near = Near::new(0, FIRST);
        near.credit = 1 + FIRST as u64;
        near
    }

    /// Takes a super-packet of so many bytes where it was read; tells whether its buffer was kept
    fn read(near: &mut Near, len: usize, byte: u8, pool: &mut Pool) -> bool {
        let mut buffer = PacketBuffer::default();
        buffer.put(&vec![byte; 40 + len]);
        let place = buffer.as_ptr();
        pool.shelf.lend(&buffer);
        near.on_data(near.kept.edge(), &buffer[40..40 + len], pool);
        pool.shelf.renew(&mut buffer);
        buffer.as_ptr() != place
    }

    #[test]
    fn super_packet_stays_where_it_was_read_and_nothing_said_again_changes_it() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        near.on_data(1, &[1; 100], &mut pool);
        assert!(read(&mut near, 60_000, 2, &mut pool) && !read(&mut near, 30_000, 3, &mut pool));
        // Behind a gap, and what is said again with it, has to be copied.
        near.on_data(near.kept.edge() + 500, &[5; 200], &mut pool);
        assert!(!read(&mut near, 60_000, 4, &mut pool) && near.kept.gaps() == 0);

        near.on_data(1, &[9; 150_090], &mut pool);

        let mut seen = Vec::new();
        near.kept.read(1, 1 << 20, &mut seen);
        assert_eq!(seen.len(), 150_100);
        let parts = [(0..100, 1), (100..60_100, 2), (60_100..90_100, 3)];
        assert!(
            parts.into_iter().all(|(range, byte)| seen[range].iter().all(|seen| *seen == byte))
        );
        assert!(seen[90_100..150_090].iter().all(|seen| [4, 5].contains(seen)));
    }

    #[test]
    fn buffers_of_super_packets_go_round_and_take_a_third_more_than_was_promised_at_most() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        let (mut buffer, mut places) = (PacketBuffer::default(), BTreeSet::new());
        buffer.put(&[7; PACKET_MAX]);
        for round in 0..500 {
            places.insert(buffer.as_ptr());
            let len = 50_000 + round % 7 * 2000;
            pool.shelf.lend(&buffer);
            let whole = near.on_data(near.kept.edge(), &buffer[40..40 + len], &mut pool);
            pool.shelf.renew(&mut buffer);
            near.sent = near.kept.edge();
            let promised = pool.leave();
            assert!(near.kept.room() <= promised / 3 * 4 + PACKET_MAX, "{}", near.kept.room());
            // The other node gives no more than there is.
            if !whole && round < 450 {
                near.credit = near.kept.edge() + FIRST as u64;
                near.on_state(near.sent as u32, near.credit as u32, &mut pool).unwrap();
            }
            near.follow(&mut pool);
        }

        // As many as there were at one time.
        assert!((5..15).contains(&places.len()), "{}", places.len());
        assert!(near.kept.room() > FIRST);
        near.release(&mut pool);
        assert_eq!((near.kept.room(), pool.leave()), (0, 0));
        // And all of them are for others now.
        let mut others = Vec::new();
        for _ in 1..places.len() {
            pool.shelf.lend(&buffer);
            others.extend(pool.shelf.keep(&buffer));
            pool.shelf.renew(&mut buffer);
            assert!(places.contains(&buffer.as_ptr()));
        }
    }

    #[test]
    fn kernel_that_rests_keeps_no_buffer_of_which_little_is_needed() {
        let mut pool = Pool::new(256 << 20);
        let mut near = begin(&mut pool);
        assert!(read(&mut near, 60_000, 1, &mut pool) && read(&mut near, 60_000, 2, &mut pool));
        near.sent = near.kept.edge();
        near.on_state(59_001, near.credit as u32, &mut pool).unwrap();
        assert_eq!(near.kept.room(), 2 * PACKET_MAX);

        near.rest(&mut pool);

        assert_eq!(near.kept.room(), 1000 + PACKET_MAX);
        let mut seen = Vec::new();
        near.kept.read(59_001, 1 << 20, &mut seen);
        assert!(seen[..1000] == [1; 1000] && seen[1000..] == [2; 60_000]);
    }
}
