//! Sets networks up and removes them: hubs made here, networks joined by invitation.
//!
//! Each task writes files, lets the daemon read them, and asks it to connect; what it asks, it asks
//! through the [`Handle`] like everybody else. The files of the administrator are never touched.
//!
//! # Contract
//!
//! - After an error nothing is left behind, with one exception: once the hub has welcomed a newcomer
//!   its invitation is used, so that the network stays whatever fails then.
//! - A newcomer that has to be approved first has joined: the network goes on trying.
//! - A task that is interrupted by the end of the daemon leaves a whole network or none.

mod files;

use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use self::files::{Contents, Files, FilesError};
use crate::config::{self, write};
use crate::handle::{
    Apply, Bringer, Handle, HandleError, HubSpec, JoinSpec, NetworkName, NetworkState, Snapshot,
};

/// Sets networks up and removes them
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    config_dir: PathBuf,
    state_dir: PathBuf,
    daemon: Handle,
    /// One after another, as each looks at what the others wrote
    turn: Arc<Mutex<()>>,
}

impl Setup {
    /// Makes networks of `state_dir` beside those of `config_dir`
    pub(crate) fn new(config_dir: PathBuf, state_dir: PathBuf, daemon: Handle) -> Self {
        Self { config_dir, state_dir, daemon, turn: Arc::default() }
    }

    /// Makes a hub; returns when it is up, or at once if it is not to come up by itself
    ///
    /// # Errors
    /// If a wish cannot be met; then there is no hub.
    pub(crate) async fn create_hub(&self, spec: HubSpec) -> Result<(), HandleError> {
        let text = write::hub(&spec).map_err(HandleError::Invalid)?;
        let files = Files::new(&self.state_dir, spec.name.clone());
        let contents =
            Contents { text, private_key: random()?, network_key: Some(random()?), ticket: None };
        self.add(&spec.name, &files, contents).await?;
        info!(network = %spec.name, "made a hub");
        if !spec.autoconnect {
            return Ok(());
        }
        match self.daemon.connect(spec.name.clone(), Apply::Daemon).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.undo(&spec.name, &files).await;
                Err(error)
            }
        }
    }

    /// Joins a network; returns its name when it is up, or waits for approval
    ///
    /// With [`Bringer::Caller`] it returns at once: the hub was not asked yet.
    ///
    /// # Errors
    /// If the hub does not answer or refuses, or the network cannot come up.
    pub(crate) async fn join(&self, spec: JoinSpec) -> Result<NetworkName, HandleError> {
        let JoinSpec { invitation, name, bringer } = spec;
        let name = name.unwrap_or_else(|| invitation.network.clone());
        let text = write::peer(&name, &invitation, bringer).map_err(HandleError::Invalid)?;
        let files = Files::new(&self.state_dir, name.clone());
        let network_key = Zeroizing::new(*invitation.network_key.as_bytes());
        let contents = Contents {
            text,
            private_key: random()?,
            network_key: Some(network_key).filter(|key| key.iter().any(|byte| *byte != 0)),
            ticket: Some(Zeroizing::new(*invitation.secret.as_bytes())),
        };
        self.add(&name, &files, contents).await?;
        if bringer == Bringer::Caller {
            info!(network = %name, "joined a network; somebody else brings it up");
            return Ok(name);
        }
        let mut snapshots = self.daemon.snapshots();
        let result = tokio::select! {
            result = self.daemon.connect(name.clone(), Apply::Daemon) => result.map(|_| ()),
            () = pending(&mut snapshots, &name) => Ok(()),
        };
        match result {
            Ok(()) => {
                info!(network = %name, "joined a network");
                Ok(name)
            }
            // The secret goes when the hub has welcomed us: then there is no way back.
            Err(error) if !files.ticket().exists() => Err(kept(error, &name)),
            Err(error) => {
                self.undo(&name, &files).await;
                Err(unanswered(error, &invitation.endpoints))
            }
        }
    }

    /// Takes a network down and deletes all that was made for it
    ///
    /// # Errors
    /// If there is none of that name, it is the administrator's, or it cannot be deleted.
    pub(crate) async fn leave(&self, name: NetworkName) -> Result<(), HandleError> {
        let files = Files::new(&self.state_dir, name.clone());
        if files.config().symlink_metadata().is_err() {
            let known = self.daemon.snapshots().borrow().networks.contains_key(&name);
            return Err(if known {
                let file = self.config_dir.join(format!("{name}.toml"));
                let file = file.display();
                HandleError::Conflict(format!(
                    "network {name} was configured by hand: remove {file}, then run \
                     fastvpnctl reload"
                ))
            } else {
                HandleError::UnknownNetwork(name.to_string())
            });
        }
        let _turn = self.turn.lock().await;
        match self.daemon.disconnect(name.clone()).await {
            // A file that the daemon never took up is deleted as well.
            Ok(_) | Err(HandleError::UnknownNetwork(_)) => {}
            Err(error) => return Err(error),
        }
        let gone = files.clone();
        blocking(move || gone.remove_config()).await?;
        let reloaded = self.daemon.reload().await;
        blocking(move || files.remove_all()).await?;
        info!(network = %name, "left a network");
        reloaded.map(|_| ())
    }

    /// Writes the files of a new network and lets the daemon take it up
    async fn add(
        &self,
        name: &NetworkName,
        files: &Files,
        contents: Contents,
    ) -> Result<(), HandleError> {
        let _turn = self.turn.lock().await;
        let taken = self.daemon.snapshots().borrow().networks.contains_key(name)
            || self.config_dir.join(format!("{name}.toml")).symlink_metadata().is_ok();
        if taken {
            return Err(exists(name));
        }
        let fresh = files.clone();
        blocking(move || fresh.create(&contents)).await?;
        let checked = self.check(files).await;
        let added = match checked {
            Ok(()) => self.daemon.reload().await.map(|_| ()),
            Err(error) => Err(error),
        };
        if added.is_err() {
            self.remove(name, files).await;
        }
        added
    }

    /// Says what is wrong with a new network's file, alone and beside the others
    async fn check(&self, files: &Files) -> Result<(), HandleError> {
        let (config_dir, state_dir) = (self.config_dir.clone(), self.state_dir.clone());
        let loaded = spawn_blocking(move || config::load(&config_dir, &state_dir));
        let Err(problems) = loaded.await.map_err(|_| HandleError::Stopping)? else {
            return Ok(());
        };
        let file = files.config();
        if problems.iter().any(|problem| problem.file != file) {
            return Err(HandleError::Config(problems.to_string()));
        }
        // The file is about to go: its name and lines would help nobody.
        let said = problems.iter().map(|problem| {
            let key = problem.key.as_deref().map(|key| format!("{key}: ")).unwrap_or_default();
            format!("{key}{}; {}", problem.what, problem.remedy)
        });
        Err(HandleError::Invalid(said.collect::<Vec<_>>().join("\n")))
    }

    /// Removes a network as if it had never been
    async fn undo(&self, name: &NetworkName, files: &Files) {
        let _turn = self.turn.lock().await;
        // Once it is down the same name can be used again at once.
        if let Err(error) = self.daemon.disconnect(name.clone()).await {
            debug!(network = %name, reason = %error, "what is given up cannot be taken down");
        }
        self.remove(name, files).await;
        if let Err(error) = self.daemon.reload().await {
            warn!(network = %name, reason = %error, "what was given up is still configured");
        }
    }

    async fn remove(&self, name: &NetworkName, files: &Files) {
        let files = files.clone();
        if let Err(error) = blocking(move || files.remove_all()).await {
            warn!(network = %name, reason = %error, "files of what was given up are left");
        }
    }
}

/// Waits until the hub wants somebody to approve this node
async fn pending(snapshots: &mut watch::Receiver<Arc<Snapshot>>, name: &NetworkName) {
    let is_pending = |snapshot: &Arc<Snapshot>| {
        let view = snapshot.networks.get(name);
        view.is_some_and(|view| view.state == NetworkState::Pending)
    };
    if snapshots.wait_for(is_pending).await.is_err() {
        // The daemon is stopping, which the other side of the race says.
        std::future::pending::<()>().await;
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), FilesError> + Send + 'static,
) -> Result<(), HandleError> {
    match spawn_blocking(work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ FilesError::Exists(_))) => Err(HandleError::Conflict(error.to_string())),
        Ok(Err(error @ FilesError::Write { .. })) => Err(HandleError::System(error.to_string())),
        Err(_) => Err(HandleError::Stopping),
    }
}

fn exists(name: &NetworkName) -> HandleError {
    HandleError::Conflict(format!(
        "there is a network {name} already: choose another name, or first: fastvpnctl leave {name}"
    ))
}

/// Adds to a timeout what was tried; nothing was kept
fn unanswered(error: HandleError, endpoints: &[String]) -> HandleError {
    let HandleError::Timeout(mut what) = error else { return error };
    if !endpoints.iter().all(|endpoint| what.contains(endpoint)) {
        what.push_str(&format!("; it was looked for at {}", endpoints.join(", ")));
    }
    HandleError::Timeout(format!(
        "{what}. Is this machine online, and does the way to the hub let UDP or TCP to that port \
         pass? A hub is silent, too, when an invitation is not one of its own. Nothing was kept: \
         the same invitation can be tried again"
    ))
}

/// Adds to an error that the network stays
fn kept(error: HandleError, name: &NetworkName) -> HandleError {
    let tail = format!(
        "; the hub has welcomed this machine, so the network is kept: mend that, then run \
         fastvpnctl connect {name}"
    );
    match error {
        HandleError::Conflict(text) => HandleError::Conflict(text + &tail),
        HandleError::System(text) => HandleError::System(text + &tail),
        HandleError::Timeout(text) => HandleError::Timeout(text + &tail),
        other => other,
    }
}

/// Returns random bytes of the system
fn random() -> Result<Zeroizing<[u8; 32]>, HandleError> {
    let mut bytes = Zeroizing::new([0; 32]);
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(HandleError::System(format!("no random numbers: {error}"))),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
