//! Whole nodes on a perfect or lossy wire; the large suite is in the laboratory.

use super::testing::{Net, node, overlay, packet};
use super::*;

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
fn super_packet_that_cannot_be_cut_is_refused_at_the_door() {
    let mut net = Net::triangle();
    net.run(Duration::from_secs(1));
    let bytes = packet(overlay(1), overlay(2), 7);

    net.nodes[1].handle_packet(&bytes, Some(Gso { size: 0, transport: 20 }), net.now);
    net.drain(1);
    net.run(Duration::from_secs(1));

    assert_eq!(net.received(2), []);
    let stats = net.nodes[1].stats(net.now);
    assert_eq!((stats.refusals.of(Refusal::Malformed), stats.packets_sent.packets), (1, 0));
}

#[test]
fn traffic_of_one_peer_visits_no_other() {
    let mut net = Net::triangle();
    for id in 100..130 {
        let peer =
            PeerConfig { key: PublicKey::from_bytes([id; 32]), ..net.peer(2, Contact::Await) };
        net.command(0, Command::SetPeer(PeerConfig { prefixes: Vec::new(), ..peer }));
    }
    net.run(Duration::from_secs(5));
    // The first question makes the router of all of them, in each shard.
    for id in 100..130 {
        net.nodes[0].shard_of(&PublicKey::from_bytes([id; 32])).is_routed();
    }
    net.nodes[0].shards().for_each(|shard| shard.peers.visited.set(0));

    for id in 1..20 {
        net.send(1, 0, id);
        net.send(0, 1, id);
        net.run(Duration::from_millis(500));
    }
    let (peer, to) = (net.nodes[1].public_key(), net.addrs[1]);
    net.nodes[0].handle_too_big(&peer, to, 1400);
    net.drain(0);

    assert_eq!((net.received(0).len(), net.received(1).len()), (19, 19));
    assert!(net.nodes[0].shards().all(|shard| shard.peers.visited.get() == 0));
}

#[test]
fn every_message_counts_at_both_ends_relayed_ones_at_the_relay_too() {
    let mut net = Net::triangle();
    net.blocked.push((1, 2));
    net.run(Duration::from_secs(1));
    let before: Vec<_> = net.nodes.iter().map(|node| node.stats(net.now)).collect();

    net.send(1, 2, 7);
    net.run(Duration::from_millis(200));

    let after: Vec<_> = net.nodes.iter().map(|node| node.stats(net.now)).collect();
    let sent = |n: usize| after[n].sent.bytes - before[n].sent.bytes;
    let received = |n: usize| after[n].received.bytes - before[n].received.bytes;
    assert!(sent(0) > 0 && sent(1) > 0 && received(2) > 0);
    assert!(received(0) > 0 && sent(0) >= received(2));
}

#[test]
fn packets_of_a_peer_that_is_gone_stay_counted() {
    let mut net = Net::triangle();
    net.run(Duration::from_secs(1));
    net.send(1, 2, 7);
    net.run(Duration::from_secs(1));
    let before = net.nodes[2].stats(net.now);
    assert!(before.packets_received.packets == 1 && before.packets_received.bytes > 0);

    net.command(2, Command::RemovePeer(net.nodes[1].public_key()));
    net.run(Duration::from_millis(1));

    let after = net.nodes[2].stats(net.now);
    assert!(after.peers.len() < before.peers.len());
    assert_eq!(after.packets_received, before.packets_received);
    assert_eq!(net.nodes[1].stats(net.now).packets_sent, before.packets_received);
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

    net.nodes[1].handle_packet(&packet(overlay(0), overlay(2), 9), None, net.now);
    net.drain(1);
    net.run(Duration::from_secs(1));

    assert_eq!(net.received(2), []);
    assert_eq!(net.nodes[2].stats(net.now).refusals.of(Refusal::Source), 1);
}
