//! The fastvpn daemon.

#![deny(unsafe_code)]

pub mod api;
pub mod args;
pub mod config;
pub mod daemon;
pub mod dns;
pub mod handle;
pub mod invitation;
pub mod logging;
#[cfg(test)]
mod netns;
pub mod notify;
pub mod plane;
pub mod registry;
mod setup;
pub mod system;

use args::{Args, Bus};
use config::Config;
use daemon::{Daemon, DaemonError};
use system::ResolvedBus;
use thiserror::Error;
use tokio::sync::watch;

/// Why the program cannot run
#[derive(Debug, Error)]
pub enum RunError {
    /// The API cannot be served
    #[error(transparent)]
    Api(#[from] api::ApiError),
    /// The control side cannot run
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// There is no runtime to be had
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
}

/// Runs the daemon until a signal ends it
///
/// # Errors
/// If it cannot start, or another one serves the bus already.
pub fn run(args: &Args, config: Config) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(RunError::Runtime)?;
    let result = runtime.block_on(serve(args, config));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(args: &Args, config: Config) -> Result<(), RunError> {
    let bus = match &args.bus {
        Bus::Address(address) => Some(api::Bus::Address(address.clone())),
        Bus::None => None,
        Bus::Session => Some(api::Bus::Session),
        Bus::System => Some(api::Bus::System),
    };
    // Nobody's session has the resolver of the machine.
    let resolved = match &args.bus {
        Bus::Address(address) => Some(ResolvedBus::Address(address.clone())),
        Bus::System => Some(ResolvedBus::System),
        Bus::None | Bus::Session => None,
    };
    let (mut daemon, handle) =
        Daemon::start(args.config_dir.clone(), args.state_dir(), config, resolved).await?;
    let (availability, mut available) = watch::channel(api::Availability::Starting);
    let mut api = std::pin::pin!(api::serve(bus, handle, availability));
    tokio::select! {
        result = &mut api => match result? {},
        () = daemon.run_until(available.changed()) => {}
    }
    daemon.ready();
    tokio::select! {
        result = &mut api => match result? {},
        () = daemon.run() => Ok(()),
    }
}
