//! Control tool of fastvpn.
//!
//! Runs one command, prints its answer, and ends with a code that says how it went: 0 done,
//! 1 failed, 2 usage, 3 daemon not reachable, 4 not authorised.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod complete;
mod failure;
mod json;
mod nearest;
mod output;
mod progress;
mod render;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Arguments;
use crate::failure::Failure;
use crate::output::{Form, Output};

fn main() -> ExitCode {
    complete::answer();
    let arguments = Arguments::parse();
    let output = Output::new(if arguments.json { Form::Json } else { Form::Text });
    match run(&arguments, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(document) = failure.document() {
                output.failure(&document);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(commands::run(arguments, output))
}
