//! Nodes among liars, replays and black-outs.

use super::testing::{Net, node, overlay, packet};
use super::*;
use crate::wire::frame::Frame;

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
fn an_address_that_was_only_claimed_gets_three_times_what_came_from_it() {
    let mut net = Net::triangle();
    net.run(secs(5));
    let victim = SocketAddr::from(([203, 0, 113, 9], 9));
    let mut echoes = Vec::new();
    for number in 0..16 {
        Frame::Echo(number).encode(&mut echoes);
    }
    let mut ping = Vec::new();
    Frame::Ping.encode(&mut ping);
    net.tape = Some(Vec::new());

    let mut spent = 0;
    for frames in [ping, echoes] {
        let message = net.forge(1, 0, &frames);
        spent += message.len();
        net.inject(victim, 0, &message);
        net.run(secs(20));
    }

    let tape = net.tape.take().unwrap();
    let got: usize = tape.iter().filter(|sent| sent.1 == victim).map(|sent| sent.2.len()).sum();
    assert!(got > 0 && got <= 3 * spent, "{got} bytes for {spent}");
}

#[test]
fn a_handshake_proves_no_address_that_did_not_take_part() {
    let victim = SocketAddr::from(([203, 0, 113, 9], 9));
    for kind in [2, 4] {
        let mut net = Net::triangle();
        net.run(secs(1));
        net.tape = Some(Vec::new());
        net.nodes[1].handle_packet(&packet(overlay(1), overlay(2), 0), net.now);
        let key = net.nodes[2].public_key();
        // The first message of this kind between the two comes from elsewhere, and only from there.
        let stolen = loop {
            net.drain(1);
            net.run(millis(1));
            let direct = |from: &SocketAddr, to: &SocketAddr| {
                [net.addrs[1], net.addrs[2]].contains(from)
                    && [net.addrs[1], net.addrs[2]].contains(to)
            };
            let found =
                net.wire.iter().find(|(_, (from, to, bytes))| direct(from, to) && bytes[0] == kind);
            if let Some((due, (_, to, bytes))) = found.map(|(due, message)| (*due, message.clone()))
            {
                net.wire.remove(&due);
                break (to, bytes);
            }
        };
        net.blocked.push((1, 2));
        let at = net.addrs.iter().position(|addr| *addr == stolen.0).unwrap();
        net.inject(victim, at, &stolen.1);
        net.tape = Some(Vec::new());
        for _ in 0..50 {
            net.send(at, 3 - at, 7);
        }
        net.run(millis(100));

        let tape = net.tape.take().unwrap();
        let got: usize = tape.iter().filter(|sent| sent.1 == victim).map(|sent| sent.2.len()).sum();
        assert!(got <= 3 * stolen.1.len(), "kind {kind}: {got} bytes to {victim}, key {key:?}");
    }
}

#[test]
fn whatever_is_replayed_or_damaged_changes_nothing() {
    let mut net = Net::triangle();
    net.tape = Some(Vec::new());
    net.run(secs(2));
    for id in 0..5 {
        net.send(1, 2, id);
        net.send(2, 1, id);
        net.run(secs(1));
    }
    restart(&mut net, 2, 50);
    for id in 5..15 {
        net.send(1, 2, id);
        net.send(2, 1, id);
        net.run(secs(20));
    }
    let tape = net.tape.take().unwrap();
    let ways: Vec<_> = [(0, 1), (0, 2), (1, 2), (2, 1)].map(|(a, b)| net.way(a, b)).to_vec();
    net.events.iter_mut().for_each(Vec::clear);
    net.packets.iter_mut().for_each(Vec::clear);

    let attacker = SocketAddr::from(([203, 0, 113, 9], 9));
    for (number, (from, _, bytes)) in tape.iter().enumerate().rev() {
        for to in 0..3 {
            for claimed in [*from, attacker] {
                net.inject(claimed, to, bytes);
            }
            let mut bad = bytes.clone();
            let at = number * 31 % bad.len();
            bad[at] ^= 1 << (number % 8);
            net.inject(*from, to, &bad);
            net.inject(attacker, to, &bytes[..at]);
        }
        if number % 50 == 0 {
            net.run(millis(200));
        }
    }
    net.run(secs(20));

    let now: Vec<_> = [(0, 1), (0, 2), (1, 2), (2, 1)].map(|(a, b)| net.way(a, b)).to_vec();
    assert_eq!(now, ways);
    assert!(net.packets.iter().all(Vec::is_empty));
    let strangers = |event: &Event| matches!(event, Event::Stranger { .. });
    assert!(net.events.iter().flatten().all(strangers), "{:?}", net.events);
    net.send(1, 2, 99);
    net.send(2, 1, 99);
    net.run(secs(1));
    assert_eq!((net.received(1), net.received(2)), (vec![99], vec![99]));
}

#[test]
fn relayed_messages_of_no_length_do_not_pile_up() {
    let mut net = Net::triangle();
    net.run(secs(5));
    net.blocked.push((0, 2));
    net.run(secs(200));
    let node = net.nodes[2].public_key();
    let mut frames = Vec::new();
    for _ in 0..30 {
        Frame::Relay { node, message: &[] }.encode(&mut frames);
    }

    for _ in 0..1000 {
        let message = net.forge(1, 0, &frames);
        net.inject(net.addrs[1], 0, &message);
    }

    assert!(net.nodes[0].stats(net.now).dropped > 0);
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
fn a_frame_of_a_later_version_is_acknowledged() {
    let mut net = Net::triangle();
    net.run(secs(5));
    let message = net.forge(1, 0, &[200, 0, 1, 7]);
    net.tape = Some(Vec::new());

    net.inject(net.addrs[1], 0, &message);
    net.run(millis(9));

    assert!(!net.tape.take().unwrap().is_empty());
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
fn a_relay_speaks_for_the_origin_that_it_names_only() {
    let mut net = Net::triangle();
    net.run(secs(5));
    net.blocked.push((1, 2));
    net.tape = Some(Vec::new());
    net.send(1, 2, 1);
    let init = net.tape.take().unwrap().into_iter().find(|sent| sent.2[0] == 1).unwrap().2;
    net.tape = Some(Vec::new());
    net.inject(net.addrs[1], 2, &init);
    let response = net.tape.take().unwrap().into_iter().find(|sent| sent.2[0] == 2).unwrap().2;

    // The relay brings the genuine response, but says that a third node sent it.
    let mut frames = Vec::new();
    Frame::Relay { node: PublicKey::from_bytes([9; 32]), message: &response }.encode(&mut frames);
    let message = net.forge(0, 1, &frames);
    net.inject(net.addrs[0], 1, &message);

    assert_eq!(net.way(1, 2), None);
}

#[test]
fn a_member_that_sends_rubbish_harms_only_itself() {
    let mut net = Net::triangle();
    net.run(secs(5));
    let mut chance = 1_u64;
    let mut next = || {
        chance =
            chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chance >> 33
    };
    let other = *net.nodes[2].public_key().as_bytes();
    for round in 0..3000_u64 {
        let mut frames = Vec::new();
        for _ in 0..next() % 12 {
            let len = [0, 1, 4, 7, 8, 9, 13, 14, 32, 33, 60][next() as usize % 11];
            frames.extend([(next() % 14) as u8, 0, len]);
            let at = frames.len();
            frames.extend((0..len).map(|_| if next() % 3 == 0 { next() as u8 } else { 0 }));
            if len >= 32 && next() % 2 == 0 {
                frames[at..at + 32].copy_from_slice(&other);
            }
        }
        let cut = next() as usize % 20;
        frames.truncate(frames.len().saturating_sub(cut / 15));
        if net.nodes[1].stats(net.now).peers.iter().all(|peer| peer.last_heard.is_none()) {
            net.run(secs(3));
        }
        let hub = net.nodes[0].public_key();
        if net.nodes[1].peers[&hub].session.is_none() {
            net.run(secs(3));
            continue;
        }
        let message = net.forge(1, 0, &frames);
        let from = match round % 7 {
            0 => SocketAddr::from(([203, 0, 113, (next() % 20) as u8], 9)),
            _ => net.addrs[1],
        };
        net.inject(from, 0, &message);
        if round % 10 == 0 {
            let before = net.timeouts;
            net.run(millis(next() % 300));
            assert!(net.timeouts - before < 2000);
        }
    }
    let [hub, peer] = [0, 2].map(|at| net.nodes[at].public_key());
    net.command(0, Command::Send { peer, message: b"well".to_vec() });
    net.command(2, Command::Send { peer: hub, message: b"well".to_vec() });
    net.run(secs(1));
    assert_eq!(controls(&net, 2).last(), Some(&&b"well"[..]));
    assert_eq!(controls(&net, 0).last(), Some(&&b"well"[..]));
}

#[test]
fn a_copy_that_is_faster_from_another_address_never_stops_the_traffic() {
    let mut net = Net::triangle();
    net.send(1, 2, 1);
    net.send(2, 1, 1);
    net.run(secs(5));
    net.packets.iter_mut().for_each(Vec::clear);
    let attacker = SocketAddr::from(([203, 0, 113, 9], 9));

    for id in 0..100 {
        net.tape = Some(Vec::new());
        net.send(1, 2, id);
        net.send(2, 1, id);
        for (_, to, bytes) in net.tape.take().unwrap() {
            if let Some(at) = net.addrs.iter().position(|addr| *addr == to) {
                net.inject(attacker, at, &bytes);
            }
        }
        net.run(millis(50));
    }

    assert_eq!((net.received(1).len(), net.received(2).len()), (100, 100));
    assert_eq!(net.way(1, 2), Some(Way::Direct(net.addrs[2])));
    assert_eq!(net.way(2, 1), Some(Way::Direct(net.addrs[1])));
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
fn a_member_comes_in_through_a_flood() {
    let mut net = Net::triangle();
    net.run(secs(5));
    let mut stranger = Net::new(1);
    stranger.nodes[0] = node(77, 77, false);
    let hub = net.peer(0, Contact::Always);
    stranger.tape = Some(Vec::new());
    stranger.addrs = vec![SocketAddr::from(([203, 0, 113, 77], 1))];
    stranger.command(0, Command::SetPeer(hub));
    let init = stranger.tape.take().unwrap().remove(0).2;

    restart(&mut net, 1, 3);
    for count in 0..200_u16 {
        for port in 0..10 {
            net.inject(SocketAddr::from(([203, 0, 113, 78], 1 + count * 10 + port)), 0, &init);
        }
        net.run(millis(20));
    }

    let cookies = net.nodes[0].stats(net.now).refusals.of(Refusal::Cookie);
    assert!(cookies > 100, "{cookies}");
    assert_eq!(net.ups(0), 3);
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

fn restart(net: &mut Net, at: usize, seed: u8) {
    net.nodes[at] = node(at as u8, 100 ^ seed, false);
    let hub = net.peer(0, Contact::Always);
    let mut other = net.peer(3 - at, Contact::OnDemand);
    other.relay = Some(hub.key);
    net.command(at, Command::SetPeer(hub));
    net.command(at, Command::SetPeer(other));
}

fn controls(net: &Net, at: usize) -> Vec<&[u8]> {
    let control = |event| match event {
        &Event::Control { ref message, .. } => Some(message.as_slice()),
        _ => None,
    };
    net.events[at].iter().filter_map(control).collect()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
