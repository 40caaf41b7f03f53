//! The hub role: whom to admit, who is alive, who has to know.
//!
//! A [`Hub`] takes the events of its node and answers with [`Step`]s. The node has already verified
//! who speaks; the hub decides whether that is a member, which overlay addresses it has, and when it
//! is alive no longer: after silence, a goodbye, or a push that could not be delivered. Each change
//! of the list is pushed to all live members as an increment ([`LiveList`]).
//!
//! # Contract
//!
//! - An init changes nothing: admission says what would be, the list follows when the session is up
//!   and proves that the init was no replay. So the registration is judged twice.
//! - After events, [`Hub::poll`] once, which pushes what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fastvpn_proto::control::{Entry, Message, Register, Reply, Standing};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{
    BootId, Command, Contact, DownReason, Event, NodeStats, PeerConfig, Ticket, Way,
};
use fastvpn_proto::time::{Duration, Instant};
use tracing::{debug, info, warn};

use super::action::Step;
use super::list::{LiveList, Offer};
use crate::config::{HubConfig, Member};
use crate::handle::NetworkName;
use crate::logging::Seldom;
use crate::registry::Members;

/// Underlay addresses of one peer in the list
const ENDPOINTS_MAX: usize = 8;
/// A peer gets the whole list at most this often
const SNAPSHOT_SPACING: Duration = Duration::from_secs(1);
/// Refusals of one kind are logged at most this often
const LOG_SPACING: Duration = Duration::from_secs(10);

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
    members: Members,
    list: LiveList,
    live: BTreeMap<PublicKey, Live>,
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

/// Whether a registration comes from a session that is up, or from an init that may be a replay
#[derive(Clone, Copy, Debug)]
enum Proof {
    Given,
    Open,
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
            members,
            list: LiveList::new(id),
            live: BTreeMap::new(),
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
                self.on_session_up(peer, boot, &greeting, way, now, out);
            }
            Event::SessionDown {
                peer,
                reason: reason @ (DownReason::Closed | DownReason::Silence),
            } => {
                self.leave(&peer, &reason.to_string());
            }
            // Whoever removed it has seen to the list; who restarted is up again already.
            Event::SessionDown { reason: DownReason::Removed | DownReason::Restarted, .. } => {}
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
            Event::Pong { .. } | Event::PingLost { .. } => {}
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
    pub(super) fn on_config(&mut self, config: HubConfig, out: &mut Vec<Step>) {
        let settings = |config: &HubConfig| -> BTreeMap<_, _> {
            let members = config.members.iter();
            members.map(|member| (member.public_key, (member.carrier, member.split))).collect()
        };
        let (old, new) = (settings(&self.config), settings(&config));
        self.members.reload(config.clone());
        self.config = config;
        self.offers.retain(|key, _| self.members.find(key).is_some());
        let live: Vec<_> = self.live.keys().copied().collect();
        for key in live {
            let Some(member) = self.members.find(&key) else {
                self.expel(&key, "it is no member any more", out);
                continue;
            };
            let wanted: BTreeSet<_> = member.addresses.iter().copied().collect();
            let has = self.live.get(&key).map(addresses_of).unwrap_or_default();
            let own: Vec<_> = has.iter().copied().collect();
            let lost = self.members.check(&key, &own).is_err();
            if lost || !wanted.is_empty() && wanted != has {
                self.expel(&key, "its addresses were changed", out);
            } else if self.enlist(&key) || old.get(&key) != new.get(&key) {
                out.push(Step::Node(Command::SetPeer(self.peer_config(&key))));
            }
        }
    }

    /// Pushes what has changed
    pub(super) fn poll(&mut self, now: Instant, out: &mut Vec<Step>) {
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
        self.list.deadline()
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
        self.config.members.iter().map(|member| (member, self.list.get(&member.public_key)))
    }

    fn on_stranger(
        &mut self,
        ticket: Ticket,
        key: PublicKey,
        hello: &[u8],
        now: Instant,
        out: &mut Vec<Step>,
    ) {
        if self.members.find(&key).is_none() {
            if let Some(more) = self.strangers.allow(now) {
                info!(network = %self.network, ?key, more, "refused a node that is no member");
            }
            out.push(Step::Node(Command::Refuse { ticket }));
            return;
        }
        let Ok(register) = Register::decode(hello) else {
            self.on_fault(&key, "registration cannot be read", now);
            out.push(Step::Node(Command::Refuse { ticket }));
            return;
        };
        let reply = match self.judge(&key, &register, Proof::Open) {
            Ok(addresses) => self.welcome(&key, addresses),
            Err(reason) => {
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
        boot: BootId,
        hello: &[u8],
        way: Way,
        now: Instant,
        out: &mut Vec<Step>,
    ) {
        let offer = self.offers.remove(&key);
        let registered = Register::decode(hello)
            .ok()
            .filter(|_| self.members.find(&key).is_some())
            .and_then(|register| Some((self.judge(&key, &register, Proof::Given).ok()?, register)));
        let Some((addresses, register)) = registered else {
            // It was told why in our reply; an older session of the same member goes with it.
            self.leave(&key, "its registration was refused");
            out.push(Step::Node(Command::RemovePeer(key)));
            return;
        };
        let seen = match way {
            Way::Direct(seen) => Some(seen),
            Way::Relayed(_) | Way::Stream(..) => None,
        };
        for list in self.list.complete(offer) {
            out.push(send(key, &Message::List(list)));
        }
        let live = Live { boot, addresses, seen, own: register.endpoints, snapshot_at: now };
        if self.live.insert(key, live).is_none() {
            info!(network = %self.network, name = self.name_of(&key), "member joined");
        }
        out.push(Step::Node(Command::SetPeer(self.peer_config(&key))));
        self.enlist(&key);
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
                    None if self.members.find(&key).is_some() => Standing::Away,
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

    /// Says which addresses a member has, or why it cannot have those that it claims
    ///
    /// Claims of an init that may be a replay are only looked at; [`Proof::Given`] remembers them.
    fn judge(
        &mut self,
        key: &PublicKey,
        register: &Register,
        proof: Proof,
    ) -> Result<Vec<Prefix>, String> {
        let claims: BTreeSet<_> = register.addresses.iter().copied().collect();
        let configured: BTreeSet<IpAddr> = self
            .members
            .find(key)
            .map(|member| member.addresses.iter().copied().collect())
            .unwrap_or_default();
        if !claims.is_empty() && !configured.is_empty() && claims != configured {
            let (has, claims) = (sentence(&configured), sentence(&claims));
            return Err(format!("the hub gives this peer {has}, but it claims {claims}"));
        }
        let wanted: Vec<_> = claims.iter().copied().collect();
        let addresses = match proof {
            _ if wanted.is_empty() => self.members.addresses_for(key),
            Proof::Given => self.members.claim(key, &wanted),
            Proof::Open => self.members.check(key, &wanted),
        };
        let addresses = addresses.map_err(|error| error.to_string())?;
        for address in &addresses {
            if let Some(holder) = self.holder(key, address.addr()) {
                return Err(format!("address {} is held by {holder}", address.addr()));
            }
        }
        Ok(addresses)
    }

    /// Returns the name of another live member with this address
    fn holder(&self, key: &PublicKey, address: IpAddr) -> Option<String> {
        self.list
            .iter()
            .find(|entry| entry.key != *key && entry.addresses.contains(&address))
            .map(|entry| entry.name.clone())
    }

    fn welcome(&mut self, key: &PublicKey, addresses: Vec<Prefix>) -> Reply {
        let hub = self.addresses.iter().map(Prefix::addr).collect();
        let entries: Vec<_> = self.list.iter().filter(|entry| entry.key != *key).cloned().collect();
        let (reply, fitted) = Reply::welcome_that_fits(
            addresses,
            hub,
            self.list.id(),
            self.list.revision(),
            &entries,
        );
        let offer = self.list.offer(&entries, fitted);
        self.offers.insert(*key, offer);
        reply
    }

    /// How the node is to know a member: with its addresses while it is alive, or if nobody else
    /// can have them
    fn peer_config(&self, key: &PublicKey) -> PeerConfig {
        let member = self.members.find(key);
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
            split: member.and_then(|member| member.split),
            relay: None,
            contact: Contact::Await,
            hello: Vec::new(),
            boot: None,
        }
    }

    /// Brings a live member's entry in the list up to date; returns whether it changed
    fn enlist(&mut self, key: &PublicKey) -> bool {
        let (Some(live), Some(member)) = (self.live.get(key), self.members.find(key)) else {
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
        self.members.find(key).map_or_else(|| key.to_string(), |member| member.name.clone())
    }
}

fn addresses_of(live: &Live) -> BTreeSet<IpAddr> {
    live.addresses.iter().map(Prefix::addr).collect()
}

fn send(peer: PublicKey, message: &Message) -> Step {
    Step::Node(Command::Send { peer, message: message.encode() })
}

fn sentence(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
