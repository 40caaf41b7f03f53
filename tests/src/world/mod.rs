//! Hosts and wires in virtual time.
//!
//! A [`World`] runs real nodes ([`fastvpn_proto::node::Fleet`]) against emulated links: a minute of link time takes
//! milliseconds, and the same seed gives the same minute. Tests add hosts, shape links, send packets
//! and run time forward; `oracle` judges each step, so that a test only says what is special to it.
//!
//! On failure the seed and the state of all hosts are printed; `FASTVPN_SEED` replays. `FASTVPN_SHARDS` divides each node.
//!
//! # Contract
//!
//! - Each node is driven as its own contract says: one mutation, a full drain, the deadline.
//! - Time passes only in `run_*`.

pub mod host;
pub mod nat;
pub mod packet;
pub mod report;
pub mod tcp;

mod drive;
mod network;
mod oracle;
mod schedule;
mod traffic;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::node::{
    Command, Contact, Ecn, Event, Fleet, NodeStats, PeerConfig, PeerState, PeerStats, Traffic, Way,
};
use fastvpn_proto::time::{Duration, Instant};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use self::host::{Host, PORT, Power, REGISTER, underlay4};
use self::nat::NatConfig;
use self::network::{Network, OUTSIDE, SiteId};
use self::oracle::Oracle;
use self::schedule::Schedule;
use self::traffic::Stream;
use crate::link::{Counters, LinkConfig, Script, Waits};

pub use self::host::HostPlan;
pub use self::network::{Datagram, TooBig};
pub use self::report::Report;
pub use self::tcp::{Pace, Side, Step, TcpId, TcpPlan, Work};
pub use self::traffic::{Flow, PacketId, PingId, StreamId};

/// Names a host of a [`World`]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostId(usize);

/// Hosts, wires and time
pub struct World {
    seed: u64,
    now: Instant,
    chance: ChaCha8Rng,
    hosts: Vec<Host>,
    network: Network,
    schedule: Schedule<Source>,
    streams: Vec<Stream>,
    /// Packets that arrived and have still to be answered
    echoes: Vec<u64>,
    scripts: Vec<RunningScript>,
    tcp: tcp::Tcp,
    oracle: Oracle,
    records: Option<Vec<Record>>,
    fresh_address: u16,
    next_ping: u64,
    steps_now: u64,
    /// Sessions whose end harms no connection: of whom with whom
    spared: BTreeSet<(HostId, HostId)>,
}

/// A message that a host sent, for tests that look at or replay it
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was sent
    pub at: Instant,
    /// Who sent it
    pub by: HostId,
    /// What was sent, before any NAT
    pub datagram: Datagram,
}

/// What can be due
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Source {
    Wire(SiteId, SiteId),
    Script(usize),
    Decision(HostId),
    Host(HostId),
    Stream(usize),
    End(usize),
    Stray(HostId),
    Echoes,
}

#[derive(Debug)]
struct RunningScript {
    script: Script,
    start: Instant,
    wire: (SiteId, SiteId),
}

/// Returns the seed of this run: `FASTVPN_SEED`, or `standard`
pub fn seed(standard: u64) -> u64 {
    match std::env::var("FASTVPN_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("FASTVPN_SEED is no number: {text:?}")),
        Err(_) => standard,
    }
}

impl World {
    /// Makes an empty world; everything in it follows from `seed`
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now: Instant::ZERO + Duration::from_secs(1),
            chance: ChaCha8Rng::seed_from_u64(seed),
            hosts: Vec::new(),
            network: Network::new(seed),
            schedule: Schedule::new(),
            streams: Vec::new(),
            echoes: Vec::new(),
            spared: BTreeSet::new(),
            scripts: Vec::new(),
            tcp: tcp::Tcp::new(),
            oracle: Oracle::default(),
            records: None,
            fresh_address: 60_000,
            next_ping: 0,
            steps_now: 0,
        }
    }

    // --- hosts -------------------------------------------------------------------------------

    /// Adds a hub with addresses of its own, and starts it
    pub fn hub(&mut self) -> HostId {
        let number = self.hosts.len() as u16 + 1;
        self.add(HostPlan::hub(number))
    }

    /// Adds a peer with addresses of its own, and starts it
    pub fn peer(&mut self) -> HostId {
        let number = self.hosts.len() as u16 + 1;
        self.add(HostPlan::peer(number))
    }

    /// Adds a hub, and so many peers that register with it
    pub fn star(&mut self, peers: usize) -> (HostId, Vec<HostId>) {
        let hub = self.hub();
        let peers: Vec<_> = (0..peers).map(|_| self.peer()).collect();
        for peer in &peers {
            self.join(*peer, hub);
        }
        (hub, peers)
    }

    /// Adds a hub and one peer of it, with such a wire in both directions, and waits for the session
    pub fn pair(&mut self, link: LinkConfig) -> (HostId, HostId) {
        let (hub, peer) = (self.hub(), self.peer());
        self.link(peer, hub, link);
        self.join(peer, hub);
        self.run_until_connected(peer, hub, Duration::from_secs(60));
        (peer, hub)
    }

    /// Adds a host and starts it
    pub fn add(&mut self, plan: HostPlan) -> HostId {
        let id = HostId(self.hosts.len());
        let site = self.network.add_site();
        for addr in &plan.underlay {
            self.network.give(*addr, site, id);
        }
        let mut key = [0; 32];
        self.chance.fill_bytes(&mut key);
        self.hosts.push(Host::new(plan, site, key, id.0));
        self.start(id);
        id
    }

    /// Lets `peer` register with `hub`, and `hub` admit it
    pub fn join(&mut self, peer: HostId, hub: HostId) {
        self.admit(hub, peer);
        let config = self.hosts[hub.0].as_peer(Contact::Always, REGISTER);
        self.know(peer, config);
    }

    /// Lets `host` admit `stranger` when it comes, without knowing it before
    pub fn admit(&mut self, host: HostId, stranger: HostId) {
        let config = self.hosts[stranger.0].as_peer(Contact::Await, &[]);
        self.hosts[host.0].members.insert(config.key, config);
    }

    /// Lets `host` refuse `stranger` from now on; sessions go on
    pub fn revoke(&mut self, host: HostId, stranger: HostId) {
        let key = self.key(stranger);
        self.hosts[host.0].members.remove(&key);
    }

    /// Makes two peers known to each other, directly and through `relay`
    pub fn introduce(&mut self, one: HostId, other: HostId, relay: Option<HostId>) {
        let relay = relay.map(|relay| self.key(relay));
        for (to, of) in [(one, other), (other, one)] {
            let mut config = self.hosts[of.0].as_peer(Contact::OnDemand, &[]);
            config.relay = relay;
            self.know(to, config);
        }
    }

    /// Tells a host of a peer, now and after each restart
    pub fn know(&mut self, host: HostId, peer: PeerConfig) {
        self.hosts[host.0].known.insert(peer.key, peer.clone());
        self.hosts[host.0].members.insert(peer.key, peer.clone());
        self.command(host, Command::SetPeer(peer));
    }

    /// Returns how a host would be described to others
    pub fn as_peer(&self, host: HostId, contact: Contact) -> PeerConfig {
        self.hosts[host.0].as_peer(contact, &[])
    }

    /// Puts a NAT in front of a host, outside of those that are there; its addresses become private
    pub fn behind_nat(&mut self, host: HostId, config: NatConfig) -> IpAddr {
        let external = self.fresh_address();
        let site = self.hosts[host.0].site;
        self.network.add_nat(site, config, external);
        external
    }

    /// Lets all NATs in front of a host forget their mappings
    pub fn forget_mappings(&mut self, host: HostId) {
        let site = self.hosts[host.0].site;
        self.network.nats(site).iter_mut().for_each(nat::Nat::forget);
    }

    /// Gives a host another underlay address in place of those it has; nobody is told
    pub fn roam(&mut self, host: HostId) -> IpAddr {
        let fresh = self.fresh_address();
        self.renumber(host, vec![fresh]);
        fresh
    }

    /// Gives a host these underlay addresses in place of those it has; nobody is told
    pub fn renumber(&mut self, host: HostId, addresses: Vec<IpAddr>) {
        let site = self.hosts[host.0].site;
        let before = std::mem::replace(&mut self.hosts[host.0].plan.underlay, addresses);
        before.into_iter().for_each(|addr| self.network.take(addr));
        for addr in &self.hosts[host.0].plan.underlay {
            self.network.give(*addr, site, host);
        }
    }

    /// Kills a host: its node is gone without a word
    pub fn kill(&mut self, host: HostId) {
        self.excuse_all(host, None);
        self.switch_off(host);
    }

    /// Kills a host and starts it again at once
    pub fn restart(&mut self, host: HostId) {
        self.kill(host);
        self.start(host);
    }

    /// Ends the nodes of hosts as a service manager does that will start them again, all at once; each is
    /// off for `pause` when it has ended
    ///
    /// A node ends when nothing would be missed, or after [`DRAIN_LIMIT`]. In the first case nobody is
    /// excused: connections go on.
    pub fn replace(&mut self, hosts: &[HostId], pause: Duration) {
        hosts.iter().for_each(|host| self.command(*host, Command::Drain));
        let limit = self.now + DRAIN_LIMIT;
        let mut alive = hosts.to_vec();
        let mut back: Vec<(Instant, HostId)> = Vec::new();
        while !alive.is_empty() || !back.is_empty() {
            let (over, more): (Vec<_>, Vec<_>) =
                alive.into_iter().partition(|host| self.is_drained(*host) || self.now >= limit);
            alive = more;
            for host in over {
                if self.is_drained(host) {
                    self.spare(host);
                } else {
                    self.excuse_all(host, None);
                }
                self.command(host, Command::Close);
                self.switch_off(host);
                back.push((self.now + pause, host));
            }
            let (due, later) = back.into_iter().partition(|(at, _)| self.now >= *at);
            back = later;
            let due: Vec<(Instant, HostId)> = due;
            due.into_iter().for_each(|(_, host)| self.start(host));
            if !alive.is_empty() || !back.is_empty() {
                self.run(LOOK);
            }
        }
    }

    /// Has the sessions of a host end without harm to connections
    fn spare(&mut self, host: HostId) {
        for other in (0..self.hosts.len()).map(HostId).filter(|other| *other != host) {
            if self.connected(host, other) {
                self.spared.extend([(host, other), (other, host)]);
            }
        }
    }

    fn is_drained(&self, host: HostId) -> bool {
        let host = &self.hosts[host.0];
        host.node.as_ref().is_none_or(|node| node.is_drained(host.clock(self.now)))
    }

    fn switch_off(&mut self, host: HostId) {
        self.hosts[host.0].node = None;
        self.hosts[host.0].power = Power::Off;
        self.hosts[host.0].decisions.clear();
        self.schedule.set(Source::Host(host), None);
        self.schedule.set(Source::Decision(host), None);
    }

    /// Puts a machine to sleep: its node stays, but nothing reaches it and no timer runs
    pub fn sleep(&mut self, host: HostId) {
        self.hosts[host.0].power = Power::Asleep;
        self.schedule.set(Source::Host(host), None);
    }

    /// Wakes a machine; its clock has run on
    pub fn wake(&mut self, host: HostId) {
        self.hosts[host.0].power = Power::On;
        self.drive(host, |node, now| node.handle_timeout(now));
        self.wake_ends(host);
    }

    /// Gives a command to a host's node
    pub fn command(&mut self, host: HostId, command: Command) {
        self.drive(host, |node, now| node.handle_command(&command, now));
    }

    // --- wires -------------------------------------------------------------------------------

    /// Shapes the wires between two hosts, the same in both directions
    pub fn link(&mut self, one: HostId, other: HostId, config: LinkConfig) {
        self.one_way(one, other, config.clone());
        self.one_way(other, one, config);
    }

    /// Shapes the wire from one host to another
    pub fn one_way(&mut self, from: HostId, to: HostId, config: LinkConfig) {
        let wire = self.wire(from, to);
        let now = self.now;
        self.network.wire(wire.0, wire.1).set(config, now);
        self.reschedule_wire(wire);
    }

    /// Lets the wires between all these pairs, in this direction, be one
    ///
    /// Everything that is sent shares its rate and queue.
    ///
    /// # Panics
    /// If `pairs` is empty.
    pub fn share(&mut self, pairs: &[(HostId, HostId)], config: LinkConfig) {
        let wires: Vec<_> = pairs.iter().map(|(from, to)| self.wire(*from, *to)).collect();
        self.network.share(&wires);
        self.one_way(pairs[0].0, pairs[0].1, config);
    }

    /// Shapes all wires that are not shaped otherwise and that nothing was sent over yet
    pub fn every_link(&mut self, config: LinkConfig) {
        self.network.set_standard(config);
    }

    /// Sets whether the sender learns what is too big for the wire
    pub fn too_big(&mut self, from: HostId, to: HostId, too_big: TooBig) {
        let (from, to) = self.wire(from, to);
        self.network.set_too_big(from, to, too_big);
    }

    /// Lets a script change the wire from one host to another, beginning now
    pub fn script(&mut self, from: HostId, to: HostId, script: Script) {
        let wire = self.wire(from, to);
        let source = Source::Script(self.scripts.len());
        self.schedule.set(source, script.deadline(self.now));
        self.scripts.push(RunningScript { script, start: self.now, wire });
    }

    /// Returns what became of all messages from one host to another
    pub fn wire_counters(&mut self, from: HostId, to: HostId) -> Counters {
        let (from, to) = self.wire(from, to);
        self.network.wire(from, to).counters()
    }

    /// Returns how long messages from one host to another have waited in front of the bottleneck
    pub fn wire_waits(&mut self, from: HostId, to: HostId) -> Waits {
        let (from, to) = self.wire(from, to);
        self.network.wire(from, to).waits()
    }

    /// Returns how long what enters the wire from one host to another has to wait
    pub fn queue(&mut self, from: HostId, to: HostId) -> Duration {
        let (from, to) = self.wire(from, to);
        let wire = self.network.wire(from, to);
        let bits = wire.queued_bytes() * 8;
        wire.config().rate.map_or(Duration::ZERO, |rate| rate.time_of(bits))
    }

    // --- strangers and records ---------------------------------------------------------------

    /// Makes up an address outside of all hosts; what is sent there is kept
    pub fn stranger(&mut self) -> SocketAddr {
        let addr = SocketAddr::new(self.fresh_address(), PORT);
        self.network.add_stranger(addr);
        addr
    }

    /// Sends bytes to a host; `from` need not be the sender's own address
    pub fn inject(&mut self, from: SocketAddr, to: HostId, bytes: Vec<u8>) {
        let target = self.endpoint(to);
        self.transmit(
            OUTSIDE,
            Datagram { from, to: target, bytes, ecn: Ecn::Incapable, cut: false },
        );
    }

    /// Returns what was sent to a stranger
    pub fn answers(&self, stranger: SocketAddr) -> &[Vec<u8>] {
        self.network.answers(stranger)
    }

    /// Begins to keep all messages that hosts send
    pub fn record(&mut self) {
        self.records = Some(Vec::new());
    }

    /// Stops to keep messages, and returns those that were kept
    pub fn take_records(&mut self) -> Vec<Record> {
        self.records.take().unwrap_or_default()
    }

    // --- what is the matter ------------------------------------------------------------------

    /// Returns the present time
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Returns a host's public key
    pub fn key(&self, host: HostId) -> PublicKey {
        self.hosts[host.0].key
    }

    /// Returns the host with that key
    pub fn host_of(&self, key: PublicKey) -> Option<HostId> {
        self.hosts.iter().position(|host| host.key == key).map(HostId)
    }

    /// Returns a host's first underlay address and its port
    pub fn endpoint(&self, host: HostId) -> SocketAddr {
        self.hosts[host.0].endpoints()[0]
    }

    /// Returns a host's first overlay address of the given family
    pub fn overlay(&self, host: HostId, family: Family) -> IpAddr {
        let mut own = self.hosts[host.0].plan.overlay.iter().map(|prefix| prefix.addr());
        let found = own.find(|addr| addr.is_ipv4() == (family == Family::V4));
        found.unwrap_or_else(|| panic!("{} has no {family:?} address", self.name(host)))
    }

    /// Returns what a host's node has told so far
    pub fn events(&self, host: HostId) -> impl DoubleEndedIterator<Item = &(Instant, Event)> {
        self.hosts[host.0].events.iter()
    }

    /// Returns packets that a host's node made itself (ICMP errors for the sender)
    pub fn notices(&self, host: HostId) -> &[Vec<u8>] {
        &self.hosts[host.0].notices
    }

    /// Returns all numbers of a host's node
    pub fn stats(&self, host: HostId) -> NodeStats {
        let host = &self.hosts[host.0];
        host.node.as_ref().map(|node| node.stats(host.clock(self.now))).unwrap_or_default()
    }

    /// Returns the numbers that `host` has of `peer`
    pub fn peer_stats(&self, host: HostId, peer: HostId) -> Option<PeerStats> {
        let key = self.key(peer);
        self.stats(host).peers.into_iter().find(|stats| stats.key == key)
    }

    /// Tells whether both have a session with each other
    pub fn connected(&self, one: HostId, other: HostId) -> bool {
        [(one, other), (other, one)].into_iter().all(|(host, peer)| {
            self.peer_stats(host, peer).is_some_and(|stats| stats.state == PeerState::Connected)
        })
    }

    /// Returns the way that `host` uses to `peer`
    pub fn way(&self, host: HostId, peer: HostId) -> Option<Way> {
        self.peer_stats(host, peer)?.path.map(|path| path.way)
    }

    /// Returns how many messages a host has sent, and their bytes
    pub fn sent(&self, host: HostId) -> Traffic {
        self.hosts[host.0].sent
    }

    /// Fails the test
    ///
    /// # Panics
    /// Always; the seed and the hosts are printed on the way out.
    pub fn fail(&self, why: impl std::fmt::Display) -> ! {
        panic!("at {:?}: {why}", self.now)
    }

    fn start(&mut self, id: HostId) {
        let mut seed = [0; 32];
        self.chance.fill_bytes(&mut seed);
        let host = &mut self.hosts[id.0];
        let node = Fleet::new(&host.node_config(seed), shards(), host.clock(self.now));
        host.node = Some(node);
        host.power = Power::On;
        let known: Vec<_> = host.known.values().cloned().collect();
        for peer in known {
            self.command(id, Command::SetPeer(peer));
        }
        self.drive(id, |_, _| ());
    }

    fn wire(&self, from: HostId, to: HostId) -> (SiteId, SiteId) {
        self.network.shared((self.hosts[from.0].site, self.hosts[to.0].site))
    }

    fn name(&self, host: HostId) -> &str {
        &self.hosts[host.0].plan.name
    }

    fn fresh_address(&mut self) -> IpAddr {
        self.fresh_address += 1;
        underlay4(self.fresh_address)
    }
}

/// How long a node waits at its end, as the daemon's does
pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked whether a node may end
const LOOK: Duration = Duration::from_millis(1);

/// A version of IP
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Drop for World {
    /// Prints the seed and the hosts when a test fails
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("world with FASTVPN_SEED={} at {:?}:", self.seed, self.now);
        for index in 0..self.hosts.len().min(8) {
            let id = HostId(index);
            eprintln!("  {} {:?}: {:?}", self.name(id), self.hosts[index].power, self.stats(id));
            for (at, event) in self.hosts[index].events.iter().rev().take(6).rev() {
                // control messages are long
                let event: String = format!("{event:?}").chars().take(160).collect();
                eprintln!("    {at:?} {event}");
            }
        }
        for (id, connection) in self.connections().filter(|(_, one)| !one.is_over()).take(6) {
            eprintln!("  {id:?} {connection}");
        }
        for wire in self.network.wires().take(8) {
            eprintln!("  wire {:?}", wire.counters());
        }
    }
}

/// Returns in how many shards each node is: `FASTVPN_SHARDS`, or one
fn shards() -> usize {
    std::env::var("FASTVPN_SHARDS").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}
