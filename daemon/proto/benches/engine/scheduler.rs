//! Choosing who sends next, among more and more flows: what a message costs must not change much.

use criterion::{BenchmarkId, Criterion};
use fastvpn_proto::buffers::Stowed;
use fastvpn_proto::ip::Inner;
use fastvpn_proto::ip::numbers::UDP;
use fastvpn_proto::sched::{Capacity, Next, Scheduler};
use fastvpn_proto::tcp::{Piece, Written};
use fastvpn_proto::time::{Duration, Instant};

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scheduler/lanes");
    for count in FLOWS {
        let (mut scheduler, mut now) = (Scheduler::default(), start());
        scheduler.set_copies(10);
        (0..count).for_each(|conv| scheduler.wake_lane(conv));
        let mut sn = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                now += STEP;
                let Some(Next::Lane(conv)) = scheduler.next(&CAPACITY, now) else {
                    unreachable!("all lanes have more, and nothing else does");
                };
                sn += 1;
                let written = Written { piece: Piece { conv, sn }, losses: 0 };
                scheduler.take(Some(written), 1400, now);
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("scheduler/packets");
    for count in FLOWS {
        let (mut scheduler, mut now) = (Scheduler::default(), start());
        let packet_of = |bytes| Inner::from(Stowed::Copied(bytes));
        let mut packet = packet_of(vec![0; 1400]);
        let mut flow = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                now += STEP;
                flow = (flow + 1) % count;
                address(packet.bytes.to_mut(), flow);
                let next = std::mem::replace(&mut packet, packet_of(Vec::new()));
                scheduler.push_packet(next, now);
                let named = matches!(scheduler.next(&CAPACITY, now), Some(Next::Datagram { .. }));
                assert!(named, "a packet waits");
                packet = scheduler.take_alone(1400, now).expect("it was named");
            });
        });
    }
    group.finish();
}

/// Makes a packet the next one of a UDP flow
fn address(packet: &mut [u8], flow: u32) {
    packet[0] = 0x45;
    packet[9] = UDP;
    packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
    packet[16..20].copy_from_slice(&(0x0a00_0000 + flow).to_be_bytes());
}

fn start() -> Instant {
    Instant::ZERO + Duration::from_secs(1)
}

/// How many flows there are
const FLOWS: [u32; 3] = [1, 100, 10_000];
/// Time from one message to the next: that of a gigabit
const STEP: Duration = Duration::from_micros(11);
/// A gigabit without loss
const CAPACITY: Capacity =
    Capacity { rate: Some(125_000_000), proven: true, loss_ppm: 0, rtt: Duration::from_millis(2) };
