//! Connections that are split again after one of their two nodes has restarted.
//!
//! The node that lived on has all that the restarted one forgot: what its own kernel said and the
//! other kernel has not acknowledged, and how both kernels are set. Where the restarted node took
//! nothing from its kernel that it did not pass on (a planned end sees to that, see `drain`), the
//! lane begins anew from where the two kernels stand, and nobody notices. PROTOCOL.md, "Restart".
//!
//! # Contract
//!
//! - Nothing is carried before both nodes are known to split again; meanwhile each goes on with its own
//!   kernel as far as windows allow.
//! - Offsets begin anew at the restarted node, sequence numbers are those of the kernels.

use std::collections::VecDeque;

use super::Connections;
use super::connection::{Connection, Owed, Stage};
use super::far::Far;
use super::near::Near;
use super::pool::Pool;
use super::resume::{Inquiry, RESUMING};
use super::seq::{offset_of, seq_of};
use crate::ip::Parcel;
use crate::time::Instant;
use crate::wire::lane::{LaneFrame, Memory, Standing};

impl Connections {
    /// Splits the connection of an inquiry again, whose kernel expects `ack` next; tells whether it
    /// can be
    pub(super) fn rejoin(&mut self, conv: u32, ack: u32, pool: &mut Pool, now: Instant) -> bool {
        let Some(inquiry) = self.inquiries.get(&conv) else { return false };
        let Some(memory) = inquiry.memory else { return false };
        // Less than it had acknowledged before is no answer of that connection.
        let sound = ack.wrapping_sub(inquiry.acked).cast_signed() >= 0;
        let Some(promise) = sound.then(|| self.promise(pool)).flatten() else { return false };
        let mut connection = Connection::again(inquiry, memory, ack, promise, now);
        self.end_inquiry(conv);
        connection.near.frozen = self.draining;
        // The kernel learns that somebody listens again.
        connection.acks.want();
        connection.after(pool, &mut self.packets, now);
        self.insert(conv, connection);
        true
    }
}

impl Connection {
    /// What the other node has to know to split the connection again
    pub(super) fn memory(&self) -> Memory {
        let edge = self.far.kept.edge();
        Memory {
            edge: seq_of(self.far.isn, edge),
            credit: seq_of(self.far.isn, self.far.credit),
            end: self.near.fin.map(|fin| seq_of(self.near.isn, fin)),
            ended: self.far.fin == Some(edge),
            sack: self.sack,
            mss: u16::try_from(self.far.mss).unwrap_or(u16::MAX),
            scales: [self.near.scale, self.far.scale],
        }
    }

    /// Makes a connection from what the other node knows, and from where our kernel stands
    fn again(inquiry: &Inquiry, memory: Memory, ack: u32, promise: usize, now: Instant) -> Self {
        let Memory { edge, credit, end, ended, sack, mss, scales: [theirs, ours] } = memory;
        let mut near = Near::again([inquiry.delivered, edge, credit], promise);
        near.scale = theirs;
        if ended {
            // The other node has our kernel's FIN, which may only not know that yet.
            near.fin = Some(near.sent);
            near.fin_sent = true;
        }
        let ended = end.is_some_and(|end| ack == end.wrapping_add(1));
        let first = 1 + u32::from(ended);
        let mut far = Far::new(ack.wrapping_sub(first), promise);
        far.on_rejoined(mss.into(), ours, inquiry.window, ended);
        let mut connection = Self::new(inquiry.ends, Stage::Rejoining, near, far, now);
        connection.stage_ends = Some(now + RESUMING);
        connection.sack = sack;
        connection.opened = true;
        connection.owed.resumed = true;
        connection
    }

    /// Says from where on the connection is split again
    pub(super) fn resumed_frame(&self, conv: u32) -> LaneFrame<'static> {
        LaneFrame::Resumed {
            conv,
            seq: seq_of(self.near.isn, self.near.delivered()),
            ack: self.far.una_seq(),
            credit: seq_of(self.far.isn, self.far.credit),
            standing: Standing::Split,
        }
    }

    /// The restarted node splits the connection again
    pub(super) fn on_rejoined(
        &mut self,
        [seq, ack, credit]: [u32; 3],
        pool: &mut Pool,
        out: &mut VecDeque<Parcel>,
        now: Instant,
    ) {
        if self.stage != Stage::Resuming {
            return;
        }
        let same = seq == seq_of(self.far.isn, self.far.kept.edge());
        if !(same && self.far.on_resumed(pool) && self.near.on_rejoined(ack, credit, pool)) {
            return self.abort(pool, out, now);
        }
        self.stage = Stage::Open;
        self.stage_ends = None;
        self.opened = true;
        // The first word confirms it there.
        self.owed = Owed { state: true, resume: false, ..self.owed };
        self.acks.want();
        self.after(pool, out, now);
    }
}

impl Near {
    /// Begins where the other node has all, and its kernel only a part for certain
    fn again([delivered, edge, credit]: [u32; 3], limit: usize) -> Self {
        let ahead = edge.wrapping_sub(delivered).cast_signed().max(0).unsigned_abs();
        let base = 1 + u64::from(ahead);
        let mut near = Self::new(edge.wrapping_sub(ahead).wrapping_sub(1), limit);
        near.begin_at(base);
        near.credit = offset_of(near.isn, credit, base).unwrap_or(base).max(base);
        near
    }

    /// Begins to send again from where the other kernel stands; tells whether that can be
    fn on_rejoined(&mut self, ack: u32, credit: u32, pool: &mut Pool) -> bool {
        let edge = self.kept.edge();
        let end = edge + u64::from(self.fin == Some(edge));
        let ack = offset_of(self.isn, ack, edge);
        let Some(ack) = ack.filter(|ack| (self.kept.base()..=end).contains(ack)) else {
            return false;
        };
        let base = self.kept.base();
        self.kept.advance(ack.min(edge), &mut pool.shelf);
        self.certain = self.kept.base();
        pool.give(self.kept.base() - base);
        self.sent = ack.min(edge);
        self.fin_sent = ack > edge;
        self.fin_acked |= ack > edge;
        self.credit = offset_of(self.isn, credit, ack).unwrap_or(0).max(self.sent);
        true
    }
}

impl Far {
    /// Begins where our kernel stands; `ended` tells whether it has the end of the stream
    fn on_rejoined(&mut self, mss: usize, scale: u8, window: u16, ended: bool) {
        self.on_opened(mss, scale, 0);
        self.una += u64::from(ended);
        self.fin = ended.then_some(1);
        self.restart(u64::from(window) << scale);
    }

    /// Goes on from what our kernel has acknowledged meanwhile; tells whether that can be
    fn on_resumed(&mut self, pool: &mut Pool) -> bool {
        let edge = self.kept.edge();
        if self.una > edge + u64::from(self.fin == Some(edge)) {
            return false;
        }
        let base = self.kept.base();
        self.kept.advance(self.una, &mut pool.shelf);
        self.sole = edge;
        self.free(self.kept.base() - base, pool);
        self.promise(pool);
        true
    }
}
