//! What travels on any path and so takes the one in use: echoes, the control lane, and whatever the
//! scheduler names next.

use super::outbox::Draft;
use super::{Session, Shared};
use crate::limits::SEGMENT_MAX;
use crate::path::Item;
use crate::sched::{Capacity, Next};
use crate::tcp::Written;
use crate::time::Instant;
use crate::wire::frame::{
    COPIED_OVERHEAD, DATAGRAM_OVERHEAD, FRAME_HEADER, Frame, RELAY_OVERHEAD, SEGMENT_OVERHEAD,
    WINDOW_LEN,
};

impl Session {
    /// Tells whether something waits that goes before all other load
    pub(super) fn has_urgent(&self) -> bool {
        !self.echoes.is_empty()
            || self.control.has_output()
            || self.control.needs_window_update()
            || self.leave.has_output()
    }

    /// Tells whether load waits
    pub(super) fn has_load(&self, now: Instant) -> bool {
        self.has_urgent() || self.fragmenter.has_output() || self.load.has_output(now)
    }

    /// Puts what goes before all other load
    pub(super) fn put_urgent(&mut self, draft: &mut Draft, buffer: &mut Vec<u8>, now: Instant) {
        while draft.room(buffer) >= FRAME_HEADER + 8
            && let Some(echo) = self.echoes.pop_front()
        {
            draft.put(&Frame::Echo(echo), buffer);
        }
        if self.leave.has_output() && draft.room(buffer) >= FRAME_HEADER {
            draft.put(&Frame::Leaving, buffer);
            draft.content.items.push(Item::Leaving);
            self.leave.on_sent();
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
    pub(super) fn put_load(
        &mut self,
        at: usize,
        shared: &mut Shared,
        draft: &mut Draft,
        buffer: &mut Vec<u8>,
        now: Instant,
    ) {
        let capacity = self.capacity(at, shared);
        self.load.set_copies(shared.engine.copies);
        loop {
            let before = buffer.len();
            if let Some(fragment) = self.fragmenter.next(draft.room(buffer)) {
                draft.put(&Frame::Fragment(fragment), buffer);
                self.paths[at].spent.fresh.count(buffer.len() - before);
                continue;
            }
            if self.fragmenter.has_output() {
                return;
            }
            self.reclaim(shared);
            let Some(outcome) = self.put_next(&capacity, draft, buffer, now) else { return };
            let bytes = buffer.len() - before;
            let spent = &mut self.paths[at].spent;
            match outcome {
                Outcome::Full => return,
                Outcome::Put => {
                    spent.fresh.count(bytes);
                    self.load.take(None, bytes, now);
                }
                Outcome::Alone => {
                    spent.fresh.count(bytes);
                    if let Some(packet) = self.load.take_alone(bytes, now) {
                        shared.give(packet);
                    }
                }
                Outcome::Lane(written) => {
                    let count =
                        if written.losses > 0 { &mut spent.repeats } else { &mut spent.fresh };
                    count.count(bytes);
                    self.load.take(Some(written), bytes, now);
                }
                Outcome::Again => {
                    spent.copies.count(bytes);
                    self.load.take(None, bytes, now);
                }
                Outcome::Gone => self.load.take(None, 0, now),
                Outcome::Asleep(conv) => self.load.sleep_lane(conv, now),
                Outcome::Large(bytes) => {
                    if let Some(packet) = self.load.take_alone(bytes, now) {
                        self.fragmenter.start(packet);
                    }
                }
            }
        }
    }

    /// Returns what is known of what a path carries, a person's bound included
    fn capacity(&self, at: usize, shared: &Shared) -> Capacity {
        let path = &self.paths[at];
        let mut capacity = path.capacity();
        if let Some(bound) = shared.shaper.rate() {
            // Whoever set a bound knows the link; until the path is measured, that is all there is.
            let known = capacity.rate.filter(|_| capacity.proven);
            capacity.rate = Some(known.map_or(bound, |rate| rate.min(bound)));
            capacity.proven = true;
        }
        if !path.way.is_stream() && !path.sent.knows_loss() {
            capacity.loss_ppm = capacity.loss_ppm.max(LOSS_ASSUMED_PPM);
        }
        capacity
    }

    /// Puts what the scheduler names into the message, if it fits
    fn put_next(
        &mut self,
        capacity: &Capacity,
        draft: &mut Draft,
        buffer: &mut Vec<u8>,
        now: Instant,
    ) -> Option<Outcome> {
        let room = draft.room(buffer);
        let whole = draft.is_empty(buffer);
        let unfit = |other| if whole { other } else { Outcome::Full };
        Some(match self.load.next(capacity, now)? {
            Next::Relay { node, message } => {
                if RELAY_OVERHEAD + message.len() <= room {
                    draft.put(&Frame::Relay { node, message }, buffer);
                    Outcome::Put
                } else {
                    // Dropped: the MTU search of its sender learns.
                    unfit(Outcome::Gone)
                }
            }
            Next::Datagram { packet, id: Some(id) } if COPIED_OVERHEAD + packet.len() <= room => {
                draft.put(&Frame::Copied { id, packet }, buffer);
                draft.content.items.push(Item::Copied(id));
                Outcome::Put
            }
            Next::Datagram { packet, id } if DATAGRAM_OVERHEAD + packet.len() <= room => {
                // One that is too large for an id goes without copies, but in one piece.
                if id.is_some() && !whole {
                    return Some(Outcome::Full);
                }
                draft.put(&Frame::Datagram(packet), buffer);
                Outcome::Alone
            }
            Next::Datagram { packet, .. } => unfit(Outcome::Large(packet.len())),
            Next::Super(bytes) => unfit(Outcome::Large(bytes)),
            Next::Copied { packet, id } => {
                if COPIED_OVERHEAD + packet.len() <= room {
                    draft.put(&Frame::Copied { id, packet }, buffer);
                    draft.content.items.push(Item::Copied(id));
                    Outcome::Again
                } else {
                    unfit(Outcome::Gone)
                }
            }
            Next::Lane(conv) => match self.tcp.write_frame(conv, room, buffer, now) {
                Some(written) => {
                    draft.eliciting = true;
                    draft.content.items.push(Item::Lane(written.piece));
                    Outcome::Lane(written)
                }
                None if !whole && self.tcp.has_output(conv) => Outcome::Full,
                None => Outcome::Asleep(conv),
            },
            Next::Copy(piece) => {
                if self.tcp.write_copy(piece, room, buffer) {
                    draft.eliciting = true;
                    draft.content.items.push(Item::Lane(piece));
                    Outcome::Again
                } else {
                    unfit(Outcome::Gone)
                }
            }
        })
    }
}

/// What became of what the scheduler named
enum Outcome {
    /// It is in the message, for the first time
    Put,
    /// It is in the message, in a form that cannot be copied
    Alone,
    /// A frame of a lane is in the message
    Lane(Written),
    /// A copy is in the message
    Again,
    /// Nobody needs it any more, or it fits no message
    Gone,
    /// The lane has nothing to send
    Asleep(u32),
    /// A packet fits no message: it must be cut; its length
    Large(usize),
    /// It needs another message
    Full,
}

/// Loss of which a path is suspected until enough messages were sent to tell: five percent
const LOSS_ASSUMED_PPM: u32 = 50_000;
