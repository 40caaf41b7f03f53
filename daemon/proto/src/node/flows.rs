//! Which peer carries which split connection.
//!
//! A connection stays with the peer with which it was opened when routes change later: its bytes are
//! kept there. [`Flows`] knows that peer by the connection's addresses and ports, for packets from the
//! TUN, and vouches for the source of the packets that the connection itself writes.
//!
//! Where routes lead elsewhere by now, other shards cannot know that. They are told of such *strays*, one by one.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::PublicKey;
use crate::ip::Packet;
use crate::tcp::{Ends, ends_of};

/// Split connections of a node, each with its peer
#[derive(Debug, Default)]
pub(super) struct Flows {
    peers: BTreeMap<Ends, PublicKey>,
    /// Those of which other shards were told
    told: BTreeSet<Ends>,
    /// Those of other shards of which we were told
    strays: BTreeMap<Ends, u8>,
}

impl Flows {
    /// Gives a connection to a peer, unless another one has it
    pub(super) fn open(&mut self, ends: Ends, peer: PublicKey) {
        self.peers.entry(ends).or_insert(peer);
    }

    /// Takes a connection from a peer, if that has it; says whether other shards were told of it
    pub(super) fn close(&mut self, ends: &Ends, peer: &PublicKey) -> bool {
        let has = self.peers.get(ends) == Some(peer);
        has && self.peers.remove(ends).is_some() && self.told.remove(ends)
    }

    /// Finds out which connections have strayed, as `is_routed` says that routes lead here for them no more; returns of
    /// which others are to be told that they have, or are back or over
    pub(super) fn stray(&mut self, is_routed: impl Fn(&Ends) -> bool) -> Vec<(Ends, bool)> {
        let strays: BTreeSet<Ends> =
            self.peers.keys().filter(|ends| !is_routed(ends)).copied().collect();
        let new = strays.difference(&self.told).map(|ends| (*ends, true));
        let back = self.told.difference(&strays).map(|ends| (*ends, false));
        let news = new.chain(back).collect();
        self.told = strays;
        news
    }

    /// Takes the news that another shard has a stray, or has it no more
    pub(super) fn on_stray(&mut self, ends: Ends, shard: u8, there: bool) {
        if there {
            self.strays.insert(ends, shard);
        } else if self.strays.get(&ends) == Some(&shard) {
            self.strays.remove(&ends);
        }
    }

    /// Returns the shard that has the stray that a packet from the TUN belongs to
    pub(super) fn shard_for(&self, packet: &Packet<'_>) -> Option<u8> {
        if self.strays.is_empty() {
            return None;
        }
        self.strays.get(&ends_of(packet)?).copied()
    }

    /// Forgets all connections of a peer; returns those of which other shards were told
    pub(super) fn forget(&mut self, peer: &PublicKey) -> Vec<Ends> {
        self.peers.retain(|_, owner| owner != peer);
        let over = |ends: &&Ends| !self.peers.contains_key(*ends);
        let over: Vec<Ends> = self.told.iter().filter(over).copied().collect();
        for ends in &over {
            self.told.remove(ends);
        }
        over
    }

    /// Returns the peer whose connection a packet from the TUN belongs to
    pub(super) fn peer_for(&self, packet: &Packet<'_>) -> Option<PublicKey> {
        if self.peers.is_empty() {
            return None;
        }
        self.peers.get(&ends_of(packet)?).copied()
    }

    #[cfg(test)]
    pub(super) fn strays(&self) -> usize {
        self.strays.len()
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
