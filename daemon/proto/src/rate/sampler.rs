//! How fast messages come through: samples of the rate.
//!
//! After draft-cheng-iccrg-delivery-rate-estimation, with one difference: the times of arrival are
//! those of the other node's clock, which each acknowledgement tells. So acknowledgements that are
//! late, lost or crowded on their way do not disturb a sample, and there is no need to guard against
//! them. What remains are two rates of one span of messages:
//!
//! - *transit*: bytes between two messages that arrived, lost ones included, over the time between
//!   their arrivals. Where messages are lost by chance this is what the bottleneck carries, without
//!   the noise of the losses. Where a full queue drops them it is not.
//! - *delivered*: bytes that arrived, over the same time. It is true always, and noisy.
//!
//! # Contract
//!
//! - Of each acknowledgement first all messages are given that it newly acknowledges
//!   ([`Sampler::on_acked`]), then the acknowledgement itself ([`Sampler::on_ack`]).
//! - Samples whose messages were sent while there was not enough to send are marked.

use super::Stamp;
use crate::time::{Duration, Instant};

/// Cuts what arrives into samples
#[derive(Clone, Debug, Default)]
pub(super) struct Sampler {
    /// Bytes sent so far
    sent: u64,
    /// Bytes that have arrived so far
    delivered: u64,
    /// What is sent until the messages after this position arrive is limited by the load
    limited_until: Option<u64>,
    clock: Clock,
    /// Newest message of the acknowledgement at hand
    fresh: Option<(Mark, Instant)>,
    /// Whether the acknowledgement at hand told of messages that were limited by the load
    fresh_limited: bool,
    last: Option<Point>,
    from: Option<Point>,
    limited: bool,
    points: u32,
    round: u64,
    round_end: u64,
    round_began: Instant,
}

/// What is remembered with each message in flight, for the sample that its acknowledgement makes
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mark {
    /// Bytes sent on the path up to and with this message
    pub(super) position: u64,
    /// When the pacer let it leave; when it really left depends on trains and timers
    pub(super) left: Instant,
    /// Number of the phase in which it was sent
    pub(super) phase: u32,
    /// Whether there was not enough to send
    pub(super) limited: bool,
}

/// A message that arrived
#[derive(Clone, Copy, Debug)]
struct Point {
    mark: Mark,
    /// By the other node's clock, in nanoseconds
    arrived: i64,
    /// Bytes that had arrived by then
    delivered: u64,
}

/// What was seen of a span of messages
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// Bytes a second that passed, lost ones included
    pub transit: f64,
    /// Bytes a second that arrived
    pub delivered: f64,
    /// Bytes a second that were sent
    pub sent: f64,
    /// Bytes of the span
    pub bytes: f64,
    /// Phases of its first and last message
    pub phases: (u32, u32),
    /// Whether any of it was limited by the load
    pub limited: bool,
}

/// What an acknowledgement told about time
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// How long the largest message took, less an unknown constant, in nanoseconds
    pub delay: Option<i64>,
    /// Whether a round ended: a message arrived that was sent after the last round's end
    pub round: bool,
}

/// The other node's clock, unwrapped
#[derive(Clone, Debug, Default)]
struct Clock {
    last: Option<u32>,
    nanos: i64,
    heard: Instant,
}

impl Sampler {
    /// Records that a message leaves
    pub(super) fn on_sent(&mut self, bytes: usize, phase: u32, left: Instant) -> Mark {
        self.sent += bytes as u64;
        Mark { position: self.sent, left, phase, limited: self.limited_until.is_some() }
    }

    /// Records that there was nothing to send although it was allowed
    pub(super) fn on_idle(&mut self) {
        self.limited_until = Some(self.sent);
    }

    /// Tells whether what is sent now is limited by the load
    pub(super) fn is_limited(&self) -> bool {
        self.limited_until.is_some()
    }

    /// Takes a message that an acknowledgement newly acknowledges
    pub(super) fn on_acked(&mut self, mark: &Mark, bytes: usize, sent: Instant) {
        self.delivered += bytes as u64;
        self.fresh_limited |= mark.limited;
        if self.fresh.is_none_or(|(fresh, _)| fresh.position < mark.position) {
            self.fresh = Some((*mark, sent));
        }
    }

    /// Takes an acknowledgement that was written at `written` microseconds of the other node's clock,
    /// `delay` after its largest message had arrived; `is_new` where that one is newly acknowledged
    ///
    /// A round lasts at least so long as said: on a path that reorders, lucky messages would make it
    /// too short.
    pub(super) fn on_ack(
        &mut self,
        stamp: Stamp,
        is_new: bool,
        round: Duration,
        now: Instant,
    ) -> Told {
        let Stamp { written, delay } = stamp;
        let mut told = Told::default();
        self.limited |= core::mem::take(&mut self.fresh_limited);
        let Some((mark, sent)) = self.fresh.take() else { return told };
        let Some(written) = self.clock.unwrap(written, now) else { return told };
        if mark.position > self.round_end && now.since(self.round_began) >= round {
            self.round += 1;
            self.round_began = now;
            self.round_end = self.sent;
            told.round = true;
        }
        if self.limited_until.is_some_and(|until| mark.position > until) {
            self.limited_until = None;
        }
        if !is_new || self.last.is_some_and(|last| last.mark.position >= mark.position) {
            return told;
        }
        let arrived = written - i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX / 2);
        told.delay = Some(arrived - i64::try_from(sent.as_nanos()).unwrap_or(i64::MAX / 2));
        self.points += 1;
        self.last = Some(Point { mark, arrived, delivered: self.delivered });
        if self.from.is_none() {
            self.restart();
        }
        told
    }

    /// Takes the sample that has gathered, if it is at least so long; `short` where messages that
    /// came close together and arrived apart may make a shorter one
    pub(super) fn take(&mut self, least: Duration, short: Option<Duration>) -> Option<Sample> {
        let (from, to) = (self.from?, self.last?);
        let arrivals = Duration::from_nanos(u64::try_from(to.arrived - from.arrived).ok()?);
        let bytes = (to.mark.position - from.mark.position) as f64;
        let departures = to.mark.left.since(from.mark.left);
        let long = arrivals >= least && self.points >= POINTS;
        let spread = short.is_some_and(|short| arrivals >= short) && departures < arrivals / 2;
        if !(long || spread) || bytes < BYTES || arrivals.is_zero() {
            return None;
        }
        let sample = Sample {
            transit: bytes / arrivals.as_secs_f64(),
            delivered: (to.delivered - from.delivered) as f64 / arrivals.as_secs_f64(),
            sent: bytes / departures.as_secs_f64().max(1e-6),
            bytes,
            phases: (from.mark.phase, to.mark.phase),
            limited: self.limited,
        };
        self.restart();
        Some(sample)
    }

    /// Returns how many rounds there were
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    fn restart(&mut self) {
        self.from = self.last;
        self.points = 0;
        self.limited = self.last.is_some_and(|last| last.mark.limited);
    }
}

impl Clock {
    /// Returns the nanoseconds of a time in microseconds that wraps; nothing for one of the past
    fn unwrap(&mut self, micros: u32, now: Instant) -> Option<i64> {
        let step = match self.last {
            Some(last) if now.since(self.heard) < WRAP => {
                u32::try_from(micros.wrapping_sub(last).cast_signed()).ok()?
            }
            Some(_) | None => 0,
        };
        self.last = Some(micros);
        self.heard = now;
        self.nanos += i64::from(step) * 1000;
        Some(self.nanos)
    }
}

/// Acknowledgements that a sample needs
const POINTS: u32 = 4;
/// Bytes that a sample needs
const BYTES: f64 = 8.0 * 1200.0;
/// Silence after which the other node's clock may have wrapped
const WRAP: Duration = Duration::from_secs(30 * 60);
