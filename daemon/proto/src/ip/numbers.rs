//! Numbers in the headers of inner packets: protocols of IP, flags of TCP.
//!
//! All have been assigned by IANA, which calls the first *protocol numbers* and the second *TCP header flags*.

/// ICMP, of IPv4
pub const ICMP: u8 = 1;
/// TCP
pub const TCP: u8 = 6;
/// UDP
pub const UDP: u8 = 17;
/// DCCP (RFC 4340)
pub const DCCP: u8 = 33;
/// ICMPv6
pub const ICMP_V6: u8 = 58;
/// SCTP (RFC 9260)
pub const SCTP: u8 = 132;
/// UDP-Lite (RFC 3828)
pub const UDP_LITE: u8 = 136;

/// The sender's stream ends here
pub const FIN: u8 = 0x01;
/// A connection begins
pub const SYN: u8 = 0x02;
/// The connection is no more
pub const RST: u8 = 0x04;
/// The sender has no more for now
pub const PSH: u8 = 0x08;
/// The acknowledgement number means something
pub const ACK: u8 = 0x10;
/// The urgent pointer means something
pub const URG: u8 = 0x20;
/// The sender has slowed down since it heard of congestion (RFC 3168)
pub const CWR: u8 = 0x80;
