//! Whether trains on a path may be given to the kernel whole.
//!
//! Segmentation offload has the kernel, or the device, cut a train into its messages. Some kernels
//! and virtual machines mangle or lose what they cut, and nobody tells the sender: it shows only in
//! what arrives. So what became of the messages of each train is counted, of the first as of the last:
//! which of them suffer differs. Where many are lost a trial begins: some trains leave whole, others
//! message by message, as mixed as chance would have them, on the same path in the same minutes. A shallow
//! queue, a burst or an outage takes from both alike; only where the one kind arrives clearly worse is
//! offload at fault, and left alone for a while. PROTOCOL.md needs not know: no message says anything of it.
//!
//! # Contract
//!
//! - [`Offload::next_train`] is asked for the first message of each train. Once a second one follows,
//!   [`Offload::place`] is asked for the first and for each further one, in order. What that returns is
//!   kept with the message until its fate is known.
//! - A message that is damaged does not open at the other end, and so is lost.
//!
//! # Not here
//!
//! Whether the kernel knows segmentation offload at all is for the owner of the socket to find out. Where it
//! does not on one way alone, [`Offload::on_refused`] is told.
use crate::time::{Duration, Instant};

/// Decides how trains of a path leave
#[derive(Clone, Debug)]
pub struct Offload {
    state: State,
    /// Trials in a row that offload has failed
    failures: u32,
    /// Whether offload was said to work; nothing said: it does
    told: bool,
}

/// What is remembered of a message of a train
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    arm: Arm,
    /// Which of the train it is, from one on
    number: u8,
}

/// Under what the fate of a message is counted
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Arm {
    /// Left whole, outside of any trial
    Watched,
    /// Left whole in a trial
    Whole,
    /// Left message by message in a trial
    Single,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// All leave whole; before a time no trial begins for want of a good reason
    Whole { tally: Tally, quiet: Instant },
    /// Some leave whole; so many trains have left since it began
    Trial { left: u32, whole: Tally, single: Tally },
    /// None leaves whole until then
    Single { until: Instant },
}

/// Fates of messages of trains
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    messages: u32,
    lost: u32,
    /// Sum of the squares of the lengths of the trains
    squares: u64,
}

/// What the trial has shown so far
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Guilty,
    Innocent,
    Open,
}

impl Offload {
    /// Begins with offload, as nothing speaks against it yet
    pub const fn new() -> Self {
        let state = State::Whole { tally: Tally::NONE, quiet: Instant::ZERO };
        Self { state, failures: 0, told: true }
    }

    /// Tells whether the train that begins now may leave whole
    pub fn next_train(&mut self, now: Instant) -> bool {
        match self.state {
            State::Whole { .. } => true,
            // The sequence of Thue and Morse: as often the one as the other, and in step with no
            // rhythm that trains may have.
            State::Trial { left, .. } => left.count_ones() % 2 == 0,
            State::Single { until } if now >= until => {
                self.state = State::TRIAL;
                true
            }
            State::Single { .. } => false,
        }
    }

    /// Returns what to remember of the message with this number, from one on, in a train that leaves `whole`
    pub fn place(&mut self, whole: bool, number: usize) -> Option<Place> {
        let arm = match &mut self.state {
            State::Whole { .. } => Arm::Watched,
            State::Trial { left, .. } => {
                *left = left.wrapping_add(u32::from(number == 1));
                if whole { Arm::Whole } else { Arm::Single }
            }
            State::Single { .. } => return None,
        };
        // No train is as long as that.
        Some(Place { arm, number: u8::try_from(number).unwrap_or(u8::MAX) })
    }

    /// Records that a message has arrived
    pub fn on_acked(&mut self, place: Place, now: Instant) {
        self.on_fate(place, false, now);
    }

    /// Records that a message was lost
    pub fn on_lost(&mut self, place: Place, now: Instant) {
        self.on_fate(place, true, now);
    }

    /// Records that the kernel did not take a train to cut
    pub fn on_refused(&mut self, now: Instant) {
        match self.state {
            State::Whole { .. } | State::Trial { .. } => self.give_up(now),
            // It left before that was known.
            State::Single { .. } => {}
        }
    }

    /// Tells whether trains leave whole, so far as it is known to be good
    pub fn works(&self) -> bool {
        self.told
    }

    fn on_fate(&mut self, place: Place, lost: bool, now: Instant) {
        match (&mut self.state, place.arm) {
            (State::Whole { tally, quiet }, Arm::Watched) => {
                tally.count(place, lost);
                if tally.messages >= WATCHED {
                    *tally = tally.half();
                }
                let of = if now >= *quiet { DOUBT_SHARE } else { ALARM_SHARE };
                if tally.messages >= DOUBT && tally.lost * of >= tally.messages {
                    self.state = State::TRIAL;
                }
            }
            (State::Trial { whole, single, .. }, Arm::Whole | Arm::Single) => {
                let tally = if place.arm == Arm::Whole { &mut *whole } else { &mut *single };
                tally.count(place, lost);
                match judge(whole, single) {
                    Verdict::Open => {}
                    Verdict::Guilty => self.give_up(now),
                    Verdict::Innocent => {
                        self.state = State::Whole { tally: Tally::NONE, quiet: now + ACQUITTED };
                        self.failures = 0;
                        self.told = true;
                    }
                }
            }
            // What left before the state changed says nothing of it.
            (State::Whole { .. }, Arm::Whole | Arm::Single)
            | (State::Trial { .. }, Arm::Watched)
            | (State::Single { .. }, _) => {}
        }
    }

    fn give_up(&mut self, now: Instant) {
        let pause = PAUSE * 2u32.pow(self.failures.min(DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Single { until: now + pause };
        self.told = false;
    }
}

impl Default for Offload {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    const TRIAL: Self = Self::Trial { left: 0, whole: Tally::NONE, single: Tally::NONE };
}

impl Tally {
    const NONE: Self = Self { messages: 0, lost: 0, squares: 0 };

    fn count(&mut self, place: Place, lost: bool) {
        self.messages += 1;
        self.lost += u32::from(lost);
        // All numbers of a train together make the square of its length.
        self.squares += 2 * u64::from(place.number) - 1;
    }

    fn half(self) -> Self {
        Self { messages: self.messages / 2, lost: self.lost / 2, squares: self.squares / 2 }
    }

    fn share(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.messages.max(1))
    }

    /// Returns how many trains of equal length would say as much
    ///
    /// Some long ones among many short ones have most of the messages, and say little all the same.
    fn trains(&self) -> f64 {
        f64::from(self.messages).powi(2) / self.squares.max(1) as f64
    }
}

/// Compares what became of the two kinds
///
/// A train counts as one observation, as its messages may well share their fate: with n trains of each
/// kind chance alone makes the shares differ by less than `DEVIATIONS` times the root of 1 / 2n.
fn judge(whole: &Tally, single: &Tally) -> Verdict {
    let trains = whole.trains().min(single.trains());
    let chance = DEVIATIONS * (0.5 / trains.max(1.0)).sqrt();
    if whole.share() - single.share() >= chance {
        Verdict::Guilty
    } else if trains >= TRIAL_TRAINS {
        Verdict::Innocent
    } else {
        Verdict::Open
    }
}

/// Messages of trains from which on their losses are looked at
const DOUBT: u32 = 12;
/// One in so many lost makes a trial
const DOUBT_SHARE: u32 = 4;
/// The same while the last trial is not long ago
const ALARM_SHARE: u32 = 2;
/// Messages of trains at which the past is halved
const WATCHED: u32 = 256;
/// Standard deviations of the worst case that are taken for chance: eight trains of each kind show that all
/// messages are lost, 32 that half of them are
const DEVIATIONS: f64 = 4.0;
/// Trains of each kind in a trial; a difference of less than a quarter is not seen by then, nor felt much
const TRIAL_TRAINS: f64 = 128.0;
/// Time after an acquittal in which only more losses begin a trial
const ACQUITTED: Duration = Duration::from_secs(60);
/// Time without offload after the first failure
const PAUSE: Duration = Duration::from_secs(600);
/// How often it is doubled where offload fails again and again, to some two and a half hours
const DOUBLINGS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_followers_end_offload_after_a_short_trial() {
        let mut path = Bench::new(4);

        let trains = path.run_until_settled(|whole, message| whole && message > 1);

        assert!(!path.offload.works());
        assert!(trains <= 40, "{trains} trains");
        assert_eq!(path.whole(100), 0);
    }

    #[test]
    fn trains_that_vanish_with_their_first_message_end_it_as_well() {
        let mut path = Bench::new(2);

        path.run_until_settled(|whole, _| whole);

        assert!(!path.offload.works());
    }

    #[test]
    fn whichever_message_of_a_train_is_lost_shows() {
        // Two, as on all but fast paths; and some more.
        for messages in 2..=4 {
            for lost in 1..=messages {
                let mut path = Bench::new(messages);

                path.run_until_settled(|whole, message| whole && message == lost);

                assert!(!path.offload.works(), "{lost} of {messages}");
            }
            let mut path = Bench::new(messages);
            path.run_until_settled(|whole, message| whole && message < messages);
            assert!(!path.offload.works(), "all but the last of {messages}");
        }
    }

    #[test]
    fn every_second_message_shows() {
        for (messages, first) in [(2, 0), (3, 0), (16, 0), (16, 1), (63, 1)] {
            let mut path = Bench::new(messages);

            path.run_until_settled(|whole, message| whole && message % 2 == first);

            assert!(!path.offload.works(), "{messages}");
        }
    }

    #[test]
    fn few_long_trains_among_short_ones_whose_tails_are_dropped_do_not_end_it() {
        for seed in 0..300 {
            let mut path = Bench::new(2);
            let mut chance = Chance(seed);
            for _ in 0..2000 {
                path.messages = if chance.next().is_multiple_of(12) { 64 } else { 2 };
                path.train(|_, message| message > 8);
                assert!(path.offload.works(), "seed {seed}");
            }
        }
    }

    #[test]
    fn half_of_the_followers_is_enough() {
        let mut path = Bench::new(8);
        let mut at = 0;

        path.run_until_settled(|whole, message| {
            at += 1;
            whole && message > 1 && at % 2 == 0
        });

        assert!(!path.offload.works());
    }

    #[test]
    fn kernel_that_takes_no_train_is_asked_again_after_a_while_and_then_more_rarely() {
        let mut path = Bench::new(4);
        path.offload.on_refused(path.now);
        let until = path.now + PAUSE;
        // Others that had been made before.
        path.offload.on_refused(path.now);

        assert!(!path.offload.works() && !path.offload.next_train(until - Duration::from_nanos(1)));
        assert!(path.offload.next_train(until));
        path.offload.on_refused(until);
        assert!(
            !path.offload.next_train(until + PAUSE) && path.offload.next_train(until + 2 * PAUSE)
        );
        path.now = until + 2 * PAUSE;
        path.run_until_settled(|_, _| false);
        assert!(path.offload.works());
    }

    #[test]
    fn tails_that_a_shallow_queue_drops_do_not_end_it() {
        let mut path = Bench::new(16);

        path.run_until_settled(|_, message| message > 4);

        assert!(path.offload.works());
        assert_eq!(path.whole(100), 100);
    }

    #[test]
    fn bursts_and_outages_do_not_end_it() {
        for seed in 0..300 {
            let mut path = Bench::new(4);
            let mut chance = Chance(seed);
            // Half of the trains are lost whole, in runs of two on average.
            let mut down = false;

            path.run_until_settled(|_, message| {
                if message == 1 {
                    down ^= chance.next().is_multiple_of(2);
                }
                down
            });

            assert!(path.offload.works(), "seed {seed}");
        }
    }

    #[test]
    fn rhythm_of_long_and_short_trains_does_not_end_it() {
        for rhythm in 2..10 {
            let mut path = Bench::new(16);
            let mut train = 0;

            path.run_until_settled(|_, message| {
                train += u32::from(message == 1);
                train % rhythm == 0 && message > 2
            });

            assert!(path.offload.works(), "each {rhythm}th");
        }
    }

    #[test]
    fn few_losses_begin_no_trial() {
        let mut path = Bench::new(8);
        let mut at = 0;
        for _ in 0..1000 {
            let whole = path.train(|_, _| {
                at += 1;
                at % 5 == 0
            });
            assert!(whole);
        }
    }

    #[test]
    fn one_lost_train_is_no_reason_for_a_trial() {
        let mut path = Bench::new(8);

        path.train(|_, _| true);

        assert!(matches!(path.offload.state, State::Whole { .. }));
    }

    #[test]
    fn good_past_does_not_hide_what_is_wrong_now() {
        let mut path = Bench::new(4);
        path.whole(10_000);

        let trains = path.run_until_settled(|whole, message| whole && message > 1);

        assert!(!path.offload.works());
        assert!(trains <= 150, "{trains} trains");
    }

    #[test]
    fn messages_that_are_lost_where_they_leave_singly_speak_for_it() {
        let mut path = Bench::new(4);
        for _ in 0..5 {
            path.train(|_, _| true);
        }

        path.run_until_settled(|whole, _| !whole);

        assert!(path.offload.works());
    }

    #[test]
    fn acquittal_is_whole_and_ends_what_was_before() {
        let mut path = Bench::new(4);
        for _ in 0..3 {
            path.run_until_settled(|whole, message| whole && message > 1);
            let State::Single { until } = path.offload.state else { unreachable!() };
            path.now = until;
        }
        assert!(path.offload.next_train(path.now));
        let stale: Vec<_> = (1..50).filter_map(|number| path.offload.place(true, number)).collect();
        path.run_until_settled(|_, _| false);

        stale.into_iter().for_each(|place| path.offload.on_lost(place, path.now));
        path.train(|_, _| false);
        assert!(matches!(path.offload.state, State::Whole { .. }));
        path.now += ACQUITTED;
        path.run_until_settled(|whole, message| whole && message > 1);

        let State::Single { until } = path.offload.state else { unreachable!() };
        assert_eq!(until, path.now + PAUSE);
    }

    #[test]
    fn it_is_tried_again_ever_more_rarely_and_kept_where_it_works_by_then() {
        let mut path = Bench::new(4);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            path.run_until_settled(|whole, message| whole && message > 1);
            assert!(!path.offload.works());
            let State::Single { until } = path.offload.state else { unreachable!() };
            pauses.push(until.since(path.now).as_secs() / 60);
            path.now = until;
            assert!(path.offload.next_train(until));
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 160]);

        path.run_until_settled(|_, _| false);

        assert!(path.offload.works());
        assert_eq!(path.whole(100), 100);
    }

    #[test]
    fn acquittal_is_followed_by_a_minute_in_which_only_heavy_losses_begin_a_trial() {
        let mut path = Bench::new(16);
        path.run_until_settled(|_, message| message > 10);
        for _ in 0..100 {
            assert!(path.train(|_, message| message > 10));
        }
        let mut later = Bench { offload: path.offload.clone(), ..path };

        path.train(|_, message| message > 1);
        path.run_until_settled(|whole, message| whole && message > 1);
        later.now += ACQUITTED;
        later.train(|_, message| message > 10);

        assert!(!path.offload.works());
        assert!(matches!(later.offload.state, State::Trial { .. }));
    }

    /// Trains of one length, whose fate is known at once
    struct Bench {
        offload: Offload,
        messages: usize,
        now: Instant,
    }

    impl Bench {
        fn new(messages: usize) -> Self {
            let now = Instant::ZERO + Duration::from_secs(1);
            Self { offload: Offload::new(), messages, now }
        }

        /// Sends a train of which `lost` tells what is lost; returns whether it left whole
        fn train(&mut self, mut lost: impl FnMut(bool, usize) -> bool) -> bool {
            let whole = self.offload.next_train(self.now);
            let fates: Vec<_> = (1..=self.messages)
                .map(|message| {
                    // Alone it is no train.
                    let place = (self.messages > 1).then(|| self.offload.place(whole, message));
                    (place.flatten(), lost(whole, message))
                })
                .collect();
            for (place, lost) in fates {
                match place {
                    Some(place) if lost => self.offload.on_lost(place, self.now),
                    Some(place) => self.offload.on_acked(place, self.now),
                    None => {}
                }
            }
            whole
        }

        /// Sends trains until a trial is over, or none has begun for long; returns how many
        fn run_until_settled(&mut self, mut lost: impl FnMut(bool, usize) -> bool) -> u32 {
            for train in 1..2000 {
                let before = matches!(self.offload.state, State::Trial { .. });
                self.train(&mut lost);
                if before && !matches!(self.offload.state, State::Trial { .. }) {
                    return train;
                }
            }
            2000
        }

        /// Returns how many of so many trains leave whole, of which nothing is lost
        fn whole(&mut self, trains: u32) -> usize {
            (0..trains).filter(|_| self.train(|_, _| false)).count()
        }
    }

    struct Chance(u64);

    impl Chance {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            self.0 >> 33
        }
    }
}
