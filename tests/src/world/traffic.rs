//! Packets, pings and control messages that a test sends.

use std::net::IpAddr;

use fastvpn_proto::node::{Command, Event};
use fastvpn_proto::time::{Duration, Instant};

use super::oracle::Honesty;
use super::report::{Fate, Report};
use super::{Family, HostId, Source, World};

/// Names a stream of packets
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StreamId(usize);

/// Names one packet
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PacketId(u64);

/// Names one ping
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PingId(u64);

/// A stream of packets at a constant rate
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    interval: Duration,
    len: usize,
    time: Duration,
    family: Family,
    echo: Echo,
}

/// Whether arriving packets are answered
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Echo {
    Answered,
    Silent,
}

impl Flow {
    /// Describes `per_second` IPv4 packets of `len` bytes a second, for ten seconds
    pub fn new(per_second: u32, len: usize) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second,
            len,
            time: Duration::from_secs(10),
            family: Family::V4,
            echo: Echo::Silent,
        }
    }

    /// Sets how long the stream goes on
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Lets each packet be answered by one of the same size, as a ping is; reports then tell of round
    /// trips
    #[must_use]
    pub fn echoed(mut self) -> Self {
        self.echo = Echo::Answered;
        self
    }

    /// Makes the packets IPv6
    #[must_use]
    pub fn over_ipv6(mut self) -> Self {
        self.family = Family::V6;
        self
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    from: HostId,
    to: HostId,
    flow: Flow,
    next: Instant,
    end: Instant,
}

impl World {
    /// Sends one IPv4 packet of `len` bytes
    pub fn send(&mut self, from: HostId, to: HostId, len: usize) -> PacketId {
        let src = self.overlay(from, Family::V4);
        self.send_packet((from, src), (to, Family::V4), len, None, Honesty::Honest)
    }

    /// Sends one IPv6 packet of `len` bytes
    pub fn send6(&mut self, from: HostId, to: HostId, len: usize) -> PacketId {
        let src = self.overlay(from, Family::V6);
        self.send_packet((from, src), (to, Family::V6), len, None, Honesty::Honest)
    }

    /// Sends one packet whose source address is not the sender's; it must never arrive
    pub fn forge(&mut self, from: HostId, src: IpAddr, to: HostId, len: usize) -> PacketId {
        let family = if src.is_ipv4() { Family::V4 } else { Family::V6 };
        self.send_packet((from, src), (to, family), len, None, Honesty::Forged)
    }

    /// Begins a stream of packets
    pub fn stream(&mut self, from: HostId, to: HostId, flow: Flow) -> StreamId {
        let index = self.streams.len();
        let end = self.now + flow.time;
        self.streams.push(Stream { from, to, flow, next: self.now, end });
        self.schedule.set(Source::Stream(index), Some(self.now));
        StreamId(index)
    }

    /// Returns how a stream has fared; packets on their way count as lost
    pub fn report(&self, stream: StreamId) -> Report {
        self.report_since(stream, Instant::ZERO)
    }

    /// Returns how those packets of a stream have fared that were sent since `start`
    pub fn report_since(&self, stream: StreamId, start: Instant) -> Report {
        self.report_between(stream, start, Instant::FAR)
    }

    /// Returns how those packets of a stream have fared that were sent since `start` and before `end`
    pub fn report_between(&self, stream: StreamId, start: Instant, end: Instant) -> Report {
        let flow = self.streams[stream.0].flow;
        let packets = self.oracle.packets().iter().filter(|sent| sent.stream == Some(stream.0));
        let own = packets.filter(|sent| sent.at >= start && sent.at < end);
        Report::of(own.map(|sent| Fate {
            sent: sent.at,
            arrived: match flow.echo {
                Echo::Answered => sent.answered,
                Echo::Silent => sent.arrived,
            },
            bytes: flow.len,
        }))
    }

    /// Returns how long a packet took, if it has arrived
    pub fn latency(&self, packet: PacketId) -> Option<Duration> {
        self.oracle.packet(packet.0).latency()
    }

    /// Tells whether a packet has arrived
    pub fn arrived(&self, packet: PacketId) -> bool {
        self.latency(packet).is_some()
    }

    /// Asks a node to ping another one
    pub fn ping(&mut self, from: HostId, to: HostId, timeout: Duration) -> PingId {
        self.next_ping += 1;
        let id = self.next_ping;
        let peer = self.key(to);
        self.command(from, Command::Ping { peer, id, timeout });
        PingId(id)
    }

    /// Returns the outcome of a ping, if there is one: its round-trip time, or that it was lost
    pub fn pong(&self, from: HostId, ping: PingId) -> Option<Result<Duration, ()>> {
        self.events(from).find_map(|(_, event)| match event {
            Event::Pong { id, rtt, .. } if *id == ping.0 => Some(Ok(*rtt)),
            Event::PingLost { id, .. } if *id == ping.0 => Some(Err(())),
            _ => None,
        })
    }

    /// Writes a control message
    pub fn write(&mut self, from: HostId, to: HostId, message: Vec<u8>) {
        self.oracle.write(from, to, message.clone());
        let peer = self.key(to);
        self.command(from, Command::Send { peer, message });
    }

    /// Returns up to which control message those of `from` have arrived at `to`
    pub fn written_arrived(&self, from: HostId, to: HostId) -> usize {
        self.oracle.controls_arrived(from, to)
    }

    /// Forgets the numbers of messages seen so far; for very long runs
    pub fn forget_numbers(&mut self) {
        self.oracle.forget_nonces();
    }

    pub(super) fn step_stream(&mut self, index: usize) {
        let Stream { from, to, flow, next, end } = self.streams[index];
        let due = (next < end).then_some(next + flow.interval);
        self.streams[index].next = due.unwrap_or(next);
        self.schedule.set(Source::Stream(index), due.filter(|due| *due < end));
        let src = self.overlay(from, flow.family);
        self.send_packet((from, src), (to, flow.family), flow.len, Some(index), Honesty::Honest);
    }

    /// Sees to it that a packet that arrived is answered if its stream wants that
    pub(super) fn echo(&mut self, packet: u64) {
        let stream = self.oracle.packet(packet).stream;
        if stream.is_some_and(|stream| self.streams[stream].flow.echo == Echo::Answered) {
            self.echoes.push(packet);
            self.schedule.set(Source::Echoes, Some(self.now));
        }
    }

    pub(super) fn step_echoes(&mut self) {
        self.schedule.set(Source::Echoes, None);
        for request in std::mem::take(&mut self.echoes) {
            let (host, bytes) = self.oracle.answer(request, self.now);
            self.drive(host, |node, now| node.handle_packet(&bytes, None, now));
        }
    }

    fn send_packet(
        &mut self,
        (from, src): (HostId, IpAddr),
        (to, family): (HostId, Family),
        len: usize,
        stream: Option<usize>,
        honesty: Honesty,
    ) -> PacketId {
        let dst = self.overlay(to, family);
        let now = self.now;
        let (id, bytes) = self.oracle.send((from, src), (to, dst), len, stream, honesty, now);
        self.drive(from, |node, now| node.handle_packet(&bytes, None, now));
        PacketId(id)
    }
}
