//! Nodes that are no members and were answered all the same, because they were invited once.
//!
//! Whoever shows the secret of an invitation is answered: welcome, wait, or no. The node has to know
//! it for that, and a hub must not be made to know ever more. [`Guests`] bounds how many there are,
//! and says when one has to be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::time::{Duration, Instant};

/// Time that a guest has to come, or to hear the hub out; a half-open handshake lasts as long
const PATIENCE: Duration = Duration::from_secs(20);
/// Guests that may still come in
const HOPEFUL_MAX: usize = 64;
/// Guests that are told no, fewer: they keep nobody else out
const REFUSED_MAX: usize = 16;

/// The guests of one hub
#[derive(Debug, Default)]
pub(super) struct Guests {
    guests: BTreeMap<PublicKey, Guest>,
}

/// What a guest was told
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Told {
    /// That it has to be approved
    Pending,
    /// That it cannot come in
    Refused,
    /// That it may come in, with these addresses
    Welcome(Vec<Prefix>),
}

#[derive(Debug)]
struct Guest {
    told: Told,
    /// Far away while it has a session and waits for approval
    until: Instant,
}

impl Guests {
    /// Takes a guest, or says no because there are too many
    #[must_use]
    pub(super) fn admit(&mut self, key: PublicKey, told: Told, now: Instant) -> bool {
        let is_refused = |told: &Told| *told == Told::Refused;
        let alike = |(other, guest): &(&PublicKey, &Guest)| {
            **other != key && is_refused(&guest.told) == is_refused(&told)
        };
        let limit = if is_refused(&told) { REFUSED_MAX } else { HOPEFUL_MAX };
        // Who waits with a session is bounded by what the registry keeps.
        let knocks = |(_, guest): &(&PublicKey, &Guest)| guest.until < Instant::FAR;
        if self.guests.iter().filter(alike).filter(knocks).count() >= limit {
            return false;
        }
        let waits = self.guests.get(&key).is_some_and(|guest| guest.until == Instant::FAR);
        let until = if waits { Instant::FAR } else { now + PATIENCE };
        self.guests.insert(key, Guest { told, until });
        true
    }

    /// A guest that waits for approval has a session, and may keep it
    pub(super) fn wait(&mut self, key: PublicKey) {
        self.guests.insert(key, Guest { told: Told::Pending, until: Instant::FAR });
    }

    /// Forgets a guest; returns whether it was one
    pub(super) fn remove(&mut self, key: &PublicKey) -> bool {
        self.guests.remove(key).is_some()
    }

    /// Goes through all guests
    pub(super) fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.guests.keys()
    }

    /// Returns what a guest was told
    pub(super) fn told(&self, key: &PublicKey) -> Option<&Told> {
        self.guests.get(key).map(|guest| &guest.told)
    }

    /// Returns the addresses that others than `key` were promised
    pub(super) fn promised(&self, key: Option<&PublicKey>) -> BTreeSet<IpAddr> {
        let others = self.guests.iter().filter(|(other, _)| Some(*other) != key);
        let promised = others.flat_map(|(_, guest)| match &guest.told {
            Told::Pending | Told::Refused => &[][..],
            Told::Welcome(addresses) => addresses,
        });
        promised.map(Prefix::addr).collect()
    }

    /// Takes those who had their time
    #[must_use]
    pub(super) fn expire(&mut self, now: Instant) -> Vec<PublicKey> {
        let old = self.guests.iter().filter(|(_, guest)| now >= guest.until);
        let old: Vec<_> = old.map(|(key, _)| *key).collect();
        old.iter().for_each(|key| drop(self.guests.remove(key)));
        old
    }

    /// Returns when [`Self::expire`] will next have something to say
    pub(super) fn deadline(&self) -> Instant {
        self.guests.values().map(|guest| guest.until).min().unwrap_or(Instant::FAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::fixture::{key, ms, secs};

    #[test]
    fn guests_are_few_and_those_that_are_refused_keep_nobody_out() {
        let mut guests = Guests::default();
        let refused = (0..100).filter(|n| guests.admit(key(*n), Told::Refused, ms(0))).count();
        let hopeful = (100..300).filter(|n| guests.admit(key(*n), Told::Pending, ms(0))).count();

        assert_eq!((refused, hopeful), (REFUSED_MAX, HOPEFUL_MAX));
        assert!(guests.admit(key(100), Told::Pending, ms(1)), "who is there already may try again");
        assert_eq!(guests.expire(secs(20)).len(), REFUSED_MAX + HOPEFUL_MAX - 1);
        assert!(guests.admit(key(300), Told::Pending, secs(20)));
    }

    #[test]
    fn who_waits_for_approval_stays_and_takes_nobodys_place() {
        let mut guests = Guests::default();
        for n in 0..200 {
            assert!(guests.admit(key(n), Told::Pending, ms(0)));
            guests.wait(key(n));
        }

        assert_eq!(guests.deadline(), Instant::FAR);
        assert!(guests.expire(secs(3600)).is_empty());
        assert!(guests.admit(key(7), Told::Pending, ms(0)) && guests.deadline() == Instant::FAR);
    }

    #[test]
    fn promises_are_those_to_others() {
        let mut guests = Guests::default();
        let address: Prefix = "10.0.0.2/24".parse().unwrap();
        assert!(guests.admit(key(1), Told::Welcome(vec![address]), ms(0)));

        assert_eq!(guests.promised(Some(&key(2))), BTreeSet::from([address.addr()]));
        assert!(guests.promised(Some(&key(1))).is_empty());
    }
}
