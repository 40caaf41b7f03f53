//! What was sent on one path and what became of it.
//!
//! [`Sent`] numbers the messages of a path, keeps what each of them carried until that is
//! acknowledged or lost, and says when the tail is to be probed. Loss is told by transmit order: a
//! message is lost when one sent clearly later has arrived (RFC 9002 section 6.1). What "clearly"
//! means adapts: where a message that was called lost is acknowledged after all, the path reorders,
//! and from then on only time counts, as much as that message needed (in the spirit of RFC 8985).
//! PROTOCOL.md, section "Acknowledgement, RTT and loss".
//!
//! # Contract
//!
//! - Messages lie in a ring indexed by number. An acknowledgement costs what it newly acknowledges
//!   plus its number of ranges, however often it repeats old ones.
//! - Messages that elicit no acknowledgement are numbered and remembered, but never in flight, lost
//!   or counted.
//! - `acked` and `lost` are appended to; the caller clears and reuses them.
//! - After each call with `&mut self` the deadline may have moved; ask again.
//!
//! # Not here
//!
//! Whether a path is dead is decided by others, from [`Sent::unanswered_since`].

use core::ops::RangeInclusive;
use std::collections::VecDeque;

use super::rtt::Rtt;
use crate::limits::{ACK_LEAST, INITIAL_RTT, REORDER_MESSAGES};
use crate::rate::{Mark, Rate, Stamp};
use crate::time::{Duration, Instant};

/// Messages sent on one path, each with what it carried
#[derive(Debug)]
pub struct Sent<T> {
    /// Number of the first message in `ring`
    base: u64,
    ring: VecDeque<Message<T>>,
    /// No message before this one is in flight
    oldest: u64,
    largest_acked: Option<u64>,
    in_flight: usize,
    last_eliciting: Instant,
    /// First message in flight that is later than all acknowledged ones
    unanswered: Option<(u64, Instant)>,
    /// Probe timeouts since the last acknowledgement
    probes: u32,
    last_probe: Instant,
    reordering: Reordering,
    /// Messages before this one were sent before acknowledgements had failed to come for a while:
    /// which of them arrived is told in any order
    interrupted: u64,
    loss: LossShare,
    /// Whether nothing sent here gets lost while the path lives
    reliable: bool,
    /// Contents that the full ring gave up, until somebody takes them
    overflow: Vec<T>,
    overflowed: Instant,
    /// Messages looked at for acknowledgements
    #[cfg(test)]
    steps: u64,
}

/// What an acknowledgement told
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AckResult {
    /// Whether it acknowledged any message for the first time
    pub newly: bool,
    /// Largest number that it acknowledged
    pub largest: u64,
    /// Messages that were called lost and have arrived after all
    pub spurious: u32,
    /// Whether it acknowledged what was never sent; nothing was changed then
    pub invalid: bool,
}

/// What acknowledgements teach of a path
#[derive(Debug)]
pub struct Model<'a> {
    /// Its round-trip time
    pub rtt: &'a mut Rtt,
    /// Its rate
    pub rate: &'a mut Rate,
}

#[derive(Debug)]
struct Message<T> {
    sent: Instant,
    mark: Mark,
    bytes: u32,
    eliciting: bool,
    state: Fate,
    /// Until acknowledged or lost
    content: Option<T>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// Nothing is known yet
    Outstanding,
    /// Called lost; may still turn out to be late
    Lost,
    /// Nothing more to learn, as for so many messages before it
    Resolved { run: u32 },
}

impl<T> Default for Sent<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Sent<T> {
    /// Starts at number zero
    pub const fn new() -> Self {
        Self {
            base: 0,
            ring: VecDeque::new(),
            oldest: 0,
            largest_acked: None,
            in_flight: 0,
            last_eliciting: Instant::ZERO,
            unanswered: None,
            probes: 0,
            last_probe: Instant::ZERO,
            reordering: Reordering::new(),
            interrupted: 0,
            loss: LossShare::new(),
            reliable: false,
            overflow: Vec::new(),
            overflowed: Instant::ZERO,
            #[cfg(test)]
            steps: 0,
        }
    }

    /// Starts at a number that goes on from an earlier path
    pub fn starting_at(count: u64) -> Self {
        Self { base: count, oldest: count, ..Self::new() }
    }

    /// Takes nothing for lost, and probes no tail: the carrier repeats by itself
    #[must_use]
    pub fn reliable(self) -> Self {
        Self { reliable: true, ..self }
    }

    /// Records a message that leaves now, and returns its number
    ///
    /// Beyond [`MESSAGES_MAX`] unresolved messages the oldest counts as lost; what it carried comes
    /// out with the next acknowledgement or timeout.
    pub fn on_sent(
        &mut self,
        bytes: usize,
        eliciting: bool,
        content: T,
        rate: &mut Rate,
        now: Instant,
    ) -> u64 {
        let count = self.next_count();
        let mut mark = Mark::default();
        if eliciting {
            mark = rate.on_sent(bytes, self.in_flight, now);
            self.in_flight += bytes;
            self.last_eliciting = now;
            self.unanswered = self.unanswered.or(Some((count, now)));
        }
        self.ring.push_back(Message {
            sent: now,
            mark,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            eliciting,
            state: Fate::Outstanding,
            content: Some(content),
        });
        if self.ring.len() > MESSAGES_MAX {
            self.drop_front(now);
        }
        self.settle(now);
        count
    }

    /// Takes an acknowledgement: its ranges, descending, and what it tells of time
    ///
    /// RTT and rate of the path are told what it means for them.
    pub fn on_ack(
        &mut self,
        ranges: impl Iterator<Item = RangeInclusive<u64>>,
        stamp: Stamp,
        model: Model<'_>,
        now: Instant,
        acked: &mut Vec<T>,
        lost: &mut Vec<T>,
    ) -> AckResult {
        let (Model { rtt, rate }, delay) = (model, stamp.delay);
        lost.append(&mut self.overflow);
        let mut ranges = ranges.peekable();
        let Some(largest) = ranges.peek().map(|range| *range.end()) else {
            return AckResult::default();
        };
        if largest >= self.next_count() {
            return AckResult { largest, invalid: true, ..AckResult::default() };
        }

        // An acknowledgement may be held back so long where the way back is narrow.
        let held = rtt.smoothed().unwrap_or_default() / ACK_LEAST;
        if self.unanswered.is_some_and(|(_, sent)| now.since(sent) > rtt.pto() + held) {
            self.interrupted = self.next_count();
        }
        let mut news = News::default();
        for range in ranges {
            if *range.end() < self.base {
                break;
            }
            let range = (*range.start()).max(self.base)..=*range.end();
            self.acknowledge(range, rate, now, &mut news, acked);
        }
        // Only a largest number that is new tells how long the way took.
        if let Some((_, sent)) = news.first.filter(|(first, _)| news.eliciting && *first == largest)
        {
            let sample = now.since(sent);
            rtt.on_sample(sample.checked_sub(delay).unwrap_or(sample), now);
        }
        if let Some(longest) = news.spurious_age {
            self.reordering.on_spurious(longest.saturating_sub(delay), rtt, now);
        }
        if news.first.is_some() {
            self.probes = 0;
            self.largest_acked = self.largest_acked.max(Some(largest));
            self.find_unanswered();
        }
        self.reordering.age(now);
        self.detect(rtt, rate, now, lost);
        self.settle(now);
        if news.first.is_some() {
            let is_new = news.first.is_some_and(|(first, _)| first == largest);
            rate.on_ack(stamp, is_new && news.eliciting, self.in_flight, now);
        }
        AckResult { newly: news.first.is_some(), largest, spurious: news.spurious, invalid: false }
    }

    /// Does what is due: finds messages that are lost by now, and says whether to send a probe
    pub fn handle_timeout(&mut self, model: Model<'_>, now: Instant, lost: &mut Vec<T>) -> bool {
        let Model { rtt, rate } = model;
        lost.append(&mut self.overflow);
        self.detect(rtt, rate, now, lost);
        self.settle(now);
        let due = self.loss_at(rtt).is_none() && self.probe_at(rtt).is_some_and(|at| at <= now);
        if due {
            self.probes = self.probes.saturating_add(1);
            self.last_probe = now;
        }
        due
    }

    /// Gives up all that is in flight, as the path leads elsewhere now; none of it counts as lost
    pub fn forget_in_flight(&mut self, lost: &mut Vec<T>) {
        lost.append(&mut self.overflow);
        for message in &mut self.ring {
            if message.state == Fate::Outstanding {
                message.state = Fate::Resolved { run: 0 };
                let content = message.content.take();
                lost.extend(content.filter(|_| message.eliciting));
            }
        }
        self.in_flight = 0;
        self.unanswered = None;
        self.probes = 0;
        self.oldest = self.next_count();
    }

    /// Returns the number that the next message will get
    pub fn next_count(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    /// Returns what the last message carried, while nothing is known of it
    pub fn newest_mut(&mut self) -> Option<&mut T> {
        self.ring.back_mut()?.content.as_mut()
    }

    /// Returns when [`Self::handle_timeout`] is due
    pub fn deadline(&self, rtt: &Rtt) -> Option<Instant> {
        if !self.overflow.is_empty() {
            return Some(self.overflowed);
        }
        self.loss_at(rtt).or_else(|| self.probe_at(rtt))
    }

    /// Returns the bytes that are neither acknowledged nor lost
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns when the oldest message left that awaits an answer and is later than all acknowledged
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.unanswered.map(|(_, sent)| sent)
    }

    /// Returns the share of messages lost of late, in parts per million
    pub fn loss_ppm(&self) -> u32 {
        self.loss.ppm()
    }

    /// Tells whether enough messages were resolved of late for the share to say something
    pub fn knows_loss(&self) -> bool {
        self.loss.resolved >= LOSS_TELLING
    }

    /// Returns how many messages were lost so far, less those that turned out to be late
    pub fn lost_total(&self) -> u64 {
        self.loss.lost_total
    }

    /// Resolves `start..=end` from the top, jumping over what was resolved before
    fn acknowledge(
        &mut self,
        range: RangeInclusive<u64>,
        rate: &mut Rate,
        now: Instant,
        news: &mut News,
        acked: &mut Vec<T>,
    ) {
        let (start, end) = range.into_inner();
        let mut next = end;
        let mut lowest = end;
        while let Some(message) = self.message(next) {
            lowest = match message.state {
                Fate::Resolved { run } => next.saturating_sub(run.into()),
                Fate::Outstanding | Fate::Lost => {
                    self.resolve(next, rate, now, news, acked);
                    next
                }
            };
            match lowest.checked_sub(1) {
                Some(below) if lowest > start => next = below,
                _ => break,
            }
            #[cfg(test)]
            {
                self.steps += 1;
            }
        }
        let run = end - lowest.max(self.base);
        if let Some(message) = self.message(end) {
            message.state = Fate::Resolved { run: u32::try_from(run).unwrap_or(u32::MAX) };
        }
    }

    fn resolve(
        &mut self,
        count: u64,
        rate: &mut Rate,
        now: Instant,
        news: &mut News,
        acked: &mut Vec<T>,
    ) {
        let Some(message) = self.message(count) else { return };
        let Message { sent, mark, bytes, eliciting, state, .. } = *message;
        message.state = Fate::Resolved { run: 0 };
        acked.extend(message.content.take());
        news.first = news.first.or(Some((count, sent)));
        news.eliciting |= eliciting;
        // How long an acknowledgement was kept back says nothing of the way.
        let told = (count >= self.interrupted).then_some(now);
        match state {
            Fate::Outstanding if eliciting => {
                self.in_flight = self.in_flight.saturating_sub(bytes as usize);
                self.loss.on_acked(now);
                rate.on_acked(&mark, bytes as usize, sent, told);
            }
            Fate::Lost => {
                rate.on_spurious(&mark, bytes as usize, sent, told);
                news.spurious += 1;
                if count >= self.interrupted {
                    news.spurious_age = news.spurious_age.max(Some(now.since(sent)));
                }
                self.loss.on_spurious();
            }
            Fate::Outstanding | Fate::Resolved { .. } => {}
        }
    }

    /// Finds messages that are lost by now, the oldest first
    fn detect(&mut self, rtt: &Rtt, rate: &mut Rate, now: Instant, lost: &mut Vec<T>) {
        let Some(largest) = self.largest_acked.filter(|_| !self.reliable) else { return };
        let patience = self.reordering.patience(rtt);
        let counted = !self.reordering.seen();
        self.find_oldest();
        while self.oldest < largest {
            let by_count = counted && largest - self.oldest >= REORDER_MESSAGES;
            let Some(message) = self.message(self.oldest) else { break };
            if !by_count && message.sent + patience > now {
                break;
            }
            message.state = Fate::Lost;
            lost.extend(message.content.take());
            rate.on_lost(&message.mark);
            let bytes = message.bytes as usize;
            self.in_flight = self.in_flight.saturating_sub(bytes);
            self.loss.on_lost(now);
            self.find_oldest();
        }
    }

    /// Moves `oldest` to the first message in flight
    fn find_oldest(&mut self) {
        self.oldest = self.oldest.max(self.base);
        while let Some(message) = self.message(self.oldest) {
            if message.eliciting && message.state == Fate::Outstanding {
                return;
            }
            self.oldest += 1;
        }
    }

    /// Moves `unanswered` past what is acknowledged
    fn find_unanswered(&mut self) {
        let Some((mut count, _)) = self.unanswered else { return };
        let Some(largest) = self.largest_acked.filter(|largest| *largest >= count) else { return };
        count = self.base.max(largest + 1);
        self.unanswered = loop {
            let Some(message) = self.message(count) else { break None };
            if message.eliciting && message.state == Fate::Outstanding {
                break Some((count, message.sent));
            }
            count += 1;
        };
    }

    /// Drops from the front of the ring what nobody will ask about
    fn settle(&mut self, now: Instant) {
        self.find_oldest();
        while let Some(front) = self.ring.front() {
            let done = match front.state {
                Fate::Resolved { .. } => true,
                Fate::Lost => now.since(front.sent) > LOST_KEPT,
                Fate::Outstanding => {
                    let old = now.since(front.sent) > QUIET_KEPT;
                    !front.eliciting && (old || self.ring.len() > QUIET_MAX)
                }
            };
            if !done {
                break;
            }
            self.ring.pop_front();
            self.base += 1;
        }
        self.oldest = self.oldest.max(self.base);
        if self.ring.capacity() > SPARE && self.ring.len() < self.ring.capacity() / 8 {
            self.ring.shrink_to(SPARE);
        }
    }

    fn drop_front(&mut self, now: Instant) {
        let Some(front) = self.ring.pop_front() else { return };
        self.base += 1;
        if front.eliciting && front.state == Fate::Outstanding {
            self.in_flight = self.in_flight.saturating_sub(front.bytes as usize);
            self.loss.on_lost(now);
            if self.overflow.is_empty() {
                self.overflowed = now;
            }
            self.overflow.extend(front.content);
        }
    }

    /// When the oldest message counts as lost, where one sent later has arrived
    fn loss_at(&self, rtt: &Rtt) -> Option<Instant> {
        self.largest_acked.filter(|largest| self.oldest < *largest && !self.reliable)?;
        let message = self.ring.get(usize::try_from(self.oldest.checked_sub(self.base)?).ok()?)?;
        Some(message.sent + self.reordering.patience(rtt))
    }

    /// When the tail is to be probed
    fn probe_at(&self, rtt: &Rtt) -> Option<Instant> {
        if self.in_flight == 0 || self.reliable {
            return None;
        }
        let pto = rtt.pto();
        let limit = PROBE_MAX.max(pto);
        let wait = (0..self.probes.min(16)).fold(pto, |wait, _| (wait * 3 / 2).min(limit));
        Some(self.last_eliciting.max(self.last_probe) + wait)
    }

    fn message(&mut self, count: u64) -> Option<&mut Message<T>> {
        self.ring.get_mut(usize::try_from(count.checked_sub(self.base)?).ok()?)
    }
}

/// What the ranges of one acknowledgement changed
#[derive(Default)]
struct News {
    /// First number that is new, which is the largest of them, and when it left
    first: Option<(u64, Instant)>,
    /// Whether any that is new elicits
    eliciting: bool,
    spurious: u32,
    /// Age of the oldest message that was called lost in error
    spurious_age: Option<Duration>,
}

/// How much later than its successors a message may arrive
#[derive(Clone, Copy, Debug)]
struct Reordering {
    /// Zero while no reordering was seen
    window: Duration,
    changed: Instant,
}

impl Reordering {
    const fn new() -> Self {
        Self { window: Duration::ZERO, changed: Instant::ZERO }
    }

    /// A message that was called lost has arrived after `age`
    fn on_spurious(&mut self, age: Duration, rtt: &Rtt, now: Instant) {
        let base = span(rtt);
        let needed = age.saturating_sub(base) * 5 / 4;
        let least = (base / 4).max(GRANULARITY);
        // One that came very late is no pattern, and waiting for its like would delay every repair.
        let most = self.window.max(least) * 2;
        self.window = self.window.max(needed.min(most)).max(least).min(base * REORDERING_MAX);
        self.changed = now;
    }

    /// Believes in order again after a while without a late message
    fn age(&mut self, now: Instant) {
        if self.seen() && now.since(self.changed) > REORDERING_KEPT {
            self.window /= 2;
            self.changed = now;
            if self.window < GRANULARITY {
                self.window = Duration::ZERO;
            }
        }
    }

    fn seen(&self) -> bool {
        !self.window.is_zero()
    }

    /// How long after it was sent a message is waited for, once a later one has arrived
    fn patience(&self, rtt: &Rtt) -> Duration {
        let base = span(rtt);
        base + self.window.max(base / 8).max(GRANULARITY)
    }
}

/// The round trip that a message may well take
fn span(rtt: &Rtt) -> Duration {
    rtt.smoothed().max(rtt.latest()).unwrap_or(INITIAL_RTT)
}

/// Share of messages lost, the recent ones weighing more
#[derive(Clone, Copy, Debug)]
struct LossShare {
    resolved: u64,
    lost: u64,
    aged: Instant,
    lost_total: u64,
}

impl LossShare {
    const fn new() -> Self {
        Self { resolved: 0, lost: 0, aged: Instant::ZERO, lost_total: 0 }
    }

    fn on_acked(&mut self, now: Instant) {
        self.resolved += LOSS_UNIT;
        self.age(now);
    }

    fn on_lost(&mut self, now: Instant) {
        self.resolved += LOSS_UNIT;
        self.lost += LOSS_UNIT;
        self.lost_total += 1;
        self.age(now);
    }

    fn on_spurious(&mut self) {
        self.lost = self.lost.saturating_sub(LOSS_UNIT);
        self.lost_total = self.lost_total.saturating_sub(1);
    }

    fn age(&mut self, now: Instant) {
        let old = now.since(self.aged) > LOSS_SPAN && self.resolved >= LOSS_FEW;
        if old || self.resolved >= LOSS_MANY {
            self.resolved /= 2;
            self.lost /= 2;
            self.aged = now;
        }
    }

    fn ppm(&self) -> u32 {
        let share = (self.lost * 1_000_000).checked_div(self.resolved).unwrap_or(0);
        u32::try_from(share).unwrap_or(1_000_000).min(1_000_000)
    }
}

/// Messages that are remembered at the same time
pub const MESSAGES_MAX: usize = 65_536;
/// Longest wait between two probes of a tail, unless the round trip itself is longer
const PROBE_MAX: Duration = Duration::from_secs(1);
/// Time for which a lost message may turn out to be late
const LOST_KEPT: Duration = Duration::from_secs(3);
/// Time for which messages that elicit nothing are remembered
const QUIET_KEPT: Duration = Duration::from_secs(3);
/// Messages in the ring beyond which those that elicit nothing are forgotten first
const QUIET_MAX: usize = 4096;
/// Messages for which the ring keeps room when it empties
const SPARE: usize = 1024;
/// Least allowance for reordering (RFC 9002's kGranularity)
const GRANULARITY: Duration = Duration::from_millis(1);
/// Largest allowance for reordering, in round trips
const REORDERING_MAX: u32 = 4;
/// Time without a late message after which the allowance is halved
const REORDERING_KEPT: Duration = Duration::from_secs(10);
/// Weight of one message, large enough to be halved several times
const LOSS_UNIT: u64 = 1 << 16;
/// Weight at which the past is always halved
const LOSS_MANY: u64 = 1000 * LOSS_UNIT;
/// Least weight that is halved for its age
const LOSS_FEW: u64 = 100 * LOSS_UNIT;
/// Weight that says something: less than what halving leaves
const LOSS_TELLING: u64 = 40 * LOSS_UNIT;
/// Age at which the past is halved
const LOSS_SPAN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
