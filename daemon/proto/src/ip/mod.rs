//! Inner IP packets: borrowed views of headers, checksums, super-packets, and prefixes.

pub mod checksum;
pub mod gso;
pub mod icmp;
pub mod merge;
mod packet;
mod prefix;

pub use gso::{Gso, Inner};
pub use packet::{Packet, PacketError};
pub use prefix::{Prefix, PrefixError};
