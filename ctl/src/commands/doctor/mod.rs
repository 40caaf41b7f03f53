//! `fastvpnctl doctor`: looks for what is wrong, and says how to mend it.
//!
//! `gather` finds out, `judge` says what that means; this module shows each finding as soon as it is
//! there. It has failed if there is a problem.

mod facts;
mod gather;
mod judge;
mod prefix;

use fastvpn_dbus::Bus;

use self::facts::MachineFacts;
pub(crate) use self::judge::{Finding, Level};
use self::judge::{Surroundings, no_networks};
use super::{Absent, Daemon, Patience, chosen};
use crate::failure::Failure;
use crate::json::DoctorDocument;
use crate::output::{Form, Output};
use crate::progress::Progress;
use crate::render::{Screen, Tone, painted, plain, wrapped};

/// Looks at everything, or of the networks only at one
pub(super) async fn run(bus: &Bus, output: &Output, network: Option<&str>) -> Result<(), Failure> {
    let mut report = Report::new(output);
    report.look_at("the bus");
    match Daemon::open(bus, Absent::Wait, Patience::Short).await {
        Ok(daemon) => examine(&daemon, &mut report, network).await?,
        Err(failure) => {
            report.tell(vec![judge::no_bus(&failure)])?;
            report.tell(judge::machine(&gather::machine_alone()))?;
        }
    }
    report.end()
}

async fn examine(
    daemon: &Daemon<'_>,
    report: &mut Report<'_>,
    name: Option<&str>,
) -> Result<(), Failure> {
    report.look_at("the daemon");
    let facts = gather::daemon(daemon).await?;
    report.tell(judge::daemon(&facts, env!("CARGO_PKG_VERSION")))?;
    report.look_at("the system");
    let machine = gather::machine(daemon).await;
    report.tell(judge::machine(&machine))?;
    if facts.version.is_some() { networks(daemon, report, name, &machine).await } else { Ok(()) }
}

async fn networks(
    daemon: &Daemon<'_>,
    report: &mut Report<'_>,
    name: Option<&str>,
    machine: &MachineFacts,
) -> Result<(), Failure> {
    report.look_at("the networks");
    let tree = daemon.tree().await?;
    let networks = chosen(&tree, name)?;
    if networks.is_empty() {
        report.tell(vec![no_networks()])?;
    }
    for network in networks {
        report.look_at(&network.facts.name);
        let facts = gather::surroundings(daemon, network).await;
        let around = Surroundings { tree: &tree, machine, facts: &facts };
        report.tell(judge::network(network, around))?;
    }
    Ok(())
}

/// What was found so far
struct Report<'a> {
    output: &'a Output,
    progress: Progress,
    findings: Vec<Finding>,
}

impl<'a> Report<'a> {
    fn new(output: &'a Output) -> Self {
        Self { output, progress: Progress::new(output), findings: Vec::new() }
    }

    fn look_at(&mut self, what: &str) {
        self.progress.show(&format!("looking at {what} …"));
    }

    fn tell(&mut self, findings: Vec<Finding>) -> Result<(), Failure> {
        self.progress.clear();
        if self.output.form == Form::Text {
            let texts = findings.iter().map(|finding| text(finding, self.output.screen));
            self.output.text(&texts.collect::<String>())?;
        }
        self.findings.extend(findings);
        Ok(())
    }

    fn end(mut self) -> Result<(), Failure> {
        self.progress.clear();
        match self.output.form {
            Form::Json => self.output.json(&DoctorDocument::new(&self.findings))?,
            Form::Text => self.output.line(&summary(&self.findings))?,
        }
        let well = self.findings.iter().all(|finding| finding.level < Level::Problem);
        if well { Ok(()) } else { Err(Failure::Told) }
    }
}

/// A finding in two paragraphs: what is so, and how to mend it
fn text(finding: &Finding, screen: Screen) -> String {
    let of = finding.network.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let word = painted(finding.level.as_str(), tone(finding.level), screen.colour);
    let gap = " ".repeat(INDENT - finding.level.as_str().len());
    let room = screen.width.map(|width| width.saturating_sub(INDENT));
    let mut paragraphs = vec![plain(&format!("{of}{}", finding.message))];
    paragraphs.extend(finding.remedy.as_ref().map(|remedy| plain(remedy)));
    let lines: Vec<_> = paragraphs.iter().flat_map(|paragraph| wrapped(paragraph, room)).collect();
    let lines = lines.join(&format!("\n{}", " ".repeat(INDENT)));
    format!("{word}{gap}{lines}\n")
}

fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let mut parts = Vec::new();
    for level in Level::ALL.into_iter().rev().filter(|level| *level > Level::Ok) {
        let (count, word) = (count(level), level.as_str());
        match count {
            0 => {}
            1 => parts.push(format!("1 {word}")),
            _ => parts.push(format!("{count} {word}s")),
        }
    }
    if parts.is_empty() { "all is well".to_owned() } else { parts.join(", ") }
}

fn tone(level: Level) -> Tone {
    match level {
        Level::Ok => Tone::Good,
        Level::Note => Tone::Faint,
        Level::Warning => Tone::Uneasy,
        Level::Problem => Tone::Bad,
    }
}

/// Columns before what is said
const INDENT: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Colour;

    #[test]
    fn finding_says_what_is_so_and_below_how_to_mend_it() {
        let screen = Screen { width: None, colour: Colour::Never };

        assert_eq!(
            text(&finding(Level::Problem, Some("mend it")), screen),
            "problem  home: it is broken\n         mend it\n"
        );
        assert_eq!(text(&finding(Level::Ok, None), screen), "ok       home: it is broken\n");
    }

    #[test]
    fn narrow_terminal_gets_more_lines() {
        let screen = Screen { width: Some(22), colour: Colour::Never };

        let text = text(&finding(Level::Warning, Some("do this, and then that")), screen);

        assert_eq!(
            text,
            "warning  home: it is\n         broken\n         do this, and\n         then that\n"
        );
    }

    #[test]
    fn summary_counts_the_worst_first() {
        let of = |levels: &[Level]| {
            summary(&levels.iter().map(|level| finding(*level, None)).collect::<Vec<_>>())
        };

        assert_eq!(of(&[Level::Ok]), "all is well");
        assert_eq!(of(&[Level::Note, Level::Ok, Level::Problem]), "1 problem, 1 note");
        assert_eq!(of(&[Level::Warning, Level::Warning]), "2 warnings");
    }

    fn finding(level: Level, remedy: Option<&str>) -> Finding {
        Finding {
            level,
            check: "state",
            network: Some("home".to_owned()),
            message: "it is broken".to_owned(),
            remedy: remedy.map(str::to_owned),
        }
    }
}
