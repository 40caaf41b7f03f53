//! Explicit congestion notification in inner packets (RFC 3168).

use crate::ip::{V4_HEADER, V6_HEADER};

/// Marks a packet as one that met congestion; tells whether its sender understands that
///
/// A packet that is marked already stays so.
#[must_use]
pub(super) fn mark(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= V4_HEADER => {
            if packet[1] & ECN == 0 {
                return false;
            }
            let before = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] |= ECN;
            let after = u16::from_be_bytes([packet[0], packet[1]]);
            let sum = u16::from_be_bytes([packet[10], packet[11]]);
            packet[10..12].copy_from_slice(&update(sum, before, after).to_be_bytes());
            true
        }
        Some(6) if packet.len() >= V6_HEADER => {
            // The traffic class lies across the first two bytes; no sum covers it.
            let capable = packet[1] >> 4 & ECN != 0;
            if capable {
                packet[1] |= ECN << 4;
            }
            capable
        }
        _ => false,
    }
}

/// Returns an Internet checksum after one of the words that it covers has changed (RFC 1624)
fn update(sum: u16, before: u16, after: u16) -> u16 {
    let mut total = u32::from(!sum) + u32::from(!before) + u32::from(after);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// Both bits: congestion was met
const ECN: u8 = 0b11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capable_packet_is_marked_and_its_sum_stays_right() {
        for ecn in [1, 2, 3] {
            let mut packet = v4(0xb8 | ecn);

            assert!(mark(&mut packet));

            assert_eq!(packet[1], 0xbb);
            assert_eq!(sum_of(&packet), 0xffff);
        }
    }

    #[test]
    fn packet_of_a_sender_that_does_not_understand_is_left_alone() {
        let mut packet = v4(0xb8);
        let before = packet.clone();

        assert!(!mark(&mut packet));

        assert_eq!(packet, before);
    }

    #[test]
    fn ipv6_is_marked_in_its_traffic_class() {
        let mut packet = vec![0; 48];
        packet[0] = 0x6b;
        packet[1] = 0xa5;

        assert!(mark(&mut packet));

        assert_eq!(packet[..2], [0x6b, 0xb5]);
    }

    #[test]
    fn rubbish_is_left_alone() {
        for len in 0..20 {
            assert!(!mark(&mut vec![0x47; len]));
            assert!(!mark(&mut vec![0x67; len]));
        }
    }

    fn v4(class: u8) -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[1] = class;
        packet[3] = 28;
        packet[8] = 64;
        packet[12] = 10;
        let sum = !sum_of(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn sum_of(packet: &[u8]) -> u16 {
        let words = packet[..V4_HEADER].chunks(2);
        let mut total: u32 =
            words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }
}
