//! Who may do what.
//!
//! Reading is for everyone. What changes something is for uid 0, the daemon's own uid, and whomever
//! polkit lets. A ping is for everyone too, but only so many at a time and in a second.

use std::sync::{Arc, Mutex, PoisonError};

use fastvpn_dbus::{Bus, Error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, timeout};
use tracing::debug;
use zbus::Connection;
use zbus::message::{Flags, Header};
use zbus::names::UniqueName;

use super::polkit::{self, Answer, Interaction};

/// Decides what a caller may do
#[derive(Debug)]
pub(super) struct Access {
    /// The daemon's own user
    own: u32,
    judge: Judge,
    pings: Arc<Semaphore>,
    allowance: Mutex<Allowance>,
}

/// Who decides about other users
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Judge {
    /// Nobody, so that they may not: on a bus that is not the system's, anybody could call himself
    /// polkit
    Nobody,
    /// polkit
    Polkit,
}

/// What a caller wants to do
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
    /// Bring a network up
    Connect,
    /// Make a hub
    CreateHub,
    /// Take a network down
    Disconnect,
    /// Join a network
    Join,
    /// Take a network down and delete it
    Leave,
    /// Invite, approve, revoke or rename members of a hub
    Members,
    /// Read the configuration again
    Reload,
}

/// A ping that was let through; counts as running until dropped
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Access {
    /// Decides about callers on `bus`
    pub(super) fn new(bus: &Bus) -> Self {
        let judge = match bus {
            Bus::Address(_) | Bus::Session => Judge::Nobody,
            Bus::System => Judge::Polkit,
        };
        Self {
            own: rustix::process::geteuid().as_raw(),
            judge,
            pings: Arc::new(Semaphore::new(PINGS_AT_ONCE)),
            allowance: Mutex::new(Allowance::new(Instant::now())),
        }
    }

    /// Lets the caller pass if it may do `action`; may take as long as people take to answer
    ///
    /// # Errors
    /// If it may not, or if the bus does not know it any more.
    pub(super) async fn require(
        &self,
        action: Action,
        call: &Header<'_>,
        bus: &Connection,
    ) -> Result<(), Error> {
        let caller = call.sender().ok_or_else(nobody)?;
        let uid = user(caller, bus).await?;
        if uid == 0 || uid == self.own {
            return Ok(());
        }
        let objection = match self.judge {
            Judge::Nobody => {
                Some("only root may (polkit decides on the system bus only)".to_owned())
            }
            Judge::Polkit => {
                let answer = polkit::ask(bus, caller, action.id(), interaction(call)).await;
                debug!(uid, action = action.id(), ?answer, "asked polkit");
                objection(answer, action.id())
            }
        };
        match objection {
            None => Ok(()),
            Some(why) => {
                let what = action.as_str();
                Err(Error::NotAuthorized(format!("user {uid} may not {what}; {why}")))
            }
        }
    }

    /// Lets a ping pass if there are not too many
    ///
    /// # Errors
    /// If there are.
    pub(super) fn ping(&self) -> Result<Slot, Error> {
        let slot = Arc::clone(&self.pings).try_acquire_owned().map_err(|_| too_many())?;
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        if allowance.take(Instant::now()) { Ok(Slot(slot)) } else { Err(too_many()) }
    }
}

impl Action {
    /// What polkit knows it by; declared in `org.fastvpn.policy`
    fn id(self) -> &'static str {
        match self {
            Self::Connect | Self::Disconnect => "org.fastvpn.connect",
            Self::Members => "org.fastvpn.manage-members",
            Self::CreateHub | Self::Join | Self::Leave | Self::Reload => {
                "org.fastvpn.manage-networks"
            }
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect a network",
            Self::CreateHub => "make a hub",
            Self::Disconnect => "disconnect a network",
            Self::Join => "join a network",
            Self::Leave => "leave a network",
            Self::Members => "manage the members of a network",
            Self::Reload => "reload the configuration",
        }
    }
}

/// A bucket that fills with time
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: PINGS_PER_SECOND, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = (now - self.at).as_secs_f64() * PINGS_PER_SECOND;
        self.left = (self.left + gained).min(PINGS_PER_SECOND);
        self.at = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

/// Asks the bus who `caller` is
async fn user(caller: &UniqueName<'_>, bus: &Connection) -> Result<u32, Error> {
    let (name, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
    let asked = bus.call_method(Some(name), path, Some(name), "GetConnectionUnixUser", caller);
    match timeout(BUS_PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer.body().deserialize()?),
        Ok(Err(_)) | Err(_) => Err(nobody()),
    }
}

/// Tells whether the caller is prepared to wait for people
fn interaction(call: &Header<'_>) -> Interaction {
    if call.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH) {
        Interaction::Allowed
    } else {
        Interaction::Forbidden
    }
}

/// Returns why the caller may not, if that is what polkit says
fn objection(answer: Answer, id: &str) -> Option<String> {
    match answer {
        Answer::Absent => Some("only root may (polkit is not there)".to_owned()),
        Answer::Allowed => None,
        Answer::Denied => Some(format!("polkit denies {id}")),
        Answer::Dismissed => Some(format!(
            "{id} needs authentication, and that was dismissed: try again on a terminal, or as root"
        )),
        Answer::Failed(why) => Some(format!("only root may (polkit does not work: {why})")),
        Answer::NeedsInteraction => Some(format!(
            "{id} needs authentication, and nobody can be asked for it here: do it on a terminal, \
             or as root"
        )),
        Answer::Silent => Some(format!("polkit did not answer about {id} in time")),
    }
}

/// The error for a caller whom the bus does not know, or not any more
pub(super) fn nobody() -> Error {
    Error::NotAuthorized("the bus does not say who is asking".to_owned())
}

fn too_many() -> Error {
    Error::Busy("too many pings at once; try again in a second".to_owned())
}

/// Pings that may wait for an answer at the same time
const PINGS_AT_ONCE: usize = 32;
/// Pings in a second, and in a burst
const PINGS_PER_SECOND: f64 = 50.0;
/// How long the bus may take to say who is asking
const BUS_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn burst_empties_the_allowance_and_time_fills_it() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);

        let burst = (0..100).filter(|_| allowance.take(start)).count();

        assert_eq!(burst, 50);
        assert!(!allowance.take(start + Duration::from_millis(10)));
        assert!(allowance.take(start + Duration::from_millis(40)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| allowance.take(later)).count(), 50);
    }

    #[test]
    fn pings_that_wait_are_bounded_and_a_finished_one_makes_room() {
        let access = Access::new(&Bus::System);
        let mut running: Vec<_> = (0..PINGS_AT_ONCE).map(|_| access.ping().unwrap()).collect();

        assert!(matches!(access.ping(), Err(Error::Busy(_))));
        running.pop();

        assert!(access.ping().is_ok());
    }

    #[test]
    fn polkit_is_believed_on_the_system_bus_only() {
        let judge = |bus: &Bus| Access::new(bus).judge;

        assert_eq!(judge(&Bus::System), Judge::Polkit);
        assert_eq!(judge(&Bus::Session), Judge::Nobody);
        assert_eq!(judge(&Bus::Address("unix:path=/x".to_owned())), Judge::Nobody);
    }

    #[test]
    fn policy_declares_the_actions_that_are_asked_for_and_no_others() {
        let asked =
            [Action::Connect, Action::Disconnect, Action::Members, Action::Reload].map(Action::id);
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../dbus/org.fastvpn.policy");
        let text = std::fs::read_to_string(file).unwrap();

        let policy = elements(&text);
        let declared: Vec<_> = policy
            .iter()
            .filter_map(|element| {
                element.strip_prefix("policyconfig/action id=\"")?.strip_suffix('"')
            })
            .collect();

        assert_eq!(BTreeSet::from_iter(declared.clone()), BTreeSet::from(asked));
        let count = |path: &str| policy.iter().filter(|element| *element == path).count();
        let owner = "annotate key=\"org.freedesktop.policykit.owner\"";
        for part in ["description", "message", "defaults", owner] {
            let inside = format!("policyconfig/action/{part}");
            assert_eq!(count(&inside), declared.len(), "{part}");
        }
        assert_eq!(text.matches(">unix-user:fastvpn</annotate>").count(), declared.len());
        for part in ["allow_any", "allow_inactive", "allow_active"] {
            let inside = format!("policyconfig/action/defaults/{part}");
            assert_eq!(count(&inside), declared.len(), "{part}");
        }
    }

    /// Each element of a document with its attributes, after the names of those around it
    ///
    /// Fails unless each element that is opened is closed, in order.
    fn elements(document: &str) -> Vec<String> {
        let (mut elements, mut open) = (Vec::new(), Vec::new());
        let mut rest = document;
        while let Some((text, tag)) = rest.split_once('<') {
            assert!(!open.is_empty() || text.trim().is_empty(), "text outside: {text:?}");
            assert!(!text.contains(['>', '&']), "to be escaped: {text:?}");
            let end = if tag.starts_with("!--") { "-->" } else { ">" };
            let (tag, after) = tag.split_once(end).expect("each tag ends");
            rest = after;
            if tag.starts_with(['!', '?']) {
                continue;
            }
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
                continue;
            }
            let name = tag.split_whitespace().next().expect("each tag has a name");
            let around: String = open.iter().map(|name: &String| format!("{name}/")).collect();
            elements.push(format!("{around}{tag}"));
            open.push(name.to_owned());
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "left: {open:?} {rest:?}");
        elements
    }
}
