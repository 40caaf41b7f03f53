//! What a session does with a message that came.
//!
//! The order is fixed: open, take the number, credit the path, read the frames. What fails before
//! the number is taken changes nothing.

use core::net::IpAddr;

use super::{Goodbye, Output, Session, Shared};
use crate::limits::{ACK_DELAY, PATHS_MAX};
use crate::node::{Ecn, Refusal, Way};
use crate::path::quality::Progress;
use crate::path::{Content, Item, Path};
use crate::tcp::Fault;
use crate::time::Instant;
use crate::wire::frame::{Ack, Frame, frames};
use crate::wire::message::{DataHeader, count_of, path_of};

/// Where a message came from
#[derive(Clone, Copy, Debug)]
pub struct Intake {
    /// Which way it came
    pub way: Way,
    /// Our address that it was sent to
    pub local: Option<IpAddr>,
    /// Its size on that way
    pub bytes: usize,
    /// What was said of congestion on that way
    pub ecn: Ecn,
}

impl Session {
    /// Opens a message that was sent to an index of this session, in place, and takes it
    ///
    /// # Errors
    /// If the seal does not open, the number was used before, a frame is malformed, or there is no memory for
    /// it.
    pub fn handle_message(
        &mut self,
        header: DataHeader,
        message: &mut [u8],
        intake: Intake,
        shared: &mut Shared,
        challenge: &mut impl FnMut() -> u64,
        now: Instant,
    ) -> Result<(), Refusal> {
        let epoch = self.epochs.opening(header.receiver).ok_or(Refusal::UnknownSession)?;
        let (head, sealed) = message.split_at_mut(crate::limits::DATA_HEADER_LEN);
        let len = epoch.keys.open.open(header.number, head, sealed).ok_or(Refusal::BadSeal)?;
        self.handle_opened(header.number, &sealed[..len], intake, shared, challenge, now)
    }

    /// Takes a message that was opened already (the first one under new keys)
    ///
    /// # Errors
    /// If the number was used before, or a frame is malformed.
    pub fn handle_opened(
        &mut self,
        number: u64,
        plain: &[u8],
        intake: Intake,
        shared: &mut Shared,
        challenge: &mut impl FnMut() -> u64,
        now: Instant,
    ) -> Result<(), Refusal> {
        let path = path_of(number);
        if usize::from(path) >= PATHS_MAX {
            return Err(Refusal::Malformed);
        }
        let count = count_of(number);
        let inbound = self.inbound.enter(path, intake.way);
        if !inbound.replay.insert(count) {
            return Err(Refusal::Replayed);
        }
        let newest = count >= inbound.highest;
        let left = (newest && inbound.way != intake.way).then_some(inbound.way);
        if newest {
            inbound.highest = count;
            inbound.way = intake.way;
        }
        self.last_heard = now;
        self.on_heard(intake, newest, left, challenge, now);
        let mut eliciting = false;
        let mut result = Ok(());
        let mut frames = frames(plain);
        for frame in &mut frames {
            let Ok(frame) = frame else {
                result = Err(Refusal::Malformed);
                break;
            };
            eliciting |= frame.is_eliciting();
            match self.on_frame(&frame, intake.way, shared, now) {
                Ok(()) => {}
                // What else came with it does not wait for memory, and some of it is said only once.
                Err(Refusal::NoRoom) => result = Err(Refusal::NoRoom),
                Err(refusal) => {
                    result = Err(refusal);
                    break;
                }
            }
        }
        // Whoever sends what we do not know may want to hear that it arrived.
        eliciting |= frames.unknown() > 0;
        if result == Err(Refusal::NoRoom) {
            // As if it was lost: what is not acknowledged is sent again.
            return result;
        }
        if let Some(inbound) = self.inbound.get_mut(path) {
            let mut pause = ACK_DELAY;
            if eliciting && inbound.received.asks_pause(count) {
                let back = self.paths.iter().find(|path| path.way == inbound.way);
                let rtt = back.and_then(|path| path.rtt.smoothed());
                // A way that was never full has room, and may carry much more than it was seen to.
                let rate = back.map(Path::capacity).filter(|back| back.proven);
                pause = inbound.received.pause(rtt, rate.and_then(|back| back.rate));
            }
            inbound.received.on_message(count, eliciting, pause, now);
            inbound.received.on_mark(intake.ecn);
        }
        self.choose_path(now);
        result
    }

    /// Credits the path that a message came on; a new address is challenged, an old one may be left
    fn on_heard(
        &mut self,
        intake: Intake,
        newest: bool,
        left: Option<Way>,
        challenge: &mut impl FnMut() -> u64,
        now: Instant,
    ) {
        if let Some(path) = self.paths.iter_mut().find(|path| path.way == intake.way) {
            path.on_heard(intake.bytes, now);
            if newest {
                path.local = intake.local;
            }
            if left.is_some() {
                path.replaces = left;
            }
            if path.is_proven() && left.is_some() {
                let number = path.number;
                self.on_moved(number, now);
            }
        } else if newest {
            self.open_path(intake.way, intake.local, challenge(), intake.bytes, now);
            if let Some(path) = self.paths.iter_mut().find(|path| path.way == intake.way) {
                path.replaces = left;
            }
        }
    }

    /// The other node left one proven way for another proven way
    fn on_moved(&mut self, number: u8, now: Instant) {
        let Some(at) = self.paths.iter().position(|path| path.number == number) else { return };
        let Some(old) = self.paths[at].replaces.take() else { return };
        let Some(left) = self.paths.iter().find(|path| path.way == old) else { return };
        let was_active = self.active == Some(left.number);
        let left_number = left.number;
        if same_host(old, self.paths[at].way) {
            // A NAT gave another port: the wire is the same.
            let (rtt, mtu, rate) = (left.rtt.clone(), left.mtu.clone(), left.rate.clone());
            let (offload, quality) = (left.offload.clone(), left.quality.clone());
            self.paths[at].rtt = rtt;
            self.paths[at].mtu = mtu;
            self.paths[at].rate = rate.moved();
            self.paths[at].offload = offload;
            self.paths[at].quality = quality;
        }
        let way = self.paths[at].way;
        self.drop_path(left_number);
        if was_active {
            self.active = Some(number);
            self.output.push_back(Output::Moved(way));
            if let Some(path) = self.active_path() {
                path.owe_ping();
            }
        }
        self.choose_path(now);
    }

    fn on_frame(
        &mut self,
        frame: &Frame<'_>,
        way: Way,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<(), Refusal> {
        match frame {
            Frame::Ping => {}
            Frame::Ack(ack) => self.on_ack(ack, now)?,
            Frame::Challenge(challenge) => {
                if let Some(path) = self.paths.iter_mut().find(|path| path.way == way) {
                    path.owe_answer(*challenge);
                }
            }
            Frame::Answer(answer) => self.on_answer(*answer, now),
            Frame::Segment(segment) => {
                if self.control.on_segment(segment).is_err() {
                    // The lane is of no use from here on, and the session without it neither.
                    self.output.push_back(Output::Closed(Goodbye::ForGood));
                    return Err(Refusal::Malformed);
                }
                while let Some(message) = self.control.read() {
                    self.output.push_back(Output::Control(message));
                }
            }
            Frame::Window { conv: _, una, wnd } => self.control.on_window(*una, *wnd),
            Frame::Datagram(packet) => self.on_inner(packet, shared),
            Frame::Fragment(fragment) => {
                let buffers = &mut shared.pool.buffers;
                if let Some(packet) = self.reassembler.on_fragment(fragment, buffers, now) {
                    self.on_whole(packet, shared);
                }
            }
            Frame::Relay { node, message } => {
                let mut bytes = shared.buffers.take();
                bytes.extend_from_slice(message);
                self.output.push_back(Output::Relay(*node, bytes));
            }
            Frame::Echo(echo) => {
                if let Some(path) = self.paths.iter_mut().find(|path| path.way == way) {
                    path.owe_echo(*echo);
                }
            }
            Frame::EchoReply(echo) => self.output.push_back(Output::EchoReply(*echo)),
            Frame::Close(reason) => self.output.push_back(Output::Closed(match reason {
                0 => Goodbye::ForNow,
                _ => Goodbye::ForGood,
            })),
            Frame::Leaving => self.leave.on_announced(),
            Frame::Copied { id, packet } => {
                if self.duplicates.is_first(*id) {
                    self.on_inner(packet, shared);
                }
            }
            Frame::Lane(frame) => {
                self.tcp.stance = self.stance(shared);
                match self.tcp.handle_frame(frame, &mut shared.pool, now) {
                    Ok(()) => {}
                    Err(Fault::NoRoom) => return Err(Refusal::NoRoom),
                    Err(Fault::Malformed) => {
                        self.output.push_back(Output::Closed(Goodbye::ForGood));
                        return Err(Refusal::Malformed);
                    }
                }
            }
        }
        Ok(())
    }

    fn on_answer(&mut self, answer: u64, now: Instant) {
        let at = self.paths.iter_mut().position(|path| path.on_answer(answer));
        let Some(path) = at.map(|at| &mut self.paths[at]) else { return };
        path.owe_ping();
        let number = path.number;
        if path.replaces.is_some() {
            self.on_moved(number, now);
        }
    }

    fn on_ack(&mut self, ack: &Ack<'_>, now: Instant) -> Result<(), Refusal> {
        let Some(path) = self.paths.iter_mut().find(|path| path.number == ack.path) else {
            return Ok(());
        };
        let mut acked: Vec<Content> = core::mem::take(&mut self.scratch.acked);
        let mut lost: Vec<Content> = core::mem::take(&mut self.scratch.lost);
        let worked = path.offload.works();
        let came = self.inbound.iter_mut().find(|(_, inbound)| inbound.way == path.way);
        if let Some((number, inbound)) = came {
            let (numbers, arrived) = inbound.received.progress();
            path.on_progress(Progress { path: number, numbers, arrived });
        }
        let result = path.on_ack(ack, now, &mut acked, &mut lost);
        Self::tell_offload(&mut self.output, path, worked);
        for content in lost.drain(..) {
            Self::on_lost((&mut self.control, &mut self.tcp, &mut self.leave), path, &content);
            Self::on_doubt(&self.tcp, &mut self.load, &content, now);
        }
        for content in acked.drain(..) {
            for item in content.items.iter() {
                match item {
                    Item::Lane(piece) => self.tcp.on_acked(*piece, now),
                    Item::Segment(sn) => self.control.on_acked(*sn, now),
                    Item::Copied(id) => self.load.on_acked(*id),
                    Item::Leaving => self.leave.on_acked(now),
                    Item::Window => {}
                }
            }
            let outer = path.outer_size(usize::from(content.size));
            if content.probe {
                path.mtu.on_probe_acked(outer);
            } else {
                path.mtu.on_large_acked(outer);
            }
            if let Some((number, largest)) = content.ack
                && let Some(inbound) = self.inbound.get_mut(number)
            {
                inbound.received.on_ack_of_ack(largest);
            }
        }
        self.scratch.acked = acked;
        self.scratch.lost = lost;
        if result.invalid { Err(Refusal::Malformed) } else { Ok(()) }
    }
}

fn same_host(one: Way, other: Way) -> bool {
    match (one, other) {
        (Way::Direct(one), Way::Direct(other)) => one.ip() == other.ip(),
        (Way::Relayed(one), Way::Relayed(other)) => one == other,
        // A stream is a connection of its own, with a queue of its own.
        (Way::Direct(_) | Way::Relayed(_) | Way::Stream(..), _) => false,
    }
}
