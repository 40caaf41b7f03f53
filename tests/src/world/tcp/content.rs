//! What a connection carries: bytes that follow from their place, so that what arrives can be compared
//! without having been kept.

/// Fills `bytes` with what stands at `offset` of the content named by `key`
pub(super) fn fill(key: u64, offset: u64, bytes: &mut [u8]) {
    let mut place = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = word(key, place / 8).to_le_bytes();
        let skip = (place % 8) as usize;
        let len = (8 - skip).min(rest.len());
        let (now, later) = rest.split_at_mut(len);
        now.copy_from_slice(&word[skip..skip + len]);
        place += len as u64;
        rest = later;
    }
}

/// Returns the first place, counted from `offset`, at which `bytes` are not the content
pub(super) fn first_wrong(key: u64, offset: u64, bytes: &[u8]) -> Option<u64> {
    let mut expected = [0; 512];
    let mut place = offset;
    for part in bytes.chunks(expected.len()) {
        let expected = &mut expected[..part.len()];
        fill(key, place, expected);
        if expected != part {
            let wrong = expected.iter().zip(part).position(|(one, other)| one != other);
            return wrong.map(|wrong| place + wrong as u64);
        }
        place += part.len() as u64;
    }
    None
}

/// Mixes a key and a place (the finalizer of SplitMix64)
fn word(key: u64, index: u64) -> u64 {
    let mut mixed = key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_however_it_is_cut() {
        let mut whole = [0; 3_000];
        fill(7, 0, &mut whole);

        for (start, end) in [(0, 1), (3, 17), (8, 16), (511, 1_600), (2_999, 3_000)] {
            let mut part = vec![0; end - start];
            fill(7, start as u64, &mut part);
            assert_eq!(part, whole[start..end]);
            assert_eq!(first_wrong(7, start as u64, &part), None);
        }
    }

    #[test]
    fn lost_repeated_and_changed_bytes_are_found() {
        let mut whole = [0; 2_000];
        fill(7, 0, &mut whole);

        assert_eq!(first_wrong(7, 0, &whole[1..]), Some(0));
        let repeated = [&whole[..900], &whole[880..]].concat();
        assert_eq!(first_wrong(7, 0, &repeated), Some(900));
        whole[1_700] ^= 1;
        assert_eq!(first_wrong(7, 0, &whole), Some(1_700));
    }
}
