//! The laboratory of fastvpn.

pub mod lab;
pub mod link;
pub mod world;
