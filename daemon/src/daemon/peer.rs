//! The peer role: registered with a hub, in touch with it, and knowing the other peers.
//!
//! A [`Peer`] finds its hub, registers, keeps the list of live peers and tells the node about each,
//! sends heartbeats and decides whether the hub is lost. With several hubs it tries them in turn.
//!
//! # Contract
//!
//! - After events, [`Peer::poll`] once, which does what is due.
//! - A peer that leaves the list is forgotten when it is silent as well: who still hears it keeps
//!   the session.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fastvpn_proto::control::{Entry, List, Message, Register, Reply, Standing};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::limits::TICKET_LIFE;
use fastvpn_proto::node::{
    Command, Contact, DownReason, Event, NodeStats, PeerConfig, Ticket, Way,
};
use fastvpn_proto::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

use super::action::Step;
use super::pulse::{ANSWER_LIFE, Due, Pulse};
use super::roster::{Change, Changes, Roster};
use crate::config::{HubAddress, HubLoss, PeerName, PeerRoleConfig, PeerSetting};
use crate::handle::{HandleError, NetworkName};

/// Time after which a hub that does not answer gives way to the next, and names are resolved anew
const ROUND: Duration = Duration::from_secs(10);
/// What is said while somebody has to approve us
const PENDING: &str =
    "the hub waits for its administrator to approve this node (fastvpnctl member approve)";
/// Unknown keys that the hub is asked about at one time
const STRANGERS_MAX: usize = 64;

/// The peer of one network
#[derive(Debug)]
pub(super) struct Peer {
    network: NetworkName,
    config: PeerRoleConfig,
    /// What we say of ourselves
    register: Register,
    /// Which of the configured hubs
    turn: usize,
    /// What each endpoint of the hub means, as far as that is known
    found: BTreeMap<String, Vec<SocketAddr>>,
    /// What the node was told of the hub
    told: Option<PeerConfig>,
    hub_session: bool,
    /// Whether the hub waits for somebody to approve us
    pending: bool,
    /// Where the hub is, or was last
    hub_seen: Option<IpAddr>,
    /// Whether our addresses changed since the hub heard of them
    moved: bool,
    registered: Option<Registered>,
    pulse: Pulse,
    /// When the hub's time for an answer is over, while it has given none
    round_until: Option<Instant>,
    roster: Roster,
    /// Sessions with other peers; with the time since when one is silent
    sessions: BTreeMap<PublicKey, Option<Instant>>,
    /// Entries of peers that left the list and are still heard
    lingering: BTreeMap<PublicKey, Entry>,
    strangers: BTreeMap<PublicKey, Waiting>,
    detail: String,
}

/// What the hub told us of ourselves and of itself
#[derive(Clone, Debug, Eq, PartialEq)]
struct Registered {
    with: PublicKey,
    addresses: Vec<Prefix>,
    hub: Vec<IpAddr>,
}

/// Inits of one unknown key that wait for the hub's word
#[derive(Debug)]
struct Waiting {
    tickets: Vec<Ticket>,
    until: Instant,
}

impl Peer {
    /// Makes a peer that has not looked for its hub yet
    pub(super) fn new(
        network: NetworkName,
        own: PublicKey,
        config: PeerRoleConfig,
        register: Register,
        now: Instant,
    ) -> Self {
        Self {
            network,
            config,
            register,
            turn: 0,
            found: BTreeMap::new(),
            told: None,
            hub_session: false,
            pending: false,
            hub_seen: None,
            moved: false,
            registered: None,
            pulse: Pulse::new(now),
            round_until: None,
            roster: Roster::new(own),
            sessions: BTreeMap::new(),
            lingering: BTreeMap::new(),
            strangers: BTreeMap::new(),
            detail: String::new(),
        }
    }

    /// Looks for the hub whose turn it is
    pub(super) fn start(&mut self, now: Instant, out: &mut Vec<Step>) {
        self.round_until = Some(now + ROUND);
        for endpoint in self.hub().endpoints().cloned().collect::<Vec<_>>() {
            match endpoint.parse() {
                Ok(address) => drop(self.found.insert(endpoint, vec![address])),
                Err(_) => out.push(Step::Resolve(endpoint)),
            }
        }
        self.tell_of_hub(out);
    }

    /// Takes what the name of a hub's endpoint means
    pub(super) fn on_resolved(
        &mut self,
        endpoint: &str,
        addresses: Result<Vec<SocketAddr>, String>,
        out: &mut Vec<Step>,
    ) {
        if !self.hub().endpoints().any(|own| own == endpoint) {
            return;
        }
        match addresses {
            Ok(addresses) => {
                self.found.insert(endpoint.to_owned(), addresses);
                self.tell_of_hub(out);
            }
            Err(reason) if self.found.is_empty() => {
                let detail = format!("{endpoint} cannot be resolved: {reason}");
                if self.detail != detail {
                    warn!(network = %self.network, reason, "hub's name cannot be resolved");
                }
                self.detail = detail;
            }
            Err(reason) => debug!(network = %self.network, reason, "hub's old addresses are used"),
        }
    }

    /// Takes an event of the node
    pub(super) fn on_event(&mut self, event: Event, now: Instant, out: &mut Vec<Step>) {
        let hub = self.hub().public_key;
        match event {
            Event::SessionUp { peer, greeting, initiator, way, .. } if peer == hub => {
                self.hub_seen = remote(way).or(self.hub_seen);
                self.on_hub_up(&greeting, initiator, now, out);
            }
            Event::SessionDown { peer, .. } if peer == hub => {
                self.hub_session = false;
                if !self.is_registered() {
                    self.round_until = Some(now + ROUND);
                }
            }
            Event::PathMoved { peer, way } if peer == hub => {
                self.hub_seen = remote(way).or(self.hub_seen);
            }
            Event::Control { peer, message } if peer == hub => self.on_message(&message, now, out),
            Event::Pong { peer, rtt, .. } if peer == hub && self.registered.is_some() => {
                if self.pulse.on_answer(rtt, now) {
                    self.on_hub_back();
                }
            }
            Event::Stranger { ticket, key, .. } => self.on_stranger(ticket, key, now, out),
            Event::SessionUp { peer, .. } => {
                self.sessions.insert(peer, None);
            }
            Event::SessionDown { peer, reason } => {
                self.sessions.remove(&peer);
                self.forget_lingering(&peer, reason == DownReason::Closed, out);
            }
            Event::Silent { peer } => {
                if let Some(silent) = self.sessions.get_mut(&peer) {
                    *silent = Some(now);
                }
                self.forget_lingering(&peer, false, out);
            }
            Event::Control { peer, .. } => {
                debug!(network = %self.network, ?peer, "message of a node that is no hub");
            }
            Event::Pong { .. }
            | Event::PingLost { .. }
            | Event::Offload { .. }
            | Event::PathMoved { .. }
            | Event::Undelivered { .. } => {}
        }
    }

    /// Takes the node's numbers: who was heard again is silent no longer
    pub(super) fn on_stats(&mut self, stats: &NodeStats) {
        for peer in &stats.peers {
            if let Some(silent) = self.sessions.get_mut(&peer.key) {
                *silent = silent.filter(|since| peer.last_heard.is_none_or(|heard| heard < *since));
            }
        }
    }

    /// Takes the underlay addresses where this node may be reached
    pub(super) fn on_candidates(&mut self, own: Vec<SocketAddr>, out: &mut Vec<Step>) {
        if own == self.register.endpoints {
            return;
        }
        self.register.endpoints = own;
        self.tell_of_hub(out);
        if self.hub_session {
            self.send(&Message::Endpoints(self.register.endpoints.clone()), out);
        } else {
            self.moved = true;
        }
    }

    /// Looks again for a hub whose name may mean something else on another network
    pub(super) fn look_again(&self, out: &mut Vec<Step>) {
        let names = self.hub().endpoints().filter(|one| one.parse::<SocketAddr>().is_err());
        out.extend(names.cloned().map(Step::Resolve));
    }

    /// Applies a changed configuration
    pub(super) fn on_config(&mut self, config: PeerRoleConfig, now: Instant, out: &mut Vec<Step>) {
        let old = self.hub().clone();
        let others = self.config.carrier != config.carrier || self.config.peers != config.peers;
        self.config = config;
        if !self.is_registered() {
            let ticket = self.config.ticket.as_ref();
            self.register.secret = ticket.map(|ticket| ticket.secret.clone());
        }
        if others {
            for entry in self.peers() {
                out.push(Step::Node(Command::SetPeer(self.peer_config(entry))));
            }
        }
        match self.config.hubs.iter().position(|hub| hub.public_key == old.public_key) {
            Some(turn) => {
                self.turn = turn;
                self.tell_of_hub(out);
                if !self.hub().endpoints().eq(old.endpoints()) {
                    let hub = &self.config.hubs[self.turn];
                    self.found.retain(|endpoint, _| hub.endpoints().any(|own| own == endpoint));
                    self.start(now, out);
                    if self.hub_session && !self.pulse.is_lost() {
                        self.round_until = None;
                    }
                }
            }
            None => self.switch(old.public_key, 0, now, out),
        }
        if self.has_lost_hub() {
            self.tell_of_loss();
        }
    }

    /// Does what is due
    pub(super) fn poll(&mut self, now: Instant, out: &mut Vec<Step>) {
        if self.registered.is_some() {
            self.beat(now, out);
        }
        if self.round_until.is_some_and(|until| now >= until) {
            self.next_round(now, out);
        }
        if self.roster.poll(now) {
            self.send(&Message::SnapshotRequest, out);
        }
        self.strangers.retain(|_, waiting| now < waiting.until);
    }

    /// Returns when [`Self::poll`] will next have something to do
    pub(super) fn deadline(&self) -> Instant {
        let pulse = if self.registered.is_some() { self.pulse.deadline() } else { Instant::FAR };
        let strangers = self.strangers.values().map(|waiting| waiting.until).min();
        pulse
            .min(self.round_until.unwrap_or(Instant::FAR))
            .min(self.roster.deadline())
            .min(strangers.unwrap_or(Instant::FAR))
    }

    /// Returns the configuration in force
    #[cfg(test)]
    pub(super) fn config(&self) -> &PeerRoleConfig {
        &self.config
    }

    /// Tells whether a hub has registered us
    pub(super) fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    /// Tells whether the hub waits for somebody to approve us
    pub(super) fn is_pending(&self) -> bool {
        self.pending && self.hub_session
    }

    /// Tells whether the hub was there and does not answer any more
    pub(super) fn has_lost_hub(&self) -> bool {
        self.registered.is_some() && self.pulse.is_lost()
    }

    /// Tells whether packets are to be carried
    pub(super) fn carries(&self) -> bool {
        self.is_registered() && !(self.has_lost_hub() && self.config.hub_loss == HubLoss::Stop)
    }

    /// Returns the hub whose turn it is
    pub(super) fn hub(&self) -> &HubAddress {
        // The configuration has at least one hub, and `turn` is taken modulo their number.
        &self.config.hubs[self.turn]
    }

    /// Returns the underlay address of the hub, once messages have come from there
    pub(super) fn hub_seen(&self) -> Option<IpAddr> {
        self.hub_seen
    }

    /// Returns the hub's own overlay addresses
    pub(super) fn hub_overlay(&self) -> &[IpAddr] {
        let with = self.registered.as_ref().filter(|own| own.with == self.hub().public_key);
        with.map_or(&[], |own| &own.hub)
    }

    /// Goes through the peers that are alive, ordered by key; those that left the list last
    pub(super) fn peers(&self) -> impl Iterator<Item = &Entry> {
        self.roster.iter().chain(self.lingering.values())
    }

    /// Returns how the hub calls this node, once it has said so
    pub(super) fn own_name(&self) -> Option<&str> {
        self.roster.own_name()
    }

    /// Returns the subnets behind this node, as the hub says
    pub(super) fn own_subnets(&self) -> &[Prefix] {
        self.roster.own_subnets()
    }

    /// Returns a sentence on what is wrong; empty where all is well
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Tells the node about the hub, where it does not know yet
    fn tell_of_hub(&mut self, out: &mut Vec<Step>) {
        let found = self.hub().endpoints().filter_map(|endpoint| self.found.get(endpoint));
        let mut endpoints = Vec::new();
        for address in found.flatten() {
            if !endpoints.contains(address) {
                endpoints.push(*address);
            }
        }
        if endpoints.is_empty() {
            return;
        }
        let config = PeerConfig {
            key: self.hub().public_key,
            prefixes: self.hub_overlay().iter().copied().map(Prefix::host).collect(),
            endpoints,
            carrier: self.hub().carrier,
            tcp: self.hub().tcp,
            relay: None,
            contact: Contact::Always,
            hello: self.register.encode(),
            boot: None,
        };
        if self.told.as_ref() != Some(&config) {
            self.told = Some(config.clone());
            out.push(Step::Node(Command::SetPeer(config)));
        }
    }

    fn on_hub_up(&mut self, reply: &[u8], initiator: bool, now: Instant, out: &mut Vec<Step>) {
        self.hub_session = true;
        if !initiator {
            debug!(network = %self.network, "session that the hub began");
            return;
        }
        match Reply::decode(reply) {
            Ok(Reply::Welcome { addresses, hub, list }) if !addresses.is_empty() => {
                self.on_welcome(addresses, hub, list, now, out);
            }
            Ok(Reply::Pending) => self.on_pending(),
            Ok(Reply::Refused { reason }) => {
                out.push(Step::Fail(HandleError::Refused(reason)));
            }
            Ok(Reply::Welcome { .. }) | Err(_) => {
                let text = "the hub's answer cannot be understood".to_owned();
                out.push(Step::Fail(HandleError::System(text)));
            }
        }
    }

    /// The hub keeps the session, and ends it when somebody has approved us: then we register anew
    fn on_pending(&mut self) {
        if !self.pending {
            info!(network = %self.network, "waiting for approval by the hub's administrator");
        }
        self.pending = true;
        self.round_until = None;
        self.detail = PENDING.to_owned();
    }

    fn on_welcome(
        &mut self,
        addresses: Vec<Prefix>,
        hub: Vec<IpAddr>,
        list: List,
        now: Instant,
        out: &mut Vec<Step>,
    ) {
        let with = self.hub().public_key;
        let before = self.registered.replace(Registered { with, addresses, hub });
        self.pending = false;
        self.detail.clear();
        self.round_until = None;
        if self.register.secret.is_some() {
            out.push(Step::Welcomed);
        }
        if self.pulse.on_alive(now) {
            self.on_hub_back();
        } else {
            info!(network = %self.network, "registered with the hub");
        }
        self.tell_of_hub(out);
        if core::mem::take(&mut self.moved) {
            self.send(&Message::Endpoints(self.register.endpoints.clone()), out);
        }
        if before.is_some_and(|before| before.with != with) {
            // All others are to be relayed by the new hub from now on.
            for entry in self.peers() {
                out.push(Step::Node(Command::SetPeer(self.peer_config(entry))));
            }
        }
        self.on_list(list, now, out);
        out.push(self.plan());
    }

    fn on_message(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Step>) {
        match Message::decode(bytes) {
            Ok(Message::List(list)) => {
                // Only members are told, so that the hub has written us down. A welcome alone may be
                // forgotten by a hub that ends, or whose disk is full, at that moment.
                if self.is_registered() && self.register.secret.take().is_some() {
                    self.tell_of_hub(out);
                }
                if self.on_list(list, now, out) {
                    out.push(self.plan());
                }
            }
            Ok(Message::Answer { key, standing }) => self.on_answer(key, standing, out),
            Ok(Message::Endpoints(_) | Message::SnapshotRequest | Message::WhoIs(_)) => {
                debug!(network = %self.network, "the hub sent a message that is ours to send");
            }
            Err(error) => warn!(network = %self.network, %error, "hub's message cannot be read"),
        }
    }

    /// Takes a part of the list; returns whether it changed anything
    fn on_list(&mut self, list: List, now: Instant, out: &mut Vec<Step>) -> bool {
        let name = self.own_name().map(str::to_owned);
        let Changes { changes, ask } = self.roster.on_list(list, now);
        if ask {
            info!(network = %self.network, "missed a change of the list");
            self.send(&Message::SnapshotRequest, out);
        }
        let changed = !changes.is_empty() || name.as_deref() != self.own_name();
        for change in changes {
            match change {
                Change::Set(entry) => {
                    self.lingering.remove(&entry.key);
                    out.push(Step::Node(Command::SetPeer(self.peer_config(&entry))));
                    self.admit_waiting(&entry, out);
                }
                Change::Gone(entry) => self.on_gone(*entry, out),
            }
        }
        changed
    }

    fn on_gone(&mut self, entry: Entry, out: &mut Vec<Step>) {
        match self.sessions.get(&entry.key) {
            Some(None) => {
                // away, or no member any more: only the hub can tell
                self.send(&Message::WhoIs(entry.key), out);
                self.lingering.insert(entry.key, entry);
            }
            Some(Some(_)) => out.push(Step::Node(Command::RemovePeer(entry.key))),
            // it said goodbye, and may be back in a moment
            None => out.push(Step::Node(Command::PeerAway(entry.key))),
        }
    }

    /// Forgets a peer that is not in the list; if it said goodbye it may be back in a moment
    fn forget_lingering(&mut self, key: &PublicKey, goodbye: bool, out: &mut Vec<Step>) {
        if self.lingering.remove(key).is_some() {
            let away = if goodbye { Command::PeerAway } else { Command::RemovePeer };
            out.push(Step::Node(away(*key)));
            out.push(self.plan());
        }
    }

    fn on_stranger(&mut self, ticket: Ticket, key: PublicKey, now: Instant, out: &mut Vec<Step>) {
        if let Some(entry) = self.roster.get(&key).or_else(|| self.lingering.get(&key)) {
            let peer = self.peer_config(entry);
            out.push(Step::Node(Command::Admit { ticket, peer, reply: Vec::new() }));
            return;
        }
        let until = now + TICKET_LIFE;
        if let Some(waiting) = self.strangers.get_mut(&key) {
            waiting.tickets.push(ticket);
        } else if self.strangers.len() < STRANGERS_MAX && self.hub_session {
            self.strangers.insert(key, Waiting { tickets: vec![ticket], until });
            self.send(&Message::WhoIs(key), out);
        } else {
            out.push(Step::Node(Command::Refuse { ticket }));
        }
    }

    fn on_answer(&mut self, key: PublicKey, standing: Standing, out: &mut Vec<Step>) {
        match standing {
            Standing::Live(entry) if entry.key == key => {
                self.admit_waiting(&entry, out);
                self.roster.on_answer(entry);
                out.push(self.plan());
                return;
            }
            Standing::Stranger => self.forget_lingering(&key, false, out),
            Standing::Away | Standing::Live(_) => {}
        }
        for ticket in self.tickets(&key) {
            out.push(Step::Node(Command::Refuse { ticket }));
        }
    }

    fn admit_waiting(&mut self, entry: &Entry, out: &mut Vec<Step>) {
        for ticket in self.tickets(&entry.key) {
            let peer = self.peer_config(entry);
            out.push(Step::Node(Command::Admit { ticket, peer, reply: Vec::new() }));
        }
    }

    fn tickets(&mut self, key: &PublicKey) -> Vec<Ticket> {
        self.strangers.remove(key).map(|waiting| waiting.tickets).unwrap_or_default()
    }

    fn beat(&mut self, now: Instant, out: &mut Vec<Step>) {
        while let Some(due) = self.pulse.poll(now) {
            match due {
                Due::Beat(id) => {
                    let peer = self.hub().public_key;
                    out.push(Step::Node(Command::Ping { peer, id, timeout: ANSWER_LIFE }));
                }
                Due::Lost => self.on_hub_lost(now),
            }
        }
    }

    fn on_hub_lost(&mut self, now: Instant) {
        self.round_until = Some(now + ROUND);
        let what = self.tell_of_loss();
        error!(network = %self.network, hub = ?self.hub().public_key, what, "hub does not answer");
    }

    /// Puts into the detail that the hub is lost; returns what becomes of packets
    fn tell_of_loss(&mut self) -> &'static str {
        let what = match self.config.hub_loss {
            HubLoss::Stop => "packets are not carried until it is back",
            HubLoss::Keep => "going on with the peers that are known",
        };
        self.detail = format!("the hub {} does not answer; {what}", self.hub());
        what
    }

    fn on_hub_back(&mut self) {
        self.detail.clear();
        self.round_until = None;
        info!(network = %self.network, "hub is back");
    }

    /// The hub had its time: look for the next one, or for the same one at another address
    fn next_round(&mut self, now: Instant, out: &mut Vec<Step>) {
        if !self.is_registered() && self.told.is_some() {
            if self.detail.is_empty() {
                // Not that it is lost: it never was there. Nor does it answer where a key is wrong.
                warn!(network = %self.network, hub = ?self.hub().public_key, "hub does not answer");
            }
            self.detail = format!("the hub {} does not answer", self.hub());
        }
        let next = (self.turn + 1) % self.config.hubs.len();
        if next == self.turn {
            self.start(now, out);
        } else {
            self.switch(self.hub().public_key, next, now, out);
        }
    }

    fn switch(&mut self, old: PublicKey, next: usize, now: Instant, out: &mut Vec<Step>) {
        self.turn = next;
        if self.hub().public_key != old {
            debug!(network = %self.network, hub = ?self.hub().public_key, "trying the next hub");
            out.push(Step::Node(Command::RemovePeer(old)));
            self.told = None;
            self.found.clear();
            self.hub_session = false;
        }
        self.start(now, out);
    }

    /// Returns what our interface should be like
    fn plan(&self) -> Step {
        let addresses = self.registered.as_ref().map(|own| own.addresses.clone());
        let addresses = addresses.unwrap_or_default();
        let routes: BTreeSet<_> =
            self.peers().flat_map(|entry| &entry.subnets).map(Prefix::network).collect();
        Step::Plan { addresses, routes: routes.into_iter().collect() }
    }

    fn peer_config(&self, entry: &Entry) -> PeerConfig {
        let setting = self.setting(entry);
        let hosts = entry.addresses.iter().copied().map(Prefix::host);
        PeerConfig {
            key: entry.key,
            prefixes: hosts.chain(entry.subnets.iter().copied()).collect(),
            endpoints: entry.endpoints.clone(),
            carrier: setting.map_or(self.config.carrier, |setting| setting.carrier),
            tcp: setting.and_then(|setting| setting.tcp),
            relay: Some(self.hub().public_key),
            contact: Contact::OnDemand,
            hello: Vec::new(),
            boot: Some(entry.boot),
        }
    }

    /// Returns what is different for a peer
    fn setting(&self, entry: &Entry) -> Option<&PeerSetting> {
        let meant = |setting: &&PeerSetting| match &setting.who {
            PeerName::Key(key) => *key == entry.key,
            PeerName::Name(name) => *name == entry.name,
        };
        self.config.peers.iter().find(meant)
    }

    fn send(&self, message: &Message, out: &mut Vec<Step>) {
        let peer = self.hub().public_key;
        out.push(Step::Node(Command::Send { peer, message: message.encode() }));
    }
}

/// Underlay address at the far end of a path that is not relayed
fn remote(way: Way) -> Option<IpAddr> {
    match way {
        Way::Direct(address) | Way::Stream(_, address) => Some(address.ip()),
        Way::Relayed(_) => None,
    }
}
