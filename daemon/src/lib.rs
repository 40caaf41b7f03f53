//! The fastvpn daemon.

pub mod config;
pub mod daemon;
pub mod handle;
pub mod plane;
pub mod registry;
pub mod system;
