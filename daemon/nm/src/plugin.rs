//! `org.freedesktop.NetworkManager.VPN.Plugin`: what NetworkManager calls, and what it is told.
//!
//! Methods become [`Call`]s of whoever serves them; signals are sent by a [`Voice`]. Nothing here
//! decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{mpsc, oneshot};
use zbus::object_server::SignalEmitter;
use zbus::{Connection, DBusError, OwnedVariant, interface};

use crate::translate::{Handover, Reason, Settings, Values};

/// Where NetworkManager looks for the plugin
pub(crate) const PATH: &str = "/org/freedesktop/NetworkManager/VPN/Plugin";

/// Where a connection is in its life, in NetworkManager's words
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// Nobody has asked for anything
    Init = 1,
    /// The network comes up
    Starting = 3,
    /// It is handed over
    Started = 4,
    /// It goes down
    Stopping = 5,
    /// It is down
    Stopped = 6,
}

/// Why a method failed, under the names that NetworkManager knows
#[derive(Debug, DBusError, PartialEq)]
#[zbus(prefix = "org.freedesktop.NetworkManager.VPN.Error")]
pub(crate) enum PluginError {
    /// There is a connection already, and it is one for each process
    AlreadyStarted(String),
    /// There is no connection
    AlreadyStopped(String),
    /// Nothing of that kind is ever asked for
    WrongState(String),
    /// What the bus or its library says
    #[zbus(error)]
    ZBus(zbus::Error),
}

/// The place for the answer to a call
pub(crate) type Reply = oneshot::Sender<Result<(), PluginError>>;

/// A call that waits for its answer
#[derive(Debug)]
pub(crate) enum Call {
    /// Bring a network up; answered before it is
    Connect(Settings, Reply),
    /// Take it down; answered when it is
    Disconnect(Reply),
}

/// The object that NetworkManager calls
pub(crate) struct Plugin {
    calls: mpsc::Sender<Call>,
    state: Arc<AtomicU32>,
}

/// What NetworkManager is told, in the order in which it is told
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    bus: Connection,
    state: Arc<AtomicU32>,
}

impl Plugin {
    /// Makes the object, and the state that it shows
    pub(crate) fn new(calls: mpsc::Sender<Call>) -> (Self, Arc<AtomicU32>) {
        let state = Arc::new(AtomicU32::new(State::Init as u32));
        (Self { calls, state: Arc::clone(&state) }, state)
    }

    async fn ask(&self, call: impl FnOnce(Reply) -> Call) -> Result<(), PluginError> {
        let over = || PluginError::WrongState("the plugin is about to end".to_owned());
        let (reply, answer) = oneshot::channel();
        self.calls.send(call(reply)).await.map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }
}

#[interface(name = "org.freedesktop.NetworkManager.VPN.Plugin", introspection_docs = false)]
impl Plugin {
    async fn connect(&self, connection: Settings) -> Result<(), PluginError> {
        self.ask(|reply| Call::Connect(connection, reply)).await
    }

    /// There is nothing to ask people
    async fn connect_interactive(
        &self,
        connection: Settings,
        _details: HashMap<String, OwnedVariant>,
    ) -> Result<(), PluginError> {
        self.ask(|reply| Call::Connect(connection, reply)).await
    }

    async fn disconnect(&self) -> Result<(), PluginError> {
        self.ask(Call::Disconnect).await
    }

    /// Names the settings whose secrets are missing; a network's keys are fastvpnd's own
    async fn need_secrets(&self, _settings: Settings) -> &str {
        ""
    }

    async fn new_secrets(&self, _connection: Settings) -> Result<(), PluginError> {
        Err(PluginError::WrongState("no secrets were asked for".to_owned()))
    }

    async fn set_config(&self, _config: HashMap<String, OwnedVariant>) -> Result<(), PluginError> {
        Err(from_the_daemon())
    }

    async fn set_ip4_config(
        &self,
        _config: HashMap<String, OwnedVariant>,
    ) -> Result<(), PluginError> {
        Err(from_the_daemon())
    }

    async fn set_failure(&self, _reason: &str) -> Result<(), PluginError> {
        Err(from_the_daemon())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn state(&self) -> u32 {
        self.state.load(Ordering::Relaxed)
    }

    #[zbus(signal)]
    async fn state_changed(emitter: &SignalEmitter<'_>, state: u32) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn config(emitter: &SignalEmitter<'_>, config: Values) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn ip4_config(emitter: &SignalEmitter<'_>, config: Values) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn ip6_config(emitter: &SignalEmitter<'_>, config: Values) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn failure(emitter: &SignalEmitter<'_>, reason: u32) -> zbus::Result<()>;
}

impl Voice {
    /// Speaks on `bus`; `state` is what the object there shows
    pub(crate) fn new(bus: Connection, state: Arc<AtomicU32>) -> Self {
        Self { bus, state }
    }

    /// Tells that the connection is in another state
    pub(crate) async fn state(&self, state: State) -> zbus::Result<()> {
        self.state.store(state as u32, Ordering::Relaxed);
        Plugin::state_changed(&self.emitter()?, state as u32).await
    }

    /// Tells that the connection has failed
    pub(crate) async fn failure(&self, reason: Reason) -> zbus::Result<()> {
        Plugin::failure(&self.emitter()?, reason as u32).await
    }

    /// Tells what the interface is to be like; it may be told again
    pub(crate) async fn hand_over(&self, handover: Handover) -> zbus::Result<()> {
        let emitter = self.emitter()?;
        Plugin::config(&emitter, handover.config).await?;
        if let Some(ip4) = handover.ip4 {
            Plugin::ip4_config(&emitter, ip4).await?;
        }
        if let Some(ip6) = handover.ip6 {
            Plugin::ip6_config(&emitter, ip6).await?;
        }
        Ok(())
    }

    fn emitter(&self) -> zbus::Result<SignalEmitter<'static>> {
        SignalEmitter::new(&self.bus, PATH)
    }
}

fn from_the_daemon() -> PluginError {
    PluginError::WrongState("the configuration comes from fastvpnd".to_owned())
}
