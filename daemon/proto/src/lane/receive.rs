//! The receiving half of a lane: reordering, joining, and the window it shows.

use std::collections::VecDeque;

use super::{WINDOW, ahead};
use crate::limits::{CONTROL_MAX, LANE_WINDOW, SEGMENT_MAX};
use crate::wire::frame::Malformed;
use crate::wire::segment::Segment;

#[derive(Debug)]
pub(super) struct Receiver {
    /// Number of the next segment in order
    next: u32,
    /// Segments from `next` on; those that are missing are empty
    early: VecDeque<Option<Piece>>,
    /// Segments of the message that is being joined, and what must follow
    joined: u32,
    expected: Option<u8>,
    message: Vec<u8>,
    /// Whole messages that nobody has read, each with its segments
    whole: VecDeque<(Vec<u8>, u32)>,
    unread: u32,
    /// First number that the other node believes to be outside the window
    told: u32,
    /// Whether news of the window was lost
    untold: bool,
    broken: bool,
}

#[derive(Debug)]
struct Piece {
    frg: u8,
    data: Vec<u8>,
}

impl Receiver {
    pub(super) fn new(sn: u32) -> Self {
        Self {
            next: sn,
            early: VecDeque::new(),
            joined: 0,
            expected: None,
            message: Vec::new(),
            whole: VecDeque::new(),
            unread: 0,
            told: sn.wrapping_add(LANE_WINDOW),
            untold: false,
            broken: false,
        }
    }

    pub(super) fn on_segment(&mut self, segment: &Segment<'_>) -> Result<(), Malformed> {
        if self.broken {
            return Err(Malformed);
        }
        let Some(index) = ahead(segment.sn, self.next).map(|index| index as usize) else {
            // An old copy: the other node may not know how far we have come.
            self.untold = true;
            return Ok(());
        };
        let fits = index < usize::from(self.window()) && segment.data.len() <= SEGMENT_MAX;
        if !fits || usize::from(segment.frg) >= CONTROL_MAX.div_ceil(SEGMENT_MAX) {
            self.broken = true;
            return Err(Malformed);
        }
        if self.early.len() <= index {
            self.early.resize_with(index + 1, || None);
        }
        if self.early[index].is_none() {
            self.early[index] = Some(Piece { frg: segment.frg, data: segment.data.to_vec() });
        }
        self.join()
    }

    pub(super) fn read(&mut self) -> Option<Vec<u8>> {
        let (message, segments) = self.whole.pop_front()?;
        self.unread -= segments;
        Some(message)
    }

    pub(super) fn on_told(&mut self) {
        self.told = self.edge();
        self.untold = false;
    }

    pub(super) fn on_window_lost(&mut self) {
        self.untold = true;
    }

    pub(super) fn una(&self) -> u32 {
        self.next
    }

    pub(super) fn window(&self) -> u16 {
        let held = self.unread + self.joined;
        u16::try_from(LANE_WINDOW.saturating_sub(held)).unwrap_or(u16::MAX)
    }

    /// Tells whether the other node knows much less of the window than is open, or nearly nothing
    pub(super) fn needs_telling(&self) -> bool {
        let news = self.edge().wrapping_sub(self.told);
        let left = self.told.wrapping_sub(self.next);
        self.untold || news >= LANE_WINDOW / 2 || (news > 0 && left < LANE_WINDOW / 8)
    }

    fn edge(&self) -> u32 {
        self.next.wrapping_add(self.window().into())
    }

    /// Moves what is in order into messages
    fn join(&mut self) -> Result<(), Malformed> {
        while let Some(Some(_)) = self.early.front() {
            let Some(Some(piece)) = self.early.pop_front() else { break };
            let follows = self.expected.is_none_or(|expected| expected == piece.frg);
            if !follows || self.message.len() + piece.data.len() > CONTROL_MAX {
                self.broken = true;
                return Err(Malformed);
            }
            self.next = self.next.wrapping_add(1);
            self.joined += 1;
            self.message.extend_from_slice(&piece.data);
            self.expected = piece.frg.checked_sub(1);
            if self.expected.is_none() {
                let message = core::mem::take(&mut self.message);
                self.unread += self.joined;
                self.whole.push_back((message, core::mem::take(&mut self.joined)));
            }
        }
        debug_assert!(self.early.len() <= WINDOW);
        Ok(())
    }
}
