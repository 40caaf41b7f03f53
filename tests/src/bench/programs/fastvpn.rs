//! fastvpn itself: a hub and two peers with a direct path over the link.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{PATIENCE, Processes, Tunnel};
use crate::bench::arena::{Ground, tune};
use crate::bench::routes::Route;
use crate::lab::star::{self, number};
use crate::lab::{Families, Lab, Node, Star, StarPlan, inner_v4};
use crate::link::LinkConfig;

pub(super) fn set_up(route: Route, seed: u64) -> Result<(Ground, Tunnel)> {
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
    let plan = StarPlan { link, inner: Families::V4, ..StarPlan::default() };
    let mut star = Star::assemble(lab, plan, (hub, hub_port), peers, ports)?;
    // what the daemon learns about the path while it comes up must be true
    star.lab.wire.set(star.peer_ports[0], star.peer_ports[1], route.forward());
    star.lab.wire.set(star.peer_ports[1], star.peer_ports[0], route.back());
    star.start()?;
    direct(&star.peers[0], "peer2", inner_v4(number(1)).into())?;
    Ok((Ground::of_star(route, star), Tunnel::inner(Processes::default())))
}

/// Waits until a node reaches another one without its hub
///
/// # Errors
/// If that does not come.
pub(super) fn direct(node: &Node, name: &str, inner: std::net::IpAddr) -> Result<()> {
    node.reaches(inner, PATIENCE)?;
    node.await_peer(name, "on a direct path", Duration::from_secs(30), |peer| {
        peer["path"]["kind"] == "direct"
    })
    .context("no direct path")?;
    Ok(())
}
