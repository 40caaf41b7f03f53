//! What the service manager is told (sd_notify): ready, reloading, stopping, alive, how things stand.
//!
//! Without a service manager nothing happens. With one, a thread of its own does the telling: a
//! service manager that does not read for a while must not hold up the control machine. What is to
//! outlive the daemon is given to the same service manager by a [`Store`].

mod store;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::debug;

pub use self::store::Store;

/// Tells the service manager
#[derive(Debug)]
pub struct Notifier {
    watchdog: Option<Watchdog>,
    status: String,
    /// To the thread that tells
    teller: Option<SyncSender<Told>>,
    store: Store,
}

/// What the service manager is told at one time
#[derive(Debug)]
struct Told {
    text: String,
    /// What it is given to keep
    fd: Option<OwnedFd>,
}

/// When the watchdog is to be fed
#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    next: Instant,
}

impl Notifier {
    /// Reads from the environment what the service manager wants
    pub fn from_environment() -> Self {
        Self::new(sd_notify::watchdog_enabled(), teller())
    }

    /// Feeds a watchdog that bites after `limit`, twice in that time
    fn new(limit: Option<Duration>, teller: Option<SyncSender<Told>>) -> Self {
        let watchdog =
            limit.map(|limit| Watchdog { interval: limit / 2, next: Instant::now() + limit / 2 });
        Self { watchdog, status: String::new(), store: Store::new(teller.clone()), teller }
    }

    /// Returns what the service manager keeps for us
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// All that can be reached is there
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The configuration is read anew; [`Self::ready`] ends it
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => debug!(%error, "monotonic clock cannot be read"),
        }
    }

    /// The daemon is on its way out
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// One line on how things stand; told only when it is another one
    pub fn status(&mut self, status: String) {
        if status != self.status {
            self.tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Feeds the watchdog if it is time and all is healthy; what is not healthy is asked again soon
    pub fn watch(&mut self, now: Instant, healthy: impl FnOnce() -> bool) {
        let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| now >= watchdog.next) else {
            return;
        };
        if healthy() {
            watchdog.next = now + watchdog.interval;
            self.tell(&[NotifyState::Watchdog]);
        } else {
            debug!("a data thread does not turn; the watchdog is not fed");
            watchdog.next = now + watchdog.interval.min(Duration::from_secs(1));
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(teller) = &self.teller else { return };
        if teller.try_send(Told { text: text_of(states), fd: None }).is_err() {
            debug!("the service manager does not read what it is told");
        }
    }
}

/// Starts the thread that tells, if there is anybody to tell
fn teller() -> Option<SyncSender<Told>> {
    std::env::var_os("NOTIFY_SOCKET")?;
    let (teller, told) = sync_channel::<Told>(WAITING);
    let run = move || {
        for Told { text, fd } in told {
            let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
            let states = [NotifyState::Custom(&text)];
            if let Err(error) = sd_notify::notify_with_fds(&states, &fds) {
                debug!(%error, "the service manager cannot be told");
            }
        }
    };
    let spawned = thread::Builder::new().name("notify".to_owned()).spawn(run);
    spawned.inspect_err(|error| debug!(%error, "no thread to tell the service manager")).ok()?;
    Some(teller)
}

fn text_of(states: &[NotifyState<'_>]) -> String {
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Messages that wait for a service manager that does not read
const WAITING: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn watchdog_is_fed_twice_in_its_time() {
        let mut notifier = Notifier::new(Some(LIMIT), None);
        let first = next(&notifier).unwrap();

        notifier.watch(first, || true);

        assert_eq!(next(&notifier), Some(first + LIMIT / 2));
    }

    #[test]
    fn sick_thread_is_looked_at_again_after_a_second() {
        let mut notifier = Notifier::new(Some(LIMIT), None);
        let first = next(&notifier).unwrap();

        notifier.watch(first, || false);

        assert_eq!(next(&notifier), Some(first + Duration::from_secs(1)));
    }

    #[test]
    fn no_watchdog_asks_for_nothing() {
        let mut notifier = Notifier::new(None, None);

        notifier.watch(Instant::now(), || panic!("nobody asked"));

        assert_eq!(next(&notifier), None);
    }
    fn next(notifier: &Notifier) -> Option<Instant> {
        notifier.watchdog.as_ref().map(|watchdog| watchdog.next)
    }
}
