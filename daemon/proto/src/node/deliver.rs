//! Where the output of sessions goes: to the TUN, to the control side, to other peers, to the wire.

use core::net::IpAddr;

use super::parked::Parked;
use super::{
    Carrier, DownReason, Ecn, Event, Node, Outgoing, Owner, Peer, Reason, Refusal, Transmit, Way,
};
use crate::crypto::PublicKey;
use crate::ip::{Parcel, icmp};
use crate::limits::SESSION_SILENCE;
use crate::session::{Goodbye, Output, Sealed, Session, Train, Wish};
use crate::tcp::Ends;
use crate::time::Instant;

impl Node {
    /// Writes the next messages of a peer into `buffer`; a peer without any is dirty no more
    pub(super) fn drain_peer(
        &mut self,
        key: &PublicKey,
        buffer: &mut Vec<u8>,
        now: Instant,
    ) -> Option<Transmit> {
        self.settle(key, now);
        let transmit = self.batch(key, buffer, now);
        if transmit.is_some() || !self.outgoing.is_empty() {
            return transmit;
        }
        self.settle(key, now);
        // What happened may have made something due at once.
        let due = |peer: &Peer| {
            peer.deadline(self.silence, &self.shared, now).is_some_and(|(at, _)| at <= now)
        };
        let fresh = |peer: &&Peer| peer.turns.0 != now || peer.turns.1 < TURNS_MAX;
        if self.peers.get(key).filter(fresh).is_some_and(due) {
            self.time_peer(*key, now);
        } else {
            self.schedule(key, now);
            self.dirty.remove(key);
        }
        None
    }

    /// Collects messages of equal size to one address
    fn batch(&mut self, key: &PublicKey, buffer: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        let mut first: Option<(Transmit, Train)> = None;
        let room = |train: &Train| train.messages < BATCH_MESSAGES;
        while first.as_ref().is_none_or(|(_, train)| room(train)) && buffer.len() < BATCH_BYTES {
            let start = buffer.len();
            let train = first.as_ref().map(|(_, train)| train);
            let session = self.peers.get_mut(key).and_then(|peer| peer.session.as_mut());
            let Some(sealed) = session
                .and_then(|session| session.poll_message(&mut self.shared, buffer, train, now))
            else {
                break;
            };
            let (carrier, remote) = match sealed.way {
                Way::Direct(remote) => (Carrier::Udp, remote),
                Way::Stream(carrier, remote) => {
                    self.streams.insert((carrier, remote), Owner::Peer(*key));
                    (carrier, remote)
                }
                Way::Relayed(relay) => {
                    let message = buffer.split_off(start);
                    self.give_relay(relay, key, message, now);
                    continue;
                }
            };
            let Sealed { local, ecn, offload, .. } = sealed;
            let transmit =
                Transmit { carrier, peer: *key, remote, local, ecn, segment: None, offload };
            let Some((_, train)) = &mut first else {
                first = Some((transmit, Train { first: sealed, messages: 1 }));
                continue;
            };
            if !sealed.follows {
                // It starts a batch of its own.
                let bytes = buffer.split_off(start);
                self.outgoing.push_back(Outgoing { transmit, bytes });
                break;
            }
            train.messages += 1;
            if sealed.len < train.first.len {
                break;
            }
        }
        let (batch, train) = first?;
        Some(Transmit { segment: (train.messages > 1).then_some(train.first.len), ..batch })
    }

    /// Takes what a session has for us, and gives it the keys it wishes for
    fn settle(&mut self, key: &PublicKey, now: Instant) {
        if let Some(session) = self.peers.get_mut(key).and_then(|peer| peer.session.as_mut()) {
            session.flush(&mut self.shared, now);
        }
        while let Some(output) = self
            .peers
            .get_mut(key)
            .and_then(|peer| peer.session.as_mut())
            .and_then(|session| session.poll_output())
        {
            self.on_output(key, output, now);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        self.dropped += peer.session.as_mut().map_or(0, Session::take_dropped);
        let wish = peer.session.as_ref().and_then(|session| session.wants_keys(now));
        let reason = peer.call.as_ref().map(|call| call.reason);
        match (wish, reason) {
            (Some(Wish::Age), None) => self.call(*key, Reason::Keys, now),
            (Some(Wish::Silence), None) if peer.config.contact != super::Contact::Await => {
                self.call(*key, Reason::Silence, now);
            }
            (None, Some(Reason::Silence | Reason::Keys)) => self.end_call(key),
            _ => {}
        }
        if self.needs_standing_call(key, now) {
            self.call(*key, Reason::Contact, now);
        }
    }

    fn on_output(&mut self, key: &PublicKey, output: Output, now: Instant) {
        let peer = *key;
        match output {
            Output::Closed(goodbye) => {
                self.end_session(key, DownReason::Closed, now);
                match goodbye {
                    Goodbye::ForNow => {}
                    Goodbye::ForGood => self.abandon_tcp(key, now),
                }
            }
            Output::Control(message) => self.events.push_back(Event::Control { peer, message }),
            Output::EchoReply(wire) => {
                if let Some(ping) = self.pings.remove(peer, wire)
                    && let Some(sent) = ping.sent
                {
                    self.events.push_back(Event::Pong { peer, id: ping.id, rtt: now.since(sent) });
                }
            }
            Output::Ended(ends) => self.close_flow(&ends, key),
            Output::Opened(ends) => self.on_opened(key, ends),
            Output::Offload(way, works) => {
                self.events.push_back(Event::Offload { peer, way, works });
            }
            Output::Moved(way) => self.events.push_back(Event::PathMoved { peer, way }),
            Output::Packet(packet) => self.on_packet(key, packet),
            Output::Relay(other, message) => self.on_relay(key, &other, message, now),
            Output::Undelivered => self.events.push_back(Event::Undelivered { peer }),
        }
    }

    /// A connection is split with a peer, which has it from now on if it has the remote end's address
    pub(super) fn on_opened(&mut self, key: &PublicKey, ends: Ends) {
        self.refresh_router();
        if self.router.owns(key, ends.remote.ip()) {
            self.flows.open(ends, *key);
        }
    }

    /// Lets an inner packet out of a session, if its source belongs to the sender
    pub(super) fn on_packet(&mut self, key: &PublicKey, packet: Parcel) {
        self.refresh_router();
        let Ok(view) = packet.view() else {
            return self.refuse(Refusal::Malformed);
        };
        // An ICMP error comes from a router on the way; what it quotes must concern the sender.
        let quoted = || icmp::quoted(&view).is_some_and(|(_, dst)| self.router.owns(key, dst));
        let vouched = || self.flows.vouches(key, &view);
        if !self.router.owns(key, view.src()) && !vouched() && !quoted() {
            return self.refuse(Refusal::Source);
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.received.count_all(packet.packets(), packet.len());
        }
        self.packets.push_back(packet);
    }

    /// A peer asks us to carry a message on, or brings one that it carried
    fn on_relay(
        &mut self,
        from: &PublicKey,
        other: &PublicKey,
        mut message: Vec<u8>,
        now: Instant,
    ) {
        if !self.relay {
            let hub = self.is_hub(from);
            self.bring(*from, hub, other, &mut message, now);
            self.shared.buffers.give(message);
        } else if self.may_relay(from) {
            self.carry_on(from, other, message, now);
        } else {
            self.refuse(Refusal::NotMember);
        }
    }

    /// Tells whether messages from and for a peer are carried on: one without addresses is no member yet
    pub(super) fn may_relay(&self, key: &PublicKey) -> bool {
        self.peers.get(key).is_some_and(|peer| !peer.config.prefixes.is_empty())
    }

    /// Sends a ready message by a way to a peer
    pub(super) fn send_way(
        &mut self,
        key: &PublicKey,
        way: Way,
        local: Option<IpAddr>,
        bytes: Vec<u8>,
        now: Instant,
    ) {
        let (carrier, remote) = match way {
            Way::Direct(remote) => (Carrier::Udp, remote),
            Way::Stream(carrier, remote) => (carrier, remote),
            Way::Relayed(relay) => return self.give_relay(relay, key, bytes, now),
        };
        // Handshakes tell of no marks.
        let ecn = Ecn::Incapable;
        let (peer, offload) = (*key, true);
        let transmit = Transmit { carrier, peer, remote, local, ecn, segment: None, offload };
        self.outgoing.push_back(Outgoing { transmit, bytes });
    }

    /// Forgets a session; the peer stays known
    ///
    /// Its split connections are kept for the session that may come next.
    pub(super) fn end_session(&mut self, key: &PublicKey, reason: DownReason, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(mut session) = peer.session.take() else { return };
        peer.silence_told = false;
        let tcp = session.take_tcp();
        if !tcp.is_empty() {
            let (boot, until) = (session.boot, now + SESSION_SILENCE);
            let rtt = session.rtt();
            peer.parked = Some(Parked { tcp, boot, until, rtt });
        }
        for index in session.indices() {
            self.indices.remove(&index);
        }
        // Who vouches for what must not get lost with the session.
        while let Some(output) = session.poll_output() {
            match output {
                Output::Ended(ends) => self.close_flow(&ends, key),
                Output::Opened(ends) => self.on_opened(key, ends),
                Output::Closed(_)
                | Output::Control(_)
                | Output::EchoReply(_)
                | Output::Moved(_)
                | Output::Offload(..)
                | Output::Packet(_)
                | Output::Relay(..)
                | Output::Undelivered => {}
            }
        }
        self.events.push_back(Event::SessionDown { peer: *key, reason });
        match reason {
            // The handshake that ended it was about the next one already.
            DownReason::Restarted => {}
            DownReason::Closed | DownReason::Removed | DownReason::Silence => self.begin_anew(key),
        }
    }

    /// Has the next session with a peer be another one: what was said of the last one counts no more
    fn begin_anew(&mut self, key: &PublicKey) {
        self.end_call(key);
        self.incarnations += 1;
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.incarnation = self.incarnations;
        for index in core::mem::take(&mut peer.half_open).indices() {
            self.indices.remove(&index);
        }
    }
}

/// Messages in one batch: what the kernel takes in one segmentation offload
const BATCH_MESSAGES: usize = 64;
/// Bytes after which a batch is not continued; with one more message it stays under 64 KiB
const BATCH_BYTES: usize = 48 * 1024;
/// Turns of one peer at one instant; more would be a fault of ours
const TURNS_MAX: u32 = 16;
