//! What goes into the next message, and in which order.
//!
//! First what one path owes (answers, challenges, probes, beats), then acknowledgements, then what
//! may travel anywhere and so takes the path in use (`load`), as far as that path's rate allows.
//! Acknowledgements ride along wherever there is room.

use core::net::IpAddr;

use super::{Goodbye, Session, Shared};
use crate::limits::{DATA_HEADER_LEN, MESSAGE_MIN, TAG_LEN};
use crate::node::{Ecn, Way};
use crate::path::{Content, Owed, Path};
use crate::time::{Duration, Instant};
use crate::wire::frame::{FRAME_HEADER, Frame};
use crate::wire::message::{DataHeader, number};

/// A sealed message at the end of the buffer
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// Which way it is to go
    pub way: Way,
    /// Our address that it should come from
    pub local: Option<IpAddr>,
    /// Its length
    pub len: usize,
    /// Whether it may be marked on the way
    pub ecn: Ecn,
    /// Whether it goes on with the train that it was composed for, or begins another
    pub follows: bool,
    /// Whether the kernel may cut its train
    pub offload: bool,
}

/// Messages of equal size for one way, which leave together; the last may be shorter
#[derive(Clone, Copy, Debug)]
pub struct Train {
    /// The first of them
    pub first: Sealed,
    /// How many there are
    pub messages: usize,
}

impl Train {
    /// Tells whether a message may be the next of it
    fn takes(&self, next: &Sealed) -> bool {
        let Sealed { way, local, len, ecn, .. } = self.first;
        (way, local, ecn) == (next.way, next.local, next.ecn) && next.len <= len
    }
}

/// A message in the making
pub(super) struct Draft {
    start: usize,
    /// Length of header and frames at which the message is full
    limit: usize,
    /// Length that the message is padded to, tag not included
    pad: usize,
    pub(super) eliciting: bool,
    pub(super) content: Content,
}

impl Draft {
    fn new(buffer: &mut Vec<u8>, room: usize) -> Self {
        let start = buffer.len();
        buffer.resize(start + DATA_HEADER_LEN, 0);
        let limit = start + room - TAG_LEN;
        Self { start, limit, pad: 0, eliciting: false, content: Content::default() }
    }

    pub(super) fn room(&self, buffer: &[u8]) -> usize {
        self.limit.saturating_sub(buffer.len())
    }

    pub(super) fn is_empty(&self, buffer: &[u8]) -> bool {
        buffer.len() == self.start + DATA_HEADER_LEN
    }

    pub(super) fn put(&mut self, frame: &Frame<'_>, buffer: &mut Vec<u8>) {
        self.eliciting |= frame.is_eliciting();
        frame.encode(buffer);
    }
}

impl Session {
    /// Appends the next message to `buffer`, sealed; it follows `train` if it can
    pub fn poll_message(
        &mut self,
        shared: &mut Shared,
        buffer: &mut Vec<u8>,
        train: Option<&Train>,
        now: Instant,
    ) -> Option<Sealed> {
        if !self.epochs.can_seal(now) {
            return None;
        }
        let owing = |path: &Path| path.owes() && path.affords(OWED_MIN);
        if let Some(at) = self.paths.iter().position(owing) {
            return self.compose(at, shared, buffer, train, now);
        }
        let active = self.active_at();
        if let Some(at) = self.ack_due_on(active, now) {
            return self.compose(at, shared, buffer, train, now);
        }
        let at = active?;
        self.paths[at].rate.set_bound(shared.engine.rate);
        if self.has_urgent() {
            return self.compose(at, shared, buffer, train, now);
        }
        if self.paths[at].budget(now) == 0 {
            return None;
        }
        if self.has_load(now) {
            if !self.may_load(at, shared, now) {
                return None;
            }
            if let Some(sealed) = self.compose(at, shared, buffer, train, now) {
                return Some(sealed);
            }
        }
        self.paths[at].on_idle(now);
        None
    }

    /// Appends a goodbye to `buffer`, sealed
    pub fn close(
        &mut self,
        goodbye: Goodbye,
        buffer: &mut Vec<u8>,
        now: Instant,
    ) -> Option<Sealed> {
        let at = self.active_at()?;
        if !self.epochs.can_seal(now) {
            return None;
        }
        let mut draft = Draft::new(buffer, self.paths[at].room());
        let reason = match goodbye {
            Goodbye::ForNow => 0,
            Goodbye::ForGood => 1,
        };
        draft.put(&Frame::Close(reason), buffer);
        self.seal(at, draft, buffer, None, now)
    }

    /// Returns a message with whatever frames, on the path in use
    #[cfg(test)]
    pub(crate) fn forge(&mut self, frames: &[u8], now: Instant) -> Vec<u8> {
        let at = self.active_at().unwrap();
        let mut buffer = Vec::new();
        let draft = Draft::new(&mut buffer, self.paths[at].room());
        buffer.extend_from_slice(frames);
        self.seal(at, draft, &mut buffer, None, now).unwrap();
        buffer
    }

    /// Returns the path on which an acknowledgement is due
    fn ack_due_on(&self, active: Option<usize>, now: Instant) -> Option<usize> {
        let due = self
            .inbound
            .values()
            .find(|inbound| inbound.received.ack_due().is_some_and(|at| at <= now))?;
        let own = self.paths.iter().position(|path| path.way == due.way && path.is_proven());
        own.or(active)
    }

    fn compose(
        &mut self,
        at: usize,
        shared: &mut Shared,
        buffer: &mut Vec<u8>,
        train: Option<&Train>,
        now: Instant,
    ) -> Option<Sealed> {
        let mut draft = Draft::new(buffer, self.paths[at].room());
        self.put_owed(at, &mut draft, buffer);
        let crowded = self.put_acks(at, &mut draft, buffer, now);
        let path = &self.paths[at];
        let mut loaded = false;
        if Some(path.number) == self.active && draft.pad == 0 {
            self.put_urgent(&mut draft, buffer, now);
            if self.paths[at].budget(now) > 0 && self.may_load(at, shared, now) {
                let before = buffer.len();
                self.put_load(at, shared, &mut draft, buffer, now);
                loaded = buffer.len() > before;
            }
        }
        if draft.is_empty(buffer) {
            buffer.truncate(draft.start);
            return None;
        }
        let pause = ACK_PING.max(self.rtt().unwrap_or_default());
        if crowded && !draft.eliciting && now >= self.ack_pinged + pause {
            // So that ranges that the other node has surely seen need not be repeated. Only then:
            // two nodes that always asked would answer each other for ever.
            self.ack_pinged = now;
            draft.put(&Frame::Ping, buffer);
        }
        let sealed = self.seal(at, draft, buffer, train, now)?;
        // What a relay carries counts when it leaves in the session with the relay.
        if !sealed.way.is_relayed() {
            let slot = if loaded { self.slot.take() } else { None };
            shared.shaper.on_sent(sealed.len, slot, now);
        }
        Some(sealed)
    }

    /// Tells whether a message of load may leave now, as far as a person's bounds are concerned
    fn may_load(&mut self, at: usize, shared: &mut Shared, now: Instant) -> bool {
        let waits = self.load.has_output(now) || self.fragmenter.has_output();
        waits && (self.paths[at].way.is_relayed() || shared.shaper.ask(&mut self.slot, now))
    }

    fn put_owed(&mut self, at: usize, draft: &mut Draft, buffer: &mut Vec<u8>) {
        let path = &mut self.paths[at];
        let full = path.inner_size(MESSAGE_MIN);
        while draft.pad == 0 && draft.room(buffer) >= OWED_ROOM {
            match path.next_owed() {
                None => break,
                Some(Owed::Answer(answer)) => draft.put(&Frame::Answer(answer), buffer),
                Some(Owed::EchoReply(echo)) => draft.put(&Frame::EchoReply(echo), buffer),
                Some(Owed::Ping) => draft.put(&Frame::Ping, buffer),
                Some(Owed::Challenge(challenge)) => {
                    draft.put(&Frame::Challenge(challenge), buffer);
                    if path.affords(full) {
                        draft.pad = full - TAG_LEN;
                    }
                }
                Some(Owed::Probe(size)) => {
                    draft.put(&Frame::Ping, buffer);
                    draft.content.probe = true;
                    draft.pad = path.inner_size(size) - TAG_LEN;
                }
            }
        }
    }

    /// Puts acknowledgements; tells whether one of them repeats many ranges
    fn put_acks(
        &mut self,
        at: usize,
        draft: &mut Draft,
        buffer: &mut Vec<u8>,
        now: Instant,
    ) -> bool {
        let mut crowded = false;
        let (way, active) = (self.paths[at].way, Some(self.paths[at].number) == self.active);
        let paths = &self.paths;
        let elsewhere = |way: Way| paths.iter().any(|path| path.way == way && path.is_proven());
        for (number, inbound) in self.inbound.iter_mut() {
            let ours = inbound.way == way || active && !elsewhere(inbound.way);
            if !ours || inbound.received.ack_due().is_none() {
                continue;
            }
            let room = draft.room(buffer);
            let largest = inbound.received.largest_acked_candidate();
            if inbound.received.take_ack(number, now, buffer, room) {
                draft.content.ack = largest.map(|largest| (number, largest));
                crowded |= inbound.received.is_crowded();
            }
        }
        crowded
    }

    fn seal(
        &mut self,
        at: usize,
        mut draft: Draft,
        buffer: &mut Vec<u8>,
        train: Option<&Train>,
        now: Instant,
    ) -> Option<Sealed> {
        let Some(epoch) = self.epochs.sealing(now) else {
            buffer.truncate(draft.start);
            return None;
        };
        if buffer.len() < draft.start + draft.pad {
            buffer.resize(draft.start + draft.pad, 0);
        }
        let path = &mut self.paths[at];
        let len = buffer.len() - draft.start + TAG_LEN;
        draft.content.size = u16::try_from(len).unwrap_or(u16::MAX);
        let ecn = if draft.eliciting { path.next_mark(now) } else { Ecn::Incapable };
        draft.content.capable = ecn == Ecn::Capable;
        let (way, local) = (path.way, path.local);
        let mut sealed = Sealed { way, local, len, ecn, follows: false, offload: true };
        let train = train.filter(|train| train.takes(&sealed));
        sealed.follows = train.is_some();
        let before = train.map(|train| (train.first.offload, train.messages));
        (sealed.offload, draft.content.place) = path.next_in_train(before, now);
        let count = path.on_sent(draft.eliciting, draft.content, now);
        let number = number(path.number, count);
        let header = DataHeader { receiver: epoch.keys.remote_index, number };
        let message = &mut buffer[draft.start..];
        let (head, body) = message.split_at_mut(DATA_HEADER_LEN);
        head.copy_from_slice(&header.encode());
        let tag = epoch.keys.seal.seal(number, head, body);
        epoch.on_sealed();
        buffer.extend_from_slice(&tag);
        Some(sealed)
    }
}

/// Bytes that an address in proof must afford before anything is sent there
const OWED_MIN: usize = DATA_HEADER_LEN + TAG_LEN + 2 * OWED_ROOM;
/// Room for one thing that a path owes
const OWED_ROOM: usize = FRAME_HEADER + 8;
/// Shortest time between pings that ride on acknowledgements
const ACK_PING: Duration = Duration::from_millis(50);
