//! The laboratory of fastvpn.

#![deny(unsafe_code)]

pub mod bench;
pub mod bottleneck;
pub mod fuzz;
pub mod journeys;
pub mod lab;
pub mod link;
pub mod runner;
pub mod split;
pub mod world;
