//! Integers of variable length, as in QUIC (RFC 9000, section 16).
//!
//! The two upper bits of the first byte tell the length: 1, 2, 4 or 8 bytes, big-endian. PROTOCOL.md,
//! section "Frames".

/// Largest value that can be written
pub(super) const MAX: u64 = (1 << 62) - 1;

/// Returns how many bytes [`write`] needs for `value`
pub(super) fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Writes `value`, which is cut to [`MAX`]
pub(super) fn write(value: u64, out: &mut Vec<u8>) {
    let value = value.min(MAX);
    let bytes = value.to_be_bytes();
    match len(value) {
        1 => out.push(bytes[7]),
        2 => out.extend_from_slice(&[bytes[6] | 0x40, bytes[7]]),
        4 => out.extend_from_slice(&[bytes[4] | 0x80, bytes[5], bytes[6], bytes[7]]),
        _ => {
            out.push(bytes[0] | 0xc0);
            out.extend_from_slice(&bytes[1..]);
        }
    }
}

/// Takes one integer off the front of `bytes`; nothing where they end too early
pub(super) fn read(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let (taken, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    *bytes = rest;
    let tail = &taken[1..];
    Some(tail.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_rfc_9000_are_read() {
        let examples: [(&[u8], u64); 4] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ];
        for (mut bytes, value) in examples {
            let mut out = Vec::new();
            write(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(read(&mut bytes), Some(value));
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn bytes_that_end_early_give_nothing() {
        assert_eq!(read(&mut [].as_slice()), None);
        assert_eq!(read(&mut [0x40].as_slice()), None);
        assert_eq!(read(&mut [0xc0, 0, 0, 0, 0, 0, 0].as_slice()), None);
    }
}
