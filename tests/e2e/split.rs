//! Split TCP as applications see it: nothing but a connection that is faster.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use fastvpn_tests::lab::load::Transfer;
use fastvpn_tests::lab::star::NETWORK;
use fastvpn_tests::lab::{Host, Star, StarPlan, inner_v4, until};
use fastvpn_tests::link::{LinkConfig, mbit, ms, percent};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::runner::cases;
use crate::support::{BRIEF, LONG, await_up, plan, star};

cases![
    addresses_and_ports_are_the_real_ones,
    bad_link_carries_most_of_its_rate,
    connection_survives_a_killed_daemon_while_idle,
    connections_that_both_nodes_forgot_end_where_bytes_were_lost["ss"],
    connections_that_both_nodes_forgot_go_on_where_nothing_was_lost,
    forwarded_connections_are_carried_as_well,
    half_closed_connection_still_answers,
    hundreds_of_connections_at_once,
    nothing_is_accepted_before_the_far_application,
    plain_is_a_choice_of_either_side,
    refused_is_refused,
    reset_is_a_reset_at_both_ends,
    reader_that_stalls_loses_nothing,
    transfer_broken_by_a_restart_ends_one_way_or_the_other,
];

/// A socket of `host` that connects to `target`; the wait is bounded
fn connect(host: &Host, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = host.run(move |_| {
        Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))
    })?;
    socket.connect_timeout(&target.into(), BRIEF)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LONG))?;
    stream.set_write_timeout(Some(LONG))?;
    Ok(stream)
}

fn listen(host: &Host, at: SocketAddr) -> TcpListener {
    host.run(move |_| TcpListener::bind(at)).unwrap()
}

/// Both ends of a connection from the first peer to the second
pub(crate) fn pair(star: &Star, port: u16) -> (TcpStream, TcpStream) {
    let listener = listen(&star.peers[1].host, star.at(1, port));
    let near = connect(&star.peers[0].host, star.at(1, port)).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(LONG)).unwrap();
    far.set_write_timeout(Some(LONG)).unwrap();
    (near, far)
}

/// Asserts that what one end says the other one hears
pub(crate) fn assert_talks(one: &mut TcpStream, other: &mut TcpStream) {
    exchange(one, other);
    exchange(other, one);
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"is anybody there?").unwrap();
    let mut heard = [0; 17];
    to.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"is anybody there?");
}

fn addresses_and_ports_are_the_real_ones() {
    let star = star();

    let (near, far) = pair(&star, 7300);

    assert_eq!(far.peer_addr().unwrap(), near.local_addr().unwrap());
    assert_eq!(near.peer_addr().unwrap(), far.local_addr().unwrap());
    assert_eq!(near.local_addr().unwrap().ip(), star.ip(0));
}

fn bad_link_carries_most_of_its_rate() {
    let link = LinkConfig::new().rate(mbit(40)).delay(ms(50)).queue(ms(100)).loss(percent(5));
    let star = Star::up(StarPlan { link, ..plan() }).unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    for target in star.inner(1) {
        let (from, to) = (&star.peers[0].host, &star.peers[1].host);
        let transfer = Transfer::start(from, to, (target, 7301).into(), 24 << 20).unwrap();
        let report = transfer.finish(Duration::from_secs(60)).unwrap();
        // the limit is about 35; cubic alone would reach less than 1
        assert!(report.mbits() > 20.0, "{target}: {:.1} Mbit/s", report.mbits());
    }
}

fn refused_is_refused() {
    let star = star();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    let error = connect(&star.peers[0].host, star.at(1, 7302)).unwrap_err();

    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

fn nothing_is_accepted_before_the_far_application() {
    let star = star();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    let nobody = SocketAddr::new(IpAddr::from(inner_v4(12)), 7303);
    let rules = "table inet lab { chain input { type filter hook input priority 0; \
                 tcp dport 7303 drop; }; }";
    star.peers[1].host.must("nft", &["-f", "-"], rules).unwrap();
    let socket = star.peers[0]
        .host
        .run(|_| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)))
        .unwrap();

    let error = socket.connect_timeout(&nobody.into(), Duration::from_secs(3)).unwrap_err();

    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

fn half_closed_connection_still_answers() {
    let star = star();
    let (mut near, mut far) = pair(&star, 7304);

    near.write_all(b"question").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut question = Vec::new();
    far.read_to_end(&mut question).unwrap();
    let answer = vec![7; 300_000];
    far.write_all(&answer).unwrap();
    drop(far);
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).unwrap();

    assert_eq!(question, b"question");
    assert!(heard == answer, "{} bytes", heard.len());
}

fn reset_is_a_reset_at_both_ends() {
    let star = star();
    let (mut near, mut far) = pair(&star, 7305);
    assert_talks(&mut near, &mut far);

    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);

    let error = near.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn reader_that_stalls_loses_nothing() {
    let star = star();
    let (near, mut far) = pair(&star, 7306);
    let bytes: Vec<u8> = (0..40_000_000_u32).map(|at| (at / 7) as u8).collect();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || (&near).write_all(&sent).map(|()| near));

    // nobody reads until every buffer on the way is full
    let mut before = 0;
    let full = until(LONG, || {
        let now = star.peers[0].status(NETWORK).unwrap()["counters"]["tx_bytes"].as_u64().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        now == std::mem::replace(&mut before, now) && now > 0
    });
    assert!(full && !writer.is_finished());
    let mut heard = Vec::new();
    let reader = std::thread::spawn(move || far.read_to_end(&mut heard).map(|_| heard));
    drop(writer.join().unwrap().unwrap());

    assert!(reader.join().unwrap().unwrap() == bytes);
}

fn connection_survives_a_killed_daemon_while_idle() {
    for victim in [0, 1] {
        let mut star = star();
        let (mut near, mut far) = pair(&star, 7307);
        assert_talks(&mut near, &mut far);
        // all that was said is acknowledged soon
        std::thread::sleep(Duration::from_millis(500));

        star.peers[victim].kill().unwrap();
        star.peers[victim].start().unwrap();
        await_up(&star.peers[victim], LONG);

        assert_talks(&mut near, &mut far);
    }
}

/// Kills the daemons of both peers, and starts them when `meanwhile` is done
fn restart_both(star: &mut Star, meanwhile: impl FnOnce(&Star)) {
    star.peers.iter_mut().for_each(|peer| peer.kill().unwrap());
    meanwhile(star);
    star.peers.iter_mut().for_each(|peer| peer.start().unwrap());
    star.peers.iter().for_each(|peer| await_up(peer, LONG));
    star.peers[0].reaches(star.ip(1), LONG).unwrap();
}

/// Has a kernel ask each second of silence, and give up after three
pub(crate) fn keep_alive(stream: &TcpStream) {
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive).unwrap();
}

fn connections_that_both_nodes_forgot_go_on_where_nothing_was_lost() {
    let mut star = star();
    let mut pairs = [7313, 7314, 7315].map(|port| pair(&star, port));
    for (near, far) in &mut pairs {
        assert_talks(near, far);
    }
    // all that was said is acknowledged soon
    std::thread::sleep(Duration::from_millis(500));

    restart_both(&mut star, |_| {});

    let [(mut asks, mut answers), (closes, mut hears), (mut kept, mut keeps)] = pairs;
    keep_alive(&keeps);
    assert_talks(&mut asks, &mut answers);
    drop(closes);
    assert_eq!(hears.read(&mut [0; 10]).unwrap(), 0);
    // longer than a kernel would wait for an answer
    std::thread::sleep(Duration::from_secs(6));
    assert_talks(&mut kept, &mut keeps);
}

fn connections_that_both_nodes_forgot_end_where_bytes_were_lost() {
    let mut star = star();
    let good = star.plan.link.clone();
    let mut pairs = [7316, 7317, 7318].map(|port| pair(&star, port));
    for (near, far) in &mut pairs {
        assert_talks(near, far);
    }

    star.lab.wire.all(&good.clone().down());
    for (near, _) in &mut pairs {
        near.write_all(&[7; 5000]).unwrap();
    }
    // the near node takes them for the far application, which never gets them
    assert!(until(BRIEF, || unacknowledged(&star.peers[0].host, 7316..=7318) == 0));
    restart_both(&mut star, |star| star.lab.wire.all(&good));

    let [(says_more, _), (closes, _), (asks, _)] = &mut pairs;
    says_more.write_all(b"more").unwrap();
    closes.shutdown(Shutdown::Write).unwrap();
    keep_alive(asks);
    for (number, (near, far)) in pairs.iter_mut().enumerate() {
        for end in [near, far] {
            let error = end.read(&mut [0; 10]).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "connection {number} hangs");
        }
    }
}

/// Bytes that the kernel keeps, because the other end has not acknowledged them
fn unacknowledged(host: &Host, ports: std::ops::RangeInclusive<u16>) -> u64 {
    let (from, to) = (format!(":{}", ports.start()), format!(":{}", ports.end()));
    let filter = ["-Htn", "dport", "ge", &from, "and", "dport", "le", &to];
    let lines = host.must("ss", &filter, "").unwrap();
    assert!(!lines.is_empty(), "no connections");
    let queued = |line: &str| line.split_whitespace().nth(2).and_then(|word| word.parse().ok());
    lines.lines().map(|line| queued(line).unwrap_or(u64::MAX / 8)).sum()
}

fn transfer_broken_by_a_restart_ends_one_way_or_the_other() {
    for victim in [0, 1] {
        let link = LinkConfig::new().rate(mbit(50)).delay(ms(20)).queue(ms(100)).loss(percent(2));
        let mut star = Star::up(StarPlan { link, ..plan() }).unwrap();
        star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
        let (from, to) = (&star.peers[0].host, &star.peers[1].host);
        let transfer = Transfer::start(from, to, star.at(1, 7308), 32 << 20).unwrap();
        assert!(transfer.reaches(2 << 20, LONG));

        star.peers[victim].kill().unwrap();
        star.peers[victim].start().unwrap();
        await_up(&star.peers[victim], LONG);

        // it goes on, or it is reset: whoever reads is not left waiting
        if let Err(error) = transfer.finish(Duration::from_secs(60)) {
            let text = format!("{error:#}");
            assert!(!text.contains("arrived in"), "victim {victim}: it hangs: {text}");
        }
    }
}

fn hundreds_of_connections_at_once() {
    const CONNECTIONS: usize = 400;
    let star = star();
    let listener = listen(&star.peers[1].host, star.at(1, 7309));
    let server = std::thread::spawn(move || {
        let streams: Vec<TcpStream> =
            (0..CONNECTIONS).map(|_| listener.accept().unwrap().0).collect();
        for mut stream in streams {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        }
    });

    let mut streams: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| connect(&star.peers[0].host, star.at(1, 7309)).unwrap()).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(format!("connection {number}").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    for (number, mut stream) in streams.into_iter().enumerate() {
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, format!("connection {number}"));
    }

    server.join().unwrap();
}

fn plain_is_a_choice_of_either_side() {
    for plain in [0, 1] {
        let mut star = Star::new(plan()).unwrap();
        let config = format!("tcp = \"plain\"\n{}", star.peer_config(plain));
        star.peers[plain].configure(NETWORK, &config).unwrap();
        star.start().unwrap();
        star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

        let (from, to) = (&star.peers[0].host, &star.peers[1].host);
        let transfer = Transfer::start(from, to, star.at(1, 7310), 4 << 20).unwrap();

        transfer.finish(LONG).unwrap();
    }
}

fn forwarded_connections_are_carried_as_well() {
    // a machine in the office behind the second peer
    const OFFICE: &str = "192.168.77.2";
    let mut star = Star::new(plan()).unwrap();
    let member = "name = \"peer2\"\n";
    let hub = star.hub_config(2);
    let hub = hub.replace(member, &format!("{member}subnet = [\"192.168.77.0/24\"]\n"));
    star.hub.configure(NETWORK, &hub).unwrap();
    let office = Host::new("office").unwrap();
    let gateway = &star.peers[1].host;
    gateway.veth("lan0", &office, "eth0").unwrap();
    gateway.add_address("lan0", "192.168.77.1".parse().unwrap(), 24).unwrap();
    gateway.sysctl("ipv4/ip_forward", "1").unwrap();
    office.add_address("eth0", OFFICE.parse().unwrap(), 24).unwrap();
    let (all, way) = ("0.0.0.0".parse().unwrap(), "192.168.77.1".parse().unwrap());
    office.add_route((all, 0), "eth0", Some(way)).unwrap();
    star.start().unwrap();
    star.peers[0].reaches(OFFICE.parse().unwrap(), BRIEF).unwrap();

    let target: SocketAddr = format!("{OFFICE}:7311").parse().unwrap();
    let transfer = Transfer::start(&star.peers[0].host, &office, target, 8 << 20).unwrap();
    transfer.finish(LONG).unwrap();

    // and the other way, with a keepalive that passes while nothing is said
    let back = star.at(0, 7312);
    let listener = listen(&star.peers[0].host, back);
    let mut near = connect(&office, back).unwrap();
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(1)).with_interval(Duration::from_secs(1));
    SockRef::from(&near).set_tcp_keepalive(&keepalive).unwrap();
    let (mut far, client) = listener.accept().unwrap();
    assert_eq!(client.ip().to_string(), OFFICE);
    std::thread::sleep(Duration::from_secs(4));
    assert_talks(&mut near, &mut far);
}
