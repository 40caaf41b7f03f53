//! Looking up the peer of an address.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion};
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::router::Router;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in [10u32, 1000, 10_000] {
        let router = Router::new((0..count).map(route));
        let mut asked = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                asked = (asked + 7919) % count;
                router.route(black_box(host(asked))).expect("it has a route")
            });
        });
    }
    group.finish();
}

/// A network of 16, 32, … addresses, each in a block of its own
fn route(number: u32) -> (Prefix, PublicKey) {
    let prefix = Prefix::new(host(number), 20 + (number % 9) as u8).expect("it is short enough");
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    (prefix, PublicKey::from_bytes(key))
}

fn host(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + (number << 12)).into()
}
