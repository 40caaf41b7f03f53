//! The heartbeat of a peer to its hub.
//!
//! A [`Pulse`] answers when a heartbeat is to be sent and whether the hub still counts as alive:
//! one heartbeat each second; one without an answer within a second (or three round trips, if
//! longer) has failed and is tried again 1, 3 and 7 seconds after that; when these have failed as
//! well, the hub is lost. From then on it is asked each second until it answers.
//!
//! A heartbeat is one message, repeated at most twice within its time as long as no answer came: on
//! a link that loses a fifth of what is sent, single messages would lose the hub once a minute.
//!
//! # Contract
//!
//! - After each `on_*` call and each [`Pulse::poll`] the deadline may have moved; ask again.
//! - An answer to any heartbeat, however late, proves the hub alive.

use std::collections::VecDeque;

use fastvpn_proto::time::{Duration, Instant};

/// Interval of heartbeats
const INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time for an answer
const PATIENCE: Duration = Duration::from_secs(1);
/// When a failed heartbeat is tried again, counted from its failure
const RETRIES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(7)];
/// Messages of one heartbeat
const COPIES: u32 = 3;
/// Time after which a message can have no answer any more
pub(super) const ANSWER_LIFE: Duration = Duration::from_secs(10);
/// Ids of heartbeats begin here, so that those of other pings are never taken for them
pub(super) const FIRST_ID: u64 = 1 << 63;

/// Decides when the hub is asked whether it lives, and when it counts as lost
#[derive(Debug)]
pub(super) struct Pulse {
    phase: Phase,
    /// Heartbeats without an answer, oldest first
    open: VecDeque<Try>,
    rtt: Option<Duration>,
    next_id: u64,
}

/// One heartbeat: the first try or one of the retries
#[derive(Debug)]
struct Try {
    first: Instant,
    copies: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// All is well; the next heartbeat leaves at `next`
    Calm { next: Instant },
    /// One has failed at `since`, and was tried again `tries` times
    Worried { since: Instant, tries: usize },
    /// The hub is lost; it is asked again at `next`
    Lost { next: Instant },
}

/// What is due
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    /// Send a ping with this id
    Beat(u64),
    /// The hub is lost; told once
    Lost,
}

impl Pulse {
    /// Starts with a hub that was heard from at `now`
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Calm { next: now + INTERVAL },
            open: VecDeque::new(),
            rtt: None,
            next_id: FIRST_ID,
        }
    }

    /// Records an answer; returns whether the hub had been lost
    pub(super) fn on_answer(&mut self, rtt: Duration, now: Instant) -> bool {
        // As in RFC 6298, section 2.3, with an alpha of 1/8.
        self.rtt = Some(self.rtt.map_or(rtt, |old| old.mul_f64(0.875) + rtt.mul_f64(0.125)));
        self.on_alive(now)
    }

    /// Records that the hub is alive for another reason; returns whether it had been lost
    pub(super) fn on_alive(&mut self, now: Instant) -> bool {
        self.open.clear();
        let was_lost = self.is_lost();
        self.phase = match self.phase {
            Phase::Calm { next } => Phase::Calm { next },
            Phase::Worried { .. } | Phase::Lost { .. } => Phase::Calm { next: now + INTERVAL },
        };
        was_lost
    }

    /// Takes what is due at `now`; to be called until there is nothing more
    #[must_use]
    pub(super) fn poll(&mut self, now: Instant) -> Option<Due> {
        let window = self.window();
        if let Phase::Lost { next } = self.phase {
            if now < next {
                return None;
            }
            self.phase = Phase::Lost { next: now + INTERVAL };
            return Some(self.beat());
        }
        if let Some(index) = self.open.iter().position(|open| now >= copy_at(open, window)) {
            self.open[index].copies += 1;
            return Some(self.beat());
        }
        match self.phase {
            Phase::Calm { .. } if self.oldest_failed(window, now) => {
                self.open.clear();
                self.phase = Phase::Worried { since: now, tries: 0 };
                None
            }
            Phase::Calm { next } if now >= next => {
                self.phase = Phase::Calm { next: now + INTERVAL };
                Some(self.open_try(now))
            }
            Phase::Worried { since, tries } => self.poll_worried(since, tries, window, now),
            Phase::Calm { .. } | Phase::Lost { .. } => None,
        }
    }

    /// Returns when [`Self::poll`] will next have something to say
    pub(super) fn deadline(&self) -> Instant {
        let window = self.window();
        let copies = self.open.iter().map(|open| copy_at(open, window)).min();
        let phase = match self.phase {
            Phase::Calm { next } => {
                self.open.front().map_or(next, |oldest| next.min(oldest.first + window))
            }
            Phase::Worried { since, tries } => match RETRIES.get(tries) {
                Some(after) => since + *after,
                None => self.open.back().map_or(since, |last| last.first + window),
            },
            Phase::Lost { next } => return next,
        };
        copies.map_or(phase, |copies| copies.min(phase))
    }

    /// Tells whether the hub counts as lost
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.phase, Phase::Lost { .. })
    }

    fn poll_worried(
        &mut self,
        since: Instant,
        tries: usize,
        window: Duration,
        now: Instant,
    ) -> Option<Due> {
        match RETRIES.get(tries) {
            Some(after) if now >= since + *after => {
                self.phase = Phase::Worried { since, tries: tries + 1 };
                Some(self.open_try(now))
            }
            Some(_) => None,
            None if self.open.back().is_none_or(|last| now >= last.first + window) => {
                self.open.clear();
                self.phase = Phase::Lost { next: now + INTERVAL };
                Some(Due::Lost)
            }
            None => None,
        }
    }

    fn oldest_failed(&self, window: Duration, now: Instant) -> bool {
        self.open.front().is_some_and(|oldest| now >= oldest.first + window)
    }

    fn open_try(&mut self, now: Instant) -> Due {
        self.open.push_back(Try { first: now, copies: 1 });
        self.beat()
    }

    fn beat(&mut self) -> Due {
        let id = self.next_id;
        self.next_id += 1;
        Due::Beat(id)
    }

    /// Time within which a heartbeat must be answered
    fn window(&self) -> Duration {
        self.rtt.map_or(PATIENCE, |rtt| PATIENCE.max(rtt * 3))
    }
}

/// When the next copy of a heartbeat leaves, if it has no answer until then
fn copy_at(open: &Try, window: Duration) -> Instant {
    if open.copies < COPIES { open.first + window / COPIES * open.copies } else { Instant::FAR }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs from `from` to `to` (milliseconds) without an answer; returns what was due, and when
    fn silence(pulse: &mut Pulse, from: u64, to: u64) -> Vec<(u64, Due)> {
        let mut due = Vec::new();
        for at in from..=to {
            while let Some(what) = pulse.poll(ms(at)) {
                due.push((at, what));
            }
        }
        due
    }

    #[test]
    fn answered_heartbeats_leave_one_each_second() {
        let mut pulse = Pulse::new(ms(0));
        let mut sent = Vec::new();

        for at in 0..5_000 {
            while let Some(due) = pulse.poll(ms(at)) {
                sent.push((at, due));
            }
            if at % 1000 == 200 {
                pulse.on_answer(Duration::from_millis(200), ms(at));
            }
        }

        let expected: Vec<_> = (0..4).map(|n| ((n + 1) * 1000, Due::Beat(FIRST_ID + n))).collect();
        assert_eq!(sent, expected);
    }

    #[test]
    fn failed_heartbeat_is_tried_again_after_one_three_and_seven_seconds() {
        let mut pulse = Pulse::new(ms(0));

        let due = silence(&mut pulse, 0, 12_000);

        let firsts: Vec<u64> = due.iter().map(|(at, _)| *at).filter(|at| at % 1000 == 0).collect();
        assert_eq!(firsts, [1_000, 3_000, 5_000, 9_000, 10_000, 11_000, 12_000]);
        let lost: Vec<_> = due.iter().filter(|(_, due)| *due == Due::Lost).collect();
        assert_eq!(lost, [&(10_000, Due::Lost)]);
        assert!(pulse.is_lost());
    }

    #[test]
    fn answer_to_the_last_retry_saves_the_hub() {
        let mut pulse = Pulse::new(ms(0));
        let due = silence(&mut pulse, 0, 9_500);
        assert!(due.iter().all(|(_, due)| *due != Due::Lost));

        let was_lost = pulse.on_answer(Duration::from_millis(500), ms(9_500));

        assert!(!was_lost && !pulse.is_lost());
        assert_eq!(pulse.deadline(), ms(10_500));
    }

    #[test]
    fn long_round_trip_gets_three_of_it() {
        let mut pulse = Pulse::new(ms(0));
        pulse.on_answer(Duration::from_millis(800), ms(0));

        let due = silence(&mut pulse, 0, 30_000);

        // Sent at 1 s, failed at 3.4 s, the last retry at 10.4 s, lost at 12.8 s.
        assert!(due.contains(&(12_800, Due::Lost)), "{due:?}");
    }

    #[test]
    fn lost_hub_is_asked_each_second_and_one_answer_brings_it_back() {
        let mut pulse = Pulse::new(ms(0));
        silence(&mut pulse, 0, 10_000);

        let beats = silence(&mut pulse, 10_001, 13_000);
        let was_lost = pulse.on_answer(Duration::from_millis(10), ms(13_010));

        assert_eq!(beats.len(), 3);
        assert!(was_lost && !pulse.is_lost());
    }

    #[test]
    fn link_that_loses_a_fifth_each_way_does_not_lose_the_hub() {
        let mut pulse = Pulse::new(ms(0));
        let mut chance = Chance(1);
        let mut now = ms(0);
        let mut failures = 0;

        while now < ms(3_600_000) {
            now = pulse.deadline();
            while let Some(due) = pulse.poll(now) {
                assert_ne!(due, Due::Lost, "at {now:?}");
                if chance.draw() < 0.64 {
                    pulse.on_answer(Duration::from_millis(300), now);
                } else {
                    failures += 1;
                }
            }
        }

        assert!(failures > 1000, "the link did lose messages: {failures}");
    }

    #[test]
    fn deadline_is_never_in_the_past_after_a_poll() {
        let mut pulse = Pulse::new(ms(0));
        let mut now = ms(0);
        for _ in 0..1000 {
            while pulse.poll(now).is_some() {}
            while pulse.deadline() <= now {
                assert!(pulse.poll(now).is_some() || pulse.deadline() > now, "stuck at {now:?}");
            }
            now = pulse.deadline();
        }
        assert!(pulse.is_lost());
    }

    /// SplitMix64: the same each time
    struct Chance(u64);

    impl Chance {
        fn draw(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }
}
