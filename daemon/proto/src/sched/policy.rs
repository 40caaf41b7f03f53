//! What follows from the character of a path: what is thin, how often something is sent, how long
//! it may wait.

use super::Capacity;
use super::codel::Patience;
use super::meter::{Limit, time_of};
use crate::time::Duration;

/// How load is treated on the path in use
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Policy {
    /// What this follows from
    from: (Capacity, u8),
    /// Transmissions of one thing after which the chance that all were lost is small enough
    pub(super) transmissions: u8,
    /// The same for pieces of a burst, each of which all that follow wait for
    pub(super) pieces: u8,
    /// The same for what was lost before, and holds up what follows it
    pub(super) repeats: u8,
    /// Time between an original and its first copy
    pub(super) gap: Duration,
    /// Age at which a copy is of no more use
    pub(super) late: Duration,
    /// Time after the last piece of a burst at which it was the last one
    pub(super) tail: Duration,
    /// What a flow may send and be thin
    pub(super) thin: Limit,
    /// Bytes a second of all thin flows together that go before other load
    pub(super) thin_share: u64,
    /// Bytes a second of copies that thin flows are worth beside other load
    pub(super) thin_copies: u64,
    /// Bytes a second of copies that idle capacity is used for
    pub(super) spare_copies: u64,
    /// How long datagrams may wait
    pub(super) patience: Patience,
}

impl Policy {
    /// Draws conclusions; spare copies may take so many percent, and with none there are no copies
    pub(super) fn of(capacity: &Capacity, copies: u8) -> Self {
        let least =
            if capacity.proven { THIN_LEAST } else { cold_rate(capacity.rtt).max(THIN_LEAST) };
        let rate = capacity.rate.unwrap_or(least).max(least);
        let thin = (rate / 100).max(THIN_LEAST);
        let burst = (thin / 10).max(2 * MESSAGE);
        let interval = INTERVAL.max(capacity.rtt);
        let transmissions = if copies == 0 { 1 } else { sent_until(LOST_PPM, capacity.loss_ppm) };
        let pieces =
            if transmissions == 1 { 1 } else { sent_until(PIECE_LOST_PPM, capacity.loss_ppm) };
        let seen = capacity.rate.unwrap_or(0);
        let carries = if capacity.proven { rate } else { rate.max(seen.saturating_mul(UNTRIED)) };
        Self {
            from: (*capacity, copies),
            transmissions,
            pieces,
            // Few things come to this, so that more of them may be lost again.
            repeats: transmissions.div_ceil(2),
            gap: time_of(BURST_MESSAGES * MESSAGE, rate).clamp(GAP_MIN, GAP_MAX),
            late: capacity.rtt.max(LATE_MIN),
            tail: (capacity.rtt / 8).max(GAP_MIN),
            thin: Limit { rate: thin, burst },
            thin_share: rate / 2,
            thin_copies: rate / 20,
            spare_copies: carries / 100 * u64::from(copies.min(100)),
            // As RFC 8289 has it; but a round trip through the tunnel is longer than most, and the
            // clock of a slow link is coarse. While it is not known what the path carries, the queue
            // is of our own making, and soon gone.
            patience: Patience {
                target: (interval / 20).max(time_of(2 * MESSAGE, rate)),
                interval: if capacity.proven { interval } else { interval.max(INTERVAL_COLD) },
            },
        }
    }

    /// Follows a change, if there was one
    pub(super) fn update(&mut self, capacity: &Capacity, copies: u8) {
        if self.from != (*capacity, copies) {
            *self = Self::of(capacity, copies);
        }
    }

    /// Returns the bytes a second below which all spare copies must lie for one more of a thing that
    /// left so often: the more copies it has, the less the next is worth
    pub(super) fn spare_copies_for(&self, sent: u8) -> u64 {
        let share = u64::from(TRANSMISSIONS_MAX + 2 - sent.clamp(1, TRANSMISSIONS_MAX));
        self.spare_copies / u64::from(TRANSMISSIONS_MAX + 1) * share
    }

    /// Tells whether anything is sent more than once
    pub(super) fn copies(&self) -> bool {
        self.transmissions > 1
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::of(&Capacity::default(), 0)
    }
}

/// Returns how often a thing must be sent so that it is lost in less than so many cases of a million
fn sent_until(lost_ppm: u64, loss_ppm: u32) -> u8 {
    let loss = u64::from(loss_ppm.min(1_000_000));
    let mut chance = 1_000_000;
    for sent in 1..TRANSMISSIONS_MAX {
        chance = chance * loss / 1_000_000;
        if chance < lost_ppm {
            return sent;
        }
    }
    TRANSMISSIONS_MAX
}

/// Returns the rate at which a path is sent on before it is known what it carries
fn cold_rate(rtt: Duration) -> u64 {
    let nanos = rtt.as_nanos().max(1_000_000);
    u64::try_from(u128::from(COLD_MESSAGES * MESSAGE) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// Bytes of a large message
const MESSAGE: u64 = 1400;
/// Messages that leave within a round trip while the rate is not known
const COLD_MESSAGES: u64 = 32;
/// Bytes a second that are thin on any path: 128 kbit/s
const THIN_LEAST: u64 = 16_000;
/// Most transmissions of one thing
const TRANSMISSIONS_MAX: u8 = 5;
/// Chance in a million at which a thing may be lost
const LOST_PPM: u64 = 1_000;
/// The same for each piece of a burst: a page of 100 KB has 70
const PIECE_LOST_PPM: u64 = 100;
/// How many times as much as it was seen to a path is taken to carry for idle capacity while load never showed its
/// limit: less than what startup sends on it anyway
const UNTRIED: u64 = 2;
/// Messages that one burst of losses takes and that must lie between two transmissions
const BURST_MESSAGES: u64 = 12;
/// Shortest and longest time between an original and its first copy
const GAP_MIN: Duration = Duration::from_millis(2);
const GAP_MAX: Duration = Duration::from_millis(10);
/// Least age at which a copy is of no more use
const LATE_MIN: Duration = Duration::from_millis(50);
/// RFC 8289's interval
const INTERVAL: Duration = Duration::from_millis(100);
/// The same while it is not known what the path carries
const INTERVAL_COLD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transmissions_follow_the_loss() {
        let cases = [(0, 1, 1), (900, 1, 1), (1_000, 2, 2), (9_900, 2, 2), (10_000, 2, 3)];
        let worse = [(30_000, 2, 3), (50_000, 3, 4), (99_000, 3, 4), (100_000, 4, 5)];
        let worst = [(170_000, 4, 5), (200_000, 5, 5), (600_000, 5, 5), (1_000_000, 5, 5)];
        for (loss_ppm, things, pieces) in [cases.as_slice(), &worse, &worst].concat() {
            let policy = Policy::of(&Capacity { loss_ppm, ..Capacity::default() }, 10);
            assert_eq!((policy.transmissions, policy.pieces), (things, pieces), "{loss_ppm} ppm");
        }
    }

    #[test]
    fn thin_is_one_percent_or_a_little_anyway() {
        assert_eq!(of(Some(12_500_000)).thin.rate, 125_000);
        assert_eq!(of(Some(100_000)).thin.rate, 16_000);
        assert_eq!(of(None).thin.rate, 16_000);
    }

    #[test]
    fn copies_keep_clear_of_a_burst_of_losses() {
        for (rate, least) in [(12_500_000, 1), (2_500_000, 4), (1_250_000, 8)] {
            let gap = of(Some(rate)).gap;
            assert!(gap >= Duration::from_millis(least), "{gap:?} at {rate}");
            assert!(gap <= Duration::from_millis(10), "{gap:?} at {rate}");
        }
    }

    #[test]
    fn without_copies_everything_is_sent_once() {
        let capacity = Capacity { loss_ppm: 200_000, ..Capacity::default() };

        assert!(Policy::of(&capacity, 10).copies());
        let none = Policy::of(&capacity, 0);
        assert!(!none.copies() && none.pieces == 1);
    }

    #[test]
    fn path_that_nobody_has_tried_carries_what_a_cold_one_is_given() {
        let rtt = Duration::from_millis(200);
        let tried = Capacity { rate: Some(1_000), proven: true, rtt, ..Capacity::default() };

        assert_eq!(Policy::of(&tried, 10).thin_copies, 800);
        assert_eq!(Policy::of(&Capacity { proven: false, ..tried }, 10).thin_copies, 11_200);
    }

    #[test]
    fn idle_capacity_of_a_path_that_was_never_full_counts_twice() {
        let spare = |rate, proven| {
            let known = of(Some(rate)).from.0;
            Policy::of(&Capacity { proven, ..known }, 10).spare_copies
        };

        assert_eq!((spare(1_000_000, true), spare(1_000_000, false)), (100_000, 200_000));
        assert_eq!(spare(1_000, false), 22_400, "no more than a cold one is given");
    }

    fn of(rate: Option<u64>) -> Policy {
        let rtt = Duration::from_millis(200);
        Policy::of(&Capacity { rate, proven: rate.is_some(), loss_ppm: 50_000, rtt }, 10)
    }
}
