//! What a member says when it comes, and what it is told.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fastvpn_proto::control::{Register, Reply};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::time::Instant;

use super::{Hub, unix};
use crate::daemon::ledger::Wish;
use crate::registry::{Addresses, Moment, RegistryError};

/// Whether a registration comes from a session that is up, or from an init that may be a replay
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proof {
    Given,
    Open,
}

/// What becomes of a registration
#[derive(Debug)]
pub(super) enum Judgement {
    /// It has to be written down first which addresses are its
    First(Wish),
    /// It cannot be, for this reason
    Refused(String),
    /// It may have these addresses
    Welcome(Vec<Prefix>),
}

impl Hub {
    /// Says which addresses a member has, or why it cannot have those that it claims
    ///
    /// Claims of an init that may be a replay are only looked at; with [`Proof::Given`] they are to be
    /// remembered.
    pub(super) fn judge(
        &self,
        key: &PublicKey,
        register: &Register,
        proof: Proof,
        now: Instant,
    ) -> Judgement {
        let claims: BTreeSet<_> = register.addresses.iter().copied().collect();
        let own: BTreeSet<IpAddr> = self
            .ledger
            .members()
            .find(key)
            .map(|member| member.addresses.iter().copied().collect())
            .unwrap_or_default();
        if !claims.is_empty() && !own.is_empty() && claims != own {
            let (has, claims) = (sentence(&own), sentence(&claims));
            let reason = format!("the hub gives this peer {has}, but it claims {claims}");
            return Judgement::Refused(reason);
        }
        let wanted: Vec<_> = claims.iter().copied().collect();
        let found = match self.claim(key, &wanted, now) {
            Ok(found) => found,
            Err(error) => return Judgement::Refused(error.to_string()),
        };
        for address in &found.addresses {
            if let Some(holder) = self.holder(key, address.addr()) {
                let reason = format!("address {} is held by {holder}", address.addr());
                return Judgement::Refused(reason);
            }
        }
        let is_written = found.change.is_none() || proof == Proof::Open && !wanted.is_empty();
        if is_written {
            Judgement::Welcome(found.addresses)
        } else {
            Judgement::First(Wish::Addresses(*key, wanted))
        }
    }

    /// Says what a member gets that claims these addresses, or any
    pub(super) fn claim(
        &self,
        key: &PublicKey,
        claims: &[IpAddr],
        now: Instant,
    ) -> Result<Addresses, RegistryError> {
        let promised = self.guests.promised(Some(key));
        let moment = Moment { now: unix(self.zero, now), promised: &promised };
        match claims {
            [] => self.ledger.members().addresses_for(key, moment),
            claims => self.ledger.members().claim(key, claims, moment),
        }
    }

    /// Returns the name of another live member with this address
    fn holder(&self, key: &PublicKey, address: IpAddr) -> Option<String> {
        self.list
            .iter()
            .find(|entry| entry.key != *key && entry.addresses.contains(&address))
            .map(|entry| entry.name.clone())
    }

    pub(super) fn welcome(&mut self, key: &PublicKey, addresses: Vec<Prefix>) -> Reply {
        let hub = self.addresses.iter().map(Prefix::addr).collect();
        let entries: Vec<_> = self.list.iter().filter(|entry| entry.key != *key).cloned().collect();
        let (reply, fitted) = Reply::welcome_that_fits(
            addresses,
            hub,
            self.list.id(),
            self.list.revision(),
            &entries,
        );
        let offer = self.list.offer(&entries, fitted);
        self.offers.insert(*key, offer);
        reply
    }
}

fn sentence(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
