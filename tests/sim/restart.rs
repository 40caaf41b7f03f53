//! Planned restarts: a node that ends with warning, and its successor, harm no connection.

use fastvpn_proto::time::Duration;
use fastvpn_tests::link::{LinkConfig, mbit, ms, percent, secs};
use fastvpn_tests::world::tcp::{PORT, Side, Step, TcpId, TcpPlan, Work};
use fastvpn_tests::world::{HostId, World};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::{clean, world};

/// How long a daemon is away
const PAUSE: Duration = Duration::from_millis(300);

/// Both ends of a link of 100 Mbit/s and 100 ms there and back
fn pair(seed: u64, loss: u32) -> (World, [HostId; 2]) {
    let mut world = world(seed);
    let link = LinkConfig::new().rate(mbit(100)).delay(ms(50)).queue(ms(100));
    let (peer, hub) = world.pair(link.loss(percent(loss)));
    world.listen(hub, PORT);
    (world, [peer, hub])
}

/// Sends bytes through restarts of these of the two nodes, again and again; returns how long it took
fn transfer(seed: u64, loss: u32, restarts: &[&[usize]]) -> Duration {
    let (mut world, hosts) = pair(seed, loss);
    let id = world.tcp(hosts[0], hosts[1], Work::Bulk(60_000_000));
    for which in restarts {
        world.run(ms(1_500));
        assert!(!world.connection(id).is_over());
        let which: Vec<HostId> = which.iter().map(|index| hosts[*index]).collect();
        world.replace(&which, PAUSE);
    }
    world.run_until_over(&[id], secs(60));
    let connection = world.connection(id);
    assert!(!connection.was_reset() && !connection.is_excused());
    assert_eq!(connection.half(Side::Acceptor).read, 60_000_000);
    connection.took().unwrap_or_default()
}

#[test]
fn transfer_goes_on_at_its_rate_through_restarts_of_either_node() {
    for loss in [0, 5] {
        let calm = transfer(3_000, loss, &[]);
        for which in [0, 1] {
            let took = transfer(3_001, loss, &[&[which]]);
            assert!(took < calm + secs(3), "{loss} %, node {which}: {took:?}, else {calm:?}");
        }
    }
}

#[test]
fn transfer_goes_on_through_restarts_of_both_nodes_one_after_the_other_and_at_once() {
    for loss in [0, 5] {
        let calm = transfer(3_010, loss, &[]);
        for restarts in [[&[0][..], &[1]], [&[1], &[0]], [&[0, 1], &[1, 0]]] {
            let took = transfer(3_011, loss, &restarts);
            assert!(took < calm + secs(8), "{loss} %, {restarts:?}: {took:?}, else {calm:?}");
        }
    }
}

#[test]
fn answers_go_on_though_the_asker_said_that_no_more_questions_come() {
    for which in [0, 1] {
        let (mut world, hosts) = pair(3_020, 5);
        let answer = [
            vec![Step::Write(100), Step::Shutdown, Step::AwaitEnd],
            vec![Step::AwaitEnd, Step::Write(30_000_000), Step::Shutdown],
        ];
        let id = world.tcp_with(hosts[0], hosts[1], PORT, TcpPlan::default(), answer);
        world.run(secs(2));
        world.replace(&[hosts[which]], PAUSE);
        world.run_until_over(&[id], secs(60));
        assert!(!world.connection(id).was_reset(), "node {which}");
        assert_eq!(world.connection(id).half(Side::Opener).read, 30_000_000);
    }
}

#[test]
fn stalled_reader_delays_no_restart_and_loses_nothing() {
    for which in [0, 1] {
        let (mut world, hosts) = pair(3_030, 2);
        let id = world.tcp(hosts[0], hosts[1], Work::Stall(secs(20), 8_000_000));
        world.run(secs(5));
        let before = world.now();
        world.replace(&[hosts[which]], PAUSE);
        let took = world.now().since(before);
        assert!(took < secs(1), "node {which}: {took:?}");
        world.run_until_over(&[id], secs(60));
        assert!(!world.connection(id).was_reset(), "node {which}");
        assert_eq!(world.connection(id).half(Side::Acceptor).read, 8_000_000);
    }
}

#[test]
fn connection_on_which_nobody_speaks_for_an_hour_outlives_a_restart_of_either_node() {
    for which in [0, 1] {
        let mut world = world(3_040);
        let (peer, hub) = world.pair(clean(50));
        let talk = Work::Talk { rounds: 3, request: 100, answer: 100, pause: secs(3_600) };
        let id = world.tcp(peer, hub, talk);
        world.run(secs(10));
        world.replace(&[[peer, hub][which]], secs(2));
        world.run_until_over(&[id], secs(12_000));
        assert!(!world.connection(id).was_reset(), "node {which}");
    }
}

#[test]
fn whatever_is_going_on_a_planned_restart_resets_nobody() {
    let rounds = if std::env::var_os("FASTVPN_TEST_FULL").is_some() { 200 } else { 12 };
    for round in 0..rounds {
        harmless(3_100 + round);
    }
}

/// All kinds of connections on a bad link, through some restarts
fn harmless(seed: u64) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |below: u32| u64::from(chance.next_u32() % below);
    let mut world = world(seed);
    let link = LinkConfig::new().rate(mbit(10 + draw(90))).delay(ms(draw(150))).queue(ms(100));
    let (peer, hub) = world.pair(link.loss(percent(draw(10) as u32)));
    let hosts = [peer, hub];
    hosts.iter().for_each(|host| world.listen(*host, PORT));
    let mut connections: Vec<TcpId> = Vec::new();
    for _ in 0..3 {
        for _ in 0..=draw(6) {
            let bytes = 1 << (8 + draw(15));
            let pause = ms(draw(3_000));
            let work = match draw(8) {
                0 => Work::Bulk(bytes),
                1 => Work::Object(bytes),
                2 => Work::Talk { rounds: 10, request: 200, answer: bytes % 10_000 + 1, pause },
                3 => Work::HalfClose(bytes),
                4 => Work::Both(bytes),
                5 => Work::Stall(pause * 3, bytes),
                6 => Work::Slow(bytes / 30 + 50, bytes),
                _ => Work::Idle(pause * 20),
            };
            let plan = TcpPlan::default().buffers(16_384 << draw(8));
            let (from, to) = if draw(2) == 0 { (peer, hub) } else { (hub, peer) };
            connections.push(world.tcp_with(from, to, PORT, plan, work.steps()));
        }
        world.run(ms(draw(4_000)));
        world.replace(&[hosts[draw(2) as usize]], ms(draw(2_000)));
    }
    // Two restarts in a row may leave what nobody reads with nobody; the world has noticed, and where
    // both nodes forgot, a kernel may wait for ever.
    connections.retain(|id| !world.connection(*id).lost_both_nodes());
    world.run_until_over(&connections, secs(600));
    for id in connections {
        let connection = world.connection(id);
        assert!(!connection.was_reset() || connection.is_excused(), "seed {seed}: {connection}");
    }
}
