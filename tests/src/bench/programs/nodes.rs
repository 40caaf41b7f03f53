//! Two nodes behind one bottleneck, each with a session to a third.
//!
//! The emulator limits each pair of hosts for itself, so the two are behind a router of the kernel
//! and share its link.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::Result;

use super::fastvpn::direct;
use crate::bench::arena::tune;
use crate::bench::routes::Route;
use crate::lab::star::{self, number};
use crate::lab::{Families, Host, Lab, Node, Port, Star, StarPlan, inner_v4, outer_v4};
use crate::link::LinkConfig;

/// Brings up a hub, peer1 and peer2 behind one link, and peer3 at its other end
///
/// # Errors
/// If a network does not come up.
pub fn shared(route: Route, seed: u64) -> Result<(Star, Host)> {
    let lab = Lab::seeded(seed)?;
    let (hub, hub_port) = star::node(&lab, "hub", 1, Families::V4)?;
    let gate = Host::new("gate")?;
    let gate_port = lab.wire.attach(&gate, &[outer_v4(GATE).into()])?;
    gate.sysctl("ipv4/ip_forward", "1")?;
    let mut peers = vec![
        behind(&lab, &gate, gate_port, "peer1", number(0))?,
        behind(&lab, &gate, gate_port, "peer2", number(1))?,
    ];
    let (third, third_port) = star::node(&lab, "peer3", number(2), Families::V4)?;
    tune(&third.host)?;
    peers.push(third);
    let ports = vec![gate_port, gate_port, third_port];
    let link = LinkConfig::new().delay(route.forward().delay.base);
    let plan = StarPlan { peers: 3, link, inner: Families::V4, ..StarPlan::default() };
    let mut star = Star::assemble(lab, plan, (hub, hub_port), peers, ports)?;
    star.lab.wire.set(gate_port, third_port, route.forward());
    star.lab.wire.set(third_port, gate_port, route.back());
    star.start()?;
    for peer in &star.peers[..2] {
        direct(peer, "peer3", inner_v4(number(2)).into())?;
    }
    Ok((star, gate))
}

/// Makes a node with a public address whose only cable leads to the gate
fn behind(lab: &Lab, gate: &Host, port: Port, name: &str, own: u8) -> Result<Node> {
    let host = Arc::new(Host::new(name)?);
    let cable = format!("to-{name}");
    gate.veth(&cable, &host, "eth0")?;
    let (address, router) = (IpAddr::from(outer_v4(own)), IpAddr::from(outer_v4(GATE)));
    host.add_address("eth0", address, 32)?;
    host.add_route((router, 32), "eth0", None)?;
    host.add_route((Ipv4Addr::UNSPECIFIED.into(), 0), "eth0", Some(router))?;
    gate.add_route((address, 32), &cable, None)?;
    lab.wire.assign(port, address);
    tune(&host)?;
    Node::new(host, lab.directory())
}

/// Number of the router
const GATE: u8 = 2;
