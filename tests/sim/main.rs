//! Behaviour of nodes on bad links, in virtual time.
//!
//! Each test says what is special to it; what always holds is judged by the world's oracle. A test
//! that fails prints its seed, and `FASTVPN_SEED=N` runs it again with that seed.

#![allow(clippy::unwrap_used, reason = "all of this is test code")]

mod auto;
mod bars;
mod bottleneck;
mod cookies;
mod corpus;
mod estimates;
mod filter;
mod handshake;
mod heartbeat;
mod hub;
mod keys;
mod lane;
mod mtu;
mod nat;
mod offload;
mod purity;
mod rate;
mod relay;
mod restart;
mod roaming;
mod seeds;
mod sharing;
mod silence;
mod soak;
mod split;
mod survival;
mod tcp;

use fastvpn_proto::node::{Event, Refusal};
use fastvpn_tests::link::LinkConfig;
use fastvpn_tests::world::{HostId, World, seed};

/// Makes a world with a seed of its own for each test
fn world(number: u64) -> World {
    World::new(seed(number))
}

/// Makes a clean wire with such a delay in milliseconds
fn clean(millis: u64) -> LinkConfig {
    LinkConfig::new().delay(fastvpn_tests::link::ms(millis))
}

/// Counts the events of a host that are of some kind
fn count(world: &World, host: HostId, kind: impl Fn(&Event) -> bool) -> usize {
    world.events(host).filter(|(_, event)| kind(event)).count()
}

/// Counts how often a host's sessions began
fn ups(world: &World, host: HostId) -> usize {
    count(world, host, |event| matches!(event, Event::SessionUp { .. }))
}

/// Counts how often a host's sessions ended
fn downs(world: &World, host: HostId) -> usize {
    count(world, host, |event| matches!(event, Event::SessionDown { .. }))
}

/// Returns how often a host refused something for that reason
fn refused(world: &World, host: HostId, refusal: Refusal) -> u64 {
    world.stats(host).refusals.of(refusal)
}
