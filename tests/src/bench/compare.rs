//! Figures that follow from those of several contestants.

use super::contest::Contestant;
use super::measures::Measure;
use super::report::{Figure, Report};
use super::routes::Route;

/// Adds to a report what follows from its other figures
pub fn add(report: &mut Report) {
    let second = Contestant::ALL
        .into_iter()
        .filter(|who| !matches!(who.program(), "fastvpn" | "raw"))
        .filter_map(|who| median(report, Measure::Bulk, who))
        .reduce(f64::max);
    let wireguard = median(report, Measure::OneCore, Contestant::Wireguard);
    let pairs = [
        (Measure::TimesSecond, Measure::Bulk, second),
        (Measure::TimesOnOneCore, Measure::OneCore, wireguard),
    ];
    for (measure, of, other) in pairs {
        let own = median(report, of, Contestant::Fastvpn);
        if let (Some(own), Some(other)) = (own, other.filter(|other| *other > 0.0)) {
            let who = Contestant::Fastvpn;
            report.figures.push(Figure::new(Route::Cable, measure, who, vec![own / other]));
        }
    }
}

fn median(report: &Report, measure: Measure, who: Contestant) -> Option<f64> {
    let figures = report.of(Route::Cable, measure);
    figures.into_iter().find(|figure| figure.who == who.name()).map(|figure| figure.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_is_the_best_of_the_other_programs() {
        let figure =
            |who, mbits| Figure::new(Route::Cable, Measure::Bulk, who, vec![mbits, mbits, 1.0]);
        let mut report = Report {
            figures: vec![
                figure(Contestant::Fastvpn, 6000.0),
                figure(Contestant::Raw, 30_000.0),
                figure(Contestant::Wireguard, 400.0),
                figure(Contestant::Easytier, 600.0),
            ],
            ..Report::default()
        };

        add(&mut report);

        let times = report.of(Route::Cable, Measure::TimesSecond);
        assert_eq!(times.len(), 1);
        assert_eq!((times[0].median, times[0].met), (10.0, Some(true)));
        assert!(report.of(Route::Cable, Measure::TimesOnOneCore).is_empty());
    }
}
