//! What systemd-resolved is told: a private bus, and on it a resolved that is a script.

// Helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each suite uses its part of it")]
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastvpnd::system::{Announced, LinkNames, Resolved, ResolvedBus};
use support::bus::PrivateBus;
use support::{run, within};
use tokio::sync::watch;
use zbus::{Connection, DBusError, OwnedObjectPath, fdo, interface};

type Server = (i32, Vec<u8>, u16, String);
type Domain = (String, bool);

/// What a resolved knows of its links, by index
#[derive(Clone, Debug, Default)]
struct Known(Arc<Mutex<BTreeMap<i32, Link>>>);

/// A link as it was set; nothing is as it begins
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Link {
    default_route: Option<bool>,
    servers: Vec<Server>,
    domains: Vec<Domain>,
    plain: Vec<String>,
}

impl Known {
    fn set(&self, index: i32, change: impl FnOnce(&mut Link)) {
        change(self.0.lock().unwrap().entry(index).or_default());
    }

    fn link(&self, index: i32) -> Link {
        self.0.lock().unwrap().get(&index).cloned().unwrap_or_default()
    }
}

struct Manager {
    known: Known,
    /// Whether it takes no servers
    strict: bool,
    /// How often it still says that it sees no such link
    blind: AtomicU32,
}

/// The error of resolved's own for a link that it does not see
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.freedesktop.resolve1")]
enum Unseen {
    NoSuchLink(String),
    #[zbus(error)]
    ZBus(zbus::Error),
}

#[interface(name = "org.freedesktop.resolve1.Manager")]
impl Manager {
    #[zbus(name = "SetLinkDefaultRoute")]
    fn set_link_default_route(&self, index: i32, enable: bool) -> Result<(), Unseen> {
        let less = |blind: u32| blind.checked_sub(1);
        if self.blind.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Err(Unseen::NoSuchLink(format!("Link {index} not known")));
        }
        self.known.set(index, |link| link.default_route = Some(enable));
        Ok(())
    }

    #[zbus(name = "SetLinkDomains")]
    fn set_link_domains(&self, index: i32, domains: Vec<Domain>) {
        self.known.set(index, |link| link.domains = domains);
    }

    #[zbus(name = "SetLinkDNSSEC")]
    fn set_link_dnssec(&self, index: i32, mode: &str) {
        self.known.set(index, |link| link.plain.push(format!("dnssec {mode}")));
    }

    #[zbus(name = "SetLinkDNSOverTLS")]
    fn set_link_dns_over_tls(&self, index: i32, mode: &str) {
        self.known.set(index, |link| link.plain.push(format!("tls {mode}")));
    }

    #[zbus(name = "SetLinkLLMNR")]
    fn set_link_llmnr(&self, index: i32, mode: &str) {
        self.known.set(index, |link| link.plain.push(format!("llmnr {mode}")));
    }

    #[zbus(name = "SetLinkMulticastDNS")]
    fn set_link_multicast_dns(&self, index: i32, mode: &str) {
        self.known.set(index, |link| link.plain.push(format!("mdns {mode}")));
    }

    #[zbus(name = "SetLinkDNSEx")]
    fn set_link_dns_ex(&self, index: i32, servers: Vec<Server>) -> fdo::Result<()> {
        if self.strict {
            return Err(fdo::Error::AccessDenied("not for you".to_owned()));
        }
        self.known.set(index, |link| link.servers = servers);
        Ok(())
    }

    #[zbus(name = "RevertLink")]
    fn revert_link(&self, index: i32) {
        self.known.0.lock().unwrap().remove(&index);
    }

    #[zbus(name = "GetLink")]
    async fn get_link(
        &self,
        index: i32,
        #[zbus(object_server)] server: &zbus::ObjectServer,
    ) -> fdo::Result<OwnedObjectPath> {
        let path = format!("/org/freedesktop/resolve1/link/_{index}");
        server.at(path.as_str(), LinkObject(self.known.clone(), index)).await?;
        OwnedObjectPath::try_from(path).map_err(|error| fdo::Error::Failed(error.to_string()))
    }
}

struct LinkObject(Known, i32);

#[interface(name = "org.freedesktop.resolve1.Link")]
impl LinkObject {
    #[zbus(property, name = "DNSEx")]
    fn servers(&self) -> Vec<Server> {
        self.0.link(self.1).servers
    }

    #[zbus(property, name = "Domains")]
    fn domains(&self) -> Vec<Domain> {
        self.0.link(self.1).domains
    }
}

#[test]
fn link_gets_server_and_domains_and_loses_them_again() {
    run(async {
        let bus = PrivateBus::start();
        let (_resolved, known) = start(&bus, false).await;
        let ours = Resolved::new(ResolvedBus::Address(bus.address()), LONG);

        let mut becomes = ours.announce("fvpn-home", names());
        await_word(&mut becomes, Announced::Done).await;
        assert_eq!(known.link(7), wanted());

        within(5, "the end", ours.revert("fvpn-home")).await;
        assert_eq!(known.link(7), Link::default());
    });
}

#[test]
fn resolved_that_comes_or_restarts_is_told() {
    run(async {
        let bus = PrivateBus::start();
        let ours = Resolved::new(ResolvedBus::Address(bus.address()), LONG);
        let mut becomes = ours.announce("fvpn-home", names());
        await_word(&mut becomes, Announced::Absent).await;

        let (first, known) = start(&bus, false).await;
        await_word(&mut becomes, Announced::Done).await;
        assert_eq!(known.link(7), wanted());

        drop(first);
        await_word(&mut becomes, Announced::Absent).await;
        let (_second, known) = start(&bus, false).await;
        await_word(&mut becomes, Announced::Done).await;
        assert_eq!(known.link(7), wanted());
    });
}

#[test]
fn bus_that_comes_late_or_restarts_is_no_matter() {
    run(async {
        let mut bus = PrivateBus::prepare();
        let ours = Resolved::new(ResolvedBus::Address(bus.address()), LONG);
        let mut becomes = ours.announce("fvpn-home", names());
        await_word(&mut becomes, Announced::Absent).await;
        within(5, "an end without a bus", ours.revert("fvpn-away")).await;

        for _ in 0..2 {
            bus.restart();
            let (_resolved, known) = start(&bus, false).await;
            await_word(&mut becomes, Announced::Done).await;
            assert_eq!(known.link(7), wanted());
            bus.stop();
            await_word(&mut becomes, Announced::Absent).await;
        }
    });
}

#[test]
fn refusal_is_told_and_leaves_nothing_behind() {
    run(async {
        let bus = PrivateBus::start();
        let (_resolved, known) = start(&bus, true).await;
        let ours = Resolved::new(ResolvedBus::Address(bus.address()), LONG);

        let mut becomes = ours.announce("fvpn-home", names());

        await_word(&mut becomes, Announced::Refused("SetLinkDNSEx: not for you".to_owned())).await;
        within(5, "the end", ours.revert("fvpn-home")).await;
        assert_eq!(known.link(7), Link::default());
    });
}

#[test]
fn link_that_resolved_does_not_see_yet_is_no_refusal() {
    run(async {
        let bus = PrivateBus::start();
        let (_resolved, known) = start_blind(&bus, 3).await;
        let ours = Resolved::new(ResolvedBus::Address(bus.address()), LONG);

        let mut becomes = ours.announce("fvpn-home", names());

        let settled = |seen: &Announced| matches!(seen, Announced::Done | Announced::Refused(_));
        let seen = within(15, "an end", becomes.wait_for(settled)).await.unwrap().clone();
        assert_eq!(seen, Announced::Done);
        assert_eq!(known.link(7), wanted());
    });
}

#[test]
fn what_somebody_else_changes_is_repaired() {
    run(async {
        let bus = PrivateBus::start();
        let (_resolved, known) = start(&bus, false).await;
        let ours = Resolved::new(ResolvedBus::Address(bus.address()), Duration::from_millis(50));
        let mut becomes = ours.announce("fvpn-home", names());
        await_word(&mut becomes, Announced::Done).await;

        known.set(7, |link| *link = Link::default());

        let repaired = async {
            while known.link(7) != wanted() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(5, "the repair", repaired).await;
        // What is as it should be is not told again and again.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(known.link(7), wanted());
    });
}

/// Starts a resolved that knows nothing yet
async fn start(bus: &PrivateBus, strict: bool) -> (Connection, Known) {
    start_with(bus, strict, 0).await
}

/// Starts a resolved that says so many times that it sees no such link
async fn start_blind(bus: &PrivateBus, blind: u32) -> (Connection, Known) {
    start_with(bus, false, blind).await
}

async fn start_with(bus: &PrivateBus, strict: bool, blind: u32) -> (Connection, Known) {
    let known = Known::default();
    let manager = Manager { known: known.clone(), strict, blind: AtomicU32::new(blind) };
    let builder = fastvpn_dbus::Bus::Address(bus.address()).builder();
    let builder = builder.serve_at("/org/freedesktop/resolve1", manager);
    let connection = builder.name("org.freedesktop.resolve1").build().await.unwrap();
    (connection, known)
}

async fn await_word(becomes: &mut watch::Receiver<Announced>, word: Announced) {
    let what = format!("{word:?}");
    let seen = within(15, &what, becomes.wait_for(|seen| *seen == word)).await;
    seen.unwrap();
}

fn names() -> LinkNames {
    LinkNames {
        index: 7,
        server: "10.9.0.2:5353".parse().unwrap(),
        domains: vec!["home.fastvpn".to_owned(), "0.9.10.in-addr.arpa".to_owned()],
    }
}

fn wanted() -> Link {
    Link {
        default_route: Some(false),
        servers: vec![(2, vec![10, 9, 0, 2], 5353, String::new())],
        domains: vec![("home.fastvpn".to_owned(), true), ("0.9.10.in-addr.arpa".to_owned(), true)],
        plain: ["dnssec no", "tls no", "llmnr no", "mdns no"].map(str::to_owned).to_vec(),
    }
}

/// Longer than any test
const LONG: Duration = Duration::from_secs(600);
