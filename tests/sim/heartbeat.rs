//! Idle paths stay alive and cost little; silence is told once.

use fastvpn_proto::limits::HEARTBEAT;
use fastvpn_proto::node::{Event, PeerState};
use fastvpn_tests::link::secs;

use crate::{clean, count, downs, world};

#[test]
fn idle_hour_keeps_the_session_and_costs_little() {
    let mut world = world(1_300);
    let (peer, hub) = world.pair(clean(50));
    world.run(secs(60));
    let before = world.sent(peer);

    world.run(secs(3_600));

    assert!(world.connected(peer, hub));
    assert_eq!(downs(&world, peer) + downs(&world, hub), 0);
    let sent = world.sent(peer).packets - before.packets;
    let beats = 3_600 / HEARTBEAT.as_secs();
    assert!((beats / 2..beats * 4).contains(&sent), "{sent} messages in an hour");
    assert_eq!(count(&world, hub, |event| matches!(event, Event::Silent { .. })), 0);
}

#[test]
fn silence_is_told_once_in_each_silence() {
    let mut world = world(1_301);
    let (peer, hub) = world.pair(clean(50));
    let silent = |event: &Event| matches!(event, Event::Silent { .. });
    world.run(secs(30));

    for silences in 1..=2 {
        world.link(peer, hub, clean(50).down());
        world.run(secs(4));
        assert_eq!(count(&world, hub, silent), silences - 1);
        world.run(secs(60));
        assert_eq!(count(&world, hub, silent), silences);
        assert_eq!(
            world.peer_stats(hub, peer).map(|stats| stats.state),
            Some(PeerState::Unresponsive)
        );

        world.link(peer, hub, clean(50));
        world.run(secs(60));
        assert!(world.connected(peer, hub));
        assert_eq!(count(&world, hub, silent), silences);
    }
}
