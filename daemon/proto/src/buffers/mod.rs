//! Buffers that are used again and again, so that packets cost no allocation.
//!
//! [`Buffers`] are for packets that are written. A packet that is read lies in a [`PacketBuffer`]; where most of it
//! is needed for longer, the buffer is kept in place of a copy, and whoever reads goes on with another one from the
//! [`Shelf`]. What waits until it leaves is [`Stowed`] in one way or the other.

mod shelf;

use core::ops::Deref;

use crate::ip::Share;

#[cfg(test)]
pub(crate) use self::shelf::FREE_LEAST;
pub(crate) use self::shelf::fills;
pub use self::shelf::{PacketBuffer, Shelf};

/// Buffers that are free at present
#[derive(Debug)]
pub struct Buffers {
    free: Vec<Vec<u8>>,
    most: usize,
}

impl Buffers {
    /// Begins with none; no more than `most` are ever kept
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { free: Vec::new(), most }
    }

    /// Returns an empty buffer, with room from earlier use where there is one
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// Takes back a buffer that nobody needs any more
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if self.free.len() < self.most {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}

/// Bytes that wait until they leave
#[derive(Debug)]
pub enum Stowed {
    /// In a buffer of their own
    Copied(Vec<u8>),
    /// Where they were read
    Kept(Share),
}

impl Deref for Stowed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Kept(bytes) => bytes.bytes(),
        }
    }
}

impl From<Vec<u8>> for Stowed {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Copied(bytes)
    }
}

impl Stowed {
    /// Returns the bytes, to be changed: a copy of them, if somebody else has them as well
    pub fn to_mut(&mut self) -> &mut [u8] {
        if let Self::Kept(bytes) = self
            && bytes.bytes_mut().is_none()
        {
            *self = Self::Copied(bytes.bytes().to_vec());
        }
        match self {
            Self::Copied(bytes) => bytes,
            Self::Kept(bytes) => bytes.bytes_mut().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_comes_back_empty_with_its_room() {
        let mut buffers = Buffers::new(1);
        let mut one = buffers.take();
        one.extend_from_slice(&[1; 1000]);
        buffers.give(one);

        let again = buffers.take();

        assert!(again.is_empty() && again.capacity() >= 1000);
    }

    #[test]
    fn no_more_are_kept_than_are_wanted() {
        let mut buffers = Buffers::new(3);
        (0..10).for_each(|_| buffers.give(Vec::with_capacity(10)));

        assert_eq!(buffers.free.len(), 3);
    }
}
