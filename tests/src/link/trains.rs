//! What a sender with a faulty segmentation offload makes of its trains.

use fastvpn_proto::ip::numbers::UDP;
use serde::{Deserialize, Serialize};

/// What becomes of items that the sender's system cut from a train
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trains {
    /// They leave as they should
    #[default]
    Whole,
    /// All but the first of each train are lost
    Beheaded,
    /// All but the first of each train are damaged
    Mangled,
}

/// Tells whether Linux has cut an IP packet from a train, behind the first of it
///
/// A message that is sent by itself, not to be fragmented, from a socket that is not connected has the
/// identification 0; the packets of a train are counted from there. IPv6 has nothing that would tell.
pub(super) fn is_cut(packet: &[u8]) -> bool {
    let [first, _, _, _, high, low, flags, _, _, protocol, ..] = *packet else { return false };
    let whole = flags & DO_NOT_FRAGMENT != 0;
    first >> 4 == 4 && protocol == UDP && whole && (high, low) != (0, 0)
}

/// Flag in the seventh byte of an IPv4 header
const DO_NOT_FRAGMENT: u8 = 0x40;

#[cfg(test)]
mod tests {
    use fastvpn_proto::ip::numbers::TCP;

    use super::*;

    #[test]
    fn packets_of_a_train_are_told_from_others() {
        let packet = |protocol, id: u8, flags| {
            let mut packet = vec![0x45, 0, 0, 28, 0, id, flags, 0, 64, protocol];
            packet.resize(28, 0);
            packet
        };

        assert!(is_cut(&packet(UDP, 1, DO_NOT_FRAGMENT)));
        assert!(!is_cut(&packet(UDP, 0, DO_NOT_FRAGMENT)), "first, or alone");
        assert!(!is_cut(&packet(UDP, 1, 0)), "of a program that lets it be fragmented");
        assert!(!is_cut(&packet(TCP, 1, DO_NOT_FRAGMENT)));
        assert!(!is_cut(&[0x45]));
        assert!(!is_cut(&[]));
    }
}
