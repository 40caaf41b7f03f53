//! Bytes of one direction, kept from the first that is not done with to the last that has come.
//!
//! An [`Assembly`] holds three things in one window of bytes: what was passed on and may be asked for
//! again, what is in order and not passed on yet, and what lies beyond a gap. It says nothing about
//! how much may come: whoever promised room bounds what is put in.

use std::collections::BTreeMap;

use super::chunks::Chunks;
use crate::ip::Body;

/// A window of a stream of bytes, in stream offsets
#[derive(Debug)]
pub(super) struct Assembly {
    bytes: Chunks,
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
        Self { bytes: Chunks::default(), base, edge: base, runs: BTreeMap::new() }
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

    /// Forgets what is before an offset, which is not beyond the edge
    pub(super) fn advance(&mut self, base: u64) {
        let gone = base.min(self.edge).saturating_sub(self.base);
        self.bytes.advance(usize::try_from(gone).unwrap_or(usize::MAX));
        self.base += gone;
    }

    /// Appends `len` bytes from an offset on; fewer where they have not come
    pub(super) fn read(&self, offset: u64, len: usize, out: &mut Vec<u8>) {
        let end = self.edge.min(offset + len as u64);
        let (Some(start), Some(end)) = (self.index(offset), self.index(end)) else { return };
        self.bytes.read(start, end, out);
    }

    /// Shares `len` bytes from an offset on; fewer where they have not come
    pub(super) fn share(&self, offset: u64, len: usize) -> Body {
        let end = self.edge.min(offset + len as u64);
        match (self.index(offset), self.index(end)) {
            (Some(start), Some(end)) => self.bytes.share(start, end),
            (Some(_) | None, _) => Body::default(),
        }
    }

    /// Keeps only the memory that the bytes need which are there
    pub(super) fn trim(&mut self) {
        self.bytes.trim();
    }

    /// Forgets everything
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.edge);
    }

    /// Returns how much memory the bytes have
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.bytes.room()
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

    fn index(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.base)?).ok()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
                assembly.advance((base + advance).min(edge));
            }
        }
    }
}
