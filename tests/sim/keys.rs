//! Keys change every two minutes, and nobody notices.

use fastvpn_proto::limits::REKEY_AFTER;
use fastvpn_tests::link::{Change, Script, ms, percent, secs};
use fastvpn_tests::world::Flow;

use crate::{clean, downs, ups, world};

const INIT: u8 = 1;

#[test]
fn key_changes_lose_and_duplicate_nothing() {
    let mut world = world(500);
    let (peer, hub) = world.pair(clean(50));
    let minutes = 10 * 60;

    let there = world.stream(peer, hub, Flow::new(1_000, 200).lasting(secs(minutes)));
    let back = world.stream(hub, peer, Flow::new(100, 1_300).lasting(secs(minutes)));
    world.run(secs(minutes + 1));

    for stream in [there, back] {
        let report = world.report(stream);
        assert_eq!(report.lost(), 0, "{report}");
        assert!(report.slowest < ms(60), "{report}");
    }
    assert_eq!((ups(&world, peer), downs(&world, peer)), (1, 0), "a key change is no event");
}

#[test]
fn keys_do_change_and_one_side_does_it() {
    let mut world = world(501);
    let (peer, hub) = world.pair(clean(50));
    world.stream(peer, hub, Flow::new(10, 200).lasting(secs(600)));
    world.record();

    world.run(secs(600));

    let records = world.take_records();
    let inits =
        |host| records.iter().filter(|r| r.by == host && r.datagram.bytes[0] == INIT).count();
    let expected = 600 / REKEY_AFTER.as_secs() as usize;
    assert!((expected - 1..=expected + 1).contains(&inits(peer)), "{} inits", inits(peer));
    assert_eq!(inits(hub), 0, "the responder initiates only when the initiator does not");
    let last = world.peer_stats(peer, hub).and_then(|stats| stats.last_handshake);
    assert!(last.is_some());
}

#[test]
fn key_change_at_twenty_percent_loss_loses_no_more_than_the_link() {
    let mut world = world(502);
    let (peer, hub) = world.pair(clean(100).loss(percent(20)));

    let stream = world.stream(peer, hub, Flow::new(50, 200).lasting(secs(600)));
    world.run(secs(602));

    let report = world.report(stream);
    assert!(report.loss() < 0.23, "{report}");
    assert_eq!(downs(&world, peer), 0);
}

/// The handshake of a key change falls into a blackout; the old keys serve until it succeeds
#[test]
fn blackout_at_the_key_change_is_survived() {
    let mut world = world(503);
    let (peer, hub) = world.pair(clean(50));
    let script = Script::new().at(secs(115), Change::Down).at(secs(145), Change::Up);
    world.script(peer, hub, script.clone());
    world.script(hub, peer, script);

    let stream = world.stream(peer, hub, Flow::new(50, 200).lasting(secs(300)));
    world.run(secs(302));

    let report = world.report(stream);
    assert!(report.lost() < 50 * 33, "{report}");
    assert!(report.longest_gap < secs(33), "{report}");
    assert_eq!((ups(&world, peer), downs(&world, peer)), (1, 0));
}
