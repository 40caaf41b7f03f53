//! Figures that need no impaired link: connecting, moving, speed over a cable, crowds, the emulator.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastvpn_proto::crypto::PublicKey;
use serde_json::Value;

use super::bars::Bar;
use super::experiment::Need;
use crate::lab::crowd::{self, Crowd};
use crate::lab::load::{self, ProbeReport, Probes};
use crate::lab::star::{HUB_PORT, NETWORK, number};
use crate::lab::{Host, Lab, Node, Star, StarPlan, inner_v4, outer_v4, until};
use crate::link::{LinkConfig, ms};

/// One figure: how to measure it once
#[derive(Clone, Copy, Debug)]
pub struct LocalFigure {
    /// Name for JSON
    pub name: &'static str,
    /// What it is
    pub title: &'static str,
    /// Its unit
    pub unit: &'static str,
    /// What we aim at
    pub bar: Option<Bar>,
    /// About how many seconds it takes
    pub seconds: u64,
    /// Runs that are enough, where one takes minutes
    pub most: usize,
    /// How much of the machine it needs
    pub need: Need,
    /// Measures it once
    pub measure: fn() -> Result<f64>,
}

/// All of them
pub const FIGURES: &[LocalFigure] = &[
    LocalFigure {
        bar: Some(Bar::Under(350.0)),
        ..little("connect", "connect to first ping answered (RTT 100 ms)", "ms", 5, connect)
    },
    LocalFigure {
        bar: Some(Bar::Under(200.0)),
        ..little("told", "peer knows a changed address (RTT 100 ms)", "ms", 4, told)
    },
    LocalFigure {
        bar: Some(Bar::Under(1000.0)),
        ..little("address-gap", "gap of a 10 ms ping at address change", "ms", 8, address_gap)
    },
    LocalFigure {
        most: 1,
        ..little("key-gap", "gap of a 10 ms ping in 130 s (key change)", "ms", 135, key_gap)
    },
    LocalFigure {
        bar: Some(Bar::Under(20.0)),
        ..whole(
            "peer-memory",
            "memory of a peer after two seconds of TCP over a cable",
            "MiB",
            6,
            peer_memory,
        )
    },
    LocalFigure {
        most: 1,
        ..whole("hub-memory", "memory of a hub with 1,000 members", "MiB", 20, hub_memory)
    },
    LocalFigure {
        most: 1,
        ..whole("accepted", "handshakes that a core accepts", "1/s", 10, accepted)
    },
    LocalFigure {
        most: 1,
        ..whole("refused", "handshakes of strangers that a core refuses", "1/s", 6, refused)
    },
    LocalFigure {
        bar: Some(Bar::AtLeast(150_000.0)),
        ..whole("emulator", "packets that a core of the emulator forwards", "1/s", 3, emulator_rate)
    },
    LocalFigure {
        bar: Some(Bar::Under(200.0)),
        ..whole("emulator-late", "mean lateness of the emulator", "µs", 4, emulator_lateness)
    },
];

/// A figure that leaves room for others
const fn little(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    seconds: u64,
    measure: fn() -> Result<f64>,
) -> LocalFigure {
    let (bar, most) = (None, usize::MAX);
    LocalFigure { name, title, unit, bar, seconds, most, need: Need::Little, measure }
}

/// A figure that needs the whole machine
const fn whole(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    seconds: u64,
    measure: fn() -> Result<f64>,
) -> LocalFigure {
    LocalFigure { need: Need::Machine, ..little(name, title, unit, seconds, measure) }
}

/// A star whose links take 50 ms each way
fn far_star() -> Result<Star> {
    Star::up(StarPlan { link: LinkConfig::new().delay(ms(50)), ..StarPlan::default() })
}

fn connect() -> Result<f64> {
    let star = far_star()?;
    let peer = &star.peers[0];
    ensure!(peer.ctl(&["disconnect", NETWORK])?.code == 0, "disconnect");
    // the other peer forgets its session, too
    std::thread::sleep(Duration::from_secs(1));
    let target: SocketAddr = (inner_v4(number(1)), 7000).into();
    let echo = star.peers[1].host.run(move |_| UdpSocket::bind(target))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((len, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..len], from);
            if buffer[0] == 0xff {
                return;
            }
        }
    });
    let socket = peer.host.run(|_| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(Duration::from_millis(5)))?;
    let start = Instant::now();
    let mut command = peer.ctl_command()?;
    command.args(["connect", NETWORK]).stdout(std::process::Stdio::null());
    let mut tool = peer.host.spawn(command)?;
    let answered = until(Duration::from_secs(10), || {
        let _ = socket.send_to(&[1], target);
        socket.recv(&mut [0; 64]).is_ok()
    });
    let elapsed = start.elapsed();
    let _ = socket.send_to(&[0xff], target);
    let _ = tool.wait();
    ensure!(answered, "no answer");
    Ok(elapsed.as_secs_f64() * 1e3)
}

fn told() -> Result<f64> {
    let star = far_star()?;
    star.peers[0].reaches(inner_v4(number(1)).into(), Duration::from_secs(10))?;
    star.move_peer(0, number(0), 41)?;
    let start = Instant::now();
    star.peers[1].await_peer("peer1", "at its new address", Duration::from_secs(10), |peer| {
        peer["path"]["endpoint"].as_str().is_some_and(|at| at.starts_with("198.51.100.41:"))
    })?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn probed(star: &Star, during: impl FnOnce() -> Result<()>) -> Result<ProbeReport> {
    let target: SocketAddr = (inner_v4(number(1)), 7000).into();
    star.peers[0].reaches(target.ip(), Duration::from_secs(10))?;
    let (from, to) = (&star.peers[0].host, &star.peers[1].host);
    let probes = Probes::start(from, to, target, Duration::from_millis(10))?;
    ensure!(probes.more(50, Duration::from_secs(10)), "probes do not arrive");
    during()?;
    probes.finish()
}

fn address_gap() -> Result<f64> {
    let star = far_star()?;
    let report = probed(&star, || {
        star.move_peer(0, number(0), 41)?;
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    Ok(report.longest_gap.as_secs_f64() * 1e3)
}

fn key_gap() -> Result<f64> {
    let star = far_star()?;
    let handshake =
        || Ok::<_, anyhow::Error>(star.peers[0].peer("peer2")?["last_handshake"].clone());
    let mut changed = false;
    let report = probed(&star, || {
        let before = handshake()?;
        std::thread::sleep(Duration::from_secs(130));
        changed = handshake()? != before;
        Ok(())
    })?;
    ensure!(changed, "keys did not change");
    eprintln!("  {} of {} probes lost", report.sent - report.received, report.sent);
    Ok(report.longest_gap.as_secs_f64() * 1e3)
}

fn peer_memory() -> Result<f64> {
    let star = Star::on_cables()?;
    let target: IpAddr = inner_v4(number(1)).into();
    star.peers[0].reaches(target, Duration::from_secs(10))?;
    load::iperf(&star.peers[0].host, &star.peers[1].host, target, 2, &[])?;
    Ok(star.peers[0].memory_kib()? as f64 / 1024.0)
}

/// A hub that knows a crowd, and the crowd, not yet connected
struct Crowded {
    crowd: Crowd,
    crowd_host: Arc<Host>,
    hub: Node,
    key: PublicKey,
    _lab: Lab,
}

const MEMBERS: usize = 1000;
const HUB: Ipv4Addr = Ipv4Addr::new(10, 200, 250, 1);

fn crowded() -> Result<Crowded> {
    let lab = Lab::new()?;
    let (hub_host, crowd_host) = (Arc::new(Host::new("hub")?), Arc::new(Host::new("crowd")?));
    hub_host.veth("eth0", &crowd_host, "eth0")?;
    hub_host.add_address("eth0", HUB.into(), 16)?;
    let mut hub = Node::new(hub_host, lab.directory())?;
    let pair = hub.keygen("key")?;
    let key: PublicKey = pair.public.parse()?;
    let crowd = Crowd::new(&crowd_host, "eth0", MEMBERS, key, (HUB, HUB_PORT).into())?;
    let mut text = format!(
        "role = \"hub\"\nlisten = \"0.0.0.0:{HUB_PORT}\"\nsubnet = [\"10.97.0.0/16\"]\n\
         private_key_file = \"{}\"\n",
        pair.file.display()
    );
    for (member, key) in crowd.keys().iter().enumerate() {
        let address = crowd::inner(member);
        let _ = write!(
            text,
            "\n[[member]]\nname = \"m{member}\"\npublic_key = \"{key}\"\naddress = [\"{address}\"]\n"
        );
    }
    hub.configure(NETWORK, &text)?;
    hub.start()?;
    hub.await_state(NETWORK, "up", Duration::from_secs(20))?;
    Ok(Crowded { crowd, crowd_host, hub, key, _lab: lab })
}

fn hub_memory() -> Result<f64> {
    let mut crowded = crowded()?;
    let all = crowded.crowd.live(JOINING, |crowd| crowd.registered() == MEMBERS)?;
    ensure!(all, "only {} of {MEMBERS} registered", crowded.crowd.registered());
    // the list reaches everybody
    crowded.crowd.live(Duration::from_secs(10), |_| false)?;
    Ok(crowded.hub.memory_kib()? as f64 / 1024.0)
}

fn accepted() -> Result<f64> {
    let mut crowded = crowded()?;
    let before = crowded.hub.ticks()?;
    let start = Instant::now();
    let all = crowded.crowd.live(JOINING, |crowd| crowd.registered() == MEMBERS)?;
    let busy = (crowded.hub.ticks()? - before) as f64 / 100.0;
    ensure!(all, "only {} of {MEMBERS} registered", crowded.crowd.registered());
    eprintln!(
        "  {MEMBERS} members in {:.1} s, {busy:.2} s of the hub's core",
        start.elapsed().as_secs_f64()
    );
    Ok(MEMBERS as f64 / busy.max(0.01))
}

fn refused() -> Result<f64> {
    let crowded = crowded()?;
    let messages = crowd::strangers(2000, crowded.key, (HUB, HUB_PORT).into());
    let socket = crowded.crowd_host.run(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let refusals = || -> Result<u64> {
        let status = crowded.hub.status(NETWORK)?;
        let all = status["refusals"].as_object().cloned().unwrap_or_default();
        Ok(all.values().filter_map(Value::as_u64).sum())
    };
    let (before, ticks) = (refusals()?, crowded.hub.ticks()?);
    let start = Instant::now();
    for message in messages.iter().cycle() {
        if start.elapsed() > Duration::from_secs(3) {
            break;
        }
        let _ = socket.send_to(message, (HUB, HUB_PORT));
    }
    std::thread::sleep(Duration::from_secs(1));
    let busy = (crowded.hub.ticks()? - ticks) as f64 / 100.0;
    Ok((refusals()? - before) as f64 / busy.max(0.01))
}

/// Two hosts on a wire of its own
fn emulated(link: &LinkConfig) -> Result<(Lab, Arc<Host>, Arc<Host>)> {
    let lab = Lab::new()?;
    let (near, _) = lab.host("near", &[outer_v4(1).into()])?;
    let (far, _) = lab.host("far", &[outer_v4(2).into()])?;
    lab.wire.all(link);
    Ok((lab, near, far))
}

fn emulator_rate() -> Result<f64> {
    let (lab, near, far) = emulated(&LinkConfig::new().delay(ms(20)))?;
    let target: SocketAddr = (outer_v4(2), 7000).into();
    let _sink = far.run(move |_| UdpSocket::bind(target))?;
    let socket = near.run(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        for _ in 0..100 {
            let _ = socket.send_to(&[0; 1000], target);
        }
    }
    // the sender needs a core, too: only the router's own time counts
    let busy = wire_ticks()? as f64 / 100.0;
    Ok(lab.wire.report().packets as f64 / busy.max(0.01))
}

/// Processor time of the router's thread so far, in ticks of 10 ms
fn wire_ticks() -> Result<u64> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        if let Some((_, rest)) = stat.split_once("(wire) ") {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            return Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?);
        }
    }
    anyhow::bail!("the router has no thread")
}

fn emulator_lateness() -> Result<f64> {
    let (lab, near, far) = emulated(&LinkConfig::new().delay(ms(20)))?;
    let target: SocketAddr = (outer_v4(2), 7000).into();
    let probes = Probes::start(&near, &far, target, Duration::from_millis(1))?;
    std::thread::sleep(Duration::from_secs(3));
    probes.finish()?;
    Ok(lab.wire.report().late_mean_us)
}

/// Time in which a thousand members have to join
const JOINING: Duration = Duration::from_secs(60);
