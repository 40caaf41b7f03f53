//! Pings, calls and keystrokes stay whole and quick, and what that costs is bounded.

use fastvpn_tests::link::{ms, secs};
use fastvpn_tests::world::{Flow, Work};

use super::{Stage, each_seed, lossy5, lossy20, median};

#[test]
fn ping_beside_a_stream_on_a_5_percent_link_is_undisturbed() {
    let pings = each_seed(3_201, |seed| {
        let mut stage = Stage::new(seed, lossy5(), lossy5());
        let id = stage.world.tcp(stage.peer, stage.hub, Work::Endless);
        stage.world.run(secs(3));
        let figures = stage.measure(id, secs(30));
        figures.print("ping beside a stream, 5 % link");
        (figures.ping.quantile(0.99), figures.ping.loss())
    });

    let (slow, lost) = median(pings);
    assert!(slow <= ms(220), "{slow:?}");
    assert!(lost < 0.005, "{lost}");
}

#[test]
fn ping_over_an_idle_20_percent_link_is_whole() {
    let lost = each_seed(3_210, |seed| {
        let mut stage = Stage::new(seed, lossy20(), lossy20());
        let pings = Flow::new(10, 84).lasting(secs(120)).echoed();
        let pings = stage.world.stream(stage.peer, stage.hub, pings);
        stage.world.run(secs(125));
        let report = stage.world.report(pings);
        println!("bar: ping, idle 20 % link: {report}");
        report.loss()
    });

    assert!(median(lost) < 0.005);
}

#[test]
fn constant_stream_of_datagrams_costs_little_more_than_itself() {
    // 30 Mbit/s in packets of 1300 bytes
    let flow = || Flow::new(2_885, 1_300).lasting(secs(12));
    let costs = each_seed(3_220, |seed| {
        let mut stage = Stage::new(seed, lossy5(), lossy5());
        let stream = stage.world.stream(stage.peer, stage.hub, flow());
        stage.world.run(secs(2));
        let (from, before) = (stage.world.now(), stage.counters());
        stage.world.run(secs(8));
        let (to, after) = (stage.world.now(), stage.counters());
        stage.world.run(secs(4));
        let report = stage.world.report_between(stream, from, to);
        let wire = after.pushed.bytes - before.pushed.bytes;
        let cost = wire as f64 / (report.sent * 1_300) as f64;
        println!(
            "bar: 30 Mbit/s of datagrams: {cost:.3} bytes on the wire for each sent; {report}"
        );
        (cost, report.loss())
    });

    let (cost, lost) = median(costs);
    assert!(cost < 1.25, "{cost}");
    assert!(lost < 0.055, "{lost}");
}
