//! The laboratory of fastvpn.

pub mod link;
