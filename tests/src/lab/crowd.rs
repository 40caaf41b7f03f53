//! Many members on one hub: protocol nodes with sockets, without daemons.
//!
//! A [`Crowd`] drives a [`Node`] and a socket for each member, all in one thread, and does what a
//! peer's control side does as far as a hub can see: it registers and sends a heartbeat now and
//! then. [`strangers`] makes the first messages of nodes that no hub knows.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use fastvpn_proto::control::{Register, Reply};
use fastvpn_proto::crypto::{NetworkKey, PrivateKey, PublicKey};
use fastvpn_proto::node::{
    Admission, Arrival, Carrier, Choice, Command, Contact, Ecn, Event, Node, NodeConfig, PeerConfig,
};
use fastvpn_proto::time::Instant;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::netns::Host;

/// Members of a network that are protocol nodes only
#[derive(Debug)]
pub struct Crowd {
    hub: PublicKey,
    members: Vec<Member>,
    start: std::time::Instant,
    next_beat: std::time::Instant,
}

#[derive(Debug)]
struct Member {
    node: Node,
    socket: UdpSocket,
    registered: bool,
}

/// Interval of a crowd's heartbeats
const BEAT: Duration = Duration::from_secs(5);

impl Crowd {
    /// Makes `count` members in `host`, each on a source address of its own below 10.200.0.0/16
    ///
    /// # Errors
    /// If there are not enough descriptors or addresses.
    pub fn new(
        host: &Host,
        device: &str,
        count: usize,
        hub: PublicKey,
        at: SocketAddr,
    ) -> Result<Self> {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
        let mut members = Vec::new();
        for number in 0..count {
            let source = source(number);
            host.add_address(device, source.into(), 16)?;
            let socket = host.run(move |_| UdpSocket::bind((source, 0))).context("socket")?;
            socket.set_nonblocking(true)?;
            let node = member(number as u64, hub, at);
            members.push(Member { node, socket, registered: false });
        }
        let start = std::time::Instant::now();
        Ok(Self { hub, members, start, next_beat: start + BEAT })
    }

    /// Returns the public keys of all members, in order
    pub fn keys(&self) -> Vec<PublicKey> {
        self.members.iter().map(|member| member.node.public_key()).collect()
    }

    /// Returns how many were welcomed by the hub
    pub fn registered(&self) -> usize {
        self.members.iter().filter(|member| member.registered).count()
    }

    /// Lives until `condition` holds, at most for `patience`; tells whether it came to hold
    ///
    /// # Errors
    /// If a socket fails.
    pub fn live(
        &mut self,
        patience: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<bool> {
        let end = std::time::Instant::now() + patience;
        self.turn(&vec![false; self.members.len()])?;
        while std::time::Instant::now() < end {
            if condition(self) {
                return Ok(true);
            }
            let wait = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            let mut polled: Vec<PollFd<'_>> = self
                .members
                .iter()
                .map(|member| PollFd::new(&member.socket, PollFlags::IN))
                .collect();
            poll(&mut polled, Some(&wait))?;
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            self.turn(&ready)?;
            self.beat();
        }
        Ok(condition(self))
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn turn(&mut self, ready: &[bool]) -> io::Result<()> {
        let now = self.now();
        for (member, ready) in self.members.iter_mut().zip(ready) {
            if *ready {
                member.receive(now);
            }
            if member.node.deadline().is_some_and(|(due, _)| due <= now) {
                member.node.handle_timeout(now);
            }
            member.drain(now)?;
        }
        Ok(())
    }

    fn beat(&mut self) {
        if std::time::Instant::now() < self.next_beat {
            return;
        }
        self.next_beat += BEAT;
        let now = self.now();
        for member in self.members.iter_mut().filter(|member| member.registered) {
            let ping = Command::Ping { peer: self.hub, id: 1, timeout: BEAT };
            member.node.handle_command(ping, now);
        }
    }
}

impl Member {
    fn receive(&mut self, now: Instant) {
        let mut buffer = [0; 9000];
        while let Ok((len, remote)) = self.socket.recv_from(&mut buffer) {
            let arrival =
                Arrival { carrier: Carrier::Udp, remote, local: None, ecn: Ecn::Incapable };
            self.node.handle_message(arrival, &mut buffer[..len], now);
        }
    }

    fn drain(&mut self, now: Instant) -> io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.node.poll_transmit(&mut buffer, now) {
            let size = transmit.segment.unwrap_or(buffer.len()).max(1);
            for message in buffer.chunks(size) {
                match self.socket.send_to(message, transmit.remote) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
        }
        while self.node.poll_packet().is_some() {}
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::SessionUp { greeting, .. } => {
                    self.registered = matches!(Reply::decode(&greeting), Ok(Reply::Welcome { .. }));
                }
                Event::SessionDown { .. } => self.registered = false,
                _ => {}
            }
        }
        Ok(())
    }
}

/// First messages of `count` nodes that the hub does not know
pub fn strangers(count: usize, hub: PublicKey, at: SocketAddr) -> Vec<Vec<u8>> {
    let first = |number: usize| {
        let mut node = member(0xbad_0000 + number as u64, hub, at);
        let mut buffer = Vec::new();
        let sent = node.poll_transmit(&mut buffer, Instant::ZERO);
        sent.map(|_| buffer)
    };
    (0..count).filter_map(first).collect()
}

/// A node that registers with the hub as soon as it is drained
fn member(number: u64, hub: PublicKey, at: SocketAddr) -> Node {
    let mut chance = ChaCha8Rng::seed_from_u64(number);
    let (mut private, mut seed) = ([0; 32], [0; 32]);
    chance.fill_bytes(&mut private);
    chance.fill_bytes(&mut seed);
    let config = NodeConfig {
        private_key: PrivateKey::from_bytes(private),
        network_key: NetworkKey::default(),
        seed,
        aes: true,
        admission: Admission::Known,
        relay: false,
        silence: Duration::from_secs(60),
        engine: fastvpn_proto::node::Engine::default(),
    };
    let mut node = Node::new(config, Instant::ZERO);
    let register = Register { name: format!("member{number}"), ..Register::default() };
    let peer = PeerConfig {
        key: hub,
        prefixes: Vec::new(),
        endpoints: vec![at],
        carrier: Choice::Udp,
        tcp: None,
        relay: None,
        contact: Contact::Always,
        hello: register.encode(),
        boot: None,
    };
    node.handle_command(Command::SetPeer(peer), Instant::ZERO);
    node
}

fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, (number / 200) as u8, (number % 200) as u8 + 2)
}

/// Overlay address of a member of a crowd, below 10.97.0.0/16
pub fn inner(number: usize) -> IpAddr {
    Ipv4Addr::new(10, 97, 1 + (number / 200) as u8, (number % 200) as u8 + 1).into()
}
