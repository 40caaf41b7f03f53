//! End-to-end tests: real daemons in network namespaces.
//!
//! Each case runs in a process of its own with a temporary directory of its own, two at a time, so
//! that one that hangs or crashes takes nothing along. What a case prints is shown when it fails.
//! Where this machine cannot run a case it is listed as skipped, with the reason, never as passed.
//!
//! Arguments are those of the usual test programs: parts of names, `--exact`, `--skip PART`,
//! `--list`, `--nocapture`, `--test-threads N`.

// the whole program is a test
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod basic;
mod bounds;
mod carriers;
mod faults;
mod hostile;
mod hub;
mod join;
mod laboratory;
mod members;
mod names;
mod offload;
mod reload;
mod restart;
mod roaming;
mod runner;
mod service;
mod split;
mod support;
mod tool;
mod volume;

use std::process::ExitCode;
use std::time::Duration;

use fastvpn_tests::lab;
use fastvpn_tests::runner::{Suite, Unready};
use runner::Case;

fn main() -> ExitCode {
    let cases: Vec<Case> = [
        basic::CASES,
        bounds::CASES,
        carriers::CASES,
        faults::CASES,
        hostile::CASES,
        hub::CASES,
        join::CASES,
        laboratory::CASES,
        members::CASES,
        names::CASES,
        offload::CASES,
        reload::CASES,
        restart::CASES,
        roaming::CASES,
        service::CASES,
        split::CASES,
        tool::CASES,
        volume::CASES,
    ]
    .concat();
    let suite = Suite {
        title: "end-to-end tests",
        patience: Duration::from_secs(180),
        ready: |_| lab::privileged().map_err(Unready::Cannot),
    };
    fastvpn_tests::runner::run(&suite, &cases)
}
