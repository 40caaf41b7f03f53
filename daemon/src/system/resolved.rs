//! Tells systemd-resolved, over the system bus, which names to ask us for.
//!
//! A [`Resolved`] keeps what it was told for each interface in force: it tells resolved again when
//! that has restarted, and looks now and then whether somebody else told it something else.
//!
//! # Contract
//!
//! - Only the interface's own settings are touched, and only by a resolved that runs: none is started.
//! - A refusal changes nothing else: it is reported, and tried again with each look.
//! - An interface that resolved has not seen yet, or no longer sees, is no refusal: it is tried again soon,
//!   and nobody is alarmed.
//!
//! # Not here
//!
//! Whether we may is up to polkit; `dbus/org.fastvpn.rules` says so to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tracing::{debug, info, warn};
use zbus::fdo::DBusProxy;
use zbus::names::UniqueName;
use zbus::zvariant::DynamicType;
use zbus::{Connection, DBusError, Message, OwnedObjectPath, OwnedVariant};

/// The message bus on which resolved is to be found
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ResolvedBus {
    /// The bus at a D-Bus address
    Address(String),
    /// The system bus
    System,
}

/// What resolved is to know of one interface
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkNames {
    /// The interface's index
    pub index: u32,
    /// Where names are answered
    pub server: SocketAddr,
    /// Which domains are asked there, and nowhere else
    pub domains: Vec<String>,
}

/// What became of an announcement
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Announced {
    /// There is no resolved to be told
    Absent,
    /// resolved asks us
    Done,
    /// It is being told
    #[default]
    Pending,
    /// resolved does not take it; why
    Refused(String),
}

/// Cloneable way to resolved
#[derive(Clone, Debug)]
pub struct Resolved {
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    Announce(String, LinkNames, watch::Sender<Announced>),
    Revert(String, oneshot::Sender<()>),
}

impl Resolved {
    /// Starts a task of the current tokio runtime that ends when the last clone is dropped
    ///
    /// The bus is connected to when there is something to announce; each `look`, what resolved knows is
    /// compared with that.
    pub fn new(bus: ResolvedBus, look: Duration) -> Self {
        let (orders, queue) = mpsc::unbounded_channel();
        tokio::spawn(Keeper { bus, look, orders: queue, links: BTreeMap::new() }.run());
        Self { orders }
    }

    /// Has resolved know this of an interface, until [`Self::revert`]
    pub fn announce(&self, interface: &str, names: LinkNames) -> watch::Receiver<Announced> {
        let (told, becomes) = watch::channel(Announced::default());
        // The task lives as long as its runtime.
        let _ = self.orders.send(Order::Announce(interface.to_owned(), names, told));
        becomes
    }

    /// Has resolved forget what it was told of an interface; returns when that is done
    pub async fn revert(&self, interface: &str) {
        let (done, is_done) = oneshot::channel();
        if self.orders.send(Order::Revert(interface.to_owned(), done)).is_ok() {
            let _ = is_done.await;
        }
    }
}

/// An interface that was announced
#[derive(Debug)]
struct Link {
    names: LinkNames,
    told: watch::Sender<Announced>,
}

impl Link {
    /// Tells whether resolved has to be told again soon
    fn unseen(&self) -> bool {
        *self.told.borrow() == Announced::Pending
    }

    fn tell(&self, announced: Announced) {
        self.told.send_if_modified(|told| {
            let differs = *told != announced;
            *told = announced;
            differs
        });
    }
}

/// Keeps announcements in force
#[derive(Debug)]
struct Keeper {
    bus: ResolvedBus,
    look: Duration,
    orders: mpsc::UnboundedReceiver<Order>,
    links: BTreeMap<String, Link>,
}

/// Why a conversation over the bus is over
#[derive(Debug)]
enum Over {
    /// Nobody wants anything any more
    Ended,
    /// The bus is gone
    Lost,
}

impl Keeper {
    async fn run(mut self) {
        let mut wait = RETRY_MIN;
        loop {
            // Without a link there is nothing to say.
            while self.links.is_empty() {
                let Some(order) = self.orders.recv().await else { return };
                self.take(order, None).await;
            }
            match self.connect().await {
                Ok(Over::Ended) => return,
                Ok(Over::Lost) => {
                    debug!("lost the bus on which systemd-resolved is told of names");
                    wait = RETRY_MIN;
                }
                Err(error) => debug!(%error, "no bus on which systemd-resolved could be told"),
            }
            self.tell_all(&Announced::Absent);
            if !self.rest(wait).await {
                return;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Waits before the next attempt, taking orders; false when nobody gives any more
    async fn rest(&mut self, wait: Duration) -> bool {
        let mut rest = std::pin::pin!(sleep(wait));
        loop {
            tokio::select! {
                () = &mut rest => return true,
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order, None).await,
                    None => return false,
                },
            }
        }
    }

    async fn connect(&mut self) -> zbus::Result<Over> {
        let builder = match &self.bus {
            ResolvedBus::Address(address) => zbus::connection::Builder::address(address.as_str()),
            ResolvedBus::System => zbus::connection::Builder::system(),
        };
        let silent = |_| zbus::Error::Failure("the bus does not answer".to_owned());
        let bus = timeout(PATIENCE, builder.build()).await.map_err(silent)??;
        let dbus = DBusProxy::new(&bus).await?;
        let mut changes = dbus.receive_name_owner_changed_with_args(&[(0, NAME)]).await?;
        let owner = dbus.get_name_owner(NAME.try_into()?).await.ok();
        let mut peer = owner.map(|owner| Peer { bus: bus.clone(), owner: owner.into() });
        self.announce_all(peer.as_ref()).await;
        let mut looks = interval_at(Instant::now() + self.look, self.look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let unseen = self.links.values().any(|link| link.unseen());
            tokio::select! {
                () = bus.closed() => return Ok(Over::Lost),
                () = sleep(UNSEEN_RETRY), if unseen => if let Some(peer) = &peer {
                    self.announce_unseen(peer).await;
                },
                change = changes.next() => {
                    let Some(change) = change else { return Ok(Over::Lost) };
                    let owner = change.args()?.new_owner().as_ref().map(UniqueName::to_owned);
                    peer = owner.map(|owner| Peer { bus: bus.clone(), owner });
                    self.announce_all(peer.as_ref()).await;
                }
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order, peer.as_ref()).await,
                    None => return Ok(Over::Ended),
                },
                _ = looks.tick() => if let Some(peer) = &peer {
                    self.look(peer).await;
                },
            }
        }
    }

    async fn take(&mut self, order: Order, peer: Option<&Peer>) {
        match order {
            Order::Announce(interface, names, told) => {
                let link = Link { names, told };
                announce(&interface, &link, peer).await;
                self.links.insert(interface, link);
            }
            Order::Revert(interface, done) => {
                if let (Some(link), Some(peer)) = (self.links.remove(&interface), peer)
                    && let Err(Denial::Said(error)) = peer.revert(link.names.index).await
                {
                    debug!(interface, error, "systemd-resolved does not forget the interface");
                }
                // Who asked may have lost patience.
                let _ = done.send(());
            }
        }
    }

    fn tell_all(&self, announced: &Announced) {
        for link in self.links.values() {
            link.tell(announced.clone());
        }
    }

    async fn announce_unseen(&self, peer: &Peer) {
        for (interface, link) in self.links.iter().filter(|(_, link)| link.unseen()) {
            announce(interface, link, Some(peer)).await;
        }
    }

    async fn announce_all(&self, peer: Option<&Peer>) {
        for (interface, link) in &self.links {
            announce(interface, link, peer).await;
        }
    }

    /// Repairs what somebody else changed, and tries again what was refused
    async fn look(&self, peer: &Peer) {
        for (interface, link) in &self.links {
            let done = *link.told.borrow() == Announced::Done;
            let knows = if done { peer.has(&link.names).await } else { None };
            if knows == Some(true) {
                continue;
            }
            if knows == Some(false) {
                warn!(interface, "systemd-resolved was told something else; telling it again");
            }
            announce(interface, link, Some(peer)).await;
        }
    }
}

async fn announce(interface: &str, link: &Link, peer: Option<&Peer>) {
    let Some(peer) = peer else { return link.tell(Announced::Absent) };
    match peer.announce(&link.names).await {
        Ok(()) => {
            info!(interface, server = %link.names.server, "systemd-resolved asks us for names");
            link.tell(Announced::Done);
        }
        Err(Denial::Unseen) => {
            debug!(interface, "systemd-resolved does not see the interface");
            link.tell(Announced::Pending);
        }
        Err(Denial::Said(reason)) => {
            let refused = Announced::Refused(reason.clone());
            if *link.told.borrow() != refused {
                warn!(interface, reason, "systemd-resolved does not ask us for names");
            }
            link.tell(refused);
            // Half of it could lead questions astray.
            let _ = peer.revert(link.names.index).await;
        }
    }
}

/// Why resolved does not do what it was told
#[derive(Debug)]
enum Denial {
    /// With a sentence
    Said(String),
    /// It sees no such interface: not yet, or no longer
    Unseen,
}

/// The resolved that runs
#[derive(Debug)]
struct Peer {
    bus: Connection,
    /// By its unique name it is never started
    owner: UniqueName<'static>,
}

impl Peer {
    /// Says first what keeps questions away, then who is to be asked
    async fn announce(&self, names: &LinkNames) -> Result<(), Denial> {
        let index = index(names.index)?;
        self.call("SetLinkDefaultRoute", &(index, false)).await?;
        self.call("SetLinkDomains", &(index, domains(names))).await?;
        // Our names are signed by nobody and answered without TLS, whatever holds for others; and
        // nobody would hear a question to all.
        for method in ["SetLinkDNSSEC", "SetLinkDNSOverTLS", "SetLinkLLMNR", "SetLinkMulticastDNS"]
        {
            if let Err(Denial::Said(error)) = self.call(method, &(index, "no")).await {
                debug!(error, "the system's setting holds for our names as well");
            }
        }
        self.call("SetLinkDNSEx", &(index, servers(names))).await?;
        Ok(())
    }

    async fn revert(&self, link: u32) -> Result<(), Denial> {
        self.call("RevertLink", &index(link)?).await.map(|_| ())
    }

    /// Tells whether resolved still knows what it was told; nothing where it does not see the interface
    async fn has(&self, names: &LinkNames) -> Option<bool> {
        let link = match self.call("GetLink", &index(names.index).ok()?).await {
            Ok(link) => link,
            Err(Denial::Unseen) => return None,
            Err(Denial::Said(_)) => return Some(false),
        };
        let Ok(path) = link.body().deserialize::<OwnedObjectPath>() else { return Some(false) };
        let told: Option<Vec<Server>> = self.property(&path, "DNSEx").await;
        let about: Option<Vec<(String, bool)>> = self.property(&path, "Domains").await;
        Some(told == Some(servers(names)) && about == Some(domains(names)))
    }

    async fn property<T: TryFrom<OwnedVariant>>(
        &self,
        path: &OwnedObjectPath,
        name: &str,
    ) -> Option<T> {
        let body = (LINK, name);
        let asked = self.bus.call_method(Some(&self.owner), path, Some(PROPERTIES), "Get", &body);
        let answer = timeout(PATIENCE, asked).await.ok()?.ok()?;
        answer.body().deserialize::<OwnedVariant>().ok()?.try_into().ok()
    }

    async fn call<B>(&self, method: &str, body: &B) -> Result<Message, Denial>
    where
        B: Serialize + DynamicType,
    {
        let asked = self.bus.call_method(Some(&self.owner), PATH, Some(MANAGER), method, body);
        match timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(zbus::Error::MethodError(name, ..))) if name == NO_LINK => Err(Denial::Unseen),
            Ok(Err(error)) => Err(Denial::Said(format!("{method}: {}", sentence(&error)))),
            Err(_) => Err(Denial::Said(format!("{method}: no answer"))),
        }
    }
}

/// What resolved itself says, without what surrounds it
fn sentence(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, text, _) => match text {
            Some(text) if !text.is_empty() => text.clone(),
            Some(_) | None => name.to_string(),
        },
        zbus::Error::FDO(error) => match error.description() {
            Some(text) if !text.is_empty() => text.to_owned(),
            Some(_) | None => error.name().to_string(),
        },
        other => other.to_string(),
    }
}

/// A server as resolved has it: family, address, port, name for TLS
type Server = (i32, Vec<u8>, u16, String);

fn servers(names: &LinkNames) -> Vec<Server> {
    let port = names.server.port();
    vec![match names.server.ip() {
        IpAddr::V4(addr) => (libc::AF_INET, addr.octets().to_vec(), port, String::new()),
        IpAddr::V6(addr) => (libc::AF_INET6, addr.octets().to_vec(), port, String::new()),
    }]
}

/// Each with the word that it is no domain to search single names in
fn domains(names: &LinkNames) -> Vec<(String, bool)> {
    names.domains.iter().map(|domain| (domain.clone(), true)).collect()
}

fn index(index: u32) -> Result<i32, Denial> {
    let no_index = |_| Denial::Said(format!("{index} is no index of an interface"));
    i32::try_from(index).map_err(no_index)
}

const NAME: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const LINK: &str = "org.freedesktop.resolve1.Link";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// What resolved calls it when it sees no such interface
const NO_LINK: &str = "org.freedesktop.resolve1.NoSuchLink";
/// How long resolved, or the bus, may take to answer
const PATIENCE: Duration = Duration::from_secs(5);
/// Wait before resolved is told again of an interface that it did not see
const UNSEEN_RETRY: Duration = Duration::from_millis(300);
/// Waits between attempts to reach the bus
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
