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
    /// A member claims an address, and the configuration gives it others
    #[error("the hub's configuration gives this member other addresses than {0}")]
    NotConfigured(IpAddr),
    /// An address is in no subnet, or one that no node can have
    #[error("address {0} is no node's in any subnet of this network")]
    Outside(IpAddr),
    /// What was given cannot be read, or a new address cannot be written down
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address is somebody else's
    #[error("address {addr} belongs to {owner}")]
    Taken {
        /// The address
        addr: IpAddr,
        /// Whose it is
        owner: String,
    },
    /// A member claims more addresses than one node can need
    #[error("a member may claim {CLAIMS_MAX} addresses at most")]
    TooMany,
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
        members.reload(hub.clone());
        Ok(members)
    }

    /// Takes a changed configuration
    ///
    /// Addresses may be others afterwards: ask for those of live members again.
    pub fn reload(&mut self, hub: HubConfig) {
        self.subnets = hub.subnets;
        self.configured =
            hub.members.iter().flat_map(|member| &member.addresses).copied().collect();
        self.members = hub.members.into_iter().map(|member| (member.public_key, member)).collect();
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
        self.remember(key, after)?;
        Ok(addresses)
    }

    /// Gives a member the addresses that it claims; each comes back with the length of its subnet
    ///
    /// If the configuration gives it addresses, it can have no others. If not, its claims are
    /// remembered, in place of what it had in the same subnets, so that nobody else gets them.
    ///
    /// # Errors
    /// If the key is no member's, a claim is in no subnet or somebody else's, there are too many, or
    /// they cannot be written down. Then nothing changes.
    pub fn claim(
        &mut self,
        key: &PublicKey,
        claims: &[IpAddr],
    ) -> Result<Vec<Prefix>, RegistryError> {
        let addresses = self.check(key, claims)?;
        if self.find(key).is_some_and(|member| member.addresses.is_empty()) {
            let mut after = self.given.get(key).cloned().unwrap_or_default();
            after.retain(|old| !addresses.iter().any(|new| new.contains(*old)));
            after.extend(addresses.iter().map(Prefix::addr));
            self.remember(key, after)?;
        }
        Ok(addresses)
    }

    /// Says what [`Self::claim`] would give a member, without giving it
    ///
    /// # Errors
    /// As for a claim, but nothing is written down.
    pub fn check(&self, key: &PublicKey, claims: &[IpAddr]) -> Result<Vec<Prefix>, RegistryError> {
        let member = self.members.get(key).ok_or(RegistryError::Unknown(*key))?;
        let claims: BTreeSet<IpAddr> = claims.iter().copied().collect();
        let addresses: Vec<_> = claims.iter().map(|addr| self.with_length(*addr)).collect();
        if !member.addresses.is_empty() {
            return match claims.iter().find(|addr| !member.addresses.contains(addr)) {
                Some(addr) => Err(RegistryError::NotConfigured(*addr)),
                None => Ok(addresses),
            };
        }
        if claims.len() > CLAIMS_MAX {
            return Err(RegistryError::TooMany);
        }
        for addr in &claims {
            self.check_claim(key, *addr)?;
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

    /// Writes down what a member has from now on, unless it is what it had
    fn remember(&mut self, key: &PublicKey, after: Vec<IpAddr>) -> Result<(), RegistryError> {
        if self.given.get(key).is_some_and(|before| *before == after) {
            return Ok(());
        }
        let mut given = self.given.clone();
        given.insert(*key, after);
        self.store.write(&given)?;
        self.given = given;
        Ok(())
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

    fn check_claim(&self, key: &PublicKey, addr: IpAddr) -> Result<(), RegistryError> {
        let subnet = self.subnets.iter().find(|subnet| subnet.contains(addr));
        if subnet.is_none_or(|subnet| is_network_or_broadcast(subnet, addr)) {
            return Err(RegistryError::Outside(addr));
        }
        let owner = if self.own.contains(&addr) {
            "the hub".to_owned()
        } else if let Some(other) = self.iter().find(|other| other.addresses.contains(&addr)) {
            other.name.clone()
        } else if let Some((owner, _)) =
            self.given.iter().find(|(owner, given)| *owner != key && given.contains(&addr))
        {
            self.find(owner)
                .map_or_else(|| "a former member".to_owned(), |owner| owner.name.clone())
        } else {
            return Ok(());
        };
        Err(RegistryError::Taken { addr, owner })
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

/// Addresses that one member may claim
const CLAIMS_MAX: usize = 8;

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

        members.reload(both);
        assert_eq!(addresses(&mut members, 1), ["10.0.0.2/24"]);
    }

    #[test]
    fn given_address_that_is_configured_for_another_is_given_anew() {
        let state = tempfile::tempdir().unwrap();
        let mut members = open(&state, &hub(&["10.0.0.0/24"], &[(1, &[])]));
        assert_eq!(addresses(&mut members, 1), ["10.0.0.2/24"]);

        members.reload(hub(&["10.0.0.0/24"], &[(1, &[]), (2, &["10.0.0.2"])]));

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

        members.reload(hub(&["fd00::/64", "10.0.0.0/24"], &[(1, &[])]));

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

    #[test]
    fn claimed_address_is_remembered_and_nobody_elses() {
        let state = tempfile::tempdir().unwrap();
        let hub = hub(&["10.0.0.0/24"], &[(1, &[]), (2, &[]), (3, &[])]);
        let mut members = open(&state, &hub);
        assert_eq!(claim(&mut members, 1, &["10.0.0.2"]).unwrap(), "10.0.0.2/24");

        let mut members = open(&state, &hub);

        assert_eq!(addresses(&mut members, 2), ["10.0.0.3/24"]);
        assert_eq!(
            claim(&mut members, 3, &["10.0.0.2"]).unwrap_err(),
            "address 10.0.0.2 belongs to member-1"
        );
        assert_eq!(claim(&mut members, 1, &["10.0.0.9"]).unwrap(), "10.0.0.9/24");
        assert_eq!(claim(&mut members, 3, &["10.0.0.2"]).unwrap(), "10.0.0.2/24");
    }

    #[test]
    fn claims_that_cannot_be_are_refused() {
        let state = tempfile::tempdir().unwrap();
        let hub = hub(&["10.0.0.0/24"], &[(1, &[]), (2, &["10.0.0.7"])]);
        let mut members = open(&state, &hub);
        for (member, addr, want) in [
            (1, "10.0.0.1", "address 10.0.0.1 belongs to the hub"),
            (1, "10.0.0.7", "address 10.0.0.7 belongs to member-2"),
            (1, "10.0.0.0", "address 10.0.0.0 is no node's in any subnet"),
            (1, "10.0.0.255", "address 10.0.0.255 is no node's in any subnet"),
            (1, "10.0.1.1", "address 10.0.1.1 is no node's in any subnet"),
            (2, "10.0.0.8", "the hub's configuration gives this member other addresses"),
        ] {
            let error = claim(&mut members, member, &[addr]).unwrap_err();
            assert!(error.starts_with(want), "{error}");
        }
        let many: Vec<_> = (10..20).map(|last| format!("10.0.0.{last}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(claim(&mut members, 1, &many).unwrap_err().contains("8 addresses at most"));
        assert_eq!(claim(&mut members, 2, &["10.0.0.7"]).unwrap(), "10.0.0.7/24");
        assert!(!state.path().join("addresses").exists(), "nothing was given");
    }

    fn claim(members: &mut Members, member: u8, claims: &[&str]) -> Result<String, String> {
        let claims: Vec<IpAddr> = claims.iter().map(|addr| addr.parse().unwrap()).collect();
        let addresses = members.claim(&key(member), &claims).map_err(|error| error.to_string())?;
        Ok(addresses.iter().map(Prefix::to_string).collect::<Vec<_>>().join(" "))
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
                    carrier: Default::default(),
                    split: None,
                })
                .collect(),
            timeout: Duration::from_secs(15),
        }
    }
}
