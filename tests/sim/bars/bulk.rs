//! One TCP stream fills the link, whatever the link does.

use fastvpn_tests::link::{LinkConfig, mbit, ms, percent, secs};

use super::{Figures, Stage, each_seed, limit, lossy5, lossy20, median};

#[test]
fn stream_fills_100_mbit_of_200_ms_and_5_percent() {
    let figures = bulk("5 % link", 3_000, lossy5(), lossy5());

    assert!(figures.rate >= 82.0);
    assert!(figures.wire_for_each < 1.15);
}

#[test]
fn stream_fills_100_mbit_of_200_ms_and_bursts() {
    let link = || lossy5().bursts(percent(5), 8.0);
    let figures = bulk("5 % in bursts of 8", 3_010, link(), link());

    assert!(figures.rate >= 80.0);
}

#[test]
fn stream_fills_50_mbit_of_250_ms_and_10_percent() {
    let link = || LinkConfig::new().rate(mbit(50)).queue(ms(100)).delay(ms(125)).loss(percent(10));
    let figures = bulk("10 % link", 3_020, link(), link());

    assert!(figures.rate >= 38.0);
}

#[test]
fn stream_fills_20_mbit_of_300_ms_and_20_percent() {
    let figures = bulk("20 % link", 3_030, lossy20(), lossy20());

    assert!(figures.rate >= 13.5);
}

#[test]
fn stream_fills_a_clean_link_and_leaves_its_queue_short() {
    let link = || LinkConfig::new().rate(mbit(100)).queue(ms(100)).delay(ms(50));
    let figures = bulk("no loss", 3_040, link(), link());

    assert!(figures.rate >= 90.0);
    assert!(figures.queue < ms(12));
}

#[test]
fn stream_fills_the_wide_way_of_an_asymmetric_link() {
    let down = LinkConfig::new().rate(mbit(100)).queue(ms(100)).delay(ms(30)).loss(percent(1));
    let up = LinkConfig::new().rate(mbit(1)).queue(ms(100)).delay(ms(30)).loss(percent(1));
    let figures = bulk("100 down, 1 up", 3_050, down, up);

    assert!(figures.rate >= 85.0);
}

/// The published benchmark of VPNs has a gigabit; the same at 300 Mbit/s takes less of our time
#[test]
fn stream_fills_links_of_a_published_benchmark() {
    let profiles = [
        ("low", 2, 2, 0.25, 0.5, 0.9 * limit(mbit(300), 0.0025) / 1e6),
        ("medium", 4, 7, 1.0, 2.5, 0.9 * limit(mbit(300), 0.01) / 1e6),
        ("high", 6, 15, 2.5, 5.0, 42.0),
    ];
    for (name, delay, jitter, loss, early, bar) in profiles {
        let link = || {
            let link = LinkConfig::new().rate(mbit(300)).queue(ms(50)).delay(ms(delay));
            link.reordering_jitter(ms(jitter)).early(percent(early)).loss(percent(loss))
        };
        let rates = each_seed(3_060, |seed| {
            let figures = Stage::new(seed, link(), link()).bulk(secs(4));
            figures.print(name);
            figures.rate
        });

        let rate = median(rates);
        assert!(rate >= bar, "{name}: {rate:.1} of {bar:.1} Mbit/s");
    }
}

/// Measures a stream for ten seconds; with several seeds, returns the one of median rate
fn bulk(bar: &str, seed: u64, there: LinkConfig, back: LinkConfig) -> Figures {
    let measure = |seed| {
        let figures = Stage::new(seed, there.clone(), back.clone()).bulk(secs(10));
        figures.print(bar);
        figures
    };
    let mut all = each_seed(seed, measure);
    all.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    all.swap_remove(all.len() / 2)
}
