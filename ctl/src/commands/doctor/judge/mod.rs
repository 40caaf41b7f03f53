//! What facts mean: each finding is a sentence on what is so, and one on how to mend it.
//!
//! Pure functions of what was gathered; nothing here looks at the system.

mod daemon;
mod machine;
mod names;
mod network;
mod peers;

pub(super) use self::daemon::daemon;
pub(super) use self::machine::machine;
pub(super) use self::network::{Surroundings, network, no_networks};

use crate::failure::Failure;

/// What was found out
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// What was looked at, a word for programs
    pub(crate) check: &'static str,
    /// Which network it is about, if it is about one
    pub(crate) network: Option<String>,
    /// What is so
    pub(crate) message: String,
    /// How to mend it
    pub(crate) remedy: Option<String>,
}

/// How bad it is
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Level {
    /// As it should be
    Ok,
    /// Worth knowing; may well be meant so
    Note,
    /// Works, but not as well as it could
    Warning,
    /// Does not work
    Problem,
}

impl Level {
    /// All of them, the least bad first
    pub(crate) const ALL: [Self; 4] = [Self::Ok, Self::Note, Self::Warning, Self::Problem];

    /// Returns the word for people and programs
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, network: None, message: message.into(), remedy: None }
    }

    fn new(
        level: Level,
        check: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level, remedy: Some(remedy.into()), ..Self::ok(check, message) }
    }

    fn of(self, network: &str) -> Self {
        Self { network: Some(network.to_owned()), ..self }
    }
}

/// There is no bus to ask anybody
pub(super) fn no_bus(failure: &Failure) -> Finding {
    let message = failure.document().map(|document| document.error.message.to_owned());
    let remedy = "without a bus the daemon cannot be seen; on Debian: apt install dbus";
    Finding::new(Level::Problem, "bus", message.unwrap_or_default(), remedy)
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Level and check of each finding that is not ok
    pub(in crate::commands::doctor) fn bad(findings: &[Finding]) -> Vec<(Level, &'static str)> {
        let bad = findings.iter().filter(|finding| finding.level > Level::Ok);
        bad.map(|finding| (finding.level, finding.check)).collect()
    }

    /// All that is said, for `contains`
    pub(in crate::commands::doctor) fn said(findings: &[Finding]) -> String {
        let lines = findings.iter().map(|finding| {
            format!("{}\n{}\n", finding.message, finding.remedy.as_deref().unwrap_or_default())
        });
        lines.collect()
    }
}
