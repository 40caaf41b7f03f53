//! A polkit that is a script: it answers by action, and keeps what it was asked.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use zbus::fdo::{self, DBusProxy};
use zbus::names::BusName;
use zbus::{Connection, OwnedVariant, interface};

/// What to answer when asked for an action, with the flags of the question
pub(crate) type Script = fn(&str, u32) -> Answer;

/// An answer of polkit
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Allow,
    Challenge,
    Deny,
    Dismiss,
    Fail,
    Never,
}

/// What polkit was asked
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    pub(crate) uid: u32,
    pub(crate) action: String,
    pub(crate) flags: u32,
    pub(crate) id: String,
}

/// The owner of polkit's name on a bus
pub(crate) struct Polkit {
    record: Arc<Record>,
    _bus: Connection,
}

#[derive(Debug, Default)]
struct Record {
    asked: Mutex<Vec<Asked>>,
    taken_back: Mutex<Vec<String>>,
}

impl Polkit {
    pub(crate) async fn start(address: &str, script: Script) -> Self {
        let record = Arc::new(Record::default());
        let authority = Authority { script, record: record.clone() };
        let bus = zbus::connection::Builder::address(address)
            .serve_at("/org/freedesktop/PolicyKit1/Authority", authority)
            .name("org.freedesktop.PolicyKit1")
            .build()
            .await
            .unwrap();
        Self { record, _bus: bus }
    }

    /// Returns what it was asked so far
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.record.asked.lock().unwrap().clone()
    }

    /// Returns the questions that were taken back so far
    pub(crate) fn taken_back(&self) -> Vec<String> {
        self.record.taken_back.lock().unwrap().clone()
    }
}

struct Authority {
    script: Script,
    record: Arc<Record>,
}

type Subject = (String, HashMap<String, OwnedVariant>);
/// Whether it is authorized, whether somebody has to authenticate, and more
type Verdict = (bool, bool, HashMap<String, String>);

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    async fn check_authorization(
        &self,
        subject: Subject,
        action: String,
        details: HashMap<String, String>,
        flags: u32,
        id: String,
        #[zbus(connection)] bus: &Connection,
    ) -> fdo::Result<(Verdict,)> {
        let uid = user(subject, bus).await;
        assert!(details.is_empty(), "only a trusted caller may give details");
        let answer = (self.script)(&action, flags);
        self.record.asked.lock().unwrap().push(Asked { uid, action, flags, id });
        let none = HashMap::new();
        let verdict = match answer {
            Answer::Allow => (true, false, none),
            Answer::Challenge => (false, true, none),
            Answer::Deny => (false, false, none),
            Answer::Dismiss => {
                let dismissed = ("polkit.dismissed".to_owned(), "true".to_owned());
                (false, true, HashMap::from([dismissed]))
            }
            Answer::Fail => return Err(fdo::Error::Failed("it is not registered".to_owned())),
            Answer::Never => pending().await,
        };
        Ok((verdict,))
    }

    async fn cancel_check_authorization(&self, id: String) {
        self.record.taken_back.lock().unwrap().push(id);
    }
}

/// Finds out, as polkit does, who the subject is
async fn user((kind, subject): Subject, bus: &Connection) -> u32 {
    assert_eq!(kind, "system-bus-name");
    let name = String::try_from(subject["name"].try_clone().unwrap()).unwrap();
    let name = BusName::try_from(name).unwrap();
    DBusProxy::new(bus).await.unwrap().get_connection_unix_user(name).await.unwrap()
}
