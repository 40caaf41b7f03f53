//! The named errors of the API, one enum for the daemon and its clients.

use std::fmt;

use zbus::DBusError;

/// Why a method of the API failed
///
/// On the bus the name is `org.fastvpn.Error.` and the variant's; the text is a sentence for people.
#[derive(Clone, Debug, DBusError, PartialEq)]
#[zbus(prefix = "org.fastvpn.Error", impl_display = false)]
#[non_exhaustive]
pub enum Error {
    /// Too many requests at once; the same request may succeed a moment later
    Busy(String),
    /// The configuration has problems; the old one stays in force
    Config(String),
    /// It is in the administrator's files, which the daemon does not change
    Configured(String),
    /// A name, address or device is taken by somebody else
    Conflict(String),
    /// The network is up, and somebody else applies its addresses than was asked for
    InUse(String),
    /// An argument cannot be right, whatever the state of the daemon
    InvalidArgument(String),
    /// There is no such invitation
    NoInvitation(String),
    /// There is no such member
    NoMember(String),
    /// A peer of that name, key or address is not known, or not alive
    NoPeer(String),
    /// The caller may not do that
    NotAuthorized(String),
    /// The network is a hub's, and only a peer can do that
    NotPeer(String),
    /// Only a hub can do that, and the daemon is none in this network
    NotHub(String),
    /// The network is not up, so that the request makes no sense
    NotUp(String),
    /// The hub does not let this node in
    Refused(String),
    /// The daemon is stopping
    Stopping(String),
    /// The system refused something (no permission, no device, …)
    System(String),
    /// It took too long
    Timeout(String),
    /// There is no such network in the configuration
    UnknownNetwork(String),
    /// Anything else that the bus or its library says
    #[zbus(error)]
    ZBus(zbus::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(text)
            | Self::Config(text)
            | Self::Configured(text)
            | Self::Conflict(text)
            | Self::InUse(text)
            | Self::InvalidArgument(text)
            | Self::NoInvitation(text)
            | Self::NoMember(text)
            | Self::NoPeer(text)
            | Self::NotAuthorized(text)
            | Self::NotPeer(text)
            | Self::NotHub(text)
            | Self::NotUp(text)
            | Self::Refused(text)
            | Self::Stopping(text)
            | Self::System(text)
            | Self::Timeout(text)
            | Self::UnknownNetwork(text) => f.write_str(text),
            Self::ZBus(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_carries_its_name_and_its_sentence() {
        let error = Error::NotUp("network office is not up".to_owned());

        assert_eq!(error.name().as_str(), "org.fastvpn.Error.NotUp");
        assert_eq!(error.description(), Some("network office is not up"));
        assert_eq!(error.to_string(), "network office is not up");
    }
}
