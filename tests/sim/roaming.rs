//! Addresses change; only validated ones are used.

use fastvpn_proto::limits::{AMPLIFICATION, HEARTBEAT};
use fastvpn_proto::node::{Command, Event, Way};
use fastvpn_proto::time::Duration;
use fastvpn_tests::link::{ms, secs};
use fastvpn_tests::world::Flow;

use crate::{clean, count, downs, ups, world};

#[test]
fn traffic_follows_a_peer_to_its_new_address() {
    let mut world = world(600);
    let (peer, hub) = world.pair(clean(50));
    let there = world.stream(peer, hub, Flow::new(100, 300).lasting(secs(10)));
    let back = world.stream(hub, peer, Flow::new(100, 300).lasting(secs(10)));
    world.run(secs(5));

    world.roam(peer);
    world.run(secs(6));

    let (there, back) = (world.report(there), world.report(back));
    assert_eq!(there.lost(), 0, "the way to the hub has not changed: {there}");
    assert!(back.longest_gap < ms(400), "{back}");
    assert_eq!(world.way(hub, peer), Some(Way::Direct(world.endpoint(peer))));
    assert!(count(&world, hub, |event| matches!(event, Event::PathMoved { .. })) >= 1);
    assert_eq!((ups(&world, hub), downs(&world, hub)), (1, 0));
}

#[test]
fn silent_peer_is_found_again_with_its_next_heartbeat() {
    let mut world = world(601);
    let (peer, hub) = world.pair(clean(50));
    world.run(secs(5));

    world.roam(peer);
    let stream = world.stream(hub, peer, Flow::new(20, 300).lasting(secs(40)));
    world.run(secs(41));

    let report = world.report(stream);
    let allowed = HEARTBEAT + ms(500);
    assert!(report.lost() <= 20 * allowed.as_secs() + 20, "{report}");
    assert_eq!(world.way(hub, peer), Some(Way::Direct(world.endpoint(peer))));
}

#[test]
fn told_of_the_change_a_peer_moves_at_once() {
    let mut world = world(602);
    let (peer, hub) = world.pair(clean(50));
    let stream = world.stream(hub, peer, Flow::new(50, 300).lasting(secs(10)));
    world.run(secs(5));

    world.roam(peer);
    world.command(peer, Command::PathsChanged);
    world.run(secs(6));

    let report = world.report(stream);
    assert!(report.longest_gap < ms(300), "{report}");
}

#[test]
fn both_move_at_once_and_meet_again() {
    let mut world = world(603);
    let (hub, peers) = world.star(2);
    let (one, other) = (peers[0], peers[1]);
    world.run_until_connected(one, hub, secs(5));
    world.run_until_connected(other, hub, secs(5));
    world.introduce(one, other, Some(hub));
    let stream = world.stream(one, other, Flow::new(20, 300).lasting(secs(60)));
    world.run(secs(10));

    world.roam(one);
    world.roam(other);
    world.run(secs(51));

    let end = world.now() - secs(20);
    let report = world.report_since(stream, end);
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(downs(&world, one), 0);
}

/// Someone on the way catches fresh messages and sends them on from an address of its own
#[test]
fn forwarded_message_does_not_move_the_path() {
    let mut world = world(604);
    let (peer, hub) = world.pair(clean(50));
    let stranger = world.stranger();
    let home = world.way(hub, peer);
    assert!(home.is_some());
    world.run(secs(2));

    world.one_way(peer, hub, clean(50).down());
    world.record();
    let caught = world.stream(peer, hub, Flow::new(10, 300).lasting(ms(500)));
    // no more than may be in flight without an answer: what is tested is where it goes
    let back = world.stream(hub, peer, Flow::new(50, 1_000).lasting(secs(10)));
    world.run(ms(500));
    let mut injected = 0;
    for record in world.take_records().into_iter().filter(|record| record.by == peer) {
        injected += record.datagram.bytes.len() as u64;
        world.inject(stranger, hub, record.datagram.bytes);
    }
    world.one_way(peer, hub, clean(50));
    world.run(secs(11));

    let answered: usize = world.answers(stranger).iter().map(Vec::len).sum();
    assert!(answered as u64 <= AMPLIFICATION * injected, "{answered} bytes for {injected}");
    assert_eq!(world.way(hub, peer), home);
    assert!(world.report(caught).arrived > 0, "they are authentic all the same");
    let report = world.report(back);
    assert_eq!(report.lost(), 0, "{report}");
    assert!(report.longest_gap < Duration::from_millis(100), "{report}");
}
