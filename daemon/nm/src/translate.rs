//! Between the words of NetworkManager's VPN plugins and ours; pure.
//!
//! [`network`] reads which network a connection of NetworkManager means. [`Handover::of`] says in
//! its words what the interface of that network is to be like. [`Reason::of`] says in its words why
//! a network does not come up.
//!
//! # Contract
//!
//! - NetworkManager takes one address of each family from a plugin: the first of the plan.
//! - A default route is asked for only where the plan has one: all else that this machine sends
//!   stays out of the network.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastvpn_dbus::Error;
use fastvpn_dbus::types::Plan;
use thiserror::Error as ThisError;
use zbus::{OwnedVariant, Variant};

/// A connection of NetworkManager: settings by section and key
pub(crate) type Settings = HashMap<String, HashMap<String, OwnedVariant>>;

/// Values by name, as NetworkManager takes them
pub(crate) type Values = HashMap<&'static str, Variant<'static>>;

/// Why a connection cannot be meant for us
#[derive(Clone, Debug, Eq, PartialEq, ThisError)]
pub(crate) enum DataError {
    /// It does not say which network
    #[error("the connection does not say which network: vpn.data has to be network=NAME")]
    NoNetwork,
    /// Its section `vpn` is not there, or of other types than it should be
    #[error("the connection has no section vpn that can be read")]
    NoVpn,
    /// It says more than we understand
    #[error("vpn.data has {0:?}, which is not known; it has to be network=NAME")]
    Unknown(String),
}

/// Why a plan cannot be handed over
#[derive(Clone, Debug, Eq, PartialEq, ThisError)]
pub(crate) enum PlanError {
    /// It has no address at all
    #[error("the network has no address")]
    NoAddress,
    /// It does not say where the hub is; NetworkManager wants to know
    #[error("the address of the hub is not known yet")]
    NoGateway,
    /// There is no interface
    #[error("the network has no interface")]
    NoInterface,
    /// Something in it is no address
    #[error("{0:?} is no address")]
    NotAddress(String),
}

/// Why NetworkManager is to believe that a connection has failed
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    /// The hub refuses this node
    LoginFailed = 0,
    /// The hub cannot be reached, or the network does not come up for another reason
    ConnectFailed = 1,
    /// The connection means no network that fastvpnd could bring up for NetworkManager
    BadConfig = 2,
}

/// What NetworkManager is told of a network that is up
#[derive(Debug, PartialEq)]
pub(crate) struct Handover {
    /// For its signal `Config`
    pub(crate) config: Values,
    /// For its signal `Ip4Config`; nothing where there is no IPv4
    pub(crate) ip4: Option<Values>,
    /// For its signal `Ip6Config`; nothing where there is no IPv6
    pub(crate) ip6: Option<Values>,
}

/// Returns the name of the network that a connection means
///
/// # Errors
/// If it means none, or says something that is not understood.
pub(crate) fn network(settings: &Settings) -> Result<String, DataError> {
    let data = settings.get("vpn").ok_or(DataError::NoVpn)?.get("data");
    let Some(data) = data else { return Err(DataError::NoNetwork) };
    let data = data.try_clone().map_err(|_| DataError::NoVpn)?;
    let data = HashMap::<String, String>::try_from(data).map_err(|_| DataError::NoVpn)?;
    if let Some(unknown) = data.keys().filter(|key| *key != "network").min() {
        return Err(DataError::Unknown(unknown.clone()));
    }
    match data.get("network") {
        Some(name) if !name.is_empty() => Ok(name.clone()),
        Some(_) | None => Err(DataError::NoNetwork),
    }
}

impl Reason {
    /// Returns the reason to tell for an error of fastvpnd
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::NotAuthorized(_) | Error::Refused(_) => Self::LoginFailed,
            Error::Config(_)
            | Error::InvalidArgument(_)
            | Error::NotPeer(_)
            | Error::UnknownNetwork(_) => Self::BadConfig,
            // Whatever else there may be: it does not connect.
            _ => Self::ConnectFailed,
        }
    }
}

impl Handover {
    /// Translates a plan
    ///
    /// # Errors
    /// If something is missing that NetworkManager must have.
    pub(crate) fn of(plan: &Plan) -> Result<Self, PlanError> {
        if plan.interface.is_empty() {
            return Err(PlanError::NoInterface);
        }
        let addresses = prefixes(&plan.addresses)?;
        let names = Names::of(plan)?;
        let routes = prefixes(&plan.routes)?;
        let ip4 = addresses.iter().find_map(|(address, len)| match address {
            IpAddr::V4(address) => Some((*address, *len)),
            IpAddr::V6(_) => None,
        });
        let ip6 = addresses.iter().find_map(|(address, len)| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some((*address, *len)),
        });
        if ip4.is_none() && ip6.is_none() {
            return Err(PlanError::NoAddress);
        }
        let config = HashMap::from([
            ("tundev", Variant::from(plan.interface.clone())),
            ("gateway", gateway(&plan.gateway)?),
            ("mtu", Variant::from(plan.mtu)),
            ("has-ip4", Variant::from(ip4.is_some())),
            ("has-ip6", Variant::from(ip6.is_some())),
        ]);
        let ip4 = ip4.map(|(address, len)| ip4_values(address, len, &routes, &names));
        let ip6 = ip6.map(|(address, len)| ip6_values(address, len, &routes, &names));
        Ok(Self { config, ip4, ip6 })
    }
}

/// Where names are to be asked for, by family, and which
#[derive(Debug, Default)]
struct Names {
    ip4: Vec<Ipv4Addr>,
    ip6: Vec<Ipv6Addr>,
    domains: Vec<String>,
}

impl Names {
    fn of(plan: &Plan) -> Result<Self, PlanError> {
        // The tilde: these domains are asked there and nowhere else, and added to no short name.
        let domains = plan.domains.iter().map(|domain| format!("~{domain}")).collect();
        let mut names = Self { domains, ..Self::default() };
        for text in &plan.dns {
            match text.parse() {
                Ok(IpAddr::V4(address)) => names.ip4.push(address),
                Ok(IpAddr::V6(address)) => names.ip6.push(address),
                Err(_) => return Err(PlanError::NotAddress(text.clone())),
            }
        }
        Ok(names)
    }

    /// The domains, for a family in which there are so many servers
    fn domains(&self, servers: usize) -> Vec<String> {
        if servers == 0 { Vec::new() } else { self.domains.clone() }
    }
}

fn ip4_values(address: Ipv4Addr, len: u8, routes: &[(IpAddr, u8)], names: &Names) -> Values {
    let routes: Vec<_> = routes
        .iter()
        .filter_map(|(to, len)| match to {
            IpAddr::V4(to) => Some((*to, *len)),
            IpAddr::V6(_) => None,
        })
        .collect();
    let all = routes.iter().any(|(_, len)| *len == 0);
    // Destination, its length, next hop (none), metric (the usual one).
    let table: Vec<_> = routes
        .iter()
        .filter(|(_, len)| *len > 0)
        .map(|(to, len)| vec![in_memory(*to), u32::from(*len), 0, 0])
        .collect();
    let servers: Vec<_> = names.ip4.iter().copied().map(in_memory).collect();
    HashMap::from([
        ("domains", Variant::from(names.domains(servers.len()))),
        ("dns", Variant::from(servers)),
        ("address", Variant::from(in_memory(address))),
        ("prefix", Variant::from(u32::from(len))),
        ("never-default", Variant::from(!all)),
        ("routes", Variant::from(table)),
    ])
}

fn ip6_values(address: Ipv6Addr, len: u8, routes: &[(IpAddr, u8)], names: &Names) -> Values {
    let routes: Vec<_> = routes
        .iter()
        .filter_map(|(to, len)| match to {
            IpAddr::V4(_) => None,
            IpAddr::V6(to) => Some((*to, *len)),
        })
        .collect();
    let all = routes.iter().any(|(_, len)| *len == 0);
    let bytes = |address: Ipv6Addr| address.octets().to_vec();
    let table: Vec<_> = routes
        .iter()
        .filter(|(_, len)| *len > 0)
        .map(|(to, len)| (bytes(*to), u32::from(*len), bytes(Ipv6Addr::UNSPECIFIED), 0_u32))
        .collect();
    let servers: Vec<_> = names.ip6.iter().copied().map(bytes).collect();
    HashMap::from([
        ("domains", Variant::from(names.domains(servers.len()))),
        ("dns", Variant::from(servers)),
        ("address", Variant::from(bytes(address))),
        ("prefix", Variant::from(u32::from(len))),
        ("never-default", Variant::from(!all)),
        ("routes", Variant::from(table)),
    ])
}

fn gateway(text: &str) -> Result<Variant<'static>, PlanError> {
    if text.is_empty() {
        return Err(PlanError::NoGateway);
    }
    match text.parse() {
        Ok(IpAddr::V4(address)) => Ok(Variant::from(in_memory(address))),
        Ok(IpAddr::V6(address)) => Ok(Variant::from(address.octets().to_vec())),
        Err(_) => Err(PlanError::NotAddress(text.to_owned())),
    }
}

/// Reads addresses with their lengths
fn prefixes(texts: &[String]) -> Result<Vec<(IpAddr, u8)>, PlanError> {
    let read = |text: &String| {
        let (address, len) = text.split_once('/')?;
        let (address, len) = (address.parse::<IpAddr>().ok()?, len.parse::<u8>().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (len <= most).then_some((address, len))
    };
    let wrong = |text: &String| PlanError::NotAddress(text.clone());
    texts.iter().map(|text| read(text).ok_or_else(|| wrong(text))).collect()
}

/// An address as NetworkManager has it: a number whose bytes in memory are the address
fn in_memory(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_names_its_network_in_its_data() {
        let settings = settings(&[("network", "home")]);

        assert_eq!(network(&settings).as_deref(), Ok("home"));
    }

    #[test]
    fn connection_that_says_too_little_or_too_much_is_refused() {
        assert_eq!(network(&Settings::new()), Err(DataError::NoVpn));
        assert_eq!(network(&settings(&[])), Err(DataError::NoNetwork));
        assert_eq!(network(&settings(&[("network", "")])), Err(DataError::NoNetwork));
        let mistyped = settings(&[("network", "home"), ("netwrk", "office")]);
        assert_eq!(network(&mistyped), Err(DataError::Unknown("netwrk".to_owned())));
        let number = OwnedVariant::from(1_u32);
        let vpn = HashMap::from([("data".to_owned(), number)]);
        assert_eq!(network(&Settings::from([("vpn".to_owned(), vpn)])), Err(DataError::NoVpn));
    }

    #[test]
    fn ipv4_network_is_handed_over_with_its_routes_and_without_a_default_one() {
        let handover = Handover::of(&plan(&["10.9.0.7/24"], &["192.168.7.0/24", "fd07::/64"]));

        let handover = handover.unwrap();
        assert_eq!(handover.config["tundev"], Variant::from("fvpn-home"));
        assert_eq!(handover.config["gateway"], Variant::from(memory([203, 0, 113, 9])));
        assert_eq!(handover.config["mtu"], Variant::from(1380_u32));
        assert_eq!(handover.config["has-ip4"], Variant::from(true));
        assert_eq!(handover.config["has-ip6"], Variant::from(false));
        assert_eq!(handover.ip6, None);
        let ip4 = handover.ip4.unwrap();
        assert_eq!(ip4["address"], Variant::from(memory([10, 9, 0, 7])));
        assert_eq!(ip4["prefix"], Variant::from(24_u32));
        assert_eq!(ip4["never-default"], Variant::from(true));
        let route = vec![memory([192, 168, 7, 0]), 24, 0, 0];
        assert_eq!(ip4["routes"], Variant::from(vec![route]));
    }

    #[test]
    fn ipv6_network_has_no_ipv4_and_a_gateway_of_either_family() {
        let plan = Plan { gateway: "2001:db8::9".into(), ..plan(&["fd09::7/64"], &["fd07::/64"]) };

        let handover = Handover::of(&plan).unwrap();

        let bytes = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets().to_vec();
        assert_eq!(handover.config["gateway"], Variant::from(bytes("2001:db8::9")));
        assert_eq!(handover.config["has-ip4"], Variant::from(false));
        assert_eq!(handover.ip4, None);
        let ip6 = handover.ip6.unwrap();
        assert_eq!(ip6["address"], Variant::from(bytes("fd09::7")));
        assert_eq!(ip6["prefix"], Variant::from(64_u32));
        let route = (bytes("fd07::"), 64_u32, bytes("::"), 0_u32);
        assert_eq!(ip6["routes"], Variant::from(vec![route]));
    }

    #[test]
    fn names_are_asked_for_in_the_family_of_their_server_and_in_their_domains_only() {
        let plan = Plan {
            dns: vec!["10.9.0.7".into()],
            domains: vec!["home.fastvpn".into(), "0.9.10.in-addr.arpa".into()],
            ..plan(&["10.9.0.7/24", "fd09::7/64"], &[])
        };

        let handover = Handover::of(&plan).unwrap();

        let (ip4, ip6) = (handover.ip4.unwrap(), handover.ip6.unwrap());
        assert_eq!(ip4["dns"], Variant::from(vec![memory([10, 9, 0, 7])]));
        let domains = ["~home.fastvpn", "~0.9.10.in-addr.arpa"].map(str::to_owned).to_vec();
        assert_eq!(ip4["domains"], Variant::from(domains));
        assert_eq!(ip6["dns"], Variant::from(Vec::<Vec<u8>>::new()));
        assert_eq!(ip6["domains"], Variant::from(Vec::<String>::new()));
    }

    #[test]
    fn first_address_of_each_family_is_the_one() {
        let plan = plan(&["10.9.0.7/24", "fd09::7/64", "10.8.0.7/24", "fd08::7/64"], &[]);

        let handover = Handover::of(&plan).unwrap();

        assert_eq!(handover.ip4.unwrap()["address"], Variant::from(memory([10, 9, 0, 7])));
        let first = "fd09::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
        assert_eq!(handover.ip6.unwrap()["address"], Variant::from(first));
    }

    #[test]
    fn default_route_is_asked_for_where_the_plan_has_one() {
        let plan = plan(&["10.9.0.7/24", "fd09::7/64"], &["0.0.0.0/0", "10.8.0.0/16"]);

        let handover = Handover::of(&plan).unwrap();

        let ip4 = handover.ip4.unwrap();
        assert_eq!(ip4["never-default"], Variant::from(false));
        assert_eq!(ip4["routes"], Variant::from(vec![vec![memory([10, 8, 0, 0]), 16, 0, 0]]));
        assert_eq!(handover.ip6.unwrap()["never-default"], Variant::from(true));
    }

    #[test]
    fn plan_that_lacks_something_is_not_handed_over() {
        let good = plan(&["10.9.0.7/24"], &[]);
        let bad = |plan: Plan| Handover::of(&plan).unwrap_err();
        let with = |addresses: &[&str], routes: &[&str]| bad(plan(addresses, routes));

        assert_eq!(bad(Plan::default()), PlanError::NoInterface);
        assert_eq!(bad(Plan { gateway: String::new(), ..good.clone() }), PlanError::NoGateway);
        assert_eq!(with(&[], &[]), PlanError::NoAddress);
        for wrong in ["10.9.0.7", "10.9.0.7/33", "fd09::7/129", "ten/8", "10.9.0.7/x", ""] {
            assert_eq!(with(&[wrong], &[]), PlanError::NotAddress(wrong.to_owned()));
            assert_eq!(with(&["10.9.0.7/24"], &[wrong]), PlanError::NotAddress(wrong.to_owned()));
        }
        let nowhere = Plan { gateway: "hub.example.net".into(), ..good };
        assert_eq!(bad(nowhere), PlanError::NotAddress("hub.example.net".to_owned()));
    }

    #[test]
    fn reason_tells_who_has_to_act() {
        let of = |error: fn(String) -> Error| Reason::of(&error(String::new()));

        assert_eq!(of(Error::UnknownNetwork), Reason::BadConfig);
        assert_eq!(of(Error::NotPeer), Reason::BadConfig);
        assert_eq!(of(Error::Timeout), Reason::ConnectFailed);
        assert_eq!(of(Error::InUse), Reason::ConnectFailed);
        assert_eq!(of(Error::Refused), Reason::LoginFailed);
    }

    fn settings(data: &[(&str, &str)]) -> Settings {
        let data: HashMap<String, String> =
            data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let data = OwnedVariant::try_from(Variant::from(data)).unwrap();
        Settings::from([("vpn".to_owned(), HashMap::from([("data".to_owned(), data)]))])
    }

    fn plan(addresses: &[&str], routes: &[&str]) -> Plan {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Plan {
            addresses: texts(addresses),
            dns: Vec::new(),
            domains: Vec::new(),
            gateway: "203.0.113.9".into(),
            interface: "fvpn-home".into(),
            mtu: 1380,
            routes: texts(routes),
        }
    }

    fn memory(bytes: [u8; 4]) -> u32 {
        u32::from_ne_bytes(bytes)
    }
}
