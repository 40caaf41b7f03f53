//! Several senders at one bottleneck, in virtual time, without anything else.
//!
//! A [`Bench`] joins the pure rate control of some senders (`Rate`, `Sent`, `Rtt` of fastvpn-proto)
//! and models of other people's TCP ([`tcp`]) at one [`Link`]. Nothing is sealed, framed or scheduled:
//! a minute takes a fraction of a second, so that rate control can be looked at for hundreds of links.
//! What it leaves out is covered by [`World`](crate::world).
//!
//! # Contract
//!
//! - All senders share the forward link; each has a way back of its own.
//! - Messages have one size, which is that of the UDP payload; the link counts it alone.

pub mod own;
pub mod tcp;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastvpn_proto::time::{Duration, Instant};

use self::own::Own;
use self::tcp::{Kind, Tcp};
use crate::link::rate::Rate;
use crate::link::{Cargo, Link, LinkConfig, Script};

/// Bytes of each message
pub const MESSAGE: usize = 1452;

/// A message or acknowledgement under way
#[derive(Clone, Debug)]
pub struct Item {
    flow: usize,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Message { count: u64 },
    OwnAck(own::Ack),
    TcpAck(tcp::Ack),
}

impl Cargo for Item {
    fn corrupt(&mut self, _chance: u64) {}
}

/// A policer in front of the link: drops what exceeds a rate, delays nothing
#[derive(Clone, Copy, Debug)]
pub struct Policer {
    rate: Rate,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Policer {
    /// Lets a burst of so many bytes pass at once
    pub fn new(rate: Rate, burst: usize) -> Self {
        Self { rate, burst: burst as f64, tokens: burst as f64, filled: Instant::ZERO }
    }

    fn passes(&mut self, bytes: usize, now: Instant) -> bool {
        let gained = now.since(self.filled).as_secs_f64() * self.rate.bits() as f64 / 8.0;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.filled = now;
        let passes = self.tokens >= bytes as f64;
        if passes {
            self.tokens -= bytes as f64;
        }
        passes
    }
}

/// Senders at one bottleneck
pub struct Bench {
    now: Instant,
    link: Link<Item>,
    policer: Option<Policer>,
    script: Script,
    flows: Vec<Flow>,
    seed: u64,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    queue: QueueSeen,
}

struct Flow {
    sender: Sender,
    back: Link<Item>,
    seen: Seen,
    timer: Option<Instant>,
}

enum Sender {
    Own(Box<Own>),
    Tcp(Box<Tcp>),
}

/// What a flow has done
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Messages sent
    pub sent: u64,
    /// Messages that arrived, each counted once
    pub arrived: u64,
    /// Messages that arrived in each tenth of a second
    pub tenths: Vec<u32>,
    /// Messages sent in each tenth of a second
    pub sent_tenths: Vec<u32>,
}

#[derive(Default)]
struct QueueSeen {
    /// Sum of delays, number of looks, largest delay; for each tenth of a second
    tenths: Vec<(f64, u32, f64)>,
}

impl Bench {
    /// Makes an idle bottleneck
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            now: Instant::ZERO + Duration::from_secs(1),
            link: Link::new(config, seed),
            policer: None,
            script: Script::new(),
            flows: Vec::new(),
            seed,
            timers: BinaryHeap::new(),
            queue: QueueSeen::default(),
        }
    }

    /// Puts a policer in front of the link
    #[must_use]
    pub fn policed(mut self, policer: Policer) -> Self {
        self.policer = Some(policer);
        self
    }

    /// Lets a script change the link; times count from the beginning
    #[must_use]
    pub fn script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    /// Adds a sender of ours that has always enough to send, beginning `after`
    pub fn own(&mut self, back: LinkConfig, after: Duration) -> usize {
        let at = self.now + after;
        self.add(Sender::Own(Box::new(Own::new(at))), back, at)
    }

    /// Adds somebody else's TCP that has always enough to send, beginning `after`
    pub fn tcp(&mut self, kind: Kind, back: LinkConfig, after: Duration) -> usize {
        let at = self.now + after;
        self.add(Sender::Tcp(Box::new(Tcp::new(kind, at))), back, at)
    }

    fn add(&mut self, sender: Sender, back: LinkConfig, at: Instant) -> usize {
        let index = self.flows.len();
        let back = Link::new(back, self.seed ^ (index as u64 + 1) << 20);
        self.flows.push(Flow { sender, back, seen: Seen::default(), timer: Some(at) });
        self.timers.push(Reverse((at, index)));
        index
    }

    /// Gives a sender of ours
    pub fn sender(&mut self, flow: usize) -> &mut Own {
        match &mut self.flows[flow].sender {
            Sender::Own(own) => own,
            Sender::Tcp(_) => panic!("flow {flow} is not ours"),
        }
    }

    /// Returns what a flow has done
    pub fn seen(&self, flow: usize) -> &Seen {
        &self.flows[flow].seen
    }

    /// Returns the mean delay in the queue between two times since the beginning, in seconds
    pub fn queue(&self, from: f64, to: f64) -> f64 {
        let (from, to) = ((from * 10.0) as usize, (to * 10.0) as usize);
        let part =
            &self.queue.tenths[from.min(self.queue.tenths.len())..to.min(self.queue.tenths.len())];
        let (sum, looks) =
            part.iter().fold((0.0, 0), |(s, n), (sum, looks, _)| (s + sum, n + looks));
        sum / f64::from(looks.max(1))
    }

    /// Lets time pass
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let start = Instant::ZERO + Duration::from_secs(1);
            let link = self.link.deadline();
            let back = self.flows.iter().filter_map(|flow| flow.back.deadline()).min();
            let timer = self.timers.peek().map(|Reverse((at, _))| *at);
            let script = self.script.deadline(start);
            let Some(next) = [link, back, timer, script].into_iter().flatten().min() else { break };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            while let Some(change) = self.script.due(start, self.now) {
                self.link.change(&change, self.now);
            }
            while let Some(item) = self.link.poll(self.now) {
                self.arrive(item);
            }
            for index in 0..self.flows.len() {
                while let Some(item) = self.flows[index].back.poll(self.now) {
                    self.acknowledge(item);
                }
            }
            while let Some(Reverse((at, index))) =
                self.timers.peek().copied().filter(|t| t.0.0 <= self.now)
            {
                self.timers.pop();
                if self.flows[index].timer == Some(at) {
                    self.flows[index].timer = None;
                    self.drive(index);
                }
            }
        }
        self.now = end;
    }

    fn tenth(&self) -> usize {
        (self.now.since(Instant::ZERO + Duration::from_secs(1)).as_millis() / 100) as usize
    }

    fn arrive(&mut self, item: Item) {
        let tenth = self.tenth();
        let flow = &mut self.flows[item.flow];
        let Body::Message { count } = item.body else { return };
        let fresh = match &mut flow.sender {
            Sender::Own(own) => own.receiver.on_message(count, self.now),
            Sender::Tcp(tcp) => {
                let (fresh, ack) = tcp.receive(count);
                let back = Item { flow: item.flow, body: Body::TcpAck(ack) };
                flow.back.push(back, 60, self.now);
                fresh
            }
        };
        if fresh {
            flow.seen.arrived += 1;
            grow(&mut flow.seen.tenths, tenth);
            flow.seen.tenths[tenth] += 1;
        }
        self.drive(item.flow);
    }

    fn acknowledge(&mut self, item: Item) {
        let flow = &mut self.flows[item.flow];
        match (&mut flow.sender, item.body) {
            (Sender::Own(own), Body::OwnAck(ack)) => own.on_ack(&ack, self.now),
            (Sender::Tcp(tcp), Body::TcpAck(ack)) => tcp.on_ack(&ack, self.now),
            _ => panic!("an acknowledgement of another kind"),
        }
        self.drive(item.flow);
    }

    fn drive(&mut self, index: usize) {
        let (now, tenth) = (self.now, self.tenth());
        let flow = &mut self.flows[index];
        loop {
            let count = match &mut flow.sender {
                Sender::Own(own) => own.poll(now),
                Sender::Tcp(tcp) => tcp.poll(now),
            };
            let Some(count) = count else { break };
            flow.seen.sent += 1;
            grow(&mut flow.seen.sent_tenths, tenth);
            flow.seen.sent_tenths[tenth] += 1;
            if self.policer.as_mut().is_none_or(|policer| policer.passes(MESSAGE, now)) {
                self.link.push(Item { flow: index, body: Body::Message { count } }, MESSAGE, now);
            }
            let rate = self.link.config().rate.map_or(1e12, |rate| rate.bits() as f64);
            let delay = self.link.queued_bytes() as f64 * 8.0 / rate;
            if self.queue.tenths.len() <= tenth {
                self.queue.tenths.resize(tenth + 1, (0.0, 0, 0.0));
            }
            let seen = &mut self.queue.tenths[tenth];
            *seen = (seen.0 + delay, seen.1 + 1, seen.2.max(delay));
        }
        if let Sender::Own(own) = &mut flow.sender
            && let Some(ack) = own.receiver.poll(now)
        {
            let bytes = 100 + 2 * ack.ranges.len();
            flow.back.push(Item { flow: index, body: Body::OwnAck(ack) }, bytes, now);
        }
        let due = match &flow.sender {
            Sender::Own(own) => own.deadline(now),
            Sender::Tcp(tcp) => tcp.deadline(now),
        };
        if let Some(due) = due
            && flow.timer.is_none_or(|timer| due != timer)
        {
            flow.timer = Some(due);
            self.timers.push(Reverse((due, index)));
        } else if due.is_none() {
            flow.timer = None;
        }
    }
}

impl Seen {
    /// Returns the bytes a second that arrived between two times since the beginning, in seconds
    pub fn goodput(&self, from: f64, to: f64) -> f64 {
        mean(&self.tenths, from, to) * MESSAGE as f64
    }

    /// Returns the bytes a second that were sent between two times since the beginning, in seconds
    pub fn load(&self, from: f64, to: f64) -> f64 {
        mean(&self.sent_tenths, from, to) * MESSAGE as f64
    }
}

fn mean(tenths: &[u32], from: f64, to: f64) -> f64 {
    let (first, last) = ((from * 10.0) as usize, (to * 10.0) as usize);
    let sum: u32 = tenths.iter().take(last).skip(first).sum();
    f64::from(sum) / (to - from)
}

fn grow(tenths: &mut Vec<u32>, tenth: usize) {
    if tenths.len() <= tenth {
        tenths.resize(tenth + 1, 0);
    }
}
