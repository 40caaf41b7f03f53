//! The scheduler's rules, one by one, with lanes that are only numbers.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::PrivateKey;
use crate::ip::numbers::UDP;

/// A scheduler, the path that it sends on, and lanes that always have more
pub(super) struct Bench {
    pub(super) load: Scheduler,
    pub(super) capacity: Capacity,
    pub(super) now: Instant,
    /// Pieces that each lane still has to send, of 1,000 bytes
    lanes: BTreeMap<u32, u32>,
    next_sn: u32,
    /// How often what lanes send was lost before
    losses: u8,
}

/// Something that left
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Sent {
    Packet(u16, Option<u32>),
    Copied(u16, u32),
    Lane(u32, u32),
    Copy(u32, u32),
    Relay(u8),
}

impl Bench {
    /// A path of 100 Mbit/s and 200 ms that loses so many percent
    pub(super) fn new(loss: u32) -> Self {
        let mut load = Scheduler::default();
        load.set_copies(10);
        let capacity = Capacity {
            rate: Some(12_500_000),
            proven: true,
            loss_ppm: loss * 10_000,
            rtt: Duration::from_millis(200),
        };
        let now = Instant::ZERO + Duration::from_secs(1000);
        let mut bench = Self { load, capacity, now, lanes: BTreeMap::new(), next_sn: 0, losses: 0 };
        assert_eq!(bench.next(), None);
        bench
    }

    /// Queues a packet of the flow with this port
    fn push(&mut self, port: u16, len: usize) {
        self.load.push_packet(Stowed::Copied(packet(port, len)).into(), self.now);
    }

    pub(super) fn relay(&mut self, node: u8, len: usize) {
        self.load.push_relayed(key(node), vec![node; len], self.now);
    }

    /// Lets all leave that may of so many things, a piece of lane 1 among them that was lost so often;
    /// returns the number of that piece
    fn send_again(&mut self, count: usize, losses: u8) -> Option<u32> {
        self.losses = losses;
        let sent = self.send(count);
        self.losses = 0;
        sent.into_iter().find_map(|sent| match sent {
            Sent::Lane(1, sn) => Some(sn),
            _ => None,
        })
    }

    /// Returns the pieces that are copied in so many milliseconds, in each of which so many things may leave
    fn copies(&mut self, millis: u64, count: usize) -> Vec<u32> {
        let mut copies = Vec::new();
        for _ in 0..millis {
            self.pass(1);
            copies.extend(self.send(count).iter().filter_map(piece));
        }
        copies
    }

    fn wake(&mut self, conv: u32, pieces: u32) {
        *self.lanes.entry(conv).or_default() += pieces;
        self.load.wake_lane(conv);
    }

    /// Sends the next thing, if there is one, as a session would
    pub(super) fn next(&mut self) -> Option<Sent> {
        loop {
            let (sent, piece, bytes) = match self.load.next(&self.capacity, self.now)? {
                Next::Datagram { packet, id } => {
                    (Sent::Packet(port(packet), id), None, packet.len())
                }
                Next::Super(_) => unreachable!("nobody queued any"),
                Next::Copied { packet, id } => (Sent::Copied(port(packet), id), None, packet.len()),
                Next::Relay { node, message } => {
                    assert_eq!(node, key(message[0]));
                    (Sent::Relay(message[0]), None, message.len())
                }
                Next::Copy(piece) => (Sent::Copy(piece.conv, piece.sn), None, 1000),
                Next::Lane(conv) => {
                    let left = self.lanes.entry(conv).or_default();
                    if *left == 0 {
                        self.load.sleep_lane(conv, self.now);
                        continue;
                    }
                    *left -= 1;
                    self.next_sn += 1;
                    let piece = Piece { conv, sn: self.next_sn };
                    let written = Written { piece, losses: self.losses };
                    (Sent::Lane(conv, piece.sn), Some(written), 1000)
                }
            };
            self.load.take(piece, bytes, self.now);
            return Some(sent);
        }
    }

    /// Sends up to so many things
    fn send(&mut self, most: usize) -> Vec<Sent> {
        core::iter::from_fn(|| self.next()).take(most).collect()
    }

    /// Sends all that there is for so long, the time of each thing that leaves included
    pub(super) fn run(&mut self, millis: u64) -> Vec<(u64, Sent)> {
        let start = self.now;
        let end = start + ms(millis);
        let mut all = Vec::new();
        loop {
            while let Some(sent) = self.next() {
                all.push((self.now.since(start).as_millis() as u64, sent));
            }
            assert!(!self.load.has_output(self.now), "drained");
            let Some(due) = self.load.deadline().filter(|due| *due <= end) else { break };
            assert!(due > self.now, "no deadline in the past");
            self.now = due;
        }
        self.now = end;
        all
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now += ms(millis);
    }
}

// --- order and fairness ----------------------------------------------------------------------

#[test]
fn keystroke_overtakes_a_bulk_transfer() {
    let mut bench = Bench::new(0);
    bench.wake(1, 10_000);
    (0..300).for_each(|_| bench.push(9, 1400));
    bench.send(100);

    bench.push(7, 100);
    bench.wake(2, 1);

    let next = bench.send(2);
    assert!(next.contains(&Sent::Packet(7, None)), "{next:?}");
    assert!(next.iter().any(|sent| matches!(sent, Sent::Lane(2, _))), "{next:?}");
}

#[test]
fn flow_that_sends_much_is_thin_no_more() {
    let mut bench = Bench::new(0);
    (0..20).for_each(|_| bench.push(9, 1400));
    bench.send(20);
    bench.wake(1, 1000);
    bench.send(100);

    (0..10).for_each(|_| bench.push(9, 1400));
    let sent = bench.send(10);

    // It begins a turn as a new flow, and after that shares.
    let lane = sent.iter().filter(|sent| matches!(sent, Sent::Lane(1, _))).count();
    assert!(lane >= 4, "{sent:?}");
}

#[test]
fn packets_lanes_and_relayed_messages_share_alike() {
    let mut bench = Bench::new(0);
    bench.wake(1, 10_000);
    bench.wake(2, 10_000);
    for _ in 0..600 {
        bench.push(8, 1400);
        bench.push(9, 350);
        bench.push(9, 350);
        bench.relay(5, 700);
    }
    bench.send(150);

    let mut bytes = [0; 5];
    for sent in bench.send(700) {
        match sent {
            Sent::Lane(1, _) => bytes[0] += 1000,
            Sent::Lane(..) => bytes[1] += 1000,
            Sent::Packet(8, _) => bytes[2] += 1400,
            Sent::Packet(..) => bytes[3] += 350,
            Sent::Relay(_) => bytes[4] += 700,
            Sent::Copied(..) | Sent::Copy(..) => panic!("nothing is lost here"),
        }
    }

    assert!(jain(&bytes) > 0.99, "{bytes:?}");
}

#[test]
fn thin_flows_together_leave_room_for_others() {
    let mut bench = Bench::new(0);
    bench.capacity.rate = Some(125_000);
    bench.next();
    bench.wake(1, 100_000);
    let (mut lane, mut packets, mut credit) = (0, 0, 0);

    // Twenty flows of 15 kB/s each, on a path of 125 kB/s
    for _ in 0..2000 {
        (0..20).for_each(|flow| bench.push(flow, 150));
        bench.pass(10);
        credit += 1250;
        while credit > 0
            && let Some(sent) = bench.next()
        {
            match sent {
                Sent::Lane(..) => {
                    lane += 1;
                    credit -= 1000;
                }
                Sent::Packet(..) => {
                    packets += 1;
                    credit -= 150;
                }
                Sent::Copied(..) | Sent::Copy(..) | Sent::Relay(_) => panic!("{sent:?}"),
            }
        }
    }

    assert!(lane > 50, "{lane} pieces and {packets} packets");
    assert!(packets > 2000, "{lane} pieces and {packets} packets");
}

#[test]
fn ten_thousand_lanes_are_all_served() {
    let mut bench = Bench::new(0);
    (0..10_000).for_each(|conv| bench.wake(conv, 3));

    let mut count = vec![0; 10_000];
    for sent in bench.send(40_000) {
        if let Sent::Lane(conv, _) = sent {
            count[conv as usize] += 1;
        }
    }

    assert!(count.iter().all(|count| *count == 3));
    assert!(!bench.load.has_output(bench.now));
    assert_eq!(bench.load.ready, 0);
}

#[test]
fn what_is_named_and_not_taken_is_named_again() {
    let mut bench = Bench::new(5);
    bench.push(7, 100);

    let first = format!("{:?}", bench.load.next(&bench.capacity, bench.now));
    let again = format!("{:?}", bench.load.next(&bench.capacity, bench.now));

    assert_eq!(first, again);
    assert_eq!(bench.send(9), [Sent::Packet(7, Some(0))]);
}

// --- bounds ----------------------------------------------------------------------------------

#[test]
fn longest_queue_gives_way() {
    let mut bench = Bench::new(0);
    (0..100).for_each(|_| bench.push(7, 1000));
    (0..3000).for_each(|_| bench.push(9, 1400));
    (0..100).for_each(|_| bench.push(8, 1000));

    assert!(bench.load.packet_bytes <= QUEUE_BYTES);
    assert!(bench.load.take_dropped() > 1000);
    let sent = bench.send(5000);
    let of = |port| sent.iter().filter(|sent| **sent == Sent::Packet(port, None)).count();
    assert_eq!((of(7), of(8)), (100, 100));
    assert_eq!(bench.load.packet_bytes, 0);
}

#[test]
fn member_that_floods_a_relay_loses_its_own() {
    let mut bench = Bench::new(0);
    (0..50).for_each(|_| bench.relay(1, 1000));
    (0..100_000).for_each(|_| bench.relay(2, 1));
    (0..1000).for_each(|_| bench.relay(2, 1400));

    assert!(bench.load.relay_bytes <= RELAY_BYTES);
    let sent = bench.send(100_000);
    assert_eq!(sent.iter().filter(|sent| **sent == Sent::Relay(1)).count(), 50);
    assert_eq!(bench.load.relay_bytes, 0);
}

#[test]
fn standing_queue_of_datagrams_is_shortened_and_one_that_is_old_goes() {
    let mut bench = Bench::new(0);
    bench.capacity.rate = Some(1_000_000);
    // Half as much again as the path carries
    let mut sent = 0;
    for step in 0..5000 {
        bench.push(9, 1000);
        if step % 3 != 0 {
            sent += bench.send(1).len();
        }
        bench.pass(1);
    }
    let dropped = bench.load.take_dropped();
    assert!(dropped > 100, "{dropped}");
    assert!(sent > 3200, "{sent}");

    bench.pass(1100);
    assert_eq!(bench.next(), None, "all is too old");
    assert_eq!((bench.load.packet_bytes, bench.load.ready), (0, 0));
}

#[test]
fn packets_that_understand_are_marked_instead() {
    let mut bench = Bench::new(0);
    bench.capacity.rate = Some(1_000_000);
    let mut marked = 0;
    for step in 0..3000 {
        let mut bytes = packet(9, 1000);
        bytes[1] = 2;
        bench.load.push_packet(Stowed::Copied(bytes).into(), bench.now);
        if step % 3 != 0
            && let Some(Next::Datagram { packet, .. }) = bench.load.next(&bench.capacity, bench.now)
        {
            marked += u32::from(packet[1] == 3);
            let len = packet.len();
            bench.load.take_alone(len, bench.now);
        }
        bench.pass(1);
    }

    assert!(marked > 10, "{marked}");
}

// --- copies ----------------------------------------------------------------------------------

#[test]
fn thin_packet_is_sent_until_its_loss_is_unlikely_each_copy_a_little_later() {
    let mut bench = Bench::new(5);
    bench.push(7, 100);

    let sent = bench.run(500);

    let all: Vec<Sent> = sent.iter().map(|(_, sent)| *sent).collect();
    assert_eq!(all, [Sent::Packet(7, Some(0)), Sent::Copied(7, 0), Sent::Copied(7, 0)]);
    let times: Vec<u64> = sent.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 2, 6]);
}

#[test]
fn bad_path_gets_five_transmissions_and_a_clean_one_does_not() {
    for (loss, count) in [(0, 1), (20, 5), (60, 5)] {
        let mut bench = Bench::new(loss);
        bench.push(7, 100);
        assert_eq!(bench.run(500).len(), count, "{loss} %");
    }
}

#[test]
fn each_packet_has_an_id_of_its_own() {
    let mut bench = Bench::new(5);
    (0..5).for_each(|_| bench.push(7, 100));

    let sent = bench.send(5);

    assert_eq!(sent, (0..5).map(|id| Sent::Packet(7, Some(id))).collect::<Vec<_>>());
}

#[test]
fn packet_that_arrived_is_copied_no_more() {
    let mut bench = Bench::new(5);
    bench.push(7, 100);
    bench.send(1);

    bench.load.on_acked(0);

    assert_eq!(bench.run(500), []);
    assert_eq!(bench.load.deadline(), None);
}

#[test]
fn nothing_is_copied_where_copies_are_off() {
    let mut bench = Bench::new(20);
    bench.load.set_copies(0);
    bench.wake(1, 50);
    (0..10).for_each(|port| bench.push(port, 100));

    let sent = bench.run(1000);

    assert_eq!(sent.len(), 60);
    assert!(sent.iter().all(|(_, sent)| matches!(sent, Sent::Packet(_, None) | Sent::Lane(..))));
}

#[test]
fn thin_copies_leave_beside_a_bulk_transfer_but_within_their_share() {
    let mut bench = Bench::new(5);
    bench.capacity.rate = Some(200_000);
    bench.next();
    bench.wake(1, 1_000_000);
    let (mut copied, mut originals) = (0, 0);

    // Ten calls of 12 kB/s each on a path of 200 kB/s: copies of all would be more than all of it
    for step in 0..500u16 {
        (0..10).for_each(|port| bench.push(port, 240));
        let _ = step;
        for _ in 0..20 {
            bench.pass(1);
            match bench.next() {
                Some(Sent::Copied(..)) => copied += 300,
                Some(Sent::Packet(..)) => originals += 1,
                _ => {}
            }
        }
    }

    // Ten seconds at 5 % of 200 kB/s, and what the window of the first second allowed
    assert!((80_000..=110_000).contains(&copied), "{copied}");
    assert!(originals > 3000, "{originals}");
}

#[test]
fn first_pieces_of_a_lane_are_copied_when_nothing_else_is_left_the_youngest_first() {
    let mut bench = Bench::new(5);
    bench.wake(1, 74);

    let first = bench.send(74);
    assert!(first.iter().all(|sent| matches!(sent, Sent::Lane(1, _))));
    let copies = bench.run(180);

    let spare: Vec<u32> = copies.iter().filter_map(|(_, sent)| piece(sent)).collect();
    let count = |sn| spare.iter().filter(|copy| **copy == sn).count();
    // The thin beginning has its own ladder, and is copied less.
    assert!((1..=13).all(|sn| count(sn) == 2), "{spare:?}");
    assert!((14..=74).all(|sn| count(sn) == 3), "{spare:?}");
    let at = |sn| spare.iter().position(|copy| *copy == sn);
    assert!((60..74).all(|sn| at(sn) > at(sn + 1)), "{spare:?}");
}

#[test]
fn where_few_copies_are_allowed_each_piece_has_its_share() {
    let mut bench = Bench::new(20);
    bench.capacity.rate = Some(200_000);
    bench.next();
    bench.wake(1, 100);
    bench.send(100);

    let copies = bench.copies(200, 1);

    let count = |sn| copies.iter().filter(|copy| **copy == sn).count();
    // 200 KB, and some beside for the thin beginning
    assert!((4..=100).all(|sn| (1..=2).contains(&count(sn))), "{copies:?}");
}

#[test]
fn piece_that_was_lost_before_leaves_several_times_beside_other_load() {
    let mut bench = Bench::new(20);
    bench.wake(1, 74);
    bench.send(74);
    bench.wake(2, 100_000);
    bench.send(300);
    bench.pass(300);
    bench.wake(1, 1);
    let repeated = bench.send_again(400, 1);

    let copies = bench.copies(100, 3);

    assert_eq!(copies.iter().filter(|sn| Some(**sn) == repeated).count(), 2, "{copies:?}");
}

#[test]
fn piece_of_a_long_stream_leaves_as_often_as_it_was_lost() {
    for losses in [1, 2, 3] {
        let mut bench = Bench::new(20);
        bench.wake(1, 2_000_000);
        bench.send(1000);
        let repeated = bench.send_again(1, losses);

        let copies = bench.copies(100, 3);

        let count = copies.iter().filter(|sn| Some(**sn) == repeated).count();
        assert_eq!(count, usize::from(losses) - 1, "{losses}");
    }
}

#[test]
fn transmission_that_was_lost_is_replaced_while_another_is_under_way() {
    let mut bench = Bench::new(5);
    bench.wake(1, 74);
    bench.run(180);
    let doubtful = Piece { conv: 1, sn: 7 };

    bench.load.on_doubt(doubtful, 1400, bench.now);

    assert_eq!(bench.send(9), [Sent::Copy(1, 7)]);
    let later = bench.run(300);
    assert_eq!(later.iter().filter_map(|(_, sent)| piece(sent)).collect::<Vec<_>>(), [7]);
}

#[test]
fn middle_of_a_long_transfer_is_not_copied_but_its_tail_is() {
    let mut bench = Bench::new(5);
    bench.wake(1, 5000);
    bench.pass(1);
    // All of it leaves within a second, so that nothing of the beginning is left to copy.
    for _ in 0..500 {
        bench.send(10);
        bench.pass(2);
    }

    let copies: Vec<u32> = bench.run(300).iter().filter_map(|(_, sent)| piece(sent)).collect();

    assert!(copies.iter().all(|sn| *sn > 5000 - 32), "{copies:?}");
    assert_eq!(copies.len(), 3 * 32, "{copies:?}");
}

#[test]
fn tail_is_none_when_the_lane_goes_on() {
    let mut bench = Bench::new(5);
    bench.wake(1, 1000);
    for _ in 0..210 {
        bench.send(5);
        bench.pass(2);
    }
    assert_eq!(bench.next(), None);

    // It had nothing to send for 10 ms only.
    bench.pass(10);
    bench.wake(1, 1000);
    bench.send(5);
    bench.pass(30);
    let sent = bench.send(900);

    assert!(sent.iter().all(|sent| matches!(sent, Sent::Lane(..))), "{sent:?}");
}

#[test]
fn spare_copies_keep_their_cap() {
    let mut bench = Bench::new(5);
    bench.capacity.rate = Some(1_000_000);
    bench.next();
    let mut copies = 0;

    // Bursts of 100 kB with pauses: 150 kB/s of load, of which copies would make 300 more
    for conv in 0..60 {
        bench.wake(conv, 100);
        let all = bench.run(666);
        copies += all.iter().filter(|(_, sent)| piece(sent).is_some()).count();
    }

    // 40 s at 10 % and 5 %, and some of the first second
    assert!((1500..=6600).contains(&copies), "{copies}");
}

#[test]
fn stream_that_is_too_fast_to_be_copied_whole_is_not_copied() {
    for (rate, copied) in [(150, true), (3000, false)] {
        let mut bench = Bench::new(5);
        // Bytes a millisecond: 1.2 and 24 Mbit/s
        let mut copies = 0;
        let mut due = 0;
        let mut packets = 0;
        for _ in 0..3000 {
            due += rate;
            while due >= 1000 {
                due -= 1000;
                packets += 1;
                bench.push(9, 1000);
            }
            let sent = bench.run(1);
            copies += sent.iter().filter(|(_, sent)| matches!(sent, Sent::Copied(..))).count();
        }
        if copied {
            assert!(copies * 10 > packets * 18, "{copies} of {packets}");
        } else {
            // Until it is known how fast it is
            assert!(copies < 700, "{copies} of {packets}");
        }
    }
}

#[test]
fn spare_copies_wait_for_a_path_with_nothing_else_to_do() {
    let mut bench = Bench::new(5);
    bench.wake(1, 50);
    bench.send(50);
    bench.wake(2, 100_000);

    for _ in 0..1000 {
        bench.pass(1);
        let sent = bench.send(2);
        assert!(sent.iter().all(|sent| !matches!(sent, Sent::Copy(_, 15..=50))), "{sent:?}");
    }
}

#[test]
fn relayed_messages_are_never_copied() {
    let mut bench = Bench::new(20);
    (0..3).for_each(|node| bench.relay(node, 100));

    assert_eq!(bench.run(1000).len(), 3);
}

#[test]
fn copies_hold_little_memory() {
    let mut bench = Bench::new(20);
    for port in 0..5000 {
        bench.push(port, 1400);
        bench.next();
    }
    for conv in 0..500 {
        bench.wake(conv, 100);
    }
    bench.send(50_000);

    assert!(bench.load.copies.held() <= 1024 * 1024 + 1024 * 200, "{}", bench.load.copies.held());
    bench.run(5000);
    assert_eq!(bench.load.copies.held(), 0);
}

pub(super) fn packet(port: u16, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[9] = UDP;
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet
}

fn port(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[20], packet[21]])
}

fn piece(sent: &Sent) -> Option<u32> {
    match sent {
        Sent::Copy(_, sn) => Some(*sn),
        Sent::Packet(..) | Sent::Copied(..) | Sent::Lane(..) | Sent::Relay(_) => None,
    }
}

fn key(node: u8) -> PublicKey {
    PrivateKey::from_bytes([node + 1; 32]).public_key()
}

/// Returns how fair shares are: 1 where all are equal
fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    sum * sum / (shares.len() as f64 * squares)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
