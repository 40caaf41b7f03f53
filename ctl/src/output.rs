//! Standard output: for people or for programs.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;
use crate::json::ErrorDocument;
use crate::render::{Colour, Screen, plain};

/// Where answers go
#[derive(Debug)]
pub(crate) struct Output {
    /// Who reads them
    pub(crate) form: Form,
    /// What the terminal can show
    pub(crate) screen: Screen,
}

/// Who reads the answers
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// People
    Text,
    /// Programs
    Json,
}

impl Output {
    /// Looks at what standard output is
    pub(crate) fn new(form: Form) -> Self {
        let terminal = io::stdout().is_terminal();
        let colour = match std::env::var_os("NO_COLOR") {
            None if terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb") => {
                Colour::Welcome
            }
            Some(empty) if empty.is_empty() && terminal => Colour::Welcome,
            None | Some(_) => Colour::Never,
        };
        let width = if terminal { width() } else { None };
        Self { form, screen: Screen { width, colour } }
    }

    /// Tells whether standard output is a terminal
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Writes lines for people
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        write(text.as_bytes())
    }

    /// Writes one line for people
    pub(crate) fn line(&self, line: &str) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// Writes one object for programs, on a line of its own
    pub(crate) fn json(&self, document: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(document)
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
        write(format!("{text}\n").as_bytes())
    }

    /// Says why it failed: to people always, to programs where they asked for it
    pub(crate) fn failure(&self, document: &ErrorDocument<'_>) {
        if self.form == Form::Json {
            // Whether anybody listens makes no difference any more.
            let _ = self.json(document);
        }
        let _ = writeln!(io::stderr(), "fastvpnctl: {}", plain_lines(document.error.message));
    }
}

/// Leaves nothing that a terminal would obey in a text of several lines: a hub may have said it
fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Deaf),
        Err(error) => Err(Failure::failed(format!("cannot write the answer: {error}"))),
    }
}

fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_hub_says_moves_the_cursor() {
        let refused = "the hub refuses: \u{1b}[2Jno\rroot# \u{9b}1A\nsecond line";

        let said = plain_lines(refused);

        assert_eq!(said.lines().count(), 2, "lines stay lines");
        assert!(said.chars().all(|sign| sign == '\n' || !sign.is_control()), "{said:?}");
    }
}
