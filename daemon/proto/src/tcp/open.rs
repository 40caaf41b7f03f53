//! How connections begin: SYN and SYN-ACK, and the decision whether they are split.

use std::collections::VecDeque;

use super::connection::{Connection, Stage};
use super::far::Far;
use super::near::Near;
use super::options::{Filtered, Offer, filter};
use super::pool::Pool;
use super::segment::{ACK, FIN, RST, SYN, Segment};
use super::seq::seq_of;
use super::{Change, Connections, Handling, Stance};
use crate::ip::{Packet, Parcel};
use crate::limits::LANE_CREDIT_MAX;
use crate::time::Instant;
use crate::wire::frame::Malformed;

impl Connections {
    /// Our kernel opens a connection
    pub(super) fn on_syn(
        &mut self,
        segment: &Segment<'_>,
        pool: &mut Pool,
        now: Instant,
    ) -> Handling {
        if segment.has(ACK | RST | FIN) {
            return Handling::Plain;
        }
        let Filtered::Split(offer, options) = filter(segment.options) else {
            return Handling::Plain;
        };
        let opens = self.would_split(self.stance, pool) && !self.passed.contains(segment);
        let Some(credit) = opens.then(|| self.promise(pool)).flatten() else {
            self.passed.insert(segment);
            return Handling::Plain;
        };
        let conv = self.free_conv();
        let near = Near::new(segment.seq, credit);
        let far = Far::new(0, credit);
        let mut connection = Connection::new(segment.ends, Stage::Opening, near, far, now);
        connection.offer = offer;
        connection.syn_window = segment.window;
        connection.greeting = greeting(segment, &options, credit);
        connection.owed.open = true;
        self.insert(conv, connection);
        Handling::Taken
    }

    /// Our kernel takes a connection that the other node opened
    pub(super) fn on_syn_ack(
        &mut self,
        conv: u32,
        segment: &Segment<'_>,
        pool: &mut Pool,
        now: Instant,
    ) -> Handling {
        let Some(connection) = self.lanes.get_mut(&conv) else { return Handling::Plain };
        let expected = seq_of(connection.far.isn, 1);
        if !segment.has(ACK) || segment.has(RST | FIN) || segment.ack != expected {
            return Handling::Plain;
        }
        let Filtered::Split(offer, options) = filter(segment.options) else {
            // It is signed after all: the packets go as they are.
            self.remove(conv, pool);
            return Handling::Plain;
        };
        // What the other kernel offered was noted in place of ours.
        let theirs = core::mem::replace(&mut connection.offer, offer);
        connection.near.isn = segment.seq;
        connection.agree(theirs, segment.window);
        connection.greeting =
            greeting(segment, &options, connection.near.right_edge() as usize - 1);
        connection.stage = Stage::Answered;
        connection.stage_ends = Some(now + crate::limits::LANE_OPENING);
        connection.owed.accept = true;
        self.settle(conv);
        Handling::Taken
    }

    /// The other node opens a connection
    ///
    /// # Errors
    /// If the lane is ours to open, is used already, or the packet is no SYN.
    pub(super) fn on_open(
        &mut self,
        conv: u32,
        credit: u32,
        packet: &[u8],
        pool: &mut Pool,
        now: Instant,
    ) -> Result<(), Malformed> {
        let (segment, offer, options) = read(packet, SYN)?;
        if conv & 1 == self.parity || u64::from(credit) > LANE_CREDIT_MAX {
            return Err(Malformed);
        }
        if self.inquiries.contains_key(&conv) {
            return Err(Malformed);
        }
        // From our side the addresses are the other way round.
        let ends = segment.ends.turned();
        let syn = Segment { options: &options, data: &[], ..segment };
        if let Some(connection) = self.lanes.get(&conv) {
            let same = connection.ends == ends && connection.far.isn == segment.seq;
            if same && connection.stage == Stage::Answering {
                self.packets.push_back(syn.encode().into());
            }
            return if same { Ok(()) } else { Err(Malformed) };
        }
        if let Some(old) = self.flows.get(&ends).copied() {
            // Both kernels open the same connection at once, which is left to them; or the other
            // one has begun anew.
            let opening = self.lanes.get(&old).is_some_and(|old| old.stage == Stage::Opening);
            if opening {
                self.remove(old, pool);
                self.packets.push_back(syn.encode().into());
                return Ok(());
            }
            if let Some(old_connection) = self.lanes.get_mut(&old) {
                old_connection.abort(pool, &mut self.packets, now);
                self.flows.remove(&ends);
                self.changes.push_back(Change::Closed(ends));
                self.settle(old);
            }
        }
        let Some(promise) = self.promise(pool) else {
            self.packets.push_back(syn.encode().into());
            return Ok(());
        };
        let mut near = Near::new(0, promise);
        near.credit = 1 + u64::from(credit);
        let window = u16::try_from(promise).unwrap_or(u16::MAX).min(syn.window);
        let far = Far::new(segment.seq, promise);
        let mut connection = Connection::new(ends, Stage::Answering, near, far, now);
        connection.offer = offer;
        connection.class = segment.class;
        self.insert(conv, connection);
        self.packets.push_back(Segment { window, ..syn }.encode().into());
        Ok(())
    }

    /// Takes what a new connection is promised, and returns how much that is in each direction; nothing where it is
    /// to be plain
    pub(super) fn promise(&self, pool: &mut Pool) -> Option<usize> {
        if self.takes_more() { pool.take_first() } else { None }
    }

    /// Tells whether a new connection would be promised anything
    pub(super) fn may_promise(&self, pool: &Pool) -> bool {
        self.takes_more() && pool.has_first(pool.leave())
    }

    fn takes_more(&self) -> bool {
        self.stance != Stance::Decline && self.lanes.len() < LANES_MAX
    }

    pub(super) fn insert(&mut self, conv: u32, connection: Connection) {
        let ends = connection.ends;
        self.lanes.insert(conv, connection);
        self.flows.insert(ends, conv);
        self.changes.push_back(Change::Opened(ends));
        self.settle(conv);
    }

    pub(super) fn free_conv(&mut self) -> u32 {
        loop {
            let conv = self.next << 1 | self.parity;
            self.next = self.next.wrapping_add(1);
            if !self.lanes.contains_key(&conv) && !self.inquiries.contains_key(&conv) {
                return conv;
            }
        }
    }
}

impl Connection {
    /// The other node agrees to split, and its kernel has answered
    ///
    /// # Errors
    /// If the packet is no answer to our kernel's SYN.
    pub(super) fn on_accept(
        &mut self,
        credit: u32,
        packet: &[u8],
        out: &mut VecDeque<Parcel>,
    ) -> Result<(), Malformed> {
        let (segment, offer, options) = read(packet, SYN | ACK)?;
        let fits = segment.ends == self.ends.turned() && segment.ack == seq_of(self.near.isn, 1);
        if !fits || u64::from(credit) > LANE_CREDIT_MAX {
            return Err(Malformed);
        }
        match self.stage {
            Stage::Opening => {
                self.far.isn = segment.seq;
                self.class = segment.class;
                self.near.credit = 1 + u64::from(credit);
                let window = self.syn_window;
                self.agree(offer, window);
                self.owed.open = false;
                self.stage = Stage::Accepted;
            }
            // The other kernel says it again: ours may not have heard it.
            Stage::Accepted => {}
            Stage::Answering
            | Stage::Answered
            | Stage::Open
            | Stage::Resuming
            | Stage::Rejoining
            | Stage::Parting
            | Stage::Closed
            | Stage::Reset => return Ok(()),
        }
        let promised = self.near.right_edge() - 1;
        let window = u16::try_from(promised).unwrap_or(u16::MAX).min(segment.window);
        // Kept for the kernel that has not heard it.
        self.greeting = Segment { options: &options, data: &[], window, ..segment }.encode();
        out.push_back(self.greeting.clone().into());
        Ok(())
    }
}

/// Writes a SYN or SYN-ACK as it is to travel: without what splitting cannot honour, and with no
/// larger window than is promised
fn greeting(segment: &Segment<'_>, options: &[u8], promised: usize) -> Vec<u8> {
    let window = u16::try_from(promised).unwrap_or(u16::MAX).min(segment.window);
    // Neither data with a SYN (RFC 7413) nor an offer of ECN: its marks end where the split begins.
    let flags = segment.flags & (SYN | ACK);
    Segment { options, data: &[], flags, window, urgent: 0, ..*segment }.encode()
}

/// Reads a packet that must be a SYN, or a SYN-ACK, of a connection that can be split
fn read(packet: &[u8], flags: u8) -> Result<(Segment<'_>, Offer, Vec<u8>), Malformed> {
    let view = Packet::parse(packet).map_err(|_| Malformed)?;
    let segment = Segment::parse(&view, None).filter(|segment| segment.flags == flags);
    let segment = segment.ok_or(Malformed)?;
    match filter(segment.options) {
        Filtered::Split(offer, options) => Ok((segment, offer, options)),
        Filtered::Untouchable => Err(Malformed),
    }
}

/// Lanes with one other node
const LANES_MAX: usize = 65_536;
