//! The Internet checksum (RFC 1071): sums of 16-bit words, and of pseudo headers.

use core::net::IpAddr;

/// Adds bytes to a sum of 16-bit words; only the last bytes added may be odd in number
///
/// The order of bytes in a word does not matter to such a sum (RFC 1071, section 2), so that it is
/// taken in the machine's own order, four bytes at a time.
#[must_use]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut own = 0_u64;
    for word in words {
        own += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    own += u64::from(u32::from_ne_bytes(last));
    sum + u64::from(u16::from_be(folded(own)))
}

/// Returns the checksum that belongs to a sum
#[must_use]
pub fn finish(sum: u64) -> u16 {
    !folded(sum)
}

/// Returns the sum of the pseudo header of a segment of `len` bytes of this protocol
#[must_use]
pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u64 {
    let sum = u64::from(protocol) + len as u64;
    [src, dst].iter().fold(sum, |sum, addr| match addr {
        IpAddr::V4(addr) => add(sum, &addr.octets()),
        IpAddr::V6(addr) => add(sum, &addr.octets()),
    })
}

/// Returns what a checksum field holds that is still to be completed by whoever sends the segment:
/// the sum of the pseudo header
#[must_use]
pub fn partial(pseudo: u64) -> u16 {
    folded(pseudo)
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // What is left fits.
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn example_of_rfc_1071_has_its_sum() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];

        assert_eq!(finish(add(0, &bytes)), !0xddf2);
    }

    proptest! {
        #[test]
        fn sum_is_that_of_words_in_network_order(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), before in 0..0x1_0000_u64,
        ) {
            let words = bytes.chunks(2).map(|pair| {
                u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))
            });

            prop_assert_eq!(finish(add(before, &bytes)), finish(before + words.sum::<u64>()));
        }
    }
}
