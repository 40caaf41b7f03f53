//! One thing to measure: with whom, where, how long it takes, and how much of the machine it needs.

use std::time::Duration;

use anyhow::Result;

use super::bulk::{self, Figures, Span};
use super::contest::Contestant;
use super::measures::Measure;
use super::routes::Route;
use super::{cable, datagrams, local, short};
use crate::lab::stream::Congestion;

/// Something to measure once
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Experiment {
    /// Over which link
    pub route: Route,
    /// With whom
    pub contestant: Contestant,
    /// What
    pub kind: Kind,
}

/// What is measured
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// One TCP stream, and a ping beside it
    Stream,
    /// 100 KB over new connections
    Objects,
    /// The same at first contact
    Cold,
    /// Requests on open connections
    Requests,
    /// Pings on an idle link
    Pings,
    /// 30 Mbit/s of UDP
    Constant,
    /// A stream whose link changes its rate
    Steps,
    /// A stream beside another one outside the tunnel
    Beside(Congestion),
    /// Two streams in one session
    TwoStreams,
    /// Two nodes' sessions
    TwoNodes,
    /// The highest rate of datagrams
    Datagrams,
    /// Questions and answers of one byte
    Turns,
    /// What a gigabyte costs
    Cost,
    /// A stream where everything shares one core
    OneCore,
    /// One of the figures in [`local`]
    Local(usize),
}

/// How thorough the benchmark is
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effort {
    /// Short, to see whether it works
    Quick,
    /// As long as the bars ask for
    Full,
}

/// How much of the machine an experiment needs
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Need {
    /// Next to nothing: an idle link
    Little,
    /// About one core
    Core,
    /// All of it: nothing else may run
    Machine,
}

impl Experiment {
    /// Measures once
    ///
    /// # Errors
    /// If something cannot be set up or does not work at all.
    pub fn run(self, effort: Effort, seed: u64) -> Result<Figures> {
        let Self { route, contestant, kind } = self;
        let quick = effort == Effort::Quick;
        match kind {
            Kind::Stream => bulk::stream(route, contestant, self.span(effort), seed),
            Kind::Constant => bulk::constant(route, contestant, self.span(effort), seed),
            Kind::Steps => bulk::steps(
                route,
                contestant,
                Duration::from_secs(if quick { 6 } else { 10 }),
                seed,
            ),
            Kind::Beside(other) => bulk::share(route, contestant, other, self.span(effort), seed),
            Kind::TwoStreams => bulk::two_streams(route, contestant, self.span(effort), seed),
            Kind::TwoNodes => bulk::two_nodes(route, self.span(effort), seed),
            Kind::Objects => short::objects(route, contestant, if quick { 10 } else { 40 }, seed),
            Kind::Cold => short::cold(route, contestant, if quick { 3 } else { 12 }, seed),
            Kind::Requests => {
                short::requests(route, contestant, if quick { 40 } else { 240 }, seed)
            }
            Kind::Pings => short::pings(route, contestant, if quick { 50 } else { 300 }, seed),
            Kind::Datagrams => datagrams::datagrams(contestant, effort, seed),
            Kind::Turns => {
                let time = Duration::from_secs(if quick { 1 } else { 3 });
                cable::round_trips(contestant, time, seed)
            }
            Kind::Cost => cable::cost(contestant, self.span(effort), seed),
            Kind::OneCore => cable::one_core(contestant, self.span(effort), seed),
            Kind::Local(place) => {
                let value = (local::FIGURES[place].measure)()?;
                Ok(vec![(Measure::Local(place), value)])
            }
        }
    }

    /// Returns the measures that come of it
    pub fn measures(self) -> Vec<Measure> {
        match self.kind {
            Kind::Stream => vec![
                Measure::Bulk,
                Measure::BusyLost,
                Measure::BusyMedian,
                Measure::Busy95,
                Measure::Busy99,
                Measure::Queue,
                Measure::Wire,
                Measure::Processor,
                Measure::Memory,
                Measure::Lateness,
            ],
            Kind::Objects => vec![Measure::ObjectMedian, Measure::Object95],
            Kind::Cold => vec![Measure::ColdMedian],
            Kind::Requests => vec![Measure::Request95, Measure::Request99],
            Kind::Pings => vec![Measure::IdleLost, Measure::Idle99],
            Kind::Constant => vec![Measure::ConstantWire, Measure::ConstantLost],
            Kind::Steps => vec![Measure::Halved, Measure::Doubled],
            Kind::Beside(Congestion::Bbr) => vec![Measure::BesideBbr],
            Kind::Beside(Congestion::Cubic) => vec![Measure::BesideCubic],
            Kind::TwoStreams => vec![Measure::JainStreams],
            Kind::TwoNodes => vec![Measure::JainNodes],
            Kind::Datagrams => vec![Measure::Datagrams, Measure::DatagramsShare],
            Kind::Turns => vec![Measure::Turns, Measure::TurnsShare],
            Kind::Cost => vec![Measure::Cost],
            Kind::OneCore => vec![
                Measure::OneCore,
                Measure::OneCoreLost,
                Measure::OneCoreMedian,
                Measure::OneCore99,
            ],
            Kind::Local(place) => vec![Measure::Local(place)],
        }
    }

    /// Returns about how many seconds it takes
    pub fn seconds(self, effort: Effort) -> u64 {
        let quick = effort == Effort::Quick;
        let rtt = self.route.rtt();
        let object = rtt.as_secs_f64() * self.guess() + 0.3;
        match self.kind {
            Kind::Stream
            | Kind::Constant
            | Kind::Beside(_)
            | Kind::TwoStreams
            | Kind::TwoNodes
            | Kind::Cost
            | Kind::OneCore => {
                // in one of the runs only
                let trials = if self.has_window() { 10 } else { 0 };
                self.span(effort).to.as_secs() + self.start_up() + trials
            }
            Kind::Steps => (if quick { 18 } else { 30 }) + self.start_up(),
            Kind::Objects => {
                let count = if quick { 10.0 } else { 40.0 };
                (count * object).min(short::LIMIT.as_secs_f64()) as u64 + self.start_up()
            }
            Kind::Cold => (if quick { 6 } else { 24 }) + self.start_up(),
            Kind::Requests => {
                let each = if quick { 10.0 } else { 60.0 };
                (each * (rtt.as_secs_f64() * 1.3 + 0.16)) as u64 + self.start_up()
            }
            Kind::Pings => (if quick { 5 } else { 30 }) + self.start_up(),
            Kind::Datagrams => (if quick { 19 } else { 30 }) + self.start_up(),
            Kind::Turns => (if quick { 2 } else { 6 }) + self.start_up(),
            Kind::Local(place) => local::FIGURES[place].seconds,
        }
    }

    /// Returns how much of the machine it needs
    pub fn need(self) -> Need {
        match self.kind {
            Kind::Objects | Kind::Cold | Kind::Requests | Kind::Pings => Need::Little,
            Kind::Local(place) => local::FIGURES[place].need,
            Kind::Stream
            | Kind::Datagrams
            | Kind::Turns
            | Kind::Cost
            | Kind::OneCore
            | Kind::Constant
            | Kind::Steps
            | Kind::Beside(_)
            | Kind::TwoStreams
            | Kind::TwoNodes => match self.route {
                Route::Low | Route::Gigabit | Route::Cable | Route::Local => Need::Machine,
                // of the others none comes near to what a core can do there
                Route::Medium | Route::High if self.contestant.program() == "fastvpn" => {
                    Need::Machine
                }
                Route::Medium
                | Route::High
                | Route::Random
                | Route::Bursts
                | Route::Tenth
                | Route::Fifth
                | Route::Clean
                | Route::Asymmetric => Need::Core,
            },
        }
    }

    /// Returns how many runs are enough, where one takes minutes
    pub fn most_runs(self) -> usize {
        match self.kind {
            Kind::Local(place) => local::FIGURES[place].most,
            Kind::Stream
            | Kind::Objects
            | Kind::Cold
            | Kind::Requests
            | Kind::Pings
            | Kind::Constant
            | Kind::Steps
            | Kind::Beside(_)
            | Kind::TwoStreams
            | Kind::TwoNodes
            | Kind::Datagrams
            | Kind::Turns
            | Kind::Cost
            | Kind::OneCore => usize::MAX,
        }
    }

    fn span(self, effort: Effort) -> Span {
        let quick = effort == Effort::Quick;
        match self.kind {
            Kind::Beside(_) | Kind::TwoStreams | Kind::TwoNodes if quick => Span::new(2, 12),
            Kind::Beside(_) | Kind::TwoStreams | Kind::TwoNodes => Span::new(0, 60),
            Kind::Stream | Kind::OneCore if quick => Span::new(3, 7),
            Kind::Cost if quick => Span::new(1, 3),
            Kind::OneCore => Span::new(3, 8),
            Kind::Stream if self.route.limit().is_none() => Span::new(3, 8),
            Kind::Stream => Span::new(3, 11),
            Kind::Constant if quick => Span::new(2, 5),
            Kind::Constant
            | Kind::Objects
            | Kind::Cold
            | Kind::Requests
            | Kind::Pings
            | Kind::Steps
            | Kind::Datagrams
            | Kind::Turns
            | Kind::Cost
            | Kind::Local(_) => Span::new(2, 10),
        }
    }

    fn has_window(self) -> bool {
        matches!(self.contestant, Contestant::Kcp | Contestant::Kcptun)
    }

    /// Seconds until a tunnel is up
    fn start_up(self) -> u64 {
        match self.contestant.program() {
            "fastvpn" => 5,
            "easytier" => 8,
            "tinc" => 4,
            _ => 3,
        }
    }

    /// Round trips that an object may take
    fn guess(self) -> f64 {
        match self.contestant.program() {
            "fastvpn" | "kcp" | "kcptun" => 3.0,
            _ => 9.0,
        }
    }
}
