//! A report as the tables of the README: bad links, and speed over a cable.

mod fast;

use std::fmt::Write;

use crate::bench::bars::bar;
use crate::bench::contest::Contestant;
use crate::bench::measures::Measure;
use crate::bench::report::Report;
use crate::bench::routes::{Link, Route};

/// Returns the report as Markdown
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}\n", circumstances(report));
    streams(&mut text, report);
    pings(&mut text, report);
    others(&mut text, report);
    fast::tables(&mut text, report);
    text
}

/// Where and when
fn circumstances(report: &Report) -> String {
    let machine = &report.machine;
    let versions: Vec<String> =
        report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let runs = match report.runs {
        1 => "one run each".to_owned(),
        runs => format!("medians of {runs} runs"),
    };
    format!(
        "Measured by `tests/bench` on {}, {runs}: {}, {} cores, {} GiB, Linux {}; {}.",
        report.date,
        machine.processor,
        machine.cores,
        machine.memory,
        machine.kernel,
        versions.join(", "),
    )
}

/// One line for each link, one column for each contestant
fn streams(text: &mut String, report: &Report) {
    let routes: Vec<Route> = with(report, Measure::Bulk)
        .into_iter()
        .filter(|route| route.link() == Link::Emulated)
        .collect();
    let all: Vec<Contestant> = Contestant::ALL
        .into_iter()
        .filter(|who| {
            routes.iter().any(|route| value(report, *route, Measure::Bulk, *who).is_some())
        })
        .collect();
    if all.is_empty() {
        return;
    }
    let _ = writeln!(text, "One TCP stream, Mbit/s from the third second on:\n");
    head(text, "link", "aim", &all);
    for route in routes {
        let goal = bar(route, Measure::Bulk).map(|bar| bar.to_string()).unwrap_or_default();
        row(text, route.title(), &goal, report, (route, Measure::Bulk), &all);
    }
    let _ = writeln!(text);
}

/// What a stream does to a ping, and 100 KB objects, on the link of most interest
fn pings(text: &mut String, report: &Report) {
    let measures = [
        Measure::BusyLost,
        Measure::Busy99,
        Measure::Wire,
        Measure::ObjectMedian,
        Measure::Object95,
        Measure::Request95,
        Measure::Request99,
    ];
    let route = Route::Random;
    let all: Vec<Contestant> = Contestant::ALL
        .into_iter()
        .filter(|who| measures.iter().any(|m| value(report, route, *m, *who).is_some()))
        .collect();
    if all.is_empty() {
        return;
    }
    let _ = writeln!(text, "What else that means, at {}:\n", route.title());
    head(text, "what", "aim", &all);
    for measure in measures {
        let goal = bar(route, measure).map(|bar| bar.to_string()).unwrap_or_default();
        let title = match measure.unit() {
            "" => measure.title().to_owned(),
            unit => format!("{}, {unit}", measure.title()),
        };
        row(text, &title, &goal, report, (route, measure), &all);
    }
    let _ = writeln!(text);
}

/// All other bars of fastvpn
fn others(text: &mut String, report: &Report) {
    let own = Contestant::Fastvpn;
    let mut lines = Vec::new();
    for route in Route::ALL {
        for measure in Report::measures() {
            let shown = measure == Measure::Bulk
                || fast::shows(route, measure)
                || route == Route::Random
                    && matches!(
                        measure,
                        Measure::BusyLost
                            | Measure::Busy99
                            | Measure::Wire
                            | Measure::ObjectMedian
                            | Measure::Object95
                            | Measure::Request95
                            | Measure::Request99
                    );
            let (Some(bar), Some(value)) =
                (bar(route, measure), value(report, route, measure, own))
            else {
                continue;
            };
            if !shown {
                let unit = measure.unit();
                lines.push(format!(
                    "| {} | {} | {bar} {unit} | {value} |",
                    route.title(),
                    measure.title()
                ));
            }
        }
    }
    if !lines.is_empty() {
        let _ = writeln!(text, "And of fastvpn alone:\n\n| link | what | aim | measured |");
        let _ = writeln!(text, "| --- | --- | --- | --- |\n{}", lines.join("\n"));
    }
}

fn head(text: &mut String, first: &str, second: &str, all: &[Contestant]) {
    let names: Vec<&str> = all.iter().map(|who| who.name()).collect();
    let _ = writeln!(text, "| {first} | {second} | {} |", names.join(" | "));
    let _ = writeln!(text, "| --- | --- |{}", " ---: |".repeat(all.len()));
}

fn row(
    text: &mut String,
    title: &str,
    goal: &str,
    report: &Report,
    (route, measure): (Route, Measure),
    all: &[Contestant],
) {
    let cell = |who: &Contestant| value(report, route, measure, *who).unwrap_or("–".to_owned());
    let cells: Vec<String> = all.iter().map(cell).collect();
    let _ = writeln!(text, "| {title} | {goal} | {} |", cells.join(" | "));
}

/// The routes on which something was measured
fn with(report: &Report, measure: Measure) -> Vec<Route> {
    Route::ALL.into_iter().filter(|route| !report.of(*route, measure).is_empty()).collect()
}

fn value(report: &Report, route: Route, measure: Measure, who: Contestant) -> Option<String> {
    let figures = report.of(route, measure);
    let figure = figures.into_iter().find(|figure| figure.who == who.name())?;
    Some(format!("{:.*}", measure.digits(), figure.median))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Figure;

    #[test]
    fn table_has_a_column_for_each_who_was_measured() {
        let figure = |who, value| Figure::new(Route::Random, Measure::Bulk, who, vec![value]);
        let report = Report {
            runs: 3,
            figures: vec![figure(Contestant::Raw, 0.31), figure(Contestant::Fastvpn, 84.0)],
            ..Report::default()
        };

        let text = text(&report);

        assert!(text.contains("| link | aim | fastvpn | bare link, CUBIC |"), "{text}");
        assert!(text.contains("| ≥ 82 | 84.0 | 0.3 |"), "{text}");
    }
}
