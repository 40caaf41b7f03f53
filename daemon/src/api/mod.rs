//! The D-Bus API: builds the object tree, then takes the bus name.
//!
//! Everything here is a translation of the [`Handle`]; `dbus/README.md` says what it means to
//! clients.
//!
//! # Contract
//!
//! - The daemon runs whether or not there is a bus. A bus that is missing, or lost, is tried again
//!   after 100 ms, then after twice that, up to every 5 s; then all is built anew.
//! - Only at the first attempt is a name that somebody else owns an error: then a second daemon was
//!   started by mistake. Later it is waited for.

mod access;
mod callers;
mod error;
mod manager;
mod members;
mod network;
mod options;
mod peer;
mod polkit;
mod publish;

use std::convert::Infallible;
use std::sync::Arc;

use fastvpn_dbus::{BUS_NAME, ROOT};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, error::Elapsed, sleep, timeout};
use tracing::{error, info, warn};
use zbus::Connection;
use zbus::fdo::{ObjectManager, RequestNameFlags};

pub use fastvpn_dbus::Bus;

use self::access::Access;
use self::manager::Manager;
use self::network::Door;
use self::publish::{Publisher, Rounds};
use crate::handle::Handle;

/// Whether clients can reach the daemon
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Availability {
    /// The first attempt still runs
    #[default]
    Starting,
    /// The objects are there and the name is ours
    Serving,
    /// There is no bus, or the name is not to be had; it is tried again
    Unreachable,
}

/// Why the API cannot be served at all
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ApiError {
    /// Another daemon owns the name
    #[error(
        "the name {BUS_NAME} on the {0} belongs to another process: is fastvpnd running already?"
    )]
    NameTaken(Bus),
}

/// Serves the API on `bus` until cancelled; without a bus it only waits
///
/// `availability` leaves [`Availability::Starting`] when the first attempt is over.
///
/// # Errors
/// If the bus can be reached at the first attempt, but another process owns the name.
pub async fn serve(
    bus: Option<Bus>,
    handle: Handle,
    availability: watch::Sender<Availability>,
) -> Result<Infallible, ApiError> {
    let Some(bus) = bus else {
        availability.send_replace(Availability::Unreachable);
        return std::future::pending().await;
    };
    let mut patience = Patience::default();
    let mut first = true;
    loop {
        match open(&bus, &handle).await {
            Ok(publisher) => {
                availability.send_replace(Availability::Serving);
                info!(%bus, name = BUS_NAME, "serving the D-Bus API");
                let since = Instant::now();
                // An error here is the loss of the connection.
                let _ = publisher.run().await;
                patience.on_lost(since.elapsed());
                warn!(%bus, "lost the message bus; networks go on without it");
            }
            Err(OpenError::NameTaken) if first => return Err(ApiError::NameTaken(bus)),
            Err(problem) => patience.complain(&bus, &problem),
        }
        first = false;
        availability.send_replace(Availability::Unreachable);
        sleep(patience.next()).await;
    }
}

/// Connects, builds the object tree, takes the name
async fn open(bus: &Bus, handle: &Handle) -> Result<Publisher, OpenError> {
    let rounds = Rounds::new();
    let manager = Manager::new(bus, handle.clone(), rounds.clone());
    let builder = bus.builder().serve_at(ROOT, ObjectManager).serve_at(ROOT, manager);
    let connection = timeout(BUS_PATIENCE, builder.build()).await??;
    let door = Door { access: Access::new(bus), daemon: handle.clone(), rounds };
    let mut publisher = Publisher::new(connection.clone(), Arc::new(door));
    publisher.round().await?;
    timeout(BUS_PATIENCE, take_name(&connection)).await??;
    Ok(publisher)
}

async fn take_name(connection: &Connection) -> Result<(), OpenError> {
    let taking = connection.request_name_with_flags(BUS_NAME, RequestNameFlags::DO_NOT_QUEUE);
    match taking.await {
        Ok(_) => Ok(()),
        Err(zbus::Error::NameTaken) => Err(OpenError::NameTaken),
        Err(error) => Err(OpenError::Bus(error)),
    }
}

/// Why an attempt to serve ended before it began
#[derive(Debug, Error)]
enum OpenError {
    #[error(transparent)]
    Bus(#[from] zbus::Error),
    #[error("another process owns the name {BUS_NAME}")]
    NameTaken,
    #[error("the message bus does not answer")]
    Silent(#[from] Elapsed),
}

/// How long to wait between attempts, and whether to speak of them
#[derive(Debug, Default)]
struct Patience {
    waited: Duration,
    /// What was logged last, so that it is not logged at each attempt
    complaint: String,
}

impl Patience {
    fn next(&mut self) -> Duration {
        self.waited = (self.waited * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        self.waited
    }

    fn on_lost(&mut self, served: Duration) {
        self.complaint.clear();
        // A bus that drops us at once is not asked again at once, for ever.
        if served > BACKOFF_MAX {
            self.waited = Duration::ZERO;
        }
    }

    fn complain(&mut self, bus: &Bus, problem: &OpenError) {
        let complaint = problem.to_string();
        if complaint == self.complaint {
            return;
        }
        match problem {
            OpenError::NameTaken => {
                error!(%bus, "{problem}: clients cannot reach this daemon until it lets go");
            }
            OpenError::Bus(_) | OpenError::Silent(_) => {
                warn!(%bus, "no message bus, networks go on without it: {problem}");
            }
        }
        self.complaint = complaint;
    }
}

/// First wait before another attempt
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait before another attempt
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long the bus may take to answer
const BUS_PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_ever_later_up_to_a_limit_and_start_over_after_service() {
        let mut patience = Patience::default();

        let waits: Vec<_> = (0..8).map(|_| patience.next().as_millis()).collect();
        patience.on_lost(Duration::from_secs(1));
        let after_short = patience.next();
        patience.on_lost(Duration::from_secs(60));
        let after_long = patience.next();

        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(after_short, BACKOFF_MAX);
        assert_eq!(after_long, BACKOFF_MIN);
    }

    #[tokio::test]
    async fn without_a_bus_the_api_only_waits() {
        let (requests, _kept) = tokio::sync::mpsc::channel(1);
        let (_snapshots, snapshots) = watch::channel(Default::default());
        let (availability, mut seen) = watch::channel(Availability::Starting);

        let serving = serve(None, Handle::new(requests, snapshots), availability);

        assert!(timeout(Duration::from_millis(20), serving).await.is_err());
        assert_eq!(*seen.borrow_and_update(), Availability::Unreachable);
    }
}
