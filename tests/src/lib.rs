//! The laboratory of fastvpn.
