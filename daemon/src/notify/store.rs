//! Descriptors that the service manager keeps from one daemon to the next (sd_pid_notify_with_fds).
//!
//! What is in the store outlives the process, whatever ends it: a restart, a crash, the watchdog. The
//! next daemon is given all of it at its start. Only TUN devices go there, never keys.
//!
//! Without a service manager, or with one that keeps nothing, a descriptor that was put here ends with
//! the process as any other does.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use sd_notify::NotifyState;
use tracing::{debug, warn};

use super::{Told, text_of};

/// The descriptors that are kept for us
#[derive(Clone, Debug)]
pub struct Store {
    /// To the thread that tells the service manager
    teller: Option<SyncSender<Told>>,
    /// What an earlier daemon left, and nobody has taken yet
    left: Arc<Mutex<BTreeMap<String, OwnedFd>>>,
}

impl Store {
    /// Begins with what the service manager handed over at our start
    pub(super) fn new(teller: Option<SyncSender<Told>>) -> Self {
        let left = handed_over();
        if !left.is_empty() {
            let names: Vec<_> = left.keys().collect();
            debug!(?names, "descriptors of an earlier daemon");
        }
        Self { teller, left: Arc::new(Mutex::new(left)) }
    }

    /// Tells whether there may be somebody who keeps anything
    pub fn is_kept(&self) -> bool {
        self.teller.is_some()
    }

    /// Has a descriptor kept under a name, in place of any other of that name
    pub fn keep(&self, name: &str, fd: impl AsFd) {
        self.forget(name);
        match fd.as_fd().try_clone_to_owned() {
            Ok(fd) => self.tell(&[NotifyState::FdStore, NotifyState::FdName(name)], Some(fd)),
            Err(error) => debug!(%error, name, "descriptor cannot be kept"),
        }
    }

    /// Takes what an earlier daemon left under a name; it stays in the store
    pub fn take(&self, name: &str) -> Option<OwnedFd> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// Has nothing kept under a name any more
    pub fn forget(&self, name: &str) {
        drop(self.take(name));
        self.tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)], None);
    }

    /// Returns the names under which an earlier daemon left something that nobody has taken yet
    pub fn left(&self) -> Vec<String> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.keys().cloned().collect()
    }

    fn tell(&self, states: &[NotifyState<'_>], fd: Option<OwnedFd>) {
        let Some(teller) = &self.teller else { return };
        if teller.try_send(Told { text: text_of(states), fd }).is_err() {
            debug!("the service manager does not read what it is told");
        }
    }
}

/// Takes the descriptors that the service manager handed over; only the first time there are any
fn handed_over() -> BTreeMap<String, OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return BTreeMap::new();
    }
    match sd_notify::listen_fds_with_names() {
        Ok(handed) => handed.map(|(fd, name)| (name, own(fd))).collect(),
        Err(error) => {
            warn!(%error, "descriptors of an earlier daemon cannot be taken over");
            BTreeMap::new()
        }
    }
}

#[allow(unsafe_code)]
fn own(fd: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: the service manager opened it for this process, and it is taken here once and by
    // nobody else; that it is open was seen when it was marked as not to be inherited.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn store(left: &[&str]) -> (Store, std::sync::mpsc::Receiver<Told>) {
        let (teller, told) = sync_channel(8);
        let left = left.iter().map(|name| ((*name).to_owned(), null())).collect();
        (Store { teller: Some(teller), left: Arc::new(Mutex::new(left)) }, told)
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_is_kept_replaces_what_had_its_name() {
        let (store, told) = store(&["tun-home"]);

        store.keep("tun-home", null());

        let first = told.recv().unwrap();
        assert_eq!(
            (first.text.as_str(), first.fd.is_none()),
            ("FDSTOREREMOVE=1\nFDNAME=tun-home", true)
        );
        let second = told.recv().unwrap();
        assert_eq!(
            (second.text.as_str(), second.fd.is_some()),
            ("FDSTORE=1\nFDNAME=tun-home", true)
        );
        assert!(store.take("tun-home").is_none());
    }

    #[test]
    fn what_was_left_is_taken_once_and_not_forgotten_by_that() {
        let (store, told) = store(&["tun-home", "tun-work"]);

        assert!(store.take("tun-home").is_some() && store.take("tun-home").is_none());

        assert!(told.try_recv().is_err());
        assert_eq!(store.left(), ["tun-work"]);
    }
}
