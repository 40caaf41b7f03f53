//! Bodies of the fuzz targets.
//!
//! `tests/fuzz` explores them with libFuzzer, the sim suite replays the corpus through the same
//! functions on a stable compiler. Each panics when something does not hold.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fastvpn_proto::control::{Message, Register, Reply};
use fastvpn_proto::crypto::{Cipher, NetworkKey, PrivateKey, PublicKey};
use fastvpn_proto::handshake::{Established, Initiator, Local};
use fastvpn_proto::ip::merge::merge;
use fastvpn_proto::ip::{Gso, Inner, Packet, Parcel, Prefix};
use fastvpn_proto::node::{
    Admission, Arrival, BootId, Carrier, Choice, Command, Contact, Ecn, Event, Node, NodeConfig,
    PeerConfig,
};
use fastvpn_proto::time::{Duration, Instant};
use fastvpn_proto::wire::frame::{Frame, frames};
use fastvpn_proto::wire::message::{CookieReply, DataHeader, Init, Response, number, parse_kind};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::world::packet::{PACKET_LEAST, build, id_of};

/// A target: any bytes go in, and nothing may go wrong
pub type Target = fn(&[u8]);

/// All targets by their name, which is that of the folder with their corpus
pub const TARGETS: [(&str, Target); 6] = [
    ("control", fuzz_control),
    ("frame", fuzz_frame),
    ("member", fuzz_member),
    ("message", fuzz_message),
    ("packet", fuzz_packet),
    ("session", fuzz_session),
];

/// Gives UDP payloads to a listening node, which must answer none of them
///
/// The input is a sequence of messages, each after its length in two bytes.
pub fn fuzz_message(data: &[u8]) {
    let mut node = node(0, Admission::Ask);
    let remote = address(9);
    let mut now = Instant::ZERO + Duration::from_secs(1);
    let mut rest = data;
    while let Some((head, tail)) = rest.split_first_chunk::<2>() {
        let (bytes, tail) = tail.split_at(tail.len().min(u16::from_be_bytes(*head).into()));
        rest = tail;
        let _ = (parse_kind(bytes), Init::parse(bytes), Response::parse(bytes));
        let _ = (CookieReply::parse(bytes), DataHeader::parse(bytes));
        now += Duration::from_millis(1);
        node.handle_message(
            Arrival { carrier: Carrier::Udp, remote, local: None, ecn: Ecn::Incapable },
            &mut bytes.to_vec(),
            now,
        );
        let mut buffer = Vec::new();
        assert!(node.poll_transmit(&mut buffer, now).is_none(), "an answer to noise");
        assert!(node.poll_packet().is_none());
        assert!(node.poll_event().is_none());
    }
}

/// Reads the frames of a message; those that are understood are the same when written and read again
pub fn fuzz_frame(data: &[u8]) {
    let mut written = Vec::new();
    let mut count = 0;
    for frame in frames(data) {
        let Ok(frame) = frame else { break };
        if let Frame::Ack(ack) = &frame {
            let mut above = None;
            for range in ack.ranges() {
                assert!(range.start() <= range.end() && *range.end() <= ack.largest);
                assert!(above.is_none_or(|above| *range.end() < above));
                above = Some(*range.start());
            }
        }
        let before = written.len();
        frame.encode(&mut written);
        assert_eq!(written.len() - before, frame.encoded_len());
        assert_eq!(frames(&written[before..]).next(), Some(Ok(frame)));
        count += 1;
    }
    assert_eq!(frames(&written).count(), count);
}

/// Reads control messages; those that are understood are the same when written and read again
pub fn fuzz_control(data: &[u8]) {
    if let Ok(message) = Message::decode(data) {
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
    if let Ok(register) = Register::decode(data) {
        assert_eq!(Register::decode(&register.encode()), Ok(register));
    }
    if let Ok(reply) = Reply::decode(data) {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
}

/// Reads inner packets, and gives them to a node as from its TUN
pub fn fuzz_packet(data: &[u8]) {
    if let Ok(packet) = Packet::parse(data) {
        let _ = (packet.src(), packet.dst(), packet.protocol(), packet.payload());
        let _ = fastvpn_proto::ip::icmp::quoted(&packet);
    }
    let now = Instant::ZERO + Duration::from_secs(1);
    let mut node = node(0, Admission::Known);
    node.handle_packet(data, None, now);
    let mut inner = Inner::from(data.to_vec());
    let _ = merge(&mut inner, data);
    Parcel::from(inner).each(&mut Vec::new(), |_| {});
    for (size, transport) in [(1, 20), (100, 20), (1, 40), (100, 40)] {
        let gso = Some(Gso { size, transport });
        node.handle_packet(data, gso, now);
        let mut inner = Inner { bytes: data.to_vec(), gso };
        let _ = merge(&mut inner, data);
        Parcel::from(inner).each(&mut Vec::new(), |_| {});
    }
    drain_into_nothing(&mut node, now);
}

/// Lets a member of the network say anything under its seals
///
/// The input is a sequence of messages: the path's number with the step of its count, the time that
/// passes, the length of the frames in two bytes, the frames.
pub fn fuzz_member(data: &[u8]) {
    let mut rogue = Rogue::new();
    let mut rest = data;
    while let Some(([path, pause, high, low], tail)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(8_000);
        let (frames, tail) = tail.split_at(tail.len().min(len));
        rest = tail;
        rogue.say(path & 7, u64::from(path >> 3), frames);
        rogue.pass(Duration::from_millis(u64::from(*pause) * 4));
    }
    rogue.pass(Duration::from_secs(30));
}

/// Plays operations on two nodes and the messages between them
///
/// Each operation is two bytes: what, and with which argument. Whatever the network does, what
/// arrives was sent, at most once, and control messages keep their order.
pub fn fuzz_session(data: &[u8]) {
    let mut pair = Pair::new();
    for operation in data.chunks_exact(2).take(2_000) {
        pair.play(operation[0], operation[1]);
    }
    // whatever happened: with a network that works again, the two find each other again
    pair.settle();
}

/// A member that keeps to the handshake, and to nothing else
struct Rogue {
    node: Node,
    /// What it seals with
    keys: Established,
    counts: [u64; 8],
    now: Instant,
}

impl Rogue {
    fn new() -> Self {
        let mut now = Instant::ZERO + Duration::from_secs(1);
        let mut node = node(0, Admission::Known);
        let key = PrivateKey::from_bytes([9; 32]);
        for (member, key) in [(8, key.public_key()), (7, PublicKey::from_bytes([3; 32]))] {
            let config = PeerConfig {
                key,
                prefixes: vec![Prefix::host(overlay(member))],
                endpoints: Vec::new(),
                carrier: Choice::Udp,
                tcp: None,
                relay: None,
                contact: Contact::Await,
                hello: Vec::new(),
                boot: None,
            };
            node.handle_command(Command::SetPeer(config), now);
        }
        let network_key = NetworkKey::from_bytes([7; 32]);
        let local = Local::new(key, network_key, BootId([9; 8]), Cipher::Aes256Gcm);
        let mut initiator = Initiator::new(&local, node.public_key(), Vec::new(), None, now);
        let mut chance = ChaCha20Rng::from_seed([9; 32]);
        let init = initiator.poll(&local, &mut 0, &mut chance, 1, now);
        now += Duration::from_millis(10);
        let mut init = init.expect("the first init is due at once");
        node.handle_message(Self::arrival(), &mut init, now);
        let mut buffer = Vec::new();
        assert!(node.poll_transmit(&mut buffer, now).is_some(), "a member is answered");
        let keys = initiator.handle_response(&local, &buffer, now).expect("a good response");
        Self { node, keys, counts: [0; 8], now }
    }

    fn say(&mut self, path: u8, step: u64, frames: &[u8]) {
        let count = &mut self.counts[usize::from(path)];
        *count += step;
        let header = DataHeader { receiver: self.keys.remote_index, number: number(path, *count) };
        let mut message = header.encode().to_vec();
        let tag = {
            let mut body = frames.to_vec();
            let tag = self.keys.seal.seal(header.number, &message, &mut body);
            message.extend(body);
            tag
        };
        message.extend(tag);
        self.node.handle_message(Self::arrival(), &mut message, self.now);
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        while let Some((due, why)) = self.node.deadline().filter(|(due, _)| *due <= end) {
            turns = if due > self.now { 0 } else { turns + 1 };
            assert!(turns < 64, "a busy loop for {why:?}");
            self.now = self.now.max(due);
            self.node.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        let mut buffer = Vec::new();
        let mut bytes = 0;
        while let Some(transmit) = self.node.poll_transmit(&mut buffer, self.now) {
            assert_eq!(transmit.remote, Self::arrival().remote, "a message to somebody else");
            bytes += buffer.len();
            assert!(bytes < 1 << 20, "a flood");
        }
        while let Some(packet) = self.node.poll_packet() {
            let source = packet.view().map(|packet| packet.src());
            assert_eq!(source, Ok(overlay(8)), "a packet with the source of another");
        }
        while self.node.poll_event().is_some() {}
    }

    fn arrival() -> Arrival {
        Arrival { carrier: Carrier::Udp, remote: address(8), local: None, ecn: Ecn::Incapable }
    }
}

/// Two nodes that know each other, and the messages on their way
struct Pair {
    nodes: [Node; 2],
    keys: [PublicKey; 2],
    addresses: [SocketAddr; 2],
    now: Instant,
    /// Messages to each node, with the sender's address
    wires: [Vec<(SocketAddr, Vec<u8>)>; 2],
    /// Packets on their way: to whom
    packets: BTreeMap<u64, usize>,
    next_packet: u64,
    /// Control messages written to each node, and how many arrived
    written: [(u32, u32); 2],
    fresh: u16,
}

impl Pair {
    fn new() -> Self {
        let mut nodes = [node(0, Admission::Known), node(1, Admission::Known)];
        let keys = [nodes[0].public_key(), nodes[1].public_key()];
        let addresses = [address(0), address(1)];
        let now = Instant::ZERO + Duration::from_secs(1);
        for (index, node) in nodes.iter_mut().enumerate() {
            let other = 1 - index;
            let config = PeerConfig {
                key: keys[other],
                prefixes: vec![Prefix::host(overlay(other))],
                endpoints: vec![addresses[other]],
                carrier: Choice::Udp,
                tcp: None,
                relay: None,
                contact: Contact::Always,
                hello: Vec::new(),
                boot: None,
            };
            node.handle_command(Command::SetPeer(config), now);
        }
        let mut pair = Self {
            nodes,
            keys,
            addresses,
            now,
            wires: [Vec::new(), Vec::new()],
            packets: BTreeMap::new(),
            next_packet: 0,
            written: [(0, 0); 2],
            fresh: 100,
        };
        pair.drain(0);
        pair.drain(1);
        pair
    }

    fn play(&mut self, operation: u8, argument: u8) {
        let who = usize::from(argument & 1);
        let which = usize::from(argument >> 1);
        match operation % 12 {
            0 => self.deliver(who, 0, Fate::Once),
            1 => self.deliver(who, which, Fate::Once),
            2 => self.deliver(who, which, Fate::Again),
            3 => self.deliver(who, which, Fate::Damaged),
            4 if !self.wires[who].is_empty() => {
                let index = which % self.wires[who].len();
                self.wires[who].remove(index);
            }
            4 => {}
            5 => self.send_packet(who, PACKET_LEAST + which * 12),
            6 => self.write(who, which * 40),
            7 => self.pass(Duration::from_millis(u64::from(argument))),
            8 => self.pass(Duration::from_secs(u64::from(argument))),
            9 => {
                // only one of them moves: two that move at once need a third to meet again
                self.fresh += 1;
                self.addresses[0] = address(self.fresh);
            }
            10 => self.input(who, |node, now| node.handle_command(Command::PathsChanged, now)),
            _ => {
                let (peer, to) = (self.keys[1 - who], self.addresses[1 - who]);
                self.input(who, |node, _| node.handle_too_big(&peer, to, 1_232 + which));
            }
        }
    }

    /// Lets the network work for a while; a packet each way must arrive then
    fn settle(&mut self) {
        for _ in 0..1_500 {
            for who in 0..2 {
                while !self.wires[who].is_empty() {
                    self.deliver(who, 0, Fate::Once);
                }
            }
            self.pass(Duration::from_millis(100));
        }
        let first = self.next_packet;
        self.send_packet(0, 200);
        self.send_packet(1, 200);
        for who in [0, 1, 0, 1] {
            while !self.wires[who].is_empty() {
                self.deliver(who, 0, Fate::Once);
            }
        }
        for id in first..self.next_packet {
            assert!(!self.packets.contains_key(&id), "packet {id} did not arrive at the end");
        }
    }

    fn send_packet(&mut self, who: usize, len: usize) {
        let id = self.next_packet;
        self.next_packet += 1;
        self.packets.insert(id, 1 - who);
        let packet = build(id, overlay(who), overlay(1 - who), len);
        self.input(who, |node, now| node.handle_packet(&packet, None, now));
    }

    fn write(&mut self, who: usize, len: usize) {
        let (written, _) = &mut self.written[1 - who];
        let mut message = written.to_be_bytes().to_vec();
        *written += 1;
        message.resize(4 + len, 0);
        let peer = self.keys[1 - who];
        self.input(who, |node, now| node.handle_command(Command::Send { peer, message }, now));
    }

    fn deliver(&mut self, who: usize, which: usize, fate: Fate) {
        if self.wires[who].is_empty() {
            return;
        }
        let index = which % self.wires[who].len();
        let (remote, mut bytes) = match fate {
            Fate::Once => self.wires[who].remove(index),
            Fate::Again | Fate::Damaged => self.wires[who][index].clone(),
        };
        if fate == Fate::Damaged {
            let place = which * 7 % bytes.len();
            bytes[place] ^= 1 << (which % 8);
        }
        let local = Some(self.addresses[who].ip());
        self.input(who, |node, now| {
            node.handle_message(
                Arrival { carrier: Carrier::Udp, remote, local, ecn: Ecn::Congested },
                &mut bytes,
                now,
            );
        });
    }

    /// Lets time pass, with all timeouts at their time
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = |node: &Node| node.deadline().map(|(due, _)| due);
            let next = self.nodes.iter().enumerate().filter_map(|(who, n)| Some((due(n)?, who)));
            let Some((due, who)) = next.min().filter(|(due, _)| *due <= end) else { break };
            self.now = self.now.max(due);
            self.input(who, |node, now| node.handle_timeout(now));
            let later = self.nodes[who].deadline();
            assert!(later.is_none_or(|(due, _)| due > self.now), "{later:?} at {:?}", self.now);
        }
        self.now = end;
    }

    fn input(&mut self, who: usize, act: impl FnOnce(&mut Node, Instant)) {
        act(&mut self.nodes[who], self.now);
        self.drain(who);
    }

    fn drain(&mut self, who: usize) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.nodes[who].poll_transmit(&mut buffer, self.now) {
            let target = self.addresses.iter().position(|addr| *addr == transmit.remote);
            for message in buffer.chunks(transmit.segment.unwrap_or(buffer.len())) {
                if let Some(target) = target.filter(|target| self.wires[*target].len() < 256) {
                    self.wires[target].push((self.addresses[who], message.to_vec()));
                }
            }
        }
        while let Some(packet) = self.nodes[who].poll_packet() {
            packet.each(&mut Vec::new(), |packet| {
                let Some(id) = id_of(packet) else { return };
                assert_eq!(self.packets.remove(&id), Some(who), "packet {id} twice or astray");
                assert_eq!(packet, build(id, overlay(1 - who), overlay(who), packet.len()));
            });
        }
        while let Some(event) = self.nodes[who].poll_event() {
            if let Event::Control { message, .. } = event {
                let number = message.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                let (written, arrived) = &mut self.written[who];
                let number = number.expect("four bytes at least were written");
                assert!(number >= *arrived && number < *written, "message {number} out of order");
                *arrived = number + 1;
            }
        }
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Fate {
    Once,
    Again,
    Damaged,
}

fn drain_into_nothing(node: &mut Node, now: Instant) {
    let mut buffer = Vec::new();
    while node.poll_transmit(&mut buffer, now).is_some() {}
    while node.poll_packet().is_some() {}
    while node.poll_event().is_some() {}
}

fn node(number: u8, admission: Admission) -> Node {
    let config = NodeConfig {
        private_key: PrivateKey::from_bytes([number + 1; 32]),
        network_key: NetworkKey::from_bytes([7; 32]),
        seed: [number; 32],
        aes: true,
        admission,
        relay: true,
        silence: Duration::from_secs(15),
        engine: fastvpn_proto::node::Engine::default(),
    };
    Node::new(config, Instant::ZERO + Duration::from_secs(1))
}

fn address(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, high, low)), 8_796)
}

fn overlay(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number as u8 + 1))
}
