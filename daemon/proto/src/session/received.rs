//! Which numbers of one remote path are to be acknowledged, and when.
//!
//! [`Received`] keeps the numbers that arrived as ranges. Each acknowledgement repeats the newest
//! ranges, so that a lost one does no harm; a range is dropped only when the far end has acknowledged
//! a message that told it. PROTOCOL.md, section "Acknowledgement, RTT and loss".
//!
//! How often is a matter of the round trip ([`cadence`]): so often that the other node's rate control
//! sees what happens, and so seldom that a narrow way back carries it.
//!
//! # Contract
//!
//! - Each number is given once: the replay window goes first.
//! - [`Received::largest_acked_candidate`] is remembered with the message that carries an
//!   acknowledgement, and given to [`Received::on_ack_of_ack`] when that message was acknowledged.
//! - After each call [`Received::ack_due`] may have moved.

use std::collections::VecDeque;

use crate::limits::{
    ACK_DELAY, ACK_EVERY, ACK_LEAST, ACK_MOST, ACK_PAUSE_MIN, ACK_SHARE, DATA_HEADER_LEN, TAG_LEN,
};
use crate::node::Ecn;
use crate::time::{Duration, Instant};
use crate::wire::frame::{AckHead, Marks, encode_ack_within};

/// Numbers of one remote path that are to be acknowledged
#[derive(Clone, Debug)]
pub struct Received {
    /// Ascending; no two touch
    ranges: VecDeque<Range>,
    /// Largest number that ever arrived, and when
    largest: Option<(u64, Instant)>,
    /// First number that arrived, and how many did
    first: u64,
    arrived: u64,
    /// Messages that want an acknowledgement and have none yet
    eliciting: u64,
    due: Option<Instant>,
    last_ack: Option<Instant>,
    /// Acknowledgements that may leave early, as the first train of a burst tells the rate
    early: u32,
    /// Lowest number that arrived since each of the last acknowledgements
    lowest: [u64; REPEATS],
    marks: Marks,
    /// Bytes of the last acknowledgement on the wire, where it travels alone
    size: usize,
}

/// Returns the time between two acknowledgements on a path with such a round trip
///
/// One in [`ACK_DELAY`], or in `affordable` if that is longer; but no more than [`ACK_MOST`] in a round
/// trip and no fewer than [`ACK_LEAST`], or one in [`ACK_PAUSE_MIN`].
pub fn cadence(rtt: Option<Duration>, affordable: Duration) -> Duration {
    let Some(rtt) = rtt else { return ACK_DELAY };
    let pause = ACK_DELAY.max(rtt / ACK_MOST).max(affordable);
    pause.min((rtt / ACK_LEAST).max(ACK_PAUSE_MIN))
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    /// Only an acknowledgement with a larger number than this is sure to tell the whole range (up to
    /// its own largest number)
    since: Option<u64>,
}

impl Default for Received {
    fn default() -> Self {
        Self::new()
    }
}

impl Received {
    /// Starts where nothing has arrived
    pub const fn new() -> Self {
        Self {
            ranges: VecDeque::new(),
            largest: None,
            first: 0,
            arrived: 0,
            eliciting: 0,
            due: None,
            last_ack: None,
            early: 0,
            lowest: [u64::MAX; REPEATS],
            marks: Marks { capable: 0, congested: 0 },
            size: HEADERS,
        }
    }

    /// Records that the message `count` arrived; `eliciting` if it wants an acknowledgement, of which
    /// there is to be one in each `pause`
    // The flag comes straight from the frames of the message; an enum would only rename it.
    pub fn on_message(&mut self, count: u64, eliciting: bool, pause: Duration, now: Instant) {
        let gap = self.is_gap(count);
        self.insert(count);
        if self.arrived == 0 {
            self.first = count;
        }
        self.arrived += 1;
        if self.largest.is_none_or(|(largest, _)| count > largest) {
            self.largest = Some((count, now));
        }
        if !eliciting {
            return;
        }
        self.eliciting += 1;
        let quiet = self.last_ack.is_none_or(|last| now.since(last) > QUIET);
        if quiet && self.eliciting == 1 {
            self.early = EARLY;
        }
        let soon = self.eliciting >= ACK_EVERY && self.early > 0;
        if self.due.is_some() && !soon && !gap {
            // Whatever the pause, it would be later.
            return;
        }
        let due = if soon {
            self.early -= 1;
            now
        } else if gap {
            // Where messages arrive in disorder each one looks like a gap; the pause bounds that.
            self.last_ack.map_or(now, |last| now.max(last + pause))
        } else {
            now + pause
        };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Tells whether the pause matters where the message `count` arrives next: working it out for each
    /// message would be in vain
    pub fn asks_pause(&self, count: u64) -> bool {
        self.due.is_none() || self.is_gap(count)
    }

    fn is_gap(&self, count: u64) -> bool {
        match self.largest {
            None => count > 0,
            Some((largest, _)) => count > largest + 1,
        }
    }

    /// Returns the time that is to pass between two acknowledgements on a way back with such a round
    /// trip, which carries `rate` bytes a second, if that is known
    pub fn pause(&self, rtt: Option<Duration>, rate: Option<u64>) -> Duration {
        let nanos = |rate: u64| self.size as u64 * ACK_SHARE * 1_000_000_000 / rate.max(1);
        cadence(rtt, rate.map_or(Duration::ZERO, |rate| Duration::from_nanos(nanos(rate))))
    }

    /// Counts what the message's IP header said of congestion
    pub fn on_mark(&mut self, ecn: Ecn) {
        match ecn {
            Ecn::Incapable => {}
            Ecn::Capable => self.marks.capable += 1,
            Ecn::Congested => self.marks.congested += 1,
        }
    }

    /// Drops what an acknowledgement up to `largest` told, as that one has arrived
    ///
    /// The largest number of all stays: each acknowledgement begins with it.
    pub fn on_ack_of_ack(&mut self, largest: u64) {
        let Some((newest, _)) = self.largest else { return };
        self.ranges.retain_mut(|range| {
            if range.start > largest || range.since.is_some_and(|since| since >= largest) {
                return true;
            }
            range.start = range.start.max(largest.saturating_add(1)).min(newest);
            range.start <= range.end
        });
    }

    /// Appends an acknowledgement of at most `room` bytes with the newest ranges
    ///
    /// Does nothing where no message wants one, or where it does not fit.
    pub fn take_ack(&mut self, path: u8, now: Instant, out: &mut Vec<u8>, room: usize) -> bool {
        let Some((largest, arrived)) = self.largest else { return false };
        if self.eliciting == 0 {
            return false;
        }
        let deep = self.lowest.iter().copied().min().unwrap_or(u64::MAX);
        let newest = self.ranges.iter().rev().enumerate();
        let ranges = newest
            .take_while(|(at, range)| *at < RANGES_NEWEST || range.end >= deep)
            .map(|(_, range)| range.start..=range.end);
        let written = (now.as_nanos() / 1000) as u32;
        let head = AckHead { path, delay: now.since(arrived), written, marks: self.marks };
        let before = out.len();
        let told = encode_ack_within(head, ranges, room, out);
        if told == 0 {
            return false;
        }
        // Those that did not fit have not been told by an acknowledgement of this number.
        let untold = self.ranges.len() - told;
        for range in self.ranges.range_mut(..untold) {
            range.since = range.since.max(Some(largest));
        }
        self.size = HEADERS + out.len() - before;
        self.eliciting = 0;
        self.due = None;
        self.last_ack = Some(now);
        self.lowest.rotate_right(1);
        self.lowest[0] = u64::MAX;
        true
    }

    /// Returns how many numbers there were from the first that arrived to the largest, and how many
    /// of them arrived
    pub fn progress(&self) -> (u64, u64) {
        let largest = self.largest.map_or(0, |(largest, _)| largest + 1);
        (largest.saturating_sub(self.first), self.arrived)
    }

    /// Returns when an acknowledgement is to leave at the latest
    pub fn ack_due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the largest number that an acknowledgement taken now would tell
    pub fn largest_acked_candidate(&self) -> Option<u64> {
        self.ranges.back().map(|range| range.end)
    }

    /// Tells whether there are so many ranges that it is worth asking to have some dropped
    pub fn is_crowded(&self) -> bool {
        self.ranges.len() > RANGES_CALM
    }

    fn insert(&mut self, count: u64) {
        self.lowest[0] = self.lowest[0].min(count);
        let largest = self.largest.map(|(largest, _)| largest);
        // What comes late may be missing from an acknowledgement with today's largest number.
        let since = largest.filter(|largest| *largest > count);
        let after = match self.ranges.back() {
            Some(newest) if newest.end < count => self.ranges.len(),
            _ => self.ranges.partition_point(|range| range.end < count),
        };
        if self.ranges.get(after).is_some_and(|range| range.start <= count) {
            return;
        }
        let joins_below = after > 0 && self.ranges[after - 1].end + 1 == count;
        let joins_above = self.ranges.get(after).is_some_and(|range| range.start == count + 1);
        match (joins_below, joins_above) {
            (true, true) => {
                let Some(above) = self.ranges.remove(after) else { return };
                let below = &mut self.ranges[after - 1];
                below.end = above.end;
                below.since = below.since.max(above.since).max(since);
            }
            (true, false) => {
                let below = &mut self.ranges[after - 1];
                below.end = count;
                below.since = below.since.max(since);
            }
            (false, true) => {
                let above = &mut self.ranges[after];
                above.start = count;
                above.since = above.since.max(since);
            }
            (false, false) => {
                self.ranges.insert(after, Range { start: count, end: count, since });
                if self.ranges.len() > RANGES_KEPT {
                    self.ranges.pop_front();
                }
            }
        }
    }
}

/// Ranges that are remembered; more than one acknowledgement holds, as the oldest may yet close up
const RANGES_KEPT: usize = 1024;
/// Ranges that each acknowledgement tells at least
const RANGES_NEWEST: usize = 32;
/// Acknowledgements that tell of each arrival at least
const REPEATS: usize = 8;
/// Acknowledgements of a burst that may leave early
const EARLY: u32 = 4;
/// Time without acknowledgements after which a burst begins
const QUIET: Duration = Duration::from_millis(20);
/// Bytes on the wire of a message without frames, IPv4 and UDP included
const HEADERS: usize = DATA_HEADER_LEN + TAG_LEN + 28;
/// Ranges that are repeated without asking for an acknowledgement of the acknowledgement
const RANGES_CALM: usize = 4;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::frame::{Ack, Frame, frames};

    #[test]
    fn acknowledgement_waits_a_little_for_company() {
        let mut received = Received::new();

        received.on_message(0, true, ACK_DELAY, at(10));
        received.on_message(1, true, ACK_DELAY, at(11));

        assert_eq!(received.ack_due(), Some(at(10) + ACK_DELAY));
    }

    #[test]
    fn acknowledgements_take_little_of_a_narrow_way_back_but_never_become_rare() {
        let mut received = Received::new();
        let (trip, small) = (Some(Duration::from_millis(200)), HEADERS + FRAMES);
        received.on_message(0, true, ACK_DELAY, at(0));
        take(&mut received, at(0));
        let pause = |rate: Option<u64>| received.pause(trip, rate);

        assert_eq!(pause(None), ACK_DELAY);
        assert_eq!(pause(Some(12_500_000)), ACK_DELAY);
        // a hundred a second, of 2 % of the rate
        assert_eq!(pause(Some(small as u64 * 5_000)), Duration::from_millis(10));
        assert_eq!(pause(Some(10_000)), Duration::from_millis(25));
        assert_eq!(received.pause(None, Some(1)), ACK_DELAY);
    }

    #[test]
    fn many_messages_are_acknowledged_at_once() {
        let mut received = Received::new();

        (0..ACK_EVERY).for_each(|count| received.on_message(count, true, ACK_DELAY, at(10)));

        assert_eq!(received.ack_due(), Some(at(10)));
    }

    #[test]
    fn gap_is_told_at_once_but_not_without_pause() {
        let mut received = Received::new();
        received.on_message(0, true, ACK_DELAY, at(10));
        received.on_message(2, true, ACK_DELAY, at(11));
        assert_eq!(received.ack_due(), Some(at(11)));
        take(&mut received, at(11));

        received.on_message(4, true, ACK_DELAY, at(11));

        assert_eq!(received.ack_due(), Some(at(11) + ACK_DELAY));
    }

    #[test]
    fn messages_that_ask_for_nothing_are_told_only_with_others() {
        let mut received = Received::new();
        received.on_message(0, false, ACK_DELAY, at(10));
        received.on_message(5, false, ACK_DELAY, at(10));
        assert_eq!((received.ack_due(), take(&mut received, at(10))), (None, None));

        received.on_message(6, true, ACK_DELAY, at(10));

        assert_eq!(take(&mut received, at(10)), Some(vec![(5, 6), (0, 0)]));
    }

    #[test]
    fn acknowledgement_tells_how_long_it_was_held_back() {
        let mut received = Received::new();
        received.on_message(1, true, ACK_DELAY, at(10));
        received.on_message(0, true, ACK_DELAY, at(12));
        let mut out = Vec::new();

        assert!(received.take_ack(7, at(13), &mut out, 1000));

        let ack = parse(&out);
        assert_eq!((ack.path, ack.largest, ack.delay), (7, 1, Duration::from_millis(3)));
    }

    #[test]
    fn ranges_are_repeated_until_they_were_told_for_sure() {
        let mut received = Received::new();
        [0, 2, 4].into_iter().for_each(|count| received.on_message(count, true, ACK_DELAY, at(0)));
        assert_eq!(take(&mut received, at(0)), Some(vec![(4, 4), (2, 2), (0, 0)]));
        [5, 6].into_iter().for_each(|count| received.on_message(count, true, ACK_DELAY, at(1)));
        assert_eq!(take(&mut received, at(1)), Some(vec![(4, 6), (2, 2), (0, 0)]));

        received.on_ack_of_ack(4);
        received.on_message(7, true, ACK_DELAY, at(2));

        assert_eq!(take(&mut received, at(2)), Some(vec![(5, 7)]));
    }

    #[test]
    fn late_arrival_is_told_although_its_neighbours_are_done() {
        let mut received = Received::new();
        [0, 1, 3].into_iter().for_each(|count| received.on_message(count, true, ACK_DELAY, at(0)));
        take(&mut received, at(0));

        received.on_message(2, true, ACK_DELAY, at(1));
        received.on_ack_of_ack(3);

        let told = take(&mut received, at(1)).unwrap();
        assert!(told.iter().any(|(start, end)| (*start..=*end).contains(&2)), "{told:?}");
    }

    #[test]
    fn acknowledgement_that_does_not_fit_is_not_taken() {
        let mut received = Received::new();
        received.on_message(0, true, ACK_DELAY, at(0));
        let mut out = Vec::new();

        assert!(!received.take_ack(0, at(0), &mut out, 16));

        assert!(out.is_empty() && received.ack_due().is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_newest_are_kept() {
        let mut received = Received::new();

        (0..10_000).for_each(|n| received.on_message(n * 2, true, ACK_DELAY, at(0)));

        assert_eq!(received.ranges.len(), RANGES_KEPT);
        assert_eq!(received.largest_acked_candidate(), Some(19_998));
    }

    proptest! {
        /// Over a way that loses and reorders acknowledgements, the other node learns of each
        /// message that arrived, and of no other
        #[test]
        fn each_arrival_is_told_in_the_end(
            steps in prop::collection::vec((any::<bool>(), 0..6_u64, any::<bool>(), 0..4_usize), 1..200),
        ) {
            let mut received = Received::new();
            let (mut arrived, mut told) = (BTreeSet::new(), BTreeSet::new());
            let mut under_way: Vec<(u64, Vec<(u64, u64)>)> = Vec::new();
            let mut next = 0;
            for (forward, distance, room, fate) in steps {
                let count = if forward { next + distance } else { u64::saturating_sub(next, distance) };
                if arrived.insert(count) {
                    next = next.max(count + 1);
                    received.on_message(count, true, ACK_DELAY, at(count));
                }
                let largest = received.largest_acked_candidate();
                let mut out = Vec::new();
                // Now and then there is room for hardly anything.
                if received.take_ack(0, at(count), &mut out, if room { 1000 } else { 19 }) {
                    under_way.push((largest.unwrap(), ranges(&out)));
                }
                if fate < under_way.len() {
                    let (largest, ranges) = under_way.remove(fate);
                    if distance != 0 {
                        told.extend(ranges.into_iter().flat_map(|(start, end)| start..=end));
                        received.on_ack_of_ack(largest);
                    }
                }
            }
            for _ in 0..3 {
                received.on_message(next, true, ACK_DELAY, at(next));
                arrived.insert(next);
                next += 1;
                told.extend(take(&mut received, at(next)).unwrap().into_iter().flat_map(|(start, end)| start..=end));
            }
            prop_assert!(told.is_subset(&arrived), "told what never came");
            let missing: Vec<_> = arrived.difference(&told).collect();
            prop_assert!(missing.is_empty(), "{missing:?}");
        }
    }

    /// Bytes of an acknowledgement of one range
    const FRAMES: usize = 3 + 17 + 2 + 1;

    fn take(received: &mut Received, now: Instant) -> Option<Vec<(u64, u64)>> {
        let mut out = Vec::new();
        received.take_ack(0, now, &mut out, 1000).then(|| ranges(&out))
    }

    fn ranges(out: &[u8]) -> Vec<(u64, u64)> {
        parse(out).ranges().map(|range| (*range.start(), *range.end())).collect()
    }

    fn parse(out: &[u8]) -> Ack<'_> {
        match frames(out).next() {
            Some(Ok(Frame::Ack(ack))) => ack,
            other => panic!("{other:?}"),
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }
}
