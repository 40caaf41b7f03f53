//! The network between hosts: who owns which address, and the wires between them.
//!
//! Each host, or group of hosts behind one NAT, is a *site*. For each ordered pair of sites there is
//! one [`Link`], made when the first datagram needs it. Strangers are addresses without a host:
//! they can send anything from anywhere, and what is sent to them is kept for the test to look at.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fastvpn_proto::node::Ecn;
use fastvpn_proto::time::Instant;

use super::HostId;
use super::nat::{Nat, NatConfig};
use crate::link::{Cargo, Link, LinkConfig, Verdict};

/// A place in the network
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SiteId(usize);

/// One UDP datagram on its way
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Datagram {
    /// Source, as the receiver will see it
    pub from: SocketAddr,
    /// Destination, as the sender wrote it
    pub to: SocketAddr,
    /// UDP payload
    pub bytes: Vec<u8>,
    /// What its IP header says of congestion
    pub ecn: Ecn,
    /// Whether it was cut from a train, behind another
    pub cut: bool,
}

impl Datagram {
    /// Returns the size on the wire, headers included
    fn size(&self) -> usize {
        match self.to {
            to if to.port() == RAW_PORT => self.bytes.len(),
            SocketAddr::V4(_) => self.bytes.len() + 28,
            SocketAddr::V6(_) => self.bytes.len() + 48,
        }
    }
}

impl Cargo for Datagram {
    fn corrupt(&mut self, chance: u64) {
        self.bytes.corrupt(chance);
    }

    fn ecn(&mut self) -> Option<&mut Ecn> {
        Some(&mut self.ecn)
    }

    fn is_cut(&self) -> bool {
        self.cut
    }
}

/// What became of a datagram at its sender
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sent {
    /// It left over that wire
    Over(SiteId, SiteId),
    /// The first link on the way says that it is too big
    TooBig,
    /// Nobody has that address, or the sender has none of its family
    Nowhere,
}

/// Whether a sender learns that a datagram was too big for the way
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TooBig {
    /// It vanishes: a black hole
    Silent,
    /// The sender is told
    Told,
}

#[derive(Debug, Default)]
struct Site {
    nats: Vec<Nat>,
}

/// Addresses and wires
#[derive(Debug)]
pub(super) struct Network {
    seed: u64,
    sites: Vec<Site>,
    /// Public addresses, and private ones of hosts behind a NAT
    hosts: BTreeMap<IpAddr, (SiteId, HostId)>,
    nats: BTreeMap<IpAddr, SiteId>,
    strangers: BTreeMap<SocketAddr, Vec<Vec<u8>>>,
    wires: BTreeMap<(SiteId, SiteId), Link<Datagram>>,
    /// Wires that are none of their own, and the one that they share
    shared: BTreeMap<(SiteId, SiteId), (SiteId, SiteId)>,
    standard: LinkConfig,
    too_big: BTreeMap<(SiteId, SiteId), TooBig>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            // site 0 is where strangers live
            sites: vec![Site::default()],
            hosts: BTreeMap::new(),
            nats: BTreeMap::new(),
            strangers: BTreeMap::new(),
            wires: BTreeMap::new(),
            shared: BTreeMap::new(),
            standard: LinkConfig::default(),
            too_big: BTreeMap::new(),
        }
    }

    pub(super) fn add_site(&mut self) -> SiteId {
        self.sites.push(Site::default());
        SiteId(self.sites.len() - 1)
    }

    /// Gives an address to a host; whoever had it before has it no more
    pub(super) fn give(&mut self, addr: IpAddr, site: SiteId, host: HostId) {
        self.hosts.insert(addr, (site, host));
    }

    pub(super) fn take(&mut self, addr: IpAddr) {
        self.hosts.remove(&addr);
    }

    pub(super) fn add_nat(&mut self, site: SiteId, config: NatConfig, external: IpAddr) {
        self.nats.insert(external, site);
        self.sites[site.0].nats.push(Nat::new(config, external));
    }

    pub(super) fn nats(&mut self, site: SiteId) -> &mut [Nat] {
        &mut self.sites[site.0].nats
    }

    pub(super) fn add_stranger(&mut self, addr: SocketAddr) {
        self.strangers.entry(addr).or_default();
    }

    pub(super) fn answers(&self, stranger: SocketAddr) -> &[Vec<u8>] {
        self.strangers.get(&stranger).map_or(&[], Vec::as_slice)
    }

    pub(super) fn set_standard(&mut self, config: LinkConfig) {
        self.standard = config;
    }

    pub(super) fn set_too_big(&mut self, from: SiteId, to: SiteId, too_big: TooBig) {
        self.too_big.insert((from, to), too_big);
    }

    pub(super) fn wire(&mut self, from: SiteId, to: SiteId) -> &mut Link<Datagram> {
        let seed = self.seed ^ (from.0 as u64) << 32 ^ (to.0 as u64) << 8;
        let standard = &self.standard;
        self.wires.entry((from, to)).or_insert_with(|| Link::new(standard.clone(), seed))
    }

    /// Lets all these wires be the first of them
    pub(super) fn share(&mut self, wires: &[(SiteId, SiteId)]) {
        for other in &wires[1..] {
            self.shared.insert(*other, wires[0]);
        }
    }

    /// Returns the wire that is used from one site to another
    pub(super) fn shared(&self, wire: (SiteId, SiteId)) -> (SiteId, SiteId) {
        self.shared.get(&wire).copied().unwrap_or(wire)
    }

    pub(super) fn wires(&self) -> impl Iterator<Item = &Link<Datagram>> {
        self.wires.values()
    }

    /// Sends a datagram of a host, or of a stranger at site 0
    pub(super) fn send(&mut self, site: SiteId, mut datagram: Datagram, now: Instant) -> Sent {
        for nat in &mut self.sites[site.0].nats {
            datagram.from = nat.outbound(datagram.from, datagram.to, now);
        }
        let Some(to) = self.site_of(datagram.to, site) else {
            return Sent::Nowhere;
        };
        let size = datagram.size();
        let (from, to) = self.shared((site, to));
        match self.wire(from, to).push(datagram, size, now) {
            Verdict::Accepted | Verdict::QueueFull => Sent::Over(from, to),
            Verdict::TooBig => match self.too_big.get(&(from, to)) {
                Some(TooBig::Told) => Sent::TooBig,
                Some(TooBig::Silent) | None => Sent::Over(from, to),
            },
        }
    }

    /// Takes the next datagram that arrives over a wire, with the host that gets it
    ///
    /// Datagrams for strangers, and those that a NAT or nobody lets in, end here.
    pub(super) fn poll(
        &mut self,
        (from, to): (SiteId, SiteId),
        now: Instant,
    ) -> Option<(HostId, Datagram)> {
        loop {
            let mut datagram = self.wires.get_mut(&(from, to))?.poll(now)?;
            if let Some(kept) = self.strangers.get_mut(&datagram.to) {
                kept.push(datagram.bytes);
                continue;
            }
            let to = self.site_of(datagram.to, from).unwrap_or(to);
            if from != to {
                let mut inside = Some(datagram.to);
                for nat in self.sites[to.0].nats.iter_mut().rev() {
                    inside = inside.and_then(|at| nat.inbound(datagram.from, at.port(), now));
                }
                let Some(inside) = inside else { continue };
                datagram.to = inside;
            }
            if let Some((_, host)) = self.hosts.get(&datagram.to.ip()) {
                return Some((*host, datagram));
            }
        }
    }

    pub(super) fn deadline(&self, wire: (SiteId, SiteId)) -> Option<Instant> {
        self.wires.get(&wire)?.deadline()
    }

    fn site_of(&self, addr: SocketAddr, from: SiteId) -> Option<SiteId> {
        if self.strangers.contains_key(&addr) {
            return Some(SiteId(0));
        }
        if let Some(site) = self.nats.get(&addr.ip()) {
            return Some(*site);
        }
        let (site, _) = self.hosts.get(&addr.ip())?;
        // a private address is only reached from its own site
        (self.sites[site.0].nats.is_empty() || *site == from).then_some(*site)
    }
}

/// Port of datagrams that are whole IP packets: what goes past the nodes
pub(super) const RAW_PORT: u16 = 0;
/// Where strangers live
pub(super) const OUTSIDE: SiteId = SiteId(0);
