//! The authenticated association of two nodes.
//!
//! A [`Session`] outlives keys, addresses and silence: handshakes bring it new epochs, proven
//! addresses new paths. It owns epochs, paths, the control lane and the datagrams of one peer, and
//! decides only who of them speaks (`outbox`) and who is spoken to (`intake`).
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
mod load;
mod outbox;
pub mod received;
pub mod replay;
mod shared;

use core::net::IpAddr;
use std::collections::VecDeque;

use self::epochs::Epochs;
use self::inbound::Inbounds;
use crate::crypto::PublicKey;
use crate::datagram::{Duplicates, Fragmenter, Reassembler};
use crate::handshake::Established;
use crate::ip::gso::Cutter;
use crate::ip::merge::{Merged, merge};
use crate::ip::{Gso, Inner};
use crate::lane::Lane;
use crate::limits::{HEARTBEAT, PATHS_MAX, PUSH_TIMEOUT, SESSION_SILENCE};
use crate::node::{BootId, Carriage, Choice, PathStats, Way, Why};
use crate::path::select::Kind;
use crate::path::{Content, Fate, Item, Path, select};
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
    Packet(Inner),
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

/// Where else the other node may be reached
#[derive(Debug, Default)]
struct Candidates {
    ways: Vec<Way>,
    choice: Choice,
    next: Option<Instant>,
    round: u32,
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
            fragmenter: Fragmenter::default(),
            reassembler: Reassembler::default(),
            duplicates: Duplicates::default(),
            output: VecDeque::new(),
            candidates: Candidates::default(),
            ack_pinged: now,
            last_heard: now,
            undelivered_told: false,
            scratch: Scratch::default(),
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

    /// Takes an inner packet; tells whether there was room
    #[must_use]
    pub fn send_packet(
        &mut self,
        packet: &[u8],
        gso: Option<Gso>,
        shared: &mut Shared,
        now: Instant,
    ) -> bool {
        let stance = self.stance(shared);
        if stance != Stance::Decline || !self.tcp.is_empty() {
            self.tcp.stance = stance;
            let handling = self.tcp.handle_packet(packet, gso, &mut shared.pool, now);
            while let Some(plain) = self.tcp.poll_plain() {
                self.load.push_packet(plain.into(), now);
            }
            if handling == Handling::Taken {
                return true;
            }
        }
        let Some(gso) = gso else {
            let mut bytes = shared.buffers.take();
            bytes.extend_from_slice(packet);
            self.load.push_packet(bytes.into(), now);
            return true;
        };
        let Some(mut cutter) = Cutter::new(packet, gso) else { return false };
        if self.carries_whole() {
            let mut bytes = shared.pool.buffers.take();
            bytes.extend_from_slice(packet);
            self.load.push_packet(Inner { bytes, gso: Some(gso) }, now);
            return true;
        }
        for _ in 0..cutter.segments() {
            let mut own = shared.buffers.take();
            cutter.next(&mut own);
            self.load.push_packet(own.into(), now);
        }
        true
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

    /// Learns where else the other node may be reached, and tries it soon
    ///
    /// `choice` tells which carrier is wanted.
    pub fn try_ways(&mut self, ways: Vec<Way>, choice: Choice, now: Instant) {
        let news = ways.iter().any(|way| !self.candidates.ways.contains(way));
        self.candidates.ways = ways;
        self.candidates.choice = choice;
        if news && !self.is_settled() {
            self.candidates.round = 0;
            self.candidates.next = Some(now);
        }
        self.choose_path(now);
    }

    /// Takes the news that a stream carrier has written `bytes` of what went by `way`
    pub fn on_written(&mut self, way: Way, bytes: usize, now: Instant) {
        if let Some(path) = self.paths.iter_mut().find(|path| path.way == way) {
            path.on_written(bytes, now);
        }
    }

    /// Takes the news that a stream is gone, and with it all that was in flight on it
    pub fn on_broken(&mut self, way: Way, now: Instant) {
        let Some(path) = self.paths.iter().find(|path| path.way == way) else { return };
        let (number, proven) = (path.number, path.is_proven());
        let active = self.active == Some(number);
        self.drop_path(number);
        if proven && active {
            // It is made again at once; one that never led anywhere waits for the next round.
            self.candidates.round = STREAM_ROUND - 1;
            self.candidates.next = Some(now);
        }
        self.choose_path(now);
    }

    /// Tells whether there is a path with this way
    pub fn has_way(&self, way: Way) -> bool {
        self.paths.iter().any(|path| path.way == way)
    }

    /// Proves each path again: addresses or routes of this machine changed
    pub fn on_paths_changed(&mut self, now: Instant) {
        for path in &mut self.paths {
            path.owe_ping();
            path.hurry(now);
        }
        self.candidates.round = 0;
        self.candidates.next = Some(now);
    }

    /// Takes a way that a handshake went: it leads to the other node
    pub fn adopt_way(&mut self, way: Way, local: Option<IpAddr>, now: Instant) {
        if self.paths.iter().all(|path| path.way != way) {
            self.open_path(way, local, 0, 0, now);
        }
        if let Some(path) = self.paths.iter_mut().find(|path| path.way == way) {
            path.prove();
            path.on_heard(0, now);
            path.owe_ping();
        }
        self.choose_path(now);
    }

    /// Takes a way that may lead to the other node, as `heard` bytes say that came from there
    pub fn doubt_way(
        &mut self,
        way: Way,
        local: Option<IpAddr>,
        challenge: u64,
        heard: usize,
        now: Instant,
    ) {
        if self.paths.iter().all(|path| path.way != way) {
            self.open_path(way, local, challenge, heard, now);
        }
    }

    /// Takes the news that `outer` bytes of UDP payload were too big for the way to an address
    pub fn on_too_big(&mut self, way: Way, outer: usize) {
        for path in self.paths.iter_mut().filter(|path| path.way == way) {
            path.mtu.on_too_big(outer);
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

    /// Tells whether super-packets travel whole: where a lost message, which takes the whole of it along,
    /// is rare, and the rest of the load does not wait for it
    fn carries_whole(&self) -> bool {
        self.active().is_some_and(|path| {
            let clean = path.sent.knows_loss() && path.sent.loss_ppm() < WHOLE_PPM;
            clean && path.capacity().rate.is_some_and(|rate| rate >= WHOLE_RATE)
        })
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
        let single = [keys, candidates, fragments, push, tcp, load].into_iter().flatten();
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
                Self::on_lost(&mut self.control, &mut self.tcp, path, &content);
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

    /// Opens paths to the addresses that may be better, in rounds that become rarer
    fn time_candidates(&mut self, challenge: &mut impl FnMut() -> u64, now: Instant) {
        let failing = self.is_unresponsive(now);
        if failing && self.candidates.next.is_none_or(|at| at > now + FAILING_RETRY) {
            self.candidates.next = Some(now);
            self.candidates.round = 0;
        }
        if self.candidates.next.is_none_or(|at| now < at) {
            return;
        }
        let eager = self.candidates.round == 0;
        self.candidates.round += 1;
        self.candidates.next = if failing {
            Some(now + FAILING_RETRY)
        } else if self.is_settled() {
            None
        } else {
            Some(now + CANDIDATE_RETRY * self.candidates.round.min(60))
        };
        if self.is_settled() && !failing && !eager {
            return;
        }
        let choice = self.candidates.choice;
        let used = self.way().map(|way| select::kind(way, choice));
        let ways = self.candidates.ways.clone();
        for way in ways {
            let kind = select::kind(way, choice);
            let wanted = match kind {
                Kind::Chosen | Kind::Udp => true,
                Kind::Stream => {
                    let worse = used.is_none_or(|used| kind < used);
                    self.candidates.round >= STREAM_ROUND && (failing || worse)
                }
                Kind::Relayed => failing,
            };
            if !wanted {
                continue;
            }
            match self.paths.iter_mut().find(|path| path.way == way) {
                Some(path) if path.is_proven() => {
                    if failing {
                        path.owe_ping();
                    }
                }
                Some(path) if eager => path.hurry(now),
                Some(_) => {}
                None => self.open_path(way, None, challenge(), 0, now),
            }
        }
        self.time_paths(now);
    }

    /// Opens a path to an address that is still to be proven, if there is a number for it
    fn open_path(
        &mut self,
        way: Way,
        local: Option<IpAddr>,
        challenge: u64,
        heard: usize,
        now: Instant,
    ) {
        if self.paths.len() >= PATHS_MAX {
            // Whoever was heard least recently makes room, but never the path in use.
            let spare = self.paths.iter().filter(|path| self.active != Some(path.number));
            let Some(number) =
                spare.min_by_key(|path| (path.is_proven(), path.last_heard)).map(|p| p.number)
            else {
                return;
            };
            self.drop_path(number);
        }
        let free = (0..PATHS_MAX as u8).find(|n| self.paths.iter().all(|path| path.number != *n));
        let Some(number) = free else { return };
        let mut path = Path::unproven(number, way, local, challenge, heard, now);
        path.go_on_from(self.retired[usize::from(number)]);
        self.paths.push(path);
    }

    fn drop_path(&mut self, number: u8) {
        let Some(at) = self.paths.iter().position(|path| path.number == number) else { return };
        let mut path = self.paths.swap_remove(at);
        let mut lost = core::mem::take(&mut self.scratch.lost);
        path.sent.forget_in_flight(&mut lost);
        for content in lost.drain(..) {
            Self::on_lost(&mut self.control, &mut self.tcp, &mut path, &content);
        }
        self.scratch.lost = lost;
        self.retired[usize::from(number)] = path.sent.next_count();
        if self.active == Some(number) {
            self.active = None;
        }
    }

    /// Lets what was lost in one of several copies leave once more
    fn on_doubt(tcp: &Connections, load: &mut Scheduler, content: &Content, now: Instant) {
        for item in content.items.iter() {
            match item {
                Item::Lane(piece) if tcp.is_under_way(*piece) => {
                    load.on_doubt(*piece, content.size.into(), now);
                }
                Item::Lane(_) | Item::Segment(_) | Item::Window | Item::Copied(_) => {}
            }
        }
    }

    fn on_lost(control: &mut Lane, tcp: &mut Connections, path: &mut Path, content: &Content) {
        for item in content.items.iter() {
            match item {
                Item::Lane(piece) => tcp.on_lost(*piece),
                Item::Segment(sn) => control.on_lost(*sn),
                Item::Window => control.on_window_lost(),
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

    /// Takes nothing more from the kernels of split connections: the node is about to end
    pub fn drain(&mut self) {
        self.tcp.drain();
    }

    /// Tells whether split connections have nothing here that anybody would miss
    pub fn is_drained(&self) -> bool {
        self.tcp.is_drained()
    }

    /// Does what follows from all that came since the last time, once for all of it
    ///
    /// To be called before [`Session::poll_output`] and [`Session::poll_message`].
    pub fn flush(&mut self, shared: &mut Shared, now: Instant) {
        shared.pool.useful =
            self.active().map_or(usize::MAX, |path| useful_window(&path.capacity()));
        self.tcp.flush(&mut shared.pool, now);
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

    /// Takes an inner packet or super-packet of the other node that came in parts
    fn on_whole(&mut self, packet: Inner, shared: &mut Shared) {
        // Nobody sends super-packets of crumbs.
        let sane = |cutter: Cutter<'_>| cutter.segments() <= SEGMENTS_MAX;
        let fits = packet.gso.is_none_or(|gso| Cutter::new(&packet.bytes, gso).is_some_and(sane));
        if fits && self.tcp.on_plain(&packet.bytes, packet.gso) {
            self.output.push_back(Output::Packet(packet));
        } else {
            shared.pool.buffers.give(packet.bytes);
        }
    }

    /// Takes an inner packet of the other node; what follows another one of its flow is joined with it
    fn on_inner(&mut self, packet: &[u8], shared: &mut Shared) {
        if !self.tcp.on_plain(packet, None) {
            return;
        }
        for earlier in self.output.iter_mut().rev().take(MERGE_DEPTH) {
            let Output::Packet(inner) = earlier else { continue };
            match merge(inner, packet) {
                Merged::Joined => return,
                Merged::Behind => break,
                Merged::Apart => {}
            }
        }
        let mut bytes = shared.pool.buffers.take();
        bytes.extend_from_slice(packet);
        self.output.push_back(Output::Packet(bytes.into()));
    }

    fn choose_path(&mut self, now: Instant) {
        if self.paths.len() == 1 && self.active.is_some() {
            return;
        }
        let choice = self.candidates.choice;
        let best = select::best(&self.paths, self.active, choice, now);
        let best = best.map(|at| self.paths[at].number);
        if best.is_none() || best == self.active {
            return;
        }
        let before = self.way();
        self.active = best;
        if let Some(path) = self.active_path() {
            path.owe_ping();
        }
        self.rest_streams();
        if let Some(way) = self.way().filter(|way| before != Some(*way)) {
            self.output.push_back(Output::Moved(way));
        }
    }

    /// Lets streams fall silent that are a last resort while something better is in use
    fn rest_streams(&mut self) {
        let choice = self.candidates.choice;
        let Some(used) = self.way().map(|way| select::kind(way, choice)) else { return };
        for path in &mut self.paths {
            let kind = select::kind(path.way, choice);
            path.set_resting(kind == Kind::Stream && used < kind);
        }
    }

    /// Tells whether no way that is known may be better than the one in use
    fn is_settled(&self) -> bool {
        let kind = |way| select::kind(way, self.candidates.choice);
        let better = |used| self.candidates.ways.iter().any(|way| kind(*way) < kind(used));
        self.way().is_some_and(|used| !better(used))
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
fn useful_window(capacity: &Capacity) -> usize {
    let Some(rate) = capacity.rate.filter(|_| capacity.proven && capacity.loss_ppm < CLEAN_PPM)
    else {
        return usize::MAX;
    };
    let trip = u128::from(rate) * capacity.rtt.as_nanos() / 1_000_000_000;
    usize::try_from(trip).unwrap_or(usize::MAX).saturating_mul(TRIPS).saturating_add(WINDOW_LEAST)
}

/// Why a session wants new keys
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// The present ones are old
    Age,
    /// The other node does not answer: it may have restarted, or moved
    Silence,
}

/// Segments of one super-packet: 64 KiB of the shortest that TCP uses
const SEGMENTS_MAX: usize = 750;
/// Loss in a million under which super-packets travel whole
const WHOLE_PPM: u32 = 500;
/// Bytes a second from which on they do: the largest takes a millisecond
const WHOLE_RATE: u64 = 64_000_000;
/// Loss in a million under which a path counts as clean
const CLEAN_PPM: u32 = 2_000;
/// Round trips of a path that a connection's window is worth
const TRIPS: usize = 4;
/// Window that is worth it on any path
const WINDOW_LEAST: usize = 1 << 20;
/// Packets that are looked at for the one that another packet goes on from
const MERGE_DEPTH: usize = 8;
/// Conversation number of the control lane
const CONTROL_CONV: u16 = 0;
/// Round in which streams are tried that are a last resort
const STREAM_ROUND: u32 = 2;
/// Interval between rounds of trying other addresses, times the number of the round
const CANDIDATE_RETRY: Duration = Duration::from_millis(500);
/// The same while the path in use does not answer
const FAILING_RETRY: Duration = Duration::from_secs(1);

const _: () = assert!(HEARTBEAT.as_secs() < SESSION_SILENCE.as_secs());
