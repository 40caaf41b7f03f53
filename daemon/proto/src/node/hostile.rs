//! Nodes among liars, replays and black-outs.

use super::testing::{Net, controls, millis, node, overlay, packet, restart, secs};
use super::*;
use crate::wire::frame::Frame;

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
        net.nodes[1].handle_packet(&packet(overlay(1), overlay(2), 0), None, net.now);
        let key = net.nodes[2].public_key();
        // The first message of this kind between the two comes from elsewhere, and only from there.
        let stolen = loop {
            net.drain(1);
            net.run(millis(1));
            let direct = |from: &SocketAddr, to: &SocketAddr| {
                [net.addrs[1], net.addrs[2]].contains(from)
                    && [net.addrs[1], net.addrs[2]].contains(to)
            };
            let found = net
                .wire
                .iter()
                .find(|(_, (from, to, bytes, _))| direct(from, to) && bytes[0] == kind);
            if let Some((due, (_, to, bytes, _))) =
                found.map(|(due, message)| (*due, message.clone()))
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
        if net.nodes[1].shard_of(&hub).peers.get(&hub).unwrap().session.is_none() {
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
fn old_inits_of_a_member_do_not_keep_it_out() {
    let mut net = Net::triangle();
    net.run(secs(5));
    net.blocked.push((0, 1));
    net.tape = Some(Vec::new());
    net.run(secs(120));
    let inits = net.tape.take().unwrap().into_iter().filter(|sent| sent.2[0] == 1);
    let inits: Vec<_> = inits.filter(|sent| sent.0 == net.addrs[1]).map(|sent| sent.2).collect();
    net.blocked.clear();
    net.delay = millis(200);
    net.nodes[0] = node(0, 40, true);
    net.events.iter_mut().for_each(Vec::clear);
    let attacker = SocketAddr::from(([203, 0, 113, 9], 9));

    for count in 0..400 {
        net.inject(attacker, 0, &inits[count % inits.len()]);
        net.run(millis(50));
    }

    assert_eq!(net.ups(1), 1, "{:?}", net.events[0]);
}
