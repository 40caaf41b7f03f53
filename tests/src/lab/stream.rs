//! Long transfers by iperf3, followed while they run.
//!
//! What counts is what the receiving program reports, ten times a second: what a sender has handed
//! to its kernel, or to a VPN, has not arrived yet. The transfer is ended from outside, so no
//! figure depends on the programs' own farewell, which a bad link can hold up for a minute.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::netns::Host;
use super::wait::until;

/// What to transfer
#[derive(Clone, Copy, Debug)]
pub struct StreamPlan {
    /// Where the sender connects to
    pub target: SocketAddr,
    /// Port at which the receiver listens
    pub port: u16,
    /// How it is carried
    pub kind: StreamKind,
}

/// How data is sent
#[derive(Clone, Copy, Debug)]
pub enum StreamKind {
    /// As fast as TCP goes
    Tcp {
        /// Congestion control of the sender
        congestion: Congestion,
        /// Connections side by side
        connections: u32,
    },
    /// One TCP connection at a rate that the sender keeps to
    Paced {
        /// Congestion control of the sender
        congestion: Congestion,
        /// Payload in Mbit/s
        mbits: u32,
    },
    /// Datagrams at a constant rate
    Udp {
        /// Payload in Mbit/s; nothing: as many as the sender can
        mbits: Option<u32>,
        /// Payload of each datagram in bytes
        bytes: u32,
    },
}

/// A congestion control of the kernel's TCP
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Congestion {
    /// BBR, as the kernel has it
    Bbr,
    /// CUBIC, most systems' default
    Cubic,
}

impl Congestion {
    /// Returns the kernel's name for it
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            Self::Cubic => "cubic",
        }
    }
}

/// A transfer that runs until it is dropped
#[derive(Debug)]
pub struct Stream {
    sender: Child,
    receiver: Child,
    seen: Arc<Mutex<Vec<Interval>>>,
    reader: Option<JoinHandle<()>>,
    complaint: Option<JoinHandle<String>>,
}

/// What one connection delivered in a tenth of a second
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Number of the connection
    pub connection: u32,
    /// Beginning, in seconds since the transfer began
    pub from: f64,
    /// End, likewise
    pub to: f64,
    /// Bytes of payload that arrived
    pub bytes: f64,
    /// Datagrams that were found missing
    pub missing: u32,
    /// Datagrams that arrived or were found missing
    pub datagrams: u32,
}

impl Stream {
    /// Starts both programs
    ///
    /// # Errors
    /// If there is no `iperf3`, or the receiver does not come to listen.
    pub fn start(from: &Host, to: &Host, plan: &StreamPlan) -> Result<Self> {
        let port = plan.port.to_string();
        let mut command = to.command("iperf3");
        command.args(["-s", "-1", "-f", "k", "-i", "0.1", "--forceflush", "-p", &port]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut receiver = to.spawn(command).context("iperf3 does not start")?;
        let output = receiver.stdout.take().context("no output")?;
        if !until(Duration::from_secs(5), || super::load::listens(to, plan.port)) {
            let _ = receiver.kill();
            let _ = receiver.wait();
            bail!("iperf3 does not listen");
        }
        let mut command = from.command("iperf3");
        command.args(["-c", &plan.target.ip().to_string(), "-p", &plan.target.port().to_string()]);
        command.args(["-t", "600", "-i", "0"]).args(plan.kind.arguments());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut sender = from.spawn(command).context("iperf3 does not start")?;
        let errors = sender.stderr.take().context("no standard error")?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(interval) = parse(&line) {
                    list.lock().unwrap_or_else(PoisonError::into_inner).push(interval);
                }
            }
        });
        let complaint = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(errors).read_to_string(&mut text);
            text
        });
        Ok(Self { sender, receiver, seen, reader: Some(reader), complaint: Some(complaint) })
    }

    /// Waits until the receiver has reported `time` of the transfer
    ///
    /// # Errors
    /// If the sender ended, or that does not come within `time` and `patience`.
    pub fn reaches(&mut self, time: Duration, patience: Duration) -> Result<()> {
        let wanted = time.as_secs_f64() - TICK / 2.0;
        let reached = |seen: &[Interval]| seen.last().is_some_and(|last| last.to >= wanted);
        let mut ended = false;
        until(time + patience, || {
            ended = !matches!(self.sender.try_wait(), Ok(None));
            ended || reached(&self.seen())
        });
        if reached(&self.seen()) {
            return Ok(());
        }
        if ended {
            let complaint = self.complaint.take().and_then(|thread| thread.join().ok());
            bail!("iperf3 ended: {}", complaint.unwrap_or_default().trim());
        }
        bail!("the transfer did not reach {time:?}: it is at {:?}", self.seen().last());
    }

    /// Returns what arrived between two times since the beginning, in bytes
    pub fn bytes(&self, from: Duration, to: Duration) -> f64 {
        self.seen().iter().map(|interval| interval.within(from, to)).sum()
    }

    /// Returns what each connection delivered between two times, in bytes
    pub fn bytes_each(&self, from: Duration, to: Duration) -> Vec<f64> {
        let mut each = std::collections::BTreeMap::new();
        for interval in self.seen().iter() {
            *each.entry(interval.connection).or_insert(0.0) += interval.within(from, to);
        }
        each.into_values().collect()
    }

    /// Returns the mean rate of the payload between two times, in Mbit/s
    pub fn mbits(&self, from: Duration, to: Duration) -> f64 {
        let time = to.saturating_sub(from).as_secs_f64();
        self.bytes(from, to) * 8.0 / 1e6 / time.max(TICK)
    }

    /// Returns how much of the transfer the receiver has reported
    pub fn reported(&self) -> Duration {
        Duration::from_secs_f64(self.seen().last().map_or(0.0, |last| last.to))
    }

    /// Returns all that the receiver has reported
    pub fn seen(&self) -> MutexGuard<'_, Vec<Interval>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for child in [&mut self.sender, &mut self.receiver] {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl StreamKind {
    fn arguments(self) -> Vec<String> {
        match self {
            Self::Tcp { congestion, connections } => {
                let connections = connections.to_string();
                ["-C", congestion.name(), "-P", &connections].map(str::to_owned).into()
            }
            Self::Paced { congestion, mbits } => {
                let rate = format!("{mbits}M");
                ["-C", congestion.name(), "-b", &rate].map(str::to_owned).into()
            }
            Self::Udp { mbits, bytes } => {
                let rate = mbits.map_or("0".to_owned(), |mbits| format!("{mbits}M"));
                let (timer, bytes) = (pause(mbits, bytes).to_string(), bytes.to_string());
                let buffer = BUFFER.to_string();
                ["-u", "-b", &rate, "-l", &bytes, "--pacing-timer", &timer, "-w", &buffer]
                    .map(str::to_owned)
                    .into()
            }
        }
    }
}

/// Time between two bursts of a paced sender, in µs: by default a millisecond, at high rates less,
/// as a burst has to fit into the receiver's buffer
fn pause(mbits: Option<u32>, bytes: u32) -> u32 {
    let most = BURST * bytes * 8 / mbits.unwrap_or(1).max(1);
    most.clamp(50, 1000)
}

impl Interval {
    /// Bytes that fall between two times
    fn within(&self, from: Duration, to: Duration) -> f64 {
        let both = self.to.min(to.as_secs_f64()) - self.from.max(from.as_secs_f64());
        let length = self.to - self.from;
        if both <= 0.0 || length <= 0.0 { 0.0 } else { self.bytes * both / length }
    }
}

/// Understands a line like `[  5]   0.00-0.10   sec   128 KBytes  10486 Kbits/sec`
fn parse(line: &str) -> Option<Interval> {
    let (connection, rest) = line.strip_prefix('[')?.split_once(']')?;
    let connection = connection.trim().parse().ok()?;
    if rest.contains("receiver") || rest.contains("sender") {
        return None;
    }
    let mut words = rest.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let (from, to): (f64, f64) = (from.parse().ok()?, to.parse().ok()?);
    let words: Vec<&str> = words.collect();
    let unit = words.iter().position(|word| *word == "Kbits/sec")?;
    let kbits: f64 = words.get(unit.checked_sub(1)?)?.parse().ok()?;
    let counts = words.iter().find_map(|word| word.split_once('/')?.0.parse::<u32>().ok());
    let all = words.iter().find_map(|word| {
        let (missing, all) = word.split_once('/')?;
        missing.parse::<u32>().ok().and(all.parse::<u32>().ok())
    });
    Some(Interval {
        connection,
        from,
        to,
        bytes: kbits * 125.0 * (to - from),
        missing: counts.unwrap_or(0),
        datagrams: all.unwrap_or(0),
    })
}

/// Bytes of a datagram socket's buffers: the most that Linux gives to whoever asks, and twice what it
/// gives otherwise
const BUFFER: u32 = 212_992;
/// Most datagrams in a burst
const BURST: u32 = 32;
/// Seconds from one report of the receiver to the next
const TICK: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_a_connection_is_understood() {
        let seen = parse("[  5]   0.30-0.40   sec   128 KBytes  10000 Kbits/sec                  ");

        let seen = seen.expect("it is one");
        assert_eq!((seen.connection, seen.missing), (5, 0));
        assert!((seen.bytes - 125_000.0).abs() < 1.0, "{seen:?}");
    }

    #[test]
    fn line_of_datagrams_tells_how_many_are_missing() {
        let seen =
            parse("[  5]   1.00-1.10   sec   366 KBytes  29982 Kbits/sec  0.003 ms  7/305 (2.3%)");

        let seen = seen.expect("it is one");
        assert_eq!((seen.missing, seen.datagrams), (7, 305));
    }

    #[test]
    fn sums_and_summaries_do_not_count() {
        let lines = [
            "[ ID] Interval           Transfer     Bitrate",
            "[SUM]   0.00-0.10   sec   128 KBytes  10486 Kbits/sec",
            "[  5]   0.00-10.00  sec  12.8 MBytes  10486 Kbits/sec                  receiver",
            "Server listening on 5201 (test #1)",
            "- - - - - - - - - - - -",
        ];

        assert!(lines.iter().all(|line| parse(line).is_none()));
    }

    #[test]
    fn part_of_an_interval_counts_in_part() {
        let seen =
            Interval { connection: 5, from: 1.0, to: 1.1, bytes: 100.0, missing: 0, datagrams: 0 };

        let half = seen.within(Duration::from_millis(1050), Duration::from_secs(9));
        assert!((half - 50.0).abs() < 0.1, "{half}");
    }
}
