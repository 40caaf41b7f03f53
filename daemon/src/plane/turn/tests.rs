//! Tests of one data thread whose turns nobody makes: what it does with what its node has.

use fastvpn_proto::ip::numbers;
use fastvpn_proto::node::{Arrival, Ecn};
use tokio::sync::mpsc;

use super::*;
use crate::plane::tests::{config, queue};
use crate::plane::unread::tests::{counting, packet, runs};

/// Makes the first of two threads, neither of which runs
fn first_of_two() -> (Turn, mpsc::Receiver<Vec<PlaneEvent>>) {
    let now = clock::now();
    let (udp, listening) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let carriers = Carriers::new(None, listening.addr).unwrap();
    let place = Place { at: 0, threads: Arc::new(Threads::new(2, now).unwrap()) };
    let node = Node::shards(&config(), 2, now).remove(0);
    let (events, told) = mpsc::channel(1);
    (Turn::new(node, (udp, carriers), place, events, now).unwrap(), told)
}

#[test]
fn node_is_told_what_another_thread_has_no_room_for() {
    let (mut turn, _told) = first_of_two();
    let now = clock::now();
    let remote = "192.0.2.1:1".parse().unwrap();
    let arrival = Arrival { carrier: Carrier::Udp, remote, local: None, ecn: Ecn::Incapable };
    // A message of the other thread.
    let mut message = [0; 40];
    (message[0], message[7]) = (4, 1);

    for _ in 0..CAPACITY {
        turn.node.handle_message(arrival, &mut message, now);
        turn.drain(now).unwrap();
    }

    let mut waiting = Vec::new();
    turn.place.threads.inbox(1).take(&mut waiting, usize::MAX);
    let dropped = turn.node.stats(now).dropped;
    assert!(dropped > 0 && dropped as usize + waiting.len() == CAPACITY, "{dropped}");
}

#[test]
fn others_are_let_run_after_datagrams_that_nobody_paces() {
    let (mut turn, _told) = first_of_two();
    turn.unread = counting();
    let (far, near) = queue();
    turn.serve(DeviceNumber(1), vec![near], 1400, clock::now()).unwrap();

    for _ in 0..100 {
        turn.write_packet(&packet(numbers::UDP, 1000));
        rustix::io::read(&far, &mut [0; 2000]).unwrap();
    }

    assert_eq!(runs(), 2, "once in 48 KiB");
}

#[test]
fn ordinary_packets_of_a_device_are_read_into_memory_as_long_as_its_mtu() {
    let (mut turn, _told) = first_of_two();
    for mtu in [1400, 1280] {
        let (_far, near) = queue();

        turn.serve(DeviceNumber(1), vec![near], mtu, clock::now()).unwrap();

        assert_eq!(turn.packet.pieces()[0].len(), mtu.into());
    }
}
