//! Long transfers: what one stream reaches, what it does to a ping beside it, what it costs, how it
//! follows the link's rate, and how it shares.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::arena::{Arena, Ground, SECOND, SERVICE};
use super::contest::Contestant;
use super::measures::Measure;
use super::programs::{Window, nodes};
use super::routes::{Link, Route};
use super::stats::{jain, median, percentile};
use crate::lab::load::{self, PingReport};
use crate::lab::star::number;
use crate::lab::stream::{Congestion, Stream, StreamKind, StreamPlan};
use crate::lab::{inner_v4, outer_v4};

/// Figures of one run
pub type Figures = Vec<(Measure, f64)>;

/// How long a stream is measured
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// From when on
    pub from: Duration,
    /// Until when
    pub to: Duration,
}

impl Span {
    /// Makes a span from and to these seconds of a stream
    pub const fn new(from: u64, to: u64) -> Self {
        Self { from: Duration::from_secs(from), to: Duration::from_secs(to) }
    }
}

/// One TCP stream, and a ping beside it
///
/// # Errors
/// If the stream cannot be made.
pub fn stream(route: Route, contestant: Contestant, span: Span, seed: u64) -> Result<Figures> {
    let window = match contestant.program() {
        "kcp" | "kcptun" => best_window(route, contestant, seed)?,
        _ => Window::Usual,
    };
    let arena = Arena::with_window(route, contestant, window, seed)?;
    let idle = idle_rtt(&arena)?;
    let mut stream = begin(&arena)?;
    stream.reaches(span.from, PATIENCE)?;
    let stop = AtomicBool::new(false);
    let has_queue = route.limit().is_some();
    let (ping, waits, window) = std::thread::scope(|scope| {
        let ping = scope.spawn(|| ping_beside(&arena, span));
        let waits = has_queue.then(|| scope.spawn(|| waits(&arena.ground, &stop)));
        let window = observe(&arena, &mut stream, span);
        stop.store(true, Ordering::Release);
        (ping.join(), waits.map(ScopedJoinHandle::join).transpose(), window)
    });
    let window = window?;
    let panicked = |_| anyhow::anyhow!("a thread panicked");
    let (ping, waits) = (ping.map_err(panicked)??, waits.map_err(panicked)?);
    let mut figures = vec![(Measure::Bulk, stream.mbits(window.span.from, window.span.to))];
    figures.extend(beside(&ping, idle));
    if let Some(waits) = waits {
        figures.push((Measure::Queue, waits.iter().sum::<f64>() / waits.len().max(1) as f64));
    }
    if window.sent > 0.0 && window.delivered > 0.0 {
        figures.push((Measure::Wire, window.sent / window.delivered));
    }
    if let Some(memory) = arena.memory() {
        figures.push((Measure::Processor, window.processor * 100.0));
        figures.push((Measure::Memory, memory));
    }
    if route.link() == Link::Emulated {
        figures.push((Measure::Lateness, arena.ground.wire().report().late_mean_us));
    }
    Ok(figures)
}

/// Looks for the best of some windows, as whoever sets one by hand does; once for each link
///
/// # Errors
/// If none carries anything.
fn best_window(route: Route, contestant: Contestant, seed: u64) -> Result<Window> {
    static KNOWN: Mutex<BTreeMap<(Route, Contestant), Window>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(window) = known().get(&(route, contestant)) {
        return Ok(*window);
    }
    let window = try_windows(route, contestant, seed)?;
    known().insert((route, contestant), window);
    Ok(window)
}

fn try_windows(route: Route, contestant: Contestant, seed: u64) -> Result<Window> {
    let mut best: Option<(f64, Window)> = None;
    let mut last = None;
    for window in Window::choices(route) {
        let tried = Arena::with_window(route, contestant, window, seed).and_then(|arena| {
            let mut stream = begin(&arena)?;
            stream.reaches(TRIAL.to, PATIENCE)?;
            Ok(stream.mbits(TRIAL.from, TRIAL.to))
        });
        match tried {
            Ok(rate) if best.is_none_or(|(most, _)| rate > most) => best = Some((rate, window)),
            Ok(_) => {}
            Err(error) => last = Some(error),
        }
    }
    match (best, last) {
        (Some((_, window)), _) => Ok(window),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(Window::Usual),
    }
}

fn begin(arena: &Arena) -> Result<Stream> {
    let kind = StreamKind::Tcp { congestion: arena.contestant.congestion(), connections: 1 };
    let plan = StreamPlan { target: arena.service(), port: SERVICE, kind };
    Stream::start(&arena.ground.near, &arena.ground.far, &plan)
}

/// Round-trip time of the idle tunnel, in ms
fn idle_rtt(arena: &Arena) -> Result<f64> {
    let near = &arena.ground.near;
    let report = load::ping(near, arena.ping(), 20, Duration::from_millis(50))?;
    median(&report.rtts).context("no ping is answered")
}

fn ping_beside(arena: &Arena, span: Span) -> Result<PingReport> {
    // a narrow way back is not to be filled by pings
    let narrow = arena.ground.route.back().rate.is_some_and(|rate| rate.bits() < 10_000_000);
    let interval = Duration::from_millis(if narrow { 100 } else { 25 });
    let count = (span.to - span.from).as_millis() / interval.as_millis();
    load::ping(&arena.ground.near, arena.ping(), count as u32, interval)
}

fn beside(ping: &PingReport, idle: f64) -> Figures {
    let lost = 100.0 * f64::from(ping.sent - ping.received.min(ping.sent)) / f64::from(ping.sent);
    let mut figures = vec![(Measure::BusyLost, lost)];
    let percents = [(Measure::BusyMedian, 50.0), (Measure::Busy95, 95.0), (Measure::Busy99, 99.0)];
    for (measure, percent) in percents {
        if let Some(rtt) = percentile(&ping.rtts, percent) {
            figures.push((measure, rtt - idle));
        }
    }
    figures
}

/// How long a packet would wait before the bottleneck, in ms, again and again
fn waits(ground: &Ground, stop: &AtomicBool) -> Vec<f64> {
    let mut waits = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let wait = ground.wire().waiting(ground.ports.0, ground.ports.1);
        waits.push(wait.as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(5));
    }
    waits
}

/// What happened between two moments
struct Observed {
    span: Span,
    /// Bytes that entered the link
    sent: f64,
    /// Bytes of payload that arrived
    delivered: f64,
    /// Share of a core that the program used
    processor: f64,
}

fn observe(arena: &Arena, stream: &mut Stream, span: Span) -> Result<Observed> {
    let moment = |stream: &Stream| {
        let sent = arena.ground.forward().pushed.bytes as f64;
        (stream.reported(), sent, arena.processor(), Instant::now())
    };
    let before = moment(stream);
    stream.reaches(span.to, PATIENCE)?;
    let after = moment(stream);
    let took = after.3.duration_since(before.3).as_secs_f64();
    Ok(Observed {
        span: Span { from: before.0, to: after.0 },
        sent: after.1 - before.1,
        delivered: stream.bytes(before.0, after.0),
        processor: (after.2.saturating_sub(before.2)).as_secs_f64() / took,
    })
}

/// A constant stream of datagrams
///
/// # Errors
/// If the stream cannot be made.
pub fn constant(route: Route, contestant: Contestant, span: Span, seed: u64) -> Result<Figures> {
    let arena = Arena::new(route, contestant, seed)?;
    let target = (arena.ping(), SERVICE).into();
    let kind = StreamKind::Udp { mbits: Some(30), bytes: DATAGRAM };
    let plan = StreamPlan { target, port: SERVICE, kind };
    let mut stream = Stream::start(&arena.ground.near, &arena.ground.far, &plan)?;
    stream.reaches(span.from, PATIENCE)?;
    let window = observe(&arena, &mut stream, span)?;
    let (from, to) = (window.span.from.as_secs_f64(), window.span.to.as_secs_f64());
    let seen = stream.seen();
    let within = seen.iter().filter(|seen| seen.from >= from - 0.01 && seen.to <= to + 0.01);
    let (missing, all) =
        within.fold((0, 0), |sum, seen| (sum.0 + seen.missing, sum.1 + seen.datagrams));
    ensure!(all > 0, "no datagram arrived");
    Ok(vec![
        (Measure::ConstantWire, window.sent / f64::from(all * DATAGRAM)),
        (Measure::ConstantLost, 100.0 * f64::from(missing) / f64::from(all)),
    ])
}

/// A stream whose link halves its rate and doubles it again
///
/// # Errors
/// If the stream cannot be made.
pub fn steps(route: Route, contestant: Contestant, phase: Duration, seed: u64) -> Result<Figures> {
    let arena = Arena::new(route, contestant, seed)?;
    let limit = route.limit().context("the link has no limit")?;
    let rate = route.forward().rate.context("the link has no rate")?;
    let half = crate::link::rate::Rate::from_bits(rate.bits() / 2);
    let mut stream = begin(&arena)?;
    let turn = |stream: &mut Stream, rate| {
        let ports = arena.ground.ports;
        arena.ground.wire().set(ports.0, ports.1, route.forward().rate(rate));
        stream.reported()
    };
    stream.reaches(phase, PATIENCE)?;
    let halved = turn(&mut stream, half);
    stream.reaches(halved + phase, PATIENCE)?;
    let doubled = turn(&mut stream, rate);
    stream.reaches(doubled + phase, PATIENCE)?;
    let back = |from, limit: f64| {
        recovery(|at, until| stream.mbits(at, until), from, from + phase, limit * 0.9)
    };
    Ok(vec![(Measure::Halved, back(halved, limit / 2.0)), (Measure::Doubled, back(doubled, limit))])
}

/// Returns after how many seconds the mean of each of two seconds reaches `wanted`
///
/// Where that does not come before `end`, the whole time.
fn recovery(
    mbits: impl Fn(Duration, Duration) -> f64,
    from: Duration,
    end: Duration,
    wanted: f64,
) -> f64 {
    let second = Duration::from_secs(1);
    let mut at = from;
    while at + 2 * second <= end {
        let (first, next) = (mbits(at, at + second), mbits(at + second, at + 2 * second));
        if first >= wanted && next >= wanted {
            return (at - from).as_secs_f64();
        }
        at += Duration::from_millis(100);
    }
    (end - from).as_secs_f64()
}

/// The tunnel's stream beside one that goes straight over the same link
///
/// # Errors
/// If one of the streams cannot be made.
pub fn share(
    route: Route,
    contestant: Contestant,
    other: Congestion,
    span: Span,
    seed: u64,
) -> Result<Figures> {
    let arena = Arena::new(route, contestant, seed)?;
    let target = (outer_v4(number(1)), SECOND).into();
    let kind = StreamKind::Tcp { congestion: other, connections: 1 };
    let plan = StreamPlan { target, port: SECOND, kind };
    let mut own = begin(&arena)?;
    let mut beside = Stream::start(&arena.ground.near, &arena.ground.far, &plan)?;
    own.reaches(span.to, PATIENCE)?;
    beside.reaches(span.to, PATIENCE)?;
    let rates = [&own, &beside].map(|stream| stream.mbits(span.from, span.to));
    ensure!(rates[0] + rates[1] > 0.0, "nothing arrived");
    let measure = match other {
        Congestion::Bbr => Measure::BesideBbr,
        Congestion::Cubic => Measure::BesideCubic,
    };
    Ok(vec![(measure, 100.0 * rates[0] / (rates[0] + rates[1]))])
}

/// Two streams in one session
///
/// # Errors
/// If the streams cannot be made.
pub fn two_streams(route: Route, contestant: Contestant, span: Span, seed: u64) -> Result<Figures> {
    let arena = Arena::new(route, contestant, seed)?;
    let kind = StreamKind::Tcp { congestion: contestant.congestion(), connections: 2 };
    let plan = StreamPlan { target: arena.service(), port: SERVICE, kind };
    let mut streams = Stream::start(&arena.ground.near, &arena.ground.far, &plan)?;
    streams.reaches(span.to, PATIENCE)?;
    let shares = streams.bytes_each(span.from, span.to);
    ensure!(shares.len() == 2, "{} streams instead of two", shares.len());
    Ok(vec![(Measure::JainStreams, jain(&shares).context("nothing arrived")?)])
}

/// A stream from each of two nodes to a third, over one bottleneck
///
/// # Errors
/// If the streams cannot be made.
pub fn two_nodes(route: Route, span: Span, seed: u64) -> Result<Figures> {
    let (star, _gate) = nodes::shared(route, seed)?;
    let far = &star.peers[2].host;
    let mut streams = Vec::new();
    for (peer, port) in [(0, SERVICE), (1, SECOND)] {
        let target = (inner_v4(number(2)), port).into();
        let kind = StreamKind::Tcp { congestion: Congestion::Cubic, connections: 1 };
        let plan = StreamPlan { target, port, kind };
        streams.push(Stream::start(&star.peers[peer].host, far, &plan)?);
    }
    for stream in &mut streams {
        stream.reaches(span.to, PATIENCE)?;
    }
    let shares: Vec<f64> = streams.iter().map(|stream| stream.mbits(span.from, span.to)).collect();
    Ok(vec![(Measure::JainNodes, jain(&shares).context("nothing arrived")?)])
}

/// How long each window is tried
const TRIAL: Span = Span::new(3, 6);
/// Payload of a datagram in bytes
const DATAGRAM: u32 = 1200;
/// How much longer than its own time a stream may take; on the bare 20 % link, beginning takes long
const PATIENCE: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_is_when_two_seconds_are_good() {
        let second = Duration::from_secs;
        // nothing until 3.0, all from then on
        let mbits = |from: Duration, to: Duration| {
            let begin = from.max(second(3));
            100.0 * to.saturating_sub(begin).as_secs_f64() / (to - from).as_secs_f64()
        };

        let after = recovery(mbits, second(1), second(9), 99.9);
        assert!((after - 2.0).abs() < 0.01, "{after}");
        assert!((recovery(mbits, second(1), second(9), 101.0) - 8.0).abs() < 0.01);
    }
}
