//! A packet of one peer each way through a node that has more and more peers: what it costs must not change
//! much.

use std::net::{Ipv4Addr, SocketAddr};
use std::slice::from_mut;

use criterion::{BenchmarkId, Criterion};
use fastvpn_proto::crypto::{NetworkKey, PrivateKey};
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::ip::numbers::UDP;
use fastvpn_proto::node::{
    Admission, Arrival, Carrier, Choice, Command, Contact, Ecn, Engine, Node, NodeConfig,
    PeerConfig,
};
use fastvpn_proto::time::{Duration, Instant};

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peers");
    for count in [1, 100, 10_000] {
        let (mut net, mut asked, mut sent) = (Net::connected(count), 0, 0);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                asked += 1;
                sent += u32::from(net.exchange());
            });
        });
        assert!(sent >= asked / 20 * 19, "{sent} of {asked} packets left at once");
    }
    group.finish();
}

/// A hub that has a session with each of its peers, and the one of these that goes on
struct Net {
    hub: Node,
    peer: Node,
    now: Instant,
    /// What the hub sends to the peer, and the peer to the hub
    packets: [Vec<u8>; 2],
    buffer: Vec<u8>,
}

impl Net {
    fn connected(count: u32) -> Self {
        let mut now = Instant::ZERO + Duration::from_secs(1);
        let mut hub = node(HUB, now);
        let mut peers: Vec<Node> = (1..=count).map(|number| node(number, now)).collect();
        for (number, peer) in (1..).zip(&mut peers) {
            let known = config(&hub, HUB, Contact::Await);
            peer.handle_command(Command::SetPeer(known), now);
            let known = config(peer, number, Contact::Always);
            hub.handle_command(Command::SetPeer(known), now);
        }
        let mut buffer = Vec::new();
        for _ in 0..SETTLING {
            now += Duration::from_millis(20);
            wake(&mut hub, now);
            drain((&mut hub, HUB), (&mut peers, 1), &mut buffer, now);
            for (number, peer) in (1..).zip(&mut peers) {
                wake(peer, now);
                drain((peer, number), (from_mut(&mut hub), HUB), &mut buffer, now);
            }
        }
        let peer = peers.swap_remove(0);
        let stats = hub.stats(now).peers;
        let sessions = stats.iter().filter(|peer| peer.path.is_some()).count();
        assert_eq!(sessions, count as usize, "all have a session");
        let packets = [packet(HUB, 1), packet(1, HUB)];
        let mut net = Self { hub, peer, now, packets, buffer };
        // Until the way between them is known to carry so much.
        let mut in_a_row = 0;
        while in_a_row < 1000 {
            in_a_row = if net.exchange() { in_a_row + 1 } else { 0 };
        }
        net
    }

    /// Carries a packet each way; tells whether both have left at once
    fn exchange(&mut self) -> bool {
        // The others must not be missed while this is measured: they are silent for so long.
        self.now += Duration::from_micros(2);
        let (now, buffer) = (self.now, &mut self.buffer);
        let (hub, peer) = (&mut self.hub, &mut self.peer);
        wake(hub, now);
        hub.handle_packet(&self.packets[0], None, now);
        let there = drain((hub, HUB), (from_mut(peer), 1), buffer, now);
        wake(peer, now);
        peer.handle_packet(&self.packets[1], None, now);
        let back = drain((peer, 1), (from_mut(hub), HUB), buffer, now);
        drain((hub, HUB), (from_mut(peer), 1), buffer, now);
        there && back
    }
}

/// Does what is due
fn wake(node: &mut Node, now: Instant) {
    if node.deadline().is_some_and(|(at, _)| at <= now) {
        node.handle_timeout(now);
    }
}

/// Takes all that a node has, and brings each message to whom it is for, where that is one of `others`, which
/// are numbered from `first` on; tells whether there was any
fn drain(
    (node, number): (&mut Node, u32),
    (others, first): (&mut [Node], u32),
    buffer: &mut Vec<u8>,
    now: Instant,
) -> bool {
    let mut any = false;
    while let Some(transmit) = node.poll_transmit(buffer, now) {
        any = true;
        let to = match transmit.remote {
            SocketAddr::V4(to) => to.ip().to_bits() - UNDERLAY,
            SocketAddr::V6(to) => unreachable!("{to}"),
        };
        let Some(other) = others.get_mut((to - first) as usize) else { continue };
        let remote = underlay(number);
        let arrival = Arrival { carrier: Carrier::Udp, remote, local: None, ecn: Ecn::Incapable };
        let size = transmit.segment.unwrap_or(buffer.len().max(1));
        for message in buffer.chunks_mut(size) {
            other.handle_message(arrival, message, now);
        }
    }
    while let Some(packet) = node.poll_packet() {
        node.give_back(packet);
    }
    while node.poll_event().is_some() {}
    any
}

fn node(number: u32, now: Instant) -> Node {
    let config = NodeConfig {
        private_key: PrivateKey::from_bytes(bytes(number)),
        network_key: NetworkKey::default(),
        seed: bytes(number),
        aes: true,
        admission: Admission::Known,
        relay: false,
        silence: Duration::from_secs(15),
        engine: Engine::default(),
    };
    Node::new(config, now)
}

fn bytes(number: u32) -> [u8; 32] {
    let mut bytes = [7; 32];
    // The lowest bits of a private key say nothing.
    bytes[1..5].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Says of a node how it is reached
fn config(node: &Node, number: u32, contact: Contact) -> PeerConfig {
    PeerConfig {
        key: node.public_key(),
        prefixes: vec![Prefix::host(overlay(number).into())],
        endpoints: vec![underlay(number)],
        carrier: Choice::Udp,
        tcp: None,
        relay: None,
        contact,
        hello: Vec::new(),
        boot: None,
    }
}

/// Makes a packet that is thin
fn packet(from: u32, to: u32) -> Vec<u8> {
    let mut packet = vec![0; 100];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 100, 0, 0, 0x40, 0, 64, UDP]);
    packet[12..16].copy_from_slice(&overlay(from).octets());
    packet[16..20].copy_from_slice(&overlay(to).octets());
    packet
}

fn overlay(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0001 + number)
}

fn underlay(number: u32) -> SocketAddr {
    (Ipv4Addr::from_bits(UNDERLAY + number), 8796).into()
}

/// Number of the hub; those of its peers follow
const HUB: u32 = 0;
/// Underlay address of the hub; those of its peers follow
const UNDERLAY: u32 = 0xc612_0001;
/// Turns until all have their paths, and nobody has anything to say
const SETTLING: u32 = 250;
