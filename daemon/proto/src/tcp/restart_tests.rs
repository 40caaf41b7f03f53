//! Connections whose node restarts, or is about to.

use super::segment::{FIN, RST};
use super::testing::{CLIENT, ISN, Pair, SERVER, Say};
use super::*;
use crate::time::Duration;

/// The server's node restarts, and the client's goes on
fn restart(pair: &mut Pair) {
    let stance = pair.nodes[SERVER].stance;
    pair.nodes[SERVER] = Connections { stance, ..Connections::new(Parity::Odd) };
    pair.pools[SERVER].set_promised(0);
    pair.written.iter_mut().for_each(VecDeque::clear);
    let now = pair.now;
    pair.nodes[CLIENT].resume(&mut pair.pools[CLIENT], now);
    pair.pump();
}

/// A connection on which three bytes went one way and two the other, which both kernels acknowledged
fn talked() -> Pair {
    let mut pair = Pair::open();
    pair.says(CLIENT, 0, 0, b"abc");
    pair.pump();
    pair.says(SERVER, 0, 3, b"de");
    pair.pump();
    pair.says(CLIENT, 3, 2, &[]);
    pair.pass(Duration::from_secs(1));
    pair
}

#[test]
fn idle_connection_is_split_again_after_a_restart() {
    let mut pair = talked();

    restart(&mut pair);
    let asked = pair.last(SERVER).unwrap();
    assert_eq!((asked.seq, asked.flags), (ISN[0].wrapping_add(3), ACK));
    pair.says(SERVER, 2, 3, &[]);
    pair.pump();

    assert!(pair.nodes.iter().all(|node| node.len() == 1));
    pair.written.iter_mut().for_each(VecDeque::clear);
    pair.says(CLIENT, 3, 2, b"more");
    pair.pump();
    assert_eq!(pair.bytes(SERVER), b"more");
    pair.says(SERVER, 2, 7, b"and more");
    pair.pump();
    assert_eq!(pair.bytes(CLIENT), b"and more");
}

#[test]
fn idle_connection_goes_on_as_plain_packets_where_the_restarted_node_does_not_split() {
    let mut pair = talked();
    pair.nodes[SERVER].stance = Stance::Decline;

    restart(&mut pair);
    pair.last(SERVER).unwrap();
    pair.says(SERVER, 2, 3, &[]);
    pair.pump();

    assert_eq!((pair.last(CLIENT), pair.last(SERVER)), (None, None));
    assert!(pair.nodes.iter().all(Connections::is_empty));
    assert_eq!(pair.pools[CLIENT].promised(), 0);
}

#[test]
fn bytes_that_the_dead_node_had_not_delivered_are_sent_again() {
    let mut pair = Pair::open();
    // The server's node has them; its kernel has not acknowledged any.
    pair.says(CLIENT, 0, 0, b"abc");
    pair.pump();

    restart(&mut pair);
    pair.says(SERVER, 0, 1, &[]);
    pair.pump();

    assert_eq!(pair.bytes(SERVER), b"bc");
    pair.says(SERVER, 0, 3, &[]);
    pair.pass(Duration::from_secs(1));
    assert!(pair.nodes.iter().all(Connections::is_drained));
}

#[test]
fn connection_whose_bytes_died_with_a_node_is_reset_at_both_ends() {
    let mut pair = Pair::open();
    // Acknowledged by the server's node, and never heard of by the client's.
    pair.says(SERVER, 0, 0, b"abc");

    restart(&mut pair);
    pair.says(SERVER, 3, 0, &[]);
    pair.pass(Duration::from_secs(20));

    let [client, server] = [pair.last(CLIENT).unwrap(), pair.last(SERVER).unwrap()];
    assert_eq!((client.flags, client.seq), (RST | ACK, ISN[1] + 1));
    assert_eq!((server.flags, server.seq), (RST | ACK, ISN[0].wrapping_add(1)));
    assert_eq!(pair.pools[CLIENT].promised(), 0);
}

#[test]
fn connection_that_the_restarted_kernel_does_not_know_is_reset() {
    for silent in [false, true] {
        let mut pair = Pair::open();
        restart(&mut pair);

        if !silent {
            pair.say(SERVER, Say { seq: 1, flags: RST, ..Say::default() });
        }
        pair.pump();
        pair.pass(Duration::from_secs(if silent { 6 } else { 0 }));

        assert_eq!(pair.last(CLIENT).unwrap().flags, RST | ACK);
    }
}

#[test]
fn kernel_that_waits_for_an_acknowledgement_is_made_to_say_again_what_was_lost() {
    let mut pair = Pair::open();
    restart(&mut pair);
    // It has said five bytes that nobody acknowledged, and says where it is at first.
    pair.says(SERVER, 5, 0, &[]);
    pair.pump();
    assert_eq!(pair.last(CLIENT), None);
    let nudge = pair.last(SERVER).unwrap();
    assert_eq!((nudge.seq, nudge.ack), (ISN[0].wrapping_add(1), ISN[1] + 1));

    pair.says(SERVER, 0, 0, b"hello");
    pair.pump();

    assert_eq!(pair.bytes(CLIENT), b"hello");
}

#[test]
fn kernel_that_says_only_later_bytes_again_and_again_has_lost_those_before() {
    let mut pair = Pair::open();
    restart(&mut pair);

    for _ in 0..2 {
        pair.says(SERVER, 5, 0, b"later");
        pair.pump();
    }

    assert_eq!([CLIENT, SERVER].map(|at| pair.last(at).unwrap().flags), [RST | ACK; 2]);
}

#[test]
fn kernel_that_only_asks_for_a_window_has_lost_all_that_it_said_before() {
    for lost in [1, 5] {
        let mut pair = Pair::open();
        restart(&mut pair);

        pair.says(SERVER, lost, 0, &[]);
        for _ in 0..2 {
            pair.says(SERVER, lost - 1, 0, &[]);
            pair.pump();
        }

        let told = [CLIENT, SERVER].map(|at| pair.last(at).map(|seen| seen.flags));
        assert_eq!(told, [Some(RST | ACK); 2], "{lost} bytes");
    }
}

#[test]
fn kernels_are_served_before_it_is_clear_how_the_connection_goes_on() {
    let mut pair = talked();
    restart(&mut pair);
    pair.last(SERVER).unwrap();

    pair.says(CLIENT, 3, 2, b"meanwhile");
    assert_eq!(pair.last(CLIENT).unwrap().ack, ISN[0].wrapping_add(13));
    pair.pump();
    pair.says(SERVER, 2, 3, b"too");
    pair.pump();

    assert_eq!((pair.bytes(SERVER), pair.bytes(CLIENT)), (b"meanwhile".to_vec(), b"too".to_vec()));
}

#[test]
fn ends_of_streams_outlive_a_restart() {
    for acked in [false, true] {
        let mut pair = talked();
        // The client's kernel ends its stream; the server's has acknowledged that, or not yet.
        let fin = Say {
            seq: ISN[0].wrapping_add(4),
            ack: ISN[1] + 3,
            flags: ACK | FIN,
            ..Say::default()
        };
        pair.say(CLIENT, fin);
        pair.pump();
        restart(&mut pair);
        pair.says(SERVER, 2, 3 + u32::from(acked), &[]);
        pair.pump();
        if !acked {
            assert!(pair.written[SERVER].iter().any(|seen| seen.flags & FIN != 0));
            pair.says(SERVER, 2, 4, &[]);
            pair.pump();
        }
        assert_eq!(pair.last(CLIENT).unwrap().ack, ISN[0].wrapping_add(5), "acknowledged: {acked}");

        let fin = Say {
            seq: ISN[1] + 3,
            ack: ISN[0].wrapping_add(5),
            flags: ACK | FIN,
            ..Say::default()
        };
        pair.say(SERVER, fin);
        pair.pump();
        assert!(pair.last(CLIENT).unwrap().flags & FIN != 0);
        pair.says(CLIENT, 4, 3, &[]);
        pair.pass(Duration::from_secs(200));

        let last = pair.last(SERVER).unwrap();
        assert_eq!((last.flags & RST, last.ack), (0, ISN[1] + 4), "acknowledged: {acked}");
        assert!(pair.nodes.iter().all(Connections::is_empty));
        assert_eq!(pair.pools.each_ref().map(|pool| pool.promised()), [0, 0]);
    }
}

#[test]
fn end_of_the_restarted_kernels_stream_that_the_other_node_has_is_acknowledged() {
    for delivered in [false, true] {
        let mut pair = talked();
        let (seq, ack) = (ISN[1] + 3, ISN[0].wrapping_add(4));
        let fin = Say { seq, ack, flags: ACK | FIN, ..Say::default() };
        pair.say(SERVER, fin);
        pair.carry(SERVER, true);
        if delivered {
            pair.says(CLIENT, 3, 3, &[]);
        }

        restart(&mut pair);
        pair.says(SERVER, 3, 3, &[]);
        pair.say(SERVER, fin);
        pair.pump();
        pair.says(CLIENT, 3, 3, &[]);
        pair.pump();

        assert_eq!(pair.last(SERVER).unwrap().ack, ISN[1] + 4, "delivered: {delivered}");
        assert!(pair.nodes.iter().all(|node| node.len() == 1));
    }
}

#[test]
fn packets_of_a_connection_that_is_asked_for_do_not_pass() {
    let mut pair = talked();
    let other = testing::packet_from(&pair, SERVER, 2, b"stray");
    assert!(pair.nodes[CLIENT].on_plain(&other, None));

    restart(&mut pair);
    assert!(!pair.nodes[CLIENT].on_plain(&other, None));

    pair.says(SERVER, 2, 3, &[]);
    pair.pump();
    assert!(pair.nodes[CLIENT].on_plain(&other, None));
}

#[test]
fn node_that_is_about_to_end_takes_nothing_more_and_is_drained_when_all_has_arrived() {
    let mut pair = Pair::open();
    pair.says(CLIENT, 0, 0, b"abc");

    pair.nodes[CLIENT].drain();
    pair.says(CLIENT, 3, 0, b"def");
    assert!(!pair.nodes[CLIENT].is_drained());
    pair.pump();
    assert!(pair.nodes[CLIENT].is_drained());
    assert_eq!(pair.bytes(SERVER), b"abc");

    let syn = Say { seq: 7, flags: SYN, ..Say::default() };
    pair.ends.local.set_port(2000);
    assert_eq!(pair.say(CLIENT, syn), Handling::Taken, "it is for the next node to split");
    assert_eq!(pair.nodes[CLIENT].len(), 1);
}

#[test]
fn what_only_one_node_has_since_the_other_restarted_is_delivered_before_it_ends() {
    let mut pair = Pair::open();
    pair.says(SERVER, 0, 0, &[1; 1000]);
    pair.pump();
    // The client's kernel reads nothing, and the server's node is another one now.
    let (seq, ack) = (ISN[0].wrapping_add(1), ISN[1] + 1);
    pair.say(CLIENT, Say { seq, ack, flags: ACK, window: Some(0), ..Say::default() });
    restart(&mut pair);
    pair.says(SERVER, 1000, 0, &[]);
    pair.pump();

    pair.nodes[CLIENT].drain();
    assert!(!pair.nodes[CLIENT].is_drained());
    pair.says(CLIENT, 0, 400, &[]);
    assert!(!pair.nodes[CLIENT].is_drained());
    pair.pump();

    // It ends all the same, and its kernel is asked what it is sure to answer.
    pair.written.iter_mut().for_each(VecDeque::clear);
    pair.nodes[CLIENT] = Connections::new(Parity::Even);
    let now = pair.now;
    pair.nodes[SERVER].resume(&mut pair.pools[SERVER], now);
    pair.pump();
    let asked = pair.last(CLIENT).unwrap();
    assert!(asked.seq.wrapping_sub(ISN[1] + 401).cast_signed() < 0, "{asked:?}");
    pair.says(CLIENT, 0, 400, &[]);
    pair.pump();
    assert_eq!([CLIENT, SERVER].map(|at| pair.last(at).unwrap().flags), [RST | ACK; 2]);
}

#[test]
fn node_is_not_drained_before_its_kernel_has_what_came_unless_that_reads_nothing() {
    let mut pair = Pair::open();
    pair.says(CLIENT, 0, 0, &[1; 1000]);
    pair.pump();
    pair.nodes[SERVER].drain();
    assert!(!pair.nodes[SERVER].is_drained());

    let (seq, ack) = (ISN[1] + 1, ISN[0].wrapping_add(1));
    pair.say(SERVER, Say { seq, ack, flags: ACK, window: Some(0), ..Say::default() });
    assert!(pair.nodes[SERVER].is_drained(), "the other node has it all");

    pair.says(SERVER, 0, 1000, &[]);
    assert!(pair.nodes[SERVER].is_drained());
}
