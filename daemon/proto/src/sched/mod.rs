//! Who sends next: all load that waits in one session.
//!
//! Thin flows go first, with the copies of what they sent; then all other flows in a fair round
//! (deficit round robin, those that have just begun first: RFC 8290), datagrams, lanes and relayed
//! messages alike; then, when nothing new waits, spare copies. Datagrams that wait too long are
//! dropped or marked (`codel`), and where too much waits the longest queue gives way. What is thin
//! and how often a thing is sent follows from the path (`policy`).
//!
//! # Contract
//!
//! - [`Scheduler::next`] names what leaves next and changes nothing that counts; then
//!   [`Scheduler::take`], [`Scheduler::take_alone`] or [`Scheduler::sleep_lane`] says what became of
//!   it, or nothing does and it is named again.
//! - When `next` has nothing to name, [`Scheduler::has_output`] is false and the deadline lies ahead.
//! - Lanes are known by their conv alone; nothing is done for each of them at any time.
//! - Packets and messages that came in go out again, each once: as one that leaves alone
//!   ([`Scheduler::take_alone`]), or when nobody needs it any more ([`Scheduler::poll_gone`]).
//!
//! # Not here
//!
//! The control lane and what a path owes for itself go before. How much may leave at all is decided
//! by the path's rate and by the [`Shaper`].

mod codel;
mod copies;
mod ecn;
mod flow;
mod flows;
mod meter;
mod policy;
#[cfg(test)]
mod returned;
mod shaper;
#[cfg(test)]
mod tests;
mod tuple;

use std::collections::VecDeque;

use self::copies::{Copies, Copy, Place, What};
use self::flow::{Key, Turn};
use self::flows::{Flows, Seat};
use self::meter::{Level, Limit};
use self::policy::Policy;
use crate::buffers::Stowed;
use crate::crypto::PublicKey;
use crate::ip::Inner;
use crate::tcp::{Piece, Written};
use crate::time::{Duration, Instant};

pub use self::shaper::{Shaper, Slot};

/// All load that waits in one session
#[derive(Debug, Default)]
pub struct Scheduler {
    flows: Flows,
    thin: VecDeque<Seat>,
    new: VecDeque<Seat>,
    old: VecDeque<Seat>,
    /// Flows that have something to send
    ready: usize,
    /// Lanes that got something to send, until the time is known
    woken: Vec<u32>,
    packet_bytes: usize,
    relay_bytes: usize,
    copies: Copies,
    policy: Policy,
    /// What all thin flows together have sent before others
    thin_level: Level,
    /// Number of the next packet that may be copied
    next_id: u32,
    dropped: u64,
    /// What left or was dropped, and nobody needs any more
    gone: Vec<Inner<Stowed>>,
    chosen: Option<Chosen>,
    /// Most that spare copies may take, in percent
    spare_percent: u8,
}

/// What the path in use is like
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Capacity {
    /// Bytes a second that it delivers, where known
    pub rate: Option<u64>,
    /// Whether it delivers no more than that; otherwise nobody has tried
    pub proven: bool,
    /// Its own loss in parts per million
    pub loss_ppm: u32,
    /// Smoothed round-trip time
    pub rtt: Duration,
}

/// What leaves next
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next<'a> {
    /// An inner packet; with an id where copies of it may follow
    Datagram {
        /// The packet
        packet: &'a [u8],
        /// The number that its copies share
        id: Option<u32>,
    },
    /// A super-packet of so many bytes, which leaves in parts however short it is: a datagram would not
    /// say how it is to be cut
    Super(usize),
    /// A copy of an inner packet that left before
    Copied {
        /// The packet
        packet: &'a [u8],
        /// The number that its copies share
        id: u32,
    },
    /// The next frame of this lane
    Lane(u32),
    /// A copy of what a lane sent before
    Copy(Piece),
    /// Another node's message
    Relay {
        /// Whose
        node: PublicKey,
        /// The message
        message: &'a [u8],
    },
}

/// What was named
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chosen {
    /// The next thing of a flow; with an id where copies may follow
    Flow(Seat, Option<u32>),
    /// A copy
    Copy(Place),
}

impl Scheduler {
    /// Sets the most that spare copies may take of the path's rate, in percent over ten seconds;
    /// nothing: no copies at all
    pub fn set_copies(&mut self, percent: u8) {
        self.spare_percent = percent;
    }

    /// Queues an inner packet or super-packet; where too much waits, the longest queue makes room
    pub fn push_packet(&mut self, packet: Inner<Stowed>, now: Instant) {
        let seat = self.flows.find(Key::Datagrams(tuple::flow_of(&packet.bytes)), now);
        let flow = &mut self.flows[seat];
        flow.level.add(packet.bytes.len(), &self.policy.thin, now);
        flow.meter.add(packet.bytes.len(), now);
        self.packet_bytes += self.push(seat, packet, now);
        if self.packet_bytes > QUEUE_BYTES {
            self.packet_bytes -=
                self.shorten(|key| matches!(key, Key::Datagrams(_)), QUEUE_BYTES / 32);
        }
    }

    /// Queues a message to carry for another node; where too much waits, the longest queue makes
    /// room
    pub fn push_relayed(&mut self, node: PublicKey, message: Vec<u8>, now: Instant) {
        let seat = self.flows.find(Key::Relay(node), now);
        let flow = &mut self.flows[seat];
        flow.level.add(message.len(), &self.policy.thin, now);
        self.relay_bytes += self.push(seat, Stowed::Copied(message).into(), now);
        if self.relay_bytes > RELAY_BYTES {
            self.relay_bytes -= self.shorten(|key| matches!(key, Key::Relay(_)), RELAY_BYTES / 32);
        }
    }

    /// A lane has something to send
    pub fn wake_lane(&mut self, conv: u32) {
        self.woken.push(conv);
    }

    /// Tells whether anything may leave now
    pub fn has_output(&self, now: Instant) -> bool {
        self.ready > 0 || !self.woken.is_empty() || self.copies.is_due(now)
    }

    /// Returns what leaves next, without taking it
    pub fn next(&mut self, capacity: &Capacity, now: Instant) -> Option<Next<'_>> {
        self.policy.update(capacity, self.spare_percent);
        self.wake(now);
        self.chosen = self.choose(now);
        match self.chosen? {
            Chosen::Flow(seat, id) => {
                let flow = &self.flows[seat];
                Some(match flow.key {
                    Key::Datagrams(_) => match flow.head()? {
                        Inner { bytes, gso: Some(_) } => Next::Super(bytes.len()),
                        Inner { bytes, gso: None } => Next::Datagram { packet: bytes, id },
                    },
                    Key::Lane(conv) => Next::Lane(conv),
                    Key::Relay(node) => Next::Relay { node, message: &flow.head()?.bytes },
                })
            }
            Chosen::Copy(place) => Some(match &self.copies.get(place)?.what {
                What::Packet { id, packet } => Next::Copied { packet, id: *id },
                What::Piece(piece) => Next::Copy(*piece),
            }),
        }
    }

    /// Takes what [`Scheduler::next`] named: it left in `bytes` bytes, and as what if it is a lane's
    ///
    /// A copy of no bytes did not leave, and no other copy will.
    pub fn take(&mut self, written: Option<Written>, bytes: usize, now: Instant) {
        match self.chosen.take() {
            None => {}
            Some(Chosen::Copy(place)) if bytes == 0 => self.copies.forget(place),
            Some(Chosen::Copy(place)) => self.copies.on_sent(place, &self.policy, now),
            Some(Chosen::Flow(seat, id)) => {
                let thin = self.charge(seat, bytes, now);
                let what = match (written, id) {
                    (Some(written), _) => Some(What::Piece(written.piece)),
                    (None, None) => {
                        let packet = self.pop(seat);
                        self.gone.extend(packet);
                        None
                    }
                    (None, Some(id)) => {
                        self.next_id = id.wrapping_add(1);
                        self.pop(seat).map(|packet| What::Packet { id, packet: packet.bytes })
                    }
                };
                if let Some(what) = what {
                    let losses = written.map_or(0, |written| written.losses);
                    self.keep(seat, (thin, losses), Copy::new(what, bytes, now), now);
                }
            }
        }
    }

    /// Takes the packet that [`Scheduler::next`] named, to send it in `bytes` bytes and in a way in
    /// which it cannot be copied
    pub fn take_alone(&mut self, bytes: usize, now: Instant) -> Option<Inner<Stowed>> {
        match self.chosen.take()? {
            Chosen::Copy(place) => {
                self.copies.forget(place);
                None
            }
            Chosen::Flow(seat, _) => {
                self.charge(seat, bytes, now);
                self.pop(seat)
            }
        }
    }

    /// The lane that [`Scheduler::next`] named has nothing to send any more
    pub fn sleep_lane(&mut self, conv: u32, now: Instant) {
        self.chosen = None;
        let Some(seat) = self.flows.known(Key::Lane(conv)) else { return };
        let flow = &mut self.flows[seat];
        if flow.is_ready() {
            self.ready -= 1;
        }
        flow.set_awake(false, &self.policy, now);
        for (piece, bytes, left) in flow.take_tail() {
            if self.policy.copies() {
                let copy = Copy::new(What::Piece(piece), bytes, left);
                self.copies.push_tail(copy, &self.policy, now);
            }
        }
    }

    /// A message of so many bytes with this piece was lost, but another one that is still under way
    /// has it as well
    ///
    /// Whether that is lost too would only be known when the last of them is; few pieces come to
    /// this, and each of them may hold up all that follows it.
    pub fn on_doubt(&mut self, piece: Piece, bytes: usize, now: Instant) {
        if self.policy.copies() {
            self.copies.renew(piece, bytes, &self.policy, now);
        }
    }

    /// Records that a packet with this id has arrived: no more copies
    pub fn on_acked(&mut self, id: u32) {
        self.copies.on_acked(id);
    }

    /// Returns a packet or message that has left and is not copied any more, or was dropped, for its buffer
    pub fn poll_gone(&mut self) -> Option<Inner<Stowed>> {
        self.gone.pop().or_else(|| self.copies.poll_gone().map(Inner::from))
    }

    /// Returns how many packets and messages were dropped since this was asked last
    pub fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.dropped)
    }

    /// Returns when something may leave that may not now (a copy that waits)
    pub fn deadline(&self) -> Option<Instant> {
        self.copies.deadline()
    }

    /// Queues bytes in a flow, and the flow for its turn; returns what they count
    fn push(&mut self, seat: Seat, bytes: Inner<Stowed>, now: Instant) -> usize {
        let flow = &mut self.flows[seat];
        let weight = flow.weight(&bytes.bytes);
        self.ready += usize::from(!flow.is_ready());
        flow.push(bytes, now);
        self.line_up(seat, now);
        weight
    }

    /// Lets the lanes line up that got something to send
    fn wake(&mut self, now: Instant) {
        while let Some(conv) = self.woken.pop() {
            let seat = self.flows.find(Key::Lane(conv), now);
            let flow = &mut self.flows[seat];
            self.ready += usize::from(!flow.is_ready());
            flow.set_awake(true, &self.policy, now);
            self.line_up(seat, now);
        }
    }

    /// Lets a flow that has something to send wait for its turn
    fn line_up(&mut self, seat: Seat, now: Instant) {
        let flow = &mut self.flows[seat];
        if flow.turn != Turn::Idle {
            return;
        }
        let thin = flow.level.is_thin(&self.policy.thin, now);
        if thin && self.thin_level.is_thin(&self.policy.thin_share(), now) {
            flow.turn = Turn::Thin;
            self.thin.push_back(seat);
        } else {
            self.begin_round(seat);
        }
    }

    /// Lets a flow take part in the round, among those that have just begun
    fn begin_round(&mut self, seat: Seat) {
        let flow = &mut self.flows[seat];
        flow.turn = Turn::New;
        flow.deficit = flow.deficit.min(0) + QUANTUM;
        self.new.push_back(seat);
    }

    fn choose(&mut self, now: Instant) -> Option<Chosen> {
        if let Some(seat) = self.choose_thin(now) {
            return Some(Chosen::Flow(seat, self.id_for(seat)));
        }
        if let Some(place) = self.copies.next_thin(&self.policy, now) {
            return Some(Chosen::Copy(place));
        }
        if let Some(seat) = self.choose_from_round(now) {
            return Some(Chosen::Flow(seat, self.id_for(seat)));
        }
        let flows = &self.flows;
        let awake = |conv| flows.known(Key::Lane(conv)).is_some_and(|seat| flows[seat].is_ready());
        self.copies.next_spare(&self.policy, awake, now).map(Chosen::Copy)
    }

    fn choose_thin(&mut self, now: Instant) -> Option<Seat> {
        while let Some(seat) = self.thin.front().copied() {
            self.tidy(seat, now);
            let flow = &mut self.flows[seat];
            let ready = flow.is_ready();
            if ready
                && flow.level.is_thin(&self.policy.thin, now)
                && self.thin_level.is_thin(&self.policy.thin_share(), now)
            {
                return Some(seat);
            }
            self.thin.pop_front();
            if ready {
                self.begin_round(seat);
            } else {
                flow.turn = Turn::Idle;
            }
        }
        None
    }

    /// Goes round until a flow with credit has something to send (RFC 8290, section 4.2)
    fn choose_from_round(&mut self, now: Instant) -> Option<Seat> {
        loop {
            let fresh = !self.new.is_empty();
            let line = if fresh { &mut self.new } else { &mut self.old };
            let seat = *line.front()?;
            self.tidy(seat, now);
            let flow = &mut self.flows[seat];
            let ready = flow.is_ready();
            if ready && flow.deficit > 0 {
                return Some(seat);
            }
            let line = if fresh { &mut self.new } else { &mut self.old };
            line.pop_front();
            if ready {
                flow.deficit += QUANTUM;
            }
            // A flow that ended may not begin anew before all others had their turn.
            if ready || fresh && !self.old.is_empty() {
                flow.turn = Turn::Old;
                self.old.push_back(seat);
            } else {
                flow.turn = Turn::Idle;
            }
        }
    }

    /// Returns the number that the head of a flow shares with its copies, where it is to have any
    fn id_for(&self, seat: Seat) -> Option<u32> {
        let flow = &self.flows[seat];
        let copied = self.policy.copies()
            && match flow.key {
                Key::Datagrams(_) => flow.turn == Turn::Thin || self.is_affordable(seat),
                Key::Lane(_) | Key::Relay(_) => false,
            };
        copied.then_some(self.next_id)
    }

    /// Tells whether all that a flow sends can be copied: half of it is not worth half as much
    fn is_affordable(&self, seat: Seat) -> bool {
        let copies = u64::from(self.policy.transmissions - 1);
        self.flows[seat].meter.rate().saturating_mul(copies) <= self.policy.spare_copies
    }

    /// Keeps what left, for copies: whether it went before other load, and how often it was lost
    fn keep(&mut self, seat: Seat, (thin, losses): (bool, u8), copy: Copy, now: Instant) {
        if !self.policy.copies() {
            return self.copies.discard(copy);
        }
        let spare = match copy.what {
            _ if thin => return self.copies.push_thin(copy, &self.policy, now),
            What::Piece(piece) => {
                let first = self.flows[seat].on_piece(piece, copy.bytes, now);
                // Round trips were lost already, and few pieces come to that.
                let most = if first { self.policy.repeats.max(losses) } else { losses };
                if losses > 0 && (first || most > 1) {
                    return self.copies.push_repeat(copy, most, &self.policy, now);
                }
                first
            }
            What::Packet { .. } => true,
        };
        if spare {
            self.copies.push_spare(copy, &self.policy, now);
        }
    }

    /// Lets a flow pay for what it sent; tells whether that went before other load
    fn charge(&mut self, seat: Seat, bytes: usize, now: Instant) -> bool {
        let flow = &mut self.flows[seat];
        flow.deficit -= i64::try_from(bytes).unwrap_or(i64::MAX);
        match flow.key {
            Key::Lane(_) => {
                flow.level.add(bytes, &self.policy.thin, now);
                flow.last = now;
            }
            // These were counted when they came.
            Key::Datagrams(_) | Key::Relay(_) => {}
        }
        let thin = flow.turn == Turn::Thin;
        if thin {
            // The deficit is that of the round.
            flow.deficit = 0;
            self.thin_level.add(bytes, &self.policy.thin_share(), now);
            self.thin.rotate_left(1);
        }
        thin
    }

    /// Takes the packet or message at the head of a flow
    fn pop(&mut self, seat: Seat) -> Option<Inner<Stowed>> {
        let flow = &mut self.flows[seat];
        let bytes = flow.pop()?;
        let weight = flow.weight(&bytes.bytes);
        if !flow.is_ready() {
            self.ready -= 1;
        }
        self.give_back(seat, weight);
        Some(bytes)
    }

    /// Drops what waits too long at the head of a flow
    fn tidy(&mut self, seat: Seat, now: Instant) {
        let flow = &mut self.flows[seat];
        if flow.backlog() == 0 {
            return;
        }
        let before = flow.is_ready();
        let (gone, bytes) = flow.tidy(&self.policy, &mut self.gone, now);
        if before && !flow.is_ready() {
            self.ready -= 1;
        }
        self.dropped += gone as u64;
        self.give_back(seat, bytes);
    }

    /// Drops from the head of the longest queue of a kind, `bytes` or half of it; returns how much
    fn shorten(&mut self, kind: impl Fn(&Key) -> bool, bytes: usize) -> usize {
        self.chosen = None;
        let Some(seat) = self.flows.longest(kind) else { return 0 };
        let flow = &mut self.flows[seat];
        let before = flow.backlog();
        if before == 0 {
            return 0;
        }
        let enough = bytes.min(before / 2).max(1);
        while before - flow.backlog() < enough
            && let Some(packet) = flow.pop()
        {
            self.gone.push(packet);
            self.dropped += 1;
        }
        if !flow.is_ready() {
            self.ready -= 1;
        }
        before - flow.backlog()
    }

    fn give_back(&mut self, seat: Seat, bytes: usize) {
        match self.flows[seat].key {
            Key::Datagrams(_) => self.packet_bytes -= bytes,
            Key::Relay(_) => self.relay_bytes -= bytes,
            Key::Lane(_) => {}
        }
    }
}

impl Policy {
    /// Returns what all thin flows together may send before others
    fn thin_share(&self) -> Limit {
        Limit { rate: self.thin_share, burst: (self.thin_share / 10).max(self.thin.burst * 4) }
    }
}

/// Bytes of inner packets that wait
const QUEUE_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of other nodes' messages that wait
const RELAY_BYTES: usize = 512 * 1024;
/// Bytes that a flow sends at each of its turns
const QUANTUM: i64 = 1514;
