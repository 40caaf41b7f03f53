//! Nodes through black-outs, restarts and lost messages.

use super::testing::{Net, controls, millis, node, overlay, packet, restart, secs};
use super::*;
use crate::ip::numbers;
use crate::limits::LANE_REST;
use crate::wire::frame::Frame;
use crate::wire::lane::{LaneFrame, Marks};

#[test]
fn a_peer_that_was_removed_while_nobody_heard_it_comes_anew() {
    let mut net = Net::triangle();
    net.run(secs(5));
    let [hub, peer] = [0, 1].map(|at| net.nodes[at].public_key());
    for _ in 0..20 {
        net.command(1, Command::Send { peer: hub, message: b"before".to_vec() });
        net.command(0, Command::Send { peer, message: b"before".to_vec() });
        net.run(secs(1));
    }

    net.blocked.push((0, 1));
    net.run(secs(20));
    net.command(0, Command::RemovePeer(peer));
    net.run(secs(20));
    net.blocked.clear();
    net.run(secs(20));
    net.events.iter_mut().for_each(Vec::clear);
    net.command(1, Command::Send { peer: hub, message: b"after".to_vec() });
    net.command(0, Command::Send { peer, message: b"after".to_vec() });
    net.run(secs(1));

    assert_eq!(controls(&net, 0), [b"after"]);
    assert_eq!(controls(&net, 1), [b"after"]);
}

#[test]
fn a_peer_that_forgot_a_session_alone_begins_a_new_one() {
    let mut net = Net::triangle();
    net.send(1, 2, 1);
    net.run(secs(5));
    for id in 0..50 {
        net.send(1, 2, id);
        net.send(2, 1, id);
        net.run(millis(100));
    }
    let mut other = net.peer(2, Contact::OnDemand);
    other.relay = Some(net.nodes[0].public_key());

    net.blocked = vec![(0, 1), (1, 2)];
    net.command(1, Command::RemovePeer(other.key));
    net.run(millis(100));
    net.blocked.clear();
    net.command(1, Command::SetPeer(other));
    net.packets.iter_mut().for_each(Vec::clear);
    for id in 100..110 {
        net.send(1, 2, id);
        net.run(millis(100));
    }
    for id in 100..110 {
        net.send(2, 1, id);
        net.run(millis(100));
    }

    assert_eq!(net.received(2), (100..110).collect::<Vec<_>>());
    assert_eq!(net.received(1), (100..110).collect::<Vec<_>>());
}

#[test]
fn tables_are_clean_and_nothing_spins_after_hours_of_trouble() {
    let mut net = Net::triangle();
    let mut seed = 0x9e37_79b9_u64;
    for round in 0..60_u32 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let chance = seed >> 33;
        net.lossy = [None, Some(3), Some(2), None][chance as usize % 4];
        net.blocked = match (chance >> 3) % 6 {
            0 => vec![(0, 1)],
            1 => vec![(1, 2)],
            2 => vec![(0, 1), (0, 2), (1, 2)],
            _ => Vec::new(),
        };
        let at = 1 + (chance >> 7) as usize % 2;
        if (chance >> 9).is_multiple_of(8) {
            restart(&mut net, at, round as u8);
        }
        if (chance >> 13).is_multiple_of(4) {
            net.addrs[at] = SocketAddr::from(([198, 51, 100, round as u8], 1000 + round as u16));
            net.command(at, Command::PathsChanged);
        }
        for id in 0..4 {
            net.send(1, 2, id);
            net.send(2, 1, id);
            let before = net.timeouts;
            net.run(secs((chance >> 17) % 60));
            assert!(net.timeouts - before < 30_000, "{} timeouts", net.timeouts - before);
        }
    }
    net.lossy = None;
    net.blocked.clear();
    net.run(secs(60));
    net.packets.iter_mut().for_each(Vec::clear);
    for id in 0..10 {
        net.send(1, 2, id);
        net.send(2, 1, id);
        net.run(secs(1));
    }

    assert_eq!(net.received(1).last(), Some(&9));
    assert_eq!(net.received(2).last(), Some(&9));
}

#[test]
fn a_session_comes_back_after_a_blackout_of_any_length() {
    for length in
        [1, 10, 60, 170, 179, 181, 200, 600, 880, 895, 899, 900, 901, 905, 910, 1000, 4000]
    {
        let mut net = Net::triangle();
        net.send(1, 2, 1);
        net.send(2, 1, 1);
        net.run(secs(7));
        net.blocked = vec![(0, 1), (0, 2), (1, 2)];
        net.run(secs(length));
        net.blocked.clear();
        net.run(secs(30));
        net.packets.iter_mut().for_each(Vec::clear);
        for id in 0..10 {
            net.send(1, 2, id);
            net.send(2, 1, id);
            net.run(secs(1));
        }

        assert_eq!(net.received(1).last(), Some(&9), "{length} s");
        assert_eq!(net.received(2).last(), Some(&9), "{length} s");
    }
}

#[test]
fn everybody_restarts_at_once_and_meets_again() {
    let mut net = Net::triangle();
    net.send(1, 2, 1);
    net.run(secs(125));
    for round in 0..3 {
        restart(&mut net, 1, 60 + round);
        restart(&mut net, 2, 70 + round);
        net.run(secs(10));
        net.packets.iter_mut().for_each(Vec::clear);
        for id in 0..5 {
            net.send(1, 2, id);
            net.send(2, 1, id);
            net.run(secs(1));
        }
        assert_eq!((net.received(1).len(), net.received(2).len()), (5, 5));
    }
}

#[test]
fn both_addresses_change_at_once_and_the_relay_helps() {
    let mut net = Net::triangle();
    net.send(1, 2, 1);
    net.run(secs(5));
    net.addrs[1] = SocketAddr::from(([198, 51, 100, 1], 1234));
    net.addrs[2] = SocketAddr::from(([198, 51, 100, 2], 1234));
    net.packets.iter_mut().for_each(Vec::clear);

    for id in 0..40 {
        net.send(1, 2, id);
        net.send(2, 1, id);
        net.run(secs(1));
    }

    assert_eq!((net.received(1).last(), net.received(2).last()), (Some(&39), Some(&39)));
}

#[test]
fn the_relay_restarts_under_a_relayed_session() {
    let mut net = Net::triangle();
    net.blocked.push((1, 2));
    net.send(1, 2, 1);
    net.run(secs(5));
    assert!(matches!(net.way(1, 2), Some(Way::Relayed(_))));

    net.nodes[0] = node(0, 90, true);
    net.packets.iter_mut().for_each(Vec::clear);
    for id in 0..40 {
        net.send(1, 2, id);
        net.send(2, 1, id);
        net.run(secs(1));
    }

    assert_eq!((net.received(1).last(), net.received(2).last()), (Some(&39), Some(&39)));
    assert_eq!(net.ups(1), 3, "{:?}", net.events[1]);
}

#[test]
fn keys_change_while_a_third_of_all_is_lost() {
    let mut net = Net::triangle();
    net.loss = 30;
    for count in 0..4000_u32 {
        net.send(1, 2, count as u8);
        net.send(2, 1, count as u8);
        net.run(millis(300));
    }

    assert_eq!((net.ups(1), net.ups(2)), (2, 2));
    for at in [1, 2] {
        let share = net.received(at).len() as f64 / 4000.0;
        assert!(share > 0.6, "{share}");
    }
}

#[test]
fn whoever_hears_nothing_for_long_is_heard_again() {
    for (deaf, other) in [(1, 2), (2, 1), (1, 0), (0, 1)] {
        let mut net = Net::triangle();
        net.send(1, 2, 1);
        net.send(2, 1, 1);
        net.run(secs(5));
        net.deaf = vec![(deaf, other), (deaf, 0)];
        for _ in 0..100 {
            net.send(1, 2, 1);
            net.run(secs(11));
        }
        net.deaf.clear();
        net.run(secs(20));
        net.packets.iter_mut().for_each(Vec::clear);
        for id in 0..10 {
            net.send(1, 2, id);
            net.send(2, 1, id);
            net.run(secs(1));
        }

        assert_eq!(net.received(1).last(), Some(&9), "{deaf} deaf to {other}");
        assert_eq!(net.received(2).last(), Some(&9), "{deaf} deaf to {other}");
    }
}

#[test]
fn handshakes_that_cross_make_one_session() {
    for shift in [0, 1, 5, 9, 10, 11, 19, 20, 21, 30] {
        let mut net = Net::triangle();
        net.run(secs(2));
        net.send(1, 2, 1);
        net.run(millis(shift));
        net.send(2, 1, 2);
        net.run(secs(2));

        assert_eq!((net.received(2), net.received(1)), (vec![1], vec![2]), "{shift} ms");
        assert_eq!((net.ups(1), net.ups(2)), (2, 2), "{shift} ms");
    }
}

#[test]
fn two_addresses_of_one_node_are_no_trouble() {
    let mut net = Net::triangle();
    let second = SocketAddr::from(([198, 51, 100, 2], 8796));
    let mut other = net.peer(2, Contact::OnDemand);
    other.endpoints.push(second);
    net.command(1, Command::SetPeer(other));
    net.send(1, 2, 1);
    net.run(secs(1));

    for id in 0..100 {
        if id % 10 == 0 {
            net.command(1, Command::PathsChanged);
        }
        net.send(1, 2, id);
        net.run(secs(1));
    }

    assert_eq!(net.received(2).len(), 101);
}

#[test]
fn a_narrow_way_to_the_relay_stops_nobody() {
    let mut net = Net::triangle();
    net.blocked.push((1, 2));
    for id in 0..20 {
        net.send(1, 2, id);
        net.run(secs(1));
    }
    assert!(net.received(2).len() >= 19);
    assert!(net.nodes[1].stats(net.now).peers.iter().all(|peer| peer.path.unwrap().mtu > 1400));

    net.narrow = vec![(0, 2, 1300)];
    net.packets.iter_mut().for_each(Vec::clear);
    for id in 0..100 {
        net.send(1, 2, id);
        net.run(millis(300));
    }

    let late = net.received(2).iter().filter(|id| **id >= 50).count();
    assert!(late >= 45, "{late}: {:?}", net.received(2));
}

#[test]
fn goodbyes_reach_those_who_are_behind_the_relay() {
    let mut net = Net::triangle();
    net.blocked.push((1, 2));
    net.send(1, 2, 1);
    net.run(secs(5));

    net.command(1, Command::Close);
    net.run(secs(1));

    for at in [0, 2] {
        let closed =
            |event: &Event| matches!(event, Event::SessionDown { reason: DownReason::Closed, .. });
        assert!(net.events[at].iter().any(closed), "node {at}");
    }
}

#[test]
fn an_old_word_of_a_boot_id_ends_no_session() {
    let mut net = Net::triangle();
    net.send(1, 2, 1);
    net.run(secs(5));
    let mut other = net.peer(2, Contact::OnDemand);
    other.boot = Some(BootId([7; 8]));

    for _ in 0..10 {
        net.command(1, Command::SetPeer(other.clone()));
        net.send(1, 2, 2);
        net.run(secs(1));
    }

    assert_eq!((net.ups(1), net.received(2).len()), (2, 11));
}

#[test]
fn a_failed_delivery_is_told_each_time() {
    let mut net = Net::triangle();
    net.run(secs(5));
    let peer = net.nodes[1].public_key();

    for _ in 0..2 {
        net.blocked.push((0, 1));
        net.command(0, Command::Send { peer, message: b"lost".to_vec() });
        net.run(secs(20));
        net.blocked.clear();
        net.run(secs(60));
    }

    let told = net.events[0].iter().filter(|event| **event == Event::Undelivered { peer }).count();
    assert_eq!(told, 2);
}

#[test]
fn a_network_that_drops_what_is_capable_silences_no_quiet_session() {
    let mut net = Net::triangle();
    net.mute = true;
    let (mut last, mut gap) = (0, 0);
    for tenth in 0..2400 {
        if tenth % 10 == 0 {
            net.send(1, 0, 0);
        }
        net.run(millis(100));
        last = if net.packets[0].is_empty() { last } else { tenth };
        gap = gap.max(tenth - last);
        net.packets[0].clear();
    }

    assert!(gap < 20, "nothing came for {gap} tenths of a second, {:?}", net.capable);
    assert!(net.capable[1] > 8, "it was tried again: {:?}", net.capable);
}

#[test]
fn who_only_acknowledges_sends_nothing_capable() {
    let mut net = Net::triangle();
    net.run(secs(20));
    let before = net.capable[0];
    for _ in 0..200 {
        net.send(1, 0, 0);
        net.run(millis(10));
    }

    assert!(net.packets[0].len() >= 200 && net.capable[1] > 200, "{:?}", net.capable);
    assert!(net.capable[0] - before < 10, "{} of {:?}", net.capable[0] - before, net.capable);
}

#[test]
fn kernel_that_loses_one_of_each_two_messages_that_it_cuts_is_asked_no_more() {
    for lost in [1, 2] {
        let mut net = Net::triangle();
        net.run(secs(1));
        net.send(1, 2, 7);
        net.run(secs(2));
        net.cut_loses = Some(lost);

        for id in 0..200 {
            for _ in 0..2 {
                let packet = packet(overlay(1), overlay(2), id);
                net.nodes[1].handle_packet(&packet, None, net.now);
            }
            net.drain(1);
            net.run(millis(10));
        }

        let told = net.events[1].iter().filter_map(|event| match event {
            Event::Offload { works, .. } => Some(*works),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [false], "the one with number {lost}");
    }
}

#[test]
fn way_on_which_the_kernel_cuts_no_trains_is_told_of_and_no_other_suffers() {
    let mut net = Net::triangle();
    net.run(secs(1));
    net.send(1, 2, 7);
    net.run(millis(200));
    let (peer, hub) = (net.nodes[2].public_key(), net.nodes[0].public_key());
    let works = |net: &Net, key| {
        let stats = net.nodes[1].stats(net.now);
        stats
            .peers
            .iter()
            .find(|peer| peer.key == key)
            .unwrap()
            .path
            .as_ref()
            .is_some_and(|path| path.offload)
    };
    assert!(works(&net, peer));

    let (remote, now) = (net.addrs[2], net.now);
    net.nodes[1].handle_uncut(&peer, remote, now);
    net.nodes[1].handle_uncut(&peer, remote, now);
    net.drain(1);

    let told = net.events[1].iter().filter(
        |event| matches!(event, Event::Offload { peer: of, works: false, .. } if *of == peer),
    );
    assert_eq!(told.count(), 1);
    assert!(!works(&net, peer) && works(&net, hub));
}

#[test]
fn what_comes_with_bytes_for_which_there_is_no_memory_is_taken() {
    let mut net = Net::connected(millis(10));
    net.run(secs(8));
    net.command(2, Command::Configure(Engine { memory: 0, ..Engine::default() }));
    net.packets[2].clear();
    // Which of the two the lane is nobody asks; the other one is over, if it ever was.
    let data = |at: u32, len: usize| {
        let (mut frames, marks, data) = (Vec::new(), Marks::default(), &vec![7; len][..]);
        for conv in [0, 1] {
            Frame::Lane(LaneFrame::Data { conv, seq: 101 + at, marks, data }).encode(&mut frames);
        }
        frames
    };
    let refused = |net: &Net| net.nodes[2].stats(net.now).refusals.of(Refusal::NoRoom);

    for at in 0..8 {
        let message = net.forge(1, 2, &data(at * 500, 500));
        net.inject(net.addrs[1], 2, &message);
    }
    assert_eq!(refused(&net), 0);
    let mut frames = data(4000, 500);
    let mut datagram = packet(overlay(1), overlay(2), 9);
    datagram.truncate(100);
    datagram[3] = 100;
    datagram[2] = 0;
    Frame::Datagram(&datagram).encode(&mut frames);
    net.run(millis(100));
    let message = net.forge(1, 2, &frames);
    net.tape = Some(Vec::new());
    net.inject(net.addrs[1], 2, &message);
    net.run(millis(60));

    assert!(
        net.tape.take().unwrap().iter().all(|(from, ..)| *from != net.addrs[2]),
        "nothing is said"
    );
    assert_eq!(refused(&net), 1);
    assert_eq!(net.received(2).iter().filter(|id| **id == 9).count(), 1);
    // And of the bytes what there is memory for.
    let bytes = net.packets[2].iter().filter(|packet| packet[9] == numbers::TCP);
    assert_eq!(bytes.map(|packet| packet.len() - 40).sum::<usize>(), LANE_REST as usize);
}
