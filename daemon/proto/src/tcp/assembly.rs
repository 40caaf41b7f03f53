//! Bytes of one direction, kept from the first that is not done with to the last that has come.
//!
//! An [`Assembly`] holds three things in one window of bytes: what was passed on and may be asked for
//! again, what is in order and not passed on yet, and what lies beyond a gap. It says nothing about
//! how much may come: whoever promised room bounds what is put in.
//!
//! Bytes are copied into pieces of the window ([`Chunks`]), or stay in the buffers that they came in ([`Adopted`]):
//! the pieces then hold what lies between those, without gaps for them.

use core::ops::Range;
use std::collections::BTreeMap;

use super::adopted::{Adopted, Place};
use super::chunks::Chunks;
use crate::buffers::Shelf;
use crate::ip::{Body, Share};

/// A window of a stream of bytes, in stream offsets
#[derive(Debug)]
pub(super) struct Assembly {
    /// Those that were copied
    bytes: Chunks,
    adopted: Adopted,
    /// Offset of the first byte that is kept
    base: u64,
    /// All before this offset has come
    edge: u64,
    /// Runs beyond the edge that have come, by where they begin; they do not touch
    runs: BTreeMap<u64, u64>,
}

impl Assembly {
    /// Begins at an offset, with nothing
    pub(super) fn new(base: u64) -> Self {
        let (bytes, adopted) = (Chunks::default(), Adopted::default());
        Self { bytes, adopted, base, edge: base, runs: BTreeMap::new() }
    }

    /// Puts bytes where they belong; what is there already is left as it is
    pub(super) fn insert(&mut self, offset: u64, data: &[u8]) {
        let skip = self.edge.saturating_sub(offset);
        let Some(data) = usize::try_from(skip).ok().and_then(|skip| data.get(skip..)) else {
            return;
        };
        if data.is_empty() {
            return;
        }
        let offset = offset + skip;
        if self.runs.is_empty() && offset == self.edge {
            self.bytes.write(self.bytes.len(), data);
            self.edge += data.len() as u64;
            return;
        }
        self.store(offset, data);
        self.join(offset, offset + data.len() as u64);
    }

    /// Takes the bytes that come next where they are; only those behind a gap make it a copy all the same
    pub(super) fn adopt(&mut self, bytes: Share) {
        if !self.runs.is_empty() {
            return self.insert(self.edge, bytes.bytes());
        }
        let len = bytes.len() as u64;
        self.adopted.push(self.edge, bytes);
        self.edge += len;
    }

    /// Forgets what is before an offset, which is not beyond the edge
    pub(super) fn advance(&mut self, base: u64, shelf: &mut Shelf) {
        let base = base.min(self.edge).max(self.base);
        self.bytes.advance(self.index(base).unwrap_or(usize::MAX));
        self.adopted.advance(base, shelf);
        self.base = base;
    }

    /// Appends `len` bytes from an offset on; fewer where they have not come
    pub(super) fn read(&self, offset: u64, len: usize, out: &mut Vec<u8>) {
        self.walk(offset, len, |part| {
            match part {
                Part::Adopted(share, range) => {
                    out.extend_from_slice(share.bytes().get(range).unwrap_or_default());
                }
                Part::Copied(range) => self.bytes.read(range.start, range.end, out),
            }
            true
        });
    }

    /// Shares `len` bytes from an offset on; fewer where they have not come
    pub(super) fn share(&self, offset: u64, len: usize) -> Body {
        let mut body = Body::default();
        self.walk(offset, len, |part| match part {
            Part::Adopted(share, range) => share.part(range).is_some_and(|share| body.push(share)),
            Part::Copied(range) => self.bytes.share(range.start, range.end, &mut body),
        });
        body
    }

    /// Keeps only the memory that the bytes need which are there
    pub(super) fn trim(&mut self, shelf: &mut Shelf) {
        self.bytes.trim();
        self.adopted.trim(self.base, shelf);
    }

    /// Forgets everything
    pub(super) fn clear(&mut self, shelf: &mut Shelf) {
        self.adopted.clear(shelf);
        *self = Self::new(self.edge);
    }

    /// Returns how much memory the bytes have
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.bytes.room() + self.adopted.room()
    }

    /// Returns the offset before which all is done with
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Returns the offset before which all has come
    pub(super) fn edge(&self) -> u64 {
        self.edge
    }

    /// Returns the offset after the last byte that has come
    pub(super) fn end(&self) -> u64 {
        self.runs.last_key_value().map_or(self.edge, |(_, end)| *end)
    }

    /// Returns how many runs lie beyond the edge
    pub(super) fn gaps(&self) -> usize {
        self.runs.len()
    }

    /// Goes through the runs beyond the edge
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().map(|(start, end)| (*start, *end))
    }

    /// Goes through `len` bytes from an offset on, as far as they have come, by where they lie, while `each` wants more
    fn walk(&self, offset: u64, len: usize, mut each: impl FnMut(Part<'_>) -> bool) {
        let (mut at, end) = (offset, self.edge.min(offset + len as u64));
        while at < end {
            let (part, len) = match self.adopted.place(at, end) {
                Place::Adopted(share, range) => {
                    let len = range.len() as u64;
                    (Part::Adopted(share, range), len)
                }
                Place::Copied(until) => {
                    let len = until - at;
                    let Some(start) = self.index(at) else { return };
                    (Part::Copied(start..start + len as usize), len)
                }
            };
            if len == 0 || !each(part) {
                return;
            }
            at += len;
        }
    }

    /// Returns how many bytes were copied between the base and an offset behind it
    fn index(&self, offset: u64) -> Option<usize> {
        let adopted = self.adopted.before(offset) - self.adopted.before(self.base);
        usize::try_from(offset.checked_sub(self.base)?.checked_sub(adopted)?).ok()
    }

    fn store(&mut self, offset: u64, data: &[u8]) {
        let Some(start) = self.index(offset) else { return };
        self.bytes.write(start, data);
    }

    /// Adds a run, joins it with those that it touches, and moves the edge over it if it can
    fn join(&mut self, mut start: u64, mut end: u64) {
        if let Some((before, until)) = self.runs.range(..=start).next_back()
            && *until >= start
        {
            start = *before;
            end = end.max(*until);
        }
        while let Some((next, until)) = self.runs.range(start..=end).next() {
            end = end.max(*until);
            let next = *next;
            self.runs.remove(&next);
        }
        if start <= self.edge {
            self.edge = self.edge.max(end);
        } else {
            self.runs.insert(start, end);
        }
    }
}

/// Some bytes of the window, that follow each other and lie together
enum Part<'a> {
    Adopted(&'a Share, Range<usize>),
    /// From one place in the pieces to another
    Copied(Range<usize>),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::buffers::FREE_LEAST;
    use crate::limits::PACKET_MAX;

    fn byte(offset: u64) -> u8 {
        (offset * 7 + offset / 256) as u8
    }

    proptest! {
        #[test]
        fn whatever_the_order_the_bytes_are_those_of_the_stream(
            pieces in proptest::collection::vec((0..2000_u64, 0..300_usize), 0..60),
            advances in proptest::collection::vec(0..200_u64, 0..60),
        ) {
            let mut assembly = Assembly::new(1);
            let mut known = vec![false; 2400];
            known[0] = true;
            let pieces = pieces.iter().chain(&[(0, 2000)]);
            for ((start, len), advance) in pieces.zip(advances.iter().chain(core::iter::repeat(&50))) {
                let data: Vec<u8> = (*start..*start + *len as u64).map(byte).collect();
                assembly.insert(*start, &data);
                known[*start as usize..*start as usize + len].fill(true);
                let edge = known.iter().position(|known| !known).unwrap() as u64;
                prop_assert_eq!(assembly.edge(), edge);
                let base = assembly.base();
                let mut out = Vec::new();
                assembly.read(base, 5000, &mut out);
                let expected: Vec<u8> = (base..edge).map(byte).collect();
                prop_assert_eq!(out, expected);
                let late = |(start, end): (u64, u64)| {
                    edge < start && known[start as usize..end as usize].iter().all(|known| *known)
                };
                prop_assert!(assembly.runs().all(late));
                assembly.advance((base + advance).min(edge), &mut Shelf::default());
            }
        }
    }

    /// Some bytes of the stream in a buffer, which they fill just enough
    fn adoptable(range: Range<u64>) -> Share {
        let (len, spare) = ((range.end - range.start) as usize, (range.end - range.start) / 3);
        let room = core::iter::repeat_n(9, spare as usize);
        let piece = room.chain(range.map(byte)).collect();
        Share::new(&piece, spare as usize..spare as usize + len).unwrap()
    }

    fn expect(assembly: &Assembly, from: u64, len: usize) -> Result<(), TestCaseError> {
        let from = from.min(assembly.edge());
        let expected: Vec<u8> = (from..assembly.edge().min(from + len as u64)).map(byte).collect();
        let mut seen = Vec::new();
        assembly.read(from, len, &mut seen);
        prop_assert!(seen == expected, "{} bytes from {} on", len, from);
        let shared = assembly.share(from, len).pieces().collect::<Vec<_>>().concat();
        let whole = shared.len() == expected.len() || shared.len() >= expected.len().min(600);
        prop_assert!(whole && expected.starts_with(&shared));
        Ok(())
    }

    proptest! {
        #[test]
        fn adopted_and_copied_bytes_are_like_one_row(
            steps in proptest::collection::vec(
                (0..6_u8, 0..3_000_u64, 600..40_000_u64, (0..80_000_u64, 0..70_000_u64, 0..70_000_usize)),
                1..40,
            ),
        ) {
            let (mut assembly, mut shelf) = (Assembly::new(1), Shelf::default());
            for (kind, more, len, (gone, from, many)) in steps {
                let (base, edge) = (assembly.base(), assembly.edge());
                match kind {
                    0..3 => assembly.adopt(adoptable(edge..edge + len)),
                    // Said again by somebody who says something else by now.
                    3 => {
                        let from = edge.saturating_sub(len).max(base);
                        let wrong: Vec<u8> = (from..edge).map(|at| !byte(at)).collect();
                        assembly.insert(from, &[wrong, (edge..edge + more).map(byte).collect()].concat());
                    }
                    4 => assembly.insert(edge, &(edge..edge + len).map(byte).collect::<Vec<_>>()),
                    // Behind a gap that is filled later.
                    _ => {
                        let start = edge + more;
                        assembly.insert(start, &(start..start + len).map(byte).collect::<Vec<_>>());
                    }
                }
                expect(&assembly, base + from, many)?;
                let largest = assembly.adopted.list.iter().map(|one| one.bytes.piece().len()).max();
                assembly.advance(base + gone, &mut shelf);
                expect(&assembly, assembly.base(), usize::MAX / 2)?;

                let kept = (assembly.edge() - assembly.base()) as usize;
                let adopted = assembly.adopted.room();
                prop_assert!(adopted <= kept / 3 * 4 + 50 + largest.unwrap_or(0), "{} for {}", adopted, kept);
                prop_assert!(kept > 0 || adopted == 0);
                if kind == 0 {
                    assembly.trim(&mut shelf);
                    expect(&assembly, assembly.base(), usize::MAX / 2)?;
                    let adopted = assembly.adopted.room();
                    prop_assert!(adopted <= kept / 3 * 4 + 50, "{} for {}", adopted, kept);
                }
            }
            assembly.clear(&mut shelf);
            prop_assert_eq!(assembly.room(), 0);
        }
    }

    #[test]
    fn stream_that_is_silent_or_over_leaves_few_free_buffers() {
        let (mut shelf, mut assembly) = (Shelf::default(), Assembly::new(1));
        let adopt = |assembly: &mut Assembly| {
            for _ in 0..50 {
                assembly.adopt(Share::new(&vec![7; PACKET_MAX].into(), 40..PACKET_MAX).unwrap());
            }
        };
        adopt(&mut assembly);
        assembly.advance(u64::MAX, &mut shelf);
        assert_eq!((shelf.free(), assembly.room()), (50, 0));
        // Of others nobody knows anything.
        Assembly::new(1).clear(&mut shelf);
        assert_eq!(shelf.free(), 50);

        assembly.trim(&mut shelf);
        assert_eq!(shelf.free(), FREE_LEAST);

        adopt(&mut assembly);
        assembly.clear(&mut shelf);
        assert_eq!((shelf.free(), assembly.room()), (FREE_LEAST, 0));
    }

    #[test]
    fn bytes_are_not_adopted_before_those_behind_a_gap_but_copied() {
        let mut assembly = Assembly::new(1);
        assembly.insert(2_001, &(2_001..2_101).map(byte).collect::<Vec<_>>());

        assembly.adopt(adoptable(1..2_001));

        assert_eq!((assembly.edge(), assembly.gaps(), assembly.adopted.room()), (2_101, 0, 0));
        expect(&assembly, 1, 5_000).unwrap();
    }
}
