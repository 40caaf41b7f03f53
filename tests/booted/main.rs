//! Tests on booted systems: Debian with systemd as process 1, and the built packages in it.
//!
//! A system is a container in a host of the laboratory; see `fastvpn_tests::lab::booted`. The packages
//! come from `systemd/package/build --debug`. Where this machine cannot boot systems, all cases are
//! skipped, with the reason.
//!
//! Arguments are those of the end-to-end tests.

// the whole program is a test
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod completion;
mod doctor;
mod install;
mod journeys;
mod names;
mod network;
mod networkmanager;
mod restart;
mod service;
mod support;

use std::process::ExitCode;
use std::time::Duration;

use fastvpn_tests::lab::booted::tree;
use fastvpn_tests::runner::{Case, Suite, run};

fn main() -> ExitCode {
    let cases: Vec<Case> = [
        completion::CASES,
        doctor::CASES,
        install::CASES,
        journeys::CASES,
        names::CASES,
        network::CASES,
        networkmanager::CASES,
        restart::CASES,
        service::CASES,
    ]
    .concat();
    let suite = Suite {
        title: "tests on booted systems",
        patience: Duration::from_secs(180),
        ready: tree::prepare,
    };
    run(&suite, &cases)
}
