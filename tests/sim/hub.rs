//! A hub with many peers.

use fastvpn_proto::node::Event;
use fastvpn_tests::link::{percent, secs};
use fastvpn_tests::world::World;

use crate::{clean, count, world};

#[test]
fn two_hundred_peers_register_and_talk() {
    crowd(&mut world(1_400), 200);
}

#[test]
fn thousand_peers_register_and_talk() {
    crowd(&mut world(1_401), 1_000);
}

#[test]
fn restarted_hub_gets_two_hundred_peers_back() {
    let mut world = world(1_402);
    world.every_link(clean(30).loss(percent(2)));
    let (hub, peers) = world.star(200);
    world.run(secs(15));
    let up = |event: &Event| matches!(event, Event::SessionUp { .. });
    assert_eq!(count(&world, hub, up), peers.len());

    world.restart(hub);
    world.run(secs(60));

    assert_eq!(count(&world, hub, up), 2 * peers.len());
    assert_eq!(world.stats(hub).peers.len(), peers.len());
}

fn crowd(world: &mut World, number: usize) {
    world.every_link(clean(30).loss(percent(2)));
    let (hub, peers) = world.star(number);
    world.run(secs(15));

    let packets: Vec<_> = peers.iter().map(|peer| world.send(*peer, hub, 500)).collect();
    for peer in &peers {
        world.write(hub, *peer, b"list".to_vec());
    }
    world.run(secs(5));

    let up = |event: &Event| matches!(event, Event::SessionUp { .. });
    assert_eq!(count(world, hub, up), number);
    let arrived = packets.iter().filter(|packet| world.arrived(**packet)).count();
    assert!(arrived * 100 > number * 90, "{arrived}");
    let told = peers.iter().filter(|peer| world.written_arrived(hub, **peer) == 1).count();
    assert_eq!(told, number);
}
