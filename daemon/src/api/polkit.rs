//! Asks polkit whether somebody may do something.
//!
//! # Contract
//!
//! - Whoever owns polkit's name is believed. Only on the system bus is that polkit itself.
//! - Each question ends: after [`PATIENCE`], or after [`INTERACTIVE_PATIENCE`] where people may be
//!   asked. One that is given up is taken back, so that no dialog outlives it. (polkit itself takes
//!   back what concerns a caller who leaves.)
//!
//! # Not here
//!
//! Whom polkit is asked about, and what they are told then, is up to [`super::access`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{Duration, timeout};
use zbus::names::UniqueName;
use zbus::{Connection, Variant, fdo};

/// Whether polkit may ask people, for a password say
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Interaction {
    /// The caller is prepared to wait for them
    Allowed,
    /// It wants an answer now
    Forbidden,
}

/// What polkit says
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// Nobody owns polkit's name, and the bus cannot start it
    Absent,
    /// The caller may
    Allowed,
    /// It may not
    Denied,
    /// Somebody was asked, and sent the question away
    Dismissed,
    /// It could not be asked, or has no answer; why
    Failed(String),
    /// Somebody has to authenticate, and nobody could be asked to
    NeedsInteraction,
    /// It did not answer in time
    Silent,
}

/// Asks whether `caller` may do `action`
pub(super) async fn ask(
    bus: &Connection,
    caller: &UniqueName<'_>,
    action: &str,
    interaction: Interaction,
) -> Answer {
    let (flags, patience) = match interaction {
        Interaction::Allowed => (ALLOW_USER_INTERACTION, INTERACTIVE_PATIENCE),
        Interaction::Forbidden => (0, PATIENCE),
    };
    let mut question = Question::new(bus);
    let id = question.id.clone();
    let subject = ("system-bus-name", HashMap::from([("name", Variant::from(caller.as_str()))]));
    let details: HashMap<&str, &str> = HashMap::new();
    let body = (subject, action, details, flags, id);
    let asked = bus.call_method(Some(NAME), PATH, Some(INTERFACE), "CheckAuthorization", &body);
    let Ok(answer) = timeout(patience, asked).await else { return Answer::Silent };
    question.open = false;
    match answer.and_then(|answer| answer.body().deserialize()) {
        Ok(result) => read(result),
        Err(error) => failure(&error),
    }
}

/// A question to polkit; taken back when dropped before it is answered
#[derive(Debug)]
struct Question {
    bus: Connection,
    /// What polkit knows it by
    id: String,
    /// Whether polkit may still be at it
    open: bool,
}

impl Question {
    fn new(bus: &Connection) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { bus: bus.clone(), id: format!("fastvpn-{number}"), open: true }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        // Without a runtime the daemon ends, and polkit sees it leave the bus.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (bus, id) = (self.bus.clone(), std::mem::take(&mut self.id));
        runtime.spawn(async move {
            let method = "CancelCheckAuthorization";
            let taken_back = bus.call_method(Some(NAME), PATH, Some(INTERFACE), method, &id);
            // A polkit that is silent now as well has been told all the same.
            let _ = timeout(PATIENCE, taken_back).await;
        });
    }
}

fn read((authorized, challenge, details): (bool, bool, HashMap<String, String>)) -> Answer {
    if authorized {
        Answer::Allowed
    } else if details.contains_key("polkit.dismissed") {
        Answer::Dismissed
    } else if challenge {
        Answer::NeedsInteraction
    } else {
        Answer::Denied
    }
}

fn failure(error: &zbus::Error) -> Answer {
    if let zbus::Error::FDO(named) = error
        && let fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) = named.as_ref()
    {
        return Answer::Absent;
    }
    Answer::Failed(error.to_string())
}

const NAME: &str = "org.freedesktop.PolicyKit1";
const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";
/// The flag of `CheckAuthorization` with which people may be asked
const ALLOW_USER_INTERACTION: u32 = 1;
/// How long polkit may take to answer by itself; it may have to be started
const PATIENCE: Duration = Duration::from_secs(5);
/// How long people may take to find their password
const INTERACTIVE_PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_authorized_is_allowed() {
        let dismissed = HashMap::from([("polkit.dismissed".to_owned(), "true".to_owned())]);

        assert_eq!(read((true, false, HashMap::new())), Answer::Allowed);
        assert_eq!(read((false, false, HashMap::new())), Answer::Denied);
        assert_eq!(read((false, true, HashMap::new())), Answer::NeedsInteraction);
        assert_eq!(read((false, true, dismissed.clone())), Answer::Dismissed);
        assert_eq!(read((false, false, dismissed)), Answer::Dismissed);
    }

    #[test]
    fn polkit_that_is_missing_is_told_from_one_that_fails() {
        let of = |error: fdo::Error| failure(&zbus::Error::FDO(Box::new(error)));

        assert_eq!(of(fdo::Error::ServiceUnknown("x".to_owned())), Answer::Absent);
        assert_eq!(of(fdo::Error::NameHasNoOwner("x".to_owned())), Answer::Absent);
        assert!(matches!(of(fdo::Error::Failed("not registered".to_owned())),
            Answer::Failed(why) if why.contains("not registered")));
    }
}
