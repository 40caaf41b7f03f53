//! Nodes that end and will be back, while a connection is split between them.

use super::testing::{Net, millis, restart, secs};
use super::*;
use crate::ip::numbers::{ACK, TCP};

/// What each kernel says next, and expects
const NUMBERS: [u32; 2] = [101, 901];

/// Two nodes, a wire of 30 ms, and a connection of their kernels on which all is said for the moment
fn connected() -> Net {
    Net::connected(millis(30))
}

fn say(net: &mut Net, from: usize, numbers: [u32; 2], flags: u8) {
    net.say([from, 3 - from], numbers, flags);
}

/// How many connections each of them splits
fn splits(net: &Net) -> [usize; 2] {
    [1, 2].map(|at| net.nodes[at].stats(net.now).connections)
}

/// Lets a millisecond pass, in which kernels answer what they did not expect
fn pass(net: &mut Net) {
    net.run(millis(1));
    for at in [1, 2] {
        let [seq, ack] = if at == 1 { NUMBERS } else { [NUMBERS[1], NUMBERS[0]] };
        let asks = |packet: &Vec<u8>| packet[9] == TCP && packet[24..28] != ack.to_be_bytes();
        if net.packets[at].drain(..).any(|packet| asks(&packet)) {
            say(net, at, [seq, ack], ACK);
        }
    }
}

/// Has one of the kernels ask each second whether the other one is still there
fn go_on(net: &mut Net, seconds: usize) {
    for _ in 0..seconds {
        say(net, 1, [NUMBERS[0] - 1, NUMBERS[1]], ACK);
        (0..1000).for_each(|_| pass(net));
    }
}

/// Has one node end, and the other one so much later; returns when each was gone, counted from then on
fn end(net: &mut Net, order: [usize; 2], apart: Duration) -> [Duration; 3] {
    let start = net.now;
    let mut gone = [None; 3];
    net.command(order[0], Command::Drain);
    while gone[1].is_none() || gone[2].is_none() {
        if net.now == start + apart {
            net.command(order[1], Command::Drain);
        }
        for at in order {
            let told = at == order[0] || net.now >= start + apart;
            if told && gone[at].is_none() && net.nodes[at].is_drained(net.now) {
                gone[at] = Some(net.now.since(start));

                net.command(at, Command::Close);
                restart(net, at, 60 + at as u8);
            }
        }
        pass(net);
        assert!(net.now.since(start) < secs(20), "{gone:?}");
    }
    gone.map(Option::unwrap_or_default)
}

#[test]
fn whoever_ends_while_the_other_does_keeps_the_connection_for_it() {
    for order in [[1, 2], [2, 1]] {
        for apart in (0..130).step_by(5).map(millis) {
            let mut net = connected();

            let gone = end(&mut net, order, apart);

            go_on(&mut net, 3);
            assert_eq!(splits(&net), [1, 1], "{order:?}, {apart:?} apart: gone at {gone:?}");
            assert!(gone.iter().all(|gone| *gone < millis(1000)), "{order:?}, {apart:?}: {gone:?}");
        }
    }
}

#[test]
fn connection_outlives_both_ends_where_much_is_lost() {
    let (mut kept, mut slow) = (0, 0);
    for seed in 0..40 {
        let mut net = connected();
        net.sent += seed;
        net.loss = 20;

        let gone = end(&mut net, [1, 2], millis(seed));

        go_on(&mut net, 10);
        kept += usize::from(splits(&net) == [1, 1]);
        slow += usize::from(gone.iter().any(|gone| *gone > secs(4)));
    }
    assert_eq!((kept, slow), (40, 1), "of 40");
}

#[test]
fn end_is_put_off_for_nobody_who_does_not_answer() {
    let mut net = connected();
    net.blocked = vec![(1, 2), (0, 1), (0, 2)];

    let start = net.now;
    net.command(1, Command::Drain);
    while !net.nodes[1].is_drained(net.now) {
        let (due, _) = net.nodes[1].deadline().unwrap();
        net.run(due.since(net.now).min(millis(100)));
    }

    assert_eq!(net.now.since(start), secs(2));
}

#[test]
fn end_without_connections_is_put_off_for_nobody() {
    let mut net = Net::triangle();
    net.run(secs(1));
    net.send(1, 2, 7);
    net.run(secs(1));

    net.command(1, Command::Drain);

    assert!(net.nodes[1].is_drained(net.now));
}

#[test]
fn node_that_is_back_and_ends_again_does_not_end_with_the_one_that_waited_for_it() {
    for apart in (0..200).step_by(10).map(millis) {
        let mut net = connected();
        // That with the lower key goes first.
        let lower = net.nodes[1].public_key() < net.nodes[2].public_key();
        let [first, second] = if lower { [1, 2] } else { [2, 1] };
        let other = net.nodes[second].public_key();
        [second, first].into_iter().for_each(|at| net.command(at, Command::Drain));
        while !net.nodes[first].is_drained(net.now) {
            pass(&mut net);
        }
        net.command(first, Command::Close);
        restart(&mut net, first, 60);
        net.events[first].clear();
        let is_up =
            |event: &Event| matches!(event, Event::SessionUp { peer, .. } if *peer == other);
        while !net.events[first].iter().any(is_up) {
            pass(&mut net);
        }

        let back = net.now;
        let mut left = vec![first, second];
        while !left.is_empty() {
            if net.now == back + apart {
                net.command(first, Command::Drain);
            }
            let told = |at| at == second || net.now >= back + apart;
            let gone = |at: &usize| told(*at) && net.nodes[*at].is_drained(net.now);
            let gone: Vec<_> = left.iter().copied().filter(gone).collect();
            for at in gone {
                net.command(at, Command::Close);
                restart(&mut net, at, 61);
                left.retain(|left| *left != at);
            }
            pass(&mut net);
            assert!(net.now.since(back) < secs(20), "{apart:?}: {left:?}");
        }
        go_on(&mut net, 3);

        assert_eq!(splits(&net), [1, 1], "{apart:?}");
    }
}

#[test]
fn announcement_that_was_under_way_on_a_path_that_is_gone_is_made_on_another_one() {
    let mut net = connected();
    net.blocked = vec![(1, 2)];
    net.command(1, Command::Drain);
    net.blocked.clear();

    let start = net.now;
    net.nodes[1].handle_broken(Carrier::Udp, net.addrs[2], net.now);
    net.drain(1);
    while !net.nodes[1].is_drained(net.now) {
        pass(&mut net);
    }

    assert!(net.now.since(start) < millis(500), "{:?}", net.now.since(start));
}

#[test]
fn who_has_just_gone_is_waited_for_even_if_it_is_no_peer_any_more() {
    for away in [false, true] {
        let mut net = connected();
        let key = net.nodes[2].public_key();
        net.command(2, Command::Close);
        net.run(millis(100));
        if away {
            net.command(1, Command::PeerAway(key));
        }

        net.command(1, Command::Drain);

        let gone = net.now;
        assert!(!net.nodes[1].is_drained(gone), "{away}");
        assert!(net.nodes[1].is_drained(gone + secs(10)), "{away}");
    }
}

#[test]
fn end_is_no_reason_to_call_anybody_with_whom_no_connections_are() {
    let mut net = Net::triangle();
    net.run(secs(1));
    net.events.iter_mut().for_each(Vec::clear);

    net.command(1, Command::Drain);
    net.run(secs(1));

    assert_eq!([net.ups(1), net.ups(2)], [0, 0]);
}
