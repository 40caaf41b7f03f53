//! Nodes that end and will be back, while a connection is split between them.

use super::testing::{Net, millis, restart, secs, segment};
use super::*;
use crate::ip::numbers::{ACK, SYN, TCP};

/// What each kernel says next, and expects
const NUMBERS: [u32; 2] = [101, 901];

/// Two nodes, a wire of 30 ms, and a connection of their kernels on which all is said for the moment
fn connected() -> Net {
    let mut net = Net::triangle();
    net.delay = millis(30);
    net.run(secs(1));
    net.send(1, 2, 7);
    net.run(secs(1));
    say(&mut net, 1, [100, 0], SYN);
    net.run(secs(1));
    say(&mut net, 2, [900, 101], SYN | ACK);
    net.run(secs(1));
    say(&mut net, 1, NUMBERS, ACK);
    net.run(secs(1));
    net.packets.iter_mut().for_each(Vec::clear);
    assert_eq!(splits(&net), [1, 1]);
    net
}

fn say(net: &mut Net, from: usize, numbers: [u32; 2], flags: u8) {
    net.nodes[from].handle_packet(&segment([from, 3 - from], numbers, flags), None, net.now);
    net.drain(from);
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
