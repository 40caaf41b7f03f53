//! `org.fastvpn.Peer1`: one peer of a network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastvpn_dbus::network_path;
use fastvpn_dbus::types::{PeerFacts, PeerFigures, PeerState};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::node::Carriage;
use zbus::{OwnedObjectPath, interface};

use super::manager::micros;
use super::network::{path_words, texts, traffic, unix_seconds};
use super::publish::Shown;
use crate::handle::{NetworkName, PathView, PeerLink, PeerView};

/// The object of one peer; reads what was published last
pub(super) struct Peer(pub(super) Arc<Shown<PeerFacts, PeerFigures>>);

#[interface(name = "org.fastvpn.Peer1", introspection_docs = false)]
impl Peer {
    #[zbus(property)]
    fn addresses(&self) -> Vec<String> {
        self.0.facts().addresses.clone()
    }

    #[zbus(property)]
    fn endpoint(&self) -> String {
        self.0.facts().endpoint.clone()
    }

    #[zbus(property)]
    fn hub(&self) -> bool {
        self.0.facts().hub
    }

    #[zbus(property)]
    fn last_handshake(&self) -> u64 {
        self.0.figures().last_handshake
    }

    #[zbus(property)]
    fn last_seen(&self) -> u64 {
        self.0.figures().last_seen
    }

    #[zbus(property)]
    fn loss(&self) -> f64 {
        self.0.figures().loss
    }

    #[zbus(property)]
    fn name(&self) -> String {
        self.0.facts().name.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn network(&self) -> OwnedObjectPath {
        self.0.facts().network.clone()
    }

    #[zbus(property)]
    fn own_loss(&self) -> f64 {
        self.0.figures().own_loss
    }

    #[zbus(property)]
    fn path_kind(&self) -> String {
        self.0.facts().path_kind.clone()
    }

    #[zbus(property)]
    fn path_mtu(&self) -> u32 {
        self.0.facts().path_mtu
    }

    #[zbus(property)]
    fn path_offload(&self) -> bool {
        self.0.facts().path_offload
    }

    #[zbus(property)]
    fn path_statistics(&self) -> BTreeMap<String, u64> {
        self.0.figures().path_statistics.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn public_key(&self) -> String {
        self.0.facts().public_key.clone()
    }

    #[zbus(property)]
    fn queue_delay_us(&self) -> u64 {
        self.0.figures().queue_delay_us
    }

    #[zbus(property)]
    fn rate(&self) -> u64 {
        self.0.figures().rate
    }

    #[zbus(property)]
    fn rtt_min_us(&self) -> u64 {
        self.0.figures().rtt_min_us
    }

    #[zbus(property)]
    fn rtt_us(&self) -> u64 {
        self.0.figures().rtt_us
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.0.facts().state.clone()
    }

    #[zbus(property)]
    fn statistics(&self) -> BTreeMap<String, u64> {
        self.0.figures().statistics.clone()
    }

    #[zbus(property)]
    fn subnets(&self) -> Vec<String> {
        self.0.facts().subnets.clone()
    }

    #[zbus(property)]
    fn tcp(&self) -> String {
        self.0.facts().tcp.clone()
    }
}

/// Puts what is so of a peer into the bus's words
pub(super) fn facts(network: &NetworkName, key: &PublicKey, view: &PeerView) -> PeerFacts {
    let (path_kind, endpoint) = path_words(view.path.as_ref());
    PeerFacts {
        addresses: texts(&view.addresses),
        endpoint,
        hub: view.hub,
        name: view.name.clone(),
        network: network_path(network.as_str()),
        path_kind: path_kind.to_owned(),
        path_mtu: view.path.map_or(0, |path| path.mtu.into()),
        path_offload: view.path.is_some_and(|path| path.offload),
        public_key: key.to_string(),
        state: state_word(view.state).as_str().to_owned(),
        subnets: texts(&view.subnets),
        tcp: view.tcp.map_or("", Carriage::as_str).to_owned(),
    }
}

/// Puts what is counted and measured of a peer into the bus's words
pub(super) fn figures(view: &PeerView) -> PeerFigures {
    let path = view.path.as_ref();
    PeerFigures {
        last_handshake: view.last_handshake.map_or(0, unix_seconds),
        last_seen: view.last_seen.map_or(0, unix_seconds),
        loss: path.map_or(0.0, |path| share(path.loss)),
        own_loss: path.map_or(0.0, |path| share(path.own_loss)),
        path_statistics: path.map(causes).unwrap_or_default(),
        queue_delay_us: path.map_or(0, |path| whole_micros(path.queue_delay)),
        rate: path.and_then(|path| path.rate).map_or(0, |bytes| bytes.saturating_mul(8)),
        rtt_min_us: path.and_then(|path| path.rtt_min).map_or(0, micros),
        rtt_us: path.and_then(|path| path.rtt).map_or(0, micros),
        statistics: traffic(view.sent, view.received),
    }
}

/// Tells whether [`facts`] of the two are surely the same, without making them
pub(super) fn same_facts(old: &PeerView, new: &PeerView) -> bool {
    let road = |view: &PeerView| view.path.map(|path| (path.way, path.mtu, path.offload));
    old.name == new.name
        && old.addresses == new.addresses
        && old.subnets == new.subnets
        && old.state == new.state
        && old.hub == new.hub
        && old.tcp == new.tcp
        && road(old) == road(new)
}

/// Loss as a share, whatever was computed: a NaN would differ from itself for ever
fn share(loss: f64) -> f64 {
    if loss.is_finite() { loss.clamp(0.0, 1.0) } else { 0.0 }
}

/// Counters of a path by name
fn causes(path: &PathView) -> BTreeMap<String, u64> {
    let spent = &path.spent;
    let counters = [
        ("bytes", path.sent.bytes),
        ("congested", path.congested),
        ("copy-bytes", spent.copies.bytes),
        ("copy-frames", spent.copies.packets),
        ("fresh-bytes", spent.fresh.bytes),
        ("fresh-frames", spent.fresh.packets),
        ("lost", path.lost),
        ("messages", path.sent.packets),
        ("repeat-bytes", spent.repeats.bytes),
        ("repeat-frames", spent.repeats.packets),
    ];
    counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Whole microseconds of what may be nothing
fn whole_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn state_word(link: PeerLink) -> PeerState {
    match link {
        PeerLink::Offline => PeerState::Offline,
        PeerLink::Idle => PeerState::Idle,
        PeerLink::Connecting => PeerState::Connecting,
        PeerLink::Connected => PeerState::Connected,
        PeerLink::Unresponsive => PeerState::Unresponsive,
    }
}
