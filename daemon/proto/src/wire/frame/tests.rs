use proptest::prelude::*;

use super::*;

#[test]
fn frames_look_as_the_protocol_says() {
    let key = PublicKey::from_bytes([7; 32]);
    let segment = Segment { conv: 1, sn: 2, una: 3, wnd: 4, frg: 5, data: b"ab" };
    let fragment = Fragment { id: 1, offset: 2, total: 6, gso: None, data: b"cd" };
    let gso = Some(Gso { size: 3, transport: 20 });
    let cases: [(Frame<'_>, &[u8]); 12] = [
        (Frame::Ping, &[1, 0, 0]),
        (Frame::Challenge(258), &[3, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]),
        (Frame::Answer(1), &[4, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]),
        (Frame::Segment(segment), &[5, 0, 15, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 4, 5, b'a', b'b']),
        (Frame::Window { conv: 1, una: 2, wnd: 3 }, &[6, 0, 8, 0, 1, 0, 0, 0, 2, 0, 3]),
        (Frame::Datagram(b"ip"), &[7, 0, 2, b'i', b'p']),
        (Frame::Fragment(fragment), &[8, 0, 10, 0, 0, 0, 1, 0, 2, 0, 6, b'c', b'd']),
        (
            Frame::Fragment(Fragment { gso, ..fragment }),
            &[14, 0, 14, 0, 3, 0, 20, 0, 0, 0, 1, 0, 2, 0, 6, b'c', b'd'],
        ),
        (Frame::Echo(1), &[10, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]),
        (Frame::EchoReply(1), &[11, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]),
        (Frame::Close(9), &[12, 0, 1, 9]),
        (Frame::Leaving, &[15, 0, 0]),
    ];
    for (frame, bytes) in cases {
        assert_eq!(encoded(&frame), bytes);
        assert_eq!(frame.encoded_len(), bytes.len());
        assert_eq!(parsed(bytes), [Ok(frame)]);
    }

    let relay = encoded(&Frame::Relay { node: key, message: b"m" });
    assert_eq!((relay.len(), &relay[..3]), (RELAY_OVERHEAD + 1, [9, 0, 33].as_slice()));
    assert_eq!(parsed(&relay), [Ok(Frame::Relay { node: key, message: b"m" })]);
}

#[test]
fn acknowledgement_looks_as_the_protocol_says() {
    let mut out = Vec::new();
    let ranges = [95..=100, 90..=92, 10..=10];

    let marks = Marks { capable: 95, congested: 2 };
    let head = AckHead { path: 3, delay: Duration::from_micros(260), written: 0x0102_0304, marks };
    let told = encode_ack(head, ranges.clone().into_iter(), &mut out);

    let bytes: &[u8] = &[
        2, 0, 26, 3, 0, 0, 1, 4, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 100, 0x40, 95, 2, 5, 1, 2, 0x40,
        78, 0,
    ];
    assert_eq!((told, out.as_slice()), (3, bytes));
    let Some(Ok(Frame::Ack(ack))) = frames(&out).next() else { panic!() };
    assert_eq!((ack.path, ack.delay, ack.written, ack.largest), (3, head.delay, 0x0102_0304, 100));
    assert_eq!(ack.marks, marks);
    assert_eq!(ack.ranges().collect::<Vec<_>>(), ranges);
    assert_eq!(encoded(&Frame::Ack(ack)), out);
}

#[test]
fn acknowledgement_takes_no_more_than_its_room_and_its_number_of_ranges() {
    let ranges = || (0..1000_u64).rev().map(|n| n * 1000..=n * 1000);
    for room in 0..200 {
        let mut out = Vec::new();
        let told = encode_ack_within(AckHead::default(), ranges(), room, &mut out);
        assert!(out.len() <= room && (told == 0) == out.is_empty());
        assert_eq!(frames(&out).count(), usize::from(told > 0));
    }

    let mut out = Vec::new();
    assert_eq!(encode_ack(AckHead::default(), ranges(), &mut out), ACK_RANGES_MAX);
    assert!(
        matches!(frames(&out).next(), Some(Ok(Frame::Ack(ack))) if ack.ranges().count() == ACK_RANGES_MAX)
    );
    assert_eq!(encode_ack(AckHead::default(), core::iter::empty(), &mut Vec::new()), 0);
}

#[test]
fn impossible_acknowledgements_are_refused() {
    let refused = |largest: u64, runs: &[u8]| {
        let mut body = vec![2];
        body.extend((19 + runs.len() as u16).to_be_bytes());
        body.extend([0; 9]);
        body.extend(largest.to_be_bytes());
        body.extend([0; 2]);
        body.extend(runs);
        parsed(&body) == [Err(Malformed)]
    };
    assert!(!refused(10, &[10]), "all from zero on");
    assert!(refused(10, &[]), "no run");
    assert!(refused(10, &[11]), "a run below zero");
    assert!(!refused(10, &[2, 6, 0]));
    assert!(refused(10, &[2, 7, 0]), "a gap below zero");
    assert!(refused(10, &[2, 6, 1]), "a second run below zero");
    assert!(refused(10, &[2, 6]), "a gap without a run");
    assert!(refused(10, &[0x40]), "half an integer");
    assert!(refused(1 << 56, &[0]), "a number that no path has");
    assert!(!refused(5000, &[0; 1023]), "512 ranges");
    assert!(refused(5000, &[0; 1025]), "513 ranges");
}

#[test]
fn padding_ends_a_message_and_unknown_frames_are_skipped() {
    let bytes = [0x63, 0, 2, 9, 9, 1, 0, 0, 0, 0xff, 0xff, 0xff];
    let mut frames = frames(&bytes);

    assert_eq!(frames.next(), Some(Ok(Frame::Ping)));
    assert_eq!((frames.next(), frames.unknown()), (None, 1));
    assert_eq!(parsed(&[0]), []);
    assert_eq!(parsed(&[]), []);
}

#[test]
fn nothing_follows_an_error() {
    for bad in [
        &[1_u8] as &[u8],
        &[1, 0],
        &[1, 0, 1],
        &[1, 0, 1, 0],
        &[3, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        &[5, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[6, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[8, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1],
        &[8, 0, 9, 0, 0, 0, 0, 0, 1, 0, 1, 7],
        &[
            9, 0, 31, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0,
        ],
        &[12, 0, 0],
    ] {
        let bytes = [bad, &[1, 0, 0]].concat();
        assert_eq!(parsed(bad).last(), Some(&Err(Malformed)), "{bad:?}");
        let errors = parsed(&bytes).into_iter().skip_while(Result::is_ok).count();
        assert!(errors <= 1, "{bytes:?}");
    }
}

#[test]
fn only_acknowledgement_and_close_ask_for_none() {
    let mut out = Vec::new();
    encode_ack(AckHead::default(), core::iter::once(0..=0), &mut out);

    assert!(parsed(&out).iter().all(|frame| !frame.unwrap().is_eliciting()));
    assert!(!Frame::Close(0).is_eliciting());
    assert!(Frame::Leaving.is_eliciting());
    assert!(Frame::Ping.is_eliciting() && Frame::Datagram(&[]).is_eliciting());
}

proptest! {
    #[test]
    fn ranges_round_trip(gaps in prop::collection::vec((0..1_u64 << 40, 0..1_u64 << 40), 1..32)) {
        let mut ranges = Vec::new();
        let mut next = 0;
        for (gap, run) in gaps {
            ranges.push(next + gap..=next + gap + run);
            next += gap + run + 2;
        }
        ranges.reverse();
        let mut out = Vec::new();

        prop_assert_eq!(encode_ack(AckHead::default(), ranges.iter().cloned(), &mut out), ranges.len());

        let Some(Ok(Frame::Ack(ack))) = frames(&out).next() else { panic!() };
        prop_assert_eq!(ack.ranges().collect::<Vec<_>>(), ranges);
    }

    #[test]
    fn random_bytes_are_refused_or_mean_what_they_say(
        pieces in prop::collection::vec(
            (0..16_u8, prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..50)),
            0..8,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for (kind, body) in pieces {
            bytes.extend([kind, 0, body.len() as u8]);
            bytes.extend(body);
        }
        bytes.extend(tail);
        for frame in frames(&bytes).map_while(Result::ok) {
            let again = encoded(&frame);
            prop_assert_eq!(again.len(), frame.encoded_len());
            prop_assert_eq!(parsed(&again), [Ok(frame)]);
            if let Frame::Ack(ack) = frame {
                let mut limit = u64::MAX;
                for range in ack.ranges() {
                    prop_assert!(range.start() <= range.end() && *range.end() < limit);
                    limit = range.start().saturating_sub(1);
                }
            }
        }
    }
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

fn parsed(bytes: &[u8]) -> Vec<Result<Frame<'_>, Malformed>> {
    frames(bytes).collect()
}
