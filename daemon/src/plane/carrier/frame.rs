//! Messages on a stream: each behind its length, two bytes, big-endian.
//!
//! The bytes come from strangers. A length that no message can have ends the connection; that is
//! all that can be wrong here, for what is inside is sealed.

use std::mem;

use fastvpn_proto::limits::{DATA_HEADER_LEN, MESSAGE_MAX, TAG_LEN};
use thiserror::Error;

/// A length that no message has
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("no message has {0} bytes")]
pub(super) struct BadLength(usize);

/// Puts each message of a train behind its length
///
/// All messages are `segment` bytes long, the last one may be shorter.
pub(super) fn framed(train: &[u8], segment: usize) -> Vec<u8> {
    let segment = segment.clamp(1, MESSAGE_MAX);
    let mut framed = Vec::with_capacity(train.len() + PREFIX * train.len().div_ceil(segment));
    for message in train.chunks(segment) {
        let len = u16::try_from(message.len()).unwrap_or_default();
        framed.extend_from_slice(&len.to_be_bytes());
        framed.extend_from_slice(message);
    }
    framed
}

/// Returns how many of the bytes that have come so far make whole messages
///
/// # Errors
/// If one of the lengths is none that a message has, even if the message is not whole yet.
pub(super) fn whole(bytes: &[u8]) -> Result<usize, BadLength> {
    let mut end = 0;
    while let Some(len) = next(&bytes[end..])? {
        if bytes.len() - end < PREFIX + len {
            break;
        }
        end += PREFIX + len;
    }
    Ok(end)
}

/// Takes the first message from the front of `bytes`, if it is whole
pub(super) fn take<'a>(bytes: &mut &'a mut [u8]) -> Option<&'a mut [u8]> {
    let len = next(bytes).ok()??;
    if bytes.len() < PREFIX + len {
        return None;
    }
    let (first, rest) = mem::take(bytes).split_at_mut(PREFIX + len);
    *bytes = rest;
    Some(&mut first[PREFIX..])
}

/// Returns the length of the first message, once its prefix is there
fn next(bytes: &[u8]) -> Result<Option<usize>, BadLength> {
    let Some(prefix) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes(*prefix));
    if (MESSAGE_LEAST..=MESSAGE_MAX).contains(&len) { Ok(Some(len)) } else { Err(BadLength(len)) }
}

/// Bytes of a length
pub(super) const PREFIX: usize = 2;
/// Shortest message there is: a data message without frames
const MESSAGE_LEAST: usize = DATA_HEADER_LEN + TAG_LEN;
/// Bytes that the largest message takes on a stream
pub(super) const FRAME_MAX: usize = PREFIX + MESSAGE_MAX;

const _: () = assert!(MESSAGE_MAX <= u16::MAX as usize, "a length fits into its prefix");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn train_is_cut_into_its_messages() {
        let train: Vec<u8> = (0..100).collect();

        let framed = framed(&train, 40);

        assert_eq!(framed[..2], [0, 40]);
        assert_eq!(framed[42..44], [0, 40]);
        assert_eq!(framed[84..86], [0, 20]);
        assert_eq!(framed.len(), 106);
    }

    #[test]
    fn half_a_message_waits_for_the_other_half() {
        let both = framed(&[7; 80], 40);

        assert_eq!(whole(&both[..1]), Ok(0));
        assert_eq!(whole(&both[..41]), Ok(0));
        assert_eq!(whole(&both[..43]), Ok(42));
        assert_eq!(whole(&both), Ok(84));
    }

    #[test]
    fn what_other_programs_say_first_is_no_length() {
        for words in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", b"\0\0", b"\0\x1f", b"\xff\xff"] {
            assert!(whole(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn bad_length_shows_behind_good_messages() {
        let mut bytes = framed(&[7; 40], 40);
        bytes.extend_from_slice(b"\0\0");

        assert_eq!(whole(&bytes), Err(BadLength(0)));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(MESSAGE_LEAST..MESSAGE_MAX, 1..8),
        ) {
            let mut bytes = Vec::new();
            for (number, len) in messages.iter().enumerate() {
                bytes.extend(framed(&vec![number as u8; *len], *len));
            }
            prop_assert_eq!(whole(&bytes), Ok(bytes.len()));
            let mut rest = &mut bytes[..];
            for (number, len) in messages.iter().enumerate() {
                let message = take(&mut rest).unwrap();
                prop_assert_eq!(message.len(), *len);
                prop_assert!(message.iter().all(|byte| *byte == number as u8));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn nothing_that_arrives_does_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(end) = whole(&bytes) {
                prop_assert!(end <= bytes.len());
            }
            let mut rest = &mut bytes[..];
            while take(&mut rest).is_some() {}
        }
    }
}
