//! The links of the benchmark: those of the bars, and three that others publish figures for.

use std::time::Duration;

use crate::link::rate::Rate;
use crate::link::{LinkConfig, gbit, mbit, ms, percent};

/// A link between two hosts, with its own character in each direction
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Route {
    /// 100 Mbit/s, 200 ms, 5 % random loss each way
    Random,
    /// The same, lost in bursts of eight
    Bursts,
    /// 50 Mbit/s, 250 ms, 10 % each way
    Tenth,
    /// 20 Mbit/s, 300 ms, 20 % each way, packets overtake each other
    Fifth,
    /// 100 Mbit/s, 100 ms, no loss
    Clean,
    /// 100 Mbit/s one way, 1 Mbit/s the other
    Asymmetric,
    /// vpn-bench's low impairment
    Low,
    /// vpn-bench's medium impairment
    Medium,
    /// vpn-bench's high impairment
    High,
    /// A gigabit, nothing wrong with it: what the emulator carries
    Gigabit,
    /// A cable between the namespaces, without the emulator: what the machine carries
    Cable,
    /// No link between two hosts: crowds, and the machine itself
    Local,
}

/// What joins two hosts
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Link {
    /// The emulator
    Emulated,
    /// The kernel alone
    Cable,
}

impl Route {
    /// All of them, in the order of the tables
    pub const ALL: [Self; 12] = [
        Self::Random,
        Self::Bursts,
        Self::Tenth,
        Self::Fifth,
        Self::Clean,
        Self::Asymmetric,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Gigabit,
        Self::Cable,
        Self::Local,
    ];

    /// Returns the name for the command line and for JSON
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random5",
            Self::Bursts => "bursts5",
            Self::Tenth => "random10",
            Self::Fifth => "random20",
            Self::Clean => "clean",
            Self::Asymmetric => "asymmetric",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Gigabit => "gigabit",
            Self::Cable => "cable",
            Self::Local => "local",
        }
    }

    /// Returns the route of a name
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.name() == name)
    }

    /// Says what it is like
    pub const fn title(self) -> &'static str {
        match self {
            Self::Random => "100 Mbit/s, 200 ms, 5 % lost each way",
            Self::Bursts => "100 Mbit/s, 200 ms, 5 % lost each way in bursts of 8",
            Self::Tenth => "50 Mbit/s, 250 ms, 10 % lost each way",
            Self::Fifth => "20 Mbit/s, 300 ms ±20 ms with reordering, 20 % lost each way",
            Self::Clean => "100 Mbit/s, 100 ms, no loss",
            Self::Asymmetric => "100 Mbit/s down, 1 Mbit/s up, 60 ms, 1 % lost each way",
            Self::Low => "1 Gbit/s, each way 2 ±2 ms, 0.25 % lost, 0.5 % overtaking",
            Self::Medium => "1 Gbit/s, each way 4 ±7 ms, 1 % lost, 2.5 % overtaking",
            Self::High => "1 Gbit/s, each way 6 ±15 ms, 2.5 % lost, 5 % overtaking",
            Self::Gigabit => "1 Gbit/s, 1 ms, no loss",
            Self::Cable => "a cable (veth), no emulator",
            Self::Local => "no emulated link",
        }
    }

    /// Returns the character of the direction in which bulk data travels
    pub fn forward(self) -> LinkConfig {
        let link = |rate: Rate, delay: u64| {
            LinkConfig::new().rate(rate).queue(ms(100)).delay(Duration::from_millis(delay))
        };
        match self {
            Self::Random => link(mbit(100), 100).loss(percent(5)),
            Self::Bursts => link(mbit(100), 100).bursts(percent(5), 8.0),
            Self::Tenth => link(mbit(50), 125).loss(percent(10)),
            Self::Fifth => link(mbit(20), 150).reordering_jitter(ms(20)).loss(percent(20)),
            Self::Clean => link(mbit(100), 50),
            Self::Asymmetric => link(mbit(100), 30).loss(percent(1)),
            Self::Low => impaired(2, 2, 0.25, 0.5),
            Self::Medium => impaired(4, 7, 1.0, 2.5),
            Self::High => impaired(6, 15, 2.5, 5.0),
            Self::Gigabit => link(gbit(1), 0).delay(Duration::from_micros(500)),
            Self::Cable | Self::Local => LinkConfig::new(),
        }
    }

    /// Returns the character of the way back
    pub fn back(self) -> LinkConfig {
        match self {
            Self::Asymmetric => self.forward().rate(mbit(1)),
            Self::Random
            | Self::Bursts
            | Self::Tenth
            | Self::Fifth
            | Self::Clean
            | Self::Low
            | Self::Medium
            | Self::High
            | Self::Gigabit
            | Self::Cable
            | Self::Local => self.forward(),
        }
    }

    /// Returns what joins the hosts
    pub fn link(self) -> Link {
        match self {
            Self::Cable => Link::Cable,
            Self::Random
            | Self::Bursts
            | Self::Tenth
            | Self::Fifth
            | Self::Clean
            | Self::Asymmetric
            | Self::Low
            | Self::Medium
            | Self::High
            | Self::Gigabit
            | Self::Local => Link::Emulated,
        }
    }

    /// Returns the mean round-trip time of an empty link
    pub fn rtt(self) -> Duration {
        self.forward().delay.base + self.back().delay.base
    }

    /// Returns the rate of the bottleneck in Mbit/s
    pub fn rate(self) -> Option<f64> {
        self.forward().rate.map(|rate| rate.bits() as f64 / 1e6)
    }

    /// Returns the most that can arrive: rate times (1 - loss) times the share of payload, in Mbit/s
    ///
    /// 1388 of 1500 bytes are payload. Only where the link itself is the limit, not the machine.
    pub fn limit(self) -> Option<f64> {
        let loss = match self {
            Self::Random | Self::Bursts => 0.05,
            Self::Tenth => 0.1,
            Self::Fifth => 0.2,
            Self::Clean => 0.0,
            Self::Asymmetric => 0.01,
            Self::Low | Self::Medium | Self::High | Self::Gigabit | Self::Cable | Self::Local => {
                return None;
            }
        };
        self.rate().map(|rate| rate * (1.0 - loss) * PAYLOAD)
    }
}

/// Share of payload in full packets through a tunnel
const PAYLOAD: f64 = 1388.0 / 1500.0;

/// A direction of one of vpn-bench's profiles; times in ms, shares in per cent
fn impaired(delay: u64, jitter: u64, loss: f64, early: f64) -> LinkConfig {
    LinkConfig::new()
        .rate(gbit(1))
        .queue(ms(100))
        .delay(Duration::from_millis(delay))
        .reordering_jitter(Duration::from_millis(jitter))
        .loss(percent(loss))
        .early(percent(early))
}
