//! The authenticated association of two nodes.
//!
//! A [`Session`] outlives keys, addresses and silence: handshakes bring it new epochs, proven
//! addresses new paths. It owns epochs, paths, the control lane and the datagrams of one peer, and
//! decides only who of them speaks (`outbox`) and who is spoken to (`intake`), which ways become paths
//! (`ways`), what becomes of packets that travel as they are (`plain`), and who ends first (`leave`).
//!
//! # Contract
//!
//! - A message is taken by [`Session::handle_message`] only after its index named this session.
//! - After any number of calls: [`Session::flush`], then drain [`Session::poll_message`], [`Session::poll_output`], then ask
//!   [`Session::deadline`].
//! - Handshakes are the node's: the session tells when it wants one ([`Session::wants_keys`]).

pub mod epochs;
pub mod inbound;
mod intake;
mod leave;
mod load;
mod outbox;
mod plain;
pub mod received;
pub mod replay;
mod shared;
mod ways;

use core::net::IpAddr;
use std::collections::VecDeque;

use self::epochs::Epochs;
use self::inbound::Inbounds;
use self::leave::Leave;
use self::ways::Candidates;
use crate::buffers::Stowed;
use crate::crypto::PublicKey;
use crate::datagram::{Duplicates, Fragmenter, Reassembler};
use crate::handshake::Established;
use crate::ip::Parcel;
use crate::ip::gso::Cutter;
use crate::lane::Lane;
use crate::limits::{HEARTBEAT, PATHS_MAX, PUSH_TIMEOUT, SESSION_SILENCE};
use crate::node::{BootId, Carriage, PathStats, Way, Why};
use crate::path::{Content, Fate, Item, Path};
use crate::sched::{Capacity, Scheduler, Slot};
use crate::tcp::{Change, Connections, Ends, Handling, Stance};
use crate::time::{Duration, Instant};

pub use self::intake::Intake;
pub use self::outbox::{Sealed, Train};
pub use self::shared::{Engine, Shared, TcpMode};

/// The association with one node
#[derive(Debug)]
pub struct Session {
    /// Boot id of the other node
    pub boot: BootId,
    /// Which session of the other node with us since its boot
    incarnation: u32,
    epochs: Epochs,
    paths: Vec<Path>,
    /// Number of the path in use
    active: Option<u8>,
    /// Counters of paths that are gone, for whoever uses their number next
    retired: [u64; PATHS_MAX],
    inbound: Inbounds,
    control: Lane,
    load: Scheduler,
    /// When it is our turn to send load, where a person set bounds
    slot: Option<Slot>,
    tcp: Connections,
    /// How new connections with the other node are carried, where it is not as with all others
    pub tcp_mode: Option<TcpMode>,
    echoes: VecDeque<u64>,
    leave: Leave,
    fragmenter: Fragmenter,
    reassembler: Reassembler,
    duplicates: Duplicates,
    output: VecDeque<Output>,
    /// Addresses to try for a better path, and when
    candidates: Candidates,
    /// When a message of nothing but acknowledgements last carried a ping
    ack_pinged: Instant,
    last_heard: Instant,
    undelivered_told: bool,
    scratch: Scratch,
    /// Whether super-packets travel whole, whatever is known of the path
    #[cfg(test)]
    pub(crate) always_whole: bool,
}

/// Something for the node
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// The session is over: the other node said goodbye, or broke the protocol
    Closed(Goodbye),
    /// A whole message of the control lane
    Control(Vec<u8>),
    /// The reply to an echo of ours
    EchoReply(u64),
    /// A split connection is over
    Ended(Ends),
    /// The path in use changed
    Moved(Way),
    /// A connection is split with the other node from now on
    Opened(Ends),
    /// On this way trains leave whole from now on, or do not
    Offload(Way, bool),
    /// An inner packet, or several as one
    Packet(Parcel),
    /// A message to carry on: to this node if we relay, from it if we do not
    Relay(PublicKey, Vec<u8>),
    /// A control message was not acknowledged in time
    Undelivered,
}

/// Whether a session that ends may have a successor that goes on with its connections
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Goodbye {
    /// The node stops; it may start again, with another boot id
    ForNow,
    /// The node does not know the other one any more
    ForGood,
}

/// Vectors that are reused, so that acknowledgements allocate nothing
#[derive(Debug, Default)]
struct Scratch {
    acked: Vec<Content>,
    lost: Vec<Content>,
}

impl Session {
    /// Begins a session with its first keys; `way` was proven by the handshake, if any was
    ///
    /// `tcp` are the connections that are split with the other node: those that outlived another
    /// session, or none.
    pub fn new(
        keys: Established,
        way: Option<(Way, Option<IpAddr>)>,
        tcp: Connections,
        now: Instant,
    ) -> Self {
        let (boot, incarnation) = (keys.boot, keys.incarnation);
        let mut epochs = Epochs::default();
        let none = epochs.enter(keys, now);
        debug_assert!(none.is_none(), "a first epoch displaces nothing");
        let mut first = way.map(|(way, local)| Path::proven(0, way, local, now));
        first.iter_mut().for_each(Path::owe_ping);
        Self {
            boot,
            incarnation,
            epochs,
            active: first.as_ref().map(|path| path.number),
            paths: first.into_iter().collect(),
            retired: [0; PATHS_MAX],
            inbound: Inbounds::default(),
            control: Lane::new(CONTROL_CONV),
            load: Scheduler::default(),
            slot: None,
            tcp,
            tcp_mode: None,
            echoes: VecDeque::new(),
            leave: Leave::default(),
            fragmenter: Fragmenter::default(),
            reassembler: Reassembler::default(),
            duplicates: Duplicates::default(),
            output: VecDeque::new(),
            candidates: Candidates::default(),
            ack_pinged: now,
            last_heard: now,
            undelivered_told: false,
            scratch: Scratch::default(),
            #[cfg(test)]
            always_whole: false,
        }
    }

    /// Takes the keys of a further handshake; returns an index that is free again
    pub fn on_keys(&mut self, keys: Established, now: Instant) -> Option<u32> {
        if keys.initiator
            && let Some(path) = self.active_path()
        {
            // The responder uses the keys from the first message on.
            path.owe_ping();
        }
        self.last_heard = now;
        self.epochs.enter(keys, now)
    }

    /// Returns the connections that are split with the other node, and keeps none
    #[must_use]
    pub fn take_tcp(&mut self) -> Connections {
        core::mem::take(&mut self.tcp)
    }

    /// Takes an inner packet; `cutter` is there for a super-packet
    pub fn send_packet(
        &mut self,
        packet: &[u8],
        cutter: Option<Cutter<'_>>,
        shared: &mut Shared,
        now: Instant,
    ) {
        let stance = self.stance(shared);
        if stance != Stance::Decline || !self.tcp.is_empty() {
            self.tcp.stance = stance;
            let gso = cutter.as_ref().map(Cutter::gso);
            let handling = self.tcp.handle_packet(packet, gso, &mut shared.pool, now);
            while let Some(plain) = self.tcp.poll_plain() {
                self.load.push_packet(Stowed::Copied(plain).into(), now);
            }
            if handling == Handling::Taken {
                return;
            }
        }
        self.send_plain(packet, cutter, shared, now);
    }

    /// Queues a message to carry for another node; tells whether there was room
    #[must_use]
    pub fn send_relayed(&mut self, node: PublicKey, message: Vec<u8>, now: Instant) -> bool {
        self.load.push_relayed(node, message, now);
        true
    }

    /// Queues a message of the control lane; tells whether there was room
    #[must_use]
    pub fn send_control(&mut self, message: &[u8], now: Instant) -> bool {
        self.control.write(message, now).is_ok()
    }

    /// Asks the other node to answer at once
    pub fn send_echo(&mut self, echo: u64) {
        self.echoes.push_back(echo);
    }

    /// Takes the news that a stream carrier has written `bytes` of what went by `way`
    pub fn on_written(&mut self, way: Way, bytes: usize, now: Instant) {
        if let Some(path) = self.paths.iter_mut().find(|path| path.way == way) {
            path.on_written(bytes, now);
        }
    }

    /// Tells whether there is a path with this way
    pub fn has_way(&self, way: Way) -> bool {
        self.paths.iter().any(|path| path.way == way)
    }

    /// Takes the news that `outer` bytes of UDP payload were too big for the way to an address
    pub fn on_too_big(&mut self, way: Way, outer: usize) {
        for path in self.paths.iter_mut().filter(|path| path.way == way) {
            path.mtu.on_too_big(outer);
        }
    }

    /// Takes the news that the kernel cuts no trains on the way to an address
    pub fn on_uncut(&mut self, way: Way, now: Instant) {
        for path in self.paths.iter_mut().filter(|path| path.way == way) {
            let worked = path.offload.works();
            path.offload.on_refused(now);
            Self::tell_offload(&mut self.output, path, worked);
        }
    }

    /// Does what time demands; `challenge` draws a random number
    pub fn handle_timeout(
        &mut self,
        shared: &mut Shared,
        challenge: &mut impl FnMut() -> u64,
        now: Instant,
    ) {
        self.time_paths(now);
        if self.tcp.deadline().is_some_and(|at| now >= at) {
            self.tcp.handle_timeout(&mut shared.pool, now);
        }
        self.leave.handle_timeout(now);
        self.time_candidates(challenge, now);
        self.reassembler.expire(now);
        let overdue = self.control.oldest_unacked().is_some_and(|at| now >= at + PUSH_TIMEOUT);
        if overdue && !self.undelivered_told {
            self.output.push_back(Output::Undelivered);
        }
        self.undelivered_told = overdue;
        self.choose_path(now);
    }

    /// Forgets keys that are too old; returns an index that is free again, until there are none
    pub fn expire_keys(&mut self, now: Instant) -> Option<u32> {
        self.epochs.expire(now)
    }

    /// Returns how many packets were dropped since this was asked last, because they waited too long
    /// or too many did
    pub fn take_dropped(&mut self) -> u64 {
        self.load.take_dropped()
    }

    /// Returns what is to become of new TCP connections
    fn stance(&self, shared: &Shared) -> Stance {
        match self.tcp_mode.unwrap_or(shared.engine.tcp) {
            TcpMode::Plain => Stance::Decline,
            TcpMode::Auto if self.active().is_some_and(Path::is_easy) => Stance::Sparing,
            TcpMode::Auto | TcpMode::Split => Stance::Split,
        }
    }

    /// Returns what there is for the node
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Tells whether a handshake is wanted, and why
    pub fn wants_keys(&self, now: Instant) -> Option<Wish> {
        if self.is_unresponsive(now) {
            return Some(Wish::Silence);
        }
        self.epochs.is_stale(now).then_some(Wish::Age)
    }

    /// Tells whether a handshake in which the other node said this is about this session
    pub fn is_meant(&self, boot: BootId, incarnation: u32) -> bool {
        (self.boot, self.incarnation) == (boot, incarnation)
    }

    /// Tells whether there are keys to seal with
    pub fn can_seal(&self, now: Instant) -> bool {
        self.epochs.can_seal(now)
    }

    /// Tells whether the session is to be forgotten
    pub fn is_dead(&self, now: Instant) -> bool {
        now >= self.last_heard + SESSION_SILENCE
    }

    /// Tells whether the path in use does not answer
    pub fn is_unresponsive(&self, now: Instant) -> bool {
        self.active().is_none_or(|path| path.is_unresponsive(now))
    }

    /// Returns the path in use
    pub fn way(&self) -> Option<Way> {
        self.active().map(|path| path.way)
    }

    /// Goes through all ways that are known to lead to the other node
    pub fn ways(&self) -> impl Iterator<Item = Way> + '_ {
        self.paths.iter().filter(|path| path.is_proven()).map(|path| path.way)
    }

    /// Returns our address on the path in use
    pub fn local(&self) -> Option<IpAddr> {
        self.active().and_then(|path| path.local)
    }

    /// Returns the smoothed round-trip time of the path in use
    pub fn rtt(&self) -> Option<Duration> {
        self.active().and_then(|path| path.rtt.smoothed())
    }

    /// Returns when anything authentic was last heard
    pub fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Returns when the last handshake was completed
    pub fn last_handshake(&self) -> Option<Instant> {
        self.epochs.newest()
    }

    /// Goes through the indices by which the other node addresses us
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.epochs.indices()
    }

    /// Tells whether messages to `index` are sealed under keys of this session
    pub fn has_index(&self, index: u32) -> bool {
        self.epochs.opening(index).is_some()
    }

    /// Returns how a TCP connection is carried that our side opens now
    pub fn carriage(&self, shared: &Shared) -> Carriage {
        let splits = self.tcp.would_split(self.stance(shared), &shared.pool);
        if splits { Carriage::Split } else { Carriage::Plain }
    }

    /// Returns the numbers of the path in use
    pub fn path_stats(&self) -> Option<PathStats> {
        self.active().map(Path::stats)
    }

    /// Returns when [`Session::handle_timeout`] is due next, and what for
    pub fn deadline(&self, shared: &Shared, now: Instant) -> (Instant, Why) {
        let mut first = (self.last_heard + SESSION_SILENCE, Why::Silence);
        let paths = self.paths.iter().map(Path::deadline);
        // A failure that is known already is no deadline.
        let fails = self.paths.iter().filter_map(Path::fails_at).filter(|at| *at > now);
        let fails = fails.map(|at| (at, Why::Heartbeat));
        let acks = self.inbound.values().filter_map(|inbound| inbound.received.ack_due());
        // Without keys or a path nothing can be acknowledged; both bring their own deadline.
        let mute = self.active.is_none() || !self.epochs.can_seal(now);
        let acks = acks.filter(|_| !mute).map(|at| (at, Why::Ack));
        let keys = self.epochs.deadline(now).map(|at| (at, Why::Keys));
        let candidates = self.candidates.next.map(|at| (at, Why::Probe));
        let fragments = self.reassembler.deadline().map(|at| (at, Why::Sweep));
        let push = self.control.oldest_unacked().filter(|_| !self.undelivered_told);
        let push = push.map(|at| (at + PUSH_TIMEOUT, Why::Sweep));
        let tcp = self.tcp.deadline().map(|at| (at, Why::Tcp));
        let load = self.load_at(shared, now).map(|at| (at, Why::Pace));
        let leave = self.leave.deadline(now).map(|at| (at, Why::Sweep));
        let single = [keys, candidates, fragments, push, tcp, load, leave].into_iter().flatten();
        for next in paths.chain(fails).chain(acks).chain(single) {
            first = first.min(next);
        }
        first
    }

    /// Returns when load may leave that may not now
    fn load_at(&self, shared: &Shared, now: Instant) -> Option<Instant> {
        let path = self.active().filter(|_| self.epochs.can_seal(now))?;
        let ready = self.load.has_output(now) || self.fragmenter.has_output();
        let from = if ready { now } else { self.load.deadline()? };
        let open = if path.budget(from) > 0 { from } else { path.send_at()? };
        if path.way.is_relayed() {
            return Some(from.max(open));
        }
        Some(from.max(open).max(shared.shaper.turn_at(&self.slot, from)))
    }

    fn time_paths(&mut self, now: Instant) {
        let mut lost = core::mem::take(&mut self.scratch.lost);
        let mut gone = Vec::new();
        for path in &mut self.paths {
            let worked = path.offload.works();
            let fate = path.handle_timeout(&mut lost, now);
            Self::tell_offload(&mut self.output, path, worked);
            let spare = self.active != Some(path.number);
            let relayed = path.way.is_relayed();
            match fate {
                Fate::Lives => {}
                Fate::Unproven => gone.push(path.number),
                Fate::Silent if spare && !relayed => gone.push(path.number),
                Fate::Silent => {}
            }
            for content in lost.drain(..) {
                Self::on_lost((&mut self.control, &mut self.tcp, &mut self.leave), path, &content);
                Self::on_doubt(&self.tcp, &mut self.load, &content, now);
            }
        }
        self.scratch.lost = lost;
        for number in gone {
            self.drop_path(number);
        }
    }

    /// Tells the node whether trains leave whole on a path, if that has changed
    fn tell_offload(output: &mut VecDeque<Output>, path: &Path, worked: bool) {
        let works = path.offload.works();
        if works != worked {
            output.push_back(Output::Offload(path.way, works));
        }
    }

    /// Lets what was lost in one of several copies leave once more
    fn on_doubt(tcp: &Connections, load: &mut Scheduler, content: &Content, now: Instant) {
        for item in content.items.iter() {
            match item {
                Item::Lane(piece) if tcp.is_under_way(*piece) => {
                    load.on_doubt(*piece, content.size.into(), now);
                }
                Item::Lane(_)
                | Item::Segment(_)
                | Item::Window
                | Item::Copied(_)
                | Item::Leaving => {}
            }
        }
    }

    fn on_lost(
        (control, tcp, leave): (&mut Lane, &mut Connections, &mut Leave),
        path: &mut Path,
        content: &Content,
    ) {
        for item in content.items.iter() {
            match item {
                Item::Lane(piece) => tcp.on_lost(*piece),
                Item::Segment(sn) => control.on_lost(*sn),
                Item::Window => control.on_window_lost(),
                Item::Leaving => leave.on_lost(),
                // Nobody repeats it; a copy may still be on its way.
                Item::Copied(_) => {}
            }
        }
        let outer = path.outer_size(usize::from(content.size));
        let loss = path.sent.loss_ppm();
        if content.probe {
            path.mtu.on_probe_lost(outer, loss);
        } else {
            path.mtu.on_large_lost(outer, loss);
        }
    }

    /// Returns how many connections are split with the other node
    pub fn connections(&self) -> usize {
        self.tcp.len()
    }

    /// Does what follows from all that came since the last time, once for all of it
    ///
    /// To be called before [`Session::poll_output`] and [`Session::poll_message`].
    pub fn flush(&mut self, shared: &mut Shared, now: Instant) {
        self.reclaim(shared);
        self.tcp.useful = self.active().and_then(|path| useful_window(&path.capacity()));
        self.tcp.flush(&mut shared.pool, now);
        if !self.tcp.is_empty() {
            self.leave.on_connections(now);
        }
        while let Some(conv) = self.tcp.poll_ready() {
            self.load.wake_lane(conv);
        }
        // What is written in the name of a connection is vouched for only while it is known.
        let mut closed = Vec::new();
        while let Some(change) = self.tcp.poll_change() {
            match change {
                Change::Opened(ends) => {
                    closed.retain(|other| *other != ends);
                    self.output.push_back(Output::Opened(ends));
                }
                Change::Closed(ends) => closed.push(ends),
            }
        }
        while let Some(packet) = self.tcp.poll_packet() {
            self.output.push_back(Output::Packet(packet));
        }
        self.output.extend(closed.into_iter().map(Output::Ended));
    }

    fn active(&self) -> Option<&Path> {
        self.active_at().map(|at| &self.paths[at])
    }

    fn active_path(&mut self) -> Option<&mut Path> {
        self.active_at().map(|at| &mut self.paths[at])
    }

    fn active_at(&self) -> Option<usize> {
        self.paths.iter().position(|path| Some(path.number) == self.active)
    }
}

/// Returns the window of one connection beyond which it gains nothing on a path: some round trips of what
/// that carries
///
/// Where messages get lost, nothing is said: repairs take as many round trips as they take.
fn useful_window(capacity: &Capacity) -> Option<usize> {
    let known = capacity.proven && capacity.loss_ppm < CLEAN_PPM;
    let rate = capacity.rate.filter(|_| known)?;
    let trip = u128::from(rate) * capacity.rtt.as_nanos() / 1_000_000_000;
    let trip = usize::try_from(trip).unwrap_or(usize::MAX);
    Some(trip.saturating_mul(TRIPS).saturating_add(WINDOW_LEAST))
}

/// Why a session wants new keys
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// The present ones are old
    Age,
    /// The other node does not answer: it may have restarted, or moved
    Silence,
}

/// Loss in a million under which a path counts as clean
const CLEAN_PPM: u32 = 2_000;
/// Round trips of a path that a connection's window is worth
const TRIPS: usize = 4;
/// Window that is worth it on any path
const WINDOW_LEAST: usize = 1 << 20;
/// Conversation number of the control lane
const CONTROL_CONV: u16 = 0;

const _: () = assert!(HEARTBEAT.as_secs() < SESSION_SILENCE.as_secs());
