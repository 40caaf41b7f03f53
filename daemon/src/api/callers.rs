//! Callers for whom a network is up, and goes down when they are gone.
//!
//! Whoever connects a network with `apply` = `caller` has promised to look after its interface. When
//! his connection to the bus is gone, by his end or by that of the bus, nobody does any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastvpn_dbus::Error;
use futures_util::StreamExt;
use tokio::time::{Duration, timeout};
use zbus::Connection;
use zbus::fdo::{DBusProxy, NameOwnerChangedStream};
use zbus::names::{BusName, OwnedUniqueName, UniqueName};

use super::access::nobody;
use crate::handle::{Caller, Handle};

/// Tells the daemon when a caller is gone
#[derive(Debug)]
pub(super) struct Callers {
    daemon: Handle,
    /// Each caller has one task, however often he calls
    watched: Arc<Mutex<BTreeSet<OwnedUniqueName>>>,
}

impl Callers {
    /// Watches nobody yet
    pub(super) fn new(daemon: Handle) -> Self {
        Self { daemon, watched: Arc::default() }
    }

    /// Watches a caller from now on; returns him as the daemon shall know him
    ///
    /// # Errors
    /// If he is gone already, or the bus does not say.
    pub(super) async fn watch(
        &self,
        caller: &UniqueName<'_>,
        bus: &Connection,
    ) -> Result<Caller, Error> {
        let known = Caller(caller.to_string());
        let caller = OwnedUniqueName::from(caller.to_owned());
        if lock(&self.watched).contains(&caller) {
            return Ok(known);
        }
        let news = timeout(BUS_PATIENCE, follow(&caller, bus)).await.map_err(|_| nobody())??;
        if lock(&self.watched).insert(caller.clone()) {
            let end = end(caller.clone(), news, bus.clone());
            let (daemon, watched, known) =
                (self.daemon.clone(), Arc::clone(&self.watched), known.clone());
            tokio::spawn(async move {
                end.await;
                lock(&watched).remove(&caller);
                daemon.release(known).await;
            });
        }
        Ok(known)
    }
}

/// Begins to follow what becomes of a caller, who must still be there
async fn follow(
    caller: &UniqueName<'_>,
    bus: &Connection,
) -> Result<NameOwnerChangedStream, Error> {
    let dbus = DBusProxy::new(bus).await?;
    let news = dbus.receive_name_owner_changed_with_args(&[(0, caller.as_str())]).await?;
    // He may have gone before anybody listened.
    let there = dbus.name_has_owner(BusName::Unique(caller.clone())).await;
    if there.map_err(|_| nobody())? { Ok(news) } else { Err(nobody()) }
}

/// Waits until a caller, or the bus, is gone
async fn end(caller: OwnedUniqueName, mut news: NameOwnerChangedStream, bus: Connection) {
    let gone = async {
        while let Some(signal) = news.next().await {
            let args = signal.args();
            let is_it = |name: &BusName<'_>| name.as_str() == caller.as_str();
            if args.is_ok_and(|args| is_it(args.name()) && args.new_owner().is_none()) {
                break;
            }
        }
    };
    tokio::select! {
        () = gone => {}
        () = bus.closed() => {}
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the bus may take
const BUS_PATIENCE: Duration = Duration::from_secs(5);
