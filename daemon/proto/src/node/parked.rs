//! Split connections that outlived their session, and wait for the next one.
//!
//! Our kernel is served meanwhile, as far as windows allow. Those with a peer are kept with it; those
//! with a node that is no peer at present are [`Away`].

use std::collections::{BTreeMap, BTreeSet};

use super::config::BootId;
use super::{Goodbye, Node};
use crate::crypto::PublicKey;
use crate::limits::SESSION_SILENCE;
use crate::session::Session;
use crate::tcp::{Change, Connections, Parity, Pool};
use crate::time::{Duration, Instant};

/// Split connections with one node that wait for a session
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) tcp: Connections,
    /// Boot id of the other node in the session that is over
    pub(super) boot: BootId,
    /// When they are given up
    pub(super) until: Instant,
    /// Round trip to the other node in that session
    pub(super) rtt: Option<Duration>,
}

impl Parked {
    /// Returns when something is due
    pub(super) fn deadline(&self) -> Instant {
        self.tcp.deadline().map_or(self.until, |at| at.min(self.until))
    }

    /// Tells whether the other node has gone a moment ago, and may be back in another one
    pub(super) fn may_return(&self, now: Instant) -> bool {
        self.until > now + SESSION_SILENCE - RETURN
    }
}

/// Those with nodes that are no peers at present
#[derive(Debug, Default)]
pub(super) struct Away {
    parked: BTreeMap<PublicKey, Parked>,
    /// When something is due for each; what is in the map does not change there
    due: BTreeSet<(Instant, PublicKey)>,
}

impl Away {
    pub(super) fn insert(&mut self, key: PublicKey, parked: Parked) {
        self.due.insert((parked.deadline(), key));
        self.parked.insert(key, parked);
    }

    pub(super) fn remove(&mut self, key: &PublicKey) -> Option<Parked> {
        let parked = self.parked.remove(key)?;
        self.due.remove(&(parked.deadline(), *key));
        Some(parked)
    }

    /// Returns when something is due for any of them
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// All are where they belong
    #[cfg(test)]
    pub(super) fn check(&self) {
        let due = self.parked.iter().map(|(key, parked)| (parked.deadline(), *key));
        assert_eq!(self.due, due.collect(), "those that are away");
    }

    /// Goes through all
    pub(super) fn values(&self) -> impl Iterator<Item = &Parked> {
        self.parked.values()
    }

    /// Returns those for which something is due
    fn due(&self, now: Instant) -> Vec<PublicKey> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect()
    }
}

impl Node {
    /// Lets `serve` do something with the split connections that wait for a session with a node, and takes
    /// what they have for our kernel; nothing where there are none
    pub(super) fn serve_parked<T>(
        &mut self,
        key: &PublicKey,
        now: Instant,
        serve: impl FnOnce(&mut Connections, &mut Pool) -> T,
    ) -> Option<T> {
        let mut parked = match self.peers.get_mut(key) {
            Some(peer) => peer.parked.take(),
            None => self.away.remove(key),
        }?;
        let outcome = serve(&mut parked.tcp, &mut self.shared.pool);
        parked.tcp.flush(&mut self.shared.pool, now);
        self.drain_tcp(key, &mut parked.tcp);
        match self.peers.get_mut(key) {
            Some(peer) => peer.parked = Some(parked),
            None => self.away.insert(*key, parked),
        }
        Some(outcome)
    }

    /// Takes what connections without a session have for our kernel
    fn drain_tcp(&mut self, key: &PublicKey, tcp: &mut Connections) {
        // What is written in the name of a connection is vouched for only while it is known.
        while let Some(packet) = tcp.poll_packet() {
            self.on_packet(key, packet);
        }
        while let Some(change) = tcp.poll_change() {
            match change {
                Change::Opened(ends) => self.on_opened(key, ends),
                Change::Closed(ends) => self.close_flow(&ends, key),
            }
        }
    }

    /// Does what time demands of connections with nodes that are no peers at present
    pub(super) fn time_away(&mut self, now: Instant) {
        for key in self.away.due(now) {
            self.time_parked(&key, now);
        }
    }

    /// Does what time demands of connections that wait for a session with a node
    pub(super) fn time_parked(&mut self, key: &PublicKey, now: Instant) {
        let parked = match self.peers.get(key) {
            Some(peer) => peer.parked.as_ref(),
            None => self.away.parked.get(key),
        };
        let Some(parked) = parked.filter(|parked| now >= parked.deadline()) else { return };
        if now >= parked.until {
            self.abandon_tcp(key, now);
        } else {
            self.serve_parked(key, now, |tcp, pool| tcp.handle_timeout(pool, now));
        }
    }

    /// Resets the split connections with a peer: it is gone, or has forgotten them
    pub(super) fn abandon_tcp(&mut self, key: &PublicKey, now: Instant) {
        let peer = self.peers.get_mut(key);
        let (parked, current) = peer.map_or((None, None), |peer| {
            (peer.parked.take(), peer.session.as_mut().map(Session::take_tcp))
        });
        let parked = parked.or_else(|| self.away.remove(key)).map(|parked| parked.tcp);
        for mut tcp in parked.into_iter().chain(current) {
            tcp.abandon(&mut self.shared.pool, now);
            self.drain_tcp(key, &mut tcp);
        }
    }

    /// Returns the split connections with which a session begins
    pub(super) fn begin_tcp(&mut self, key: &PublicKey, boot: BootId, now: Instant) -> Connections {
        let peer = self.peers.get_mut(key);
        let same = peer.as_ref().and_then(|peer| peer.parked.as_ref());
        if same.is_some_and(|parked| parked.boot == boot) {
            // It lived on and ended the session itself, and with that the connections.
            self.abandon_tcp(key, now);
        }
        let parked = self.peers.get_mut(key).and_then(|peer| peer.parked.take());
        if let Some(Parked { mut tcp, .. }) = parked {
            tcp.resume(&mut self.shared.pool, now);
            tcp
        } else {
            let lower = self.local.public() < *key;
            Connections::new(if lower { Parity::Even } else { Parity::Odd })
        }
    }

    /// A peer is away: it has said goodbye, or is to be forgotten
    pub(super) fn on_away(&mut self, key: &PublicKey, now: Instant) {
        let gone = self.peers.get(key).is_some_and(|peer| peer.session.is_none());
        self.remove_peer(key, if gone { Goodbye::ForNow } else { Goodbye::ForGood }, now);
    }
}

/// Time in which a node that said goodbye for now may be back
const RETURN: Duration = Duration::from_secs(10);
