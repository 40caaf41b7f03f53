//! Who may become a member: invitations, and what comes of them.

use fastvpn_proto::crypto::{InvitationSecret, PublicKey};
use fastvpn_proto::ip::Prefix;

use super::{Members, Moment, Newcomer, numbered};
use crate::registry::{
    ADDRESSES_MAX, Change, Digest, Invitation, Record, RegistryError, Standing, Use,
};

impl Members {
    /// Says what may become of a node that is no member, by the secret that it shows
    pub fn newcomer(
        &self,
        key: &PublicKey,
        secret: &InvitationSecret,
        moment: Moment<'_>,
    ) -> Newcomer {
        let standing = self.standing(key);
        if standing == Some(Standing::Pending) {
            return Newcomer::Pending;
        }
        let Some(invitation) = self.kept.invitations.get(&Digest::of(secret)) else {
            return Newcomer::Stranger;
        };
        let refused = |why: &str| Newcomer::Refused(why.to_owned());
        match (standing, invitation.used) {
            (Some(Standing::Revoked), _) => {
                return refused("this node was revoked; ask the hub's administrator to approve it");
            }
            (_, Use::By(_)) => {
                return refused("this invitation was used already; ask for a new one");
            }
            (_, Use::Withdrawn) => {
                return refused("this invitation was withdrawn; ask for a new one");
            }
            (Some(Standing::Approved | Standing::Pending) | None, Use::Open) => {}
        }
        if moment.now >= invitation.expires {
            return refused("this invitation has expired; ask for a new one");
        }
        if let Err(error) = self.has_room(invitation) {
            return Newcomer::Refused(error.to_string());
        }
        if invitation.approval {
            return Newcomer::Pending;
        }
        match self.addresses_of(invitation, moment) {
            Ok(addresses) => Newcomer::Welcome(addresses),
            Err(error) => Newcomer::Refused(error.to_string()),
        }
    }

    /// Says what is to be written down when the newcomer is there: the member, the use of the
    /// invitation, and the addresses that it was promised
    ///
    /// # Errors
    /// With a sentence for the newcomer, if it may not come in any more.
    pub fn redeem(
        &self,
        key: &PublicKey,
        secret: &InvitationSecret,
        promised: &[Prefix],
        moment: Moment<'_>,
    ) -> Result<Vec<Change>, RegistryError> {
        match self.newcomer(key, secret, moment) {
            Newcomer::Pending | Newcomer::Welcome(_) => {}
            Newcomer::Refused(why) => return Err(RegistryError::Refused(why)),
            Newcomer::Stranger => return Err(RegistryError::unknown(key)),
        }
        if self.standing(key).is_some() {
            return Ok(Vec::new());
        }
        let digest = Digest::of(secret);
        let Some(invitation) = self.kept.invitations.get(&digest) else { return Ok(Vec::new()) };
        let record = Record {
            name: self.unique(&invitation.name, digest),
            standing: if invitation.approval { Standing::Pending } else { Standing::Approved },
            since: moment.now,
            addresses: invitation.addresses.clone(),
            subnets: invitation.subnets.clone(),
        };
        let mut changes = Vec::new();
        if record.addresses.is_empty() && !promised.is_empty() {
            changes.push(Change::Given(*key, promised.iter().map(Prefix::addr).collect()));
        }
        let used = Invitation { used: Use::By(*key), ..invitation.clone() };
        changes.extend([Change::Member(*key, record), Change::Invitation(digest, used)]);
        Ok(changes)
    }

    /// Says what is to be written down for a new invitation
    ///
    /// # Errors
    /// If its name, an address or a subnet is somebody else's, or there are too many already.
    pub fn invite(
        &self,
        digest: Digest,
        invitation: Invitation,
        moment: Moment<'_>,
    ) -> Result<Vec<Change>, RegistryError> {
        self.check_name(&invitation.name, None, moment.now)?;
        if invitation.addresses.len() > ADDRESSES_MAX {
            return Err(RegistryError::TooMany);
        }
        let nobody = PublicKey::from_bytes([0; 32]);
        for addr in &invitation.addresses {
            self.check_free(&nobody, *addr, moment)?;
        }
        for subnet in &invitation.subnets {
            self.check_subnet(subnet, None, moment.now)?;
        }
        self.has_room(&invitation)?;
        let mut changes = self.forgettable(moment.now)?;
        changes.push(Change::Invitation(digest, invitation));
        Ok(changes)
    }

    /// Says what is to be written down to withdraw the invitations of a name
    ///
    /// # Errors
    /// If there is none that may still be used.
    pub fn withdraw(&self, name: &str, now: u64) -> Result<Vec<Change>, RegistryError> {
        let open = self.kept.invitations.iter();
        let open = open.filter(|(_, one)| one.name == name && one.is_open(now));
        let changes: Vec<_> = open
            .map(|(digest, one)| {
                Change::Invitation(*digest, Invitation { used: Use::Withdrawn, ..one.clone() })
            })
            .collect();
        if changes.is_empty() {
            Err(RegistryError::NoInvitation(name.to_owned()))
        } else {
            Ok(changes)
        }
    }

    /// Which addresses who comes by an invitation gets
    fn addresses_of(
        &self,
        invitation: &Invitation,
        moment: Moment<'_>,
    ) -> Result<Vec<Prefix>, RegistryError> {
        if !invitation.addresses.is_empty() {
            return Ok(invitation.addresses.iter().map(|addr| self.with_length(*addr)).collect());
        }
        let taken = self.taken(&PublicKey::from_bytes([0; 32]), moment);
        let free = |subnet| Ok(self.with_length(self.lowest_free(subnet, &taken)?));
        self.subnets.iter().map(free).collect()
    }

    fn has_room(&self, invitation: &Invitation) -> Result<(), RegistryError> {
        let count = |standing| {
            self.kept.members.values().filter(|record| record.standing == standing).count()
        };
        let pending = count(Standing::Pending);
        if invitation.approval && pending >= PENDING_MAX {
            let remedy = "approve or revoke some of them";
            let what = "nodes that wait for approval";
            return Err(RegistryError::Limit { what, limit: PENDING_MAX, remedy });
        }
        if count(Standing::Approved) + pending >= MEMBERS_MAX {
            let remedy = "revoke those that are no longer needed";
            return Err(RegistryError::Limit { what: "members", limit: MEMBERS_MAX, remedy });
        }
        Ok(())
    }

    /// Which invitations of the past make room for a new one
    fn forgettable(&self, now: u64) -> Result<Vec<Change>, RegistryError> {
        let mut dead: Vec<_> =
            self.kept.invitations.iter().filter(|(_, one)| !one.is_open(now)).collect();
        dead.sort_by_key(|(_, one)| one.expires);
        let old =
            dead.iter().filter(|(_, one)| one.expires.saturating_add(REMEMBERED) < now).count();
        let surplus = (self.kept.invitations.len() + 1).saturating_sub(INVITATIONS_MAX);
        if surplus > dead.len() {
            let what = "open invitations";
            let remedy = "withdraw some: fastvpnctl invitation cancel NAME";
            return Err(RegistryError::Limit { what, limit: INVITATIONS_MAX, remedy });
        }
        let gone = dead.iter().take(old.max(surplus));
        Ok(gone.map(|(digest, _)| Change::NoInvitation(**digest)).collect())
    }

    /// A name like the one of an invitation that is nobody else's
    fn unique(&self, name: &str, invitation: Digest) -> String {
        numbered(name, |name| {
            let waiting = self.kept.members.values();
            let mut waiting = waiting.filter(|one| one.standing == Standing::Pending);
            let mut invited = self.kept.invitations.iter();
            self.iter().any(|one| one.name == name)
                || waiting.any(|one| one.name == name)
                || invited.any(|(digest, one)| {
                    *digest != invitation && one.used == Use::Open && one.name == name
                })
        })
    }
}

/// Members that the hub itself keeps, those included that wait for approval
const MEMBERS_MAX: usize = 10_000;
/// Nodes that may wait for approval
pub(super) const PENDING_MAX: usize = 64;
/// Invitations that are kept, those of the past included
pub(super) const INVITATIONS_MAX: usize = 1000;
/// How long an invitation of the past is remembered, in seconds, to say what became of it
const REMEMBERED: u64 = 30 * 24 * 3600;
