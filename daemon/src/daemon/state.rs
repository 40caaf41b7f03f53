//! The control machine: requests, configuration and news in, effects out.
//!
//! A [`State`] is pure: it reaches no system and reads no clock. Who owns it runs its [`Effect`]s and
//! feeds what became of them.
//!
//! # Contract
//!
//! - `now` never runs backwards.
//! - After each [`State::apply`] the deadline may have moved; when it has passed, apply
//!   [`Input::Tick`].
//! - [`Effect::ReadConfig`] is answered by [`Input::Config`], and [`Effect::Network`] by the news
//!   that its action promises, both with what they name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use fastvpn_proto::crypto::InvitationSecret;
use fastvpn_proto::time::{Duration, Instant};
use tracing::{info, warn};

use super::action::{Action, News};
use super::network::Network;
use super::quota::Used;
use super::share::Node;
use super::snapshot::network_view;
use crate::config::change::{ChangeKind, difference};
use crate::config::{Config, NetworkConfig};
use crate::handle::{
    Apply, Caller, HandleError, MembersReply, MembersRequest, NetworkName, NetworkState,
    NetworkView, Outcome, PeerLink, PeerView, PingReply, Reloaded, Snapshot,
};

/// Names a request that waits for its answer
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct RequestId(pub(super) u64);

/// A request to the daemon, without the place for its answer
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Command {
    /// Bring a network up
    Connect(NetworkName, Apply),
    /// Take a network down
    Disconnect(NetworkName),
    /// Something that concerns the members of a hub
    Members {
        /// In which network
        network: NetworkName,
        /// What is wanted
        request: MembersRequest,
        /// A fresh one, should it be an invitation
        secret: InvitationSecret,
    },
    /// Ask a peer for its round-trip time
    Ping {
        /// In which network
        network: NetworkName,
        /// Its name, key, or one of its overlay addresses
        peer: String,
        /// How long to wait
        timeout: Duration,
    },
    /// Read the configuration again
    Reload,
}

/// The answer to a request
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// To [`Command::Connect`]
    Connect(Result<Outcome<()>, HandleError>),
    /// To [`Command::Disconnect`]
    Disconnect(Result<Outcome<()>, HandleError>),
    /// To [`Command::Members`]
    Members(Result<MembersReply, HandleError>),
    /// To [`Command::Ping`]
    Ping(Result<PingReply, HandleError>),
    /// To [`Command::Reload`]
    Reload(Result<Reloaded, HandleError>),
}

/// What the machine is told
#[derive(Debug)]
pub(super) enum Input {
    /// Somebody wants something
    Command(RequestId, Command),
    /// The configuration was read; for this request, if one asked for it
    Config(Option<RequestId>, Result<Config, String>),
    /// A signal asks to read the configuration again
    Hangup,
    /// The underlay addresses of this machine, first when they are known and after each change of
    /// them or of the default routes
    Local(Vec<IpAddr>),
    /// News of one network in one of its lives
    Network(NetworkName, u64, News),
    /// News of an interface, of which only the name is known
    Interface(String, News),
    /// A caller is gone, for whom networks may be up
    Released(Caller),
    /// What was written down of the node's quota
    Recalled(Option<Used>),
    /// Everything is to be taken down
    Stop,
    /// The deadline has passed
    Tick,
    /// What the wall clock said at the zero of all instants
    Wall(SystemTime),
}

/// What the machine asks of its owner
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Do something for a network
    Network(NetworkName, u64, Action),
    /// Write down how much of the node's quota was used
    Keep(Used),
    /// Read the configuration
    ReadConfig(Option<RequestId>),
    /// Say how much of the node's quota was used, as it was written down
    Recall,
    /// Answer a request
    Reply(RequestId, Answer),
    /// All is down: the daemon may end
    Stopped,
}

/// Effects, in the order in which they are to be done
pub(super) type Effects = Vec<Effect>;

/// Wall clocks that differ less than this count as the same, so that times do not flicker
const WALL_STEP: Duration = Duration::from_millis(500);

/// Everything that the daemon knows and wants
#[derive(Debug)]
pub(super) struct State {
    hostname: String,
    config: Config,
    networks: BTreeMap<NetworkName, Network>,
    node: Node,
    /// Nothing before they were told for the first time
    local: Option<Vec<IpAddr>>,
    zero: SystemTime,
    stopping: bool,
}

impl State {
    /// Starts all networks of `config` that are to come up by themselves
    pub(super) fn new(hostname: String, config: Config, now: Instant) -> (Self, Effects) {
        let mut state = Self {
            hostname,
            config: Config::default(),
            networks: BTreeMap::new(),
            node: Node::new(now),
            local: None,
            zero: SystemTime::UNIX_EPOCH,
            stopping: false,
        };
        let mut effects = Effects::new();
        state.reload(config, now);
        state.settle(now, &mut effects);
        (state, effects)
    }

    /// Takes one input; returns what is to be done
    pub(super) fn apply(&mut self, input: Input, now: Instant) -> Effects {
        let mut effects = Effects::new();
        match input {
            Input::Command(id, command) => self.on_command(id, command, now, &mut effects),
            Input::Config(id, config) => self.on_config(id, config, now, &mut effects),
            Input::Hangup => {
                if !self.stopping {
                    effects.push(Effect::ReadConfig(None));
                }
            }
            Input::Local(local) => self.on_local(local, now),
            Input::Network(name, life, news) => {
                let network = self.networks.get_mut(&name);
                if let Some(network) = network.filter(|network| network.life() == life) {
                    network.on_news(news, now);
                }
            }
            Input::Interface(interface, news) => {
                let ours = |network: &&mut Network| network.config.interface == interface;
                if let Some(network) = self.networks.values_mut().find(ours) {
                    network.on_news(news, now);
                }
            }
            Input::Released(caller) => {
                self.networks.values_mut().for_each(|network| network.release(&caller));
            }
            Input::Recalled(used) => self.node.budget.on_recalled(used),
            Input::Stop => {
                self.stopping = true;
                self.networks.values_mut().for_each(Network::halt);
            }
            Input::Tick => {}
            Input::Wall(zero) => self.on_wall(zero),
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Returns when [`Input::Tick`] is due next
    pub(super) fn deadline(&self) -> Instant {
        self.networks.values().map(Network::deadline).min().unwrap_or(Instant::FAR)
    }

    /// Returns what may be seen
    pub(super) fn snapshot(&self) -> Snapshot {
        let view = |(name, network): (&NetworkName, &Network)| {
            let mut view = network_view(network, self.zero);
            view.quota = view.quota.or_else(|| self.node.budget.view());
            if view.state == NetworkState::Up && view.detail.is_empty() {
                view.detail = self.node.budget.detail();
            }
            (name.clone(), view)
        };
        Snapshot { networks: self.networks.iter().map(view).collect() }
    }

    /// Returns the configuration of a network
    pub(super) fn config_of(&self, name: &NetworkName) -> Option<&NetworkConfig> {
        self.networks.get(name).map(|network| &network.config)
    }

    fn on_command(&mut self, id: RequestId, command: Command, now: Instant, effects: &mut Effects) {
        let answer = match command {
            Command::Connect(..) if self.stopping => {
                Some(Answer::Connect(Err(HandleError::Stopping)))
            }
            Command::Connect(name, apply) => match self.configured(&name) {
                Ok(network) => network.connect(id, apply, now),
                Err(error) => Some(Answer::Connect(Err(error))),
            },
            Command::Disconnect(name) => match self.configured(&name) {
                Ok(network) => network.disconnect(id),
                Err(error) => Some(Answer::Disconnect(Err(error))),
            },
            Command::Members { network, request, secret } => {
                let asked = self
                    .configured(&network)
                    .and_then(|network| network.members(id, request, &secret, now));
                asked.transpose().map(Answer::Members)
            }
            Command::Ping { network, peer, timeout } => {
                let asked = self
                    .configured(&network)
                    .and_then(|network| network.ping(id, &peer, timeout, now));
                asked.err().map(|error| Answer::Ping(Err(error)))
            }
            Command::Reload if self.stopping => Some(Answer::Reload(Err(HandleError::Stopping))),
            Command::Reload => {
                effects.push(Effect::ReadConfig(Some(id)));
                None
            }
        };
        if let Some(answer) = answer {
            effects.push(Effect::Reply(id, answer));
        }
    }

    fn on_config(
        &mut self,
        id: Option<RequestId>,
        config: Result<Config, String>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let result = match config {
            Ok(_) if self.stopping => Err(HandleError::Stopping),
            Ok(config) => Ok(self.reload(config, now)),
            Err(problems) => {
                warn!(%problems, "the configuration has problems; the old one stays in force");
                Err(HandleError::Config(problems))
            }
        };
        if let Some(id) = id {
            effects.push(Effect::Reply(id, Answer::Reload(result)));
        }
    }

    /// Makes the networks as `config` says; only what changed is touched
    fn reload(&mut self, config: Config, now: Instant) -> Reloaded {
        let changes = difference(&self.config, &config);
        let mut reloaded = Reloaded::default();
        for change in changes {
            let Some(new) = config.networks.get(&change.name).cloned() else {
                info!(network = %change.name, "network was removed from the configuration");
                if let Some(network) = self.networks.get_mut(&change.name) {
                    network.remove();
                }
                reloaded.removed.push(change.name);
                continue;
            };
            match change.kind {
                ChangeKind::Added | ChangeKind::Removed => {
                    self.add(new, now);
                    reloaded.added.push(change.name);
                }
                ChangeKind::Live => {
                    if let Some(network) = self.networks.get_mut(&change.name) {
                        network.reconfigure(new, now);
                    }
                    reloaded.changed.push(change.name);
                }
                ChangeKind::Restart(why) => {
                    info!(network = %change.name, why, "network starts anew");
                    if let Some(network) = self.networks.get_mut(&change.name) {
                        network.restart(new);
                    }
                    reloaded.restarted.push(change.name);
                }
            }
        }
        self.config = config;
        reloaded
    }

    fn add(&mut self, config: NetworkConfig, now: Instant) {
        let hostname = self.hostname.clone();
        let autoconnect = config.autoconnect;
        let fresh = || Network::new(config.clone(), hostname);
        let network = self.networks.entry(config.name.clone()).or_insert_with(fresh);
        // It may still be on its way down after an earlier reload.
        network.on_wall(self.zero);
        network.restart(config);
        network.on_local(self.local.as_deref().unwrap_or_default(), now);
        if autoconnect {
            network.start();
        }
    }

    fn configured(&mut self, name: &NetworkName) -> Result<&mut Network, HandleError> {
        self.networks
            .get_mut(name)
            .filter(|network| !network.is_removed())
            .ok_or_else(|| HandleError::UnknownNetwork(name.to_string()))
    }

    fn on_local(&mut self, local: Vec<IpAddr>, now: Instant) {
        let news = self.local.replace(local.clone()).is_some();
        for network in self.networks.values_mut() {
            network.on_local(&local, now);
            if news {
                network.on_paths_changed(now);
            }
        }
    }

    fn on_wall(&mut self, zero: SystemTime) {
        let apart = zero.duration_since(self.zero).unwrap_or_else(|error| error.duration());
        if apart >= WALL_STEP {
            self.zero = zero;
            self.node.budget.on_wall(zero);
            self.networks.values_mut().for_each(|network| network.on_wall(zero));
        }
    }

    fn settle(&mut self, now: Instant, effects: &mut Effects) {
        self.networks.values_mut().for_each(|network| network.wake(now));
        self.settle_node(now, effects);
        for (name, network) in &mut self.networks {
            let settled = network.settle(now);
            let life = network.life();
            let action = |action| Effect::Network(name.clone(), life, action);
            effects.extend(settled.actions.into_iter().map(action));
            let reply = |(id, answer)| Effect::Reply(id, answer);
            effects.extend(settled.replies.into_iter().map(reply));
        }
        self.networks.retain(|_, network| !(network.is_removed() && network.is_down()));
        if self.stopping && self.networks.values().all(Network::is_down) {
            effects.extend(self.node.budget.keep(now).map(Effect::Keep));
            effects.push(Effect::Stopped);
        }
    }

    /// Follows the bounds of the node, and shares them out
    fn settle_node(&mut self, now: Instant, effects: &mut Effects) {
        let old = self.node.set(self.config.node, now);
        effects.extend(old.map(Effect::Keep));
        if self.node.budget.recall() {
            effects.push(Effect::Recall);
        }
        self.node.share(self.networks.values_mut(), now);
        effects.extend(self.node.budget.poll(now).map(Effect::Keep));
    }
}

/// Returns one line on how things stand, for the service manager
pub(super) fn status(snapshot: &Snapshot) -> String {
    let is_up =
        |view: &&NetworkView| matches!(view.state, NetworkState::Up | NetworkState::HubLost);
    let networks = snapshot.networks.values().filter(is_up).count();
    let has_session =
        |peer: &&PeerView| matches!(peer.state, PeerLink::Connected | PeerLink::Unresponsive);
    let peers = snapshot.networks.values().flat_map(|view| view.peers.values());
    let peers = peers.filter(has_session).count();
    let plural = |n, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!("{} up, {}", plural(networks, "network"), plural(peers, "peer"))
}
