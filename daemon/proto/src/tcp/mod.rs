//! Split TCP: connections acknowledged at both nodes, sequence numbers kept.
//!
//! [`Connections`] are all connections that are split with one other node. It takes the packets of
//! our kernel, and of machines behind us, before anybody else; what belongs to a split connection, or
//! begins one, goes into that connection's lane, everything else travels as it is.
//!
//! # Contract
//!
//! - After any number of calls: [`Connections::flush`]; then drain [`Connections::poll_ready`], [`Connections::poll_change`],
//!   [`Connections::poll_packet`] and [`Connections::poll_plain`], then ask [`Connections::deadline`].
//! - Each piece that [`Connections::write_frame`] or [`Connections::write_copy`] wrote is reported
//!   by [`Connections::on_acked`] or [`Connections::on_lost`], once for each message it was in; the
//!   session's acknowledgements are the lane's.
//! - What a connection costs depends on that connection alone, not on how many there are or how much
//!   of it is in flight.
//!
//! # Not here
//!
//! Which lane sends when is for the scheduler, which peer a packet goes to for the node.

mod acks;
mod adopted;
mod assembly;
mod chunks;
mod connection;
mod drain;
mod error;
mod far;
mod lane;
mod near;
mod open;
mod options;
mod orphan;
mod passed;
mod pieces;
mod pool;
mod rejoin;
mod rest;
#[cfg(test)]
mod restart_tests;
mod resume;
mod segment;
mod seq;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::connection::{Connection, Stage, Verdict};
use self::orphan::Orphans;
use self::passed::Passed;
pub use self::pool::Pool;
use self::resume::Inquiry;
use self::segment::{ACK, RST, SYN, Segment, is_syn};
pub use self::segment::{Ends, ends_of};
use crate::ip::{Gso, Packet, Parcel};
use crate::time::Instant;
use crate::wire::frame::Malformed;
use crate::wire::lane::{LaneFrame, Standing};

/// Connections that are split with one other node
#[derive(Debug, Default)]
pub struct Connections {
    /// Which new connections are split; those that are go on
    pub stance: Stance,
    /// Bytes of promise beyond which a connection gains nothing on the path in use, where that is known
    pub useful: Option<usize>,
    /// Lower bit of the lanes that we open; the other node's have the other one
    parity: u32,
    /// Lane to open next, but for the lower bit
    next: u32,
    lanes: BTreeMap<u32, Connection>,
    /// Those that our kernel's packets may belong to
    flows: BTreeMap<Ends, u32>,
    /// Connections that the other node asks for since we have restarted, by lane and by ends
    inquiries: BTreeMap<u32, Inquiry>,
    inquired: BTreeMap<Ends, u32>,
    /// Lanes of which the other node is asked where its kernel stands
    resuming: BTreeSet<u32>,
    /// Whether nothing more is taken from our kernel: the node is about to end
    draining: bool,
    /// Connections that neither node may know any more
    orphans: Orphans,
    /// SYNs of our kernel that travelled as they are
    passed: Passed,
    /// Bytes of the pool that all of them were promised
    held: usize,
    /// Lanes that something happened to and that [`Connections::flush`] is still to look at
    unsettled: Vec<u32>,
    timers: BTreeSet<(Instant, u32)>,
    ready: VecDeque<u32>,
    packets: VecDeque<Parcel>,
    changes: VecDeque<Change>,
}

/// Which new connections are split
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stance {
    /// Those that our kernel opens, and those that the other node asks for
    #[default]
    Split,
    /// Those that our kernel opens while memory is plenty, and those that the other node asks for
    Sparing,
    /// None
    Decline,
}

/// News about which connections there are
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// Packets of this connection are ours from now on, and are written in its name
    Opened(Ends),
    /// They are not any more
    Closed(Ends),
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
    /// Times that it was sent before, and lost
    pub losses: u8,
}

/// Why a frame was not taken
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It breaks the protocol
    Malformed,
    /// There is no memory for it at present: its message is as if it was lost, to be said again
    NoRoom,
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What becomes of a packet from the TUN
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handling {
    /// It travels as it is
    Plain,
    /// It belongs to a split connection
    Taken,
}

/// Which lanes a node opens: one of the two the even ones, the other the odd ones
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parity {
    /// 0, 2, 4, ...
    Even,
    /// 1, 3, 5, ...
    Odd,
}

impl Connections {
    /// Begins without connections
    pub fn new(parity: Parity) -> Self {
        let parity = match parity {
            Parity::Even => 0,
            Parity::Odd => 1,
        };
        Self { parity, ..Self::default() }
    }

    /// Tells whether there is no connection
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.inquiries.is_empty()
    }

    /// Tells whether a connection that our kernel opens now is split, as far as it lies with us
    pub fn would_split(&self, stance: Stance, pool: &Pool) -> bool {
        let wants = match stance {
            Stance::Split => true,
            Stance::Sparing => !pool.is_short(self.held),
            Stance::Decline => false,
        };
        wants && pool.has_first(self.held)
    }

    /// Returns how many connections there are
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Takes a packet or super-packet from the TUN, of whatever protocol
    pub fn handle_packet(
        &mut self,
        packet: &[u8],
        gso: Option<Gso>,
        pool: &mut Pool,
        now: Instant,
    ) -> Handling {
        pool.enter(self.held, self.useful);
        let handling = self.take_packet(packet, gso, pool, now);
        self.held = pool.leave();
        handling
    }

    fn take_packet(
        &mut self,
        packet: &[u8],
        gso: Option<Gso>,
        pool: &mut Pool,
        now: Instant,
    ) -> Handling {
        let Ok(view) = Packet::parse(packet) else { return Handling::Plain };
        let Some(ends) = ends_of(&view) else { return self.on_error(&view, pool, now) };
        let known = self.flows.get(&ends).copied();
        let Some(segment) = Segment::parse(&view, gso) else {
            // A broken segment of a split connection is of no use to anybody.
            return if known.is_some() { Handling::Taken } else { Handling::Plain };
        };
        let Some(conv) = known else {
            if let Some(handling) = self.on_inquired(&segment, pool, now) {
                return handling;
            }
            return self.on_unknown(&segment, pool, now);
        };
        let Some(connection) = self.lanes.get_mut(&conv) else { return Handling::Plain };
        if segment.has(SYN) && !segment.has(ACK) {
            let same = connection.near.isn == segment.seq;
            let again = same && connection.stage != Stage::Answering;
            if !again {
                // The kernel has begun anew: nothing is left of the old connection.
                connection.reset(pool, now);
                self.settle(conv);
                let handling = self.on_syn(&segment, pool, now);
                if handling == Handling::Plain && self.flows.get(&segment.ends) == Some(&conv) {
                    // The old lane must not answer for the new connection.
                    self.flows.remove(&segment.ends);
                    self.changes.push_back(Change::Closed(segment.ends));
                }
                return handling;
            }
        }
        if segment.has(SYN) && connection.stage == Stage::Answering {
            return self.on_syn_ack(conv, &segment, pool, now);
        }
        let verdict = connection.on_segment(&segment, pool, &mut self.packets, now);
        if verdict == Verdict::Declined {
            self.remove(conv, pool);
            return Handling::Plain;
        }
        self.settle(conv);
        if verdict == Verdict::Taken { Handling::Taken } else { Handling::Plain }
    }

    /// A segment of no connection that is split
    fn on_unknown(&mut self, segment: &Segment<'_>, pool: &mut Pool, now: Instant) -> Handling {
        if let Some(reset) = self.orphans.on_sent(segment, now) {
            self.packets.push_back(reset.into());
            return Handling::Taken;
        }
        if !segment.has(SYN) {
            return Handling::Plain;
        }
        // The kernel says it again, and then it is split.
        if self.draining { Handling::Taken } else { self.on_syn(segment, pool, now) }
    }

    /// Looks at a packet of the other node that travelled as it is; tells whether it may go on
    ///
    /// While it is not clear how a connection goes on, its packets would only confuse our kernel.
    pub fn on_plain(&mut self, packet: &[u8], gso: Option<Gso>) -> bool {
        let watches = self.orphans.listens() || !self.resuming.is_empty();
        if !watches && (self.flows.is_empty() || !is_syn(packet)) {
            return true;
        }
        let Ok(view) = Packet::parse(packet) else { return true };
        let Some(segment) = Segment::parse(&view, gso) else { return true };
        self.orphans.on_heard(&segment);
        let ends = segment.ends.turned();
        let Some(conv) = self.flows.get(&ends).copied() else { return true };
        if segment.flags & (SYN | ACK | RST) == SYN
            && self.lanes.get(&conv).is_some_and(Connection::is_done)
        {
            // What our kernel says from here on is about another connection.
            self.flows.remove(&ends);
            self.changes.push_back(Change::Closed(ends));
        }
        !self.resuming.contains(&conv)
    }

    /// An ICMP error about a segment that we wrote in the name of a remote end is for us alone
    fn on_error(&mut self, packet: &Packet<'_>, pool: &mut Pool, now: Instant) -> Handling {
        let Some((ends, narrow)) = error::quoted_segment(packet) else { return Handling::Plain };
        let Some(conv) = self.flows.get(&ends.turned()).copied() else { return Handling::Plain };
        let Some(connection) = self.lanes.get_mut(&conv) else { return Handling::Plain };
        if connection.stage == Stage::Answering {
            // It may tell the client why it is not answered.
            return Handling::Plain;
        }
        if let Some(mtu) = narrow {
            connection.on_narrow(mtu, pool, &mut self.packets, now);
            self.settle(conv);
        }
        Handling::Taken
    }

    /// Takes a frame from the other node
    ///
    /// # Errors
    /// If it breaks the protocol, or there is no memory for it.
    pub fn handle_frame(
        &mut self,
        frame: &LaneFrame<'_>,
        pool: &mut Pool,
        now: Instant,
    ) -> Result<(), Fault> {
        pool.enter(self.held, self.useful);
        let result = self.take_frame(frame, pool, now);
        self.held = pool.leave();
        result
    }

    fn take_frame(
        &mut self,
        frame: &LaneFrame<'_>,
        pool: &mut Pool,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(conv) = frame.conv() else { return Ok(()) };
        if let LaneFrame::Open { conv: _, credit, packet } = *frame {
            if self.draining {
                // Its kernel says it again, and then we are there again, or gone.
                return Ok(());
            }
            return Ok(self.on_open(conv, credit, packet, pool, now)?);
        }
        if let LaneFrame::Resume { conv: _, delivered, acked, addrs, ports, memory } = *frame {
            self.on_resume(
                conv,
                Inquiry::new([delivered, acked], addrs, ports, memory, now),
                pool,
                now,
            );
            return Ok(());
        }
        if self.inquiries.contains_key(&conv) {
            self.on_verdict(conv, matches!(frame, LaneFrame::Reset { .. }));
            return Ok(());
        }
        // One that is over may still be named by messages that were overtaken.
        let Some(connection) = self.lanes.get_mut(&conv) else { return Ok(()) };
        let out = &mut self.packets;
        let result = match *frame {
            LaneFrame::Accept { conv: _, credit, packet } => {
                connection.on_accept(credit, packet, out).map_err(Fault::from)
            }
            LaneFrame::Data { conv: _, seq, marks, data } => {
                connection.on_data((seq, data), marks, pool)
            }
            LaneFrame::State { conv: _, ack, credit, closed } => {
                connection.on_state((ack, credit), closed, pool, out, now).map_err(Fault::from)
            }
            LaneFrame::Reset { conv: _, opened } => {
                if opened {
                    connection.on_confirmed(pool, out, now);
                }
                connection.on_reset(pool, out, now);
                Ok(())
            }
            LaneFrame::Probe { conv: _, answer } => {
                connection.on_probe(answer, out);
                Ok(())
            }
            LaneFrame::Resumed { conv: _, seq, ack, credit, standing } => {
                match standing {
                    Standing::Split => connection.on_rejoined([seq, ack, credit], pool, out, now),
                    Standing::Plain => connection.on_resumed((seq, ack), true, pool, out, now),
                    Standing::Dead => connection.on_resumed((seq, ack), false, pool, out, now),
                }
                Ok(())
            }
            LaneFrame::Open { .. } | LaneFrame::Resume { .. } | LaneFrame::Other { .. } => Ok(()),
        };
        self.settle(conv);
        result
    }

    /// Does what time demands
    pub fn handle_timeout(&mut self, pool: &mut Pool, now: Instant) {
        pool.enter(self.held, self.useful);
        while let Some((at, conv)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(inquiry) = self.inquiries.get_mut(&conv) {
                inquiry.scheduled = None;
                self.time_inquiry(conv, now);
                continue;
            }
            let Some(connection) = self.lanes.get_mut(&conv) else { continue };
            connection.scheduled = None;
            connection.handle_timeout(pool, &mut self.packets, now);
            self.settle(conv);
        }
        self.held = pool.leave();
    }

    /// Returns when [`Connections::handle_timeout`] is due next
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns a lane that got something to send since it last had nothing
    pub fn poll_ready(&mut self) -> Option<u32> {
        self.ready.pop_front()
    }

    /// Returns the next news about which connections there are
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Returns the next packet for the TUN
    pub fn poll_packet(&mut self) -> Option<Parcel> {
        self.packets.pop_front()
    }

    /// Returns the next packet for the other node that travels as it is
    pub fn poll_plain(&mut self) -> Option<Vec<u8>> {
        self.orphans.plain.pop_front()
    }

    /// Tells whether a lane has anything to send now
    pub fn has_output(&self, conv: u32) -> bool {
        self.lanes.get(&conv).is_some_and(Connection::has_output) || self.inquiry_owes(conv)
    }

    /// Records that a message with this piece has arrived
    pub fn on_acked(&mut self, piece: Piece, _now: Instant) {
        if let Some(connection) = self.lanes.get_mut(&piece.conv) {
            connection.on_acked(piece.sn);
            list(&mut self.unsettled, connection, piece.conv);
        }
    }

    /// Records that a message with this piece was lost
    pub fn on_lost(&mut self, piece: Piece) {
        if let Some(connection) = self.lanes.get_mut(&piece.conv) {
            connection.on_lost(piece.sn);
            list(&mut self.unsettled, connection, piece.conv);
        } else {
            self.on_inquiry_lost(piece.conv);
        }
    }

    /// Tells whether a piece is not known to have arrived, and a message with it is on its way
    pub fn is_under_way(&self, piece: Piece) -> bool {
        self.lanes.get(&piece.conv).is_some_and(|lane| lane.pieces.is_under_way(piece.sn))
    }

    /// Resets all connections at our end and forgets them: the other node is gone for good
    pub fn abandon(&mut self, pool: &mut Pool, now: Instant) {
        pool.enter(self.held, self.useful);
        let convs: Vec<u32> = self.lanes.keys().copied().collect();
        for conv in convs {
            if let Some(connection) = self.lanes.get_mut(&conv) {
                connection.on_reset(pool, &mut self.packets, now);
            }
            self.remove(conv, pool);
        }
        self.held = pool.leave();
        self.unsettled.clear();
        self.inquiries.clear();
        self.inquired.clear();
        self.resuming.clear();
        self.timers.clear();
        self.ready.clear();
    }

    /// Does for each connection what follows from all that came, once and not for each message
    ///
    /// So bytes that came in many messages are written to the kernel in few packets.
    pub fn flush(&mut self, pool: &mut Pool, now: Instant) {
        if self.unsettled.is_empty() {
            return;
        }
        pool.enter(self.held, self.useful);
        let mut convs = core::mem::take(&mut self.unsettled);
        for conv in convs.drain(..) {
            let Some(connection) = self.lanes.get_mut(&conv) else { continue };
            connection.listed = false;
            if connection.unsettled {
                connection.after(pool, &mut self.packets, now);
            }
            self.settle(conv);
        }
        self.unsettled = convs;
        self.held = pool.leave();
    }

    /// Puts a connection where it belongs after something happened to it, or notes that it will have to
    /// be
    fn settle(&mut self, conv: u32) {
        let Some(connection) = self.lanes.get_mut(&conv) else { return };
        if connection.unsettled {
            return list(&mut self.unsettled, connection, conv);
        }
        if connection.stage != Stage::Resuming {
            self.resuming.remove(&conv);
        }
        let next = connection.deadline();
        if next != connection.scheduled {
            if let Some(at) = connection.scheduled {
                self.timers.remove(&(at, conv));
            }
            self.timers.extend(next.map(|at| (at, conv)));
            connection.scheduled = next;
        }
        if !connection.awake && connection.has_output() {
            connection.awake = true;
            self.ready.push_back(conv);
        }
        if !connection.is_mapped() && self.flows.get(&connection.ends) == Some(&conv) {
            self.flows.remove(&connection.ends);
            self.changes.push_back(Change::Closed(connection.ends));
        }
        if connection.is_over() {
            if let Some(at) = connection.scheduled {
                self.timers.remove(&(at, conv));
            }
            self.lanes.remove(&conv);
        }
    }

    /// Forgets a connection and gives back what it was promised
    fn remove(&mut self, conv: u32, pool: &mut Pool) {
        let Some(mut connection) = self.lanes.remove(&conv) else { return };
        self.resuming.remove(&conv);
        connection.near.release(pool);
        connection.far.release(pool);
        if let Some(at) = connection.scheduled {
            self.timers.remove(&(at, conv));
        }
        if self.flows.get(&connection.ends) == Some(&conv) {
            self.flows.remove(&connection.ends);
            self.changes.push_back(Change::Closed(connection.ends));
        }
    }
}

/// Has [`Connections::flush`] look at a lane
fn list(unsettled: &mut Vec<u32>, connection: &mut Connection, conv: u32) {
    if !core::mem::replace(&mut connection.listed, true) {
        unsettled.push(conv);
    }
}
