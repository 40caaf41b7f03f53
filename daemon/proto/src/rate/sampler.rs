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
    /// Whether it is as long as it should be; a train that was pulled apart may be shorter
    pub long: bool,
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
        let held = i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX / 2);
        let arrived = written.saturating_sub(held);
        let most = i64::try_from((round * 4).max(INTERRUPTION).as_nanos()).unwrap_or(i64::MAX);
        if self.last.is_some_and(|last| arrived.saturating_sub(last.arrived) > most) {
            // A silence is no rate.
            self.from = None;
        }
        told.delay =
            Some(arrived.saturating_sub(i64::try_from(sent.as_nanos()).unwrap_or(i64::MAX / 2)));
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
        let arrivals =
            Duration::from_nanos(u64::try_from(to.arrived.saturating_sub(from.arrived)).ok()?);
        let bytes = (to.mark.position - from.mark.position) as f64;
        let departures = to.mark.left.since(from.mark.left);
        let long = arrivals >= least && self.points >= POINTS && bytes >= BYTES;
        let spread = short.is_some_and(|short| arrivals >= short) && departures < arrivals / 2;
        if !(long || spread) || bytes < TRAIN_BYTES || arrivals.is_zero() {
            return None;
        }
        let sample = Sample {
            transit: bytes / arrivals.as_secs_f64(),
            delivered: (to.delivered - from.delivered) as f64 / arrivals.as_secs_f64(),
            sent: bytes / departures.as_secs_f64().max(1e-6),
            bytes,
            phases: (from.mark.phase, to.mark.phase),
            limited: self.limited,
            long,
        };
        self.restart();
        Some(sample)
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
        self.nanos = self.nanos.saturating_add(i64::from(step) * 1000);
        Some(self.nanos)
    }
}

/// Acknowledgements that a sample needs
const POINTS: u32 = 4;
/// Bytes that a sample needs: of fewer it cannot be told whether too many were lost
pub(super) const BYTES: f64 = 24.0 * 1200.0;
/// Bytes that the spacing of a train is read from
const TRAIN_BYTES: f64 = 8.0 * 1200.0;
/// Least silence that is an interruption, not the pace of the path: a message takes a fifth of that
/// at 64 kbit/s
const INTERRUPTION: Duration = Duration::from_secs(1);
/// Silence after which the other node's clock may have wrapped
const WRAP: Duration = Duration::from_secs(30 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1200;

    #[test]
    fn sample_tells_what_passed_what_arrived_and_what_was_sent() {
        let mut path = Bench::default();
        // One a millisecond is sent, one in two milliseconds arrives, each fifth is lost.
        for n in 0..100 {
            path.send(n, n);
        }
        for n in (0..100).filter(|n| n % 5 != 1) {
            path.ack(n, 100 + 2 * n);
        }

        let sample = path.sampler.take(ms(100), None).unwrap();

        near(sample.transit, 1200.0 / 0.002);
        near(sample.sent, 1200.0 / 0.001);
        near(sample.delivered, 0.8 * 1200.0 / 0.002);
        assert!(!sample.limited);
        assert_eq!(path.sampler.take(ms(100), None), None, "each message counts once");
    }

    #[test]
    fn delay_is_told_but_for_the_difference_of_the_clocks() {
        let mut path = Bench::default();
        (0..3).for_each(|n| path.send(n, n));

        let delays = [(0, 100), (1, 111), (2, 113)].map(|(n, at)| path.ack(n, at).delay.unwrap());

        assert_eq!(delays.map(|delay| delay - delays[0]), [0, 10_000_000, 11_000_000]);
    }

    #[test]
    fn acknowledgements_that_overtake_each_other_are_taken_by_their_time() {
        let mut path = Bench::default();
        (0..3).for_each(|n| path.send(n, n));
        path.ack(0, 100);
        path.ack(2, 102);

        let told = path.ack(1, 101);

        assert_eq!(told.delay, None);
    }

    #[test]
    fn clock_may_wrap() {
        let mut path = Bench { zero: u32::MAX - 101_000, ..Bench::default() };
        (0..100).for_each(|n| path.send(n, n));
        for n in 0..100 {
            path.ack(n, 100 + n);
        }

        let sample = path.sampler.take(ms(50), None).unwrap();

        near(sample.transit, 1200.0 / 0.001);
    }

    #[test]
    fn what_is_sent_for_want_of_more_is_marked_until_it_has_arrived() {
        let mut path = Bench::default();
        path.send(0, 0);
        path.sampler.on_idle();
        (1..50).for_each(|n| path.send(n, n));
        for n in 0..50 {
            path.ack(n, 100 + n);
        }
        assert!(path.sampler.take(ms(10), None).unwrap().limited);
        assert!(!path.sampler.is_limited());

        (50..100).for_each(|n| path.send(n, 200 + n));
        for n in 50..100 {
            path.ack(n, 300 + n);
        }
        path.sampler.take(ms(10), None);
        (100..150).for_each(|n| path.send(n, 400 + n));
        for n in 100..150 {
            path.ack(n, 500 + n);
        }

        assert!(!path.sampler.take(ms(10), None).unwrap().limited);
    }

    #[test]
    fn first_train_is_a_short_sample() {
        let mut path = Bench::default();
        (0..32).for_each(|n| path.send(n, 0));
        path.ack(15, 102);
        path.ack(31, 104);

        assert_eq!(path.sampler.take(ms(50), None), None);
        let sample = path.sampler.take(ms(50), Some(ms(1))).unwrap();

        near(sample.transit, 16.0 * 1200.0 / 0.002);
        assert!(sample.sent > 100.0 * sample.transit);
    }

    #[test]
    fn round_ends_with_a_message_that_was_sent_after_the_last_one() {
        let mut path = Bench::default();
        (0..3).for_each(|n| path.send(n, n));
        assert!(path.ack(0, 100).round);
        assert!(!path.ack(1, 101).round && !path.ack(2, 102).round);

        path.send(3, 103);

        assert!(path.ack(3, 203).round);
    }

    #[derive(Default)]
    struct Bench {
        sampler: Sampler,
        marks: Vec<(Mark, Instant)>,
        zero: u32,
    }

    impl Bench {
        fn send(&mut self, n: u64, millis: u64) {
            assert_eq!(self.marks.len() as u64, n);
            self.marks.push((self.sampler.on_sent(SIZE, 1, at(millis)), at(millis)));
        }

        /// The message arrives, and its acknowledgement is back 50 ms later
        fn ack(&mut self, n: u64, millis: u64) -> Told {
            let (mark, sent) = self.marks[usize::try_from(n).unwrap()];
            self.sampler.on_acked(&mark, SIZE, sent);
            let written = self.zero.wrapping_add(u32::try_from(millis).unwrap() * 1000);
            let stamp = Stamp { written, delay: Duration::ZERO };
            self.sampler.on_ack(stamp, true, ms(20), at(millis + 50))
        }
    }

    fn near(value: f64, truth: f64) {
        assert!((value / truth - 1.0).abs() < 0.05, "{value} instead of {truth}");
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + ms(millis)
    }
}
