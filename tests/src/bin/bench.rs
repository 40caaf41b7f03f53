//! Figures of fastvpn, the bare link and other programs: a table for people, JSON for programs.
//!
//! Nothing here fails because a figure is bad; what cannot be measured is said.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use fastvpn_tests::bench::contest::Contestant;
use fastvpn_tests::bench::experiment::Effort;
use fastvpn_tests::bench::plan::Choice;
use fastvpn_tests::bench::report::Report;
use fastvpn_tests::bench::run::{Manner, possible, run};
use fastvpn_tests::bench::{markdown, table};
use fastvpn_tests::lab;

/// Figures of fastvpn and others over the same emulated links
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Args {
    /// Also write all figures, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only what has this in LINK/MEASURE, such as random5/bulk, clean/ or /object; repeatable
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these programs, such as fastvpn,raw,wireguard-go; carriers is fastvpn over TCP and KCP
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    programs: Vec<String>,
    /// Runs of each figure [default: 3, with --quick 1]
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Short runs, to see whether it works
    #[arg(long)]
    quick: bool,
    /// One experiment at a time
    #[arg(long)]
    serial: bool,
    /// Say what would be measured, and how long it would take
    #[arg(long)]
    list: bool,
    /// Print the README's tables from a file that --json wrote; measure nothing
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(file) = &args.markdown {
        let text = std::fs::read_to_string(file).context("no such file")?;
        let report: Report = serde_json::from_str(&text).context("not written by --json")?;
        print!("{}", markdown::text(&report));
        return Ok(());
    }
    for name in &args.programs {
        let known = Contestant::ALL.iter().any(|contestant| contestant.is_named(name));
        ensure!(known, "no program {name} is known");
    }
    let manner = args.manner();
    let choice = Choice { only: args.only.clone(), programs: args.programs.clone() };
    let (experiments, skipped) = possible(choice.experiments());
    for skipped in &skipped {
        eprintln!("skipped: {}: {}", skipped.who, skipped.why);
    }
    ensure!(!experiments.is_empty() || !skipped.is_empty(), "nothing matches");
    if args.list {
        for experiment in &experiments {
            let (route, who) = (experiment.route.name(), experiment.contestant.name());
            println!("{route:<11} {who:<22} {:?}", experiment.kind);
        }
    }
    eprintln!(
        "{} experiments, about {:.0} minutes",
        experiments.len(),
        (manner.seconds(&experiments) / 60.0).ceil()
    );
    if args.list {
        return Ok(());
    }
    if let Err(reason) = lab::privileged() {
        eprintln!("this machine or user cannot do that: {reason}");
        std::process::exit(77);
    }
    let report = run(&experiments, manner, skipped);
    print!("{}", table::text(&report));
    println!("\n{:.0} minutes", report.minutes);
    if let Some(file) = &args.json {
        write(file, &report).with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}

/// Writes a report; where sudo was used, for the user behind it
fn write(file: &Path, report: &Report) -> Result<()> {
    std::fs::write(file, format!("{}\n", serde_json::to_string_pretty(report)?))?;
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let (Some(user), Some(group)) = (number("SUDO_UID"), number("SUDO_GID")) {
        std::os::unix::fs::chown(file, Some(user), Some(group))?;
    }
    Ok(())
}

impl Args {
    fn manner(&self) -> Manner {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Manner {
            runs: self.runs.unwrap_or(if self.quick { 1 } else { 3 }).max(1),
            effort: if self.quick { Effort::Quick } else { Effort::Full },
            room: if self.serial { 1 } else { 4 * cores },
        }
    }
}
