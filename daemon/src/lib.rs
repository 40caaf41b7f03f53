//! The fastvpn daemon.

#![deny(unsafe_code)]

pub mod config;
pub mod handle;
pub mod plane;
pub mod system;
