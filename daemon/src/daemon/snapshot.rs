//! What the world may see of the control machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use fastvpn_proto::control::Entry;
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{NodeStats, PathStats, PeerState, PeerStats, Traffic};
use fastvpn_proto::time::{Duration, Instant};

use super::network::{Network, Role as Running};
use crate::config::RoleConfig;
use crate::handle::{
    BuffersView, Counted, HubView, NetworkState, NetworkView, PathView, PeerLink, PeerView, Role,
    SpentView,
};
use crate::plane::Buffers;
use crate::system::DnsPlan;

/// Name under which a peer knows its hub
pub(super) const HUB_NAME: &str = "hub";

/// Returns what may be seen of a network; `zero` is the wall clock at the zero of all instants
pub(super) fn network_view(network: &Network, zero: SystemTime) -> NetworkView {
    let config = &network.config;
    let stats = &network.stats;
    let done = network.interface.done();
    NetworkView {
        role: match &config.role {
            RoleConfig::Hub(_) => Role::Hub,
            RoleConfig::Peer(_) => Role::Peer,
        },
        state: network.state(),
        detail: detail(network),
        public_key: network.own,
        apply: network.apply.clone(),
        interface: done.map(|plan| plan.interface.clone()).unwrap_or_default(),
        addresses: done.map_or_else(|| config.addresses.clone(), |plan| plan.addresses.clone()),
        routes: done.map(|plan| plan.routes.clone()).unwrap_or_default(),
        subnets: match &network.role {
            Some(Running::Peer(peer)) => peer.own_subnets().iter().map(Prefix::network).collect(),
            Some(Running::Hub(_)) | None => Vec::new(),
        },
        gateway: match &network.role {
            Some(Running::Peer(peer)) => peer.hub_seen(),
            Some(Running::Hub(_)) | None => None,
        },
        mtu: done.map_or(config.mtu, |plan| plan.mtu),
        listen: network.listening.map(|listening| listening.addr),
        buffers: network.listening.map(|listening| buffers(listening.buffers)).unwrap_or_default(),
        hub: hub_view(network),
        sent: counted(stats.packets_sent),
        received: counted(stats.packets_received),
        dropped: stats.dropped,
        overflowed: network.overflowed,
        wire_sent: counted(stats.sent),
        wire_received: counted(stats.received),
        dns: network.naming.clone(),
        domains: done.and_then(|plan| plan.dns.as_ref()).map(DnsPlan::domains).unwrap_or_default(),
        quota: network.tuning.budget.view(),
        refusals: stats.refusals.iter().map(|(refusal, count)| (refusal.name(), count)).collect(),
        peers: peer_views(network, zero),
    }
}

fn buffers(granted: Buffers) -> BuffersView {
    BuffersView { receive: granted.receive, send: granted.send }
}

/// Returns a sentence on why a network is in its state; empty where all is well
pub(super) fn detail(network: &Network) -> String {
    match (&network.trouble, &network.role) {
        (Some(trouble), _) => trouble.to_string(),
        (None, Some(Running::Peer(peer))) if !peer.detail().is_empty() => peer.detail().to_owned(),
        (None, Some(Running::Peer(_) | Running::Hub(_))) => network.tuning.budget.detail(),
        (None, None) => String::new(),
    }
}

/// Finds a node that is alive by name, key or overlay address
pub(super) fn find(network: &Network, text: &str) -> Option<PublicKey> {
    let key = text.parse().ok();
    let address: Option<IpAddr> = text.parse().ok();
    let is_it = |entry: &&Entry| {
        Some(entry.key) == key
            || entry.name == text
            || address.is_some_and(|address| entry.addresses.contains(&address))
    };
    match network.role.as_ref()? {
        Running::Hub(hub) => {
            hub.members().filter_map(|(_, entry)| entry).find(is_it).map(|entry| entry.key)
        }
        Running::Peer(peer) => {
            let hub = peer.hub().public_key;
            let is_hub = text == HUB_NAME
                || key == Some(hub)
                || address.is_some_and(|address| peer.hub_overlay().contains(&address));
            if is_hub { Some(hub) } else { peer.peers().find(is_it).map(|entry| entry.key) }
        }
    }
}

/// Returns what may be seen of a path
pub(super) fn path_view(path: &PathStats) -> PathView {
    PathView {
        way: path.way,
        rtt: path.rtt,
        rtt_min: path.rtt_min,
        loss: f64::from(path.loss_ppm) / 1_000_000.0,
        mtu: path.mtu,
        rate: path.rate,
        queue_delay: path.queue_delay,
        own_loss: f64::from(path.own_loss_ppm) / 1_000_000.0,
        offload: path.offload,
        sent: counted(path.sent),
        lost: path.lost,
        congested: path.congested,
        spent: SpentView {
            fresh: counted(path.spent.fresh),
            repeats: counted(path.spent.repeats),
            copies: counted(path.spent.copies),
        },
    }
}

fn hub_view(network: &Network) -> Option<HubView> {
    let RoleConfig::Peer(config) = &network.config.role else { return None };
    let (hub, alive) = match &network.role {
        Some(Running::Peer(peer)) => {
            let registered = peer.is_registered() && !peer.has_lost_hub();
            (peer.hub(), registered || peer.is_pending())
        }
        Some(Running::Hub(_)) | None => (config.hubs.first()?, false),
    };
    Some(HubView { public_key: hub.public_key, endpoint: hub.endpoint.clone(), alive })
}

fn peer_views(network: &Network, zero: SystemTime) -> BTreeMap<PublicKey, PeerView> {
    let stats = Stats { numbers: &network.stats, zero };
    let mut views = BTreeMap::new();
    match &network.role {
        Some(Running::Hub(hub)) => {
            for (member, entry) in hub.members() {
                let view = match entry {
                    Some(entry) => stats.view(&entry.key, of_entry(entry)),
                    None => PeerView {
                        name: member.name.clone(),
                        addresses: member.addresses.clone(),
                        subnets: member.subnets.clone(),
                        ..offline()
                    },
                };
                views.insert(member.public_key, view);
            }
        }
        Some(Running::Peer(peer)) => {
            for entry in peer.peers() {
                views.insert(entry.key, stats.view(&entry.key, of_entry(entry)));
            }
            let hub = PeerView {
                name: HUB_NAME.to_owned(),
                addresses: peer.hub_overlay().to_vec(),
                hub: true,
                ..offline()
            };
            let key = peer.hub().public_key;
            let mut hub = stats.view(&key, hub);
            if network.state() == NetworkState::HubLost && hub.state == PeerLink::Connected {
                hub.state = PeerLink::Unresponsive;
            }
            views.insert(key, hub);
        }
        None => {}
    }
    views
}

/// A network's numbers, to complete what the list says of a peer
struct Stats<'a> {
    numbers: &'a NodeStats,
    zero: SystemTime,
}

impl Stats<'_> {
    fn view(&self, key: &PublicKey, view: PeerView) -> PeerView {
        let found = self.numbers.peers.binary_search_by(|peer| peer.key.cmp(key));
        let Some(peer) = found.ok().map(|index| &self.numbers.peers[index]) else {
            return PeerView { state: PeerLink::Idle, ..view };
        };
        PeerView {
            state: link(peer),
            path: peer.path.as_ref().map(path_view),
            tcp: peer.tcp,
            sent: counted(peer.sent),
            received: counted(peer.received),
            last_handshake: peer.last_handshake.and_then(|at| self.wall(at)),
            last_seen: peer.last_heard.and_then(|at| self.wall(at)),
            ..view
        }
    }

    fn wall(&self, at: Instant) -> Option<SystemTime> {
        self.zero.checked_add(Duration::from_nanos(at.as_nanos()))
    }
}

fn link(peer: &PeerStats) -> PeerLink {
    match peer.state {
        PeerState::Idle => PeerLink::Idle,
        PeerState::Connecting => PeerLink::Connecting,
        PeerState::Connected => PeerLink::Connected,
        PeerState::Unresponsive => PeerLink::Unresponsive,
    }
}

fn of_entry(entry: &Entry) -> PeerView {
    PeerView {
        name: entry.name.clone(),
        addresses: entry.addresses.clone(),
        subnets: entry.subnets.iter().map(Prefix::network).collect(),
        ..offline()
    }
}

fn offline() -> PeerView {
    PeerView {
        name: String::new(),
        addresses: Vec::new(),
        subnets: Vec::new(),
        state: PeerLink::Offline,
        hub: false,
        path: None,
        tcp: None,
        sent: Counted::default(),
        received: Counted::default(),
        last_handshake: None,
        last_seen: None,
    }
}

fn counted(traffic: Traffic) -> Counted {
    Counted { packets: traffic.packets, bytes: traffic.bytes }
}
