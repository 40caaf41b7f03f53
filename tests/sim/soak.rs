//! Random lives of a small network against the oracle.
//!
//! `FASTVPN_SOAK_HOURS` sets for how many virtual hours, each with a seed of its own; the seed of
//! the first is `FASTVPN_SEED`. A seed that fails belongs into [`FAILED_BEFORE`].
//!
//! In each life links change, nodes are restarted, machines sleep, addresses change; meanwhile
//! applications talk over TCP in all manners, and send packets and pings. At the end all links are good:
//! then everybody reaches everybody, no connection hangs, and nothing is left of any of them.

use fastvpn_proto::time::Duration;
use fastvpn_tests::link::{LinkConfig, kbit, mbit, ms, percent, secs};
use fastvpn_tests::world::tcp::PORT;
use fastvpn_tests::world::{Family, Flow, HostId, TcpId, TcpPlan, Work, World, seed};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Seeds that have found something
const FAILED_BEFORE: [u64; 1] = [1_618];

#[test]
fn random_lives_keep_all_promises() {
    let hours = match std::env::var("FASTVPN_SOAK_HOURS") {
        Ok(text) => text.parse().expect("FASTVPN_SOAK_HOURS is a number"),
        Err(_) => 0,
    };
    // ten minutes each in the ordinary suite
    let (lives, rounds) = if hours == 0 { (4, 60) } else { (hours, 360) };
    let first = seed(1_600);

    for seed in FAILED_BEFORE.into_iter().chain(first..first + lives) {
        println!("life with FASTVPN_SEED={seed}");
        live(seed, rounds);
    }
}

fn live(seed: u64, rounds: u64) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
    let mut world = World::new(seed);
    world.every_link(clean_or_bad(&mut chance));
    let (hub, peers) = world.star(3);
    for (index, one) in peers.iter().enumerate() {
        for other in &peers[index + 1..] {
            world.introduce(*one, *other, Some(hub));
        }
    }
    let mut all = peers;
    all.push(hub);
    all.iter().for_each(|host| world.listen(*host, PORT));
    let mut connections = Vec::new();
    for _ in 0..rounds {
        match chance.next_u32() % 2 {
            0 => disturb(&mut world, &all, &mut chance),
            _ => connections.extend(talk(&mut world, &all, &mut chance)),
        }
        world.run(secs(10));
        world.forget_numbers();
    }
    recover(&mut world, &all);
    end(&mut world, &all, &connections);
}

/// Does one random thing
fn disturb(world: &mut World, all: &[HostId], chance: &mut ChaCha8Rng) {
    let (one, other) = two(all, chance);
    let what = chance.next_u32() % 13;
    println!("  {:?} disturbance {what} of {one:?} and {other:?}", world.now());
    match what {
        0 => world.restart(one),
        // nobody would tell the peers where their hub has gone
        1 if Some(&one) != all.last() => drop(world.roam(one)),
        2 => world.link(one, other, clean_or_bad(chance).down()),
        3 => world.one_way(one, other, clean_or_bad(chance).down()),
        4..=6 => world.link(one, other, clean_or_bad(chance)),
        7 => {
            world.sleep(one);
            world.run(secs(u64::from(chance.next_u32() % 400)));
            world.wake(one);
        }
        8 | 9 => {
            for number in 0..chance.next_u32() % 50 {
                let size = chance.next_u32() as usize % 3_000;
                let mut message = number.to_be_bytes().to_vec();
                message.extend(chance.next_u64().to_be_bytes());
                message.resize(message.len() + size, 0);
                world.write(one, other, message);
            }
        }
        10 => world.run(secs(u64::from(chance.next_u32() % 200))),
        11 => drop(world.ping(one, other, secs(5))),
        _ => {
            let len = 60 + chance.next_u32() as usize % 1_340;
            let flow = Flow::new(1 + chance.next_u32() % 100, len).lasting(secs(20));
            world.stream(one, other, flow);
        }
    }
}

/// Begins a few random connections between two hosts
fn talk(world: &mut World, all: &[HostId], chance: &mut ChaCha8Rng) -> Vec<TcpId> {
    let (one, other) = two(all, chance);
    let number = match chance.next_u32() % 8 {
        0 => 40,
        _ => 1 + chance.next_u32() % 3,
    };
    let mut begin = |_| {
        let bytes = 1 << (6 + chance.next_u32() % if number == 1 { 17 } else { 12 });
        let pause = ms(u64::from(chance.next_u32() % 20_000));
        let work = match chance.next_u32() % 10 {
            0 => Work::Bulk(bytes),
            1 => Work::Object(bytes),
            2 => Work::Talk { rounds: 10, request: 200, answer: bytes % 10_000 + 1, pause },
            3 => Work::HalfClose(bytes),
            4 => Work::Both(bytes),
            5 => Work::Reset(bytes),
            6 => Work::Refuse(bytes.min(1_000)),
            7 => Work::Stall(pause * 3, bytes),
            8 => Work::Slow(bytes / 30 + 50, bytes),
            _ => Work::Idle(pause * 20),
        };
        let mut plan = TcpPlan::default().buffers(4_096 << (chance.next_u32() % 9));
        // a kernel whose node was restarted may never hear of a reset
        plan.keep_alive = Some(secs(60));
        if chance.next_u32().is_multiple_of(3) {
            plan.family = Family::V6;
        }
        world.tcp_with(one, other, PORT, plan, work.steps())
    };
    (0..number).map(&mut begin).collect()
}

/// Repairs all links, and expects everybody to reach everybody
fn recover(world: &mut World, all: &[HostId]) {
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            world.link(*one, *other, LinkConfig::new().delay(ms(20)));
        }
    }
    let mut streams = Vec::new();
    for one in all {
        for other in all.iter().filter(|other| *other != one) {
            streams.push((
                one,
                other,
                world.stream(*one, *other, Flow::new(1, 100).lasting(secs(180))),
            ));
        }
    }
    world.run(secs(181));
    for (one, other, stream) in streams {
        let report = world.report_since(stream, world.now() - secs(30));
        assert_eq!(report.lost(), 0, "{one:?} to {other:?}: {report}");
    }
}

/// Expects all connections to end, and nothing to be left of them
fn end(world: &mut World, all: &[HostId], connections: &[TcpId]) {
    // Where both nodes forgot, kernels that have nothing to say may wait for ever.
    let (forgotten, known): (Vec<TcpId>, Vec<TcpId>) =
        connections.iter().partition(|id| world.connection(**id).lost_both_nodes());
    world.run_until_over(&known, LONGEST);
    let hanging = forgotten.iter().filter(|id| !world.connection(**id).is_over()).count();
    world.run_until("all memory given back", secs(600), |world| {
        all.iter().all(|host| {
            let stats = world.stats(*host);
            stats.connections == 0 && stats.promised == 0
        })
    });
    let reset = connections.iter().filter(|id| world.connection(**id).was_reset()).count();
    println!("{} connections, {reset} of them reset, {hanging} left hanging", connections.len());
}

/// Longest time for which an application of [`talk`] may have something to do, and kernels that gave up
/// hope wait to try again
const LONGEST: Duration = Duration::from_secs(1_800);

fn clean_or_bad(chance: &mut ChaCha8Rng) -> LinkConfig {
    let config = LinkConfig::new().delay(ms(u64::from(chance.next_u32() % 200)));
    match chance.next_u32() % 6 {
        0 => config,
        1 => config.loss(percent(chance.next_u32() % 30)),
        2 => config.reordering_jitter(ms(30)).duplicate(percent(5)).corrupt(percent(2)),
        3 => config.rate(mbit(u64::from(1 + chance.next_u32() % 50))).loss(percent(2)),
        4 => config.policed(kbit(u64::from(500 + chance.next_u32() % 9_000)), 20_000),
        _ => config.bursts(percent(10), 6.0).mtu(1_280 + chance.next_u32() as usize % 221),
    }
}

fn two(all: &[HostId], chance: &mut ChaCha8Rng) -> (HostId, HostId) {
    let one = chance.next_u32() as usize % all.len();
    let other = (one + 1 + chance.next_u32() as usize % (all.len() - 1)) % all.len();
    (all[one], all[other])
}
