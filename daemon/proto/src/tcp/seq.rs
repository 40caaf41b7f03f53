//! Sequence numbers of 32 bits, and the stream offsets of 64 that they stand for.
//!
//! An offset counts from the initial sequence number: the SYN is at 0, the first byte at 1. A
//! connection never wraps in offsets, however many gigabytes it carries.

/// Returns the sequence number of an offset
pub(super) fn seq_of(isn: u32, offset: u64) -> u32 {
    // The lower 32 bits are what a sequence number is.
    isn.wrapping_add(offset as u32)
}

/// Returns the offset that a sequence number stands for, the one that is nearest to `around`
///
/// Nothing where that would lie before the SYN.
pub(super) fn offset_of(isn: u32, seq: u32, around: u64) -> Option<u64> {
    let ahead = seq.wrapping_sub(seq_of(isn, around)).cast_signed();
    around.checked_add_signed(ahead.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_on_where_sequence_numbers_wrap() {
        let isn = u32::MAX - 10;

        for around in [0, 5, 20, (1 << 32) + 7, (3 << 32) - 1] {
            for offset in [around, around + 100_000, around + (1 << 30)] {
                assert_eq!(offset_of(isn, seq_of(isn, offset), around), Some(offset));
            }
        }
        assert_eq!(offset_of(isn, isn.wrapping_sub(1), 0), None);
    }
}
