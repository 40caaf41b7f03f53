//! Bounds that a person set: bytes and messages a second, for all paths of a node together.
//!
//! A [`Shaper`] knows when all that was sent will have passed at the rate that is allowed. Load may
//! leave while that is near enough: 2 ms at the rate, and at least two messages, may leave at once.
//! A session that may not gets a [`Slot`], the next after those of all others: so sessions take
//! turns, message by message, and none has to know of the others.
//!
//! # Contract
//!
//! - All that leaves is counted ([`Shaper::on_sent`]), but only load has to ask ([`Shaper::ask`]),
//!   and asks before each message. So acknowledgements and probes take from what is left to load,
//!   and never wait.
//! - Shards of one node have one account ([`Shaper::share`]). Where there are no bounds nobody looks at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::meter::time_of;
use crate::time::{Duration, Instant};

/// Bounds of what one node sends
#[derive(Debug)]
pub struct Shaper {
    rate: Option<u64>,
    packet_rate: Option<u32>,
    account: Arc<Account>,
}

/// What was sent
#[derive(Debug)]
struct Account {
    /// When the bytes that were sent have passed
    bytes_pass: Pass,
    /// When the messages that were sent have passed
    messages_pass: Pass,
}

/// A time that shards move, one after the other
#[derive(Debug)]
struct Pass(AtomicU64);

impl Pass {
    fn at(at: Instant) -> Self {
        Self(AtomicU64::new(at.as_nanos()))
    }

    fn get(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, at: Instant) {
        self.0.store(at.as_nanos(), Ordering::Relaxed);
    }

    fn change(&self, change: impl Fn(Instant) -> Instant) {
        let change = |nanos| Some(change(Instant::from_nanos(nanos)).as_nanos());
        // There is always another one.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

/// When it is a session's turn to send one message of load
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot {
    at: Instant,
}

impl Shaper {
    /// Begins without bounds
    pub fn new(now: Instant) -> Self {
        let account = Account { bytes_pass: Pass::at(now), messages_pass: Pass::at(now) };
        Self { rate: None, packet_rate: None, account: Arc::new(account) }
    }

    /// Returns the same bounds for another shard of the node: what one sends, the other may not
    #[must_use]
    pub fn share(&self) -> Self {
        let account = Arc::clone(&self.account);
        Self { rate: self.rate, packet_rate: self.packet_rate, account }
    }

    /// Sets the bounds: bytes and messages a second
    pub fn set(&mut self, rate: Option<u64>, packet_rate: Option<u32>, now: Instant) {
        self.rate = rate.map(|rate| rate.max(1));
        self.packet_rate = packet_rate.map(|rate| rate.max(1));
        self.account.bytes_pass.set(now);
        self.account.messages_pass.set(now);
    }

    /// Asks whether load may leave now; whoever may not gets a slot, and may when that has come
    pub fn ask(&mut self, slot: &mut Option<Slot>, now: Instant) -> bool {
        let held = slot.filter(|slot| now < slot.at + SLOT_KEPT);
        let at = held.map_or_else(|| self.open_at(), |slot| slot.at);
        if held.is_none() {
            self.charge(MESSAGE, 1, Instant::FAR, now);
            *slot = Some(Slot { at });
        }
        at <= now
    }

    /// Records that a message left; one of load has used its slot
    pub fn on_sent(&mut self, bytes: usize, slot: Option<Slot>, now: Instant) {
        let bytes = bytes as u64;
        if slot.is_none() {
            return self.charge(bytes, 1, now + DEBT, now);
        }
        // The slot was for a message of usual size.
        self.charge(bytes.saturating_sub(MESSAGE), 0, Instant::FAR, now);
        if let Some(rate) = self.rate {
            let unused = time_of(MESSAGE.saturating_sub(bytes), rate);
            self.account.bytes_pass.change(|pass| pass - unused);
        }
    }

    /// Returns the bytes a second that are allowed
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Returns when whoever has this slot, or none, may send load next
    pub fn turn_at(&self, slot: &Option<Slot>, now: Instant) -> Instant {
        let held = slot.filter(|slot| now < slot.at + SLOT_KEPT);
        held.map_or_else(|| self.open_at(), |slot| slot.at)
    }

    /// Counts what leaves, but not beyond `most`
    fn charge(&mut self, bytes: u64, messages: u64, most: Instant, now: Instant) {
        let later = |pass: Instant, by| (pass.max(now) + by).min(most.max(pass));
        if let Some(rate) = self.rate {
            let by = time_of(bytes, rate);
            self.account.bytes_pass.change(|pass| later(pass, by));
        }
        if let Some(rate) = self.packet_rate {
            let by = time_of(messages, rate.into());
            self.account.messages_pass.change(|pass| later(pass, by));
        }
    }

    /// Returns when a message may leave for which nothing was reserved
    fn open_at(&self) -> Instant {
        let account = &self.account;
        let bytes = self.rate.map(|rate| account.bytes_pass.get() - ahead(time_of(MESSAGE, rate)));
        let messages = self
            .packet_rate
            .map(|rate| account.messages_pass.get() - ahead(time_of(1, rate.into())));
        bytes.max(messages).unwrap_or_default()
    }
}

/// Returns how far what was sent may lie ahead of time when one more message leaves
fn ahead(message: Duration) -> Duration {
    BURST.max(message * 2).saturating_sub(message)
}

/// How much may leave at once
const BURST: Duration = Duration::from_millis(2);
/// Bytes of a message, as far as bursts are concerned
const MESSAGE: u64 = 1500;
/// Time for which a slot that came is kept; who does not use it has to ask again
const SLOT_KEPT: Duration = Duration::from_millis(20);
/// Most that load has to wait for what did not ask
const DEBT: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bounds_it_is_always_open() {
        let mut shaper = Shaper::new(at(5));

        (0..1000).for_each(|_| shaper.on_sent(1500, None, at(5)));

        assert!(shaper.ask(&mut None, at(5)));
    }

    #[test]
    fn rate_is_kept_and_bursts_are_two_milliseconds() {
        // 100 Mbit/s: 25,000 bytes in 2 ms
        let (total, longest) = run(Some(12_500_000), None, 1000);

        assert!((12_400_000..=12_525_000).contains(&total), "{total}");
        assert!(longest * 1000 <= 25_000, "{longest}");
        assert!(longest * 1000 >= 20_000, "{longest}");
    }

    #[test]
    fn slow_rate_lets_two_messages_out_at_once() {
        let (total, longest) = run(Some(12_500), None, 1500);

        assert!((12_400..=15_500).contains(&total), "{total}");
        assert_eq!(longest, 2);
    }

    #[test]
    fn messages_are_bounded_as_well() {
        let (total, longest) = run(None, Some(1000), 100);
        assert!((99_000..=100_300).contains(&total), "{total}");
        assert_eq!(longest, 2);

        let (total, longest) = run(Some(50_000), Some(1000), 100);
        assert!((49_500..=53_000).contains(&total), "{total}");
        assert!(longest <= 30, "{longest}");
    }

    #[test]
    fn what_does_not_ask_takes_from_load_but_not_for_ever() {
        let mut shaper = Shaper::new(at(0));
        shaper.set(Some(100_000), None, at(0));

        (0..10).for_each(|_| shaper.on_sent(1000, None, at(0)));
        assert_eq!(shaper.turn_at(&None, at(0)), at(85));

        (0..10_000).for_each(|_| shaper.on_sent(1000, None, at(90)));
        assert_eq!(shaper.turn_at(&None, at(90)), at(325));
    }

    #[test]
    fn those_who_wait_take_turns_whoever_asks_first() {
        let mut shaper = Shaper::new(at(0));
        shaper.set(Some(1_000_000), None, at(0));
        let mut slots = [None; 3];
        let mut sent = [0; 3];

        for micros in (0..1_000_000).step_by(50) {
            let now = Instant::from_nanos(micros * 1000);
            for (slot, sent) in slots.iter_mut().zip(&mut sent) {
                while shaper.ask(slot, now) {
                    shaper.on_sent(1000, slot.take(), now);
                    *sent += 1;
                }
            }
        }

        assert!(sent.iter().all(|sent| (330..=336).contains(sent)), "{sent:?}");
    }

    #[test]
    fn shards_have_one_rate_together() {
        let mut one = Shaper::new(at(0));
        one.set(Some(100_000), None, at(0));
        let other = one.share();

        one.on_sent(20_000, None, at(0));

        assert_eq!(other.turn_at(&None, at(0)), one.turn_at(&None, at(0)));
        assert!(other.turn_at(&None, at(0)) > at(100));
    }

    #[test]
    fn slot_that_nobody_used_is_worth_nothing_later() {
        let mut shaper = Shaper::new(at(0));
        shaper.set(Some(100_000), None, at(0));
        let mut idle = [None; 10];
        idle.iter_mut().for_each(|slot| {
            shaper.ask(slot, at(0));
        });

        let open = idle.iter_mut().filter_map(|slot| shaper.ask(slot, at(1000)).then_some(()));

        assert_eq!(open.count(), 2);
    }

    /// Sends whenever it may for a second; returns bytes, and the most messages at one time
    fn run(rate: Option<u64>, packet_rate: Option<u32>, len: usize) -> (usize, usize) {
        let mut shaper = Shaper::new(at(0));
        shaper.set(rate, packet_rate, at(0));
        let mut slot = None;
        let (mut total, mut longest) = (0, 0);
        let mut now = at(0);
        while now < at(1000) {
            let mut burst = 0;
            while shaper.ask(&mut slot, now) {
                shaper.on_sent(len, slot.take(), now);
                burst += 1;
            }
            longest = longest.max(burst);
            total += burst * len;
            now = shaper.turn_at(&slot, now);
        }
        (total, longest)
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }
}
