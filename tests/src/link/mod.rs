//! One direction of an emulated wire.
//!
//! A [`Link`] takes items with their size and gives them back later, or never, or twice: that is all a
//! wire does. It is pure: time enters as `now`, chance is a seed, and the same pushes at the same times
//! have the same fate. The virtual-time [`World`](crate::world) and the real-time lab drive the same code.
//!
//! # Contract
//!
//! - An item passes, in this order: the sender's segmentation offload, the MTU, the policer, the drop-tail queue in front of the bottleneck, the
//!   bottleneck's rate and marks, loss, corruption, duplication, delay. What is lost on the way has used the rate.
//! - `now` never runs backwards.
//! - [`Link::poll`] returns items in the order of their due time. Those that are due at
//!   [`Link::deadline`] can be polled then; a deadline may also come when nothing is due yet.
//!
//! # Not here
//!
//! Addresses, routes and error messages ("fragmentation needed") belong to who drives the link;
//! changes over time are data in [`script`].

pub mod delay;
pub mod ecn;
pub mod loss;
pub mod police;
pub mod rate;
pub mod script;
pub mod trains;

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use fastvpn_proto::node::Ecn;
use fastvpn_proto::time::{Duration, Instant};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use self::delay::Delay;
use self::ecn::Marker;
use self::loss::{Loss, LossState, Share};
use self::police::{Bucket, Policer};
use self::rate::{Bottleneck, Queue, Rate};

pub use self::delay::{ms, secs, us};
pub use self::ecn::Bits;
pub use self::loss::percent;
pub use self::rate::{Waits, gbit, kbit, mbit};
pub use self::script::{Change, Script};
pub use self::trains::Trains;

/// What can travel over a [`Link`]
///
/// A duplicate is a clone.
pub trait Cargo: Clone {
    /// Damages the item as a bad wire would; `chance` picks where
    fn corrupt(&mut self, chance: u64);

    /// Returns what the item says of congestion, where it can say anything
    fn ecn(&mut self) -> Option<&mut Ecn> {
        None
    }

    /// Tells whether the sender's system cut it from a train, behind another
    fn is_cut(&self) -> bool {
        false
    }
}

impl Cargo for Vec<u8> {
    /// Flips one bit
    fn corrupt(&mut self, chance: u64) {
        if !self.is_empty() {
            let bit = chance % (self.len() as u64 * 8);
            self[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
    }

    fn is_cut(&self) -> bool {
        trains::is_cut(self)
    }
}

/// Character of one direction of a wire; perfect where nothing is said
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// What becomes of trains that the sender's system has cut
    pub trains: Trains,
    /// Drops what exceeds its rate, without a queue
    pub police: Option<Policer>,
    /// Rate of the bottleneck; none: infinite
    pub rate: Option<Rate>,
    /// Room in front of the bottleneck
    pub queue: Queue,
    /// When the bottleneck marks items; none: never
    pub marker: Option<Marker>,
    /// What becomes of marks on the way
    pub bits: Bits,
    /// Time on the way
    pub delay: Delay,
    /// Which items are lost on the way
    pub loss: Loss,
    /// Share of items that arrive twice
    pub duplicate: Share,
    /// Share of items that arrive damaged
    pub corrupt: Share,
    /// Largest item in bytes; none: all pass
    pub mtu: Option<usize>,
    /// Whether everything is lost at the moment
    pub down: bool,
}

impl LinkConfig {
    /// Makes a perfect wire: no delay, no loss, infinite rate
    pub fn new() -> Self {
        Self::default()
    }

    /// Has the sender's segmentation offload fail
    #[must_use]
    pub fn trains(mut self, trains: Trains) -> Self {
        self.trains = trains;
        self
    }

    /// Limits the rate; the queue in front of it is 100 ms until [`Self::queue`] says otherwise
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Drops what exceeds a rate by more than a burst of so many bytes
    #[must_use]
    pub fn policed(mut self, rate: Rate, burst: u64) -> Self {
        self.police = Some(Policer { rate, burst });
        self
    }

    /// Sets how long an accepted item may have to wait in front of the bottleneck
    #[must_use]
    pub fn queue(mut self, time: Duration) -> Self {
        self.queue = Queue::Time(time);
        self
    }

    /// Sets how many bytes may wait in front of the bottleneck
    #[must_use]
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue = Queue::Bytes(bytes);
        self
    }

    /// Marks what can be marked where it has to wait for longer than this
    #[must_use]
    pub fn marking(mut self, above: Duration) -> Self {
        self.marker = Some(Marker { above });
        self
    }

    /// Mangles marks on the way
    #[must_use]
    pub fn bits(mut self, bits: Bits) -> Self {
        self.bits = bits;
        self
    }

    /// Sets the time on the way
    #[must_use]
    pub fn delay(mut self, base: Duration) -> Self {
        self.delay.base = base;
        self
    }

    /// Adds up to `jitter` to the delay, or takes it away; the order of items is kept
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.delay.jitter = jitter;
        self.delay.order = delay::Order::Kept;
        self
    }

    /// Adds up to `jitter` to the delay, or takes it away; items overtake each other
    #[must_use]
    pub fn reordering_jitter(mut self, jitter: Duration) -> Self {
        self.delay.jitter = jitter;
        self.delay.order = delay::Order::Free;
        self
    }

    /// Lets a share of the items skip the delay and so overtake others
    #[must_use]
    pub fn early(mut self, share: Share) -> Self {
        self.delay.early = share;
        self
    }

    /// Loses each item with the same chance
    #[must_use]
    pub fn loss(mut self, share: Share) -> Self {
        self.loss = Loss::Random { share };
        self
    }

    /// Loses `share` of all items in bursts of `length` on average (Gilbert-Elliott)
    #[must_use]
    pub fn bursts(mut self, share: Share, length: f64) -> Self {
        self.loss = Loss::Bursts { share, length };
        self
    }

    /// Loses exactly these items, counted from 1 in the order in which they leave the bottleneck
    #[must_use]
    pub fn lose(mut self, numbers: &[u64]) -> Self {
        self.loss = Loss::Scripted { numbers: numbers.iter().copied().collect() };
        self
    }

    /// Delivers a share of the items twice
    #[must_use]
    pub fn duplicate(mut self, share: Share) -> Self {
        self.duplicate = share;
        self
    }

    /// Damages a share of the items
    #[must_use]
    pub fn corrupt(mut self, share: Share) -> Self {
        self.corrupt = share;
        self
    }

    /// Drops items of more than `bytes`
    #[must_use]
    pub fn mtu(mut self, bytes: usize) -> Self {
        self.mtu = Some(bytes);
        self
    }

    /// Loses everything
    #[must_use]
    pub fn down(mut self) -> Self {
        self.down = true;
        self
    }
}

/// What became of a pushed item at the entrance
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is on its way, though it may still be lost
    Accepted,
    /// The queue was full, or there was no token left in the bucket
    QueueFull,
    /// It exceeds the MTU
    TooBig,
}

/// Numbers of items, and of their bytes, by what became of them
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counters {
    /// Pushed into the link
    pub pushed: Count,
    /// Given back by [`Link::poll`], duplicates included
    pub delivered: Count,
    /// Lost on the way, or because the link was down
    pub lost: Count,
    /// Refused because the queue was full, or because there was no token left in the bucket
    pub queue_full: Count,
    /// Refused because they exceed the MTU
    pub too_big: Count,
    /// Copies that the link made
    pub duplicated: Count,
    /// Damaged
    pub corrupted: Count,
    /// Marked by the bottleneck
    pub marked: Count,
}

/// A number of items and of their bytes
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Count {
    /// How many
    pub items: u64,
    /// Their bytes
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: usize) {
        self.items += 1;
        self.bytes += bytes as u64;
    }
}

/// One direction of a wire
#[derive(Debug)]
pub struct Link<T> {
    config: LinkConfig,
    chance: ChaCha8Rng,
    loss: LossState,
    bucket: Bucket,
    bottleneck: Bottleneck<T>,
    /// On the way, in order of both arrival and due time: the common case, without a heap
    ordered: VecDeque<Flight<T>>,
    /// On the way, overtaken or overtaking
    unordered: BinaryHeap<Reverse<Flight<T>>>,
    flights: u64,
    last_due: Instant,
    counters: Counters,
}

impl<T: Cargo> Link<T> {
    /// Makes an empty link whose chances all follow from `seed`
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            loss: LossState::default(),
            bucket: Bucket::default(),
            chance: ChaCha8Rng::seed_from_u64(seed),
            bottleneck: Bottleneck::new(config.rate, config.queue),
            ordered: VecDeque::new(),
            unordered: BinaryHeap::new(),
            flights: 0,
            last_due: Instant::ZERO,
            counters: Counters::default(),
            config,
        }
    }

    /// Takes an item of `bytes` at `now`
    pub fn push(&mut self, mut item: T, bytes: usize, now: Instant) -> Verdict {
        self.advance(now);
        self.counters.pushed.add(bytes);
        match self.config.trains {
            Trains::Whole => {}
            Trains::Beheaded if item.is_cut() => {
                self.counters.lost.add(bytes);
                return Verdict::Accepted;
            }
            Trains::Mangled if item.is_cut() => {
                item.corrupt(self.chance.next_u64());
                self.counters.corrupted.add(bytes);
            }
            Trains::Beheaded | Trains::Mangled => {}
        }
        if self.config.mtu.is_some_and(|mtu| bytes > mtu) {
            self.counters.too_big.add(bytes);
            return Verdict::TooBig;
        }
        if self.config.police.is_some_and(|police| !self.bucket.admits(police, bytes, now)) {
            self.counters.queue_full.add(bytes);
            return Verdict::QueueFull;
        }
        if self.config.rate.is_none() && self.bottleneck.is_empty() {
            self.fly(item, bytes, now);
            return Verdict::Accepted;
        }
        let crowded = |marker: Marker| {
            let room = self.config.rate.map(|rate| rate.bytes_in(marker.above));
            room.is_some_and(|room| self.bottleneck.bytes() > room)
        };
        if self.config.marker.is_some_and(crowded)
            && let Some(ecn) = item.ecn().filter(|ecn| **ecn == Ecn::Capable)
        {
            *ecn = Ecn::Congested;
            self.counters.marked.add(bytes);
        }
        if !self.bottleneck.push(item, bytes, now) {
            self.counters.queue_full.add(bytes);
            return Verdict::QueueFull;
        }
        Verdict::Accepted
    }

    /// Returns the next item that has arrived by `now`
    pub fn poll(&mut self, now: Instant) -> Option<T> {
        self.advance(now);
        let ordered = self.ordered.front().map(Flight::rank);
        let unordered = self.unordered.peek().map(|flight| flight.0.rank());
        let flight = match (ordered, unordered) {
            (Some(one), Some(other)) if other < one => self.pop_unordered(now),
            (Some(_), _) => self.pop_ordered(now),
            (None, _) => self.pop_unordered(now),
        }?;
        self.counters.delivered.add(flight.bytes);
        Some(flight.item)
    }

    /// Changes the link's character; what is on the way already keeps its due time
    pub fn set(&mut self, config: LinkConfig, now: Instant) {
        self.advance(now);
        self.bottleneck.set(config.rate, config.queue, now);
        if config.loss != self.config.loss {
            self.loss = LossState::default();
        }
        self.config = config;
    }

    /// Applies one change of a script to the link's present character
    pub fn change(&mut self, change: &Change, now: Instant) {
        let mut config = self.config.clone();
        change.apply(&mut config);
        self.set(config, now);
    }

    /// Returns when to poll next; nothing while the link is empty
    pub fn deadline(&self) -> Option<Instant> {
        let flying = [
            self.ordered.front().map(|flight| flight.due),
            self.unordered.peek().map(|flight| flight.0.due),
        ];
        let waiting = self.bottleneck.deadline().map(|left| left + self.config.delay.least());
        flying.into_iter().flatten().chain(waiting).min()
    }

    /// Returns the link's present character
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Returns what became of all items so far
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns how long items have waited in front of the bottleneck so far
    pub fn waits(&self) -> Waits {
        self.bottleneck.waits()
    }

    /// Returns how many bytes wait in front of the bottleneck
    pub fn queued_bytes(&self) -> u64 {
        self.bottleneck.bytes()
    }

    /// Returns how many items are in the link
    pub fn len(&self) -> usize {
        self.bottleneck.len() + self.ordered.len() + self.unordered.len()
    }

    /// Tells whether no item is in the link
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets everything fly that has left the bottleneck by `now`
    fn advance(&mut self, now: Instant) {
        while let Some((item, bytes, left)) = self.bottleneck.pop(now) {
            self.fly(item, bytes, left);
        }
    }

    /// Decides the fate of an item that left the bottleneck at `left`
    fn fly(&mut self, mut item: T, bytes: usize, left: Instant) {
        if self.loss.loses(&self.config.loss, &mut self.chance) || self.config.down {
            self.counters.lost.add(bytes);
            return;
        }
        if let Some(ecn) = item.ecn() {
            let Some(left) = self.config.bits.pass(*ecn) else {
                self.counters.lost.add(bytes);
                return;
            };
            *ecn = left;
        }
        if self.config.corrupt.hits(&mut self.chance) {
            item.corrupt(self.chance.next_u64());
            self.counters.corrupted.add(bytes);
        }
        if self.config.duplicate.hits(&mut self.chance) {
            self.counters.duplicated.add(bytes);
            self.launch(item.clone(), bytes, left);
        }
        self.launch(item, bytes, left);
    }

    fn launch(&mut self, item: T, bytes: usize, left: Instant) {
        let due = self.config.delay.due(left, self.last_due, &mut self.chance);
        self.last_due = self.last_due.max(due);
        self.flights += 1;
        let flight = Flight { due, number: self.flights, bytes, item };
        if self.ordered.back().is_none_or(|last| last.due <= due) {
            self.ordered.push_back(flight);
        } else {
            self.unordered.push(Reverse(flight));
        }
    }

    fn pop_ordered(&mut self, now: Instant) -> Option<Flight<T>> {
        if self.ordered.front()?.due <= now { self.ordered.pop_front() } else { None }
    }

    fn pop_unordered(&mut self, now: Instant) -> Option<Flight<T>> {
        if self.unordered.peek()?.0.due <= now {
            self.unordered.pop().map(|flight| flight.0)
        } else {
            None
        }
    }
}

/// An item on its way, compared by due time, then by number
#[derive(Debug)]
struct Flight<T> {
    due: Instant,
    number: u64,
    bytes: usize,
    item: T,
}

impl<T> Flight<T> {
    fn rank(&self) -> (Instant, u64) {
        (self.due, self.number)
    }
}

impl<T> PartialEq for Flight<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<T> Eq for Flight<T> {}

impl<T> PartialOrd for Flight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Flight<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_is_exact_and_order_is_kept() {
        let mut link = Link::new(LinkConfig::new().delay(ms(100)), 1);

        link.push(vec![1], 1, at(0));
        link.push(vec![2], 1, at(5));

        assert_eq!(link.deadline(), Some(at(100)));
        assert_eq!(link.poll(at(99)), None);
        assert_eq!(link.poll(at(105)), Some(vec![1]));
        assert_eq!(link.poll(at(105)), Some(vec![2]));
        assert_eq!(link.deadline(), None);
    }

    #[test]
    fn bottleneck_spreads_a_burst_and_drops_what_the_queue_cannot_hold() {
        // 1000 bytes take 1 ms; 10 ms of queue hold ten of them
        let mut link = Link::new(LinkConfig::new().rate(mbit(8)).queue(ms(10)), 1);

        for item in 0..20u8 {
            link.push(vec![item], 1000, at(0));
        }

        let arrivals = drain(&mut link);
        assert_eq!(arrivals.len(), 10);
        assert_eq!(arrivals[0].0, at(1));
        assert_eq!(arrivals[9].0, at(10));
        assert_eq!(link.counters().queue_full.items, 10);
    }

    #[test]
    fn rate_step_applies_to_what_waits() {
        let mut link = Link::new(LinkConfig::new().rate(mbit(8)).queue(secs(1)), 1);
        for item in 0..10u8 {
            link.push(vec![item], 1000, at(0));
        }

        link.set(LinkConfig::new().rate(mbit(4)).queue(secs(1)), at(4));

        let arrivals = drain(&mut link);
        assert_eq!(arrivals[3].0, at(4));
        assert_eq!(arrivals[4].0, at(6));
        assert_eq!(arrivals[9].0, at(16));
    }

    #[test]
    fn loss_is_near_its_mean_and_uses_the_rate() {
        let mut link = Link::new(LinkConfig::new().loss(percent(20)), 7);

        for _ in 0..20_000 {
            link.push(vec![0], 1, at(0));
        }

        let lost = link.counters().lost.items;
        assert!((3_800..4_200).contains(&lost), "{lost}");
    }

    #[test]
    fn bursts_have_their_mean_loss_and_length() {
        let mut link = Link::new(LinkConfig::new().bursts(percent(5), 8.0), 7);
        let (mut bursts, mut before) = (0, 0);
        let mut in_burst = false;

        for _ in 0..400_000 {
            link.push(vec![0], 1, at(0));
            let lost = link.counters().lost.items;
            bursts += u64::from(lost > before && !in_burst);
            in_burst = lost > before;
            before = lost;
        }

        let share = before as f64 / 400_000.0;
        let length = before as f64 / bursts as f64;
        assert!((0.045..0.055).contains(&share), "{share}");
        assert!((7.0..9.0).contains(&length), "{length}");
    }

    #[test]
    fn scripted_loss_takes_exactly_the_named_items() {
        let mut link = Link::new(LinkConfig::new().lose(&[2, 3]), 1);

        for item in 1..=5u8 {
            link.push(vec![item], 1, at(0));
        }

        let items: Vec<_> = drain(&mut link).into_iter().map(|(_, item)| item[0]).collect();
        assert_eq!(items, [1, 4, 5]);
    }

    #[test]
    fn jitter_keeps_order_unless_told_otherwise() {
        let kept = LinkConfig::new().delay(ms(50)).jitter(ms(20));
        let free = LinkConfig::new().delay(ms(50)).reordering_jitter(ms(20));

        for (config, ordered) in [(kept, true), (free, false)] {
            let mut link = Link::new(config, 3);
            for item in 0..100u8 {
                link.push(vec![item], 1, at(u64::from(item)));
            }
            let arrivals = drain(&mut link);
            assert_eq!(arrivals.len(), 100);
            assert_eq!(arrivals.is_sorted_by_key(|(_, item)| item[0]), ordered);
            assert!(arrivals.is_sorted_by_key(|(due, _)| *due));
        }
    }

    #[test]
    fn duplicates_corruption_and_size_are_counted() {
        let config = LinkConfig::new().duplicate(percent(100)).corrupt(percent(100)).mtu(100);
        let mut link = Link::new(config, 1);

        assert_eq!(link.push(vec![0; 4], 100, at(0)), Verdict::Accepted);
        assert_eq!(link.push(vec![0; 4], 101, at(0)), Verdict::TooBig);

        let arrivals = drain(&mut link);
        assert_eq!(arrivals.len(), 2);
        assert_ne!(arrivals[0].1, vec![0; 4]);
        let counters = link.counters();
        assert_eq!((counters.duplicated.items, counters.corrupted.items), (1, 1));
        assert_eq!((counters.too_big.items, counters.delivered.items), (1, 2));
    }

    #[test]
    fn same_seed_has_the_same_fate() {
        let fate = |seed| {
            let config = LinkConfig::new().delay(ms(9)).reordering_jitter(ms(5)).loss(percent(30));
            let mut link = Link::new(config, seed);
            for item in 0..200u8 {
                link.push(vec![item], 1, at(u64::from(item)));
            }
            drain(&mut link)
        };

        assert_eq!(fate(5), fate(5));
        assert_ne!(fate(5), fate(6));
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn drain(link: &mut Link<Vec<u8>>) -> Vec<(Instant, Vec<u8>)> {
        let mut arrivals = Vec::new();
        while let Some(now) = link.deadline() {
            while let Some(item) = link.poll(now) {
                arrivals.push((now, item));
            }
        }
        arrivals
    }
}
