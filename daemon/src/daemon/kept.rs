//! The files in which used quotas are kept: `STATE_DIR/quota/NAME`.
//!
//! A file has two lines, `since DAY` and `bytes NUMBER`.
//!
//! One that is damaged or cannot be read counts as none, with a warning: a network that does not
//! come up because of a count would be worse than a wrong count.

use std::fs;
use std::io;
use std::path::Path;

use tracing::warn;

use super::quota::Used;
use crate::registry::store::replace;

/// Reads what was used; nothing if nothing was ever written
pub(super) fn recall(file: &Path) -> Option<Used> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(file = %file.display(), %error, "used quota cannot be read; counting anew");
            return None;
        }
    };
    let used = decode(&text);
    if used.is_none() {
        warn!(file = %file.display(), "used quota is not as it was written; counting anew");
    }
    used
}

/// Writes what was used, in place of what was written before
pub(super) fn keep(file: &Path, used: Used) {
    if let Err(error) = replace(file, &encode(used)) {
        warn!(file = %file.display(), %error, "used quota cannot be written down");
    }
}

fn encode(used: Used) -> String {
    format!("since {}\nbytes {}\n", used.since, used.bytes)
}

fn decode(text: &str) -> Option<Used> {
    let mut lines = text.lines();
    let since = lines.next()?.strip_prefix("since ")?.parse().ok()?;
    let bytes = lines.next()?.strip_prefix("bytes ")?.parse().ok()?;
    lines.next().is_none().then_some(Used { since, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::quota::Day;

    #[test]
    fn what_was_kept_is_recalled_and_damage_counts_as_nothing() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("quota/home");
        assert_eq!(recall(&file), None);

        for bytes in [0, 1_500_000, u64::MAX] {
            let used = Used { since: Day::of_date(2026, 11, 1), bytes };
            keep(&file, used);
            assert_eq!(recall(&file), Some(used));
        }

        for damage in ["", "since 7\nbytes 1\n", "since 2026-11-01\nbytes 1x\n", "\u{0}"] {
            fs::write(&file, damage).unwrap();
            assert_eq!(recall(&file), None, "{damage}");
        }
    }
}
