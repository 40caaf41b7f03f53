//! A few nodes and a wire in virtual time, for tests.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::{NetworkKey, PrivateKey};
use crate::ip::{self, Prefix, checksum, numbers};

/// From whom and to whom a message is, and what its IP header says of congestion
type OnWire = (SocketAddr, SocketAddr, Vec<u8>, Ecn);

/// A few nodes and the wire between them
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Fleet>,
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) wire: BTreeMap<(Instant, u64), OnWire>,
    pub(super) sent: u64,
    pub(super) delay: Duration,
    /// Pairs of nodes that cannot hear one another directly
    pub(super) blocked: Vec<(usize, usize)>,
    /// From whom to whom nothing passes that is larger than this
    pub(super) narrow: Vec<(usize, usize, usize)>,
    /// Who cannot hear whom, though the other way round it may work
    pub(super) deaf: Vec<(usize, usize)>,
    /// Drops so many of a hundred, by chance
    pub(super) loss: u64,
    /// Drops each message whose number this divides
    pub(super) lossy: Option<u64>,
    /// Whether nothing passes that is ECN-capable
    pub(super) mute: bool,
    /// Which message of each train is lost that the kernel may cut, from one on
    pub(super) cut_loses: Option<usize>,
    /// How many ECN-capable messages each node has sent
    pub(super) capable: Vec<usize>,
    pub(super) events: Vec<Vec<Event>>,
    pub(super) packets: Vec<Vec<Vec<u8>>>,
    /// All that was sent, lost or not, where a test wants to know
    pub(super) tape: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    /// Times that a node was given, all together
    pub(super) timeouts: u64,
}

impl Net {
    pub(super) fn new(count: u8) -> Self {
        let nodes = (0..count).map(|id| node(id, id, id == 0)).collect();
        let addrs = (0..count).map(|id| SocketAddr::from(([192, 0, 2, id], 8796))).collect();
        Self {
            now: Instant::ZERO + Duration::from_secs(1000),
            nodes,
            addrs,
            wire: BTreeMap::new(),
            sent: 0,
            delay: Duration::from_millis(10),
            blocked: Vec::new(),
            narrow: Vec::new(),
            deaf: Vec::new(),
            loss: 0,
            lossy: None,
            mute: false,
            cut_loses: None,
            capable: vec![0; count.into()],
            events: vec![Vec::new(); count.into()],
            packets: vec![Vec::new(); count.into()],
            tape: None,
            timeouts: 0,
        }
    }

    pub(super) fn peer(&self, of: usize, contact: Contact) -> PeerConfig {
        PeerConfig {
            key: self.nodes[of].public_key(),
            prefixes: vec![Prefix::host(overlay(of))],
            endpoints: vec![self.addrs[of]],
            carrier: Choice::Udp,
            tcp: None,
            relay: None,
            contact,
            hello: b"hello".to_vec(),
            boot: None,
        }
    }

    pub(super) fn command(&mut self, at: usize, command: Command) {
        self.nodes[at].handle_command(&command, self.now);
        self.drain(at);
    }

    pub(super) fn send(&mut self, from: usize, to: usize, id: u8) {
        self.nodes[from].handle_packet(&packet(overlay(from), overlay(to), id), None, self.now);
        self.drain(from);
    }

    pub(super) fn drain(&mut self, at: usize) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.nodes[at].poll_transmit(&mut buffer, self.now) {
            let size = transmit.segment.unwrap_or(buffer.len());
            let cut = transmit.offload && size < buffer.len();
            for (number, message) in buffer.chunks(size).enumerate() {
                self.sent += 1;
                if let Some(tape) = &mut self.tape {
                    tape.push((self.addrs[at], transmit.remote, message.to_vec()));
                }
                let capable = transmit.ecn == Ecn::Capable;
                self.capable[at] += usize::from(capable);
                let to = self.addrs.iter().position(|addr| *addr == transmit.remote);
                let blocked = self.mute && capable;
                let blocked =
                    blocked || to.is_none_or(|to| self.blocked.contains(&(at.min(to), at.max(to))));
                let narrow = |(from, of, size): &(usize, usize, usize)| {
                    *from == at && Some(*of) == to && message.len() > *size
                };
                let hash = self.sent.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (self.sent >> 7);
                let chance = (hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) % 100;
                let deaf = to.is_some_and(|to| self.deaf.contains(&(to, at)));
                let blocked = blocked || deaf || chance < self.loss;
                let blocked = blocked || cut && self.cut_loses == Some(number + 1);
                let blocked = blocked || self.narrow.iter().any(narrow);
                if !blocked && self.lossy.is_none_or(|every| !self.sent.is_multiple_of(every)) {
                    let due = (self.now + self.delay, self.sent);
                    let message = (self.addrs[at], transmit.remote, message.to_vec(), transmit.ecn);
                    self.wire.insert(due, message);
                }
            }
        }
        while let Some(packet) = self.nodes[at].poll_packet() {
            packet.each(&mut Vec::new(), |packet| self.packets[at].push(packet.to_vec()));
        }
        while let Some(event) = self.nodes[at].poll_event() {
            if let Event::Stranger { ticket, key, .. } = &event {
                let of = self.nodes.iter().position(|node| node.public_key() == *key);
                if let Some(of) = of {
                    let mut peer = self.peer(of, Contact::Await);
                    peer.endpoints.clear();
                    let reply = b"welcome".to_vec();
                    let admit = Command::Admit { ticket: *ticket, peer, reply };
                    self.nodes[at].handle_command(&admit, self.now);
                    self.drain(at);
                }
            }
            self.events[at].push(event);
        }
        self.check(at);
        if let Some((deadline, why)) = self.nodes[at].deadline() {
            assert!(deadline >= self.now, "{why:?} is due at {deadline:?}, now {:?}", self.now);
        }
    }

    /// Nothing is left over in the tables of a node
    fn check(&self, at: usize) {
        for node in self.nodes[at].shards() {
            assert!(node.dirty.is_empty() && node.handovers.is_empty(), "not drained");
            let visited = node.peers.visited.get();
            let places = node.peers.all().filter_map(|(key, peer)| Some((peer.scheduled?.0, *key)));
            assert_eq!(node.schedule, places.collect(), "schedule of node {at}");
            node.away.check();
            let mut indices = BTreeMap::new();
            for (key, peer) in node.peers.all() {
                assert!(node.keeps(key), "peer of another shard");
                indices.extend(peer.indices().map(|index| (index, *key)));
            }
            assert_eq!(node.indices, indices, "indices of node {at}");
            node.peers.visited.set(visited);
        }
    }

    /// Brings a message to a node, whoever sent it, and wherever it claims to come from
    pub(super) fn inject(&mut self, from: SocketAddr, to: usize, bytes: &[u8]) {
        let arrival =
            Arrival { carrier: Carrier::Udp, remote: from, local: None, ecn: Ecn::Incapable };
        self.nodes[to].handle_message(arrival, &mut bytes.to_vec(), self.now);
        self.drain(to);
    }

    /// Returns a message with these frames as node `from` may seal it for node `to`
    pub(super) fn forge(&mut self, from: usize, to: usize, frames: &[u8]) -> Vec<u8> {
        let key = self.nodes[to].public_key();
        let shard = self.nodes[from].shard_of(&key);
        let session = shard.peers.get_mut(&key).unwrap().session.as_mut().unwrap();
        session.forge(frames, self.now)
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut idle = 0;
        loop {
            let message = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timer =
                self.nodes.iter().filter_map(|node| node.deadline()).map(|(at, _)| at).min();
            let next = [message, timer].into_iter().flatten().min().unwrap_or(end);
            if next > end {
                break;
            }
            idle = if next == self.now { idle + 1 } else { 0 };
            let deadlines: Vec<_> = self.nodes.iter().map(Fleet::deadline).collect();
            assert!(idle < 1000, "busy at {next:?}: {deadlines:?}");
            self.now = next;
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= next) {
                let (from, to, mut bytes, ecn) = entry.remove();
                let Some(at) = self.addrs.iter().position(|addr| *addr == to) else { continue };
                let arrival = Arrival { carrier: Carrier::Udp, remote: from, local: None, ecn };
                self.nodes[at].handle_message(arrival, &mut bytes, self.now);
                self.drain(at);
            }
            for at in 0..self.nodes.len() {
                if self.nodes[at].deadline().is_some_and(|(due, _)| due <= next) {
                    self.timeouts += 1;
                    self.nodes[at].handle_timeout(self.now);
                    self.drain(at);
                }
            }
        }
        self.now = end;
    }

    /// A hub and two peers that know it and each other
    pub(super) fn triangle() -> Self {
        let mut net = Self::new(3);
        let hub = net.peer(0, Contact::Always);
        for at in 1..3 {
            net.command(at, Command::SetPeer(hub.clone()));
        }
        for (at, other) in [(1, 2), (2, 1)] {
            net.introduce(other, at, 0);
        }
        net
    }

    /// The same, with a connection of the kernels at the peers that is split, on which all is said for the moment: the
    /// first says 101 next, and the other one 901
    pub(super) fn connected(delay: Duration) -> Self {
        let mut net = Self::triangle();
        net.delay = delay;
        net.run(secs(1));
        net.send(1, 2, 7);
        net.run(secs(1));
        let (there, back) = ([1, 2], [2, 1]);
        let (syn, ack) = (numbers::SYN, numbers::ACK);
        for (way, said, flags) in
            [(there, [100, 0], syn), (back, [900, 101], syn | ack), (there, [101, 901], ack)]
        {
            net.say(way, said, flags);
            net.run(secs(1));
        }
        net.packets.iter_mut().for_each(Vec::clear);
        assert_eq!([1, 2].map(|at| net.nodes[at].stats(net.now).connections), [1, 1]);
        net
    }

    /// Has a kernel say a segment without data to another one
    pub(super) fn say(&mut self, way: [usize; 2], numbers: [u32; 2], flags: u8) {
        self.nodes[way[0]].handle_packet(&segment(way, numbers, flags), None, self.now);
        self.drain(way[0]);
    }

    /// Makes a node known to another one, which may reach it through a relay
    pub(super) fn introduce(&mut self, peer: usize, to: usize, relay: usize) {
        let relay = Some(self.nodes[relay].public_key());
        let peer = PeerConfig { relay, ..self.peer(peer, Contact::OnDemand) };
        self.command(to, Command::SetPeer(peer));
    }

    pub(super) fn ups(&self, at: usize) -> usize {
        self.events[at].iter().filter(|event| matches!(event, Event::SessionUp { .. })).count()
    }

    pub(super) fn way(&self, at: usize, to: usize) -> Option<Way> {
        let stats = self.nodes[at].stats(self.now);
        let key = self.nodes[to].public_key();
        stats.peers.iter().find(|peer| peer.key == key)?.path.map(|path| path.way)
    }

    pub(super) fn received(&self, at: usize) -> Vec<u8> {
        self.packets[at].iter().map(|packet| packet[20]).collect()
    }
}

pub(super) fn config(id: u8, seed: u8, hub: bool) -> NodeConfig {
    NodeConfig {
        private_key: PrivateKey::from_bytes([id + 1; 32]),
        network_key: NetworkKey::default(),
        seed: [seed; 32],
        aes: true,
        admission: if hub { Admission::Ask } else { Admission::Known },
        relay: hub,
        silence: Duration::from_secs(15),
        engine: Engine::default(),
    }
}

pub(super) fn node(id: u8, seed: u8, hub: bool) -> Fleet {
    let config = config(id, seed, hub);
    // The hub is in two shards, the first peer whole, the second in three, and so on.
    Fleet::new(&config, [2, 1, 3][usize::from(id) % 3], Instant::ZERO)
}

pub(super) fn overlay(id: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(id).unwrap()])
}

pub(super) fn packet(src: IpAddr, dst: IpAddr, id: u8) -> Vec<u8> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) else { unreachable!() };
    let mut packet = vec![0; 1400];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&1400u16.to_be_bytes());
    packet[12..16].copy_from_slice(&src.octets());
    packet[16..20].copy_from_slice(&dst.octets());
    packet[20] = id;
    packet
}

/// Makes a segment of port 5000 for port 80, or back, without data and options
fn segment(way: [usize; 2], numbers: [u32; 2], flags: u8) -> Vec<u8> {
    segment_with(way, numbers, flags, &[])
}

/// The same with data
pub(super) fn segment_with(
    [from, to]: [usize; 2],
    [seq, ack]: [u32; 2],
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = ip::testing::packet(false, numbers::TCP, seq, flags, data);
    for (at, id) in [(12, from), (16, to)] {
        let IpAddr::V4(addr) = overlay(id) else { unreachable!() };
        bytes[at..at + 4].copy_from_slice(&addr.octets());
    }
    let ports: [u16; 2] = if from == 1 { [5000, 80] } else { [80, 5000] };
    bytes[20..22].copy_from_slice(&ports[0].to_be_bytes());
    bytes[22..24].copy_from_slice(&ports[1].to_be_bytes());
    bytes[28..32].copy_from_slice(&ack.to_be_bytes());
    bytes[34..36].copy_from_slice(&60_000_u16.to_be_bytes());
    [10, 36].into_iter().for_each(|at| bytes[at..at + 2].fill(0));
    let sum = checksum::finish(checksum::add(0, &bytes[..20])).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    let sum = checksum::pseudo(overlay(from), overlay(to), numbers::TCP, bytes.len() - 20);
    let sum = checksum::finish(checksum::add(sum, &bytes[20..])).to_be_bytes();
    bytes[36..38].copy_from_slice(&sum);
    bytes
}

pub(super) fn restart(net: &mut Net, at: usize, seed: u8) {
    net.nodes[at] = node(at as u8, 100 ^ seed, false);
    let hub = net.peer(0, Contact::Always);
    net.command(at, Command::SetPeer(hub));
    net.introduce(3 - at, at, 0);
}

pub(super) fn controls(net: &Net, at: usize) -> Vec<&[u8]> {
    let events = net.events[at].iter();
    let control = events.filter_map(|event| match event {
        Event::Control { message, .. } => Some(message.as_slice()),
        _ => None,
    });
    control.collect()
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
