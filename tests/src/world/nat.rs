//! Address translation in front of a host: mappings, filters, expiry (RFC 4787).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fastvpn_proto::time::{Duration, Instant};

/// How much of the other end's address matters (RFC 4787, sections 4.1 and 5)
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dependence {
    /// Nothing of it
    Independent,
    /// Its address, but not its port
    Address,
    /// Its address and port
    AddressAndPort,
}

/// Behaviour of a NAT
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NatConfig {
    /// When a new external port is taken
    pub mapping: Dependence,
    /// From whom packets are let in
    pub filter: Dependence,
    /// Silence from within after which a mapping is forgotten
    pub expiry: Duration,
}

impl NatConfig {
    /// Lets everybody in who knows the mapping: "full cone"
    pub const fn full_cone() -> Self {
        Self::new(Dependence::Independent, Dependence::Independent)
    }

    /// Lets in whom the host has written to, from any port: "address restricted"
    pub const fn address_restricted() -> Self {
        Self::new(Dependence::Independent, Dependence::Address)
    }

    /// Lets in exactly whom the host has written to: "port restricted"
    pub const fn port_restricted() -> Self {
        Self::new(Dependence::Independent, Dependence::AddressAndPort)
    }

    /// Takes another port for each other end: "symmetric"
    pub const fn symmetric() -> Self {
        Self::new(Dependence::AddressAndPort, Dependence::AddressAndPort)
    }

    /// Sets the silence after which a mapping is forgotten
    #[must_use]
    pub const fn expiry(mut self, expiry: Duration) -> Self {
        self.expiry = expiry;
        self
    }

    const fn new(mapping: Dependence, filter: Dependence) -> Self {
        Self { mapping, filter, expiry: Duration::from_secs(120) }
    }
}

/// A NAT with one external address
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    external: IpAddr,
    next_port: u16,
    mappings: BTreeMap<u16, Mapping>,
}

#[derive(Debug)]
struct Mapping {
    inside: SocketAddr,
    /// Of the other end, what the mapping depends on
    scope: Scope,
    used: Instant,
    /// To whom the inside has written
    partners: BTreeMap<SocketAddr, Instant>,
}

type Scope = (Option<IpAddr>, Option<u16>);

impl Nat {
    /// Makes a NAT without mappings
    pub fn new(config: NatConfig, external: IpAddr) -> Self {
        Self { config, external, next_port: 20_000, mappings: BTreeMap::new() }
    }

    /// Returns the external address
    pub fn external(&self) -> IpAddr {
        self.external
    }

    /// Translates the source of a packet from within
    pub fn outbound(&mut self, inside: SocketAddr, to: SocketAddr, now: Instant) -> SocketAddr {
        self.expire(now);
        let scope = scope(self.config.mapping, to);
        let known = self.mappings.iter().find(|(_, m)| m.inside == inside && m.scope == scope);
        let port = known.map(|(port, _)| *port).unwrap_or_else(|| self.free_port());
        let mapping = self.mappings.entry(port).or_insert_with(|| Mapping {
            inside,
            scope,
            used: now,
            partners: BTreeMap::new(),
        });
        mapping.used = now;
        mapping.partners.insert(to, now);
        SocketAddr::new(self.external, port)
    }

    /// Translates the destination of a packet from outside, or drops it
    pub fn inbound(&mut self, from: SocketAddr, port: u16, now: Instant) -> Option<SocketAddr> {
        self.expire(now);
        let filter = self.config.filter;
        let mapping = self.mappings.get(&port)?;
        let wanted = scope(filter, from);
        let welcome = mapping.partners.keys().any(|partner| scope(filter, *partner) == wanted);
        welcome.then_some(mapping.inside)
    }

    /// Forgets all mappings, as a restarted box does
    pub fn forget(&mut self) {
        self.mappings.clear();
    }

    fn expire(&mut self, now: Instant) {
        let expiry = self.config.expiry;
        self.mappings.retain(|_, mapping| {
            mapping.partners.retain(|_, used| now.since(*used) < expiry);
            now.since(mapping.used) < expiry
        });
    }

    fn free_port(&mut self) -> u16 {
        loop {
            self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
            if !self.mappings.contains_key(&self.next_port) {
                return self.next_port;
            }
        }
    }
}

fn scope(dependence: Dependence, other: SocketAddr) -> Scope {
    match dependence {
        Dependence::Independent => (None, None),
        Dependence::Address => (Some(other.ip()), None),
        Dependence::AddressAndPort => (Some(other.ip()), Some(other.port())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::secs;

    const EXTERNAL: &str = "198.51.100.1";

    #[test]
    fn full_cone_lets_strangers_in() {
        let mut nat = nat(NatConfig::full_cone());
        let mapped = nat.outbound(at("10.0.0.1:1"), at("1.1.1.1:1"), Instant::ZERO);

        let other = nat.outbound(at("10.0.0.1:1"), at("2.2.2.2:2"), Instant::ZERO);

        assert_eq!(mapped, other);
        let inside = nat.inbound(at("9.9.9.9:9"), mapped.port(), Instant::ZERO);
        assert_eq!(inside, Some(at("10.0.0.1:1")));
    }

    #[test]
    fn restricted_lets_in_only_whom_the_inside_wrote_to() {
        let mut by_address = nat(NatConfig::address_restricted());
        let mut by_port = nat(NatConfig::port_restricted());
        let one = by_address.outbound(at("10.0.0.1:1"), at("1.1.1.1:1"), Instant::ZERO).port();
        let two = by_port.outbound(at("10.0.0.1:1"), at("1.1.1.1:1"), Instant::ZERO).port();

        assert!(by_address.inbound(at("1.1.1.1:7"), one, Instant::ZERO).is_some());
        assert!(by_address.inbound(at("9.9.9.9:1"), one, Instant::ZERO).is_none());
        assert!(by_port.inbound(at("1.1.1.1:1"), two, Instant::ZERO).is_some());
        assert!(by_port.inbound(at("1.1.1.1:7"), two, Instant::ZERO).is_none());
    }

    #[test]
    fn symmetric_takes_a_port_for_each_other_end() {
        let mut nat = nat(NatConfig::symmetric());

        let one = nat.outbound(at("10.0.0.1:1"), at("1.1.1.1:1"), Instant::ZERO);
        let two = nat.outbound(at("10.0.0.1:1"), at("2.2.2.2:2"), Instant::ZERO);

        assert_ne!(one, two);
    }

    #[test]
    fn silence_forgets_a_mapping() {
        let mut nat = nat(NatConfig::full_cone().expiry(secs(30)));
        let port = nat.outbound(at("10.0.0.1:1"), at("1.1.1.1:1"), Instant::ZERO).port();

        assert!(nat.inbound(at("1.1.1.1:1"), port, Instant::ZERO + secs(29)).is_some());
        assert!(nat.inbound(at("1.1.1.1:1"), port, Instant::ZERO + secs(30)).is_none());
    }

    fn nat(config: NatConfig) -> Nat {
        Nat::new(config, EXTERNAL.parse().unwrap())
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }
}
