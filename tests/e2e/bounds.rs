//! What an administrator allows a network or the whole node to send.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fastvpn_tests::lab::load::{self, Transfer};
use fastvpn_tests::lab::star::{HUB_PORT, NETWORK, number};
use fastvpn_tests::lab::{Node, Star, outer_v4, until};
use fastvpn_tests::link::Count;

use crate::runner::cases;
use crate::support::{BRIEF, LONG, await_path, plan};

cases![
    packet_rate_of_the_node_is_kept,
    quota_of_a_network_that_runs_out_leaves_a_trickle_also_after_a_restart,
    quota_of_the_node_that_runs_out_leaves_a_trickle_also_after_a_restart,
    rate_of_a_network_is_kept,
    rate_of_the_node_is_shared_by_its_networks,
];

/// Two peers with a direct path, of which the first has further lines for its network, and others for
/// the whole node
fn bounded(network: &str, node: &str) -> Star {
    let mut star = Star::new(plan()).unwrap();
    bound(&star, network, node);
    star.start().unwrap();
    ready(&star);
    star
}

fn bound(star: &Star, network: &str, node: &str) {
    let peer = &star.peers[0];
    peer.configure(NETWORK, &format!("{network}\n{}", star.peer_config(0))).unwrap();
    std::fs::write(peer.path("etc/fastvpnd.conf"), format!("{node}\n")).unwrap();
}

fn ready(star: &Star) {
    star.peers[0].reaches(star.ip(1), LONG).unwrap();
    await_path(&star.peers[0], "peer2", "direct", LONG);
}

/// What the first peer sends to anybody in that time: packets and bits a second
fn sends(star: &Star, time: Duration) -> (f64, f64) {
    let sum = || {
        let to = [star.hub_port, star.peer_ports[1]];
        let counts = to.map(|to| star.lab.wire.counters(star.peer_ports[0], to).pushed);
        Count {
            items: counts.iter().map(|count| count.items).sum(),
            bytes: counts.iter().map(|count| count.bytes).sum(),
        }
    };
    let (before, start) = (sum(), Instant::now());
    std::thread::sleep(time);
    let (after, took) = (sum(), start.elapsed().as_secs_f64());
    let a_second = |from: u64, to: u64| (to - from) as f64 / took;
    (a_second(before.items, after.items), 8.0 * a_second(before.bytes, after.bytes))
}

fn stream(star: &Star, target: SocketAddr) -> Transfer {
    Transfer::start(&star.peers[0].host, &star.peers[1].host, target, 1 << 30).unwrap()
}

/// Asserts that the rate on the wire comes to lie within these Mbit/s, and stays there
fn assert_rate(star: &Star, least: f64, most: f64) {
    let seconds: Vec<f64> = (0..4).map(|_| sends(star, Duration::from_secs(1)).1 / 1e6).collect();
    let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
    println!("{mean:.2} Mbit/s: {seconds:.1?}");
    assert!((least..=most).contains(&mean), "{mean:.2} Mbit/s: {seconds:.1?}");
}

fn rate_of_a_network_is_kept() {
    let star = bounded("rate = \"10mbit\"", "");
    let transfer = stream(&star, star.at(1, 7500));
    assert!(transfer.reaches(1 << 20, BRIEF));

    assert_rate(&star, 8.0, 10.5);
}

fn packet_rate_of_the_node_is_kept() {
    let star = bounded("", "packet_rate = 500");
    let target = star.at(1, 7501);
    let _inbox = star.peers[1].host.run(move |_| UdpSocket::bind(target)).unwrap();
    let outbox = star.peers[0].host.run(|_| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let end = Instant::now() + Duration::from_secs(6);
    let flood = std::thread::spawn(move || {
        while Instant::now() < end {
            // a bounded node drops them, and so may the kernel
            let _ = outbox.send_to(&[7; 700], target);
            std::thread::sleep(Duration::from_micros(500));
        }
    });
    std::thread::sleep(Duration::from_secs(1));

    let (packets, bits) = sends(&star, Duration::from_secs(4));

    flood.join().unwrap();
    println!("{packets:.0} packets/s, {:.2} Mbit/s", bits / 1e6);
    assert!((400.0..=510.0).contains(&packets), "{packets:.0} packets/s");
}

/// A second network of the same three nodes
const SECOND: &str = "other";

/// Gives the nodes of a star that does not run a second network
fn add_network(star: &Star) {
    let nodes = || std::iter::once(&star.hub).chain(&star.peers);
    let keys: Vec<_> = nodes().map(|node| node.keygen("second").unwrap()).collect();
    // the port above the first one is for KCP
    let port = HUB_PORT + 2;
    let mut hub = format!(
        "role = \"hub\"\nlisten = \"0.0.0.0:{port}\"\nsubnet = [\"10.98.0.0/24\"]\n\
         address = [\"10.98.0.1/24\"]\nprivate_key_file = \"{}\"\n",
        keys[0].file.display()
    );
    for (peer, key) in keys[1..].iter().enumerate() {
        hub += &format!(
            "\n[[member]]\nname = \"peer{}\"\npublic_key = \"{}\"\naddress = [\"{}\"]\n",
            peer + 1,
            key.public,
            second(peer, 0).ip(),
        );
        let config = format!(
            "role = \"peer\"\naddress = [\"{}/24\"]\nprivate_key_file = \"{}\"\n\n\
             [[hub]]\nendpoint = \"{}:{port}\"\npublic_key = \"{}\"\n",
            second(peer, 0).ip(),
            key.file.display(),
            outer_v4(1),
            keys[0].public,
        );
        star.peers[peer].configure(SECOND, &config).unwrap();
    }
    star.hub.configure(SECOND, &hub).unwrap();
}

/// Address of a peer in the second network
fn second(peer: usize, port: u16) -> SocketAddr {
    ([10, 98, 0, number(peer)], port).into()
}

fn rate_of_the_node_is_shared_by_its_networks() {
    let mut star = Star::new(plan()).unwrap();
    bound(&star, "", "rate = \"20mbit\"");
    add_network(&star);
    star.start().unwrap();
    ready(&star);
    star.peers[0].reaches(second(1, 0).ip(), LONG).unwrap();

    // alone, one has nearly all
    let one = stream(&star, star.at(1, 7502));
    assert!(one.reaches(4 << 20, BRIEF));
    assert_rate(&star, 12.0, 21.0);

    let other = stream(&star, second(1, 7502));
    // it has its part some seconds after it began
    assert!(other.reaches(2 << 20, LONG));
    std::thread::sleep(Duration::from_secs(2));
    let before = [one.moved(), other.moved()];
    assert_rate(&star, 15.0, 21.0);
    let moved = [one.moved() - before[0], other.moved() - before[1]];
    let share = moved[1] as f64 / (moved[0] + moved[1]) as f64;
    println!("the second network has {share:.2}");
    assert!((0.35..=0.65).contains(&share), "{share:.2}");
}

fn quota_of_a_network_that_runs_out_leaves_a_trickle_also_after_a_restart() {
    runs_out(|star, quota| bound(star, quota, ""));
}

fn quota_of_the_node_that_runs_out_leaves_a_trickle_also_after_a_restart() {
    runs_out(|star, quota| bound(star, "", quota));
}

/// Uses a quota up, which is set by that function, restarts the daemon, and sets a larger one
fn runs_out(set: fn(&Star, &str)) {
    let mut star = Star::new(plan()).unwrap();
    set(&star, "quota = \"3MB/month\"");
    star.start().unwrap();
    ready(&star);
    let _sends = stream(&star, star.at(1, 7503));

    await_quota(&star.peers[0], 3_000_000);
    assert!(star.peers[0].logs_soon("is used up; slowed"));
    assert_trickles(&star);

    assert!(star.peers[0].stop().unwrap().success());
    star.peers[0].start().unwrap();
    await_quota(&star.peers[0], 3_000_000);
    star.peers[0].reaches(star.ip(1), LONG).unwrap();
    let _sends_more = stream(&star, star.at(1, 7504));
    assert_trickles(&star);

    set(&star, "quota = \"1TB/month\"");
    assert_eq!(star.peers[0].ctl(&["reload"]).unwrap().code, 0);
    let (from, to) = (&star.peers[0].host, &star.peers[1].host);
    let transfer = Transfer::start(from, to, star.at(1, 7505), 8 << 20).unwrap();
    transfer.finish(LONG).unwrap();
}

/// Waits until so much of the quota is used
fn await_quota(node: &Node, bytes: u64) {
    node.await_status(NETWORK, "out of quota", LONG, |status| {
        status["quota"]["used"].as_u64().is_some_and(|used| used >= bytes)
    })
    .unwrap();
}

/// Asserts that hardly anything is sent of what wants to be, and that the node can be reached all the same
fn assert_trickles(star: &Star) {
    let time = Duration::from_secs(3);
    let mut bits = f64::INFINITY;
    // what had left its queue before is still under way
    until(BRIEF, || {
        bits = sends(star, time).1;
        (30e3..80e3).contains(&bits)
    });
    println!("{:.1} kbit/s", bits / 1e3);
    assert!((30e3..80e3).contains(&bits), "{:.1} kbit/s", bits / 1e3);
    let status = star.peers[0].status(NETWORK).unwrap();
    let detail = status["detail"].as_str().unwrap();
    assert!(detail.contains("is used up; slowed to 64 kbit/s"), "{detail}");
    let pings =
        load::ping(&star.peers[1].host, star.ip(0), 10, Duration::from_millis(200)).unwrap();
    assert!(pings.received >= 8, "{pings:?}");
}
