//! Two hosts, a link between them, and a contestant's tunnel over it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::contest::Contestant;
use super::programs::{self, Tunnel};
use super::routes::{Link, Route};
use crate::lab::star::number;
use crate::lab::{Host, Lab, Port, Star, Wire, outer_v4};
use crate::link::{Counters, LinkConfig};

/// Port of whatever is measured, at the far host
pub const SERVICE: u16 = 5201;
/// Port of a second stream, at the far host
pub const SECOND: u16 = 5202;

/// Two hosts on an emulated link
#[derive(Debug)]
pub struct Ground {
    /// Who sends in bulk, asks and pings
    pub near: Arc<Host>,
    /// Who receives and answers
    pub far: Arc<Host>,
    /// Where both are plugged in
    pub ports: (Port, Port),
    /// What is between them
    pub route: Route,
    under: Under,
}

/// What the hosts belong to
#[derive(Debug)]
enum Under {
    /// A laboratory with nothing else
    Bare(Lab),
    /// A network of fastvpn
    Star(Box<Star>),
}

impl Ground {
    /// Makes two hosts with the route's delay between them, but nothing else of it yet
    ///
    /// # Errors
    /// If this machine cannot have a laboratory.
    pub fn new(route: Route, seed: u64) -> Result<Self> {
        let lab = Lab::seeded(seed)?;
        let ((near, near_port), (far, far_port)) = match route.link() {
            Link::Emulated => (
                lab.host("near", &[outer_v4(number(0)).into()])?,
                lab.host("far", &[outer_v4(number(1)).into()])?,
            ),
            Link::Cable => {
                let (near, far) = cabled()?;
                ((near, Port::NONE), (far, Port::NONE))
            }
        };
        for host in [&near, &far] {
            tune(host)?;
        }
        let ground =
            Self { near, far, ports: (near_port, far_port), route, under: Under::Bare(lab) };
        ground.wire().all(&LinkConfig::new().delay(route.forward().delay.base));
        Ok(ground)
    }

    /// Takes two peers of a network of fastvpn
    pub fn of_star(route: Route, star: Star) -> Self {
        Self {
            near: Arc::clone(&star.peers[0].host),
            far: Arc::clone(&star.peers[1].host),
            ports: match star.peer_ports[..] {
                [near, far, ..] => (near, far),
                _ => (Port::NONE, Port::NONE),
            },
            route,
            under: Under::Star(Box::new(star)),
        }
    }

    /// Gives the link its whole character
    pub fn impair(&self) {
        match self.route.link() {
            Link::Emulated => {
                self.wire().set(self.ports.0, self.ports.1, self.route.forward());
                self.wire().set(self.ports.1, self.ports.0, self.route.back());
            }
            Link::Cable => {}
        }
    }

    /// Returns the network of fastvpn, if that is what runs here
    pub fn star(&mut self) -> Option<&mut Star> {
        match &mut self.under {
            Under::Bare(_) => None,
            Under::Star(star) => Some(star),
        }
    }

    /// Returns the laboratory
    pub fn lab(&self) -> &Lab {
        match &self.under {
            Under::Bare(lab) => lab,
            Under::Star(star) => &star.lab,
        }
    }

    /// Returns the world between the hosts
    pub fn wire(&self) -> &Wire {
        &self.lab().wire
    }

    /// Returns what became of the packets from near to far; on a cable, nobody counts
    pub fn forward(&self) -> Counters {
        match self.route.link() {
            Link::Emulated => self.wire().counters(self.ports.0, self.ports.1),
            Link::Cable => Counters::default(),
        }
    }
}

/// A contestant's tunnel, ready to be measured
#[derive(Debug)]
pub struct Arena {
    /// The tunnel; goes first
    pub tunnel: Tunnel,
    /// The hosts and the link
    pub ground: Ground,
    /// Whose tunnel it is
    pub contestant: Contestant,
}

impl Arena {
    /// Makes hosts, sets the tunnel up and then gives the link its character
    ///
    /// fastvpn learns what a path is like while it is set up, so it gets the whole link at once.
    ///
    /// # Errors
    /// If the program does not start or its tunnel does not come up.
    pub fn new(route: Route, contestant: Contestant, seed: u64) -> Result<Self> {
        Self::with_window(route, contestant, programs::Window::Usual, seed)
    }

    /// Does the same for a program whose window has to be set by hand
    ///
    /// # Errors
    /// If the program does not start or its tunnel does not come up.
    pub fn with_window(
        route: Route,
        contestant: Contestant,
        window: programs::Window,
        seed: u64,
    ) -> Result<Self> {
        let (ground, tunnel) = programs::set_up(route, contestant, window, seed)
            .with_context(|| format!("{} does not come up", contestant.name()))?;
        ground.impair();
        Ok(Self { tunnel, ground, contestant })
    }

    /// Returns where a TCP client reaches the service at the far host
    pub fn service(&self) -> SocketAddr {
        self.tunnel.service
    }

    /// Returns the address to ping
    pub fn ping(&self) -> IpAddr {
        self.tunnel.ping
    }

    /// Returns the processor time of the tunnel's programs so far
    pub fn processor(&self) -> Duration {
        self.processes().iter().map(|process| processor(*process)).sum()
    }

    /// Returns the largest resident memory that one of the programs had, in MiB
    pub fn memory(&self) -> Option<f64> {
        self.processes().iter().filter_map(|process| memory(*process)).reduce(f64::max)
    }

    fn processes(&self) -> Vec<u32> {
        let own = self.tunnel.processes.numbers();
        match &self.ground.under {
            Under::Bare(_) => own,
            Under::Star(star) => {
                star.peers[..2].iter().filter_map(crate::lab::Node::process).collect()
            }
        }
    }
}

/// Makes a host forget what one connection learned, so that no run profits from the one before
///
/// # Errors
/// If the kernel has no such setting.
pub fn tune(host: &Host) -> Result<()> {
    host.sysctl("ipv4/tcp_no_metrics_save", "1")
}

/// Two hosts with a cable between them
fn cabled() -> Result<(Arc<Host>, Arc<Host>)> {
    let (near, far) = (Host::new("near")?, Host::new("far")?);
    near.veth("eth0", &far, "eth0")?;
    for (host, own) in [(&near, number(0)), (&far, number(1))] {
        host.add_address("eth0", outer_v4(own).into(), 24)?;
    }
    Ok((Arc::new(near), Arc::new(far)))
}

fn processor(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok());
    Duration::from_millis(10 * (ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0)))
}

fn memory(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
