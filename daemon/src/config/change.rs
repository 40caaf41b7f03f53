//! The difference of two configurations: what can change live, what needs a restart.

use std::collections::BTreeSet;

use super::{Config, HubConfig, NetworkConfig, RoleConfig};
use crate::handle::NetworkName;

/// What is different about one network
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// Which network
    pub name: NetworkName,
    /// What it needs
    pub kind: ChangeKind,
}

/// What a changed network needs
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeKind {
    /// It is new
    Added,
    /// It takes the new configuration while it runs; no session ends
    Live,
    /// Its file is gone
    Removed,
    /// It must start anew, because of this key
    Restart(&'static str),
}

/// Compares two configurations; networks that are the same in both are not mentioned
///
/// The changes are ordered by name.
pub fn difference(old: &Config, new: &Config) -> Vec<Change> {
    let names: BTreeSet<_> = old.networks.keys().chain(new.networks.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let kind = match (old.networks.get(name), new.networks.get(name)) {
                (None, _) => ChangeKind::Added,
                (Some(_), None) => ChangeKind::Removed,
                (Some(before), Some(after)) if old.node != new.node => {
                    change(before, after).unwrap_or(ChangeKind::Live)
                }
                (Some(before), Some(after)) => change(before, after)?,
            };
            Some(Change { name: name.clone(), kind })
        })
        .collect()
}

fn change(old: &NetworkConfig, new: &NetworkConfig) -> Option<ChangeKind> {
    if let Some(key) = restart(old, new) {
        return Some(ChangeKind::Restart(key));
    }
    let same = old.autoconnect == new.autoconnect
        && old.mtu == new.mtu
        && old.dns == new.dns
        && old.carrier == new.carrier
        && old.engine == new.engine
        && match (&old.role, &new.role) {
            (RoleConfig::Hub(old), RoleConfig::Hub(new)) => old == new,
            (RoleConfig::Peer(old), RoleConfig::Peer(new)) => old == new,
            (RoleConfig::Hub(_), RoleConfig::Peer(_))
            | (RoleConfig::Peer(_), RoleConfig::Hub(_)) => false,
        };
    if same { None } else { Some(ChangeKind::Live) }
}

/// Returns the first key that cannot change while the network runs
fn restart(old: &NetworkConfig, new: &NetworkConfig) -> Option<&'static str> {
    let role = match (&old.role, &new.role) {
        (RoleConfig::Hub(old), RoleConfig::Hub(new)) => lost_subnet(old, new).then_some("subnet"),
        (RoleConfig::Peer(_), RoleConfig::Peer(_)) => None,
        (RoleConfig::Hub(_), RoleConfig::Peer(_)) | (RoleConfig::Peer(_), RoleConfig::Hub(_)) => {
            Some("role")
        }
    };
    let same_key = old.private_key.as_bytes() == new.private_key.as_bytes();
    let same_network_key = old.network_key.as_bytes() == new.network_key.as_bytes();
    role.filter(|key| *key == "role")
        .or((!same_key).then_some("private_key"))
        .or((!same_network_key).then_some("network_key_file"))
        .or((old.cipher != new.cipher).then_some("cipher"))
        .or((old.listen != new.listen).then_some("listen"))
        .or((old.interface != new.interface).then_some("interface"))
        .or((old.threads != new.threads).then_some("threads"))
        .or((old.addresses != new.addresses).then_some("address"))
        .or(role)
}

/// Tells whether a subnet is gone, and with it addresses that are in use
fn lost_subnet(old: &HubConfig, new: &HubConfig) -> bool {
    old.subnets.iter().any(|subnet| !new.subnets.contains(subnet))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use fastvpn_proto::crypto::{NetworkKey, PrivateKey, PublicKey};
    use fastvpn_proto::node::{Choice, TcpMode};

    use super::*;
    use crate::config::{Bounds, EngineConfig, HubAddress, Member, PeerRoleConfig, Preference};

    #[test]
    fn networks_come_and_go_by_name() {
        let (one, two) = (peer("one"), peer("two"));

        let changes = difference(&config([one.clone(), two.clone()]), &config([two, peer("zoo")]));

        assert_eq!(
            changes,
            [
                Change { name: one.name, kind: ChangeKind::Removed },
                Change { name: "zoo".parse().unwrap(), kind: ChangeKind::Added },
            ]
        );
    }

    #[test]
    fn same_configuration_is_no_change() {
        let old = config([hub("home"), peer("work")]);

        assert_eq!(difference(&old, &old.clone()), []);
    }

    #[test]
    fn bounds_of_the_node_concern_every_network() {
        let old = config([hub("home"), peer("work")]);
        let node = Bounds { rate: Some(1), ..Bounds::default() };

        let changes = difference(&old, &Config { node, ..old.clone() });

        assert!(changes.iter().all(|change| change.kind == ChangeKind::Live), "{changes:?}");
        assert_eq!(changes.len(), 2);
    }

    #[test]
    fn what_sessions_survive_is_live() {
        type Edit = fn(&mut HubConfig);
        let edits: [Edit; 8] = [
            |hub| hub.members.clear(),
            |hub| hub.members[0].addresses = vec!["10.0.0.9".parse().unwrap()],
            |hub| hub.members[0].name = "kyoto".to_owned(),
            |hub| hub.members[0].carrier = Choice::Tcp,
            |hub| hub.members[0].tcp = Some(TcpMode::Plain),
            |hub| hub.timeout = Duration::from_secs(20),
            |hub| hub.endpoint = Some("hub.example.net:1".to_owned()),
            |hub| hub.subnets.push("fd00::/64".parse().unwrap()),
        ];
        for edit in edits {
            let mut new = hub("home");
            edit(hub_of(&mut new));
            assert_eq!(kind(hub("home"), new), Some(ChangeKind::Live));
        }

        type OfAll = fn(&mut NetworkConfig);
        let edits: [OfAll; 9] = [
            |new| new.dns = None,
            |new| new.autoconnect = false,
            |new| new.mtu = 1300,
            |new| new.carrier = Choice::Udp,
            |new| new.engine.tcp = TcpMode::Plain,
            |new| new.engine.memory = 1 << 20,
            |new| new.engine.bounds.rate = Some(1),
            |new| new.engine.copies = 0,
            |new| new.role = RoleConfig::Peer(PeerRoleConfig::default()),
        ];
        for edit in edits {
            let mut new = peer("home");
            edit(&mut new);
            assert_eq!(kind(peer("home"), new), Some(ChangeKind::Live));
        }
    }

    #[test]
    fn what_sessions_rest_on_needs_a_restart() {
        type Edit = fn(&mut NetworkConfig);
        let edits: [(Edit, &str); 9] = [
            (|new| new.role = peer("home").role, "role"),
            (|new| new.private_key = PrivateKey::from_bytes([9; 32]), "private_key"),
            (|new| new.network_key = NetworkKey::from_bytes([9; 32]), "network_key_file"),
            (|new| new.cipher = Preference::ChaCha, "cipher"),
            (|new| new.listen.set_port(9), "listen"),
            (|new| new.interface.push('x'), "interface"),
            (|new| new.threads = Some(3), "threads"),
            (|new| new.addresses.clear(), "address"),
            (|new| hub_of(new).subnets = vec!["10.1.0.0/24".parse().unwrap()], "subnet"),
        ];
        for (edit, key) in edits {
            let mut new = hub("home");
            edit(&mut new);
            assert_eq!(kind(hub("home"), new), Some(ChangeKind::Restart(key)));
        }
    }

    fn kind(old: NetworkConfig, new: NetworkConfig) -> Option<ChangeKind> {
        difference(&config([old]), &config([new])).first().map(|change| change.kind)
    }

    fn config<const N: usize>(networks: [NetworkConfig; N]) -> Config {
        Config {
            node: Bounds::default(),
            networks: networks.into_iter().map(|one| (one.name.clone(), one)).collect(),
        }
    }

    fn hub_of(network: &mut NetworkConfig) -> &mut HubConfig {
        match &mut network.role {
            RoleConfig::Hub(hub) => hub,
            RoleConfig::Peer(_) => panic!("a peer"),
        }
    }

    fn hub(name: &str) -> NetworkConfig {
        let member = Member {
            name: "tokyo".to_owned(),
            public_key: PublicKey::from_bytes([3; 32]),
            addresses: Vec::new(),
            subnets: Vec::new(),
            carrier: Choice::Auto,
            tcp: None,
            line: 7,
        };
        NetworkConfig {
            role: RoleConfig::Hub(HubConfig {
                endpoint: None,
                subnets: vec!["10.0.0.0/24".parse().unwrap()],
                members: vec![member],
                timeout: Duration::from_secs(15),
            }),
            ..peer(name)
        }
    }

    fn peer(name: &str) -> NetworkConfig {
        let hub = HubAddress {
            endpoint: "hub:8796".to_owned(),
            others: Vec::new(),
            public_key: PublicKey::from_bytes([2; 32]),
            carrier: Choice::Auto,
            tcp: None,
        };
        NetworkConfig {
            name: name.parse().unwrap(),
            file: PathBuf::from("x.toml"),
            autoconnect: true,
            private_key: PrivateKey::from_bytes([1; 32]),
            network_key: NetworkKey::default(),
            listen: "[::]:0".parse().unwrap(),
            interface: "fvpn-x".to_owned(),
            mtu: 1400,
            threads: None,
            addresses: vec!["10.0.0.7/24".parse().unwrap()],
            dns: Some(crate::dns::Suffix::of_network(name)),
            cipher: Preference::Auto,
            carrier: Choice::Auto,
            engine: EngineConfig::default(),
            role: RoleConfig::Peer(PeerRoleConfig { hubs: vec![hub], ..Default::default() }),
        }
    }
}
