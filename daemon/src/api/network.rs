//! `org.fastvpn.Network1`: one network, and the members of a hub.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fastvpn_dbus::Error;
use fastvpn_dbus::types::{
    Apply as ApplyWord, DnsState as DnsWord, MemberAnswer, NetworkFacts, NetworkFigures,
    NetworkState as StateWord, PathKind, Plan, Role as RoleWord,
};
use fastvpn_proto::node::{Carrier, Way};
use zbus::message::Header;
use zbus::{Connection, OwnedVariant, interface};

use super::access::{Access, Action};
use super::error::named;
use super::members;
use super::publish::{Rounds, Shown};
use crate::handle::{
    Apply, Counted, DnsState, Handle, MembersRequest, NetworkName, NetworkState, NetworkView,
    PathView, Role,
};

/// The object of one network; its properties are what was published last
pub(super) struct Network {
    name: NetworkName,
    shown: Arc<Shown<NetworkFacts, NetworkFigures>>,
    door: Arc<Door>,
}

/// The way of methods to the daemon
#[derive(Debug)]
pub(super) struct Door {
    pub(super) access: Access,
    pub(super) daemon: Handle,
    /// A change is answered after it can be seen
    pub(super) rounds: Arc<Rounds>,
}

impl Network {
    /// Shows the network `name`
    pub(super) fn new(
        name: NetworkName,
        shown: Arc<Shown<NetworkFacts, NetworkFigures>>,
        door: Arc<Door>,
    ) -> Self {
        Self { name, shown, door }
    }

    async fn change(
        &self,
        request: MembersRequest,
        call: &Header<'_>,
        bus: &Connection,
    ) -> Result<(), Error> {
        self.door.access.require(Action::Members, call, bus).await?;
        let daemon = &self.door.daemon;
        daemon.change_members(self.name.clone(), request).await.map_err(named)?;
        self.door.rounds.catch_up().await;
        Ok(())
    }
}

#[interface(name = "org.fastvpn.Network1", introspection_docs = false)]
impl Network {
    /// Lets a node join that waits for approval, or was revoked
    async fn approve_member(
        &self,
        who: String,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.change(MembersRequest::Approve(who), &call, bus).await
    }

    /// Makes the invitations of a name useless
    async fn cancel_invitation(
        &self,
        member: String,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.change(MembersRequest::Withdraw(member), &call, bus).await
    }

    /// Lists the invitations by which somebody may still come
    #[zbus(out_args("invitations"))]
    async fn invitations(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<Vec<(String, u64, bool)>, Error> {
        self.door.access.require(Action::Members, &call, bus).await?;
        let found = self.door.daemon.invitations(self.name.clone()).await.map_err(named)?;
        Ok(found.into_iter().map(members::invitation).collect())
    }

    /// Makes an invitation
    #[zbus(out_args("invitation", "expires", "endpoints"))]
    async fn invite(
        &self,
        member: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(String, u64, Vec<String>), Error> {
        self.door.access.require(Action::Members, &call, bus).await?;
        let invite = members::invite(member, options)?;
        let made = self.door.daemon.invite(self.name.clone(), invite).await.map_err(named)?;
        Ok((made.text, unix_seconds(made.expires), made.endpoints))
    }

    /// Lists the members
    #[zbus(out_args("members"))]
    async fn members(&self) -> Result<Vec<MemberAnswer>, Error> {
        let found = self.door.daemon.members(self.name.clone()).await.map_err(named)?;
        Ok(found.iter().map(members::member).collect())
    }

    /// Gives a member another name
    async fn rename_member(
        &self,
        who: String,
        name: String,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.change(MembersRequest::Rename { who, name }, &call, bus).await
    }

    /// Cuts a member off
    async fn revoke_member(
        &self,
        who: String,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.change(MembersRequest::Revoke(who), &call, bus).await
    }

    #[zbus(property)]
    fn addresses(&self) -> Vec<String> {
        self.shown.facts().addresses.clone()
    }

    #[zbus(property)]
    fn apply(&self) -> String {
        self.shown.facts().apply.clone()
    }

    #[zbus(property)]
    fn detail(&self) -> String {
        self.shown.facts().detail.clone()
    }

    #[zbus(property)]
    fn dns_detail(&self) -> String {
        self.shown.facts().dns_detail.clone()
    }

    #[zbus(property)]
    fn dns_server(&self) -> String {
        self.shown.facts().dns_server.clone()
    }

    #[zbus(property)]
    fn dns_state(&self) -> String {
        self.shown.facts().dns_state.clone()
    }

    #[zbus(property)]
    fn dns_suffix(&self) -> String {
        self.shown.facts().dns_suffix.clone()
    }

    #[zbus(property)]
    fn hub_alive(&self) -> bool {
        self.shown.facts().hub_alive
    }

    #[zbus(property)]
    fn hub_endpoint(&self) -> String {
        self.shown.facts().hub_endpoint.clone()
    }

    #[zbus(property)]
    fn hub_key(&self) -> String {
        self.shown.facts().hub_key.clone()
    }

    #[zbus(property)]
    fn interface(&self) -> String {
        self.shown.facts().interface.clone()
    }

    #[zbus(property)]
    fn listen(&self) -> String {
        self.shown.facts().listen.clone()
    }

    #[zbus(property)]
    fn mtu(&self) -> u32 {
        self.shown.facts().mtu
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.shown.facts().name.clone()
    }

    #[zbus(property)]
    fn plan(&self) -> Plan {
        self.shown.facts().plan.clone()
    }

    #[zbus(property)]
    fn public_key(&self) -> String {
        self.shown.facts().public_key.clone()
    }

    #[zbus(property)]
    fn quota(&self) -> u64 {
        self.shown.facts().quota
    }

    #[zbus(property)]
    fn quota_period(&self) -> String {
        self.shown.facts().quota_period.clone()
    }

    #[zbus(property)]
    fn quota_until(&self) -> u64 {
        self.shown.facts().quota_until
    }

    #[zbus(property)]
    fn quota_used(&self) -> u64 {
        self.shown.figures().quota_used
    }

    #[zbus(property)]
    fn receive_buffer(&self) -> u64 {
        self.shown.facts().receive_buffer
    }

    #[zbus(property)]
    fn refusals(&self) -> BTreeMap<String, u64> {
        self.shown.figures().refusals.clone()
    }

    #[zbus(property)]
    fn role(&self) -> String {
        self.shown.facts().role.clone()
    }

    #[zbus(property)]
    fn send_buffer(&self) -> u64 {
        self.shown.facts().send_buffer
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.shown.facts().state.clone()
    }

    #[zbus(property)]
    fn statistics(&self) -> BTreeMap<String, u64> {
        self.shown.figures().statistics.clone()
    }

    #[zbus(property)]
    fn subnets(&self) -> Vec<String> {
        self.shown.facts().subnets.clone()
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
        receive_buffer: view.buffers.receive,
        role: role_word(view.role).as_str().to_owned(),
        send_buffer: view.buffers.send,
        state: state_word(view.state).as_str().to_owned(),
        subnets: texts(&view.subnets),
    }
}

fn plan(view: &NetworkView) -> Plan {
    if view.interface.is_empty() {
        return Plan::default();
    }
    // Whoever resolves names for a caller may know no other port.
    let server = view.dns.server.filter(|server| server.port() == DNS_PORT);
    let domains = if server.is_some() { view.domains.clone() } else { Vec::new() };
    Plan {
        addresses: texts(&view.addresses),
        dns: server.iter().map(|server| server.ip().to_string()).collect(),
        domains,
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
        && old.subnets == new.subnets
        && old.gateway == new.gateway
        && old.mtu == new.mtu
        && old.listen == new.listen
        && old.buffers == new.buffers
        && old.dns == new.dns
        && old.domains == new.domains
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

/// Where resolvers ask, if they are told no port
const DNS_PORT: u16 = 53;
