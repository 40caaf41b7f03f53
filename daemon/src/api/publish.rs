//! The difference of two snapshots, as objects and signals.
//!
//! The [`Publisher`] is the only place that adds objects, removes them, or sends a signal; so none
//! can be forgotten.
//!
//! # Contract
//!
//! - What an object shows ([`Shown`]) is what signals have said of it: a client that follows the
//!   signals and one that asks see the same.
//! - Rounds are at least [`PAUSE`] apart, except for the one that a finished change asks for.
//! - Figures of one object are signalled at most once in [`FIGURES_PAUSE`], and of all peers at most
//!   [`FIGURES_AT_ONCE`] in that time; the peers take turns. An idle daemon does nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastvpn_dbus::types::{Changes, NetworkFacts, NetworkFigures, PeerFacts, PeerFigures};
use fastvpn_dbus::{NETWORK, PEER, network_path, peer_path};
use fastvpn_proto::crypto::PublicKey;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use zbus::names::BusName;
use zbus::{Connection, OwnedObjectPath};

use super::network::{self, Door, Network};
use super::peer::{self, Peer};
use crate::handle::{NetworkName, NetworkView, PeerView, Snapshot};

/// Keeps the objects on one connection like the daemon's snapshots
#[derive(Debug)]
pub(super) struct Publisher {
    bus: Connection,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    door: Arc<Door>,
    rounds: Arc<Rounds>,
    /// Whose facts the objects show
    told: Arc<Snapshot>,
    networks: BTreeMap<NetworkName, NetworkObject>,
    /// When figures may be signalled again
    figures_at: Instant,
    /// Whether there may be figures that were not signalled yet
    figures_due: bool,
    /// The peer whose figures were signalled last
    cursor: Option<(NetworkName, PublicKey)>,
}

/// What the object of a network or of a peer shows
#[derive(Debug)]
pub(super) struct Shown<F, G> {
    facts: Mutex<F>,
    figures: Mutex<G>,
}

/// Counts the rounds, for those who wait for one
#[derive(Debug)]
pub(super) struct Rounds {
    wanted: Notify,
    begun: AtomicU64,
    done: watch::Sender<u64>,
}

#[derive(Debug)]
struct NetworkObject {
    shown: Arc<Shown<NetworkFacts, NetworkFigures>>,
    peers: BTreeMap<PublicKey, Arc<Shown<PeerFacts, PeerFigures>>>,
}

impl Publisher {
    /// Makes a publisher that has published nothing yet
    pub(super) fn new(bus: Connection, door: Arc<Door>) -> Self {
        Self {
            bus,
            snapshots: door.daemon.snapshots(),
            rounds: Arc::clone(&door.rounds),
            door,
            told: Arc::default(),
            networks: BTreeMap::new(),
            figures_at: Instant::now(),
            figures_due: false,
            cursor: None,
        }
    }

    /// Publishes what changes, until the connection is lost
    ///
    /// # Errors
    /// If the connection is lost.
    pub(super) async fn run(mut self) -> zbus::Result<()> {
        let mut pause = Instant::now() + PAUSE;
        while self.wait(pause).await {
            self.round().await?;
            pause = Instant::now() + PAUSE;
        }
        Ok(())
    }

    /// Makes the objects like the latest snapshot
    ///
    /// # Errors
    /// If the connection is lost.
    pub(super) async fn round(&mut self) -> zbus::Result<()> {
        let round = self.rounds.begin();
        let new = Arc::clone(&self.snapshots.borrow_and_update());
        self.figures_due |= !Arc::ptr_eq(&new, &self.told);
        self.remove_what_is_gone(&new).await?;
        self.add_what_is_new(&new).await?;
        self.tell_facts(&new).await?;
        if self.figures_due && Instant::now() >= self.figures_at {
            self.tell_figures(&new).await?;
            self.figures_at = Instant::now() + FIGURES_PAUSE;
        }
        self.told = new;
        self.rounds.finish(round);
        Ok(())
    }

    /// Waits for a reason for a round; false if the connection was lost instead
    async fn wait(&mut self, pause: Instant) -> bool {
        let Self { bus, snapshots, rounds, .. } = self;
        let (figures_at, figures_due) = (self.figures_at, self.figures_due);
        let news = async {
            sleep_until(pause).await;
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() {
                    // The daemon is stopping: there will be no news.
                    std::future::pending::<()>().await;
                },
                () = sleep_until(figures_at), if figures_due => {}
            }
        };
        tokio::select! {
            () = bus.closed() => false,
            () = rounds.wanted.notified() => true,
            () = news => true,
        }
    }

    async fn remove_what_is_gone(&mut self, new: &Snapshot) -> zbus::Result<()> {
        let server = self.bus.object_server();
        for (name, object) in &mut self.networks {
            let view = new.networks.get(name);
            let stays = |key: &PublicKey| view.is_some_and(|view| view.peers.contains_key(key));
            let gone: Vec<_> = object.peers.keys().copied().filter(|key| !stays(key)).collect();
            for key in gone {
                object.peers.remove(&key);
                server.remove::<Peer, _>(path_of_peer(name, &key)).await?;
            }
        }
        let stays = |name: &NetworkName| new.networks.contains_key(name);
        let gone: Vec<_> = self.networks.keys().filter(|name| !stays(name)).cloned().collect();
        for name in gone {
            self.networks.remove(&name);
            server.remove::<Network, _>(network_path(name.as_str())).await?;
        }
        Ok(())
    }

    async fn add_what_is_new(&mut self, new: &Snapshot) -> zbus::Result<()> {
        let server = self.bus.object_server();
        for (name, view) in &new.networks {
            if !self.networks.contains_key(name) {
                let shown = Shown::new(network::facts(name, view), network::figures(view));
                let path = network_path(name.as_str());
                let door = Arc::clone(&self.door);
                server.at(path, Network::new(name.clone(), Arc::clone(&shown), door)).await?;
                let object = NetworkObject { shown, peers: BTreeMap::new() };
                self.networks.insert(name.clone(), object);
            }
            let Some(object) = self.networks.get_mut(name) else { continue };
            for (key, view) in &view.peers {
                if !object.peers.contains_key(key) {
                    let shown = Shown::new(peer::facts(name, key, view), peer::figures(view));
                    server.at(path_of_peer(name, key), Peer(Arc::clone(&shown))).await?;
                    object.peers.insert(*key, shown);
                }
            }
        }
        Ok(())
    }

    async fn tell_facts(&self, new: &Snapshot) -> zbus::Result<()> {
        for (name, object, old, view) in self.known(new) {
            if !network::same_facts(old, view) {
                let facts = network::facts(name, view);
                let changes = object.shown.facts().difference(&facts);
                *object.shown.facts() = facts;
                self.tell(network_path(name.as_str()), NETWORK, &changes).await?;
            }
            for (key, view) in &view.peers {
                let (Some(old), Some(shown)) = (old.peers.get(key), object.peers.get(key)) else {
                    continue;
                };
                if !peer::same_facts(old, view) {
                    let facts = peer::facts(name, key, view);
                    let changes = shown.facts().difference(&facts);
                    *shown.facts() = facts;
                    self.tell(path_of_peer(name, key), PEER, &changes).await?;
                }
            }
        }
        Ok(())
    }

    async fn tell_figures(&mut self, new: &Snapshot) -> zbus::Result<()> {
        for (name, view) in &new.networks {
            let Some(object) = self.networks.get(name) else { continue };
            let figures = network::figures(view);
            let changes = object.shown.figures().difference(&figures);
            *object.shown.figures() = figures;
            self.tell(network_path(name.as_str()), NETWORK, &changes).await?;
        }
        let mut left = FIGURES_AT_ONCE;
        for (name, key, view) in in_turn(new, self.cursor.take()) {
            let shown = self.networks.get(name).and_then(|object| object.peers.get(key));
            let Some(shown) = shown else { continue };
            let figures = peer::figures(view);
            let changes = shown.figures().difference(&figures);
            if changes.is_empty() {
                continue;
            }
            *shown.figures() = figures;
            self.tell(path_of_peer(name, key), PEER, &changes).await?;
            left -= 1;
            if left == 0 {
                self.cursor = Some((name.clone(), *key));
                return Ok(());
            }
        }
        self.figures_due = false;
        Ok(())
    }

    /// Networks that the old snapshot has as well
    fn known<'a>(
        &'a self,
        new: &'a Snapshot,
    ) -> impl Iterator<Item = (&'a NetworkName, &'a NetworkObject, &'a NetworkView, &'a NetworkView)>
    {
        new.networks.iter().filter_map(|(name, view)| {
            Some((name, self.networks.get(name)?, self.told.networks.get(name)?, view))
        })
    }

    async fn tell(
        &self,
        path: OwnedObjectPath,
        interface: &str,
        changes: &Changes,
    ) -> zbus::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let invalidated: [&str; 0] = [];
        self.bus
            .emit_signal(
                None::<BusName<'_>>,
                path,
                "org.freedesktop.DBus.Properties",
                "PropertiesChanged",
                &(interface, changes, invalidated.as_slice()),
            )
            .await
    }
}

impl<F, G> Shown<F, G> {
    fn new(facts: F, figures: G) -> Arc<Self> {
        Arc::new(Self { facts: Mutex::new(facts), figures: Mutex::new(figures) })
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, F> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> MutexGuard<'_, G> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rounds {
    pub(super) fn new() -> Arc<Self> {
        let (done, _) = watch::channel(0);
        Arc::new(Self { wanted: Notify::new(), begun: AtomicU64::new(0), done })
    }

    /// Waits until all that is so now can be seen on the bus, but not for ever
    pub(super) async fn catch_up(&self) {
        // The round that runs may have looked before; the one after it has not.
        let wanted = self.begun.load(Ordering::Relaxed) + 1;
        let mut done = self.done.subscribe();
        self.wanted.notify_one();
        // The change is made either way: late news are no reason to fail.
        let _ = timeout(CATCH_UP, done.wait_for(|done| *done >= wanted)).await;
    }

    fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn finish(&self, round: u64) {
        self.done.send_replace(round);
    }
}

/// All peers, from the one after `last` on and around
fn in_turn(
    snapshot: &Snapshot,
    last: Option<(NetworkName, PublicKey)>,
) -> impl Iterator<Item = (&NetworkName, &PublicKey, &PeerView)> {
    let all = || {
        let networks = snapshot.networks.iter();
        networks
            .flat_map(|(name, view)| view.peers.iter().map(move |(key, peer)| (name, key, peer)))
    };
    let behind = all().position(|(name, key, _)| {
        last.as_ref().is_none_or(|(last_name, last_key)| (name, key) > (last_name, last_key))
    });
    let start = behind.unwrap_or(0);
    all().skip(start).chain(all().take(start))
}

fn path_of_peer(name: &NetworkName, key: &PublicKey) -> OwnedObjectPath {
    peer_path(name.as_str(), key.as_bytes())
}

/// Least time between two rounds
const PAUSE: Duration = Duration::from_millis(100);
/// Least time between two signals about the figures of one object
const FIGURES_PAUSE: Duration = Duration::from_secs(1);
/// Most peers whose figures are signalled in that time
const FIGURES_AT_ONCE: usize = 500;
/// Longest wait of a method for its effect to be seen
const CATCH_UP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::{NetworkState, PeerLink, Role};

    #[test]
    fn peers_take_turns_after_the_one_that_was_last() {
        let snapshot = snapshot(&[("a", 2), ("b", 1)]);
        let names = |last| {
            in_turn(&snapshot, last)
                .map(|(name, key, _)| (name.to_string(), key.as_bytes()[0]))
                .collect::<Vec<_>>()
        };
        let (a0, a1, b0) = (("a".to_owned(), 0), ("a".to_owned(), 1), ("b".to_owned(), 0));

        assert_eq!(names(None), [a0.clone(), a1.clone(), b0.clone()]);
        assert_eq!(names(Some(id("a", 0))), [a1.clone(), b0.clone(), a0.clone()]);
        assert_eq!(names(Some(id("b", 0))), [a0.clone(), a1.clone(), b0.clone()]);
        assert_eq!(names(Some(id("aa", 7))), [b0, a0, a1]);
    }

    #[tokio::test]
    async fn catching_up_waits_for_a_round_that_begins_later() {
        let rounds = Rounds::new();
        let running = rounds.begin();
        let waiter = Arc::clone(&rounds);
        let mut waiting = tokio::spawn(async move { waiter.catch_up().await });
        rounds.wanted.notified().await;

        rounds.finish(running);
        assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());
        let next = rounds.begin();
        rounds.finish(next);

        assert!(timeout(Duration::from_millis(500), waiting).await.is_ok());
    }

    fn snapshot(networks: &[(&str, u8)]) -> Snapshot {
        let view = |peers: u8| NetworkView {
            role: Role::Peer,
            state: NetworkState::Up,
            detail: String::new(),
            public_key: PublicKey::from_bytes([9; 32]),
            apply: Default::default(),
            interface: String::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            subnets: Vec::new(),
            gateway: None,
            mtu: 1380,
            listen: None,
            buffers: Default::default(),
            hub: None,
            sent: Default::default(),
            received: Default::default(),
            dropped: 0,
            overflowed: 0,
            wire_sent: Default::default(),
            wire_received: Default::default(),
            dns: Default::default(),
            domains: Vec::new(),
            quota: None,
            refusals: BTreeMap::new(),
            peers: (0..peers).map(|byte| (PublicKey::from_bytes([byte; 32]), peer())).collect(),
        };
        let named = |(name, peers): &(&str, u8)| (name.parse().unwrap(), view(*peers));
        Snapshot { networks: networks.iter().map(named).collect() }
    }

    fn peer() -> PeerView {
        PeerView {
            name: String::new(),
            addresses: Vec::new(),
            subnets: Vec::new(),
            state: PeerLink::Idle,
            hub: false,
            path: None,
            tcp: None,
            sent: Default::default(),
            received: Default::default(),
            last_handshake: None,
            last_seen: None,
        }
    }

    fn id(name: &str, key: u8) -> (NetworkName, PublicKey) {
        (name.parse().unwrap(), PublicKey::from_bytes([key; 32]))
    }
}
