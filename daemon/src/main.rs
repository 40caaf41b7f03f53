//! The fastvpn daemon as a program; see fastvpnd(8).

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use fastvpnd::args::{Args, EXIT_DONE, EXIT_FAILED};
use fastvpnd::{config, logging};

fn main() -> ExitCode {
    let args = Args::read();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("fastvpnd: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<u8> {
    logging::init(&args.log_level()).context("cannot log")?;
    if args.check {
        let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
        let fine = config::report(&args.config_dir, &args.state_dir(), &mut out, &mut err)?;
        return Ok(if fine { EXIT_DONE } else { EXIT_FAILED });
    }
    match config::load(&args.config_dir, &args.state_dir()) {
        Ok(config) => fastvpnd::run(args, config)?,
        Err(problems) => {
            tracing::error!("the configuration has problems:\n{problems}");
            return Ok(EXIT_FAILED);
        }
    }
    Ok(EXIT_DONE)
}
