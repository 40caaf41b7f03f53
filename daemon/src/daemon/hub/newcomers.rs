//! Who comes by an invitation, and what an administrator may ask about members.

use std::time::{Duration, SystemTime};

use fastvpn_proto::control::{Register, Reply};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{Command, Ticket};
use fastvpn_proto::time::Instant;
use tracing::info;

use super::{Arrival, Hub, NO_MEMBER, unix};
use crate::daemon::action::Step;
use crate::daemon::guests::Told;
use crate::daemon::ledger::{Then, Wish, in_words};
use crate::daemon::state::{Answer, RequestId};
use crate::handle::{InvitationView, Invited, MemberView, MembersReply};
use crate::registry::{Moment, Newcomer, RegistryError, Source, Standing};

impl Hub {
    /// Answers an init of a node that is no member: only if it was invited once
    pub(super) fn on_newcomer(
        &mut self,
        ticket: Ticket,
        key: PublicKey,
        hello: &[u8],
        now: Instant,
        out: &mut Vec<Step>,
    ) {
        let (reply, told) = match self.look_at(&key, hello, now) {
            Newcomer::Pending => (Reply::Pending, Told::Pending),
            Newcomer::Refused(reason) => (Reply::Refused { reason }, Told::Refused),
            Newcomer::Stranger => {
                if let Some(more) = self.strangers.allow(now) {
                    info!(network = %self.network, ?key, more, "refused a node that is no member");
                }
                out.push(Step::Node(Command::Refuse { ticket }));
                return;
            }
            Newcomer::Welcome(addresses) => {
                (self.welcome(&key, addresses.clone()), Told::Welcome(addresses))
            }
        };
        if !self.guests.admit(key, told, now) {
            self.offers.remove(&key);
            out.push(Step::Node(Command::Refuse { ticket }));
            return;
        }
        let peer = self.peer_config(&key);
        out.push(Step::Node(Command::Admit { ticket, peer, reply: reply.encode() }));
    }

    /// A node that is no member is there, and was no replay
    pub(super) fn on_guest_up(&mut self, key: PublicKey, arrival: Arrival, out: &mut Vec<Step>) {
        let told = self.guests.told(&key).cloned();
        let place = self.ledger.members().standing(&key);
        let secret = Register::decode(&arrival.hello).ok().and_then(|register| register.secret);
        match (told, place, secret) {
            (Some(Told::Pending), Some(Standing::Pending), _) => self.guests.wait(key),
            (Some(told @ (Told::Pending | Told::Welcome(_))), None, Some(secret)) => {
                let promised = match told {
                    Told::Welcome(addresses) => addresses,
                    Told::Pending | Told::Refused => Vec::new(),
                };
                if self.ledger.wish(Wish::Redeem(key, secret, promised), Then::Arrive) {
                    self.arriving.insert(key, arrival);
                } else {
                    self.guests.remove(&key);
                    self.turn_away(&key, out);
                }
            }
            (Some(_) | None, _, _) => {
                self.guests.remove(&key);
                self.turn_away(&key, out);
            }
        }
    }

    /// Takes a request that changes something; it is answered when that is written down
    pub(in crate::daemon) fn on_request(
        &mut self,
        id: RequestId,
        wish: Wish,
        invited: Option<Invited>,
        out: &mut Vec<Step>,
    ) {
        // Requests are bounded by who takes them.
        if !self.ledger.wish(wish, Then::Answer(id, invited.map(Box::new))) {
            out.push(Step::Answer(id, Answer::Members(Err(crate::handle::HandleError::Stopping))));
        }
    }

    /// Returns who waits for an answer that will not come any more
    pub(in crate::daemon) fn abandon(&mut self) -> Vec<RequestId> {
        self.ledger.abandon()
    }

    /// Lists all members
    pub(in crate::daemon) fn member_views(&self) -> Vec<MemberView> {
        let rows = self.ledger.members().rows().into_iter();
        let view = rows.map(|row| MemberView {
            online: self.live.contains_key(&row.key),
            addresses: match self.live.get(&row.key) {
                Some(live) => live.addresses.iter().map(Prefix::addr).collect(),
                None => row.record.addresses,
            },
            name: row.record.name,
            public_key: row.key,
            subnets: row.record.subnets,
            standing: row.record.standing.as_str(),
            source: match row.source {
                Source::Configuration => "configuration",
                Source::Store => "store",
            },
            since: row.record.since,
        });
        view.collect()
    }

    /// Lists the invitations by which somebody may still come
    pub(in crate::daemon) fn invitation_views(&self, now: Instant) -> Vec<InvitationView> {
        let open = self.ledger.members().invitations(unix(self.zero, now)).into_iter();
        let view = open.map(|invitation| InvitationView {
            name: invitation.name.clone(),
            expires: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(invitation.expires))
                .unwrap_or(SystemTime::UNIX_EPOCH),
            approval: invitation.approval,
        });
        view.collect()
    }

    /// A request has come true, or cannot
    pub(super) fn on_answered(
        &mut self,
        id: RequestId,
        invited: Option<Box<Invited>>,
        wish: &Wish,
        result: Result<Option<PublicKey>, RegistryError>,
        out: &mut Vec<Step>,
    ) {
        let answer = match result {
            Ok(key) => {
                if let Some(key) = key {
                    self.on_changed(&key, wish, out);
                }
                Ok(invited.map_or(MembersReply::Done, |invited| MembersReply::Invited(*invited)))
            }
            Err(error) => Err(in_words(error)),
        };
        out.push(Step::Answer(id, Answer::Members(answer)));
    }

    /// A member has another standing or name
    fn on_changed(&mut self, key: &PublicKey, wish: &Wish, out: &mut Vec<Step>) {
        let name = self.name_of(key);
        match wish {
            Wish::Approve(_) => {
                info!(network = %self.network, name, "member approved");
                // It comes anew when its session ends, and is welcomed then.
                if self.guests.remove(key) {
                    out.push(Step::Node(Command::RemovePeer(*key)));
                }
            }
            Wish::Rename(..) => {
                self.enlist(key);
            }
            Wish::Revoke(_) => {
                info!(network = %self.network, ?key, "member revoked");
                self.guests.remove(key);
                self.arriving.remove(key);
                self.offers.remove(key);
                self.leave(key, NO_MEMBER);
                // Whether or not it is alive: the node may know it, or be in a handshake with it.
                out.push(Step::Node(Command::RemovePeer(*key)));
            }
            Wish::Addresses(..) | Wish::Invite(..) | Wish::Redeem(..) | Wish::Withdraw(_) => {}
        }
    }

    /// Says what may become of a node that is no member
    fn look_at(&self, key: &PublicKey, hello: &[u8], now: Instant) -> Newcomer {
        let Ok(register) = Register::decode(hello) else { return Newcomer::Stranger };
        let place = self.ledger.members().standing(key);
        let Some(secret) = register.secret else {
            return match place {
                Some(Standing::Pending) => Newcomer::Pending,
                Some(Standing::Approved | Standing::Revoked) | None => Newcomer::Stranger,
            };
        };
        let promised = self.guests.promised(Some(key));
        let moment = Moment { now: unix(self.zero, now), promised: &promised };
        match self.ledger.members().newcomer(key, &secret, moment) {
            Newcomer::Welcome(addresses) => {
                let has = |claim| addresses.iter().any(|address| address.addr() == claim);
                if register.addresses.iter().all(|claim| has(*claim)) {
                    return Newcomer::Welcome(addresses);
                }
                let why = "who is invited gets its address from the hub: leave \"address\" out";
                Newcomer::Refused(why.to_owned())
            }
            other => other,
        }
    }
}
