//! On a bottleneck with others we take our share, and no more.

use fastvpn_tests::link::{LinkConfig, mbit, ms, secs};
use fastvpn_tests::world::{HostId, Side, TcpId, Work, World, seed};

use super::Stage;

fn clean() -> LinkConfig {
    LinkConfig::new().rate(mbit(100)).queue(ms(100)).delay(ms(50))
}

#[test]
#[ignore = "a minute of two full streams takes long"]
fn stream_beside_a_raw_cubic_takes_a_fair_share() {
    let mut stage = Stage::new(seed(3_400), clean(), clean());
    let ours = stage.world.tcp(stage.peer, stage.hub, Work::Endless);
    let raw = stage.world.raw_tcp(stage.peer, stage.hub, Work::Endless);
    stage.world.run(secs(63));

    let rates = rates(&stage.world, &[ours, raw], 3, 63);
    let share = rates[0] / (rates[0] + rates[1]);
    println!("bar: beside cubic: {rates:.1?} Mbit/s, share {share:.2}, Jain {:.3}", jain(&rates));
    assert!((0.3..=0.7).contains(&share));
    assert!(jain(&rates) >= 0.95);
}

#[test]
fn two_streams_of_one_session_share_equally() {
    let mut stage = Stage::new(seed(3_410), clean(), clean());
    let one = stage.world.tcp(stage.peer, stage.hub, Work::Endless);
    stage.world.run(secs(3));
    let other = stage.world.tcp(stage.peer, stage.hub, Work::Endless);
    stage.world.run(secs(10));

    let rates = rates(&stage.world, &[one, other], 3, 13);
    println!("bar: two streams of one session: {rates:.1?} Mbit/s, Jain {:.3}", jain(&rates));
    assert!(jain(&rates) >= 0.99);
}

#[test]
#[ignore = "a minute of two full streams takes long"]
fn sessions_of_different_nodes_share() {
    let mut world = World::new(seed(3_420));
    let pairs = [two(&mut world), two(&mut world)];
    world.share(&pairs, clean());
    world.share(&pairs.map(|(one, other)| (other, one)), clean());
    for (peer, hub) in pairs {
        world.run_until_connected(peer, hub, secs(60));
    }

    let one = world.tcp(pairs[0].0, pairs[0].1, Work::Endless);
    world.run(secs(5));
    let other = world.tcp(pairs[1].0, pairs[1].1, Work::Endless);
    world.run(secs(63));

    let rates = rates(&world, &[one, other], 8, 68);
    println!("bar: two sessions: {rates:.1?} Mbit/s, Jain {:.3}", jain(&rates));
    assert!(jain(&rates) >= 0.9);
}

/// Adds a peer and a hub that know each other
fn two(world: &mut World) -> (HostId, HostId) {
    let (hub, peer) = (world.hub(), world.peer());
    world.every_link(clean());
    world.join(peer, hub);
    (peer, hub)
}

/// Returns how fast each connection was read, between seconds since the first of them began
fn rates(world: &World, connections: &[TcpId], from: u64, to: u64) -> Vec<f64> {
    let begun = world.connection(connections[0]).begun;
    let half = |id: &TcpId| world.connection(*id).half(Side::Acceptor).clone();
    let rate = |id| half(id).goodput(begun + secs(from), begun + secs(to)) / 1e6;
    connections.iter().map(rate).collect()
}

/// Returns Jain's index: one where all have the same
fn jain(rates: &[f64]) -> f64 {
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
    sum * sum / (rates.len() as f64 * squares)
}
