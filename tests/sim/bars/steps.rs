//! A stream follows the link when that changes.

use fastvpn_proto::time::Duration;
use fastvpn_tests::link::rate::Rate;
use fastvpn_tests::link::{Change, LinkConfig, Script, mbit, ms, percent, secs};
use fastvpn_tests::world::{Side, Work};

use super::{Stage, each_seed, limit, lossy5, median};

#[test]
fn stream_is_back_three_seconds_after_the_rate_doubled() {
    let shares = each_seed(3_300, |seed| after_step(seed, mbit(50), mbit(100)));

    assert!(median(shares) >= 0.9);
}

#[test]
fn stream_is_back_three_seconds_after_the_rate_halved() {
    let shares = each_seed(3_310, |seed| after_step(seed, mbit(100), mbit(50)));

    assert!(median(shares) >= 0.9);
}

/// Returns the share of the new limit that is reached from three seconds after the step on
fn after_step(seed: u64, before: Rate, after: Rate) -> f64 {
    let mut stage = Stage::new(seed, lossy5().rate(before), lossy5());
    let id = stage.world.tcp(stage.peer, stage.hub, Work::Endless);
    stage.world.run(secs(8));

    let step = Script::new().at(Duration::ZERO, Change::Rate(Some(after)));
    stage.world.script(stage.peer, stage.hub, step);
    let start = stage.world.now();
    stage.world.run(secs(7));
    let seconds =
        (0..7).map(|second| stage.rate(id, start + secs(second), start + secs(second + 1)));
    println!(
        "bar: {} to {} Mbit/s: {:.1?} in the seconds after",
        before.bits() / 1_000_000,
        after.bits() / 1_000_000,
        seconds.collect::<Vec<_>>()
    );
    let reached = stage.rate(id, start + secs(3), start + secs(7));
    reached * 1e6 / limit(after, 0.05)
}

#[test]
fn stream_goes_on_soon_after_a_blackout() {
    for dark in [1, 5, 30] {
        let mut stage = Stage::new(fastvpn_tests::world::seed(3_320), lossy5(), lossy5());
        let id = stage.world.tcp(stage.peer, stage.hub, Work::Endless);
        stage.world.run(secs(8));

        stage.world.link(stage.peer, stage.hub, lossy5().down());
        stage.world.run(secs(dark));
        stage.world.link(stage.peer, stage.hub, lossy5());
        let start = stage.world.now();
        stage.world.run(secs(9));

        let half = stage.world.connection(id).half(Side::Acceptor);
        let silent = half.longest_gap(start, stage.world.now());
        let rate = |from, to| stage.rate(id, start + secs(from), start + secs(to));
        let seconds = (0..9).map(|second| rate(second, second + 1)).collect::<Vec<_>>();
        println!(
            "bar: {dark} s of blackout: nothing for {silent:?} after it, then {seconds:.1?} Mbit/s"
        );
        assert!(silent < secs(2) && rate(4, 9) >= 0.8 * limit(mbit(100), 0.05) / 1e6);
    }
}

#[test]
fn stream_goes_on_when_delay_and_loss_change() {
    let mut stage = Stage::new(fastvpn_tests::world::seed(3_330), lossy5(), lossy5());
    let id = stage.world.tcp(stage.peer, stage.hub, Work::Endless);
    stage.world.run(secs(6));
    let steps = [
        ("delay 20 ms", LinkConfig::new().rate(mbit(100)).delay(ms(20)).loss(percent(5)), 0.05),
        ("loss 15 %", LinkConfig::new().rate(mbit(100)).delay(ms(20)).loss(percent(15)), 0.15),
        ("delay 150 ms, no loss", LinkConfig::new().rate(mbit(100)).delay(ms(150)), 0.0),
    ];
    let mut shares = Vec::new();
    for (what, link, loss) in steps {
        stage.world.link(stage.peer, stage.hub, link);
        let start = stage.world.now();
        // a longer way looks like a queue for as long as the shorter one is remembered
        stage.world.run(secs(18));
        let rate = stage.rate(id, start + secs(12), start + secs(18));
        let seconds =
            (0..18).map(|second| stage.rate(id, start + secs(second), start + secs(second + 1)));
        println!("bar: {what}: {rate:.1} Mbit/s; {:.0?}", seconds.collect::<Vec<_>>());
        shares.push(rate * 1e6 / limit(mbit(100), loss));
    }

    assert!(shares.iter().all(|share| *share >= 0.85), "{shares:?}");
}
