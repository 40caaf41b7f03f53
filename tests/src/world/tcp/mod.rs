//! TCP connections of applications behind the hosts, in virtual time.
//!
//! Each end of a connection is a kernel of its own (smoltcp) behind its host's TUN, with an application
//! that does the steps of a [`script`]. What is read is compared with what was written, byte for byte;
//! a test only says what the two applications do, and how long it may take. A connection of
//! [`Via::Underlay`] goes past the nodes, straight over the wires between the hosts: a stranger's, that
//! shares a bottleneck with us, or the rival that we are compared with.
//!
//! # Contract
//!
//! Judged after each step of an end:
//! - bytes are read as they were written: none lost, repeated, changed or out of order;
//! - the end of a half is read after all of its bytes, and only where the writer had ended it;
//! - a connection is established at its opener only after the acceptor's kernel has seen it;
//! - an end's last acknowledgement is seen only after the other kernel has got that end;
//! - nobody is reset unless the other application reset, nobody listened, or the test excused it
//!   ([`World::excuse`]): a node that carried the connection was restarted, or its session ended.
//!
//! That nothing hangs is for the test to say, with [`World::run_until_over`].
//!
//! # Not here
//!
//! Kernels live on while their host's node is off: a daemon that is restarted does not end connections.

mod app;
mod content;
mod couple;
mod end;
mod half;
mod packet;
pub mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use fastvpn_proto::node::Ecn;
use fastvpn_proto::time::{Duration, Instant};
use rand_chacha::rand_core::RngCore;
use smoltcp::socket::tcp::State;

use self::app::App;
pub use self::couple::Couple;
use self::end::{End, Refuser};
pub use self::half::Half;
use self::packet::Tuple;
pub(crate) use self::packet::describe;
pub use self::script::{Pace, Step, Work};
use super::host::Power;
use super::network::RAW_PORT;
use super::{Datagram, Family, HostId, Source, World};

/// Names a connection
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TcpId(usize);

/// One of the two ends of a connection
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// Who opened it
    Opener,
    /// Who listened
    Acceptor,
}

impl Side {
    fn far(self) -> Self {
        match self {
            Self::Opener => Self::Acceptor,
            Self::Acceptor => Self::Opener,
        }
    }
}

/// How a connection travels
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// Through the hosts' nodes
    Overlay,
    /// Past them
    Underlay,
}

/// Congestion control of a kernel
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Control {
    /// RFC 9438
    Cubic,
    /// None: as much as the far end's window allows
    None,
    /// RFC 5681
    Reno,
}

/// How the kernels of a connection are set
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpPlan {
    /// Version of IP
    pub family: Family,
    /// How it travels
    pub via: Via,
    /// Largest packet, which the MSS follows from
    pub mtu: usize,
    /// Bytes that a kernel keeps for an application that writes
    pub send_buffer: usize,
    /// Bytes that a kernel keeps for an application that reads: the largest window
    pub receive_buffer: usize,
    /// Congestion control
    pub control: Control,
    /// Whether small segments wait for acknowledgements (RFC 896)
    pub nagle: bool,
    /// Silence after which a kernel asks whether the other one is still there
    pub keep_alive: Option<Duration>,
}

impl Default for TcpPlan {
    /// As a kernel comes, but for Nagle's algorithm, which programs that hurry switch off
    fn default() -> Self {
        Self {
            family: Family::V4,
            via: Via::Overlay,
            mtu: 1_400,
            send_buffer: 4 << 20,
            receive_buffer: 4 << 20,
            control: Control::Cubic,
            nagle: false,
            keep_alive: None,
        }
    }
}

impl TcpPlan {
    /// Sets the largest window
    #[must_use]
    pub fn buffers(mut self, bytes: usize) -> Self {
        self.send_buffer = bytes;
        self.receive_buffer = bytes;
        self
    }

    /// Uses IPv6
    #[must_use]
    pub fn over_ipv6(mut self) -> Self {
        self.family = Family::V6;
        self
    }

    /// Goes past the nodes
    #[must_use]
    pub fn underlay(mut self) -> Self {
        self.via = Via::Underlay;
        self.mtu = 1_500;
        self
    }
}

/// A connection, as its two applications saw it
#[derive(Debug)]
pub struct Connection {
    /// When it was begun
    pub begun: Instant,
    plan: TcpPlan,
    /// Host and address of each side
    places: [(HostId, SocketAddr); 2],
    halves: [Half; 2],
    keys: [u64; 2],
    /// What the acceptor will do
    acceptor: Vec<Step>,
    /// Whether the acceptor's kernel has seen it
    met: bool,
    excused: bool,
    /// Whether the node of each side was restarted while it was there
    restarted: [bool; 2],
}

impl Connection {
    /// Returns what one end went through
    pub fn half(&self, side: Side) -> &Half {
        &self.halves[side as usize]
    }

    /// Tells whether both applications are through with it
    pub fn is_over(&self) -> bool {
        let [opener, acceptor] = &self.halves;
        // One that was reset before it was established is none for who listens.
        let none = !self.met || acceptor.state == State::Listen;
        opener.is_over() && (acceptor.is_over() || none)
    }

    /// Tells whether somebody was told that it was reset or refused
    pub fn was_reset(&self) -> bool {
        self.halves.iter().any(|half| half.reset.is_some())
    }

    /// Tells whether the test foresees that it may be reset
    pub fn is_excused(&self) -> bool {
        self.excused
    }

    /// Tells whether the nodes of both sides were restarted while it was there: if they did not meet in
    /// between, nobody is left who knows what was acknowledged and not delivered
    pub fn lost_both_nodes(&self) -> bool {
        self.restarted == [true; 2]
    }

    /// Returns how long it took until the opener was through with it
    pub fn took(&self) -> Option<Duration> {
        let opener = self.half(Side::Opener);
        opener.reset.or(opener.ended).map(|end| end.since(self.begun))
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(_, local), (_, remote)] = self.places;
        write!(f, "{local} to {remote}, begun at {:?}", self.begun)?;
        for half in &self.halves {
            write!(f, "\n    {half}")?;
        }
        Ok(())
    }
}

/// All connections of a world
#[derive(Default)]
pub(super) struct Tcp {
    connections: Vec<Connection>,
    /// Two for each connection: nothing before it is there, and after it is over
    ends: Vec<Option<Box<End>>>,
    tuples: BTreeMap<(HostId, Tuple), usize>,
    listening: BTreeSet<(HostId, u16)>,
    refusers: BTreeMap<HostId, Refuser>,
    strays: BTreeMap<HostId, Vec<(Via, Vec<u8>)>>,
    next_port: u16,
    /// Connection whose packets are printed
    trace: Option<usize>,
}

impl Tcp {
    pub(super) fn new() -> Self {
        let trace = std::env::var("FASTVPN_TCP_TRACE").ok();
        Self { trace: trace.and_then(|number| number.parse().ok()), ..Self::default() }
    }
}

impl World {
    /// Lets applications of a host accept connections to a port
    pub fn listen(&mut self, host: HostId, port: u16) {
        self.tcp.listening.insert((host, port));
    }

    /// Opens a connection on which both applications do such work
    pub fn tcp(&mut self, from: HostId, to: HostId, work: Work) -> TcpId {
        self.listen(to, PORT);
        self.tcp_with(from, to, PORT, TcpPlan::default(), work.steps())
    }

    /// Opens a connection on which both applications do such work, past the nodes
    pub fn raw_tcp(&mut self, from: HostId, to: HostId, work: Work) -> TcpId {
        self.listen(to, PORT);
        self.tcp_with(from, to, PORT, TcpPlan::default().underlay(), work.steps())
    }

    /// Opens a connection to a port, between kernels that are set so, on which opener and acceptor do
    /// these steps
    pub fn tcp_with(
        &mut self,
        from: HostId,
        to: HostId,
        port: u16,
        plan: TcpPlan,
        [opener, acceptor]: [Vec<Step>; 2],
    ) -> TcpId {
        let id = TcpId(self.tcp.connections.len());
        self.tcp.next_port =
            self.tcp.next_port.max(FIRST_PORT - 1).checked_add(1).unwrap_or(FIRST_PORT);
        let local = SocketAddr::new(self.tcp_address(from, &plan), self.tcp.next_port);
        let remote = SocketAddr::new(self.tcp_address(to, &plan), port);
        let keys = [self.chance.next_u64(), self.chance.next_u64()];
        self.tcp.connections.push(Connection {
            begun: self.now,
            plan,
            places: [(from, local), (to, remote)],
            halves: [Half::new(), Half::new()],
            keys,
            acceptor,
            met: false,
            excused: false,
            restarted: [false; 2],
        });
        self.tcp.ends.extend([None, None]);
        self.tcp.tuples.insert((from, Tuple { local, remote }), id.0 * 2);
        self.tcp.tuples.insert((to, Tuple { local: remote, remote: local }), id.0 * 2 + 1);
        let app = App::new(opener, keys[0], keys[1], self.now);
        let mut end = End::new(&plan, local, self.chance.next_u64(), app, self.now);
        end.connect(local, remote);
        self.tcp.ends[id.0 * 2] = Some(Box::new(end));
        self.schedule.set(Source::End(id.0 * 2), Some(self.now));
        id
    }

    /// Lets the application at one end do more, after all that it has still to do
    pub fn tcp_do(&mut self, id: TcpId, side: Side, steps: &[Step]) {
        let index = id.0 * 2 + side as usize;
        match &mut self.tcp.ends[index] {
            Some(end) => {
                end.app.push(steps.iter().copied());
                self.schedule.set(Source::End(index), Some(self.now));
            }
            None if side == Side::Acceptor && !self.tcp.connections[id.0].met => {
                self.tcp.connections[id.0].acceptor.extend_from_slice(steps);
            }
            None => self.fail(format_args!("{id:?} is over at its {side:?}")),
        }
    }

    /// Returns a connection
    pub fn connection(&self, id: TcpId) -> &Connection {
        &self.tcp.connections[id.0]
    }

    /// Returns all connections
    pub fn connections(&self) -> impl Iterator<Item = (TcpId, &Connection)> {
        self.tcp.connections.iter().enumerate().map(|(index, one)| (TcpId(index), one))
    }

    /// Lets a connection be reset without a reason that its applications know
    pub fn excuse(&mut self, id: TcpId) {
        self.tcp.connections[id.0].excused = true;
    }

    /// Excuses all connections through a host's node that are not over; only those with `other`, if any
    pub(super) fn excuse_all(&mut self, host: HostId, other: Option<HostId>) {
        for connection in &mut self.tcp.connections {
            let has = |wanted| connection.places.iter().any(|(place, _)| *place == wanted);
            let concerned = has(host) && other.is_none_or(has);
            let overlay = connection.plan.via == Via::Overlay;
            let harmed = concerned && overlay && !connection.is_over();
            connection.excused |= harmed;
            if harmed && other.is_none() {
                let own = connection.places.map(|(place, _)| place == host);
                connection.restarted = [0, 1].map(|side| connection.restarted[side] || own[side]);
            }
        }
    }

    /// Lets time pass until all applications are through with these connections, and returns how long
    /// that took
    pub fn run_until_over(&mut self, connections: &[TcpId], within: Duration) -> Duration {
        let mut first = 0;
        self.run_until("the end of all connections", within, |world| {
            while first < connections.len() && world.connection(connections[first]).is_over() {
                first += 1;
            }
            first == connections.len()
        })
    }

    /// Lets all kernels of a host that woke look at their clocks
    pub(super) fn wake_ends(&mut self, host: HostId) {
        let places = self.tcp.connections.iter().flat_map(|connection| &connection.places);
        let own = places.enumerate().filter(|(_, (place, _))| *place == host);
        for index in own.map(|(index, _)| index).collect::<Vec<_>>() {
            self.schedule.set(Source::End(index), Some(self.now));
        }
    }

    /// Takes a packet that came out of a host's TUN, or over the wire; tells whether it is TCP
    pub(super) fn tcp_arrive(
        &mut self,
        host: HostId,
        via: Via,
        packet: Vec<u8>,
    ) -> Result<(), Vec<u8>> {
        let Some(tuple) = Tuple::of_arriving(&packet) else {
            return Err(packet);
        };
        let index = self.tcp.tuples.get(&(host, tuple)).copied();
        if let Some(index) = index.filter(|index| index % 2 == 1) {
            self.accept(index, &packet);
        }
        self.trace(index, "gets", &packet);
        if let Some(index) = index
            && let Some(end) = &mut self.tcp.ends[index]
        {
            end.receive(packet);
            self.schedule.set(Source::End(index), Some(self.now));
        } else {
            self.tcp.strays.entry(host).or_default().push((via, packet));
            self.schedule.set(Source::Stray(host), Some(self.now));
        }
        Ok(())
    }

    /// Makes the acceptor's end of a connection, if this is its first packet and somebody listens
    fn accept(&mut self, index: usize, packet: &[u8]) {
        let connection = &mut self.tcp.connections[index / 2];
        let (host, local) = connection.places[1];
        let opens = packet::is_syn(packet) && self.tcp.listening.contains(&(host, local.port()));
        if connection.met || !opens {
            return;
        }
        connection.met = true;
        let [opener, acceptor] = connection.keys;
        let steps = std::mem::take(&mut connection.acceptor);
        let app = App::new(steps, acceptor, opener, self.now);
        let mut end = End::new(&connection.plan, local, self.chance.next_u64(), app, self.now);
        end.listen(local);
        self.tcp.ends[index] = Some(Box::new(end));
    }

    /// Lets one end do what it can
    pub(super) fn step_end(&mut self, index: usize) {
        self.schedule.set(Source::End(index), None);
        let connection = &mut self.tcp.connections[index / 2];
        let (host, _) = connection.places[index % 2];
        if self.hosts[host.0].power == Power::Asleep {
            return;
        }
        let Some(mut end) = self.tcp.ends[index].take() else {
            return;
        };
        let [opener, acceptor] = &mut connection.halves;
        let (own, far) =
            if index.is_multiple_of(2) { (opener, acceptor) } else { (acceptor, opener) };
        let polled = end.poll(own, far, self.now);
        let judged = polled.and_then(|sent| self.judge(index).map(|()| sent));
        let via = self.tcp.connections[index / 2].plan.via;
        if !end.is_over() {
            // Back in its place first: a node may answer at once what is sent now.
            let due = end.deadline(self.now);
            self.tcp.ends[index] = Some(end);
            self.schedule.set(Source::End(index), due);
        }
        match judged {
            Ok(sent) => {
                sent.iter().for_each(|packet| self.trace(Some(index), "sends", packet));
                self.tcp_send(host, via, sent);
            }
            Err(fault) => self.fail(format_args!("{:?} of {index}: {fault}", self.side(index))),
        }
    }

    /// Refuses what belongs to no connection of a host
    pub(super) fn step_stray(&mut self, host: HostId) {
        self.schedule.set(Source::Stray(host), None);
        for (via, packet) in self.tcp.strays.remove(&host).unwrap_or_default() {
            let Some(tuple) = Tuple::of_arriving(&packet) else { continue };
            let now = self.now;
            let refuser = self.tcp.refusers.entry(host).or_insert_with(|| Refuser::new(now));
            let answer = refuser.answer(tuple.local, packet, now);
            self.tcp_send(host, via, answer);
        }
    }

    fn tcp_send(&mut self, host: HostId, via: Via, packets: Vec<Vec<u8>>) {
        if packets.is_empty() {
            return;
        }
        match via {
            Via::Overlay => self.drive(host, |node, now| {
                packets.iter().for_each(|packet| node.handle_packet(packet, None, now));
            }),
            Via::Underlay => {
                for bytes in packets {
                    let Some(tuple) = Tuple::of_arriving(&bytes) else { continue };
                    let [from, to] = [tuple.remote, tuple.local];
                    let [from, to] = [from, to].map(|at| SocketAddr::new(at.ip(), RAW_PORT));
                    self.transmit(
                        self.hosts[host.0].site,
                        Datagram { from, to, bytes, ecn: Ecn::Incapable, cut: false },
                    );
                }
            }
        }
    }

    /// Prints a packet of the connection with the number in `FASTVPN_TCP_TRACE`
    fn trace(&self, index: Option<usize>, verb: &str, packet: &[u8]) {
        if let Some(index) = index
            && self.tcp.trace == Some(index / 2)
        {
            let side = self.side(index);
            println!("{:?} {side:?} {verb} {}", self.now, describe(packet));
        }
    }

    /// Compares one end with the other
    fn judge(&self, index: usize) -> Result<(), super::oracle::Fault> {
        let connection = &self.tcp.connections[index / 2];
        let side = self.side(index);
        let (own, far) = (connection.half(side), connection.half(side.far()));
        if own.opened.is_some() && !connection.met {
            return Err("is established, and nobody accepted".to_owned());
        }
        let ended = matches!(own.state, State::FinWait2 | State::TimeWait);
        let far_knows = matches!(
            far.state,
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait | State::Closed
        );
        if ended && !far_knows {
            return Err(format!("its end is acknowledged, and the other is {}", far.state));
        }
        let (host, at) = connection.places[1];
        let listens = self.tcp.listening.contains(&(host, at.port()));
        // One of them waited for the other so long that any kernel would have given up.
        let half_open = own.opened.is_none() || far.opened.is_none();
        let in_vain = half_open && self.now.since(connection.begun) >= SYN_PATIENCE;
        let foreseen = in_vain || far.aborted.is_some() || !listens || connection.excused;
        if own.reset.is_some() && !foreseen && !own.is_late(far) {
            return Err(format!("was reset; itself {own:?}, the other {far:?}"));
        }
        Ok(())
    }

    fn side(&self, index: usize) -> Side {
        if index.is_multiple_of(2) { Side::Opener } else { Side::Acceptor }
    }

    fn tcp_address(&self, host: HostId, plan: &TcpPlan) -> std::net::IpAddr {
        match plan.via {
            Via::Overlay => self.overlay(host, plan.family),
            Via::Underlay => {
                let mut own = self.hosts[host.0].plan.underlay.iter();
                let found = own.find(|addr| addr.is_ipv4() == (plan.family == Family::V4));
                *found.unwrap_or_else(|| self.fail("no address of that family"))
            }
        }
    }
}

/// Where acceptors of a test listen if it does not say
pub const PORT: u16 = 80;
const FIRST_PORT: u16 = 10_000;
/// How long a kernel repeats a SYN (Linux)
const SYN_PATIENCE: Duration = Duration::from_secs(127);
