//! One end of a connection: a kernel of its own (smoltcp with one socket) and its application.
//!
//! Each end has its own kernel, so that ten thousand of them cost no more for each packet than one.

use std::collections::VecDeque;
use std::net::SocketAddr;

use fastvpn_proto::time::Instant;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant as Micros;
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber,
};

use super::app::App;
use super::half::Half;
use super::{Control, TcpPlan};
use crate::world::oracle::Fault;

/// A kernel with one socket, and the application on it
pub(super) struct End {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    device: Tun,
    pub(super) app: App,
}

impl End {
    /// Makes an end that does not do anything yet
    pub(super) fn new(
        plan: &TcpPlan,
        local: SocketAddr,
        chance: u64,
        app: App,
        now: Instant,
    ) -> Self {
        let mut device = Tun::new(plan.mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = chance;
        let mut interface = Interface::new(config, &mut device, micros(now));
        let prefix = if local.is_ipv4() { 32 } else { 128 };
        interface
            .update_ip_addrs(|own| own.push(IpCidr::new(local.ip().into(), prefix)).unwrap_or(()));
        let buffer = |bytes: usize| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(plan.receive_buffer), buffer(plan.send_buffer));
        socket.set_congestion_control(match plan.control {
            Control::Cubic => CongestionControl::Cubic,
            Control::None => CongestionControl::None,
            Control::Reno => CongestionControl::Reno,
        });
        socket.set_nagle_enabled(plan.nagle);
        socket.set_keep_alive(plan.keep_alive.map(Into::into));
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Self { interface, sockets, socket, device, app }
    }

    /// Waits for a connection at `local`
    pub(super) fn listen(&mut self, local: SocketAddr) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        socket.listen(IpEndpoint::from(local)).expect("a fresh socket can listen");
    }

    /// Opens a connection
    pub(super) fn connect(&mut self, local: SocketAddr, remote: SocketAddr) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        let opened = socket.connect(
            self.interface.context(),
            IpEndpoint::from(remote),
            IpEndpoint::from(local),
        );
        opened.expect("a fresh socket can connect");
    }

    /// Takes a packet from the wire
    pub(super) fn receive(&mut self, packet: Vec<u8>) {
        self.device.arrived.push_back(packet);
    }

    /// Lets kernel and application do all that they can, and returns what they send
    pub(super) fn poll(
        &mut self,
        own: &mut Half,
        far: &Half,
        now: Instant,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        loop {
            let polled = self.interface.poll(micros(now), &mut self.device, &mut self.sockets);
            let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
            let acted = self.app.act(socket, own, far, now)?;
            if polled == PollResult::None && !acted {
                break;
            }
        }
        Ok(std::mem::take(&mut self.device.sent))
    }

    /// Returns when to poll again
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if !self.device.arrived.is_empty() {
            return Some(now);
        }
        let socket = self.sockets.get::<Socket<'_>>(self.socket);
        let app = self.app.deadline(socket, now);
        let kernel = self.interface.poll_at(micros(now), &self.sockets);
        let kernel = kernel.map(|at| Instant::from_nanos(at.total_micros() as u64 * 1_000));
        app.into_iter().chain(kernel).min().map(|due| due.max(now))
    }

    /// Tells whether nothing can happen here any more
    pub(super) fn is_over(&self) -> bool {
        let socket = self.sockets.get::<Socket<'_>>(self.socket);
        socket.state() == State::Closed && self.app.is_done() && self.device.arrived.is_empty()
    }
}

/// A kernel without any socket: it refuses what comes
pub(super) struct Refuser {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: Tun,
}

impl Refuser {
    pub(super) fn new(now: Instant) -> Self {
        let mut device = Tun::new(1_400);
        let config = Config::new(HardwareAddress::Ip);
        let interface = Interface::new(config, &mut device, micros(now));
        Self { interface, sockets: SocketSet::new(Vec::new()), device }
    }

    /// Answers a packet to `local` as a kernel does that knows nothing of its connection
    pub(super) fn answer(
        &mut self,
        local: SocketAddr,
        packet: Vec<u8>,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        let prefix = if local.is_ipv4() { 32 } else { 128 };
        self.interface.update_ip_addrs(|own| {
            own.clear();
            own.push(IpCidr::new(local.ip().into(), prefix)).unwrap_or(());
        });
        self.device.arrived.push_back(packet);
        self.interface.poll(micros(now), &mut self.device, &mut self.sockets);
        std::mem::take(&mut self.device.sent)
    }
}

/// What stands between a kernel and the world
struct Tun {
    mtu: usize,
    /// Sequence number after all that was ever sent, and whether that was the end
    next: Option<(TcpSeqNumber, bool)>,
    /// Sequence number after all that came, and what was acknowledged last
    heard: Option<[TcpSeqNumber; 2]>,
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl Tun {
    fn new(mtu: usize) -> Self {
        Self { mtu, next: None, heard: None, arrived: VecDeque::new(), sent: Vec::new() }
    }

    /// Tells whether a packet that came only says again that nothing but our end is missing
    ///
    /// The third of these makes smoltcp forget its timer, and repeat data only: it would never say
    /// its end again.
    fn is_repeated(&mut self, packet: &[u8]) -> bool {
        let Some((_, header)) = addresses(packet) else { return false };
        let Ok(tcp) = TcpPacket::new_checked(&packet[header..]) else { return false };
        if !tcp.ack() || tcp.syn() || tcp.rst() {
            return false;
        }
        let (seq, ack) = (tcp.seq_number(), tcp.ack_number());
        let end = seq + tcp.segment_len();
        let [edge, acked] = self.heard.unwrap_or([end, ack]);
        let first = self.heard.replace([edge.max(end), acked.max(ack)]).is_none();
        let lacks = self.next.is_some_and(|(next, ended)| ended && ack + 1 == next);
        // One with an earlier number asks for an answer.
        lacks && !first && ack == acked && seq == end && seq >= edge
    }
}

impl Device for Tun {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _now: Micros) -> Option<(Arrived, Leaving<'_>)> {
        let mut packet = self.arrived.pop_front()?;
        while self.is_repeated(&packet) {
            packet = self.arrived.pop_front()?;
        }
        Some((Arrived(packet), Leaving { sent: &mut self.sent, next: &mut self.next }))
    }

    fn transmit(&mut self, _now: Micros) -> Option<Leaving<'_>> {
        Some(Leaving { sent: &mut self.sent, next: &mut self.next })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// A packet that came
struct Arrived(Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a packet that goes
struct Leaving<'a> {
    sent: &'a mut Vec<Vec<u8>>,
    next: &'a mut Option<(TcpSeqNumber, bool)>,
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let written = write(&mut packet);
        number_acknowledgement(&mut packet, self.next);
        self.sent.push(packet);
        written
    }
}

/// Gives a pure acknowledgement the number that it should have
///
/// While it repeats, smoltcp acknowledges with the number that it repeats from. Two kernels that do so at the
/// same time refuse each other's acknowledgements for ever.
fn number_acknowledgement(packet: &mut [u8], next: &mut Option<(TcpSeqNumber, bool)>) {
    let Some(([from, to], header)) = addresses(packet) else { return };
    let Ok(mut tcp) = TcpPacket::new_checked(&mut packet[header..]) else { return };
    let (seq, len) = (tcp.seq_number(), tcp.segment_len());
    let (known, _) = next.unwrap_or((seq, false));
    if len == 0 && !tcp.rst() && seq < known {
        tcp.set_seq_number(known);
        tcp.fill_checksum(&from, &to);
    } else if !tcp.rst() && seq + len > known {
        *next = Some((seq + len, tcp.fin()));
    }
}

/// Returns from where to where a packet goes, and how long its IP header is
fn addresses(packet: &[u8]) -> Option<([IpAddress; 2], usize)> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let ends = [ip.src_addr(), ip.dst_addr()].map(IpAddress::Ipv4);
            Some((ends, usize::from(ip.header_len())))
        }
        Some(6) => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            Some(([ip.src_addr(), ip.dst_addr()].map(IpAddress::Ipv6), ip.header_len()))
        }
        Some(_) | None => None,
    }
}

/// Turns time into that of smoltcp, never later than it is
fn micros(now: Instant) -> Micros {
    Micros::from_micros((now.as_nanos() / 1_000) as i64)
}
