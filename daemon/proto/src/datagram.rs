//! The unreliable service: inner packets as they are, cut where they do not fit.
//!
//! A [`Fragmenter`] cuts one packet at a time into fragments, a [`Reassembler`] joins them again.
//! Incomplete packets are bounded in bytes and age; fragments that repeat or contradict what came
//! before do no harm. [`Duplicates`] lets the first of several copies of a packet pass. PROTOCOL.md,
//! section "Datagrams and fragments".

use std::collections::VecDeque;

use crate::buffers::{Buffers, Stowed};
use crate::ip::Inner;
use crate::limits::{COPIED_WINDOW, REASSEMBLY_BYTES, REASSEMBLY_LIFE};
use crate::time::Instant;
use crate::wire::frame::{FRAGMENT_OVERHEAD, Fragment, SUPER_OVERHEAD};

/// Cuts packets
#[derive(Debug, Default)]
pub struct Fragmenter {
    next_id: u32,
    current: Option<Cut>,
}

/// A packet that is partly sent
#[derive(Debug)]
struct Cut {
    id: u32,
    packet: Inner<Stowed>,
    sent: usize,
}

impl Fragmenter {
    /// Begins with a packet of at most 65,535 bytes; whatever was left of the one before is dropped
    pub fn start(&mut self, packet: Inner<Stowed>) {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.current = Some(Cut { id, packet, sent: 0 });
    }

    /// Returns the packet of which all was sent, once
    pub fn take_done(&mut self) -> Option<Inner<Stowed>> {
        self.current.take_if(|cut| !cut.has_more()).map(|cut| cut.packet)
    }

    /// Returns the next fragment that fits into `room` bytes of frame
    pub fn next(&mut self, room: usize) -> Option<Fragment<'_>> {
        let cut = self.current.as_mut().filter(|cut| cut.has_more())?;
        let (bytes, gso) = (&cut.packet.bytes, cut.packet.gso);
        let overhead = if gso.is_some() { SUPER_OVERHEAD } else { FRAGMENT_OVERHEAD };
        let len = room.checked_sub(overhead)?.min(bytes.len() - cut.sent);
        // A sliver is not worth its header: it waits for the next message.
        if len < SLIVER && len < bytes.len() - cut.sent {
            return None;
        }
        let offset = cut.sent;
        cut.sent += len;
        Some(Fragment {
            id: cut.id,
            offset: u16::try_from(offset).ok()?,
            total: u16::try_from(bytes.len()).ok()?,
            gso,
            data: &bytes[offset..offset + len],
        })
    }

    /// Tells whether there is something to send
    pub fn has_output(&self) -> bool {
        self.current.as_ref().is_some_and(Cut::has_more)
    }
}

impl Cut {
    fn has_more(&self) -> bool {
        self.sent < self.packet.bytes.len()
    }
}

/// Joins fragments
#[derive(Debug, Default)]
pub struct Reassembler {
    /// Packets in the order of their first fragments
    partial: VecDeque<Partial>,
    bytes: usize,
    /// Bytes of gaps that were filled, less what has come since
    filled: usize,
    /// Lists of ranges that are used again
    ranges: Vec<Vec<(usize, usize)>>,
}

/// A packet with pieces missing
#[derive(Debug)]
struct Partial {
    id: u32,
    since: Instant,
    /// As long as what has come, so far
    packet: Inner,
    total: usize,
    /// Which bytes came, as disjoint ranges in order
    have: Vec<(usize, usize)>,
}

impl Reassembler {
    /// Takes a fragment; returns the packet or super-packet that it completes
    ///
    /// Room comes from `buffers`.
    pub fn on_fragment(
        &mut self,
        fragment: &Fragment<'_>,
        buffers: &mut Buffers,
        now: Instant,
    ) -> Option<Inner> {
        let total = usize::from(fragment.total);
        let start = usize::from(fragment.offset);
        let end = start + fragment.data.len();
        if fragment.data.is_empty() || end > total {
            return None;
        }
        let known = self.partial.iter().position(|partial| partial.id == fragment.id);
        if known.is_some_and(|at| !self.partial[at].is_of(fragment)) {
            return None;
        }
        let begun = known.map_or(0, |at| self.partial[at].packet.bytes.len());
        if !self.may_fill(start.saturating_sub(begun), fragment.data.len()) {
            return None;
        }
        let at = match known {
            Some(at) => at,
            None => {
                while self.bytes + total > REASSEMBLY_BYTES || self.partial.len() >= PARTIAL_MAX {
                    buffers.give(self.drop_oldest()?.bytes);
                }
                let packet = Inner { bytes: buffers.take(), gso: fragment.gso };
                self.bytes += total;
                let (id, have) = (fragment.id, self.ranges.pop().unwrap_or_default());
                self.partial.push_back(Partial { id, since: now, packet, total, have });
                self.partial.len() - 1
            }
        };
        let partial = &mut self.partial[at];
        if partial.have.len() >= PIECES_MAX {
            // Nobody cuts so small.
            return None;
        }
        partial.put(start, fragment.data);
        partial.cover(start, end);
        if partial.have != [(0, total)] {
            return None;
        }
        let mut whole = self.partial.remove(at)?;
        self.bytes -= total;
        whole.have.clear();
        self.ranges.push(whole.have);
        Some(whole.packet)
    }

    /// Drops packets that waited too long
    pub fn expire(&mut self, now: Instant) {
        while self.deadline().is_some_and(|at| now >= at) {
            self.drop_oldest();
        }
    }

    /// Returns when [`Reassembler::expire`] will next have something to do
    pub fn deadline(&self) -> Option<Instant> {
        self.partial.front().map(|partial| partial.since + REASSEMBLY_LIFE)
    }

    /// Tells whether a gap may be filled for a piece of so many bytes: whoever sends the last byte of one
    /// long packet after the other must not keep us busy
    fn may_fill(&mut self, gap: usize, came: usize) -> bool {
        self.filled = self.filled.saturating_sub(came * FILL_EACH);
        let fits = self.filled + gap <= FILL_MAX;
        if fits {
            self.filled += gap;
        }
        fits
    }

    fn drop_oldest(&mut self) -> Option<Inner> {
        let oldest = self.partial.pop_front()?;
        self.bytes -= oldest.total;
        Some(oldest.packet)
    }
}

/// Remembers which packets came that may come again
///
/// Ids are those of the session: neither other keys nor another path begin them anew.
#[derive(Debug, Default)]
pub struct Duplicates {
    /// One bit for each of the last ids, by their lower bits; none before the first packet
    seen: Vec<u64>,
    highest: u32,
}

impl Duplicates {
    /// Tells whether this is the first packet with this id; one that is too old to tell is none
    pub fn is_first(&mut self, id: u32) -> bool {
        if self.seen.is_empty() {
            self.seen = vec![0; COPIED_WINDOW as usize / 64];
            self.highest = id;
        }
        let ahead = id.wrapping_sub(self.highest);
        if ahead < HALF {
            self.pass(ahead.min(COPIED_WINDOW));
            self.highest = id;
        } else if self.highest.wrapping_sub(id) >= COPIED_WINDOW {
            return false;
        }
        self.bit(id).set()
    }

    /// Forgets as many ids from the highest one on, by whole words where it can: whoever leaps through
    /// the window with tiny packets must not keep us busy
    fn pass(&mut self, ids: u32) {
        let mut passed = 1;
        while passed <= ids {
            let id = self.highest.wrapping_add(passed);
            if id % 64 == 0 && ids - passed >= 63 {
                self.seen[(id % COPIED_WINDOW) as usize / 64] = 0;
                passed += 64;
            } else {
                self.bit(id).clear();
                passed += 1;
            }
        }
    }

    fn bit(&mut self, id: u32) -> Bit<'_> {
        let at = id % COPIED_WINDOW;
        Bit { word: &mut self.seen[at as usize / 64], mask: 1 << (at % 64) }
    }
}

/// One bit among many
struct Bit<'a> {
    word: &'a mut u64,
    mask: u64,
}

impl Bit<'_> {
    fn clear(self) {
        *self.word &= !self.mask;
    }

    /// Sets it; tells whether it was not
    fn set(self) -> bool {
        let before = *self.word & self.mask;
        *self.word |= self.mask;
        before == 0
    }
}

impl Partial {
    /// Tells whether a fragment may be of this packet
    fn is_of(&self, fragment: &Fragment<'_>) -> bool {
        self.total == usize::from(fragment.total) && self.packet.gso == fragment.gso
    }

    fn put(&mut self, start: usize, data: &[u8]) {
        let bytes = &mut self.packet.bytes;
        if start == bytes.len() {
            bytes.extend_from_slice(data);
            return;
        }
        let end = start + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
    }

    fn cover(&mut self, start: usize, end: usize) {
        if let [(_, until)] = self.have.as_mut_slice()
            && *until == start
        {
            *until = end;
            return;
        }
        let touching = |range: &(usize, usize)| range.0 <= end && range.1 >= start;
        let joined = self.have.iter().filter(|range| touching(range));
        let joined =
            joined.fold((start, end), |sum, range| (sum.0.min(range.0), sum.1.max(range.1)));
        self.have.retain(|range| !touching(range));
        let at = self.have.partition_point(|range| range.0 < joined.0);
        self.have.insert(at, joined);
    }
}

/// Incomplete packets at one time
const PARTIAL_MAX: usize = 64;
/// Smallest piece that is cut off while more remains
const SLIVER: usize = 64;
/// Pieces of a packet that do not touch: more than half of what the largest one is cut into
const PIECES_MAX: usize = 64;
/// Bytes of gaps that may be filled for each that came
const FILL_EACH: usize = 64;
/// Bytes of gaps that may be filled at once
const FILL_MAX: usize = 256 * 1024;
/// Ids up to this far ahead are newer, all others older
const HALF: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ip::Gso;
    use crate::time::Duration;

    fn cut(packet: &[u8], room: usize) -> Vec<(u32, u16, u16, Vec<u8>)> {
        let mut fragmenter = Fragmenter::default();
        fragmenter.start(Stowed::Copied(packet.to_vec()).into());
        let mut pieces = Vec::new();
        while let Some(piece) = fragmenter.next(room) {
            pieces.push((piece.id, piece.offset, piece.total, piece.data.to_vec()));
        }
        pieces
    }

    fn join(joiner: &mut Reassembler, piece: &(u32, u16, u16, Vec<u8>)) -> Option<Vec<u8>> {
        let (id, offset, total, data) = piece;
        let fragment = Fragment { id: *id, offset: *offset, total: *total, gso: None, data };
        let whole = joiner.on_fragment(&fragment, &mut Buffers::new(1), Instant::ZERO);
        whole.map(|whole| whole.bytes)
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_make_the_packet_once(
            packet in proptest::collection::vec(any::<u8>(), 1..4000),
            room in 100usize..1500,
            order in any::<u64>(),
        ) {
            let mut pieces = cut(&packet, room);
            let len = pieces.len() as u64;
            pieces.rotate_left((order % len) as usize);
            pieces.push(pieces[0].clone());
            let mut joiner = Reassembler::default();

            let whole: Vec<_> = pieces[..len as usize].iter().filter_map(|piece| join(&mut joiner, piece)).collect();

            prop_assert_eq!(whole, vec![packet]);
        }

        #[test]
        fn rubbish_neither_panics_nor_grows(
            pieces in proptest::collection::vec(
                (0u32..8, any::<u16>(), any::<u16>(), proptest::collection::vec(any::<u8>(), 0..64)),
                0..200,
            ),
        ) {
            let mut joiner = Reassembler::default();

            for piece in &pieces {
                join(&mut joiner, piece);
            }

            prop_assert!(joiner.bytes <= REASSEMBLY_BYTES);
            prop_assert_eq!(joiner.bytes, joiner.partial.iter().map(|p| p.total).sum::<usize>());
        }
    }

    proptest! {
        #[test]
        fn each_id_passes_once_whatever_the_order(
            start: u32,
            steps in proptest::collection::vec((0u32..40, 1usize..4), 1..300),
            shuffle: u64,
        ) {
            let mut id = start;
            let mut arrivals = Vec::new();
            for (at, (step, copies)) in steps.iter().enumerate() {
                id = id.wrapping_add(*step + 1);
                for copy in 0..*copies {
                    let late = shuffle.rotate_left((at * 7 + copy * 13) as u32) % 50;
                    arrivals.push((at as u64 + late, id));
                }
            }
            arrivals.sort_unstable();
            let mut duplicates = Duplicates::default();
            let mut seen = std::collections::BTreeSet::new();

            for (_, id) in arrivals {
                prop_assert_eq!(duplicates.is_first(id), seen.insert(id), "{}", id);
            }
        }
    }

    #[test]
    fn super_packet_comes_out_as_it_went_in_and_only_from_parts_of_its_own() {
        let gso = Some(Gso { size: 1000, transport: 20 });
        let bytes: Vec<u8> = (0..5000_u32).map(|at| at as u8).collect();
        let packet = Inner { bytes, gso };
        let (mut fragmenter, mut joiner) = (Fragmenter::default(), Reassembler::default());
        fragmenter.start(Inner { bytes: Stowed::Copied(packet.bytes.clone()), gso });
        let mut whole = None;
        while let Some(part) = fragmenter.next(1400) {
            assert!(SUPER_OVERHEAD + part.data.len() <= 1400);
            let other = Fragment { gso: Some(Gso { size: 999, transport: 20 }), ..part };
            whole = joiner.on_fragment(&part, &mut Buffers::new(0), Instant::ZERO);
            let stranger = joiner.on_fragment(&other, &mut Buffers::new(0), Instant::ZERO);
            assert_eq!(stranger, None);
        }

        assert_eq!(whole, Some(packet));
    }

    #[test]
    fn packet_comes_back_once_all_of_it_was_sent() {
        let mut fragmenter = Fragmenter::default();
        assert!(fragmenter.take_done().is_none());
        fragmenter.start(Stowed::Copied(vec![7; 2000]).into());
        while fragmenter.has_output() {
            assert!(fragmenter.take_done().is_none());
            assert!(fragmenter.next(500).is_some());
        }

        assert!(fragmenter.next(500).is_none());
        let done = fragmenter.take_done().map(|packet| packet.bytes.to_vec());
        assert_eq!(done, Some(vec![7; 2000]));
        assert!(fragmenter.take_done().is_none() && fragmenter.next(500).is_none());
    }

    #[test]
    fn window_of_ids_moves_and_wraps() {
        let mut duplicates = Duplicates::default();
        assert!(duplicates.is_first(u32::MAX - 1));
        assert!(duplicates.is_first(5));
        assert!(!duplicates.is_first(u32::MAX - 1));
        assert!(duplicates.is_first(u32::MAX));

        assert!(duplicates.is_first(5 + COPIED_WINDOW - 1));
        assert!(!duplicates.is_first(5));
        assert!(duplicates.is_first(6));
        assert!(duplicates.is_first(5 + COPIED_WINDOW + 1));
        assert!(!duplicates.is_first(5), "too old to tell");

        assert!(duplicates.is_first(1 << 30));
        assert!(!duplicates.is_first(1 << 30));
        assert!(duplicates.is_first((1 << 30) - COPIED_WINDOW + 1));
    }

    #[test]
    fn crumbs_of_a_packet_cost_little() {
        let mut joiner = Reassembler::default();

        for offset in (0..u16::MAX - 1).step_by(2) {
            join(&mut joiner, &(1, offset, u16::MAX, vec![0; 1]));
        }

        assert!(joiner.partial[0].have.len() <= PIECES_MAX);
    }

    #[test]
    fn crumbs_at_the_ends_of_long_packets_make_little_work() {
        let mut joiner = Reassembler::default();

        let filled = (0..10_000).map(|id| {
            join(&mut joiner, &(id, u16::MAX - 1, u16::MAX, vec![0; 1]));
            joiner.partial.back().filter(|partial| partial.id == id).map_or(0, |_| 65_534)
        });

        // Sixty-four bytes for each that came, and some packets at once.
        assert!(filled.sum::<usize>() <= 10_000 * 64 + FILL_MAX);
    }

    #[test]
    fn packet_of_which_the_end_comes_first_is_joined_again_and_again() {
        let packet: Vec<u8> = (0..60_001_u32).map(|at| at as u8).collect();
        let mut joiner = Reassembler::default();
        for _ in 0..50 {
            let pieces = cut(&packet, 1200 + FRAGMENT_OVERHEAD);
            let whole: Vec<_> =
                pieces.iter().rev().filter_map(|piece| join(&mut joiner, piece)).collect();
            assert!(whole == [packet.clone()]);
        }
    }

    #[test]
    fn what_stays_incomplete_is_dropped_after_a_second() {
        let mut joiner = Reassembler::default();
        join(&mut joiner, &(1, 0, 100, vec![0; 50]));

        joiner.expire(Instant::ZERO + Duration::from_millis(999));
        assert!(joiner.deadline().is_some());
        joiner.expire(Instant::ZERO + Duration::from_secs(1));

        assert_eq!((joiner.deadline(), joiner.bytes), (None, 0));
    }
}
