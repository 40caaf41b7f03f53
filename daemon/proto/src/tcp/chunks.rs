//! A window of bytes in pieces of one size: what leaves at the front is used again at the end.
//!
//! So a stream that keeps little at a time goes through little memory, however long its window may be,
//! and what it goes through stays in the processor's caches. A short window has one short piece. Pieces that
//! are free are never more than were in use at one time, so that what was promised bounds them as well.

use std::collections::VecDeque;

/// A window of bytes
#[derive(Debug, Default)]
pub(super) struct Chunks {
    list: VecDeque<Vec<u8>>,
    /// Pieces that are free, the one used last at the end
    free: Vec<Vec<u8>>,
    /// Bytes of the first piece that are gone
    skip: usize,
    len: usize,
    /// Most bytes that there were at one time: so many were promised
    peak: usize,
    /// Bytes that went through
    passed: u64,
}

impl Chunks {
    /// Writes bytes at a place, which may lie beyond the end
    pub(super) fn write(&mut self, at: usize, mut data: &[u8]) {
        let mut place = self.skip + at;
        self.len = self.len.max(at + data.len());
        self.peak = self.peak.max(self.len);
        while !data.is_empty() {
            let (index, from) = (place / CHUNK, place % CHUNK);
            while self.list.len() <= index {
                self.list.push_back(self.free.pop().unwrap_or_default());
            }
            let (now, rest) = data.split_at(data.len().min(CHUNK - from));
            let chunk = &mut self.list[index];
            grow(chunk, from + now.len());
            if chunk.len() == from {
                chunk.extend_from_slice(now);
            } else {
                if chunk.len() < from + now.len() {
                    chunk.resize(from + now.len(), 0);
                }
                chunk[from..from + now.len()].copy_from_slice(now);
            }
            place += now.len();
            data = rest;
        }
    }

    /// Appends the bytes between two places that were written
    pub(super) fn read(&self, start: usize, end: usize, out: &mut Vec<u8>) {
        let (mut place, end) = (self.skip + start, self.skip + end);
        while place < end {
            let from = place % CHUNK;
            let upto = (from + end - place).min(CHUNK);
            let Some(bytes) = self.list.get(place / CHUNK).and_then(|chunk| chunk.get(from..upto))
            else {
                return;
            };
            out.extend_from_slice(bytes);
            place += upto - from;
        }
    }

    /// Forgets so many bytes at the front
    pub(super) fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.len);
        self.len -= bytes;
        self.passed = self.passed.saturating_add(bytes as u64);
        self.skip += bytes;
        while self.skip >= CHUNK || self.len == 0 && !self.list.is_empty() {
            self.skip = self.skip.saturating_sub(CHUNK);
            let Some(mut chunk) = self.list.pop_front() else { break };
            let had = (self.peak / CHUNK + 1).saturating_sub(self.list.len());
            let most = if self.len > 0 { had.min(FREE_MAX) } else { self.spare(&chunk) };
            if self.free.len() < most {
                chunk.clear();
                self.free.push(chunk);
            }
        }
        if self.len == 0 {
            // Whoever is silent needs no memory; whoever empties it time and again would ask for it as often.
            self.skip = 0;
            while let Some(last) = self.free.pop() {
                if self.free.len() < self.spare(&last) {
                    self.free.push(last);
                    break;
                }
            }
        }
    }

    /// Returns how many pieces are kept where there is nothing, if this is the last of them
    fn spare(&self, last: &Vec<u8>) -> usize {
        let pieces = match self.peak / CHUNK {
            0 => usize::from(last.capacity() <= self.peak + self.peak / 2),
            _ => self.peak.div_ceil(CHUNK).min(FREE_BULK),
        };
        if self.passed >= BULK { pieces } else { 0 }
    }

    /// Returns how many bytes there are, gaps included
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Makes room in a piece for `len` bytes, or twice what it has, but never for more than a piece
fn grow(chunk: &mut Vec<u8>, len: usize) {
    if chunk.capacity() < len {
        let room = (2 * chunk.capacity()).clamp(len, CHUNK);
        chunk.reserve_exact(room - chunk.len());
    }
}

/// Bytes of one piece
const CHUNK: usize = 16 * 1024;
/// Pieces that are kept for later
const FREE_MAX: usize = 16;
/// The same while there is nothing, of a stream that has carried much
const FREE_BULK: usize = 4;
/// Bytes that are much
const BULK: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_are_like_one_row_of_bytes(
            steps in proptest::collection::vec((0..40_000_usize, 0..50_000_usize, 0..60_000_usize), 1..30),
        ) {
            let (mut chunks, mut row) = (Chunks::default(), Vec::new());
            for (number, (at, len, gone)) in steps.into_iter().enumerate() {
                let data: Vec<u8> = (0..len).map(|byte| (byte * 7 + number) as u8).collect();
                if len > 0 && row.len() < at + len {
                    row.resize(at + len, 0);
                }
                if len > 0 {
                    row[at..at + len].copy_from_slice(&data);
                }
                chunks.write(at, &data);
                prop_assert_eq!(chunks.len(), row.len());
                let gone = gone.min(row.len());
                row.drain(..gone);
                chunks.advance(gone);
                // What was written last is there, as far as it is not gone.
                let kept = at.max(gone)..(at + len).max(gone);
                let mut seen = Vec::new();
                chunks.read(kept.start - gone, kept.end - gone, &mut seen);
                let row = &row[(kept.start - gone).min(row.len())..(kept.end - gone).min(row.len())];
                prop_assert_eq!(seen, row);
            }
        }
    }

    #[test]
    fn long_stream_goes_through_little_memory() {
        let mut chunks = Chunks::default();
        let data = vec![3; 60_000];
        for _ in 0..200 {
            chunks.write(chunks.len(), &data);
            if chunks.len() > 200_000 {
                chunks.advance(100_000);
            }
        }

        assert!(chunks.list.len() + chunks.free.len() < 40);
        chunks.advance(usize::MAX);
        assert!(chunks.list.is_empty() && chunks.free.len() <= FREE_BULK);
    }

    /// Returns how much memory a window has
    fn room(chunks: &Chunks) -> usize {
        chunks.list.iter().chain(&chunks.free).map(Vec::capacity).sum()
    }

    #[test]
    fn stream_of_little_promise_keeps_no_more_than_it_ever_had_at_once() {
        for (most, kept) in PROMISES {
            let mut chunks = Chunks::default();
            for _ in 0..2_000_000 / most {
                while chunks.len() < most {
                    chunks.write(chunks.len(), &[1; 1388][..1388.min(most - chunks.len())]);
                    assert!(room(&chunks) <= most + 2 * CHUNK, "{most}");
                }
                chunks.advance(most);
            }

            // Nor does it ask for memory again and again.
            assert!((1..=kept).contains(&room(&chunks)), "{most}: {}", room(&chunks));
        }
    }

    #[test]
    fn stream_that_slides_through_pieces_keeps_none_of_those_that_it_touched_by_that() {
        let data = [1; 500_000];
        for (most, kept) in PROMISES {
            // It ends at different places of a piece.
            for more in 0..8 {
                let mut chunks = Chunks::default();
                for _ in 0..2_000_000 / most + more {
                    chunks.write(chunks.len(), &data[..most - chunks.len()]);
                    chunks.advance(most - most / 3);
                    let pieces = (most / CHUNK + 1).max(chunks.list.len());
                    assert!(chunks.list.len() + chunks.free.len() <= pieces, "{most}");
                }
                chunks.write(chunks.len(), &data[..most - chunks.len()]);
                chunks.advance(usize::MAX);

                assert!(room(&chunks) <= kept, "{most}: {}", room(&chunks));
            }
        }
    }

    /// Most bytes that streams have at once, and the memory that they may keep while they have nothing
    const PROMISES: [(usize, usize); 4] =
        [(1, 1), (8000, 12_000), (40_000, 3 * CHUNK), (500_000, FREE_BULK * CHUNK)];
}
