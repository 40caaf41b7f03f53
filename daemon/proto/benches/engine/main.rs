//! What single parts of the engine cost, so that a regression shows.
//!
//! Each file measures one part through its own door, without a node around it; `peers` alone measures a node. How to compare with
//! a baseline is in the tests' README.

mod acks;
mod helper;
mod peers;
mod routes;
mod scheduler;
mod seal;
mod segments;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    seal::measure(&mut criterion);
    helper::measure(&mut criterion);
    segments::measure(&mut criterion);
    scheduler::measure(&mut criterion);
    acks::measure(&mut criterion);
    routes::measure(&mut criterion);
    peers::measure(&mut criterion);
    criterion.final_summary();
}
