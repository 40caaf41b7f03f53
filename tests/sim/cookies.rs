//! A flood of valid inits costs the hub little, and members still get through.

use fastvpn_proto::limits::{INIT_LEN, TICKETS_MAX};
use fastvpn_proto::node::{Event, Refusal};
use fastvpn_tests::link::{ms, secs};

use crate::{clean, count, refused, world};

const INIT: u8 = 1;

/// The flood comes from someone who knows both keys: its first MAC is right
#[test]
fn members_connect_during_a_flood() {
    let mut world = world(400);
    let (hub, attacker, peer) = (world.hub(), world.peer(), world.peer());
    world.link(peer, hub, clean(30));
    world.record();
    let config = world.as_peer(hub, fastvpn_proto::node::Contact::Always);
    world.know(attacker, config);
    world.run(secs(20));
    world.kill(attacker);
    let records = world.take_records();
    let inits: Vec<_> = records.into_iter().filter(|r| r.datagram.bytes[0] == INIT).collect();
    assert!(inits.len() > 2);
    let strangers: Vec<_> = (0..50).map(|_| world.stranger()).collect();
    let sent_before = world.sent(hub).bytes;

    let mut flooded = 0;
    for round in 0..4_000usize {
        let bytes = inits[round % inits.len()].datagram.bytes.clone();
        flooded += bytes.len() as u64;
        world.inject(strangers[round % strangers.len()], hub, bytes);
        world.run(ms(1));
        if round == 1_500 {
            world.join(peer, hub);
        }
    }

    assert!(world.connected(peer, hub), "the member did not get through");
    assert!(refused(&world, hub, Refusal::Cookie) > 1_000);
    let asked = count(&world, hub, |event| matches!(event, Event::Stranger { .. }));
    assert!(asked <= TICKETS_MAX, "{asked} questions to the control side");
    let answered = world.sent(hub).bytes - sent_before;
    assert!(answered < flooded / 4, "{answered} bytes of answers to {flooded}");
    for stranger in &strangers {
        assert!(world.answers(*stranger).iter().all(|answer| answer.len() < INIT_LEN / 4));
    }
}

#[test]
fn quiet_hub_asks_for_no_cookie() {
    let mut world = world(401);
    let (hub, peers) = world.star(20);

    world.run(secs(5));

    assert!(peers.iter().all(|peer| world.connected(*peer, hub)));
    assert_eq!(refused(&world, hub, Refusal::Cookie), 0);
}
