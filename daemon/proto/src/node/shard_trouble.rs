//! Tests of what goes wrong between shards, or is made to.

use super::shards::{Pair, addr};
use super::testing::{Net, config, millis, secs};
use super::*;

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
    let apart = |one: usize, other: usize| shard_of(&keys[one], 3) != shard_of(&keys[other], 3);
    let (near, far) = ((3..9).find(|near| apart(0, *near)).unwrap(), 2);
    assert_eq!(net.nodes[far].shards().count(), 3);
    net.blocked.push((far, near));
    let (hub, known) = (net.peer(0, Contact::Always), net.peer(0, contact));
    net.command(near, Command::SetPeer(hub.clone()));
    net.command(far, Command::SetPeer(known));
    net.send(far, 0, 1);
    let mut peer = net.peer(far, Contact::OnDemand);
    peer.relay = Some(hub.key);
    net.command(near, Command::SetPeer(peer));
    net.run(secs(2));
    (net, [0, near, far])
}

#[test]
fn what_a_relay_brings_comes_to_the_shard_of_its_origin() {
    let (mut net, [hub, near, far]) = behind_a_relay(Contact::Always);
    let mut peer = net.peer(near, Contact::OnDemand);
    peer.relay = Some(net.nodes[hub].public_key());
    net.command(far, Command::SetPeer(peer));

    net.send(near, far, 7);
    net.run(secs(2));
    net.send(far, near, 8);
    net.run(secs(2));

    assert_eq!((net.received(far), net.received(near)), (vec![7], vec![8]));
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
