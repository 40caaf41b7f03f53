//! The system's side of a network's names: who answers for them, and who is told.
//!
//! A [`Naming`] belongs to the task of one network's interface. It starts to answer when the
//! interface is there, has systemd-resolved told, and says what became of that. Whatever goes wrong
//! with names, the network goes on without them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastvpn_proto::ip::Prefix;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::action::News;
use super::state::Input;
use super::work::{Context, chain};
use crate::dns::{Host, Known, Resolver, Suffix, Zone};
use crate::handle::{DnsState, DnsView, NetworkName};
use crate::system::{Announce, Announced, DnsPlan, InterfacePlan, LinkNames, Resolved};

/// Time for systemd-resolved to forget an interface
const REVERT_LIMIT: Duration = Duration::from_secs(2);

/// Names of one network, as far as they are served
#[derive(Debug)]
pub(super) struct Naming {
    network: NetworkName,
    inputs: mpsc::Sender<Input>,
    /// Nothing where there is no bus to tell it on
    resolved: Option<Resolved>,
    hosts: Arc<[Host]>,
    /// Version of the zone
    serial: u32,
    served: Option<Served>,
}

/// What is served for an interface that is there
#[derive(Debug)]
struct Served {
    plan: InterfacePlan,
    index: u32,
    resolver: Option<Resolver>,
    /// Whoever passes on what becomes of the announcement
    teller: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(teller) = &self.teller {
            teller.abort();
        }
    }
}

impl Naming {
    /// Makes the names of a network of which nothing is served
    pub(super) fn new(network: NetworkName, context: &Context) -> Self {
        Self {
            network,
            inputs: context.inputs.clone(),
            resolved: context.resolved.clone(),
            hosts: Arc::from([]),
            serial: 0,
            served: None,
        }
    }

    /// Takes the nodes that have names from now on
    pub(super) fn on_hosts(&mut self, hosts: Arc<[Host]>) {
        self.hosts = hosts;
        self.serial = self.serial.wrapping_add(1);
        if let Some(Served { plan, resolver: Some(resolver), .. }) = &self.served
            && let Some(dns) = &plan.dns
        {
            resolver.update(self.known(plan, dns));
        }
    }

    /// Serves names as the plan says, which is in force on the interface with this index
    pub(super) async fn on_applied(&mut self, life: u64, index: u32, plan: &InterfacePlan) {
        let as_before = |served: &Served| served.index == index && served.plan == *plan;
        if self.served.as_ref().is_some_and(as_before) {
            return;
        }
        let before = self.served.take();
        let Some(dns) = &plan.dns else {
            self.forget(before).await;
            self.tell(life, DnsView::default()).await;
            return;
        };
        self.serial = self.serial.wrapping_add(1);
        let mut resolver = before.and_then(|mut before| before.resolver.take());
        match &resolver {
            Some(resolver) if resolver.local().ip() == dns.server => {
                resolver.update(self.known(plan, dns));
            }
            Some(_) | None => {
                resolver = None;
                match Resolver::bind(dns.server, self.known(plan, dns)) {
                    Ok(bound) => resolver = Some(bound),
                    Err(error) => {
                        let reason = chain(&error);
                        warn!(network = %self.network, reason, "names cannot be answered");
                        // Nobody is to ask where nobody answers any more.
                        self.revert(&plan.interface).await;
                        let detail = format!("cannot answer on {}: {reason}", dns.server);
                        let view = DnsView { detail, ..view(dns, None, DnsState::Failed) };
                        self.tell(life, view).await;
                    }
                }
            }
        }
        let local = resolver.as_ref().map(Resolver::local);
        let teller = match local {
            Some(local) => self.announce(life, index, plan, dns, local).await,
            None => None,
        };
        self.served = Some(Served { plan: plan.clone(), index, resolver, teller });
    }

    /// Serves no names any more
    pub(super) async fn stop(&mut self) {
        let served = self.served.take();
        self.forget(served).await;
        self.hosts = Arc::from([]);
    }

    /// Has whoever is to be told be told; returns who passes on what becomes of that
    async fn announce(
        &self,
        life: u64,
        index: u32,
        plan: &InterfacePlan,
        dns: &DnsPlan,
        local: SocketAddr,
    ) -> Option<JoinHandle<()>> {
        info!(network = %self.network, suffix = dns.suffix, server = %local, "answering for names");
        let told = match dns.announce {
            Announce::Caller => Err(DnsState::Caller),
            Announce::Resolved => self.resolved.as_ref().ok_or(DnsState::Unannounced),
        };
        let resolved = match told {
            Ok(resolved) => resolved,
            Err(state) => {
                self.tell(life, view(dns, Some(local), state)).await;
                return None;
            }
        };
        let names = LinkNames { index, server: local, domains: dns.domains() };
        let becomes = resolved.announce(&plan.interface, names);
        let (network, inputs) = (self.network.clone(), self.inputs.clone());
        let base = view(dns, Some(local), DnsState::Pending);
        Some(tokio::spawn(follow(network, life, base, becomes, inputs)))
    }

    async fn forget(&self, served: Option<Served>) {
        let Some(served) = served else { return };
        if served.teller.is_some() {
            self.revert(&served.plan.interface).await;
        }
    }

    async fn revert(&self, interface: &str) {
        let Some(resolved) = &self.resolved else { return };
        if timeout(REVERT_LIMIT, resolved.revert(interface)).await.is_err() {
            warn!(network = %self.network, "systemd-resolved does not answer");
        }
    }

    fn known(&self, plan: &InterfacePlan, dns: &DnsPlan) -> Known {
        // The plan has it from a suffix.
        let suffix: Suffix =
            dns.suffix.parse().unwrap_or_else(|_| Suffix::of_network(self.network.as_str()));
        let zone = Zone::new(&suffix, &plan.addresses, dns.server, &self.hosts, self.serial);
        let own = plan.addresses.iter().map(Prefix::addr).collect();
        let guests = plan.addresses.iter().chain(&plan.routes).map(Prefix::network).collect();
        Known { zone, own, guests }
    }

    async fn tell(&self, life: u64, view: DnsView) {
        let news = News::Naming(view);
        // The receiver lives as long as the daemon does.
        let _ = self.inputs.send(Input::Network(self.network.clone(), life, news)).await;
    }
}

/// Passes on what becomes of an announcement
async fn follow(
    network: NetworkName,
    life: u64,
    base: DnsView,
    mut becomes: watch::Receiver<Announced>,
    inputs: mpsc::Sender<Input>,
) {
    loop {
        let (state, detail) = match becomes.borrow_and_update().clone() {
            Announced::Absent => (DnsState::Unannounced, String::new()),
            Announced::Done => (DnsState::Announced, String::new()),
            Announced::Pending => (DnsState::Pending, String::new()),
            Announced::Refused(reason) => {
                (DnsState::Refused, format!("systemd-resolved refused: {reason}"))
            }
        };
        let news = News::Naming(DnsView { state, detail, ..base.clone() });
        if inputs.send(Input::Network(network.clone(), life, news)).await.is_err()
            || becomes.changed().await.is_err()
        {
            return;
        }
    }
}

fn view(dns: &DnsPlan, server: Option<SocketAddr>, state: DnsState) -> DnsView {
    DnsView { suffix: dns.suffix.clone(), server, state, detail: String::new() }
}
