//! Inner IP packets: borrowed views of headers, checksums, super-packets, prefixes, and numbers.

pub mod checksum;
pub mod gso;
pub mod icmp;
pub mod merge;
pub mod numbers;
mod packet;
mod parcel;
mod prefix;

#[cfg(test)]
pub(crate) use gso::testing;
pub use gso::{Gso, Inner};
pub use packet::{Packet, PacketError};
pub(crate) use packet::{V4_HEADER, V6_HEADER};
pub use parcel::{Body, PIECES_MAX, Parcel, SHARES_MAX, Share};
pub use prefix::{Prefix, PrefixError};
