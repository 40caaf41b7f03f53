//! What travels on any path and so takes the one in use: echoes, the control lane, and whatever the
//! scheduler names next.

use super::Session;
use super::outbox::Draft;
use crate::limits::SEGMENT_MAX;
use crate::path::Item;
use crate::sched::Next;
use crate::time::Instant;
use crate::wire::frame::{
    COPIED_OVERHEAD, DATAGRAM_OVERHEAD, FRAME_HEADER, Frame, RELAY_OVERHEAD, SEGMENT_OVERHEAD,
    WINDOW_LEN,
};

impl Session {
    /// Tells whether something waits that goes before all other load
    pub(super) fn has_urgent(&self) -> bool {
        !self.echoes.is_empty() || self.control.has_output() || self.control.needs_window_update()
    }

    /// Tells whether load waits
    pub(super) fn has_load(&self, now: Instant) -> bool {
        let capacity = self.active().map(crate::path::Path::capacity).unwrap_or_default();
        self.has_urgent() || self.fragmenter.has_output() || self.load.has_output(&capacity, now)
    }

    /// Puts what goes before all other load
    pub(super) fn put_urgent(&mut self, draft: &mut Draft, buffer: &mut Vec<u8>, now: Instant) {
        while draft.room(buffer) >= FRAME_HEADER + 8
            && let Some(echo) = self.echoes.pop_front()
        {
            draft.put(&Frame::Echo(echo), buffer);
        }
        if draft.room(buffer) >= WINDOW_LEN
            && let Some((una, wnd)) = self.control.take_window()
        {
            draft.put(&Frame::Window { conv: super::CONTROL_CONV, una, wnd }, buffer);
            draft.content.items.push(Item::Window);
        }
        while draft.room(buffer) >= SEGMENT_OVERHEAD + SEGMENT_MAX
            && let Some((sn, segment)) = self.control.next_segment(draft.room(buffer), now)
        {
            draft.eliciting = true;
            Frame::Segment(segment).encode(buffer);
            draft.content.items.push(Item::Segment(sn));
        }
    }

    /// Puts what the scheduler names, until the message is full
    pub(super) fn put_load(&mut self, draft: &mut Draft, buffer: &mut Vec<u8>, now: Instant) {
        let capacity = self.active().map(crate::path::Path::capacity).unwrap_or_default();
        loop {
            let room = draft.room(buffer);
            if let Some(fragment) = self.fragmenter.next(room) {
                draft.put(&Frame::Fragment(fragment), buffer);
                continue;
            }
            if self.fragmenter.has_output() {
                return;
            }
            let before = buffer.len();
            let mut piece = None;
            match self.load.next(&capacity, now) {
                None => return,
                Some(Next::Relay { node, message }) => {
                    let len = RELAY_OVERHEAD + message.len();
                    if len > room && !draft.is_empty(buffer) {
                        return;
                    }
                    // One that does not fit an empty message is dropped: its sender's MTU search
                    // learns.
                    if len <= room {
                        draft.put(&Frame::Relay { node, message }, buffer);
                    }
                }
                Some(Next::Lane(conv)) => match self.tcp.write_frame(conv, room, buffer, now) {
                    Some(written) => {
                        draft.eliciting = true;
                        draft.content.items.push(Item::Lane(written.piece));
                        piece = Some(written.piece);
                    }
                    None if self.tcp.has_output(conv) && !draft.is_empty(buffer) => return,
                    None => {
                        self.load.sleep_lane(conv);
                        continue;
                    }
                },
                Some(Next::Copy(copy)) => {
                    if self.tcp.write_copy(copy, room, buffer) {
                        draft.eliciting = true;
                        draft.content.items.push(Item::Lane(copy));
                    } else if !draft.is_empty(buffer) {
                        return;
                    }
                    piece = Some(copy);
                }
                Some(Next::Datagram { packet, id }) => {
                    let overhead = if id.is_some() { COPIED_OVERHEAD } else { DATAGRAM_OVERHEAD };
                    if overhead + packet.len() > room {
                        if !draft.is_empty(buffer) {
                            return;
                        }
                        let len = packet.len();
                        if let Some(packet) = self.load.take(None, len, now) {
                            self.fragmenter.start(packet);
                        }
                        continue;
                    }
                    match id {
                        Some(id) => draft.put(&Frame::Copied { id, packet }, buffer),
                        None => draft.put(&Frame::Datagram(packet), buffer),
                    }
                }
            }
            self.load.take(piece, buffer.len() - before, now);
        }
    }
}
