//! Tells when the system changed under us.
//!
//! What netlink tells of each change is only taken as a reason to look: after the first change a
//! moment is waited for those that belong to it, then all is looked at and compared with what was
//! there before, and with the plans in force. So nothing is lost when messages are, changes of our
//! own are no changes (they lead to what was planned), and what changes back at once is none either.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::netlink::{Fate, Netlink, SystemError};
use super::plan::Step;
use super::view::{self, Maker, Picture, Underlay};

/// Something that changed, and not by us
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SystemChange {
    /// Links, addresses or default routes that paths to other nodes depend on
    AddressesChanged,
    /// Addresses, routes, MTU or state of this interface of ours; apply its plan again
    Drift(String),
    /// This interface of ours is not there any more
    InterfaceGone(String),
}

/// Starts to watch the system; ends when the receiver is dropped
///
/// Interfaces are judged by the plans that `netlink` has applied and not undone.
///
/// # Errors
/// If the system gives no netlink socket.
pub fn monitor(netlink: &Netlink) -> Result<mpsc::Receiver<SystemChange>, SystemError> {
    let (changes, receiver) = mpsc::channel(CHANGES);
    let news = News::subscribe()?;
    tokio::spawn(Monitor::new(netlink.clone(), changes).watch(news));
    Ok(receiver)
}

/// What was seen and told so far
struct Monitor {
    netlink: Netlink,
    changes: mpsc::Sender<SystemChange>,
    /// Nothing before the first look
    underlay: Option<Underlay>,
    /// Interfaces of ours, by index
    ours: BTreeSet<u32>,
    told: BTreeMap<String, Told>,
}

/// What was told of an interface, so that it is not told twice
#[derive(Clone, Debug, Eq, PartialEq)]
enum Told {
    Gone,
    Drifted(u64, Vec<Step>),
}

impl Monitor {
    fn new(netlink: Netlink, changes: mpsc::Sender<SystemChange>) -> Self {
        Self { netlink, changes, underlay: None, ours: BTreeSet::new(), told: BTreeMap::new() }
    }

    async fn watch(mut self, mut news: News) {
        let changes = self.changes.clone();
        tokio::select! {
            () = self.go_on(&mut news) => {}
            () = changes.closed() => {}
        }
    }

    async fn go_on(&mut self, news: &mut News) {
        loop {
            self.look().await;
            if !self.wait(news).await {
                *news = again().await;
            }
        }
    }

    /// Waits for a reason to look, and a moment longer; returns whether there will be more
    async fn wait(&self, news: &mut News) -> bool {
        loop {
            let Some(message) = news.next().await else { return false };
            if self.matters(&message) {
                break;
            }
        }
        let end = Instant::now() + MOMENT;
        while let Ok(more) = timeout_at(end, news.next()).await {
            if more.is_none() {
                return false;
            }
        }
        true
    }

    /// Tells whether a message is a reason to look
    fn matters(&self, message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
        match &message.payload {
            NetlinkPayload::InnerMessage(inner) => match inner {
                // Ports of bridges are told of in the same group.
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                    link.header.interface_family == AddressFamily::Unspec
                }
                RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => true,
                RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                    self.route_matters(route)
                }
                _ => false,
            },
            NetlinkPayload::Overrun(_) => true,
            _ => false,
        }
    }

    /// Tells whether a route is a default route or ours; others may change a thousand times a second
    fn route_matters(&self, message: &RouteMessage) -> bool {
        view::route(message).is_some_and(|route| {
            view::is_default(&route.to)
                || route.maker == Maker::Ours
                || route.through.iter().any(|index| self.ours.contains(index))
        })
    }

    /// Looks at everything and tells what is new
    async fn look(&mut self) {
        let (fates, picture) = loop {
            match self.netlink.review().await {
                Ok(seen) => break seen,
                Err(error) => warn!(%error, "cannot look at the system"),
            }
            sleep(PAUSE).await;
        };
        for change in self.compare(fates, &picture) {
            debug!(?change, "the system changed");
            // That nobody listens ends the task elsewhere.
            let _ = self.changes.send(change).await;
        }
    }

    /// Returns what is new since the last time
    fn compare(&mut self, fates: BTreeMap<String, Fate>, picture: &Picture) -> Vec<SystemChange> {
        let mut news = Vec::new();
        let underlay = picture.underlay();
        if self.underlay.as_ref().is_some_and(|before| *before != underlay) {
            news.push(SystemChange::AddressesChanged);
        }
        self.underlay = Some(underlay);
        self.ours = fates.keys().filter_map(|name| picture.link(name)).map(|l| l.index).collect();
        self.told.retain(|name, _| fates.contains_key(name));
        for (name, fate) in fates {
            let (told, change) = match fate {
                Fate::Fine => {
                    self.told.remove(&name);
                    continue;
                }
                Fate::Gone => (Told::Gone, SystemChange::InterfaceGone(name.clone())),
                Fate::Drifted(times, steps) => {
                    (Told::Drifted(times, steps), SystemChange::Drift(name.clone()))
                }
            };
            if self.told.insert(name, told.clone()).as_ref() != Some(&told) {
                news.push(change);
            }
        }
        news
    }
}

/// What netlink tells of changes
struct News {
    messages: std::pin::Pin<
        Box<dyn futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send>,
    >,
    connection: JoinHandle<()>,
}

impl News {
    fn subscribe() -> Result<Self, SystemError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(SystemError::Netlink)?;
        Ok(Self {
            messages: Box::pin(messages.map(|(message, _)| message)),
            connection: tokio::spawn(connection),
        })
    }

    async fn next(&mut self) -> Option<NetlinkMessage<RouteNetlinkMessage>> {
        self.messages.next().await
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Subscribes anew after the connection broke, as often as it takes
async fn again() -> News {
    loop {
        sleep(PAUSE).await;
        match News::subscribe() {
            Ok(news) => return news,
            Err(error) => warn!(%error, "cannot watch the system"),
        }
    }
}

/// How long changes are gathered that belong to one another
const MOMENT: Duration = Duration::from_millis(20);
/// How long nothing is tried after something failed
const PAUSE: Duration = Duration::from_secs(1);
/// Changes that may wait for the control side
const CHANGES: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::InterfacePlan;
    use super::*;

    #[tokio::test]
    async fn first_look_tells_nothing_and_a_second_only_what_differs() {
        let mut monitor = monitor().await;
        let mut picture = Picture::default();
        picture.links.push(view::Link { index: 2, up: true, ..view::Link::default() });

        assert_eq!(monitor.compare(BTreeMap::new(), &picture), []);
        assert_eq!(monitor.compare(BTreeMap::new(), &picture), []);
        picture.links.clear();
        assert_eq!(monitor.compare(BTreeMap::new(), &picture), [SystemChange::AddressesChanged]);
    }

    #[tokio::test]
    async fn drift_is_told_once_until_the_plan_is_applied_again() {
        let mut monitor = monitor().await;
        let picture = Picture::default();
        let drifted = |times| fate(Fate::Drifted(times, vec![Step::Up]));
        let drift = [SystemChange::Drift("fvpn-home".into())];

        assert_eq!(monitor.compare(drifted(1), &picture), drift);
        assert_eq!(monitor.compare(drifted(1), &picture), []);
        assert_eq!(monitor.compare(drifted(2), &picture), drift, "it did not last");
        assert_eq!(monitor.compare(fate(Fate::Fine), &picture), []);
        assert_eq!(monitor.compare(drifted(2), &picture), drift);
    }

    #[tokio::test]
    async fn lost_interface_is_told_once_and_forgotten_with_its_plan() {
        let mut monitor = monitor().await;
        let picture = Picture::default();
        let gone = [SystemChange::InterfaceGone("fvpn-home".into())];

        assert_eq!(monitor.compare(fate(Fate::Gone), &picture), gone);
        assert_eq!(monitor.compare(fate(Fate::Gone), &picture), []);
        assert_eq!(monitor.compare(BTreeMap::new(), &picture), []);
        assert_eq!(monitor.compare(fate(Fate::Gone), &picture), gone);
    }

    async fn monitor() -> Monitor {
        Monitor::new(Netlink::new().await.unwrap(), mpsc::channel(1).0)
    }

    fn fate(fate: Fate) -> BTreeMap<String, Fate> {
        let plan = InterfacePlan { interface: "fvpn-home".into(), ..InterfacePlan::default() };
        BTreeMap::from([(plan.interface, fate)])
    }
}
