//! Seal and opening of one full message, with both ciphers.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use fastvpn_proto::crypto::{Cipher, Open, Seal};
use zeroize::Zeroizing;

pub(crate) fn measure(criterion: &mut Criterion) {
    for (cipher, name) in
        [(Cipher::Aes256Gcm, "aes-256-gcm"), (Cipher::ChaCha20Poly1305, "chacha20-poly1305")]
    {
        let (seal, open) = (Seal::new(cipher, key()), Open::new(cipher, key()));
        let header = [1; 16];
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(BODY as u64));

        let (mut body, mut number) = ([0; BODY], 0);
        group.bench_function("seal", |bencher| {
            bencher.iter(|| {
                number += 1;
                seal.seal(number, &header, black_box(&mut body))
            });
        });

        let mut sealed = vec![0; BODY];
        let tag = seal.seal(1, &header, &mut sealed);
        sealed.extend_from_slice(&tag);
        group.bench_function("open", |bencher| {
            bencher.iter_batched_ref(
                || sealed.clone(),
                |sealed| open.open(1, &header, sealed).expect("it is whole"),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

/// Any key
pub(crate) fn key() -> Zeroizing<[u8; 32]> {
    Zeroizing::new([7; 32])
}

/// Bytes of a full message's body
pub(crate) const BODY: usize = 1388;
