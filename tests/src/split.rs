//! Two nodes' split connections and the kernels at both ends, with nothing in between but chance.
//!
//! [`Bench`] takes the place of two sessions: it asks [`Connections`] for frames, and delivers, delays,
//! reorders, loses and copies them; it acknowledges what arrived sooner, later or wrongly; packets between
//! a kernel and its node may be lost. The next thing to happen is drawn at random, so that any
//! interleaving may come up. The applications do the steps of a [`Work`], and judge what they read as they do in a
//! [`World`](crate::world).
//!
//! # Contract
//!
//! - A frame is delivered at most once; a message is acknowledged or lost, exactly once. One for which there is no
//!   memory is lost.
//! - [`Bench::finish`] lets everything arrive from then on; then all connections must end, and both nodes
//!   must have forgotten them and given back all memory.

use std::collections::VecDeque;
use std::net::SocketAddr;

use fastvpn_proto::buffers::PacketBuffer;
use fastvpn_proto::tcp::{Connections, Fault, Handling, Parity, Piece, Pool};
use fastvpn_proto::time::{Duration, Instant};
use fastvpn_proto::wire::frame::{Frame, frames};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::world::Side;
use crate::world::tcp::{Couple, TcpPlan, Work, describe};

/// Two nodes, their kernels, and what is under way between them
pub struct Bench {
    now: Instant,
    chance: ChaCha8Rng,
    nodes: [Node; 2],
    couples: Vec<Couple>,
    /// How often out of 256 something is lost or goes wrong
    trouble: u32,
    /// Whether all that happens is printed
    trace: bool,
    /// Bytes of memory that each node has, when nobody takes it away
    memory: usize,
    /// Messages that came when there was no memory left for them
    no_room: u32,
}

/// One node, and what is on its way from it
struct Node {
    connections: Connections,
    pool: Pool,
    /// Lanes that have something to send
    awake: VecDeque<u32>,
    /// Messages on their way to the other node
    messages: Vec<Message>,
    /// Plain packets on their way to the other node's kernel
    plain: VecDeque<Vec<u8>>,
    /// Pieces of messages that arrived, and are not acknowledged yet
    arrived: VecDeque<Vec<Piece>>,
    /// Packets from its kernel
    from_kernel: VecDeque<Vec<u8>>,
    /// Packets for its kernel
    to_kernel: VecDeque<Vec<u8>>,
}

/// Frames that travel together
struct Message {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    /// Whether the sender believes that it was lost, though it is on its way
    given_up: bool,
}

impl Bench {
    /// Makes two nodes whose applications begin such work, each from the first to the second node or the
    /// other way round
    pub fn new(seed: u64, works: &[(Work, TcpPlan)], memory: usize, trouble: u32) -> Self {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let now = Instant::ZERO + Duration::from_secs(1);
        let node = |parity| Node {
            connections: Connections::new(parity),
            pool: Pool::new(memory),
            awake: VecDeque::new(),
            messages: Vec::new(),
            plain: VecDeque::new(),
            arrived: VecDeque::new(),
            from_kernel: VecDeque::new(),
            to_kernel: VecDeque::new(),
        };
        let couples = works.iter().enumerate().map(|(number, (work, plan))| {
            let opener = number % 2;
            let port = 10_000 + number as u16;
            Couple::new(
                plan,
                *work,
                opener,
                [address(opener, port), address(1 - opener, 80)],
                &mut chance,
                now,
            )
        });
        let couples = couples.collect();
        let nodes = [node(Parity::Even), node(Parity::Odd)];
        let trace = std::env::var_os("FASTVPN_SPLIT_TRACE").is_some();
        Self { now, nodes, couples, trouble, chance, trace, memory, no_room: 0 }
    }

    /// Returns how many messages came when there was no memory left for them
    pub fn no_room(&self) -> u32 {
        self.no_room
    }

    /// Lets so many random things happen
    pub fn disturb(&mut self, steps: usize) {
        for _ in 0..steps {
            let who = self.chance.next_u32() as usize % 2;
            match self.chance.next_u32() % 12 {
                0 | 1 => self.poll_kernels(),
                2 => self.take_from_kernel(who),
                3 => self.give_to_kernel(who),
                4 | 5 => self.write(who),
                6 | 7 => self.deliver(who),
                8 => self.acknowledge(who),
                9 => self.trouble(who),
                10 => self.deliver_plain(who),
                _ => {
                    self.pass_time();
                    self.squeeze(who);
                }
            }
        }
    }

    /// Lets everything arrive, until all is over
    ///
    /// # Panics
    /// If it is not after an hour, or something is left.
    pub fn finish(&mut self) {
        let end = self.now + Duration::from_secs(3_600);
        self.nodes.iter_mut().for_each(|node| node.pool.size = self.memory);
        self.trouble = 0;
        loop {
            self.settle();
            if self.is_over() {
                break;
            }
            assert!(self.now < end, "not over: {self:?}");
            let due = self.deadline();
            self.now = due.unwrap_or(end).max(self.now + Duration::from_micros(10)).min(end);
        }
    }

    /// Tells whether all connections were complete: none was reset that should not have been
    pub fn couples(&self) -> &[Couple] {
        &self.couples
    }

    /// Lets everything happen that can without time passing
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let before = self.work_left();
            self.poll_kernels();
            for who in 0..2 {
                while !self.nodes[who].from_kernel.is_empty() {
                    self.take_from_kernel(who);
                }
                self.timeouts(who);
                while !self.nodes[who].awake.is_empty() {
                    self.write(who);
                }
                while !self.nodes[who].messages.is_empty() {
                    self.deliver(who);
                }
                while !self.nodes[who].arrived.is_empty() {
                    self.acknowledge(who);
                }
                while !self.nodes[who].plain.is_empty() {
                    self.deliver_plain(who);
                }
                for who in 0..2 {
                    while !self.nodes[who].to_kernel.is_empty() {
                        self.give_to_kernel(who);
                    }
                }
            }
            self.poll_kernels();
            if self.work_left() == 0 && before == 0 {
                return;
            }
        }
        panic!("no rest: {self:?}");
    }

    fn work_left(&self) -> usize {
        let left = |node: &Node| {
            node.awake.len()
                + node.messages.len()
                + node.plain.len()
                + node.arrived.len()
                + node.from_kernel.len()
                + node.to_kernel.len()
        };
        self.nodes.iter().map(left).sum()
    }

    fn is_over(&self) -> bool {
        let forgotten = |node: &Node| node.connections.is_empty() && node.pool.promised() == 0;
        self.couples.iter().all(Couple::is_over) && self.nodes.iter().all(forgotten)
    }

    fn deadline(&mut self) -> Option<Instant> {
        let now = self.now;
        let kernels = self.couples.iter_mut().filter_map(|couple| couple.deadline(now)).min();
        let nodes = self.nodes.iter().filter_map(|node| node.connections.deadline());
        nodes.chain(kernels).min()
    }

    /// Lets time pass: to the next deadline, or a little
    fn pass_time(&mut self) {
        let little = Duration::from_micros(u64::from(self.chance.next_u32() % 20_000));
        let due = self.deadline();
        self.now = match self.chance.next_u32() % 4 {
            // Not so far that somebody gives up for want of messages.
            0 => due.unwrap_or(self.now).clamp(self.now, self.now + Duration::from_millis(250)),
            _ => self.now + little,
        };
        self.timeouts(0);
        self.timeouts(1);
    }

    /// Leaves a node nothing that it has not promised, or gives it back
    ///
    /// Not while connections are opened: one that was to be split first and plain then may be both.
    fn squeeze(&mut self, who: usize) {
        let mut halves = self
            .couples
            .iter()
            .flat_map(|couple| [Side::Opener, Side::Acceptor].map(|side| couple.half(side)));
        let open = halves.all(|half| half.opened.is_some());
        if open && self.trouble > 0 && self.chance.next_u32().is_multiple_of(16) {
            let pool = &mut self.nodes[who].pool;
            pool.size = if pool.size == self.memory { 0 } else { self.memory };
        }
    }

    fn timeouts(&mut self, who: usize) {
        let node = &mut self.nodes[who];
        if node.connections.deadline().is_some_and(|due| due <= self.now) {
            node.connections.handle_timeout(&mut node.pool, self.now);
            node.drain(self.now);
            let due = node.connections.deadline();
            assert!(due.is_none_or(|due| due > self.now), "a deadline stays in the past");
        }
    }

    fn poll_kernels(&mut self) {
        for couple in &mut self.couples {
            for (place, packets) in couple.poll(self.now).into_iter().enumerate() {
                self.nodes[place].from_kernel.extend(packets);
            }
        }
    }

    /// Lets a node take a packet from its kernel
    fn take_from_kernel(&mut self, who: usize) {
        let lost = self.goes_wrong();
        let node = &mut self.nodes[who];
        let Some(packet) = node.from_kernel.pop_front() else { return };
        if self.trace {
            println!("{:?} kernel {who}: {} {lost}", self.now, describe(&packet));
        }
        if lost {
            return;
        }
        // Some lie in a buffer that may be kept.
        let mut buffer = PacketBuffer::from(packet.clone());
        if packet.last().is_some_and(|last| last % 3 > 0) {
            node.pool.shelf.lend(&buffer);
        }
        match node.connections.handle_packet(&buffer, None, &mut node.pool, self.now) {
            Handling::Plain => node.plain.push_back(packet),
            Handling::Taken => {}
        }
        node.pool.shelf.renew(&mut buffer);
        node.drain(self.now);
    }

    fn give_to_kernel(&mut self, who: usize) {
        let lost = self.goes_wrong();
        let Some(packet) = self.nodes[who].to_kernel.pop_front() else { return };
        if self.trace {
            println!("{:?} to kernel {who}: {} {lost}", self.now, describe(&packet));
        }
        if lost {
            return;
        }
        let taken = self.couples.iter_mut().any(|couple| couple.receive(who, &packet));
        assert!(taken, "a packet for nobody");
    }

    /// Lets a node write a message of a few frames
    fn write(&mut self, who: usize) {
        // a path's message may shrink, but never below what every path carries
        let room = LEAST + self.chance.next_u32() as usize % 300;
        let most = 1 + self.chance.next_u32() % 4;
        let node = &mut self.nodes[who];
        let (mut bytes, mut pieces) = (Vec::new(), Vec::new());
        for _ in 0..most {
            let Some(conv) = node.awake.front().copied() else { break };
            let left = room.saturating_sub(bytes.len());
            match node.connections.write_frame(conv, left, &mut bytes, self.now) {
                Some(written) => {
                    assert!(bytes.len() <= room, "a frame is larger than its room");
                    pieces.push(written.piece);
                    node.awake.rotate_left(1);
                }
                // It may fit into the next message.
                None if node.connections.has_output(conv) && !bytes.is_empty() => break,
                None => drop(node.awake.pop_front()),
            }
        }
        if !bytes.is_empty() {
            node.messages.push(Message { bytes, pieces, given_up: false });
        }
        node.drain(self.now);
    }

    /// Delivers a message to the other node; any of those that are on their way may be next
    fn deliver(&mut self, who: usize) {
        let len = self.nodes[who].messages.len();
        if len == 0 {
            return;
        }
        let index =
            if self.trouble == 0 { 0 } else { self.chance.next_u32() as usize % len.min(40) };
        let message = self.nodes[who].messages.remove(index);
        let other = &mut self.nodes[1 - who];
        let mut taken = true;
        for frame in frames(&message.bytes) {
            match frame {
                Ok(Frame::Lane(frame)) => {
                    if self.trace {
                        println!("{:?} node {who}: {}", self.now, short(&format!("{frame:?}")));
                    }
                    match other.connections.handle_frame(&frame, &mut other.pool, self.now) {
                        Ok(()) => {}
                        Err(Fault::NoRoom) => {
                            // What else came with it is taken.
                            self.no_room += 1;
                            taken = false;
                        }
                        Err(Fault::Malformed) => panic!("{frame:?} breaks the protocol"),
                    }
                }
                Ok(frame) => panic!("{frame:?} is no frame of a lane"),
                Err(malformed) => panic!("{malformed:?}"),
            }
            assert!(other.pool.promised() <= self.memory, "more is promised than there is");
        }
        other.drain(self.now);
        let node = &mut self.nodes[who];
        match (message.given_up, taken) {
            (true, _) => {}
            (false, true) => node.arrived.push_back(message.pieces),
            (false, false) => {
                message.pieces.into_iter().for_each(|piece| node.connections.on_lost(piece));
                node.drain(self.now);
            }
        }
    }

    /// Lets a node learn that a message arrived
    fn acknowledge(&mut self, who: usize) {
        let node = &mut self.nodes[who];
        for piece in node.arrived.pop_front().unwrap_or_default() {
            node.connections.on_acked(piece, self.now);
        }
        node.drain(self.now);
    }

    /// Loses a message, takes it for lost, or sends a copy of one of its frames
    fn trouble(&mut self, who: usize) {
        if !self.goes_wrong() {
            return;
        }
        let len = self.nodes[who].messages.len();
        if len == 0 {
            return;
        }
        let index = self.chance.next_u32() as usize % len;
        let kind = self.chance.next_u32() % 3;
        let node = &mut self.nodes[who];
        match kind {
            0 => {
                let message = node.messages.remove(index);
                if !message.given_up {
                    message.pieces.into_iter().for_each(|piece| node.connections.on_lost(piece));
                }
            }
            1 if !node.messages[index].given_up => {
                node.messages[index].given_up = true;
                let pieces = node.messages[index].pieces.clone();
                pieces.into_iter().for_each(|piece| node.connections.on_lost(piece));
            }
            _ => {
                let Some(piece) = node.messages[index].pieces.first().copied() else { return };
                let mut bytes = Vec::new();
                if node.connections.write_copy(piece, 1_400, &mut bytes) {
                    node.messages.push(Message { bytes, pieces: vec![piece], given_up: false });
                }
            }
        }
        node.drain(self.now);
    }

    fn deliver_plain(&mut self, who: usize) {
        let lost = self.goes_wrong();
        if let Some(packet) = self.nodes[who].plain.pop_front()
            && !lost
        {
            self.nodes[1 - who].to_kernel.push_back(packet);
        }
    }

    fn goes_wrong(&mut self) -> bool {
        self.chance.next_u32() % 256 < self.trouble
    }
}

impl Node {
    /// Takes what the connections have to say
    fn drain(&mut self, now: Instant) {
        self.connections.flush(&mut self.pool, now);
        while let Some(conv) = self.connections.poll_ready() {
            self.awake.push_back(conv);
        }
        while self.connections.poll_change().is_some() {}
        while let Some(packet) = self.connections.poll_packet() {
            packet.each(&mut Vec::new(), |packet| self.to_kernel.push_back(packet.to_vec()));
        }
    }
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at {:?}", self.now)?;
        for node in &self.nodes {
            write!(
                f,
                "\n  node: {} connections, {} promised, awake {:?}, deadline {:?}",
                node.connections.len(),
                node.pool.promised(),
                node.awake,
                node.connections.deadline()
            )?;
        }
        self.couples.iter().try_for_each(|couple| write!(f, "\n  {couple:?}"))
    }
}

fn short(text: &str) -> String {
    text.chars().take(110).collect()
}

/// Room that an empty message has on every path
const LEAST: usize = 1_180;

fn address(place: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + place as u8], port))
}
