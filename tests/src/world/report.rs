//! What a stream of packets went through: printed when a test fails.

use std::fmt;

use fastvpn_proto::time::{Duration, Instant};

/// What became of one packet
pub(super) struct Fate {
    pub(super) sent: Instant,
    pub(super) arrived: Option<Instant>,
    pub(super) bytes: usize,
}

/// Figures of one stream of packets
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Packets sent
    pub sent: u64,
    /// Packets that arrived
    pub arrived: u64,
    /// Bytes of those that arrived
    pub bytes: u64,
    /// Smallest latency
    pub fastest: Duration,
    /// Median latency
    pub median: Duration,
    /// Largest latency
    pub slowest: Duration,
    /// Longest time between two arrivals, or between the last one and now
    pub longest_gap: Duration,
    /// All latencies in order of size
    latencies: Vec<Duration>,
}

impl Report {
    /// Sums up packets in the order in which they were sent
    pub(super) fn of(packets: impl Iterator<Item = Fate>) -> Self {
        let mut report = Self::default();
        let mut latencies = Vec::new();
        let mut arrivals: Vec<Instant> = Vec::new();
        for packet in packets {
            report.sent += 1;
            if let Some(arrived) = packet.arrived {
                report.bytes += packet.bytes as u64;
                latencies.push(arrived.since(packet.sent));
                arrivals.push(arrived);
            }
        }
        latencies.sort_unstable();
        arrivals.sort_unstable();
        report.arrived = latencies.len() as u64;
        report.fastest = latencies.first().copied().unwrap_or_default();
        report.median = latencies.get(latencies.len() / 2).copied().unwrap_or_default();
        report.slowest = latencies.last().copied().unwrap_or_default();
        let gaps = arrivals.windows(2).map(|pair| pair[1].since(pair[0]));
        report.longest_gap = gaps.max().unwrap_or_default();
        report.latencies = latencies;
        report
    }

    /// Returns how many packets did not arrive
    pub fn lost(&self) -> u64 {
        self.sent - self.arrived
    }

    /// Returns the latency that this share of all packets does not exceed; the largest there is, if so
    /// many did not arrive
    pub fn quantile(&self, share: f64) -> Duration {
        let index = (self.sent as f64 * share).ceil() as usize;
        self.latencies.get(index.max(1) - 1).copied().unwrap_or(Duration::MAX)
    }

    /// Returns the share of packets that did not arrive
    pub fn loss(&self) -> f64 {
        self.lost() as f64 / self.sent.max(1) as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} packets arrived ({} bytes), latency {:?}/{:?}/{:?} min/median/max, \
             longest gap {:?}",
            self.arrived,
            self.sent,
            self.bytes,
            self.fastest,
            self.median,
            self.slowest,
            self.longest_gap
        )
    }
}
