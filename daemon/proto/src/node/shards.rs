//! Tests of nodes in shards: what no test of a whole node would see.

use super::testing::{Net, millis, node, overlay, packet, secs, segment_with};
use super::*;
use crate::ip::{Prefix, numbers};

/// Two nodes in shards that know each other over one carrier, and what they have told
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) nodes: [Fleet; 2],
    /// Which carrier brings everything, at once
    pub(super) carrier: Carrier,
    /// Whether whoever should be at the other end of its connection was seen to be there
    pub(super) proved: [bool; 2],
    pub(super) events: [Vec<Event>; 2],
    pub(super) packets: [usize; 2],
}

impl Pair {
    pub(super) fn new(carrier: Carrier) -> Self {
        let now = Instant::ZERO + secs(1000);
        // Both in three shards, and neither belongs to the other's first one.
        let [one, other] = OTHERS;
        let nodes = [node(one, 1, false), node(other, 2, false)];
        let mut pair = Self {
            now,
            nodes,
            carrier,
            proved: [false; 2],
            events: Default::default(),
            packets: [0; 2],
        };
        for at in [0, 1] {
            let peer = pair.peer(1 - at);
            pair.nodes[at].handle_command(&Command::SetPeer(peer), now);
        }
        pair
    }

    pub(super) fn peer(&self, of: usize) -> PeerConfig {
        PeerConfig {
            key: self.nodes[of].public_key(),
            prefixes: vec![Prefix::host(overlay(of))],
            endpoints: vec![addr(of)],
            carrier: match self.carrier {
                Carrier::Udp => Choice::Udp,
                Carrier::Tcp => Choice::Tcp,
                Carrier::Kcp => Choice::Kcp,
            },
            tcp: None,
            relay: None,
            contact: Contact::OnDemand,
            hello: Vec::new(),
            boot: None,
        }
    }

    pub(super) fn send(&mut self, from: usize) {
        let packet = packet(overlay(from), overlay(1 - from), 7);
        self.nodes[from].handle_packet(&packet, None, self.now);
    }

    /// Lets time pass; whatever is sent arrives at once
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            for at in [0, 1] {
                self.nodes[at].handle_timeout(self.now);
                self.drain(at);
            }
            self.now += millis(1);
        }
    }

    pub(super) fn drain(&mut self, at: usize) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.nodes[at].poll_transmit(&mut buffer, self.now) {
            assert_eq!(transmit.carrier, self.carrier);
            if self.carrier != Carrier::Udp {
                let (remote, len) = (transmit.remote, buffer.len());
                self.nodes[at].handle_writable(self.carrier, remote, len, self.now);
            }
            let arrival = Arrival {
                carrier: self.carrier,
                remote: addr(at),
                local: None,
                ecn: Ecn::Incapable,
            };
            for message in buffer.chunks_mut(transmit.segment.unwrap_or(usize::MAX)) {
                let credential = self.nodes[1 - at].handle_message(arrival, message, self.now);
                self.proved[1 - at] |= credential == Credential::Identity;
            }
        }
        while self.nodes[at].poll_packet().is_some() {
            self.packets[at] += 1;
        }
        while let Some(event) = self.nodes[at].poll_event() {
            self.events[at].push(event);
        }
    }
}

/// Numbers of two nodes, see [`node`]
const OTHERS: [u8; 2] = [5, 11];

pub(super) fn addr(of: usize) -> SocketAddr {
    ([192, 0, 2, of as u8 + 1], 8796).into()
}

#[test]
fn stream_carriers_are_with_the_first_shard_and_serve_the_peers_of_all() {
    for carrier in [Carrier::Udp, Carrier::Tcp, Carrier::Kcp] {
        let mut pair = Pair::new(carrier);
        for at in [0, 1] {
            let key = pair.nodes[1 - at].public_key();
            let mut shards = pair.nodes[at].shards();
            assert!(shards.next().is_some_and(|first| !first.keeps(&key)) && shards.count() == 2);
        }
        pair.send(0);
        pair.run(secs(1));
        assert!(pair.packets == [0, 1] && pair.proved[1], "{carrier}");

        // More than may be under way unless somebody tells what was written.
        for _ in 0..3000 {
            pair.send(0);
            pair.send(1);
            pair.run(millis(1));
        }
        pair.run(secs(1));
        assert_eq!(pair.packets, [3000, 3001], "{carrier}");
    }
}

#[test]
fn connection_of_a_stream_carrier_that_broke_is_news_to_the_shard_that_used_it() {
    let mut pair = Pair::new(Carrier::Tcp);
    pair.send(0);
    pair.run(secs(1));
    let key = pair.nodes[1].public_key();
    let shard = pair.nodes[0].shard_of(&key);
    let way = Way::Stream(Carrier::Tcp, addr(1));
    let has = |shard: &Node| shard.peers.get(&key).unwrap().session.as_ref().unwrap().has_way(way);
    assert!(has(shard));

    let now = pair.now;
    pair.nodes[0].handle_broken(Carrier::Tcp, addr(1), now);
    pair.proved = [false; 2];
    pair.send(0);
    pair.run(secs(3));

    assert_eq!(pair.packets[1], 2);
    assert!(pair.proved[0], "who is there now is proven anew");
}

#[test]
fn shards_have_one_identity_and_nothing_else_that_is_drawn() {
    let mut node = node(2, 7, false);
    let count = node.shards().count();
    assert_eq!(count, 3);

    let boots: BTreeSet<_> = node.shards().map(Node::boot_id).collect();
    let keys: BTreeSet<_> = node.shards().map(Node::public_key).collect();
    let mut drawn = BTreeSet::new();
    for first in 0..=255 {
        let shard = node.shard_of(&PublicKey::from_bytes([first; 32]));
        drawn.insert(shard.rng.next_u64());
    }

    assert_eq!((boots.len(), keys.len(), drawn.len()), (1, 1, 256));
}

#[test]
fn queue_of_the_device_is_wanted_by_shards_with_routes_and_by_the_first_where_nobody_has_any() {
    let mut pair = Pair::new(Carrier::Udp);
    let routed = |fleet: &mut Fleet| -> Vec<bool> {
        (0..=255)
            .map(|first| fleet.shard_of(&PublicKey::from_bytes([first; 32])).is_routed())
            .take(3)
            .collect()
    };
    let own = |pair: &Pair| {
        let key = pair.nodes[1].public_key();
        pair.nodes[0].shards().map(|shard| shard.keeps(&key)).collect::<Vec<_>>()
    };
    assert_eq!(routed(&mut pair.nodes[0]), own(&pair));

    let mut peer = pair.peer(1);
    peer.prefixes.clear();
    pair.nodes[0].handle_command(&Command::SetPeer(peer), pair.now);
    assert_eq!(routed(&mut pair.nodes[0]), [true, false, false]);
    let peer = pair.peer(1);
    pair.nodes[0].handle_command(&Command::SetPeer(peer.clone()), pair.now);
    assert_eq!(routed(&mut pair.nodes[0]), own(&pair));
    pair.nodes[0].handle_command(&Command::RemovePeer(peer.key), pair.now);
    assert_eq!(routed(&mut pair.nodes[0]), [true, false, false]);
}

/// Has node 2, which is in three shards, begin a connection with node 1, and then sends what is for it to somebody else
/// who belongs to another shard
fn stray() -> (Net, PeerConfig) {
    let mut net = Net::triangle();
    net.run(secs(1));
    say(&mut net, [2, 1], [100, 0], numbers::SYN);
    net.run(secs(1));
    say(&mut net, [1, 2], [900, 101], numbers::SYN | numbers::ACK);
    say(&mut net, [2, 1], [101, 901], numbers::ACK);
    assert_eq!(net.nodes[2].stats(net.now).connections, 1);
    let mut before = net.peer(1, Contact::OnDemand);
    let owner = shard_of(&before.key, 3);
    let mut keys = (0..3).map(|first| PublicKey::from_bytes([first; 32]));
    let key = keys.find(|key| shard_of(key, 3) != owner).unwrap();
    let other =
        PeerConfig { key, prefixes: std::mem::take(&mut before.prefixes), ..before.clone() };
    net.command(2, Command::SetPeer(before));
    net.command(2, Command::SetPeer(other.clone()));
    (net, other)
}

fn say(net: &mut Net, way: [usize; 2], numbers: [u32; 2], flags: u8) {
    net.say(way, numbers, flags);
    net.run(millis(100));
}

#[test]
fn connection_stays_with_its_peer_when_routes_lead_to_one_of_another_shard() {
    let (mut net, other) = stray();
    net.packets[1].clear();

    // It comes to whichever shard is next; all have to know.
    for _ in 0..6 {
        say(&mut net, [2, 1], [101, 901], numbers::ACK | numbers::FIN);
    }

    let finished = |packet: &Vec<u8>| packet[9] == numbers::TCP && packet[33] & numbers::FIN != 0;
    assert!(net.packets[1].iter().any(finished));
    let stats = net.nodes[2].stats(net.now);
    let other = stats.peers.iter().find(|peer| peer.key == other.key).unwrap();
    assert_eq!((stats.refusals.of(Refusal::NoRoute), other.sent.packets), (0, 0));
}

#[test]
fn shards_forget_strays_that_are_over_or_back() {
    let strays = |net: &Net| net.nodes[2].shards().map(|shard| shard.flows.strays()).sum::<usize>();
    let (mut net, other) = stray();
    assert_eq!(strays(&net), 2, "the two other shards know of it");
    net.command(2, Command::RemovePeer(other.key));
    assert_eq!(strays(&net), 2, "there is no route at all");
    net.command(2, Command::SetPeer(net.peer(1, Contact::OnDemand)));
    net.nodes[2].handle_packet(&packet(overlay(2), overlay(1), 0), None, net.now);
    net.drain(2);
    assert_eq!(strays(&net), 0, "back");

    let (mut net, _) = stray();
    say(&mut net, [2, 1], [101, 901], numbers::RST);
    net.run(secs(60));
    assert_eq!((strays(&net), net.nodes[2].stats(net.now).connections), (0, 0), "over");

    let (mut net, _) = stray();
    let peer = net.nodes[1].public_key();
    net.command(2, Command::RemovePeer(peer));
    assert_eq!(strays(&net), 0, "forgotten for good");
}

#[test]
fn room_of_super_packets_that_were_handed_over_is_for_such_again() {
    let mut pair = Pair::new(Carrier::Udp);
    pair.send(0);
    pair.run(secs(1));
    let data = vec![7; 60_000];
    let packet = segment_with([0, 1], [1, 1], numbers::ACK, &data);
    let gso = Some(Gso { size: 1000, transport: 20 });

    // It comes to each of the shards by turns.
    for _ in 0..30 {
        pair.nodes[0].handle_packet(&packet, gso, pair.now);
        pair.run(millis(100));
    }

    for first in 0..3 {
        let shard = pair.nodes[0].shard_of(&PublicKey::from_bytes([first; 32]));
        let free = core::iter::repeat_with(|| shard.shared.buffers.take().capacity());
        assert!(free.take(1000).all(|room| room < data.len()));
    }
}
