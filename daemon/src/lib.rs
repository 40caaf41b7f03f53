//! The fastvpn daemon.

#![deny(unsafe_code)]

pub mod config;
pub mod handle;
#[cfg(test)]
mod netns;
pub mod plane;
pub mod system;
