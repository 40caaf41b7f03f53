//! The world between the hosts: a router in user space.
//!
//! Each attached host has one TUN device, `wan0`. One thread reads the packets of all of them,
//! finds by destination address whose they are, and lets them travel over the [`Link`] of that pair
//! and direction. Everything may be changed while packets fly.
//!
//! # Contract
//!
//! - A packet for an address that nobody was given is dropped and counted.
//! - A link that is not set is perfect.
//! - The thread does not allocate more than one buffer for each packet and sleeps until the next
//!   packet is due; [`Wire::report`] tells how late it woke up.
//!
//! # Not here
//!
//! What a link does to a packet is in [`crate::link`]; translation of addresses is in
//! [`super::nat`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use fastvpn_proto::time::{Duration, Instant};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::icmp;
use super::netns::Host;
use crate::link::{Counters, Link, LinkConfig, Verdict};

/// A router in user space, with a thread of its own
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Where a host is plugged in
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Port(usize);

impl Port {
    /// Of a host that is not plugged in; of no use with a wire
    pub const NONE: Self = Self(usize::MAX);
}

/// How the router itself fared
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WireReport {
    /// Packets read from all hosts
    pub packets: u64,
    /// Packets for addresses that nobody has
    pub homeless: u64,
    /// Packets that a filter took
    pub filtered: u64,
    /// Deliveries that had a due time
    pub timed: u64,
    /// Their mean lateness, in microseconds
    pub late_mean_us: f64,
    /// Their largest lateness, in microseconds
    pub late_max_us: f64,
}

/// Device name of the wire's end in each host
pub const DEVICE: &str = "wan0";

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: OwnedFd,
    stop: AtomicBool,
}

#[derive(Debug)]
struct State {
    start: std::time::Instant,
    seed: u64,
    ports: Vec<Arc<OwnedFd>>,
    owners: HashMap<IpAddr, usize>,
    /// By sender, then by receiver
    links: Vec<Vec<Direction>>,
    tap: Option<Vec<Captured>>,
    report: WireReport,
    late_ns: u64,
}

#[derive(Debug)]
struct Direction {
    link: Link<Vec<u8>>,
    /// Whether UDP is dropped
    no_udp: bool,
    /// Whether the sender of a packet that is too big is told
    tell_too_big: bool,
}

/// A packet that was seen at the router's entrance
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Captured {
    /// Whose
    pub from: Port,
    /// For whom
    pub to: Port,
    /// The IP packet
    pub packet: Vec<u8>,
}

impl Wire {
    /// Starts a router; all chance follows from `seed`
    ///
    /// # Errors
    /// If there is no thread or descriptor for it.
    pub fn new(seed: u64) -> Result<Self> {
        let state = State {
            start: std::time::Instant::now(),
            seed,
            ports: Vec::new(),
            owners: HashMap::new(),
            links: Vec::new(),
            tap: None,
            report: WireReport::default(),
            late_ns: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stop: AtomicBool::new(false),
        });
        let driver = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("wire".to_owned()).spawn(move || drive(&driver))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Plugs a host in: a device `wan0` with these addresses and the default routes
    ///
    /// # Errors
    /// If the device cannot be made.
    pub fn attach(&self, host: &Host, addresses: &[IpAddr]) -> Result<Port> {
        let device = host.run(|_| open_tun()).context("/dev/net/tun")?;
        host.mtu(DEVICE, 1500)?;
        host.up(DEVICE)?;
        for address in addresses {
            give(host, *address)?;
        }
        let mut state = self.state();
        let port = state.ports.len();
        state.ports.push(Arc::new(device));
        state.owners.extend(addresses.iter().map(|address| (*address, port)));
        state.grow();
        drop(state);
        self.wake();
        Ok(Port(port))
    }

    /// Sets the character of the link from one host to another
    pub fn set(&self, from: Port, to: Port, config: LinkConfig) {
        let mut state = self.state();
        let now = state.now();
        state.links[from.0][to.0].link.set(config, now);
        drop(state);
        self.wake();
    }

    /// Sets the character of both directions between two hosts
    pub fn both(&self, one: Port, other: Port, config: &LinkConfig) {
        self.set(one, other, config.clone());
        self.set(other, one, config.clone());
    }

    /// Sets the character of the links between all hosts that are attached
    pub fn all(&self, config: &LinkConfig) {
        let ports = self.state().ports.len();
        for from in 0..ports {
            for to in (0..ports).filter(|to| *to != from) {
                self.set(Port(from), Port(to), config.clone());
            }
        }
    }

    /// Drops all UDP between two hosts, or lets it pass again
    pub fn udp(&self, one: Port, other: Port, passes: Pass) {
        let mut state = self.state();
        state.links[one.0][other.0].no_udp = passes == Pass::No;
        state.links[other.0][one.0].no_udp = passes == Pass::No;
    }

    /// Lets routers between two hosts stay silent about packets that are too big, or speak again
    pub fn errors(&self, one: Port, other: Port, passes: Pass) {
        let mut state = self.state();
        state.links[one.0][other.0].tell_too_big = passes == Pass::Yes;
        state.links[other.0][one.0].tell_too_big = passes == Pass::Yes;
    }

    /// Moves a host from one address to another, as a machine that changes its network does
    ///
    /// # Errors
    /// If the host does not have the old address.
    pub fn renumber(&self, host: &Host, port: Port, old: IpAddr, new: IpAddr) -> Result<()> {
        self.assign(port, new);
        host.remove_address(DEVICE, old)?;
        give(host, new)?;
        self.state().owners.remove(&old);
        Ok(())
    }

    /// Sends packets for `address` to this port from now on
    pub fn assign(&self, port: Port, address: IpAddr) {
        self.state().owners.insert(address, port.0);
    }

    /// Delivers a packet to a host as if the network had brought it
    ///
    /// # Errors
    /// If the host's device does not take it.
    pub fn inject(&self, to: Port, packet: &[u8]) -> Result<()> {
        let device = Arc::clone(&self.state().ports[to.0]);
        rustix::io::write(&*device, packet)?;
        Ok(())
    }

    /// Begins to keep a copy of each packet
    pub fn tap(&self) {
        self.state().tap = Some(Vec::new());
    }

    /// Returns what was kept since [`Wire::tap`], and stops
    pub fn captured(&self) -> Vec<Captured> {
        self.state().tap.take().unwrap_or_default()
    }

    /// Returns what became of the packets from one host to another
    pub fn counters(&self, from: Port, to: Port) -> Counters {
        self.state().links[from.0][to.0].link.counters()
    }

    /// Returns how long a packet would wait now in front of the bottleneck from one host to another
    pub fn waiting(&self, from: Port, to: Port) -> Duration {
        let state = self.state();
        let link = &state.links[from.0][to.0].link;
        let bits = link.queued_bytes() * 8;
        link.config().rate.map_or(Duration::ZERO, |rate| rate.time_of(bits))
    }

    /// Returns how the router itself fared
    pub fn report(&self) -> WireReport {
        let state = self.state();
        let mut report = state.report;
        if report.timed > 0 {
            report.late_mean_us = state.late_ns as f64 / report.timed as f64 / 1000.0;
        }
        report
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether something passes
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pass {
    /// It is dropped
    No,
    /// It passes
    Yes,
}

impl State {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Makes links until there is one from each port to each
    fn grow(&mut self) {
        let ports = self.ports.len();
        self.links.resize_with(ports, Vec::new);
        for (from, row) in self.links.iter_mut().enumerate() {
            while row.len() < ports {
                let seed = self.seed.wrapping_mul(1_000_003) + (from * 997 + row.len()) as u64;
                let link = Link::new(LinkConfig::new(), seed);
                row.push(Direction { link, no_udp: false, tell_too_big: true });
            }
        }
    }

    /// Takes a packet that a host sent
    fn accept(&mut self, from: usize, packet: &[u8], now: Instant) {
        self.report.packets += 1;
        let Some(&to) = destination(packet).and_then(|address| self.owners.get(&address)) else {
            self.report.homeless += 1;
            return;
        };
        if let Some(tap) = &mut self.tap {
            tap.push(Captured { from: Port(from), to: Port(to), packet: packet.to_vec() });
        }
        let direction = &mut self.links[from][to];
        if direction.no_udp && is_udp(packet) {
            self.report.filtered += 1;
            return;
        }
        let verdict = direction.link.push(packet.to_vec(), packet.len(), now);
        if verdict == Verdict::TooBig && direction.tell_too_big {
            let mtu = direction.link.config().mtu.unwrap_or(1500);
            if let Some(error) = icmp::too_big(packet, mtu) {
                let _ = rustix::io::write(&*self.ports[from], &error);
            }
        }
    }

    /// Delivers all that is due; returns when to come back
    fn deliver(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for row in &mut self.links {
            for (to, direction) in row.iter_mut().enumerate() {
                let Some(due) = direction.link.deadline() else { continue };
                if due <= now {
                    let timed = direction.link.config() != &LinkConfig::default();
                    while let Some(packet) = direction.link.poll(now) {
                        let _ = rustix::io::write(&*self.ports[to], &packet);
                        if timed {
                            let late = now.since(due).as_nanos() as u64;
                            self.report.timed += 1;
                            self.late_ns += late;
                            let late_us = late as f64 / 1000.0;
                            self.report.late_max_us = self.report.late_max_us.max(late_us);
                        }
                    }
                }
                if let Some(due) = direction.link.deadline() {
                    next = Some(next.map_or(due, |other| other.min(due)));
                }
            }
        }
        next
    }
}

/// Packets read from one device before the others have their turn
const BATCH: usize = 32;

fn drive(shared: &Shared) {
    // a sleep may end 50 us late otherwise
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000));
    let mut buffer = vec![0; 65_536];
    let mut ports: Vec<Arc<OwnedFd>> = Vec::new();
    let mut wait = None;
    while !shared.stop.load(Ordering::Acquire) {
        let mut polled = vec![PollFd::new(&shared.wake, PollFlags::IN)];
        polled.extend(ports.iter().map(|port| PollFd::new(&**port, PollFlags::IN)));
        if poll(&mut polled, wait.as_ref()).is_err() {
            continue;
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            let _ = rustix::io::read(&shared.wake, &mut [0; 8]);
        }
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (from, device) in ports.iter().enumerate().filter(|(from, _)| ready[from + 1]) {
            for _ in 0..BATCH {
                let Ok(len) = rustix::io::read(&**device, &mut buffer[..]) else { break };
                let now = state.now();
                state.accept(from, &buffer[..len], now);
            }
        }
        let now = state.now();
        wait = state.deliver(now).map(|due| timespec(due.since(state.now())));
        if ports.len() != state.ports.len() {
            ports.clone_from(&state.ports);
        }
    }
}

fn timespec(wait: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}

/// Opens `wan0` in the namespace of this thread
fn open_tun() -> Result<OwnedFd> {
    let mut config = tun::Configuration::default();
    config.tun_name(DEVICE);
    let device = tun::Device::new(&config)?;
    device.set_nonblock()?;
    // the crate shows a number only; a duplicate of it is owned without an unsafe block
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own.as_fd(), device.as_raw_fd(), PidfdGetfdFlags::empty())?)
}

/// Adds an address and the default route of its family
fn give(host: &Host, address: IpAddr) -> Result<()> {
    let (length, any): (u8, IpAddr) = match address {
        IpAddr::V4(_) => (32, Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(_) => (128, Ipv6Addr::UNSPECIFIED.into()),
    };
    host.add_address(DEVICE, address, length)?;
    host.add_route((any, 0), DEVICE, None)
}

/// Destination of an IP packet
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok().map(IpAddr::from),
        6 => <[u8; 16]>::try_from(packet.get(24..40)?).ok().map(IpAddr::from),
        _ => None,
    }
}

fn is_udp(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => packet.get(9) == Some(&17),
        _ => packet.get(6) == Some(&17),
    }
}
