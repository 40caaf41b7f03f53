//! What may be done with members, invitations and addresses.
//!
//! [`Members`] knows what the configuration says and what the hub's own registry holds. It is pure:
//! each request is answered with the [`Change`]s that it needs, and changes count when they come back
//! through [`Members::apply`], after they were committed. What the configuration says goes first: a
//! member of ours whose name, address or subnet the administrator has since given to another yields.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::Choice;

use super::{
    ADDRESSES_MAX, Change, Configured, Contents, Invitation, Record, Registry, RegistryError,
    Standing,
};
use crate::config::{HubConfig, Member, NetworkConfig, is_network_or_broadcast};

mod invited;

/// The members of one hub's network, and who may become one
#[derive(Debug)]
pub struct Members {
    /// Where the changes go, for people
    file: PathBuf,
    /// The hub's own addresses
    own: Vec<IpAddr>,
    subnets: Vec<Prefix>,
    /// Carrier of members that have none
    carrier: Choice,
    configured: Configured,
    /// What the hub's own registry holds
    kept: Contents,
    /// Who may join: the configuration's, and those of ours that are approved
    admitted: BTreeMap<PublicKey, Member>,
}

/// What counts beside what is kept, at one moment
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Unix seconds
    pub now: u64,
    /// Addresses that newcomers were promised who are not there yet
    pub promised: &'a BTreeSet<IpAddr>,
}

/// What may become of a node that is no member and shows the secret of an invitation
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Newcomer {
    /// Somebody has to approve it
    Pending,
    /// It gets no more than this sentence
    Refused(String),
    /// The secret was never made here, or there is none
    Stranger,
    /// It may come in, with these addresses
    Welcome(Vec<Prefix>),
}

/// What a member's addresses are, and what has to be written down first
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// Each with the length of its subnet
    pub addresses: Vec<Prefix>,
    /// Nothing, if they are written down already
    pub change: Option<Change>,
}

/// A member as it is listed
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Identity
    pub key: PublicKey,
    /// What is kept of it
    pub record: Record,
    /// Where that is kept
    pub source: Source,
}

/// Where a member is kept
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// In the administrator's configuration
    Configuration,
    /// In the hub's own registry
    Store,
}

impl Members {
    /// Joins what the configuration says with what the hub's own registry, in `file`, holds
    pub fn new(config: &NetworkConfig, hub: &HubConfig, kept: Contents, file: &Path) -> Self {
        let mut members = Self {
            file: file.to_owned(),
            own: Vec::new(),
            subnets: Vec::new(),
            carrier: config.carrier,
            configured: Configured::new(PathBuf::new(), Vec::new()),
            kept,
            admitted: BTreeMap::new(),
        };
        members.reload(config, hub);
        members
    }

    /// Takes a changed configuration
    ///
    /// Addresses may be others afterwards: ask for those of live members again.
    pub fn reload(&mut self, config: &NetworkConfig, hub: &HubConfig) {
        self.own = config.addresses.iter().map(Prefix::addr).collect();
        self.subnets.clone_from(&hub.subnets);
        self.carrier = config.carrier;
        self.configured = Configured::new(config.file.clone(), hub.members.clone());
        self.admit_all();
    }

    /// Takes what was committed
    pub fn apply(&mut self, changes: Vec<Change>) {
        let of_members = |one: &Change| matches!(one, Change::Member(..) | Change::NoMember(_));
        let others = changes.iter().any(of_members);
        for change in changes {
            self.kept.apply(change);
        }
        if others {
            self.admit_all();
        }
    }

    /// Returns the member of that key, if it may join
    pub fn find(&self, key: &PublicKey) -> Option<&Member> {
        self.admitted.get(key)
    }

    /// Goes through all who may join, ordered by key
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.admitted.values()
    }

    /// Tells whether a key belongs to who may join, waits, or was revoked; nothing: it is unknown
    pub fn standing(&self, key: &PublicKey) -> Option<Standing> {
        if self.admitted.contains_key(key) {
            return Some(Standing::Approved);
        }
        self.kept.members.get(key).map(|record| record.standing)
    }

    /// Lists all members with what is kept of them, ordered by name
    pub fn rows(&self) -> Vec<Row> {
        let configured = self.configured.iter().map(|member| Row {
            key: member.public_key,
            record: Record {
                name: member.name.clone(),
                standing: Standing::Approved,
                since: 0,
                addresses: self.shown(&member.public_key, &member.addresses),
                subnets: member.subnets.clone(),
            },
            source: Source::Configuration,
        });
        let mine = self.kept.members.iter().filter(|(key, _)| self.configured.get(key).is_none());
        let mine = mine.map(|(key, record)| {
            let admitted = self.admitted.get(key);
            Row {
                key: *key,
                record: Record {
                    name: admitted.map_or_else(|| record.name.clone(), |it| it.name.clone()),
                    addresses: self.shown(key, &record.addresses),
                    ..record.clone()
                },
                source: Source::Store,
            }
        });
        let mut rows: Vec<_> = configured.chain(mine).collect();
        rows.sort_by(|one, other| one.record.name.cmp(&other.record.name));
        rows
    }

    /// Lists the invitations by which somebody may still come, ordered by name
    pub fn invitations(&self, now: u64) -> Vec<&Invitation> {
        let open = self.kept.invitations.values().filter(|invitation| invitation.is_open(now));
        let mut open: Vec<_> = open.collect();
        open.sort_by(|one, other| one.name.cmp(&other.name));
        open
    }

    /// Returns a member's addresses
    ///
    /// Its own; or one of each subnet, the same each time. A given address that has since become
    /// somebody else's own is replaced.
    ///
    /// # Errors
    /// If the key is no member's, or a subnet is full.
    pub fn addresses_for(
        &self,
        key: &PublicKey,
        moment: Moment<'_>,
    ) -> Result<Addresses, RegistryError> {
        let member = self.find(key).ok_or_else(|| RegistryError::unknown(key))?;
        if !member.addresses.is_empty() {
            let addresses = member.addresses.iter().map(|addr| self.with_length(*addr));
            return Ok(Addresses { addresses: addresses.collect(), change: None });
        }
        let taken = self.taken(key, moment);
        let before = self.kept.given.get(key).cloned().unwrap_or_default();
        let mut after = before.clone();
        after.retain(|addr| !taken.contains(addr) && !self.is_special(*addr));
        let mut addresses = Vec::new();
        for subnet in &self.subnets {
            let addr = match after.iter().find(|addr| subnet.contains(**addr)) {
                Some(addr) => *addr,
                None => {
                    let addr = self.lowest_free(subnet, &taken)?;
                    after.push(addr);
                    addr
                }
            };
            addresses.push(self.with_length(addr));
        }
        let change = (after != before).then_some(Change::Given(*key, after));
        Ok(Addresses { addresses, change })
    }

    /// Says what a member gets that claims addresses
    ///
    /// If it has some of its own, it can have no others. If not, its claims are to be remembered, in
    /// place of what it had in the same subnets, so that nobody else gets them.
    ///
    /// # Errors
    /// If the key is no member's, a claim is in no subnet or somebody else's, or there are too many.
    pub fn claim(
        &self,
        key: &PublicKey,
        claims: &[IpAddr],
        moment: Moment<'_>,
    ) -> Result<Addresses, RegistryError> {
        let member = self.find(key).ok_or_else(|| RegistryError::unknown(key))?;
        let claims: BTreeSet<IpAddr> = claims.iter().copied().collect();
        let addresses: Vec<_> = claims.iter().map(|addr| self.with_length(*addr)).collect();
        if !member.addresses.is_empty() {
            return match claims.iter().find(|addr| !member.addresses.contains(addr)) {
                Some(addr) => Err(RegistryError::NotConfigured(*addr)),
                None => Ok(Addresses { addresses, change: None }),
            };
        }
        if claims.len() > ADDRESSES_MAX {
            return Err(RegistryError::TooMany);
        }
        for addr in &claims {
            self.check_free(key, *addr, moment)?;
        }
        let before = self.kept.given.get(key).cloned().unwrap_or_default();
        let mut after = before.clone();
        after.retain(|old| !addresses.iter().any(|new| new.contains(*old)));
        after.extend(&claims);
        let change = (after != before).then_some(Change::Given(*key, after));
        Ok(Addresses { addresses, change })
    }

    /// Says what is to be written down so that a node may join: nothing, if it may already
    ///
    /// # Errors
    /// If there is no such node, or its name, an address or a subnet is another one's by now.
    pub fn approve(
        &self,
        who: &str,
        moment: Moment<'_>,
    ) -> Result<(PublicKey, Vec<Change>), RegistryError> {
        let key = self.who(who)?;
        let Some(record) = self.kept.members.get(&key).filter(|_| self.find(&key).is_none()) else {
            return Ok((key, Vec::new()));
        };
        self.check_name(&record.name, Some(&key), moment.now)?;
        // While it was revoked all of it could be given to others.
        for addr in &record.addresses {
            self.check_unowned(&key, *addr, moment)?;
        }
        for subnet in &record.subnets {
            self.check_subnet(subnet, Some(&key), moment.now)?;
        }
        let record = Record { standing: Standing::Approved, ..record.clone() };
        Ok((key, vec![Change::Member(key, record)]))
    }

    /// Says what is to be written down so that a node may join no more
    ///
    /// # Errors
    /// If there is no such node, or it is in the configuration.
    pub fn revoke(&mut self, who: &str) -> Result<(PublicKey, Vec<Change>), RegistryError> {
        let key = self.who(who)?;
        let Some(record) = self.kept.members.get(&key).cloned() else {
            return Err(self.fixed(&key));
        };
        if self.configured.get(&key).is_some() {
            return Err(self.fixed(&key));
        }
        if record.standing == Standing::Revoked {
            return Ok((key, Vec::new()));
        }
        let mut changes = Vec::new();
        let revoked = |(_, one): &(&PublicKey, &Record)| one.standing == Standing::Revoked;
        if self.kept.members.iter().filter(revoked).count() >= REVOKED_MAX {
            // Its invitation stays used, so that it cannot come back by that either.
            let oldest = self.kept.members.iter().filter(revoked).min_by_key(|(_, one)| one.since);
            changes.extend(oldest.map(|(key, _)| Change::NoMember(*key)));
        }
        changes.push(Change::Member(key, Record { standing: Standing::Revoked, ..record }));
        Ok((key, changes))
    }

    /// Says what is to be written down so that a member has another name
    ///
    /// # Errors
    /// If there is no such member, it is in the configuration, or the name is somebody else's.
    pub fn rename(
        &mut self,
        who: &str,
        name: &str,
        now: u64,
    ) -> Result<(PublicKey, Vec<Change>), RegistryError> {
        let key = self.who(who)?;
        let record = self.kept.members.get(&key).cloned();
        let Some(record) = record.filter(|_| self.configured.get(&key).is_none()) else {
            return Err(self.fixed(&key));
        };
        self.check_name(name, Some(&key), now)?;
        if record.name == name {
            return Ok((key, Vec::new()));
        }
        Ok((key, vec![Change::Member(key, Record { name: name.to_owned(), ..record })]))
    }

    /// Finds a member, whatever its standing, by its key or name
    fn who(&self, text: &str) -> Result<PublicKey, RegistryError> {
        if let Ok(key) = text.parse()
            && (self.configured.get(&key).is_some() || self.kept.members.contains_key(&key))
        {
            return Ok(key);
        }
        if let Some(member) = self.iter().find(|member| member.name == text) {
            return Ok(member.public_key);
        }
        let others = self.kept.members.iter().filter(|(_, record)| record.name == text);
        // Who waits goes before who was revoked, and the latest of those before the others.
        let best = others.max_by_key(|(_, one)| (one.standing == Standing::Pending, one.since));
        best.map(|(key, _)| *key).ok_or_else(|| RegistryError::Unknown(text.to_owned()))
    }

    /// The error of who wants to change what only the administrator may
    fn fixed(&mut self, key: &PublicKey) -> RegistryError {
        match self.configured.commit(&[Change::NoMember(*key)]) {
            Err(error) => error,
            Ok(()) => RegistryError::unknown(key),
        }
    }

    /// Finds out anew who may join
    fn admit_all(&mut self) {
        let mut admitted: BTreeMap<_, _> =
            self.configured.iter().map(|member| (member.public_key, member.clone())).collect();
        let mut names: BTreeSet<_> = self.configured.iter().map(|one| one.name.clone()).collect();
        let addresses: BTreeSet<_> =
            self.configured.iter().flat_map(|one| &one.addresses).collect();
        for (key, record) in &self.kept.members {
            if record.standing != Standing::Approved || self.configured.get(key).is_some() {
                continue;
            }
            let name = numbered(&record.name, |name| names.contains(name));
            names.insert(name.clone());
            let own = |addr: &&IpAddr| !addresses.contains(addr) && !self.own.contains(addr);
            let configured = || self.configured.iter().flat_map(|one| &one.subnets);
            let free = |subnet: &&Prefix| {
                !configured().chain(&self.subnets).any(|other| other.overlaps(subnet))
            };
            let member = Member {
                name,
                public_key: *key,
                addresses: record.addresses.iter().filter(own).copied().collect(),
                subnets: record.subnets.iter().filter(free).copied().collect(),
                carrier: self.carrier,
                tcp: None,
                line: 0,
            };
            admitted.insert(*key, member);
        }
        self.admitted = admitted;
    }

    /// What is shown as a member's addresses: its own, or those that it was given
    pub fn shown(&self, key: &PublicKey, own: &[IpAddr]) -> Vec<IpAddr> {
        if own.is_empty() {
            self.kept.given.get(key).cloned().unwrap_or_default()
        } else {
            own.to_vec()
        }
    }

    fn check_name(
        &self,
        name: &str,
        own: Option<&PublicKey>,
        now: u64,
    ) -> Result<(), RegistryError> {
        let taken = |owner: &str| {
            Err(RegistryError::NameTaken { name: name.to_owned(), owner: owner.to_owned() })
        };
        if self.iter().any(|one| one.name == name && Some(&one.public_key) != own) {
            return taken("a member");
        }
        let waits = |(key, one): (&PublicKey, &Record)| {
            one.name == name && one.standing == Standing::Pending && Some(key) != own
        };
        if self.kept.members.iter().any(waits) {
            return taken("a node that waits for approval");
        }
        if self.invitations(now).iter().any(|one| one.name == name) {
            let owner = "an invitation; withdraw it with: fastvpnctl invitation cancel ";
            return taken(&format!("{owner}{name}"));
        }
        Ok(())
    }

    fn check_subnet(
        &self,
        subnet: &Prefix,
        own: Option<&PublicKey>,
        now: u64,
    ) -> Result<(), RegistryError> {
        let members = self.iter().filter(|one| Some(&one.public_key) != own);
        let members = members.flat_map(|one| one.subnets.iter().map(|of| (of, one.name.clone())));
        let waiting = self.kept.members.iter();
        let waiting = waiting
            .filter(|(key, one)| one.standing == Standing::Pending && Some(*key) != own)
            .flat_map(|(_, one)| {
                one.subnets.iter().map(|of| (of, format!("{}, who waits for approval", one.name)))
            });
        let invited = self.invitations(now);
        let invited = invited.iter().flat_map(|one| {
            one.subnets.iter().map(|of| (of, format!("the invitation of {}", one.name)))
        });
        let own = self.subnets.iter().map(|of| (of, "the network itself".to_owned()));
        match own
            .chain(members)
            .chain(waiting)
            .chain(invited)
            .find(|(other, _)| other.overlaps(subnet))
        {
            None => Ok(()),
            Some((other, owner)) => {
                let other = format!("{other} of {owner}");
                Err(RegistryError::Overlap { subnet: *subnet, other })
            }
        }
    }

    fn with_length(&self, addr: IpAddr) -> Prefix {
        self.subnets
            .iter()
            .find(|subnet| subnet.contains(addr))
            .and_then(|subnet| Prefix::new(addr, subnet.len()).ok())
            .unwrap_or_else(|| Prefix::host(addr))
    }

    /// Tells whether an address is one that no node can have
    fn is_special(&self, addr: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| is_network_or_broadcast(subnet, addr))
    }

    /// All addresses that somebody else than `key` has, or is to have
    fn taken(&self, key: &PublicKey, moment: Moment<'_>) -> BTreeSet<IpAddr> {
        let members = self.iter().filter(|one| one.public_key != *key);
        let given = self.kept.given.iter().filter(|(owner, _)| *owner != key);
        let waiting = self
            .kept
            .members
            .iter()
            .filter(|(owner, one)| *owner != key && one.standing == Standing::Pending);
        let invited = self.kept.invitations.values().filter(|one| one.is_open(moment.now));
        let mut taken: BTreeSet<_> = self.own.iter().copied().collect();
        taken.extend(members.flat_map(|one| &one.addresses));
        taken.extend(given.flat_map(|(_, addresses)| addresses));
        taken.extend(waiting.flat_map(|(_, one)| &one.addresses));
        taken.extend(invited.flat_map(|one| &one.addresses));
        taken.extend(moment.promised);
        taken
    }

    fn check_free(
        &self,
        key: &PublicKey,
        addr: IpAddr,
        moment: Moment<'_>,
    ) -> Result<(), RegistryError> {
        let subnet = self.subnets.iter().find(|subnet| subnet.contains(addr));
        if subnet.is_none_or(|subnet| is_network_or_broadcast(subnet, addr)) {
            return Err(RegistryError::Outside(addr));
        }
        self.check_unowned(key, addr, moment)
    }

    /// Fails where an address is somebody else's than `key`
    fn check_unowned(
        &self,
        key: &PublicKey,
        addr: IpAddr,
        moment: Moment<'_>,
    ) -> Result<(), RegistryError> {
        if !self.taken(key, moment).contains(&addr) {
            return Ok(());
        }
        let given = || self.kept.given.iter().find(|(_, given)| given.contains(&addr));
        let owner = if self.own.contains(&addr) {
            "the hub".to_owned()
        } else if let Some(other) = self.iter().find(|other| other.addresses.contains(&addr)) {
            other.name.clone()
        } else if let Some((owner, _)) = given() {
            self.find(owner).map_or_else(|| "a former member".to_owned(), |one| one.name.clone())
        } else {
            "somebody who was invited".to_owned()
        };
        Err(RegistryError::Taken { addr, owner })
    }

    fn lowest_free(
        &self,
        subnet: &Prefix,
        taken: &BTreeSet<IpAddr>,
    ) -> Result<IpAddr, RegistryError> {
        let mut next = Some(subnet.network().addr());
        while let Some(addr) = next.filter(|addr| subnet.contains(*addr)) {
            if !taken.contains(&addr) && !self.is_special(addr) {
                return Ok(addr);
            }
            next = successor(addr);
        }
        Err(RegistryError::Full { subnet: *subnet, file: self.file.clone() })
    }
}

/// The name itself, or the first of `name-2`, `name-3`, … that is free
fn numbered(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut candidate = name.to_owned();
    let mut number = 1;
    while is_taken(&candidate) {
        number += 1;
        let end = format!("-{number}");
        let begin: String = name.chars().take(NAME_MAX - end.len()).collect();
        candidate = format!("{}{end}", begin.trim_end_matches('-'));
    }
    candidate
}

fn successor(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().checked_add(1).map(Ipv4Addr::from_bits).map(IpAddr::V4),
        IpAddr::V6(addr) => addr.to_bits().checked_add(1).map(Ipv6Addr::from_bits).map(IpAddr::V6),
    }
}

/// Characters of a name, which has none of more than one byte
const NAME_MAX: usize = 63;
/// Revoked members that are remembered
const REVOKED_MAX: usize = 1000;

#[cfg(test)]
mod tests;
