//! Messages from the network, and handshakes in both directions.

use core::net::IpAddr;

use rand_chacha::rand_core::RngCore;

use super::admission::{Proof, Source, Verdict};
use super::peer::{Call, Peer, Reason};
use super::{
    Admission, Choice, Contact, DownReason, Ecn, Event, Node, PeerConfig, REPLY_MAX, Refusal,
    Ticket, Way,
};
use crate::crypto::PublicKey;
use crate::handshake::{Established, Initiator, Received, receive};
use crate::limits::{DATA_HEADER_LEN, TICKET_LIFE, TICKETS_MAX};
use crate::session::{Intake, Session};
use crate::tcp::Connections;
use crate::time::{Duration, Instant};
use crate::wire::message::{CookieReply, DataHeader, Kind, Response, parse_kind};

/// An init that waits for the control side
#[derive(Debug)]
pub(super) struct Held {
    received: Received,
    way: Way,
    local: Option<IpAddr>,
    since: Instant,
}

impl Held {
    pub(super) fn key(&self) -> &PublicKey {
        &self.received.key
    }

    pub(super) fn expires(&self) -> Instant {
        self.since + TICKET_LIFE
    }
}

impl Node {
    /// Takes one message; `origin` names the sender where a relay vouches for it
    pub(super) fn dispatch(
        &mut self,
        way: Way,
        (local, ecn): (Option<IpAddr>, Ecn),
        origin: Option<&PublicKey>,
        bytes: &mut [u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        match parse_kind(bytes)? {
            Kind::Init => self.on_init(way, local, origin, bytes, now),
            Kind::Response => self.on_response(way, local, origin, bytes, now),
            Kind::Cookie => self.on_cookie(origin, bytes, now),
            Kind::Data => self.on_data(way, (local, ecn), origin, bytes, now),
        }
    }

    fn on_init(
        &mut self,
        way: Way,
        local: Option<IpAddr>,
        origin: Option<&PublicKey>,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        let source = source(way, origin);
        let verdict = self.gate.check(&self.local, source, bytes, &mut self.rng, now);
        self.obey(verdict, way, local, origin, now)?;
        let received = receive(&self.local, bytes, &mut self.rng)?;
        let key = received.key;
        if key == self.local.public() || origin.is_some_and(|origin| *origin != key) {
            return Err(Refusal::Handshake);
        }
        let held = Held { received, way, local, since: now };
        let proof = self.gate.examine(&self.local, source, bytes, &mut self.rng, now)?;
        match self.pass_init(held, proof) {
            Some((held, proof)) => self.on_opened_init(held, proof, now),
            None => Ok(()),
        }
    }

    /// Takes an init that was opened, here or by another shard
    pub(super) fn on_opened_init(
        &mut self,
        held: Held,
        proof: Proof,
        now: Instant,
    ) -> Result<(), Refusal> {
        // One that was answered before does not count: anybody may have repeated it.
        if self.repeat(&held, now)? {
            return Ok(());
        }
        let (way, local, key) = (held.way, held.local, *held.key());
        // By a relay it came from nobody else.
        let origin = way.is_relayed().then_some(&key);
        let verdict = self.gate.judge(&key, source(way, origin), proof, now);
        self.obey(verdict, way, local, origin, now)?;
        self.decide(held, now)
    }

    /// Answers an init as before, if it was answered before; says whether it was
    fn repeat(&mut self, held: &Held, now: Instant) -> Result<bool, Refusal> {
        let Held { received, way, local, .. } = held;
        let Some(peer) = self.peers.get_mut(&received.key) else { return Ok(false) };
        if peer.is_replayed(received.boot, received.sequence) {
            return Err(Refusal::Replayed);
        }
        let Some(response) = peer.half_open.response(&received.digest) else { return Ok(false) };
        let response = response.to_vec();
        peer.half_open.on_answered(&received.digest, *way);
        self.send_way(&received.key, *way, *local, response, now);
        Ok(true)
    }

    /// Answers an init, or asks what to do with it
    fn decide(&mut self, held: Held, now: Instant) -> Result<(), Refusal> {
        let peer = self.peers.get(held.key());
        let goes_on = peer.and_then(|peer| peer.session.as_ref());
        let goes_on = goes_on
            .is_some_and(|session| session.is_meant(held.received.boot, held.received.incarnation));
        if peer.is_some() && (goes_on || self.admission == Admission::Known) {
            self.answer(held, &[], now)
        } else {
            self.hold(held)
        }
    }

    fn obey(
        &mut self,
        verdict: Verdict,
        way: Way,
        local: Option<IpAddr>,
        origin: Option<&PublicKey>,
        now: Instant,
    ) -> Result<(), Refusal> {
        match verdict {
            Verdict::Accept => Ok(()),
            Verdict::Refuse(refusal) => Err(refusal),
            Verdict::Cookie(reply) => {
                // A stranger's address has no key; only a relayed way needs one.
                let none = PublicKey::from_bytes([0; 32]);
                self.send_way(origin.unwrap_or(&none), way, local, reply, now);
                Err(Refusal::Cookie)
            }
        }
    }

    fn hold(&mut self, held: Held) -> Result<(), Refusal> {
        let key = held.received.key;
        let same = self.tickets.values().filter(|other| other.received.key == key).count();
        if self.tickets.len() >= TICKETS_MAX || same >= TICKETS_OF_ONE {
            return Err(Refusal::Undecided);
        }
        let ticket = Ticket(self.next_ticket);
        // Each shard has numbers of its own.
        self.next_ticket += u64::from(self.shard.count());
        let (hello, way) = (held.received.hello.clone(), held.way);
        self.events.push_back(Event::Stranger { ticket, key, hello, way });
        self.tickets.insert(ticket, held);
        Ok(())
    }

    pub(super) fn admit(&mut self, ticket: Ticket, peer: PeerConfig, reply: &[u8], now: Instant) {
        if !self.shard.keeps(&peer.key) {
            return self.set_peer(peer, now);
        }
        let Some(held) = self.tickets.remove(&ticket) else { return };
        if peer.key != held.received.key || reply.len() > REPLY_MAX {
            return self.refuse(Refusal::NotMember);
        }
        self.set_peer(peer, now);
        if let Err(refusal) = self.answer(held, reply, now) {
            self.refuse(refusal);
        }
    }

    pub(super) fn expire_tickets(&mut self, now: Instant) {
        // All live equally long, so that those with the lowest numbers are the first to go.
        while let Some(held) = self.tickets.first_entry().filter(|held| now >= held.get().expires())
        {
            held.remove();
            self.refuse(Refusal::Undecided);
        }
    }

    /// Answers an init; nothing else changes until a message under the new keys has opened
    fn answer(&mut self, held: Held, reply: &[u8], now: Instant) -> Result<(), Refusal> {
        let key = held.received.key;
        let index = self.free_index();
        let digest = held.received.digest;
        let Some(peer) = self.peers.get_mut(&key) else { return Err(Refusal::NotMember) };
        let (response, keys) = held.received.answer(&self.local, index, peer.incarnation, reply)?;
        let evicted = peer.half_open.insert(digest, response.clone(), keys, now);
        peer.half_open.on_answered(&digest, held.way);
        for old in evicted {
            self.indices.remove(&old);
        }
        self.indices.insert(index, key);
        self.send_way(&key, held.way, held.local, response, now);
        self.dirty.insert(key);
        Ok(())
    }

    fn on_response(
        &mut self,
        way: Way,
        local: Option<IpAddr>,
        origin: Option<&PublicKey>,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        let index = Response::parse(bytes)?.receiver;
        let key = self.owner(index, origin)?;
        let call = self.peers.get_mut(&key).and_then(|peer| peer.call.as_mut());
        let call = call.filter(|call| call.initiator.owns(index));
        let call = call.ok_or(Refusal::UnknownSession)?;
        let keys = call.initiator.handle_response(&self.local, bytes, now)?;
        let asked = call.ways.contains(&way);
        self.end_call(&key);
        self.indices.insert(keys.local_index, key);
        self.on_keys(&key, keys, way, local, asked, now);
        let session = self.peers.get_mut(&key).and_then(|peer| peer.session.as_mut());
        if let Some(session) = session.filter(|_| !asked) {
            // Nobody was asked there: whoever answers from there must be seen to listen there.
            session.doubt_way(way, local, self.rng.next_u64(), bytes.len(), now);
        }
        Ok(())
    }

    fn on_cookie(
        &mut self,
        origin: Option<&PublicKey>,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        let key = self.owner(CookieReply::parse(bytes)?.receiver, origin)?;
        let call = self.peers.get_mut(&key).and_then(|peer| peer.call.as_mut());
        let call = call.ok_or(Refusal::UnknownSession)?;
        call.initiator.handle_cookie(&self.local, bytes, now)?;
        self.time_call(key, now);
        self.dirty.insert(key);
        Ok(())
    }

    fn on_data(
        &mut self,
        way: Way,
        (local, ecn): (Option<IpAddr>, Ecn),
        origin: Option<&PublicKey>,
        bytes: &mut [u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        let header = DataHeader::parse(bytes)?;
        let key = self.owner(header.receiver, origin)?;
        let peer = self.peers.get_mut(&key).ok_or(Refusal::UnknownSession)?;
        let intake = Intake { way, local, bytes: bytes.len(), ecn };
        let known = peer.session.as_ref().is_some_and(|s| s.has_index(header.receiver));
        if !known {
            return self.confirm(&key, header, bytes, intake, now);
        }
        let Some(session) = &mut peer.session else { return Err(Refusal::UnknownSession) };
        let rng = &mut self.rng;
        let result = session.handle_message(
            header,
            bytes,
            intake,
            &mut self.shared,
            &mut || rng.next_u64(),
            now,
        );
        // Whatever did not open changed nothing, silence included.
        if !matches!(result, Err(Refusal::BadSeal | Refusal::Replayed)) {
            peer.silence_told = false;
            self.dirty.insert(key);
        }
        result
    }

    /// Returns the peer that an index of ours was given to; where a relay names the origin of a
    /// message, that must be it
    fn owner(&self, index: u32, origin: Option<&PublicKey>) -> Result<PublicKey, Refusal> {
        let key = self.indices.get(&index).ok_or(Refusal::UnknownSession)?;
        match origin {
            Some(origin) if origin != key => Err(Refusal::UnknownSession),
            _ => Ok(*key),
        }
    }

    /// The first message under keys that we answered with: from here on they count
    fn confirm(
        &mut self,
        key: &PublicKey,
        header: DataHeader,
        bytes: &mut [u8],
        intake: Intake,
        now: Instant,
    ) -> Result<(), Refusal> {
        let peer = self.peers.get_mut(key).ok_or(Refusal::UnknownSession)?;
        let keys = peer.half_open.peek(header.receiver).ok_or(Refusal::UnknownSession)?;
        if peer.is_replayed(keys.boot, keys.sequence) {
            return Err(Refusal::Replayed);
        }
        let (head, sealed) = bytes.split_at_mut(DATA_HEADER_LEN);
        let len = keys.open.open(header.number, head, sealed).ok_or(Refusal::BadSeal)?;
        let proven = peer.half_open.proves(header.receiver, intake.way);
        let keys = peer.half_open.take(header.receiver).ok_or(Refusal::UnknownSession)?;
        peer.on_confirmed(keys.boot, keys.sequence);
        self.on_keys(key, keys, intake.way, intake.local, proven, now);
        let session = self.peers.get_mut(key).and_then(|peer| peer.session.as_mut());
        let session = session.ok_or(Refusal::UnknownSession)?;
        let rng = &mut self.rng;
        session.handle_opened(
            header.number,
            &sealed[..len],
            intake,
            &mut self.shared,
            &mut || rng.next_u64(),
            now,
        )
    }

    /// New keys that both nodes are known to have: the session goes on with them, or begins
    ///
    /// `proven` tells whether the handshake proves that the other node is at the end of `way`.
    fn on_keys(
        &mut self,
        key: &PublicKey,
        mut keys: Established,
        way: Way,
        local: Option<IpAddr>,
        proven: bool,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.silence_told = false;
        let other = |session: &Session| !session.is_meant(keys.boot, keys.incarnation);
        if peer.session.as_ref().is_some_and(other) {
            self.end_session(key, DownReason::Restarted, now);
        }
        let begins = self.peers.get(key).is_some_and(|peer| peer.session.is_none());
        let tcp = if begins { self.begin_tcp(key, keys.boot, now) } else { Connections::default() };
        let Some(peer) = self.peers.get_mut(key) else { return };
        match &mut peer.session {
            Some(session) => {
                if let Some(index) = session.on_keys(keys, now) {
                    self.indices.remove(&index);
                }
                if proven {
                    session.adopt_way(way, local, now);
                }
            }
            None => {
                let (boot, initiator) = (keys.boot, keys.initiator);
                let greeting = core::mem::take(&mut keys.greeting);
                let proof = proven.then_some((way, local));
                let mut session = Session::new(keys, proof, tcp, now);
                if self.draining {
                    session.drain(self.local.public() > *key);
                }
                session.flush(&mut self.shared, now);
                peer.session = Some(session);
                let event = Event::SessionUp { peer: *key, boot, greeting, initiator, way };
                self.events.push_back(event);
            }
        }
        self.serve_waiting(key, now);
        self.dirty.insert(*key);
    }

    /// Gives a session what waited for it
    fn serve_waiting(&mut self, key: &PublicKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let ways = peer.ways();
        let choice = peer.config.carrier;
        let Some(session) = &mut peer.session else { return };
        session.try_ways(ways, choice, now);
        session.tcp_mode = peer.config.tcp;
        for packet in peer.waiting.take() {
            session.send_packet(&packet, None, &mut self.shared, now);
        }
        self.pings.send_unsent(*key, now).for_each(|wire| session.send_echo(wire));
    }

    /// Tells whether packets for a peer need a handshake that nobody has started
    pub(super) fn needs_call(&self, key: &PublicKey, now: Instant) -> bool {
        self.peers.get(key).is_some_and(|peer| {
            peer.config.contact != Contact::Await
                && peer.call.is_none()
                && peer.session.as_ref().is_none_or(|session| !session.can_seal(now))
        })
    }

    /// Tells whether a peer has no session that we want one with whether or not there is anything to send: at all
    /// times, or now that we are about to end, and connections with it have to be split again before
    pub(super) fn needs_standing_call(&self, key: &PublicKey, now: Instant) -> bool {
        self.peers.get(key).is_some_and(|peer| {
            let awaited = || peer.parked.as_ref().is_some_and(|parked| parked.may_return(now));
            let wanted = match peer.config.contact {
                Contact::Always => true,
                Contact::OnDemand => self.draining && awaited(),
                Contact::Await => false,
            };
            wanted && peer.call.is_none() && peer.session.is_none()
        })
    }

    pub(super) fn is_hub(&self, key: &PublicKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.config.contact == Contact::Always)
    }

    /// Starts a handshake with a peer
    pub(super) fn call(&mut self, key: PublicKey, reason: Reason, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.call.is_some() {
            return;
        }
        let hello = peer.config.hello.clone();
        let before = peer.parked.as_ref().and_then(|parked| parked.rtt);
        let rtt = peer.session.as_ref().and_then(Session::rtt).or(before);
        let initiator =
            Initiator::new(&self.local, key, hello, rtt, now).with_incarnation(peer.incarnation);
        let until = now + CALL_LIFE;
        peer.call = Some(Call { initiator, reason, until, indices: Vec::new(), ways: Vec::new() });
        self.time_call(key, now);
        self.dirty.insert(key);
    }

    /// Makes the next attempt of a handshake when it is due, or gives the handshake up
    pub(super) fn time_call(&mut self, key: PublicKey, now: Instant) {
        let index = self.free_index();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(call) = &mut peer.call else { return };
        let standing = peer.config.contact == Contact::Always || peer.session.is_some();
        if now >= call.until && !standing {
            peer.waiting.take();
            return self.end_call(&key);
        }
        let init = call.initiator.poll(&self.local, &mut self.sequence, &mut self.rng, index, now);
        let Some(init) = init else { return };
        self.indices.insert(index, key);
        call.indices.push(index);
        let initiator = &call.initiator;
        for old in call.indices.extract_if(.., |index| !initiator.owns(*index)) {
            self.indices.remove(&old);
        }
        let attempts = call.initiator.attempts();
        let ways = Self::ways_of_call(peer, attempts);
        if let Some(call) = &mut peer.call {
            let news = ways.iter().filter(|way| !call.ways.contains(way)).copied();
            let news: Vec<Way> = news.collect();
            call.ways.extend(news);
        }
        for way in ways {
            self.send_way(&key, way, None, init.clone(), now);
        }
    }

    /// An init goes by the way in use, or, where that is in doubt, by every way at once: the same
    /// init has the same response, so this costs bytes and no state
    fn ways_of_call(peer: &Peer, attempts: u32) -> Vec<Way> {
        let reason = peer.call.as_ref().map(|call| call.reason);
        if reason == Some(Reason::Keys)
            && attempts <= 2
            && let Some(way) = peer.way()
        {
            return vec![way];
        }
        let mut ways = peer.ways();
        if attempts <= UDP_ATTEMPTS && peer.config.carrier == Choice::Auto {
            ways.retain(|way| !way.is_stream());
        }
        let proven = peer.session.iter().flat_map(Session::ways);
        for way in proven {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        ways
    }

    pub(super) fn end_call(&mut self, key: &PublicKey) {
        let Some(call) = self.peers.get_mut(key).and_then(|peer| peer.call.take()) else { return };
        for index in call.indices {
            self.indices.remove(&index);
        }
    }

    fn free_index(&mut self) -> u32 {
        loop {
            let index = self.shard.mark(self.rng.next_u32());
            if !self.indices.contains_key(&index) {
                return index;
            }
        }
    }
}

/// Returns whom an init is counted by: the member that a relay vouches for, or an address
fn source(way: Way, origin: Option<&PublicKey>) -> Source {
    match (origin, way) {
        (Some(key), _) => Source::Member(*key),
        (None, Way::Relayed(key)) => Source::Member(key),
        (None, Way::Direct(addr) | Way::Stream(_, addr)) => Source::Addr(addr),
    }
}

/// Tickets of one key at one time
const TICKETS_OF_ONE: usize = 3;
/// Attempts over UDP alone, where TCP is the last resort
const UDP_ATTEMPTS: u32 = 2;
/// Time after which a handshake on demand is given up
const CALL_LIFE: Duration = Duration::from_secs(20);
