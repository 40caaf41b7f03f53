//! The sending half of a lane: queue, segment cutting, transmission order.

use std::collections::VecDeque;

use super::{LaneFull, WINDOW, ahead};
use crate::limits::{CONTROL_MAX, LANE_QUEUE, LANE_WINDOW, SEGMENT_MAX};
use crate::time::Instant;
use crate::wire::frame::SEGMENT_OVERHEAD;

#[derive(Debug)]
pub(super) struct Sender {
    /// Number of the first segment in `queue`, the oldest that has not arrived
    una: u32,
    /// First number that the other node does not accept
    edge: u32,
    queue: VecDeque<Outgoing>,
    /// Segments of `queue` that were sent at least once
    sent: usize,
    /// Bytes in `queue`
    bytes: usize,
}

#[derive(Debug)]
struct Outgoing {
    frg: u8,
    data: Vec<u8>,
    written: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Arrived,
    Lost,
    /// Waits its turn, or is under way
    Waiting,
}

impl Sender {
    pub(super) fn new(sn: u32) -> Self {
        let edge = sn.wrapping_add(LANE_WINDOW);
        Self { una: sn, edge, queue: VecDeque::new(), sent: 0, bytes: 0 }
    }

    pub(super) fn write(&mut self, message: &[u8], now: Instant) -> Result<(), LaneFull> {
        if message.len() > CONTROL_MAX || self.bytes + message.len() > LANE_QUEUE {
            return Err(LaneFull);
        }
        if self.queue.len() >= QUEUE_SEGMENTS {
            return Err(LaneFull);
        }
        let count = message.len().div_ceil(SEGMENT_MAX).max(1);
        for index in 0..count {
            let end = message.len().min((index + 1) * SEGMENT_MAX);
            self.queue.push_back(Outgoing {
                // Fits: a message of CONTROL_MAX bytes has 64 segments.
                frg: u8::try_from(count - 1 - index).unwrap_or(u8::MAX),
                data: message[index * SEGMENT_MAX..end].to_vec(),
                written: now,
                state: State::Waiting,
            });
        }
        self.bytes += message.len();
        Ok(())
    }

    pub(super) fn next(&mut self, room: usize) -> Option<(u32, u8, &[u8])> {
        let index = self.next_index()?;
        let segment = &mut self.queue[index];
        if SEGMENT_OVERHEAD + segment.data.len() > room {
            return None;
        }
        segment.state = State::Waiting;
        self.sent = self.sent.max(index + 1);
        let sn = self.una.wrapping_add(u32::try_from(index).ok()?);
        Some((sn, segment.frg, &segment.data))
    }

    pub(super) fn on_acked(&mut self, sn: u32) {
        let Some(segment) = self.sent_mut(sn) else { return };
        segment.state = State::Arrived;
        self.drop_arrived();
    }

    pub(super) fn on_lost(&mut self, sn: u32) {
        let Some(segment) = self.sent_mut(sn) else { return };
        if segment.state == State::Waiting {
            segment.state = State::Lost;
        }
    }

    pub(super) fn on_window(&mut self, una: u32, wnd: u16) {
        // Acknowledgements may have told more than `una` does; its edge may be news all the same.
        let arrived = ahead(una, self.una).unwrap_or(0) as usize;
        if arrived > self.sent || u32::from(wnd) > LANE_WINDOW {
            return;
        }
        (0..arrived).for_each(|_| self.drop_front());
        self.drop_arrived();
        let edge = una.wrapping_add(wnd.into());
        let possible = ahead(edge, self.una).is_some_and(|open| open <= LANE_WINDOW);
        if possible && ahead(edge, self.edge).is_some() {
            self.edge = edge;
        }
    }

    pub(super) fn has_output(&self) -> bool {
        self.next_index().is_some()
    }

    pub(super) fn oldest_unacked(&self) -> Option<Instant> {
        self.queue.front().map(|segment| segment.written)
    }

    /// The first lost segment, or else the first one never sent
    fn next_index(&self) -> Option<usize> {
        let lost = (0..self.sent).find(|index| self.queue[*index].state == State::Lost);
        lost.or_else(|| {
            let open = ahead(self.edge, self.una)? as usize;
            (self.sent < self.queue.len().min(open).min(WINDOW)).then_some(self.sent)
        })
    }

    fn sent_mut(&mut self, sn: u32) -> Option<&mut Outgoing> {
        let index = ahead(sn, self.una)? as usize;
        self.queue.get_mut(index).filter(|_| index < self.sent)
    }

    fn drop_arrived(&mut self) {
        while self.queue.front().is_some_and(|front| front.state == State::Arrived) {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        let Some(front) = self.queue.pop_front() else { return };
        self.bytes -= front.data.len();
        self.sent = self.sent.saturating_sub(1);
        self.una = self.una.wrapping_add(1);
    }
}

/// Segments that wait at most, so that tiny messages are bounded as well
const QUEUE_SEGMENTS: usize = 8192;
