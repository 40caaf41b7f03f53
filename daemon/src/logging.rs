//! Where logs go: the journal with fields, or plain text.
//!
//! Also [`Seldom`], which bounds how often hostile input may make a line.

use std::io::{self, IsTerminal};

use fastvpn_proto::time::{Duration, Instant};
use thiserror::Error;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

/// Why logs cannot be written
#[derive(Debug, Error)]
pub enum LogError {
    /// Logging was set up before
    #[error("logging is set up already")]
    Again(#[from] TryInitError),
    /// The level is none
    #[error("{0:?} is no log level: error, warn, info, debug, trace, or MODULE=LEVEL,…")]
    Level(String),
}

/// Sends logs to the journal if standard error is the journal, else to standard error as text
///
/// `level` is one for all (`info`), or one for each module (`fastvpnd=debug,zbus=warn`). In the
/// journal every field of an event is a field of its own, `FASTVPN_NETWORK=home`.
///
/// # Errors
/// If `level` is none, or logging was set up before.
pub fn init(level: &str) -> Result<(), LogError> {
    let filter = filter(level)?;
    let registry = tracing_subscriber::registry().with(filter);
    if is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), stderr_identity())
        && let Ok(journal) = tracing_journald::layer()
    {
        let journal = journal
            .with_field_prefix(Some("FASTVPN".to_owned()))
            .with_syslog_identifier("fastvpnd".to_owned());
        return Ok(registry.with(journal).try_init()?);
    }
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = fmt::layer().with_writer(io::stderr).with_ansi(colour);
    Ok(registry.with(text).try_init()?)
}

/// Checks a log level without setting anything up
///
/// # Errors
/// If `level` is none.
pub fn check_level(level: &str) -> Result<(), LogError> {
    filter(level).map(|_| ())
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let wrong = || LogError::Level(level.to_owned());
    // a lone word that is no level would be taken for a module, all of it logged
    let known = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| word.trim().eq_ignore_ascii_case(level))
    };
    let sound = level.split(',').all(|part| match part.split_once('=') {
        Some((module, level)) => !module.trim().is_empty() && known(level),
        None => known(part),
    });
    if !sound {
        return Err(wrong());
    }
    EnvFilter::builder().parse(level).map_err(|_| wrong())
}

/// Tells whether the device and inode that systemd announced are those of standard error
fn is_journal(announced: Option<&str>, stderr: Option<(u64, u64)>) -> bool {
    let announced = announced.and_then(|text| {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    });
    announced.is_some() && announced == stderr
}

fn stderr_identity() -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(io::stderr()).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Lets a few events through in each interval, and counts the others
///
/// For lines that a stranger can cause as often as he likes: the line is written when
/// [`Seldom::allow`] says so, with the number of those that were not.
#[derive(Clone, Debug)]
pub struct Seldom {
    burst: u32,
    interval: Duration,
    /// When the present interval began, once there was an event
    began: Option<Instant>,
    /// Events let through in the present interval
    allowed: u32,
    /// Events held back since one was let through
    held_back: u64,
}

impl Seldom {
    /// Allows `burst` events in each `interval`
    pub const fn new(burst: u32, interval: Duration) -> Self {
        Self { burst, interval, began: None, allowed: 0, held_back: 0 }
    }

    /// Takes an event; returns how many were held back before it, or nothing if it is held back
    #[must_use]
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.since(began) >= self.interval) {
            self.began = Some(now);
            self.allowed = 0;
        }
        if self.allowed >= self.burst {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        self.allowed += 1;
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn burst_passes_and_the_rest_is_counted() {
        let mut seldom = Seldom::new(2, INTERVAL);

        let taken: Vec<_> = [0, 1, 2, 3, 10].map(|secs| seldom.allow(at(secs))).into();

        assert_eq!(taken, [Some(0), Some(0), None, None, Some(2)]);
    }

    #[test]
    fn quiet_time_is_not_saved_up() {
        let mut seldom = Seldom::new(1, INTERVAL);
        assert_eq!(seldom.allow(at(0)), Some(0));

        assert_eq!(seldom.allow(at(1000)), Some(0));
        assert_eq!(seldom.allow(at(1001)), None);
    }

    #[test]
    fn journal_is_told_by_device_and_inode() {
        assert!(is_journal(Some("9:42"), Some((9, 42))));
        for announced in [None, Some(""), Some("9"), Some("9:43"), Some("x:y")] {
            assert!(!is_journal(announced, Some((9, 42))), "{announced:?}");
        }
        assert!(!is_journal(None, None));
        assert!(!is_journal(Some("x"), None));
    }

    #[test]
    fn levels_are_words_or_words_for_modules() {
        for level in ["info", "WARN", "fastvpnd=debug,zbus=warn", "info,fastvpnd::plane=trace"] {
            assert!(check_level(level).is_ok(), "{level}");
        }
        for level in ["", "loud", "fastvpnd=loud", "info,,debug", "a=b=c", "=info"] {
            assert!(check_level(level).is_err(), "{level}");
        }
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }
}
