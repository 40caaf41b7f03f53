//! Much of everything: bytes through one split connection, and connections at once.
//!
//! A connection whose sequence numbers begin near their end wraps them soon. With `FASTVPN_TEST_FULL` set it carries
//! 4.5 GiB, which is for release builds of the daemons.

use std::time::{Duration, Instant};

use fastvpn_tests::lab::load::Transfer;
use fastvpn_tests::lab::many::Many;
use fastvpn_tests::lab::sequence::begin_at;
use fastvpn_tests::lab::{Host, Node, Star, StarPlan};

use crate::runner::cases;
use crate::support::{BRIEF, LONG, star};

cases![
    near_and_clean_path_has_packets_once_memory_is_short["ss"],
    sequence_numbers_wrap_at_both_kernels["nft"],
    thousands_of_connections_at_once["ss"],
];

fn near_and_clean_path_has_packets_once_memory_is_short() {
    let peer_lines = "memory = \"2MiB\"\n".to_owned();
    let mut star = Star::of_cables(StarPlan { peer_lines, ..StarPlan::default() }).unwrap();
    star.start().unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    let [one, other] = [&star.peers[0].host, &star.peers[1].host];
    let cold = Many::open(one, other, star.at(1, 7620), 2, LONG).unwrap();
    assert_eq!(connections(one, 7620), [2, 0], "nothing is known of the path");

    // much in each direction, which makes the path known and holds the memory meanwhile
    let load: Vec<_> = [(one, other, 1), (other, one, 0)]
        .map(|(from, to, at)| Transfer::start(from, to, star.at(at, 7621), 4 << 30).unwrap())
        .into();
    let plain = |peer: &serde_json::Value| peer["tcp"] == "plain";
    star.peers[0].await_peer("peer2", "plain", 2 * LONG, plain).unwrap();
    let warm = Many::open(one, other, star.at(1, 7622), 2, LONG).unwrap();

    assert_eq!((connections(one, 7620), connections(one, 7622)), ([2, 0], [0, 2]));
    [cold, warm].into_iter().for_each(|many| many.close(LONG).unwrap());
    drop(load);
}

fn sequence_numbers_wrap_at_both_kernels() {
    let star = Star::on_cables().unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    for (number, (from, to)) in [(0, 1), (1, 0)].into_iter().enumerate() {
        let (near, far) = (&star.peers[from].host, &star.peers[to].host);
        count_wraps(far);
        let target = star.at(to, 7600 + number as u16);
        // so many bytes before the wrap it begins
        let full = std::env::var_os("FASTVPN_TEST_FULL").is_some();
        let (before, bytes) = if full { (1 << 31, 9 << 29) } else { (8 << 20, 24 << 20) };
        let begin = |socket: &_| begin_at(socket, u32::MAX - before);
        let transfer = Transfer::start_with(near, far, target, bytes, begin).unwrap();
        let split = is_split(near, target.port());

        let report = transfer.finish(Duration::from_secs(150)).unwrap();

        println!(
            "{bytes} bytes, {:.0} Mbit/s, {:.1} s",
            report.mbits(),
            report.elapsed.as_secs_f64()
        );
        assert!(split, "plain");
        let [high, low] = counts(far);
        assert!(high > 0 && low > 0, "{high} segments before the wrap, {low} after it");
    }
}

/// Has a host count the segments that come to it with a sequence number before the wrap, and after it
fn count_wraps(host: &Host) {
    let rules = "table inet wraps { chain input { type filter hook input priority 0;
                 tcp sequence 0xfff00000-0xffffffff counter;
                 tcp sequence 0x0-0xfffff counter; }; }";
    host.must("nft", &["-f", "-"], rules).unwrap();
}

fn counts(host: &Host) -> [u64; 2] {
    let text = host.must("nft", &["list", "table", "inet", "wraps"], "").unwrap();
    let after = text.split("counter packets ").skip(1);
    let counts: Vec<u64> = after.filter_map(|text| text.split(' ').next()?.parse().ok()).collect();
    counts.try_into().unwrap()
}

/// Whether the connection to that port is split: then it has no timestamps, which splitting takes away
fn is_split(host: &Host, port: u16) -> bool {
    let mut open = [0; 2];
    fastvpn_tests::lab::until(BRIEF, || {
        open = connections(host, port);
        open != [0, 0]
    });
    open == [1, 0]
}

/// How many connections to that port are split, and how many are not
fn connections(host: &Host, port: u16) -> [usize; 2] {
    let port = format!(":{port}");
    let filter = ["-HtniO", "state", "established", "dport", "=", &port];
    let lines = host.must("ss", &filter, "").unwrap();
    let plain = lines.lines().filter(|line| has_timestamps(line)).count();
    [lines.lines().count() - plain, plain]
}

/// Whether a connection over IPv4 has timestamps: not every `ss` says so, but they make its segments smaller
fn has_timestamps(line: &str) -> bool {
    let number = |name: &str| -> Option<u32> {
        line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok())
    };
    let (mss, mtu) = (number("mss:").unwrap(), number("pmtu:").unwrap());
    mtu - mss >= 40 + 12
}

fn thousands_of_connections_at_once() {
    let count = 10_000;
    let star = star();
    let [one, other] = [&star.peers[0], &star.peers[1]];
    one.reaches(star.ip(1), BRIEF).unwrap();
    let memory = || [one, other].map(|node: &Node| node.memory_kib().unwrap() / 1024);
    let before = memory();
    let start = Instant::now();
    let passed = || start.elapsed().as_secs_f64();

    let mut many = Many::open(&one.host, &other.host, star.at(1, 7610), count, 2 * LONG).unwrap();
    let [split, plain] = connections(&one.host, 7610);
    println!("{split} split, {plain} plain, {:.1} s, {:?} MiB", passed(), memory());
    many.exchange(64, LONG).unwrap();
    println!("64 bytes more on each, {:.1} s, {:?} MiB", passed(), memory());
    let open = memory();
    many.close(LONG).unwrap();
    println!("all closed, {:.1} s, {:?} MiB, {before:?} at first", passed(), memory());

    assert_eq!(split + plain, count);
    assert!(split > 0 && open.iter().all(|memory| *memory < 128), "{split} split, {open:?} MiB");
    let again = Many::open(&one.host, &other.host, star.at(1, 7611), 100, LONG).unwrap();
    assert!(connections(&one.host, 7611)[0] > 0, "the pool is not given back");
    again.close(LONG).unwrap();
}
