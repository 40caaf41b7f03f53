//! What the engine must do to a bad link: the bars of the design, in virtual time.
//!
//! Each test prints its figures (`--nocapture` shows them) before it judges them. `FASTVPN_BAR_SEEDS=5`
//! takes the median of five seeds in place of one; the long ones are ignored unless asked for
//! (`--ignored`). Names: *there* is the way of what is transferred, *back* that of the
//! acknowledgements.

mod bulk;
mod fair;
mod odd;
mod short;
mod steps;
mod thin;

use fastvpn_proto::time::{Duration, Instant};
use fastvpn_tests::link::rate::Rate;
use fastvpn_tests::link::{Counters, LinkConfig, Waits, mbit, ms, percent, secs};
use fastvpn_tests::world::{Flow, HostId, Report, Side, TcpId, Work, World, seed};

/// 100 Mbit/s, 200 ms there and back, 5 % lost each way
fn lossy5() -> LinkConfig {
    LinkConfig::new().rate(mbit(100)).queue(ms(100)).delay(ms(100)).loss(percent(5))
}

/// 20 Mbit/s, 300 ms there and back, 20 % lost each way, up to 20 ms of jitter
fn lossy20() -> LinkConfig {
    let link = LinkConfig::new().rate(mbit(20)).queue(ms(100)).delay(ms(150));
    link.loss(percent(20)).reordering_jitter(ms(20))
}

/// Most that a link can deliver to an application, in bits a second
fn limit(rate: Rate, loss: f64) -> f64 {
    rate.bits() as f64 * (1.0 - loss) * PAYLOAD_SHARE
}

/// Share of what is on the wire that is payload, all headers taken off
const PAYLOAD_SHARE: f64 = 0.926;

/// Runs a measurement for each seed, and returns what came out
fn each_seed<T>(standard: u64, measure: impl Fn(u64) -> T) -> Vec<T> {
    let seeds = match std::env::var("FASTVPN_BAR_SEEDS") {
        Ok(text) => text.parse().expect("FASTVPN_BAR_SEEDS is a number"),
        Err(_) => 1,
    };
    let first = seed(standard);
    (first..first + seeds).map(measure).collect()
}

/// Returns the middle one
fn median<T: PartialOrd>(mut figures: Vec<T>) -> T {
    figures.sort_by(|one, other| one.partial_cmp(other).expect("figures can be compared"));
    figures.swap_remove(figures.len() / 2)
}

/// Returns the figure that this share of all figures does not exceed
fn quantile(mut figures: Vec<f64>, share: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let index = (figures.len() as f64 * share).ceil() as usize;
    figures[index.clamp(1, figures.len()) - 1]
}

/// Two hosts with a session
struct Stage {
    world: World,
    peer: HostId,
    hub: HostId,
}

impl Stage {
    /// Makes two hosts with such wires, and waits for their session
    fn new(seed: u64, there: LinkConfig, back: LinkConfig) -> Self {
        let mut world = World::new(seed);
        let (hub, peer) = (world.hub(), world.peer());
        world.one_way(peer, hub, there);
        world.one_way(hub, peer, back);
        world.join(peer, hub);
        world.run_until_connected(peer, hub, secs(60));
        Self { world, peer, hub }
    }

    fn counters(&mut self) -> Counters {
        self.world.wire_counters(self.peer, self.hub)
    }

    fn waits(&mut self) -> Waits {
        self.world.wire_waits(self.peer, self.hub)
    }

    /// Returns how fast the acceptor of a connection reads between two instants, in Mbit/s
    fn rate(&self, id: TcpId, from: Instant, to: Instant) -> f64 {
        self.world.connection(id).half(Side::Acceptor).goodput(from, to) / 1e6
    }

    /// Says what the sender believes of its path, and what it spent on what
    fn believed(&self) -> String {
        let stats = self.world.peer_stats(self.peer, self.hub);
        let Some(path) = stats.and_then(|stats| stats.path) else { return "no path".to_owned() };
        let spent = [path.spent.fresh, path.spent.repeats, path.spent.copies];
        format!(
            "believed {:.1} Mbit/s, {:?}, queue {:?}, own loss {:.1} % of {:.1} %, sent fresh, \
             repeated, copied {:.1?} MB",
            path.rate.unwrap_or_default() as f64 * 8.0 / 1e6,
            path.rtt.unwrap_or_default(),
            path.queue_delay,
            f64::from(path.own_loss_ppm) / 1e4,
            f64::from(path.loss_ppm) / 1e4,
            spent.map(|traffic| traffic.bytes as f64 / 1e6),
        )
    }

    /// Lets one connection write without end, and measures from its third second on
    fn bulk(&mut self, time: Duration) -> Figures {
        let id = self.world.tcp(self.peer, self.hub, Work::Endless);
        self.world.run(secs(3));
        self.measure(id, time)
    }

    /// Measures a connection, and a ping beside it
    fn measure(&mut self, id: TcpId, time: Duration) -> Figures {
        let from = self.world.now();
        let (counters, waits) = (self.counters(), self.waits());
        let pings = Flow::new(10, 84).lasting(time).echoed();
        let pings = self.world.stream(self.peer, self.hub, pings);
        self.world.run(time);
        let to = self.world.now();
        let (sent, waited) = (self.counters(), self.waits());
        // those that are under way are neither lost nor late
        self.world.run(secs(2));
        let half = self.world.connection(id).half(Side::Acceptor);
        let read = half.read_by(to) - half.read_by(from);
        let wire = sent.pushed.bytes - counters.pushed.bytes;
        Figures {
            rate: self.rate(id, from, to),
            wire_for_each: wire as f64 / read.max(1) as f64,
            queue: waited.mean_since(&waits),
            ping: self.world.report(pings),
            first: self.rate(id, from - secs(2), from),
            believed: self.believed(),
        }
    }
}

/// What a transfer achieved
struct Figures {
    /// Mbit/s
    rate: f64,
    /// Bytes sent for each byte delivered
    wire_for_each: f64,
    /// Mean time in the bottleneck's queue
    queue: Duration,
    /// Round trips of a ping beside it
    ping: Report,
    /// Mbit/s in the two seconds before
    first: f64,
    /// What the sender believes of its path
    believed: String,
}

impl Figures {
    fn print(&self, bar: &str) {
        println!(
            "bar: {bar}: {:.1} Mbit/s ({:.1} in the two seconds before), {:.3} bytes on the wire for \
             each, queue {:?}; ping lost {:.2} %, {:?}/{:?}/{:?} median/99 %/max; {}",
            self.rate,
            self.first,
            self.wire_for_each,
            self.queue,
            self.ping.loss() * 100.0,
            self.ping.median,
            self.ping.quantile(0.99),
            self.ping.slowest,
            self.believed,
        );
    }
}
