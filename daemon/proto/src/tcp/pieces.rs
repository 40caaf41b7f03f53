//! What a lane has sent: each piece by its number, until it has arrived or is of no interest.
//!
//! Pieces are numbered in the order in which they were first sent and lie in a ring, so that news
//! about one finds it at once, however many there are. Whether a piece has arrived is learnt from
//! the session's acknowledgements; a piece has no timer.

use std::collections::VecDeque;

/// Pieces of one lane
#[derive(Debug, Default)]
pub(super) struct Pieces {
    ring: VecDeque<Entry>,
    /// Number of the first one in the ring
    first: u32,
    /// Those that were lost, the first loss first; some may have arrived since
    lost: VecDeque<u32>,
}

/// What was sent
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    Open,
    Accept,
    /// Bytes of the stream from an offset on; whether it ends there
    Data {
        offset: u64,
        len: u32,
        fin: bool,
    },
    State,
    Reset,
    Probe,
    Answer,
    Resume,
    Resumed,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    part: Part,
    /// Messages on their way that have it
    flying: u16,
    arrived: bool,
    /// Whether it stands in the queue of lost ones
    queued: bool,
    /// Times that all messages that had it were lost
    losses: u8,
}

impl Pieces {
    /// Records a piece that leaves for the first time, and returns its number
    pub(super) fn push(&mut self, part: Part) -> u32 {
        let sn = self.first.wrapping_add(self.ring.len() as u32);
        self.ring.push_back(Entry { part, flying: 1, arrived: false, queued: false, losses: 0 });
        sn
    }

    /// Records that a piece has arrived; returns it if that is news
    pub(super) fn on_acked(&mut self, sn: u32) -> Option<Part> {
        let entry = self.entry(sn)?;
        entry.flying = entry.flying.saturating_sub(1);
        if core::mem::replace(&mut entry.arrived, true) {
            return None;
        }
        let part = entry.part;
        while self.ring.front().is_some_and(|entry| entry.arrived) {
            self.ring.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.ring.capacity() > SPARE && self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
        Some(part)
    }

    /// Records that a message with a piece was lost; returns the piece where no other has it
    pub(super) fn on_lost(&mut self, sn: u32) -> Option<Part> {
        let entry = self.entry(sn)?;
        entry.flying = entry.flying.saturating_sub(1);
        let lost = entry.flying == 0 && !entry.arrived;
        entry.losses = entry.losses.saturating_add(u8::from(lost));
        lost.then_some(entry.part)
    }

    /// Queues bytes of the stream that were lost
    pub(super) fn queue(&mut self, sn: u32) {
        if let Some(entry) = self.entry(sn)
            && !core::mem::replace(&mut entry.queued, true)
        {
            self.lost.push_back(sn);
        }
    }

    /// Takes a piece that is of no interest any more for one that has arrived
    pub(super) fn settle(&mut self, sn: u32) {
        if let Some(entry) = self.entry(sn) {
            entry.flying = entry.flying.saturating_add(1);
            let _ = self.on_acked(sn);
        }
    }

    /// Returns the first lost piece that has to be sent again
    pub(super) fn next_lost(&mut self, delivered: u64) -> Option<(u32, Part)> {
        loop {
            let sn = *self.lost.front()?;
            if let Some(entry) = self.entry(sn).filter(|entry| !entry.arrived) {
                let part = entry.part;
                let Part::Data { offset, len, fin } = part else { return Some((sn, part)) };
                if offset + u64::from(len) + u64::from(fin) > delivered {
                    return Some((sn, part));
                }
                self.settle(sn);
            }
            self.lost.pop_front();
        }
    }

    /// Records that the piece of [`Pieces::next_lost`] leaves, maybe only the first `len` bytes of
    /// it; the rest is a piece of its own then, which is lost as well
    ///
    /// Returns how often it was lost.
    pub(super) fn on_repeated(&mut self, sn: u32, sent: u32) -> u8 {
        self.lost.pop_front();
        let Some(entry) = self.entry(sn) else { return 0 };
        let losses = entry.losses;
        entry.queued = false;
        entry.flying += 1;
        let Part::Data { offset, len, fin } = entry.part else { return losses };
        if sent < len {
            entry.part = Part::Data { offset, len: sent, fin: false };
            let rest = Part::Data { offset: offset + u64::from(sent), len: len - sent, fin };
            let rest = self.push(rest);
            if let Some(entry) = self.entry(rest) {
                entry.flying = 0;
                entry.queued = true;
                entry.losses = losses;
            }
            self.lost.push_front(rest);
        }
        losses
    }

    /// Records that a copy of a piece leaves
    pub(super) fn on_copied(&mut self, sn: u32) {
        if let Some(entry) = self.entry(sn) {
            entry.flying = entry.flying.saturating_add(1);
        }
    }

    /// Returns a piece that is not known to have arrived
    pub(super) fn outstanding(&self, sn: u32) -> Option<Part> {
        self.missing(sn).map(|entry| entry.part)
    }

    /// Tells whether a piece is not known to have arrived, and a message with it is on its way
    pub(super) fn is_under_way(&self, sn: u32) -> bool {
        self.missing(sn).is_some_and(|entry| entry.flying > 0)
    }

    /// Tells whether anything may wait to be sent again
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Tells whether all bytes of the stream that were sent are known to have arrived
    pub(super) fn all_arrived(&self) -> bool {
        let data = |entry: &Entry| matches!(entry.part, Part::Data { .. });
        !self.ring.iter().any(|entry| !entry.arrived && data(entry))
    }

    /// Forgets all pieces; their numbers are not used again
    pub(super) fn clear(&mut self) {
        let first = self.first.wrapping_add(self.ring.len() as u32);
        *self = Self { first, ..Self::default() };
    }

    /// Returns a piece that is not known to have arrived
    fn missing(&self, sn: u32) -> Option<&Entry> {
        let at = usize::try_from(sn.wrapping_sub(self.first)).ok()?;
        self.ring.get(at).filter(|entry| !entry.arrived)
    }

    fn entry(&mut self, sn: u32) -> Option<&mut Entry> {
        let at = usize::try_from(sn.wrapping_sub(self.first)).ok()?;
        self.ring.get_mut(at)
    }
}

/// Pieces for which an empty ring keeps room
const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn data(offset: u64, len: u32) -> Part {
        Part::Data { offset, len, fin: false }
    }

    #[test]
    fn piece_is_lost_when_all_its_copies_are() {
        let mut pieces = Pieces::default();
        let sn = pieces.push(data(1, 10));
        pieces.on_copied(sn);

        assert_eq!(pieces.on_lost(sn), None);
        assert_eq!(pieces.on_lost(sn), Some(data(1, 10)));
        assert_eq!(pieces.on_acked(sn), Some(data(1, 10)));
        assert_eq!(pieces.on_lost(sn), None);
    }

    #[test]
    fn lost_piece_that_does_not_fit_any_more_is_cut() {
        let mut pieces = Pieces::default();
        let sn = pieces.push(data(1, 1000));
        assert!(pieces.on_lost(sn).is_some());
        pieces.queue(sn);
        assert_eq!(pieces.next_lost(1), Some((sn, data(1, 1000))));

        assert_eq!(pieces.on_repeated(sn, 400), 1);

        let (rest, part) = pieces.next_lost(1).unwrap();
        assert_eq!((pieces.outstanding(sn), part), (Some(data(1, 400)), data(401, 600)));
        assert_eq!(pieces.on_repeated(rest, 600), 1);
        assert_eq!(pieces.next_lost(1), None);
    }

    #[test]
    fn what_was_delivered_or_arrived_late_is_not_sent_again() {
        let mut pieces = Pieces::default();
        let (one, two) = (pieces.push(data(1, 10)), pieces.push(data(11, 10)));
        for sn in [one, two] {
            assert!(pieces.on_lost(sn).is_some());
            pieces.queue(sn);
        }
        let _ = pieces.on_acked(two);

        assert_eq!(pieces.next_lost(11), None);
        assert!(!pieces.has_lost() && pieces.ring.is_empty());
    }
}
