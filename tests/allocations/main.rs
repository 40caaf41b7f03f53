//! Packets in steady state cost no allocation: counted, not claimed.
//!
//! Two nodes and two kernels that are no more than their segments, in virtual time. Once all buffers
//! and rings have grown, a hundred rounds of bulk must get by with two for each round at most: what
//! is left are sets of nodes and timers that are empty between two turns, for dozens of messages each. Large
//! super-packets are not copied to be kept either: they stay in the buffers that they were read into.

// Helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use fastvpn_proto::buffers::PacketBuffer;
use fastvpn_proto::crypto::{NetworkKey, PrivateKey};
use fastvpn_proto::ip::Gso;
use fastvpn_proto::ip::checksum::{add, finish, pseudo};
use fastvpn_proto::ip::numbers::{ACK, SYN, TCP, UDP};
use fastvpn_proto::node::{
    Admission, Arrival, Carrier, Choice, Command, Contact, Ecn, Engine, Node, NodeConfig,
    PeerConfig, TcpMode, Transmit,
};
use fastvpn_proto::time::{Duration, Instant};

/// Counts what it hands out
struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);
/// One test at a time counts
static TURN: Mutex<()> = Mutex::new(());

#[allow(unsafe_code)]
// SAFETY: all is left to the system's allocator; counting touches none of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the promises that we pass on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; what is given back came from there.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Two nodes, what is on its way between them, and the time
struct Duo {
    nodes: [Node; 2],
    now: Instant,
    train: Vec<u8>,
    message: Vec<u8>,
    /// Bytes of messages that the first node has sent
    sent: usize,
    /// Whether one of each 16 KiB of them gets lost, and how many did
    loses: bool,
    lost: usize,
    /// Bytes of inner packets that came out at each node, and how often
    out: [(usize, usize); 2],
    /// Sequence number after the last byte of TCP that came out at the second node
    written: u32,
}

impl Duo {
    fn new(tcp: TcpMode) -> Self {
        let engine = Engine { tcp, ..Engine::default() };
        let nodes = [0, 1].map(|number: u8| {
            let config = NodeConfig {
                private_key: PrivateKey::from_bytes([number + 1; 32]),
                network_key: NetworkKey::default(),
                seed: [number; 32],
                aes: true,
                admission: Admission::Known,
                relay: false,
                silence: Duration::from_secs(15),
                engine,
            };
            Node::new(config, Instant::from_nanos(1_000_000_000))
        });
        let now = Instant::from_nanos(1_000_000_000);
        let (train, message) = (Vec::with_capacity(1 << 16), Vec::with_capacity(1 << 16));
        let (out, written) = ([(0, 0); 2], 101);
        let (sent, loses, lost) = (0, false, 0);
        let mut duo = Self { nodes, now, train, message, sent, loses, lost, out, written };
        let keys = [0, 1].map(|at| duo.nodes[at].public_key());
        for at in [1, 0] {
            let peer = PeerConfig {
                key: keys[1 - at],
                prefixes: vec![format!("{}/32", overlay(1 - at)).parse().unwrap()],
                endpoints: vec![underlay(1 - at)],
                carrier: Choice::Udp,
                tcp: None,
                relay: None,
                contact: if at == 0 { Contact::Always } else { Contact::OnDemand },
                hello: Vec::new(),
                boot: None,
            };
            duo.nodes[at].handle_command(Command::SetPeer(peer), duo.now);
        }
        duo.pass(Duration::from_secs(1));
        duo
    }

    /// Carries everything, for a while
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while self.carry(0) | self.carry(1) {}
            if self.now >= end {
                return;
            }
            self.now = end.min(self.now + STEP);
            for node in &mut self.nodes {
                if node.deadline().is_some_and(|(at, _)| at <= self.now) {
                    node.handle_timeout(self.now);
                }
            }
        }
    }

    /// Carries what one node has to say; tells whether there was anything
    fn carry(&mut self, from: usize) -> bool {
        let mut any = false;
        while let Some(transmit) = self.nodes[from].poll_transmit(&mut self.train, self.now) {
            any = true;
            let Transmit { segment, .. } = transmit;
            for message in self.train.chunks(segment.unwrap_or(self.train.len().max(1))) {
                let before = self.sent;
                self.sent += if from == 0 { message.len() } else { 0 };
                if self.loses && before / 16_384 != self.sent / 16_384 {
                    self.lost += 1;
                    continue;
                }
                self.message.clear();
                self.message.extend_from_slice(message);
                let arrival = Arrival {
                    carrier: Carrier::Udp,
                    remote: underlay(from),
                    local: None,
                    ecn: Ecn::Incapable,
                };
                self.nodes[1 - from].handle_message(arrival, &mut self.message, self.now);
            }
        }
        while let Some(packet) = self.nodes[from].poll_packet() {
            any = true;
            self.out[from].0 += packet.len();
            self.out[from].1 += packet.packets();
            if from == 1 && packet.head()[9] == TCP && packet.len() > 60 {
                let seq = packet.head()[24..28].try_into().unwrap();
                self.written = u32::from_be_bytes(seq) + packet.len() as u32 - 40;
            }
            self.nodes[from].give_back(packet);
        }
        while self.nodes[from].poll_event().is_some() {}
        any
    }
}

#[test]
fn datagrams_cost_no_allocation() {
    let _turn = TURN.lock();
    // One that fills its buffer, one that does not, and one that leaves in fragments over any path.
    for (len, mtu, kept) in [(1372, 1400, 2000), (600, 1400, 0), (9100, 9100, 2000)] {
        let mut duo = Duo::new(TcpMode::Plain);
        let packet = udp(len);
        let mut reader = Reader::new(mtu);
        let mut round = |duo: &mut Duo| {
            for _ in 0..20 {
                reader.read(&packet, None, duo);
            }
            duo.pass(Duration::from_millis(2));
            (reader.kept, reader.places.len())
        };
        let before = (0..2000).fold((0, 0), |_, _| round(&mut duo));

        let (count, arrived) = (COUNT.load(Ordering::Relaxed), duo.out[1].1);
        let after = (0..100).fold((0, 0), |_, _| round(&mut duo));
        let spent = COUNT.load(Ordering::Relaxed) - count;

        let arrived = duo.out[1].1 - arrived;
        assert!(arrived > 1900, "{arrived} of 2000 packets of {len} bytes arrived");
        assert!(spent < 100, "{spent} allocations for 2000 packets of {len} bytes");
        assert_eq!(after.0 - before.0, kept, "packets of {len} bytes that were not copied to wait");
        assert!(after.1 < 100, "{} buffers", after.1);
    }
}

#[test]
fn datagrams_of_which_copies_follow_cost_no_allocation() {
    let _turn = TURN.lock();
    let mut duo = Duo::new(TcpMode::Plain);
    duo.loses = true;
    let packet = udp(1300);
    let mut reader = Reader::new(1400);
    let mut round = |duo: &mut Duo| {
        reader.read(&packet, None, duo);
        duo.pass(Duration::from_millis(100));
        (reader.kept, reader.places.len())
    };
    let before = (0..2000).fold((0, 0), |_, _| round(&mut duo));

    let (count, arrived, lost) = (COUNT.load(Ordering::Relaxed), duo.out[1].1, duo.lost);
    let after = (0..400).fold((0, 0), |_, _| round(&mut duo));
    let spent = COUNT.load(Ordering::Relaxed) - count;

    let (arrived, lost) = (duo.out[1].1 - arrived, duo.lost - lost);
    assert!(arrived > 398 && lost > 20, "{arrived} of 400 arrived, {lost} messages were lost");
    assert!(spent < 100, "{spent} allocations for 400 packets");
    assert_eq!(after.0 - before.0, 400, "none was copied to wait");
    assert!(after.1 < 20, "{} buffers", after.1);
}

#[test]
fn super_packets_that_travel_whole_cost_no_allocation() {
    let _turn = TURN.lock();
    let mut duo = Duo::new(TcpMode::Plain);
    let packet = tcp(0, Flow { flags: ACK, window: 0xffff }, [1, 1], &[], &[7; SUPER]);
    let mut reader = Reader::new(1400);
    let gso = Some(Gso { size: 1360, transport: 20 });
    let mut round = |duo: &mut Duo| {
        for _ in 0..4 {
            reader.read(&packet, gso, duo);
            duo.pass(STEP);
        }
        (reader.kept, reader.places.len())
    };
    // Until it is known that the path is clean and fast enough for them.
    let before = (0..2000).fold((0, 0), |_, _| round(&mut duo));

    let (count, arrived) = (COUNT.load(Ordering::Relaxed), duo.out[1].1);
    let after = (0..100).fold((0, 0), |_, _| round(&mut duo));
    let spent = COUNT.load(Ordering::Relaxed) - count;

    assert!(duo.out[1].1 - arrived >= 399 * 46, "{} packets", duo.out[1].1 - arrived);
    assert!(spent < 200, "{spent} allocations for 400 super-packets");
    assert_eq!(after.0 - before.0, 400, "none was copied to wait");
    assert!(after.1 < 10, "{} buffers", after.1);
}

#[test]
fn bytes_of_split_connections_cost_no_allocation() {
    let _turn = TURN.lock();
    let mut duo = Duo::new(TcpMode::Split);
    let (mut sent, data) = (0_u32, vec![7; SUPER]);
    let window = |flags| Flow { flags, window: 0xffff };
    duo.nodes[0].handle_packet(&tcp(0, window(SYN), [100, 0], &OPTIONS, &[]), None, duo.now);
    duo.pass(Duration::from_millis(5));
    duo.nodes[1].handle_packet(
        &tcp(1, window(SYN | ACK), [500, 101], &OPTIONS, &[]),
        None,
        duo.now,
    );
    duo.pass(Duration::from_millis(5));
    duo.nodes[0].handle_packet(&tcp(0, window(ACK), [101, 501], &[], &[]), None, duo.now);
    duo.pass(Duration::from_millis(5));
    let mut reader = Reader::new(1400);
    let mut round = |duo: &mut Duo| {
        let packet = tcp(0, window(ACK), [101 + sent, 501], &[], &data);
        reader.read(&packet, Some(Gso { size: 1360, transport: 20 }), duo);
        sent += SUPER as u32;
        for _ in 0..3 {
            duo.pass(Duration::from_millis(1));
            let ack = tcp(1, window(ACK), [501, duo.written], &[], &[]);
            duo.nodes[1].handle_packet(&ack, None, duo.now);
        }
        duo.pass(Duration::from_millis(1));
    };
    (0..2000).for_each(|_| round(&mut duo));

    let (before, arrived) = (COUNT.load(Ordering::Relaxed), duo.out[1]);
    (0..100).for_each(|_| round(&mut duo));
    let spent = COUNT.load(Ordering::Relaxed) - before;

    let bytes = duo.out[1].0 - arrived.0;
    assert!(bytes > 100 * SUPER && duo.nodes[0].stats(duo.now).connections == 1, "{bytes} bytes");
    // Four packets of each round are made here.
    assert!(spent < 200 + 400, "{spent} allocations for {bytes} bytes");
    // None of them was copied to be kept, and their buffers went round.
    let (kept, places) = (reader.kept, reader.places.len());
    assert!(kept == 2100 && places < 10, "{kept} in {places} buffers");
}

/// Reads the first kernel's packets as a device does
struct Reader {
    buffer: PacketBuffer,
    /// Where packets were read
    places: Vec<*const u8>,
    /// How many of them stayed there
    kept: usize,
}

impl Reader {
    fn new(mtu: u16) -> Self {
        Self { buffer: PacketBuffer::for_mtu(mtu), places: Vec::new(), kept: 0 }
    }

    fn read(&mut self, packet: &[u8], gso: Option<Gso>, duo: &mut Duo) {
        self.buffer.put(packet);
        let place = self.buffer.as_ptr();
        duo.nodes[0].handle_buffer(&mut self.buffer, gso, duo.now);
        self.kept += usize::from(self.buffer.as_ptr() != place);
        if !self.places.contains(&place) {
            self.places.push(place);
        }
    }
}

/// What a kernel says besides numbers
#[derive(Clone, Copy)]
struct Flow {
    flags: u8,
    window: u16,
}

/// Makes a segment of one of the two kernels
fn tcp(from: usize, flow: Flow, [seq, ack]: [u32; 2], options: &[u8], data: &[u8]) -> Vec<u8> {
    let ports: [u16; 2] = if from == 0 { [1000, 80] } else { [80, 1000] };
    let mut segment = Vec::with_capacity(64 + data.len());
    segment.extend_from_slice(&[0; 20]);
    ports.iter().for_each(|port| segment.extend_from_slice(&port.to_be_bytes()));
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    segment.extend_from_slice(&[(5 + options.len() as u8 / 4) << 4, flow.flags]);
    segment.extend_from_slice(&flow.window.to_be_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment.extend_from_slice(options);
    segment.extend_from_slice(data);
    finished(segment, from, TCP)
}

fn udp(len: usize) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet.extend_from_slice(&[3, 232, 0, 80]);
    packet.extend_from_slice(&(len as u16 - 20).to_be_bytes());
    packet.resize(len, 9);
    packet[26..28].fill(0);
    finished(packet, 0, UDP)
}

/// Fills in the header of IP and both checksums
fn finished(mut packet: Vec<u8>, from: usize, protocol: u8) -> Vec<u8> {
    let len = (packet.len() as u16).to_be_bytes();
    packet[..10].copy_from_slice(&[0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, protocol]);
    let (src, dst) = (overlay(from), overlay(1 - from));
    packet[12..16].copy_from_slice(&src.octets());
    packet[16..20].copy_from_slice(&dst.octets());
    let sum = finish(add(0, &packet[..20])).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    let len = packet.len() - 20;
    let sum = pseudo(IpAddr::V4(src), IpAddr::V4(dst), protocol, len);
    let sum = finish(add(sum, &packet[20..])).to_be_bytes();
    let at = if protocol == TCP { 36 } else { 26 };
    packet[at..at + 2].copy_from_slice(&sum);
    packet
}

fn overlay(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number as u8 + 1)
}

fn underlay(number: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, number as u8 + 1), 8796).into()
}

/// MSS of 1360, windows shifted by seven
const OPTIONS: [u8; 8] = [2, 4, 5, 0x50, 1, 3, 3, 7];
/// Bytes of a super-packet, as large as most are
const SUPER: usize = 46 * 1360;
/// How far time goes at once
const STEP: Duration = Duration::from_micros(500);
