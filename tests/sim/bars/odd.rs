//! Links with habits: reordering, doubling, policing, deep queues, a bad way back.

use fastvpn_tests::link::{LinkConfig, kbit, mbit, ms, percent, secs};
use fastvpn_tests::world::seed;

use super::{Figures, Stage, limit};

fn clean() -> LinkConfig {
    LinkConfig::new().rate(mbit(50)).queue(ms(100)).delay(ms(40))
}

#[test]
fn stream_bears_reordering() {
    let link = || clean().reordering_jitter(ms(15)).early(percent(2)).loss(percent(1));
    let figures = stream("reordering", 3_500, link(), link());

    assert!(figures.rate >= 0.85 * limit(mbit(50), 0.01) / 1e6);
    assert!(figures.wire_for_each < 1.25);
}

#[test]
fn stream_bears_duplicates() {
    let link = || clean().duplicate(percent(5)).loss(percent(1));
    let figures = stream("duplicates", 3_510, link(), link());

    assert!(figures.rate >= 0.9 * limit(mbit(50), 0.01) / 1e6);
    assert!(figures.wire_for_each < 1.15);
}

#[test]
fn stream_lives_with_a_policer() {
    // a gigabit wire with a contract for 20 Mbit/s, and no queue
    let police = LinkConfig::new().delay(ms(40)).policed(mbit(20), 100_000);
    let figures = stream("policed to 20 Mbit/s", 3_520, police, clean());

    assert!(figures.rate >= 0.8 * limit(mbit(20), 0.0) / 1e6);
    assert!(figures.wire_for_each < 1.3);
}

#[test]
fn stream_leaves_a_deep_queue_short() {
    let link = || clean().rate(mbit(20)).queue(ms(1_000));
    let figures = stream("queue of a second", 3_530, link(), link());

    assert!(figures.rate >= 0.9 * limit(mbit(20), 0.0) / 1e6);
    assert!(figures.queue < ms(20));
    assert!(figures.ping.quantile(0.99) < ms(140));
}

#[test]
fn stream_bears_a_way_back_that_loses_a_third() {
    let figures = stream("30 % lost on the way back", 3_540, clean(), clean().loss(percent(30)));

    assert!(figures.rate >= 0.9 * limit(mbit(50), 0.0) / 1e6);
    assert!(figures.wire_for_each < 1.15);
}

#[test]
fn stream_bears_a_slow_way_back() {
    let back = LinkConfig::new().rate(kbit(400)).queue(ms(200)).delay(ms(40));
    let figures = stream("400 kbit/s on the way back", 3_550, clean(), back);

    assert!(figures.rate >= 0.85 * limit(mbit(50), 0.0) / 1e6);
}

#[test]
fn stream_bears_a_slow_link() {
    let link = || LinkConfig::new().rate(kbit(500)).queue(ms(500)).delay(ms(150)).loss(percent(5));
    let figures = stream("500 kbit/s", 3_560, link(), link());

    assert!(figures.rate >= 0.75 * limit(kbit(500), 0.05) / 1e6);
}

#[test]
fn stream_bears_a_small_mtu() {
    let link = || clean().mtu(1_280).loss(percent(2));
    let figures = stream("MTU of 1280", 3_570, link(), link());

    assert!(figures.rate >= 0.85 * limit(mbit(50), 0.02) / 1e6);
}

fn stream(bar: &str, standard: u64, there: LinkConfig, back: LinkConfig) -> Figures {
    let figures = Stage::new(seed(standard), there, back).bulk(secs(8));
    figures.print(bar);
    figures
}
