//! Who may do what.
//!
//! Reading is for everyone. What changes something is for uid 0 and the daemon's own uid: there is
//! no polkit yet. A ping is for everyone too, but only so many at a time and in a second.

use std::sync::{Arc, Mutex, PoisonError};

use fastvpn_dbus::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, timeout};
use zbus::Connection;
use zbus::message::Header;

/// Decides what a caller may do
#[derive(Debug)]
pub(super) struct Access {
    /// The daemon's own user
    own: u32,
    pings: Arc<Semaphore>,
    allowance: Mutex<Allowance>,
}

/// What a caller wants to do
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
    /// Bring a network up
    Connect,
    /// Take a network down
    Disconnect,
    /// Read the configuration again
    Reload,
}

/// A ping that was let through; counts as running until dropped
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Access {
    pub(super) fn new() -> Self {
        Self {
            own: rustix::process::geteuid().as_raw(),
            pings: Arc::new(Semaphore::new(PINGS_AT_ONCE)),
            allowance: Mutex::new(Allowance::new(Instant::now())),
        }
    }

    /// Lets the caller pass if it may do `action`
    ///
    /// # Errors
    /// If it may not, or if the bus does not know it any more.
    pub(super) async fn require(
        &self,
        action: Action,
        call: &Header<'_>,
        bus: &Connection,
    ) -> Result<(), Error> {
        let uid = caller(call, bus).await?;
        if uid == 0 || uid == self.own {
            return Ok(());
        }
        let what = action.as_str();
        Err(Error::NotAuthorized(format!("user {uid} may not {what}; only root may")))
    }

    /// Lets a ping pass if there are not too many
    ///
    /// # Errors
    /// If there are.
    pub(super) fn ping(&self) -> Result<Slot, Error> {
        let slot = Arc::clone(&self.pings).try_acquire_owned().map_err(|_| too_many())?;
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        if allowance.take(Instant::now()) { Ok(Slot(slot)) } else { Err(too_many()) }
    }
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect a network",
            Self::Disconnect => "disconnect a network",
            Self::Reload => "reload the configuration",
        }
    }
}

/// A bucket that fills with time
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: PINGS_PER_SECOND, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = (now - self.at).as_secs_f64() * PINGS_PER_SECOND;
        self.left = (self.left + gained).min(PINGS_PER_SECOND);
        self.at = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

async fn caller(call: &Header<'_>, bus: &Connection) -> Result<u32, Error> {
    let nobody = || Error::NotAuthorized("the bus does not say who is asking".to_owned());
    let sender = call.sender().ok_or_else(nobody)?;
    let (name, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
    let asked = bus.call_method(Some(name), path, Some(name), "GetConnectionUnixUser", sender);
    match timeout(BUS_PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer.body().deserialize()?),
        Ok(Err(_)) | Err(_) => Err(nobody()),
    }
}

fn too_many() -> Error {
    Error::Busy("too many pings at once; try again in a second".to_owned())
}

/// Pings that may wait for an answer at the same time
const PINGS_AT_ONCE: usize = 32;
/// Pings in a second, and in a burst
const PINGS_PER_SECOND: f64 = 50.0;
/// How long the bus may take to say who is asking
const BUS_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_empties_the_allowance_and_time_fills_it() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);

        let burst = (0..100).filter(|_| allowance.take(start)).count();

        assert_eq!(burst, 50);
        assert!(!allowance.take(start + Duration::from_millis(10)));
        assert!(allowance.take(start + Duration::from_millis(40)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| allowance.take(later)).count(), 50);
    }

    #[test]
    fn pings_that_wait_are_bounded_and_a_finished_one_makes_room() {
        let access = Access::new();
        let mut running: Vec<_> = (0..PINGS_AT_ONCE).map(|_| access.ping().unwrap()).collect();

        assert!(matches!(access.ping(), Err(Error::Busy(_))));
        running.pop();

        assert!(access.ping().is_ok());
    }
}
