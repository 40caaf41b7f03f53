//! The laboratory itself: what it promises, it keeps.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use fastvpn_tests::lab::load::{self, Probes, Transfer};
use fastvpn_tests::lab::nat::{Nat, NatKind};
use fastvpn_tests::lab::{Host, Port, Wire, until};
use fastvpn_tests::link::{LinkConfig, mbit, ms, percent};

use crate::runner::cases;

cases![
    address_moves_with_its_host,
    boxes_differ_as_their_names_say["nft"],
    hosts_on_one_cable_reach_each_other_and_leave_nothing,
    programs_end_with_their_host,
    round_trip_is_both_delays_and_loss_is_seen,
    sender_is_told_of_packets_that_are_too_big,
    streams_and_transfers_arrive_whole_on_a_cable,
];

fn hosts_on_one_cable_reach_each_other_and_leave_nothing() {
    let (near, far) = (Host::new("near").unwrap(), Host::new("far").unwrap());

    near.veth("eth0", &far, "eth0").unwrap();
    near.add_address("eth0", "192.0.2.1".parse().unwrap(), 24).unwrap();
    far.add_address("eth0", "192.0.2.2".parse().unwrap(), 24).unwrap();

    near.must("ping", &["-c1", "-W2", "192.0.2.2"], "").unwrap();
    assert_eq!(near.devices().unwrap(), ["lo", "eth0"]);
    drop(near);
    assert!(until(Duration::from_secs(10), || far.devices().unwrap() == ["lo"]));
}

fn programs_end_with_their_host() {
    let host = Host::new("short").unwrap();
    let mut command = host.command("sleep");
    command.arg("600");
    let mut child = host.spawn(command).unwrap();
    let name = format!("/proc/{}/comm", child.id());
    let runs = || std::fs::read_to_string(&name).is_ok_and(|name| name.trim() == "sleep");
    assert!(until(Duration::from_secs(10), runs));

    drop(host);

    assert!(!child.wait().unwrap().success());
}

fn streams_and_transfers_arrive_whole_on_a_cable() {
    let (near, far) = (Host::new("near").unwrap(), Host::new("far").unwrap());
    near.veth("eth0", &far, "eth0").unwrap();
    near.add_address("eth0", "192.0.2.1".parse().unwrap(), 24).unwrap();
    far.add_address("eth0", "192.0.2.2".parse().unwrap(), 24).unwrap();
    let target = "192.0.2.2:7000".parse().unwrap();

    let probes = Probes::start(&near, &far, target, Duration::from_millis(5)).unwrap();
    let transfer = Transfer::start(&near, &far, target, 4 << 20).unwrap();
    assert!(probes.more(20, Duration::from_secs(5)));
    let moved = transfer.finish(Duration::from_secs(10)).unwrap();
    let report = probes.finish().unwrap();

    assert_eq!(moved.bytes, 4 << 20);
    assert_eq!((report.received, report.duplicates), (report.sent, 0));
}

fn round_trip_is_both_delays_and_loss_is_seen() {
    let (wire, near, far, ports) = pair();
    wire.both(ports.0, ports.1, &LinkConfig::new().delay(ms(30)));

    let report = load::ping(&near, FAR, 5, Duration::from_millis(20)).unwrap();
    assert_eq!(report.received, 5, "{report:?}");
    let least = report.rtt_min().unwrap();
    assert!((60.0..66.0).contains(&least), "{report:?}");

    wire.set(ports.0, ports.1, LinkConfig::new().loss(percent(100)));
    let report = load::ping(&near, FAR, 3, Duration::from_millis(20)).unwrap();
    assert_eq!(report.received, 0);
    drop(far);
}

fn address_moves_with_its_host() {
    let (wire, near, far, ports) = pair();
    let new: IpAddr = "2001:db8::77".parse().unwrap();
    let old: IpAddr = "2001:db8::2".parse().unwrap();
    assert_eq!(load::ping(&near, old, 1, ms(20)).unwrap().received, 1);

    wire.renumber(&far, ports.1, old, new).unwrap();

    assert_eq!(load::ping(&near, new, 1, ms(20)).unwrap().received, 1);
    assert_eq!(load::ping(&near, old, 1, ms(20)).unwrap().received, 0);
}

fn sender_is_told_of_packets_that_are_too_big() {
    let (wire, near, far, ports) = pair();
    wire.set(ports.0, ports.1, LinkConfig::new().mtu(1300).rate(mbit(100)));

    for (target, word) in [("192.0.2.2", "Frag needed"), ("2001:db8::2", "too big")] {
        let mut command = near.command("ping");
        command.args(["-c1", "-W1", "-Mdo", "-s1400", target]);
        let output = near.output(command).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(word), "{text}");
    }
    drop(far);
}

const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

fn pair() -> (Wire, Host, Host, (Port, Port)) {
    let wire = Wire::new(1).unwrap();
    let (near, far) = (Host::new("near").unwrap(), Host::new("far").unwrap());
    let one = wire.attach(&near, &addresses(1)).unwrap();
    let other = wire.attach(&far, &addresses(2)).unwrap();
    (wire, near, far, (one, other))
}

fn addresses(host: u8) -> [IpAddr; 2] {
    [IpAddr::from([192, 0, 2, host]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)])]
}

/// What gets in from a stranger, from a known address, and whether destinations see one port
fn observe(kind: NatKind) -> (bool, bool, bool) {
    let wire = Wire::new(1).unwrap();
    let (inside, server, other) =
        (Host::new("in").unwrap(), Host::new("a").unwrap(), Host::new("b").unwrap());
    let _nat = Nat::new(&wire, [198, 51, 100, 9].into(), &inside, kind).unwrap();
    wire.attach(&server, &["198.51.100.1".parse().unwrap()]).unwrap();
    wire.attach(&other, &["198.51.100.2".parse().unwrap()]).unwrap();
    let client = socket(&inside, "0.0.0.0:5000");
    let known = socket(&server, "198.51.100.1:7000");
    let same_address = socket(&server, "198.51.100.1:7001");
    let stranger = socket(&other, "198.51.100.2:7000");

    client.send_to(b"out", "198.51.100.1:7000").unwrap();
    let mapped = receive(&known).expect("the way out is open");
    stranger.send_to(b"stranger", mapped).unwrap();
    let strangers = receive(&client).is_some();
    same_address.send_to(b"same", mapped).unwrap();
    let same = receive(&client).is_some();
    client.send_to(b"out", "198.51.100.2:7000").unwrap();
    let one_port = receive(&stranger) == Some(mapped);
    (strangers, same, one_port)
}

fn boxes_differ_as_their_names_say() {
    assert_eq!(observe(NatKind::FullCone), (true, true, true));
    assert_eq!(observe(NatKind::AddressRestricted), (false, true, true));
    assert_eq!(observe(NatKind::PortRestricted), (false, false, true));
    assert_eq!(observe(NatKind::Symmetric), (false, false, false));
}

fn socket(host: &Host, address: &'static str) -> UdpSocket {
    let socket = host.run(move |_| UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Option<SocketAddr> {
    socket.recv_from(&mut [0; 64]).ok().map(|(_, from)| from)
}
