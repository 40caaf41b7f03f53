//! Rate control of a path, with whole nodes: it finds the rate of the link, keeps its queue short,
//! and takes the link's own loss for what it is.
//!
//! Limits are those of messages: rate x (1 - loss). What inner packets and segments lose of that to
//! headers is no business of the rate. Other people's flows, and links by the dozen, are in
//! `bottleneck`, where a minute costs less.

use fastvpn_proto::time::Duration;
use fastvpn_tests::link::{Bits, LinkConfig, mbit, ms, percent, secs};
use fastvpn_tests::world::{Flow, HostId, World};

use crate::world;

/// Bytes of an inner packet that fills a message
const PACKET: usize = 1400;

#[test]
fn long_lossy_link_is_filled() {
    let link = LinkConfig::new().rate(mbit(100)).delay(ms(100)).loss(percent(5));
    let seen = fill(1_500, link, 100, secs(6));
    assert!(seen.share(95.0) > 0.97, "{seen:?}");
    assert!(seen.queue < ms(10), "{seen:?}");
}

#[test]
fn link_with_bursts_of_loss_is_filled() {
    let link = LinkConfig::new().rate(mbit(100)).delay(ms(100)).bursts(percent(5), 8.0);
    let seen = fill(1_501, link, 100, secs(6));
    assert!(seen.share(95.0) > 0.96, "{seen:?}");
}

#[test]
fn link_that_loses_a_tenth_is_filled() {
    let link = LinkConfig::new().rate(mbit(50)).delay(ms(125)).loss(percent(10));
    let seen = fill(1_502, link, 50, secs(6));
    assert!(seen.share(45.0) > 0.96, "{seen:?}");
}

#[test]
fn link_that_loses_a_fifth_and_jitters_is_filled() {
    let link = LinkConfig::new().rate(mbit(20)).delay(ms(150)).jitter(ms(20)).loss(percent(20));
    let seen = fill(1_503, link, 20, secs(10));
    assert!(seen.share(16.0) > 0.93, "{seen:?}");
}

#[test]
fn clean_link_is_filled_with_hardly_a_queue() {
    let link = LinkConfig::new().rate(mbit(100)).delay(ms(50));
    let seen = fill(1_504, link, 100, secs(6));
    assert!(seen.share(100.0) > 0.97, "{seen:?}");
    assert!(seen.queue < ms(12), "{seen:?}");
}

#[test]
fn thin_traffic_gets_through_after_blackouts_of_acknowledgements() {
    let mut world = world(1_505);
    let good = || LinkConfig::new().delay(ms(20));
    let (peer, hub) = world.pair(good());
    world.stream(peer, hub, Flow::new(4, 700).lasting(secs(900)));
    for blackout in [1, 2, 4, 6, 2, 5, 3, 6] {
        world.one_way(hub, peer, good().down());
        world.run(secs(blackout));
        world.one_way(hub, peer, good());
        world.run(secs(20));
        world.one_way(peer, hub, good().down());
        world.run(secs(blackout));
        world.one_way(peer, hub, good());
        world.run(secs(15));
    }
    world.run(secs(5));

    let pings = world.stream(peer, hub, Flow::new(1, 100).lasting(secs(60)));
    world.run(secs(62));

    let report = world.report(pings);
    assert_eq!(report.lost(), 0, "{report}");
    assert!(report.slowest < ms(100), "{report}");
}

#[test]
fn queue_stays_under_the_marks_of_a_bottleneck() {
    let link = || LinkConfig::new().rate(mbit(100)).delay(ms(50)).queue(ms(100));

    let marked = fill(1_506, link().marking(ms(4)), 100, secs(10));
    let unmarked = fill(1_506, link(), 100, secs(10));

    println!("marks above 4 ms: {marked:?}; none: {unmarked:?}");
    assert!(marked.share(100.0) > 0.90 && marked.marked > 0, "{marked:?}");
    assert!(marked.queue < ms(4) && marked.queue < unmarked.queue, "{marked:?} {unmarked:?}");
}

#[test]
fn path_whose_marks_are_mangled_is_filled_all_the_same() {
    for bits in [Bits::Cleared, Bits::Set, Bits::Dropped] {
        let link = LinkConfig::new().rate(mbit(100)).delay(ms(50)).queue(ms(100)).bits(bits);
        let seen = fill(1_507, link, 100, secs(6));
        println!("{bits:?}: {seen:?}");
        assert!(seen.share(100.0) > 0.95, "{bits:?}: {seen:?}");
        assert!(seen.lost <= 16, "{bits:?}: {seen:?}");
    }
}

/// What was seen from the third second on
#[derive(Debug)]
struct Seen {
    /// Megabits a second of messages that arrived
    arrived: f64,
    /// Mean time that packets took beyond the delay of the link and the node's own queue
    queue: Duration,
    /// Messages that the bottleneck marked
    marked: u64,
    /// Messages that were lost on the way, from the beginning on
    lost: u64,
}

impl Seen {
    fn share(&self, limit: f64) -> f64 {
        self.arrived / limit
    }
}

/// Sends more than the link carries, and looks at what arrives from the third second on
fn fill(seed: u64, link: LinkConfig, megabits: u32, time: Duration) -> Seen {
    let mut world = world(seed);
    let (peer, hub) = world.pair(link);
    saturate(&mut world, peer, hub, megabits * 5 / 4, time + secs(3));
    world.run(secs(3));
    let before = world.wire_counters(peer, hub);
    let mut queue = Duration::ZERO;
    let looks = 100;
    for _ in 0..looks {
        world.run(time / looks);
        queue += world.queue(peer, hub);
    }
    let after = world.wire_counters(peer, hub);
    let bytes = after.delivered.bytes - before.delivered.bytes;
    Seen {
        arrived: bytes as f64 * 8e-6 / time.as_secs_f64(),
        queue: queue / looks,
        marked: after.marked.items - before.marked.items,
        lost: after.lost.items,
    }
}

fn saturate(world: &mut World, from: HostId, to: HostId, megabits: u32, time: Duration) {
    let per_second = megabits * 125_000 / PACKET as u32;
    world.stream(from, to, Flow::new(per_second, PACKET).lasting(time));
}
