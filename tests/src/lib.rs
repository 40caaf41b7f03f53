//! The laboratory of fastvpn.

pub mod bottleneck;
pub mod bench;
pub mod fuzz;
pub mod lab;
pub mod link;
pub mod split;
pub mod world;
