//! The control side: one task that feeds a pure machine and does what it asks for.
//!
//! `State` decides, a [`Daemon`] brings it what happens and carries out its effects: through one
//! `Worker` for each network, and by answering who asked. Everything runs on one single-threaded
//! runtime; the planes have threads of their own.

mod action;
mod budget;
mod candidates;
#[cfg(test)]
pub(crate) mod fixture;
mod guests;
mod hub;
mod interface;
mod invite;
mod kept;
mod ledger;
mod list;
mod names;
mod naming;
mod network;
mod peer;
mod pings;
mod pulse;
mod quota;
mod roster;
mod share;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod tuning;
mod waiting;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use fastvpn_proto::crypto::InvitationSecret;
use fastvpn_proto::time::{Duration, Instant};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error, info};

use self::action::News;
use self::quota::Used;
use self::state::{Answer, Command, Effect, Input, RequestId, State};
use self::work::{Context, Worker, chain};
use crate::config::{self, Config};
use crate::handle::{
    Handle, HandleError, MembersReply, NetworkName, Outcome, PingReply, Reloaded, Request, Snapshot,
};
use crate::notify::{Notifier, Store};
use crate::plane::clock;
use crate::setup::Setup;
use crate::system::{Netlink, Resolved, ResolvedBus, SystemChange, SystemError, monitor};

/// Inputs that wait at one time
const INPUTS: usize = 256;
/// Inputs that are taken before anything is published
const BATCH: usize = 64;
/// Requests that wait at one time
const REQUESTS: usize = 64;
/// Time for everything to be taken down
const STOP_LIMIT: Duration = Duration::from_secs(8).saturating_add(work::DRAIN_LIMIT);
/// Time within which a healthy plane makes a turn
const HEALTH: Duration = Duration::from_secs(5);
/// How often it is compared what systemd-resolved knows of names
const LOOK_AT_RESOLVED: Duration = Duration::from_secs(30);
/// Time for a caller to ask again for a network that was up for him, after a restart
const LENT_LIFE: Duration = Duration::from_secs(20);
/// How often the wall clock and the health of planes are looked at
const LOOK: Duration = Duration::from_secs(1);

/// Why the daemon cannot run, or cannot go on
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Signals cannot be received
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The system does not let itself be asked or watched
    #[error("cannot reach the kernel's network configuration")]
    System(#[from] SystemError),
}

/// Feeds the control machine and does what it asks for
#[derive(Debug)]
pub struct Daemon {
    state: State,
    context: Context,
    config_dir: PathBuf,
    workers: BTreeMap<NetworkName, Worker>,
    /// Results that came at once, to be fed next
    next: VecDeque<Input>,
    inputs: mpsc::Receiver<Input>,
    requests: mpsc::Receiver<Request>,
    /// Has networks made and removed, which asks as everybody else does
    setup: Setup,
    changes: mpsc::Receiver<SystemChange>,
    signals: Signals,
    snapshots: watch::Sender<Arc<Snapshot>>,
    slots: BTreeMap<RequestId, Slot>,
    answers: Vec<(RequestId, Answer)>,
    last_request: u64,
    notifier: Notifier,
    ready: bool,
    /// When waiting for a clean end is over, once it has begun
    stop_by: Option<Instant>,
    stopped: bool,
    /// Whoever writes the node's own quota down
    keeping: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

/// The place for the answer to a request
#[derive(Debug)]
enum Slot {
    Connect(oneshot::Sender<Result<Outcome<()>, HandleError>>),
    Disconnect(oneshot::Sender<Result<Outcome<()>, HandleError>>),
    Members(oneshot::Sender<Result<MembersReply, HandleError>>),
    Ping(oneshot::Sender<Result<PingReply, HandleError>>),
    Reload(oneshot::Sender<Result<Reloaded, HandleError>>),
}

/// What woke the daemon
enum Woken {
    Change(SystemChange),
    Hangup,
    Input(Input),
    Look,
    Request(Request),
    Stop,
    Tick,
}

impl Daemon {
    /// Starts the networks of `config`; to be called within a tokio runtime
    ///
    /// systemd-resolved is told of their names on the bus `resolved`, if there is one.
    ///
    /// # Errors
    /// If signals cannot be received, or netlink is not to be had.
    pub async fn start(
        config_dir: PathBuf,
        state_dir: PathBuf,
        config: Config,
        resolved: Option<ResolvedBus>,
    ) -> Result<(Self, Handle), DaemonError> {
        let on = |kind| signal(kind).map_err(DaemonError::Signals);
        let signals = Signals {
            hangup: on(SignalKind::hangup())?,
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        };
        let netlink = Netlink::new().await?;
        let changes = monitor(&netlink)?;
        let (sender, inputs) = mpsc::channel(INPUTS);
        let (asked, requests) = mpsc::channel(REQUESTS);
        let (snapshots, seen) = watch::channel(Arc::default());
        let handle = Handle::new(asked, seen);
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (state, effects) = State::new(hostname, config, clock::now());
        let setup = Setup::new(config_dir.clone(), state_dir.clone(), handle.clone());
        let notifier = Notifier::from_environment();
        release(&notifier.store(), &state);
        let mut daemon = Self {
            state,
            context: Context {
                inputs: sender,
                netlink,
                resolved: resolved.map(|bus| Resolved::new(bus, LOOK_AT_RESOLVED)),
                state_dir,
                store: notifier.store(),
            },
            config_dir,
            workers: BTreeMap::new(),
            next: VecDeque::new(),
            inputs,
            requests,
            setup,
            changes,
            signals,
            snapshots,
            slots: BTreeMap::new(),
            answers: Vec::new(),
            last_request: 0,
            notifier,
            ready: false,
            stop_by: None,
            stopped: false,
            keeping: None,
        };
        daemon.look_at_wall();
        let local = daemon.context.netlink.local_addresses().await?;
        daemon.feed(Input::Local(local));
        effects.into_iter().for_each(|effect| daemon.run_effect(effect));
        daemon.drain();
        Ok((daemon, handle))
    }

    /// Tells the service manager that all is there
    pub fn ready(&mut self) {
        if self.stop_by.is_none() {
            self.ready = true;
            self.notifier.ready();
        }
    }

    /// Runs until a signal ends it
    pub async fn run(&mut self) {
        self.run_until(std::future::pending::<()>()).await;
    }

    /// Runs until `event`, or until a signal ends it
    pub async fn run_until<T>(&mut self, event: impl Future<Output = T>) {
        let mut event = std::pin::pin!(event);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.stopped && self.stop_by.is_none_or(|limit| clock::now() < limit) {
            let woken = tokio::select! {
                woken = self.wait() => woken,
                _ = looks.tick() => Woken::Look,
                _ = &mut event => return,
            };
            self.on_woken(woken);
            self.drain();
        }
        if !self.stopped {
            error!("not everything could be taken down in time");
        }
        if let Some(keeping) = self.keeping.take() {
            let _ = keeping.await;
        }
    }

    async fn wait(&mut self) -> Woken {
        let deadline = self.state.deadline();
        let tick = async {
            if deadline == Instant::FAR {
                std::future::pending().await
            } else {
                sleep(deadline.since(clock::now())).await;
            }
        };
        tokio::select! {
            Some(input) = self.inputs.recv() => Woken::Input(input),
            Some(request) = self.requests.recv() => Woken::Request(request),
            Some(change) = self.changes.recv() => Woken::Change(change),
            Some(()) = self.signals.hangup.recv() => Woken::Hangup,
            Some(()) = self.signals.interrupt.recv() => Woken::Stop,
            Some(()) = self.signals.terminate.recv() => Woken::Stop,
            () = tick => Woken::Tick,
        }
    }

    fn on_woken(&mut self, woken: Woken) {
        match woken {
            Woken::Change(SystemChange::AddressesChanged) => self.look_at_addresses(),
            Woken::Change(SystemChange::Drift(name)) => {
                self.feed(Input::Interface(name, News::Drift))
            }
            Woken::Change(SystemChange::InterfaceGone(name)) => {
                self.feed(Input::Interface(name, News::Gone));
            }
            Woken::Hangup => self.feed(Input::Hangup),
            Woken::Input(input) => self.feed(input),
            Woken::Look => {
                self.look_at_wall();
                let workers = &self.workers;
                let healthy = || workers.values().all(|worker| worker.is_healthy(HEALTH));
                self.notifier.watch(std::time::Instant::now(), healthy);
            }
            Woken::Request(request) => self.on_request(request),
            Woken::Stop => {
                if self.stop_by.is_none() {
                    info!("stopping");
                    self.notifier.stopping();
                    self.stop_by = Some(clock::now() + STOP_LIMIT);
                    self.feed(Input::Stop);
                } else {
                    info!("told again to stop: waiting for nothing");
                    self.stop_by = Some(clock::now());
                }
            }
            Woken::Tick => self.feed(Input::Tick),
        }
    }

    /// Takes what else is there, then shows the result, and answers who asked for it
    fn drain(&mut self) {
        for _ in 0..BATCH {
            if let Some(input) = self.next.pop_front() {
                self.feed(input);
            } else if let Ok(input) = self.inputs.try_recv() {
                self.feed(input);
            } else {
                break;
            }
        }
        // What came at once has to be fed even if the batch is full.
        while let Some(input) = self.next.pop_front() {
            self.feed(input);
        }
        self.publish();
        for (id, answer) in core::mem::take(&mut self.answers) {
            if let Some(slot) = self.slots.remove(&id) {
                slot.fill(answer);
            }
        }
    }

    fn feed(&mut self, input: Input) {
        for effect in self.state.apply(input, clock::now()) {
            self.run_effect(effect);
        }
    }

    fn run_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Network(name, life, action) => {
                let context = &self.context;
                let worker = self
                    .workers
                    .entry(name.clone())
                    .or_insert_with(|| Worker::new(name.clone(), context.clone()));
                if let Some(news) = worker.act(life, action, self.state.config_of(&name)) {
                    self.next.push_back(Input::Network(name, life, news));
                }
            }
            Effect::Keep(used) => self.keep(used),
            Effect::ReadConfig(id) => self.read_config(id),
            Effect::Recall => {
                self.next.push_back(Input::Recalled(kept::recall(&self.quota_file())));
            }
            Effect::Reply(id, answer) => self.answers.push((id, answer)),
            Effect::Stopped => self.stopped = true,
        }
    }

    fn read_config(&mut self, id: Option<RequestId>) {
        if self.ready {
            self.notifier.reloading();
        }
        let config = config::load(&self.config_dir, &self.context.state_dir);
        self.feed(Input::Config(id, config.map_err(|problems| problems.to_string())));
        if self.ready {
            self.notifier.ready();
        }
    }

    /// Writes the node's own quota down, on a thread that may wait for the disk; one after another,
    /// as all use the same file
    fn keep(&mut self, used: Used) {
        let file = self.quota_file();
        let before = self.keeping.take();
        self.keeping = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let _ = tokio::task::spawn_blocking(move || kept::keep(&file, used)).await;
        }));
    }

    /// The file of the node's own quota; no network can have this name
    fn quota_file(&self) -> PathBuf {
        self.context.state_dir.join("quota").join("NODE")
    }

    fn on_request(&mut self, request: Request) {
        let setup = self.setup.clone();
        let (command, slot) = match request {
            Request::Connect { network, apply, reply } => {
                (Command::Connect(network, apply), Slot::Connect(reply))
            }
            Request::CreateHub(spec, reply) => {
                return answer(reply, async move { setup.create_hub(spec).await });
            }
            Request::Disconnect(name, reply) => {
                (Command::Disconnect(name), Slot::Disconnect(reply))
            }
            Request::Join(spec, reply) => {
                return answer(reply, async move { setup.join(spec).await });
            }
            Request::Leave(name, reply) => {
                return answer(reply, async move { setup.leave(name).await });
            }
            Request::Members { network, request, reply } => {
                // Whoever may guess it may come in.
                let secret = match work::random() {
                    Ok(bytes) => InvitationSecret::from_bytes(bytes),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                        return;
                    }
                };
                (Command::Members { network, request, secret }, Slot::Members(reply))
            }
            Request::Ping { network, peer, timeout, reply } => {
                (Command::Ping { network, peer, timeout }, Slot::Ping(reply))
            }
            Request::Release(caller) => {
                self.feed(Input::Released(caller));
                return;
            }
            Request::Reload(reply) => (Command::Reload, Slot::Reload(reply)),
        };
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.slots.insert(id, slot);
        self.feed(Input::Command(id, command));
    }

    fn look_at_wall(&mut self) {
        let since_zero = Duration::from_nanos(clock::now().as_nanos());
        let zero = SystemTime::now().checked_sub(since_zero).unwrap_or(SystemTime::UNIX_EPOCH);
        self.feed(Input::Wall(zero));
    }

    fn look_at_addresses(&self) {
        let Context { inputs, netlink, .. } = self.context.clone();
        tokio::spawn(async move {
            match netlink.local_addresses().await {
                // The receiver lives as long as the daemon does.
                Ok(local) => drop(inputs.send(Input::Local(local)).await),
                Err(error) => debug!(reason = chain(&error), "addresses cannot be read"),
            }
        });
    }

    fn publish(&mut self) {
        let snapshot = self.state.snapshot();
        let networks = &snapshot.networks;
        self.workers.retain(|name, _| networks.contains_key(name));
        self.notifier.status(state::status(&snapshot));
        self.snapshots.send_if_modified(|seen| {
            let differs = **seen != snapshot;
            if differs {
                *seen = Arc::new(snapshot);
            }
            differs
        });
    }
}

/// Does work that asks the daemon in its turn, and answers when it is done
fn answer<T: Send + 'static>(
    reply: oneshot::Sender<Result<T, HandleError>>,
    work: impl Future<Output = Result<T, HandleError>> + Send + 'static,
) {
    tokio::spawn(async move {
        if reply.send(work.await).is_err() {
            debug!("who asked does not wait for the answer any more");
        }
    });
}

/// Releases what an earlier daemon left of networks that do not come up by themselves; what was lent
/// to a caller later, as he may ask for it again
fn release(store: &Store, state: &State) {
    let wanted =
        |name: &NetworkName| state.config_of(name).is_some_and(|config| config.autoconnect);
    for left in store.left() {
        if left.starts_with(work::LENT) {
            let store = store.clone();
            tokio::spawn(async move {
                sleep(LENT_LIFE).await;
                if store.left().contains(&left) {
                    store.forget(&left);
                }
            });
            continue;
        }
        let network = left.strip_prefix(work::KEPT).and_then(|name| name.parse().ok());
        if !network.as_ref().is_some_and(wanted) {
            store.forget(&left);
        }
    }
}

impl Slot {
    /// Gives the answer to who waits for it, if he still does
    fn fill(self, answer: Answer) {
        let gone = match (self, answer) {
            (Self::Connect(slot), Answer::Connect(answer)) => slot.send(answer).is_err(),
            (Self::Disconnect(slot), Answer::Disconnect(answer)) => slot.send(answer).is_err(),
            (Self::Members(slot), Answer::Members(answer)) => slot.send(answer).is_err(),
            (Self::Ping(slot), Answer::Ping(answer)) => slot.send(answer).is_err(),
            (Self::Reload(slot), Answer::Reload(answer)) => slot.send(answer).is_err(),
            (slot, answer) => {
                error!(?slot, ?answer, "answer of another kind than the request");
                false
            }
        };
        if gone {
            debug!("who asked does not wait for the answer any more");
        }
    }
}
