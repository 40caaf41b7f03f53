//! A node says nothing to who does not prove that it may talk to it.

use fastvpn_proto::node::Event;
use fastvpn_tests::link::secs;
use fastvpn_tests::world::{Flow, Record, World};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::{clean, downs, ups, world};

const INIT: u8 = 1;

#[test]
fn random_bytes_get_no_answer() {
    let mut world = world(300);
    let hub = world.hub();
    let stranger = world.stranger();
    let mut chance = ChaCha8Rng::seed_from_u64(1);

    for kind in 0..=255u8 {
        for len in
            [0, 1, 4, 15, 16, 31, 32, 33, 100, 148, 1_023, 1_024, 1_025, 1_500, 9_000, 65_507]
        {
            let mut bytes = vec![0; len];
            chance.fill_bytes(&mut bytes);
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if kind < 8 && len > 4 {
                bytes[1..4].fill(0);
                bytes[1] = u8::from(kind == INIT);
            }
            world.inject(stranger, hub, bytes);
        }
    }
    world.run(secs(5));

    assert_eq!(world.sent(hub).packets, 0);
    assert_eq!(world.events(hub).count(), 0);
}

#[test]
fn truncated_and_damaged_messages_get_no_answer_and_hurt_nothing() {
    let (mut world, peer, hub, records) = busy_world(301);
    let stranger = world.stranger();
    let before = (ups(&world, hub), downs(&world, hub));
    let mut chance = ChaCha8Rng::seed_from_u64(2);

    for record in &records {
        let (target, from) = aim(&world, record, peer, hub);
        let bytes = &record.datagram.bytes;
        let cut = chance.next_u32() as usize % bytes.len();
        for source in [stranger, from] {
            world.inject(source, target, bytes[..cut].to_vec());
            for _ in 0..4 {
                let mut damaged = bytes.clone();
                let bit = chance.next_u32() as usize % (bytes.len() * 8);
                damaged[bit / 8] ^= 1 << (bit % 8);
                world.inject(source, target, damaged);
            }
        }
    }
    world.run(secs(2));

    assert_eq!(world.answers(stranger).len(), 0);
    assert_eq!((ups(&world, hub), downs(&world, hub)), before);
    assert_traffic_passes(&mut world, peer, hub);
}

/// The one answer that a replay may get is the response to an init once more, no longer than it
#[test]
fn replays_get_no_answer_and_hurt_nothing() {
    let (mut world, peer, hub, records) = busy_world(302);
    let stranger = world.stranger();
    let before = (ups(&world, hub), downs(&world, hub), world.way(hub, peer));
    let mut inits = 0;

    for record in &records {
        let (target, from) = aim(&world, record, peer, hub);
        let bytes = record.datagram.bytes.clone();
        inits += usize::from(bytes[0] == INIT) * bytes.len();
        world.inject(stranger, target, bytes.clone());
        world.inject(from, target, bytes);
    }
    world.run(secs(5));

    let answered: usize = world.answers(stranger).iter().map(Vec::len).sum();
    assert!(answered <= inits, "{answered} bytes of answers to {inits} bytes of inits");
    assert!(world.answers(stranger).iter().all(|answer| answer[0] != 4), "data to a stranger");
    assert_eq!((ups(&world, hub), downs(&world, hub), world.way(hub, peer)), before);
    assert_traffic_passes(&mut world, peer, hub);
}

#[test]
fn messages_turned_back_to_their_sender_hurt_nothing() {
    let (mut world, peer, hub, records) = busy_world(303);
    let before = (ups(&world, hub), ups(&world, peer));

    for record in &records {
        let (target, _) = aim(&world, record, peer, hub);
        let (back, from) = if target == hub { (peer, hub) } else { (hub, peer) };
        let from = world.endpoint(from);
        world.inject(from, back, record.datagram.bytes.clone());
    }
    world.run(secs(2));

    assert_eq!((ups(&world, hub), ups(&world, peer)), before);
    assert_traffic_passes(&mut world, peer, hub);
}

/// A replayed init of the past must neither replace the session nor stop the peer's next one
#[test]
fn replay_after_both_restarted_makes_no_session() {
    let (mut world, peer, hub, records) = busy_world(304);
    world.kill(peer);
    world.restart(hub);
    let stranger = world.stranger();

    for record in records.iter().filter(|record| record.by == peer) {
        world.inject(stranger, hub, record.datagram.bytes.clone());
    }
    world.run(secs(5));
    assert_eq!(ups(&world, hub), 1, "only the session before the restart");

    world.restart(peer);
    world.run_until_connected(peer, hub, secs(20));
}

/// Makes a world in which all messages of a handshake, of traffic and of a key change were kept
fn busy_world(
    number: u64,
) -> (World, fastvpn_tests::world::HostId, fastvpn_tests::world::HostId, Vec<Record>) {
    let mut world = world(number);
    let (hub, peer) = (world.hub(), world.peer());
    world.link(peer, hub, clean(20));
    world.record();
    world.join(peer, hub);
    world.run_until_connected(peer, hub, secs(5));
    world.stream(peer, hub, Flow::new(2, 300).lasting(secs(150)));
    world.stream(hub, peer, Flow::new(2, 300).lasting(secs(150)));
    for message in 0..20u8 {
        world.write(hub, peer, vec![message; 2_000]);
        world.write(peer, hub, vec![message; 100]);
    }
    world.run(secs(151));
    let records = world.take_records();
    assert!(records.iter().filter(|record| record.datagram.bytes[0] == INIT).count() >= 2);
    (world, peer, hub, records)
}

/// Returns whom a recorded message was for, and the address that it came from
fn aim(
    world: &World,
    record: &Record,
    peer: fastvpn_tests::world::HostId,
    hub: fastvpn_tests::world::HostId,
) -> (fastvpn_tests::world::HostId, std::net::SocketAddr) {
    if record.by == peer { (hub, world.endpoint(peer)) } else { (peer, world.endpoint(hub)) }
}

fn assert_traffic_passes(
    world: &mut World,
    peer: fastvpn_tests::world::HostId,
    hub: fastvpn_tests::world::HostId,
) {
    let there = world.stream(peer, hub, Flow::new(50, 200).lasting(secs(2)));
    let back = world.stream(hub, peer, Flow::new(50, 200).lasting(secs(2)));
    world.run(secs(3));
    for stream in [there, back] {
        let report = world.report(stream);
        assert_eq!(report.lost(), 0, "{report}");
    }
    let strangers = world.events(hub).filter(|(_, event)| matches!(event, Event::Stranger { .. }));
    assert!(strangers.count() <= 20);
}
