//! What becomes of connections when the other node has restarted.
//!
//! The node that lived on asks the restarted one, for each connection, where its kernel stands. Where
//! nothing that a kernel believes delivered is missing, the connection is split again (see `rejoin`),
//! or goes on as plain packets, as the sequence numbers are the same at both ends. Where something
//! is, the bytes died with the other node, and both kernels are reset. PROTOCOL.md, section "Restart".

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::collections::VecDeque;

use super::connection::{Connection, Owed, Stage};
use super::pool::Pool;
use super::segment::{ACK, Ends, FIN, RST, Segment};
use super::seq::{offset_of, seq_of};
use super::{Change, Connections, Handling, Piece, Written};
use crate::ip::Parcel;
use crate::time::{Duration, Instant};
use crate::wire::frame::Frame;
use crate::wire::lane::{LaneFrame, Memory, Standing};

/// A connection of our kernel that we know nothing about, and the other node asks for
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) ends: Ends,
    /// What the other kernel has acknowledged, and what ours has certainly acknowledged
    pub(super) delivered: u32,
    pub(super) acked: u32,
    /// With what the connection can be split again; nothing where we do not want to
    pub(super) memory: Option<Memory>,
    /// Where our kernel is, as far as it told
    heard: Option<(u32, u32)>,
    /// The window that it showed last
    pub(super) window: u16,
    /// The earliest that it said beyond what is known, and how often
    repeated: Option<(u32, u32)>,
    answer: Answer,
    /// What the other node wants to hear first
    owed: bool,
    pub(super) awake: bool,
    tries: u32,
    next: Instant,
    pub(super) scheduled: Option<Instant>,
}

/// How far an inquiry has come
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    /// The kernel has not answered yet
    Awaited,
    /// It is here, and told
    Alive { seq: u32, ack: u32 },
    /// It does not know the connection
    Dead,
}

impl Connections {
    /// The other node has restarted and knows nothing: asks it where its kernels stand
    ///
    /// Whatever was on its way to it is lost.
    pub fn resume(&mut self, pool: &mut Pool, now: Instant) {
        pool.enter(self.held, self.useful);
        self.orphans.restart();
        self.resuming.clear();
        self.ready.clear();
        self.inquiries.clear();
        self.inquired.clear();
        self.timers.clear();
        // The other node counts its lanes from the first one again: those it opened get new numbers.
        for (conv, mut connection) in core::mem::take(&mut self.lanes) {
            connection.scheduled = None;
            connection.awake = false;
            if !connection.resume(now) {
                connection.near.release(pool);
                connection.far.release(pool);
                if self.flows.get(&connection.ends) == Some(&conv) {
                    self.flows.remove(&connection.ends);
                    self.changes.push_back(Change::Closed(connection.ends));
                }
                continue;
            }
            let fresh = self.free_conv();
            self.flows.insert(connection.ends, fresh);
            if connection.stage == Stage::Resuming {
                self.resuming.insert(fresh);
            }
            self.lanes.insert(fresh, connection);
            self.settle(fresh);
        }
        self.held = pool.leave();
    }

    /// The other node asks where our kernel stands with a connection
    pub(super) fn on_resume(&mut self, conv: u32, mut inquiry: Inquiry, pool: &Pool, now: Instant) {
        let ends = inquiry.ends;
        let known = self.flows.contains_key(&ends) || self.inquired.contains_key(&ends);
        let used = self.lanes.contains_key(&conv) || self.inquiries.contains_key(&conv);
        if known || used || self.inquiries.len() >= INQUIRIES_MAX {
            return;
        }
        inquiry.memory = inquiry.memory.filter(|_| self.may_promise(pool));
        self.inquired.insert(ends, conv);
        self.inquiries.insert(conv, inquiry);
        self.time_inquiry(conv, now);
    }

    /// The other node has decided
    pub(super) fn on_verdict(&mut self, conv: u32, reset: bool) {
        let Some(inquiry) = self.end_inquiry(conv) else { return };
        if let (true, Answer::Alive { seq, ack }) = (reset, inquiry.answer) {
            let template = inquiry.keepalive();
            // What the kernel expects next, or it would not believe it (RFC 5961).
            let rst = Segment { flags: RST | ACK, seq: ack, ack: seq, window: 0, ..template };
            self.packets.push_back(rst.encode().into());
        }
    }

    /// A segment of our kernel that may belong to an inquiry
    pub(super) fn on_inquired(
        &mut self,
        segment: &Segment<'_>,
        pool: &mut Pool,
        now: Instant,
    ) -> Option<Handling> {
        let conv = *self.inquired.get(&segment.ends)?;
        let inquiry = self.inquiries.get_mut(&conv)?;
        let first = inquiry.heard.is_none();
        if inquiry.on_segment(segment, now) && self.rejoin(conv, segment.ack, pool, now) {
            if let Some(connection) = self.lanes.get_mut(&conv) {
                connection.on_segment(segment, pool, &mut self.packets, now);
                self.settle(conv);
            }
            return Some(Handling::Taken);
        }
        let inquiry = self.inquiries.get_mut(&conv)?;
        if let Some(nudge) = inquiry.nudge().filter(|_| first) {
            let nudge = Parcel::from(nudge.encode());
            self.packets.extend(std::iter::repeat_n(nudge, NUDGES));
        }
        self.settle_inquiry(conv);
        Some(Handling::Taken)
    }

    /// Forgets an inquiry; returns it
    pub(super) fn end_inquiry(&mut self, conv: u32) -> Option<Inquiry> {
        let inquiry = self.inquiries.remove(&conv)?;
        self.inquired.remove(&inquiry.ends);
        if let Some(at) = inquiry.scheduled {
            self.timers.remove(&(at, conv));
        }
        Some(inquiry)
    }

    /// Does what time demands of an inquiry
    pub(super) fn time_inquiry(&mut self, conv: u32, now: Instant) {
        let Some(inquiry) = self.inquiries.get_mut(&conv) else { return };
        if now >= inquiry.next {
            inquiry.tries += 1;
            match (inquiry.answer, inquiry.heard) {
                (Answer::Awaited, Some((seq, ack))) if inquiry.tries > TRIES_HEARD => {
                    inquiry.tell(Answer::Alive { seq, ack });
                }
                (Answer::Awaited, None) if inquiry.tries > TRIES_MAX => inquiry.tell(Answer::Dead),
                (Answer::Awaited, _) => {
                    self.packets.push_back(inquiry.keepalive().encode().into());
                    let nudge = inquiry.nudge();
                    let nudges = nudge.map(|nudge| std::iter::repeat_n(nudge.encode(), NUDGES));
                    self.packets.extend(nudges.into_iter().flatten().map(Parcel::from));
                }
                (Answer::Alive { .. } | Answer::Dead, _) => {
                    // The other node does not decide: the kernels are left alone.
                    return self.on_verdict(conv, false);
                }
            }
            let waits = inquiry.answer == Answer::Awaited;
            inquiry.next = now + if waits { RETRY } else { VERDICT };
        }
        self.settle_inquiry(conv);
    }

    /// Puts what an inquiry owes
    pub(super) fn write_inquiry(
        &mut self,
        conv: u32,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Option<Written> {
        let inquiry = self.inquiries.get_mut(&conv)?;
        let (seq, ack, standing) = match inquiry.answer {
            Answer::Awaited => return None,
            Answer::Alive { seq, ack } => (seq, ack, Standing::Plain),
            Answer::Dead => (inquiry.delivered, inquiry.acked, Standing::Dead),
        };
        let frame = Frame::Lane(LaneFrame::Resumed { conv, seq, ack, credit: 0, standing });
        if !inquiry.owed || frame.encoded_len() > room {
            inquiry.awake = inquiry.owed;
            return None;
        }
        frame.encode(out);
        inquiry.owed = false;
        Some(Written { piece: Piece { conv, sn: 0 }, losses: 0 })
    }

    pub(super) fn inquiry_owes(&self, conv: u32) -> bool {
        self.inquiries.get(&conv).is_some_and(|inquiry| inquiry.owed)
    }

    pub(super) fn on_inquiry_lost(&mut self, conv: u32) {
        if let Some(inquiry) = self.inquiries.get_mut(&conv) {
            inquiry.owed = true;
            self.settle_inquiry(conv);
        }
    }

    fn settle_inquiry(&mut self, conv: u32) {
        let Some(inquiry) = self.inquiries.get_mut(&conv) else { return };
        if inquiry.scheduled != Some(inquiry.next) {
            if let Some(at) = inquiry.scheduled.replace(inquiry.next) {
                self.timers.remove(&(at, conv));
            }
            self.timers.insert((inquiry.next, conv));
        }
        if inquiry.owed && !inquiry.awake {
            inquiry.awake = true;
            self.ready.push_back(conv);
        }
    }
}

impl Inquiry {
    /// Reads what the other node asks; addresses and ports are its own first
    pub(super) fn new(
        [delivered, acked]: [u32; 2],
        addrs: [[u8; 16]; 2],
        ports: [u16; 2],
        memory: Memory,
        now: Instant,
    ) -> Self {
        let [theirs, ours] = addrs.map(|addr| Ipv6Addr::from(addr).to_canonical());
        let ends = Ends {
            local: SocketAddr::new(ours, ports[1]),
            remote: SocketAddr::new(theirs, ports[0]),
        };
        Self {
            ends,
            delivered,
            acked,
            memory: Some(memory),
            heard: None,
            window: 0,
            repeated: None,
            answer: Answer::Awaited,
            owed: false,
            awake: false,
            tries: 0,
            next: now,
            scheduled: None,
        }
    }

    /// Takes a segment of the kernel; tells whether it shows that nothing is lost
    fn on_segment(&mut self, segment: &Segment<'_>, now: Instant) -> bool {
        if self.answer != Answer::Awaited {
            return false;
        }
        if segment.has(RST) {
            self.tell(Answer::Dead);
        } else if segment.has(ACK) {
            let (seq, ack) = (segment.seq, segment.ack);
            let says = !segment.data.is_empty() || segment.has(FIN);
            // Who stands at a number and then names the one before asks for a window, or for a sign of
            // life: all before where it stands was acknowledged.
            let asks = !says && self.heard.is_some_and(|(at, _)| seq == at.wrapping_sub(1));
            let seq = if asks { seq.wrapping_add(1) } else { seq };
            // Of what it says (again) from here on nothing is lost; a bare acknowledgement names
            // what it says next, and what comes before may still be with it.
            let ahead = seq.wrapping_sub(self.known()).cast_signed();
            // Its FIN is not acknowledged before the other kernel has it.
            let ended = self.memory.is_some_and(|memory| memory.ended);
            if ahead <= 0 && (ahead == 0 || says) || ahead == 1 && ended {
                self.window = segment.window;
                self.tell(Answer::Alive { seq: self.known(), ack });
            } else {
                self.heard = Some((seq, ack));
                if (says || asks) && self.is_repeated(seq) {
                    self.tell(Answer::Alive { seq, ack });
                    self.next = now + VERDICT;
                }
                return false;
            }
        } else {
            return false;
        }
        self.next = now + VERDICT;
        self.answer != Answer::Dead
    }

    /// Sequence number that the kernel is to see acknowledged: its FIN too, if the other one has it
    fn latest(&self) -> u32 {
        let ahead = self.delivered.wrapping_sub(self.known()).cast_signed();
        if ahead > 0 { self.delivered } else { self.known() }
    }

    /// Tells whether the kernel says this again, and nothing before it: what comes before was
    /// acknowledged, and is lost
    fn is_repeated(&mut self, seq: u32) -> bool {
        let before = |other: u32| seq.wrapping_sub(other).cast_signed() < 0;
        match &mut self.repeated {
            Some((earliest, times)) if *earliest == seq => *times += 1,
            Some((earliest, _)) if !before(*earliest) => {}
            repeated => *repeated = Some((seq, 1)),
        }
        self.repeated.is_some_and(|(_, times)| times >= REPEATS)
    }

    /// Sequence number before which nothing that our kernel said is needed again
    fn known(&self) -> u32 {
        self.memory.map_or(self.delivered, |memory| memory.edge)
    }

    /// What makes a kernel that waits for an acknowledgement say again what it waits for, if nobody has
    /// acknowledged that: acknowledgements that say nothing new (RFC 5681), after one that may show
    /// another window
    fn nudge(&self) -> Option<Segment<'static>> {
        let (_, ack) = self.heard.filter(|_| self.answer == Answer::Awaited)?;
        let scale = self.memory?.scales[0];
        Some(Segment { seq: ack, window: (NUDGE_WINDOW >> scale).max(1), ..self.keepalive() })
    }

    fn tell(&mut self, answer: Answer) {
        self.answer = answer;
        self.owed = true;
    }

    /// A segment that a kernel with this connection answers at once, with where it stands
    fn keepalive(&self) -> Segment<'static> {
        Segment {
            ends: self.ends.turned(),
            seq: self.acked.wrapping_sub(1),
            ack: self.latest(),
            flags: ACK,
            window: u16::MAX,
            urgent: 0,
            options: &[],
            data: &[],
            class: 0,
        }
    }
}

impl Connection {
    /// The other node has restarted; tells whether anything is left to be asked
    fn resume(&mut self, now: Instant) -> bool {
        self.pieces.clear();
        match self.stage {
            Stage::Opening => {
                self.owed.open = true;
                true
            }
            // Both kernels say it again, to whoever carries the connection then.
            Stage::Answering | Stage::Answered | Stage::Parting | Stage::Closed | Stage::Reset => {
                false
            }
            Stage::Rejoining | Stage::Accepted | Stage::Open | Stage::Resuming => {
                self.stage = Stage::Resuming;
                self.owed = Owed { resume: true, probe: self.owed.probe, ..Owed::default() };
                self.stage_ends = Some(now + RESUMING);
                true
            }
        }
    }

    /// What there is to ask
    pub(super) fn resume_frame(&self, conv: u32) -> LaneFrame<'static> {
        let octets = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
            IpAddr::V6(addr) => addr.octets(),
        };
        let Ends { local, remote } = self.ends;
        LaneFrame::Resume {
            conv,
            delivered: self.far.una_seq(),
            acked: seq_of(self.near.isn, self.near.certain),
            addrs: [octets(local.ip()), octets(remote.ip())],
            ports: [local.port(), remote.port()],
            memory: self.memory(),
        }
    }

    /// The restarted node tells where its kernel stands, and does not split the connection again
    pub(super) fn on_resumed(
        &mut self,
        (seq, ack): (u32, u32),
        alive: bool,
        pool: &mut Pool,
        out: &mut VecDeque<Parcel>,
        now: Instant,
    ) {
        if self.stage != Stage::Resuming {
            return;
        }
        let from = offset_of(self.far.isn, seq, self.far.una);
        let to = offset_of(self.near.isn, ack, self.near.acked());
        let whole = from.is_some_and(|from| from <= self.far.una)
            && to.is_some_and(|to| to >= self.near.acked());
        if alive && whole {
            self.part(pool, now);
        } else {
            self.abort(pool, out, now);
        }
    }
}

/// Connections that may be asked for at one time
const INQUIRIES_MAX: usize = 16_384;
/// Time between two questions to our kernel, and how often it is asked
const RETRY: Duration = Duration::from_secs(1);
const TRIES_MAX: u32 = 5;
/// How often it is asked when it has answered, but may hold what it has not said again yet
const TRIES_HEARD: u32 = 15;
/// How often it has to say what comes too late, before it is believed to know nothing earlier
const REPEATS: u32 = 2;
/// Acknowledgements that prove a loss to a kernel, and the window that they show, in bytes
const NUDGES: usize = 4;
const NUDGE_WINDOW: u16 = 32 * 1024;
/// Time that the other node has to decide
const VERDICT: Duration = Duration::from_secs(30);
/// Time that the restarted node has to answer
pub(super) const RESUMING: Duration = Duration::from_secs(60);
