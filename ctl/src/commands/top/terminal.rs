//! The screen as a whole: taken over, drawn without flicker, and given back whatever happens.
//!
//! [`Terminal`] gives the screen back when it is dropped; a panic does so before its message is
//! written. Only lines that differ from what is shown are written, in one go.

use std::io::{self, Write};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::Print;
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};

/// The screen, while it is ours
#[derive(Debug)]
pub(super) struct Terminal {
    /// What is shown
    lines: Vec<String>,
}

impl Terminal {
    /// Takes the screen over
    pub(super) fn enter() -> io::Result<Self> {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            earlier(panic);
        }));
        take_over()?;
        Ok(Self { lines: Vec::new() })
    }

    /// Shows these lines, and nothing else
    pub(super) fn draw(&mut self, lines: Vec<String>) -> io::Result<()> {
        let mut out = Vec::new();
        queue!(out, BeginSynchronizedUpdate)?;
        if lines.len() < self.lines.len() || self.lines.is_empty() {
            queue!(out, Clear(ClearType::All))?;
            self.lines.clear();
        }
        for (row, line) in lines.iter().enumerate() {
            if self.lines.get(row) != Some(line) {
                let row = u16::try_from(row).unwrap_or(u16::MAX);
                // The rest is cleared first: a line may end in the last column.
                queue!(out, MoveTo(0, row), Clear(ClearType::UntilNewLine), Print(line))?;
            }
        }
        queue!(out, EndSynchronizedUpdate)?;
        self.lines = lines;
        let mut stdout = io::stdout().lock();
        stdout.write_all(&out)?;
        stdout.flush()
    }

    /// Forgets what is shown: all is drawn anew
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.lines.clear();
        execute!(io::stdout(), Clear(ClearType::All))
    }

    /// Gives the screen back and stops, as other programs do; goes on when it is continued
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        leave();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
        take_over()?;
        self.forget()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave();
    }
}

fn take_over() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

/// Gives the screen back; where that fails nobody looks at it any more
fn leave() {
    let _ = execute!(io::stdout(), EndSynchronizedUpdate, Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}
