//! What fastvpn is meant to reach; shown beside the figures, never enforced.

use std::fmt;

use super::{Contestant, Measure, Route};

/// A goal for one figure
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// No less than this
    AtLeast(f64),
    /// Less than this
    Under(f64),
    /// Between these
    Between(f64, f64),
}

impl Bar {
    /// Tells whether a figure reaches the goal
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::Under(most) => value < most,
            Self::Between(least, most) => (least..=most).contains(&value),
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(out, "≥ {least}"),
            Self::Under(most) => write!(out, "< {most}"),
            Self::Between(least, most) => write!(out, "{least}–{most}"),
        }
    }
}

/// What one figure of a contestant is meant to be
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goals {
    /// What it has to reach
    pub bar: Bar,
    /// What would be better
    pub aim: Option<Bar>,
}

/// Returns the goals for a contestant's figure, if there are any
pub fn goals(route: Route, measure: Measure, who: Contestant) -> Option<Goals> {
    let here = route == Route::Cable && measure == Measure::Bulk;
    match who {
        Contestant::Fastvpn | Contestant::FastvpnBbr => {
            bar(route, measure).map(|bar| Goals { bar, aim: aim(route, measure) })
        }
        Contestant::FastvpnAes => here.then_some(at_least(5000.0, 8000.0)),
        Contestant::FastvpnChacha => here.then_some(at_least(3500.0, 5500.0)),
        Contestant::FastvpnTcp
        | Contestant::FastvpnKcp
        | Contestant::Raw
        | Contestant::RawBbr
        | Contestant::Kcp
        | Contestant::Wireguard
        | Contestant::WireguardBbr
        | Contestant::Boringtun
        | Contestant::Tinc
        | Contestant::Openvpn
        | Contestant::Vpncloud
        | Contestant::Nebula
        | Contestant::Kcptun
        | Contestant::Easytier
        | Contestant::EasytierKcp
        | Contestant::EasytierQuic => None,
    }
}

const fn at_least(bar: f64, aim: f64) -> Goals {
    Goals { bar: Bar::AtLeast(bar), aim: Some(Bar::AtLeast(aim)) }
}

/// Returns what would be better than the bar
fn aim(route: Route, measure: Measure) -> Option<Bar> {
    match (route, measure) {
        (Route::Cable, Measure::Bulk) => Some(Bar::AtLeast(8000.0)),
        (Route::Cable, Measure::TimesSecond) => Some(Bar::AtLeast(8.0)),
        (Route::Cable, Measure::DatagramsShare) => Some(Bar::AtLeast(80.0)),
        (Route::Cable, Measure::TurnsShare) => Some(Bar::AtLeast(60.0)),
        (Route::Cable, Measure::Cost) => Some(Bar::Under(0.8)),
        (Route::Gigabit, Measure::Memory) => Some(Bar::Under(32.0)),
        _ => None,
    }
}

/// Returns the bar for a measure of fastvpn on a route, if there is one
pub fn bar(route: Route, measure: Measure) -> Option<Bar> {
    match measure {
        Measure::Bulk => bulk(route).map(Bar::AtLeast),
        Measure::BusyLost => only(route, Route::Random, Bar::Under(0.5)),
        Measure::Busy99 => only(route, Route::Random, Bar::Under(20.0)),
        Measure::Queue => only(route, Route::Clean, Bar::Under(12.0)),
        Measure::Wire => only(route, Route::Random, Bar::Under(1.15)),
        Measure::IdleLost => only(route, Route::Fifth, Bar::Under(0.5)),
        Measure::ObjectMedian => only(route, Route::Random, Bar::Under(2.2)),
        Measure::Object95 => by_loss(route, Bar::Under(2.7), Bar::Under(3.5)),
        Measure::ColdMedian => only(route, Route::Random, Bar::Under(4.0)),
        Measure::Request95 => by_loss(route, Bar::Under(1.1), Bar::Under(1.2)),
        Measure::Request99 => only(route, Route::Random, Bar::Under(1.5)),
        Measure::ConstantWire => only(route, Route::Random, Bar::Under(1.25)),
        Measure::Halved | Measure::Doubled => Some(Bar::Under(3.0)),
        Measure::BesideCubic | Measure::BesideBbr => Some(Bar::Between(30.0, 70.0)),
        Measure::JainStreams => Some(Bar::AtLeast(0.99)),
        Measure::JainNodes => Some(Bar::AtLeast(0.9)),
        Measure::Memory => only(route, Route::Gigabit, Bar::Under(64.0)),
        Measure::TimesSecond => only(route, Route::Cable, Bar::AtLeast(5.0)),
        Measure::TimesOnOneCore => only(route, Route::Cable, Bar::AtLeast(2.0)),
        Measure::DatagramsShare => only(route, Route::Cable, Bar::AtLeast(50.0)),
        Measure::TurnsShare => only(route, Route::Cable, Bar::AtLeast(40.0)),
        Measure::Cost => only(route, Route::Cable, Bar::Under(1.5)),
        Measure::Local(place) => super::local::FIGURES[place].bar,
        Measure::BusyMedian
        | Measure::Busy95
        | Measure::Processor
        | Measure::Lateness
        | Measure::Idle99
        | Measure::Datagrams
        | Measure::Turns
        | Measure::OneCore
        | Measure::OneCoreLost
        | Measure::OneCoreMedian
        | Measure::OneCore99
        | Measure::ConstantLost => None,
    }
}

/// Mbit/s of one stream
///
/// For vpn-bench's profiles ten times the best published figure (41 and 4.2 Mbit/s), and for the
/// low one, where that exceeds the link, 90 % of a gigabit.
fn bulk(route: Route) -> Option<f64> {
    match route {
        Route::Random => Some(82.0),
        Route::Bursts => Some(80.0),
        Route::Tenth => Some(38.0),
        Route::Fifth => Some(13.5),
        Route::Clean => Some(90.0),
        Route::Asymmetric => Some(85.0),
        Route::Low => Some(830.0),
        Route::Medium => Some(410.0),
        Route::High => Some(42.0),
        Route::Cable => Some(5000.0),
        Route::Gigabit | Route::Local => None,
    }
}

fn only(route: Route, wanted: Route, bar: Bar) -> Option<Bar> {
    (route == wanted).then_some(bar)
}

/// One bar at 5 %, another at 20 % of loss
fn by_loss(route: Route, random: Bar, fifth: Bar) -> Option<Bar> {
    only(route, Route::Random, random).or(only(route, Route::Fifth, fifth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_met_from_the_right_side() {
        assert!(Bar::AtLeast(82.0).is_met(82.0));
        assert!(!Bar::Under(0.5).is_met(0.5));
        assert!(!Bar::Between(30.0, 70.0).is_met(71.0));
    }

    #[test]
    fn aim_asks_for_more_than_the_bar() {
        for (route, who) in Route::ALL.into_iter().flat_map(|route| {
            Contestant::ALL.into_iter().map(move |contestant| (route, contestant))
        }) {
            for measure in Measure::ALL {
                let Some(Goals { bar, aim: Some(aim) }) = goals(route, measure, who) else {
                    continue;
                };
                let harder = match (bar, aim) {
                    (Bar::AtLeast(bar), Bar::AtLeast(aim)) => aim > bar,
                    (Bar::Under(bar), Bar::Under(aim)) => aim < bar,
                    _ => false,
                };
                assert!(harder, "{route:?} {measure:?}: {bar}, {aim}");
            }
        }
    }

    #[test]
    fn no_bar_asks_for_more_than_the_link_carries() {
        for route in Route::ALL {
            if let (Some(limit), Some(Bar::AtLeast(least))) =
                (route.limit(), bar(route, Measure::Bulk))
            {
                assert!(least < limit, "{route:?}: {least} of {limit}");
            }
        }
    }
}
