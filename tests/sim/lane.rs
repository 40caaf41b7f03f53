//! The control lane delivers everything, in order, once: the oracle compares.

use fastvpn_proto::limits::PUSH_TIMEOUT;
use fastvpn_proto::node::Event;
use fastvpn_tests::link::{LinkConfig, ms, percent, secs};

use crate::{clean, count, world};

#[test]
fn thousand_messages_survive_loss_duplication_and_reordering() {
    let mut world = world(900);
    let terrible = LinkConfig::new()
        .delay(ms(60))
        .reordering_jitter(ms(40))
        .loss(percent(30))
        .duplicate(percent(10));
    let (peer, hub) = world.pair(terrible);

    for number in 0..1_000u32 {
        let mut message = number.to_be_bytes().to_vec();
        message.resize(4 + (number as usize * 7) % 500, 0x5a);
        world.write(hub, peer, message);
    }
    world.run_until("all", secs(120), |world| world.written_arrived(hub, peer) == 1_000);
}

#[test]
fn messages_of_all_sizes_pass_both_ways() {
    let mut world = world(901);
    let (peer, hub) = world.pair(clean(40).loss(percent(10)));
    let sizes = [0, 1, 100, 1_023, 1_024, 1_025, 5_000, 65_535, 65_536];

    for size in sizes {
        world.write(hub, peer, vec![1; size]);
        world.write(peer, hub, vec![2; size]);
    }

    world.run_until("all", secs(60), |world| {
        world.written_arrived(hub, peer) == sizes.len()
            && world.written_arrived(peer, hub) == sizes.len()
    });
}

#[test]
fn one_message_takes_half_a_round_trip() {
    let mut world = world(902);
    let (peer, hub) = world.pair(clean(100));
    world.run(secs(2));

    world.write(hub, peer, vec![1; 100]);
    let took = world.run_until("it", secs(1), |world| world.written_arrived(hub, peer) == 1);

    assert!(took < ms(110), "{took:?}");
}

#[test]
fn lost_message_is_repeated_soon() {
    let mut world = world(903);
    let (peer, hub) = world.pair(clean(50));
    world.run(secs(2));

    world.one_way(hub, peer, clean(50).down());
    world.write(hub, peer, vec![1; 100]);
    world.run(ms(10));
    world.one_way(hub, peer, clean(50));
    let took = world.run_until("it", secs(5), |world| world.written_arrived(hub, peer) == 1);

    assert!(took < ms(500), "{took:?}");
}

#[test]
fn undelivered_message_is_told_once() {
    let mut world = world(904);
    let (peer, hub) = world.pair(clean(50));

    world.link(peer, hub, clean(50).down());
    world.write(hub, peer, vec![1; 100]);
    world.run(PUSH_TIMEOUT + secs(3));
    let undelivered = |event: &Event| matches!(event, Event::Undelivered { .. });
    assert_eq!(count(&world, hub, undelivered), 1);
    world.run(secs(60));
    assert_eq!(count(&world, hub, undelivered), 1);

    world.link(peer, hub, clean(50));
    world.run_until("it", secs(60), |world| world.written_arrived(hub, peer) == 1);
}

#[test]
fn messages_cross_a_key_change_in_order() {
    let mut world = world(905);
    let (peer, hub) = world.pair(clean(50).loss(percent(10)));

    for number in 0..150u32 {
        world.write(hub, peer, number.to_be_bytes().to_vec());
        world.write(peer, hub, number.to_be_bytes().to_vec());
        world.run(secs(2));
    }
    world.run(secs(10));

    assert_eq!(world.written_arrived(hub, peer), 150);
    assert_eq!(world.written_arrived(peer, hub), 150);
}
