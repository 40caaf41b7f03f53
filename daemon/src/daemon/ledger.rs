//! Changes of what a hub keeps: decided, written down, and only then true.
//!
//! A [`Ledger`] takes wishes and deals with one at a time, so that each is decided on what the one
//! before has left. What a wish changes goes to the disk while everything else goes on; when that is
//! done, whoever wished is told.
//!
//! # Contract
//!
//! - [`Ledger::poll`] until it has nothing more to say; each [`Turn::Write`] is answered by
//!   [`Ledger::on_written`], and nothing is written meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use fastvpn_proto::crypto::{InvitationSecret, PublicKey};
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::Ticket;

use super::state::RequestId;
use crate::handle::{HandleError, Invited};
use crate::registry::{Change, Digest, Invitation, Members, Moment, RegistryError};

/// Wishes of nodes that wait at one time; who comes later tries again
const NODES_MAX: usize = 1024;

/// Members, and the wishes that concern them
#[derive(Debug)]
pub(super) struct Ledger {
    members: Members,
    queue: VecDeque<(Wish, Then)>,
    writing: Option<Writing>,
}

/// What somebody wants
#[derive(Debug)]
pub(super) enum Wish {
    /// Addresses for a member: those that it claims, or any
    Addresses(PublicKey, Vec<IpAddr>),
    /// A node of that key or name may join
    Approve(String),
    /// There is an invitation
    Invite(Digest, Invitation),
    /// A newcomer is there, by an invitation and with the addresses that it was promised
    Redeem(PublicKey, InvitationSecret, Vec<Prefix>),
    /// A member has another name
    Rename(String, String),
    /// A member may join no more
    Revoke(String),
    /// The invitations of a name are useless
    Withdraw(String),
}

/// What is to be done then
#[derive(Debug)]
pub(super) enum Then {
    /// Look again at an init, with what it says
    Admit(Ticket, Vec<u8>),
    /// Answer a request; with the invitation that it made
    Answer(RequestId, Option<Box<Invited>>),
    /// Look again at a session that is up
    Arrive,
}

/// What a ledger has to say
#[derive(Debug)]
pub(super) enum Turn {
    /// A wish has come true, or cannot
    Done(Box<Done>),
    /// Write this down
    Write(Vec<Change>),
}

/// A wish that has come true, or cannot
#[derive(Debug)]
pub(super) struct Done {
    pub(super) wish: Wish,
    pub(super) then: Then,
    /// Whom it concerned
    pub(super) result: Result<Option<PublicKey>, RegistryError>,
}

#[derive(Debug)]
struct Writing {
    wish: Wish,
    then: Then,
    concerns: Option<PublicKey>,
    changes: Vec<Change>,
}

impl Ledger {
    /// Begins with what is known of members
    pub(super) fn new(members: Members) -> Self {
        Self { members, queue: VecDeque::new(), writing: None }
    }

    /// Takes a wish; returns whether there was room
    #[must_use]
    pub(super) fn wish(&mut self, wish: Wish, then: Then) -> bool {
        let is_nodes = matches!(then, Then::Admit(..) | Then::Arrive);
        if is_nodes && self.queue.len() >= NODES_MAX {
            return false;
        }
        self.queue.push_back((wish, then));
        true
    }

    /// Deals with the next wish, unless one is being written down
    ///
    /// `promised` are the addresses that others than a key were promised.
    #[must_use]
    pub(super) fn poll(
        &mut self,
        now: u64,
        promised: impl Fn(Option<&PublicKey>) -> BTreeSet<IpAddr>,
    ) -> Option<Turn> {
        if self.writing.is_some() {
            return None;
        }
        let (wish, then) = self.queue.pop_front()?;
        Some(match self.decide(&wish, now, promised) {
            Ok((concerns, changes)) if changes.is_empty() => {
                Turn::Done(Box::new(Done { wish, then, result: Ok(concerns) }))
            }
            Ok((concerns, changes)) => {
                self.writing = Some(Writing { wish, then, concerns, changes: changes.clone() });
                Turn::Write(changes)
            }
            Err(error) => Turn::Done(Box::new(Done { wish, then, result: Err(error) })),
        })
    }

    /// Takes what became of what was to be written down
    #[must_use]
    pub(super) fn on_written(&mut self, result: Result<(), RegistryError>) -> Option<Done> {
        let Writing { wish, then, concerns, changes } = self.writing.take()?;
        let result = result.map(|()| {
            self.members.apply(changes);
            concerns
        });
        Some(Done { wish, then, result })
    }

    /// Takes who waits for an answer that will not come any more
    pub(super) fn abandon(&mut self) -> Vec<RequestId> {
        let writing = self.writing.take().map(|writing| (writing.wish, writing.then));
        let waiting = writing.into_iter().chain(self.queue.drain(..));
        let ids = waiting.filter_map(|(_, then)| match then {
            Then::Answer(id, _) => Some(id),
            Then::Admit(..) | Then::Arrive => None,
        });
        ids.collect()
    }

    /// Returns the members, as they are written down
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Returns the members, to tell them of another configuration
    pub(super) fn members_mut(&mut self) -> &mut Members {
        &mut self.members
    }

    fn decide(
        &mut self,
        wish: &Wish,
        now: u64,
        promised: impl Fn(Option<&PublicKey>) -> BTreeSet<IpAddr>,
    ) -> Result<(Option<PublicKey>, Vec<Change>), RegistryError> {
        let whose = match wish {
            Wish::Addresses(key, _) | Wish::Redeem(key, ..) => Some(key),
            Wish::Approve(_)
            | Wish::Invite(..)
            | Wish::Rename(..)
            | Wish::Revoke(_)
            | Wish::Withdraw(_) => None,
        };
        let promised = promised(whose);
        let moment = Moment { now, promised: &promised };
        let members = &mut self.members;
        let of = |(key, changes)| (Some(key), changes);
        match wish {
            Wish::Addresses(key, claims) => {
                let addresses = if claims.is_empty() {
                    members.addresses_for(key, moment)?
                } else {
                    members.claim(key, claims, moment)?
                };
                Ok((Some(*key), addresses.change.into_iter().collect()))
            }
            Wish::Approve(who) => members.approve(who, moment).map(of),
            Wish::Invite(digest, invitation) => {
                Ok((None, members.invite(*digest, invitation.clone(), moment)?))
            }
            Wish::Redeem(key, secret, promise) => {
                Ok((Some(*key), members.redeem(key, secret, promise, moment)?))
            }
            Wish::Rename(who, name) => members.rename(who, name, now).map(of),
            Wish::Revoke(who) => members.revoke(who).map(of),
            Wish::Withdraw(name) => Ok((None, members.withdraw(name, now)?)),
        }
    }
}

/// Puts an error of the registry into the words of the daemon
pub(super) fn in_words(error: RegistryError) -> HandleError {
    let text = error.to_string();
    match error {
        RegistryError::Configured { .. } | RegistryError::Unsupported(_) => {
            HandleError::Configured(text)
        }
        RegistryError::Full { .. }
        | RegistryError::Limit { .. }
        | RegistryError::NameTaken { .. }
        | RegistryError::NotConfigured(_)
        | RegistryError::Overlap { .. }
        | RegistryError::Refused(_)
        | RegistryError::Taken { .. } => HandleError::Conflict(text),
        RegistryError::NoInvitation(_) => HandleError::NoInvitation(text),
        RegistryError::Outside(_) | RegistryError::TooMany => HandleError::Invalid(text),
        RegistryError::Unknown(_) => HandleError::NoMember(text),
        RegistryError::Damaged { .. }
        | RegistryError::Newer { .. }
        | RegistryError::Occupied(_)
        | RegistryError::Read { .. }
        | RegistryError::Write { .. } => HandleError::System(text),
    }
}
