//! Which peer carries which split connection.
//!
//! A connection stays with the peer with which it was opened when routes change later: its bytes are
//! kept there. [`Flows`] knows that peer by the connection's addresses and ports, for packets from the
//! TUN, and vouches for the source of the packets that the connection itself writes.

use std::collections::BTreeMap;

use crate::crypto::PublicKey;
use crate::ip::Packet;
use crate::tcp::{Ends, ends_of};

/// Split connections of a node, each with its peer
#[derive(Debug, Default)]
pub(super) struct Flows {
    peers: BTreeMap<Ends, PublicKey>,
}

impl Flows {
    /// Gives a connection to a peer, unless another one has it
    pub(super) fn open(&mut self, ends: Ends, peer: PublicKey) {
        self.peers.entry(ends).or_insert(peer);
    }

    pub(super) fn close(&mut self, ends: &Ends, peer: &PublicKey) {
        if self.peers.get(ends) == Some(peer) {
            self.peers.remove(ends);
        }
    }

    /// Forgets all connections of a peer
    pub(super) fn forget(&mut self, peer: &PublicKey) {
        self.peers.retain(|_, owner| owner != peer);
    }

    /// Returns the peer whose connection a packet from the TUN belongs to
    pub(super) fn peer_for(&self, packet: &Packet<'_>) -> Option<PublicKey> {
        if self.peers.is_empty() {
            return None;
        }
        self.peers.get(&ends_of(packet)?).copied()
    }

    /// Tells whether a packet for the TUN belongs to a connection with that peer
    pub(super) fn vouches(&self, peer: &PublicKey, packet: &Packet<'_>) -> bool {
        ends_of(packet).is_some_and(|ends| self.peers.get(&ends.turned()) == Some(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::numbers::TCP;

    fn ends() -> Ends {
        Ends { local: "10.0.0.1:1000".parse().unwrap(), remote: "10.0.0.2:80".parse().unwrap() }
    }

    fn packet() -> Vec<u8> {
        let mut packet = vec![0; 24];
        packet[0] = 0x45;
        packet[3] = 24;
        packet[9] = TCP;
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[16..20].copy_from_slice(&[10, 0, 0, 2]);
        packet[20..24].copy_from_slice(&[3, 232, 0, 80]);
        packet
    }

    #[test]
    fn connection_belongs_to_the_peer_that_opened_it() {
        let (one, other) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let bytes = packet();
        let view = Packet::parse(&bytes).unwrap();
        let mut flows = Flows::default();
        flows.open(ends(), one);
        flows.open(ends(), other);
        assert_eq!(flows.peer_for(&view), Some(one));
        assert!(!flows.vouches(&one, &view));

        flows.close(&ends(), &other);
        assert_eq!(flows.peer_for(&view), Some(one));
        flows.close(&ends(), &one);
        assert_eq!(flows.peer_for(&view), None);

        flows.open(ends().turned(), other);
        assert!(flows.vouches(&other, &view) && !flows.vouches(&one, &view));
    }
}
