//! How much of a quota was used.
//!
//! A [`Meter`] counts what is sent and knows in which day, week or month it is. It slows nothing
//! down and writes nothing: it says how far things have come ([`Level`]), and when the count is to
//! be written down ([`Meter::poll`]).
//!
//! # Contract
//!
//! - The day never makes the count go back: a wall clock that is behind keeps the later time.
//! - What was kept of an earlier run comes by [`Meter::on_recalled`], once, and is added.

use std::time::SystemTime;

use fastvpn_proto::time::{Duration, Instant};

use crate::config::{Period, Quota};

/// Counts what is sent against a quota
#[derive(Clone, Debug)]
pub(super) struct Meter {
    quota: Quota,
    used: Used,
    /// What was last written down, and when
    kept: (Used, Instant),
}

/// How much was sent since when
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Used {
    /// First day of the time that is counted
    pub(super) since: Day,
    /// Bytes sent in it
    pub(super) bytes: u64,
}

/// A day, in UTC, counted from 1 January 1970
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Day(pub(super) i64);

/// How far a quota is used
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Level {
    /// Less than 80 %
    #[default]
    Free,
    /// 80 % and more: somebody should know
    Warned,
    /// 90 % and more: nothing is sent twice any more
    Lean,
    /// All of it: only what keeps the node reachable
    Spent,
}

impl Meter {
    /// Begins to count on this day
    pub(super) fn new(quota: Quota, today: Day, now: Instant) -> Self {
        let used = Used { since: today.first(quota.period), bytes: 0 };
        Self { quota, used, kept: (used, now) }
    }

    /// Takes another quota; what was used in the same time stays used
    pub(super) fn set(&mut self, quota: Quota, today: Day) {
        if quota.period != self.quota.period {
            let since = today.first(quota.period);
            let bytes = if since <= self.used.since { self.used.bytes } else { 0 };
            self.used = Used { since, bytes };
        }
        self.quota = quota;
    }

    /// Takes what was written down by an earlier run
    pub(super) fn on_recalled(&mut self, earlier: Used) {
        if earlier.since >= self.used.since {
            self.used.since = earlier.since;
            self.used.bytes = self.used.bytes.saturating_add(earlier.bytes);
        }
    }

    /// Counts what was sent; returns the level if it has risen
    pub(super) fn on_sent(&mut self, bytes: u64) -> Option<Level> {
        let before = self.level();
        self.used.bytes = self.used.bytes.saturating_add(bytes);
        Some(self.level()).filter(|level| *level > before)
    }

    /// Takes the day that it is; returns whether a new time has begun
    pub(super) fn on_day(&mut self, today: Day) -> bool {
        let since = today.first(self.quota.period);
        let begun = since > self.used.since;
        if begun {
            self.used = Used { since, bytes: 0 };
        }
        begun
    }

    /// Returns what is to be written down now: each five minutes, and when much was sent
    pub(super) fn poll(&mut self, now: Instant) -> Option<Used> {
        let (kept, at) = self.kept;
        let much = self.used.since != kept.since
            || self.used.bytes.abs_diff(kept.bytes) >= self.quota.bytes / 100;
        let due = if much { KEEP_SOON } else { KEEP_EVERY };
        if now < at + due { None } else { self.keep(now) }
    }

    /// Returns what is to be written down before an end; nothing if it is written already
    pub(super) fn keep(&mut self, now: Instant) -> Option<Used> {
        let changed = self.used != self.kept.0;
        self.kept = (self.used, now);
        changed.then_some(self.used)
    }

    /// Returns how far the quota is used
    pub(super) fn level(&self) -> Level {
        let percent = u128::from(self.used.bytes) * 100 / u128::from(self.quota.bytes.max(1));
        match percent {
            0..80 => Level::Free,
            80..90 => Level::Warned,
            90..100 => Level::Lean,
            100.. => Level::Spent,
        }
    }

    /// Returns the quota
    pub(super) fn quota(&self) -> Quota {
        self.quota
    }

    /// Returns how many bytes were sent in the present time
    pub(super) fn used(&self) -> u64 {
        self.used.bytes
    }

    /// Returns the day on which the next time begins
    pub(super) fn until(&self) -> Day {
        self.used.since.next(self.quota.period)
    }
}

impl Day {
    /// Returns the day of a wall clock
    pub(super) fn of(wall: SystemTime) -> Self {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_secs() / DAY_SECS).unwrap_or(i64::MAX))
    }

    /// Returns the first day of the day, week or month that this day is in
    fn first(self, period: Period) -> Self {
        match period {
            Period::Day => self,
            // 1 January 1970 was a Thursday
            Period::Week => Self(self.0 - (self.0 + 3).rem_euclid(7)),
            Period::Month => {
                let (year, month, _) = self.date();
                Self::of_date(year, month, 1)
            }
        }
    }

    /// Returns the first day of the time that follows the one that begins on this day
    fn next(self, period: Period) -> Self {
        match period {
            Period::Day => Self(self.0 + 1),
            Period::Week => Self(self.0 + 7),
            Period::Month => {
                let (year, month, _) = self.date();
                if month == 12 {
                    Self::of_date(year + 1, 1, 1)
                } else {
                    Self::of_date(year, month + 1, 1)
                }
            }
        }
    }

    /// Returns when the day begins
    pub(super) fn begins(self) -> SystemTime {
        let secs = u64::try_from(self.0).unwrap_or_default().saturating_mul(DAY_SECS);
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs));
        at.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Returns year, month and day of the Gregorian calendar
    pub(super) fn date(self) -> (i64, i64, i64) {
        // Counted in years that begin in March, so that the leap day is the last one; of 400 such
        // years each has the same length.
        let days = self.0 + DAYS_TO_1970;
        let era = days.div_euclid(DAYS_OF_400_YEARS);
        let in_era = days.rem_euclid(DAYS_OF_400_YEARS);
        let years = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
        let in_year = in_era - (365 * years + years / 4 - years / 100);
        let march_month = (5 * in_year + 2) / 153;
        let day = in_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        (era * 400 + years + i64::from(month <= 2), month, day)
    }

    /// Returns the day of a date; a month from 1 to 12
    pub(super) fn of_date(year: i64, month: i64, day: i64) -> Self {
        let march_year = if month <= 2 { year - 1 } else { year };
        let march_month = if month > 2 { month - 3 } else { month + 9 };
        let era = march_year.div_euclid(400);
        let years = march_year.rem_euclid(400);
        let in_year = (153 * march_month + 2) / 5 + day - 1;
        let in_era = years * 365 + years / 4 - years / 100 + in_year;
        Self(era * DAYS_OF_400_YEARS + in_era - DAYS_TO_1970)
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = self.date();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl std::str::FromStr for Day {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-').map(str::parse::<i64>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(year)), Some(Ok(month)), Some(Ok(day)), None)
                if (1..=9999).contains(&year)
                    && (1..=12).contains(&month)
                    && (1..=31).contains(&day) =>
            {
                Ok(Self::of_date(year, month, day))
            }
            _ => Err(()),
        }
    }
}

/// Bytes a second that are left when a quota is used up: a session and a shell can be kept
pub(super) const TRICKLE: u64 = 64_000 / 8;
/// How often the count is written down while little is sent
const KEEP_EVERY: Duration = Duration::from_secs(5 * 60);
/// Least time between two writings
const KEEP_SOON: Duration = Duration::from_secs(10);
const DAY_SECS: u64 = 24 * 60 * 60;
const DAYS_OF_400_YEARS: i64 = 146_097;
/// Days from 1 March of the year 0 to 1 January 1970
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::fixture::secs;

    #[test]
    fn days_are_dates_and_dates_are_days() {
        for (day, text) in [
            (0, "1970-01-01"),
            (19_782, "2024-02-29"),
            (19_783, "2024-03-01"),
            (20_782, "2026-11-25"),
            (11_016, "2000-02-29"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(Day(day).to_string(), text);
            assert_eq!(text.parse(), Ok(Day(day)));
        }
        for day in (-200_000..200_000).map(Day) {
            let (year, month, of_month) = day.date();
            assert_eq!(Day::of_date(year, month, of_month), day);
        }
        for text in ["", "2026", "2026-13-01", "2026-11-25-1", "x-y-z", "0-1-1"] {
            assert_eq!(text.parse::<Day>(), Err(()), "{text}");
        }
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        // 25 November 2026 is a Wednesday
        let day = date("2026-11-25");

        assert_eq!(day.first(Period::Day), day);
        assert_eq!(day.first(Period::Week), date("2026-11-23"));
        assert_eq!(date("2026-11-23").first(Period::Week), date("2026-11-23"));
        assert_eq!(day.first(Period::Month), date("2026-11-01"));
        assert_eq!(date("2026-12-01").next(Period::Month), date("2027-01-01"));
        assert_eq!(date("2026-11-23").next(Period::Week), date("2026-11-30"));
    }

    #[test]
    fn levels_rise_at_80_90_and_100_percent_and_are_told_once() {
        let mut meter = meter(Period::Month);

        let told: Vec<_> = [799, 1, 1, 99, 99, 1, 500].map(|bytes| meter.on_sent(bytes)).into();

        let (warned, lean, spent) = (Level::Warned, Level::Lean, Level::Spent);
        assert_eq!(told, [None, Some(warned), None, Some(lean), None, Some(spent), None]);
    }

    #[test]
    fn new_month_begins_at_nothing_and_a_clock_that_is_behind_does_not() {
        let mut meter = meter(Period::Month);
        meter.on_sent(1000);

        assert!(!meter.on_day(date("2026-11-30")));
        assert!(!meter.on_day(date("1970-01-01")));
        assert_eq!(meter.level(), Level::Spent);

        assert!(meter.on_day(date("2026-12-01")));
        assert_eq!((meter.level(), meter.used()), (Level::Free, 0));
        assert_eq!(meter.until(), date("2027-01-01"));
    }

    #[test]
    fn what_an_earlier_run_used_counts_in_the_same_month_only() {
        let mut same = meter(Period::Month);
        same.on_sent(5);
        same.on_recalled(Used { since: date("2026-11-01"), bytes: 900 });
        assert_eq!((same.used(), same.level()), (905, Level::Lean));

        let mut old = meter(Period::Month);
        old.on_recalled(Used { since: date("2026-10-01"), bytes: 900 });
        assert_eq!(old.used(), 0);

        // the clock has not been set yet
        let mut early = Meter::new(quota(Period::Month), Day(0), secs(0));
        early.on_recalled(Used { since: date("2026-11-01"), bytes: 900 });
        assert!(!early.on_day(date("2026-11-25")));
        assert_eq!(early.used(), 900);
    }

    #[test]
    fn count_is_written_soon_after_much_and_seldom_after_little() {
        let mut meter = meter(Period::Month);
        assert_eq!(meter.poll(secs(600)), None, "nothing was sent");

        meter.on_sent(9);
        assert_eq!(meter.poll(secs(611)), None);
        let little = Used { since: date("2026-11-01"), bytes: 9 };
        assert_eq!(meter.poll(secs(900)), Some(little));

        meter.on_sent(10);
        assert_eq!(meter.poll(secs(905)), None);
        assert!(meter.poll(secs(910)).is_some());
        assert_eq!(meter.keep(secs(911)), None, "it is written already");
        meter.on_sent(1);
        assert!(meter.keep(secs(911)).is_some());
    }

    #[test]
    fn other_period_begins_anew_where_it_is_shorter() {
        let mut meter = meter(Period::Month);
        meter.on_sent(500);

        meter.set(quota(Period::Week), date("2026-11-25"));
        assert_eq!(meter.used(), 0);

        meter.on_sent(500);
        meter.set(quota(Period::Month), date("2026-11-25"));
        assert_eq!(meter.used(), 500);
    }

    fn meter(period: Period) -> Meter {
        Meter::new(quota(period), date("2026-11-25"), secs(0))
    }

    fn quota(period: Period) -> Quota {
        Quota { bytes: 1000, period }
    }

    fn date(text: &str) -> Day {
        text.parse().unwrap()
    }
}
