//! What one shard of a node has for another.
//!
//! Where a message or packet comes in is not always where it belongs: the kernel hands out packets by flow, an init
//! names nobody before it is opened, a relay brings messages of other peers, and all connections of stream carriers
//! are with the first shard. Whoever gets it hands it over, whole, and thinks of it no more.
//!
//! # Contract
//!
//! - What was handed over once is not handed over again: where shards are not of one mind for a moment, it is lost,
//!   as it would be on the way.
//! - Whoever carries handovers may drop them ([`Node::on_lost`]) but for a few ([`Handover::must_arrive`]), and keeps
//!   those to one shard in their order.

use core::net::{IpAddr, SocketAddr};

use super::admission::Proof;
use super::greet::Held;
use super::{Arrival, Carrier, Credential, Ecn, Node, Outgoing, Owner, Refusal, Transmit, Way};
use crate::buffers::Stowed;
use crate::crypto::PublicKey;
use crate::ip::{Gso, Inner, Packet};
use crate::tcp::Ends;
use crate::time::Instant;

/// Something that belongs to another shard
#[derive(Debug)]
pub struct Handover {
    to: u8,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A stream carrier's connection is gone
    Broken(Carrier, SocketAddr),
    /// A relay brought this; whether the relay is our hub
    Brought { relay: PublicKey, hub: bool, origin: PublicKey, message: Vec<u8> },
    /// To be carried on to a peer
    Carry { from: PublicKey, to: PublicKey, message: Vec<u8> },
    /// An init that was opened, and what it proves of its address
    Init(Box<Held>, Proof),
    /// A message with an index of the other shard
    Message(Arrival, Vec<u8>),
    /// A packet from the TUN
    Packet(Vec<u8>, Option<Gso>),
    /// Who is at the other end of a stream carrier's connection has proven himself
    Proved(Carrier, SocketAddr),
    /// To be given to a relay, for a peer
    Relay { relay: PublicKey, to: PublicKey, message: Vec<u8> },
    /// A connection whose packets are for a shard, whatever their route, from now on or no more
    Stray { ends: Ends, of: u8, there: bool },
    /// To be sent over a stream carrier
    Stream { from: u8, transmit: Transmit, bytes: Vec<u8> },
    /// A stream carrier has written so many bytes
    Written(Carrier, SocketAddr, usize),
}

impl Handover {
    /// Returns for which shard it is
    #[must_use]
    pub fn to(&self) -> usize {
        self.to.into()
    }

    /// Returns how much memory it takes, in bytes, more or less
    #[must_use]
    pub fn weight(&self) -> usize {
        let content = match &self.what {
            What::Brought { message, .. }
            | What::Carry { message, .. }
            | What::Message(_, message)
            | What::Relay { message, .. } => message.len(),
            What::Packet(bytes, _) | What::Stream { bytes, .. } => bytes.len(),
            What::Init(..) => size_of::<Held>(),
            What::Broken(..) | What::Proved(..) | What::Stray { .. } | What::Written(..) => 0,
        };
        size_of::<Self>() + content
    }

    /// Tells whether it must not get lost: messages and packets may, and are made up for
    #[must_use]
    pub fn must_arrive(&self) -> bool {
        match self.what {
            What::Broken(..) | What::Proved(..) | What::Stray { .. } | What::Written(..) => true,
            What::Brought { .. }
            | What::Carry { .. }
            | What::Init(..)
            | What::Message(..)
            | What::Packet(..)
            | What::Relay { .. }
            | What::Stream { .. } => false,
        }
    }

    /// Tells whether it is a packet, or something that a session proved to be worth staying awake for
    #[must_use]
    pub fn is_load(&self) -> bool {
        match self.what {
            What::Packet(..) | What::Carry { .. } | What::Relay { .. } | What::Stream { .. } => {
                true
            }
            What::Broken(..)
            | What::Brought { .. }
            | What::Init(..)
            | What::Message(..)
            | What::Proved(..)
            | What::Stray { .. }
            | What::Written(..) => false,
        }
    }
}

impl Node {
    /// Returns the next thing that is for another shard
    pub fn poll_handover(&mut self) -> Option<Handover> {
        self.handovers.pop_front()
    }

    /// Returns the next connection of a stream carrier at whose end is who should be, as another shard has seen
    pub fn poll_proved(&mut self) -> Option<(Carrier, SocketAddr)> {
        self.proved.pop_front()
    }

    /// Takes back a handover that could not be delivered
    pub fn on_lost(&mut self, handover: Handover, now: Instant) {
        self.dropped += 1;
        if let What::Stream { transmit, bytes, .. } = handover.what {
            // It has left as far as the carrier goes, which will never say so.
            self.handle_writable(transmit.carrier, transmit.remote, bytes.len(), now);
        }
    }

    /// Takes what another shard has for this one
    pub fn handle_handover(&mut self, handover: Handover, now: Instant) {
        match handover.what {
            What::Broken(carrier, remote) => self.on_broken(carrier, remote, now),
            What::Brought { relay, hub, origin, mut message } => {
                self.bring(relay, hub, &origin, &mut message, now);
                self.shared.buffers.give(message);
            }
            What::Carry { from, to, message } => self.carry_on(&from, &to, message, now),
            What::Init(held, proof) => {
                if let Err(refusal) = self.on_opened_init(*held, proof, now) {
                    self.refuse(refusal);
                }
            }
            What::Message(arrival, mut message) => {
                self.on_handed(arrival, &mut message, now);
                self.shared.buffers.give(message);
            }
            What::Packet(packet, gso) => {
                self.take_packet(&packet, gso, Passed::On, now);
                self.shared.give(Inner { bytes: Stowed::Copied(packet), gso });
            }
            What::Proved(carrier, remote) => self.proved.push_back((carrier, remote)),
            What::Relay { relay, to, message } => self.give_relay(relay, &to, message, now),
            What::Stray { ends, of, there } => self.flows.on_stray(ends, of, there),
            What::Stream { from, transmit, bytes } => {
                let way = (transmit.carrier, transmit.remote);
                self.streams.insert(way, Owner::Shard(from));
                self.outgoing.push_back(Outgoing { transmit, bytes });
            }
            What::Written(carrier, remote, bytes) => {
                self.handle_writable(carrier, remote, bytes, now);
            }
        }
    }

    /// Takes a message that another shard was brought
    fn on_handed(&mut self, arrival: Arrival, message: &mut [u8], now: Instant) {
        let Arrival { carrier, remote, .. } = arrival;
        let proved = self.take_message(arrival, message, now);
        let mut new = || self.witnessed.insert((carrier, remote));
        if carrier != Carrier::Udp && proved == Credential::Identity && new() {
            self.hand_over(0, What::Proved(carrier, remote));
        }
    }

    /// Tells whether a message is to be handed over to another shard, if it is brought here
    #[must_use]
    pub fn is_for_others(&self, message: &[u8]) -> bool {
        self.shard.other_of_message(message).is_some()
    }

    /// Hands a message over that another shard has the session for; tells whether there is one
    pub(super) fn pass_message(&mut self, arrival: Arrival, message: &[u8]) -> bool {
        let other = self.shard.other_of_message(message);
        if let Some(to) = other {
            let message = self.copied(message);
            self.hand_over(to, What::Message(arrival, message));
        }
        other.is_some()
    }

    /// Hands an init over that was opened, if it is of another shard's peer
    pub(super) fn pass_init(&mut self, held: Held, proof: Proof) -> Option<(Held, Proof)> {
        let Some(to) = self.shard.other(held.key()) else { return Some((held, proof)) };
        self.hand_over(to, What::Init(Box::new(held), proof));
        None
    }

    /// Hands a packet from the TUN over that belongs to a connection of another shard, wherever routes lead
    pub(super) fn pass_stray(
        &mut self,
        view: &Packet<'_>,
        packet: &[u8],
        gso: Option<Gso>,
    ) -> bool {
        let shard = self.flows.shard_for(view);
        if let Some(to) = shard {
            self.hand_over_packet(to, packet, gso);
        }
        shard.is_some()
    }

    fn hand_over_packet(&mut self, to: u8, packet: &[u8], gso: Option<Gso>) {
        let mut bytes = self.shared.buffers_for(gso).take();
        bytes.extend_from_slice(packet);
        self.hand_over(to, What::Packet(bytes, gso));
    }

    /// Copies bytes for another shard, which has the buffer then; whoever gets as much as it gives needs no new ones
    fn copied(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.shared.buffers.take();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Tells the others which of our connections their routes would not lead to us; after each change of those
    pub(super) fn tell_strays(&mut self) {
        if self.shard.count() == 1 {
            return;
        }
        let (router, shard) = (&self.router, self.shard);
        let routed =
            |ends: &Ends| router.route(ends.remote.ip()).is_some_and(|key| shard.keeps(&key));
        for (ends, there) in self.flows.stray(routed) {
            self.tell_stray(ends, there);
        }
    }

    /// Forgets which peer has a connection that is over
    pub(super) fn close_flow(&mut self, ends: &Ends, key: &PublicKey) {
        if self.flows.close(ends, key) {
            self.tell_stray(*ends, false);
        }
    }

    /// Forgets all connections with a peer
    pub(super) fn forget_flows(&mut self, key: &PublicKey) {
        for ends in self.flows.forget(key) {
            self.tell_stray(ends, false);
        }
    }

    fn tell_stray(&mut self, ends: Ends, there: bool) {
        let of = self.shard.index();
        for to in self.shard.others() {
            self.hand_over(to, What::Stray { ends, of, there });
        }
    }

    /// Hands a packet from the TUN over, if it is for another shard's peer
    pub(super) fn pass_packet(
        &mut self,
        key: &PublicKey,
        packet: &[u8],
        gso: Option<Gso>,
        passed: Passed,
    ) -> bool {
        let Some(to) = self.shard.other(key) else { return false };
        match passed {
            Passed::Not => self.hand_over_packet(to, packet, gso),
            Passed::On => self.refuse(Refusal::NoRoute),
        }
        true
    }

    /// Hands a train over that a stream carrier is to take, if those are another shard's; says whether it was
    pub(super) fn pass_stream(&mut self, transmit: &Transmit, bytes: &mut Vec<u8>) -> bool {
        let pass = transmit.carrier != Carrier::Udp && !self.shard.is_first();
        if pass {
            let bytes = core::mem::take(bytes);
            let (from, transmit) = (self.shard.index(), *transmit);
            self.hand_over(0, What::Stream { from, transmit, bytes });
        }
        pass
    }

    /// Tells the shard that has sent over a stream carrier's connection what was written of it
    pub(super) fn pass_written(&mut self, to: u8, way: (Carrier, SocketAddr), bytes: usize) {
        self.hand_over(to, What::Written(way.0, way.1, bytes));
    }

    /// Tells all others that a stream carrier's connection is gone
    pub(super) fn pass_broken(&mut self, carrier: Carrier, remote: SocketAddr) {
        for to in self.shard.others() {
            self.hand_over(to, What::Broken(carrier, remote));
        }
    }

    /// Carries a message on to a peer, for another peer that may have this done
    pub(super) fn carry_on(
        &mut self,
        from: &PublicKey,
        to: &PublicKey,
        message: Vec<u8>,
        now: Instant,
    ) {
        if let Some(shard) = self.shard.other(to) {
            return self.hand_over(shard, What::Carry { from: *from, to: *to, message });
        }
        let len = message.len();
        let fits = self.may_relay(to);
        let session =
            self.peers.get_mut(to).filter(|_| fits).and_then(|peer| peer.session.as_mut());
        if session.is_some_and(|session| session.send_relayed(*from, message, now)) {
            self.relayed.count(len);
            self.dirty.insert(*to);
        } else {
            self.dropped += 1;
        }
    }

    /// Takes a message of a peer that a relay has brought, if that is trusted to
    pub(super) fn bring(
        &mut self,
        relay: PublicKey,
        hub: bool,
        origin: &PublicKey,
        message: &mut Vec<u8>,
        now: Instant,
    ) {
        if let Some(shard) = self.shard.other(origin) {
            let message = core::mem::take(message);
            return self.hand_over(shard, What::Brought { relay, hub, origin: *origin, message });
        }
        let trusted = match self.peers.get(origin) {
            Some(peer) => peer.config.relay == Some(relay),
            None => hub,
        };
        if !trusted {
            return self.refuse(Refusal::NotMember);
        }
        let heard: (Option<IpAddr>, Ecn) = (None, Ecn::Incapable);
        if let Err(refusal) = self.dispatch(Way::Relayed(relay), heard, Some(origin), message, now)
        {
            self.refuse(refusal);
        }
    }

    /// Gives a relay a message for a peer
    pub(super) fn give_relay(
        &mut self,
        relay: PublicKey,
        to: &PublicKey,
        message: Vec<u8>,
        now: Instant,
    ) {
        if let Some(shard) = self.shard.other(&relay) {
            return self.hand_over(shard, What::Relay { relay, to: *to, message });
        }
        let session = self.peers.get_mut(&relay).and_then(|peer| peer.session.as_mut());
        if session.is_some_and(|session| session.send_relayed(*to, message, now)) {
            self.dirty.insert(relay);
        } else {
            self.dropped += 1;
        }
    }

    fn hand_over(&mut self, to: u8, what: What) {
        self.handovers.push_back(Handover { to, what });
    }
}

/// Whether a packet was handed over already
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Passed {
    Not,
    On,
}
