//! Programs that run for a tunnel, and end with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result};

use crate::lab::{Host, Lab};

/// Programs of a tunnel; they are killed when this is dropped
#[derive(Debug, Default)]
pub struct Processes {
    children: Vec<(Child, PathBuf)>,
    /// Files outside the laboratory that a killed program leaves
    leftovers: Vec<PathBuf>,
}

impl Processes {
    /// Starts a program in a host; what it says is kept in the laboratory
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&mut self, lab: &Lab, host: &Host, mut command: Command) -> Result<()> {
        let log = lab.directory().join(format!("{}-{}.log", host.name(), self.children.len()));
        let file = File::create(&log)?;
        command.stdout(file.try_clone()?).stderr(file).current_dir(lab.directory());
        let name = format!("{:?}", command.get_args().nth(3).unwrap_or_default());
        let child = host.spawn(command).with_context(|| format!("{name} does not start"))?;
        self.children.push((child, log));
        Ok(())
    }

    /// Removes a file at the end
    pub fn leaves(&mut self, file: impl AsRef<Path>) {
        self.leftovers.push(file.as_ref().to_owned());
    }

    /// Returns the process numbers
    pub fn numbers(&self) -> Vec<u32> {
        self.children.iter().map(|(child, _)| child.id()).collect()
    }

    /// Returns the ends of what the programs said
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        for (_, log) in &self.children {
            let said = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            for line in &lines[lines.len().saturating_sub(WORDS)..] {
                text.push_str("    ");
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for file in &self.leftovers {
            let _ = fs::remove_file(file);
        }
    }
}

/// Lines of each program's log that an error shows
const WORDS: usize = 6;
