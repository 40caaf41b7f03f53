//! The life of one network as a connection of NetworkManager.
//!
//! [`Life::run`] has fastvpnd bring the network up, hands its plan over to NetworkManager, and
//! follows it: a plan that changes (the hub at another address, other routes) is handed over again,
//! and a fastvpnd that was restarted is asked again.
//!
//! # Contract
//!
//! - [`Life::run`] may be dropped at any time; then [`Life::end`].
//! - [`Life::end`] takes the network down only as far as it is ours: what fastvpnd or another
//!   program has brought up is left alone.

use std::collections::HashMap;

use fastvpn_dbus::types::{Apply, NetworkFacts, NetworkState, Plan, Properties};
use fastvpn_dbus::{BUS_NAME, Error, ManagerProxy, NETWORK, ROOT};
use futures_util::stream::{Select, StreamExt, select};
use tokio::time::{Duration, timeout};
use zbus::fdo::{DBusProxy, PropertiesProxy};
use zbus::message::Type;
use zbus::names::{BusName, InterfaceName, OwnedUniqueName};
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, Variant};

use crate::plugin::{State, Voice};
use crate::translate::{Handover, PlanError, Reason};

/// How a life has ended by itself
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// Somebody has taken the network down
    Down,
    /// It does not come up, or not again; with a sentence
    Failed(Reason, String),
}

/// One network that is brought up for NetworkManager
#[derive(Debug)]
pub(crate) struct Life {
    bus: Connection,
    voice: Voice,
    network: String,
    /// Whom we have asked for it
    daemon: Option<OwnedUniqueName>,
    /// Whether the network may be up for us
    held: bool,
    started: bool,
    /// What NetworkManager was told last
    told: Option<Plan>,
}

/// Why a network that is up is followed no longer
enum Lost {
    /// fastvpnd is gone
    Daemon,
    /// The network is down, or up for somebody else
    Down,
    /// The network has failed
    Failed,
    /// The plan cannot be handed over
    Plan(PlanError),
}

impl Life {
    /// Makes the life of a network that has not begun
    pub(crate) fn new(bus: Connection, voice: Voice, network: String) -> Self {
        Self { bus, voice, network, daemon: None, held: false, started: false, told: None }
    }

    /// Brings the network up and follows it to its end
    pub(crate) async fn run(&mut self) -> End {
        loop {
            let lost = match self.bring_up().await {
                Ok(path) => self.follow(path).await,
                Err(error) => return End::Failed(Reason::of(&error), error.to_string()),
            };
            match lost {
                // It says why only to who asks for it again.
                Ok(Lost::Failed) => {}
                Ok(Lost::Daemon) => {
                    self.held = false;
                    if !self.daemon_is_back().await {
                        return failed("fastvpnd has stopped");
                    }
                }
                Ok(Lost::Down) => {
                    self.held = false;
                    return End::Down;
                }
                Ok(Lost::Plan(error)) => {
                    return End::Failed(Reason::BadConfig, error.to_string());
                }
                Err(error) => return failed(&error.to_string()),
            }
        }
    }

    /// Takes the network down, as far as it is up for us
    pub(crate) async fn end(self) {
        if !self.held {
            return;
        }
        let down = async {
            let manager = ManagerProxy::new(&self.bus).await?;
            manager.disconnect(&self.network).await
        };
        match timeout(DOWN_PATIENCE, down).await {
            Ok(Ok(())) => {}
            // fastvpnd takes it down when our connection to the bus is gone.
            Ok(Err(error)) => eprintln!("fastvpn: {:?} is not taken down: {error}", self.network),
            Err(_) => eprintln!("fastvpn: {:?} is not down in time", self.network),
        }
    }

    async fn bring_up(&mut self) -> Result<OwnedObjectPath, Error> {
        let manager = ManagerProxy::new(&self.bus).await?;
        let options = HashMap::from([("apply", Variant::from(Apply::Caller.as_str()))]);
        self.held = true;
        let result = manager.connect(&self.network, &options).await;
        // With any other error it may be up for us, or on its way.
        if let Err(
            Error::InUse(_)
            | Error::InvalidArgument(_)
            | Error::NotAuthorized(_)
            | Error::NotPeer(_)
            | Error::UnknownNetwork(_),
        ) = &result
        {
            self.held = false;
        }
        result
    }

    /// Hands over what the network's interface is to be like, and again when that changes
    async fn follow(&mut self, path: OwnedObjectPath) -> zbus::Result<Lost> {
        self.told = None;
        self.daemon = self.owner().await;
        let mut signals = self.signals(&path).await?;
        let properties = PropertiesProxy::new(&self.bus, BUS_NAME, path.clone()).await?;
        let interface = InterfaceName::from_static_str(NETWORK)?;
        let mut facts = NetworkFacts::default();
        facts.update(&properties.get_all(interface).await?)?;
        loop {
            if let Some(lost) = self.on_facts(&facts).await? {
                return Ok(lost);
            }
            let Some(signal) = signals.next().await else { return Ok(Lost::Daemon) };
            if let Some(lost) = read(&signal?, &path, &mut facts)? {
                return Ok(lost);
            }
        }
    }

    /// Takes what is so; returns why the network need not be followed further, if so
    async fn on_facts(&mut self, facts: &NetworkFacts) -> zbus::Result<Option<Lost>> {
        if facts.apply != Apply::Caller.as_str() {
            return Ok(Some(Lost::Down));
        }
        if facts.state == NetworkState::Down.as_str() {
            // Nobody has taken it from us: fastvpnd stops.
            return Ok(Some(Lost::Daemon));
        }
        if facts.state == NetworkState::Failed.as_str() {
            return Ok(Some(Lost::Failed));
        }
        if self.told.as_ref() == Some(&facts.plan) {
            return Ok(None);
        }
        match Handover::of(&facts.plan) {
            Ok(handover) => {
                self.told = Some(facts.plan.clone());
                self.voice.hand_over(handover).await?;
                if !self.started {
                    self.started = true;
                    self.voice.state(State::Started).await?;
                }
                Ok(None)
            }
            // They come in a moment.
            Err(PlanError::NoInterface | PlanError::NoGateway) => {
                self.told = None;
                Ok(None)
            }
            Err(error @ (PlanError::NoAddress | PlanError::NotAddress(_))) => {
                Ok(Some(Lost::Plan(error)))
            }
        }
    }

    /// Everything that the bus says about the network and about fastvpnd
    async fn signals(&self, path: &OwnedObjectPath) -> zbus::Result<Signals> {
        let signals = || MatchRule::builder().msg_type(Type::Signal);
        let network = signals().sender(BUS_NAME).path(path).build()?;
        let objects = signals().sender(BUS_NAME).path(ROOT).build()?;
        let owner = signals().sender(DBUS).member("NameOwnerChanged").arg(0, BUS_NAME).build()?;
        let stream = async |rule| MessageStream::for_match_rule(rule, &self.bus, None).await;
        let (network, objects) = (stream(network).await?, stream(objects).await?);
        Ok(select(select(network, objects), stream(owner).await?))
    }

    /// Waits for a fastvpnd that is being restarted, without starting it
    async fn daemon_is_back(&self) -> bool {
        let back = async {
            let bus = DBusProxy::new(&self.bus).await?;
            let mut owners = bus.receive_name_owner_changed_with_args(&[(0, BUS_NAME)]).await?;
            loop {
                let owner = self.owner().await;
                if owner.is_some() && owner != self.daemon {
                    return Ok(());
                }
                if owners.next().await.is_none() {
                    return Err(zbus::Error::Failure("the bus is gone".to_owned()));
                }
            }
        };
        matches!(timeout(RESTART_PATIENCE, back).await, Ok(zbus::Result::Ok(())))
    }

    /// Asks the bus who fastvpnd is at the moment, if it runs
    async fn owner(&self) -> Option<OwnedUniqueName> {
        let bus = DBusProxy::new(&self.bus).await.ok()?;
        bus.get_name_owner(BusName::from_static_str(BUS_NAME).ok()?).await.ok()
    }
}

/// Signals about one network, all networks, and fastvpnd
type Signals = Select<Select<MessageStream, MessageStream>, MessageStream>;

/// Takes a signal; returns why the network need not be followed further, if it says so
fn read(
    signal: &Message,
    path: &OwnedObjectPath,
    facts: &mut NetworkFacts,
) -> zbus::Result<Option<Lost>> {
    let header = signal.header();
    match header.member().map(|member| member.as_str()) {
        Some("PropertiesChanged") => {
            let body = signal.body();
            let (interface, changed, _) =
                body.deserialize::<(String, Properties, Vec<String>)>()?;
            if interface == NETWORK {
                facts.update(&changed)?;
            }
            Ok(None)
        }
        Some("InterfacesRemoved") => {
            let (object, _) = signal.body().deserialize::<(OwnedObjectPath, Vec<String>)>()?;
            Ok((object == *path).then_some(Lost::Down))
        }
        Some("NameOwnerChanged") => {
            let (_, _, new) = signal.body().deserialize::<(String, String, String)>()?;
            Ok(new.is_empty().then_some(Lost::Daemon))
        }
        Some(_) | None => Ok(None),
    }
}

fn failed(why: &str) -> End {
    End::Failed(Reason::ConnectFailed, why.to_owned())
}

/// Name of the bus itself
const DBUS: &str = "org.freedesktop.DBus";
/// How long a restart of fastvpnd may take
const RESTART_PATIENCE: Duration = Duration::from_secs(20);
/// How long fastvpnd may take to take a network down
const DOWN_PATIENCE: Duration = Duration::from_secs(10);
