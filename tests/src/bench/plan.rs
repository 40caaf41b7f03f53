//! Which experiments there are, and which of them are wanted.

use super::contest::Contestant;
use super::experiment::{Experiment, Kind};
use super::local;
use super::routes::{Link, Route};
use crate::lab::stream::Congestion;

/// A choice among the experiments
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Parts of `LINK/MEASURE`; all if empty
    pub only: Vec<String>,
    /// Programs; all if empty
    pub programs: Vec<String>,
}

impl Choice {
    /// Returns the wanted experiments
    pub fn experiments(&self) -> Vec<Experiment> {
        all().into_iter().filter(|experiment| self.wants(*experiment)).collect()
    }

    fn wants(&self, experiment: Experiment) -> bool {
        let who = experiment.contestant;
        let named = self.programs.is_empty() || self.programs.iter().any(|name| who.is_named(name));
        let route = experiment.route.name();
        let measures = experiment.measures();
        let mut paths = measures.iter().map(|measure| format!("{route}/{}", measure.name()));
        named
            && (self.only.is_empty()
                || paths.any(|path| self.only.iter().any(|part| path.contains(part.as_str()))))
    }
}

/// All experiments
fn all() -> Vec<Experiment> {
    let mut all = Vec::new();
    for contestant in Contestant::ALL {
        for route in Route::ALL {
            for kind in kinds(contestant, route) {
                all.push(Experiment { route, contestant, kind });
            }
        }
    }
    all
}

/// What is measured of a contestant on a route
fn kinds(contestant: Contestant, route: Route) -> Vec<Kind> {
    if route.link() == Link::Cable {
        return on_cable(contestant);
    }
    match contestant {
        Contestant::Fastvpn => own_kinds(route),
        Contestant::RawBbr => streams(route),
        // a cipher makes a difference only where nothing else is the limit
        Contestant::FastvpnAes | Contestant::FastvpnChacha => Vec::new(),
        Contestant::FastvpnTcp | Contestant::FastvpnKcp => match route {
            Route::Random | Route::Clean => streams(route),
            Route::Bursts
            | Route::Tenth
            | Route::Fifth
            | Route::Asymmetric
            | Route::Low
            | Route::Medium
            | Route::High
            | Route::Gigabit
            | Route::Cable
            | Route::Local => Vec::new(),
        },
        Contestant::FastvpnBbr => match route {
            Route::Low
            | Route::Medium
            | Route::High
            | Route::Gigabit
            | Route::Cable
            | Route::Local => Vec::new(),
            Route::Random
            | Route::Bursts
            | Route::Tenth
            | Route::Fifth
            | Route::Clean
            | Route::Asymmetric => streams(route),
        },
        Contestant::Raw => match route {
            Route::Gigabit => vec![Kind::Stream],
            Route::Random => vec![Kind::Stream, Kind::Objects, Kind::Requests],
            Route::Fifth => vec![Kind::Stream, Kind::Objects, Kind::Requests, Kind::Pings],
            Route::Bursts
            | Route::Tenth
            | Route::Clean
            | Route::Asymmetric
            | Route::Low
            | Route::Medium
            | Route::High
            | Route::Cable
            | Route::Local => streams(route),
        },
        // what BBR does for short transfers, the bare link shows
        Contestant::WireguardBbr => streams(route),
        Contestant::Kcp
        | Contestant::Wireguard
        | Contestant::Boringtun
        | Contestant::Tinc
        | Contestant::Openvpn
        | Contestant::Vpncloud
        | Contestant::Nebula
        | Contestant::Kcptun
        | Contestant::Easytier
        | Contestant::EasytierKcp
        | Contestant::EasytierQuic => match route {
            Route::Random => vec![Kind::Stream, Kind::Objects, Kind::Requests],
            Route::Bursts
            | Route::Tenth
            | Route::Fifth
            | Route::Clean
            | Route::Asymmetric
            | Route::Low
            | Route::Medium
            | Route::High
            | Route::Gigabit
            | Route::Cable
            | Route::Local => streams(route),
        },
    }
}

/// What is measured of a contestant where no link is the limit
fn on_cable(contestant: Contestant) -> Vec<Kind> {
    match contestant {
        Contestant::Fastvpn | Contestant::Wireguard => {
            vec![Kind::Stream, Kind::Datagrams, Kind::Turns, Kind::Cost, Kind::OneCore]
        }
        Contestant::FastvpnAes | Contestant::FastvpnChacha => vec![Kind::Stream],
        // it has no processes that could cost anything
        Contestant::Raw => vec![Kind::Stream, Kind::Datagrams, Kind::Turns, Kind::OneCore],
        Contestant::Boringtun
        | Contestant::Tinc
        | Contestant::Openvpn
        | Contestant::Vpncloud
        | Contestant::Nebula
        | Contestant::Easytier => vec![Kind::Stream, Kind::Datagrams, Kind::Turns, Kind::Cost],
        Contestant::Kcptun | Contestant::EasytierKcp | Contestant::EasytierQuic => {
            vec![Kind::Stream]
        }
        Contestant::FastvpnBbr
        | Contestant::FastvpnTcp
        | Contestant::FastvpnKcp
        | Contestant::RawBbr
        | Contestant::WireguardBbr
        | Contestant::Kcp => Vec::new(),
    }
}

fn streams(route: Route) -> Vec<Kind> {
    match route {
        Route::Random
        | Route::Bursts
        | Route::Tenth
        | Route::Fifth
        | Route::Clean
        | Route::Asymmetric
        | Route::Low
        | Route::Medium
        | Route::High => vec![Kind::Stream],
        Route::Gigabit | Route::Cable | Route::Local => Vec::new(),
    }
}

/// What is measured of fastvpn
fn own_kinds(route: Route) -> Vec<Kind> {
    match route {
        Route::Random => vec![
            Kind::Stream,
            Kind::Objects,
            Kind::Cold,
            Kind::Requests,
            Kind::Constant,
            Kind::Steps,
        ],
        Route::Fifth => vec![Kind::Stream, Kind::Objects, Kind::Requests, Kind::Pings],
        Route::Clean => vec![
            Kind::Stream,
            Kind::Beside(Congestion::Cubic),
            Kind::Beside(Congestion::Bbr),
            Kind::TwoStreams,
            Kind::TwoNodes,
        ],
        Route::Bursts
        | Route::Tenth
        | Route::Asymmetric
        | Route::Low
        | Route::Medium
        | Route::High
        | Route::Gigabit => vec![Kind::Stream],
        Route::Cable => Vec::new(),
        Route::Local => (0..local::FIGURES.len()).map(Kind::Local).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_names_link_measure_and_program() {
        let choice =
            Choice { only: vec!["random5/bulk".to_owned()], programs: vec!["raw".to_owned()] };

        let wanted = choice.experiments();

        let names: Vec<_> = wanted.iter().map(|wanted| wanted.contestant).collect();
        assert_eq!(names, [Contestant::Raw, Contestant::RawBbr]);
        assert!(wanted.iter().all(|wanted| wanted.route == Route::Random));
    }

    #[test]
    fn carriers_are_a_group_of_their_own_and_belong_to_fastvpn() {
        let of = |name: &str| Choice { programs: vec![name.to_owned()], ..Choice::default() };

        let carriers = of("carriers").experiments();

        assert_eq!(carriers.len(), 4);
        assert!(carriers.iter().all(|wanted| wanted.contestant.carrier().is_some()));
        let own = of("fastvpn").experiments();
        assert!(carriers.iter().all(|wanted| own.contains(wanted)));
    }

    #[test]
    fn each_bar_is_measured() {
        use crate::bench::bars::bar;
        use crate::bench::measures::Measure;
        let all = all();
        for route in Route::ALL {
            for measure in Measure::ALL
                .into_iter()
                .filter(|measure| !measure.is_derived() && bar(route, *measure).is_some())
            {
                // rate steps and shares have the same bar wherever they are measured
                let everywhere = bar(Route::Local, measure).is_some();
                assert!(
                    everywhere
                        || all.iter().any(|experiment| {
                            experiment.contestant == Contestant::Fastvpn
                                && experiment.route == route
                                && experiment.measures().contains(&measure)
                        }),
                    "{route:?} {measure:?}"
                );
            }
        }
    }
}
