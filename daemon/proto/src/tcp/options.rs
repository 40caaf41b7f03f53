//! Options of a TCP segment: what splitting can honour, and what it removes.

/// What the options of a SYN or SYN-ACK say
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Offer {
    /// Largest segment that its sender takes
    pub(super) mss: Option<u16>,
    /// Shift of its windows
    pub(super) scale: Option<u8>,
    /// Whether it takes selective acknowledgements
    pub(super) sack: bool,
}

/// What becomes of a SYN with these options
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Filtered {
    /// Nothing may be changed in it: the connection is signed
    Untouchable,
    /// It goes with these options, padded to a multiple of four bytes
    Split(Offer, Vec<u8>),
}

/// Goes through options: kind and body of each; an end that makes no sense is left out
fn each(mut options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    core::iter::from_fn(move || {
        loop {
            let (kind, rest) = options.split_first()?;
            match *kind {
                END => return None,
                NOP => options = rest,
                kind => {
                    let len = usize::from(*rest.first()?);
                    let body = options.get(2..len)?;
                    options = &options[len..];
                    return Some((kind, body));
                }
            }
        }
    })
}

/// Removes what splitting cannot honour from the options of a SYN or SYN-ACK
///
/// What is kept is what both ends must agree on and nobody in between needs to act on: MSS, window
/// scale and SACK-permitted. Timestamps, Multipath TCP, Fast Open and whatever is not known go.
pub(super) fn filter(options: &[u8]) -> Filtered {
    let mut offer = Offer::default();
    let mut kept = Vec::with_capacity(12);
    for (kind, body) in each(options) {
        match (kind, body) {
            (MD5 | AUTHENTICATION, _) => return Filtered::Untouchable,
            (MSS, [high, low]) => {
                offer.mss = Some(u16::from_be_bytes([*high, *low]));
                kept.extend_from_slice(&[MSS, 4, *high, *low]);
            }
            (SCALE, [shift]) => {
                offer.scale = Some((*shift).min(SCALE_MAX));
                kept.extend_from_slice(&[NOP, SCALE, 3, *shift]);
            }
            (SACK_PERMITTED, []) => {
                offer.sack = true;
                kept.extend_from_slice(&[NOP, NOP, SACK_PERMITTED, 2]);
            }
            _ => {}
        }
    }
    if kept.len() > OPTIONS_MAX {
        // Only one that repeats itself gets here.
        return Filtered::Untouchable;
    }
    Filtered::Split(offer, kept)
}

/// Writes a selective acknowledgement of these blocks, at most three
pub(super) fn sack(blocks: impl Iterator<Item = (u32, u32)>) -> Vec<u8> {
    let mut out = vec![NOP, NOP, SACK, 2];
    for (start, end) in blocks.take(3) {
        out.extend_from_slice(&start.to_be_bytes());
        out.extend_from_slice(&end.to_be_bytes());
        out[3] += 8;
    }
    if out.len() == 4 { Vec::new() } else { out }
}

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const MD5: u8 = 19;
const AUTHENTICATION: u8 = 29;
/// Largest shift of a window (RFC 7323)
const SCALE_MAX: u8 = 14;
/// Room for options in a header
const OPTIONS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_splitting_cannot_honour_is_removed() {
        // MSS, SACK-permitted, timestamps, NOP, window scale, Fast Open, Multipath TCP
        let options = [
            2, 4, 5, 0x50, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7, 34, 2, 30, 4, 0, 1,
        ];

        let Filtered::Split(offer, kept) = filter(&options) else { panic!("untouchable") };

        assert_eq!(offer, Offer { mss: Some(0x550), scale: Some(7), sack: true });
        assert_eq!(kept, [2, 4, 5, 0x50, 1, 1, 4, 2, 1, 3, 3, 7]);
    }

    #[test]
    fn signed_connections_are_not_touched() {
        let mut signed = vec![MD5, 18];
        signed.resize(18, 7);

        assert_eq!(filter(&signed), Filtered::Untouchable);
        assert_eq!(filter(&[AUTHENTICATION, 4, 1, 1]), Filtered::Untouchable);
    }

    #[test]
    fn options_that_end_too_early_are_left_out() {
        for rubbish in [&[2][..], &[2, 4, 5], &[2, 0, 0, 0], &[2, 1], &[0, 2, 4, 5, 5]] {
            assert_eq!(filter(rubbish), Filtered::Split(Offer::default(), Vec::new()));
        }
    }
}
