//! How the world moves: time, events, and nodes driven by their contract.

use std::collections::VecDeque;

use fastvpn_proto::node::{Arrival, Carrier, Command, Event, Fleet, Transmit};
use fastvpn_proto::time::{Duration, Instant};

use super::host::Power;
use super::network::{RAW_PORT, Sent};
use super::tcp::Via;
use super::{Datagram, HostId, Record, SiteId, Source, World};

/// Timeouts that a node may ask for at one instant before it counts as a busy loop
const TIMEOUTS_MAX: u32 = 64;
/// Steps that the world may make at one instant, for each host
const STEPS_MAX: u64 = 20_000;

impl World {
    /// Lets time pass
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Lets time pass until `done`, and returns how long it took
    ///
    /// # Panics
    /// If that takes longer than `within`.
    pub fn run_until(
        &mut self,
        what: &str,
        within: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        while !done(self) {
            if !self.step(start + within) {
                if done(self) {
                    break;
                }
                self.fail(format_args!("{what} did not happen within {within:?}"));
            }
        }
        self.now.since(start)
    }

    /// Lets time pass until both have a session with each other, and returns how long it took
    pub fn run_until_connected(
        &mut self,
        one: HostId,
        other: HostId,
        within: Duration,
    ) -> Duration {
        self.run_until("session", within, |world| world.connected(one, other))
    }

    /// Does what is due next, if that is not after `end`; otherwise time ends there
    fn step(&mut self, end: Instant) -> bool {
        let Some((due, source)) = self.schedule.first().filter(|(due, _)| *due <= end) else {
            self.now = end;
            return false;
        };
        if due > self.now {
            self.now = due;
            self.steps_now = 0;
        }
        self.steps_now += 1;
        if self.steps_now > STEPS_MAX * (self.hosts.len() as u64 + 1) {
            self.fail(format_args!("{} steps without time passing", self.steps_now));
        }
        match source {
            Source::Wire(from, to) => self.step_wire((from, to)),
            Source::Script(index) => self.step_script(index),
            Source::Decision(host) => self.step_decision(host),
            Source::Host(host) => self.drive(host, |node, now| node.handle_timeout(now)),
            Source::Stream(index) => self.step_stream(index),
            Source::End(index) => self.step_end(index),
            Source::Stray(host) => self.step_stray(host),
            Source::Echoes => self.step_echoes(),
        }
        true
    }

    fn step_wire(&mut self, wire: (SiteId, SiteId)) {
        while let Some((host, datagram)) = self.network.poll(wire, self.now) {
            self.arrive(host, datagram);
        }
        self.reschedule_wire(wire);
    }

    fn step_script(&mut self, index: usize) {
        let running = &mut self.scripts[index];
        let wire = running.wire;
        while let Some(change) = running.script.due(running.start, self.now) {
            self.network.wire(wire.0, wire.1).change(&change, self.now);
        }
        let next = running.script.deadline(running.start);
        self.schedule.set(Source::Script(index), next);
        self.reschedule_wire(wire);
    }

    fn step_decision(&mut self, host: HostId) {
        while let Some((due, _)) = self.hosts[host.0].decisions.front() {
            if *due > self.now {
                break;
            }
            if let Some((_, command)) = self.hosts[host.0].decisions.pop_front() {
                self.command(host, command);
            }
        }
        let next = self.hosts[host.0].decisions.front().map(|(due, _)| *due);
        self.schedule.set(Source::Decision(host), next);
    }

    fn arrive(&mut self, host: HostId, datagram: Datagram) {
        if datagram.to.port() == RAW_PORT {
            if self.hosts[host.0].power != Power::Asleep {
                drop(self.tcp_arrive(host, Via::Underlay, datagram.bytes));
            }
            return;
        }
        let local = Some(datagram.to.ip());
        let arrival =
            Arrival { carrier: Carrier::Udp, remote: datagram.from, local, ecn: datagram.ecn };
        let mut bytes = datagram.bytes;
        self.drive(host, |node, now| {
            node.handle_message(arrival, &mut bytes, now);
        });
    }

    /// Mutates a host's node once, then drains it, carries out what follows, and asks for its
    /// deadline
    pub(super) fn drive(&mut self, id: HostId, act: impl FnOnce(&mut Fleet, Instant)) {
        if self.hosts[id.0].power != Power::On {
            return;
        }
        let Some(mut node) = self.hosts[id.0].node.take() else {
            return;
        };
        let local = self.hosts[id.0].clock(self.now);
        let mut todo = VecDeque::new();
        act(&mut node, local);
        self.drain(id, &mut node, local, &mut todo);
        let mut timeouts = 0;
        loop {
            if let Some(next) = todo.pop_front() {
                match next {
                    Todo::Command(command) => node.handle_command(&command, local),
                    Todo::TooBig(to, len) => node.handle_too_big(&to.peer, to.remote, len),
                }
            } else if let Some((due, why)) = node.deadline().filter(|(due, _)| *due <= local) {
                timeouts += 1;
                if timeouts > TIMEOUTS_MAX {
                    self.fail(format_args!(
                        "{} wants to be called again at once for {why:?}, {:?} late",
                        self.name(id),
                        local.since(due)
                    ));
                }
                node.handle_timeout(local);
            } else {
                break;
            }
            self.drain(id, &mut node, local, &mut todo);
        }
        let deadline = node.deadline().map(|(due, _)| self.hosts[id.0].world_time(due));
        self.schedule.set(Source::Host(id), deadline);
        self.hosts[id.0].node = Some(node);
    }

    fn drain(&mut self, id: HostId, node: &mut Fleet, local: Instant, todo: &mut VecDeque<Todo>) {
        let mut buffer = Vec::new();
        while let Some(transmit) = node.poll_transmit(&mut buffer, local) {
            self.send_all(id, transmit, &buffer, todo);
        }
        let mut packets = Vec::new();
        while let Some(packet) = node.poll_packet() {
            packet.each(&mut buffer, |packet| packets.push(packet.to_vec()));
            node.give_back(packet);
        }
        for packet in packets {
            match self.oracle.on_packet(id, &packet, self.now) {
                Ok(Some(id)) => self.echo(id),
                Ok(None) => {
                    if let Err(packet) = self.tcp_arrive(id, Via::Overlay, packet) {
                        self.hosts[id.0].notices.push(packet);
                    }
                }
                Err(fault) => self.fail(fault),
            }
        }
        while let Some(event) = node.poll_event() {
            self.on_event(id, event, todo);
        }
    }

    fn send_all(
        &mut self,
        id: HostId,
        transmit: Transmit,
        buffer: &[u8],
        todo: &mut VecDeque<Todo>,
    ) {
        if buffer.is_empty() || transmit.segment == Some(0) {
            self.fail(format_args!("{} sends nothing: {transmit:?}", self.name(id)));
        }
        let messages = buffer.chunks(transmit.segment.unwrap_or(buffer.len()));
        for (place, message) in messages.enumerate() {
            if let Err(fault) = self.oracle.on_message(id, message) {
                self.fail(fault);
            }
            self.hosts[id.0].sent.count(message.len());
            let Some(from) = self.hosts[id.0].source_for(transmit.remote, transmit.local) else {
                continue;
            };
            let datagram = Datagram {
                from,
                to: transmit.remote,
                bytes: message.to_vec(),
                ecn: transmit.ecn,
                cut: transmit.offload && place > 0,
            };
            if let Some(records) = &mut self.records {
                records.push(Record { at: self.now, by: id, datagram: datagram.clone() });
            }
            if self.transmit(self.hosts[id.0].site, datagram) == Sent::TooBig {
                todo.push_back(Todo::TooBig(transmit, message.len()));
            }
        }
    }

    /// Puts a datagram on its way
    pub(super) fn transmit(&mut self, site: SiteId, datagram: Datagram) -> Sent {
        let sent = self.network.send(site, datagram, self.now);
        if let Sent::Over(from, to) = sent {
            self.reschedule_wire((from, to));
        }
        sent
    }

    fn on_event(&mut self, id: HostId, event: Event, todo: &mut VecDeque<Todo>) {
        match &event {
            Event::Control { peer, message } => {
                let from = self.expect_host(*peer);
                if let Err(fault) = self.oracle.on_control(from, id, message) {
                    self.fail(fault);
                }
            }
            Event::SessionUp { peer, .. } | Event::SessionDown { peer, .. } => {
                let other = self.expect_host(*peer);
                self.oracle.on_session_change(id, other);
                let down = matches!(event, Event::SessionDown { .. });
                if down && !self.spared.remove(&(id, other)) {
                    self.excuse_all(id, Some(other));
                }
            }
            Event::Stranger { ticket, key, .. } => {
                let decision = self.hosts[id.0].decide(*ticket, *key);
                let delay = self.hosts[id.0].plan.decision;
                if delay.is_zero() {
                    todo.push_back(Todo::Command(decision));
                } else {
                    let due = self.now + delay;
                    self.hosts[id.0].decisions.push_back((due, decision));
                    let first = self.hosts[id.0].decisions.front().map(|(due, _)| *due);
                    self.schedule.set(Source::Decision(id), first);
                }
            }
            Event::Offload { .. }
            | Event::PathMoved { .. }
            | Event::PingLost { .. }
            | Event::Pong { .. }
            | Event::Silent { .. }
            | Event::Undelivered { .. } => {}
        }
        self.hosts[id.0].events.push((self.now, event));
    }

    fn expect_host(&self, key: fastvpn_proto::crypto::PublicKey) -> HostId {
        self.host_of(key).unwrap_or_else(|| self.fail(format_args!("{key} is no host's key")))
    }

    pub(super) fn reschedule_wire(&mut self, wire: (SiteId, SiteId)) {
        let due = self.network.deadline(wire);
        self.schedule.set(Source::Wire(wire.0, wire.1), due);
    }
}

/// What follows from a drain
enum Todo {
    Command(Command),
    TooBig(Transmit, usize),
}
