//! The fastvpn daemon.

#![deny(unsafe_code)]

pub mod api;
pub mod args;
pub mod config;
pub mod daemon;
pub mod handle;
pub mod logging;
#[cfg(test)]
mod netns;
pub mod plane;
pub mod registry;
pub mod system;
