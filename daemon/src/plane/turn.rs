//! One turn of a data thread, again and again.
//!
//! A turn has one reading of the clock and a fixed order: commands, messages from the network and
//! from stream carriers, packets from the TUN, what is due. Each takes a bounded amount; what is left makes the next turn
//! start at once. After each batch the node is drained: messages, packets, events. At the end the
//! events leave in one batch.
//!
//! The node permits several `handle_*` calls before a drain, so it is drained once for a batch and
//! not once for a message: acknowledgements then share a message, and messages a system call.
//!
//! What other threads hand over comes with the commands, and is taken as if it had come in here.
//!
//! # When the socket is full
//!
//! The train that did not go out stays at the head, nothing is taken from the node behind it, and
//! the TUN is not read until the socket is writable again: the queue then grows where its owners
//! can see it. Messages are still received.
//!
//! # Not here
//!
//! What a thread waits for, and how, is in `watch`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use fastvpn_proto::buffers::PacketBuffer;
use fastvpn_proto::ip::Parcel;
use fastvpn_proto::node::{Carrier, Command, Event, Node, Transmit};
use fastvpn_proto::time::Instant;
use tokio::sync::mpsc::Sender;
use tracing::{debug, trace};

use super::buffers::{self, SLOTS, Slots};
use super::carrier::Carriers;
use super::clock;
use super::inbox::{CAPACITY, Inbox, Order};
use super::outlet::{Flushed, Outlet};
use super::threads::{Numbers, Step, Threads};
use super::tun::Tun;
use super::udp::{self, Sent, Udp};
use super::unread::Unread;
use super::vigil::Vigil;
use super::watch::Watch;
use super::{DeviceNumber, PlaneCommand, PlaneEvent};

/// Which of a network's data threads this is
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) threads: Arc<Threads>,
}

/// Everything that a data thread owns
pub(super) struct Turn {
    place: Place,
    node: Node,
    udp: Udp,
    carriers: Carriers,
    tun: Option<Tun>,
    /// Which device that is, or was
    device: DeviceNumber,
    /// Whether packets of the TUN are carried, or read and dropped
    carry: bool,
    /// Whether the kernel hands packets to our queue; nothing where there is one for all
    attached: Option<bool>,
    outlet: Outlet,
    watch: Watch,
    vigil: Vigil,
    orders: Vec<Order>,
    slots: Slots,
    packet: PacketBuffer,
    train: Vec<u8>,
    /// The train in `train`, if it did not go out whole
    outgoing: Option<Outgoing>,
    /// When all numbers are told next, and when they were told last
    stats_at: Instant,
    stats_told: Instant,
    /// Whether somebody waits for them
    stats_wanted: bool,
    dropped: Dropped,
    /// Bytes written to the TUN in this turn
    written: usize,
    unread: Unread,
    /// Until when the end waits for split connections, once it has begun
    drain_until: Option<Instant>,
}

/// A train on its way out
#[derive(Clone, Copy, Debug)]
struct Outgoing {
    transmit: Transmit,
    /// Bytes of it that are done with
    done: usize,
}

/// Packets that got lost between the node and the TUN
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Dropped {
    /// The device took no packet
    refused: u64,
    /// Packets were not to be carried
    not_carried: u64,
    /// Messages that the kernel refused to send, when they were last traced
    unsent: u64,
    /// Messages that the kernel dropped for want of room, when they were last traced
    overflowed: u64,
}

/// Whether there is a next turn
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Turn,
    End,
}

impl Place {
    fn inbox(&self) -> &Inbox {
        self.threads.inbox(self.at)
    }
}

impl Turn {
    /// Gathers everything, and watches the descriptors
    pub(super) fn new(
        node: Node,
        (udp, carriers): (Udp, Carriers),
        place: Place,
        events: Sender<Vec<PlaneEvent>>,
        now: Instant,
    ) -> io::Result<Self> {
        let watch = Watch::new(place.inbox(), &udp, &carriers, now)?;
        Ok(Self {
            place,
            node,
            udp,
            carriers,
            tun: None,
            device: DeviceNumber::default(),
            carry: true,
            attached: None,
            outlet: Outlet::new(events),
            watch,
            vigil: Vigil::default(),
            orders: Vec::with_capacity(ORDERS),
            slots: Slots::new(),
            packet: PacketBuffer::default(),
            train: buffers::train(),
            outgoing: None,
            stats_at: now + STATS_EVERY,
            stats_told: now,
            stats_wanted: false,
            dropped: Dropped::default(),
            written: 0,
            unread: Unread::new(std::thread::yield_now),
            drain_until: None,
        })
    }

    /// Makes turns until it is told to stop
    ///
    /// # Errors
    /// If the system refuses what cannot be done without.
    pub(super) fn run(&mut self) -> io::Result<()> {
        // The node may have something to do before anything happens.
        self.rest(clock::now())?;
        while self.turn()? == Next::Turn {}
        Ok(())
    }

    /// Closes everything; returns the events that were not sent, and which thread it was
    pub(super) fn end(self) -> (Vec<PlaneEvent>, Place) {
        (self.outlet.into_waiting(), self.place)
    }

    fn turn(&mut self) -> io::Result<Next> {
        let ready = self.watch.wait(&mut self.vigil)?;
        let now = clock::now();
        self.vigil.on_turn(now);
        self.written = 0;
        self.place.threads.beat(self.place.at, self.node.sent(), now);
        if ready.inbox && self.obey(now)? == Next::End {
            self.say_goodbye(now)?;
            return Ok(Next::End);
        }
        if self.outgoing.is_some() {
            self.drain(now)?;
        }
        if ready.udp {
            self.receive(now)?;
        }
        if ready.carriers {
            self.carriers.receive(&mut self.node, now);
            self.drain(now)?;
        }
        // The kernel has answered already what it was just written: no need to wait for that.
        if ready.tun || self.written >= ANSWERED {
            self.read_packets(now, READ_BATCHES)?;
        }
        if self.node.deadline().is_some_and(|(at, _)| at <= now) {
            self.node.handle_timeout(now);
            self.drain(now)?;
        }
        if now >= self.stats_at {
            self.tell_stats(now);
            self.stats_told = now;
            self.stats_at = now + STATS_EVERY;
        }
        if self.drain_until.is_some_and(|until| now >= until || self.are_drained(now)) {
            self.say_goodbye(now)?;
            return Ok(Next::End);
        }
        self.rest(now)
    }

    /// Does what the control side wants, and takes what other threads hand over
    fn obey(&mut self, now: Instant) -> io::Result<Next> {
        let mut orders = std::mem::take(&mut self.orders);
        let closed = self.place.inbox().take(&mut orders, ORDERS);
        let mut next = if closed { Next::End } else { Next::Turn };
        for order in orders.drain(..) {
            match order {
                Order::Command(PlaneCommand::Stop { drain }) if drain.is_zero() => next = Next::End,
                Order::Command(command) => self.command(command, now)?,
                Order::Handover(handover) => {
                    if handover.is_load() {
                        self.vigil.on_bytes(handover.weight());
                    }
                    self.node.handle_handover(handover, now);
                }
            }
        }
        self.orders = orders;
        self.follow_routes(now)?;
        self.drain(now)?;
        Ok(next)
    }

    fn command(&mut self, command: PlaneCommand, now: Instant) -> io::Result<()> {
        match command {
            PlaneCommand::Accept(choice) => self.carriers.accept(choice),
            PlaneCommand::Node(command) => self.node.handle_command(command, now),
            PlaneCommand::Tun { device, queues, mtu } => self.serve(device, queues, mtu, now)?,
            PlaneCommand::CloseTun => self.close_tun(),
            PlaneCommand::Carry(carry) => self.carry = carry,
            PlaneCommand::Stats => {
                self.stats_wanted = true;
                self.stats_at = now;
            }
            PlaneCommand::Stop { drain } => {
                self.drain_until = Some(now + drain);
                self.node.handle_command(Command::Drain, now);
            }
        }
        Ok(())
    }

    /// Tells whether no thread would miss anything if all ended
    fn are_drained(&self, now: Instant) -> bool {
        let Place { at, threads } = &self.place;
        let drained = threads.drain(*at, self.node.is_drained(now));
        if drained {
            threads.wake_others(*at);
        }
        drained
    }

    /// Has the kernel hand packets to our queue while there are peers whose they can be
    fn follow_routes(&mut self, now: Instant) -> io::Result<()> {
        let routed = self.node.is_routed();
        if self.attached.is_none_or(|attached| attached == routed) {
            return Ok(());
        }
        self.attached = Some(routed);
        if !routed {
            // What waits in it would be lost: after a restart, all that has come meanwhile.
            self.read_packets(now, QUEUE_BATCHES)?;
        }
        if let Some(tun) = &self.tun {
            tun.attach(routed);
        }
        Ok(())
    }

    /// Serves a TUN queue from now on
    fn serve(
        &mut self,
        device: DeviceNumber,
        queues: Vec<OwnedFd>,
        mtu: u16,
        now: Instant,
    ) -> io::Result<()> {
        self.close_tun();
        self.device = device;
        let Some(fd) = queues.into_iter().next() else { return Ok(()) };
        let tun = Tun::new(fd);
        self.packet = PacketBuffer::for_mtu(mtu);
        self.attached = self.place.threads.have_queues().then_some(true);
        let added = if self.reads() { self.watch.add_tun(&tun) } else { Ok(()) };
        match added {
            Ok(()) => {
                debug!(mtu, "serving the TUN");
                self.tun = Some(tun);
                self.follow_routes(now)?;
            }
            // It cannot be waited for: whatever it is, it is no TUN that is alive.
            Err(error) => self.lose_tun(error),
        }
        Ok(())
    }

    /// Tells whether the TUN is read here: where there is one queue for all, others than the first thread only write
    fn reads(&self) -> bool {
        self.attached.is_some() || self.place.at == 0
    }

    /// Closes our queue of the TUN
    fn close_tun(&mut self) {
        if let Some(tun) = self.tun.take() {
            self.watch.remove_tun(&tun);
        }
    }

    /// Gives what arrived to the node
    fn receive(&mut self, now: Instant) -> io::Result<()> {
        let mut bytes_left = RECEIVE_BYTES;
        loop {
            let filled = self.udp.receive(&mut self.slots);
            for (meta, bytes) in self.slots.filled(filled) {
                bytes_left = bytes_left.saturating_sub(bytes.len().max(MESSAGE_COST));
                let arrival = udp::arrival(&meta);
                let (node, vigil) = (&mut self.node, &mut self.vigil);
                udp::messages(&meta, bytes, |message| {
                    let proved = node.handle_message(arrival, message, now);
                    vigil.on_message(proved, message.len());
                });
            }
            if filled > 0 {
                self.drain(now)?;
            }
            if filled < SLOTS || bytes_left == 0 {
                return Ok(());
            }
        }
    }

    /// Gives the packets of the TUN to the node
    fn read_packets(&mut self, now: Instant, batches: usize) -> io::Result<()> {
        for _ in 0..batches {
            // While messages are stuck, packets wait in the device.
            if self.outgoing.is_some() {
                return Ok(());
            }
            let more = self.read_batch(now);
            self.drain(now)?;
            if !more {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads one batch of packets; returns whether there may be more
    fn read_batch(&mut self, now: Instant) -> bool {
        let Some(tun) = self.tun.as_ref().filter(|_| self.reads()) else { return false };
        let mut read = 0;
        for _ in 0..READ_BATCH {
            if read >= READ_BYTES {
                break;
            }
            match tun.read(&mut self.packet) {
                Ok(Some((len, gso))) if self.carry => {
                    self.vigil.on_bytes(len);
                    self.node.handle_buffer(&mut self.packet, gso, now);
                    read += len;
                }
                Ok(Some(_)) => self.dropped.not_carried += 1,
                Ok(None) => return false,
                Err(error) => {
                    self.lose_tun(error);
                    return false;
                }
            }
        }
        true
    }

    /// Takes everything that the node has
    fn drain(&mut self, now: Instant) -> io::Result<()> {
        // Before anything is sent to them, which they answer.
        while let Some((carrier, remote)) = self.node.poll_proved() {
            self.carriers.on_proved(carrier, remote);
        }
        self.send_messages(now);
        while let Some(packet) = self.node.poll_packet() {
            self.write_packet(&packet);
            self.node.give_back(packet);
        }
        while let Some(event) = self.node.poll_event() {
            if shows_in_stats(&event) {
                self.stats_at = self.stats_at.min(self.stats_told + STATS_SOON);
                self.stats_wanted = true;
            }
            self.outlet.push(PlaneEvent::Node(event));
        }
        while let Some(handover) = self.node.poll_handover() {
            if let Some(handover) = self.place.threads.hand_over(handover) {
                self.node.on_lost(handover, now);
            }
        }
        let read = self.tun.as_ref().filter(|_| self.reads());
        self.watch.hold(self.outgoing.is_some(), &self.udp, read)
    }

    fn send_messages(&mut self, now: Instant) {
        loop {
            let mut out = match self.outgoing.take() {
                Some(out) => out,
                None => match self.node.poll_transmit(&mut self.train, now) {
                    Some(transmit) => Outgoing { transmit, done: 0 },
                    None => return,
                },
            };
            if out.transmit.carrier != Carrier::Udp {
                self.carriers.send(&out.transmit, &self.train, &mut self.node, now);
                continue;
            }
            match self.udp.send(&out.transmit, &self.train[out.done..]) {
                Sent::Bytes(bytes) => out.done += bytes,
                Sent::TooBig { len, bytes } => {
                    trace!(len, remote = %out.transmit.remote, "too big");
                    out.done += bytes;
                    self.node.handle_too_big(&out.transmit.peer, out.transmit.remote, len);
                }
                Sent::Uncut { bytes } => {
                    out.done += bytes;
                    out.transmit.offload = false;
                    self.node.handle_uncut(&out.transmit.peer, out.transmit.remote, now);
                }
                Sent::Blocked => {
                    self.outgoing = Some(out);
                    return;
                }
            }
            if out.done < self.train.len() {
                self.outgoing = Some(out);
            }
        }
    }

    fn write_packet(&mut self, packet: &Parcel) {
        match self.tun.as_mut().map(|tun| tun.write(packet)) {
            Some(Ok(true)) => self.on_written(packet),
            Some(Ok(false)) | None => self.dropped.refused += 1,
            Some(Err(error)) => {
                self.dropped.refused += 1;
                self.lose_tun(error);
            }
        }
    }

    /// Counts what the kernel was given, and lets others read what nobody paces for them
    fn on_written(&mut self, packet: &Parcel) {
        self.written += packet.len();
        self.unread.on_written(packet);
    }

    fn lose_tun(&mut self, error: io::Error) {
        debug!(%error, "the TUN is gone");
        self.close_tun();
        let device = self.device;
        if self.place.threads.lose_tun(device) {
            self.outlet.push(PlaneEvent::TunLost { device, error });
        }
    }

    /// Ends a turn: events leave, the next turn's time is set
    fn rest(&mut self, now: Instant) -> io::Result<Next> {
        let mut wake = self.stats_at;
        match self.outlet.flush() {
            Flushed::All => {}
            Flushed::Full => wake = wake.min(now + RETRY_EVENTS),
            Flushed::Closed => {
                debug!("nobody listens to the data thread any more");
                self.say_goodbye(now)?;
                return Ok(Next::End);
            }
        }
        if let Some((at, why)) = self.node.deadline() {
            trace!(?at, ?why, "next deadline");
            // What the node owes may be stuck behind the train that is: no reason to spin.
            let earliest = if self.outgoing.is_some() { now + RETRY_HELD } else { Instant::ZERO };
            wake = wake.min(at.max(earliest));
        }
        self.watch.wake_at(self.drain_until.map_or(wake, |until| wake.min(until)));
        Ok(Next::Turn)
    }

    fn tell_stats(&mut self, now: Instant) {
        let mut stats = self.node.stats(now);
        stats.dropped += self.dropped.refused + self.dropped.not_carried;
        let overflowed = self.udp.overflowed();
        if let Some(count) = grown(&mut self.dropped.overflowed, overflowed) {
            debug!(count, "messages that the system dropped before we read them");
        }
        let wanted = std::mem::take(&mut self.stats_wanted);
        let numbers = Numbers { node: stats, overflowed };
        if let Some(Numbers { node, overflowed }) =
            self.place.threads.tell(self.place.at, numbers, wanted)
        {
            self.outlet.push(PlaneEvent::Stats { node: Box::new(node), overflowed });
        }
        if let Some(count) = grown(&mut self.dropped.unsent, self.udp.refused()) {
            debug!(count, "messages that the system did not send");
        }
    }

    /// Records that we have said what needs another thread, waits until all have, and takes what they have for us
    fn part(&mut self, step: Step, now: Instant) -> io::Result<()> {
        let Place { at, threads } = self.place.clone();
        threads.part(step, at);
        for _ in 0..GOODBYE_TRIES {
            if threads.have_parted(step) {
                break;
            }
            threads.wake_others(at);
            std::thread::sleep(GOODBYE_WAIT);
        }
        // Its end has come already, whatever it is told.
        (0..CAPACITY.div_ceil(ORDERS)).try_for_each(|_| self.obey(now).map(drop))
    }

    /// Closes all sessions; gives the last messages a moment to leave
    ///
    /// Whoever is behind a relay or a stream carrier is told before the relay is, and before the first thread ends.
    fn say_goodbye(&mut self, now: Instant) -> io::Result<()> {
        let Place { at, threads } = self.place.clone();
        if let Some(tun) = self.tun.as_ref().filter(|_| at == 0) {
            // If the device is kept, what comes meanwhile waits in this queue for the next daemon.
            tun.attach(true);
            // Nobody has routes from now on.
            self.attached = None;
        }
        self.node.handle_command(Command::CloseRelayed, now);
        self.drain(now)?;
        self.part(Step::Relayed, now)?;
        if at == 0 {
            self.part(Step::All, now)?;
        }
        self.node.handle_command(Command::Close, now);
        self.drain(now)?;
        threads.part(Step::All, at);
        for _ in 0..GOODBYE_TRIES {
            if self.outgoing.is_none() && !self.carriers.are_busy() {
                break;
            }
            // The inbox may be readable for good, so that waiting for it is no waiting.
            std::thread::sleep(GOODBYE_WAIT);
            self.drain(now)?;
        }
        self.outlet.flush();
        Ok(())
    }
}

/// Returns by how much a count has grown since it was last seen, if it has
fn grown(seen: &mut u64, count: u64) -> Option<u64> {
    let before = std::mem::replace(seen, count);
    count.checked_sub(before).filter(|more| *more > 0)
}

/// Tells whether the numbers look different after an event: people wait for that
fn shows_in_stats(event: &Event) -> bool {
    matches!(event, Event::PathMoved { .. } | Event::SessionDown { .. } | Event::SessionUp { .. })
}

/// Orders in one turn
const ORDERS: usize = 256;
/// Bytes received in one turn, more or less
const RECEIVE_BYTES: usize = 1 << 20;
/// What a message costs at least, in bytes, however short it is
const MESSAGE_COST: usize = 512;
/// Packets read from the TUN between two drains
const READ_BATCH: usize = 32;
/// Bytes after which a batch of them ends
const READ_BYTES: usize = 128 * 1024;
/// Such batches in one turn
const READ_BATCHES: usize = 4;
/// Such batches that may wait in a queue of the kernel
const QUEUE_BATCHES: usize = 32;
/// Bytes written to the TUN in a turn for which a kernel has something to say at once
const ANSWERED: usize = 2 * 1448;
/// How often the numbers are told; also how often the thread wakes at least
const STATS_EVERY: Duration = Duration::from_secs(1);
/// Least time between two tellings, where sessions or paths changed
const STATS_SOON: Duration = Duration::from_millis(100);
/// How soon events are tried again that found the channel full
const RETRY_EVENTS: Duration = Duration::from_millis(10);
/// How soon a deadline is looked at again while the socket is full
const RETRY_HELD: Duration = Duration::from_millis(1);
/// How often and how long the last messages wait for room in the socket
const GOODBYE_TRIES: u32 = 10;
const GOODBYE_WAIT: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
