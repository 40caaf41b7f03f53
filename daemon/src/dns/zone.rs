//! Who has which name: the zone of one network, with those of its addresses.
//!
//! A [`Zone`] is made of [`Host`]s and answers what is known of a name. It is a value; a change
//! makes another one.
//!
//! # Contract
//!
//! - A host's label is its name as [`label`] makes it. If several hosts want the same label, it is
//!   the hub's; else that of the one host whose name is written so; else nobody's, so that nobody
//!   gets what was meant for another. Who loses has the label with `-` and the first eight digits of
//!   its key behind it.
//! - Order and time of joining make no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use domain::base::name::{Label, ToName};
use domain::base::{Name, Serial};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;

use super::name::{Suffix, label, reverse_domains, reverse_name};

/// A node that has a name
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// As the hub's administrator calls it
    pub name: String,
    /// Its public key
    pub key: PublicKey,
    /// Its overlay addresses
    pub addresses: Vec<IpAddr>,
    /// What it is in the network
    pub kind: HostKind,
}

/// What a host is in its network
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostKind {
    /// The hub: its name comes before any other
    Hub,
    /// A member
    Member,
}

/// An absolute name, on the wire
pub(super) type WireName = Name<Vec<u8>>;

/// All names of a network
#[derive(Clone, Debug, Default)]
pub struct Zone {
    apexes: Vec<Apex>,
    nodes: BTreeMap<Path, Node>,
    serial: u32,
}

/// Labels of a name in lower case, the last one first: what is below a name sorts right behind it
type Path = Vec<Vec<u8>>;

/// Where a part of the tree of names that is ours begins
#[derive(Clone, Debug)]
pub(super) struct Apex {
    path: Path,
    pub(super) name: WireName,
}

/// What is known of one name
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) ipv4: Vec<Ipv4Addr>,
    pub(super) ipv6: Vec<Ipv6Addr>,
    /// Of which host this is an address
    pub(super) host: Option<WireName>,
}

/// What the zone says of a name
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// The name is in no zone of ours
    Foreign,
    /// There is no such name in this zone
    Nothing(&'a Apex),
    /// There is; without a node only names below it have anything
    Name {
        apex: &'a Apex,
        node: Option<&'a Node>,
        /// Whether the zone begins there
        is_apex: bool,
    },
}

impl Zone {
    /// Puts the names of `hosts` below `suffix`, and those of their addresses in `subnets`
    ///
    /// The name of the zone itself means `server`, the address of who answers. A changed zone has
    /// another `serial`.
    pub fn new(
        suffix: &Suffix,
        subnets: &[Prefix],
        server: IpAddr,
        hosts: &[Host],
        serial: u32,
    ) -> Self {
        let mut zone = Self { serial, ..Self::default() };
        let domains = reverse_domains(subnets);
        let domains = domains.iter().map(String::as_str);
        zone.apexes = std::iter::once(suffix.as_str()).chain(domains).filter_map(apex).collect();
        zone.add(suffix.as_str(), &[server]);
        let labels = labels(hosts);
        for (host, label) in hosts.iter().zip(&labels) {
            if let Some(label) = label {
                zone.add(&format!("{label}.{suffix}"), &host.addresses);
            }
        }
        zone
    }

    /// Returns the number of this version of the zone
    pub(super) fn serial(&self) -> Serial {
        Serial(self.serial)
    }

    /// Looks a name up
    pub(super) fn find(&self, name: &impl ToName) -> Found<'_> {
        let path = path(name);
        let of_zone = |apex: &&Apex| path.starts_with(&apex.path);
        // One zone may be inside another: the nearest counts.
        let nearest = self.apexes.iter().filter(of_zone).max_by_key(|apex| apex.path.len());
        let Some(apex) = nearest else { return Found::Foreign };
        let node = self.nodes.get(&path);
        let is_apex = path == apex.path;
        let has_below = || {
            self.nodes
                .range(path.clone()..)
                .next()
                .is_some_and(|(below, _)| below.starts_with(&path))
        };
        if node.is_some() || is_apex || has_below() {
            Found::Name { apex, node, is_apex }
        } else {
            Found::Nothing(apex)
        }
    }

    /// Gives a name its addresses, and each address its name where that is ours to say
    fn add(&mut self, name: &str, addresses: &[IpAddr]) {
        let Ok(host) = WireName::from_str(name) else { return };
        let node = self.nodes.entry(path(&host)).or_default();
        for addr in addresses {
            match addr {
                IpAddr::V4(addr) => node.ipv4.push(*addr),
                IpAddr::V6(addr) => node.ipv6.push(*addr),
            }
        }
        if self.apexes.iter().any(|apex| apex.name == host) {
            return;
        }
        for addr in addresses {
            let Ok(reverse) = WireName::from_str(&reverse_name(*addr)) else { continue };
            if !matches!(self.find(&reverse), Found::Foreign) {
                self.nodes.entry(path(&reverse)).or_default().host = Some(host.clone());
            }
        }
    }
}

/// Returns the label of each host, in their order
fn labels(hosts: &[Host]) -> Vec<Option<String>> {
    let wished: Vec<_> = hosts.iter().map(|host| label(&host.name)).collect();
    let mut rivals: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, label) in wished.iter().enumerate() {
        if let Some(label) = label {
            rivals.entry(label).or_default().push(index);
        }
    }
    let owner = |label: &str, rivals: &[usize]| {
        let only = |is_it: &dyn Fn(&Host) -> bool| {
            let mut found = rivals.iter().copied().filter(|index| is_it(&hosts[*index]));
            found.next().filter(|_| found.next().is_none())
        };
        only(&|host| host.kind == HostKind::Hub)
            .or_else(|| only(&|host| host.name == label))
            .or_else(|| only(&|_| true))
    };
    let owners: BTreeMap<_, _> =
        rivals.iter().map(|(label, rivals)| (*label, owner(label, rivals))).collect();
    let mut taken: BTreeSet<String> = owners
        .iter()
        .filter(|(_, owner)| owner.is_some())
        .map(|(label, _)| (*label).into())
        .collect();
    let mut labels = Vec::new();
    for (index, (host, wish)) in hosts.iter().zip(&wished).enumerate() {
        labels.push(wish.as_ref().and_then(|wish| {
            if owners.get(wish.as_str()).copied().flatten() == Some(index) {
                return Some(wish.clone());
            }
            let with_key = with_key(wish, &host.key);
            taken.insert(with_key.clone()).then_some(with_key)
        }));
    }
    labels
}

/// Tells two hosts of one label apart
fn with_key(label: &str, key: &PublicKey) -> String {
    let digits: String = key.as_bytes()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let room = label.len().min(63 - 1 - digits.len());
    format!("{}-{digits}", label[..room].trim_end_matches('-'))
}

fn apex(name: &str) -> Option<Apex> {
    // Suffixes and reverse domains are names by their making.
    let name = WireName::from_str(name).ok()?;
    Some(Apex { path: path(&name), name })
}

fn path(name: &impl ToName) -> Path {
    let labels = name.iter_labels().filter(|label| !label.is_root());
    let mut path: Path =
        labels.map(|label: &Label| label.as_slice().to_ascii_lowercase()).collect();
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_their_names_and_their_addresses_have_them_too() {
        let zone = zone(&[host(1, "tokyo", &["10.9.0.2", "fd09::2"])]);

        let Found::Name { node: Some(node), is_apex: false, .. } =
            find(&zone, "TOKYO.home.fastvpn")
        else {
            panic!("not there")
        };
        assert_eq!(node.ipv4, [Ipv4Addr::new(10, 9, 0, 2)]);
        assert_eq!(node.ipv6, ["fd09::2".parse::<Ipv6Addr>().unwrap()]);
        for addr in ["10.9.0.2", "fd09::2"] {
            let name = reverse_name(addr.parse().unwrap());
            let Found::Name { node: Some(node), .. } = find(&zone, &name) else {
                panic!("{name} is not there")
            };
            assert_eq!(node.host.as_ref().unwrap().to_string(), "tokyo.home.fastvpn");
        }
    }

    #[test]
    fn what_is_not_there_is_told_from_what_has_only_names_below_it() {
        let zone = zone(&[host(1, "tokyo", &["10.9.0.2", "fd09::2"])]);

        assert!(matches!(find(&zone, "example.net"), Found::Foreign));
        assert!(matches!(find(&zone, "fastvpn"), Found::Foreign));
        assert!(matches!(find(&zone, "9.8.10.in-addr.arpa"), Found::Foreign));
        assert!(matches!(find(&zone, "paris.home.fastvpn"), Found::Nothing(_)));
        assert!(matches!(find(&zone, "3.0.9.10.in-addr.arpa"), Found::Nothing(_)));
        assert!(matches!(find(&zone, "a.tokyo.home.fastvpn"), Found::Nothing(_)));
        assert!(matches!(find(&zone, "home.fastvpn"), Found::Name { is_apex: true, .. }));
        let mut beside = reverse_name("fd09::2".parse().unwrap());
        beside.replace_range(..1, "3");
        assert!(matches!(find(&zone, &beside), Found::Nothing(_)));
        let mut between = reverse_name("fd09::2".parse().unwrap());
        between.drain(..2);
        assert!(matches!(find(&zone, &between), Found::Name { node: None, is_apex: false, .. }));
    }

    #[test]
    fn label_that_several_want_is_whose_name_it_is_or_nobodys() {
        let hosts = [
            host(1, "Tokyo", &[]),
            host(2, "tokyo", &[]),
            host(3, "a.b", &[]),
            host(4, "a_b", &[]),
            Host { kind: HostKind::Hub, ..host(5, "hub", &[]) },
            host(6, "hub", &[]),
            host(7, "東京", &[]),
            host(8, "a-b-03030303", &[]),
        ];
        let wanted = [
            Some("tokyo-01010101"),
            Some("tokyo"),
            None,
            Some("a-b-04040404"),
            Some("hub"),
            Some("hub-06060606"),
            None,
            Some("a-b-03030303"),
        ];

        let found = labels(&hosts);
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), wanted);

        let turned: Vec<_> = hosts.into_iter().rev().collect();
        let mut found = labels(&turned);
        found.reverse();
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn long_label_keeps_room_for_the_key() {
        let long = "a".repeat(63);

        let found = labels(&[host(1, &long, &[]), host(2, &long, &[])]);

        assert_eq!(found[0].as_deref().unwrap(), format!("{}-01010101", "a".repeat(54)));
        assert_ne!(found[0], found[1]);
    }

    #[test]
    fn zone_below_the_suffix_of_another_is_the_nearest() {
        let suffix: Suffix = "home.fastvpn".parse().unwrap();
        let server = "10.9.0.2".parse().unwrap();
        let subnets = ["10.9.0.0/16".parse().unwrap(), "10.9.0.0/24".parse().unwrap()];

        let zone = Zone::new(&suffix, &subnets, server, &[], 1);

        let Found::Nothing(apex) = find(&zone, "7.0.9.10.in-addr.arpa") else { panic!() };
        assert_eq!(apex.name.to_string(), "0.9.10.in-addr.arpa");
    }

    fn zone(hosts: &[Host]) -> Zone {
        let suffix: Suffix = "home.fastvpn".parse().unwrap();
        let subnets = ["10.9.0.0/24".parse().unwrap(), "fd09::/64".parse().unwrap()];
        Zone::new(&suffix, &subnets, "10.9.0.2".parse().unwrap(), hosts, 1)
    }

    fn host(byte: u8, name: &str, addresses: &[&str]) -> Host {
        Host {
            name: name.to_owned(),
            key: PublicKey::from_bytes([byte; 32]),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            kind: HostKind::Member,
        }
    }

    fn find<'a>(zone: &'a Zone, name: &str) -> Found<'a> {
        zone.find(&WireName::from_str(name).unwrap())
    }
}
