//! Short transfers and answers take little more than their round trips.

use fastvpn_proto::time::Duration;
use fastvpn_tests::link::{LinkConfig, ms, secs};
use fastvpn_tests::world::{Side, Work};

use super::{Stage, each_seed, lossy5, lossy20, quantile};

/// Bytes of a page
const PAGE: u64 = 100_000;
/// For as long as a budget of copies needs to fill again
const FULL: Duration = Duration::from_secs(3);

#[test]
fn page_over_a_warm_5_percent_link_takes_little_more_than_two_round_trips() {
    let pages = pages("5 % link, warm", 3_100, &lossy5(), 200);

    assert!(quantile(pages.clone(), 0.5) <= 2.2);
    assert!(quantile(pages, 0.95) < 2.7);
}

/// As somebody reads: no path was ever full, and the budget of copies has little time to fill again
#[test]
fn pages_one_after_the_other_over_a_5_percent_link_take_little_more_than_two_round_trips() {
    let pages = unused("5 % link, one after the other", 3_150, &lossy5(), (20, 40));

    assert!(quantile(pages.clone(), 0.5) <= 2.2);
    assert!(quantile(pages, 0.95) < 2.7);
}

#[test]
fn page_over_a_cold_5_percent_link_takes_four_round_trips() {
    let pages = unused("5 % link, cold", 3_110, &lossy5(), (40, 1));

    assert!(quantile(pages, 0.5) <= 4.0);
}

#[test]
fn page_over_a_warm_20_percent_link_is_there_soon() {
    let pages = pages("20 % link, warm", 3_120, &lossy20(), 200);

    assert!(quantile(pages, 0.95) < 3.5);
}

#[test]
fn answer_over_a_5_percent_link_takes_one_round_trip() {
    let answers = answers("5 % link", 3_130, &lossy5());

    assert!(quantile(answers.clone(), 0.95) < 1.1);
    assert!(quantile(answers, 0.99) < 1.5);
}

#[test]
fn answer_over_a_20_percent_link_takes_one_round_trip() {
    let answers = answers("20 % link", 3_140, &lossy20());

    assert!(quantile(answers, 0.95) < 1.2);
}

/// Fetches pages one after the other over one warm session; returns what each took, in round trips
fn pages(bar: &str, seed: u64, link: &LinkConfig, number: usize) -> Vec<f64> {
    let all = each_seed(seed, |seed| {
        let mut stage = warm(seed, link);
        (0..number).map(|_| page(&mut stage, link, FULL)).collect::<Vec<_>>()
    });
    let all = all.concat();
    print(bar, &all);
    all
}

/// Fetches so many pages, one soon after the other, over each of so many sessions that have carried nothing yet;
/// returns what each took, in round trips
fn unused(bar: &str, seed: u64, link: &LinkConfig, (sessions, number): (u64, usize)) -> Vec<f64> {
    let mut all = Vec::new();
    let first = fastvpn_tests::world::seed(seed);
    for seed in first..first + sessions {
        let mut stage = Stage::new(seed, link.clone(), link.clone());
        all.extend((0..number).map(|_| page(&mut stage, link, ms(300))));
    }
    print(bar, &all);
    all
}

/// Fetches one page over a new connection, and pauses
fn page(stage: &mut Stage, link: &LinkConfig, pause: Duration) -> f64 {
    let id = stage.world.tcp(stage.peer, stage.hub, Work::Object(PAGE));
    stage.world.run_until_over(&[id], secs(60));
    stage.world.run(pause);
    let connection = stage.world.connection(id);
    let read = connection.half(Side::Opener).when_read(PAGE).expect("it is over");
    round_trips(read.since(connection.begun), link)
}

/// Asks and answers on an open connection; returns what each took, in round trips
fn answers(bar: &str, seed: u64, link: &LinkConfig) -> Vec<f64> {
    let rounds = 500;
    let all = each_seed(seed, |seed| {
        let mut stage = warm(seed, link);
        let talk = Work::Talk { rounds, request: 200, answer: 200, pause: ms(400) };
        let id = stage.world.tcp(stage.peer, stage.hub, talk);
        stage.world.run_until_over(&[id], secs(3_600));
        let opener = stage.world.connection(id).half(Side::Opener);
        // write, await, wait; the first request also waits for the connection
        let marks = opener.marks.chunks_exact(3).take(rounds as usize).skip(1);
        marks.map(|round| round_trips(round[1].since(round[0]), link)).collect::<Vec<_>>()
    });
    let all = all.concat();
    print(bar, &all);
    all
}

/// Makes a session that has carried something a while ago
fn warm(seed: u64, link: &LinkConfig) -> Stage {
    let mut stage = Stage::new(seed, link.clone(), link.clone());
    for from in [stage.peer, stage.hub] {
        let to = if from == stage.peer { stage.hub } else { stage.peer };
        stage.world.tcp(from, to, Work::Bulk(20_000_000));
    }
    stage.world.run(secs(60));
    stage
}

fn round_trips(time: Duration, link: &LinkConfig) -> f64 {
    time.as_secs_f64() / (link.delay.base.as_secs_f64() * 2.0)
}

fn print(bar: &str, all: &[f64]) {
    let at = |share| quantile(all.to_vec(), share);
    println!(
        "bar: {bar}: {:.2}/{:.2}/{:.2}/{:.2} RTT median/95 %/99 %/max",
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
}
