//! Systems: Debian with systemd as process 1, each in a host of its own.
//!
//! A [`System`] is a container of systemd-nspawn on a tree that [`tree`] made once. It is on the
//! network of its [`Host`] and on no other; what it writes goes to a layer in memory and is gone with
//! it. It is driven from outside, by programs that enter it.
//!
//! # Contract
//!
//! - [`System::boot`] returns when systemd has started everything.
//! - Dropping the value ends all its processes; so does the end of this process, however it ends.
//! - When a test panics, the journals of all its systems are printed.
//! - Works where process 1 of the machine is systemd, and where it is not.

mod container;
pub mod tree;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::daemon::Answer;
use super::{Host, Lab, outer_v4, outer_v6, until};
use container::Container;
use tree::Tree;

/// A booted Debian
#[derive(Debug)]
pub struct System {
    /// Its network
    pub host: Arc<Host>,
    container: Container,
}

impl System {
    /// Boots a system on the laboratory's wire, with underlay addresses of that number
    ///
    /// # Errors
    /// If it is not up in time.
    pub fn boot(lab: &Lab, tree: Tree, name: &str, number: u8) -> Result<Self> {
        let addresses = [outer_v4(number).into(), outer_v6(number).into()];
        let (host, _) = lab.host(name, &addresses)?;
        Self::boot_in(&host, lab.directory(), tree)
    }

    /// Boots a system in a host that exists, with its log in `directory`
    ///
    /// # Errors
    /// If it is not up in time.
    pub fn boot_in(host: &Arc<Host>, directory: &Path, tree: Tree) -> Result<Self> {
        let tree = tree::place(tree)?;
        let container = Container::start(host, &tree, directory)
            .with_context(|| format!("system {}", host.name()))?;
        let system = Self { host: Arc::clone(host), container };
        let state = || system.answer("systemctl is-system-running").map(|answer| answer.stdout);
        let settled = || matches!(state().as_deref().map(str::trim), Ok("running" | "degraded"));
        if !until(BOOTED, settled) {
            bail!("{} is not up: {:?}\n{}", host.name(), state(), system.journal_text());
        }
        Ok(system)
    }

    /// Returns its name, which is its host name as well
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Returns the process outside that is its process 1
    pub fn leader(&self) -> u32 {
        self.container.leader
    }

    /// Runs a shell script as root to its end
    ///
    /// It runs beside the units, in no control group of this system; see [`Self::unit`].
    ///
    /// # Errors
    /// If the system cannot be entered.
    pub fn answer(&self, script: &str) -> Result<Answer> {
        self.enter(&["sh", "-c", script])
    }

    /// Runs a shell script as root, which has to succeed; returns what it said
    ///
    /// # Errors
    /// If it fails; the error holds what it said.
    pub fn sh(&self, script: &str) -> Result<String> {
        let answer = self.answer(script)?;
        if answer.code != 0 {
            bail!("{}: {script}: {answer}", self.name());
        }
        Ok(answer.stdout)
    }

    /// Runs a shell script as another user, who has no session
    ///
    /// # Errors
    /// If the system cannot be entered.
    pub fn answer_as(&self, user: &str, script: &str) -> Result<Answer> {
        self.enter(&["runuser", "-u", user, "--", "sh", "-c", script])
    }

    /// Runs a shell script as a transient unit of the system, with further options of systemd-run
    ///
    /// # Errors
    /// If the system cannot be entered.
    pub fn unit(&self, options: &[&str], script: &str) -> Result<Answer> {
        let run = ["systemd-run", "--quiet", "--collect", "--pipe", "--wait"];
        self.enter(&[&run[..], options, &["--", "sh", "-c", script]].concat())
    }

    /// Starts a shell script as root, beside the units; its output is the caller's to read
    ///
    /// # Errors
    /// If the system cannot be entered.
    pub fn spawn(&self, script: &str) -> Result<std::process::Child> {
        let mut command = self.entering();
        command.args(["sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("nsenter")
    }

    /// Waits until a shell script succeeds
    ///
    /// # Errors
    /// If it does not in time; the error holds what it said last.
    pub fn await_sh(&self, script: &str, patience: Duration) -> Result<String> {
        let mut last = None;
        let done = until(patience, || {
            last = Some(self.sh(script));
            matches!(last, Some(Ok(_)))
        });
        let last = last.unwrap_or_else(|| Ok(String::new()));
        if done { last } else { last.with_context(|| format!("not within {patience:?}")) }
    }

    /// Runs `fastvpnctl` as root
    ///
    /// # Errors
    /// If the system cannot be entered.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Answer> {
        self.enter(&[&["fastvpnctl"], arguments].concat())
    }

    /// Waits until a network is in a state; returns it as `fastvpnctl status --json` shows it
    ///
    /// # Errors
    /// If it is not in time.
    pub fn await_state(&self, network: &str, state: &str, patience: Duration) -> Result<Value> {
        let mut last = String::new();
        let mut found = None;
        until(patience, || {
            let Ok(answer) = self.ctl(&["status", network, "--json"]) else { return false };
            found = answer.json().ok().and_then(|document| {
                let network = document["networks"].get(0)?.clone();
                (network["state"] == state).then_some(network)
            });
            last = answer.to_string();
            found.is_some()
        });
        found.with_context(|| format!("{}: {network} is not {state}: {last}", self.name()))
    }

    /// Waits until an address answers a ping
    ///
    /// # Errors
    /// If it does not in time.
    pub fn await_ping(&self, address: &str, patience: Duration) -> Result<()> {
        self.await_sh(&format!("ping -c 1 -W 1 {address}"), patience).map(drop)
    }

    /// Returns what a unit wrote to the journal, with all fields
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn journal(&self, unit: &str) -> Result<Vec<Value>> {
        let lines = self.sh(&format!("journalctl --boot --output json --unit {unit}"))?;
        lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Writes a file, and the directories above it
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &str, mode: u32, content: &str) -> Result<()> {
        let outside = self.outside(path);
        if let Some(parent) = outside.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&outside, content).with_context(|| format!("{}:{path}", self.name()))?;
        Ok(fs::set_permissions(&outside, fs::Permissions::from_mode(mode))?)
    }

    /// Reads a file
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.outside(path)).with_context(|| format!("{}:{path}", self.name()))
    }

    /// Tells whether there is such a file
    pub fn has(&self, path: &str) -> bool {
        self.outside(path).symlink_metadata().is_ok()
    }

    /// Path of one of its files as this process sees it
    fn outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.container.leader))
            .join(path.trim_start_matches('/'))
    }

    fn enter(&self, words: &[&str]) -> Result<Answer> {
        let output = self.entering().args(words).output().context("nsenter")?;
        Ok(Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn entering(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--wd", "--target", &self.container.leader.to_string()]);
        command.args(["--", "env", "-i", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8", PATH]);
        command.stdin(Stdio::null());
        command
    }

    /// The end of the journal and the units that failed, for people
    fn journal_text(&self) -> String {
        let mut text = String::new();
        for script in [
            "systemctl list-units --failed --no-legend --plain",
            "journalctl --boot --no-pager --quiet --lines 120 --output short-precise --no-hostname",
        ] {
            if let Ok(answer) = self.answer(script) {
                let _ = writeln!(text, "{}{}", answer.stdout, answer.stderr);
            }
        }
        text
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name(), self.journal_text());
        }
    }
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a system may take to come up
const BOOTED: Duration = Duration::from_secs(60);
