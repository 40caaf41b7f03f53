//! No interleaving of segments, losses, windows and resets loses, repeats or reorders a byte of a split
//! connection, or leaves anything behind.
//!
//! `FASTVPN_SPLIT_RUNS` sets how many random runs there are; the seed of the first is `FASTVPN_SEED`.

use fastvpn_proto::time::Duration;
use fastvpn_tests::split::Bench;
use fastvpn_tests::world::{Side, TcpPlan, Work, seed};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Seeds that have found something
const FAILED_BEFORE: [u64; 1] = [902_335];

#[test]
fn no_interleaving_harms_a_byte() {
    let runs = match std::env::var("FASTVPN_SPLIT_RUNS") {
        Ok(text) => text.parse().expect("FASTVPN_SPLIT_RUNS is a number"),
        Err(_) => 150,
    };
    let first = seed(4_000);
    let mut no_room = 0;
    for seed in FAILED_BEFORE.into_iter().chain(first..first + runs) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        match outcome {
            Ok(refused) => no_room += refused,
            Err(panic) => {
                eprintln!("run with FASTVPN_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{no_room} messages found no memory");
}

/// Makes one run; returns how many messages came when there was no memory left for them
fn run(seed: u64) -> u32 {
    let mut chance = ChaCha8Rng::seed_from_u64(seed ^ 0x51ee7);
    let works: Vec<_> =
        (0..1 + chance.next_u32() % 4).map(|_| (work(&mut chance), plan(&mut chance))).collect();
    // sometimes too little to split anything, or to split it well
    let memory = [64 << 20, 1 << 20, 200_000, 10_000][chance.next_u32() as usize % 4];
    let trouble = [0, 2, 20, 60][chance.next_u32() as usize % 4];
    let mut bench = Bench::new(seed, &works, memory, trouble);

    bench.disturb(chance.next_u32() as usize % 6_000);
    bench.finish();

    for couple in bench.couples() {
        let (opener, acceptor) = (couple.half(Side::Opener), couple.half(Side::Acceptor));
        let reset = (opener.reset.is_some() && !opener.is_late(acceptor))
            || (acceptor.reset.is_some() && !acceptor.is_late(opener));
        let may = matches!(couple.work(), Work::Reset(_) | Work::Refuse(_));
        // Whoever has heard all and only waits for the last acknowledgement may hear a RST instead,
        // when the other kernel has forgotten the connection meanwhile.
        let whole = opener.ended.is_some() && acceptor.ended.is_some();
        assert!(!reset || may || whole, "{couple:?}");
        if !may {
            assert_eq!(
                (opener.read, acceptor.read),
                (acceptor.written, opener.written),
                "{couple:?}"
            );
        }
    }
    bench.no_room()
}

fn work(chance: &mut ChaCha8Rng) -> Work {
    let bytes = 1 << (chance.next_u32() % 19);
    let bytes = bytes + u64::from(chance.next_u32()) % bytes;
    match chance.next_u32() % 10 {
        0 => Work::Bulk(bytes),
        1 => Work::Object(bytes),
        2 => {
            Work::Talk { rounds: 5, request: bytes % 5_000 + 1, answer: 300, pause: Duration::ZERO }
        }
        3 => Work::HalfClose(bytes),
        4 => Work::Both(bytes),
        5 => Work::Reset(bytes),
        6 => Work::Refuse(bytes),
        7 => Work::Stall(Duration::from_secs(3), bytes),
        // Silent for so long that what was promised is given back, and taken again when it is not.
        8 => Work::Talk {
            rounds: 3,
            request: bytes % 60_000 + 1,
            answer: 60_000,
            pause: Duration::from_secs(7),
        },
        _ => Work::Slow(bytes / 5 + 100, bytes),
    }
}

fn plan(chance: &mut ChaCha8Rng) -> TcpPlan {
    let buffers = [600, 5_000, 65_535, 1 << 20][chance.next_u32() as usize % 4];
    let mut plan = TcpPlan::default().buffers(buffers);
    // a reset that was lost on its way to a node is found out
    plan.keep_alive = Some(Duration::from_secs(30));
    plan.mtu = [576, 1_280, 1_400, 9_000][chance.next_u32() as usize % 4];
    plan
}
