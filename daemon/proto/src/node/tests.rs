//! Whole nodes on a perfect or lossy wire; the large suite is in the laboratory.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::{NetworkKey, PrivateKey};
use crate::ip::Prefix;

/// A few nodes and the wire between them
struct Net {
    now: Instant,
    nodes: Vec<Node>,
    addrs: Vec<SocketAddr>,
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    delay: Duration,
    /// Pairs of nodes that cannot hear one another directly
    blocked: Vec<(usize, usize)>,
    /// Drops each message whose number this divides
    lossy: Option<u64>,
    events: Vec<Vec<Event>>,
    packets: Vec<Vec<Vec<u8>>>,
}

impl Net {
    fn new(count: u8) -> Self {
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
            lossy: None,
            events: vec![Vec::new(); count.into()],
            packets: vec![Vec::new(); count.into()],
        }
    }

    fn peer(&self, of: usize, contact: Contact) -> PeerConfig {
        PeerConfig {
            key: self.nodes[of].public_key(),
            prefixes: vec![Prefix::host(overlay(of))],
            endpoints: vec![self.addrs[of]],
            relay: None,
            contact,
            hello: b"hello".to_vec(),
            boot: None,
        }
    }

    fn command(&mut self, at: usize, command: Command) {
        self.nodes[at].handle_command(command, self.now);
        self.drain(at);
    }

    fn send(&mut self, from: usize, to: usize, id: u8) {
        self.nodes[from].handle_packet(&packet(overlay(from), overlay(to), id), self.now);
        self.drain(from);
    }

    fn drain(&mut self, at: usize) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.nodes[at].poll_transmit(&mut buffer, self.now) {
            let size = transmit.segment.unwrap_or(buffer.len());
            for message in buffer.chunks(size) {
                self.sent += 1;
                let to = self.addrs.iter().position(|addr| *addr == transmit.remote);
                let blocked = to.is_none_or(|to| self.blocked.contains(&(at.min(to), at.max(to))));
                if !blocked && self.lossy.is_none_or(|every| !self.sent.is_multiple_of(every)) {
                    let due = (self.now + self.delay, self.sent);
                    self.wire.insert(due, (self.addrs[at], transmit.remote, message.to_vec()));
                }
            }
        }
        while let Some(packet) = self.nodes[at].poll_packet() {
            self.packets[at].push(packet);
        }
        while let Some(event) = self.nodes[at].poll_event() {
            if let Event::Stranger { ticket, key, .. } = &event {
                let of = self.nodes.iter().position(|node| node.public_key() == *key);
                if let Some(of) = of {
                    let mut peer = self.peer(of, Contact::Await);
                    peer.endpoints.clear();
                    let reply = b"welcome".to_vec();
                    let admit = Command::Admit { ticket: *ticket, peer, reply };
                    self.nodes[at].handle_command(admit, self.now);
                    self.drain(at);
                }
            }
            self.events[at].push(event);
        }
        if let Some((deadline, why)) = self.nodes[at].deadline() {
            assert!(deadline >= self.now, "{why:?} is due at {deadline:?}, now {:?}", self.now);
        }
    }

    fn run(&mut self, time: Duration) {
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
            let deadlines: Vec<_> = self.nodes.iter().map(Node::deadline).collect();
            assert!(idle < 1000, "busy at {next:?}: {deadlines:?}");
            self.now = next;
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= next) {
                let (from, to, mut bytes) = entry.remove();
                let Some(at) = self.addrs.iter().position(|addr| *addr == to) else { continue };
                let arrival = Arrival { remote: from, local: None };
                self.nodes[at].handle_message(arrival, &mut bytes, self.now);
                self.drain(at);
            }
            for at in 0..self.nodes.len() {
                if self.nodes[at].deadline().is_some_and(|(due, _)| due <= next) {
                    self.nodes[at].handle_timeout(self.now);
                    self.drain(at);
                }
            }
        }
        self.now = end;
    }

    /// A hub and two peers that know it and each other
    fn triangle() -> Self {
        let mut net = Self::new(3);
        let hub = net.peer(0, Contact::Always);
        for at in 1..3 {
            net.command(at, Command::SetPeer(hub.clone()));
        }
        for (at, other) in [(1, 2), (2, 1)] {
            let mut peer = net.peer(other, Contact::OnDemand);
            peer.relay = Some(hub.key);
            net.command(at, Command::SetPeer(peer));
        }
        net
    }

    fn ups(&self, at: usize) -> usize {
        self.events[at].iter().filter(|event| matches!(event, Event::SessionUp { .. })).count()
    }

    fn way(&self, at: usize, to: usize) -> Option<Way> {
        let stats = self.nodes[at].stats(self.now);
        let key = self.nodes[to].public_key();
        stats.peers.iter().find(|peer| peer.key == key)?.path.map(|path| path.way)
    }

    fn received(&self, at: usize) -> Vec<u8> {
        self.packets[at].iter().map(|packet| packet[20]).collect()
    }
}

fn node(id: u8, seed: u8, hub: bool) -> Node {
    let config = NodeConfig {
        private_key: PrivateKey::from_bytes([id + 1; 32]),
        network_key: NetworkKey::default(),
        seed: [seed; 32],
        aes: true,
        admission: if hub { Admission::Ask } else { Admission::Known },
        relay: hub,
        silence: Duration::from_secs(15),
    };
    Node::new(config, Instant::ZERO)
}

fn overlay(id: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(id).unwrap()])
}

fn packet(src: IpAddr, dst: IpAddr, id: u8) -> Vec<u8> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) else { unreachable!() };
    let mut packet = vec![0; 1400];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&1400u16.to_be_bytes());
    packet[12..16].copy_from_slice(&src.octets());
    packet[16..20].copy_from_slice(&dst.octets());
    packet[20] = id;
    packet
}

#[test]
fn a_packet_is_answered_by_a_session_and_arrives() {
    let mut net = Net::triangle();
    net.run(Duration::from_secs(1));
    assert_eq!((net.ups(0), net.ups(1)), (2, 1));

    net.send(1, 2, 7);
    net.run(Duration::from_millis(35));

    assert_eq!(net.received(2), [7]);
    assert_eq!(net.way(1, 2), Some(Way::Direct(net.addrs[2])));
}

#[test]
fn keys_change_without_a_lost_packet() {
    let mut net = Net::triangle();
    for count in 0..6000u32 {
        net.send(1, 2, count as u8);
        net.run(Duration::from_millis(100));
    }

    let expected: Vec<u8> = (0..6000u32).map(|count| count as u8).collect();
    assert_eq!(net.received(2).len(), 6000);
    assert_eq!(net.received(2), expected);
    assert_eq!((net.ups(1), net.ups(2)), (2, 2));
    let stats = net.nodes[1].stats(net.now);
    assert!(stats.peers.iter().all(|peer| {
        peer.last_handshake.is_some_and(|at| net.now.since(at) < Duration::from_secs(125))
    }));
}

#[test]
fn a_peer_without_a_direct_way_is_reached_through_the_hub_and_back_again() {
    let mut net = Net::triangle();
    net.blocked.push((1, 2));
    net.run(Duration::from_secs(1));

    net.send(1, 2, 1);
    net.run(Duration::from_secs(1));
    assert_eq!(net.received(2), [1]);
    assert!(matches!(net.way(1, 2), Some(Way::Relayed(_))));

    net.blocked.clear();
    net.run(Duration::from_secs(60));
    assert!(matches!(net.way(1, 2), Some(Way::Direct(_))));
    net.send(1, 2, 2);
    net.run(Duration::from_secs(1));
    assert_eq!(net.received(2), [1, 2]);

    net.blocked.push((1, 2));
    for id in 3..13 {
        net.send(1, 2, id);
        net.run(Duration::from_secs(1));
    }
    assert!(matches!(net.way(1, 2), Some(Way::Relayed(_))), "{:?}", net.way(1, 2));
    assert_eq!(net.received(2).last(), Some(&12));
}

#[test]
fn a_new_address_is_proven_and_taken() {
    let mut net = Net::triangle();
    net.send(1, 2, 1);
    net.run(Duration::from_secs(2));

    net.addrs[1] = SocketAddr::from(([198, 51, 100, 1], 1234));
    net.command(1, Command::PathsChanged);
    net.run(Duration::from_millis(25));
    net.send(2, 1, 2);
    net.run(Duration::from_millis(45));

    assert_eq!(net.way(2, 1), Some(Way::Direct(net.addrs[1])));
    assert_eq!(net.way(0, 1), Some(Way::Direct(net.addrs[1])));
    net.send(2, 1, 3);
    net.run(Duration::from_millis(15));
    assert_eq!(net.received(1).last(), Some(&3));
}

#[test]
fn a_restarted_node_is_found_by_whoever_sends_to_it() {
    let mut net = Net::triangle();
    net.send(1, 2, 1);
    net.run(Duration::from_secs(5));

    net.nodes[2] = node(2, 77, false);
    let mut hub = net.peer(0, Contact::Always);
    hub.hello = b"again".to_vec();
    let mut peer = net.peer(1, Contact::OnDemand);
    peer.relay = Some(hub.key);
    net.command(2, Command::SetPeer(hub));
    net.command(2, Command::SetPeer(peer));
    for id in 2..8 {
        net.send(1, 2, id);
        net.run(Duration::from_secs(1));
    }

    assert_eq!(net.received(2).last(), Some(&7));
    let restarted =
        |event: &&Event| matches!(event, Event::SessionDown { reason: DownReason::Restarted, .. });
    assert_eq!(net.events[1].iter().filter(restarted).count(), 1);
}

#[test]
fn control_messages_arrive_in_order_on_a_lossy_wire() {
    let mut net = Net::triangle();
    net.lossy = Some(4);
    net.run(Duration::from_secs(5));
    let peer = net.nodes[1].public_key();

    for count in 0..200u8 {
        net.command(0, Command::Send { peer, message: vec![count; 3000] });
    }
    net.run(Duration::from_secs(30));

    let control = net.events[1].iter().filter_map(|event| match event {
        Event::Control { message, .. } => Some(message[0]),
        _ => None,
    });
    assert_eq!(control.collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
}

#[test]
fn a_ping_is_answered_or_lost() {
    let mut net = Net::triangle();
    net.run(Duration::from_secs(1));
    let (peer, timeout) = (net.nodes[0].public_key(), Duration::from_secs(1));

    net.command(1, Command::Ping { peer, id: 5, timeout });
    net.run(Duration::from_secs(1));
    net.blocked.push((0, 1));
    net.command(1, Command::Ping { peer, id: 6, timeout });
    net.run(Duration::from_secs(2));

    let pong = Event::Pong { peer, id: 5, rtt: Duration::from_millis(20) };
    assert!(net.events[1].contains(&pong), "{:?}", net.events[1]);
    assert!(net.events[1].contains(&Event::PingLost { peer, id: 6 }));
}

#[test]
fn a_session_survives_minutes_of_silence() {
    let mut net = Net::triangle();
    net.send(1, 2, 1);
    net.run(Duration::from_secs(5));

    net.blocked = vec![(0, 1), (1, 2)];
    net.run(Duration::from_secs(600));
    net.blocked.clear();
    net.run(Duration::from_secs(10));
    net.send(2, 1, 2);
    net.run(Duration::from_secs(1));

    assert_eq!(net.received(1), [2]);
    assert_eq!((net.ups(1), net.ups(2)), (2, 2));
    let silent = net.events[0].iter().filter(|event| matches!(event, Event::Silent { .. })).count();
    assert_eq!(silent, 1);
}

#[test]
fn a_source_that_is_not_the_senders_is_refused() {
    let mut net = Net::triangle();
    net.run(Duration::from_secs(1));

    net.nodes[1].handle_packet(&packet(overlay(0), overlay(2), 9), net.now);
    net.drain(1);
    net.run(Duration::from_secs(1));

    assert_eq!(net.received(2), []);
    assert_eq!(net.nodes[2].stats(net.now).refusals.of(Refusal::Source), 1);
}
