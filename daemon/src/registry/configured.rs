//! The registry that the administrator writes: `[[member]]` in the file of a network.
//!
//! It is in memory, as it was read. Nothing of it changes but by another configuration; whoever
//! tries is told where to do that.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fastvpn_proto::crypto::PublicKey;

use super::{Change, Contents, Record, Registry, RegistryError, Standing};
use crate::config::Member;

/// The members of the configuration
#[derive(Clone, Debug)]
pub struct Configured {
    file: PathBuf,
    members: BTreeMap<PublicKey, Member>,
}

impl Configured {
    /// Holds the members that `file` has
    pub fn new(file: PathBuf, members: Vec<Member>) -> Self {
        let by_key = |member: Member| (member.public_key, member);
        Self { file, members: members.into_iter().map(by_key).collect() }
    }

    /// Returns the member of that key
    pub fn get(&self, key: &PublicKey) -> Option<&Member> {
        self.members.get(key)
    }

    /// Goes through all members, ordered by key
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }
}

impl Registry for Configured {
    fn load(&mut self) -> Result<Contents, RegistryError> {
        let record = |member: &Member| Record {
            name: member.name.clone(),
            standing: Standing::Approved,
            since: 0,
            addresses: member.addresses.clone(),
            subnets: member.subnets.clone(),
        };
        let members = self.members.iter().map(|(key, member)| (*key, record(member))).collect();
        Ok(Contents { members, ..Contents::default() })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), RegistryError> {
        match changes.first() {
            None => Ok(()),
            Some(Change::Given(..)) => Err(RegistryError::Unsupported("given addresses")),
            Some(Change::Invitation(..) | Change::NoInvitation(_)) => {
                Err(RegistryError::Unsupported("invitations"))
            }
            Some(Change::Member(key, _) | Change::NoMember(key)) => match self.members.get(key) {
                Some(member) => Err(RegistryError::Configured {
                    name: member.name.clone(),
                    file: self.file.clone(),
                    line: member.line,
                }),
                None => Err(RegistryError::Unsupported("members but those of its files")),
            },
        }
    }
}
