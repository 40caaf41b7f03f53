//! What a network asks of the system, and what it is told: values, nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{Admission, Command, Engine};
use fastvpn_proto::time::Duration;

use super::quota::Used;
use super::state::{Answer, RequestId};
use crate::dns::Host;
use crate::handle::{DnsView, HandleError};
use crate::plane::{DeviceNumber, Listening, PlaneEvent};
use crate::registry::{Change, Members, RegistryError};
use crate::system::InterfacePlan;

/// What a role asks of its network
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Answer a request
    Answer(RequestId, Answer),
    /// This cannot work; stop and try again later
    Fail(HandleError),
    /// For the node
    Node(Command),
    /// The interface should be so
    Plan {
        /// Addresses with their subnets; none: no interface
        addresses: Vec<Prefix>,
        /// Further prefixes to route into it
        routes: Vec<Prefix>,
    },
    /// Say which addresses this `HOST:PORT` means
    Resolve(String),
    /// The hub knows this node: the secret of the invitation was used
    Welcomed,
    /// Write down what a hub keeps
    Write(Vec<Change>),
}

/// What a network asks of the system
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Carry packets of the TUN, or not
    Carry(bool),
    /// Delete the file of a secret that was used
    Forget(PathBuf),
    /// Make the interface so
    Interface {
        /// What it should be
        plan: InterfacePlan,
        /// The device that is to be made and given to the plane, if one is
        fresh: Option<DeviceNumber>,
    },
    /// Write down how much of the quota was used
    Keep(Used),
    /// These nodes have names from now on
    Names(Arc<[Host]>),
    /// For the node
    Node(Command),
    /// Open what a hub keeps, and say what is in it
    Open,
    /// Say how much of the quota was used, as it was written down
    Recall,
    /// Say which addresses this `HOST:PORT` means
    Resolve(String),
    /// Start the plane, with the keys of the network's configuration
    Start(Start),
    /// Stop the plane and undo the interface
    Stop {
        /// Name and alias of the interface, if there may be one
        interface: Option<(String, String)>,
        /// Whether the daemon ends, and a next one may go on with the interface and connections
        handover: bool,
    },
    /// Write down what a hub keeps: all of it, or nothing
    Write(Vec<Change>),
}

/// How to start a plane
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Start {
    /// What to do with inits
    pub(super) admission: Admission,
    /// How the engine is set
    pub(super) engine: Engine,
    /// Where to listen
    pub(super) listen: SocketAddr,
    /// Whether to relay
    pub(super) relay: bool,
    /// Silence after which a node is told of
    pub(super) silence: Duration,
}

/// What became of actions, and what the plane and the system tell
#[derive(Debug)]
pub(super) enum News {
    /// The interface is as it should be, or why not
    Applied(Result<(), HandleError>),
    /// Somebody changed the interface
    Drift,
    /// The interface is gone
    Gone,
    /// How names are served
    Naming(DnsView),
    /// What a hub keeps is open, or why not
    Opened(Result<Box<Members>, HandleError>),
    /// A batch of the plane
    Plane(Vec<PlaneEvent>),
    /// What was written down of the quota
    Recalled(Option<Used>),
    /// What an endpoint means
    Resolved {
        /// As it was asked
        endpoint: String,
        /// Its addresses, or why there are none
        addresses: Result<Vec<SocketAddr>, String>,
    },
    /// The plane runs, or why not
    Started(Result<Started, HandleError>),
    /// The plane has ended and the interface is undone
    Stopped,
    /// What a hub keeps is written down, or why not
    Written(Result<(), RegistryError>),
}

/// A plane that runs
#[derive(Debug)]
pub(super) struct Started {
    /// Where it listens
    pub(super) listening: Listening,
    /// A number that no earlier start of this network had
    pub(super) nonce: u64,
}
