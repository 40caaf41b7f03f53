//! The whole pure machine of one network in one daemon.
//!
//! A [`Node`] dispatches input to its parts and drains their output; it has no protocol of its own.
//!
//! # Contract
//!
//! One mutation (`handle_*`), then a full drain: [`Node::poll_transmit`], [`Node::poll_packet`],
//! [`Node::poll_event`] until each has nothing more, then [`Node::deadline`]; always in that order.
//! `now` never runs backwards.

pub mod admission;
mod config;
mod event;
mod refusal;
mod stats;

pub use config::{Admission, BootId, Command, Contact, NodeConfig, PeerConfig, Ticket};
pub use event::{Arrival, DownReason, Event, Transmit, Way, Why};
pub use refusal::{Refusal, Refusals};
pub use stats::{NodeStats, PathStats, PeerState, PeerStats, Traffic};

use crate::crypto::PublicKey;
use crate::time::Instant;

/// Largest reply that fits into a response, in bytes
pub const REPLY_MAX: usize = 800;
/// Largest hello that fits into an init, in bytes
pub const HELLO_MAX: usize = 800;

/// One node of one network
pub struct Node {
    _private: (),
}

impl Node {
    /// Makes a node without peers
    pub fn new(_config: NodeConfig, _now: Instant) -> Self {
        Self { _private: () }
    }

    /// Takes one UDP payload; opens it in place
    pub fn handle_message(&mut self, _arrival: Arrival, _bytes: &mut [u8], _now: Instant) {}

    /// Takes one inner IP packet from the TUN
    pub fn handle_packet(&mut self, _packet: &[u8], _now: Instant) {}

    /// Takes a command of the control side
    pub fn handle_command(&mut self, _command: Command, _now: Instant) {}

    /// Does what is due; to be called when the deadline has passed
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Takes the news that a message of `len` bytes was too big for the way to `remote`
    pub fn handle_too_big(&mut self, _remote: core::net::SocketAddr, _len: usize, _now: Instant) {}

    /// Writes the next messages to send into `buffer` (which is cleared first)
    ///
    /// Several messages of equal size to one address may be returned at once.
    pub fn poll_transmit(&mut self, _buffer: &mut Vec<u8>, _now: Instant) -> Option<Transmit> {
        None
    }

    /// Returns the next inner packet for the TUN
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Returns the next event
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// Returns when [`Node::handle_timeout`] is due next, and what for
    pub fn deadline(&self) -> Option<(Instant, Why)> {
        None
    }

    /// Returns the node's public key
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes([0; 32])
    }

    /// Returns the node's boot id
    pub fn boot_id(&self) -> BootId {
        BootId::default()
    }

    /// Returns all numbers
    pub fn stats(&self, _now: Instant) -> NodeStats {
        NodeStats::default()
    }
}
