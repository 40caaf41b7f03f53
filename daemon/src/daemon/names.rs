//! Which nodes have names: all that are known, alive or not.
//!
//! A [`Names`] keeps what the list last said of nodes that have left it, so that a name outlives an
//! hour offline: who uses it waits or is told that nobody answers, not that there is no such name.
//!
//! # Contract
//!
//! - Who left keeps name and addresses until somebody else has one of them, is known to be no member
//!   any more, or the network goes down.
//! - After each change [`Names::touch`]; [`Names::poll`] then tells once whether names are others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::Command;

use super::action::Step;
use super::network::{Network, Role};
use super::snapshot::HUB_NAME;
use crate::config::NetworkConfig;
use crate::dns::{Host, HostKind, reverse_domains};
use crate::handle::Apply;
use crate::system::{Announce, DnsPlan};

/// Nodes that left and are remembered
const GONE_MAX: usize = 1024;

/// Nodes of one network that have names
#[derive(Debug, Default)]
pub(super) struct Names {
    touched: bool,
    hosts: BTreeMap<PublicKey, Host>,
    gone: BTreeMap<PublicKey, Host>,
}

/// Nodes that are known at the moment
#[derive(Debug, Default)]
struct Present {
    hosts: Vec<Host>,
    /// Keys of all members, where they are known
    members: Option<BTreeSet<PublicKey>>,
}

impl Names {
    /// Records that there may be others now
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// Forgets everything
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Tells whether there may be others than were polled last
    pub(super) fn is_touched(&self) -> bool {
        self.touched
    }

    /// Takes who is known now; returns all that have names if these are others than before
    #[must_use]
    fn poll(&mut self, present: Present) -> Option<Arc<[Host]>> {
        self.touched = false;
        let mut hosts: BTreeMap<_, _> =
            present.hosts.into_iter().map(|host| (host.key, host)).collect();
        for (key, old) in &self.hosts {
            self.gone.entry(*key).or_insert_with(|| old.clone());
        }
        for (key, host) in &mut hosts {
            match self.gone.get(key) {
                // A member without addresses of its own, which is away: it still has those it had.
                Some(old) if host.addresses.is_empty() => host.addresses = old.addresses.clone(),
                Some(_) | None => {}
            }
        }
        let names: BTreeSet<&str> = hosts.values().map(|host| host.name.as_str()).collect();
        let addresses: BTreeSet<IpAddr> =
            hosts.values().flat_map(|host| host.addresses.iter().copied()).collect();
        let members = present.members;
        self.gone.retain(|key, host| {
            !hosts.contains_key(key)
                && members.as_ref().is_none_or(|members| members.contains(key))
                && !names.contains(host.name.as_str())
                && !host.addresses.iter().any(|addr| addresses.contains(addr))
        });
        while self.gone.len() > GONE_MAX {
            self.gone.pop_last();
        }
        hosts.extend(self.gone.iter().map(|(key, host)| (*key, host.clone())));
        hosts.retain(|_, host| !host.addresses.is_empty());
        if hosts == self.hosts {
            return None;
        }
        self.hosts = hosts;
        Some(self.hosts.values().cloned().collect())
    }
}

/// Returns all nodes of a network that have names, if these are others than before
pub(super) fn poll(network: &mut Network) -> Option<Arc<[Host]>> {
    if !network.names.is_touched() {
        return None;
    }
    let present = present(network)?;
    network.names.poll(present)
}

/// Tells whether nodes may have other names or addresses after this
pub(super) fn concern(step: &Step) -> bool {
    match step {
        Step::Node(command) => matches!(command, Command::RemovePeer(_) | Command::SetPeer(_)),
        // an answer may tell of a new name
        Step::Answer(..) | Step::Plan { .. } => true,
        Step::Fail(_) | Step::Resolve(_) | Step::Welcomed | Step::Write(_) => false,
    }
}

/// Says who answers for the names of a node with these addresses
pub(super) fn plan(config: &NetworkConfig, apply: &Apply, addresses: &[Prefix]) -> Option<DnsPlan> {
    Some(DnsPlan {
        suffix: config.dns.as_ref()?.to_string(),
        reverse: reverse_domains(addresses),
        server: addresses.first()?.addr(),
        announce: match apply {
            Apply::Caller(_) => Announce::Caller,
            Apply::Daemon => Announce::Resolved,
        },
    })
}

/// Returns who is known; nothing while there is no interface to have names on
fn present(network: &Network) -> Option<Present> {
    let plan = network.interface.wanted()?;
    let addresses = plan.addresses.iter().map(|prefix| prefix.addr()).collect();
    let mut hosts = Vec::new();
    let mut members = None;
    match network.role.as_ref()? {
        Role::Hub(hub) => {
            hosts.push(host(HUB_NAME, network.own, addresses, HostKind::Hub));
            for (member, _) in hub.members() {
                let (name, addresses) = (&member.name, hub.addresses_of(member));
                hosts.push(host(name, member.public_key, addresses, HostKind::Member));
            }
            members = Some(hosts.iter().map(|host| host.key).collect());
        }
        Role::Peer(peer) => {
            let hub = peer.hub().public_key;
            hosts.push(host(HUB_NAME, hub, peer.hub_overlay().to_vec(), HostKind::Hub));
            for entry in peer.peers() {
                let addresses = entry.addresses.clone();
                hosts.push(host(&entry.name, entry.key, addresses, HostKind::Member));
            }
            if let Some(name) = peer.own_name() {
                hosts.push(host(name, network.own, addresses, HostKind::Member));
            }
        }
    }
    Some(Present { hosts, members })
}

fn host(name: &str, key: PublicKey, addresses: Vec<IpAddr>, kind: HostKind) -> Host {
    Host { name: name.to_owned(), key, addresses, kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::fixture::key;

    #[test]
    fn who_left_keeps_its_name_until_the_address_is_anothers() {
        let mut names = Names::default();
        assert_eq!(poll(&mut names, &[(1, "tokyo", 1), (2, "paris", 2)]), ["tokyo", "paris"]);

        assert!(names.poll(list(&[(2, "paris", 2)])).is_none(), "nothing is different");
        assert_eq!(poll(&mut names, &[(2, "paris", 2), (3, "oslo", 1)]), ["paris", "oslo"]);
    }

    #[test]
    fn who_comes_with_the_name_of_one_that_left_has_it_alone() {
        let mut names = Names::default();
        poll(&mut names, &[(1, "tokyo", 1)]);

        let hosts = names.poll(list(&[(2, "tokyo", 2)])).unwrap();

        assert_eq!(hosts.iter().map(|host| host.key).collect::<Vec<_>>(), [key(2)]);
    }

    #[test]
    fn member_that_is_none_any_more_has_no_name() {
        let mut names = Names::default();
        poll(&mut names, &[(1, "tokyo", 1), (2, "paris", 2)]);

        let members = Some(BTreeSet::from([key(2)]));
        let hosts = names.poll(Present { members, ..list(&[(2, "paris", 2)]) }).unwrap();

        assert_eq!(hosts.len(), 1);
    }

    #[test]
    fn member_that_is_away_keeps_the_address_that_it_was_given() {
        let mut names = Names::default();
        poll(&mut names, &[(1, "tokyo", 1)]);
        let mut away = list(&[(1, "tokyo", 1)]);
        away.hosts[0].addresses.clear();

        assert!(names.poll(away).is_none(), "nothing is different");
    }

    #[test]
    fn memory_is_bounded() {
        let mut names = Names::default();
        let hosts = |base: u32, count: u32| {
            let host = |n: u32| {
                let mut bytes = [7; 32];
                bytes[..4].copy_from_slice(&(base + n).to_be_bytes());
                let addresses = vec![IpAddr::from((base + n).to_be_bytes())];
                host(&format!("n{}", base + n), PublicKey::from_bytes(bytes), addresses, MEMBER)
            };
            Present { hosts: (0..count).map(host).collect(), members: None }
        };
        let _ = names.poll(hosts(0, 1500));

        let left = names.poll(hosts(9000, 3)).unwrap();

        assert_eq!(left.len(), GONE_MAX + 3);
    }

    fn poll(names: &mut Names, hosts: &[(u8, &str, u8)]) -> Vec<String> {
        names.poll(list(hosts)).unwrap().iter().map(|host| host.name.clone()).collect()
    }

    fn list(hosts: &[(u8, &str, u8)]) -> Present {
        let addresses = |last: u8| vec![IpAddr::from([10, 9, 0, last])];
        let member = |(n, name, last): &(u8, &str, u8)| {
            host(name, key(u16::from(*n)), addresses(*last), MEMBER)
        };
        Present { hosts: hosts.iter().map(member).collect(), members: None }
    }

    const MEMBER: HostKind = HostKind::Member;
}
