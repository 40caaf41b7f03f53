//! SYNs that travelled as packets.
//!
//! A kernel repeats a SYN that nobody answers, and the answer to the first one may still be on its way.
//! So the second one travels as the first did, whatever would become of another connection by now: of
//! one SYN the other kernel never answers twice, in a lane and past it.
//!
//! # Contract
//!
//! What is remembered is bounded: newer SYNs displace older ones, which is no harm to nearly all.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::segment::Segment;

/// SYNs of late that travelled as packets, each by a number that stands for it
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Empty before the first one
    slots: Vec<u64>,
}

impl Passed {
    /// Remembers that a SYN travels as a packet
    pub(super) fn insert(&mut self, syn: &Segment<'_>) {
        self.slots.resize(SLOTS, 0);
        let name = name_of(syn);
        self.slots[slot_of(name)] = name;
    }

    /// Tells whether this very SYN has travelled as a packet before
    pub(super) fn contains(&self, syn: &Segment<'_>) -> bool {
        let name = name_of(syn);
        self.slots.get(slot_of(name)) == Some(&name)
    }
}

fn name_of(syn: &Segment<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (syn.ends, syn.seq).hash(&mut hasher);
    hasher.finish()
}

fn slot_of(name: u64) -> usize {
    (name % SLOTS as u64) as usize
}

/// SYNs that are remembered at most: those of a second on a busy node
const SLOTS: usize = 1024;
