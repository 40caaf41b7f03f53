//! What netlink says of links, addresses and routes, as plain values, and what follows from them.
//!
//! Nothing here talks to the system, so that each decision can be tested without one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastvpn_proto::ip::Prefix;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};

use super::plan::{InterfacePlan, Observed};
use super::{ALIAS_PREFIX, netlink};

/// An interface
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Empty where there is none
    pub(super) alias: String,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) running: bool,
    pub(super) loopback: bool,
    /// Whether it is a TUN device that some process serves
    pub(super) served: bool,
    /// Whether the kernel gives it link-local addresses by itself
    pub(super) link_local: bool,
}

/// An address of an interface
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) prefix: Prefix,
    /// Whether others may use it to reach us: proven unique, and not about to go
    pub(super) usable: bool,
}

/// A route for packets to other machines
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Route {
    pub(super) to: Prefix,
    pub(super) table: u32,
    pub(super) metric: u32,
    /// Interfaces that packets may leave by
    pub(super) through: Vec<u32>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) maker: Maker,
}

/// Who made a route
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Maker {
    /// The kernel, because of an address
    Kernel,
    /// This program
    Ours,
    /// Anyone else
    Other,
}

/// All that there is
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Picture {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
}

/// What paths to other nodes depend on: a change of it is worth a new look at them
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Underlay {
    links: BTreeSet<(u32, bool)>,
    addresses: BTreeSet<(u32, IpAddr)>,
    defaults: BTreeSet<Route>,
}

impl Link {
    /// Tells whether it belongs to a network of fastvpn, whichever
    pub(super) fn is_overlay(&self) -> bool {
        self.alias.starts_with(ALIAS_PREFIX)
    }
}

impl Picture {
    /// Returns the interface of that name
    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Returns what there is of one interface
    pub(super) fn observe(&self, link: &Link) -> Observed {
        let routes = |maker: Maker| {
            self.routes
                .iter()
                .filter(move |route| route.table == MAIN && route.maker == maker)
                .filter(|route| route.through == [link.index])
                .map(|route| route.to)
        };
        let addresses = self.addresses.iter().filter(|address| address.index == link.index);
        Observed {
            alias: link.alias.clone(),
            mtu: link.mtu,
            up: link.up,
            link_local: link.link_local,
            addresses: addresses.map(|address| address.prefix).collect(),
            subnets: routes(Maker::Kernel).collect(),
            routes: routes(Maker::Ours).collect(),
        }
    }

    /// Returns a sentence on what is in the way of `plan`
    pub(super) fn conflict(&self, plan: &InterfacePlan) -> Option<String> {
        let names: BTreeMap<_, _> =
            self.links.iter().map(|link| (link.index, link.name.as_str())).collect();
        let other = |index: &u32| {
            let name = names.get(index).copied().unwrap_or("another interface");
            (name != plan.interface).then_some(name)
        };
        for planned in &plan.addresses {
            let taken = self.addresses.iter().find_map(|address| {
                let same = address.prefix.addr() == planned.addr();
                other(&address.index).filter(|_| same)
            });
            if let Some(name) = taken {
                return Some(format!("address {} is already in use on {name}", planned.addr()));
            }
        }
        for planned in plan.subnets().into_iter().chain(plan.own_routes()) {
            let taken = self.routes.iter().find_map(|route| {
                let same = route.to == planned && route.table == MAIN;
                route.through.iter().find_map(other).filter(|_| same)
            });
            if let Some(name) = taken {
                return Some(format!("{planned} is already routed to {name}"));
            }
        }
        None
    }

    /// Returns the addresses at which other machines may reach this one, not through an overlay
    pub(super) fn local_addresses(&self) -> Vec<IpAddr> {
        let links = self.underlay_links();
        let addresses: BTreeSet<_> = self
            .addresses
            .iter()
            .filter(|address| address.usable && links.contains_key(&address.index))
            .map(|address| address.prefix.addr())
            .filter(|address| is_global(*address))
            .collect();
        addresses.into_iter().collect()
    }

    /// Returns what paths to other nodes depend on
    pub(super) fn underlay(&self) -> Underlay {
        let links = self.underlay_links();
        let overlays: BTreeSet<_> =
            self.links.iter().filter(|link| link.is_overlay()).map(|link| link.index).collect();
        let addresses = self
            .addresses
            .iter()
            .filter(|address| address.usable && links.contains_key(&address.index))
            .map(|address| (address.index, address.prefix.addr()))
            .filter(|(_, address)| is_global(*address));
        let defaults = self
            .routes
            .iter()
            .filter(|route| is_default(&route.to))
            .filter(|route| !route.through.iter().any(|index| overlays.contains(index)));
        Underlay {
            links: links.values().map(|link| (link.index, link.running)).collect(),
            addresses: addresses.collect(),
            defaults: defaults.cloned().collect(),
        }
    }

    fn underlay_links(&self) -> BTreeMap<u32, &Link> {
        self.links
            .iter()
            .filter(|link| link.up && !link.loopback && !link.is_overlay())
            .map(|link| (link.index, link))
            .collect()
    }
}

/// Reads what netlink says of an interface
pub(super) fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        loopback: flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    let (mut tun, mut carrier) = (false, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Carrier(state) => carrier = *state != 0,
            LinkAttribute::LinkInfo(infos) => {
                tun = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Tun)));
            }
            LinkAttribute::AfSpecUnspec(families) => link.link_local = makes_link_local(families),
            _ => {}
        }
    }
    // A TUN device has a carrier while a process holds its queue.
    link.served = tun && carrier;
    link
}

fn makes_link_local(families: &[AfSpecUnspec]) -> bool {
    families.iter().any(|family| match family {
        AfSpecUnspec::Inet6(settings) => settings.iter().any(|setting| match setting {
            AfSpecInet6::AddrGenMode(mode) => *mode != In6AddrGenMode::None,
            _ => false,
        }),
        _ => false,
    })
}

/// Reads what netlink says of an address; nothing if it is no IP address
pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    // On a point-to-point interface "address" is the other end, and "local" is ours.
    let mut addr = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => addr = Some(*local),
            AddressAttribute::Address(address) if addr.is_none() => addr = Some(*address),
            _ => {}
        }
    }
    let doubtful = AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Dadfailed
        | AddressHeaderFlags::Deprecated;
    Some(Address {
        index: message.header.index,
        prefix: Prefix::new(addr?, message.header.prefix_len).ok()?,
        usable: !message.header.flags.intersects(doubtful),
    })
}

/// Reads what netlink says of a route; nothing if it is none for packets to other machines
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    if header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        to: Prefix::new(any, 0).ok()?,
        table: header.table.into(),
        metric: 0,
        through: Vec::new(),
        gateway: None,
        maker: match header.protocol {
            RouteProtocol::Kernel => Maker::Kernel,
            RouteProtocol::Other(netlink::PROTOCOL) => Maker::Ours,
            _ => Maker::Other,
        },
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.to = Prefix::new(ip(to)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(index) => route.through.push(*index),
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::MultiPath(hops) => {
                route.through.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    Some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// Tells whether a route is for everything that has no better one
pub(super) fn is_default(to: &Prefix) -> bool {
    to.len() == 0
}

/// Tells whether an address means the same beyond its own wire; private ones do, within their site
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast())
        }
    }
}

/// Routing table that is meant when none is named
const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_for_others_are_global_usable_and_not_of_an_overlay() {
        let mut picture = machine();
        picture.addresses = vec![
            address(1, "127.0.0.1/8"),
            address(2, "192.0.2.9/24"),
            address(2, "10.1.2.3/8"),
            address(2, "169.254.7.7/16"),
            address(2, "fe80::9/64"),
            Address { usable: false, ..address(2, "2001:db8::9/64") },
            address(2, "2001:db8::8/64"),
            address(3, "172.16.97.1/24"),
            address(4, "198.51.100.1/24"),
        ];

        let addresses: Vec<_> = picture.local_addresses().iter().map(ToString::to_string).collect();

        assert_eq!(addresses, ["10.1.2.3", "192.0.2.9", "2001:db8::8"]);
    }

    #[test]
    fn underlay_changes_with_what_paths_depend_on_and_nothing_else() {
        let mut picture = machine();
        picture.addresses = vec![address(2, "192.0.2.9/24")];
        picture.routes = vec![default_through(2)];
        let before = picture.underlay();
        let changed = |change: &dyn Fn(&mut Picture)| {
            let mut picture = picture.clone();
            change(&mut picture);
            picture.underlay() != before
        };

        assert!(changed(&|new| new.addresses.push(address(2, "192.0.2.10/24"))));
        assert!(changed(&|new| new.links[1].up = false));
        assert!(changed(&|new| new.links[1].running = true));
        assert!(changed(&|new| new.routes.clear()));
        assert!(changed(&|new| new.routes[0].gateway = None));
        assert!(!changed(&|new| new.addresses.push(address(2, "fe80::9/64"))));
        assert!(!changed(&|new| new.addresses.push(address(3, "172.16.97.1/24"))));
        assert!(!changed(&|new| new.links[2].running = true));
        assert!(!changed(&|new| new.routes.push(default_through(3))));
        assert!(!changed(&|new| new.routes.push(through(2, "10.0.0.0/8"))));
        assert!(!changed(&|new| new.links.push(Link { index: 9, ..Link::default() })));
    }

    #[test]
    fn conflict_names_what_is_in_the_way_and_where() {
        let mut picture = machine();
        picture.addresses = vec![address(2, "10.9.0.7/24"), address(3, "10.9.0.1/24")];
        picture.routes = vec![
            through(2, "10.8.0.0/16"),
            through(3, "10.9.0.0/24"),
            Route { table: 100, ..through(2, "10.7.0.0/16") },
        ];
        let conflict = |addresses: &[&str], routes: &[&str]| {
            let parse = |texts: &[&str]| texts.iter().map(|text| prefix(text)).collect();
            picture.conflict(&InterfacePlan {
                interface: "fvpn-home".into(),
                addresses: parse(addresses),
                routes: parse(routes),
                ..InterfacePlan::default()
            })
        };

        let taken = conflict(&["10.9.0.7/32"], &[]);
        assert_eq!(taken.as_deref(), Some("address 10.9.0.7 is already in use on eth0"));
        let taken = conflict(&["10.8.3.4/16"], &[]);
        assert_eq!(taken.as_deref(), Some("10.8.0.0/16 is already routed to eth0"));
        let taken = conflict(&["10.9.0.1/24"], &["10.8.0.0/16"]);
        assert_eq!(taken.as_deref(), Some("10.8.0.0/16 is already routed to eth0"));
        assert_eq!(conflict(&["10.9.0.1/24"], &["10.7.0.0/16", "10.8.1.0/24"]), None);
    }

    fn machine() -> Picture {
        let link = |index, name: &str, alias: &str| Link {
            index,
            name: name.into(),
            alias: alias.into(),
            up: true,
            ..Link::default()
        };
        let links = vec![
            Link { loopback: true, ..link(1, "lo", "") },
            link(2, "eth0", ""),
            link(3, "fvpn-home", "fastvpn:home"),
            Link { up: false, ..link(4, "eth1", "") },
        ];
        Picture { links, ..Picture::default() }
    }

    fn address(index: u32, text: &str) -> Address {
        Address { index, prefix: prefix(text), usable: true }
    }

    fn default_through(index: u32) -> Route {
        Route { gateway: Some("192.0.2.1".parse().unwrap()), ..through(index, "0.0.0.0/0") }
    }

    fn through(index: u32, to: &str) -> Route {
        Route {
            to: prefix(to),
            table: MAIN,
            metric: 0,
            through: vec![index],
            gateway: None,
            maker: Maker::Other,
        }
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }
}
