//! `org.fastvpn.Network1`: one network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fastvpn_dbus::types::{
    Apply as ApplyWord, DnsState as DnsWord, NetworkFacts, NetworkFigures,
    NetworkState as StateWord, PathKind, Plan, Role as RoleWord,
};
use fastvpn_proto::node::{Carrier, Way};
use zbus::interface;

use super::publish::Shown;
use crate::handle::{
    Apply, Counted, DnsState, NetworkName, NetworkState, NetworkView, PathView, Role,
};

/// The object of one network; reads what was published last
pub(super) struct Network(pub(super) Arc<Shown<NetworkFacts, NetworkFigures>>);

#[interface(name = "org.fastvpn.Network1", introspection_docs = false)]
impl Network {
    #[zbus(property)]
    fn addresses(&self) -> Vec<String> {
        self.0.facts().addresses.clone()
    }

    #[zbus(property)]
    fn apply(&self) -> String {
        self.0.facts().apply.clone()
    }

    #[zbus(property)]
    fn detail(&self) -> String {
        self.0.facts().detail.clone()
    }

    #[zbus(property)]
    fn dns_detail(&self) -> String {
        self.0.facts().dns_detail.clone()
    }

    #[zbus(property)]
    fn dns_server(&self) -> String {
        self.0.facts().dns_server.clone()
    }

    #[zbus(property)]
    fn dns_state(&self) -> String {
        self.0.facts().dns_state.clone()
    }

    #[zbus(property)]
    fn dns_suffix(&self) -> String {
        self.0.facts().dns_suffix.clone()
    }

    #[zbus(property)]
    fn hub_alive(&self) -> bool {
        self.0.facts().hub_alive
    }

    #[zbus(property)]
    fn hub_endpoint(&self) -> String {
        self.0.facts().hub_endpoint.clone()
    }

    #[zbus(property)]
    fn hub_key(&self) -> String {
        self.0.facts().hub_key.clone()
    }

    #[zbus(property)]
    fn interface(&self) -> String {
        self.0.facts().interface.clone()
    }

    #[zbus(property)]
    fn listen(&self) -> String {
        self.0.facts().listen.clone()
    }

    #[zbus(property)]
    fn mtu(&self) -> u32 {
        self.0.facts().mtu
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.0.facts().name.clone()
    }

    #[zbus(property)]
    fn plan(&self) -> Plan {
        self.0.facts().plan.clone()
    }

    #[zbus(property)]
    fn public_key(&self) -> String {
        self.0.facts().public_key.clone()
    }

    #[zbus(property)]
    fn quota(&self) -> u64 {
        self.0.facts().quota
    }

    #[zbus(property)]
    fn quota_period(&self) -> String {
        self.0.facts().quota_period.clone()
    }

    #[zbus(property)]
    fn quota_until(&self) -> u64 {
        self.0.facts().quota_until
    }

    #[zbus(property)]
    fn quota_used(&self) -> u64 {
        self.0.figures().quota_used
    }

    #[zbus(property)]
    fn refusals(&self) -> BTreeMap<String, u64> {
        self.0.figures().refusals.clone()
    }

    #[zbus(property)]
    fn role(&self) -> String {
        self.0.facts().role.clone()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.0.facts().state.clone()
    }

    #[zbus(property)]
    fn statistics(&self) -> BTreeMap<String, u64> {
        self.0.figures().statistics.clone()
    }
}

/// Puts what is so in a network into the bus's words
pub(super) fn facts(name: &NetworkName, view: &NetworkView) -> NetworkFacts {
    let hub = view.hub.as_ref();
    NetworkFacts {
        addresses: texts(&view.addresses),
        apply: apply_word(&view.apply).as_str().to_owned(),
        detail: view.detail.clone(),
        dns_detail: view.dns.detail.clone(),
        dns_server: view.dns.server.map(|server| server.to_string()).unwrap_or_default(),
        dns_state: dns_word(view.dns.state).as_str().to_owned(),
        dns_suffix: view.dns.suffix.clone(),
        hub_alive: hub.is_some_and(|hub| hub.alive),
        hub_endpoint: hub.map(|hub| hub.endpoint.clone()).unwrap_or_default(),
        hub_key: hub.map(|hub| hub.public_key.to_string()).unwrap_or_default(),
        interface: view.interface.clone(),
        listen: view.listen.map(|listen| listen.to_string()).unwrap_or_default(),
        mtu: view.mtu.into(),
        name: name.to_string(),
        plan: plan(view),
        public_key: view.public_key.to_string(),
        quota: view.quota.map_or(0, |quota| quota.bytes),
        quota_period: view.quota.map_or("", |quota| quota.period).to_owned(),
        quota_until: view.quota.map_or(0, |quota| unix_seconds(quota.until)),
        role: role_word(view.role).as_str().to_owned(),
        state: state_word(view.state).as_str().to_owned(),
    }
}

fn plan(view: &NetworkView) -> Plan {
    if view.interface.is_empty() {
        return Plan::default();
    }
    Plan {
        addresses: texts(&view.addresses),
        gateway: view.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        interface: view.interface.clone(),
        mtu: view.mtu.into(),
        routes: texts(&view.routes),
    }
}

/// Puts what is counted in a network into the bus's words
pub(super) fn figures(view: &NetworkView) -> NetworkFigures {
    let refusals = view.refusals.iter().map(|(name, count)| ((*name).to_owned(), *count));
    let mut statistics = traffic(view.sent, view.received);
    statistics.insert("dropped".to_owned(), view.dropped);
    for (name, count) in [
        ("wire-rx-overflowed", view.overflowed),
        ("wire-rx-bytes", view.wire_received.bytes),
        ("wire-rx-messages", view.wire_received.packets),
        ("wire-tx-bytes", view.wire_sent.bytes),
        ("wire-tx-messages", view.wire_sent.packets),
    ] {
        statistics.insert(name.to_owned(), count);
    }
    let quota_used = view.quota.map_or(0, |quota| quota.used);
    NetworkFigures { quota_used, refusals: refusals.collect(), statistics }
}

/// Seconds of the Unix epoch
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Tells whether [`facts`] of the two are surely the same, without making them
pub(super) fn same_facts(old: &NetworkView, new: &NetworkView) -> bool {
    let bound =
        |view: &NetworkView| view.quota.map(|quota| (quota.bytes, quota.period, quota.until));
    old.role == new.role
        && old.state == new.state
        && old.detail == new.detail
        && old.public_key == new.public_key
        && old.apply == new.apply
        && old.interface == new.interface
        && old.addresses == new.addresses
        && old.routes == new.routes
        && old.gateway == new.gateway
        && old.mtu == new.mtu
        && old.listen == new.listen
        && old.dns == new.dns
        && old.hub == new.hub
        && bound(old) == bound(new)
}

/// Kind and endpoint of a path; both empty where there is none
pub(super) fn path_words(path: Option<&PathView>) -> (&'static str, String) {
    let (kind, endpoint) = match path.map(|path| path.way) {
        None => return ("", String::new()),
        Some(Way::Direct(address) | Way::Stream(Carrier::Udp, address)) => {
            (PathKind::Direct, address.to_string())
        }
        Some(Way::Relayed(relay)) => (PathKind::Relayed, relay.to_string()),
        Some(Way::Stream(Carrier::Kcp, address)) => (PathKind::Kcp, address.to_string()),
        Some(Way::Stream(Carrier::Tcp, address)) => (PathKind::Tcp, address.to_string()),
    };
    (kind.as_str(), endpoint)
}

/// Counters of inner packets by name
pub(super) fn traffic(sent: Counted, received: Counted) -> BTreeMap<String, u64> {
    BTreeMap::from([
        ("rx-bytes".to_owned(), received.bytes),
        ("rx-packets".to_owned(), received.packets),
        ("tx-bytes".to_owned(), sent.bytes),
        ("tx-packets".to_owned(), sent.packets),
    ])
}

/// Each as text
pub(super) fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn apply_word(apply: &Apply) -> ApplyWord {
    match apply {
        Apply::Caller(_) => ApplyWord::Caller,
        Apply::Daemon => ApplyWord::Daemon,
    }
}

fn role_word(role: Role) -> RoleWord {
    match role {
        Role::Hub => RoleWord::Hub,
        Role::Peer => RoleWord::Peer,
    }
}

fn dns_word(state: DnsState) -> DnsWord {
    match state {
        DnsState::Announced => DnsWord::Announced,
        DnsState::Caller => DnsWord::Caller,
        DnsState::Failed => DnsWord::Failed,
        DnsState::Off => DnsWord::Off,
        DnsState::Pending => DnsWord::Pending,
        DnsState::Refused => DnsWord::Refused,
        DnsState::Unannounced => DnsWord::Unannounced,
    }
}

fn state_word(state: NetworkState) -> StateWord {
    match state {
        NetworkState::Down => StateWord::Down,
        NetworkState::Connecting => StateWord::Connecting,
        NetworkState::Pending => StateWord::Pending,
        NetworkState::Up => StateWord::Up,
        NetworkState::HubLost => StateWord::HubLost,
        NetworkState::Failed => StateWord::Failed,
    }
}
