//! What the service manager is told (sd_notify): ready, reloading, stopping, alive, how things stand.
//!
//! Without a service manager nothing happens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::debug;

/// Tells the service manager
#[derive(Debug)]
pub struct Notifier {
    watchdog: Option<Watchdog>,
    status: String,
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
        Self::new(sd_notify::watchdog_enabled())
    }

    /// Feeds a watchdog that bites after `limit`, twice in that time
    fn new(limit: Option<Duration>) -> Self {
        let watchdog =
            limit.map(|limit| Watchdog { interval: limit / 2, next: Instant::now() + limit / 2 });
        Self { watchdog, status: String::new() }
    }

    /// All that can be reached is there
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The configuration is read anew; [`Self::ready`] ends it
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => debug!(%error, "monotonic clock cannot be read"),
        }
    }

    /// The daemon is on its way out
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// One line on how things stand; told only when it is another one
    pub fn status(&mut self, status: String) {
        if status != self.status {
            tell(&[NotifyState::Status(&status)]);
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
            tell(&[NotifyState::Watchdog]);
        } else {
            debug!("a data thread does not turn; the watchdog is not fed");
            watchdog.next = now + watchdog.interval.min(Duration::from_secs(1));
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn watchdog_is_fed_twice_in_its_time() {
        let mut notifier = Notifier::new(Some(LIMIT));
        let first = next(&notifier).unwrap();

        notifier.watch(first, || true);

        assert_eq!(next(&notifier), Some(first + LIMIT / 2));
    }

    #[test]
    fn sick_thread_is_looked_at_again_after_a_second() {
        let mut notifier = Notifier::new(Some(LIMIT));
        let first = next(&notifier).unwrap();

        notifier.watch(first, || false);

        assert_eq!(next(&notifier), Some(first + Duration::from_secs(1)));
    }

    #[test]
    fn no_watchdog_asks_for_nothing() {
        let mut notifier = Notifier::new(None);

        notifier.watch(Instant::now(), || panic!("nobody asked"));

        assert_eq!(next(&notifier), None);
    }
    fn next(notifier: &Notifier) -> Option<Instant> {
        notifier.watchdog.as_ref().map(|watchdog| watchdog.next)
    }
}
