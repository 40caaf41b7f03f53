//! How many bytes may leave on one path now.
//!
//! A [`Rate`] finds out what a path carries and paces to it. Nobody tells it the rate, the loss or
//! the queue of the path, and all of them change. It belongs to the family of BBR
//! (draft-ietf-ccwg-bbr): it models the path, and loss alone does not slow it down. The parts:
//!
//! - `sampler`: how fast messages come through;
//! - `filter`: the largest of late, which is the rate;
//! - `loss`: what the path loses by itself, which is no congestion;
//! - `queue`: how long messages wait at the bottleneck;
//! - `opening`: what may leave until the first of that is known;
//! - `marks`: what routers say of their queues;
//! - `cycle`: what to do with all that;
//! - `pacer`: when the next message may leave.
//!
//! # Contract
//!
//! - What is in flight is told when a message leaves and after each acknowledgement; it is counted by
//!   `path::sent`, which also remembers the [`Mark`] of each message.
//! - Of each acknowledgement first the messages, then the acknowledgement itself.
//! - After each call [`Rate::budget`] and [`Rate::send_at`] may have moved.
//! - Each message costs the same, however many are in flight.

mod cycle;
mod fall;
mod filter;
mod loss;
mod marks;
mod opening;
mod pacer;
mod queue;
mod sampler;

use self::cycle::{Cycle, Phase, View};
use self::fall::{Evidence, Fall};
use self::filter::Largest;
use self::loss::OwnLoss;
use self::marks::Marks;
use self::opening::Opening;
use self::pacer::{MESSAGE, Pacer};
use self::queue::Queue;
use self::sampler::{Sample, Sampler};
use crate::time::{Duration, Instant};

pub use self::sampler::Mark;

/// Rate control of one path
#[derive(Clone, Debug)]
pub struct Rate {
    bound: Option<u64>,
    sampler: Sampler,
    /// What the path carries, in bytes a second
    carries: Largest,
    /// What arrives of it, in bytes a second
    arrives: Largest,
    loss: OwnLoss,
    queue: Queue,
    cycle: Cycle,
    pacer: Pacer,
    /// Rates at which the last two trains came through
    trains: [Option<f64>; 2],
    /// Most that may be in flight
    window: f64,
    opening: Opening,
    fall: Fall,
    marks: Marks,
    /// Mean of what the path carried since there has been a queue
    full: Option<f64>,
    /// Whether a full load was seen in the present slot of the filters
    tried: bool,
    /// When a message left that was more than a beat or a probe
    last_load: Instant,
}

/// What an acknowledgement tells besides which messages arrived
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// When it was written, in microseconds of the other node's clock, which wraps
    pub written: u32,
    /// How long before that its largest message had arrived
    pub delay: Duration,
}

impl Rate {
    /// Begins without knowing anything of the path
    pub fn new() -> Self {
        Self {
            bound: None,
            sampler: Sampler::default(),
            carries: Largest::default(),
            arrives: Largest::default(),
            loss: OwnLoss::default(),
            queue: Queue::new(),
            cycle: Cycle::new(),
            pacer: Pacer::new(),
            trains: [None; 2],
            window: opening::FIRST,
            opening: Opening::new(),
            fall: Fall::default(),
            marks: Marks::default(),
            full: None,
            tried: false,
            last_load: Instant::ZERO,
        }
    }

    /// Sets the most that may ever leave, in bytes a second
    pub fn set_bound(&mut self, bound: Option<u64>) {
        if self.bound != bound {
            self.bound = bound;
            self.set_pace(0.0, Instant::ZERO);
        }
    }

    /// Goes on with what is known of the path under other numbers: nothing is in flight
    #[must_use]
    pub fn moved(mut self) -> Self {
        self.sampler = Sampler::default();
        self.loss.spoil(0);
        self
    }

    /// Records that a message leaves that is in flight from now on
    pub fn on_sent(&mut self, bytes: usize, in_flight: usize, now: Instant) -> Mark {
        if bytes >= LOAD {
            if now.since(self.last_load) > MEMORY {
                self.cycle.resume(now);
                self.opening = Opening::new();
                self.set_pace(in_flight as f64, now);
            }
            self.last_load = now;
        }
        self.loss.on_sent();
        let left = self.pacer.on_sent(bytes, now);
        self.sampler.on_sent(bytes, self.cycle.number(), left)
    }

    /// Takes a message that an acknowledgement newly acknowledges; `told` is now, or nothing where
    /// acknowledgements failed to come meanwhile
    pub fn on_acked(&mut self, mark: &Mark, bytes: usize, sent: Instant, told: Option<Instant>) {
        self.sampler.on_acked(mark, bytes, sent);
        if let Some(now) = told {
            self.queue.on_trip(now.since(sent));
        }
        if self.cycle.phase() == Phase::Startup {
            self.opening.on_acked(bytes as f64);
        }
        self.loss.on_acked(mark.phase);
    }

    /// Takes a message that counts as lost
    pub fn on_lost(&mut self, mark: &Mark) {
        self.loss.on_lost(mark.phase);
    }

    /// Takes a message that counted as lost and is acknowledged after all; `told` as above
    pub fn on_spurious(&mut self, mark: &Mark, bytes: usize, sent: Instant, told: Option<Instant>) {
        self.sampler.on_acked(mark, bytes, sent);
        if let Some(now) = told {
            self.queue.on_trip(now.since(sent));
        }
        self.loss.on_spurious(mark.phase);
    }

    /// Takes an acknowledgement; `is_new` where its largest message is newly acknowledged
    pub fn on_ack(&mut self, stamp: Stamp, is_new: bool, in_flight: usize, now: Instant) {
        let round = self.bin().max(seconds(self.queue.trip()));
        let told = self.sampler.on_ack(stamp, is_new, round, now);
        if let Some(delay) = told.delay {
            self.queue.on_delay(delay);
        }
        let in_flight = in_flight as f64;
        if told.round {
            self.on_round(in_flight, now);
        }
        let short = (self.cycle.phase() == Phase::Startup).then_some(TRAIN_MIN);
        if let Some(sample) = self.sampler.take(self.bin(), short) {
            self.on_sample(&sample, in_flight, now);
        }
        let before = self.cycle.number();
        self.cycle.on_time(&self.view(in_flight, now));
        self.on_phase(before, now);
        self.set_pace(in_flight, now);
    }

    /// Takes the news that messages met congestion, by the marks of routers
    pub fn on_marks(&mut self, in_flight: usize, now: Instant) {
        let Some(rate) = self.carries.value() else { return };
        let trip = seconds(self.queue.trip() + self.queue.standing());
        // Somebody else made the queue, and what we know of the path is only what we sent.
        let unseen = self.cycle.phase() == Phase::Startup && !self.opening.is_seen();
        if self.sampler.is_limited() || unseen {
            return;
        }
        let Some(answer) = self.marks.on_marks(self.cycle.phase(), trip, now) else { return };
        let before = self.cycle.number();
        self.cycle.enter(answer.phase, now);
        if answer.keep < 1.0 {
            self.carries.lower(rate * answer.keep);
        }
        self.on_phase(before, now);
        self.set_pace(in_flight as f64, now);
    }

    /// Records that there was nothing to send although it was allowed
    pub fn on_idle(&mut self) {
        self.sampler.on_idle();
    }

    /// Returns the bytes that may leave now with so many in flight; where it is not nothing, a whole
    /// message may
    pub fn budget(&self, in_flight: usize, now: Instant) -> usize {
        let room = self.window - in_flight as f64;
        if room <= 0.0 {
            return 0;
        }
        self.pacer.budget(now).min((room as usize).saturating_add(1))
    }

    /// Returns when [`Rate::budget`] opens by time alone
    pub fn send_at(&self, in_flight: usize) -> Option<Instant> {
        (self.window > in_flight as f64).then(|| self.pacer.open_at())
    }

    /// Returns the rate that the path is believed to deliver, in bytes a second; nothing before the
    /// first round trip
    pub fn delivery_rate(&self) -> Option<u64> {
        self.carries.value().map(|carries| (carries * (1.0 - self.loss.share())) as u64)
    }

    /// Tells whether the path was ever seen to carry no more than its rate; until then it may carry
    /// a multiple
    pub fn is_proven(&self) -> bool {
        self.cycle.phase() != Phase::Startup
    }

    /// Returns the standing queue that is seen at the bottleneck
    pub fn queue_delay(&self) -> Duration {
        Duration::try_from_secs_f64(self.queue.standing()).unwrap_or_default()
    }

    /// Returns the path's own loss in parts per million, congestion left out
    pub fn own_loss_ppm(&self) -> u32 {
        (self.loss.share() * 1e6) as u32
    }

    /// Returns the present phase, for traces
    pub fn phase(&self) -> &'static str {
        match self.cycle.phase() {
            Phase::Startup => "startup",
            Phase::Drain => "drain",
            Phase::Cruise => "cruise",
            Phase::Up => "up",
            Phase::Down => "down",
            Phase::Fast => "fast",
            Phase::Rival => "rival",
            Phase::Resume => "resume",
        }
    }

    fn on_round(&mut self, in_flight: f64, now: Instant) {
        self.opening.on_round(self.queue.trip(), now);
        if !self.sampler.is_limited() && core::mem::take(&mut self.tried) {
            self.carries.advance();
            self.arrives.advance();
        }
        let before = self.cycle.number();
        self.cycle.on_round(&self.view(in_flight, now));
        self.on_phase(before, now);
        let held = self.carries.value().unwrap_or(0.0) * self.queue.trip();
        let growing = self.cycle.phase() == Phase::Startup && self.cycle.is_growing();
        if growing && held > opening::FIRST {
            // There is no queue yet, and on some links the delay depends on the rate.
            self.queue.rebase();
        }
    }

    fn on_sample(&mut self, sample: &Sample, in_flight: f64, now: Instant) {
        self.queue.close(now);
        if self.cycle.has_rivals() && self.queue.is_way(now) {
            let before = self.cycle.number();
            self.queue.restart();
            self.cycle.end_rivalry(now);
            self.on_phase(before, now);
        }
        let carried = self.carried(sample);
        if sample.sent > 2.0 * sample.transit && self.cycle.phase() == Phase::Startup {
            self.trains = [self.trains[1], Some(carried)];
            return;
        }
        if self.queue.standing() > self.threshold() {
            self.loss.doubt(sample.phases.0);
            self.loss.doubt(sample.phases.1);
        }
        let known = self.carries.value().unwrap_or(0.0);
        let carried = self.settled(carried);
        if !sample.limited || carried > known {
            self.carries.update(carried);
        }
        self.arrives.update(sample.delivered);
        self.tried |= !sample.limited;
        self.note_flood(sample, carried, now);
        if !sample.limited {
            self.opening.on_seen();
        }
        let before = self.cycle.number();
        let view = self.view(in_flight, now);
        let telling = !sample.limited || sample.sent > carried * OVERLOAD;
        let fell = self.cycle.on_sample(sample.phases, carried, telling, &view);
        self.note_fall(sample, carried, fell);
        self.on_phase(before, now);
    }

    /// Returns what a sample says that the path carries
    fn carried(&self, sample: &Sample) -> f64 {
        let loss = self.loss.share();
        let margin = margin(loss, sample.bytes) + self.unknown_loss(LOSS_FIRST);
        let most = sample.delivered / (1.0 - (loss + margin).min(0.6));
        // What was dropped for want of room has not passed.
        let excess = sample.transit > most;
        let passed = if excess { sample.delivered / (1.0 - loss) } else { sample.transit };
        let emptying = self.queue.standing() > self.threshold() * 0.5;
        if emptying { passed } else { passed.min(sample.sent * SENT_MARGIN) }
    }

    /// Returns what the path may lose by itself on top of what is known, `most` of it in the beginning
    fn unknown_loss(&self, most: f64) -> f64 {
        most * (1.0 - self.loss.known() / LOSS_KNOWN).max(0.0)
    }

    /// Returns the mean of samples while there is a queue
    ///
    /// Then each of them shows the rate, and the largest would show the noise.
    fn settled(&mut self, carried: f64) -> f64 {
        let full = self.queue.standing() > self.threshold() * 0.5;
        if self.cycle.has_rivals() {
            // They look for the largest as well.
            self.full = None;
            return carried;
        }
        let mean = self.full.map_or(carried, |mean| mean + (carried - mean) * SETTLE);
        self.full = full.then_some(mean);
        mean
    }

    /// Ends startup where far more is sent than comes through, whether or not there is enough to send and a queue is
    /// seen: it may have filled in the round in which the rate last grew, after which nothing is above the lowest
    fn note_flood(&mut self, sample: &Sample, carried: f64, now: Instant) {
        if sample.long {
            let before = self.cycle.number();
            self.cycle.on_load(sample.sent > carried * FLOOD, now);
            self.on_phase(before, now);
        }
    }

    /// Lowers the rate when the path carries less than that; `fell` where its queue says so already
    fn note_fall(&mut self, sample: &Sample, carried: f64, fell: bool) {
        let steady = self.cycle.phase() == Phase::Cruise
            && sample.phases == (self.cycle.number(), self.cycle.number())
            && !sample.limited;
        let loss = self.loss.share();
        let witness = Evidence {
            bytes: sample.bytes,
            transit: sample.transit,
            delivered: sample.delivered,
            sent: sample.sent,
        };
        let unknown = self.unknown_loss(LOSS_MOST);
        let margin = |bytes| margin(loss, bytes) + unknown;
        let fallen =
            steady.then(|| self.fall.on_sample(sample.phases.0, &witness, loss, margin)).flatten();
        if let Some(rate) = fell.then_some(carried).or(fallen) {
            self.carries.lower(rate);
            self.arrives.lower(sample.delivered.min(rate));
        }
    }

    /// Begins and ends trials of own loss with the phases
    fn on_phase(&mut self, before: u32, now: Instant) {
        let number = self.cycle.number();
        if number == before {
            return;
        }
        let rivals = self.cycle.has_rivals();
        if rivals {
            // What we had before we gave way is fair to begin with.
            self.carries.update(self.cycle.given());
        }
        self.queue.set_held(rivals, now);
        match self.cycle.phase() {
            Phase::Startup if self.cycle.is_growing() => self.loss.begin(number),
            Phase::Drain => {
                // What was sent last met a queue that was full or nearly so; what was sent before met
                // none, or startup would have ended earlier.
                self.loss.spoil(number.saturating_sub(2));
                self.loss.begin(number);
            }
            Phase::Down => self.loss.begin(number),
            Phase::Startup
            | Phase::Rival
            | Phase::Cruise
            | Phase::Up
            | Phase::Fast
            | Phase::Resume => self.loss.end(),
        }
        if self.queue.standing() > self.threshold() {
            self.loss.doubt(number);
        }
    }

    fn set_pace(&mut self, in_flight: f64, now: Instant) {
        let Some(carries) = self.carries.value() else {
            if let Some(bound) = self.bound {
                self.pacer.set_rate(bound as f64);
            }
            return;
        };
        let view = self.view(in_flight, now);
        let starting = self.cycle.phase() == Phase::Startup;
        let bound = self.bound.map_or(f64::INFINITY, |bound| bound as f64);
        let most = if starting { bound.min(self.train_bound(carries)) } else { bound };
        let mut pace = (carries * self.cycle.gain(&view)).min(most);
        let trip = view.trip.max(0.000_1);
        pace = pace.max(PACE_MIN * MESSAGE / trip.clamp(PACE_TRIP.0, PACE_TRIP.1));
        let opening = if starting { self.opening.pace(trip).min(most) } else { 0.0 };
        self.pacer.set_rate(pace.max(opening));
        let spare = self.queue.threshold() + 4.0 * self.queue.trip_noise() + ACK_SPARE;
        let held = pace.max(carries) * (trip * WINDOW + spare) + WINDOW_SPARE;
        self.window = held;
        if self.cycle.has_rivals() {
            self.window = self.rival_window() * carries * trip + WINDOW_SPARE;
        }
        if starting {
            self.window = self.window.max(self.opening.window());
        }
    }

    /// Returns the most that may leave in startup, by the spacing of trains
    ///
    /// Whoever comes late pulls a train apart, and some links push it together: the faster of two is
    /// taken, and none that is slower than what is known already.
    fn train_bound(&self, carries: f64) -> f64 {
        let train = self.trains.iter().flatten().copied().fold(0.0, f64::max);
        if train > carries { train.max(carries * TRAIN_GAIN) } else { f64::INFINITY }
    }

    /// Returns what may be in flight beside rivals, as a multiple of what the path holds
    fn rival_window(&self) -> f64 {
        RIVAL_WINDOW.0 + self.firm() * (RIVAL_WINDOW.1 - RIVAL_WINDOW.0)
    }

    /// Returns how firmly a rival keeps the queue full: one who cuts back at losses lets it swing
    fn firm(&self) -> f64 {
        let (from, to) = RIVAL_SWING;
        ((self.queue.swing() - from) / (to - from)).clamp(0.0, 1.0)
    }

    fn view(&self, in_flight: f64, now: Instant) -> View {
        View {
            rate: self.carries.value().unwrap_or(0.0),
            trip: self.queue.trip(),
            in_flight,
            standing: self.queue.standing(),
            threshold: self.threshold(),
            noise: self.queue.noise(),
            least: self.queue.trip().max(2.5 * self.bin().as_secs_f64()),
            arriving: self.arrives.value().unwrap_or(0.0),
            loss: self.loss.share(),
            firm: self.firm(),
            limited: self.sampler.is_limited(),
            now,
        }
    }

    /// Returns the queue from which on the path counts as full, in seconds: never less than a train
    fn threshold(&self) -> f64 {
        let carries = self.carries.value().unwrap_or(f64::INFINITY);
        self.queue.threshold() + TRAIN_MESSAGES * MESSAGE / carries
    }

    /// Returns the length of a sample
    fn bin(&self) -> Duration {
        let trip = self.queue.trip();
        let noise = (8.0 * self.queue.noise()).min((trip / 2.0).max(BIN_NOISE));
        let enough = self.carries.value().map_or(0.0, |carries| sampler::BYTES / carries);
        seconds((trip / 4.0).max(noise).max(BIN_MIN).max(enough.min(1.0)))
    }
}

/// Returns the loss above the path's own that may be chance in so many bytes
fn margin(loss: f64, bytes: f64) -> f64 {
    let messages = (bytes / MESSAGE).max(1.0);
    (MARGIN * (loss.max(0.002) / messages).sqrt()).max(MARGIN_MIN)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(1))
}

impl Default for Rate {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes in flight at any time
const WINDOW_SPARE: f64 = 14.0 * MESSAGE;
/// What may be in flight, as a multiple of what the path holds
const WINDOW: f64 = 1.25;
/// The same beside somebody who fills the queue: one who cuts back at losses, and one who never does
const RIVAL_WINDOW: (f64, f64) = (1.4, 2.4);
/// How low the queue gets, of how high, beside the one and the other
const RIVAL_SWING: (f64, f64) = (0.55, 0.75);
/// Time for which acknowledgements may be held back, in seconds
const ACK_SPARE: f64 = 0.006;
/// Messages in a round trip at any time
const PACE_MIN: f64 = 4.0;
/// Shortest and longest round trip for that, in seconds: 128 kbit/s leave on any path
const PACE_TRIP: (f64, f64) = (0.02, 0.363);
/// Shortest sample, in seconds
const BIN_MIN: f64 = 0.004;
/// Longest sample that noise asks for where the round trip is short, in seconds
const BIN_NOISE: f64 = 0.100;
/// Shortest time from which the spacing of a train is read
const TRAIN_MIN: Duration = Duration::from_micros(100);
/// Messages that queue up behind one another without any fault of the rate
const TRAIN_MESSAGES: f64 = 2.5;
/// How fast the rate may grow beyond what the first train told
const TRAIN_GAIN: f64 = 1.25;
/// Deviations of the number of lost messages that are taken for chance
const MARGIN: f64 = 4.5;
/// Loss above the path's own that is taken for chance in any case
const MARGIN_MIN: f64 = 0.01;
/// Loss that a path may have of which nothing is known
const LOSS_FIRST: f64 = 0.2;
/// Loss of such a path that proves nothing against a rate
const LOSS_MOST: f64 = 0.35;
/// Messages from which a path's loss is known
const LOSS_KNOWN: f64 = 300.0;
/// How much faster than sent messages may seem to arrive
const SENT_MARGIN: f64 = 1.005;
/// How much more than passes must be sent so that too small a load tells that it is too much
const OVERLOAD: f64 = 1.1;
/// How much more than passes is sent where startup goes on although the path is full
const FLOOD: f64 = 1.8;
/// Weight of a sample while there is a queue
const SETTLE: f64 = 0.3;
/// Idle time after which the rate is to be confirmed
const MEMORY: Duration = Duration::from_secs(10);
/// Bytes of a message from which on it is load
const LOAD: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_in_the_beginning_and_some_messages_may_leave() {
        let mut rate = Rate::new();
        let mut in_flight = 0;
        while rate.budget(in_flight, at(0)) > 0 {
            rate.on_sent(1452, in_flight, at(0));
            in_flight += 1452;
        }

        assert_eq!((in_flight, rate.delivery_rate()), (32 * 1452, None));
        assert_eq!(rate.send_at(in_flight), None, "only an acknowledgement can open it");
    }

    #[test]
    fn budget_that_time_opens_is_open_then() {
        let mut rate = Rate::new();
        rate.set_bound(Some(1_000_000));
        let (mut now, mut in_flight) = (at(5), 0);
        for _ in 0..20 {
            while rate.budget(in_flight, now) > 0 {
                rate.on_sent(1452, in_flight, now);
                in_flight += 1452;
            }
            let Some(open) = rate.send_at(in_flight) else { break };
            assert!(open > now && rate.budget(in_flight, open) > 0);
            now = open;
        }
    }

    #[test]
    fn bound_is_never_exceeded_and_may_be_lifted() {
        let mut path = Bench::new(10e6);
        path.rate.set_bound(Some(2_000_000));
        path.run(3000);
        let bound = path.passed(1000);
        assert!((1.7e6..2.1e6).contains(&bound), "{bound}");

        path.rate.set_bound(None);
        path.run(3000);

        let free = path.passed(1000);
        assert!(free > 9e6, "{free}");
    }

    #[test]
    fn rate_of_a_path_is_found_and_shown() {
        let mut path = Bench::new(10e6);
        path.run(3000);

        let shown = path.rate.delivery_rate().unwrap() as f64;
        assert!((shown / 10e6 - 1.0).abs() < 0.05, "{shown}");
        assert!(path.rate.queue_delay() < Duration::from_millis(20));
        assert_eq!(path.rate.own_loss_ppm(), 0);
    }

    #[test]
    fn moved_path_keeps_its_rate() {
        let mut path = Bench::new(10e6);
        path.run(3000);
        let before = path.rate.delivery_rate();

        assert_eq!(path.rate.moved().delivery_rate(), before);
    }

    #[test]
    fn first_window_after_a_call_is_that_of_a_path_of_which_nothing_is_known() {
        let mut path = Bench::new(10e6);
        path.trickle(60_000);
        path.run(10);

        let sent = path.flight.len();
        assert!((20..=33).contains(&sent), "{sent}");
    }

    #[test]
    fn marks_that_others_have_caused_cost_a_call_nothing() {
        let mut path = Bench::new(10e6);
        path.trickle(60_000);
        let before = path.rate.delivery_rate();

        path.rate.on_marks(0, at(path.now));

        assert_eq!((path.rate.phase(), path.rate.delivery_rate()), ("startup", before));
    }

    #[test]
    fn acknowledgements_that_failed_to_come_make_no_path_slow() {
        let mut path = Bench::new(10e6);
        path.run(3000);
        let before = path.rate.window;
        for _ in 0..3 {
            path.hold_back(60_000);
            path.trickle(40_000);
        }

        path.rate.set_pace(0.0, at(path.now));
        let open = path.rate.pacer.open_at().since(at(path.now));
        assert!(open < Duration::from_millis(200), "{open:?}");
        let known = path.rate.delivery_rate().unwrap() as f64;
        assert!(known > 9e6, "{known}");
        let (trip, widest) = (path.longest_trip, path.widest);
        assert!(trip < 0.1, "{trip} s are taken for the round trip of the empty path");
        assert!(widest < 2.0 * before, "{widest} may be in flight, {before} before");
    }

    /// A path of 20 ms and its receiver, one step a millisecond
    struct Bench {
        rate: Rate,
        carries: f64,
        now: u64,
        /// What is under way: when it arrives, when it was sent, its mark
        flight: std::collections::VecDeque<(f64, Instant, Mark)>,
        free: f64,
        arrivals: Vec<u64>,
        /// Most that might be in flight after any acknowledgement, and what the empty path seemed to take
        widest: f64,
        longest_trip: f64,
    }

    impl Bench {
        fn new(carries: f64) -> Self {
            Self {
                rate: Rate::new(),
                carries,
                now: 0,
                flight: std::collections::VecDeque::new(),
                free: 0.0,
                arrivals: Vec::new(),
                widest: 0.0,
                longest_trip: 0.0,
            }
        }

        fn run(&mut self, millis: u64) {
            for _ in 0..millis {
                self.now += 1;
                let now = at(self.now);
                let mut arrived = None;
                while self.flight.front().is_some_and(|(due, ..)| *due + 10.0 <= self.now as f64) {
                    let Some((due, sent, mark)) = self.flight.pop_front() else { break };
                    self.rate.on_acked(&mark, 1452, sent, Some(now));
                    self.arrivals.push(self.now);
                    arrived = Some(due);
                }
                if let Some(arrived) = arrived {
                    let delay = self.now as f64 - 10.0 - arrived;
                    let delay = Duration::try_from_secs_f64(delay.max(0.0) / 1e3).unwrap();
                    let written = u32::try_from(self.now * 1000 - 10_000).unwrap();
                    let stamp = Stamp { written, delay };
                    self.rate.on_ack(stamp, true, self.flight.len() * 1452, now);
                }
                while self.rate.budget(self.flight.len() * 1452, now) > 0 {
                    let mark = self.rate.on_sent(1452, self.flight.len() * 1452, now);
                    self.free = self.free.max(self.now as f64) + 1452.0 / self.carries * 1e3;
                    self.flight.push_back((self.free + 10.0, now, mark));
                }
            }
        }

        /// For so long all messages arrive, one a second, and no acknowledgement does
        fn hold_back(&mut self, millis: u64) {
            let end = self.now + millis;
            while self.now < end {
                self.now += 1000;
                let mark = self.rate.on_sent(400, 0, at(self.now));
                self.flight.push_back((self.now as f64 + 10.0, at(self.now), mark));
            }
            self.now += 20;
            for (number, (_, sent, mark)) in core::mem::take(&mut self.flight).iter().enumerate() {
                if number % 2 == 0 {
                    self.rate.on_acked(mark, 400, *sent, None);
                } else {
                    self.rate.on_lost(mark);
                    self.rate.on_spurious(mark, 400, *sent, None);
                }
            }
            self.acknowledge();
        }

        /// For so long five messages a second leave, and are acknowledged at once
        fn trickle(&mut self, millis: u64) {
            let end = self.now + millis;
            while self.now < end {
                let sent = at(self.now + 180);
                let mark = self.rate.on_sent(400, 0, sent);
                self.rate.on_idle();
                self.now += 200;
                self.rate.on_acked(&mark, 400, sent, Some(at(self.now)));
                self.acknowledge();
            }
        }

        fn acknowledge(&mut self) {
            let written = u32::try_from(self.now * 1000 - 10_000).unwrap();
            let stamp = Stamp { written, delay: Duration::ZERO };
            self.rate.on_ack(stamp, true, 0, at(self.now));
            self.widest = self.widest.max(self.rate.window);
            self.longest_trip = self.longest_trip.max(self.rate.queue.trip());
        }

        /// Returns the bytes a second of the last so many milliseconds
        fn passed(&self, millis: u64) -> f64 {
            let late = self.arrivals.iter().filter(|arrival| **arrival > self.now - millis);
            late.count() as f64 * 1452.0 / millis as f64 * 1e3
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }
}
