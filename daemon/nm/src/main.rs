//! NetworkManager's VPN plugin of fastvpn: makes a network of fastvpnd a connection of
//! NetworkManager.
//!
//! NetworkManager starts one process for each connection, calls `Connect` once, and is told what the
//! interface is to be like. The process decides nothing: fastvpnd makes the session and the TUN
//! device, NetworkManager gives it addresses, routes and DNS. It is root, as NetworkManager is, so
//! that fastvpnd asks polkit nothing: who may activate a connection is NetworkManager's to say. What
//! a connection says is any user's word, and is believed in nothing but which network it means.
//!
//! # Contract
//!
//! - The process ends when its connection is over, when NetworkManager is gone, and when nobody asks
//!   for anything.
//! - However it ends, fastvpnd takes the network down that was up for it.

#![forbid(unsafe_code)]

mod life;
mod plugin;
mod translate;

use std::process::ExitCode;

use clap::Parser;
use fastvpn_dbus::Bus;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use zbus::Connection;
use zbus::fdo::{DBusProxy, NameOwnerChangedStream};
use zbus::names::BusName;

use crate::life::{End, Life};
use crate::plugin::{Call, PATH, Plugin, PluginError, Reply, State, Voice};
use crate::translate::{Reason, Settings};

/// Makes a network of fastvpnd a connection of NetworkManager, which starts this program
#[derive(Debug, Parser)]
#[command(name = "nm-fastvpn-service", version)]
struct Arguments {
    /// Name to take on the system bus, as NetworkManager says
    #[arg(long, value_name = "NAME", default_value = "org.freedesktop.NetworkManager.fastvpn")]
    bus_name: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.bus_name).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fastvpn: no plugin for NetworkManager: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(name: &str) -> zbus::Result<()> {
    let (calls, inbox) = mpsc::channel(4);
    let (plugin, state) = Plugin::new(calls);
    let bus = Bus::System.builder().serve_at(PATH, plugin).build().await?;
    // Before the name is there, nobody can have gone that we wait for.
    let manager = DBusProxy::new(&bus).await?;
    let owners = manager.receive_name_owner_changed_with_args(&[(0, NETWORK_MANAGER)]).await?;
    bus.request_name(name).await?;
    let there = manager.name_has_owner(BusName::from_static_str(NETWORK_MANAGER)?).await?;
    if !there {
        eprintln!("fastvpn: NetworkManager does not run");
        return Ok(());
    }
    let voice = Voice::new(bus.clone(), state);
    Service { bus, voice, inbox, owners }.serve().await
}

/// Serves one connection from its beginning to its end
struct Service {
    bus: Connection,
    voice: Voice,
    inbox: mpsc::Receiver<Call>,
    owners: NameOwnerChangedStream,
}

/// What ended the life of a connection
enum Over {
    /// It ended by itself
    Life(End),
    /// NetworkManager has ended it; with the place for the answer
    Asked(Reply),
    /// NetworkManager is gone
    Orphaned,
}

impl Service {
    async fn serve(mut self) -> zbus::Result<()> {
        let Some(settings) = self.wait_for_connect().await else { return Ok(()) };
        self.voice.state(State::Starting).await?;
        let reply = match translate::network(&settings) {
            Ok(network) => self.live(network).await?,
            Err(error) => {
                eprintln!("fastvpn: {error}");
                self.voice.failure(Reason::BadConfig).await?;
                None
            }
        };
        self.voice.state(State::Stopped).await?;
        if let Some(reply) = reply {
            // Whether it is heard makes no difference any more.
            let _ = reply.send(Ok(()));
        }
        self.linger().await;
        Ok(())
    }

    /// Leads a network through its life; returns the place for an answer, if somebody has ended it
    async fn live(&mut self, network: String) -> zbus::Result<Option<Reply>> {
        let mut life = Life::new(self.bus.clone(), self.voice.clone(), network.clone());
        let over = tokio::select! {
            end = life.run() => Over::Life(end),
            reply = wait_for_disconnect(&mut self.inbox) => match reply {
                Some(reply) => Over::Asked(reply),
                None => Over::Orphaned,
            },
            () = gone(&mut self.owners) => Over::Orphaned,
        };
        let reply = match over {
            Over::Life(End::Failed(reason, why)) => {
                eprintln!("fastvpn: {network:?}: {why}");
                self.voice.failure(reason).await?;
                None
            }
            Over::Asked(reply) => Some(reply),
            Over::Life(End::Down) | Over::Orphaned => None,
        };
        self.voice.state(State::Stopping).await?;
        life.end().await;
        Ok(reply)
    }

    /// Waits for a connection; nothing if none comes
    async fn wait_for_connect(&mut self) -> Option<Settings> {
        loop {
            let call = tokio::select! {
                call = timeout(IDLE, self.inbox.recv()) => call.ok()??,
                () = gone(&mut self.owners) => return None,
            };
            match call {
                Call::Connect(settings, reply) => {
                    // What becomes of it is told by signals.
                    let _ = reply.send(Ok(()));
                    return Some(settings);
                }
                Call::Disconnect(reply) => {
                    let _ = reply.send(Err(not_connected()));
                }
            }
        }
    }

    /// Lets what was said last reach NetworkManager, which may say something in turn
    async fn linger(&mut self) {
        let answering = async {
            while let Some(call) = self.inbox.recv().await {
                let (Call::Connect(_, reply) | Call::Disconnect(reply)) = call;
                let _ = reply.send(Err(not_connected()));
            }
        };
        let _ = timeout(LINGER, answering).await;
    }
}

/// Waits until NetworkManager ends the connection
async fn wait_for_disconnect(inbox: &mut mpsc::Receiver<Call>) -> Option<Reply> {
    loop {
        match inbox.recv().await? {
            Call::Connect(_, reply) => {
                let _ =
                    reply.send(Err(PluginError::AlreadyStarted("there is a connection".into())));
            }
            Call::Disconnect(reply) => return Some(reply),
        }
    }
}

/// Waits until NetworkManager, or the bus, is gone
async fn gone(owners: &mut NameOwnerChangedStream) {
    while let Some(signal) = owners.next().await {
        if signal.args().is_ok_and(|args| args.new_owner().is_none()) {
            return;
        }
    }
}

fn not_connected() -> PluginError {
    PluginError::AlreadyStopped("there is no connection".to_owned())
}

/// Name of NetworkManager on the bus
const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
/// How long to wait for a connection
const IDLE: Duration = Duration::from_secs(60);
/// How long to answer after the end
const LINGER: Duration = Duration::from_secs(1);
