//! Traffic between hosts, and what came of it.
//!
//! [`ping`] and [`iperf`] run the well-known programs. [`Probes`] is a stream of numbered UDP
//! packets that shows gaps, [`Transfer`] a TCP connection whose content is checked byte by byte.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Host;
use super::wait::until;

/// What came of some pings
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PingReport {
    /// Echo requests sent
    pub sent: u32,
    /// Replies that came back
    pub received: u32,
    /// Their round-trip times, in milliseconds, in the order of arrival
    pub rtts: Vec<f64>,
}

impl PingReport {
    /// Returns the smallest round-trip time, in milliseconds
    pub fn rtt_min(&self) -> Option<f64> {
        self.rtts.iter().copied().reduce(f64::min)
    }
}

/// Pings `target` from `host` and waits at most a second for the last reply
///
/// # Errors
/// If `ping` cannot be run; lost packets are no error.
pub fn ping(host: &Host, target: IpAddr, count: u32, interval: Duration) -> Result<PingReport> {
    let mut command = host.command("ping");
    command.args(["-n", "-W", "1", "-c", &count.to_string()]);
    command.args(["-i", &format!("{:.3}", interval.as_secs_f64()), &target.to_string()]);
    let output = host.output(command).context("ping does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rtts: Vec<f64> = text
        .lines()
        .filter(|line| line.contains("bytes from") && !line.contains("DUP!"))
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
        .collect();
    Ok(PingReport { sent: count, received: rtts.len() as u32, rtts })
}

/// Pings `target` until the first reply; tells whether one came within `patience`
///
/// # Errors
/// If `ping` cannot be run.
pub fn ping_until(host: &Host, target: IpAddr, patience: Duration) -> Result<bool> {
    let start = Instant::now();
    while start.elapsed() < patience {
        let mut command = host.command("ping");
        let wait = patience.saturating_sub(start.elapsed()).as_secs().max(1).to_string();
        // -w: seconds in all; -c1 ends at the first reply
        command.args(["-n", "-c", "1", "-i", "0.05", "-w", &wait, &target.to_string()]);
        if host.output(command).context("ping does not start")?.status.success() {
            return Ok(true);
        }
        // ping ends at once where there is no route yet
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}

/// A stream of numbered UDP packets from one host to another
#[derive(Debug)]
pub struct Probes {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Vec<(u64, Instant)>>,
    arrived: Arc<AtomicU64>,
    start: Instant,
}

/// What came of a stream of probes
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// Packets sent
    pub sent: u64,
    /// Packets that arrived, duplicates not counted
    pub received: u64,
    /// Packets that arrived a second time
    pub duplicates: u64,
    /// Longest time without an arrival, between the first and the last one
    pub longest_gap: Duration,
    /// When the packets arrived, since the stream began, by number
    pub arrivals: Vec<(u64, Duration)>,
}

impl Probes {
    /// Begins to send to `target`, an address of `to`, each `interval`
    ///
    /// # Errors
    /// If the sockets cannot be made.
    pub fn start(from: &Host, to: &Host, target: SocketAddr, interval: Duration) -> Result<Self> {
        let inbox = to.run(move |_| UdpSocket::bind(target)).context("probe receiver")?;
        inbox.set_read_timeout(Some(Duration::from_millis(20)))?;
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let outbox = from.run(move |_| UdpSocket::bind(any)).context("probe sender")?;
        let (stop, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = Instant::now();
        let (ended, counter) = (Arc::clone(&stop), Arc::clone(&arrived));
        let receiver = std::thread::spawn(move || collect(&inbox, &ended, &counter));
        let ended = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            let mut number = 0u64;
            while !ended.load(Ordering::Acquire) {
                // a route that is missing at the moment is a lost packet
                let _ = outbox.send_to(&number.to_be_bytes(), target);
                number += 1;
                let due = start + interval * u32::try_from(number).unwrap_or(u32::MAX);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            number
        });
        Ok(Self { stop, sender, receiver, arrived, start })
    }

    /// Returns how many packets have arrived so far
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Acquire)
    }

    /// Waits until `count` more packets have arrived; tells whether they did
    pub fn more(&self, count: u64, patience: Duration) -> bool {
        let goal = self.arrived() + count;
        until(patience, || self.arrived() >= goal)
    }

    /// Ends the stream and reports
    ///
    /// # Errors
    /// If one of its threads panicked.
    pub fn finish(self) -> Result<ProbeReport> {
        self.stop.store(true, Ordering::Release);
        let sent = self.sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        let seen = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
        let gaps = seen.windows(2).map(|pair| pair[1].1.duration_since(pair[0].1));
        let longest_gap = gaps.max().unwrap_or_default();
        let mut numbers: Vec<u64> = seen.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Ok(ProbeReport {
            sent,
            received: numbers.len() as u64,
            duplicates: (seen.len() - numbers.len()) as u64,
            longest_gap,
            arrivals: seen
                .iter()
                .map(|(number, at)| (*number, at.duration_since(self.start)))
                .collect(),
        })
    }
}

fn collect(inbox: &UdpSocket, ended: &AtomicBool, arrived: &AtomicU64) -> Vec<(u64, Instant)> {
    let mut seen = Vec::new();
    let mut buffer = [0; 64];
    let mut last_call = None;
    loop {
        if let Ok(len) = inbox.recv(&mut buffer)
            && let Ok(number) = <[u8; 8]>::try_from(&buffer[..len])
        {
            seen.push((u64::from_be_bytes(number), Instant::now()));
            arrived.fetch_add(1, Ordering::AcqRel);
        }
        // what is still on the way gets half a second
        if ended.load(Ordering::Acquire) {
            let end = *last_call.get_or_insert_with(|| Instant::now() + Duration::from_millis(500));
            if Instant::now() >= end {
                return seen;
            }
        }
    }
}

/// A TCP connection that carries content known to both ends
#[derive(Debug)]
pub struct Transfer {
    sender: JoinHandle<Result<()>>,
    receiver: JoinHandle<Result<Instant>>,
    moved: Arc<AtomicU64>,
    bytes: u64,
    start: Instant,
}

/// What came of a transfer whose content was right
#[derive(Clone, Copy, Debug)]
pub struct TransferReport {
    /// Bytes that arrived
    pub bytes: u64,
    /// From the first SYN to the last byte
    pub elapsed: Duration,
}

impl TransferReport {
    /// Returns the rate in Mbit/s
    pub fn mbits(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.elapsed.as_secs_f64()
    }
}

impl Transfer {
    /// Begins to send `bytes` from one host to `target`, an address of the other
    ///
    /// # Errors
    /// If the listening socket cannot be made.
    pub fn start(from: &Host, to: &Host, target: SocketAddr, bytes: u64) -> Result<Self> {
        Self::start_with(from, to, target, bytes, |_| Ok(()))
    }

    /// Does the same with a sender that is prepared in some way before it connects
    ///
    /// # Errors
    /// If the listening socket cannot be made, or the sender cannot be prepared.
    pub fn start_with(
        from: &Host,
        to: &Host,
        target: SocketAddr,
        bytes: u64,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> Result<Self> {
        let listener = to.run(move |_| TcpListener::bind(target)).context("transfer receiver")?;
        let domain = Domain::for_address(target);
        let socket = from
            .run(move |_| Socket::new(domain, Type::STREAM, Some(Protocol::TCP)))
            .context("transfer sender")?;
        prepare(&socket).context("transfer sender")?;
        let moved = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&moved);
        let start = Instant::now();
        let receiver = std::thread::spawn(move || {
            let (stream, _) = listener.accept()?;
            check(stream, bytes, &counter)
        });
        let sender = std::thread::spawn(move || {
            socket.connect(&target.into()).context("connect")?;
            let mut stream = TcpStream::from(socket);
            let mut content = ChaCha8Rng::seed_from_u64(CONTENT);
            let mut left = bytes;
            let mut buffer = vec![0; CHUNK];
            while left > 0 {
                let len = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
                content.fill_bytes(&mut buffer[..len]);
                stream.write_all(&buffer[..len]).context("write")?;
                left -= len as u64;
            }
            Ok(())
        });
        Ok(Self { sender, receiver, moved, bytes, start })
    }

    /// Returns how many bytes have arrived so far
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Acquire)
    }

    /// Waits until so many bytes have arrived; tells whether they did
    pub fn reaches(&self, bytes: u64, patience: Duration) -> bool {
        until(patience, || self.moved() >= bytes || self.receiver.is_finished())
            && self.moved() >= bytes
    }

    /// Waits for the end, at most for `patience`
    ///
    /// # Errors
    /// If the connection broke, the content was wrong, or patience ran out.
    pub fn finish(self, patience: Duration) -> Result<TransferReport> {
        if !until(patience, || self.receiver.is_finished() || self.sender_failed()) {
            bail!("only {} of {} bytes arrived in {patience:?}", self.moved(), self.bytes);
        }
        if self.sender_failed() {
            self.sender.join().map_err(|_| anyhow!("the sender panicked"))??;
            bail!("the sender ended, the receiver did not");
        }
        let end = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        Ok(TransferReport { bytes: self.bytes, elapsed: end.duration_since(self.start) })
    }

    fn sender_failed(&self) -> bool {
        // a sender that is done leaves bytes on the way; one that failed leaves nothing to wait for
        self.sender.is_finished() && self.moved() == 0 && self.start.elapsed().as_secs() > 20
    }
}

const CHUNK: usize = 64 * 1024;
const CONTENT: u64 = 0x5EED;

/// Reads to the end and compares with what should come
fn check(mut stream: TcpStream, bytes: u64, moved: &AtomicU64) -> Result<Instant> {
    let mut content = ChaCha8Rng::seed_from_u64(CONTENT);
    let (mut buffer, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut left = bytes;
    while left > 0 {
        let len = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let mut filled = 0;
        while filled < len {
            let more = stream.read(&mut buffer[filled..len]).context("read")?;
            if more == 0 {
                bail!("the connection ended {} bytes early", left - filled as u64);
            }
            filled += more;
            moved.fetch_add(more as u64, Ordering::AcqRel);
        }
        content.fill_bytes(&mut expected[..len]);
        if buffer[..len] != expected[..len] {
            bail!("wrong content before byte {}", bytes - left + len as u64);
        }
        left -= len as u64;
    }
    Ok(Instant::now())
}

/// Runs iperf3 for some seconds from `from` to `target`, an address of `to`; returns Mbit/s received
///
/// # Errors
/// If there is no `iperf3` or the connection fails.
pub fn iperf(from: &Host, to: &Host, target: IpAddr, secs: u32, more: &[&str]) -> Result<f64> {
    let mut server = to.command("iperf3");
    server.args(["-s", "-1", "-B", &target.to_string()]);
    server.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut server = to.spawn(server).context("iperf3 does not start")?;
    let listening = until(Duration::from_secs(5), || listens(to, 5201));
    let mut client = from.command("iperf3");
    client.args(["-J", "-c", &target.to_string(), "-t", &secs.to_string()]).args(more);
    let output = from.output(client)?;
    let _ = server.kill();
    let _ = server.wait();
    if !listening {
        bail!("iperf3 does not listen");
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let sums = &report["end"];
    let rate = sums["sum_received"]["bits_per_second"]
        .as_f64()
        .or_else(|| sums["sum"]["bits_per_second"].as_f64());
    rate.map(|rate| rate / 1e6).ok_or_else(|| anyhow!("iperf3: {}", report["error"]))
}

/// Tells whether a TCP socket listens on `port` in the host
pub(crate) fn listens(host: &Host, port: u16) -> bool {
    let wanted = format!(":{port:04X} ");
    host.run(move |_| {
        ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"].iter().any(|file| {
            std::fs::read_to_string(file)
                .unwrap_or_default()
                .lines()
                .any(|line| line.contains(&wanted) && line.contains(" 0A "))
        })
    })
}
