//! fastvpn itself: a hub and two peers with a direct path over the link.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{PATIENCE, Processes, Tunnel};
use crate::bench::arena::{Ground, tune};
use crate::bench::contest::Contestant;
use crate::bench::routes::{Link, Route};
use crate::lab::star::{self, HUB_PORT, number};
use crate::lab::{Families, Lab, Node, Star, StarPlan, inner_v4};
use crate::link::LinkConfig;

pub(super) fn set_up(route: Route, contestant: Contestant, seed: u64) -> Result<(Ground, Tunnel)> {
    let star = match route.link() {
        Link::Emulated => emulated(route, contestant, seed)?,
        Link::Cable => cabled(contestant)?,
    };
    let kind = contestant.carrier().unwrap_or("direct");
    own_path(&star.peers[0], "peer2", inner_v4(number(1)).into(), kind)?;
    Ok((Ground::of_star(route, star), Tunnel::inner(Processes::default())))
}

/// A network whose nodes are joined by cables
fn cabled(contestant: Contestant) -> Result<Star> {
    let plan =
        StarPlan { inner: Families::V4, peer_lines: lines(contestant), ..StarPlan::default() };
    let mut star = Star::of_cables(plan)?;
    for peer in &star.peers {
        tune(&peer.host)?;
    }
    star.start()?;
    Ok(star)
}

/// A network over the route
fn emulated(route: Route, contestant: Contestant, seed: u64) -> Result<Star> {
    let lab = Lab::seeded(seed)?;
    let (hub, hub_port) = star::node(&lab, "hub", 1, Families::V4)?;
    let (mut peers, mut ports) = (Vec::new(), Vec::new());
    for peer in 0..2 {
        let (node, port) =
            star::node(&lab, &format!("peer{}", peer + 1), number(peer), Families::V4)?;
        tune(&node.host)?;
        peers.push(node);
        ports.push(port);
    }
    // the hub is somewhere else, and well connected
    let link = LinkConfig::new().delay(route.forward().delay.base);
    let plan = StarPlan {
        link,
        inner: Families::V4,
        peer_lines: lines(contestant),
        ..StarPlan::default()
    };
    let mut star = Star::assemble(lab, plan, (hub, hub_port), peers, ports)?;
    // what the daemon learns about the path while it comes up must be true
    star.lab.wire.set(star.peer_ports[0], star.peer_ports[1], route.forward());
    star.lab.wire.set(star.peer_ports[1], star.peer_ports[0], route.back());
    star.start()?;
    Ok(star)
}

/// What the peers' configurations say besides the usual
fn lines(contestant: Contestant) -> String {
    // to be called, a peer over TCP or KCP needs a port that is known
    let line = |name| format!("carrier = \"{name}\"\nlisten = \"0.0.0.0:{HUB_PORT}\"\n");
    let carrier = contestant.carrier().map(line).unwrap_or_default();
    carrier + contestant.settings()
}

/// Waits until a node reaches another one over UDP without its hub
///
/// # Errors
/// If that does not come.
pub(super) fn direct(node: &Node, name: &str, inner: IpAddr) -> Result<()> {
    own_path(node, name, inner, "direct")
}

/// Waits until a node reaches another one without its hub, on a path of that kind
fn own_path(node: &Node, name: &str, inner: IpAddr, kind: &str) -> Result<()> {
    node.reaches(inner, PATIENCE)?;
    node.await_peer(name, &format!("on a {kind} path"), Duration::from_secs(30), |peer| {
        peer["path"]["kind"] == kind
    })
    .with_context(|| format!("no {kind} path"))?;
    Ok(())
}
