//! The usual network of a test: a hub and some peers around it.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::daemon::{Key, Node};
use super::{Host, Lab, Port, inner_v4, inner_v6, outer_v4, outer_v6};
use crate::link::LinkConfig;

/// What a [`Star`] should be like
#[derive(Clone, Debug)]
pub struct StarPlan {
    /// How many peers there are
    pub peers: u8,
    /// Address families inside the network
    pub inner: Families,
    /// Address families of each node outside: the hub's first, the last one for all others
    pub outer: Vec<Families>,
    /// Character of the links between all hosts
    pub link: LinkConfig,
    /// Whether there is a network key
    pub network_key: bool,
    /// Further lines at the top of the hub's configuration
    pub hub_lines: String,
    /// Further lines at the top of each peer's configuration
    pub peer_lines: String,
}

/// Which IP versions a node has
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Families {
    /// IPv4 only
    V4,
    /// IPv6 only
    V6,
    /// IPv4 and IPv6
    Both,
}

impl Default for StarPlan {
    fn default() -> Self {
        Self {
            peers: 2,
            inner: Families::Both,
            outer: vec![Families::V4],
            link: LinkConfig::new(),
            network_key: false,
            hub_lines: String::new(),
            peer_lines: String::new(),
        }
    }
}

impl Families {
    /// Says yes to IPv4
    pub fn v4(self) -> bool {
        self != Self::V6
    }

    /// Says yes to IPv6
    pub fn v6(self) -> bool {
        self != Self::V4
    }
}

/// A hub and its peers, each in a host of its own on one wire
#[derive(Debug)]
pub struct Star {
    /// The hub: host 1, overlay address 1
    pub hub: Node,
    /// The peers: hosts 11, 12, …, overlay addresses likewise
    pub peers: Vec<Node>,
    /// Where the hub is plugged in
    pub hub_port: Port,
    /// Where the peers are plugged in
    pub peer_ports: Vec<Port>,
    /// Keys, the hub's first
    pub keys: Vec<Key>,
    /// What it was made from
    pub plan: StarPlan,
    /// Where it is
    pub lab: Lab,
}

/// Name of the network
pub const NETWORK: &str = "lab";
/// Name of its interface
pub const INTERFACE: &str = "fvpn-lab";
/// UDP port of the hub
pub const HUB_PORT: u16 = 8796;

/// Number of a peer, counted from 0, in addresses
pub const fn number(peer: usize) -> u8 {
    11 + peer as u8
}

impl Star {
    /// Makes hosts, keys and configurations; starts nothing
    ///
    /// # Errors
    /// If this machine cannot have a laboratory, or the programs are not built.
    pub fn new(plan: StarPlan) -> Result<Self> {
        let lab = Lab::new()?;
        let (hub, hub_port) = node(&lab, "hub", 1, plan.outer_of(0))?;
        let (mut peers, mut peer_ports) = (Vec::new(), Vec::new());
        for peer in 0..plan.peers {
            let outer = plan.outer_of(usize::from(peer) + 1);
            let name = format!("peer{}", peer + 1);
            let (node, port) = node(&lab, &name, number(peer.into()), outer)?;
            peers.push(node);
            peer_ports.push(port);
        }
        Self::assemble(lab, plan, (hub, hub_port), peers, peer_ports)
    }

    /// Makes keys and configurations for hosts that exist
    ///
    /// # Errors
    /// If the programs are not built.
    pub fn assemble(
        lab: Lab,
        plan: StarPlan,
        (hub, hub_port): (Node, Port),
        peers: Vec<Node>,
        peer_ports: Vec<Port>,
    ) -> Result<Self> {
        lab.wire.all(&plan.link);
        Self::furnish(lab, plan, hub, peers, hub_port, peer_ports)
    }

    /// Makes keys and configurations for hosts that are joined by cables, not by the wire
    ///
    /// # Errors
    /// If the programs are not built.
    pub fn cabled(lab: Lab, plan: StarPlan, hub: Node, peers: Vec<Node>) -> Result<Self> {
        Self::furnish(lab, plan, hub, peers, Port::NONE, Vec::new())
    }

    /// Makes a hub and two peers that are joined by cables, without the wire, and starts them
    ///
    /// # Errors
    /// If one does not come up.
    pub fn on_cables() -> Result<Self> {
        let mut star = Self::of_cables(StarPlan::default())?;
        star.start()?;
        Ok(star)
    }

    /// Makes the same in another way, and starts nothing
    ///
    /// # Errors
    /// If this machine cannot have a laboratory, or the programs are not built.
    pub fn of_cables(plan: StarPlan) -> Result<Self> {
        let lab = Lab::new()?;
        let names = ["hub", "peer1", "peer2"];
        let numbers = [1, number(0), number(1)];
        let hosts: Vec<Arc<Host>> =
            names.iter().map(|name| Ok(Arc::new(Host::new(name)?))).collect::<Result<_>>()?;
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let (here, there) = (names[other], names[one]);
            hosts[one].veth(here, &hosts[other], there)?;
            for (host, device, own, far) in [(one, here, one, other), (other, there, other, one)] {
                hosts[host].add_address(device, outer_v4(numbers[own]).into(), 32)?;
                let far = IpAddr::from(outer_v4(numbers[far]));
                hosts[host].add_route((far, 32), device, None)?;
            }
        }
        let mut nodes = Vec::new();
        for host in hosts {
            nodes.push(Node::new(host, lab.directory())?);
        }
        let peers = nodes.split_off(1);
        let hub = nodes.pop().context("no hub")?;
        Self::cabled(lab, plan, hub, peers)
    }

    fn furnish(
        lab: Lab,
        plan: StarPlan,
        hub: Node,
        peers: Vec<Node>,
        hub_port: Port,
        peer_ports: Vec<Port>,
    ) -> Result<Self> {
        let nodes = std::iter::once(&hub).chain(&peers);
        let keys = nodes.map(|node| node.keygen("key")).collect::<Result<Vec<_>>>()?;
        if plan.network_key {
            for node in std::iter::once(&hub).chain(&peers) {
                std::fs::write(node.path("psk"), format!("{NETWORK_KEY}\n"))?;
                restrict(&node.path("psk"))?;
            }
        }
        let star = Self { lab, hub, peers, hub_port, peer_ports, keys, plan };
        star.hub.configure(NETWORK, &star.hub_config(star.peers.len()))?;
        for peer in 0..star.peers.len() {
            star.peers[peer].configure(NETWORK, &star.peer_config(peer))?;
        }
        Ok(star)
    }

    /// Makes a star and starts it; returns when all networks are up
    ///
    /// # Errors
    /// If one does not come up.
    pub fn up(plan: StarPlan) -> Result<Self> {
        let mut star = Self::new(plan)?;
        star.start()?;
        Ok(star)
    }

    /// Starts all daemons; returns when all networks are up
    ///
    /// # Errors
    /// If one does not come up.
    pub fn start(&mut self) -> Result<()> {
        self.hub.start().context("hub")?;
        for peer in &mut self.peers {
            peer.start()?;
        }
        self.hub.await_state(NETWORK, "up", PATIENCE)?;
        for peer in &self.peers {
            peer.await_state(NETWORK, "up", PATIENCE)?;
        }
        Ok(())
    }

    /// Returns the hub's configuration, with the first `members` peers as its members
    pub fn hub_config(&self, members: usize) -> String {
        let mut text = format!(
            "role = \"hub\"\nlisten = \"{}\"\nsubnet = [{}]\naddress = [{}]\n\
             private_key_file = \"{}\"\n{}{}",
            self.plan.hub_listen(),
            self.plan.subnets(),
            self.plan.claims(1),
            self.keys[0].file.display(),
            self.network_key(&self.hub),
            self.plan.hub_lines,
        );
        for peer in 0..members {
            let _ = write!(
                text,
                "\n[[member]]\nname = \"peer{}\"\npublic_key = \"{}\"\naddress = [{}]\n",
                peer + 1,
                self.keys[peer + 1].public,
                self.plan.bare(number(peer)),
            );
        }
        text
    }

    /// Returns the configuration of a peer, counted from 0
    pub fn peer_config(&self, peer: usize) -> String {
        self.peer_config_with(peer, &self.keys[peer + 1], &self.keys[0].public)
    }

    /// Returns the configuration of a peer that uses another key, or expects another hub
    pub fn peer_config_with(&self, peer: usize, key: &Key, hub: &str) -> String {
        format!(
            "role = \"peer\"\naddress = [{}]\nprivate_key_file = \"{}\"\n{}{}\n\
             [[hub]]\nendpoint = \"{}\"\npublic_key = \"{hub}\"\n",
            self.plan.claims(number(peer)),
            key.file.display(),
            self.network_key(&self.peers[peer]),
            self.plan.peer_lines,
            self.hub_endpoint(peer),
        )
    }

    /// Returns the hub's address as a peer reaches it
    pub fn hub_endpoint(&self, peer: usize) -> SocketAddr {
        let both = (self.plan.outer_of(0), self.plan.outer_of(peer + 1));
        let ip: IpAddr = match both {
            (hub, peer) if hub.v4() && peer.v4() => outer_v4(1).into(),
            _ => outer_v6(1).into(),
        };
        (ip, HUB_PORT).into()
    }

    /// Returns the overlay addresses of a peer, counted from 0
    pub fn inner(&self, peer: usize) -> Vec<IpAddr> {
        self.plan.inner_of(number(peer))
    }

    /// Returns the first overlay address of a peer, counted from 0
    pub fn ip(&self, peer: usize) -> IpAddr {
        self.inner(peer)[0]
    }

    /// Returns the first overlay address of a peer with a port
    pub fn at(&self, peer: usize, port: u16) -> SocketAddr {
        (self.ip(peer), port).into()
    }

    /// Moves a peer to another underlay IPv4 address
    ///
    /// # Errors
    /// If netlink refuses.
    pub fn move_peer(&self, peer: usize, from: u8, to: u8) -> Result<()> {
        let (old, new) = (outer_v4(from).into(), outer_v4(to).into());
        self.lab.wire.renumber(&self.peers[peer].host, self.peer_ports[peer], old, new)
    }

    fn network_key(&self, node: &Node) -> String {
        if self.plan.network_key {
            format!("network_key_file = \"{}\"\n", node.path("psk").display())
        } else {
            String::new()
        }
    }
}

impl StarPlan {
    /// Returns the outer families of a node, the hub's at 0
    pub fn outer_of(&self, node: usize) -> Families {
        let last = self.outer.last().copied().unwrap_or(Families::V4);
        self.outer.get(node).copied().unwrap_or(last)
    }

    fn inner_of(&self, number: u8) -> Vec<IpAddr> {
        let v4 = self.inner.v4().then(|| inner_v4(number).into());
        let v6 = self.inner.v6().then(|| inner_v6(number).into());
        v4.into_iter().chain(v6).collect()
    }

    fn hub_listen(&self) -> SocketAddr {
        match self.outer_of(0) {
            Families::V4 => ([0, 0, 0, 0], HUB_PORT).into(),
            Families::V6 | Families::Both => ([0u16; 8], HUB_PORT).into(),
        }
    }

    fn subnets(&self) -> String {
        self.list(0, |ip| format!("{ip}/{}", length(ip)))
    }

    fn claims(&self, number: u8) -> String {
        self.list(number, |ip| format!("{ip}/{}", length(ip)))
    }

    fn bare(&self, number: u8) -> String {
        self.list(number, |ip| ip.to_string())
    }

    fn list(&self, number: u8, text: impl Fn(IpAddr) -> String) -> String {
        let quoted = self.inner_of(number).into_iter().map(|ip| format!("\"{}\"", text(ip)));
        quoted.collect::<Vec<_>>().join(", ")
    }
}

/// Makes a host on the wire with a bus and directories
///
/// # Errors
/// If this machine cannot have a laboratory.
pub fn node(lab: &Lab, name: &str, number: u8, outer: Families) -> Result<(Node, Port)> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    if outer.v4() {
        addresses.push(outer_v4(number).into());
    }
    if outer.v6() {
        addresses.push(outer_v6(number).into());
    }
    let (host, port): (Arc<Host>, Port) = lab.host(name, &addresses)?;
    Ok((Node::new(host, lab.directory())?, port))
}

/// Makes a file readable by its owner only
///
/// # Errors
/// If there is no such file.
pub fn restrict(file: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?)
}

const fn length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 24 } else { 64 }
}

/// Time in which a network has to come up
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A network key for tests: 32 bytes of base64
const NETWORK_KEY: &str = "bGFib3JhdG9yeSBuZXR3b3JrIGtleSBmb3IgdGVzdHM=";
