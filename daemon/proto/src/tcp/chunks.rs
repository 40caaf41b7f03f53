//! A window of bytes in pieces of one size: what leaves at the front is used again at the end.
//!
//! So a stream that keeps little at a time goes through little memory, however long its window may be,
//! and what it goes through stays in the processor's caches. A short window has one short piece. Pieces that
//! are free are never more than were in use at one time, so that what was promised bounds them as well.
//!
//! Packets for the kernel share pieces ([`Chunks::share`]) and need not copy them. What they share does not
//! change, whatever becomes of the window: what is written to a piece that is shared, free or not, is written
//! to a copy of it. Packets leave before more comes, so that this is rare.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::ip::{Body, Share};

/// A window of bytes
#[derive(Debug, Default)]
pub(super) struct Chunks {
    list: VecDeque<Arc<[u8]>>,
    /// Pieces that are free, the one used last at the end
    free: Vec<Arc<[u8]>>,
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
        if data.is_empty() {
            return;
        }
        let mut place = self.skip + at;
        self.len = self.len.max(at + data.len());
        self.peak = self.peak.max(self.len);
        while !data.is_empty() {
            let (index, from) = (place / CHUNK, place % CHUNK);
            while self.list.len() <= index {
                // One without room costs nothing.
                self.list.push_back(Arc::default());
            }
            let (now, rest) = data.split_at(data.len().min(CHUNK - from));
            let upto = from + now.len();
            self.piece(index, upto)[from..upto].copy_from_slice(now);
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

    /// Appends shares of the bytes between two places that were written; false where that is not all of them
    #[must_use]
    pub(super) fn share(&self, start: usize, end: usize, body: &mut Body) -> bool {
        let (mut place, end) = (self.skip + start, self.skip + end);
        while place < end {
            let from = place % CHUNK;
            let upto = (from + end - place).min(CHUNK);
            let share =
                self.list.get(place / CHUNK).and_then(|chunk| Share::new(chunk, from..upto));
            if !share.is_some_and(|share| body.push(share)) {
                return false;
            }
            place += upto - from;
        }
        true
    }

    /// Forgets so many bytes at the front
    pub(super) fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.len);
        self.len -= bytes;
        self.passed = self.passed.saturating_add(bytes as u64);
        self.skip += bytes;
        while self.skip >= CHUNK || self.len == 0 && !self.list.is_empty() {
            self.skip = self.skip.saturating_sub(CHUNK);
            let Some(chunk) = self.list.pop_front() else { break };
            let had = (self.peak / CHUNK + 1).saturating_sub(self.list.len());
            let most = if self.len > 0 { had.min(FREE_MAX) } else { self.spare(&chunk) };
            if self.free.len() < most && !chunk.is_empty() {
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

    /// Keeps only the memory that the bytes need which are there: nothing is promised for more any longer
    pub(super) fn trim(&mut self) {
        self.free = Vec::new();
        self.peak = self.len;
        if self.len >= CHUNK {
            return;
        }
        let mut bytes = vec![0; self.len];
        for (index, piece) in self.list.iter().enumerate() {
            let inside = |place: usize| place.saturating_sub(self.skip).min(self.len);
            let (start, end) = (index * CHUNK, index * CHUNK + piece.len());
            let (from, upto) = (inside(start), inside(end));
            let first = self.skip.saturating_sub(start).min(piece.len());
            bytes[from..upto].copy_from_slice(&piece[first..first + upto - from]);
        }
        self.skip = 0;
        self.list = VecDeque::new();
        if !bytes.is_empty() {
            self.list.push_back(bytes.into());
        }
    }

    /// Returns a piece to write into, with room for `len` bytes
    fn piece(&mut self, index: usize, len: usize) -> &mut [u8] {
        let had = self.list[index].len();
        if had < len {
            // A piece of a long window will be full soon.
            let room = if self.peak < CHUNK { (2 * had).clamp(len, CHUNK) } else { CHUNK };
            let free = self.free.pop().filter(|free| free.len() >= room);
            let mut larger = free.unwrap_or_else(|| core::iter::repeat_n(0, room).collect());
            Arc::make_mut(&mut larger)[..had].copy_from_slice(&self.list[index]);
            self.list[index] = larger;
        }
        // If a packet shares it, this is a copy from now on.
        Arc::make_mut(&mut self.list[index])
    }

    /// Returns how many pieces are kept where there is nothing, if this is the last of them
    fn spare(&self, last: &[u8]) -> usize {
        let pieces = match self.peak / CHUNK {
            0 => usize::from(last.len() <= self.peak + self.peak / 2),
            _ => self.peak.div_ceil(CHUNK).min(FREE_BULK),
        };
        if self.passed >= BULK { pieces } else { 0 }
    }

    /// Returns how much memory there is
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.list.iter().chain(&self.free).map(|piece| piece.len()).sum()
    }

    /// Returns how many bytes there are, gaps included
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Bytes of one piece
pub(super) const CHUNK: usize = 16 * 1024;
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

    fn bytes(body: &Body) -> Vec<u8> {
        body.pieces().collect::<Vec<_>>().concat()
    }

    fn share(chunks: &Chunks, start: usize, end: usize) -> Body {
        let mut body = Body::default();
        assert_eq!(chunks.share(start, end, &mut body), body.len() == end - start);
        body
    }

    proptest! {
        #[test]
        fn what_is_shared_stays_as_it_is_whatever_becomes_of_the_window(
            steps in proptest::collection::vec(
                ((0..40_000_usize, 0..50_000_usize), (0..90_000_usize, 0..64_000_usize), 0..60_000_usize, 0..4_usize),
                1..30,
            ),
        ) {
            let (mut chunks, mut shared) = (Chunks::default(), VecDeque::new());
            for (number, ((at, len), (start, many), gone, written)) in steps.into_iter().enumerate() {
                let data: Vec<u8> = (0..len).map(|byte| (byte * 7 + number) as u8).collect();
                chunks.write(at, &data);
                let (start, end) = (start.min(chunks.len()), (start + many).min(chunks.len()));
                let (body, mut same) = (share(&chunks, start, end), Vec::new());
                chunks.read(start, end, &mut same);
                prop_assert_eq!(bytes(&body), &same[..]);
                shared.push_back((body, same));
                // Over what was shared, and behind it.
                chunks.write(start, &data);
                chunks.write(chunks.len(), &data);
                chunks.advance(gone);
                for (body, same) in &shared {
                    prop_assert!(bytes(body) == *same, "step {}", number);
                }
                shared.drain(..written.min(shared.len()));
                prop_assert!(chunks.free.len() <= FREE_MAX);
            }
        }
    }

    #[test]
    fn nothing_that_is_written_beyond_the_end_is_nothing() {
        let mut chunks = Chunks::default();
        chunks.write(1, &[]);

        assert_eq!((chunks.len(), chunks.room()), (0, 0));
    }

    #[test]
    fn packet_that_has_left_costs_no_copy_and_one_that_waits_keeps_its_piece() {
        let mut chunks = Chunks::default();
        chunks.write(0, &[1; 1000]);
        chunks.write(1000, &[2; 40_000]);
        let place = |chunks: &Chunks| chunks.list[2].as_ptr();
        let before = place(&chunks);

        drop(share(&chunks, 0, 41_000));
        chunks.write(41_000, &[3; 500]);
        assert_eq!(place(&chunks), before);

        let waits = share(&chunks, 0, 41_000);
        chunks.write(41_500, &[4; 500]);
        assert_ne!(place(&chunks), before);
        assert_eq!(waits.pieces().last().map(<[u8]>::as_ptr), Some(before));
    }

    #[test]
    fn largest_packet_for_a_kernel_is_shared_whole_wherever_it_begins() {
        for skip in [0, 1, 600, CHUNK - 1] {
            let mut chunks = Chunks::default();
            let data: Vec<u8> = (0..skip + 64_000 + 50).map(|byte| (byte * 7) as u8).collect();
            chunks.write(0, &data);
            chunks.advance(skip);

            assert!(bytes(&share(&chunks, 0, 64_000)) == data[skip..skip + 64_000], "{skip}");
        }
        assert!(share(&Chunks::default(), 0, 10).is_empty());
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

    fn room(chunks: &Chunks) -> usize {
        chunks.room()
    }

    #[test]
    fn window_that_is_trimmed_has_the_same_bytes_and_little_more_memory() {
        for (skip, len) in
            [(0, 0), (0, 1), (CHUNK - 1, 2), (CHUNK - 1, 1), (700, 9000), (9, 3 * CHUNK)]
        {
            let mut chunks = Chunks::default();
            for _ in 0..20 {
                chunks.write(chunks.len(), &[1; 100_000]);
                chunks.advance(100_000 - CHUNK + chunks.len() % 7);
            }
            chunks.advance(usize::MAX);
            let data: Vec<u8> = (0..skip + len).map(|byte| (byte * 7) as u8).collect();
            chunks.write(0, &data);
            chunks.advance(skip);
            // Beyond a gap.
            chunks.write(len + 300, &[9; 20]);
            assert!(room(&chunks) > 0);

            chunks.trim();

            let mut seen = Vec::new();
            chunks.read(0, len, &mut seen);
            assert!(seen == data[skip..], "{skip}, {len}");
            seen.clear();
            chunks.read(len + 300, len + 320, &mut seen);
            assert_eq!(seen, [9; 20]);
            assert_eq!(chunks.len(), len + 320);
            let most = if len < CHUNK { chunks.len() } else { chunks.len() + 2 * CHUNK };
            assert!(room(&chunks) <= most, "{skip}, {len}: {}", room(&chunks));
            chunks.write(len, &[8; 300]);
            chunks.advance(len);
            seen.clear();
            chunks.read(0, 320, &mut seen);
            assert!(seen[..300] == [8; 300] && seen[300..] == [9; 20]);
        }
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
