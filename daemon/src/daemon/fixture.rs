//! Values that the tests of this folder share.

use std::net::{IpAddr, SocketAddr};

use fastvpn_proto::control::Entry;
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::node::BootId;
use fastvpn_proto::time::Instant;

/// A key of its own for each number
pub(crate) fn key(n: u16) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    PublicKey::from_bytes(bytes)
}

/// An overlay address of its own for each number
pub(crate) fn overlay(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::from([10, 1, high, low])
}

/// Where the hub sees the peer of this number
pub(crate) fn seen(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    SocketAddr::from(([192, 0, high, low], 8796))
}

/// A peer of the list
pub(crate) fn entry(n: u16) -> Entry {
    Entry {
        key: key(n),
        name: format!("peer-{n}"),
        boot: BootId([n as u8; 8]),
        addresses: vec![overlay(n)],
        subnets: Vec::new(),
        endpoints: vec![seen(n)],
    }
}

/// So many milliseconds after zero
pub(crate) fn ms(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// So many seconds after zero
pub(crate) fn secs(secs: u64) -> Instant {
    ms(secs * 1000)
}
