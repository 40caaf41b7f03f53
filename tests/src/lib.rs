//! The laboratory of fastvpn.

pub mod bench;
pub mod fuzz;
pub mod lab;
pub mod link;
pub mod world;
