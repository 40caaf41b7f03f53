//! One split connection, at one of its two nodes.
//!
//! Towards our kernel a [`Connection`] is the remote end: same addresses, ports and sequence numbers.
//! Towards the other node it is one end of a lane. It joins the two streams ([`Near`] from our kernel,
//! [`Far`] to it) with what concerns both: opening, end, reset, probes. PROTOCOL.md, section "Lanes".
//!
//! # Contract
//!
//! After each call the owner asks [`Connection::deadline`], [`Connection::has_output`] and
//! [`Connection::is_over`]; packets for the kernel were appended to `out`.

use std::collections::VecDeque;

use super::Fault;
use super::acks::Acks;
use super::far::{Due, Far, News, Outgoing};
use super::near::Near;
use super::options::{Offer, sack};
use super::pieces::{Part, Pieces};
use super::pool::Pool;
use super::rest::Rest;
use super::segment::{ACK, Ends, FIN, PSH, RST, SYN, Segment, URG};
use super::seq::{offset_of, seq_of};
use crate::ip::Parcel;
use crate::limits::{LANE_OPENING, LANE_STATE_DELAY};
use crate::time::{Duration, Instant};
use crate::wire::frame::Malformed;
use crate::wire::lane::Marks;

/// One split connection, at one of its two nodes
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: Ends,
    pub(super) stage: Stage,
    pub(super) near: Near,
    pub(super) far: Far,
    pub(super) pieces: Pieces,
    pub(super) owed: Owed,
    /// The SYN or SYN-ACK of our kernel, as it travels
    pub(super) greeting: Vec<u8>,
    /// Window that our kernel's SYN showed
    pub(super) syn_window: u16,
    /// What our kernel's SYN or SYN-ACK offered
    pub(super) offer: Offer,
    /// Whether both ends take selective acknowledgements
    pub(super) sack: bool,
    /// Traffic class of the remote end's packets
    pub(super) class: u8,
    /// Whether both kernels had the connection open
    pub(super) opened: bool,
    /// Whether the other node is done with the lane
    pub(super) peer_closed: bool,
    /// Piece that tells the other node that we are done
    farewell: Option<u32>,
    /// Whether that piece has arrived
    parted: bool,
    /// Whether our kernel is reset once more at the end
    rst_again: bool,
    /// What the kernel is to see acknowledged
    pub(super) acks: Acks,
    /// Right edge of the window as the kernel saw it last
    seen_edge: u64,
    /// Whether the other end waits for a sign of life of our kernel
    probing: bool,
    /// When the state is told at the latest
    state_at: Option<Instant>,
    /// When what is promised is given back for want of use
    rest: Rest,
    /// When the present stage ends by itself
    pub(super) stage_ends: Option<Instant>,
    /// Whether the lane was said to have something to send
    pub(super) awake: bool,
    /// Where it stands among the timers
    pub(super) scheduled: Option<Instant>,
    /// Whether [`Connection::after`] is still to be called: once for all that came at one time
    pub(super) unsettled: bool,
    /// Whether it stands among those that are to be looked at
    pub(super) listed: bool,
}

/// How far a connection has come
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// Our kernel's SYN travels
    Opening,
    /// The other kernel's SYN was written; ours has not answered yet
    Answering,
    /// Our kernel's SYN-ACK travels
    Answered,
    /// The other kernel's SYN-ACK was written; ours has not acknowledged it yet
    Accepted,
    /// Both kernels agree
    Open,
    /// After a restart of the other node: its kernel is asked where it stands
    Resuming,
    /// After a restart of our node: the other one is not known to split it again yet
    Rejoining,
    /// All was said and acknowledged, but our kernel may not have heard the last of it
    Parting,
    /// Nothing more is done but to tell the other node
    Closed,
    /// The same, and our kernel is reset
    Reset,
}

/// Frames that the lane owes
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Owed {
    pub(super) open: bool,
    pub(super) accept: bool,
    pub(super) state: bool,
    pub(super) reset: bool,
    pub(super) probe: bool,
    pub(super) answer: bool,
    pub(super) resume: bool,
    pub(super) resumed: bool,
}

/// What becomes of a segment of our kernel
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Taken,
    /// It travels as it is; the connection stays
    Passed,
    /// It travels as it is: the other node does not split this connection
    Declined,
}

impl Connection {
    /// Begins at a stage, between two streams that were just begun
    pub(super) fn new(ends: Ends, stage: Stage, near: Near, far: Far, now: Instant) -> Self {
        let seen_edge = near.right_edge();
        Self {
            ends,
            stage,
            near,
            far,
            pieces: Pieces::default(),
            owed: Owed::default(),
            greeting: Vec::new(),
            syn_window: 0,
            offer: Offer::default(),
            sack: false,
            class: 0,
            opened: false,
            peer_closed: false,
            farewell: None,
            parted: false,
            rst_again: false,
            acks: Acks::default(),
            seen_edge,
            probing: false,
            state_at: None,
            rest: Rest::default(),
            stage_ends: Some(now + LANE_OPENING),
            awake: false,
            scheduled: None,
            unsettled: false,
            listed: false,
        }
    }

    /// Joins what both kernels offered, once both are known
    pub(super) fn agree(&mut self, theirs: Offer, window: u16) {
        let (ours, v6) = (self.offer, self.ends.local.is_ipv6());
        let scaled = ours.scale.zip(theirs.scale);
        let (ours_scale, theirs_scale) = scaled.unwrap_or((0, 0));
        self.near.scale = theirs_scale;
        self.sack = ours.sack && theirs.sack;
        let default = if v6 { MSS_V6 } else { MSS_V4 };
        // As the remote end itself would: never more than it takes itself.
        let mss = ours.mss.unwrap_or(default).min(theirs.mss.unwrap_or(default));
        self.far.on_opened(mss.into(), ours_scale, window);
    }

    /// Takes a segment of our kernel
    pub(super) fn on_segment(
        &mut self,
        segment: &Segment<'_>,
        pool: &mut Pool,
        out: &mut VecDeque<Parcel>,
        now: Instant,
    ) -> Verdict {
        match self.stage {
            Stage::Opening if segment.has(SYN) && !segment.has(ACK) => self.owed.open = true,
            Stage::Opening if segment.has(RST) => self.reset(pool, now),
            Stage::Opening => return Verdict::Declined,
            Stage::Answering if segment.has(RST) => self.reset(pool, now),
            // A socket of old answers in its own name.
            Stage::Answering => return Verdict::Passed,
            Stage::Answered if segment.has(SYN) => self.owed.accept = true,
            Stage::Accepted if segment.has(SYN) => out.push_back(self.greeting.clone().into()),
            Stage::Answered | Stage::Accepted | Stage::Open if segment.has(RST) => {
                self.on_reset_segment(segment, pool, now);
            }
            Stage::Resuming | Stage::Rejoining if segment.has(RST) => self.reset(pool, now),
            Stage::Answered
            | Stage::Accepted
            | Stage::Open
            | Stage::Resuming
            | Stage::Rejoining => self.on_ordinary(segment, pool, now),
            Stage::Parting => {
                if !segment.has(RST) {
                    out.push_back(self.acknowledgement(Vec::new()));
                }
            }
            Stage::Closed => return Verdict::Passed,
            Stage::Reset => {
                if !segment.has(RST) {
                    out.push_back(self.rst(segment.ack).into());
                }
            }
        }
        Verdict::Taken
    }

    /// A RST counts where the kernel is, or in the window that it was shown
    fn on_reset_segment(&mut self, segment: &Segment<'_>, pool: &mut Pool, now: Instant) {
        let at = offset_of(self.near.isn, segment.seq, self.near.acked());
        let right = self.near.right_edge().max(self.near.acked() + 1);
        if at.is_some_and(|at| (self.near.delivered()..=right).contains(&at)) {
            self.reset(pool, now);
        }
    }

    fn on_ordinary(&mut self, segment: &Segment<'_>, pool: &mut Pool, now: Instant) {
        let offset = offset_of(self.near.isn, segment.seq, self.near.acked());
        let Some(offset) = offset.filter(|_| segment.has(ACK)) else { return };
        if self.stage == Stage::Accepted {
            self.stage = Stage::Open;
            self.stage_ends = None;
            self.opened = true;
            self.greeting = Vec::new();
            self.owed.state = true;
        }
        let pure = segment.data.is_empty() && !segment.has(FIN | SYN);
        let known = self.far.on_ack(segment.ack, segment.window, pure, pool, now);
        let acked = self.near.acked();
        if segment.has(SYN) {
            self.acks.want();
        } else if offset + 1 == acked && segment.data.len() <= 1 && !segment.has(FIN) {
            self.on_keepalive();
        } else if !pure {
            self.on_stream(offset, segment, pool);
        } else if offset < acked {
            self.acks.want();
        }
        if self.probing && known {
            self.probing = false;
            self.owed.answer = true;
        }
        self.unsettled = true;
    }

    /// The kernel asks whether the other end is there, or for a window
    fn on_keepalive(&mut self) {
        if self.near.right_edge() <= self.near.acked() {
            self.acks.want();
        } else {
            self.owed.probe = true;
        }
    }

    fn on_stream(&mut self, offset: u64, segment: &Segment<'_>, pool: &mut Pool) {
        if self.near.frozen {
            // As if it was lost: the kernel keeps it, and says it again.
            return;
        }
        if segment.has(URG) && segment.urgent > 0 {
            self.near.on_urgent(offset + u64::from(segment.urgent));
        }
        if !segment.data.is_empty() {
            let in_order = self.near.on_data(offset, segment.data, pool);
            if in_order && self.near.window() > 0 {
                self.acks.want_for(segment.data.len());
            } else {
                self.acks.want();
            }
        }
        if segment.has(FIN) {
            self.near.on_fin(offset + segment.data.len() as u64);
            if self.near.fin_acked {
                self.acks.want();
            }
        }
    }

    /// Takes bytes from the other node
    ///
    /// # Errors
    /// If they break the rules of the lane, or there is no memory for them.
    pub(super) fn on_data(
        &mut self,
        (seq, data): (u32, &[u8]),
        marks: Marks,
        pool: &mut Pool,
    ) -> Result<(), Fault> {
        if !self.confirm() {
            return Ok(());
        }
        // A part of it may be taken even where there is no memory for all.
        self.unsettled = true;
        self.far.on_data((seq, data), (marks.fin, marks.starved), pool)?;
        if let Some(urgent) = marks.urgent {
            self.far.on_urgent(urgent);
        }
        Ok(())
    }

    /// Takes the state of the other node's kernel
    ///
    /// # Errors
    /// If it breaks the rules of the lane.
    pub(super) fn on_state(
        &mut self,
        (ack, credit): (u32, u32),
        closed: bool,
        pool: &mut Pool,
        out: &mut VecDeque<Parcel>,
        now: Instant,
    ) -> Result<(), Malformed> {
        self.peer_closed |= closed;
        if !self.confirm() {
            return Ok(());
        }
        let progress = self.near.on_state(ack, credit, pool)?;
        if progress.fin_acked {
            self.acks.want();
        }
        // Bytes that come in the same batch go into the same packets.
        self.unsettled = true;
        if closed {
            self.after(pool, out, now);
            if !self.is_done() {
                // It has forgotten what we still need.
                self.on_reset(pool, out, now);
            }
        }
        Ok(())
    }

    /// The other kernel had the connection open: ours is to know, whatever comes next
    pub(super) fn on_confirmed(
        &mut self,
        pool: &mut Pool,
        out: &mut VecDeque<Parcel>,
        now: Instant,
    ) {
        if self.stage == Stage::Answered && self.confirm() {
            self.after(pool, out, now);
        }
    }

    /// Takes a probe of the other end, or the answer to one of ours
    pub(super) fn on_probe(&mut self, answer: bool, out: &mut VecDeque<Parcel>) {
        if !self.confirm() {
            return;
        }
        if answer {
            out.push_back(self.acknowledgement(Vec::new()));
        } else {
            self.probing = true;
            if !self.far.in_flight() {
                out.push_back(self.keepalive().into());
            }
        }
    }

    /// The other end is reset, or gone: so is this one
    pub(super) fn on_reset(&mut self, pool: &mut Pool, out: &mut VecDeque<Parcel>, now: Instant) {
        self.peer_closed = true;
        match self.stage {
            Stage::Parting | Stage::Closed | Stage::Reset => return,
            Stage::Opening => {
                let template = self.template(RST | ACK, 0);
                let ack = seq_of(self.near.isn, 1);
                out.push_back(Segment { ack, window: 0, ..template }.encode().into());
            }
            Stage::Answering
            | Stage::Answered
            | Stage::Accepted
            | Stage::Open
            | Stage::Resuming
            | Stage::Rejoining => out.push_back(self.rst(self.far.seq()).into()),
        }
        self.close(Stage::Reset, pool, now);
        self.rst_again = true;
        self.owed.state = true;
    }

    /// Ends the connection at both ends; our kernel has ended it already
    pub(super) fn reset(&mut self, pool: &mut Pool, now: Instant) {
        // What the kernel says of it after that is of no use to the other one.
        self.close(Stage::Reset, pool, now);
        self.rst_again = false;
        self.owed = Owed { reset: true, ..Owed::default() };
    }

    /// Ends the connection at both ends, whatever our kernel thinks
    pub(super) fn abort(&mut self, pool: &mut Pool, out: &mut VecDeque<Parcel>, now: Instant) {
        let before = self.peer_closed;
        self.on_reset(pool, out, now);
        self.peer_closed = before;
        self.owed = Owed { reset: true, ..Owed::default() };
    }

    /// Ends our part in a connection that goes on without us
    pub(super) fn part(&mut self, pool: &mut Pool, now: Instant) {
        self.close(Stage::Closed, pool, now);
        self.peer_closed = true;
        self.owed.state = true;
    }

    fn close(&mut self, stage: Stage, pool: &mut Pool, now: Instant) {
        let opening = self.stage == Stage::Opening;
        self.near.release(pool);
        self.far.release(pool);
        self.stage = stage;
        self.owed = Owed::default();
        self.acks = Acks::default();
        self.greeting = Vec::new();
        self.state_at = None;
        self.rest = Rest::default();
        // One that the other node never had is over with us.
        self.peer_closed |= opening;
        let linger = if stage == Stage::Closed { PEER_LINGER } else { KERNEL_LINGER };
        self.stage_ends = Some(now + linger);
    }

    /// Does what time demands
    pub(super) fn handle_timeout(
        &mut self,
        pool: &mut Pool,
        out: &mut VecDeque<Parcel>,
        now: Instant,
    ) {
        if self.stage_ends.is_some_and(|at| now >= at) {
            self.stage_ends = None;
            match self.stage {
                Stage::Opening | Stage::Answered | Stage::Accepted => self.reset(pool, now),
                Stage::Answering => {
                    // Our kernel has said nothing in this lane's name; it may have the connection
                    // from a SYN that travelled as it is.
                    self.close(Stage::Closed, pool, now);
                    self.owed = Owed { reset: true, ..Owed::default() };
                }
                Stage::Resuming | Stage::Rejoining => self.abort(pool, out, now),
                Stage::Open => {}
                Stage::Parting => {
                    self.stage = Stage::Closed;
                    self.stage_ends = Some(now + PEER_LINGER);
                }
                Stage::Closed => self.peer_closed = true,
                Stage::Reset => {
                    if self.rst_again {
                        // Nobody says whether it has heard the first one.
                        out.push_back(self.rst(self.far.seq()).into());
                    }
                    self.stage = Stage::Closed;
                    self.stage_ends = Some(now + PEER_LINGER);
                }
            }
        }
        if self.rest.take_due(now) {
            self.near.rest(pool);
            self.far.rest(pool);
        }
        if self.state_at.is_some_and(|at| now >= at) {
            self.state_at = None;
            self.owed.state = true;
        }
        match self.far.handle_timeout(now) {
            Due::Nothing if self.acks.deadline().is_some_and(|at| now >= at) => {
                self.after(pool, out, now);
            }
            Due::Nothing => {}
            Due::Write => self.after(pool, out, now),
            Due::Ask => out.push_back(self.keepalive().into()),
            Due::GiveUp => self.abort(pool, out, now),
        }
    }

    /// Returns when [`Connection::handle_timeout`] is due
    pub(super) fn deadline(&self) -> Option<Instant> {
        let rest = self.rest.deadline();
        [self.stage_ends, self.state_at, self.acks.deadline(), self.far.deadline(), rest]
            .into_iter()
            .flatten()
            .min()
    }

    /// Tells whether the lane has anything to send now
    pub(super) fn has_output(&self) -> bool {
        self.owing() != Owed::default()
            || self.streams()
                && (self.pieces.has_lost() || self.near.sendable() > 0 || self.near.owes_fin())
    }

    /// Returns what may be said now: while it is not clear how the connection goes on, only that
    pub(super) fn owing(&self) -> Owed {
        match self.stage {
            Stage::Resuming => Owed { resume: self.owed.resume, ..Owed::default() },
            Stage::Rejoining => Owed { resumed: self.owed.resumed, ..Owed::default() },
            Stage::Opening
            | Stage::Answering
            | Stage::Answered
            | Stage::Accepted
            | Stage::Open
            | Stage::Parting
            | Stage::Closed
            | Stage::Reset => self.owed,
        }
    }

    /// Tells whether nothing is left to do, here and there
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Closed
            && self.peer_closed
            && self.parted
            && self.owed == Owed::default()
    }

    /// Tells whether packets of our kernel belong to the connection
    pub(super) fn is_mapped(&self) -> bool {
        self.stage != Stage::Closed
    }

    /// Tells whether our part is done, whatever is still to be told
    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Parting | Stage::Closed | Stage::Reset)
    }

    /// Tells whether bytes of the streams flow
    pub(super) fn streams(&self) -> bool {
        matches!(self.stage, Stage::Answered | Stage::Accepted | Stage::Open)
    }

    /// Records that a piece has arrived
    pub(super) fn on_acked(&mut self, sn: u32) {
        self.pieces.on_acked(sn);
        self.parted |= self.farewell == Some(sn);
    }

    /// Records that a piece was lost
    pub(super) fn on_lost(&mut self, sn: u32) {
        let Some(part) = self.pieces.on_lost(sn) else { return };
        let gone = self.is_done();
        match part {
            Part::Data { .. } if self.streams() => return self.pieces.queue(sn),
            Part::Data { .. } => {}
            Part::Open => self.owed.open |= self.stage == Stage::Opening,
            Part::Accept => self.owed.accept |= self.stage == Stage::Answered,
            Part::State => self.owed.state |= !self.parted,
            Part::Reset => self.owed.reset |= !self.parted,
            Part::Probe => self.owed.probe |= !gone,
            Part::Answer => self.owed.answer |= !gone,
            Part::Resume => self.owed.resume |= self.stage == Stage::Resuming,
            Part::Resumed => self.owed.resumed |= self.stage == Stage::Rejoining,
        }
        self.pieces.settle(sn);
    }

    /// Records that a piece which says that we are done leaves
    pub(super) fn on_farewell(&mut self, sn: u32) {
        self.farewell = Some(sn);
    }

    /// The last piece of a side that the other one confirms has come; tells whether streams flow
    fn confirm(&mut self) -> bool {
        if matches!(self.stage, Stage::Answered | Stage::Rejoining) {
            self.stage = Stage::Open;
            self.stage_ends = None;
            self.opened = true;
            self.acks.want();
            // It has arrived, and what it promised is no longer what is promised.
            self.greeting = Vec::new();
            self.owed.accept = false;
            self.owed.resumed = false;
        }
        self.streams()
    }

    /// Writes to the kernel what may be written, and tells the other node what it must know
    pub(super) fn after(&mut self, pool: &mut Pool, out: &mut VecDeque<Parcel>, now: Instant) {
        self.unsettled = false;
        self.far.promise(pool);
        if !matches!(self.stage, Stage::Open | Stage::Resuming | Stage::Rejoining) {
            return;
        }
        self.near.follow(pool);
        let streams = [&self.near.kept, &self.far.kept];
        let spare = self.near.has_spare() || self.far.has_spare();
        self.rest.on_streams(streams.map(|kept| (kept.base(), kept.edge())), spare, now);
        while let Some(next) = self.far.next_segment(now) {
            let packet = self.segment_for(next, pool);
            out.push_back(packet);
            self.acks.on_answer(now);
        }
        let opened = self.near.right_edge().saturating_sub(self.seen_edge);
        let shut = self.seen_edge.saturating_sub(self.near.acked()) < WINDOW_SHUT;
        let due = self.acks.take_due(now);
        if due || opened >= WINDOW_STEP || shut && opened >= WINDOW_LEAST {
            self.acks.on_told();
            let buffer = pool.buffers.take();
            out.push_back(self.acknowledgement(buffer));
        }
        if self.stage != Stage::Open {
            return;
        }
        match self.far.news() {
            News::None => self.state_at = None,
            News::Some => self.state_at = self.state_at.or(Some(now + LANE_STATE_DELAY)),
            News::Urgent => self.owed.state = true,
        }
        if self.near.fin_acked && self.far.is_done() {
            self.close(Stage::Parting, pool, now);
            self.owed.state = true;
        }
    }

    /// Records that the state of our kernel is told as it is
    pub(super) fn on_state_told(&mut self) {
        self.owed.state = false;
        self.state_at = None;
        self.far.on_told();
    }

    /// A link to our kernel takes no packets that are larger
    pub(super) fn on_narrow(
        &mut self,
        mtu: u16,
        pool: &mut Pool,
        out: &mut VecDeque<Parcel>,
        now: Instant,
    ) {
        // Nobody need believe in less (RFC 8200; RFC 1191 and what Linux takes for the least), and an
        // error is easily forged.
        let (headers, least) = if self.ends.local.is_ipv6() { (60, 1280) } else { (40, 552) };
        self.far.on_narrow(usize::from(mtu.max(least)) - headers);
        self.after(pool, out, now);
    }

    fn segment_for(&mut self, next: Outgoing, pool: &mut Pool) -> Parcel {
        let mut flags = ACK;
        if next.push {
            flags |= PSH;
        }
        if next.fin {
            flags |= FIN;
        }
        let urgent = self.far.urgent.and_then(|urgent| urgent.checked_sub(next.offset));
        let urgent = urgent.filter(|ahead| *ahead > 0);
        if urgent.is_some() {
            flags |= URG;
        }
        let urgent = urgent.map_or(0, |ahead| u16::try_from(ahead).unwrap_or(u16::MAX));
        let seq = seq_of(self.far.isn, next.offset);
        self.seen_edge = self.near.right_edge();
        self.near.on_told();
        let segment = Segment { urgent, ..self.template(flags, seq) };
        let buffer = pool.buffers.take();
        if next.len > self.far.mss {
            let body = self.far.kept.share(next.offset, next.len);
            return segment.encode_super(body, self.far.mss, buffer);
        }
        segment.encode_with(next.len, buffer, |out| {
            self.far.kept.read(next.offset, next.len, out);
        })
    }

    fn acknowledgement(&mut self, buffer: Vec<u8>) -> Parcel {
        self.seen_edge = self.near.right_edge();
        self.near.on_told();
        let isn = self.near.isn;
        let seq = |offset| seq_of(isn, offset);
        let runs = self.near.kept.runs().map(|(start, end)| (seq(start), seq(end)));
        let options = if self.sack { sack(runs) } else { Vec::new() };
        let segment = Segment { options: &options, ..self.template(ACK, self.far.seq()) };
        segment.encode_with(0, buffer, |_| {})
    }

    /// A segment that any kernel with this connection answers at once
    fn keepalive(&self) -> Vec<u8> {
        self.template(ACK, self.far.una_seq().wrapping_sub(1)).encode()
    }

    fn rst(&self, seq: u32) -> Vec<u8> {
        Segment { window: 0, ..self.template(RST | ACK, seq) }.encode()
    }

    fn template(&self, flags: u8, seq: u32) -> Segment<'static> {
        Segment {
            ends: self.ends.turned(),
            seq,
            ack: self.near.ack(),
            flags,
            window: self.near.window(),
            urgent: 0,
            options: &[],
            data: &[],
            class: self.class,
        }
    }
}

/// Segment that is assumed where none is named
const MSS_V4: u16 = 536;
const MSS_V6: u16 = 1220;
/// Time for which a kernel is answered that may not have heard the last of a connection
const KERNEL_LINGER: Duration = Duration::from_secs(5);
/// Time that the other node has to close a lane as well
const PEER_LINGER: Duration = Duration::from_secs(120);
/// Room in the window at which the kernel is told of more without having asked
const WINDOW_STEP: u64 = 64 * 1024;
/// Least room that is worth a segment
const WINDOW_LEAST: u64 = 1400;
/// Room in the window that a kernel may take for none
const WINDOW_SHUT: u64 = 4 * 1400;
