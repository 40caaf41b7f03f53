//! The hub role: whom to admit, who is alive, who has to know.
//!
//! A [`Hub`] takes the events of its node and answers with [`Step`]s. The node has already verified
//! who speaks; the hub decides whether that is a member, which overlay addresses it has, and when it
//! is alive no longer: after silence, a goodbye, or a push that could not be delivered. Each change
//! of the list is pushed to all live members as an increment ([`LiveList`]). Who is invited, and what
//! an administrator may ask, is in `newcomers`; what is written down goes through the [`Ledger`].
//!
//! # Contract
//!
//! - An init changes nothing: admission says what would be, the list follows when the session is up
//!   and proves that the init was no replay. So the registration is judged twice.
//! - What a member is told of its addresses is written down before: an init, or a session that is up,
//!   may have to wait for that, and is then looked at once more.
//! - After events, [`Hub::poll`] once, which pushes what has changed.
//! - [`Step::Write`] is answered by [`Hub::on_written`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use fastvpn_proto::control::{Entry, Message, Register, Reply, Standing};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{
    BootId, Choice, Command, Contact, DownReason, Event, NodeStats, PeerConfig, TcpMode, Ticket,
    Way,
};
use fastvpn_proto::time::{Duration, Instant};
use tracing::{debug, info, warn};

use super::action::Step;
use super::guests::Guests;
use super::ledger::{Done, Ledger, Then, Turn, Wish};
use super::list::{LiveList, Offer};
use crate::config::{HubConfig, Member, NetworkConfig};
use crate::handle::NetworkName;
use crate::logging::Seldom;
use crate::registry::{Members, RegistryError, Standing as Place};

mod newcomers;
mod registration;

use self::registration::{Judgement, Proof};

/// Underlay addresses of one peer in the list
const ENDPOINTS_MAX: usize = 8;
/// A peer gets the whole list at most this often
const SNAPSHOT_SPACING: Duration = Duration::from_secs(1);
/// Refusals of one kind are logged at most this often
const LOG_SPACING: Duration = Duration::from_secs(10);

/// Why a member leaves the list that is none any more
const NO_MEMBER: &str = "it is no member any more";
/// Why a silent member leaves the list
const SILENT: &str = "it was silent for too long";

/// The hub of one network
#[derive(Debug)]
pub(super) struct Hub {
    network: NetworkName,
    /// The hub's own overlay addresses
    addresses: Vec<Prefix>,
    config: HubConfig,
    /// Silence that the node tells of: the timeout as it was at the start
    silence: Duration,
    /// Wall clock at the zero of all instants
    zero: SystemTime,
    ledger: Ledger,
    list: LiveList,
    live: BTreeMap<PublicKey, Live>,
    guests: Guests,
    /// Sessions that are up, and wait until something is written down
    arriving: BTreeMap<PublicKey, Arrival>,
    /// What members were offered that are not up yet
    offers: BTreeMap<PublicKey, Offer>,
    strangers: Seldom,
    refusals: Seldom,
    faults: Seldom,
}

/// A member that is alive
#[derive(Debug)]
struct Live {
    boot: BootId,
    addresses: Vec<Prefix>,
    /// Where we see it
    seen: Option<SocketAddr>,
    /// Where it sees itself
    own: Vec<SocketAddr>,
    /// When it may have the next snapshot
    snapshot_at: Instant,
}

/// A session that is up
#[derive(Clone, Debug)]
struct Arrival {
    boot: BootId,
    hello: Vec<u8>,
    way: Way,
}

impl Hub {
    /// Makes the hub of a network in which nobody is alive
    ///
    /// `id` numbers the list: another one than at any earlier start.
    pub(super) fn new(
        network: NetworkName,
        addresses: Vec<Prefix>,
        config: HubConfig,
        members: Members,
        id: u64,
    ) -> Self {
        Self {
            network,
            addresses,
            silence: config.timeout,
            config,
            zero: SystemTime::UNIX_EPOCH,
            ledger: Ledger::new(members),
            list: LiveList::new(id),
            live: BTreeMap::new(),
            guests: Guests::default(),
            arriving: BTreeMap::new(),
            offers: BTreeMap::new(),
            strangers: Seldom::new(1, LOG_SPACING),
            refusals: Seldom::new(1, LOG_SPACING),
            faults: Seldom::new(1, LOG_SPACING),
        }
    }

    /// Takes an event of the node
    pub(super) fn on_event(&mut self, event: Event, now: Instant, out: &mut Vec<Step>) {
        match event {
            Event::Stranger { ticket, key, hello, way: _ } => {
                self.on_stranger(ticket, key, &hello, now, out);
            }
            Event::SessionUp { peer, boot, greeting, initiator: _, way } => {
                self.on_session_up(peer, Arrival { boot, hello: greeting, way }, now, out);
            }
            Event::SessionDown { peer, reason } => self.on_session_down(&peer, reason, out),
            Event::Silent { peer } if self.guests.remove(&peer) => {
                out.push(Step::Node(Command::RemovePeer(peer)));
            }
            // Where the timeout has become longer since, the numbers tell.
            Event::Silent { peer } if self.silence >= self.config.timeout => {
                self.expel(&peer, SILENT, out);
            }
            Event::Silent { .. } => {}
            Event::Undelivered { peer } => self.expel(&peer, "a push could not be delivered", out),
            Event::PathMoved { peer, way: Way::Direct(seen) } => {
                if let Some(live) = self.live.get_mut(&peer) {
                    live.seen = Some(seen);
                    self.enlist(&peer);
                }
            }
            // The port of a connection leads nowhere but here.
            Event::PathMoved { way: Way::Relayed(_) | Way::Stream(..), .. } => {}
            Event::Control { peer, message } => self.on_control(&peer, &message, now, out),
            Event::Offload { .. } | Event::Pong { .. } | Event::PingLost { .. } => {}
        }
    }

    /// Takes the node's numbers: they tell of silence if the timeout changed since the start
    pub(super) fn on_stats(&mut self, stats: &NodeStats, now: Instant, out: &mut Vec<Step>) {
        if self.silence == self.config.timeout {
            return;
        }
        for peer in &stats.peers {
            if peer.last_heard.is_some_and(|heard| now.since(heard) >= self.config.timeout) {
                self.expel(&peer.key, SILENT, out);
            }
        }
    }

    /// Applies what a changed configuration says of members, and of the timeout
    ///
    /// Sessions of members that are gone, or whose addresses changed, end; all others go on.
    pub(super) fn on_config(
        &mut self,
        network: &NetworkConfig,
        config: HubConfig,
        now: Instant,
        out: &mut Vec<Step>,
    ) {
        let old = self.settings();
        self.ledger.members_mut().reload(network, &config);
        let new = self.settings();
        self.config = config;
        self.offers.retain(|key, _| self.ledger.members().find(key).is_some());
        let admitted = self.guests.keys().filter(|key| self.ledger.members().find(key).is_some());
        // As after an approval: who waits comes anew, and is welcomed.
        for key in admitted.copied().collect::<Vec<_>>() {
            self.guests.remove(&key);
            out.push(Step::Node(Command::RemovePeer(key)));
        }
        let live: Vec<_> = self.live.keys().copied().collect();
        for key in live {
            let Some(member) = self.ledger.members().find(&key) else {
                self.expel(&key, NO_MEMBER, out);
                continue;
            };
            let wanted: BTreeSet<_> = member.addresses.iter().copied().collect();
            let has = self.live.get(&key).map(addresses_of).unwrap_or_default();
            let own: Vec<_> = has.iter().copied().collect();
            let lost = self.claim(&key, &own, now).is_err();
            if lost || !wanted.is_empty() && wanted != has {
                self.expel(&key, "its addresses were changed", out);
            } else if self.enlist(&key) || old.get(&key) != new.get(&key) {
                out.push(Step::Node(Command::SetPeer(self.peer_config(&key))));
            }
        }
    }

    /// Takes what the wall clock said at the zero of all instants
    pub(super) fn on_wall(&mut self, zero: SystemTime) {
        self.zero = zero;
    }

    /// Takes what became of what was to be written down
    pub(super) fn on_written(
        &mut self,
        result: Result<(), RegistryError>,
        now: Instant,
        out: &mut Vec<Step>,
    ) {
        if let Err(error) = &result {
            warn!(network = %self.network, %error, "members cannot be written down");
        }
        if let Some(done) = self.ledger.on_written(result) {
            self.on_done(done, now, out);
        }
    }

    /// Pushes what has changed
    pub(super) fn poll(&mut self, now: Instant, out: &mut Vec<Step>) {
        for key in self.guests.expire(now) {
            self.offers.remove(&key);
            out.push(Step::Node(Command::RemovePeer(key)));
        }
        while let Some(turn) = {
            let promised = |key: Option<&PublicKey>| self.guests.promised(key);
            self.ledger.poll(unix(self.zero, now), promised)
        } {
            match turn {
                Turn::Done(done) => self.on_done(*done, now, out),
                Turn::Write(changes) => out.push(Step::Write(changes)),
            }
        }
        let increments = self.list.poll(now);
        if increments.is_empty() {
            return;
        }
        for increment in increments {
            let message = Message::List(increment).encode();
            for peer in self.live.keys().copied() {
                out.push(Step::Node(Command::Send { peer, message: message.clone() }));
            }
        }
        out.push(self.plan());
    }

    /// Returns when [`Self::poll`] will next have something to do
    pub(super) fn deadline(&self) -> Instant {
        self.list.deadline().min(self.guests.deadline())
    }

    /// Returns what the hub's interface should be like
    pub(super) fn plan(&self) -> Step {
        let mut routes: Vec<_> =
            self.list.iter().flat_map(|entry| &entry.subnets).map(Prefix::network).collect();
        routes.sort_unstable();
        routes.dedup();
        Step::Plan { addresses: self.addresses.clone(), routes }
    }

    /// Goes through all members, each with its entry in the list if it is alive
    pub(super) fn members(&self) -> impl Iterator<Item = (&Member, Option<&Entry>)> {
        self.ledger.members().iter().map(|member| (member, self.list.get(&member.public_key)))
    }

    /// Returns the addresses that a member has, or had when it was here
    pub(super) fn addresses_of(&self, member: &Member) -> Vec<IpAddr> {
        match self.list.get(&member.public_key) {
            Some(entry) => entry.addresses.clone(),
            None => self.ledger.members().shown(&member.public_key, &member.addresses),
        }
    }

    fn on_stranger(
        &mut self,
        ticket: Ticket,
        key: PublicKey,
        hello: &[u8],
        now: Instant,
        out: &mut Vec<Step>,
    ) {
        match self.ledger.members().standing(&key) {
            Some(Place::Approved) => {}
            Some(Place::Pending | Place::Revoked) | None => {
                return self.on_newcomer(ticket, key, hello, now, out);
            }
        }
        let Ok(register) = Register::decode(hello) else {
            self.on_fault(&key, "registration cannot be read", now);
            out.push(Step::Node(Command::Refuse { ticket }));
            return;
        };
        let reply = match self.judge(&key, &register, Proof::Open, now) {
            Judgement::First(wish) => {
                if !self.ledger.wish(wish, Then::Admit(ticket, hello.to_vec())) {
                    out.push(Step::Node(Command::Refuse { ticket }));
                }
                return;
            }
            Judgement::Welcome(addresses) => self.welcome(&key, addresses),
            Judgement::Refused(reason) => {
                if let Some(more) = self.refusals.allow(now) {
                    let name = self.name_of(&key);
                    warn!(network = %self.network, name, reason, more, "refused a member");
                }
                Reply::Refused { reason }
            }
        };
        let peer = self.peer_config(&key);
        out.push(Step::Node(Command::Admit { ticket, peer, reply: reply.encode() }));
    }

    fn on_session_up(
        &mut self,
        key: PublicKey,
        arrival: Arrival,
        now: Instant,
        out: &mut Vec<Step>,
    ) {
        self.arriving.remove(&key);
        match self.ledger.members().standing(&key) {
            Some(Place::Approved) => {}
            Some(Place::Pending | Place::Revoked) | None => {
                return self.on_guest_up(key, arrival, out);
            }
        }
        self.guests.remove(&key);
        let Ok(register) = Register::decode(&arrival.hello) else {
            return self.turn_away(&key, out);
        };
        match self.judge(&key, &register, Proof::Given, now) {
            Judgement::First(wish) => {
                if self.ledger.wish(wish, Then::Arrive) {
                    self.arriving.insert(key, arrival);
                } else {
                    self.turn_away(&key, out);
                }
            }
            Judgement::Refused(_) => self.turn_away(&key, out),
            Judgement::Welcome(addresses) => {
                self.enter(key, arrival, register, addresses, now, out)
            }
        }
    }

    /// A member whose registration is in order is alive from now on
    fn enter(
        &mut self,
        key: PublicKey,
        arrival: Arrival,
        register: Register,
        addresses: Vec<Prefix>,
        now: Instant,
        out: &mut Vec<Step>,
    ) {
        let offer = self.offers.remove(&key);
        let seen = match arrival.way {
            Way::Direct(seen) => Some(seen),
            Way::Relayed(_) | Way::Stream(..) => None,
        };
        for list in self.list.complete(offer) {
            out.push(send(key, &Message::List(list)));
        }
        let boot = arrival.boot;
        let live = Live { boot, addresses, seen, own: register.endpoints, snapshot_at: now };
        if self.live.insert(key, live).is_none() {
            info!(network = %self.network, name = self.name_of(&key), "member joined");
        }
        out.push(Step::Node(Command::SetPeer(self.peer_config(&key))));
        self.enlist(&key);
    }

    /// Ends a session whose registration was refused
    ///
    /// It was told why in our reply; an older session of the same member goes with it.
    fn turn_away(&mut self, key: &PublicKey, out: &mut Vec<Step>) {
        self.offers.remove(key);
        self.leave(key, "its registration was refused");
        out.push(Step::Node(Command::RemovePeer(*key)));
    }

    fn on_session_down(&mut self, key: &PublicKey, reason: DownReason, out: &mut Vec<Step>) {
        self.arriving.remove(key);
        match reason {
            DownReason::Closed | DownReason::Silence => {
                if self.guests.remove(key) {
                    out.push(Step::Node(Command::RemovePeer(*key)));
                }
                self.leave(key, &reason.to_string());
            }
            // Whoever removed it has seen to the list; who restarted is up again already.
            DownReason::Removed | DownReason::Restarted => {}
        }
    }

    /// A wish has come true, or cannot
    fn on_done(&mut self, done: Done, now: Instant, out: &mut Vec<Step>) {
        let Done { wish, then, result } = done;
        match (then, &wish) {
            (Then::Answer(id, invited), _) => self.on_answered(id, invited, &wish, result, out),
            (Then::Admit(ticket, hello), Wish::Addresses(key, _)) => match result {
                Ok(_) => self.on_stranger(ticket, *key, &hello, now, out),
                // Revoked meanwhile: nobody answers a stranger.
                Err(_) if self.ledger.members().find(key).is_none() => {
                    out.push(Step::Node(Command::Refuse { ticket }));
                }
                Err(error) => {
                    let (peer, reason) = (self.peer_config(key), error.to_string());
                    let reply = Reply::Refused { reason }.encode();
                    out.push(Step::Node(Command::Admit { ticket, peer, reply }));
                }
            },
            (Then::Arrive, Wish::Addresses(key, _) | Wish::Redeem(key, ..)) => {
                let Some(arrival) = self.arriving.remove(key) else { return };
                match result {
                    Ok(_) => self.on_session_up(*key, arrival, now, out),
                    Err(error) => {
                        info!(network = %self.network, ?key, reason = %error, "turned away");
                        self.guests.remove(key);
                        self.turn_away(key, out);
                    }
                }
            }
            (Then::Admit(..) | Then::Arrive, _) => {}
        }
    }

    fn on_control(&mut self, peer: &PublicKey, bytes: &[u8], now: Instant, out: &mut Vec<Step>) {
        let Ok(message) = Message::decode(bytes) else {
            self.on_fault(peer, "message cannot be read", now);
            return;
        };
        if !self.live.contains_key(peer) {
            return;
        }
        match message {
            Message::Endpoints(own) => {
                if let Some(live) = self.live.get_mut(peer) {
                    live.own = own;
                    self.enlist(peer);
                }
            }
            Message::SnapshotRequest => self.on_snapshot_request(peer, now, out),
            Message::WhoIs(key) => {
                let standing = match self.list.get(&key) {
                    Some(entry) => Standing::Live(entry.clone()),
                    None if self.ledger.members().find(&key).is_some() => Standing::Away,
                    None => Standing::Stranger,
                };
                out.push(send(*peer, &Message::Answer { key, standing }));
            }
            Message::Answer { .. } | Message::List(_) => {
                self.on_fault(peer, "message is the hub's to send", now);
            }
        }
    }

    fn on_snapshot_request(&mut self, peer: &PublicKey, now: Instant, out: &mut Vec<Step>) {
        let Some(live) = self.live.get_mut(peer).filter(|live| now >= live.snapshot_at) else {
            return;
        };
        live.snapshot_at = now + SNAPSHOT_SPACING;
        debug!(network = %self.network, ?peer, "asked for a snapshot");
        for list in self.list.snapshot() {
            out.push(send(*peer, &Message::List(list)));
        }
    }

    /// How the node is to know a member: with its addresses while it is alive, or if nobody else
    /// can have them
    fn peer_config(&self, key: &PublicKey) -> PeerConfig {
        let member = self.ledger.members().find(key);
        let addresses: Vec<_> = match self.live.get(key) {
            Some(live) => live.addresses.iter().map(Prefix::addr).collect(),
            None => member.map(|member| member.addresses.clone()).unwrap_or_default(),
        };
        let subnets = member.map(|member| member.subnets.clone()).unwrap_or_default();
        PeerConfig {
            key: *key,
            prefixes: addresses.into_iter().map(Prefix::host).chain(subnets).collect(),
            endpoints: Vec::new(),
            carrier: member.map(|member| member.carrier).unwrap_or_default(),
            tcp: member.and_then(|member| member.tcp),
            relay: None,
            contact: Contact::Await,
            hello: Vec::new(),
            boot: None,
        }
    }

    /// Brings a live member's entry in the list up to date; returns whether it changed
    fn enlist(&mut self, key: &PublicKey) -> bool {
        let member = self.ledger.members().find(key);
        let (Some(live), Some(member)) = (self.live.get(key), member) else {
            return false;
        };
        let mut endpoints: Vec<_> = live.seen.into_iter().collect();
        endpoints.extend(live.own.iter().filter(|own| Some(**own) != live.seen));
        endpoints.truncate(ENDPOINTS_MAX);
        self.list.upsert(Entry {
            key: *key,
            name: member.name.clone(),
            boot: live.boot,
            addresses: live.addresses.iter().map(Prefix::addr).collect(),
            subnets: member.subnets.clone(),
            endpoints,
        })
    }

    /// Takes a member from the list and ends its session, so that it must come anew
    fn expel(&mut self, key: &PublicKey, why: &str, out: &mut Vec<Step>) {
        if self.leave(key, why) {
            out.push(Step::Node(Command::RemovePeer(*key)));
        }
    }

    /// Takes a member from the list; returns whether it was there
    fn leave(&mut self, key: &PublicKey, why: &str) -> bool {
        let was_live = self.live.remove(key).is_some();
        if was_live {
            let name = self.list.get(key).map_or_else(String::new, |entry| entry.name.clone());
            info!(network = %self.network, name, why, "member left");
            self.list.remove(key);
        }
        was_live
    }

    fn on_fault(&mut self, key: &PublicKey, what: &str, now: Instant) {
        if let Some(more) = self.faults.allow(now) {
            let name = self.name_of(key);
            warn!(network = %self.network, name, what, more, "member broke the protocol");
        }
    }

    fn name_of(&self, key: &PublicKey) -> String {
        let member = self.ledger.members().find(key);
        member.map_or_else(|| key.to_string(), |member| member.name.clone())
    }

    /// What the node has to know of each member beside its addresses
    fn settings(&self) -> BTreeMap<PublicKey, (Choice, Option<TcpMode>)> {
        let members = self.ledger.members().iter();
        members.map(|member| (member.public_key, (member.carrier, member.tcp))).collect()
    }
}

fn addresses_of(live: &Live) -> BTreeSet<IpAddr> {
    live.addresses.iter().map(Prefix::addr).collect()
}

fn send(peer: PublicKey, message: &Message) -> Step {
    Step::Node(Command::Send { peer, message: message.encode() })
}

/// Seconds of the Unix epoch
fn unix(zero: SystemTime, now: Instant) -> u64 {
    let zero = zero.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (zero + Duration::from_nanos(now.as_nanos())).as_secs()
}
