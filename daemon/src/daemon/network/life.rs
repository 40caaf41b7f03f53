//! How a life of a network begins and ends.

use fastvpn_proto::control::Register;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{Admission, NodeStats};
use fastvpn_proto::time::{Duration, Instant};
use tracing::{error, warn};

use super::{Network, Phase, Role, alias};
use crate::config::RoleConfig;
use crate::daemon::action::{Action, Start, Started, Step};
use crate::daemon::hub::Hub;
use crate::daemon::interface::Interface;
use crate::daemon::peer::Peer;
use crate::daemon::state::Answer;
use crate::handle::{DnsView, HandleError};

impl Network {
    pub(super) fn begin(&mut self) {
        self.life += 1;
        self.phase = Phase::Starting;
        self.trouble = None;
        self.retry_at = None;
        self.opened = None;
        match &self.config.role {
            RoleConfig::Hub(_) => self.out.push(Action::Open),
            RoleConfig::Peer(_) => self.start_plane(),
        }
    }

    pub(super) fn start_plane(&mut self) {
        let (admission, relay, silence) = match &self.config.role {
            RoleConfig::Hub(hub) => (Admission::Ask, true, hub.timeout),
            RoleConfig::Peer(_) => (Admission::Known, false, PEER_SILENCE),
        };
        let listen = self.config.listen;
        let engine = self.config.engine.engine();
        self.out.push(Action::Start(Start { admission, engine, listen, relay, silence }));
    }

    /// Stops and undoes everything of this life; with `handover` as far as a next daemon cannot use it
    pub(super) fn end(&mut self, handover: bool) {
        match self.phase {
            Phase::Down | Phase::Stopping => {}
            Phase::Waiting => self.phase = Phase::Down,
            Phase::Starting | Phase::Running => {
                let names = || (self.config.interface.clone(), alias(&self.config));
                let interface = self.interface.may_exist().then(names);
                self.out.push(Action::Stop { interface, handover });
                self.phase = Phase::Stopping;
                if let Some(Role::Hub(hub)) = &mut self.role {
                    let gone =
                        || Answer::Members(Err(HandleError::NotUp(self.config.name.clone())));
                    self.answers.extend(hub.abandon().into_iter().map(|id| (id, gone())));
                }
                self.ending = self.role.take().filter(|_| handover);
                self.interface = Interface::default();
                self.listening = None;
                self.names.clear();
                self.naming = DnsView::default();
                self.carried = None;
                self.stats = NodeStats::default();
                self.overflowed = 0;
            }
        }
    }

    pub(super) fn fail(&mut self, error: HandleError, now: Instant) {
        let wait = BACK_OFF.saturating_mul(1 << self.failures.min(8)).min(BACK_OFF_MAX);
        self.failures += 1;
        self.retry_at = Some(now + wait);
        error!(network = %self.config.name, reason = %error, retry_in = ?wait, "network failed");
        self.trouble = Some(error);
        // What a hub keeps may be open already, and is to be closed before it is opened again.
        if self.phase == Phase::Starting && matches!(self.config.role, RoleConfig::Peer(_)) {
            self.phase = Phase::Waiting;
        } else {
            self.end(false);
        }
    }

    pub(super) fn on_started(&mut self, started: Started, now: Instant) {
        if started.listening.fell_back {
            warn!(network = %self.config.name, "this machine has no IPv6; listening on IPv4 only");
        }
        self.listening = Some(started.listening);
        self.phase = Phase::Running;
        let name = self.config.name.clone();
        let mut steps = Vec::new();
        match (&self.config.role, self.opened.take()) {
            (RoleConfig::Hub(config), Some(members)) => {
                let addresses = self.config.addresses.clone();
                let mut hub = Hub::new(name, addresses, config.clone(), *members, started.nonce);
                hub.on_wall(self.zero);
                steps.push(hub.plan());
                self.role = Some(Role::Hub(Box::new(hub)));
            }
            (RoleConfig::Hub(_), None) => {
                let text = "the hub's members were not read".to_owned();
                steps.push(Step::Fail(HandleError::System(text)));
            }
            (RoleConfig::Peer(config), _) => {
                let addresses = self.config.addresses.iter().map(Prefix::addr).collect();
                let endpoints = self.candidates();
                let secret = config.ticket.as_ref().map(|ticket| ticket.secret.clone());
                let register =
                    Register { name: self.hostname.clone(), addresses, endpoints, secret };
                let mut peer = Peer::new(name, self.own, config.clone(), register, now);
                peer.start(now, &mut steps);
                self.role = Some(Role::Peer(Box::new(peer)));
            }
        }
        self.take(steps, now);
    }

    pub(super) fn on_stopped(&mut self) {
        self.ending = None;
        self.phase = match (self.wanted, self.retry_at) {
            (false, _) => Phase::Down,
            (true, Some(_)) => Phase::Waiting,
            (true, None) => {
                self.begin();
                Phase::Starting
            }
        };
    }
}

/// Time before a network that failed is tried again; doubled up to the largest
const BACK_OFF: Duration = Duration::from_secs(5);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// Silence after which a peer tells that another one is silent
const PEER_SILENCE: Duration = Duration::from_secs(15);
