//! What came of a benchmark, for people and for programs.
//!
//! The JSON form is stable: names of links, measures and contestants do not change their meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bars::{Goals, goals};
use super::contest::Contestant;
use super::local;
use super::measures::Measure;
use super::routes::Route;
use super::stats::median;

/// All figures of a benchmark, and where they were taken
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Report {
    /// Day, as `2026-01-31`
    pub date: String,
    /// The machine
    pub machine: Machine,
    /// Versions of the programs
    pub versions: BTreeMap<String, String>,
    /// Runs of each figure
    pub runs: usize,
    /// Whether the experiments were shortened
    pub quick: bool,
    /// How many minutes it took
    pub minutes: f64,
    /// The figures
    pub figures: Vec<Figure>,
    /// What could not be measured, and why
    pub skipped: Vec<Skipped>,
}

/// The class of a machine
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Machine {
    /// Model of the processor
    pub processor: String,
    /// Number of cores
    pub cores: usize,
    /// Memory in GiB
    pub memory: u64,
    /// Version of the kernel
    pub kernel: String,
}

/// One figure, measured some times
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figure {
    /// Over which link
    pub link: String,
    /// What, as [`Measure::name`]
    pub measure: String,
    /// Unit; empty for ratios
    pub unit: String,
    /// Of whom, as [`Contestant::name`]
    pub who: String,
    /// Median of the runs
    pub median: f64,
    /// Smallest
    pub min: f64,
    /// Largest
    pub max: f64,
    /// All runs
    pub values: Vec<f64>,
    /// What fastvpn has to reach
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bar: Option<String>,
    /// Whether the median reaches that
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
    /// What would be better than the bar, where that is said
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aim: Option<String>,
    /// Whether the median reaches that, too
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aim_met: Option<bool>,
}

/// Something that could not be measured
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Skipped {
    /// Over which link, or all
    pub link: String,
    /// Of whom
    pub who: String,
    /// Why
    pub why: String,
}

impl Figure {
    /// Makes a figure of its runs, of which there is at least one
    pub fn new(route: Route, measure: Measure, who: Contestant, values: Vec<f64>) -> Self {
        let goals = goals(route, measure, who);
        let (bar, aim) = (goals.map(|Goals { bar, .. }| bar), goals.and_then(|goals| goals.aim));
        let middle = median(&values).unwrap_or(f64::NAN);
        Self {
            link: route.name().to_owned(),
            measure: measure.name().to_owned(),
            unit: measure.unit().to_owned(),
            who: who.name().to_owned(),
            median: middle,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            values,
            bar: bar.map(|bar| bar.to_string()),
            met: bar.map(|bar| bar.is_met(middle)),
            aim: aim.map(|aim| aim.to_string()),
            aim_met: aim.map(|aim| aim.is_met(middle)),
        }
    }
}

impl Report {
    /// Returns the figures of a measure on a route, in the order of the contestants
    pub fn of(&self, route: Route, measure: Measure) -> Vec<&Figure> {
        let here =
            |figure: &&Figure| figure.link == route.name() && figure.measure == measure.name();
        let place = |figure: &&Figure| Contestant::of(&figure.who);
        let mut found: Vec<&Figure> = self.figures.iter().filter(here).collect();
        found.sort_by_key(place);
        found
    }

    /// Returns all measures, those of [`local`] at the end
    pub fn measures() -> Vec<Measure> {
        let local = (0..local::FIGURES.len()).map(Measure::Local);
        Measure::ALL.into_iter().chain(local).collect()
    }
}

impl Machine {
    /// Describes this machine
    pub fn here() -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: kib.div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// Returns the day of a time since 1970, in UTC
pub fn date(since_1970: std::time::Duration) -> String {
    let mut days = since_1970.as_secs() / 86_400;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn date_counts_leap_years() {
        let day = |secs| date(Duration::from_secs(secs));

        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_400), "2000-02-29");
        assert_eq!(day(1_798_675_200), "2026-12-31");
    }

    #[test]
    fn figure_knows_its_bar_only_for_fastvpn() {
        let of = |who| Figure::new(Route::Random, Measure::Bulk, who, vec![80.0, 90.0, 85.0]);

        let (own, raw) = (of(Contestant::Fastvpn), of(Contestant::RawBbr));

        assert_eq!((own.median, own.min, own.max), (85.0, 80.0, 90.0));
        assert_eq!((own.met, raw.met), (Some(true), None));
    }
}
