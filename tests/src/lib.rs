//! The laboratory of fastvpn.

pub mod fuzz;
pub mod link;
pub mod world;
