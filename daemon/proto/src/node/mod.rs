//! The whole pure machine of one network in one daemon.
//!
//! A [`Node`] dispatches input to its parts and drains their output; it has no protocol of its own.
//!
//! # Contract
//!
//! Any number of inputs (`handle_*`), then a full drain: [`Node::poll_transmit`],
//! [`Node::poll_packet`], [`Node::poll_event`] until each has nothing more, then
//! [`Node::deadline`]; always in that order. `now` never runs backwards.
//!
//! # Not here
//!
//! Handshakes are dispatched in `greet`, the output of sessions in `deliver`, strangers are kept
//! off in `admission`.
//!
//! # Shards
//!
//! A node may be divided into several ([`Node::shards`]), each a [`Node`] with some of the peers; see `shard`. They
//! are told the same commands, and the drain of each then includes [`Node::poll_handover`] and
//! [`Node::poll_proved`]. A node that is whole has neither.

pub mod admission;
mod config;
mod deliver;
mod device;
mod event;
mod fleet;
mod flows;
#[cfg(test)]
mod goodbye;
mod greet;
mod handover;
#[cfg(test)]
mod hostile;
mod parked;
mod peer;
mod peers;
mod pings;
mod refusal;
mod shard;
#[cfg(test)]
mod shard_trouble;
#[cfg(test)]
mod shards;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trouble;
mod way;
#[cfg(test)]
mod whole;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tracing::trace;

use self::admission::Gate;
pub use self::config::{Admission, BootId, Command, Contact, NodeConfig, PeerConfig, Ticket};
pub use self::event::{Arrival, Credential, DownReason, Ecn, Event, Transmit, Why};
pub use self::fleet::Fleet;
use self::flows::Flows;
use self::greet::Held;
pub use self::handover::Handover;
use self::handover::Passed;
use self::parked::Away;
use self::peer::{Peer, Reason};
use self::peers::Peers;
use self::pings::{Ping, Pings};
pub use self::refusal::{Refusal, Refusals};
use self::shard::Shard;
pub use self::shard::{SHARD_BITS, SHARDS_MAX, shard_of, steer};
pub use self::stats::{Carriage, NodeStats, PathStats, PeerState, PeerStats, Spent, Traffic};
pub use self::way::{Carrier, Choice, Way};
use crate::crypto::{Cipher, PublicKey};
use crate::handshake::Local;
use crate::ip::gso::Cutter;
use crate::ip::{Gso, Packet, Parcel, Prefix};
use crate::limits::CONTROL_MAX;
use crate::router::Router;
pub use crate::session::{Engine, TcpMode};
use crate::session::{Goodbye, Shared};
use crate::tcp::Handling;
use crate::time::{Duration, Instant};

/// Largest reply that fits into a response, in bytes
pub const REPLY_MAX: usize = 800;
/// Largest hello that fits into an init, in bytes
pub const HELLO_MAX: usize = 800;

/// One node of one network
#[derive(Debug)]
pub struct Node {
    shard: Shard,
    local: Local,
    admission: Admission,
    relay: bool,
    silence: Duration,
    shared: Shared,
    rng: ChaCha20Rng,
    /// Handshakes started since the node was made
    sequence: u64,
    /// Sessions that ended on our side alone, since the node was made
    incarnations: u32,
    gate: Gate,
    peers: Peers,
    /// What is routed to the peers of other shards
    elsewhere: BTreeMap<PublicKey, Vec<Prefix>>,
    /// Whose session, attempt or half-open handshake an index of ours names
    indices: BTreeMap<u32, PublicKey>,
    /// Which peer has which split connection
    flows: Flows,
    router: Router,
    router_is_stale: bool,
    /// Whether packets from the TUN are for peers of this shard at all
    routed: bool,
    /// Split connections with nodes that are no peers at present
    away: Away,
    /// Whether the node is about to end
    draining: bool,
    tickets: BTreeMap<Ticket, Held>,
    next_ticket: u64,
    pings: Pings,
    /// Peers with something to drain
    dirty: BTreeSet<PublicKey>,
    schedule: BTreeSet<(Instant, PublicKey)>,
    /// To whom a stream carrier's connection leads
    streams: BTreeMap<(Carrier, SocketAddr), Owner>,
    /// Connections of stream carriers that the first shard knows to lead to who should be there
    witnessed: BTreeSet<(Carrier, SocketAddr)>,
    proved: VecDeque<(Carrier, SocketAddr)>,
    handovers: VecDeque<Handover>,
    outgoing: VecDeque<Outgoing>,
    packets: VecDeque<Parcel>,
    events: VecDeque<Event>,
    refusals: Refusals,
    dropped: u64,
    relayed: Traffic,
    sent: Traffic,
    received: Traffic,
    /// Inner packets of peers that are gone: sent, received
    parted: (Traffic, Traffic),
}

/// Who sends over a stream carrier's connection
#[derive(Clone, Copy, Debug)]
enum Owner {
    Peer(PublicKey),
    Shard(u8),
}

/// A message that is ready to go
#[derive(Debug)]
struct Outgoing {
    /// How it goes, alone
    transmit: Transmit,
    bytes: Vec<u8>,
}

impl Node {
    /// Makes a node without peers
    pub fn new(config: NodeConfig, now: Instant) -> Self {
        let shared = Shared::new(config.engine, now);
        Self::shard(config, Shard::SOLE, shared, now)
    }

    /// Makes a node without peers in so many shards, [`SHARDS_MAX`] at most
    pub fn shards(config: &NodeConfig, count: usize, now: Instant) -> Vec<Self> {
        let shared = Shared::new(config.engine, now);
        let shard = |shard| Self::shard(config.clone(), shard, shared.share(), now);
        Shard::all(count).map(shard).collect()
    }

    fn shard(config: NodeConfig, shard: Shard, shared: Shared, now: Instant) -> Self {
        let mut rng = ChaCha20Rng::from_seed(config.seed);
        let boot = BootId(rng.next_u64().to_be_bytes());
        // All have the boot id, and nothing else that is drawn.
        rng.set_stream(shard.index().into());
        let cipher = if config.aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        let local = Local::new(config.private_key, config.network_key, boot, cipher);
        Self {
            shard,
            gate: Gate::new(now),
            local,
            admission: config.admission,
            relay: config.relay,
            silence: config.silence,
            shared,
            rng,
            sequence: 0,
            incarnations: 0,
            peers: Peers::default(),
            elsewhere: BTreeMap::new(),
            indices: BTreeMap::new(),
            flows: Flows::default(),
            router: Router::default(),
            router_is_stale: true,
            routed: false,
            away: Away::default(),
            draining: false,
            tickets: BTreeMap::new(),
            next_ticket: shard.index().into(),
            pings: Pings::default(),
            dirty: BTreeSet::new(),
            schedule: BTreeSet::new(),
            streams: BTreeMap::new(),
            witnessed: BTreeSet::new(),
            proved: VecDeque::new(),
            handovers: VecDeque::new(),
            outgoing: VecDeque::new(),
            packets: VecDeque::new(),
            events: VecDeque::new(),
            refusals: Refusals::default(),
            dropped: 0,
            relayed: Traffic::default(),
            sent: Traffic::default(),
            received: Traffic::default(),
            parted: (Traffic::default(), Traffic::default()),
        }
    }

    /// Takes one message from a carrier; opens it in place
    ///
    /// Returns what it proves of its sender; a stream carrier closes on who proves nothing.
    pub fn handle_message(
        &mut self,
        arrival: Arrival,
        bytes: &mut [u8],
        now: Instant,
    ) -> Credential {
        self.received.count(bytes.len());
        if self.pass_message(arrival, bytes) {
            return Credential::Unknown;
        }
        self.take_message(arrival, bytes, now)
    }

    fn take_message(&mut self, arrival: Arrival, bytes: &mut [u8], now: Instant) -> Credential {
        let way = Way::over(arrival.carrier, arrival.remote);
        let result = self.dispatch(way, (arrival.local, arrival.ecn), None, bytes, now);
        if let Err(refusal) = result {
            self.refuse(refusal);
        }
        Credential::of(bytes, result)
    }

    /// Takes one inner IP packet from the TUN, or a super-packet
    pub fn handle_packet(&mut self, packet: &[u8], gso: Option<Gso>, now: Instant) {
        self.take_packet(packet, gso, Passed::Not, now);
    }

    fn take_packet(&mut self, packet: &[u8], gso: Option<Gso>, passed: Passed, now: Instant) {
        let Ok(view) = Packet::parse(packet) else {
            return self.refuse(Refusal::Malformed);
        };
        let cutter = gso.map(|gso| Cutter::new(packet, gso));
        if matches!(cutter, Some(None)) {
            return self.refuse(Refusal::Malformed);
        }
        let cutter = cutter.flatten();
        let packets = cutter.as_ref().map_or(1, Cutter::segments);
        let carried = self.flows.peer_for(&view);
        if passed == Passed::Not && carried.is_none() && self.pass_stray(&view, packet, gso) {
            return;
        }
        let Some(key) = carried.or_else(|| self.route(view.dst())) else {
            return self.refuse(Refusal::NoRoute);
        };
        if self.pass_packet(&key, packet, gso, passed) {
            return;
        }
        let parked = carried.and_then(|key| {
            self.serve_parked(&key, now, |tcp, pool| tcp.handle_packet(packet, gso, pool, now))
        });
        let Some(peer) = self.peers.get_mut(&key) else {
            // It may be away, and its connections have what they need.
            if parked.is_none() {
                self.refuse(Refusal::NoRoute);
            }
            return;
        };
        let queued = match &mut peer.session {
            _ if parked == Some(Handling::Taken) => true,
            Some(session) if session.can_seal(now) => {
                session.send_packet(packet, cutter, &mut self.shared, now);
                true
            }
            _ if peer.config.contact == Contact::Await => false,
            _ => peer.waiting.push_cut(packet, cutter),
        };
        if queued {
            peer.sent.count_all(packets, packet.len());
        } else {
            self.dropped += 1;
        }
        if self.needs_call(&key, now) {
            self.call(key, Reason::Contact, now);
        }
        self.dirty.insert(key);
    }

    /// Takes a command of the control side; one that concerns another shard's peer changes little here
    pub fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Admit { ticket, peer, reply } => self.admit(ticket, peer, &reply, now),
            Command::Close => {
                // Goodbyes that a relay carries must be with it before it is gone itself.
                self.close(|way| way.is_some_and(Way::is_relayed), now);
                self.close(|_| true, now);
            }
            Command::CloseRelayed => self.close(|way| way.is_some_and(Way::is_relayed), now),
            Command::Configure(engine) => self.shared.configure(engine, now),
            Command::Drain => self.drain(),
            Command::PathsChanged => self.on_paths_changed(now),
            Command::PeerAway(key) => self.on_away(&key, now),
            Command::Ping { peer, .. } | Command::Send { peer, .. } if !self.shard.keeps(&peer) => {
            }
            Command::Ping { peer, id, timeout } => self.ping(peer, id, timeout, now),
            Command::Refuse { ticket } => {
                if self.tickets.remove(&ticket).is_some() {
                    self.refuse(Refusal::NotMember);
                }
            }
            Command::RemovePeer(key) => self.remove_peer(&key, Goodbye::ForGood, now),
            Command::Send { peer, message } => self.send_control(&peer, &message, now),
            Command::SetPeer(config) => self.set_peer(config, now),
        }
    }

    /// Does what is due; to be called when the deadline has passed
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_tickets(now);
        self.expire_pings(now);
        self.time_away(now);
        while let Some((at, key)) = self.schedule.first().copied()
            && at <= now
        {
            self.schedule.pop_first();
            self.time_peer(key, now);
        }
    }

    /// Takes the news that a message of `len` bytes for a peer was too big for the way to `remote`
    pub fn handle_too_big(&mut self, peer: &PublicKey, remote: SocketAddr, len: usize) {
        if let Some(session) = self.peers.get_mut(peer).and_then(|peer| peer.session.as_mut()) {
            session.on_too_big(Way::Direct(remote), len);
        }
    }

    /// Takes the news that the kernel cuts no trains on the way to `remote`, one of a peer's addresses
    pub fn handle_uncut(&mut self, peer: &PublicKey, remote: SocketAddr, now: Instant) {
        if let Some(session) = self.peers.get_mut(peer).and_then(|peer| peer.session.as_mut()) {
            session.on_uncut(Way::Direct(remote), now);
            self.dirty.insert(*peer);
        }
    }

    /// Takes the news that a stream carrier has written `bytes` of what it was given for `remote`
    ///
    /// Only what it was given and has not written yet bounds what it is given: see [`crate::path::flow`].
    pub fn handle_writable(
        &mut self,
        carrier: Carrier,
        remote: SocketAddr,
        bytes: usize,
        now: Instant,
    ) {
        let key = match self.streams.get(&(carrier, remote)) {
            None => return,
            Some(Owner::Shard(to)) => return self.pass_written(*to, (carrier, remote), bytes),
            Some(Owner::Peer(key)) => *key,
        };
        let session = self.peers.get_mut(&key).and_then(|peer| peer.session.as_mut());
        if let Some(session) = session {
            session.on_written(Way::over(carrier, remote), bytes, now);
            self.dirty.insert(key);
        }
    }

    /// Takes the news that a stream carrier's connection with `remote` is gone, or was not made
    ///
    /// What was in flight on it is lost; the next message for `remote` asks for a new connection.
    pub fn handle_broken(&mut self, carrier: Carrier, remote: SocketAddr, now: Instant) {
        self.pass_broken(carrier, remote);
        self.on_broken(carrier, remote, now);
    }

    fn on_broken(&mut self, carrier: Carrier, remote: SocketAddr, now: Instant) {
        self.witnessed.remove(&(carrier, remote));
        self.streams.remove(&(carrier, remote));
        let way = Way::over(carrier, remote);
        for (key, peer) in self.peers.all_mut() {
            if let Some(session) = peer.session.as_mut().filter(|session| session.has_way(way)) {
                session.on_broken(way, now);
                self.dirty.insert(*key);
            }
        }
    }

    /// Writes the next messages to send into `buffer` (which is cleared first)
    ///
    /// Several messages of equal size (the last may be shorter) to one address may be returned at once.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        let transmit = self.next_transmit(buffer, now)?;
        let messages = transmit.segment.map_or(1, |size| buffer.len().div_ceil(size.max(1)));
        self.sent.packets += messages as u64;
        self.sent.bytes += buffer.len() as u64;
        Some(transmit)
    }

    /// Returns the next inner packet or super-packet for the TUN
    pub fn poll_packet(&mut self) -> Option<Parcel> {
        self.packets.pop_front()
    }

    /// Returns the next event
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`Node::handle_timeout`] is due next, and what for
    pub fn deadline(&self) -> Option<(Instant, Why)> {
        let first = self.schedule.first().and_then(|(_, key)| self.peers.get(key));
        let peer = first.and_then(|peer| peer.scheduled);
        // They expire in their order.
        let ticket = self.tickets.first_key_value().map(|(_, held)| held.expires());
        let sweep = [ticket, self.pings.deadline(), self.away.deadline()];
        let sweep = sweep.into_iter().flatten().min();
        [peer, sweep.map(|at| (at, Why::Sweep))].into_iter().flatten().min()
    }

    /// Returns the node's public key
    pub fn public_key(&self) -> PublicKey {
        self.local.public()
    }

    /// Returns the node's boot id
    pub fn boot_id(&self) -> BootId {
        self.local.boot()
    }

    /// Returns how many messages were given to carriers, and their bytes
    pub fn sent(&self) -> Traffic {
        self.sent
    }

    /// Returns all numbers
    pub fn stats(&self, now: Instant) -> NodeStats {
        let (mut packets_sent, mut packets_received) = self.parted;
        for (_, peer) in self.peers.all() {
            packets_sent.add(peer.sent);
            packets_received.add(peer.received);
        }
        NodeStats {
            refusals: self.refusals,
            dropped: self.dropped,
            relayed: self.relayed,
            sent: self.sent,
            received: self.received,
            packets_sent,
            packets_received,
            connections: self.peers.all().map(|(_, peer)| peer.connections()).sum(),
            promised: self.shared.pool.promised(),
            peers: self.peers.all().map(|(_, peer)| peer.stats(&self.shared, now)).collect(),
        }
    }

    fn next_transmit(&mut self, buffer: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        buffer.clear();
        loop {
            let transmit = if let Some(outgoing) = self.outgoing.pop_front() {
                buffer.extend_from_slice(&outgoing.bytes);
                Some(outgoing.transmit)
            } else {
                let key = self.dirty.first().copied()?;
                self.drain_peer(&key, buffer, now)
            };
            if transmit.is_some_and(|transmit| !self.pass_stream(&transmit, buffer)) {
                return transmit;
            }
        }
    }

    fn set_peer(&mut self, config: PeerConfig, now: Instant) {
        let key = config.key;
        if key == self.local.public() {
            return;
        }
        if !self.shard.keeps(&key) {
            let before = self.elsewhere.insert(key, config.prefixes.clone());
            self.router_is_stale |= before.as_ref() != Some(&config.prefixes);
            return;
        }
        let eager = config.contact == Contact::Always;
        let new = || Peer::new(config.clone(), self.incarnations);
        let peer = self.peers.enter(key, new);
        if let Some(parked) = self.away.remove(&key) {
            peer.parked = Some(parked);
        }
        self.router_is_stale |= peer.config.prefixes != config.prefixes || peer.scheduled.is_none();
        peer.config = config;
        let ways = peer.ways();
        let choice = peer.config.carrier;
        let restarted = match &mut peer.session {
            Some(session) => {
                session.try_ways(ways, choice, now);
                session.tcp_mode = peer.config.tcp;
                peer.config.boot.is_some_and(|boot| boot != session.boot)
            }
            None => false,
        };
        // Nobody need say anything on connections that wait for a session.
        let wanted = eager || peer.session.is_none() && peer.parked.is_some();
        if restarted || wanted && self.needs_call(&key, now) {
            self.call(key, Reason::Contact, now);
        }
        self.dirty.insert(key);
    }

    fn remove_peer(&mut self, key: &PublicKey, goodbye: Goodbye, now: Instant) {
        if goodbye == Goodbye::ForGood {
            self.abandon_tcp(key, now);
        }
        self.router_is_stale |= self.elsewhere.remove(key).is_some();
        let Some(mut peer) = self.peers.remove(key) else { return };
        self.parted.0.add(peer.sent);
        self.parted.1.add(peer.received);
        match peer.parked.take() {
            Some(parked) => self.away.insert(*key, parked),
            None => self.forget_flows(key),
        }
        self.incarnations += 1;
        if let Some((at, _)) = peer.scheduled {
            self.schedule.remove(&(at, *key));
        }
        self.dirty.remove(key);
        for index in peer.indices() {
            self.indices.remove(&index);
        }
        self.router_is_stale = true;
        if let Some(mut session) = peer.session.take() {
            let mut bytes = Vec::new();
            session.flush(&mut self.shared, now);
            while let Some(sealed) = session.poll_message(&mut self.shared, &mut bytes, None, now) {
                self.send_way(key, sealed.way, sealed.local, core::mem::take(&mut bytes), now);
            }
            if let Some(sealed) = session.close(goodbye, &mut bytes, now) {
                self.send_way(key, sealed.way, sealed.local, bytes, now);
            }
            self.events.push_back(Event::SessionDown { peer: *key, reason: DownReason::Removed });
        }
    }

    /// Says goodbye to peers to which such a way leads, or none at all, and forgets them
    fn close(&mut self, such: impl Fn(Option<Way>) -> bool, now: Instant) {
        let closed = self.peers.all().filter(|(_, peer)| such(peer.way()));
        let keys: Vec<PublicKey> = closed.map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| self.remove_peer(key, Goodbye::ForNow, now));
    }

    fn drain(&mut self) {
        self.draining = true;
        for (key, peer) in self.peers.all_mut() {
            let second = self.local.public() > *key;
            peer.session.iter_mut().for_each(|session| session.drain(second));
            self.dirty.insert(*key);
        }
    }

    /// Tells whether nothing would be missed if the node ended now, once [`Command::Drain`] was given
    ///
    /// Connections that wait for a node which has just said goodbye, and may be back in a moment, are
    /// waited for; and so is a node that ends as well, if it goes first.
    pub fn is_drained(&self, now: Instant) -> bool {
        let parked = self.peers.all().filter_map(|(_, peer)| peer.parked.as_ref());
        let mut sessions = self.peers.all().filter_map(|(_, peer)| peer.session.as_ref());
        sessions.all(|session| session.is_drained(now))
            && !parked.chain(self.away.values()).any(|parked| parked.may_return(now))
    }

    fn send_control(&mut self, key: &PublicKey, message: &[u8], now: Instant) {
        let session = self.peers.get_mut(key).and_then(|peer| peer.session.as_mut());
        let Some(session) = session.filter(|_| message.len() <= CONTROL_MAX) else {
            trace!(peer = ?key, "control message without a session");
            return;
        };
        if !session.send_control(message, now) {
            self.events.push_back(Event::Undelivered { peer: *key });
        }
        self.dirty.insert(*key);
    }

    fn ping(&mut self, peer: PublicKey, id: u64, timeout: Duration, now: Instant) {
        let session = self.peers.get_mut(&peer).and_then(|peer| peer.session.as_mut());
        let sent = session.as_ref().map(|_| now);
        let wire = self.pings.insert(peer, Ping { id, sent, lost_at: now + timeout });
        if let Some(session) = session {
            session.send_echo(wire);
        } else if self.needs_call(&peer, now) {
            self.call(peer, Reason::Contact, now);
        }
        self.dirty.insert(peer);
    }

    fn expire_pings(&mut self, now: Instant) {
        while let Some((peer, ping)) = self.pings.expire(now) {
            self.events.push_back(Event::PingLost { peer, id: ping.id });
        }
    }

    fn on_paths_changed(&mut self, now: Instant) {
        let keys: Vec<PublicKey> = self.peers.all().map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(session) = self.peers.get_mut(&key).and_then(|peer| peer.session.as_mut()) {
                session.on_paths_changed(now);
            }
            if let Some(call) = self.peers.get_mut(&key).and_then(|peer| peer.call.as_mut()) {
                call.initiator.hurry(now);
            }
            self.time_peer(key, now);
        }
    }

    /// Does what time demands of one peer
    fn time_peer(&mut self, key: PublicKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some((at, _)) = peer.scheduled.take() {
            self.schedule.remove(&(at, key));
        }
        peer.turns = if peer.turns.0 == now { (now, peer.turns.1 + 1) } else { (now, 1) };
        for index in peer.half_open.expire(now) {
            self.indices.remove(&index);
        }
        if let Some(session) = &mut peer.session {
            let rng = &mut self.rng;
            session.handle_timeout(&mut self.shared, &mut || rng.next_u64(), now);
            while let Some(index) = session.expire_keys(now) {
                self.indices.remove(&index);
            }
            if session.is_dead(now) {
                self.end_session(&key, DownReason::Silence, now);
                self.abandon_tcp(&key, now);
            } else if !peer.silence_told && now >= session.last_heard() + self.silence {
                peer.silence_told = true;
                self.events.push_back(Event::Silent { peer: key });
            }
        }
        self.time_parked(&key, now);
        self.time_call(key, now);
        self.dirty.insert(key);
    }

    fn route(&mut self, dst: IpAddr) -> Option<PublicKey> {
        self.refresh_router();
        self.router.route(dst)
    }

    /// Tells whether a peer belongs to this shard
    pub fn keeps(&self, peer: &PublicKey) -> bool {
        self.shard.keeps(peer)
    }

    /// Tells whether packets from the TUN are for peers of this shard, or for nobody and this is the first shard: others
    /// need no queue of it
    ///
    /// To be asked after commands: other shards hear then of connections to which routes do not lead any more.
    pub fn is_routed(&mut self) -> bool {
        self.refresh_router();
        self.routed
    }

    fn refresh_router(&mut self) {
        if core::mem::take(&mut self.router_is_stale) {
            let ours = self.peers.all().map(|(key, peer)| (*key, &peer.config.prefixes));
            let others = self.elsewhere.iter().map(|(key, prefixes)| (*key, prefixes));
            // In the order of keys, as if there were no shards: of equal prefixes the first one counts.
            let all: BTreeMap<_, _> = ours.chain(others).collect();
            let routes = all
                .iter()
                .flat_map(|(key, prefixes)| prefixes.iter().map(|prefix| (*prefix, *key)));
            self.router = Router::new(routes);
            let mut keys = all.iter().filter(|(_, prefixes)| !prefixes.is_empty());
            let nobody = keys.clone().next().is_none();
            self.routed =
                keys.any(|(key, _)| self.shard.keeps(key)) || nobody && self.shard.is_first();
            self.tell_strays();
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        trace!(%refusal, "refused");
        self.refusals.count(refusal);
    }

    /// Puts a peer where it belongs in the schedule
    fn schedule(&mut self, key: &PublicKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        // A deadline in the past would be a fault of ours; it must not become a busy loop.
        let next = peer
            .deadline(self.silence, &self.shared, now)
            .map(|(at, why)| (at.max(now + GRAIN), why));
        if next == peer.scheduled {
            return;
        }
        if let Some((at, _)) = peer.scheduled {
            self.schedule.remove(&(at, *key));
        }
        if let Some((at, _)) = next {
            self.schedule.insert((at, *key));
        }
        peer.scheduled = next;
    }
}

/// Grain of the schedule
const GRAIN: Duration = Duration::from_micros(1);
