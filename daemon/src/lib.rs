//! The fastvpn daemon.

pub mod api;
pub mod config;
pub mod handle;
pub mod plane;
pub mod system;
