//! What a daemon tells its service manager, and the descriptors that the manager keeps for it.
//!
//! A [`Manager`] plays systemd's part for one daemon: it hears `sd_notify` messages, and has a file
//! descriptor store (`FileDescriptorStoreMax=`) if it is told to.

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// The service manager of one daemon
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    told: Vec<String>,
    /// Whether descriptors are kept at all
    keeps: bool,
    kept: BTreeMap<String, OwnedFd>,
}

impl Manager {
    /// Makes one that listens in a directory
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).context("notification socket")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path, told: Vec::new(), keeps: false, kept: BTreeMap::new() })
    }

    /// Keeps what daemons give to it from now on
    pub fn keep(&mut self) {
        self.keeps = true;
    }

    /// Forgets what was told, before another daemon starts
    pub(super) fn begin(&mut self) {
        self.hear();
        self.told.clear();
    }

    /// Lets go of what is kept, as at the end of a service that was stopped for good
    pub fn drop_kept(&mut self) {
        self.hear();
        self.kept.clear();
    }

    /// Returns the names of what is kept
    pub fn kept(&mut self) -> Vec<String> {
        self.hear();
        self.kept.keys().cloned().collect()
    }

    /// Returns what it was told since the daemon was started
    pub fn told(&mut self) -> &[String] {
        self.hear();
        &self.told
    }

    /// Returns words that go before the command line of a daemon, so that it is given what is kept
    pub(super) fn wrapper(&mut self) -> Vec<String> {
        self.hear();
        let Some(name) = self.kept.keys().next() else { return Vec::new() };
        // the descriptor comes as standard input; the process stays the same from here on
        let script = format!(
            "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_FDNAMES={name} LISTEN_PID=$$; exec \"$@\""
        );
        ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }

    /// Prepares the command of a daemon
    ///
    /// # Errors
    /// If a descriptor cannot be duplicated.
    pub(super) fn prepare(&self, command: &mut Command) -> Result<()> {
        command.env("NOTIFY_SOCKET", &self.path);
        if let Some(fd) = self.kept.values().next() {
            command.stdin(Stdio::from(fd.try_clone()?));
        }
        Ok(())
    }

    /// Takes all messages that have come
    pub(super) fn hear(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let Ok(message) = recvmsg(&self.socket, &mut parts, &mut control, flags) else {
                return;
            };
            let fds = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            });
            let fds: Vec<OwnedFd> = fds.flatten().collect();
            let text = String::from_utf8_lossy(&buffer[..message.bytes]).into_owned();
            self.on_message(&text, fds);
        }
    }

    fn on_message(&mut self, text: &str, fds: Vec<OwnedFd>) {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let name = value("FDNAME=").unwrap_or("stored").to_owned();
        if value("FDSTOREREMOVE=").is_some() {
            self.kept.remove(&name);
        } else if value("FDSTORE=").is_some() && self.keeps {
            self.kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
        }
        self.told.extend(text.lines().map(str::to_owned));
    }
}
