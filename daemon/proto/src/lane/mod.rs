//! One reliable, ordered conversation that carries whole messages.
//!
//! A [`Lane`] cuts messages into numbered segments as KCP does, keeps each until it has arrived,
//! puts those that come back into order and joins them to messages. It knows no clock and no loss
//! detection of its own: the session says which segments were acknowledged or lost with the messages
//! that carried them. PROTOCOL.md, section "Control lane".
//!
//! # Contract
//!
//! - A segment inside the window that was shown is never dropped. That is why the acknowledgement of
//!   the message that carried it is the segment's own.
//! - So the right edge of the window never moves back, and news of it must arrive: when a message
//!   with a window frame is lost, tell [`Lane::on_window_lost`].
//! - An error from [`Lane::on_segment`] means that the other node broke the protocol. The lane is of
//!   no use from then on; end the session, or [`Lane::reset`].
//!
//! # Not here
//!
//! Segments in frames are in `wire`; when to give up on the other node is the session's to decide.

mod receive;
mod send;

use thiserror::Error;

use crate::limits::LANE_WINDOW;
use crate::time::Instant;
use crate::wire::frame::Malformed;
use crate::wire::segment::Segment;
use receive::Receiver;
use send::Sender;

/// One reliable, ordered conversation
#[derive(Debug)]
pub struct Lane {
    conv: u16,
    sender: Sender,
    receiver: Receiver,
}

/// Why a message cannot be written
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("lane is full, or the message is too long for it")]
pub struct LaneFull;

impl Lane {
    /// Makes an empty lane; both ends begin at the same number
    pub fn new(conv: u16) -> Self {
        Self::starting_at(conv, 0)
    }

    fn starting_at(conv: u16, sn: u32) -> Self {
        Self { conv, sender: Sender::new(sn), receiver: Receiver::new(sn) }
    }

    /// Queues a message
    ///
    /// # Errors
    /// If [`crate::limits::LANE_QUEUE`] bytes wait already, or the message is longer than
    /// [`crate::limits::CONTROL_MAX`].
    pub fn write(&mut self, message: &[u8], now: Instant) -> Result<(), LaneFull> {
        self.sender.write(message, now)
    }

    /// Returns the next segment to send, lost ones first, with its number
    ///
    /// Nothing where the other node's window is full, or where the segment does not fit into `room`
    /// bytes (frame header included).
    pub fn next_segment(&mut self, room: usize, _now: Instant) -> Option<(u32, Segment<'_>)> {
        let (una, wnd) = (self.receiver.una(), self.receiver.window());
        let (sn, frg, data) = self.sender.next(room)?;
        self.receiver.on_told();
        Some((sn, Segment { conv: self.conv, sn, una, wnd, frg, data }))
    }

    /// Records that a message which carried the segment `sn` has arrived
    pub fn on_acked(&mut self, sn: u32, _now: Instant) {
        self.sender.on_acked(sn);
    }

    /// Records that a message which carried the segment `sn` was lost
    pub fn on_lost(&mut self, sn: u32) {
        self.sender.on_lost(sn);
    }

    /// Records that a message which carried a window frame was lost
    pub fn on_window_lost(&mut self) {
        self.receiver.on_window_lost();
    }

    /// Takes a segment from the other node
    ///
    /// # Errors
    /// If the segment belongs to another lane, lies outside the window, is too long, or does not
    /// continue the message before it; and always after such an error.
    pub fn on_segment(&mut self, segment: &Segment<'_>) -> Result<(), Malformed> {
        if segment.conv != self.conv {
            return Err(Malformed);
        }
        self.on_window(segment.una, segment.wnd);
        self.receiver.on_segment(segment)
    }

    /// Takes the other node's word for how far it has come, and what it accepts
    ///
    /// An old or impossible word is ignored.
    pub fn on_window(&mut self, una: u32, wnd: u16) {
        self.sender.on_window(una, wnd);
    }

    /// Returns the next whole message
    pub fn read(&mut self) -> Option<Vec<u8>> {
        self.receiver.read()
    }

    /// Returns what to tell in a window frame (una and wnd), and remembers that it was told
    pub fn take_window(&mut self) -> Option<(u32, u16)> {
        if !self.needs_window_update() {
            return None;
        }
        self.receiver.on_told();
        Some((self.receiver.una(), self.receiver.window()))
    }

    /// Forgets everything and begins anew, as if just made
    pub fn reset(&mut self) {
        *self = Self::new(self.conv);
    }

    /// Returns the lane's number in its session
    pub fn conv(&self) -> u16 {
        self.conv
    }

    /// Tells whether [`Self::next_segment`] has something to send, given room
    pub fn has_output(&self) -> bool {
        self.sender.has_output()
    }

    /// Tells whether the other node should hear of our window
    pub fn needs_window_update(&self) -> bool {
        self.receiver.needs_telling()
    }

    /// Returns when the oldest message was written that has not arrived as a whole
    pub fn oldest_unacked(&self) -> Option<Instant> {
        self.sender.oldest_unacked()
    }
}

/// Tells how far `sn` lies from `origin` on, modulo the wrap; nothing where it lies before it
fn ahead(sn: u32, origin: u32) -> Option<u32> {
    let distance = sn.wrapping_sub(origin);
    (distance < 1 << 31).then_some(distance)
}

const WINDOW: usize = LANE_WINDOW as usize;

#[cfg(test)]
mod tests;
