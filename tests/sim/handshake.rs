//! How sessions begin.

use fastvpn_proto::node::{Contact, Event, Refusal};
use fastvpn_tests::link::{LinkConfig, ms, percent, secs};
use fastvpn_tests::world::host::{REGISTER, WELCOME, underlay6};
use fastvpn_tests::world::{HostPlan, World, seed};

use crate::{clean, count, refused, ups, world};

/// One round trip for the handshake, half of one for the message that proves it to the hub
#[test]
fn session_takes_one_and_a_half_round_trips() {
    let mut world = world(1);
    let (hub, peer) = (world.hub(), world.peer());
    world.link(peer, hub, clean(50));
    world.join(peer, hub);

    let took = world.run_until_connected(peer, hub, secs(2));

    assert!(took <= ms(160), "{took:?}");
}

#[test]
fn each_side_hears_what_the_other_says() {
    let mut world = world(2);
    let (peer, hub) = world.pair(clean(20));

    let said = |event: &Event, what: &[u8]| matches!(event, Event::SessionUp { greeting, .. } if greeting == what);
    assert_eq!(count(&world, hub, |event| said(event, REGISTER)), 1);
    assert_eq!(count(&world, peer, |event| said(event, WELCOME)), 1);
}

#[test]
fn packets_of_both_families_pass_in_both_directions() {
    let mut world = world(3);
    let (peer, hub) = world.pair(clean(50));

    let packets = [
        world.send(peer, hub, 100),
        world.send(hub, peer, 1_400),
        world.send6(peer, hub, 1_280),
        world.send6(hub, peer, 100),
    ];
    world.run(ms(100));

    for packet in packets {
        assert!(world.latency(packet).is_some_and(|latency| latency <= ms(60)));
    }
}

#[test]
fn first_packets_wait_for_the_session() {
    let mut world = world(4);
    let (one, other) = (world.peer(), world.peer());
    world.link(one, other, clean(50));
    world.introduce(one, other, None);

    let packets: Vec<_> = (0..10).map(|_| world.send(one, other, 1_000)).collect();
    world.run(secs(2));

    assert!(packets.iter().all(|packet| world.latency(*packet).is_some_and(|l| l <= ms(160))));
}

#[test]
fn waiting_packets_are_bounded() {
    let mut world = world(5);
    let (one, other) = (world.peer(), world.peer());
    world.link(one, other, clean(50));
    world.introduce(one, other, None);

    let packets: Vec<_> = (0..200).map(|_| world.send(one, other, 1_000)).collect();
    world.run(secs(2));

    let arrived = packets.iter().filter(|packet| world.arrived(**packet)).count();
    assert!((50..=66).contains(&arrived), "{arrived} of 200 KB arrived, 64 KiB may wait");
    assert!(world.stats(one).dropped >= 134);
}

#[test]
fn session_comes_up_at_thirty_percent_loss() {
    for number in 0..20 {
        let mut world = World::new(seed(100 + number));
        let (hub, peer) = (world.hub(), world.peer());
        world.link(peer, hub, clean(100).loss(percent(30)));
        world.join(peer, hub);

        world.run_until_connected(peer, hub, secs(60));

        assert_eq!((ups(&world, peer), ups(&world, hub)), (1, 1), "seed {number}");
    }
}

#[test]
fn crossing_handshakes_end_in_one_session() {
    for number in 0..10 {
        let mut world = World::new(seed(200 + number));
        let (one, other) = (world.peer(), world.peer());
        world.link(one, other, clean(50).loss(percent(if number < 5 { 0 } else { 30 })));
        world.introduce(one, other, None);

        let there = world.send(one, other, 500);
        let back = world.send(other, one, 500);
        world.run(secs(60));

        assert!(world.connected(one, other), "seed {number}");
        assert_eq!((ups(&world, one), ups(&world, other)), (1, 1), "seed {number}");
        if number < 5 {
            assert!(world.arrived(there) && world.arrived(back), "seed {number}");
        }
    }
}

#[test]
fn slow_decision_is_waited_for_and_a_late_one_does_not_lock_out() {
    for (decision, limit) in [(ms(500), secs(3)), (ms(1_900), secs(10))] {
        let mut world = world(6);
        let hub = world.add(HostPlan::hub(1).decision(decision));
        let peer = world.peer();
        world.link(peer, hub, clean(50));
        world.join(peer, hub);

        let took = world.run_until_connected(peer, hub, limit);

        assert!(took >= decision, "{took:?}");
    }
}

#[test]
fn undecided_init_is_dropped_without_an_answer() {
    let mut world = world(7);
    let hub = world.add(HostPlan::hub(1).decision(secs(3)));
    let peer = world.peer();
    world.link(peer, hub, clean(50));
    world.join(peer, hub);

    world.run(secs(20));

    assert_eq!(world.sent(hub).packets, 0);
    assert!(refused(&world, hub, Refusal::Undecided) > 0);
}

#[test]
fn who_is_not_a_member_gets_no_answer() {
    let mut world = world(8);
    let (hub, peer) = (world.hub(), world.peer());
    let config = world.as_peer(hub, Contact::Always);
    world.know(peer, config);

    world.run(secs(30));

    assert_eq!(world.sent(hub).packets, 0);
    assert!(world.sent(peer).packets > 2, "a peer keeps trying");
    assert!(refused(&world, hub, Refusal::NotMember) > 0);
}

#[test]
fn wrong_network_key_gets_no_answer() {
    let mut world = world(9);
    let hub = world.hub();
    let peer = world.add(HostPlan { network_key: [8; 32], ..HostPlan::peer(2) });
    world.join(peer, hub);

    world.run(secs(30));

    assert_eq!(world.sent(hub).packets, 0);
    assert!(refused(&world, hub, Refusal::NoMac) > 0);
    assert_eq!(world.events(hub).count(), 0);
}

#[test]
fn wrong_hub_key_gets_no_answer() {
    let mut world = world(10);
    let (hub, other, peer) = (world.hub(), world.hub(), world.peer());
    world.admit(hub, peer);
    let mut config = world.as_peer(hub, Contact::Always);
    config.key = world.key(other);
    world.know(peer, config);

    world.run(secs(30));

    assert_eq!(world.sent(hub).packets, 0);
    assert!(refused(&world, hub, Refusal::NoMac) > 0);
}

#[test]
fn hub_is_reached_over_ipv6() {
    let mut world = world(11);
    let hub = world.add(HostPlan::hub(1).underlay(vec![underlay6(1)]));
    let peer = world.add(HostPlan::peer(2).underlay(vec![underlay6(2)]));
    world.link(peer, hub, clean(50));
    world.join(peer, hub);

    world.run_until_connected(peer, hub, secs(5));
    let packet = world.send(peer, hub, 1_400);
    world.run(secs(1));

    assert!(world.arrived(packet));
}

#[test]
fn second_endpoint_is_tried_where_the_first_is_dead() {
    let mut world = world(12);
    let (hub, peer) = (world.hub(), world.peer());
    world.admit(hub, peer);
    let mut config = world.as_peer(hub, Contact::Always);
    config.endpoints.insert(0, "192.0.2.1:8796".parse().unwrap());
    world.know(peer, config);

    world.run_until_connected(peer, hub, secs(15));
}

#[test]
fn ciphers_agree_whoever_lacks_aes() {
    for (mine, theirs) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = world(13);
        let hub = world.add(HostPlan { aes: mine, ..HostPlan::hub(1) });
        let peer = world.add(HostPlan { aes: theirs, ..HostPlan::peer(2) });
        world.join(peer, hub);

        world.run_until_connected(peer, hub, secs(5));
        let packets = [world.send(peer, hub, 900), world.send(hub, peer, 900)];
        world.run(ms(10));

        assert!(packets.iter().all(|packet| world.arrived(*packet)));
    }
}

#[test]
fn corrupting_wire_costs_only_what_it_corrupts() {
    let mut world = world(14);
    let (peer, hub) = world.pair(LinkConfig::new().delay(ms(20)).corrupt(percent(10)));

    let packets: Vec<_> = (0..500).map(|_| world.send(peer, hub, 300)).collect();
    world.run(secs(5));

    let arrived = packets.iter().filter(|packet| world.arrived(**packet)).count();
    assert!(arrived > 400, "{arrived}");
    assert!(refused(&world, hub, Refusal::BadSeal) > 10);
}
