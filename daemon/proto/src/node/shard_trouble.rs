//! Tests of what goes wrong between shards, or is made to.

use super::shards::{Pair, addr};
use super::testing::{Net, config, millis, node, overlay, packet, secs};
use super::*;
use crate::ip::Prefix;
use crate::limits::MEMBER_INITS_BURST;
use crate::wire::message::{Kind, parse_kind};

#[test]
fn stream_carrier_goes_on_after_what_was_handed_over_got_lost_for_a_while() {
    for carrier in [Carrier::Tcp, Carrier::Kcp] {
        let mut pair = Pair::new(carrier);
        pair.send(0);
        pair.run(secs(1));
        assert_eq!(pair.packets, [0, 1]);

        pair.nodes[0].lose_handovers(true);
        for _ in 0..300 {
            pair.send(0);
            pair.run(millis(1));
        }
        pair.nodes[0].lose_handovers(false);
        assert!(pair.nodes[0].stats(pair.now).dropped > 0);
        pair.run(secs(3));
        let before = pair.packets[1];
        for _ in 0..300 {
            pair.send(0);
            pair.run(millis(1));
        }
        pair.run(secs(1));

        let came = pair.packets[1] - before;
        assert!(came >= 300, "{carrier}: {came}");
    }
}

#[test]
fn news_that_a_stream_carrier_broke_never_gets_lost() {
    let mut pair = Pair::new(Carrier::Tcp);
    pair.send(0);
    pair.run(secs(1));

    pair.nodes[0].lose_handovers(true);
    let now = pair.now;
    pair.nodes[0].handle_broken(Carrier::Tcp, addr(1), now);

    let key = pair.nodes[1].public_key();
    let session = pair.nodes[0].shard_of(&key).peers.get(&key).unwrap().session.as_ref().unwrap();
    assert!(!session.has_way(Way::Stream(Carrier::Tcp, addr(1))));
}

#[test]
fn ping_is_the_business_of_one_shard() {
    let mut pair = Pair::new(Carrier::Udp);
    let (peer, timeout) = (pair.nodes[1].public_key(), secs(1));

    pair.nodes[0].handle_command(&Command::Ping { peer, id: 7, timeout }, pair.now);
    pair.run(secs(3));

    let told = pair.events[0].iter();
    let told: Vec<_> =
        told.filter(|event| matches!(event, Event::Pong { .. } | Event::PingLost { .. })).collect();
    assert!(matches!(told[..], [Event::Pong { id: 7, .. }]), "{told:?}");
}

#[test]
fn message_that_names_another_shard_proves_nothing_by_that() {
    let mut pair = Pair::new(Carrier::Tcp);
    let arrival =
        Arrival { carrier: Carrier::Tcp, remote: addr(1), local: None, ecn: Ecn::Incapable };
    for index in 0..16 {
        let mut data = [0; 40];
        (data[0], data[7]) = (4, index);
        let proved = pair.nodes[0].handle_message(arrival, &mut data, pair.now);
        assert_eq!(proved, Credential::Nothing);
        let mut shards = Node::shards(&config(0, 0, false), 3, pair.now);
        let proved = shards[0].handle_message(arrival, &mut data, pair.now);
        assert!(proved <= Credential::Nothing, "{proved:?}");
    }
}

/// Three nodes, of which the last two do not hear one another, and the last one has them in different shards: a hub, a
/// peer of it, and one that knows the hub as `contact` says
fn behind_a_relay(contact: Contact) -> (Net, [usize; 3]) {
    let mut net = Net::new(9);
    let keys: Vec<_> = net.nodes.iter().map(Fleet::public_key).collect();
    let before = |one: usize, other: usize| shard_of(&keys[one], 2) < shard_of(&keys[other], 2);
    // That of the hub comes first.
    let (near, far) = ((4..9).find(|near| before(0, *near)).unwrap(), 3);
    assert_eq!(net.nodes[far].shards().count(), 2);
    net.blocked.push((far, near));
    let (hub, known) = (net.peer(0, Contact::Always), net.peer(0, contact));
    net.command(near, Command::SetPeer(hub));
    net.command(far, Command::SetPeer(known));
    net.send(far, 0, 1);
    net.introduce(far, near, 0);
    net.run(secs(2));
    (net, [0, near, far])
}

#[test]
fn what_a_relay_brings_comes_to_the_shard_of_its_origin() {
    let (mut net, [hub, near, far]) = behind_a_relay(Contact::Always);
    net.introduce(near, far, hub);

    net.send(near, far, 7);
    net.run(secs(2));
    net.send(far, near, 8);
    net.run(secs(2));

    assert_eq!((net.received(far), net.received(near)), (vec![7], vec![8]));
    assert!(net.nodes[hub].stats(net.now).relayed.packets > 1);
    assert_eq!(net.way(far, near), Some(Way::Relayed(net.nodes[hub].public_key())));
}

#[test]
fn relay_brings_nothing_to_another_shard_that_it_is_not_trusted_to() {
    let refused = |net: &Net, far: usize| net.nodes[far].stats(net.now).refusals;
    let strangers = |net: &Net, far: usize| {
        let events = net.events[far].iter();
        events.filter(|event| matches!(event, Event::Stranger { .. })).count()
    };
    // Of a peer that is said to have no relay, and of whom nobody has heard by a relay that is no hub of ours.
    for (contact, known) in [(Contact::Always, true), (Contact::OnDemand, false)] {
        let (mut net, [_, near, far]) = behind_a_relay(contact);
        if known {
            net.command(far, Command::SetPeer(net.peer(near, Contact::Await)));
        }
        net.send(near, far, 7);
        net.run(secs(3));

        assert!(refused(&net, far).of(Refusal::NotMember) > 0, "{contact:?}");
        assert!(net.received(far).is_empty() && net.ups(far) == 1);
        assert_eq!(strangers(&net, far), 0);
    }
    // The hub may bring a stranger.
    let (mut net, [_, near, far]) = behind_a_relay(Contact::Always);
    net.send(near, far, 7);
    net.run(secs(3));
    assert!(strangers(&net, far) > 0);
}

#[test]
fn hub_carries_nothing_from_or_for_who_has_no_addresses_yet_in_whichever_shard() {
    for emptied in [1, 2] {
        let (mut net, all) = behind_a_relay(Contact::Always);
        let [hub, near, far] = all;
        let mut peer = net.peer(near, Contact::OnDemand);
        peer.relay = Some(net.nodes[hub].public_key());
        net.command(far, Command::SetPeer(peer));
        let mut peer = net.peer(all[emptied], Contact::Await);
        peer.prefixes.clear();
        net.command(hub, Command::SetPeer(peer));
        let before = net.nodes[hub].stats(net.now);

        net.send(near, far, 7);
        net.run(secs(2));

        let stats = net.nodes[hub].stats(net.now);
        assert!(net.received(far).is_empty() && stats.relayed == before.relayed);
        let refused = |stats: &NodeStats| stats.refusals.of(Refusal::NotMember);
        // What comes from it is refused, and what is for it dropped.
        let counts = [refused(&stats) > refused(&before), stats.dropped > before.dropped];
        assert_eq!(counts, [emptied == 1, emptied == 2]);
    }
}

#[test]
fn tickets_of_all_shards_are_different() {
    let mut net = Net::new(9);
    let mut hub = Fleet::new(&config(0, 0, true), 3, net.now);
    let mut tickets = Vec::new();
    for at in 1..9 {
        net.tape = Some(Vec::new());
        let known = net.peer(0, Contact::Always);
        net.command(at, Command::SetPeer(known));
        let (from, _, mut init) = net.tape.take().unwrap().remove(0);
        let arrival =
            Arrival { carrier: Carrier::Udp, remote: from, local: None, ecn: Ecn::Incapable };
        hub.handle_message(arrival, &mut init, net.now);
        while let Some(event) = hub.poll_event() {
            let Event::Stranger { ticket, key, .. } = event else { continue };
            tickets.push((ticket, key));
        }
    }
    let shards: BTreeSet<_> = tickets.iter().map(|(_, key)| shard_of(key, 3)).collect();
    let numbers: BTreeSet<_> = tickets.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!((shards.len(), tickets.len(), numbers.len()), (3, 8, 8));

    // Refusing one is no news of any other.
    hub.handle_command(&Command::Refuse { ticket: tickets[0].0 }, net.now);
    assert_eq!(hub.stats(net.now).refusals.of(Refusal::NotMember), 1);
}

/// A node in two shards, and one that is the peer of its second shard
struct Knocking {
    net: Net,
    node: Fleet,
    far: usize,
}

impl Knocking {
    fn new() -> Self {
        let net = Net::new(9);
        let far = (1..9).find(|far| shard_of(&net.nodes[*far].public_key(), 2) == 1).unwrap();
        let mut node = Fleet::new(&config(0, 0, false), 2, net.now);
        node.handle_command(&Command::SetPeer(net.peer(far, Contact::Await)), net.now);
        Self { net, node, far }
    }

    /// Has the peer call, as one that has restarted; returns its init
    fn call(&mut self, seed: u8) -> Vec<u8> {
        self.net.nodes[self.far] = node(self.far as u8, seed, false);
        self.net.tape = Some(Vec::new());
        let known = self.net.peer(0, Contact::Always);
        self.net.command(self.far, Command::SetPeer(known));
        self.net.tape.take().unwrap().remove(0).2
    }

    /// Has an init come to the node; returns what it sends
    fn knock(&mut self, init: &[u8]) -> Vec<Vec<u8>> {
        let remote = self.net.addrs[self.far];
        let arrival = Arrival { carrier: Carrier::Udp, remote, local: None, ecn: Ecn::Incapable };
        self.node.handle_message(arrival, &mut init.to_vec(), self.net.now);
        let mut buffer = Vec::new();
        let next = || {
            self.node.poll_transmit(&mut buffer, self.net.now)?;
            Some(buffer.clone())
        };
        core::iter::from_fn(next).collect()
    }
}

#[test]
fn init_that_comes_many_times_has_one_answer_in_another_shard_and_leaves_room_for_others() {
    let mut door = Knocking::new();
    let old = door.call(1);

    let answers: Vec<_> = (0..100).flat_map(|_| door.knock(&old)).collect();

    assert_eq!(answers.len(), 100);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let new = door.call(2);
    let answers = door.knock(&new);
    assert_eq!(parse_kind(&answers[0]), Ok(Kind::Response));
}

#[test]
fn member_of_another_shard_that_calls_too_often_is_let_in_once_it_has_proven_its_address() {
    let mut door = Knocking::new();

    let answers: Vec<_> = (0..30)
        .flat_map(|seed| {
            let init = door.call(seed);
            door.knock(&init)
        })
        .collect();

    let kinds: Vec<_> = answers.iter().map(|answer| parse_kind(answer).unwrap()).collect();
    let answered = kinds.iter().filter(|kind| **kind == Kind::Response).count();
    assert_eq!((answered, kinds[answered..].len()), (MEMBER_INITS_BURST as usize, 20));
    assert!(kinds[answered..].iter().all(|kind| *kind == Kind::Cookie));
    assert_eq!(door.node.stats(door.net.now).refusals.of(Refusal::Cookie), 20);
    let (now, mut cookie) = (door.net.now, answers.last().unwrap().clone());
    let arrival = Arrival {
        carrier: Carrier::Udp,
        remote: door.net.addrs[0],
        local: None,
        ecn: Ecn::Incapable,
    };
    door.net.tape = Some(Vec::new());
    door.net.nodes[door.far].handle_message(arrival, &mut cookie, now);
    door.net.drain(door.far);
    let proven = door.net.tape.take().unwrap().remove(0).2;
    let answers = door.knock(&proven);
    assert_eq!(parse_kind(&answers[0]), Ok(Kind::Response));
}

#[test]
fn packet_is_not_handed_on_where_shards_are_not_of_one_mind() {
    let net = Net::new(9);
    let now = net.now;
    let mut shards = Node::shards(&config(0, 0, false), 2, now);
    let destination = Prefix::host(overlay(1));
    let of_shard = |shard| {
        let at = (1..9).find(|at| shard_of(&net.nodes[*at].public_key(), 2) == shard).unwrap();
        let prefixes = vec![destination];
        Command::SetPeer(PeerConfig { prefixes, ..net.peer(at, Contact::OnDemand) })
    };
    // Each believes that the other one has whose address that is.
    shards[0].handle_command(of_shard(1), now);
    shards[1].handle_command(of_shard(0), now);

    shards[0].handle_packet(&packet(overlay(0), overlay(1), 7), None, now);
    let handover = shards[0].poll_handover().unwrap();
    assert_eq!(handover.to(), 1);
    shards[1].handle_handover(handover, now);

    assert!(shards[1].poll_handover().is_none());
    assert_eq!(shards[1].stats(now).refusals.of(Refusal::NoRoute), 1);
}

#[test]
fn goodbyes_are_said_by_a_relay_that_another_shard_has_before_it_is_left() {
    let (mut net, [hub, near, far]) = behind_a_relay(Contact::Always);
    net.introduce(near, far, hub);
    net.send(near, far, 7);
    net.run(secs(2));
    assert_eq!(net.received(far), [7]);

    net.command(far, Command::Close);
    net.run(secs(1));

    let peer = net.nodes[far].public_key();
    let closed = Event::SessionDown { peer, reason: DownReason::Closed };
    assert!(net.events[near].contains(&closed) && net.events[hub].contains(&closed));
}

#[test]
fn shards_have_memory_and_bounds_in_common_and_their_numbers_are_those_of_one_node() {
    let net = Net::new(9);
    let now = net.now;
    let engine = Engine { rate: Some(100_000), ..Engine::default() };
    let mut fleet = Fleet::new(&NodeConfig { engine, ..config(0, 0, false) }, 3, now);
    for at in 1..9 {
        fleet.handle_command(&Command::SetPeer(net.peer(at, Contact::OnDemand)), now);
    }

    let one = fleet.shard_of(&net.nodes[1].public_key());
    one.shared.pool.set_promised(1000);
    (0..100).for_each(|_| one.shared.shaper.on_sent(1000, None, now));

    let stats = fleet.stats(now);
    assert_eq!(stats.promised, 1000);
    assert!(stats.peers.len() == 8 && stats.peers.is_sorted_by_key(|peer| peer.key));
    assert!(fleet.shards().all(|shard| shard.stats(now).promised == 1000));
    assert!(fleet.shards().all(|shard| shard.shared.shaper.turn_at(&None, now) > now));
}
