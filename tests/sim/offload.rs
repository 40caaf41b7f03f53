//! A kernel that mangles or loses what it cuts from trains is noticed, and no longer asked to cut.

use fastvpn_proto::node::Event;
use fastvpn_proto::time::{Duration, Instant};
use fastvpn_tests::link::{LinkConfig, Trains, mbit, ms, percent, secs};
use fastvpn_tests::world::{HostId, Side, TcpId, Work, World};

use crate::{clean, world};

#[test]
fn stream_over_a_kernel_that_spoils_trains_is_as_fast_as_one_that_leaves_it_alone() {
    let link = |millis| clean(millis).rate(mbit(100)).queue(ms(100));
    for (link, noticed) in [
        (link(1), ms(100)),
        (link(50), ms(600)),
        (link(100), secs(1)),
        (link(50).loss(percent(5)), secs(1)),
    ] {
        let sound = Run::new(link.clone(), Trains::Whole).rate();
        for trains in [Trains::Beheaded, Trains::Mangled] {
            let mut run = Run::new(link.clone(), trains);
            let rate = run.rate();

            let told = run.told();
            assert_eq!(told.len(), 1, "{trains:?}: {told:?}");
            assert!(told[0].0 <= noticed && !told[0].1, "{trains:?}: {told:?}");
            assert!(rate >= 0.8 * sound, "{trains:?}: {rate} of {sound} Mbit/s");
            assert!(!run.offload());
        }
    }
}

#[test]
fn first_megabyte_over_such_a_kernel_takes_hardly_longer() {
    let mut world = world(7_100);
    let link = clean(20).rate(mbit(100)).queue(ms(100)).trains(Trains::Beheaded);
    let (peer, hub) = world.pair(link);

    let id = world.tcp(peer, hub, Work::Bulk(1_000_000));
    let took = world.run_until_over(&[id], secs(10));

    assert!(took < secs(1), "{took:?}");
}

#[test]
fn trains_that_are_spoilt_from_one_moment_on_are_noticed_as_well() {
    let link = clean(20).rate(mbit(100)).queue(ms(100));
    let mut run = Run::new(link.clone(), Trains::Whole);
    run.world.run(secs(3));

    run.world.link(run.peer, run.hub, link.trains(Trains::Mangled));
    run.world.run(secs(2));

    assert!(!run.offload());
    let from = run.world.now();
    run.world.run(secs(2));
    assert!(run.goodput(from) > 85.0, "{}", run.goodput(from));
}

#[test]
fn shallow_queues_policers_and_losses_do_not_end_offload() {
    let wide = || clean(20).rate(mbit(100));
    for link in [
        wide().queue_bytes(3_000),
        wide().queue_bytes(6_000),
        wide().queue_bytes(15_000),
        clean(20).policed(mbit(50), 6_000),
        clean(20).policed(mbit(50), 30_000),
        wide().queue(ms(50)).loss(percent(20)),
        wide().queue(ms(50)).bursts(percent(20), 8.0),
        wide().queue(ms(50)).bursts(percent(30), 50.0),
    ] {
        let mut run = Run::new(link.clone(), Trains::Whole);
        run.world.run(secs(8));

        assert_eq!(run.told(), [], "{link:?}");
        assert!(run.offload());
    }
}

#[test]
fn offload_that_works_by_then_is_used_again_after_some_minutes() {
    let link = clean(20).rate(mbit(100)).queue(ms(100));
    let mut world = world(7_200);
    let (peer, hub) = world.pair(link.clone().trains(Trains::Beheaded));
    let first = world.tcp(peer, hub, Work::Bulk(5_000_000));
    world.run_until_over(&[first], secs(30));
    assert!(!works(&world, peer, hub));
    world.run(secs(300));
    world.link(peer, hub, link);
    let early = world.tcp(peer, hub, Work::Bulk(5_000_000));
    world.run_until_over(&[early], secs(30));
    assert!(!works(&world, peer, hub));
    world.run(secs(300));

    let late = world.tcp(peer, hub, Work::Bulk(20_000_000));
    world.run_until_over(&[late], secs(30));

    assert!(works(&world, peer, hub));
    assert_eq!(told(&world, peer, Instant::ZERO).len(), 2);
}

/// One connection that writes without end
struct Run {
    world: World,
    peer: HostId,
    hub: HostId,
    id: TcpId,
    start: Instant,
}

impl Run {
    /// Begins it over a wire that makes that of trains, in both directions
    fn new(link: LinkConfig, trains: Trains) -> Self {
        let mut world = world(7_000);
        let (peer, hub) = world.pair(link.trains(trains));
        let id = world.tcp(peer, hub, Work::Endless);
        let start = world.now();
        Self { world, peer, hub, id, start }
    }

    /// Returns what arrives from the third second on, in Mbit/s
    fn rate(&mut self) -> f64 {
        self.world.run(secs(2));
        let from = self.world.now();
        self.world.run(secs(6));
        self.goodput(from)
    }

    fn goodput(&self, from: Instant) -> f64 {
        let half = self.world.connection(self.id).half(Side::Acceptor);
        half.goodput(from, self.world.now()) / 1e6
    }

    /// Returns when the sender said what of offload
    fn told(&self) -> Vec<(Duration, bool)> {
        told(&self.world, self.peer, self.start)
    }

    fn offload(&self) -> bool {
        works(&self.world, self.peer, self.hub)
    }
}

fn told(world: &World, host: HostId, start: Instant) -> Vec<(Duration, bool)> {
    let told = world.events(host).filter_map(|(at, event)| match event {
        Event::Offload { works, .. } => Some((at.since(start), *works)),
        _ => None,
    });
    told.collect()
}

/// Tells whether a host's numbers say that trains leave whole
fn works(world: &World, host: HostId, peer: HostId) -> bool {
    world.peer_stats(host, peer).and_then(|stats| stats.path).unwrap().offload
}
