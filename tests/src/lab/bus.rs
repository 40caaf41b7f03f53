//! A private message bus: a `dbus-daemon` of its own for each host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::netns::Host;
use super::wait::until;

/// A private message bus on a socket in a directory of the test
#[derive(Debug)]
pub struct Bus {
    host: Arc<Host>,
    directory: PathBuf,
    child: Option<Child>,
}

impl Bus {
    /// Starts a bus whose socket and configuration are in `directory`; returns when it answers
    ///
    /// # Errors
    /// If there is no `dbus-daemon`, or it does not start.
    pub fn start(host: &Arc<Host>, directory: &Path) -> Result<Self> {
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC '-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN'
              'http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd'>
             <busconfig>
               <type>session</type>
               <listen>unix:path={}</listen>
               <auth>EXTERNAL</auth>
               <policy context='default'>
                 <allow user='*'/>
                 <allow own='*'/>
                 <allow send_destination='*' eavesdrop='true'/>
                 <allow receive_sender='*'/>
                 <allow receive_type='method_call'/>
               </policy>
             </busconfig>",
            directory.join("bus").display()
        );
        fs::write(directory.join("bus.conf"), config)?;
        let mut bus = Self { host: Arc::clone(host), directory: directory.to_owned(), child: None };
        bus.launch()?;
        Ok(bus)
    }

    /// Kills the bus and starts another one at the same address
    ///
    /// # Errors
    /// If it does not start again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        self.launch()
    }

    /// Kills the bus
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.socket());
    }

    /// Returns the address of the bus
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = self.host.command("dbus-daemon");
        command.arg(format!("--config-file={}", self.directory.join("bus.conf").display()));
        command.args(["--nofork", "--nopidfile", "--nosyslog"]);
        command.stdout(fs::File::create(self.directory.join("bus.log"))?);
        command.stderr(fs::File::create(self.directory.join("bus.err"))?);
        self.child = Some(self.host.spawn(command).context("dbus-daemon does not start")?);
        let socket = self.socket();
        if !until(Duration::from_secs(10), || UnixStream::connect(&socket).is_ok()) {
            let said = fs::read_to_string(self.directory.join("bus.err")).unwrap_or_default();
            bail!("dbus-daemon does not answer: {said}");
        }
        // programs of other users may come, too
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("bus")
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.stop();
    }
}
