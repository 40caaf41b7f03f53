//! Pings that wait for their answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::PublicKey;
use crate::time::Instant;

/// All that wait
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// By peer, and by the number that is on the wire
    waiting: BTreeMap<(PublicKey, u64), Ping>,
    /// When each counts as lost
    due: BTreeSet<(Instant, PublicKey, u64)>,
    /// Number of the next one
    next: u64,
}

/// A ping that waits for its answer
#[derive(Debug)]
pub(super) struct Ping {
    /// Whatever it is to the control side
    pub(super) id: u64,
    /// Nothing while there is no session
    pub(super) sent: Option<Instant>,
    pub(super) lost_at: Instant,
}

impl Pings {
    /// Waits for one more; returns its number on the wire
    pub(super) fn insert(&mut self, peer: PublicKey, ping: Ping) -> u64 {
        let wire = self.next;
        self.next += 1;
        self.due.insert((ping.lost_at, peer, wire));
        self.waiting.insert((peer, wire), ping);
        wire
    }

    /// Takes the one that a peer has answered
    pub(super) fn remove(&mut self, peer: PublicKey, wire: u64) -> Option<Ping> {
        let ping = self.waiting.remove(&(peer, wire))?;
        self.due.remove(&(ping.lost_at, peer, wire));
        Some(ping)
    }

    /// Takes one that is lost, until there are none
    pub(super) fn expire(&mut self, now: Instant) -> Option<(PublicKey, Ping)> {
        let (_, peer, wire) = *self.due.first().filter(|(at, ..)| *at <= now)?;
        Some((peer, self.remove(peer, wire)?))
    }

    /// Takes those of a peer that were not sent for want of a session as sent; goes through their numbers
    pub(super) fn send_unsent(
        &mut self,
        peer: PublicKey,
        now: Instant,
    ) -> impl Iterator<Item = u64> + '_ {
        let all = self.waiting.range_mut((peer, 0)..=(peer, u64::MAX));
        all.filter(|(_, ping)| ping.sent.is_none()).map(move |((_, wire), ping)| {
            ping.sent = Some(now);
            *wire
        })
    }

    /// Returns when the next one counts as lost
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, ..)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn peer(id: u8) -> PublicKey {
        PublicKey::from_bytes([id; 32])
    }

    fn unsent(id: u64, lost_at: Instant) -> Ping {
        Ping { id, sent: None, lost_at }
    }

    #[test]
    fn lost_are_those_whose_time_has_come_and_that_nobody_answered() {
        let mut pings = Pings::default();
        pings.insert(peer(1), unsent(10, at(5)));
        let answered = pings.insert(peer(2), unsent(20, at(2)));
        pings.insert(peer(2), unsent(21, at(3)));
        assert!(pings.remove(peer(1), answered).is_none(), "it was asked of another node");
        assert!(pings.remove(peer(2), answered).is_some());

        assert_eq!(pings.deadline(), Some(at(3)));
        assert_eq!(pings.expire(at(4)).map(|(_, ping)| ping.id), Some(21));
        assert!(pings.expire(at(4)).is_none());
        assert_eq!(pings.deadline(), Some(at(5)));
    }

    #[test]
    fn those_of_one_peer_are_sent_once() {
        let mut pings = Pings::default();
        let [one, two] = [10, 11].map(|id| pings.insert(peer(1), unsent(id, at(5))));
        pings.insert(peer(2), unsent(20, at(5)));

        assert_eq!(pings.send_unsent(peer(1), at(1)).collect::<Vec<_>>(), [one, two]);
        assert_eq!(pings.send_unsent(peer(1), at(2)).count(), 0);
        assert_eq!(pings.remove(peer(1), two).and_then(|ping| ping.sent), Some(at(1)));
    }
}
