//! The laboratory of fastvpn.

pub mod link;
pub mod world;
