//! What a lane puts into messages.

use super::connection::{Connection, Owed, Stage};
use super::pieces::Part;
use super::seq::seq_of;
use super::{Connections, Piece, Written};
use crate::time::Instant;
use crate::wire::frame::Frame;
use crate::wire::lane::{LANE_DATA_OVERHEAD, LaneFrame, Marks};

impl Connections {
    /// Appends the next frame of a lane, at most `room` bytes with its header; nothing where the lane
    /// has nothing to send, or nothing that fits
    pub fn write_frame(
        &mut self,
        conv: u32,
        room: usize,
        out: &mut Vec<u8>,
        _now: Instant,
    ) -> Option<Written> {
        let Some(connection) = self.lanes.get_mut(&conv) else {
            return self.write_inquiry(conv, room, out);
        };
        let written = if connection.owing() == Owed::default() {
            connection.write_stream(conv, room, out)
        } else {
            connection.write_owed(conv, room, out).map(|sn| (sn, 0))
        };
        if written.is_none() {
            connection.awake = connection.has_output();
        }
        written.map(|(sn, losses)| Written { piece: Piece { conv, sn }, losses })
    }

    /// Appends a frame once more, if it is still unacknowledged and fits
    pub fn write_copy(&mut self, piece: Piece, room: usize, out: &mut Vec<u8>) -> bool {
        let Some(connection) = self.lanes.get_mut(&piece.conv) else { return false };
        let Some(part) = connection.pieces.outstanding(piece.sn) else { return false };
        let Part::Data { offset, len, fin } = part else {
            return connection.write_again(piece, part, room, out);
        };
        let here = offset >= connection.near.delivered() && connection.streams();
        if !here || !connection.fits(offset, len, room) {
            return false;
        }
        connection.pieces.on_copied(piece.sn);
        connection.put_data(piece.conv, offset, len, fin, out);
        true
    }
}

impl Connection {
    /// Puts what the lane owes besides the stream; the most pressing first
    fn write_owed(&mut self, conv: u32, room: usize, out: &mut Vec<u8>) -> Option<u32> {
        let closed = self.is_done();
        let owed = self.owing();
        let (frame, part) = if owed.reset {
            (LaneFrame::Reset { conv, opened: self.opened }, Part::Reset)
        } else if owed.open {
            let credit = self.far.credit as u32 - 1;
            (LaneFrame::Open { conv, credit, packet: &self.greeting }, Part::Open)
        } else if owed.accept {
            let credit = self.far.credit as u32 - 1;
            (LaneFrame::Accept { conv, credit, packet: &self.greeting }, Part::Accept)
        } else if owed.resume {
            (self.resume_frame(conv), Part::Resume)
        } else if owed.resumed {
            (self.resumed_frame(conv), Part::Resumed)
        } else if owed.probe {
            (LaneFrame::Probe { conv, answer: false }, Part::Probe)
        } else if owed.answer {
            (LaneFrame::Probe { conv, answer: true }, Part::Answer)
        } else {
            let (ack, credit) = self.far.state();
            (LaneFrame::State { conv, ack, credit, closed }, Part::State)
        };
        let frame = Frame::Lane(frame);
        if frame.encoded_len() > room {
            return None;
        }
        frame.encode(out);
        self.on_paid(part);
        let sn = self.pieces.push(part);
        if closed && matches!(part, Part::State | Part::Reset) {
            self.on_farewell(sn);
        }
        Some(sn)
    }

    /// Puts what is no part of the stream once more, where it still says the same
    fn write_again(&mut self, piece: Piece, part: Part, room: usize, out: &mut Vec<u8>) -> bool {
        let conv = piece.conv;
        let frame = match part {
            Part::Open if self.stage == Stage::Opening && !self.owed.open => {
                let credit = self.far.credit as u32 - 1;
                LaneFrame::Open { conv, credit, packet: &self.greeting }
            }
            Part::Accept if !self.owed.accept && !self.greeting.is_empty() => {
                let credit = self.far.credit as u32 - 1;
                LaneFrame::Accept { conv, credit, packet: &self.greeting }
            }
            Part::Open
            | Part::Accept
            | Part::State
            | Part::Reset
            | Part::Probe
            | Part::Answer
            | Part::Resume
            | Part::Resumed
            | Part::Data { .. } => return false,
        };
        let frame = Frame::Lane(frame);
        let fits = frame.encoded_len() <= room;
        if fits {
            frame.encode(out);
            self.pieces.on_copied(piece.sn);
        }
        fits
    }

    fn on_paid(&mut self, part: Part) {
        match part {
            Part::Reset => self.owed.reset = false,
            Part::Open => self.owed.open = false,
            Part::Accept => self.owed.accept = false,
            Part::Probe => self.owed.probe = false,
            Part::Answer => self.owed.answer = false,
            Part::Resume => self.owed.resume = false,
            Part::Resumed => self.owed.resumed = false,
            Part::State => self.on_state_told(),
            Part::Data { .. } => {}
        }
    }

    /// Puts bytes of the stream: lost ones first; tells how often they were lost
    fn write_stream(&mut self, conv: u32, room: usize, out: &mut Vec<u8>) -> Option<(u32, u8)> {
        if !self.streams() {
            return None;
        }
        if let Some((sn, part)) = self.pieces.next_lost(self.near.delivered()) {
            let Part::Data { offset, len, fin } = part else { return None };
            let sent = self.cut(offset, len, room)?;
            let losses = self.pieces.on_repeated(sn, sent);
            self.put_data(conv, offset, sent, fin && sent == len, out);
            return Some((sn, losses));
        }
        let offset = self.near.sent;
        let ready = u32::try_from(self.near.sendable()).unwrap_or(u32::MAX).min(PIECE_MAX);
        if ready == 0 && !self.near.owes_fin() {
            return None;
        }
        let len = self.cut(offset, ready, room)?;
        self.near.sent += u64::from(len);
        let fin = self.near.owes_fin() && self.near.sendable() == 0;
        self.near.fin_sent |= fin;
        let sn = self.pieces.push(Part::Data { offset, len, fin });
        self.put_data(conv, offset, len, fin, out);
        Some((sn, 0))
    }

    /// Returns how many of `len` bytes fit; nothing where it is not worth a frame
    fn cut(&self, offset: u64, len: u32, room: usize) -> Option<u32> {
        let room = u32::try_from(room.checked_sub(self.overhead(offset))?).unwrap_or(u32::MAX);
        (room >= len.min(PIECE_LEAST)).then_some(len.min(room))
    }

    fn fits(&self, offset: u64, len: u32, room: usize) -> bool {
        room.checked_sub(self.overhead(offset)).is_some_and(|room| room >= len as usize)
    }

    fn overhead(&self, offset: u64) -> usize {
        LANE_DATA_OVERHEAD + if self.urgent_from(offset).is_some() { 4 } else { 0 }
    }

    fn urgent_from(&self, offset: u64) -> Option<u32> {
        let urgent = self.near.urgent.filter(|urgent| *urgent > offset);
        urgent.map(|urgent| seq_of(self.near.isn, urgent))
    }

    fn put_data(&mut self, conv: u32, offset: u64, len: u32, fin: bool, out: &mut Vec<u8>) {
        // Of a piece that was delivered in part only the rest is kept.
        let from = offset.max(self.near.delivered());
        let len = (offset + u64::from(len)).saturating_sub(from);
        let marks = Marks { fin, starved: self.near.is_starved(), urgent: self.urgent_from(from) };
        let seq = seq_of(self.near.isn, from);
        Frame::encode_data((conv, seq, marks), out, |out| {
            self.near.kept.read(from, len as usize, out);
        });
    }
}

/// Bytes of the stream in one piece: what fits the largest message
const PIECE_MAX: u32 = 16 * 1024;
/// Least bytes of the stream that are worth a piece where there are more
const PIECE_LEAST: u32 = 128;
