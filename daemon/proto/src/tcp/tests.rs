//! The rules of split connections, one by one.

use super::segment::{FIN, PSH, RST, URG};
use super::testing::{CLIENT, ISN, OPTIONS, Pair, SERVER, Say};
use super::*;
use crate::limits::{LANE_CREDIT_FIRST, LANE_GIVE_UP};
use crate::time::Duration;
use crate::wire::frame::Frame;
use crate::wire::lane::Marks;

fn syn(pair: &mut Pair, options: &[u8]) -> Handling {
    pair.say(CLIENT, Say { seq: ISN[0], flags: SYN, options, ..Say::default() })
}

#[test]
fn nothing_is_accepted_before_the_far_kernel_accepts() {
    let mut pair = Pair::new();

    assert_eq!(syn(&mut pair, &OPTIONS), Handling::Taken);
    pair.pump();

    assert_eq!(pair.last(CLIENT), None);
    let seen = pair.last(SERVER).unwrap();
    assert_eq!((seen.seq, seen.flags, &seen.options[..]), (ISN[0], SYN, &OPTIONS[..]));
}

#[test]
fn third_acknowledgement_reaches_the_far_kernel_and_not_before() {
    let mut pair = Pair::new();
    syn(&mut pair, &OPTIONS);
    pair.pump();
    pair.written[SERVER].clear();
    let ack = ISN[0].wrapping_add(1);
    let flags = SYN | ACK;
    pair.say(SERVER, Say { seq: ISN[1], ack, flags, options: &OPTIONS, ..Say::default() });
    pair.pump();
    assert_eq!(pair.last(SERVER), None);
    let seen = pair.last(CLIENT).unwrap();
    assert_eq!((seen.seq, seen.ack, seen.flags), (ISN[1], ack, SYN | ACK));

    pair.says(CLIENT, 0, 0, &[]);
    pair.pump();

    let seen = pair.last(SERVER).unwrap();
    assert_eq!((seen.seq, seen.ack, seen.flags), (ack, ISN[1] + 1, ACK));
}

#[test]
fn refused_is_refused_with_the_right_numbers() {
    let mut pair = Pair::new();
    syn(&mut pair, &OPTIONS);
    pair.pump();

    pair.say(SERVER, Say { ack: ISN[0].wrapping_add(1), flags: RST | ACK, ..Say::default() });
    pair.pump();

    let seen = pair.last(CLIENT).unwrap();
    assert_eq!((seen.ack, seen.flags), (ISN[0].wrapping_add(1), RST | ACK));
    assert_eq!(pair.pools.each_ref().map(|pool| pool.promised()), [0, 0]);
}

#[test]
fn signed_connections_and_unknown_ones_pass() {
    let mut pair = Pair::new();
    let mut signed = vec![19, 18];
    signed.resize(20, 0);

    assert_eq!(syn(&mut pair, &signed), Handling::Plain);
    let say = Say { seq: 7, flags: ACK, data: b"in the middle", ..Say::default() };
    assert_eq!(pair.say(CLIENT, say), Handling::Plain);
    let flags = SYN | ACK;
    assert_eq!(pair.say(CLIENT, Say { flags, ..Say::default() }), Handling::Plain);
}

#[test]
fn node_without_memory_or_that_declines_leaves_a_connection_plain() {
    for (side, declines) in [(CLIENT, false), (SERVER, false), (CLIENT, true), (SERVER, true)] {
        let mut pair = Pair::new();
        if declines {
            pair.nodes[side].stance = Stance::Decline;
        } else {
            pair.pools[side].size = 0;
        }
        let taken = syn(&mut pair, &OPTIONS);
        assert_eq!(taken, if side == CLIENT { Handling::Plain } else { Handling::Taken });
        pair.pump();
        if side == SERVER {
            // The SYN-ACK has passed as a packet, and our kernel answers it.
            let say = Say { seq: ISN[0].wrapping_add(1), ack: 1, flags: ACK, ..Say::default() };
            assert_eq!(pair.say(CLIENT, say), Handling::Plain);
        }
        assert!(pair.nodes.iter().all(Connections::is_empty));
        assert_eq!(pair.pools[CLIENT].promised(), 0);
    }
}

#[test]
fn connection_that_is_split_stays_so_when_new_ones_are_declined() {
    let mut pair = Pair::open();
    pair.nodes.iter_mut().for_each(|node| node.stance = Stance::Decline);

    pair.says(CLIENT, 0, 0, b"goes on");
    pair.pump();

    assert_eq!(pair.bytes(SERVER), b"goes on");
}

#[test]
fn sparing_node_splits_its_own_while_memory_is_plenty_and_the_others_as_long_as_there_is_any() {
    for (side, short, lanes) in [(CLIENT, false, 1), (CLIENT, true, 0), (SERVER, true, 1)] {
        let mut pair = Pair::new();
        pair.nodes[side].stance = Stance::Sparing;
        if short {
            // More than half of it is in use for others.
            pair.pools[side].set_promised(pair.pools[side].size / 3 * 2);
        }

        let taken = syn(&mut pair, &OPTIONS);
        assert_eq!(taken, if lanes == 0 { Handling::Plain } else { Handling::Taken });
        pair.pump();
        let ack = ISN[0].wrapping_add(1);
        let say = Say { seq: ISN[1], ack, flags: SYN | ACK, options: &OPTIONS, ..Say::default() };
        assert_eq!(pair.say(SERVER, say), taken);
        pair.pump();

        assert!(pair.nodes.iter().all(|node| node.len() == lanes), "{side} {short}");
    }
}

#[test]
fn node_says_plain_where_a_new_connection_would_be() {
    let pair = Pair::new();
    let splits = |stance, size| pair.nodes[CLIENT].would_split(stance, &Pool::new(size));

    assert!(splits(Stance::Split, 1 << 20) && splits(Stance::Sparing, 1 << 20));
    assert!(!splits(Stance::Split, 0) && !splits(Stance::Sparing, 0));
    assert!(!splits(Stance::Decline, 1 << 20));
}

#[test]
fn syn_that_travelled_as_a_packet_does_so_again_whatever_is_split_by_now() {
    let mut pair = Pair::new();
    pair.nodes[CLIENT].stance = Stance::Decline;
    assert_eq!(syn(&mut pair, &OPTIONS), Handling::Plain);

    pair.nodes[CLIENT].stance = Stance::Split;
    assert_eq!(syn(&mut pair, &OPTIONS), Handling::Plain);

    // The answer to either goes past the lanes as well, and so does what comes then.
    let ack = ISN[0].wrapping_add(1);
    let say = Say { seq: ISN[1], ack, flags: SYN | ACK, options: &OPTIONS, ..Say::default() };
    assert_eq!(pair.say(SERVER, say), Handling::Plain);
    let say = Say { seq: ack, ack: ISN[1] + 1, flags: ACK, ..Say::default() };
    assert_eq!(pair.say(CLIENT, say), Handling::Plain);
    let another = Say { seq: 7, flags: SYN, options: &OPTIONS, ..Say::default() };
    assert_eq!(pair.say(CLIENT, another), Handling::Taken);
}

#[test]
fn packet_with_a_syn_ends_what_is_left_of_a_connection_that_is_over() {
    let mut pair = Pair::open();
    let reset =
        Say { seq: ISN[0].wrapping_add(1), ack: ISN[1] + 1, flags: RST | ACK, ..Say::default() };
    pair.say(CLIENT, reset);
    pair.pump();
    assert_eq!(pair.last(SERVER).unwrap().flags & RST, RST);
    // For a while the kernel would be told once more.
    let ack = ISN[0].wrapping_add(501);
    let syn_ack = Say { seq: 77, ack, flags: SYN | ACK, options: &OPTIONS, ..Say::default() };

    let fresh = syn_from(&pair, 500);
    assert!(pair.nodes[SERVER].on_plain(&fresh, None));

    assert_eq!(pair.say(SERVER, syn_ack), Handling::Plain);
    assert_eq!(pair.last(SERVER), None);
}

#[test]
fn packet_with_a_syn_changes_nothing_for_a_connection_that_is_open() {
    let mut pair = Pair::open();

    let fresh = syn_from(&pair, 500);
    assert!(pair.nodes[SERVER].on_plain(&fresh, None));

    pair.says(CLIENT, 0, 0, b"goes on");
    pair.pump();
    assert_eq!(pair.bytes(SERVER), b"goes on");
}

/// Another SYN of the client, so far behind its first
fn syn_from(pair: &Pair, ahead: u32) -> Vec<u8> {
    let (ends, seq) = (pair.ends, ISN[0].wrapping_add(ahead));
    let (window, urgent, options, data, class) = (60_000, 0, &OPTIONS[..], &[][..], 0);
    Segment { ends, seq, ack: 0, flags: SYN, window, urgent, options, data, class }.encode()
}

#[test]
fn simultaneous_open_is_left_to_the_kernels() {
    let mut pair = Pair::new();
    syn(&mut pair, &OPTIONS);
    pair.say(SERVER, Say { seq: ISN[1], flags: SYN, options: &OPTIONS, ..Say::default() });

    // Both opens are on their way before either arrives.
    let mut sent: Vec<(usize, Vec<u8>)> = Vec::new();
    for at in [CLIENT, SERVER] {
        let conv = pair.nodes[at].poll_ready().unwrap();
        let mut out = Vec::new();
        pair.nodes[at].write_frame(conv, 1300, &mut out, pair.now).unwrap();
        sent.push((1 - at, out));
    }
    for (to, out) in sent {
        pair.hear(to, crate::wire::frame::frames(&out).next().unwrap().unwrap()).unwrap();
    }

    for at in [CLIENT, SERVER] {
        let seen = pair.last(at).unwrap();
        assert_eq!((seen.seq, seen.flags), (ISN[1 - at], SYN));
        let say = Say { seq: ISN[at], ack: 9, flags: SYN | ACK, ..Say::default() };
        assert_eq!(pair.say(at, say), Handling::Plain);
        assert_eq!(pair.pools[at].promised(), 0);
    }
}

#[test]
fn data_is_acknowledged_at_once_and_arrives_with_its_own_numbers() {
    let mut pair = Pair::open();

    pair.says(CLIENT, 0, 0, b"hello");
    let seen = pair.last(CLIENT).unwrap();
    assert_eq!((seen.seq, seen.ack, seen.flags), (ISN[1] + 1, ISN[0].wrapping_add(6), ACK));
    pair.pump();

    let seen = pair.last(SERVER).unwrap();
    assert_eq!((seen.seq, seen.ack), (ISN[0].wrapping_add(1), ISN[1] + 1));
    assert_eq!((seen.flags, &seen.data[..]), (ACK | PSH, &b"hello"[..]));
}

#[test]
fn sequence_numbers_wrap_within_a_stream() {
    let mut pair = Pair::open();
    let bytes: Vec<u8> = (0..8000_u32).map(|at| (at / 5) as u8).collect();

    let mut heard = Vec::new();
    for (number, piece) in bytes.chunks(500).enumerate() {
        pair.says(CLIENT, number as u32 * 500, 0, piece);
        pair.pump();
        pair.says(SERVER, 0, number as u32 * 500 + 500, &[]);
        heard.extend(pair.bytes(SERVER));
    }

    assert_eq!(heard, bytes);
}

#[test]
fn segments_are_no_larger_than_the_receiver_takes() {
    let mut pair = Pair::open();
    let data = [7; 1300];
    for number in 0..7 {
        pair.says(CLIENT, number * 1300, 0, &data);
    }
    pair.pump();
    assert!(pair.written[SERVER].iter().all(|seen| seen.data.len() <= 1000));
    assert_eq!(pair.bytes(SERVER).len(), 9_100);
}

#[test]
fn bulk_for_the_kernel_is_shared_with_the_window_and_stays_right_while_that_changes() {
    let mut pair = Pair::open();
    let data: Vec<u8> = (0..12_000_u32).map(|at| (at / 7) as u8).collect();
    let take = |pair: &mut Pair, range: core::ops::Range<usize>| {
        let seq = ISN[CLIENT].wrapping_add(1).wrapping_add(range.start as u32);
        let frame = LaneFrame::Data { conv: 0, seq, marks: Marks::default(), data: &data[range] };
        let pool = &mut pair.pools[SERVER];
        pair.nodes[SERVER].handle_frame(&frame, pool, pair.now).unwrap();
    };
    take(&mut pair, 0..4000);
    take(&mut pair, 4000..8000);

    pair.nodes[SERVER].flush(&mut pair.pools[SERVER], pair.now);
    let waits = pair.nodes[SERVER].poll_packet().unwrap();

    assert_eq!((waits.head().len(), waits.len(), waits.packets()), (40, 8040, 8));
    let pieces: Vec<_> = waits.pieces().skip(1).map(<[u8]>::as_ptr).collect();
    // More comes, all of it is acknowledged, and the connection ends, before the packet is written.
    take(&mut pair, 8000..12_000);
    pair.collect(SERVER);
    pair.says(SERVER, 0, 12_000, &[]);
    pair.nodes[SERVER].abandon(&mut pair.pools[SERVER], pair.now);
    let seen = waits.pieces().skip(1).collect::<Vec<_>>();
    assert_eq!(seen.iter().map(|piece| piece.as_ptr()).collect::<Vec<_>>(), pieces);
    assert!(seen.concat() == data[..8000]);
    let written: Vec<u8> = pair.written[SERVER].drain(..).flat_map(|seen| seen.data).collect();
    assert!(written == data[8000..8000 + written.len()] && written.len() >= 2000);
}

#[test]
fn fin_is_acknowledged_only_when_the_far_kernel_has_acknowledged_it() {
    let mut pair = Pair::open();
    pair.says(CLIENT, 0, 0, b"bye");
    let (seq, ack) = (ISN[0].wrapping_add(4), ISN[1] + 1);
    pair.say(CLIENT, Say { seq, ack, flags: FIN | ACK, ..Say::default() });
    pair.pump();
    assert_eq!(pair.last(CLIENT).unwrap().ack, seq);
    let seen = pair.last(SERVER).unwrap();
    assert_eq!((seen.flags & FIN, &seen.data[..]), (FIN, &b"bye"[..]));

    pair.says(SERVER, 0, 4, &[]);
    pair.pump();

    assert_eq!(pair.last(CLIENT).unwrap().ack, seq.wrapping_add(1));
}

#[test]
fn both_ends_forget_a_connection_that_ended_well() {
    let mut pair = Pair::open();
    let flags = FIN | ACK;
    pair.say(CLIENT, Say { seq: ISN[0].wrapping_add(1), ack: ISN[1] + 1, flags, ..Say::default() });
    pair.pump();
    pair.says(SERVER, 0, 1, b"still here");
    pair.pump();
    assert_eq!(pair.bytes(CLIENT), b"still here");
    let ack = ISN[0].wrapping_add(2);
    pair.say(SERVER, Say { seq: ISN[1] + 11, ack, flags, ..Say::default() });
    pair.pump();
    pair.says(CLIENT, 1, 11, &[]);
    pair.pump();
    let last = pair.last(SERVER);
    // A kernel that has not heard the last acknowledgement hears it again.
    pair.say(SERVER, Say { seq: ISN[1] + 11, ack, flags, ..Say::default() });
    assert_eq!(pair.last(SERVER).unwrap().ack, last.unwrap().ack);
    pair.pass(Duration::from_secs(10));

    assert!(pair.nodes.iter().all(Connections::is_empty));
    assert_eq!(pair.pools.each_ref().map(|pool| pool.promised()), [0, 0]);
}

#[test]
fn reset_overtakes_data_and_names_what_the_kernel_expects() {
    let mut pair = Pair::open();
    pair.says(CLIENT, 0, 0, b"delivered");
    pair.pump();
    pair.says(CLIENT, 9, 0, b"lost");
    let (seq, ack) = (ISN[0].wrapping_add(14), ISN[1] + 1);
    pair.say(CLIENT, Say { seq, ack, flags: RST | ACK, ..Say::default() });
    pair.pump();

    let seen = pair.last(SERVER).unwrap();
    assert_eq!((seen.flags, seen.seq), (RST | ACK, ISN[0].wrapping_add(10)));
    assert_eq!(pair.pools.each_ref().map(|pool| pool.promised()), [0, 0]);
    pair.pass(Duration::from_secs(200));
    assert!(pair.nodes.iter().all(Connections::is_empty));
}

#[test]
fn reset_with_a_number_out_of_the_window_is_none() {
    let mut pair = Pair::open();
    let seq = ISN[0].wrapping_add(1 << 30);

    pair.say(CLIENT, Say { seq, ack: ISN[1] + 1, flags: RST | ACK, ..Say::default() });
    pair.says(CLIENT, 0, 0, b"alive");
    pair.pump();

    assert_eq!(pair.bytes(SERVER), b"alive");
}

#[test]
fn urgent_pointer_is_carried() {
    let mut pair = Pair::open();
    let (seq, ack, flags) = (ISN[0].wrapping_add(1), ISN[1] + 1, ACK | URG);

    pair.say(CLIENT, Say { seq, ack, flags, urgent: 3, data: b"abcdef", ..Say::default() });
    pair.pump();

    let seen = pair.last(SERVER).unwrap();
    assert_eq!((seen.flags & URG, seen.urgent, &seen.data[..]), (URG, 3, &b"abcdef"[..]));
    pair.says(CLIENT, 6, 0, b"later");
    pair.pump();
    assert_eq!(pair.last(SERVER).unwrap().flags & URG, 0);
}

#[test]
fn keepalives_and_their_answers_travel_in_both_forms() {
    for garbage in [&[][..], &[0]] {
        let mut pair = Pair::open();
        pair.says(CLIENT, 0, 0, b"x");
        pair.pump();
        pair.says(SERVER, 0, 1, &[]);
        pair.pass(Duration::from_secs(1));
        pair.written.iter_mut().for_each(VecDeque::clear);

        pair.says(CLIENT, 0, 0, garbage);
        assert_eq!(pair.last(CLIENT), None);
        pair.pump();
        assert_eq!(pair.last(CLIENT), None);
        assert_eq!(pair.last(SERVER).unwrap().seq, ISN[0].wrapping_add(1));
        pair.says(SERVER, 0, 1, &[]);
        pair.pump();

        assert_eq!(pair.last(CLIENT).unwrap().ack, ISN[0].wrapping_add(2));
    }
}

#[test]
fn right_edge_of_the_window_never_moves_left_and_opens_again() {
    let mut pair = Pair::open();
    let data = [1; 1000];
    let (mut sent, mut edge) = (0_u32, 0);
    loop {
        pair.says(CLIENT, sent, 0, &data);
        let seen = pair.last(CLIENT).unwrap();
        let acked = seen.ack.wrapping_sub(ISN[0].wrapping_add(1));
        let right = acked + (u32::from(seen.window) << 7);
        // But for what the scale cannot express.
        assert!(right + 128 > edge, "{right} after {edge}");
        edge = right;
        if seen.window == 0 {
            break;
        }
        sent = acked;
    }
    // A window probe is answered here: nobody there could open the window.
    pair.says(CLIENT, edge - 1, 0, &[]);
    assert_eq!(pair.last(CLIENT).unwrap().window, 0);

    let mut heard = 0;
    for _ in 0..2000 {
        pair.pump();
        heard += pair.bytes(SERVER).len() as u32;
        pair.says(SERVER, 0, heard, &[]);
    }

    assert_eq!(heard, edge);
    assert!(pair.last(CLIENT).is_some_and(|seen| seen.window > 1000));
}

#[test]
fn far_end_obeys_the_window_and_asks_until_it_opens() {
    let mut pair = Pair::open();
    let (seq, ack) = (ISN[1] + 1, ISN[0].wrapping_add(1));
    pair.say(SERVER, Say { seq, ack, flags: ACK, window: Some(0), ..Say::default() });
    pair.says(CLIENT, 0, 0, b"wait");
    pair.pump();
    assert_eq!(pair.bytes(SERVER), b"");

    for _ in 0..3000 {
        pair.pass(Duration::from_secs(1));
        while let Some(seen) = pair.written[SERVER].pop_front() {
            assert_eq!((seen.seq, seen.data.len()), (ISN[0], 0));
            pair.say(SERVER, Say { seq, ack, flags: ACK, window: Some(0), ..Say::default() });
        }
    }
    pair.says(SERVER, 0, 0, &[]);

    assert_eq!(pair.bytes(SERVER), b"wait");
}

#[test]
fn kernel_that_answers_nothing_is_given_up_at_both_ends() {
    let mut pair = Pair::open();
    pair.says(CLIENT, 0, 0, b"hello?");
    pair.pump();

    pair.pass(LANE_GIVE_UP / 2);
    assert!(pair.written[SERVER].len() > 5);
    assert!(pair.written[SERVER].iter().all(|seen| seen.data == b"hello?"));
    pair.pass(LANE_GIVE_UP);

    assert_eq!(pair.last(SERVER).unwrap().flags, RST | ACK);
    assert_eq!(pair.last(CLIENT).unwrap().flags, RST | ACK);
    assert_eq!(pair.pools.each_ref().map(|pool| pool.promised()), [0, 0]);
}

#[test]
fn segment_that_the_kernel_misses_is_written_again_before_any_timer() {
    let mut pair = Pair::open();
    for number in 0..5 {
        pair.says(CLIENT, number * 1000, 0, &[number as u8; 1000]);
        pair.pump();
    }
    pair.written[SERVER].clear();

    for _ in 0..3 {
        pair.says(SERVER, 0, 1000, &[]);
    }
    assert!(pair.written[SERVER].is_empty());
    pair.says(SERVER, 0, 1000, &[]);

    assert_eq!(pair.bytes(SERVER), [1; 1000]);
}

#[test]
fn lost_frames_are_sent_again_and_delivered_once() {
    let mut pair = Pair::open();
    for number in 0..20 {
        pair.says(CLIENT, number * 500, 0, &[number as u8; 500]);
        pair.carry(CLIENT, number % 3 == 0);
    }

    pair.pump();

    let expected: Vec<u8> = (0..20).flat_map(|number| [number; 500]).collect();
    assert_eq!(pair.bytes(SERVER), expected);
}

#[test]
fn ten_thousand_stalled_readers_stay_within_the_pool() {
    const MEMORY: usize = 4 << 20;
    let mut pair = Pair::with_memory(MEMORY);
    let mut split = 0;
    for number in 0..10_000_u32 {
        let port = 1 + (number % 60_000) as u16;
        pair.ends.local.set_port(port);
        if syn(&mut pair, &OPTIONS) == Handling::Plain {
            continue;
        }
        split += 1;
        pair.pump();
        let ack = ISN[0].wrapping_add(1);
        let flags = SYN | ACK;
        pair.say(SERVER, Say { seq: ISN[1], ack, flags, options: &OPTIONS, ..Say::default() });
        pair.pump();
        for piece in 0..20 {
            pair.says(CLIENT, piece * 1400, 0, &[0; 1400]);
        }
        pair.pump();
        pair.written.iter_mut().for_each(VecDeque::clear);
        assert!(pair.pools.iter().all(|pool| pool.promised() <= MEMORY));
    }
    assert!(split > 25, "{split}");
    for node in &pair.nodes {
        let kept = node.lanes.values().map(|connection| {
            let (near, far) = (&connection.near.kept, &connection.far.kept);
            (near.edge() - near.base()) + (far.edge() - far.base())
        });
        assert!(kept.sum::<u64>() <= MEMORY as u64);
    }
}

#[test]
fn credit_grows_only_as_the_far_kernel_takes_what_comes() {
    let mut pair = Pair::open();
    let conv = *pair.nodes[SERVER].lanes.keys().next().unwrap();
    let promised = |pair: &Pair| {
        let far = &pair.nodes[SERVER].lanes[&conv].far;
        (far.credit - far.kept.base()) as usize
    };
    let fill = |pair: &mut Pair, sent: &mut u32| {
        for _ in 0..2000 {
            pair.says(CLIENT, *sent, 0, &[0; 1000]);
            let acked = pair.last(CLIENT).unwrap().ack;
            *sent = acked.wrapping_sub(ISN[0].wrapping_add(1));
        }
        pair.pump();
    };
    let mut sent = 0;
    fill(&mut pair, &mut sent);
    assert_eq!(promised(&pair), LANE_CREDIT_FIRST);

    for _ in 0..8 {
        let mut heard = 0;
        while heard < sent {
            heard = (pair.nodes[SERVER].lanes[&conv].far.next - 1) as u32;
            pair.says(SERVER, 0, heard, &[]);
            pair.pump();
        }
        pair.written.iter_mut().for_each(VecDeque::clear);
        fill(&mut pair, &mut sent);
    }

    assert!(promised(&pair) >= 8 * LANE_CREDIT_FIRST, "{}", promised(&pair));
}

#[test]
fn frames_that_break_the_rules_are_malformed() {
    let mut pair = Pair::open();
    let conv = *pair.nodes[SERVER].lanes.keys().next().unwrap();
    let seq = ISN[0].wrapping_add(1);
    let mine = ISN[1] + 1;
    let data = |seq: u32, fin, data| LaneFrame::Data {
        conv,
        seq,
        marks: Marks { fin, ..Marks::default() },
        data,
    };
    let state = |ack, credit| LaneFrame::State { conv, ack, credit, closed: false };
    let beyond = seq.wrapping_add(LANE_CREDIT_FIRST as u32);
    for frame in [
        data(beyond, false, &b"x"[..]),
        data(seq.wrapping_sub(2), false, b"x"),
        state(mine + 1, mine),
        state(mine, mine + (1 << 30) + 1),
        LaneFrame::Open { conv: conv ^ 1, credit: 1, packet: b"no packet" },
        LaneFrame::Accept { conv, credit: 1, packet: b"no packet" },
    ] {
        assert!(pair.hear(SERVER, Frame::Lane(frame)).is_err(), "{frame:?}");
    }
    pair.hear(SERVER, Frame::Lane(data(seq, true, b"end"))).unwrap();
    assert!(pair.hear(SERVER, Frame::Lane(data(seq.wrapping_add(3), false, b"more"))).is_err());
    assert!(pair.hear(SERVER, Frame::Lane(data(seq, true, b"other end"))).is_err());
}

#[test]
fn connections_with_a_node_that_is_gone_are_reset() {
    let mut pair = Pair::open();
    let now = pair.now;

    pair.nodes[CLIENT].abandon(&mut pair.pools[CLIENT], now);
    pair.collect(CLIENT);

    assert_eq!(pair.last(CLIENT).unwrap().flags, RST | ACK);
    assert_eq!(pair.pools[CLIENT].promised(), 0);
    assert!(pair.nodes[CLIENT].is_empty() && pair.nodes[CLIENT].deadline().is_none());
}

#[test]
fn kernel_that_did_not_hear_the_answer_to_its_syn_hears_it_again() {
    let mut pair = Pair::new();
    syn(&mut pair, &OPTIONS);
    pair.pump();
    let ack = ISN[0].wrapping_add(1);
    let flags = SYN | ACK;
    pair.say(SERVER, Say { seq: ISN[1], ack, flags, options: &OPTIONS, ..Say::default() });
    pair.pump();
    let first = pair.last(CLIENT);
    assert!(first.is_some());

    assert_eq!(syn(&mut pair, &OPTIONS), Handling::Taken);

    assert_eq!(pair.last(CLIENT), first);
}

#[test]
fn lanes_in_use_are_passed_over_when_their_numbers_wrap() {
    let mut pair = Pair::new();
    // the first and the third lane of the client stay in use
    pair.connect();
    let first = pair.ends;
    pair.ends.local.set_port(1001);
    pair.connect();
    pair.ends.local.set_port(1002);
    pair.connect();
    pair.ends.local.set_port(1001);
    pair.say(CLIENT, Say { flags: RST, seq: ISN[0].wrapping_add(1), ..Say::default() });
    pair.pump();
    pair.pass(Duration::from_secs(130));
    let used = |pair: &Pair, at: usize| pair.nodes[at].lanes.keys().copied().collect::<Vec<_>>();
    assert_eq!([used(&pair, CLIENT), used(&pair, SERVER)], [[0, 4], [0, 4]]);

    // numbers have 32 bits, and the lowest says whose they are
    pair.nodes[CLIENT].next = (1 << 31) - 1;
    for port in 1003..1007 {
        pair.ends.local.set_port(port);
        pair.connect();
    }

    for at in [CLIENT, SERVER] {
        assert_eq!(used(&pair, at), [0, 2, 4, 6, 8, u32::MAX - 1]);
    }
    // each of them is a connection of its own still
    for port in [first.local.port(), 1002, 1003, 1004, 1005, 1006] {
        pair.ends.local.set_port(port);
        let words = format!("from {port}");
        pair.says(CLIENT, 0, 0, words.as_bytes());
        pair.pump();
        assert_eq!(pair.bytes(SERVER), words.as_bytes(), "{port}");
    }
}

#[test]
fn lanes_of_both_nodes_never_meet_where_the_numbers_wrap() {
    for parity in [Parity::Even, Parity::Odd] {
        let mut node = Connections::new(parity);
        for next in [0, 1, (1 << 31) - 2, (1 << 31) - 1, 1 << 31, u32::MAX - 1, u32::MAX] {
            node.next = next;
            for _ in 0..4 {
                assert_eq!(node.free_conv() & 1, node.parity, "{next}");
            }
        }
    }
}
