//! Sending and acknowledging, with more and more in flight: what a message costs must not change.

use criterion::{BenchmarkId, Criterion, Throughput};
use fastvpn_proto::path::rtt::Rtt;
use fastvpn_proto::path::sent::{Model, Sent};
use fastvpn_proto::rate::{Rate, Stamp};
use fastvpn_proto::time::{Duration, Instant};

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("acks");
    group.throughput(Throughput::Elements(BATCH));
    for in_flight in [1000u64, 10_000, 60_000] {
        let mut path = Path::new();
        while path.sent.next_count() < in_flight {
            path.send();
        }
        group.bench_function(BenchmarkId::from_parameter(in_flight), |bencher| {
            bencher.iter(|| {
                for _ in 0..BATCH {
                    path.send();
                }
                path.acknowledge();
            });
        });
    }
    group.finish();
}

/// One path, and the far end of it, which acknowledges in order
struct Path {
    sent: Sent<u64>,
    rtt: Rtt,
    rate: Rate,
    now: Instant,
    /// Messages before this one are acknowledged
    acked: u64,
    gone: Vec<u64>,
    lost: Vec<u64>,
}

impl Path {
    fn new() -> Self {
        Self {
            sent: Sent::new(),
            rtt: Rtt::new(),
            rate: Rate::new(),
            now: Instant::ZERO + Duration::from_secs(1),
            acked: 0,
            gone: Vec::new(),
            lost: Vec::new(),
        }
    }

    fn send(&mut self) {
        self.now += Duration::from_micros(10);
        let number = self.sent.next_count();
        self.sent.on_sent(1400, true, number, &mut self.rate, self.now);
    }

    /// Acknowledges the oldest messages, and once more those of some acknowledgements before
    fn acknowledge(&mut self) {
        let (first, last) = (self.acked, self.acked + BATCH - 1);
        self.acked = last + 1;
        let ranges = [first + 1..=last, first.saturating_sub(4 * BATCH)..=first];
        let written = (self.now.as_nanos() / 1000) as u32;
        let stamp = Stamp { written, delay: Duration::ZERO };
        let model = Model { rtt: &mut self.rtt, rate: &mut self.rate };
        let ranges = ranges.into_iter();
        self.sent.on_ack(ranges, stamp, model, self.now, &mut self.gone, &mut self.lost);
        assert_eq!(self.gone.len() as u64, BATCH, "none was lost");
        self.gone.clear();
    }
}

/// Messages of one acknowledgement
const BATCH: u64 = 32;
