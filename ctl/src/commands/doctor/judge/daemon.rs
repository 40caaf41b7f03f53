//! Whether the daemon runs, and is the one that it should be.

use super::{Finding, Level};
use crate::commands::doctor::facts::{DaemonFacts, UnitFacts};

/// Judges the daemon; `ours` is the version of this program
pub(in crate::commands::doctor) fn daemon(facts: &DaemonFacts, ours: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.version {
        Some(theirs) if theirs == ours => {
            findings.push(Finding::ok("daemon", format!("fastvpnd {theirs} is running")));
        }
        Some(theirs) => findings.push(Finding::new(
            Level::Warning,
            "version",
            format!("fastvpnd is version {theirs}, but this program is {ours}"),
            "run: systemctl restart fastvpnd",
        )),
        None => findings.push(absent(facts)),
    }
    if facts.on_system_bus && facts.version.is_some() && !facts.activatable {
        findings.push(Finding::new(
            Level::Note,
            "activation",
            "the bus cannot start fastvpnd when somebody asks for it",
            "put org.fastvpn.service into /usr/share/dbus-1/system-services",
        ));
    }
    if let (Some(unit), Some(_)) = (&facts.unit, &facts.version) {
        findings.extend(unit_of_running(unit));
    }
    findings
}

fn absent(facts: &DaemonFacts) -> Finding {
    let problem =
        |message: String, remedy: &str| Finding::new(Level::Problem, "daemon", message, remedy);
    match &facts.unit {
        Some(unit) if unit.active == "failed" => problem(
            format!("fastvpnd has failed ({})", unit.result),
            "see: journalctl -u fastvpnd -n 20; for the configuration: fastvpnd --check; then: \
             systemctl restart fastvpnd",
        ),
        Some(unit) if unit.active == "activating" => problem(
            "fastvpnd is being started, or fails and is started again and again".to_owned(),
            "wait some seconds; if that does not help see: journalctl -u fastvpnd -n 20",
        ),
        Some(unit) if unit.file == "masked" => problem(
            "fastvpnd does not run, and its unit is masked".to_owned(),
            "run: systemctl unmask fastvpnd && systemctl enable --now fastvpnd",
        ),
        Some(unit) if unit.active == "active" => problem(
            "fastvpnd runs, but is not on the bus".to_owned(),
            "see: journalctl -u fastvpnd -n 20; org.fastvpn.conf must be in \
             /usr/share/dbus-1/system.d, and the user fastvpn exist",
        ),
        Some(unit) if unit.file.is_empty() => problem(
            "fastvpnd does not run, and systemd does not know it".to_owned(),
            "install the package fastvpn, or fastvpnd.service, and run: systemctl daemon-reload",
        ),
        Some(_) => {
            problem("fastvpnd does not run".to_owned(), "run: systemctl enable --now fastvpnd")
        }
        None if facts.on_system_bus => {
            problem("fastvpnd does not run".to_owned(), "as root, run: fastvpnd")
        }
        None => problem(
            "fastvpnd does not run on this bus".to_owned(),
            "run: fastvpnd --bus BUS, with the BUS that was given here",
        ),
    }
}

/// A daemon that runs, and will not after the next start of the machine
fn unit_of_running(unit: &UnitFacts) -> Option<Finding> {
    let starts = ["enabled", "enabled-runtime", "static", "alias", "indirect", "generated"];
    if unit.active != "active" {
        return Some(Finding::new(
            Level::Note,
            "start",
            "fastvpnd was not started by systemd, and ends with whoever started it",
            "end it, and run: systemctl enable --now fastvpnd",
        ));
    }
    (!starts.contains(&unit.file.as_str())).then(|| {
        Finding::new(
            Level::Note,
            "start",
            "fastvpnd is not started with the machine",
            "run: systemctl enable fastvpnd",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::judge::testing::{bad, said};

    #[test]
    fn daemon_that_runs_as_installed_is_ok() {
        assert_eq!(bad(&daemon(&running(), "1.0.0")), []);
    }

    #[test]
    fn other_version_asks_for_a_restart() {
        let findings = daemon(&running(), "1.1.0");

        assert_eq!(bad(&findings), [(Level::Warning, "version")]);
        assert!(said(&findings).contains("systemctl restart fastvpnd"));
    }

    #[test]
    fn absent_daemon_is_a_problem_and_its_unit_says_what_to_do() {
        for (file, active, remedy) in [
            ("disabled", "inactive", "systemctl enable --now"),
            ("enabled", "failed", "journalctl"),
            ("masked", "inactive", "unmask"),
            ("enabled", "active", "org.fastvpn.conf"),
            ("enabled", "activating", "wait some seconds"),
            ("", "inactive", "install"),
        ] {
            let facts = DaemonFacts { version: None, unit: Some(unit(file, active)), ..running() };

            let findings = daemon(&facts, "1.0.0");

            assert_eq!(bad(&findings), [(Level::Problem, "daemon")], "{file} {active}");
            assert!(said(&findings).contains(remedy), "{findings:?}");
        }
    }

    #[test]
    fn another_bus_has_neither_units_nor_activation() {
        let facts = DaemonFacts { version: Some("1.0.0".to_owned()), ..Default::default() };
        let away = DaemonFacts::default();

        assert_eq!(bad(&daemon(&facts, "1.0.0")), []);
        assert!(said(&daemon(&away, "1.0.0")).contains("fastvpnd --bus"));
    }

    #[test]
    fn what_would_be_missed_after_a_start_is_noted() {
        let disabled =
            DaemonFacts { unit: Some(unit("disabled", "active")), activatable: false, ..running() };
        let by_hand = DaemonFacts { unit: Some(unit("enabled", "inactive")), ..running() };

        let notes = [(Level::Note, "activation"), (Level::Note, "start")];
        assert_eq!(bad(&daemon(&disabled, "1.0.0")), notes);
        assert_eq!(bad(&daemon(&by_hand, "1.0.0")), notes[1..]);
    }

    fn running() -> DaemonFacts {
        DaemonFacts {
            version: Some("1.0.0".to_owned()),
            on_system_bus: true,
            activatable: true,
            unit: Some(unit("enabled", "active")),
        }
    }

    fn unit(file: &str, active: &str) -> UnitFacts {
        UnitFacts {
            file: file.to_owned(),
            active: active.to_owned(),
            result: "exit-code".to_owned(),
        }
    }
}
