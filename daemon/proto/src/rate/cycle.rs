//! What to do with what is known: find the rate, use it, and look for more.
//!
//! The phases are those of BBR (draft-ietf-ccwg-bbr section 5.3) with other exits, because delay is
//! measured here and loss says little:
//!
//! | phase | pace | until |
//! |---|---|---|
//! | startup | 2.5, less where a train told the rate, more while `opening` knows more | the first queue, three rounds without growth, or far more is sent than passes |
//! | drain | 0.5 | no more is in flight than the path holds |
//! | cruise | 1, a little less while there is some queue | 3 to 5 round trips, or a queue |
//! | up | enough to make [`PROBE`] of queue in one round trip | that round trip |
//! | down | 0.85 | the queue is gone; it is also the trial of own loss |
//! | fast | 1.6 | as startup, one round without growth |
//! | rival | 1.25, 0.75, six times 1; twice what the path holds in flight | the queue is empty for three rounds, or 4 to 32 s |
//! | resume | 0.5 | one round trip has confirmed the rate after a long idle time |
//!
//! Marks of congestion end startup, cruise, up, fast and rival as a queue does (`marks`).
//!
//! Where Down cannot empty the queue twice in a row although we have given way, somebody else keeps it
//! full: then we do as BBR does, for which delay is nothing, until the queue is found empty or some time has
//! passed.
//!
//! # Not here
//!
//! What the rate is, is for `filter` to know.

use crate::time::{Duration, Instant};

/// Where we are with a path
#[derive(Clone, Debug)]
pub(super) struct Cycle {
    phase: Phase,
    /// Number of the phase, which messages carry
    number: u32,
    began: Instant,
    /// Round trips of the present cruise
    cruise: f64,
    /// The last Up: its number, and the rate before it
    up: Option<(u32, f64)>,
    /// Rate at the last growth, and rounds since
    growth: (f64, u32),
    /// Whether the rate has grown in the last round
    grew: bool,
    /// Rounds of this phase
    rounds: u32,
    /// Downs in a row that did not empty the queue, and the rate before the first of them
    stuck: (u32, f64),
    /// Times in a row that we competed, and for how long this time
    fights: u32,
    truce: Duration,
    /// Rate that we had before we gave way to rivals
    given: f64,
    /// Rounds in a row that found the queue empty
    empty: u32,
    /// Largest queue in this Down
    worst: f64,
    /// Samples in a row that showed that far more is sent than comes through
    floods: u32,
    chance: u32,
}

/// What a path is doing
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Looks for the rate, knowing nothing
    Startup,
    /// Empties what startup has filled
    Drain,
    /// Keeps the rate
    Cruise,
    /// Asks for a little more
    Up,
    /// Empties what Up has filled
    Down,
    /// Follows a rate that has grown
    Fast,
    /// Keeps a window beside somebody who fills the queue
    Rival,
    /// Confirms a rate that is remembered
    Resume,
}

/// What is known of the path
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Rate in bytes a second
    pub rate: f64,
    /// Round trip of the empty path, in seconds
    pub trip: f64,
    /// Bytes in flight
    pub in_flight: f64,
    /// Queue in seconds
    pub standing: f64,
    /// Queue from which on the path counts as full
    pub threshold: f64,
    /// Shortest phase, in seconds
    pub least: f64,
    /// Noise of the delay in seconds
    pub noise: f64,
    /// What arrives of the rate
    pub arriving: f64,
    /// Own loss
    pub(super) loss: f64,
    /// How firmly a rival keeps the queue full, from 0 to 1
    pub(super) firm: f64,
    /// Whether there is not enough to send
    pub limited: bool,
    /// Now
    pub now: Instant,
}

impl Cycle {
    /// Begins with startup
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Startup,
            number: 1,
            began: Instant::ZERO,
            cruise: 3.0,
            up: None,
            growth: (0.0, 0),
            grew: false,
            rounds: 0,
            stuck: (0, 0.0),
            fights: 0,
            truce: TRUCE,
            given: 0.0,
            empty: 0,
            worst: 0.0,
            floods: 0,
            chance: 0x9e37_79b9,
        }
    }

    /// Returns the present phase
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the number of the present phase
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Tells whether somebody else keeps the queue full
    pub(super) fn has_rivals(&self) -> bool {
        self.phase == Phase::Rival
    }

    /// Returns the rate that we had before we gave way to rivals
    pub(super) fn given(&self) -> f64 {
        self.given
    }

    /// Tells whether the rate has grown in the last round
    pub(super) fn is_growing(&self) -> bool {
        self.grew
    }

    /// Returns the pace, as a multiple of the rate
    pub(super) fn gain(&self, view: &View) -> f64 {
        match self.phase {
            Phase::Startup => STARTUP,
            Phase::Drain | Phase::Resume => 0.5,
            Phase::Rival if self.growth.1 < 3 => UP_MAX,
            Phase::Rival => RIVAL[self.rounds as usize % RIVAL.len()],
            Phase::Cruise => self.cruise_gain(view),
            Phase::Up => self.up_gain(view),
            // At most what arrives, so that it is a trial of own loss.
            Phase::Down => self.down_gain(view),
            Phase::Fast => {
                if self.rounds == 0 {
                    FAST_FIRST
                } else {
                    FAST
                }
            }
        }
    }

    /// A round has ended
    pub(super) fn on_round(&mut self, view: &View) {
        self.rounds += 1;
        match self.phase {
            Phase::Startup | Phase::Fast => {
                if self.phase == Phase::Startup {
                    // Each round is a trial of own loss of its own.
                    self.number += 1;
                }
                self.grew = view.rate > self.growth.0 * GROWTH;
                if self.grew {
                    self.growth = (view.rate, 0);
                } else if view.limited || view.rate == 0.0 {
                    return;
                } else {
                    self.growth.1 += 1;
                }
                let patience = if self.phase == Phase::Startup { 3 } else { 2 };
                if self.growth.1 >= patience {
                    self.enter(Phase::Drain, view.now);
                }
            }
            Phase::Resume => {
                if self.rounds >= 1 {
                    self.enter(Phase::Cruise, view.now);
                }
            }
            Phase::Rival => {
                if view.rate > self.growth.0 * RIVAL_GROWTH {
                    self.growth = (view.rate, 0);
                } else {
                    self.growth.1 += 1;
                }
                let empty = view.standing < view.threshold * 0.5;
                self.empty = if empty { self.empty + 1 } else { 0 };
                if self.empty >= 3 || view.now.since(self.began) > self.truce {
                    self.enter(Phase::Drain, view.now);
                }
            }
            Phase::Drain | Phase::Cruise | Phase::Up | Phase::Down => {}
        }
    }

    /// A sample came from messages of these phases, of a path that carries `carried`
    ///
    /// Tells whether it shows that the rate has fallen to what the sample says. It can only if it is
    /// `telling`: where there was not enough to send, a longer way looks like a queue, and what
    /// passed is what was there.
    pub(super) fn on_sample(
        &mut self,
        phases: (u32, u32),
        carried: f64,
        telling: bool,
        view: &View,
    ) -> bool {
        let full = view.standing > view.threshold;
        match self.phase {
            Phase::Startup => {
                if full && telling && self.rounds >= 2 {
                    self.enter(Phase::Drain, view.now);
                }
                false
            }
            Phase::Fast => {
                if full {
                    self.enter(Phase::Drain, view.now);
                }
                false
            }
            Phase::Cruise => {
                // What was sent before says nothing of the present pace.
                if full && phases.0 >= self.number {
                    self.enter(Phase::Down, view.now);
                    return telling;
                }
                false
            }
            Phase::Up | Phase::Down => {
                if let Some((up, before)) = self.up
                    && phases == (up, up)
                    && !view.limited
                    && carried > before * (1.0 + (self.up_gain(view) - 1.0) * GROWN)
                    && view.standing < view.threshold * 0.7
                {
                    self.up = None;
                    self.growth = (carried, 0);
                    self.enter(Phase::Fast, view.now);
                }
                false
            }
            Phase::Drain | Phase::Rival | Phase::Resume => false,
        }
    }

    /// A sample showed whether far more is sent than comes through
    pub(super) fn on_load(&mut self, floods: bool, now: Instant) {
        self.floods = if floods { self.floods + 1 } else { 0 };
        if self.phase == Phase::Startup && self.rounds >= 2 && self.floods >= FLOODS {
            self.enter(Phase::Drain, now);
        }
    }

    /// Time passes
    pub(super) fn on_time(&mut self, view: &View) {
        let age = view.now.since(self.began).as_secs_f64();
        let held = view.rate * view.trip;
        let least = view.least;
        match self.phase {
            Phase::Startup | Phase::Fast | Phase::Rival | Phase::Resume => {}
            Phase::Drain => {
                if view.in_flight <= held || age > 3.0 * least {
                    self.enter(Phase::Cruise, view.now);
                }
            }
            Phase::Cruise => {
                if age > self.cruise * least && !view.limited {
                    self.up = Some((self.number + 1, view.rate));
                    self.enter(Phase::Up, view.now);
                }
            }
            Phase::Up => {
                if age > least {
                    self.enter(Phase::Down, view.now);
                }
            }
            Phase::Down => self.try_end_down(age / least, held, view),
        }
    }

    /// Confirms a rate that was not used for long
    pub(super) fn resume(&mut self, now: Instant) {
        match self.phase {
            Phase::Startup => {}
            Phase::Drain
            | Phase::Cruise
            | Phase::Up
            | Phase::Down
            | Phase::Fast
            | Phase::Rival
            | Phase::Resume => {
                self.enter(Phase::Resume, now);
            }
        }
    }

    /// There was nobody else: the way has become longer
    pub(super) fn end_rivalry(&mut self, now: Instant) {
        self.stuck = (0, 0.0);
        self.fights = 0;
        self.enter(Phase::Cruise, now);
    }

    fn try_end_down(&mut self, trips: f64, held: f64, view: &View) {
        if trips < 1.5 {
            self.worst = self.worst.max(view.standing);
        }
        let empty = view.standing < view.threshold * 0.5;
        if trips >= 0.5 && view.in_flight <= held && (empty || trips < 1.2) || trips > 1.2 && empty
        {
            self.stuck = (0, 0.0);
            self.fights = self.fights.saturating_sub(1);
            self.enter(Phase::Cruise, view.now);
        } else if trips > DOWN_TRIPS {
            let falling = view.standing <= self.worst * GIVES_WAY;
            if falling && trips < DOWN_TRIPS_MAX {
                // A long queue takes its time; one who is like us gives way, if slowly.
                return;
            }
            if self.stuck.0 == 0 {
                self.stuck.1 = view.rate;
            }
            self.stuck.0 += u32::from(!falling);
            let gave_way = view.rate < self.stuck.1 * GAVE_WAY;
            if self.stuck.0 >= 2 && gave_way || self.stuck.0 >= 3 {
                self.given = core::mem::take(&mut self.stuck).1;
                self.growth = (view.rate, 0);
                self.enter(Phase::Rival, view.now);
                // One who is like us may have entered as well: soon, and later less and less often,
                // it is tried whether the queue can be emptied again.
                let mut luck = 0.75 + 0.5 * f64::from(self.chance) / f64::from(u32::MAX);
                if self.fights > 0 {
                    // Who never cuts back will not do so now.
                    luck *= 1.0 + 3.0 * view.firm;
                }
                self.truce = TRUCE.mul_f64(luck * f64::from(1u32 << self.fights.min(3)));
                self.fights += 1;
            } else {
                self.enter(Phase::Cruise, view.now);
            }
        }
    }

    /// Less than what arrives would need, so that the queue empties, whatever the rate is believed to
    /// be; and no more than what arrives, so that it is a trial of own loss
    fn down_gain(&self, view: &View) -> f64 {
        let arriving = view.arriving / view.rate.max(1.0);
        let needed = arriving / (1.0 - view.loss);
        (DOWN * needed.min(1.0)).min(ARRIVING * arriving).max(DOWN_MIN)
    }

    /// A little less while there is some queue, so that what late wake-ups have piled up goes away
    fn cruise_gain(&self, view: &View) -> f64 {
        let excess = (view.standing - view.noise).max(0.0) / view.trip.max(0.001);
        CRUISE - (excess * EASE).min(EASE_MAX)
    }

    fn up_gain(&self, view: &View) -> f64 {
        (1.0 + (PROBE + 1.2 * view.noise) / view.trip.max(0.001)).clamp(UP_MIN, UP_MAX)
    }

    /// Begins a phase
    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.number += 1;
        self.began = now;
        self.rounds = 0;
        self.empty = 0;
        self.worst = 0.0;
        self.floods = 0;
        // Xorshift: cruises of different length keep several paths from probing in step.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 17;
        self.chance ^= self.chance << 5;
        self.cruise = 3.0 + 2.0 * f64::from(self.chance) / f64::from(u32::MAX);
    }
}

/// Queue that Up may make, in seconds
const PROBE: f64 = 0.012;
const STARTUP: f64 = 2.5;
/// How many of these end startup
const FLOODS: u32 = 2;
/// Share of our rate that is left when we have given way
const GAVE_WAY: f64 = 0.8;
/// Share of the queue that is left where it gives way
const GIVES_WAY: f64 = 0.8;
/// Time after which it is first tried whether the queue can be emptied again
const TRUCE: Duration = Duration::from_secs(4);
/// Paces of Rival: those of BBR
const RIVAL: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// Growth in a round that is worth going on beside rivals
const RIVAL_GROWTH: f64 = 1.05;
const FAST_FIRST: f64 = 1.25;
const FAST: f64 = 1.6;
const DOWN: f64 = 0.85;
const DOWN_MIN: f64 = 0.5;
const ARRIVING: f64 = 0.97;
/// Round trips after which Down should have done something, and should be done
const DOWN_TRIPS: f64 = 2.5;
const DOWN_TRIPS_MAX: f64 = 8.0;
/// A little less than the rate, so that errors do not add up to a queue
const CRUISE: f64 = 0.995;
/// Share of a standing queue that cruising removes in a round trip, and at most how much less is sent
const EASE: f64 = 0.25;
const EASE_MAX: f64 = 0.02;
const UP_MIN: f64 = 1.05;
const UP_MAX: f64 = 1.25;
/// Growth of the rate in one round that is worth going on
const GROWTH: f64 = 1.2;
/// Share of what Up asked for that must have come
const GROWN: f64 = 0.7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_ends_at_the_first_queue() {
        let (mut cycle, mut view) = (Cycle::new(), view());
        rounds(&mut cycle, &mut view, 3, 2.0);
        cycle.on_sample((1, 1), view.rate, true, &view);
        assert_eq!(cycle.phase(), Phase::Startup);

        view.standing = 0.02;
        cycle.on_sample((1, 1), view.rate, true, &view);

        assert_eq!(cycle.phase(), Phase::Drain);
    }

    #[test]
    fn startup_ends_where_far_more_is_sent_than_passes_twice_in_a_row() {
        let (mut cycle, mut view) = (Cycle::new(), view());
        cycle.on_load(true, view.now);
        cycle.on_load(true, view.now);
        assert_eq!(cycle.phase(), Phase::Startup, "the first trains tell nothing");
        rounds(&mut cycle, &mut view, 2, 2.0);
        for floods in [false, true, false, true] {
            cycle.on_load(floods, view.now);
            assert_eq!(cycle.phase(), Phase::Startup);
        }

        cycle.on_load(true, view.now);

        assert_eq!(cycle.phase(), Phase::Drain);
    }

    #[test]
    fn startup_ends_where_the_rate_grows_no_more_but_not_for_want_of_load() {
        let (mut cycle, mut view) = (Cycle::new(), view());
        view.limited = true;
        rounds(&mut cycle, &mut view, 20, 1.0);
        assert_eq!(cycle.phase(), Phase::Startup);

        view.limited = false;
        rounds(&mut cycle, &mut view, 4, 1.0);

        assert_eq!(cycle.phase(), Phase::Drain);
    }

    #[test]
    fn round_without_growth_is_none_of_growth_even_for_want_of_load() {
        let (mut cycle, mut view) = (Cycle::new(), view());
        rounds(&mut cycle, &mut view, 2, 2.0);
        assert!(cycle.is_growing());

        view.limited = true;
        view.rate /= 2.0;
        cycle.on_round(&view);

        assert!(!cycle.is_growing() && cycle.phase() == Phase::Startup);
    }

    #[test]
    fn cruise_asks_for_more_and_gives_it_back() {
        let (mut cycle, mut view) = (cruising(), view());
        let mut phases = vec![cycle.phase()];
        for _ in 0..200 {
            view.now += Duration::from_millis(5);
            cycle.on_time(&view);
            if phases.last() != Some(&cycle.phase()) {
                phases.push(cycle.phase());
            }
        }

        let expected = [Phase::Cruise, Phase::Up, Phase::Down, Phase::Cruise, Phase::Up];
        assert_eq!(phases[..5], expected);
    }

    #[test]
    fn load_that_is_too_little_is_no_reason_to_ask_for_more() {
        let (mut cycle, mut view) = (cruising(), view());
        view.limited = true;
        view.now += Duration::from_secs(60);

        cycle.on_time(&view);

        assert_eq!(cycle.phase(), Phase::Cruise);
    }

    #[test]
    fn queue_in_a_cruise_lowers_the_rate_unless_it_is_an_old_one() {
        let (mut cycle, mut view) = (cruising(), view());
        view.standing = 0.02;
        let number = cycle.number();
        assert!(!cycle.on_sample((number - 1, number), 1e6, true, &view));

        assert!(cycle.on_sample((number, number), 1e6, true, &view));

        assert_eq!(cycle.phase(), Phase::Down);
    }

    #[test]
    fn rate_that_has_grown_is_followed() {
        let (mut cycle, mut view) = (cruising(), view());
        while cycle.phase() != Phase::Up {
            view.now += Duration::from_millis(5);
            cycle.on_time(&view);
        }
        let (up, gain) = (cycle.number(), cycle.gain(&view));

        cycle.on_sample((up, up), view.rate * gain, true, &view);

        assert_eq!(cycle.phase(), Phase::Fast);
    }

    #[test]
    fn down_sends_no_more_than_has_arrived_before() {
        let (mut cycle, mut view) = (cruising(), view());
        view.standing = 0.02;
        cycle.on_sample((cycle.number(), cycle.number()), 1e6, true, &view);
        view.arriving = 0.7 * view.rate;

        assert!(cycle.gain(&view) < 0.7);
    }

    #[test]
    fn queue_that_nobody_empties_is_a_rivals_until_a_truce() {
        let (mut cycle, mut view) = (cruising(), view());
        view.standing = 0.08;
        view.in_flight = 180_000.0;
        for _ in 0..2000 {
            view.now += Duration::from_millis(5);
            cycle.on_sample((cycle.number(), cycle.number()), 1e6, true, &view);
            cycle.on_time(&view);
        }
        assert!(cycle.has_rivals());

        view.now += Duration::from_secs(6);
        cycle.on_round(&view);

        assert!(!cycle.has_rivals());
    }

    #[test]
    fn long_pause_is_followed_by_half_the_rate_for_a_round() {
        let (mut cycle, view) = (cruising(), view());
        cycle.resume(view.now);
        assert_eq!((cycle.phase(), cycle.gain(&view)), (Phase::Resume, 0.5));

        cycle.on_round(&view);

        assert_eq!(cycle.phase(), Phase::Cruise);
    }

    fn cruising() -> Cycle {
        let mut cycle = Cycle::new();
        cycle.enter(Phase::Cruise, Instant::ZERO);
        cycle
    }

    fn rounds(cycle: &mut Cycle, view: &mut View, rounds: u32, growth: f64) {
        for _ in 0..rounds {
            cycle.on_round(view);
            view.rate *= growth;
        }
    }

    fn view() -> View {
        View {
            rate: 1e6,
            trip: 0.1,
            in_flight: 90_000.0,
            standing: 0.0,
            threshold: 0.006,
            noise: 0.0,
            least: 0.1,
            arriving: 1e6,
            loss: 0.0,
            firm: 0.0,
            limited: false,
            now: Instant::ZERO,
        }
    }
}
