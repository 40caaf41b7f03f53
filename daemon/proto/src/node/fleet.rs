//! A node in shards that one thread drives, one after the other.
//!
//! A [`Fleet`] carries handovers as soon as there are any, and has messages and packets come in wherever they do not
//! belong, as far as a kernel may do that. It is what simulations and tests drive: a fleet of one is a plain
//! node, and one of several has to behave like it.

use core::net::SocketAddr;

use super::{
    Arrival, BootId, Carrier, Command, Credential, Event, Handover, Node, NodeConfig, NodeStats,
    Transmit, Why, shard_of,
};
use crate::buffers::PacketBuffer;
use crate::crypto::PublicKey;
use crate::ip::{Gso, Parcel};
use crate::time::Instant;
use crate::wire::message::receiver;

/// All shards of one node
#[derive(Debug)]
pub struct Fleet {
    shards: Vec<Node>,
    /// Grows with whatever comes in, so that it comes to each shard by turns
    turn: usize,
    /// Whether handovers that may get lost do
    loses: bool,
}

impl Fleet {
    /// Makes a node without peers in so many shards
    pub fn new(config: &NodeConfig, count: usize, now: Instant) -> Self {
        Self { shards: Node::shards(config, count, now), turn: 0, loses: false }
    }

    /// Returns the shard that has a peer
    pub fn shard_of(&mut self, key: &PublicKey) -> &mut Node {
        let at = shard_of(key, self.shards.len());
        &mut self.shards[at]
    }

    /// Goes through all shards
    pub fn shards(&self) -> impl Iterator<Item = &Node> {
        self.shards.iter()
    }

    /// Has handovers that may get lost get lost from now on, or none, as where a thread has too much to do
    pub fn lose_handovers(&mut self, loses: bool) {
        self.loses = loses;
    }

    /// See [`Node::handle_message`]; opens an init in the first shard, and any other message of UDP in one by turns
    pub fn handle_message(
        &mut self,
        arrival: Arrival,
        bytes: &mut [u8],
        now: Instant,
    ) -> Credential {
        let by_turns = arrival.carrier == Carrier::Udp && receiver(bytes).is_some();
        let at = if by_turns { self.next() } else { 0 };
        let proved = self.shards[at].handle_message(arrival, bytes, now);
        self.carry(now);
        let told = core::iter::from_fn(|| self.shards[0].poll_proved());
        if told.filter(|way| *way == (arrival.carrier, arrival.remote)).count() > 0 {
            return Credential::Identity;
        }
        proved.max(Credential::Nothing)
    }

    /// See [`Node::handle_packet`]; gives it to one shard by turns
    pub fn handle_packet(&mut self, packet: &[u8], gso: Option<Gso>, now: Instant) {
        let at = self.next();
        self.shards[at].handle_packet(packet, gso, now);
        self.carry(now);
    }

    /// See [`Node::handle_buffer`]; gives it to one shard by turns
    pub fn handle_buffer(&mut self, buffer: &mut PacketBuffer, gso: Option<Gso>, now: Instant) {
        let at = self.next();
        self.shards[at].handle_buffer(buffer, gso, now);
        self.carry(now);
    }

    /// See [`Node::handle_command`]
    pub fn handle_command(&mut self, command: &Command, now: Instant) {
        if *command == Command::Close {
            self.each(now, |shard| shard.handle_command(Command::CloseRelayed, now));
        }
        self.each(now, |shard| {
            shard.handle_command(command.clone(), now);
            shard.is_routed();
        });
    }

    /// See [`Node::handle_timeout`]
    pub fn handle_timeout(&mut self, now: Instant) {
        self.each(now, |shard| {
            if shard.deadline().is_some_and(|(at, _)| at <= now) {
                shard.handle_timeout(now);
            }
        });
    }

    /// See [`Node::handle_too_big`]
    pub fn handle_too_big(&mut self, peer: &PublicKey, remote: SocketAddr, len: usize) {
        self.shard_of(peer).handle_too_big(peer, remote, len);
    }

    /// See [`Node::handle_uncut`]
    pub fn handle_uncut(&mut self, peer: &PublicKey, remote: SocketAddr, now: Instant) {
        self.shard_of(peer).handle_uncut(peer, remote, now);
    }

    /// See [`Node::handle_writable`]
    pub fn handle_writable(
        &mut self,
        carrier: Carrier,
        remote: SocketAddr,
        bytes: usize,
        now: Instant,
    ) {
        self.shards[0].handle_writable(carrier, remote, bytes, now);
        self.carry(now);
    }

    /// See [`Node::handle_broken`]
    pub fn handle_broken(&mut self, carrier: Carrier, remote: SocketAddr, now: Instant) {
        self.shards[0].handle_broken(carrier, remote, now);
        self.carry(now);
    }

    /// See [`Node::poll_transmit`]
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        loop {
            let transmit =
                self.shards.iter_mut().find_map(|shard| shard.poll_transmit(buffer, now));
            if transmit.is_some() || !self.carry(now) {
                return transmit;
            }
        }
    }

    /// See [`Node::poll_packet`]
    pub fn poll_packet(&mut self) -> Option<Parcel> {
        self.shards.iter_mut().find_map(Node::poll_packet)
    }

    /// See [`Node::give_back`]
    pub fn give_back(&mut self, packet: Parcel) {
        self.shards[0].give_back(packet);
    }

    /// See [`Node::poll_event`]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shards.iter_mut().find_map(Node::poll_event)
    }

    /// See [`Node::deadline`]
    pub fn deadline(&self) -> Option<(Instant, Why)> {
        self.shards.iter().filter_map(Node::deadline).min()
    }

    /// See [`Node::is_drained`]
    pub fn is_drained(&self, now: Instant) -> bool {
        self.shards.iter().all(|shard| shard.is_drained(now))
    }

    /// See [`Node::public_key`]
    pub fn public_key(&self) -> PublicKey {
        self.shards[0].public_key()
    }

    /// See [`Node::boot_id`]
    pub fn boot_id(&self) -> BootId {
        self.shards[0].boot_id()
    }

    /// See [`Node::stats`]
    pub fn stats(&self, now: Instant) -> NodeStats {
        NodeStats::of_shards(self.shards.iter().map(|shard| shard.stats(now)))
    }

    fn next(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.turn % self.shards.len()
    }

    fn each(&mut self, now: Instant, does: impl FnMut(&mut Node)) {
        self.shards.iter_mut().for_each(does);
        self.carry(now);
    }

    /// Carries handovers until there are none; tells whether there were any
    fn carry(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((from, handover)) = self.next_handover() {
            any = true;
            if self.loses && !handover.must_arrive() {
                self.shards[from].on_lost(handover, now);
                continue;
            }
            if let Some(shard) = self.shards.get_mut(handover.to()) {
                shard.handle_handover(handover, now);
            }
        }
        any
    }

    /// Returns the next handover, and which shard it is from
    fn next_handover(&mut self) -> Option<(usize, Handover)> {
        let mut shards = self.shards.iter_mut().enumerate();
        shards.find_map(|(at, shard)| Some((at, shard.poll_handover()?)))
    }
}
