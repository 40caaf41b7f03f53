//! Buffers that are used again and again, so that packets cost no allocation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Buffers for what travels between shards: one takes them, another gives them back
#[derive(Clone, Debug)]
pub struct Stock(Arc<Mutex<Buffers>>);

impl Stock {
    /// Begins with none; no more than `most` are ever kept
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Buffers::new(most))))
    }

    /// See [`Buffers::take`]
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        self.lock().take()
    }

    /// See [`Buffers::give`]
    pub fn give(&self, buffer: Vec<u8>) {
        self.lock().give(buffer);
    }

    fn lock(&self) -> MutexGuard<'_, Buffers> {
        // They are whole between any two statements above, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
