//! Changes of a link over time, as data: "at 5 s loss 20 %".
//!
//! A [`Script`] only lists changes; who drives the link asks [`Script::due`] and applies them.

use std::collections::VecDeque;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use fastvpn_proto::time::{Duration, Instant};

use super::LinkConfig;
use super::loss::{Loss, Share, percent};
use super::rate::{Queue, Rate};

/// One change of a link's character
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Another character altogether
    Config(Box<LinkConfig>),
    /// Another mean delay
    Delay(Duration),
    /// Nothing passes any more
    Down,
    /// Another jitter
    Jitter(Duration),
    /// Other losses
    Loss(Loss),
    /// Another MTU
    Mtu(Option<usize>),
    /// Another queue
    Queue(Queue),
    /// Another rate
    Rate(Option<Rate>),
    /// Things pass again after [`Change::Down`]
    Up,
}

impl Change {
    /// Changes `config` accordingly
    pub fn apply(&self, config: &mut LinkConfig) {
        match self {
            Self::Config(new) => *config = (**new).clone(),
            Self::Delay(base) => config.delay.base = *base,
            Self::Down => config.down = true,
            Self::Jitter(jitter) => config.delay.jitter = *jitter,
            Self::Loss(loss) => config.loss = loss.clone(),
            Self::Mtu(mtu) => config.mtu = *mtu,
            Self::Queue(queue) => config.queue = *queue,
            Self::Rate(rate) => config.rate = *rate,
            Self::Up => config.down = false,
        }
    }

    /// Makes the change to uniform losses
    pub fn loss(share: Share) -> Self {
        Self::Loss(Loss::Random { share })
    }
}

impl FromStr for Change {
    type Err = anyhow::Error;

    /// Reads `rate 20 mbit`, `delay 100 ms`, `jitter 5 ms`, `queue 50 ms`, `loss 20 %`,
    /// `bursts 5 % of 8`, `mtu 1280`, `down` or `up`
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        Ok(match words[..] {
            ["down"] => Self::Down,
            ["up"] => Self::Up,
            ["rate", "none"] => Self::Rate(None),
            ["rate", number, unit] => Self::Rate(Some(rate(number, unit)?)),
            ["delay", number, unit] => Self::Delay(time(number, unit)?),
            ["jitter", number, unit] => Self::Jitter(time(number, unit)?),
            ["queue", number, unit] => Self::Queue(Queue::Time(time(number, unit)?)),
            ["loss", number, "%"] => Self::loss(share(number)?),
            ["bursts", number, "%", "of", length] => Self::Loss(Loss::Bursts {
                share: share(number)?,
                length: length.parse().context("length of bursts")?,
            }),
            ["mtu", "none"] => Self::Mtu(None),
            ["mtu", bytes] => Self::Mtu(Some(bytes.parse().context("bytes of mtu")?)),
            _ => bail!("no change of a link: {text:?}"),
        })
    }
}

/// Changes of a link, each with its time since the start
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    steps: VecDeque<(Duration, Change)>,
}

impl Script {
    /// Makes a script without changes
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a change; those of the same time happen in the order in which they were added
    #[must_use]
    pub fn at(mut self, time: Duration, change: Change) -> Self {
        let place = self.steps.partition_point(|(other, _)| *other <= time);
        self.steps.insert(place, (time, change));
        self
    }

    /// Takes the next change that is due at `now`, where the script began at `start`
    pub fn due(&mut self, start: Instant, now: Instant) -> Option<Change> {
        if start + self.steps.front()?.0 > now {
            return None;
        }
        self.steps.pop_front().map(|(_, change)| change)
    }

    /// Returns when the next change is due
    pub fn deadline(&self, start: Instant) -> Option<Instant> {
        self.steps.front().map(|(time, _)| start + *time)
    }
}

impl FromStr for Script {
    type Err = anyhow::Error;

    /// Reads steps like `at 5 s loss 20 %`, separated by semicolons or line ends
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut script = Self::new();
        for step in text.split([';', '\n']).map(str::trim).filter(|step| !step.is_empty()) {
            let words: Vec<_> = step.splitn(4, char::is_whitespace).collect();
            let ["at", number, unit, change] = words[..] else {
                bail!("a step is \"at TIME UNIT CHANGE\", not {step:?}");
            };
            script = script.at(time(number, unit)?, change.parse()?);
        }
        Ok(script)
    }
}

fn time(number: &str, unit: &str) -> anyhow::Result<Duration> {
    let number: f64 = number.parse().with_context(|| format!("time {number:?}"))?;
    let secs = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "min" => number * 60.0,
        _ => bail!("no unit of time: {unit:?}"),
    };
    Ok(Duration::try_from_secs_f64(secs)?)
}

fn rate(number: &str, unit: &str) -> anyhow::Result<Rate> {
    let number: f64 = number.parse().with_context(|| format!("rate {number:?}"))?;
    ensure!(number >= 0.0, "a rate is not negative");
    let factor = match unit {
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        _ => bail!("no unit of rate: {unit:?}"),
    };
    Ok(Rate::from_bits((number * factor) as u64))
}

fn share(number: &str) -> anyhow::Result<Share> {
    let number: f64 = number.parse().with_context(|| format!("share {number:?}"))?;
    ensure!((0.0..=100.0).contains(&number), "a share is from 0 to 100 %");
    Ok(percent(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{mbit, ms, secs};

    #[test]
    fn text_becomes_changes_in_order_of_time() {
        let mut script: Script =
            "at 5 s loss 20 %; at 500 ms rate 1.5 mbit\nat 5 s down".parse().unwrap();
        let expected = Script::new()
            .at(secs(5), Change::loss(percent(20)))
            .at(ms(500), Change::Rate(Some(Rate::from_bits(1_500_000))))
            .at(secs(5), Change::Down);
        assert_eq!(script, expected);

        let start = Instant::ZERO + secs(1);
        assert_eq!(script.deadline(start), Some(start + ms(500)));
        assert_eq!(script.due(start, start + ms(499)), None);
        assert!(matches!(script.due(start, start + secs(6)), Some(Change::Rate(_))));
        assert!(matches!(script.due(start, start + secs(6)), Some(Change::Loss(_))));
        assert_eq!(script.due(start, start + secs(6)), Some(Change::Down));
        assert_eq!(script.due(start, start + secs(6)), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in ["at 5 s", "5 s down", "at x s down", "at 1 h down", "at 1 s loss 120 %"] {
            assert!(text.parse::<Script>().is_err(), "{text}");
        }
    }

    #[test]
    fn change_touches_only_what_it_names() {
        let mut config = LinkConfig::new().rate(mbit(10)).delay(ms(50));

        Change::Delay(ms(80)).apply(&mut config);

        assert_eq!(config, LinkConfig::new().rate(mbit(10)).delay(ms(80)));
    }
}
