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
#[derive(Debug)]
pub struct PacketBuffer(Arc<[u8]>);

impl Default for PacketBuffer {
    fn default() -> Self {
        Self(core::iter::repeat_n(0, PACKET_MAX).collect())
    }
}

impl From<Vec<u8>> for PacketBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Deref for PacketBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for PacketBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // Nobody else has it, or it was exchanged.
        Arc::get_mut(&mut self.0).unwrap_or_default()
    }
}

/// Buffers for packets that are read, whose payload may stay where it is
#[derive(Debug, Default)]
pub struct Shelf {
    /// The one with the packet that is looked at now
    lent: Option<Arc<[u8]>>,
    free: Vec<PacketBuffer>,
}

impl Shelf {
    /// Lets the buffer of the packet that is looked at next be kept, until [`Shelf::renew`]
    pub fn lend(&mut self, buffer: &PacketBuffer) {
        self.lent = Some(Arc::clone(&buffer.0));
    }

    /// Ends that, and exchanges the buffer for one that is free if it was kept
    pub fn renew(&mut self, buffer: &mut PacketBuffer) {
        self.lent = None;
        if Arc::get_mut(&mut buffer.0).is_none() {
            *buffer = self.free.pop().unwrap_or_default();
        }
    }

    /// Keeps bytes of the packet that is looked at now where they are, if they fill most of their buffer
    ///
    /// So no more memory is kept than four thirds of the bytes.
    #[must_use]
    pub fn keep(&self, bytes: &[u8]) -> Option<Share> {
        let buffer = self.lent.as_ref().filter(|buffer| fills(bytes.len(), buffer))?;
        // If they lie elsewhere, the buffer has no such bytes.
        let start = bytes.as_ptr().addr().checked_sub(buffer.as_ptr().addr())?;
        Share::new(buffer, start..start.checked_add(bytes.len())?)
    }

    /// Takes back a buffer whose bytes nobody needs any more
    pub fn give(&mut self, bytes: Share) {
        let mut buffer = bytes.into_piece();
        if buffer.len() == PACKET_MAX
            && self.free.len() < FREE_MAX
            && Arc::get_mut(&mut buffer).is_some()
        {
            self.free.push(PacketBuffer(buffer));
        }
    }

    /// Gives back most of what is free: a stream that had use for many has none any more
    pub fn shrink(&mut self) {
        self.free.truncate(FREE_LEAST);
    }

    /// Returns how many are free
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }
}

/// Tells whether so many bytes are enough to keep all of a buffer for them
pub(crate) fn fills(bytes: usize, buffer: &[u8]) -> bool {
    bytes >= buffer.len() - buffer.len() / 4
}

/// Buffers for packets that are kept while nobody needs them: 8 MiB, as much as a long path may deliver at one time
const FREE_MAX: usize = 128;
/// The same where no stream is in a hurry
pub(crate) const FREE_LEAST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_fill_their_buffer_stay_where_they_are() {
        let (mut shelf, mut buffer) = (Shelf::default(), PacketBuffer::default());
        buffer.fill(7);
        let place = buffer.as_ptr();
        shelf.lend(&buffer);

        let share = shelf.keep(&buffer[40..60_000]).unwrap();
        shelf.renew(&mut buffer);

        assert!(buffer.as_ptr() != place && share.bytes().as_ptr() == place.wrapping_add(40));
        buffer.fill(9);
        assert!(buffer.len() == PACKET_MAX && share.bytes() == &[7; 59_960][..]);

        // It is the next one.
        shelf.give(share);
        shelf.lend(&buffer);
        let share = shelf.keep(&buffer[..60_000]).unwrap();
        shelf.renew(&mut buffer);
        assert!(buffer.as_ptr() == place && share.bytes() == &[9; 60_000][..]);
    }

    #[test]
    fn buffer_is_not_kept_for_few_bytes_or_for_those_of_another_one() {
        let (mut shelf, mut buffer) = (Shelf::default(), PacketBuffer::default());
        let (place, least) = (buffer.as_ptr(), PACKET_MAX - PACKET_MAX / 4);
        let other = PacketBuffer::default();
        assert!(shelf.keep(&buffer).is_none(), "nobody has lent it");

        shelf.lend(&buffer);
        assert!(shelf.keep(&buffer[..least]).is_some());
        assert!(shelf.keep(&buffer[..least - 1]).is_none() && shelf.keep(&other).is_none());
        shelf.renew(&mut buffer);

        assert!(buffer.as_ptr() == place && shelf.keep(&buffer).is_none());
    }

    #[test]
    fn shelf_takes_back_so_many_as_it_may_have_and_none_that_somebody_reads() {
        let mut shelf = Shelf::default();
        let share = |len| {
            let buffer: Arc<[u8]> = Arc::from(vec![0; len]);
            Share::new(&buffer, 0..len).unwrap()
        };
        let read = share(PACKET_MAX);
        shelf.give(read.clone());
        shelf.give(share(100));
        assert!(shelf.free.is_empty());

        for _ in 0..2 * FREE_MAX {
            shelf.give(share(PACKET_MAX));
        }
        assert_eq!((shelf.free.len(), read.bytes().len()), (FREE_MAX, PACKET_MAX));
        shelf.shrink();
        assert_eq!(shelf.free.len(), FREE_LEAST);
    }
}
