//! Split TCP: connections acknowledged at both nodes, sequence numbers kept.

use crate::limits::MEMORY_DEFAULT;
use crate::time::Instant;
use crate::wire::frame::Malformed;
use crate::wire::lane::LaneFrame;

/// Connections that are split with one other node
#[derive(Debug, Default)]
pub struct Connections {}

/// Memory of all split connections of one node
#[derive(Debug)]
pub struct Pool {
    /// Bytes in all
    pub size: usize,
    /// Bytes that were promised
    pub promised: usize,
}

/// Something that was put into a message: named again when the message is acknowledged or lost
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    /// Which lane
    pub conv: u32,
    /// What of it, in the lane's own count
    pub sn: u32,
}

/// A frame of a lane that was put into a message
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Written {
    /// Its name
    pub piece: Piece,
    /// Whether it was sent before, and lost
    pub repeat: bool,
}

/// What becomes of a packet from the TUN
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handling {
    /// It travels as it is
    Plain,
    /// It belongs to a split connection
    Taken,
}

impl Default for Pool {
    fn default() -> Self {
        Self { size: MEMORY_DEFAULT, promised: 0 }
    }
}

impl Connections {
    /// Tells whether there is no connection
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Takes a packet from the TUN, of whatever protocol
    pub fn handle_packet(&mut self, _packet: &[u8], _pool: &mut Pool, _now: Instant) -> Handling {
        Handling::Plain
    }

    /// Takes a frame from the other node
    ///
    /// # Errors
    /// If it breaks the protocol.
    pub fn handle_frame(
        &mut self,
        _frame: &LaneFrame<'_>,
        _pool: &mut Pool,
        _now: Instant,
    ) -> Result<(), Malformed> {
        Ok(())
    }

    /// Does what time demands
    pub fn handle_timeout(&mut self, _pool: &mut Pool, _now: Instant) {}

    /// Returns when [`Connections::handle_timeout`] is due next
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Returns a lane that got something to send since it last had nothing
    pub fn poll_ready(&mut self) -> Option<u32> {
        None
    }

    /// Appends the next frame of a lane, at most `room` bytes with its header; nothing where the lane
    /// has nothing to send, or nothing that fits
    pub fn write_frame(
        &mut self,
        _conv: u32,
        _room: usize,
        _out: &mut Vec<u8>,
        _now: Instant,
    ) -> Option<Written> {
        None
    }

    /// Appends a frame once more, if it is still unacknowledged and fits
    pub fn write_copy(&mut self, _piece: Piece, _room: usize, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Tells whether a lane has anything to send now
    pub fn has_output(&self, _conv: u32) -> bool {
        false
    }

    /// Records that a message with this piece has arrived
    pub fn on_acked(&mut self, _piece: Piece, _now: Instant) {}

    /// Records that a message with this piece was lost
    pub fn on_lost(&mut self, _piece: Piece) {}

    /// Returns the next packet for the TUN
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        None
    }
}
