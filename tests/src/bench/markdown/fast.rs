//! The tables of speed: what fastvpn has to reach where no link is the limit, and all beside it.

use std::fmt::Write;

use super::value;
use crate::bench::bars::{Goals, goals};
use crate::bench::contest::Contestant;
use crate::bench::measures::Measure;
use crate::bench::report::{Figure, Report};
use crate::bench::routes::Route;

/// Tells whether these tables have a figure
pub(super) fn shows(route: Route, measure: Measure) -> bool {
    route == Route::Cable || (route, measure) == (Route::Gigabit, Measure::Memory)
}

/// Writes both tables, as far as there is something to show
pub(super) fn tables(text: &mut String, report: &Report) {
    bars(text, report);
    all(text, report);
}

/// What fastvpn has to reach
fn bars(text: &mut String, report: &Report) {
    let lines: Vec<String> = ROWS.iter().filter_map(|row| line(row, report)).collect();
    if lines.is_empty() {
        return;
    }
    let cores = report.machine.cores;
    let _ = writeln!(
        text,
        "\nSpeed of fastvpn over a cable (veth between namespaces), both daemons and both ends of \
         the transfer on the same {cores} cores:\n"
    );
    let _ = writeln!(text, "| what | at least | aim | measured |");
    let _ = writeln!(text, "| --- | --- | --- | ---: |\n{}", lines.join("\n"));
}

fn line((title, route, measure, who): &Row, report: &Report) -> Option<String> {
    let value = value(report, *route, *measure, *who)?;
    let Goals { bar, aim } = goals(*route, *measure, *who)?;
    let aim = aim.map(|aim| aim.to_string()).unwrap_or_default();
    Some(format!("| {title} | {bar} | {aim} | {value} |"))
}

/// Everybody over the cable, one line each
fn all(text: &mut String, report: &Report) {
    let columns: Vec<Measure> = COLUMNS
        .into_iter()
        .filter(|measure| !report.of(Route::Cable, *measure).is_empty())
        .collect();
    let measured = |who: &Contestant| {
        columns.iter().any(|measure| value(report, Route::Cable, *measure, *who).is_some())
    };
    let mut who: Vec<Contestant> = Contestant::ALL.into_iter().filter(measured).collect();
    if who.is_empty() {
        return;
    }
    // the fastest first
    let rate = |who: &Contestant| {
        let figures: Vec<&Figure> = report.of(Route::Cable, Measure::Bulk);
        figures.iter().find(|figure| figure.who == who.name()).map_or(0.0, |figure| figure.median)
    };
    who.sort_by(|one, other| rate(other).total_cmp(&rate(one)));
    let _ = writeln!(text, "\nAnd all of them there:\n");
    let titles: Vec<String> = columns.iter().map(|measure| head(*measure)).collect();
    let _ = writeln!(text, "| | {} |", titles.join(" | "));
    let _ = writeln!(text, "| --- |{}", " ---: |".repeat(columns.len()));
    for who in who {
        let cell = |measure: &Measure| {
            value(report, Route::Cable, *measure, who).unwrap_or("–".to_owned())
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        let _ = writeln!(text, "| {} | {} |", who.name(), cells.join(" | "));
    }
}

fn head(measure: Measure) -> String {
    // beside which stream a ping was sent, its column does not say
    let title = match measure {
        Measure::Busy99 => "ping beside the stream: 99 % over idle",
        Measure::OneCore99 => "ping beside the stream on one core: 99 % over idle",
        other => other.title(),
    };
    match measure.unit() {
        "" => title.to_owned(),
        unit => format!("{title}, {unit}"),
    }
}

/// What a line says, and which figure it shows
type Row = (&'static str, Route, Measure, Contestant);

const ROWS: [Row; 9] = [
    (
        "one TCP stream, AES-256-GCM, split TCP, Mbit/s",
        Route::Cable,
        Measure::Bulk,
        Contestant::FastvpnAes,
    ),
    ("the same, ChaCha20-Poly1305, Mbit/s", Route::Cable, Measure::Bulk, Contestant::FastvpnChacha),
    (
        "the same, as configured by default, Mbit/s",
        Route::Cable,
        Measure::Bulk,
        Contestant::Fastvpn,
    ),
    (
        "that, in times of the second program",
        Route::Cable,
        Measure::TimesSecond,
        Contestant::Fastvpn,
    ),
    (
        "UDP stream of 1200-byte datagrams, under 0.1 % lost, of the bare cable, %",
        Route::Cable,
        Measure::DatagramsShare,
        Contestant::Fastvpn,
    ),
    (
        "TCP questions and answers of 1 byte, of the bare cable, %",
        Route::Cable,
        Measure::TurnsShare,
        Contestant::Fastvpn,
    ),
    (
        "processor time of both daemons for 1 GB at 500 Mbit/s, s",
        Route::Cable,
        Measure::Cost,
        Contestant::Fastvpn,
    ),
    (
        "one TCP stream with everything on one core, in times of WireGuard",
        Route::Cable,
        Measure::TimesOnOneCore,
        Contestant::Fastvpn,
    ),
    (
        "memory of a peer, one TCP stream over an emulated gigabit, 1 ms, MiB",
        Route::Gigabit,
        Measure::Memory,
        Contestant::Fastvpn,
    ),
];

const COLUMNS: [Measure; 10] = [
    Measure::Bulk,
    Measure::Busy99,
    Measure::Memory,
    Measure::Datagrams,
    Measure::DatagramsShare,
    Measure::Turns,
    Measure::TurnsShare,
    Measure::Cost,
    Measure::OneCore,
    Measure::OneCore99,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bar_of_speed_has_a_line_and_each_line_a_bar() {
        for (title, route, measure, who) in ROWS {
            assert!(goals(route, measure, who).is_some(), "{title}");
        }
        for measure in Measure::ALL {
            let has = ROWS.iter().any(|row| (row.1, row.2) == (Route::Cable, measure));
            let own = Contestant::Fastvpn;
            assert_eq!(
                goals(Route::Cable, measure, own).is_some_and(|goals| !everywhere(goals, measure)),
                has,
                "{measure:?}"
            );
        }
    }

    /// Whether the goal is the same wherever it is measured
    fn everywhere(wanted: Goals, measure: Measure) -> bool {
        goals(Route::Local, measure, Contestant::Fastvpn) == Some(wanted)
    }

    #[test]
    fn tables_show_bars_and_everybody() {
        let figure = |who, measure, value| Figure::new(Route::Cable, measure, who, vec![value]);
        let report = Report {
            figures: vec![
                figure(Contestant::Wireguard, Measure::Bulk, 400.0),
                figure(Contestant::FastvpnChacha, Measure::Bulk, 4000.0),
                figure(Contestant::Fastvpn, Measure::Cost, 1.25),
            ],
            ..Report::default()
        };

        let mut text = String::new();
        tables(&mut text, &report);

        assert!(text.contains("ChaCha20-Poly1305, Mbit/s | ≥ 3500 | ≥ 5500 | 4000.0 |"), "{text}");
        assert!(text.contains("500 Mbit/s, s | < 1.5 | < 0.8 | 1.25 |"), "{text}");
        assert!(text.contains("| WireGuard, CUBIC | 400.0 | – |"), "{text}");
    }
}
