//! The data thread: one Node, one UDP socket, one TUN queue.
//!
//! A [`Plane`] owns its thread. The control side holds a [`PlaneHandle`]: commands go through a
//! bounded queue with a wake-up descriptor, events come back in batches. The thread never waits for
//! the control side.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use fastvpn_proto::node::{Command as NodeCommand, Event as NodeEvent, NodeStats};

/// What the control side asks of a plane
#[derive(Debug)]
pub enum PlaneCommand {
    /// For the node
    Node(NodeCommand),
    /// Serve this TUN queue from now on; replaces the one before
    Tun {
        /// Non-blocking descriptor of the device's queue
        fd: OwnedFd,
        /// Its MTU, in bytes
        mtu: u16,
    },
    /// Stop serving the TUN: its descriptor is closed
    CloseTun,
    /// Whether packets of the TUN are carried; `false` reads and drops them (the hub is lost)
    Carry(bool),
    /// Send a [`PlaneEvent::Stats`] soon
    Stats,
    /// Say goodbye to all peers and end the thread
    Stop,
}

/// What a plane tells the control side
#[derive(Debug)]
pub enum PlaneEvent {
    /// From the node
    Node(NodeEvent),
    /// All numbers, once a second and when asked for
    Stats(Box<NodeStats>),
    /// The TUN device is gone or broken
    TunLost(std::io::Error),
    /// The thread ended; with an error unless it was told to stop
    Ended(Option<std::io::Error>),
}

/// Where a plane listens
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listening {
    /// The socket's address, with the port it got
    pub addr: SocketAddr,
    /// Whether IPv6 was asked for, but this machine has none
    pub fell_back: bool,
}
