//! The daemon's objects for as long as somebody looks.
//!
//! [`follow`] goes on when the daemon or the bus goes away, and starts over when they are back.

use std::num::NonZeroUsize;
use std::time::Duration;

use fastvpn_dbus::tree::{Change, Tree};
use fastvpn_dbus::{BUS_NAME, Bus, ROOT};
use futures_util::StreamExt;
use tokio::time::sleep;
use zbus::fdo::{DBusProxy, NameOwnerChangedStream};
use zbus::message::Type;
use zbus::names::{BusName, OwnedUniqueName};
use zbus::{MatchRule, MessageStream};

use super::{Absent, Daemon, Patience};
use crate::failure::Failure;

/// What happened
#[derive(Debug)]
pub(super) enum News<'a> {
    /// Something is different; with how all is now
    Changed(&'a Tree, &'a Change),
    /// The daemon does not run, or cannot be reached
    Gone,
    /// The daemon runs, and this is what it shows
    Here(&'a Tree),
}

/// Tells what happens, until interrupted or until `tell` fails
pub(super) async fn follow(
    bus: &Bus,
    mut tell: impl FnMut(News<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut daemon = Daemon::open(bus, Absent::Wait, Patience::Short).await?;
    loop {
        match follow_bus(&daemon, &mut tell).await {
            // Only the way to the daemon can be tried again.
            Ok(()) | Err(Failure::Unreachable(_)) => {}
            Err(failure) => return Err(failure),
        }
        tell(News::Gone)?;
        daemon = loop {
            sleep(RETRY).await;
            if let Ok(daemon) = Daemon::open(bus, Absent::Wait, Patience::Short).await {
                break daemon;
            }
        };
    }
}

/// Tells what happens until the connection to the bus is lost
async fn follow_bus(
    daemon: &Daemon<'_>,
    tell: &mut impl FnMut(News<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |error: zbus::Error| daemon.bus_failure(&error);
    let bus = DBusProxy::new(&daemon.connection).await.map_err(failed)?;
    let name = BusName::from_static_str(BUS_NAME).map_err(failed)?;
    let changed = bus.receive_name_owner_changed_with_args(&[(0, BUS_NAME)]);
    let mut owners = changed.await.map_err(failed)?;
    let mut owner = bus.get_name_owner(name).await.ok();
    if owner.is_none() {
        tell(News::Gone)?;
    }
    loop {
        let next = match &owner {
            None => next_owner(&mut owners).await,
            Some(owner) => {
                let ended = follow_owner(daemon, owner, &mut owners, tell).await;
                match ended {
                    // It went away while it was asked: the bus will say so.
                    Err(Failure::Unreachable(_)) => next_owner(&mut owners).await,
                    ended => ended?,
                }
            }
        };
        let Some(next) = next else { return Ok(()) };
        if owner.is_some() && next.is_none() {
            tell(News::Gone)?;
        }
        owner = next;
    }
}

/// Tells what one daemon does until it goes; returns who has the name then
///
/// Returns nothing if the connection to the bus is lost.
async fn follow_owner(
    daemon: &Daemon<'_>,
    owner: &OwnedUniqueName,
    owners: &mut NameOwnerChangedStream,
    tell: &mut impl FnMut(News<'_>) -> Result<(), Failure>,
) -> Result<Option<Option<OwnedUniqueName>>, Failure> {
    let failed = |error: zbus::Error| daemon.bus_failure(&error);
    // By its unique name: nobody else can make us believe things.
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(owner.as_str());
    let rule = rule.path_namespace(ROOT).build().map_err(failed)?;
    let signals = MessageStream::for_match_rule(rule, &daemon.connection, QUEUE).await;
    let mut signals = signals.map_err(failed)?;
    let mut tree = daemon.tree().await?;
    tell(News::Here(&tree))?;
    loop {
        tokio::select! {
            next = next_owner(owners) => return Ok(next),
            signal = signals.next() => {
                let Some(signal) = signal else { return Ok(None) };
                let signal = signal.map_err(failed)?;
                if let Some(change) = tree.on_signal(&signal).map_err(failed)? {
                    tell(News::Changed(&tree, &change))?;
                }
            }
        }
    }
}

/// Waits until the name changes hands; nothing if the connection is lost
async fn next_owner(owners: &mut NameOwnerChangedStream) -> Option<Option<OwnedUniqueName>> {
    let change = owners.next().await?;
    let change = change.args().ok()?;
    Some(change.new_owner().as_ref().map(|owner| owner.to_owned().into()))
}

/// Time between two attempts to reach the bus again
const RETRY: Duration = Duration::from_secs(1);
/// Signals that may wait for us
const QUEUE: Option<NonZeroUsize> = NonZeroUsize::new(1024);
