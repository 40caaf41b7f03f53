//! The laboratory of fastvpn.

pub mod fuzz;
pub mod lab;
pub mod link;
pub mod split;
pub mod world;
