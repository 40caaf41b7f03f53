//! A report as text for a terminal.

use std::fmt::Write;

use super::Contestant;
use super::bars::{Goals, goals};
use super::measures::Measure;
use super::report::{Figure, Report};
use super::routes::Route;

/// Returns the report as text
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for route in Route::ALL {
        let measures: Vec<(Measure, Vec<&Figure>)> = Report::measures()
            .into_iter()
            .map(|measure| (measure, report.of(route, measure)))
            .filter(|(_, figures)| !figures.is_empty())
            .collect();
        if measures.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{}: {}", route.name(), route.title());
        if let Some(limit) = route.limit() {
            let _ = writeln!(text, "  (at most {limit:.1} Mbit/s of payload can arrive)");
        }
        for (measure, figures) in measures {
            let goals = goals(route, measure, Contestant::Fastvpn);
            let goal = match goals {
                Some(Goals { bar, aim: Some(aim) }) => format!("  bar {bar}, aim {aim}"),
                Some(Goals { bar, aim: None }) => format!("  aim {bar}"),
                None => String::new(),
            };
            let unit = match measure.unit() {
                "" => String::new(),
                unit => format!(", {unit}"),
            };
            let _ = writeln!(text, "  {}{unit}{goal}", measure.title());
            for figure in figures {
                line(&mut text, measure, figure);
            }
        }
    }
    for skipped in &report.skipped {
        let _ =
            writeln!(text, "\nnot measured: {} ({}): {}", skipped.who, skipped.link, skipped.why);
    }
    text
}

fn line(text: &mut String, measure: Measure, figure: &Figure) {
    let digits = measure.digits();
    let number = |value: f64| format!("{value:.digits$}");
    let verdict = match (figure.met, figure.aim_met) {
        (Some(true), Some(true)) => "  reached, and the aim",
        (Some(true), _) => "  reached",
        (Some(false), _) => "  MISSED",
        (None, _) => "",
    };
    let own = Contestant::Fastvpn.name();
    let bar = match &figure.bar {
        Some(bar) if figure.who != own => format!(" ({bar})"),
        Some(_) | None => String::new(),
    };
    let _ = writeln!(
        text,
        "    {:<22} {:>9}   {:>9} to {:<9}{verdict}{bar}",
        figure.who,
        number(figure.median),
        number(figure.min),
        number(figure.max),
    );
}
