//! TCP connections through two nodes keep every byte, whatever the link and the applications do.

use fastvpn_proto::node::{Command, Contact, Engine, PeerConfig, TcpMode};
use fastvpn_proto::time::Duration;
use fastvpn_tests::link::{LinkConfig, mbit, ms, percent, secs};
use fastvpn_tests::world::tcp::PORT;
use fastvpn_tests::world::{Pace, Side, Step, TcpId, TcpPlan, Work, World};

use crate::{clean, world};

const ALL: [Work; 9] = [
    Work::Bulk(300_000),
    Work::Object(300_000),
    Work::Talk { rounds: 20, request: 200, answer: 3_000, pause: Duration::from_millis(30) },
    Work::HalfClose(150_000),
    Work::Both(200_000),
    Work::Reset(200_000),
    Work::Refuse(100_000),
    Work::Stall(Duration::from_secs(8), 2_000_000),
    Work::Slow(40_000, 300_000),
];

const BULK: Work = Work::Bulk(300_000);

/// Links on which everything must work, though not fast
fn links() -> [LinkConfig; 5] {
    [
        clean(20),
        clean(60).loss(percent(3)),
        clean(30).reordering_jitter(ms(10)).duplicate(percent(5)).corrupt(percent(1)),
        clean(40).bursts(percent(3), 4.0).rate(mbit(20)),
        clean(100).rate(mbit(5)).queue(ms(1_000)),
    ]
}

#[test]
fn all_kinds_of_work_end_well_on_all_links() {
    for (number, link) in links().into_iter().enumerate() {
        let mut world = world(2_000 + number as u64);
        let (peer, hub) = world.pair(link);

        let there = ALL.map(|work| world.tcp(peer, hub, work));
        let back = ALL.map(|work| world.tcp(hub, peer, work));

        let all = [there, back].concat();
        let took = world.run_until_over(&all, secs(600));
        println!("link {number}: {took:?}");
        for (id, work) in all.into_iter().zip(ALL.into_iter().cycle()) {
            assert_complete(&world, id, work);
        }
    }
}

#[test]
fn one_peer_may_be_plain_or_split_unlike_all_others() {
    let (plain, split) = (TcpMode::Plain, TcpMode::Split);
    for (network, own) in [(split, Some(plain)), (plain, Some(split)), (plain, None)] {
        let mut world = world(2_013);
        let (peer, hub) = world.pair(clean(20));
        let engine = Engine { tcp: network, ..Engine::default() };
        world.command(peer, Command::Configure(engine));
        let config = PeerConfig { tcp: own, ..world.as_peer(hub, Contact::Always) };
        world.command(peer, Command::SetPeer(config));
        let splits = own.unwrap_or(network) == split;
        world.run(secs(1));

        let ids = [world.tcp(peer, hub, BULK), world.tcp(hub, peer, BULK)];
        world.run(ms(100));
        let there = world.stats(peer).connections;

        assert_eq!(there, if splits { 2 } else { 0 }, "{network:?} {own:?}");
        assert_eq!(world.stats(hub).connections, there);
        world.run_until_over(&ids, secs(60));
        ids.into_iter().for_each(|id| assert_complete(&world, id, BULK));
    }
}

#[test]
fn connections_run_over_ipv6() {
    let mut world = world(2_010);
    let (peer, hub) = world.pair(clean(30).loss(percent(2)));
    world.listen(hub, PORT);

    let plan = TcpPlan::default().over_ipv6();
    let id = world.tcp_with(peer, hub, PORT, plan, Work::Both(500_000).steps());

    world.run_until_over(&[id], secs(120));
    assert_complete(&world, id, Work::Both(500_000));
}

#[test]
fn nobody_listening_is_a_refusal_within_two_round_trips() {
    let mut world = world(2_011);
    let (peer, hub) = world.pair(clean(100));
    world.run(secs(2));

    let id = world.tcp_with(peer, hub, 81, TcpPlan::default(), Work::Bulk(1_000).steps());

    let took = world.run_until_over(&[id], secs(5));
    assert!(world.connection(id).half(Side::Opener).reset.is_some());
    assert!(took < ms(420), "{took:?}");
}

#[test]
fn end_of_a_connection_is_seen_half_a_round_trip_later() {
    let mut world = world(2_012);
    let (peer, hub) = world.pair(clean(100));
    let steps = [vec![Step::Wait(secs(3)), Step::Shutdown], vec![Step::AwaitEnd]];
    world.listen(hub, PORT);

    let id = world.tcp_with(peer, hub, PORT, TcpPlan::default(), steps);
    world.run(secs(5));

    let connection = world.connection(id);
    let (shut, ended) = (connection.half(Side::Opener).shut, connection.half(Side::Acceptor).ended);
    let took = ended.unwrap().since(shut.unwrap());
    assert!(took < ms(115), "{took:?}");
}

#[test]
fn reset_is_seen_half_a_round_trip_later_though_the_reader_stalls() {
    let mut world = world(2_013);
    let (peer, hub) = world.pair(clean(100));
    let steps = [
        vec![Step::Write(100_000), Step::Wait(secs(3)), Step::Abort],
        vec![Step::Pace(Pace::Stalled), Step::AwaitEnd],
    ];
    world.listen(hub, PORT);

    let id = world.tcp_with(peer, hub, PORT, TcpPlan::default(), steps);
    world.run(secs(5));

    let connection = world.connection(id);
    let (sent, seen) =
        (connection.half(Side::Opener).aborted, connection.half(Side::Acceptor).reset);
    let took = seen.unwrap().since(sent.unwrap());
    assert!(took < ms(115), "{took:?}");
}

#[test]
fn stalled_reader_stops_its_writer_and_nobody_else() {
    let mut world = world(2_014);
    let (peer, hub) = world.pair(clean(50).rate(mbit(50)));
    let stalled = world.tcp(peer, hub, Work::Stall(secs(20), 20_000_000));
    world.run(secs(5));

    let other = world.tcp(peer, hub, Work::Bulk(1_000_000));
    let took = world.run_until_over(&[other], secs(10));

    assert!(took < secs(5), "{took:?}");
    assert_eq!(world.connection(stalled).half(Side::Acceptor).read, 0);
    assert!(world.connection(stalled).half(Side::Opener).written < 20_000_000);
    world.run_until_over(&[stalled], secs(60));
    assert_complete(&world, stalled, Work::Stall(secs(20), 20_000_000));
}

#[test]
fn hundreds_of_silent_connections_slow_nobody_down() {
    let silent =
        Work::Talk { rounds: 3, request: 100, answer: 2_000, pause: Duration::from_secs(60) };
    let load = Work::Bulk(20_000_000);
    let [alone, beside] = [0, 300].map(|count| {
        let mut world = world(2_014);
        let (peer, hub) = world.pair(clean(100).rate(mbit(100)).queue(ms(100)));
        let others: Vec<_> = (0..count).map(|_| world.tcp(peer, hub, silent)).collect();
        world.run(secs(20));

        let bulk = world.tcp(peer, hub, load);
        let took = world.run_until_over(&[bulk], secs(60));

        assert_complete(&world, bulk, load);
        // They speak again, all at once.
        world.run_until_over(&others, secs(200));
        others.into_iter().for_each(|id| assert_complete(&world, id, silent));
        took
    });
    println!("alone {alone:?}, beside silent ones {beside:?}");
    assert!(beside < alone + alone / 10, "{alone:?}, {beside:?}");
}

#[test]
fn idle_connection_outlives_a_blackout_of_ten_minutes() {
    let mut world = world(2_015);
    let (peer, hub) = world.pair(clean(50));
    let talk = Work::Talk { rounds: 3, request: 100, answer: 100, pause: secs(600) };
    let id = world.tcp(peer, hub, talk);
    world.run(secs(10));

    world.link(peer, hub, clean(50).down());
    world.run(secs(560));
    world.link(peer, hub, clean(50));

    world.run_until_over(&[id], secs(1_900));
    assert_complete(&world, id, talk);
}

#[test]
fn connection_ends_though_both_nodes_forgot_it_before_they_met() {
    forgotten(2_017, vec![Step::Write(5_000), Step::Shutdown]);
}

#[test]
fn silent_connection_ends_by_its_keepalives_though_both_nodes_forgot_it_before_they_met() {
    forgotten(2_018, vec![Step::Write(5_000), Step::AwaitEnd]);
}

/// Says something that neither node remembers when they meet, and expects that both ends see an end
fn forgotten(seed: u64, says: Vec<Step>) {
    let mut world = world(seed);
    let (peer, hub) = world.pair(clean(20));
    world.listen(hub, PORT);
    let plan = TcpPlan { keep_alive: Some(secs(20)), ..TcpPlan::default() };
    let steps = [[vec![Step::Wait(secs(5))], says].concat(), vec![Step::AwaitEnd, Step::Shutdown]];
    let id = world.tcp_with(peer, hub, PORT, plan, steps);
    world.run(secs(4));

    world.link(peer, hub, clean(20).down());
    world.run(secs(3));
    world.restart(peer);
    world.restart(hub);
    world.run(secs(3));
    world.link(peer, hub, clean(20));

    let took = world.run_until_over(&[id], secs(600));
    println!("{took:?}");
}

#[test]
fn connection_past_the_nodes_is_a_connection() {
    let mut world = world(2_016);
    let (peer, hub) = world.pair(clean(20).rate(mbit(20)));

    let id = world.raw_tcp(peer, hub, Work::Bulk(5_000_000));

    let took = world.run_until_over(&[id], secs(30));
    println!("{took:?}");
    assert_eq!(world.connection(id).half(Side::Acceptor).read, 5_000_000);
}

/// Expects that each application has read all that it should have
fn assert_complete(world: &World, id: TcpId, work: Work) {
    let connection = world.connection(id);
    let (opener, acceptor) = (connection.half(Side::Opener), connection.half(Side::Acceptor));
    match work {
        Work::Bulk(bytes) | Work::Stall(_, bytes) | Work::Slow(_, bytes) => {
            assert_eq!(acceptor.read, bytes, "{work:?}");
        }
        Work::Object(bytes) => assert_eq!(opener.read, bytes, "{work:?}"),
        Work::Both(bytes) | Work::HalfClose(bytes) => {
            assert_eq!((opener.read, acceptor.read), (bytes, bytes), "{work:?}");
        }
        Work::Talk { rounds, request, answer, .. } => {
            let read = (u64::from(rounds) * answer, u64::from(rounds) * request);
            assert_eq!((opener.read, acceptor.read), read, "{work:?}");
        }
        Work::Reset(_) => assert!(acceptor.reset.is_some(), "{work:?}"),
        Work::Refuse(bytes) => {
            assert!(opener.reset.is_some() && acceptor.read >= bytes, "{work:?}");
        }
        Work::Endless | Work::EndlessObject | Work::Idle(_) => {}
    }
    assert_eq!(
        connection.was_reset(),
        matches!(work, Work::Reset(_) | Work::Refuse(_)),
        "{work:?}"
    );
}
