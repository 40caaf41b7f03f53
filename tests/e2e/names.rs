//! Nodes have names, answered by DNS on each of them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use fastvpn_tests::lab::star::NETWORK;
use fastvpn_tests::lab::{Host, Star, StarPlan, inner_v4, inner_v6, until};

use crate::runner::cases;
use crate::support::{BRIEF, LONG, await_up, plan, star};

cases![
    name_outlives_who_has_it,
    names_are_answered_on_each_node_to_the_overlay_alone,
    names_have_the_configured_domain_or_none,
];

fn names_are_answered_on_each_node_to_the_overlay_alone() {
    let star = star();
    let (one, two) = (&star.peers[0].host, &star.peers[1].host);
    let server = server(&star, 0);
    assert_eq!(server, SocketAddr::new(star.ip(0), 53));

    // the other one, itself and the hub, in both families
    for (name, inner) in [("peer2", star.inner(1)), ("peer1", star.inner(0))] {
        await_address(one, server, &format!("{name}.lab.fastvpn"), inner[0]);
        assert_eq!(look_up(one, server, &format!("{name}.lab.fastvpn"), AAAA), [octets(inner[1])]);
    }
    await_address(one, server, "HUB.Lab.FastVPN", inner_v4(1).into());
    assert_eq!(look_up(one, server, "hub.lab.fastvpn", AAAA), [octets(inner_v6(1).into())]);

    // an address leads back, over TCP as well
    let [a, b, c, d] = inner_v4(12).octets();
    let reverse = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
    let wanted = wire_name("peer2.lab.fastvpn");
    assert_eq!(look_up(one, server, &reverse, PTR), [wanted.clone()]);
    let answer = ask_tcp(one, server, &question(&reverse, PTR));
    assert_eq!(records(&answer), [wanted]);

    // no such name; nothing of that kind; not ours
    let code = |name: &str| ask(one, server, &question(name, A)).unwrap()[3] & 15;
    assert_eq!(code("oslo.lab.fastvpn"), NXDOMAIN);
    assert_eq!(code("example.net"), REFUSED);

    // the hub and another node may ask; who is outside may not
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
    assert_eq!(look_up(two, server, "peer1.lab.fastvpn", A), [octets(star.ip(0))]);
    let from = two.run(|_| UdpSocket::bind("198.51.100.12:0")).unwrap();
    assert_eq!(exchange(&from, server, &question("peer1.lab.fastvpn", A)), None);
}

fn name_outlives_who_has_it() {
    let mut star = star();
    let server = server(&star, 0);
    let gone = star.ip(1);
    await_address(&star.peers[0].host, server, "peer2.lab.fastvpn", gone);

    star.peers[1].stop().unwrap();
    assert!(until(LONG, || {
        star.peers[0].peers().unwrap().iter().all(|peer| peer["name"] != "peer2")
    }));

    let host = &star.peers[0].host;
    assert_eq!(look_up(host, server, "peer2.lab.fastvpn", A), [octets(gone)]);
}

fn names_have_the_configured_domain_or_none() {
    let peer_lines = "dns_suffix = \"VPN.example.net\"\n".to_owned();
    let star = Star::up(StarPlan { peer_lines, ..plan() }).unwrap();
    let (one, place) = (&star.peers[0], server(&star, 0));
    await_address(&one.host, place, "peer2.vpn.example.net", star.ip(1));
    let code = ask(&one.host, place, &question("peer2.lab.fastvpn", A)).unwrap()[3] & 15;
    assert_eq!(code, REFUSED);

    let config = one.config_file(NETWORK);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("dns_suffix = \"VPN.example.net\"", "dns = false");
    std::fs::write(&config, text).unwrap();
    assert_eq!(one.ctl(&["reload"]).unwrap().code, 0);

    one.await_status(NETWORK, "without names", BRIEF, |status| status["dns"].is_null()).unwrap();
    await_up(one, BRIEF);
    assert_eq!(ask(&one.host, place, &question("peer2.vpn.example.net", A)), None);
}

/// Where a peer answers, once it does
fn server(star: &Star, peer: usize) -> SocketAddr {
    let status = star.peers[peer]
        .await_status(NETWORK, "answering for names", BRIEF, |status| {
            status["dns"]["server"].is_string() && status["dns"]["state"] == "unannounced"
        })
        .unwrap();
    status["dns"]["server"].as_str().unwrap().parse().unwrap()
}

/// Waits until a name means an IPv4 address
fn await_address(host: &Host, server: SocketAddr, name: &str, addr: IpAddr) {
    let means = || look_up(host, server, name, A) == [octets(addr)];
    assert!(until(BRIEF, means), "{name} is not {addr}");
}

/// Returns the data of each record in the answer
fn look_up(host: &Host, server: SocketAddr, name: &str, kind: u16) -> Vec<Vec<u8>> {
    ask(host, server, &question(name, kind)).map(|answer| records(&answer)).unwrap_or_default()
}

fn ask(host: &Host, server: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let socket = host.run(|_| UdpSocket::bind("0.0.0.0:0")).unwrap();
    exchange(&socket, server, question)
}

fn exchange(socket: &UdpSocket, server: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.send_to(question, server).unwrap();
    let mut buffer = [0; 1500];
    let len = socket.recv(&mut buffer).ok()?;
    Some(buffer[..len].to_vec())
}

fn ask_tcp(host: &Host, server: SocketAddr, question: &[u8]) -> Vec<u8> {
    let mut stream = host.run(move |_| TcpStream::connect(server)).unwrap();
    stream.set_read_timeout(Some(BRIEF)).unwrap();
    stream.write_all(&(question.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(question).unwrap();
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// One question: number, recursion desired, one name
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(wire_name(name));
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Reads the data of the records of an answer, a name in it without pointers
fn records(answer: &[u8]) -> Vec<Vec<u8>> {
    let number = |at: usize| usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
    let mut at = name_at(answer, 12).1 + 4;
    let mut records = Vec::new();
    for _ in 0..number(6) {
        at = name_at(answer, at).1;
        let (kind, len) = (number(at), number(at + 8));
        at += 10;
        let is_name = kind == usize::from(PTR);
        records.push(if is_name { name_at(answer, at).0 } else { answer[at..at + len].to_vec() });
        at += len;
    }
    records
}

/// Reads a name; returns it without pointers, and where it ends
fn name_at(message: &[u8], begin: usize) -> (Vec<u8>, usize) {
    let (mut name, mut at, mut end) = (Vec::new(), begin, None);
    loop {
        let len = usize::from(message[at]);
        if len & 0xc0 == 0xc0 {
            end = end.or(Some(at + 2));
            at = (len & 0x3f) << 8 | usize::from(message[at + 1]);
            continue;
        }
        name.extend(&message[at..=at + len]);
        at += len + 1;
        if len == 0 {
            return (name, end.unwrap_or(at));
        }
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;
