//! Which flow an inner packet belongs to, as a number.
//!
//! Packets of one five-tuple have the same number. Two flows may share one by chance; they then share
//! a queue, as in RFC 8290.

use crate::ip::numbers::{DCCP, ICMP, ICMP_V6, SCTP, TCP, UDP, UDP_LITE};

/// Returns the number of a packet's flow
///
/// Of fragments, whose ports are only in the first, the addresses count alone.
pub(super) fn flow_of(packet: &[u8]) -> u32 {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let fragment = u16::from_be_bytes([packet[6], packet[7]]) & FRAGMENT != 0;
            let ports = if fragment { 0 } else { ports(packet[9], packet.get(header..)) };
            hash(&packet[12..20], packet[9], ports)
        }
        Some(6) if packet.len() >= 40 => {
            // The flow label tells connections apart behind any number of extension headers.
            let label = u32::from_be_bytes([0, packet[1] & 0xf, packet[2], packet[3]]);
            let ports = ports(packet[6], packet.get(40..));
            hash(&packet[8..40], packet[6], ports ^ label)
        }
        _ => 0,
    }
}

/// Returns both ports, or what tells one ping from another
fn ports(protocol: u8, payload: Option<&[u8]>) -> u32 {
    let at = match protocol {
        TCP | UDP | DCCP | SCTP | UDP_LITE => 0,
        ICMP | ICMP_V6 => 4,
        _ => return 0,
    };
    let field = payload.and_then(|payload| payload.get(at..at + 4));
    let field = field.and_then(|field| <[u8; 4]>::try_from(field).ok());
    let field = field.map_or(0, u32::from_be_bytes);
    // The second half of an ICMP echo's field counts its packets.
    if at == 4 { field >> 16 } else { field }
}

fn hash(addresses: &[u8], protocol: u8, ports: u32) -> u32 {
    let mut state = u64::from(ports) << 8 | u64::from(protocol);
    for word in addresses.chunks_exact(8) {
        let word = word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        state = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^= state >> 29;
    }
    state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (state >> 32) as u32
}

/// More fragments, or an offset
const FRAGMENT: u16 = 0x3fff;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_of_one_flow_agree_and_others_differ() {
        let one = v4(UDP, 1000, 53);
        let mut later = one.clone();
        later[4] = 99;
        later.push(1);

        assert_eq!(flow_of(&one), flow_of(&later));
        assert_ne!(flow_of(&one), flow_of(&v4(UDP, 1001, 53)));
        assert_ne!(flow_of(&one), flow_of(&v4(UDP, 1000, 54)));
        assert_ne!(flow_of(&one), flow_of(&v4(TCP, 1000, 53)));
    }

    #[test]
    fn fragments_of_one_packet_agree() {
        let (mut first, mut second) = (v4(UDP, 1000, 53), v4(UDP, 777, 888));
        first[6] = 0x20;
        second[7] = 185;

        assert_eq!(flow_of(&first), flow_of(&second));
    }

    #[test]
    fn pings_of_one_program_agree() {
        let ping = |id: u16, count: u16| {
            let mut packet = v4(ICMP, 0x0800, 0);
            packet.extend(id.to_be_bytes());
            packet.extend(count.to_be_bytes());
            packet
        };

        assert_eq!(flow_of(&ping(7, 1)), flow_of(&ping(7, 2)));
        assert_ne!(flow_of(&ping(7, 1)), flow_of(&ping(8, 1)));
    }

    #[test]
    fn thousand_flows_spread_over_the_buckets() {
        let numbers = (0..1000).map(|port| flow_of(&v4(TCP, 40_000 + port, 443)) % 1024);

        let used = numbers.collect::<BTreeSet<_>>().len();

        // By chance 1024 * (1 - 1/e^(1000/1024)) = 638.
        assert!(used > 590, "{used}");
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            flow_of(&bytes);
        }
    }

    fn v4(protocol: u8, from: u16, to: u16) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[9] = protocol;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(from.to_be_bytes());
        packet.extend(to.to_be_bytes());
        packet
    }
}
