//! One line that changes while somebody waits, and is gone when the answer comes.
//!
//! # Contract
//!
//! - It is shown to people on a terminal only: not with `--json`, and not into pipes.
//! - It goes to standard error, so that an answer is never mixed with it.
//! - It never takes more than one line.

use std::io::{self, IsTerminal, Write};

use crate::output::{Form, Output};
use crate::render::{plain, shortened};

/// A line that is not there yet
#[derive(Debug)]
pub(crate) struct Progress {
    /// Columns that it may take; nothing: it is not shown
    room: Option<usize>,
    shown: bool,
}

impl Progress {
    /// Looks whether there is somebody to show it to
    pub(crate) fn new(output: &Output) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let people =
            output.form == Form::Text && output.is_terminal() && io::stderr().is_terminal();
        // The last column is left free: some terminals begin a new line there.
        let room = output.screen.width.map_or(79, |width| width.saturating_sub(1));
        Self { room: (people && !dumb).then_some(room), shown: false }
    }

    /// Tells whether anybody sees it
    pub(crate) fn is_seen(&self) -> bool {
        self.room.is_some()
    }

    /// Shows this in place of what was shown
    pub(crate) fn show(&mut self, text: &str) {
        if let Some(room) = self.room {
            self.write(&format!("\r\x1b[K{}", shortened(&plain(text), room)));
            self.shown = true;
        }
    }

    /// Takes it away
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // A line less is no reason to fail.
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
