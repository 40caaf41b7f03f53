//! Buffers that are used again and again, so that packets cost no allocation.

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
