//! One network's life: down, connecting, up, hub lost, backing off.
//!
//! A [`Network`] starts its plane, then its role ([`Hub`] or [`Peer`]) decides what happens, and the
//! interface follows. Whatever goes wrong ends the same way: everything is stopped and undone, and
//! tried again after a while. Each start is a *life* with a number of its own, so that late news of
//! an earlier one cannot be taken for news of this one.
//!
//! # Contract
//!
//! - An [`Action`]'s result comes back as [`News`] with the number of the life; nothing else is
//!   asked between [`Action::Stop`] and [`News::Stopped`] but, where a next daemon goes on, to let in
//!   nodes that connections wait for.
//! - After each input [`Network::settle`], which does what is due and answers who waits.
//!
//! # Not here
//!
//! How a life begins and ends is in `life`, what becomes of its news in `news`.

mod life;
mod news;

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use fastvpn_proto::crypto::{InvitationSecret, PublicKey};
use fastvpn_proto::node::{Command, NodeStats};
use fastvpn_proto::time::{Duration, Instant};
use tracing::info;

use super::action::Action;
use super::candidates::candidates;
use super::hub::Hub;
use super::interface::Interface;
use super::invite;
use super::ledger::Wish;
use super::names::{self, Names};
use super::peer::Peer;
use super::pings::Pings;
use super::snapshot::{detail, find};
use super::state::{Answer, RequestId};
use super::tuning::{self, Tuning};
use super::waiting::Waiting;
use crate::config::{NetworkConfig, RoleConfig, TicketFile};
use crate::handle::{
    Apply, Caller, DnsView, HandleError, MembersReply, MembersRequest, NetworkState, Outcome,
};
use crate::plane::Listening;
use crate::registry::Members;
use crate::system::{ALIAS_PREFIX, InterfacePlan};

/// One network of the configuration, in whatever state
#[derive(Debug)]
pub(super) struct Network {
    pub(super) config: NetworkConfig,
    pub(super) own: PublicKey,
    pub(super) role: Option<Role>,
    /// What it was, while the plane ends and a next daemon will go on
    ending: Option<Role>,
    pub(super) interface: Interface,
    pub(super) stats: NodeStats,
    /// Messages that the system dropped before the plane read them
    pub(super) overflowed: u64,
    pub(super) listening: Option<Listening>,
    pub(super) names: Names,
    /// How names are served
    pub(super) naming: DnsView,
    /// Why it is not up
    pub(super) trouble: Option<HandleError>,
    hostname: String,
    /// Underlay addresses of this machine
    local: Vec<IpAddr>,
    /// Wall clock at the zero of all instants
    zero: SystemTime,
    /// What a hub keeps, once it is open and until the hub has it
    opened: Option<Box<Members>>,
    wanted: bool,
    /// No longer configured: to be forgotten when it is down
    removed: bool,
    /// For whom it is up, or is to be
    pub(super) apply: Apply,
    life: u64,
    phase: Phase,
    carried: Option<bool>,
    pub(super) tuning: Tuning,
    pings: Pings,
    failures: u32,
    retry_at: Option<Instant>,
    waiting: Waiting,
    shown: NetworkState,
    out: Vec<Action>,
    answers: Vec<(RequestId, Answer)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Down,
    Running,
    Starting,
    Stopping,
    /// Failed; tried again at `retry_at`
    Waiting,
}

/// What this node is in the network, while it runs
#[derive(Debug)]
pub(super) enum Role {
    /// A hub
    Hub(Box<Hub>),
    /// A peer
    Peer(Box<Peer>),
}

/// What a settled network asks for
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// For the life that [`Network::life`] names
    pub(super) actions: Vec<Action>,
    /// For who waits
    pub(super) replies: Vec<(RequestId, Answer)>,
}

impl Network {
    /// Makes a network that is down
    pub(super) fn new(config: NetworkConfig, hostname: String) -> Self {
        let tuning = Tuning::new(config.name.to_string());
        Self {
            own: config.private_key.public_key(),
            config,
            role: None,
            ending: None,
            interface: Interface::default(),
            stats: NodeStats::default(),
            overflowed: 0,
            listening: None,
            names: Names::default(),
            naming: DnsView::default(),
            trouble: None,
            hostname,
            local: Vec::new(),
            zero: SystemTime::UNIX_EPOCH,
            opened: None,
            wanted: false,
            removed: false,
            apply: Apply::default(),
            life: 0,
            phase: Phase::Down,
            carried: None,
            tuning,
            pings: Pings::default(),
            failures: 0,
            retry_at: None,
            waiting: Waiting::default(),
            shown: NetworkState::Down,
            out: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Brings the network up, as the configuration wishes
    pub(super) fn start(&mut self) {
        self.wanted = true;
        self.trouble = None;
        self.retry_at = None;
        if matches!(self.phase, Phase::Down | Phase::Waiting) {
            self.begin();
        }
    }

    /// Brings the network up; the request is answered when it is up, or failed
    pub(super) fn connect(&mut self, id: RequestId, apply: Apply, now: Instant) -> Option<Answer> {
        if let Err(error) = self.may_apply(&apply) {
            return Some(Answer::Connect(Err(error)));
        }
        self.apply = apply;
        if matches!(self.state(), NetworkState::Up | NetworkState::HubLost) {
            return Some(Answer::Connect(Ok(Outcome::Already(()))));
        }
        self.waiting.for_up(id, now);
        self.start();
        None
    }

    /// Takes the network down; the request is answered when it is down
    pub(super) fn disconnect(&mut self, id: RequestId) -> Option<Answer> {
        if self.phase == Phase::Down {
            return Some(Answer::Disconnect(Ok(Outcome::Already(()))));
        }
        self.waiting.for_down(id);
        self.stop();
        None
    }

    /// Takes the network down if it is up for a caller who is gone
    pub(super) fn release(&mut self, caller: &Caller) {
        if matches!(&self.apply, Apply::Caller(owner) if owner == caller) {
            info!(network = %self.config.name, "who had it brought up is gone");
            self.stop();
        }
    }

    /// Takes the network down, for whomever it is up
    pub(super) fn stop(&mut self) {
        self.wanted = false;
        self.apply = Apply::Daemon;
        self.trouble = None;
        self.failures = 0;
        self.end(false);
    }

    /// Takes the network down because the daemon ends; a next one may go on with it, for whomever it
    /// was up
    pub(super) fn halt(&mut self) {
        self.wanted = false;
        self.trouble = None;
        self.failures = 0;
        self.end(true);
    }

    /// Takes the network down for good
    pub(super) fn remove(&mut self) {
        self.removed = true;
        self.stop();
    }

    /// Takes the network down, and up again with another configuration if it was up
    pub(super) fn restart(&mut self, config: NetworkConfig) {
        self.removed = false;
        self.trouble = None;
        self.retry_at = None;
        match self.phase {
            Phase::Down | Phase::Waiting => self.adopt(config),
            Phase::Running | Phase::Starting | Phase::Stopping => {
                // The interface of the old configuration is the one to undo.
                self.end(false);
                self.adopt(config);
            }
        }
        if self.phase == Phase::Waiting {
            self.begin();
        }
    }

    /// Applies a configuration that needs no restart
    pub(super) fn reconfigure(&mut self, config: NetworkConfig, now: Instant) {
        self.adopt(config);
        let mut steps = Vec::new();
        match (&mut self.role, &self.config.role) {
            (Some(Role::Hub(hub)), RoleConfig::Hub(config)) => {
                hub.on_config(&self.config, config.clone(), now, &mut steps);
            }
            (Some(Role::Peer(peer)), RoleConfig::Peer(config)) => {
                peer.on_config(config.clone(), now, &mut steps);
            }
            (Some(_) | None, RoleConfig::Hub(_) | RoleConfig::Peer(_)) => {}
        }
        self.take(steps, now);
        // Members that are away are in no list.
        self.names.touch();
        if let Some(wanted) = self.interface.wanted() {
            let dns = names::plan(&self.config, &self.apply, &wanted.addresses);
            let wanted = InterfacePlan { mtu: self.config.mtu, dns, ..wanted.clone() };
            self.interface.want(wanted);
        }
        if self.phase == Phase::Waiting {
            self.begin();
        }
    }

    /// Asks a peer for its round-trip time
    pub(super) fn ping(
        &mut self,
        id: RequestId,
        peer: &str,
        timeout: Duration,
        now: Instant,
    ) -> Result<(), HandleError> {
        let name = &self.config.name;
        if !matches!(self.state(), NetworkState::Up | NetworkState::HubLost) {
            return Err(HandleError::NotUp(name.clone()));
        }
        let key = find(self, peer).ok_or_else(|| HandleError::NoPeer(peer.into(), name.clone()))?;
        let ping = self.pings.begin(id, key, timeout, now)?;
        self.out.push(Action::Node(Command::Ping { peer: key, id: ping, timeout }));
        Ok(())
    }

    /// Takes a request that concerns the members of a hub
    ///
    /// `secret` is fresh, for an invitation.
    pub(super) fn members(
        &mut self,
        id: RequestId,
        request: MembersRequest,
        secret: &InvitationSecret,
        now: Instant,
    ) -> Result<Option<MembersReply>, HandleError> {
        let RoleConfig::Hub(config) = &self.config.role else {
            return Err(HandleError::NotHub(self.config.name.clone()));
        };
        let candidates = self.candidates();
        let Some(Role::Hub(hub)) = &mut self.role else {
            return Err(HandleError::NotUp(self.config.name.clone()));
        };
        let (wish, invited) = match request {
            MembersRequest::Invitations => {
                return Ok(Some(MembersReply::Invitations(hub.invitation_views(now))));
            }
            MembersRequest::List => return Ok(Some(MembersReply::Members(hub.member_views()))),
            MembersRequest::Approve(who) => (Wish::Approve(who), None),
            MembersRequest::Invite(invite) => {
                let made = invite::make(&self.config, config, &candidates, &invite, secret)?;
                let (digest, invitation, invited) = made.at(self.zero, now);
                (Wish::Invite(digest, invitation), Some(invited))
            }
            MembersRequest::Rename { who, name } => {
                invite::check_name(&name)?;
                (Wish::Rename(who, name), None)
            }
            MembersRequest::Revoke(who) => (Wish::Revoke(who), None),
            MembersRequest::Withdraw(name) => (Wish::Withdraw(name), None),
        };
        let mut steps = Vec::new();
        hub.on_request(id, wish, invited, &mut steps);
        self.take(steps, now);
        Ok(None)
    }

    /// Takes the underlay addresses of this machine
    pub(super) fn on_local(&mut self, local: &[IpAddr], now: Instant) {
        self.local = local.to_vec();
        let candidates = self.candidates();
        let mut steps = Vec::new();
        if let Some(Role::Peer(peer)) = &mut self.role {
            peer.on_candidates(candidates, &mut steps);
        }
        self.take(steps, now);
    }

    /// Takes the news that addresses or default routes of this machine changed
    pub(super) fn on_paths_changed(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        self.out.push(Action::Node(Command::PathsChanged));
        let mut steps = Vec::new();
        if let Some(Role::Peer(peer)) = &self.role {
            peer.look_again(&mut steps);
        }
        self.take(steps, now);
    }

    /// Takes what the wall clock said at the zero of all instants
    pub(super) fn on_wall(&mut self, zero: SystemTime) {
        self.zero = zero;
        if let Some(Role::Hub(hub)) = &mut self.role {
            hub.on_wall(zero);
        }
        self.tuning.budget.on_wall(zero);
    }

    /// Begins anew where that is due; before the networks get their shares
    pub(super) fn wake(&mut self, now: Instant) {
        if self.phase == Phase::Waiting && self.retry_at.is_some_and(|at| now >= at) {
            self.begin();
        }
    }

    /// Does what is due, and answers who waits for what has come true
    pub(super) fn settle(&mut self, now: Instant) -> Settled {
        if self.phase == Phase::Running {
            let mut steps = Vec::new();
            match &mut self.role {
                Some(Role::Hub(hub)) => hub.poll(now, &mut steps),
                Some(Role::Peer(peer)) => peer.poll(now, &mut steps),
                None => {}
            }
            self.take(steps, now);
        }
        if self.phase == Phase::Running {
            // Names are known before they are answered.
            let hosts = names::poll(self);
            self.out.extend(hosts.map(Action::Names));
            if let Some(job) = self.interface.poll(now) {
                self.out.push(Action::Interface { plan: job.plan, fresh: job.fresh });
            }
            self.settle_carry();
        }
        self.settle_tuning(now);
        let mut replies = self.pings.poll(now);
        replies.append(&mut self.answers);
        self.settle_state(now, &mut replies);
        Settled { actions: core::mem::take(&mut self.out), replies }
    }

    /// Returns when [`Self::wake`] or [`Self::settle`] will next have something to do
    pub(super) fn deadline(&self) -> Instant {
        let phase = match self.phase {
            Phase::Running => {
                let role = match &self.role {
                    Some(Role::Hub(hub)) => hub.deadline(),
                    Some(Role::Peer(peer)) => peer.deadline(),
                    None => Instant::FAR,
                };
                role.min(self.interface.deadline())
            }
            Phase::Waiting => self.retry_at.unwrap_or(Instant::FAR),
            Phase::Down | Phase::Starting | Phase::Stopping => Instant::FAR,
        };
        phase.min(self.waiting.deadline()).min(self.pings.deadline())
    }

    /// Returns where the network is in its life
    pub(super) fn state(&self) -> NetworkState {
        if self.trouble.is_some() && self.phase != Phase::Down {
            return NetworkState::Failed;
        }
        match (self.phase, &self.role) {
            (Phase::Down, _) => NetworkState::Down,
            (Phase::Stopping, _) if !self.wanted => NetworkState::Down,
            (Phase::Running, Some(Role::Peer(peer))) if peer.has_lost_hub() => {
                NetworkState::HubLost
            }
            (Phase::Running, Some(Role::Peer(peer))) if peer.is_pending() => NetworkState::Pending,
            (Phase::Running, Some(Role::Peer(peer)))
                if peer.is_registered() && self.interface.done().is_some() =>
            {
                NetworkState::Up
            }
            (Phase::Running, Some(Role::Hub(_)))
                if self.config.addresses.is_empty() || self.interface.done().is_some() =>
            {
                NetworkState::Up
            }
            (Phase::Running | Phase::Starting | Phase::Stopping | Phase::Waiting, _) => {
                NetworkState::Connecting
            }
        }
    }

    /// Returns the number of the present life
    pub(super) fn life(&self) -> u64 {
        self.life
    }

    /// Tells whether everything of it is stopped and undone
    pub(super) fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down | Phase::Waiting)
    }

    /// Tells whether there is a plane that may send, or is about to be
    pub(super) fn may_send(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    /// Tells whether it is no longer configured
    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    /// Tells whether the network may be brought up so
    fn may_apply(&self, apply: &Apply) -> Result<(), HandleError> {
        let name = &self.config.name;
        match (&self.config.role, apply) {
            (RoleConfig::Hub(_), Apply::Caller(_)) => {
                return Err(HandleError::NotPeer(name.clone()));
            }
            (RoleConfig::Hub(_) | RoleConfig::Peer(_), Apply::Caller(_) | Apply::Daemon) => {}
        }
        if !self.wanted || self.apply == *apply {
            return Ok(());
        }
        Err(HandleError::InUse(match self.apply {
            Apply::Caller(_) => format!(
                "network {name} is in use by another program, such as NetworkManager; disconnect it there first"
            ),
            Apply::Daemon => format!(
                "network {name} is in use by fastvpnd itself; first: fastvpnctl disconnect {name}"
            ),
        }))
    }

    fn adopt(&mut self, config: NetworkConfig) {
        self.own = config.private_key.public_key();
        self.config = config;
    }

    fn settle_carry(&mut self) {
        let carry = match &self.role {
            Some(Role::Hub(_)) => true,
            Some(Role::Peer(peer)) => peer.carries(),
            None => false,
        };
        if self.interface.is_open() && self.carried != Some(carry) {
            self.carried = Some(carry);
            self.out.push(Action::Carry(carry));
        }
    }

    fn settle_tuning(&mut self, now: Instant) {
        let plane = match self.phase {
            Phase::Running => tuning::Plane::Running,
            Phase::Stopping => tuning::Plane::Stopping,
            Phase::Down | Phase::Starting | Phase::Waiting => tuning::Plane::Waiting,
        };
        self.tuning.settle(&self.config.engine, plane, now, &mut self.out);
        for action in &mut self.out {
            if let Action::Start(start) = action {
                // Only now the network has its share of what the node may send.
                start.engine = self.tuning.on_start(&self.config.engine);
            }
        }
    }

    fn settle_state(&mut self, now: Instant, replies: &mut Vec<(RequestId, Answer)>) {
        let state = self.state();
        if state != self.shown {
            let name = &self.config.name;
            match (self.shown, state) {
                (NetworkState::HubLost, NetworkState::Up) => {}
                (_, NetworkState::Up) => info!(network = %name, "network is up"),
                (_, NetworkState::Down) => info!(network = %name, "network is down"),
                (
                    _,
                    NetworkState::Connecting
                    | NetworkState::Pending
                    | NetworkState::HubLost
                    | NetworkState::Failed,
                ) => {}
            }
            self.shown = state;
        }
        let connected = match state {
            NetworkState::Up | NetworkState::HubLost => {
                self.failures = 0;
                Some(Ok(Outcome::Changed(())))
            }
            NetworkState::Failed => self.trouble.clone().map(Err),
            NetworkState::Down => Some(Err(HandleError::NotUp(self.config.name.clone()))),
            NetworkState::Connecting | NetworkState::Pending => None,
        };
        match connected {
            Some(result) => replies.extend(self.waiting.on_result(&result)),
            None => replies.extend(self.waiting.expire(&detail(self), now)),
        }
        if self.phase == Phase::Down || (self.wanted && self.phase != Phase::Stopping) {
            replies.extend(self.waiting.on_down());
        }
        if self.phase != Phase::Running {
            replies.extend(self.pings.end(&self.config.name));
        }
    }

    /// Returns what shows the hub that this node was invited
    fn ticket(&self) -> Option<&TicketFile> {
        match &self.config.role {
            RoleConfig::Hub(_) => None,
            RoleConfig::Peer(peer) => peer.ticket.as_ref(),
        }
    }

    fn candidates(&self) -> Vec<SocketAddr> {
        self.listening.map(|listening| candidates(&self.local, listening.addr)).unwrap_or_default()
    }
}

/// Returns the alias by which an interface is known as ours
fn alias(config: &NetworkConfig) -> String {
    format!("{ALIAS_PREFIX}{}", config.name)
}
