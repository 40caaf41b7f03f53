//! A private message bus.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A dbus-daemon on a socket in a directory of its own; stopped when dropped
pub(crate) struct PrivateBus {
    dir: TempDir,
    child: Option<Child>,
}

impl PrivateBus {
    pub(crate) fn start() -> Self {
        let mut bus = Self::prepare();
        bus.restart();
        bus
    }

    /// Makes the place of a bus that does not run yet
    pub(crate) fn prepare() -> Self {
        let dir = tempfile::Builder::new().prefix("fastvpn-bus-").tempdir().unwrap();
        // Other users are to reach the socket as well.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let bus = Self { dir, child: None };
        std::fs::write(bus.config(), CONFIG.replace("@ADDRESS@", &bus.address())).unwrap();
        bus
    }

    /// Stops the bus if it runs, and starts it at the same address
    pub(crate) fn restart(&mut self) {
        self.stop();
        let mut child = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", self.config().display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is installed");
        let mut ready = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("unix:"), "dbus-daemon says {ready:?}");
        self.child = Some(child);
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            let _ = std::fs::remove_file(self.dir.path().join("bus"));
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.dir.path().join("bus").display())
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("bus.conf")
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        self.stop();
    }
}

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>@ADDRESS@</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;
