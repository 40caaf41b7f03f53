//! Numbers with a unit: bytes, and bits a second.
//!
//! Bytes have decimal units (`KB`, `MB`, `GB`, `TB`: thousands) or binary ones (`KiB`, `MiB`, `GiB`,
//! `TiB`: of 1024). Rates have `kbit`, `mbit` or `gbit`, thousands of bits a second. A number may
//! have up to three decimals.

use std::fmt;

use super::problem::{Wrong, quoted};

/// Reads a number of bytes, as in `64MiB` or `1.5TB`
pub(super) fn bytes(text: &str) -> Result<u64, Wrong> {
    measured(text, &BYTES).ok_or_else(|| {
        Wrong::new(
            format!("{} is no number of bytes", quoted(text)),
            "write a number with a unit (KB, MB, GB, TB, or KiB, MiB, GiB, TiB), for example \
             \"64MiB\"",
        )
    })
}

/// Reads a rate in bits, as in `100mbit`; returns bytes a second
pub(super) fn rate(text: &str) -> Result<u64, Wrong> {
    let bits = measured(text, &BITS).ok_or_else(|| {
        Wrong::new(
            format!("{} is no rate", quoted(text)),
            "write a number with a unit (kbit, mbit or gbit a second), for example \"100mbit\"",
        )
    })?;
    if !(RATE_MIN..=RATE_MAX).contains(&bits) {
        return Err(Wrong::new(
            format!("{} is not from 64kbit to 1000gbit", quoted(text)),
            "leave it out to let the rate be found",
        ));
    }
    Ok(bits / 8)
}

/// Shows a number of bytes as [`bytes`] reads it, with at most two decimals
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimal = BYTES.iter().filter(|(unit, _)| !unit.contains('i'));
        let fits = decimal.rev().find(|(_, factor)| self.0 >= *factor);
        let (unit, factor) = fits.copied().unwrap_or(BYTES[0]);
        let hundredths = u128::from(self.0) * 100 / u128::from(factor);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        match (rest, rest % 10) {
            (0, _) => write!(f, "{whole}{unit}"),
            (_, 0) => write!(f, "{whole}.{}{unit}", rest / 10),
            (_, _) => write!(f, "{whole}.{rest:02}{unit}"),
        }
    }
}

fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, decimals) = match number.split_once('.') {
        Some((whole, decimals)) if (1..=3).contains(&decimals.len()) => (whole, decimals),
        Some(_) => return None,
        None => (number, ""),
    };
    let whole: u64 = whole.parse().ok()?;
    let thousandths: u64 = format!("{decimals:0<3}").parse().ok()?;
    let sum = u128::from(whole) * 1000 + u128::from(thousandths);
    u64::try_from(sum.checked_mul(u128::from(*factor))? / 1000).ok()
}

const BYTES: [(&str, u64); 8] = [
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];
const BITS: [(&str, u64); 3] = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
/// Bits a second below which a session could not be kept
const RATE_MIN: u64 = 64_000;
/// Bits a second that no link has
const RATE_MAX: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_thousands_or_of_1024_as_they_say() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("1TB"), Ok(1_000_000_000_000));
        assert_eq!(bytes("1.5KB"), Ok(1500));
        assert_eq!(bytes("0.001KB"), Ok(1));
        assert_eq!(rate("100mbit"), Ok(12_500_000));
        assert_eq!(rate("2.5gbit"), Ok(312_500_000));
        assert_eq!(rate("64kbit"), Ok(8000));
    }

    #[test]
    fn numbers_without_sense_are_refused() {
        for text in [
            "",
            "64",
            "MiB",
            "64mib",
            "64 MiB",
            "-1MB",
            "1.MB",
            ".5MB",
            "1.0000MB",
            "1e3MB",
            "1..5MB",
            "99999999999TB",
            "64MiBx",
            "64MiB/s",
            "ä",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in ["100", "100mbps", "100MB", "63kbit", "1001gbit", "100Mbit", "0mbit"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_shown_as_they_are_read() {
        for text in ["1KB", "20MB", "1.5TB", "1.05GB", "999.99MB"] {
            assert_eq!(Bytes(bytes(text).unwrap()).to_string(), text);
        }
        assert_eq!(Bytes(0).to_string(), "0KB");
        assert_eq!(Bytes(1 << 30).to_string(), "1.07GB");
    }
}
