//! Super-packets that travel whole, and what a member may make of them.

use super::testing::{Net, millis, overlay, secs};
use super::*;
use crate::buffers::PacketBuffer;
use crate::ip::Inner;
use crate::ip::checksum::{add, finish};
use crate::ip::numbers::{ACK, ICMP, TCP, UDP};
use crate::ip::testing::{is_whole, packet};
use crate::limits::PACKET_MAX;
use crate::wire::frame::{Fragment, Frame};

/// Two nodes in session
fn pair() -> Net {
    let mut net = Net::triangle();
    net.run(secs(1));
    net.send(1, 2, 7);
    net.run(millis(200));
    net.packets[2].clear();
    net
}

/// A super-packet of UDP from one node to the other, of which each datagram has `size` bytes
fn datagrams(len: usize, size: u16) -> Inner {
    let bytes = from_member(UDP, 0, len);
    Inner { bytes, gso: Some(Gso { size, transport: 20 }) }
}

impl Net {
    /// Has the first node's kernel send a super-packet, on a path over which those travel whole
    fn send_super(&mut self, packet: &Inner) {
        self.read_super(packet, &mut PacketBuffer::default());
        self.drain(1);
    }

    /// The same, read into a buffer, and nothing leaves yet
    fn read_super(&mut self, packet: &Inner, buffer: &mut PacketBuffer) {
        let key = self.nodes[2].public_key();
        let shard = self.nodes[1].shard_of(&key);
        let session = shard.peers.get_mut(&key).unwrap().session.as_mut().unwrap();
        session.always_whole = true;
        buffer.put(&packet.bytes);
        self.nodes[1].handle_buffer(buffer, packet.gso, self.now);
    }
}

#[test]
fn super_packet_arrives_as_its_packets_whether_it_fits_a_message_or_not() {
    for len in [500, 2500, 20_000] {
        let mut net = pair();

        net.send_super(&datagrams(len, 100));
        net.run(millis(200));

        assert_eq!(net.packets[2].len(), len / 100, "{len} bytes");
        assert!(net.packets[2].iter().all(|packet| packet.len() == 128 && is_whole(packet)));
    }
}

#[test]
fn super_packet_waits_where_it_was_read_until_it_has_left() {
    let mut net = pair();
    let mut buffer = PacketBuffer::default();
    let mut places = BTreeSet::new();
    for round in 0..20_u8 {
        let mut sent = Vec::new();
        for (number, len) in [(0, 60_000), (1, 20_000), (2, 50_000)] {
            let packet = from_member(UDP, 0, len);
            let mut packet = Inner { bytes: packet, gso: Some(Gso { size: 1000, transport: 20 }) };
            packet.bytes[28..].fill(round * 3 + number);
            buffer.put(&[0xee; PACKET_MAX]);
            let place = buffer.as_ptr();
            places.insert(place);

            net.read_super(&packet, &mut buffer);

            assert_eq!(buffer.as_ptr() != place, len >= 50_000, "{len}");
            buffer.put(&[0xee; PACKET_MAX]);
            sent.extend(vec![round * 3 + number; len / 1000]);
        }
        net.drain(1);
        net.run(secs(1));

        let came: Vec<u8> = net.packets[2].drain(..).map(|packet| packet[28]).collect();
        assert_eq!(came, sent);
    }
    // Two that wait, and one that is read into.
    assert!(places.len() <= 3, "{}", places.len());
}

#[test]
fn super_packets_that_nobody_sends_take_no_more_buffers_than_may_wait() {
    let mut net = pair();
    let (mut buffer, mut places) = (PacketBuffer::default(), BTreeSet::new());
    for _ in 0..200 {
        net.read_super(&datagrams(60_000, 1000), &mut buffer);
        buffer.put(&[0xee; PACKET_MAX]);
        places.insert(buffer.as_ptr());
    }

    // 2 MiB of them wait at most.
    assert!((30..40).contains(&places.len()), "{}", places.len());
}

#[test]
fn datagram_that_has_arrived_and_is_copied_no_more_leaves_its_buffer() {
    let mut net = pair();
    let mut buffer = PacketBuffer::for_mtu(1400);
    for round in 1..5 {
        buffer.put(&from_member(UDP, 0, 1300));
        net.nodes[1].handle_buffer(&mut buffer, None, net.now);
        buffer.put(&[0xee; PACKET_MAX]);
        net.drain(1);
        net.run(secs(1));

        let shard = net.nodes[1].shards().next().unwrap();
        assert_eq!((net.packets[2].len(), shard.shared.pool.shelf.free_small()), (round, 1));
        assert!(net.packets[2].iter().all(|packet| is_whole(packet)));
    }
}

#[test]
fn super_packet_of_crumbs_travels_as_its_packets() {
    let mut net = pair();
    let crumbs = datagrams(20_000, 10);

    net.send_super(&crumbs);
    net.run(millis(200));

    assert_eq!(net.packets[2].len(), 2000);
    assert!(net.packets[2].iter().all(|packet| packet.len() == 38 && is_whole(packet)));
}

#[test]
fn super_packet_of_one_packet_comes_out_as_that() {
    let mut net = pair();
    for size in [400, 5000, u16::MAX] {
        let packet = datagrams(400, size);

        let taken = forged(&mut net, &packet);

        assert_eq!(taken.iter().map(|taken| taken.gso).collect::<Vec<_>>(), [None]);
        assert!(taken.iter().all(|taken| taken.bytes.len() == 428 && is_whole(&taken.bytes)));
    }
}

#[test]
fn super_packet_that_nobody_can_cut_or_of_crumbs_is_dropped() {
    let mut net = pair();
    let fine = datagrams(5000, 500);
    assert_eq!(forged(&mut net, &fine).len(), 1);
    assert_eq!(forged(&mut net, &datagrams(600, 88)).len(), 1);

    let mut icmp = fine.clone();
    icmp.bytes[9] = ICMP;
    let [crumbs, small] = [(5000, 1), (600, 87)].map(|(len, size)| datagrams(len, size));
    let odd = Inner { gso: Some(Gso { size: 500, transport: 24 }), ..fine };

    for packet in [icmp, crumbs, small, odd] {
        assert_eq!(forged(&mut net, &packet), []);
    }
}

/// Has the other node take a super-packet in parts; returns what it gives to its kernel
fn forged(net: &mut Net, packet: &Inner) -> Vec<Inner> {
    let total = packet.bytes.len() as u16;
    for (part, data) in packet.bytes.chunks(1000).enumerate() {
        let offset = part as u16 * 1000;
        let part = Fragment { id: 77, offset, total, gso: packet.gso, data };
        let mut frames = Vec::new();
        Frame::Fragment(part).encode(&mut frames);
        let mut message = net.forge(1, 2, &frames);
        let arrival = Arrival {
            carrier: Carrier::Udp,
            remote: net.addrs[1],
            local: None,
            ecn: Ecn::Incapable,
        };
        net.nodes[2].handle_message(arrival, &mut message, net.now);
    }
    let mut buffer = Vec::new();
    while net.nodes[2].poll_transmit(&mut buffer, net.now).is_some() {}
    let whole = |taken: Parcel| {
        let gso = taken.cutter().map(|cutter| cutter.gso());
        Inner { bytes: taken.into_buffer(), gso }
    };
    let taken = core::iter::from_fn(|| net.nodes[2].poll_packet()).map(whole).collect();
    net.drain(2);
    taken
}

#[test]
fn whatever_a_member_sends_as_packets_is_survived() {
    let mut net = pair();
    let mut seed = 1_u64;
    let mut chance = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let arrival =
        Arrival { carrier: Carrier::Udp, remote: net.addrs[1], local: None, ecn: Ecn::Incapable };
    let mut came = 0;
    for round in 0..3000_u32 {
        for part in 0..3_u32 {
            let mut frames = Vec::new();
            for number in 0..3 {
                let protocol = [TCP, UDP][chance(2) as usize];
                let len = 60 + chance(200) as usize;
                let mut packet = from_member(protocol, (part * 3 + number) * 100, len);
                for _ in 0..chance(4) {
                    // Anything but the source, which has to be the member's.
                    let at = 16 + chance(packet.len() as u64 - 16) as usize;
                    packet[at] = chance(256) as u8;
                }
                let total = packet.len() as u16;
                let transport = [20, 20, 20, 24, 40, 300][chance(6) as usize];
                let gso = Gso { size: 1 + chance(300) as u16, transport };
                let gso = (chance(2) == 0).then_some(gso);
                let (id, offset) = (round * 9 + part * 3 + number, 0);
                let part = Fragment { id, offset, total, gso, data: &packet };
                let frame =
                    if chance(2) == 0 { Frame::Datagram(&packet) } else { Frame::Fragment(part) };
                frame.encode(&mut frames);
            }
            let mut message = net.forge(1, 2, &frames);
            net.nodes[2].handle_message(arrival, &mut message, net.now);
        }
        let before = net.packets[2].len();
        net.drain(2);
        came += net.packets[2].len() - before;
        net.packets[2].clear();
        net.now += millis(1);
    }

    assert!(came > 10_000, "{came}");
}

/// A packet from the first node to the second
fn from_member(protocol: u8, seq: u32, len: usize) -> Vec<u8> {
    let mut bytes = packet(false, protocol, seq, ACK, &vec![7; len]);
    for (at, id) in [(12, 1), (16, 2)] {
        let IpAddr::V4(addr) = overlay(id) else { unreachable!() };
        bytes[at..at + 4].copy_from_slice(&addr.octets());
    }
    bytes[10..12].fill(0);
    let sum = finish(add(0, &bytes[..20])).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes
}
