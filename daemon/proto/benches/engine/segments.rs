//! A super-packet of a kernel, cut into frames of a lane at one node and put together at the other.

use std::net::{IpAddr, SocketAddr};

use criterion::{Criterion, Throughput};
use fastvpn_proto::buffers::PacketBuffer;
use fastvpn_proto::ip::Gso;
use fastvpn_proto::ip::checksum::{add, finish, pseudo};
use fastvpn_proto::ip::numbers::{ACK, SYN, TCP};
use fastvpn_proto::limits::MEMORY_DEFAULT;
use fastvpn_proto::tcp::{Connections, Ends, Parity, Pool};
use fastvpn_proto::time::{Duration, Instant};
use fastvpn_proto::wire::frame::{Frame, frames};

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut pair = Pair::connected();
    let mut group = criterion.benchmark_group("segments");
    group.throughput(Throughput::Bytes(SUPER as u64));
    group.bench_function("cut and put together", |bencher| {
        bencher.iter(|| pair.transfer());
    });
    group.finish();
}

/// Two nodes with one split connection, and what their kernels have said
struct Pair {
    now: Instant,
    nodes: [Connections; 2],
    pools: [Pool; 2],
    ends: Ends,
    /// Bytes that the client has sent
    sent: u32,
    data: Vec<u8>,
    /// What its packets are read into
    buffer: PacketBuffer,
    frame: Vec<u8>,
}

impl Pair {
    fn connected() -> Self {
        let [local, remote] =
            ["10.0.0.1:1000", "10.0.0.2:80"].map(|end| end.parse::<SocketAddr>().expect("an end"));
        let mut pair = Self {
            now: Instant::ZERO + Duration::from_secs(1),
            nodes: [Connections::new(Parity::Even), Connections::new(Parity::Odd)],
            pools: [MEMORY_DEFAULT; 2].map(Pool::new),
            ends: Ends { local, remote },
            sent: 0,
            data: vec![7; SUPER],
            buffer: PacketBuffer::default(),
            frame: Vec::new(),
        };
        pair.say(CLIENT, (0, 0), SYN, &OPTIONS);
        pair.say(SERVER, (0, 1), SYN | ACK, &OPTIONS);
        pair.say(CLIENT, (1, 1), ACK, &[]);
        assert_eq!(pair.nodes.each_ref().map(Connections::len), [1, 1], "it is split");
        pair
    }

    /// The client's kernel sends a super-packet; the server's takes all of it, and says so
    fn transfer(&mut self) {
        self.now += Duration::from_micros(500);
        let data = std::mem::take(&mut self.data);
        let first = self.sent.wrapping_add(1);
        let packet = segment(self.ends, (first, 1), ACK, &[], &data);
        let gso = Some(Gso { size: MSS, transport: 20 });
        // As a device does it.
        self.buffer.put(&packet);
        let (node, pool) = (&mut self.nodes[CLIENT], &mut self.pools[CLIENT]);
        pool.shelf.lend(&self.buffer);
        node.handle_packet(&self.buffer, gso, pool, self.now);
        pool.shelf.renew(&mut self.buffer);
        let (mut arrived, mut news) = (0, self.pump());
        while news > 0 {
            arrived += news;
            let ack = first.wrapping_add(arrived as u32);
            news = self.say(SERVER, (1, ack), ACK, &[]);
        }
        assert_eq!(arrived, data.len(), "all of it is written to the other kernel");
        self.sent = self.sent.wrapping_add(arrived as u32);
        self.data = data;
    }

    /// A kernel says something, and the nodes tell each other; returns the bytes that kernels were
    /// written
    fn say(&mut self, at: usize, (seq, ack): (u32, u32), flags: u8, options: &[u8]) -> usize {
        let ends = if at == CLIENT { self.ends } else { self.ends.turned() };
        let packet = segment(ends, (seq, ack), flags, options, &[]);
        self.nodes[at].handle_packet(&packet, None, &mut self.pools[at], self.now);
        self.pump()
    }

    /// Lets the nodes talk until they are silent; returns the bytes that kernels were written
    fn pump(&mut self) -> usize {
        let mut arrived = 0;
        loop {
            let mut silent = true;
            for at in [CLIENT, SERVER] {
                silent &= !self.carry(at);
                arrived += self.collect(at);
            }
            if silent {
                return arrived;
            }
        }
    }

    /// Takes all frames of a node to the other one
    fn carry(&mut self, at: usize) -> bool {
        let [near, far] = self.nodes.get_disjoint_mut([at, 1 - at]).expect("two nodes");
        let (now, mut any) = (self.now, false);
        near.flush(&mut self.pools[at], now);
        while let Some(conv) = near.poll_ready() {
            self.frame.clear();
            while let Some(written) = near.write_frame(conv, ROOM, &mut self.frame, now) {
                any = true;
                for frame in frames(&self.frame) {
                    let Ok(Frame::Lane(frame)) = frame else { unreachable!("a lane's frame") };
                    far.handle_frame(&frame, &mut self.pools[1 - at], now).expect("it is sound");
                }
                near.on_acked(written.piece, now);
                self.frame.clear();
            }
        }
        any
    }

    /// Takes what a node writes to its kernel; returns the bytes of the stream in it
    fn collect(&mut self, at: usize) -> usize {
        self.nodes[at].flush(&mut self.pools[at], self.now);
        while self.nodes[at].poll_change().is_some() {}
        let mut bytes = 0;
        while let Some(inner) = self.nodes[at].poll_packet() {
            let view = inner.view().expect("it is sound");
            let before = inner.head().len() - view.payload().len();
            bytes += inner.len() - before - usize::from(view.payload()[12] >> 4) * 4;
        }
        bytes
    }
}

/// A TCP packet over IPv4
fn segment(ends: Ends, (seq, ack): (u32, u32), flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let tcp = 20 + options.len() + data.len();
    let total = u16::try_from(20 + tcp).expect("it fits").to_be_bytes();
    let mut out = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, TCP, 0, 0];
    for end in [ends.local, ends.remote] {
        let IpAddr::V4(addr) = end.ip() else { unreachable!("IPv4 alone") };
        out.extend_from_slice(&addr.octets());
    }
    let sum = finish(add(0, &out)).to_be_bytes();
    out[10..12].copy_from_slice(&sum);
    for end in [ends.local, ends.remote] {
        out.extend_from_slice(&end.port().to_be_bytes());
    }
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&ack.to_be_bytes());
    out.extend_from_slice(&[
        (((20 + options.len()) / 4) << 4) as u8,
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ]);
    out.extend_from_slice(options);
    out.extend_from_slice(data);
    let addresses = pseudo(ends.local.ip(), ends.remote.ip(), TCP, tcp);
    let sum = finish(add(addresses, &out[20..])).to_be_bytes();
    out[36..38].copy_from_slice(&sum);
    out
}

const CLIENT: usize = 0;
const SERVER: usize = 1;
/// MSS 1348, window scale 7
const OPTIONS: [u8; 8] = [2, 4, 5, 68, 1, 3, 3, 7];
/// Bytes of data in each segment of the kernel
const MSS: u16 = 1348;
/// Bytes of data in a super-packet
const SUPER: usize = 48 * MSS as usize;
/// Room for frames in a message
const ROOM: usize = 1388;
