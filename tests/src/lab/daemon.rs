//! A daemon under test: `fastvpnd` in a host, with its own bus, files and log.

use std::fs::{self, OpenOptions};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::bus::Bus;
use super::manager::Manager;
use super::netns::Host;
use super::wait::until;

/// A host with a daemon, a bus and the daemon's files
#[derive(Debug)]
pub struct Node {
    /// Where the daemon runs
    pub host: Arc<Host>,
    /// Its message bus
    pub bus: Bus,
    directory: PathBuf,
    /// Its service manager
    pub manager: Manager,
    child: Option<Child>,
}

/// How to start a daemon otherwise than usual
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// Program and arguments that go before the daemon's own
    pub wrapper: Vec<String>,
    /// Further environment
    pub environment: Vec<(String, String)>,
    /// Further arguments
    pub arguments: Vec<String>,
}

/// A key pair in a file
#[derive(Clone, Debug)]
pub struct Key {
    /// The file with the private key
    pub file: PathBuf,
    /// The public key, as text
    pub public: String,
}

/// What `fastvpnctl` answered
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its exit code
    pub code: i32,
    /// Its standard output
    pub stdout: String,
    /// Its standard error
    pub stderr: String,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\n{}{}", self.code, self.stdout, self.stderr)
    }
}

impl Answer {
    /// Returns the output as JSON
    ///
    /// # Errors
    /// If it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("no JSON: {:?} {:?}", self.stdout, self.stderr))
    }
}

/// Time that anything on this machine may take that does not wait for a network
pub const SOON: Duration = Duration::from_secs(20);

impl Node {
    /// Makes directories below `parent` and starts a bus; no daemon yet
    ///
    /// # Errors
    /// If the bus does not start.
    pub fn new(host: Arc<Host>, parent: &Path) -> Result<Self> {
        let directory = parent.join(host.name());
        for sub in ["etc", "state"] {
            fs::create_dir_all(directory.join(sub))?;
        }
        let bus = Bus::start(&host, &directory)?;
        let manager = Manager::new(&directory)?;
        Ok(Self { host, bus, directory, manager, child: None })
    }

    /// Makes a key pair by `fastvpnctl keygen`
    ///
    /// # Errors
    /// If the tool fails.
    pub fn keygen(&self, name: &str) -> Result<Key> {
        let file = self.directory.join(name);
        let path = file.display().to_string();
        let answer = self.run(Command::new(program("fastvpnctl")?).args(["keygen", &path]))?;
        if answer.code != 0 {
            bail!("keygen: {}", answer.stderr);
        }
        Ok(Key { file, public: answer.stdout.trim().to_owned() })
    }

    /// Writes the configuration of a network
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn configure(&self, network: &str, text: &str) -> Result<()> {
        fs::write(self.config_file(network), text)?;
        Ok(())
    }

    /// Returns the path of a network's configuration
    pub fn config_file(&self, network: &str) -> PathBuf {
        self.directory.join("etc").join(format!("{network}.toml"))
    }

    /// Returns a path in the node's own directory
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts the daemon; returns when it says that it is ready
    ///
    /// # Errors
    /// If it ends instead.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&Launch::default())
    }

    /// Starts the daemon in another way; returns when it says that it is ready
    ///
    /// # Errors
    /// If it ends instead.
    pub fn start_with(&mut self, launch: &Launch) -> Result<()> {
        self.launch(launch)?;
        if !self.told_soon("READY=1") {
            bail!("the daemon of {} is not ready:\n{}", self.host.name(), self.log());
        }
        Ok(())
    }

    /// Starts the daemon and waits for nothing
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.reap();
        self.manager.begin();
        let daemon = program("fastvpnd")?;
        let wrapper = self.manager.wrapper();
        let mut words: Vec<std::ffi::OsString> =
            launch.wrapper.iter().chain(&wrapper).map(Into::into).collect();
        words.push(daemon.into());
        let mut command = self.host.command(&words[0]);
        command.args(&words[1..]);
        command.arg("--config-dir").arg(self.directory.join("etc"));
        command.arg("--state-dir").arg(self.directory.join("state"));
        command.args(["--bus", &self.bus.address(), "--log", &log_level()]);
        command.args(&launch.arguments);
        self.manager.prepare(&mut command)?;
        command.env_remove("JOURNAL_STREAM").env("RUST_BACKTRACE", "1");
        command.envs(launch.environment.iter().cloned());
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(self.host.spawn(command).context("fastvpnd does not start")?);
        Ok(())
    }

    /// Sends a signal to the daemon
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().ok_or_else(|| anyhow!("no daemon"))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(|| anyhow!("no daemon"))?, signal)?;
        Ok(())
    }

    /// Kills the daemon without a chance to clean up
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.exit(SOON)?;
        Ok(())
    }

    /// Asks the daemon to stop by SIGTERM; returns how it ended
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.exit(SOON)
    }

    /// Stops the daemon and starts it again, as `systemctl restart` does
    ///
    /// # Errors
    /// If it does not end, or is not ready again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Waits for the daemon to end
    ///
    /// # Errors
    /// If it does not.
    pub fn exit(&mut self, patience: Duration) -> Result<ExitStatus> {
        let mut child = self.child.take().ok_or_else(|| anyhow!("no daemon"))?;
        let mut status = None;
        if until(patience, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        }) && let Some(status) = status
        {
            // a descriptor in a message that nobody reads would outlive the daemon
            self.manager.hear();
            return Ok(status);
        }
        self.child = Some(child);
        bail!("the daemon of {} does not end", self.host.name())
    }

    /// Tells whether the daemon runs
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Returns the process of the daemon, if one was started
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Returns the daemon's resident memory in KiB
    ///
    /// # Errors
    /// If it does not run.
    pub fn memory_kib(&self) -> Result<u64> {
        let child = self.child.as_ref().ok_or_else(|| anyhow!("no daemon"))?;
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.ok_or_else(|| anyhow!("no VmRSS"))?.parse()?)
    }

    /// Returns how many descriptors the daemon has open
    ///
    /// # Errors
    /// If it does not run.
    pub fn descriptors(&self) -> Result<usize> {
        let child = self.child.as_ref().ok_or_else(|| anyhow!("no daemon"))?;
        Ok(fs::read_dir(format!("/proc/{}/fd", child.id()))?.count())
    }

    /// Returns the processor time that the daemon has used, in clock ticks of 10 ms
    ///
    /// # Errors
    /// If it does not run.
    pub fn ticks(&self) -> Result<u64> {
        let child = self.child.as_ref().ok_or_else(|| anyhow!("no daemon"))?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let number = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok());
        Ok(number(11).unwrap_or(0) + number(12).unwrap_or(0))
    }

    /// Runs `fastvpnctl` on the daemon's bus
    ///
    /// # Errors
    /// If the tool cannot be started.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Answer> {
        let mut command = self.ctl_command()?;
        command.args(arguments);
        self.run(&mut command)
    }

    /// Begins a command line of `fastvpnctl` on the daemon's bus
    ///
    /// # Errors
    /// If the tool was not built.
    pub fn ctl_command(&self) -> Result<Command> {
        let mut command = self.host.command(program("fastvpnctl")?);
        command.args(["--bus", &self.bus.address()]);
        Ok(command)
    }

    /// Returns what `status` says of a network
    ///
    /// # Errors
    /// If the daemon does not answer or has no such network.
    pub fn status(&self, network: &str) -> Result<Value> {
        let answer = self.ctl(&["--json", "status"])?.json()?;
        let networks = answer["networks"].as_array().cloned().unwrap_or_default();
        networks
            .into_iter()
            .find(|entry| entry["name"] == network)
            .ok_or_else(|| anyhow!("no network {network}"))
    }

    /// Returns what `peers` says
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn peers(&self) -> Result<Vec<Value>> {
        let answer = self.ctl(&["--json", "peers"])?.json()?;
        Ok(answer["peers"].as_array().cloned().unwrap_or_default())
    }

    /// Returns what `peers` says of one of them
    ///
    /// # Errors
    /// If the daemon does not answer or knows no such peer.
    pub fn peer(&self, name: &str) -> Result<Value> {
        let known = self.peers()?;
        known.into_iter().find(|peer| peer["name"] == name).ok_or_else(|| anyhow!("no peer {name}"))
    }

    /// Waits until a network is in `state`
    ///
    /// # Errors
    /// If that does not come; the error says what it was in instead.
    pub fn await_state(&self, network: &str, state: &str, patience: Duration) -> Result<Value> {
        self.await_status(network, state, patience, |status| status["state"] == state)
    }

    /// Waits until the status of a network is as wanted
    ///
    /// # Errors
    /// If that does not come; the error shows the last status.
    pub fn await_status(
        &self,
        network: &str,
        wanted: &str,
        patience: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Err(anyhow!("never asked"));
        let came = until(patience, || {
            last = self.status(network);
            last.as_ref().is_ok_and(&condition)
        });
        let host = self.host.name();
        let last = last.with_context(|| format!("{host}: waiting for {wanted}"))?;
        if !came {
            bail!("{host}: still not {wanted} after {patience:?}: {last}");
        }
        Ok(last)
    }

    /// Waits until a peer is as wanted
    ///
    /// # Errors
    /// If that does not come; the error shows the last state of all peers.
    pub fn await_peer(
        &self,
        name: &str,
        wanted: &str,
        patience: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Vec::new();
        let mut found = None;
        until(patience, || {
            last = self.peers().unwrap_or_default();
            found = last.iter().find(|peer| peer["name"] == name && condition(peer)).cloned();
            found.is_some()
        });
        let host = self.host.name();
        found.ok_or_else(|| {
            let last = Value::Array(last);
            anyhow!("{host}: {name} still not {wanted} after {patience:?}: {last}")
        })
    }

    /// Returns how often messages were refused for a reason
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn refused(&self, network: &str, reason: &str) -> Result<u64> {
        Ok(self.status(network)?["refusals"][reason].as_u64().unwrap_or(0))
    }

    /// Returns what the daemon told its service manager since it was started
    pub fn told(&mut self) -> &[String] {
        self.manager.told()
    }

    /// Waits until the daemon tells its service manager `line`; tells whether it did
    pub fn told_soon(&mut self, line: &str) -> bool {
        until(SOON, || self.told().iter().any(|told| told.starts_with(line)) || !self.runs())
            && self.told().iter().any(|told| told.starts_with(line))
    }

    /// Returns the log so far, of all starts
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until the log contains `text`; tells whether it did
    pub fn logs_soon(&self, text: &str) -> bool {
        until(SOON, || self.log().contains(text))
    }

    /// Pings an overlay address until the first answer
    ///
    /// # Errors
    /// If none comes.
    pub fn reaches(&self, target: IpAddr, patience: Duration) -> Result<()> {
        if super::load::ping_until(&self.host, target, patience)? {
            return Ok(());
        }
        let peers = self.ctl(&["peers"]).map(|answer| answer.stdout).unwrap_or_default();
        bail!("{} does not reach {target} in {patience:?}\n{peers}", self.host.name())
    }

    fn run(&self, command: &mut Command) -> Result<Answer> {
        let command = std::mem::replace(command, Command::new("true"));
        let output = self.host.output(command)?;
        Ok(Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.reap();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- log of {} ({} lines)", self.host.name(), lines.len());
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// Lines of a log that a failing test shows
const LOG_LINES: usize = 150;

/// Finds a program of this build: in `FASTVPN_BIN_DIR`, or beside the running executable
///
/// # Errors
/// If it is in neither.
pub fn program(name: &str) -> Result<PathBuf> {
    let given = std::env::var_os("FASTVPN_BIN_DIR").map(PathBuf::from);
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(Path::to_owned);
    given
        .into_iter()
        .chain(beside)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("{name} is not built: cargo build -p fastvpnd -p fastvpnctl"))
}

fn log_level() -> String {
    std::env::var("FASTVPN_TEST_LOG").unwrap_or_else(|_| "debug".to_owned())
}
