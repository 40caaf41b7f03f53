//! Models of other people's TCP: cubic (RFC 9438) and BBR v1, with perfect SACK.
//!
//! Only what matters to who shares a bottleneck with them: the window, the pace, and what they do
//! about loss. Nothing is really retransmitted; a lost message is sent again as a new one.

use std::collections::VecDeque;

use fastvpn_proto::time::{Duration, Instant};

/// Which congestion control
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The default of most systems
    Cubic,
    /// The one of who knows better
    Bbr,
}

/// A sender with always enough to send
pub struct Tcp {
    kind: Kind,
    start: Instant,
    next: u64,
    /// Count, when it was sent, delivered then, and when
    flight: VecDeque<Sent>,
    received: u64,
    window: f64,
    threshold: f64,
    rtt: f64,
    /// Cubic: window at the last loss, and when that was
    max: f64,
    cut_at: Option<Instant>,
    recovery: u64,
    bbr: Bbr,
    send_at: Instant,
    last_ack: Instant,
}

#[derive(Clone, Copy)]
struct Sent {
    count: u64,
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
}

/// Cumulative count is not needed: each message is acknowledged by itself
#[derive(Clone, Debug)]
pub struct Ack {
    count: u64,
}

struct Bbr {
    delivered: u64,
    delivered_at: Instant,
    rates: [f64; 10],
    round: usize,
    round_end: u64,
    min_rtt: (f64, Instant),
    phase: usize,
    phase_at: Instant,
    full: (f64, u32),
    started: bool,
    draining: bool,
    probe_rtt: Option<Instant>,
}

impl Tcp {
    pub(super) fn new(kind: Kind, start: Instant) -> Self {
        Self {
            kind,
            start,
            next: 0,
            flight: VecDeque::new(),
            received: 0,
            window: 10.0,
            threshold: f64::INFINITY,
            rtt: 0.0,
            max: 0.0,
            cut_at: None,
            recovery: 0,
            bbr: Bbr {
                delivered: 0,
                delivered_at: start,
                rates: [0.0; 10],
                round: 0,
                round_end: 0,
                min_rtt: (f64::INFINITY, start),
                phase: 0,
                phase_at: start,
                full: (0.0, 0),
                started: false,
                draining: false,
                probe_rtt: None,
            },
            send_at: start,
            last_ack: start,
        }
    }

    pub(super) fn receive(&mut self, count: u64) -> (bool, Ack) {
        self.received += 1;
        (true, Ack { count })
    }

    pub(super) fn on_ack(&mut self, ack: &Ack, now: Instant) {
        self.last_ack = now;
        let mut lost = 0;
        while let Some(first) = self.flight.front() {
            if first.count + 3 > ack.count {
                break;
            }
            lost += 1;
            self.flight.pop_front();
        }
        if lost > 0 && self.recovery <= ack.count {
            self.recovery = self.next;
            self.on_loss(now);
        }
        let Some(at) = self.flight.iter().position(|sent| sent.count == ack.count) else { return };
        let Some(sent) = self.flight.remove(at) else { return };
        let rtt = now.since(sent.at).as_secs_f64();
        self.rtt = if self.rtt == 0.0 { rtt } else { self.rtt * 0.875 + rtt * 0.125 };
        self.bbr.delivered += 1;
        self.bbr.delivered_at = now;
        match self.kind {
            Kind::Cubic => self.grow_cubic(now),
            Kind::Bbr => self.bbr_ack(&sent, rtt, now),
        }
    }

    pub(super) fn poll(&mut self, now: Instant) -> Option<u64> {
        if now < self.start {
            return None;
        }
        if !self.flight.is_empty() && now >= self.timeout() {
            self.flight.clear();
            self.on_loss(now);
            self.window = 4.0;
            self.last_ack = now;
        }
        if self.flight.len() as f64 >= self.window || now < self.send_at {
            return None;
        }
        let count = self.next;
        self.next += 1;
        if self.flight.is_empty() {
            self.bbr.delivered_at = now;
            self.last_ack = now;
        }
        self.flight.push_back(Sent {
            count,
            at: now,
            delivered: self.bbr.delivered,
            delivered_at: self.bbr.delivered_at,
        });
        if let Some(pace) = self.pace() {
            self.send_at = self.send_at.max(now) + Duration::from_secs_f64(1.0 / pace);
        }
        Some(count)
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        if now < self.start {
            return Some(self.start);
        }
        let timeout = (!self.flight.is_empty()).then(|| self.timeout());
        let room = (self.flight.len() as f64) < self.window;
        let send = room.then_some(self.send_at);
        [timeout, send].into_iter().flatten().min().map(|at| at.max(now))
    }

    fn timeout(&self) -> Instant {
        self.last_ack + Duration::from_secs_f64((self.rtt * 2.0).max(0.3))
    }

    fn pace(&self) -> Option<f64> {
        match self.kind {
            Kind::Cubic => (self.rtt > 0.0).then(|| {
                let gain = if self.window < self.threshold { 2.0 } else { 1.2 };
                gain * self.window / self.rtt
            }),
            Kind::Bbr => {
                let rate = self.bbr.rates.iter().copied().fold(0.0, f64::max);
                (rate > 0.0).then(|| rate * self.bbr_gain())
            }
        }
    }

    fn on_loss(&mut self, now: Instant) {
        match self.kind {
            Kind::Cubic => {
                self.max = if self.window < self.max { self.window * 0.85 } else { self.window };
                self.window = (self.window * 0.7).max(2.0);
                self.threshold = self.window;
                self.cut_at = Some(now);
            }
            Kind::Bbr => {}
        }
    }

    fn grow_cubic(&mut self, now: Instant) {
        if self.window < self.threshold {
            self.window += 1.0;
            return;
        }
        let since = self.cut_at.map_or(0.0, |at| now.since(at).as_secs_f64());
        let k = (self.max * 0.3 / 0.4).cbrt();
        let target = 0.4 * (since + self.rtt - k).powi(3) + self.max;
        let reno = self.max * 0.7 + 0.53 * since / self.rtt;
        let target = target.max(reno).min(self.window * 1.5);
        if target > self.window {
            self.window += (target - self.window) / self.window;
        }
    }

    fn bbr_gain(&self) -> f64 {
        if !self.bbr.started {
            2.885
        } else if self.bbr.draining {
            0.35
        } else {
            [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0][self.bbr.phase]
        }
    }

    fn bbr_ack(&mut self, sent: &Sent, rtt: f64, now: Instant) {
        let bbr = &mut self.bbr;
        let span = now.since(sent.delivered_at).as_secs_f64();
        if span > 0.0 {
            let rate = (bbr.delivered - sent.delivered) as f64 / span;
            bbr.rates[bbr.round % 10] = bbr.rates[bbr.round % 10].max(rate);
        }
        let rate = bbr.rates.iter().copied().fold(0.0, f64::max);
        if sent.delivered >= bbr.round_end {
            bbr.round_end = bbr.delivered;
            bbr.round += 1;
            bbr.rates[bbr.round % 10] = 0.0;
            if !bbr.started {
                if rate > bbr.full.0 * 1.25 {
                    bbr.full = (rate, 0);
                } else {
                    bbr.full.1 += 1;
                    if bbr.full.1 >= 3 {
                        bbr.started = true;
                        bbr.draining = true;
                    }
                }
            }
        }
        let stale = now.since(bbr.min_rtt.1).as_secs() >= 10;
        if rtt <= bbr.min_rtt.0 || stale && bbr.probe_rtt.is_some() {
            bbr.min_rtt = (rtt, now);
        } else if stale && bbr.started {
            bbr.probe_rtt = Some(now + Duration::from_secs_f64(0.2 + rtt));
        }
        let held = rate * bbr.min_rtt.0;
        if bbr.draining && self.flight.len() as f64 <= held {
            bbr.draining = false;
            bbr.phase = 2;
            bbr.phase_at = now;
        }
        if bbr.started && !bbr.draining && now.since(bbr.phase_at).as_secs_f64() > bbr.min_rtt.0 {
            bbr.phase = (bbr.phase + 1) % 8;
            bbr.phase_at = now;
        }
        if bbr.probe_rtt.is_some_and(|until| now >= until) {
            bbr.probe_rtt = None;
        }
        self.window = if bbr.probe_rtt.is_some() {
            4.0
        } else if bbr.started {
            (2.0 * held).max(4.0)
        } else {
            (2.885 * held).max(self.window)
        };
    }
}
