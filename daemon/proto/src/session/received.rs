//! Which numbers of one remote path are to be acknowledged, and when.
//!
//! [`Received`] keeps the numbers that arrived as ranges. Each acknowledgement repeats the newest
//! ranges, so that a lost one does no harm; a range is dropped only when the far end has acknowledged
//! a message that told it. PROTOCOL.md, section "Acknowledgement, RTT and loss".
//!
//! # Contract
//!
//! - Each number is given once: the replay window goes first.
//! - [`Received::largest_acked_candidate`] is remembered with the message that carries an
//!   acknowledgement, and given to [`Received::on_ack_of_ack`] when that message was acknowledged.
//! - After each call [`Received::ack_due`] may have moved.

use std::collections::VecDeque;

use crate::limits::{ACK_DELAY, ACK_EVERY};
use crate::time::Instant;
use crate::wire::frame::encode_ack_within;

/// Numbers of one remote path that are to be acknowledged
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Ascending; no two touch
    ranges: VecDeque<Range>,
    /// Largest number that ever arrived, and when
    largest: Option<(u64, Instant)>,
    /// Messages that want an acknowledgement and have none yet
    eliciting: u64,
    due: Option<Instant>,
    last_ack: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    /// Only an acknowledgement with a larger number than this is sure to tell the whole range (up to
    /// its own largest number)
    since: Option<u64>,
}

impl Received {
    /// Starts where nothing has arrived
    pub const fn new() -> Self {
        Self { ranges: VecDeque::new(), largest: None, eliciting: 0, due: None, last_ack: None }
    }

    /// Records that the message `count` arrived; `eliciting` if it wants an acknowledgement
    // The flag comes straight from the frames of the message; an enum would only rename it.
    pub fn on_message(&mut self, count: u64, eliciting: bool, now: Instant) {
        let gap = match self.largest {
            None => count > 0,
            Some((largest, _)) => count > largest + 1,
        };
        self.insert(count);
        if self.largest.is_none_or(|(largest, _)| count > largest) {
            self.largest = Some((count, now));
        }
        if !eliciting {
            return;
        }
        self.eliciting += 1;
        let due = if self.eliciting >= ACK_EVERY {
            now
        } else if gap {
            // Where messages arrive in disorder each one looks like a gap; the pause bounds that.
            self.last_ack.map_or(now, |last| now.max(last + ACK_DELAY / 4))
        } else {
            now + ACK_DELAY
        };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
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
        let ranges = self.ranges.iter().rev().map(|range| range.start..=range.end);
        let told = encode_ack_within(path, now.since(arrived), ranges, room, out);
        if told == 0 {
            return false;
        }
        // Those that did not fit have not been told by an acknowledgement of this number.
        let untold = self.ranges.len() - told;
        for range in self.ranges.range_mut(..untold) {
            range.since = range.since.max(Some(largest));
        }
        self.eliciting = 0;
        self.due = None;
        self.last_ack = Some(now);
        true
    }

    /// Returns when an acknowledgement is to leave at the latest
    pub fn ack_due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the largest number that an acknowledgement taken now would tell
    pub fn largest_acked_candidate(&self) -> Option<u64> {
        self.ranges.back().map(|range| range.end)
    }

    fn insert(&mut self, count: u64) {
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
const RANGES_KEPT: usize = 128;
