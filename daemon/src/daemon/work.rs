//! What effects do to the system, one network at a time.
//!
//! A [`Worker`] owns the plane of one network and a task that makes and undoes its interface, one
//! job after the other. Results go back to the control machine as inputs.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fastvpn_proto::node::{Choice, NodeConfig};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::action::{Action, News, Start, Started};
use super::kept;
use super::naming::Naming;
use super::quota::Used;
use super::state::Input;
use crate::config::{NetworkConfig, RoleConfig};
use crate::dns::Host;
use crate::handle::{HandleError, NetworkName};
use crate::notify::Store;
use crate::plane::tun::{self, TunError};
use crate::plane::{DeviceNumber, Plane, PlaneCommand, PlaneEvent, PlaneHandle, Streams};
use crate::registry::{Change, Database, Members, Registry, RegistryError};
use crate::system::{Extent, InterfacePlan, Netlink, Resolved, SystemError};

/// Time for split connections to be handed over to the next daemon
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// Time for a plane to say goodbye and end, and for an interface to be undone
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Time for a name to be resolved
const RESOLVE_LIMIT: Duration = Duration::from_secs(8);

/// Most data threads of a network of which nothing is said: each wakes once a second and has buffers of its own
const THREADS_MOST: usize = 8;

/// What the names of kept TUNs begin with
pub(super) const KEPT: &str = "tun-";
/// The same for the TUN of a network that is up for a caller, who has to ask for it again
pub(super) const LENT: &str = "lent-";

/// What each worker needs to know of the daemon
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// Where results go
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) netlink: Netlink,
    /// The way to systemd-resolved, if there is one
    pub(super) resolved: Option<Resolved>,
    pub(super) state_dir: PathBuf,
    /// What outlives the daemon
    pub(super) store: Store,
}

/// The system's side of one network
#[derive(Debug)]
pub(super) struct Worker {
    name: NetworkName,
    context: Context,
    plane: Option<Running>,
    /// The plane that ends, as long as it is there
    ending: Weak<PlaneHandle>,
    jobs: mpsc::UnboundedSender<Job>,
}

/// A plane that runs
#[derive(Debug)]
struct Running {
    handle: Arc<PlaneHandle>,
    /// Of which carriers connections are accepted
    accept: Choice,
    /// Filled when its last event has come
    ended: oneshot::Receiver<()>,
}

/// One job of the task
#[derive(Debug)]
enum Job {
    Forget(PathBuf),
    Keep(Used),
    Hosts(Arc<[Host]>),
    Open {
        life: u64,
        config: Box<NetworkConfig>,
    },
    Write {
        life: u64,
        changes: Vec<Change>,
    },
    Interface {
        life: u64,
        plan: InterfacePlan,
        fresh: Option<DeviceNumber>,
        plane: Arc<PlaneHandle>,
    },
    Stop {
        life: u64,
        plane: Option<Running>,
        interface: Option<(String, String)>,
        handover: bool,
    },
}

impl Worker {
    /// Makes the worker of a network of which nothing runs
    pub(super) fn new(name: NetworkName, context: Context) -> Self {
        let (jobs, queue) = mpsc::unbounded_channel();
        tokio::spawn(work(name.clone(), context.clone(), queue));
        Self { name, context, plane: None, ending: Weak::new(), jobs }
    }

    /// Begins an action; returns news where there are some at once
    pub(super) fn act(
        &mut self,
        life: u64,
        action: Action,
        config: Option<&NetworkConfig>,
    ) -> Option<News> {
        self.follow(config);
        match action {
            Action::Carry(carry) => self.send(PlaneCommand::Carry(carry)),
            Action::Forget(file) => self.queue(Job::Forget(file)),
            Action::Keep(used) => self.queue(Job::Keep(used)),
            Action::Names(hosts) => self.queue(Job::Hosts(hosts)),
            Action::Node(command) => self.send(PlaneCommand::Node(command)),
            Action::Open => match config {
                Some(config) => self.queue(Job::Open { life, config: Box::new(config.clone()) }),
                None => return Some(News::Opened(Err(self.unknown()))),
            },
            Action::Recall => return Some(News::Recalled(kept::recall(&self.quota_file()))),
            Action::Interface { plan, fresh } => {
                if let Some(running) = &self.plane {
                    let plane = Arc::clone(&running.handle);
                    self.queue(Job::Interface { life, plan, fresh, plane });
                }
            }
            Action::Resolve(endpoint) => {
                tokio::spawn(resolve(
                    self.name.clone(),
                    life,
                    endpoint,
                    self.context.inputs.clone(),
                ));
            }
            Action::Start(start) => {
                return Some(News::Started(match config {
                    Some(config) => self.start(life, &start, config),
                    None => Err(self.unknown()),
                }));
            }
            Action::Write(changes) => self.queue(Job::Write { life, changes }),
            Action::Stop { interface, handover } => {
                let plane = self.plane.take();
                if let Some(running) = &plane {
                    let drain = if handover { DRAIN_LIMIT } else { Duration::ZERO };
                    running.handle.send(PlaneCommand::Stop { drain });
                    self.ending = Arc::downgrade(&running.handle);
                }
                self.queue(Job::Stop { life, plane, interface, handover });
            }
        }
        None
    }

    /// Has the plane accept what the configuration now says
    fn follow(&mut self, config: Option<&NetworkConfig>) {
        if let (Some(running), Some(config)) = (&mut self.plane, config)
            && running.accept != config.carrier
        {
            running.accept = config.carrier;
            running.handle.send(PlaneCommand::Accept(config.carrier));
        }
    }

    /// Tells whether the plane, if there is one, made a turn of late
    pub(super) fn is_healthy(&self, within: Duration) -> bool {
        self.plane.as_ref().is_none_or(|running| running.handle.healthy(within))
    }

    fn start(
        &mut self,
        life: u64,
        start: &Start,
        config: &NetworkConfig,
    ) -> Result<Started, HandleError> {
        let node = NodeConfig {
            private_key: config.private_key.clone(),
            network_key: config.network_key.clone(),
            seed: random()?,
            aes: config.cipher.prefers_aes(has_aes()),
            admission: start.admission,
            relay: start.relay,
            silence: start.silence,
            engine: start.engine,
        };
        let streams = Streams { runtime: Handle::current(), accept: config.carrier };
        let threads = config.threads.unwrap_or_else(threads);
        let started =
            Plane::start(config.name.as_str(), &node, start.listen, Some(&streams), threads);
        let (handle, events, listening) =
            started.map_err(|error| cannot_listen(&error, start.listen))?;
        let (sender, ended) = oneshot::channel();
        tokio::spawn(forward(self.name.clone(), life, events, self.context.inputs.clone(), sender));
        self.plane = Some(Running { handle: Arc::new(handle), accept: config.carrier, ended });
        let nonce = u64::from_be_bytes(random()?);
        Ok(Started { listening, nonce })
    }

    fn unknown(&self) -> HandleError {
        HandleError::UnknownNetwork(self.name.to_string())
    }

    fn quota_file(&self) -> PathBuf {
        quota_file(&self.context.state_dir, &self.name)
    }

    fn send(&self, command: PlaneCommand) {
        if let Some(running) = &self.plane {
            running.handle.send(command);
        } else if let Some(ending) = self.ending.upgrade() {
            ending.send(command);
        }
    }

    fn queue(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            debug!(network = %self.name, "the worker has ended");
        }
    }
}

/// Does the jobs of one network, one after the other
async fn work(name: NetworkName, context: Context, mut jobs: mpsc::UnboundedReceiver<Job>) {
    // Another process may serve an interface of the same name and alias: that one is not to be undone.
    let mut made = false;
    let mut naming = Naming::new(name.clone(), &context);
    let mut kept: Option<Database> = None;
    while let Some(job) = jobs.recv().await {
        let (life, news) = match job {
            Job::Hosts(hosts) => {
                naming.on_hosts(hosts);
                continue;
            }
            Job::Interface { life, plan, fresh, plane } => {
                let result = make(&name, &context, &plan, fresh, &plane).await;
                if fresh.is_some() {
                    made = result.is_ok();
                }
                if let Ok(index) = &result {
                    naming.on_applied(life, *index, &plan).await;
                }
                (life, News::Applied(result.map(|_| ())))
            }
            Job::Forget(file) => {
                forget(&name, file).await;
                continue;
            }
            Job::Keep(used) => {
                let file = quota_file(&context.state_dir, &name);
                // A slow disk must not hold up everything else.
                let written = spawn_blocking(move || kept::keep(&file, used));
                if written.await.is_err() {
                    debug!(network = %name, "the end came before the quota was written");
                }
                continue;
            }
            Job::Open { life, config } => {
                kept = None;
                let opened = open(&context.state_dir, config).await;
                let opened = opened.map(|(database, members)| {
                    kept = Some(database);
                    members
                });
                (life, News::Opened(opened.map_err(|error| HandleError::System(chain(&error)))))
            }
            Job::Write { life, changes } => {
                (life, News::Written(write(&context.state_dir, &name, &mut kept, changes).await))
            }
            Job::Stop { life, plane, interface, handover } => {
                naming.stop().await;
                let interface = interface.filter(|_| core::mem::take(&mut made));
                end(&name, plane, if handover { DRAIN_LIMIT } else { Duration::ZERO }).await;
                // What is kept must not be undone; if nobody keeps it, it ends with this process.
                if !(handover && context.store.is_kept()) {
                    for extent in [Extent::Device, Extent::Whole] {
                        context.store.forget(&kept_name(&name, extent));
                    }
                    undo(&name, &context.netlink, interface).await;
                }
                close(&mut kept).await;
                (life, News::Stopped)
            }
        };
        if context.inputs.send(Input::Network(name.clone(), life, news)).await.is_err() {
            return;
        }
    }
}

/// Deletes the secret of an invitation that was used
async fn forget(network: &NetworkName, file: PathBuf) {
    let path = file.clone();
    match spawn_blocking(move || std::fs::remove_file(path)).await {
        Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            // It is worth nothing to others: the hub knows whose it is.
            warn!(%network, file = %file.display(), %error, "used ticket cannot be deleted");
        }
        Ok(Ok(()) | Err(_)) => debug!(%network, "invitation was used"),
        Err(_) => debug!(%network, "the end came before the ticket was deleted"),
    }
}

/// Makes an interface as planned, and returns its index; a fresh one goes to the plane, or is gone again if it fails
async fn make(
    name: &NetworkName,
    Context { netlink, store, .. }: &Context,
    plan: &InterfacePlan,
    fresh: Option<DeviceNumber>,
    plane: &PlaneHandle,
) -> Result<u32, HandleError> {
    let Some(device) = fresh else {
        return netlink.apply(plan).await.map_err(|error| refused(&error));
    };
    plane.send(PlaneCommand::CloseTun);
    let kept = kept_name(name, plan.extent);
    let left = store.take(&kept).and_then(|fd| tun::adopt(fd, &plan.interface));
    let ours = netlink.is_ours(&plan.interface, &plan.alias).await;
    let left = left.filter(|_| matches!(ours, Ok(true)));
    if left.is_none() {
        store.forget(&kept);
        netlink.claim(&plan.interface, &plan.alias).await.map_err(|error| refused(&error))?;
    }
    if let Some(reason) = netlink.conflict(plan).await.map_err(|error| refused(&error))? {
        return Err(HandleError::Conflict(reason));
    }
    let count = plane.threads();
    let queues = if let Some(fd) = left {
        debug!(network = %name, "going on with the interface of an earlier daemon");
        let more = tun::more_queues(&fd, &plan.interface, count - 1);
        let mut queues = more.map_err(|error| no_device(&error))?;
        queues.insert(0, fd);
        queues
    } else {
        let queues = tun::open_queues(&plan.interface, count).map_err(|error| no_device(&error))?;
        // The first one is enough for the device to be there.
        store.keep(&kept, &queues[0]);
        queues
    };
    let index = netlink.apply(plan).await.map_err(|error| refused(&error))?;
    plane.send(PlaneCommand::Tun { device, queues, mtu: plan.mtu });
    Ok(index)
}

/// Waits for the end of a plane, which may take `drain` longer than usual
async fn end(name: &NetworkName, plane: Option<Running>, drain: Duration) {
    if let Some(Running { handle, ended, accept: _ }) = plane {
        if timeout(STOP_LIMIT + drain, ended).await.is_err() {
            warn!(network = %name, "the data thread does not end");
        }
        drop(handle);
    }
}

async fn undo(name: &NetworkName, netlink: &Netlink, interface: Option<(String, String)>) {
    if let Some((interface, alias)) = interface {
        match timeout(STOP_LIMIT, netlink.undo(&interface, &alias)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(network = %name, reason = chain(&error), "interface cannot be undone");
            }
            Err(_) => warn!(network = %name, "interface cannot be undone in time"),
        }
    }
}

/// Passes a plane's events on, until the last one
async fn forward(
    name: NetworkName,
    life: u64,
    mut events: mpsc::Receiver<Vec<PlaneEvent>>,
    inputs: mpsc::Sender<Input>,
    ended: oneshot::Sender<()>,
) {
    while let Some(batch) = events.recv().await {
        let input = Input::Network(name.clone(), life, News::Plane(batch));
        if inputs.send(input).await.is_err() {
            break;
        }
    }
    // Nobody waits for it where the daemon is gone already.
    let _ = ended.send(());
}

async fn resolve(name: NetworkName, life: u64, endpoint: String, inputs: mpsc::Sender<Input>) {
    let addresses = match timeout(RESOLVE_LIMIT, tokio::net::lookup_host(endpoint.as_str())).await {
        Ok(Ok(found)) => Ok(found.collect::<Vec<SocketAddr>>()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    };
    let addresses = addresses.and_then(|found| {
        if found.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
    });
    let news = News::Resolved { endpoint, addresses };
    if inputs.send(Input::Network(name, life, news)).await.is_err() {
        debug!("resolved too late");
    }
}

/// Under which name the TUN of a network is kept from one daemon to the next
fn kept_name(network: &NetworkName, extent: Extent) -> String {
    match extent {
        Extent::Device => format!("{LENT}{network}"),
        Extent::Whole => format!("{KEPT}{network}"),
    }
}

fn quota_file(state_dir: &Path, network: &NetworkName) -> PathBuf {
    state_dir.join("quota").join(network.as_str())
}

/// Opens what a hub keeps, on a thread that may wait for the disk
async fn open(
    state_dir: &Path,
    config: Box<NetworkConfig>,
) -> Result<(Database, Box<Members>), RegistryError> {
    let (state_dir, name) = (state_dir.to_owned(), config.name.clone());
    let file = Database::file(&state_dir, &name);
    let opened = spawn_blocking(move || {
        let mut database = Database::open(&state_dir, &config.name)?;
        let contents = database.load()?;
        let RoleConfig::Hub(hub) = &config.role else {
            return Err(RegistryError::Unsupported("members, as this node is a peer"));
        };
        let file = Database::file(&state_dir, &config.name);
        Ok((database, Box::new(Members::new(&config, hub, contents, &file))))
    });
    opened.await.unwrap_or_else(|_| Err(ending(file)))
}

/// Writes down what a hub keeps, on a thread that may wait for the disk
async fn write(
    state_dir: &Path,
    name: &NetworkName,
    kept: &mut Option<Database>,
    changes: Vec<Change>,
) -> Result<(), RegistryError> {
    let file = Database::file(state_dir, name);
    let Some(mut database) = kept.take() else { return Err(ending(file)) };
    let written = spawn_blocking(move || {
        let result = database.commit(&changes);
        (database, result)
    });
    let Ok((database, result)) = written.await else { return Err(ending(file)) };
    *kept = Some(database);
    result
}

/// Closes what a hub keeps, so that it can be opened again
async fn close(kept: &mut Option<Database>) {
    if let Some(database) = kept.take()
        && spawn_blocking(move || drop(database)).await.is_err()
    {
        debug!("the end came before what a hub keeps was closed");
    }
}

/// The error of a file that is not open, as the daemon ends
fn ending(file: PathBuf) -> RegistryError {
    RegistryError::Write { file, source: io::Error::other("it is not open") }
}

/// Returns random bytes of the system
pub(super) fn random<const N: usize>() -> Result<[u8; N], HandleError> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())
            .map_err(|error| HandleError::System(format!("no random numbers: {error}")))?;
    }
    Ok(bytes)
}

/// Returns how many data threads are of use on this machine
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MOST))
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

fn cannot_listen(error: &io::Error, listen: SocketAddr) -> HandleError {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = listen.port();
            HandleError::Conflict(format!("UDP port {port} is in use by another process"))
        }
        _ => HandleError::System(format!("cannot listen on {listen}: {}", chain(error))),
    }
}

fn refused(error: &SystemError) -> HandleError {
    match error {
        SystemError::Held(_) | SystemError::Taken(_) => HandleError::Conflict(chain(error)),
        SystemError::NoInterface(_) | SystemError::Netlink(_) | SystemError::Refused { .. } => {
            HandleError::System(chain(error))
        }
    }
}

fn no_device(error: &TunError) -> HandleError {
    match error {
        TunError::Busy(_) | TunError::Foreign(_) => HandleError::Conflict(chain(error)),
        TunError::Missing | TunError::Name(_) | TunError::Permission | TunError::System { .. } => {
            HandleError::System(chain(error))
        }
    }
}

/// Joins an error and its sources
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use fastvpn_proto::crypto::{NetworkKey, PrivateKey};
    use fastvpn_proto::node::Admission;

    use super::*;
    use crate::netns::in_namespace;
    use crate::notify::Notifier;

    #[test]
    fn interface_that_another_process_serves_outlives_our_failure() {
        in_namespace(|| async {
            let other = Netlink::new().await.unwrap();
            let queue = tun::open("fvpn-t").unwrap();
            other.apply(&plan()).await.unwrap();
            let (inputs, mut news) = mpsc::channel(8);
            let netlink = Netlink::new().await.unwrap();
            let store = Notifier::from_environment().store();
            let state_dir = PathBuf::new();
            let context = Context { inputs, netlink, resolved: None, state_dir, store };
            let mut worker = Worker::new("t".parse().unwrap(), context);
            worker.plane = Some(running());

            worker.act(1, Action::Interface { plan: plan(), fresh: Some(DeviceNumber(1)) }, None);
            let interface = Some((plan().interface, plan().alias));
            worker.act(1, Action::Stop { interface, handover: false }, None);

            let Some(Input::Network(_, 1, News::Applied(Err(HandleError::Conflict(_))))) =
                news.recv().await
            else {
                panic!("it was made")
            };
            let Some(Input::Network(_, 1, News::Stopped)) = news.recv().await else {
                panic!("not stopped")
            };
            other.apply(&plan()).await.unwrap();
            drop(queue);
        });
    }

    fn running() -> Running {
        let node = NodeConfig {
            private_key: PrivateKey::from_bytes([1; 32]),
            network_key: NetworkKey::default(),
            seed: [1; 32],
            aes: false,
            admission: Admission::Known,
            relay: false,
            silence: Duration::from_secs(15),
            engine: fastvpn_proto::node::Engine::default(),
        };
        let (handle, mut events, _) =
            Plane::start("t", &node, "0.0.0.0:0".parse().unwrap(), None, 1).unwrap();
        let (sender, ended) = oneshot::channel();
        tokio::spawn(async move {
            while events.recv().await.is_some() {}
            sender.send(())
        });
        Running { handle: Arc::new(handle), accept: Choice::Auto, ended }
    }

    fn plan() -> InterfacePlan {
        InterfacePlan {
            interface: "fvpn-t".into(),
            alias: "fastvpn:t".into(),
            mtu: 1400,
            addresses: vec!["10.9.0.1/24".parse().unwrap()],
            ..InterfacePlan::default()
        }
    }
}
