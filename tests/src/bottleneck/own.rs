//! A sender of ours with its receiver.

use fastvpn_proto::limits::ACK_RANGES_MAX;
use fastvpn_proto::path::rtt::Rtt;
use fastvpn_proto::path::sent::{Model, Sent};
use fastvpn_proto::rate::{Rate, Stamp};
use fastvpn_proto::session::received::cadence;
use fastvpn_proto::time::{Duration, Instant};

use super::MESSAGE;

/// A sender with always enough to send, and its receiver
pub struct Own {
    /// Its rate control
    pub rate: Rate,
    /// Its round-trip time
    pub rtt: Rtt,
    /// What it has in flight
    pub sent: Sent<()>,
    /// The other end
    pub(super) receiver: Receiver,
    start: Instant,
    /// Messages a second that there are to send; nothing: always enough
    load: Option<f64>,
    /// Times between which there is nothing to send
    pauses: Vec<(Instant, Instant)>,
    loaded: f64,
    loaded_at: Instant,
    probe: bool,
    scratch: (Vec<()>, Vec<()>),
}

/// What the receiver tells
#[derive(Clone, Debug)]
pub struct Ack {
    pub(super) ranges: Vec<(u64, u64)>,
    delay: Duration,
    written: u32,
}

/// The other end
#[derive(Default)]
pub struct Receiver {
    /// Descending
    ranges: Vec<(u64, u64)>,
    largest: Option<(u64, Instant)>,
    waiting: u64,
    due: Option<Instant>,
    last: Instant,
    early: u32,
    lowest: [u64; 8],
    /// Round trip that its own end has seen
    rtt: Option<Duration>,
}

impl Own {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            rate: Rate::new(),
            rtt: Rtt::new(),
            sent: Sent::new(),
            receiver: Receiver::default(),
            start,
            load: None,
            pauses: Vec::new(),
            loaded: 0.0,
            loaded_at: start,
            probe: false,
            scratch: Default::default(),
        }
    }

    /// Limits what there is to send, in bytes a second
    pub fn set_load(&mut self, load: Option<f64>) {
        self.load = load.map(|load| load / MESSAGE as f64);
    }

    /// Lets the sender have nothing to send for a while, counted from its start
    pub fn pause(&mut self, after: Duration, time: Duration) {
        self.pauses.push((self.start + after, self.start + after + time));
    }

    pub(super) fn on_ack(&mut self, ack: &Ack, now: Instant) {
        let (acked, lost) = &mut self.scratch;
        let model = Model { rtt: &mut self.rtt, rate: &mut self.rate };
        let ranges = ack.ranges.iter().map(|(start, end)| *start..=*end);
        let stamp = Stamp { written: ack.written, delay: ack.delay };
        self.sent.on_ack(ranges, stamp, model, now, acked, lost);
        acked.clear();
        lost.clear();
        self.receiver.rtt = self.rtt.smoothed();
    }

    pub(super) fn poll(&mut self, now: Instant) -> Option<u64> {
        if now < self.start {
            return None;
        }
        let model = Model { rtt: &mut self.rtt, rate: &mut self.rate };
        self.probe |= self.sent.handle_timeout(model, now, &mut self.scratch.1);
        self.scratch.1.clear();
        if let Some(load) = self.load {
            self.loaded += now.since(self.loaded_at).as_secs_f64() * load;
            self.loaded = self.loaded.min(2000.0);
        }
        self.loaded_at = now;
        if !core::mem::take(&mut self.probe) {
            if self.rate.budget(self.sent.in_flight(), now) == 0 {
                return None;
            }
            let paused = self.pauses.iter().any(|(from, to)| (*from..*to).contains(&now));
            if paused || self.load.is_some() && self.loaded < 1.0 {
                self.rate.on_idle();
                return None;
            }
            self.loaded -= 1.0;
        }
        Some(self.sent.on_sent(MESSAGE, true, (), &mut self.rate, now))
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let loss = self.sent.deadline(&self.rtt);
        let open = self.rate.budget(self.sent.in_flight(), now) > 0;
        let paused = self.pauses.iter().find(|(from, to)| (*from..*to).contains(&now));
        let send = if now < self.start {
            Some(self.start)
        } else if let Some((_, end)) = paused {
            Some(*end)
        } else if open {
            self.load.map(|load| now + Duration::from_secs_f64(1.0 / load))
        } else {
            self.rate.send_at(self.sent.in_flight())
        };
        [loss, send, self.receiver.due].into_iter().flatten().min().map(|at| at.max(now))
    }
}

impl Receiver {
    pub(super) fn on_message(&mut self, count: u64, now: Instant) -> bool {
        let fresh = self.insert(count);
        if self.largest.is_none_or(|(largest, _)| count > largest) {
            self.largest = Some((count, now));
        }
        self.waiting += 1;
        if self.waiting == 1 && now.since(self.last) > Duration::from_millis(20) {
            self.early = 4;
        }
        let due = if self.waiting >= 16 && self.early > 0 {
            self.early -= 1;
            now
        } else {
            now.max(self.last + cadence(self.rtt, Duration::ZERO))
        };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        fresh
    }

    pub(super) fn poll(&mut self, now: Instant) -> Option<Ack> {
        self.due.filter(|due| *due <= now)?;
        let (_, arrived) = self.largest?;
        self.due = None;
        self.waiting = 0;
        self.last = now;
        let deep = self.lowest.iter().copied().min().unwrap_or(0);
        let newest = self.ranges.iter().take(ACK_RANGES_MAX).enumerate();
        let told = newest.take_while(|(at, (_, end))| *at < 32 || *end >= deep);
        let ranges = told.map(|(_, range)| *range).collect();
        self.lowest.rotate_right(1);
        self.lowest[0] = u64::MAX;
        // A zero of its own, so that the difference of the clocks shows.
        let written = ((now.as_nanos() / 1000) as u32).wrapping_sub(123_456_789);
        Some(Ack { ranges, delay: now.since(arrived), written })
    }

    fn insert(&mut self, count: u64) -> bool {
        let at = self.ranges.partition_point(|(start, _)| *start > count);
        if let Some((_, end)) = self.ranges.get(at)
            && *end >= count
        {
            return false;
        }
        self.lowest[0] = self.lowest[0].min(count);
        self.ranges.insert(at, (count, count));
        if at + 1 < self.ranges.len() && self.ranges[at + 1].1 + 1 == count {
            self.ranges[at].0 = self.ranges[at + 1].0;
            self.ranges.remove(at + 1);
        }
        if at > 0 && self.ranges[at - 1].0 == count + 1 {
            self.ranges[at - 1].0 = self.ranges[at].0;
            self.ranges.remove(at);
        }
        self.ranges.truncate(KEPT);
        true
    }
}

/// Ranges that are remembered
const KEPT: usize = 1024;
