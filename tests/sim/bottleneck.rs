//! Rate control at one bottleneck, alone and beside others: links that the bench runs for minutes.
//!
//! Limits are those of messages: rate x (1 - loss). A sweep over many seeds is ignored by default.

use fastvpn_proto::time::Duration;
use fastvpn_tests::bottleneck::tcp::Kind;
use fastvpn_tests::bottleneck::{Bench, Policer};
use fastvpn_tests::link::{LinkConfig, Script, mbit, ms, percent, secs};
use fastvpn_tests::world::seed;

#[test]
fn links_that_jitter_more_than_they_delay_are_filled() {
    // vpn-bench's profiles at a third of their rate, where a second is cheaper
    for (delay, jitter, loss, least) in [(2, 2, 0.25, 0.95), (4, 7, 1.0, 0.93), (6, 15, 2.5, 0.9)] {
        let link = LinkConfig::new().delay(ms(delay)).reordering_jitter(ms(jitter));
        let link = link.loss(percent(loss));
        let mut bench = Bench::new(link.clone().rate(mbit(300)), seed(1_600));
        bench.own(link, ms(0));
        bench.run(secs(4));

        let share = bench.seen(0).goodput(2.0, 4.0) / (300e6 / 8.0 * (1.0 - loss / 100.0));
        assert!(share > least, "{share} of the limit at {delay}+-{jitter} ms");
    }
}

#[test]
fn narrow_way_back_does_not_slow_the_way_there() {
    let link = LinkConfig::new().rate(mbit(100)).delay(ms(30)).loss(percent(1));
    let back = LinkConfig::new().rate(mbit(1)).delay(ms(30)).loss(percent(1));
    let seen = Alone::run(link, back, secs(8));
    assert!(seen.share(99.0) > 0.95, "{seen:?}");
}

#[test]
fn lossy_way_back_does_not_slow_the_way_there() {
    let link = LinkConfig::new().rate(mbit(100)).delay(ms(30)).loss(percent(1));
    let back = LinkConfig::new().delay(ms(30)).loss(percent(20));
    let seen = Alone::run(link, back, secs(8));
    assert!(seen.share(99.0) > 0.95, "{seen:?}");
}

#[test]
fn deep_and_shallow_queues_stay_short() {
    for queue in [10, 1000] {
        let link = LinkConfig::new().rate(mbit(50)).delay(ms(40)).queue(ms(queue));
        let seen = Alone::run(link, LinkConfig::new().delay(ms(40)), secs(10));
        assert!(seen.share(50.0) > 0.97, "{seen:?}");
        assert!(seen.queue < 0.010 && seen.lost < 0.03, "{seen:?}");
    }
}

#[test]
fn slow_link_is_filled_with_a_queue_of_messages_only() {
    let link = LinkConfig::new().rate(mbit(1)).delay(ms(50));
    let seen = Alone::run(link, LinkConfig::new().delay(ms(50)), secs(30));
    assert!(seen.share(1.0) > 0.93, "{seen:?}");
    assert!(seen.queue < 0.035 && seen.lost < 0.02, "{seen:?}");
}

#[test]
fn policer_without_a_queue_is_not_run_against() {
    for (loss, burst) in [(0, 50_000), (5, 200_000)] {
        let wire = LinkConfig::new().delay(ms(50)).loss(percent(loss));
        let policer = Policer::new(mbit(50), burst);
        let mut bench = Bench::new(wire.rate(mbit(1000)), seed(1_601)).policed(policer);
        bench.own(LinkConfig::new().delay(ms(50)), ms(0));
        bench.run(secs(20));

        let seen = bench.seen(0);
        let own = 1.0 - f64::from(loss) / 100.0;
        let share = seen.goodput(3.0, 20.0) / (50e6 / 8.0 * own);
        let wasted = 1.0 - seen.goodput(5.0, 20.0) / seen.load(5.0, 20.0) / own;
        assert!(share > 0.95, "{share} of the limit");
        assert!(wasted < 0.10, "{wasted} dropped for nothing");
    }
}

#[test]
fn step_of_the_rate_is_followed_in_three_seconds() {
    for (loss, rtt) in [(0, 100), (5, 200)] {
        let link = LinkConfig::new().rate(mbit(100)).delay(ms(rtt / 2)).loss(percent(loss));
        let script: Script = "at 8 s rate 50 mbit; at 16 s rate 100 mbit".parse().unwrap();
        let mut bench = Bench::new(link, seed(1_602)).script(script);
        bench.own(LinkConfig::new().delay(ms(rtt / 2)), ms(0));
        bench.run(secs(24));

        for (at, megabits) in [(8.0, 50.0), (16.0, 100.0)] {
            let limit = megabits * 125_000.0 * (1.0 - f64::from(loss) / 100.0);
            let share = bench.seen(0).goodput(at + 3.0, at + 8.0) / limit;
            assert!(share > 0.95, "{share} after the step to {megabits} Mbit/s");
            let queue = bench.queue(at + 3.0, at + 8.0);
            assert!(queue < 0.015, "{queue} s of queue at {megabits} Mbit/s");
        }
    }
}

#[test]
fn blackout_is_over_soon_after_it_ends() {
    let link = LinkConfig::new().rate(mbit(100)).delay(ms(100)).loss(percent(5));
    let script: Script = "at 6 s down; at 10 s up".parse().unwrap();
    let mut bench = Bench::new(link, seed(1_603)).script(script);
    bench.own(LinkConfig::new().delay(ms(100)), ms(0));
    bench.run(secs(14));

    let share = bench.seen(0).goodput(12.0, 14.0) / (95e6 / 8.0);
    assert!(share > 0.9, "{share} of the limit two seconds later");
}

#[test]
fn start_never_sends_three_times_what_the_link_carries() {
    let link = LinkConfig::new().rate(mbit(100)).delay(ms(100)).loss(percent(5));
    let mut bench = Bench::new(link, seed(1_604));
    bench.own(LinkConfig::new().delay(ms(100)), ms(0));
    bench.run(secs(5));

    let most = (0..50).map(|tenth| f64::from(tenth) / 10.0);
    let most = most.map(|at| bench.seen(0).load(at, at + 0.1)).fold(0.0, f64::max);
    assert!(most < 1.8 * 12.5e6, "{most} bytes a second at the most");
    let early = bench.seen(0).goodput(2.0, 3.0) / (95e6 / 8.0);
    assert!(early > 0.9, "{early} of the limit in the third second");
}

#[test]
fn bottleneck_is_shared_with_other_peoples_tcp() {
    for kind in [Kind::Cubic, Kind::Bbr] {
        let mut bench = Bench::new(clean_hundred(), seed(1_605));
        bench.own(LinkConfig::new().delay(ms(50)), ms(0));
        bench.tcp(kind, LinkConfig::new().delay(ms(50)), secs(5));
        bench.run(secs(65));

        let [ours, theirs] = [0, 1].map(|flow| bench.seen(flow).goodput(5.0, 65.0));
        let share = ours / (ours + theirs);
        assert!((0.3..0.7).contains(&share), "{share} beside {kind:?}");
        assert!(ours + theirs > 0.95 * 12.5e6, "{ours} and {theirs}");
    }
}

#[test]
fn two_sessions_share_a_bottleneck_without_a_standing_queue() {
    let mut bench = Bench::new(clean_hundred(), seed(1_606));
    bench.own(LinkConfig::new().delay(ms(50)), ms(0));
    bench.own(LinkConfig::new().delay(ms(50)), secs(5));
    bench.run(secs(70));

    let shares = [0, 1].map(|flow| bench.seen(flow).goodput(55.0, 70.0));
    assert!(jain(shares) > 0.9, "{shares:?}");
    assert!(shares.iter().sum::<f64>() > 0.95 * 12.5e6, "{shares:?}");
    let queue = bench.queue(10.0, 70.0);
    assert!(queue < 0.020, "{queue} s of queue");
}

#[test]
fn load_below_the_rate_leaves_no_queue_and_forgets_nothing() {
    let mut bench = Bench::new(clean_hundred(), seed(1_607));
    bench.own(LinkConfig::new().delay(ms(50)), ms(0));
    bench.run(secs(5));
    bench.sender(0).set_load(Some(1e6));
    bench.run(secs(20));
    let queue = bench.queue(6.0, 25.0);
    assert!(queue < 0.003, "{queue} s of queue");

    bench.sender(0).set_load(None);
    bench.run(secs(2));

    let share = bench.seen(0).goodput(25.5, 27.0) / 12.5e6;
    assert!(share > 0.9, "{share} of the limit at once");
}

#[test]
fn pause_of_a_minute_halves_the_first_round_trip_and_no_more() {
    let mut bench = Bench::new(clean_hundred(), seed(1_608));
    bench.own(LinkConfig::new().delay(ms(50)), ms(0));
    bench.sender(0).pause(secs(5), secs(60));
    bench.run(secs(67));

    let first = bench.seen(0).load(65.0, 65.1) / 12.5e6;
    assert!((0.3..0.7).contains(&first), "{first} of the rate in the first tenth");
    let share = bench.seen(0).goodput(65.5, 67.0) / 12.5e6;
    assert!(share > 0.9, "{share} of the limit soon after");
}

/// Looks at a hundred links; `cargo test --test sim -- --ignored sweep`
#[test]
#[ignore = "takes a minute"]
fn sweep_over_seeds_fills_every_link() {
    for number in 0..20 {
        for (megabits, rtt, loss) in [(100, 200, 5), (50, 250, 10), (100, 100, 0), (20, 300, 20)] {
            let link = LinkConfig::new().rate(mbit(megabits)).delay(ms(rtt / 2));
            let mut bench = Bench::new(link.loss(percent(loss)), number);
            bench.own(LinkConfig::new().delay(ms(rtt / 2)).loss(percent(loss)), ms(0));
            bench.run(secs(15));

            let limit = megabits as f64 * 125_000.0 * (1.0 - f64::from(loss) / 100.0);
            let share = bench.seen(0).goodput(4.0, 15.0) / limit;
            assert!(share > 0.95, "{share} of {megabits} Mbit/s at {loss} %, seed {number}");
        }
    }
}

/// What one sender of ours has done, from the third second on
#[derive(Debug)]
struct Alone {
    /// Megabits a second that arrived
    arrived: f64,
    /// Mean queue in seconds
    queue: f64,
    /// Share of what was sent that did not arrive
    lost: f64,
}

impl Alone {
    fn run(link: LinkConfig, back: LinkConfig, time: Duration) -> Self {
        let mut bench = Bench::new(link, seed(1_609));
        bench.own(back, ms(0));
        bench.run(time);
        let (seen, end) = (bench.seen(0), time.as_secs_f64());
        Self {
            arrived: seen.goodput(3.0, end) * 8e-6,
            queue: bench.queue(3.0, end),
            lost: 1.0 - seen.goodput(3.0, end) / seen.load(3.0, end),
        }
    }

    fn share(&self, limit: f64) -> f64 {
        self.arrived / limit
    }
}

fn clean_hundred() -> LinkConfig {
    LinkConfig::new().rate(mbit(100)).delay(ms(50))
}

fn jain(shares: [f64; 2]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (2.0 * shares.iter().map(|share| share * share).sum::<f64>())
}
