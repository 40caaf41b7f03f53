//! Inner IP packets: borrowed views of headers, and prefixes.

pub mod icmp;
mod packet;
mod prefix;

pub use packet::{Packet, PacketError};
pub use prefix::{Prefix, PrefixError};
