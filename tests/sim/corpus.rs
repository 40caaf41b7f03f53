//! Inputs that the fuzzer found worth keeping, replayed on a stable compiler.

use std::fs;
use std::path::PathBuf;

use fastvpn_tests::fuzz::TARGETS;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::seeds;

#[test]
fn corpus_does_no_harm() {
    for (name, target) in TARGETS {
        let folder = corpus().join(name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let mut inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            println!("{}", input.display());
            target(&fs::read(&input).unwrap());
        }
    }
}

/// A little of what the fuzzer does, for those who never start it
#[test]
fn neighbours_of_the_corpus_do_no_harm() {
    let mut chance = ChaCha8Rng::seed_from_u64(fastvpn_tests::world::seed(1_700));
    for (name, target) in TARGETS {
        let rounds = if name == "session" { 2 } else { 200 };
        for entry in fs::read_dir(corpus().join(name)).unwrap() {
            let input = fs::read(entry.unwrap().path()).unwrap();
            for _ in 0..rounds {
                target(&mutated(&input, &mut chance));
            }
        }
    }
}

/// Writes a fresh corpus of handmade seeds; run with --ignored after a change of the wire format
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    for (name, seeds) in seeds::all() {
        let folder = corpus().join(name);
        fs::create_dir_all(&folder).unwrap();
        for (title, bytes) in seeds {
            fs::write(folder.join(title), bytes).unwrap();
        }
    }
}

fn mutated(input: &[u8], chance: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=chance.next_u32() % 8 {
        let place = chance.next_u32() as usize % bytes.len().max(1);
        match chance.next_u32() % 4 {
            0 if !bytes.is_empty() => bytes[place] = chance.next_u32() as u8,
            1 if !bytes.is_empty() => bytes[place] ^= 1 << (chance.next_u32() % 8),
            2 => bytes.truncate(place),
            _ => bytes.insert(place, chance.next_u32() as u8),
        }
    }
    bytes
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}
