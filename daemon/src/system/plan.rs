//! What the system should look like for one network, as a value.
//!
//! [`steps`] says what to do so that what is there becomes what was planned, and nothing more: if
//! all is as planned there is nothing to do, so that a plan can be applied again at any time.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use fastvpn_proto::ip::Prefix;

/// Interface, addresses and routes of one network
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct InterfacePlan {
    /// Name of the interface
    pub interface: String,
    /// Its alias: `fastvpn:NAME`
    pub alias: String,
    /// Its MTU, in bytes
    pub mtu: u16,
    /// Addresses with their subnets, ordered
    pub addresses: Vec<Prefix>,
    /// Further prefixes to route into it, ordered; the subnets of `addresses` need no route
    pub routes: Vec<Prefix>,
    /// Names of the network's nodes; nothing: they have none
    pub dns: Option<DnsPlan>,
    /// How much of this is ours to make
    pub extent: Extent,
}

/// Who answers for the names of one network, and who is to be told
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsPlan {
    /// The domain of the names, without a final dot
    pub suffix: String,
    /// The domains of the addresses, without a final dot
    pub reverse: Vec<String>,
    /// The address of this node on which they are answered
    pub server: IpAddr,
    /// Who is told of that
    pub announce: Announce,
}

impl DnsPlan {
    /// Returns the domains that are asked at the server: of the names, then of the addresses
    pub fn domains(&self) -> Vec<String> {
        std::iter::once(&self.suffix).chain(&self.reverse).cloned().collect()
    }
}

/// Who tells the machine's resolver which names are ours
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Announce {
    /// Who asked for the network: it makes the interface's addresses and routes as well
    Caller,
    /// This daemon, to systemd-resolved
    Resolved,
}

/// How much of a plan is made here
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Extent {
    /// The device with its MTU; somebody else brings it up and gives it addresses and routes
    Device,
    /// Everything
    #[default]
    Whole,
}

impl InterfacePlan {
    /// Returns the subnets that the kernel itself routes into the interface
    pub(super) fn subnets(&self) -> BTreeSet<Prefix> {
        self.addresses.iter().filter_map(subnet).collect()
    }

    /// Returns the routes that the kernel does not make itself
    pub(super) fn own_routes(&self) -> BTreeSet<Prefix> {
        let networks: BTreeSet<_> = self.addresses.iter().map(Prefix::network).collect();
        self.routes.iter().map(Prefix::network).filter(|to| !networks.contains(to)).collect()
    }
}

/// What there is of one interface
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Observed {
    pub(super) alias: String,
    pub(super) mtu: u32,
    pub(super) up: bool,
    /// Whether the kernel gives it link-local addresses by itself
    pub(super) link_local: bool,
    pub(super) addresses: BTreeSet<Prefix>,
    /// Subnets that the kernel routes into it because of an address
    pub(super) subnets: BTreeSet<Prefix>,
    /// Routes into it that we made
    pub(super) routes: BTreeSet<Prefix>,
}

/// One change of the system
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    AddAddress(Prefix),
    AddRoute(Prefix),
    Alias(String),
    Mtu(u16),
    NoLinkLocal,
    RemoveAddress(Prefix),
    RemoveRoute(Prefix),
    Up,
}

impl Step {
    /// Tells whether it can only be taken where there is IPv6
    pub(super) fn is_ipv6(&self) -> bool {
        match self {
            Self::AddAddress(prefix) | Self::AddRoute(prefix) => prefix.addr().is_ipv6(),
            Self::Alias(_)
            | Self::Mtu(_)
            | Self::NoLinkLocal
            | Self::RemoveAddress(_)
            | Self::RemoveRoute(_)
            | Self::Up => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddAddress(address) => write!(f, "add address {address}"),
            Self::AddRoute(to) => write!(f, "add a route to {to}"),
            Self::Alias(alias) => write!(f, "set the alias {alias}"),
            Self::Mtu(mtu) => write!(f, "set the MTU {mtu}"),
            Self::NoLinkLocal => write!(f, "turn link-local addresses off"),
            Self::RemoveAddress(address) => write!(f, "remove address {address}"),
            Self::RemoveRoute(to) => write!(f, "remove the route to {to}"),
            Self::Up => write!(f, "bring it up"),
        }
    }
}

/// Returns what to do, in this order, so that `observed` becomes what `plan` says
///
/// The alias comes first, so that an interface that is ours is known as ours; link-local addresses
/// are turned off before the interface is up and would get one. An address whose subnet lost its
/// route is given anew, which brings the route back.
pub(super) fn steps(plan: &InterfacePlan, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    if observed.alias != plan.alias {
        steps.push(Step::Alias(plan.alias.clone()));
    }
    if observed.mtu != u32::from(plan.mtu) {
        steps.push(Step::Mtu(plan.mtu));
    }
    if observed.link_local {
        steps.push(Step::NoLinkLocal);
    }
    match plan.extent {
        Extent::Device => return steps,
        Extent::Whole => {}
    }
    if !observed.up {
        steps.push(Step::Up);
    }
    let routes = plan.own_routes();
    steps.extend(observed.routes.difference(&routes).copied().map(Step::RemoveRoute));

    let planned: BTreeSet<_> = plan.addresses.iter().copied().collect();
    // A route cannot be missing while the interface is down: it comes when the interface does.
    let unrouted = |address: &Prefix| {
        observed.up && subnet(address).is_some_and(|subnet| !observed.subnets.contains(&subnet))
    };
    let stays = |address: &&Prefix| planned.contains(address) && !unrouted(address);
    let kept: BTreeSet<_> = observed.addresses.iter().filter(stays).copied().collect();
    steps.extend(observed.addresses.difference(&kept).copied().map(Step::RemoveAddress));
    // In the plan's order: the first address of a subnet becomes the source of what is sent.
    let missing = plan.addresses.iter().filter(|address| !kept.contains(address));
    steps.extend(missing.copied().map(Step::AddAddress));

    steps.extend(routes.difference(&observed.routes).copied().map(Step::AddRoute));
    steps
}

/// Returns the subnet that the kernel routes because of this address, if any
fn subnet(address: &Prefix) -> Option<Prefix> {
    (!address.is_host()).then(|| address.network())
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn new_device_gets_everything_in_an_order_that_works() {
        let plan = plan(&["10.9.0.1/24", "fd09::1/64"], &["10.8.0.0/16"]);
        let observed = Observed { mtu: 1500, link_local: true, ..Observed::default() };

        let steps = steps(&plan, &observed);

        assert_eq!(
            steps,
            [
                Step::Alias("fastvpn:home".into()),
                Step::Mtu(1400),
                Step::NoLinkLocal,
                Step::Up,
                Step::AddAddress(prefix("10.9.0.1/24")),
                Step::AddAddress(prefix("fd09::1/64")),
                Step::AddRoute(prefix("10.8.0.0/16")),
            ]
        );
    }

    #[test]
    fn device_for_somebody_else_gets_neither_addresses_nor_routes() {
        let plan = plan(&["10.9.0.1/24"], &["10.8.0.0/16"]);
        let plan = InterfacePlan { extent: Extent::Device, ..plan };
        let foreign = BTreeSet::from([prefix("10.7.0.1/24")]);
        let fresh = Observed { mtu: 1500, link_local: true, ..Observed::default() };
        let used = Observed { addresses: foreign, up: true, ..made(&plan) };

        let first = [Step::Alias("fastvpn:home".into()), Step::Mtu(1400), Step::NoLinkLocal];
        assert_eq!(steps(&plan, &fresh), first);
        assert_eq!(steps(&plan, &used), []);
    }

    #[test]
    fn what_is_as_planned_is_left_alone() {
        let plan = plan(&["10.9.0.1/24", "fd09::1/128"], &["10.8.0.0/16"]);

        assert_eq!(steps(&plan, &made(&plan)), []);
    }

    #[test]
    fn only_what_differs_is_changed() {
        let old = plan(&["10.9.0.1/24", "fd09::1/64"], &["10.7.0.0/16", "10.8.0.0/16"]);
        let new = plan(&["10.9.0.2/24", "fd09::1/64"], &["10.6.0.0/16", "10.8.0.0/16"]);

        let steps = steps(&new, &made(&old));

        assert_eq!(
            steps,
            [
                Step::RemoveRoute(prefix("10.7.0.0/16")),
                Step::RemoveAddress(prefix("10.9.0.1/24")),
                Step::AddAddress(prefix("10.9.0.2/24")),
                Step::AddRoute(prefix("10.6.0.0/16")),
            ]
        );
    }

    #[test]
    fn subnet_that_lost_its_route_gets_its_address_anew() {
        let plan = plan(&["10.9.0.1/24"], &[]);
        let mut observed = made(&plan);
        observed.subnets.clear();

        assert_eq!(
            steps(&plan, &observed),
            [Step::RemoveAddress(prefix("10.9.0.1/24")), Step::AddAddress(prefix("10.9.0.1/24"))]
        );
    }

    #[test]
    fn route_that_the_kernel_makes_is_not_made_twice() {
        let plan = plan(&["10.9.0.1/24"], &["10.9.0.0/24", "10.8.0.7/16"]);

        let routes: Vec<_> = plan.own_routes().into_iter().collect();

        assert_eq!(routes, [prefix("10.8.0.0/16")]);
    }

    proptest! {
        #[test]
        fn steps_lead_from_anything_to_the_plan(
            plan in plans(),
            other in plans(),
            up in any::<bool>(),
            link_local in any::<bool>(),
            lost in any::<bool>(),
        ) {
            let mut system = made(&other);
            system.up = up;
            system.link_local = link_local;
            if lost || !up {
                system.subnets.clear();
            }

            for step in steps(&plan, &system) {
                take(&mut system, step);
            }

            prop_assert_eq!(steps(&plan, &system), []);
            prop_assert_eq!(system, made(&plan));
        }
    }

    /// What the kernel would make of a step
    fn take(system: &mut Observed, step: Step) {
        match step {
            Step::AddAddress(address) => assert!(system.addresses.insert(address)),
            Step::AddRoute(to) => assert!(system.routes.insert(to)),
            Step::Alias(alias) => system.alias = alias,
            Step::Mtu(mtu) => system.mtu = mtu.into(),
            Step::NoLinkLocal => system.link_local = false,
            Step::RemoveAddress(address) => assert!(system.addresses.remove(&address)),
            Step::RemoveRoute(to) => assert!(system.routes.remove(&to)),
            Step::Up => system.up = true,
        }
        if system.up {
            system.subnets = system.addresses.iter().filter_map(subnet).collect();
        }
    }

    fn made(plan: &InterfacePlan) -> Observed {
        Observed {
            alias: plan.alias.clone(),
            mtu: plan.mtu.into(),
            up: true,
            link_local: false,
            addresses: plan.addresses.iter().copied().collect(),
            subnets: plan.subnets(),
            routes: plan.own_routes(),
        }
    }

    fn plans() -> impl Strategy<Value = InterfacePlan> {
        let address = (0u8..4, 1u8..6, prop_oneof![Just(24u8), Just(32)])
            .prop_map(|(net, host, len)| prefix(&format!("10.{net}.0.{host}/{len}")));
        let route = (0u8..6).prop_map(|net| prefix(&format!("10.{net}.0.0/24")));
        let mtu = prop_oneof![Just(1280u16), Just(1400)];
        (btree_set(address, 0..4), vec(route, 0..4), mtu).prop_map(|(addresses, routes, mtu)| {
            InterfacePlan {
                interface: "fvpn-home".into(),
                alias: "fastvpn:home".into(),
                mtu,
                addresses: addresses.into_iter().collect(),
                routes,
                dns: None,
                extent: Extent::Whole,
            }
        })
    }

    fn plan(addresses: &[&str], routes: &[&str]) -> InterfacePlan {
        InterfacePlan {
            interface: "fvpn-home".into(),
            alias: "fastvpn:home".into(),
            mtu: 1400,
            addresses: addresses.iter().map(|text| prefix(text)).collect(),
            routes: routes.iter().map(|text| prefix(text)).collect(),
            dns: None,
            extent: Extent::Whole,
        }
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }
}
