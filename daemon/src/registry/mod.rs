//! Who may join a hub's network, and which addresses they have.
//!
//! [`Members`] is built from the hub's configuration. A member without addresses gets the lowest free
//! one of each subnet and keeps it for ever: what was given is written down before it is given
//! ([`store`]). Who is alive is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use thiserror::Error;

use self::store::Store;
pub use self::store::StoreError;
use crate::config::{HubConfig, Member, is_network_or_broadcast};
use crate::handle::NetworkName;

pub mod store;

/// The members of one hub's network
#[derive(Debug)]
pub struct Members {
    store: Store,
    /// The hub's own addresses
    own: Vec<IpAddr>,
    subnets: Vec<Prefix>,
    members: BTreeMap<PublicKey, Member>,
    /// Addresses that the configuration gives to members
    configured: BTreeSet<IpAddr>,
    /// Addresses that were given to members by us, members of the past included
    given: BTreeMap<PublicKey, Vec<IpAddr>>,
}

/// Why a member has no address
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// All addresses of a subnet have an owner
    #[error(
        "subnet {subnet} is full: all its addresses are the hub's, in the configuration, or given \
         before (see {}); enlarge it", file.display()
    )]
    Full {
        /// The subnet
        subnet: Prefix,
        /// Where the addresses are that were given before
        file: PathBuf,
    },
    /// What was given cannot be read, or a new address cannot be written down
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key is no member's
    #[error("key {0} is no member's")]
    Unknown(PublicKey),
}

impl Members {
    /// Reads which addresses were given before, from `STATE_DIR/addresses/NAME.toml`
    ///
    /// `own` are the hub's overlay addresses, which nobody else gets.
    ///
    /// # Errors
    /// If the file cannot be read. One that is damaged is moved aside, so that the next call begins
    /// anew.
    pub fn open(
        state_dir: &Path,
        network: &NetworkName,
        hub: &HubConfig,
        own: &[Prefix],
    ) -> Result<Self, RegistryError> {
        let store = Store::new(state_dir, network);
        let given = store.read()?;
        let mut members = Self {
            store,
            own: own.iter().map(Prefix::addr).collect(),
            subnets: Vec::new(),
            members: BTreeMap::new(),
            configured: BTreeSet::new(),
            given,
        };
        members.reload(hub);
        Ok(members)
    }

    /// Takes a changed configuration
    ///
    /// Addresses may be others afterwards: ask for those of live members again.
    pub fn reload(&mut self, hub: &HubConfig) {
        self.subnets.clone_from(&hub.subnets);
        self.members =
            hub.members.iter().map(|member| (member.public_key, member.clone())).collect();
        self.configured =
            hub.members.iter().flat_map(|member| &member.addresses).copied().collect();
    }

    /// Returns a member's addresses, each with the length of its subnet
    ///
    /// Those of the configuration; or one of each subnet, the same each time. A given address that
    /// the configuration has since given to somebody else is replaced.
    ///
    /// # Errors
    /// If the key is no member's, a subnet is full, or a new address cannot be written down.
    pub fn addresses_for(&mut self, key: &PublicKey) -> Result<Vec<Prefix>, RegistryError> {
        let member = self.members.get(key).ok_or(RegistryError::Unknown(*key))?;
        if !member.addresses.is_empty() {
            return Ok(member.addresses.iter().map(|addr| self.with_length(*addr)).collect());
        }
        let before = self.given.get(key).cloned().unwrap_or_default();
        let mut after = before.clone();
        after.retain(|addr| !self.is_taken(*addr));
        let mut addresses = Vec::new();
        for subnet in self.subnets.clone() {
            let addr = match after.iter().find(|addr| subnet.contains(**addr)) {
                Some(addr) => *addr,
                None => {
                    let addr = self.lowest_free(&subnet, key)?;
                    after.push(addr);
                    addr
                }
            };
            addresses.push(self.with_length(addr));
        }
        if after != before {
            let mut given = self.given.clone();
            given.insert(*key, after);
            self.store.write(&given)?;
            self.given = given;
        }
        Ok(addresses)
    }

    /// Returns the member of that key
    pub fn find(&self, key: &PublicKey) -> Option<&Member> {
        self.members.get(key)
    }

    /// Returns all members, ordered by key
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    fn with_length(&self, addr: IpAddr) -> Prefix {
        self.subnets
            .iter()
            .find(|subnet| subnet.contains(addr))
            .and_then(|subnet| Prefix::new(addr, subnet.len()).ok())
            .unwrap_or_else(|| Prefix::host(addr))
    }

    /// Tells whether the hub, the configuration or the subnet itself claims an address
    fn is_taken(&self, addr: IpAddr) -> bool {
        self.own.contains(&addr)
            || self.configured.contains(&addr)
            || self.subnets.iter().any(|subnet| is_network_or_broadcast(subnet, addr))
    }

    fn lowest_free(&self, subnet: &Prefix, key: &PublicKey) -> Result<IpAddr, RegistryError> {
        let others: BTreeSet<IpAddr> = self
            .given
            .iter()
            .filter(|(owner, _)| *owner != key)
            .flat_map(|(_, addresses)| addresses)
            .copied()
            .collect();
        let free = |addr: &IpAddr| !self.is_taken(*addr) && !others.contains(addr);
        let mut next = Some(subnet.network().addr());
        while let Some(addr) = next.filter(|addr| subnet.contains(*addr)) {
            if free(&addr) {
                return Ok(addr);
            }
            next = successor(addr);
        }
        Err(RegistryError::Full { subnet: *subnet, file: self.store.file().to_owned() })
    }
}

fn successor(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().checked_add(1).map(Ipv4Addr::from_bits).map(IpAddr::V4),
        IpAddr::V6(addr) => addr.to_bits().checked_add(1).map(Ipv6Addr::from_bits).map(IpAddr::V6),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn configured_addresses_get_the_length_of_their_subnet() {
        let state = tempfile::tempdir().unwrap();
        let mut members = open(&state, &hub(&["10.0.0.0/24"], &[(1, &["10.0.0.7"])]));

        assert_eq!(addresses(&mut members, 1), ["10.0.0.7/24"]);
        assert_eq!(members.find(&key(1)).unwrap().name, "member-1");
        assert!(members.find(&key(2)).is_none());
        assert!(matches!(members.addresses_for(&key(2)), Err(RegistryError::Unknown(_))));
        assert!(!state.path().join("addresses").exists(), "nothing was given");
    }

    #[test]
    fn lowest_free_address_of_each_subnet_is_given() {
        let state = tempfile::tempdir().unwrap();
        let hub = hub(&["10.0.0.0/24", "fd00::/64"], &[(1, &["10.0.0.2"]), (2, &[]), (3, &[])]);
        let mut members = open(&state, &hub);

        // .0 is the network's, .1 the hub's, .2 the first member's
        assert_eq!(addresses(&mut members, 3), ["10.0.0.3/24", "fd00::1/64"]);
        assert_eq!(addresses(&mut members, 2), ["10.0.0.4/24", "fd00::2/64"]);
        assert_eq!(addresses(&mut members, 3), ["10.0.0.3/24", "fd00::1/64"]);
    }

    #[test]
    fn given_addresses_are_remembered_for_ever() {
        let state = tempfile::tempdir().unwrap();
        let both = hub(&["10.0.0.0/24"], &[(1, &[]), (2, &[])]);
        let mut members = open(&state, &both);
        assert_eq!(addresses(&mut members, 1), ["10.0.0.2/24"]);
        drop(members);

        let mut members = open(&state, &hub(&["10.0.0.0/24"], &[(2, &[])]));
        assert_eq!(addresses(&mut members, 2), ["10.0.0.3/24"]);

        members.reload(&both);
        assert_eq!(addresses(&mut members, 1), ["10.0.0.2/24"]);
    }

    #[test]
    fn given_address_that_is_configured_for_another_is_given_anew() {
        let state = tempfile::tempdir().unwrap();
        let mut members = open(&state, &hub(&["10.0.0.0/24"], &[(1, &[])]));
        assert_eq!(addresses(&mut members, 1), ["10.0.0.2/24"]);

        members.reload(&hub(&["10.0.0.0/24"], &[(1, &[]), (2, &["10.0.0.2"])]));

        assert_eq!(addresses(&mut members, 1), ["10.0.0.3/24"]);
        assert_eq!(addresses(&mut members, 2), ["10.0.0.2/24"]);
    }

    #[test]
    fn full_subnet_is_an_error_that_changes_nothing() {
        let state = tempfile::tempdir().unwrap();
        // .1 is the hub's, .2 is free, .3 is the broadcast address
        let mut members = open(&state, &hub(&["fd00::/64", "10.0.0.0/30"], &[(1, &[]), (2, &[])]));
        assert_eq!(addresses(&mut members, 1), ["fd00::1/64", "10.0.0.2/30"]);
        let written = fs::read(state.path().join("addresses/home.toml")).unwrap();

        let error = members.addresses_for(&key(2)).unwrap_err();

        assert!(error.to_string().starts_with("subnet 10.0.0.0/30 is full"), "{error}");
        assert_eq!(fs::read(state.path().join("addresses/home.toml")).unwrap(), written);
    }

    #[test]
    fn new_subnet_adds_an_address_and_keeps_the_old_one() {
        let state = tempfile::tempdir().unwrap();
        let mut members = open(&state, &hub(&["10.0.0.0/24"], &[(1, &[])]));
        assert_eq!(addresses(&mut members, 1), ["10.0.0.2/24"]);

        members.reload(&hub(&["fd00::/64", "10.0.0.0/24"], &[(1, &[])]));

        assert_eq!(addresses(&mut members, 1), ["fd00::1/64", "10.0.0.2/24"]);
    }

    #[test]
    fn address_that_cannot_be_written_down_is_not_given() {
        let state = tempfile::tempdir().unwrap();
        let mut members = open(&state, &hub(&["10.0.0.0/24"], &[(1, &[])]));
        // where the directory should be, there is a file
        fs::write(state.path().join("addresses"), "").unwrap();

        assert!(matches!(members.addresses_for(&key(1)), Err(RegistryError::Store(_))));

        fs::remove_file(state.path().join("addresses")).unwrap();
        assert_eq!(addresses(&mut members, 1), ["10.0.0.2/24"]);
        let file = fs::metadata(state.path().join("addresses/home.toml")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }

    fn open(state: &TempDir, hub: &HubConfig) -> Members {
        let own = "10.0.0.1/24".parse().unwrap();
        Members::open(state.path(), &"home".parse().unwrap(), hub, &[own]).unwrap()
    }

    fn addresses(members: &mut Members, member: u8) -> Vec<String> {
        members.addresses_for(&key(member)).unwrap().iter().map(Prefix::to_string).collect()
    }

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }

    fn hub(subnets: &[&str], members: &[(u8, &[&str])]) -> HubConfig {
        HubConfig {
            endpoint: None,
            subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
            members: members
                .iter()
                .map(|(byte, addresses)| Member {
                    name: format!("member-{byte}"),
                    public_key: key(*byte),
                    addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
                    subnets: Vec::new(),
                })
                .collect(),
            timeout: Duration::from_secs(15),
        }
    }
}
