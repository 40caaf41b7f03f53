//! polkit's agent on this terminal, so that somebody can be asked for a password.
//!
//! # Contract
//!
//! - It is started only where polkit may want it: on the system bus, for a user who is not root, on
//!   a terminal. An agent that is there already, in a desktop say, goes first.
//! - Without the program all goes on; the daemon says what is missing.
//! - It is ended when the call is over, also where this program is told to end.

use std::future::{Future, pending};
use std::io::{self, IsTerminal};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fastvpn_dbus::Bus;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::failure::Failure;

/// Waits for `call`, with an agent at hand where one may be wanted
pub(super) async fn beside<T>(bus: &Bus, call: impl Future<Output = T>) -> Result<T, Failure> {
    let Some(_agent) = Agent::start(bus).await else { return Ok(call.await) };
    tokio::select! {
        answer = call => Ok(answer),
        () = told_to_end() => Err(Failure::failed("told to end")),
    }
}

/// A pkttyagent for this process; ended when dropped
#[derive(Debug)]
struct Agent(Child);

impl Agent {
    async fn start(bus: &Bus) -> Option<Self> {
        if *bus != Bus::System || geteuid().is_root() || !io::stdin().is_terminal() {
            return None;
        }
        let (ready, notify) = io::pipe().ok()?;
        // It is to be inherited; no other program is ever started.
        fcntl_setfd(&notify, FdFlags::empty()).ok()?;
        let child = Command::new("pkttyagent")
            .args(["--process", &std::process::id().to_string(), "--fallback"])
            .args(["--notify-fd", &notify.as_raw_fd().to_string()])
            // It opens the terminal by itself, and what else it says is of no use here.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let agent = Self(child.ok()?);
        drop(notify);
        let mut ready = Receiver::from_owned_fd(ready.into()).ok()?;
        // The other end is closed when the agent is registered, or has given up.
        let _ = timeout(PATIENCE, ready.read(&mut [0])).await;
        Some(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let agent = Pid::from_child(&self.0);
        let _ = kill_process(agent, Signal::TERM);
        // A stopped one would not hear of it.
        let _ = kill_process(agent, Signal::CONT);
        let _ = self.0.wait();
    }
}

async fn told_to_end() {
    match signal(SignalKind::terminate()) {
        Ok(mut told) => {
            told.recv().await;
        }
        Err(_) => pending().await,
    }
}

/// How long the agent may take to be ready; polkit may have to be started
const PATIENCE: Duration = Duration::from_secs(5);
