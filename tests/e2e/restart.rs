//! Restarts of the service: interfaces stay, connections go on, and after a kill nobody hangs.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fastvpn_tests::lab::load::Transfer;
use fastvpn_tests::lab::star::NETWORK;
use fastvpn_tests::lab::{Host, Node, Star, StarPlan, until};
use fastvpn_tests::link::{LinkConfig, mbit, ms, percent};

use crate::runner::cases;
use crate::split::{assert_talks, keep_alive, pair};
use crate::support::{BRIEF, LONG, await_up, plan};

cases![
    idle_connections_go_on_through_restarts,
    interface_that_is_not_wanted_any_more_is_let_go,
    kept_interface_never_goes_away["ip"],
    killed_daemon_leaves_idle_connections_alive_and_no_other_hanging,
    transfer_goes_on_at_its_rate_through_restarts_of_either_daemon,
    transfer_goes_on_through_restarts_of_both_daemons,
];

/// A hub and two peers whose service managers keep descriptors
fn kept_star(link: LinkConfig) -> Star {
    let mut star = Star::new(StarPlan { link, ..plan() }).unwrap();
    star.hub.manager.keep();
    star.peers.iter_mut().for_each(|peer| peer.manager.keep());
    star.start().unwrap();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    star
}

/// What there is of the interface of the network, with its number
fn interface(host: &Host) -> String {
    let device = device(host);
    ["link", "address", "route"]
        .map(|what| host.must("ip", &["-o", what, "show", "dev", &device], "").unwrap_or_default())
        .concat()
        .lines()
        // what differs while a daemon is away
        .map(|line| line.split(" qdisc").next().unwrap_or(line).to_owned() + "\n")
        .collect()
}

fn device(host: &Host) -> String {
    let devices = host.devices().unwrap();
    devices.into_iter().find(|name| name.starts_with("fvpn")).unwrap()
}

fn kept_interface_never_goes_away() {
    let mut star = kept_star(LinkConfig::new().delay(ms(10)));
    for end in [Node::stop, killed] {
        let peer = &mut star.peers[0];
        let before = interface(&peer.host);
        assert!(before.lines().count() > 3, "{before}");

        end(peer).unwrap();
        assert_eq!(interface(&peer.host), before, "while the daemon is away");
        peer.start().unwrap();
        await_up(peer, LONG);

        assert_eq!(interface(&peer.host), before);
        star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    }
    let peer = &mut star.peers[0];
    peer.stop().unwrap();
    peer.manager.drop_kept();
    assert_eq!(peer.host.devices().unwrap(), ["lo", "wan0"], "stopped for good");
}

fn killed(node: &mut Node) -> anyhow::Result<std::process::ExitStatus> {
    node.kill()?;
    Ok(std::process::ExitStatus::default())
}

fn interface_that_is_not_wanted_any_more_is_let_go() {
    let mut star = kept_star(LinkConfig::new().delay(ms(10)));
    let peer = &mut star.peers[0];
    assert_eq!(peer.manager.kept(), ["tun-lab"]);

    peer.ctl(&["disconnect", NETWORK]).unwrap();
    assert!(until(BRIEF, || peer.manager.kept().is_empty()));
    assert_eq!(peer.host.devices().unwrap(), ["lo", "wan0"]);
    peer.ctl(&["connect", NETWORK]).unwrap();
    await_up(peer, BRIEF);
    assert!(until(BRIEF, || peer.manager.kept() == ["tun-lab"]));

    peer.stop().unwrap();
    std::fs::remove_file(peer.config_file(NETWORK)).unwrap();
    peer.start().unwrap();
    assert!(until(BRIEF, || peer.manager.kept().is_empty()));
    assert!(until(BRIEF, || peer.host.devices().unwrap() == ["lo", "wan0"]));
}

fn idle_connections_go_on_through_restarts() {
    let mut star = kept_star(LinkConfig::new().delay(ms(20)).loss(percent(2)));
    let (mut near, mut far) = pair(&star, 7500);
    keep_alive(&near);
    for victims in [&[0][..], &[1], &[0, 1], &[0]] {
        assert_talks(&mut near, &mut far);
        for victim in victims {
            star.peers[*victim].restart().unwrap();
        }
        victims.iter().for_each(|victim| await_up(&star.peers[*victim], LONG));
        // longer than the kernel that asks would wait for an answer
        std::thread::sleep(Duration::from_secs(5));
        assert_talks(&mut near, &mut far);
    }
    // and where nothing at all is said before somebody speaks again
    let (mut near, mut far) = pair(&star, 7501);
    assert_talks(&mut near, &mut far);
    star.hub.restart().unwrap();
    star.peers[1].restart().unwrap();
    await_up(&star.peers[1], LONG);
    assert_talks(&mut far, &mut near);
}

/// Sends some megabytes and restarts peers meanwhile, by one of these ways after the other, which must not take
/// longer than `most`
fn transfer(loss: u32, restarts: &[fn(&mut [Node])], most: Duration) {
    let link = LinkConfig::new().rate(mbit(40)).delay(ms(50)).queue(ms(100)).loss(percent(loss));
    let mut star = kept_star(link);
    let (from, to) = (&star.peers[0].host, &star.peers[1].host);
    let transfer = Transfer::start(from, to, star.at(1, 7502), BYTES).unwrap();
    for restart in restarts {
        let before = transfer.moved();
        assert!(transfer.reaches(before + (5 << 20), LONG), "{loss} %: only {before} bytes");
        restart(&mut star.peers);
    }
    let report = transfer.finish(Duration::from_secs(60)).unwrap();
    println!("{loss} %: {:.1} Mbit/s, {:?}", report.mbits(), report.elapsed);
    // here, while there are logs to be shown
    assert!(report.elapsed < most, "{loss} %: {:?}", report.elapsed);
}

const BYTES: u64 = 32 << 20;

fn restart_one(peers: &mut [Node]) {
    peers[0].restart().unwrap();
}

fn restart_other(peers: &mut [Node]) {
    peers[1].restart().unwrap();
}

/// Restarts one and then the other, which may hear of the goodbye only when it ends itself
fn restart_both(peers: &mut [Node]) {
    peers.iter_mut().for_each(|peer| peer.restart().unwrap());
}

fn restart_both_at_once(peers: &mut [Node]) {
    std::thread::scope(|scope| {
        for peer in peers {
            scope.spawn(|| peer.restart().unwrap());
        }
    });
}

fn transfer_goes_on_at_its_rate_through_restarts_of_either_daemon() {
    for loss in [0, 5] {
        for restart in [restart_one, restart_other] {
            // some 8 seconds without, and as plain packets minutes where the link loses
            transfer(loss, &[restart], Duration::from_secs(16));
        }
    }
}

fn transfer_goes_on_through_restarts_of_both_daemons() {
    for loss in [0, 5] {
        // some 14 seconds
        transfer(loss, &[restart_both, restart_both_at_once], Duration::from_secs(22));
    }
}

fn killed_daemon_leaves_idle_connections_alive_and_no_other_hanging() {
    for victim in [0, 1] {
        let link = LinkConfig::new().rate(mbit(40)).delay(ms(20)).queue(ms(100)).loss(percent(2));
        let mut star = kept_star(link);
        let (mut near, mut far) = pair(&star, 7503);
        assert_talks(&mut near, &mut far);
        let streams = [(7504, false), (7505, true)].map(|(port, back)| {
            let (one, other) = pair(&star, port);
            let (mut says, mut hears) = if back { (other, one) } else { (one, other) };
            let writer = std::thread::spawn(move || {
                while says.write_all(&[7; 65_536]).is_ok() {}
                Instant::now()
            });
            let reader = std::thread::spawn(move || {
                (read_to_the_end(&mut hears, Duration::from_secs(15)), Instant::now())
            });
            (writer, reader)
        });
        std::thread::sleep(Duration::from_secs(2));

        star.peers[victim].kill().unwrap();
        let killed = Instant::now();
        star.peers[victim].start().unwrap();
        await_up(&star.peers[victim], LONG);

        for (writer, reader) in streams {
            let (end, at) = reader.join().unwrap();
            println!("victim {victim}: {end:?} {:?} after the kill", at.duration_since(killed));
            if end == End::Reset {
                let took = writer.join().unwrap().max(at).duration_since(killed);
                assert!(took < STILL, "reset after {took:?} only");
            }
        }
        assert_talks(&mut near, &mut far);
    }
}

/// What became of a stream that has no end
#[derive(Debug, Eq, PartialEq)]
enum End {
    /// It flows
    Flows,
    /// It was reset
    Reset,
}

/// How long a stream may stand still before it is clear whether it goes on
const STILL: Duration = Duration::from_secs(9);

/// Reads until the stream breaks, or for so long
fn read_to_the_end(stream: &mut TcpStream, patience: Duration) -> End {
    stream.set_read_timeout(Some(STILL)).unwrap();
    let start = Instant::now();
    let mut buffer = vec![0; 65_536];
    while start.elapsed() < patience {
        match stream.read(&mut buffer) {
            Ok(0) => return End::Reset,
            Ok(_) => {}
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "it hangs");
                return End::Reset;
            }
        }
    }
    End::Flows
}
