//! A report as text for a terminal.

use std::fmt::Write;

use super::bars::bar;
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
            let goal = bar(route, measure).map(|bar| format!("  aim {bar}")).unwrap_or_default();
            let unit = measure.unit();
            let _ = writeln!(text, "  {}, {unit}{goal}", measure.title());
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
    let verdict = match figure.met {
        Some(true) => "  reached",
        Some(false) => "  MISSED",
        None => "",
    };
    let _ = writeln!(
        text,
        "    {:<22} {:>9}   {:>9} to {:<9}{verdict}",
        figure.who,
        number(figure.median),
        number(figure.min),
        number(figure.max),
    );
}
