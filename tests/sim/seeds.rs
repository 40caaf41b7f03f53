//! Handmade inputs from which the fuzzer begins.

use std::net::IpAddr;

use fastvpn_proto::control::{Base, Entry, List, Message, Register, Reply, Standing};
use fastvpn_proto::crypto::{InvitationSecret, PublicKey};
use fastvpn_proto::node::{BootId, Contact};
use fastvpn_proto::time::Duration;
use fastvpn_proto::wire::frame::{AckHead, Fragment, Frame, Marks, encode_ack};
use fastvpn_proto::wire::segment::Segment;
use fastvpn_tests::link::secs;
use fastvpn_tests::world::{World, packet};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

type Seeds = Vec<(&'static str, Vec<u8>)>;

pub(crate) fn all() -> Vec<(&'static str, Seeds)> {
    vec![
        ("control", control()),
        ("frame", frame()),
        ("member", member()),
        ("message", message()),
        ("packet", packets()),
        ("session", session()),
    ]
}

fn control() -> Seeds {
    let entry = Entry {
        key: PublicKey::from_bytes([3; 32]),
        name: "tokyo".into(),
        boot: BootId([4; 8]),
        addresses: vec![ip("10.0.0.3"), ip("fd00::3")],
        subnets: vec!["192.168.7.0/24".parse().unwrap()],
        endpoints: vec!["100.64.0.3:8796".parse().unwrap()],
    };
    let list = List {
        id: 9,
        revision: 2,
        base: Base::Revision(1),
        upserts: vec![entry.clone()],
        removed: vec![PublicKey::from_bytes([5; 32])],
    };
    let welcome = Reply::Welcome {
        addresses: vec!["10.0.0.2/24".parse().unwrap()],
        hub: vec![ip("10.0.0.1")],
        list: list.clone(),
    };
    let register = Register {
        name: "home".into(),
        addresses: vec![ip("10.0.0.2")],
        endpoints: vec!["192.168.1.2:8796".parse().unwrap()],
        secret: Some(InvitationSecret::from_bytes([7; 16])),
    };
    vec![
        ("list", Message::List(list).encode()),
        ("snapshot-request", Message::SnapshotRequest.encode()),
        ("whois", Message::WhoIs(entry.key).encode()),
        ("answer", Message::Answer { key: entry.key, standing: Standing::Live(entry) }.encode()),
        ("endpoints", Message::Endpoints(register.endpoints.clone()).encode()),
        ("register", register.encode()),
        ("welcome", welcome.encode()),
        ("pending", Reply::Pending.encode()),
        ("refused", Reply::Refused { reason: "taken".into() }.encode()),
    ]
}

fn frame() -> Seeds {
    let mut all = Vec::new();
    let marks = Marks { capable: 90, congested: 3 };
    let head = AckHead { path: 1, delay: Duration::from_millis(3), written: 7, marks };
    encode_ack(head, [90..=99, 50..=80, 7..=7].into_iter(), &mut all);
    let segment = Segment { conv: 0, sn: 7, una: 3, wnd: 64, frg: 1, data: b"segment" };
    let fragment = Fragment { id: 8, offset: 100, total: 200, gso: None, data: b"fragment" };
    let frames = [
        Frame::Ping,
        Frame::Challenge(1),
        Frame::Answer(2),
        Frame::Segment(segment),
        Frame::Window { conv: 0, una: 3, wnd: 9 },
        Frame::Datagram(b"datagram"),
        Frame::Fragment(fragment),
        Frame::Relay { node: PublicKey::from_bytes([1; 32]), message: b"message" },
        Frame::Echo(3),
        Frame::EchoReply(4),
        Frame::Close(0),
    ];
    let ack = all.clone();
    frames.iter().for_each(|frame| frame.encode(&mut all));
    let mut padded = all.clone();
    padded.extend([0; 20]);
    vec![("ack", ack), ("all", all), ("padded", padded)]
}

/// Each frame in a message of its own, then all of them once more on another path
fn member() -> Seeds {
    let (_, all) = frame().remove(1);
    let mut said = Vec::new();
    for (path, pause) in [(8, 1), (9, 200), (0x81, 0)] {
        said.extend([path, pause]);
        said.extend((all.len() as u16).to_be_bytes());
        said.extend(&all);
    }
    let mut packets = Vec::new();
    for source in ["10.0.0.9", "10.0.0.1", "192.0.2.1"] {
        let packet = packet::build(1, ip(source), ip("10.0.0.1"), 60);
        let mut frame = Vec::new();
        Frame::Datagram(&packet).encode(&mut frame);
        packets.extend([8, 10, 0, frame.len() as u8]);
        packets.extend(frame);
    }
    vec![("frames", said), ("packets", packets)]
}

/// Real messages, but for another node: all of them must be refused
fn message() -> Seeds {
    let mut world = World::new(1);
    let (hub, peer) = (world.hub(), world.peer());
    world.record();
    world.admit(hub, peer);
    let config = world.as_peer(hub, Contact::Always);
    world.know(peer, config);
    world.run(secs(2));
    world.send(peer, hub, 300);
    world.run(secs(2));
    let mut all = Vec::new();
    let mut kinds = std::collections::BTreeMap::new();
    for record in world.take_records() {
        let bytes = record.datagram.bytes;
        let mut one = (bytes.len() as u16).to_be_bytes().to_vec();
        one.extend(&bytes);
        if all.len() < 6_000 {
            all.extend(&one);
        }
        kinds.entry(bytes[0]).or_insert(one);
    }
    let mut seeds: Seeds = vec![("conversation", all)];
    for (kind, name) in [(1, "init"), (2, "response"), (4, "data")] {
        seeds.push((name, kinds.remove(&kind).unwrap()));
    }
    seeds
}

fn packets() -> Seeds {
    vec![
        ("ipv4", packet::build(1, ip("10.0.0.1"), ip("10.0.0.2"), 100)),
        ("ipv6", packet::build(1, ip("fd00::1"), ip("fd00::2"), 100)),
        ("short", packet::build(1, ip("10.0.0.1"), ip("10.0.0.2"), 100)[..30].to_vec()),
    ]
}

fn session() -> Seeds {
    let mut calm = Vec::new();
    for round in 0..40u8 {
        calm.extend([0, 0, 0, 1, 5, round, 6, round, 7, 50, 0, 1, 0, 0]);
    }
    let mut night = calm.clone();
    for _ in 0..8 {
        night.extend([8, 250, 0, 0, 0, 1, 0, 0, 0, 1, 5, 20, 5, 21]);
    }
    let mut wild = vec![0; 1_200];
    ChaCha8Rng::seed_from_u64(5).fill_bytes(&mut wild);
    vec![("calm", calm), ("night", night), ("wild", wild)]
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
