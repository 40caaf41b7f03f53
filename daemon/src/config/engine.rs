//! What a file says of the engine: carriers, TCP, memory, bounds, copies, quota.
//!
//! These keys may be in every file, and each may change while the network runs.

use std::fmt;

use fastvpn_proto::limits::MEMORY_DEFAULT;
use fastvpn_proto::node::{Choice, Engine, TcpMode};

use super::check::noted;
use super::file::{NetworkFile, Text};
use super::measure;
use super::problem::{Notes, Wrong, quoted};

/// How a network uses the links it runs over
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EngineConfig {
    /// How TCP connections are carried, where nothing nearer says otherwise
    pub tcp: TcpMode,
    /// Bytes of memory for split connections
    pub memory: usize,
    /// Bounds of what is sent
    pub bounds: Bounds,
    /// Most that spare copies may take of a path's rate, in percent; nothing: no copies
    pub copies: u8,
}

/// Bounds of what is sent
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    /// Bytes a second
    pub rate: Option<u64>,
    /// Messages a second
    pub packet_rate: Option<u32>,
    /// Bytes in a day, a week or a month
    pub quota: Option<Quota>,
}

/// How much may be sent in a while
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    /// So many bytes
    pub bytes: u64,
    /// In each of these
    pub period: Period,
}

/// For what time a quota is; all begin at midnight, UTC
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Period {
    /// A day
    Day,
    /// A week, which begins on Monday
    Week,
    /// A month of the calendar
    Month,
}

impl EngineConfig {
    /// Returns the settings for the node, as far as they do not depend on what was sent
    pub fn engine(&self) -> Engine {
        Engine {
            tcp: self.tcp,
            memory: self.memory,
            rate: self.bounds.rate,
            packet_rate: self.bounds.packet_rate,
            copies: self.copies,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        let bounds = Bounds::default();
        Self { tcp: TcpMode::Auto, memory: MEMORY_DEFAULT, bounds, copies: COPIES_AUTO }
    }
}

impl Period {
    /// Returns its name in configurations and tables
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", measure::Bytes(self.bytes), self.period.as_str())
    }
}

/// Checks the keys of the engine
pub(super) fn check(file: &NetworkFile, notes: &mut Notes<'_>) -> Option<EngineConfig> {
    let default = EngineConfig::default();
    let tcp = optional(&file.tcp, "tcp", mode, notes);
    let memory = optional(&file.memory, "memory", memory, notes);
    let bounds = bounds(&file.rate, file.packet_rate.as_ref(), &file.quota, notes);
    let copies = optional(&file.redundancy, "redundancy", redundancy, notes);
    Some(EngineConfig {
        tcp: tcp?.unwrap_or(default.tcp),
        memory: memory?.unwrap_or(default.memory),
        bounds: bounds?,
        copies: copies?.unwrap_or(default.copies),
    })
}

/// Checks the carrier of a network, a hub, a member or a peer; `default` where none is given
pub(super) fn carrier(
    text: Option<&Text>,
    key: &str,
    default: Choice,
    notes: &mut Notes<'_>,
) -> Option<Choice> {
    match text {
        Some(text) => noted(text, key, choice, notes),
        None => Some(default),
    }
}

/// Checks how TCP is carried with a hub, a member or a peer
///
/// Nothing within comes back where it is as in the whole network.
pub(super) fn tcp(
    text: &Option<Text>,
    key: &str,
    notes: &mut Notes<'_>,
) -> Option<Option<TcpMode>> {
    optional(text, key, mode, notes)
}

/// Checks the three bounds
pub(super) fn bounds(
    rate: &Option<Text>,
    packet_rate: Option<&toml::Spanned<i64>>,
    quota: &Option<Text>,
    notes: &mut Notes<'_>,
) -> Option<Bounds> {
    let rate = optional(rate, "rate", measure::rate, notes);
    let packet_rate = match packet_rate {
        None => Some(None),
        Some(given) => match u32::try_from(*given.get_ref()) {
            Ok(rate) if rate >= PACKET_RATE_MIN => Some(Some(rate)),
            _ => {
                let what =
                    format!("{} is not from {PACKET_RATE_MIN} to {}", given.get_ref(), u32::MAX);
                let remedy = "write messages a second, or leave it out for no bound";
                notes.at(&given.span(), "packet_rate", Wrong::new(what, remedy));
                None
            }
        },
    };
    let quota = optional(quota, "quota", quota_of, notes);
    Some(Bounds { rate: rate?, packet_rate: packet_rate?, quota: quota? })
}

fn optional<T>(
    text: &Option<Text>,
    key: &str,
    read: impl FnOnce(&str) -> Result<T, Wrong>,
    notes: &mut Notes<'_>,
) -> Option<Option<T>> {
    match text {
        None => Some(None),
        Some(text) => noted(text, key, read, notes).map(Some),
    }
}

fn mode(text: &str) -> Result<TcpMode, Wrong> {
    let all = [TcpMode::Auto, TcpMode::Plain, TcpMode::Split];
    all.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
        Wrong::new(
            format!("{} is no way to carry TCP", quoted(text)),
            "write \"auto\" (as is best for path and memory), \"split\" (acknowledge where it enters, fast \
             over bad links) or \"plain\" (packets like all others)",
        )
    })
}

fn memory(text: &str) -> Result<usize, Wrong> {
    let bytes = measure::bytes(text)?;
    match usize::try_from(bytes) {
        Ok(bytes) if (MEMORY_MIN..=MEMORY_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(Wrong::new(
            format!("{} is not from 1MiB to 1TiB", quoted(text)),
            "leave it out for 64MiB",
        )),
    }
}

fn redundancy(text: &str) -> Result<u8, Wrong> {
    let percent = || {
        let number = text.strip_suffix('%')?;
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse().ok().filter(|percent| digits && (1..=COPIES_MAX).contains(percent))
    };
    match text {
        "auto" => Ok(COPIES_AUTO),
        "off" => Ok(0),
        other => percent().ok_or_else(|| {
            Wrong::new(
                format!("{} is no amount of copies", quoted(other)),
                format!(
                    "write \"auto\" (at most {COPIES_AUTO} % of the rate), \"off\", or a share \
                     from \"1%\" to \"{COPIES_MAX}%\""
                ),
            )
        }),
    }
}

fn quota_of(text: &str) -> Result<Quota, Wrong> {
    let form = "write BYTES/day, BYTES/week or BYTES/month, for example \"1TB/month\"";
    let Some((bytes, period)) = text.split_once('/') else {
        return Err(Wrong::new(format!("{} does not say in what time", quoted(text)), form));
    };
    let period = match period {
        "day" => Period::Day,
        "month" => Period::Month,
        "week" => Period::Week,
        other => {
            return Err(Wrong::new(format!("{} is no day, week or month", quoted(other)), form));
        }
    };
    let bytes = measure::bytes(bytes)?;
    if bytes < QUOTA_MIN {
        let remedy = "write at least 1MB, or leave it out for no bound";
        return Err(Wrong::new(format!("{} is too little", quoted(text)), remedy));
    }
    Ok(Quota { bytes, period })
}

fn choice(text: &str) -> Result<Choice, Wrong> {
    let all = [Choice::Auto, Choice::Kcp, Choice::Tcp, Choice::Udp];
    all.into_iter().find(|choice| choice.as_str() == text).ok_or_else(|| {
        Wrong::new(
            format!("{} is no carrier", quoted(text)),
            "write \"auto\" (UDP, and TCP where UDP has no answer), \"udp\", \"tcp\" or \"kcp\"",
        )
    })
}

/// Percent of a path's rate that copies may take, where nothing is said
const COPIES_AUTO: u8 = 10;
/// Percent above which copies would harm more than they help
const COPIES_MAX: u8 = 50;
/// Least memory for split connections: a few of them
const MEMORY_MIN: usize = 1 << 20;
/// Most memory for split connections
const MEMORY_MAX: usize = 1 << 40;
/// Messages a second below which handshakes and heartbeats alone would fill the bound
const PACKET_RATE_MIN: u32 = 100;
/// Smallest quota, in bytes
const QUOTA_MIN: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_values() {
        assert_eq!(mode("auto"), Ok(TcpMode::Auto));
        assert_eq!((mode("split"), mode("plain")), (Ok(TcpMode::Split), Ok(TcpMode::Plain)));
        assert_eq!(memory("64MiB"), Ok(MEMORY_DEFAULT));
        assert_eq!((redundancy("auto"), redundancy("off")), (Ok(10), Ok(0)));
        assert_eq!((redundancy("1%"), redundancy("50%")), (Ok(1), Ok(50)));
        assert_eq!(choice("kcp"), Ok(Choice::Kcp));
        let quota = Quota { bytes: 1_500_000_000_000, period: Period::Month };
        assert_eq!(quota_of("1.5TB/month"), Ok(quota));
        assert_eq!(quota.to_string(), "1.5TB/month");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["0%", "51%", "%", "+5%", "5", "300%", "5 %"] {
            assert!(redundancy(text).is_err(), "{text}");
        }
        for text in ["1TB", "1TB/year", "/day", "1TB/", "999KB/day", "1TB/month/day"] {
            assert!(quota_of(text).is_err(), "{text}");
        }
        for text in ["1023KiB", "2TiB", "64"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn default_is_that_of_the_engine() {
        assert_eq!(EngineConfig::default().engine(), Engine::default());
    }
}
