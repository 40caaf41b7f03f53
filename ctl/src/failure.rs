//! Why a command failed, and what that means for the exit code.

use std::io;

use fastvpn_dbus::{Bus, Error};
use zbus::fdo;

use crate::json::ErrorDocument;

/// Why a command failed
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads what we print any more; nothing to complain about
    Deaf,
    /// It was tried and did not work; a code for programs and a sentence
    Failed(&'static str, String),
    /// The caller may not do that
    NotAuthorized(String),
    /// It did not go well, and the answer itself says so
    Told,
    /// There is no bus, or no daemon on it
    Unreachable(String),
}

impl Failure {
    /// A failure without a name of its own
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed("Failed", message.into())
    }

    /// Nobody owns the daemon's name
    pub(crate) fn no_daemon(bus: &Bus) -> Self {
        let start = match bus {
            Bus::System => "systemctl start fastvpnd".to_owned(),
            Bus::Session => "fastvpnd --bus session".to_owned(),
            Bus::Address(address) => format!("fastvpnd --bus {address}"),
        };
        let message = format!("fastvpnd is not running on the {bus}; start it with: {start}");
        Self::Unreachable(message)
    }

    /// There is no bus to ask
    pub(crate) fn no_bus(bus: &Bus, error: &zbus::Error) -> Self {
        let message =
            format!("cannot reach the {bus}: {error}; is it running? --bus chooses another one");
        Self::Unreachable(message)
    }

    /// Translates what the daemon, or the way to it, says
    pub(crate) fn of(error: Error, bus: &Bus) -> Self {
        let message = error.to_string();
        match error {
            Error::Busy(_) => Self::Failed("Busy", message),
            Error::Config(_) => Self::Failed("Config", message),
            Error::Configured(_) => Self::Failed("Configured", message),
            Error::Conflict(_) => Self::Failed("Conflict", message),
            Error::InUse(_) => Self::Failed("InUse", message),
            Error::InvalidArgument(_) => Self::Failed("InvalidArgument", message),
            Error::NoInvitation(_) => {
                Self::Failed("NoInvitation", message + "; see: fastvpnctl invitation list")
            }
            Error::NoMember(_) => {
                Self::Failed("NoMember", message + "; see: fastvpnctl member list")
            }
            Error::NotHub(_) => Self::Failed("NotHub", message),
            Error::NoPeer(_) => Self::Failed("NoPeer", message + "; see: fastvpnctl peers"),
            Error::NotAuthorized(_) => Self::NotAuthorized(message + "; try: sudo fastvpnctl …"),
            Error::NotPeer(_) => Self::Failed("NotPeer", message),
            Error::NotUp(_) => Self::Failed("NotUp", message + "; see: fastvpnctl status"),
            Error::Refused(_) => Self::Failed("Refused", message),
            Error::Stopping(_) => Self::Unreachable(message),
            Error::System(_) => Self::Failed("System", message),
            Error::Timeout(_) => Self::Failed("Timeout", message),
            Error::UnknownNetwork(_) => {
                Self::Failed("UnknownNetwork", message + "; see: fastvpnctl status")
            }
            Error::ZBus(error) => Self::of_bus(&error, bus),
            // The enum may grow; what is added is at least a failure.
            _ => Self::failed(message),
        }
    }

    /// Translates what the bus says
    pub(crate) fn of_bus(error: &zbus::Error, bus: &Bus) -> Self {
        match error {
            zbus::Error::FDO(named) => match named.as_ref() {
                fdo::Error::ServiceUnknown(_)
                | fdo::Error::NameHasNoOwner(_)
                | fdo::Error::Disconnected(_) => Self::no_daemon(bus),
                fdo::Error::NoReply(_) | fdo::Error::TimedOut(_) => {
                    Self::Unreachable("fastvpnd went away, or does not answer".to_owned())
                }
                fdo::Error::AccessDenied(text) => {
                    Self::NotAuthorized(format!("the {bus} does not allow it: {text}"))
                }
                _ => Self::failed(error.to_string()),
            },
            zbus::Error::InputOutput(io) if io.kind() == io::ErrorKind::TimedOut => {
                Self::Unreachable("fastvpnd does not answer".to_owned())
            }
            zbus::Error::Connection(..)
            | zbus::Error::Handshake(_)
            | zbus::Error::InputOutput(_)
            | zbus::Error::Address(_) => Self::no_bus(bus, error),
            _ => Self::failed(error.to_string()),
        }
    }

    /// Exit code of the program
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Deaf => 0,
            Self::Failed(..) | Self::Told => 1,
            Self::Unreachable(_) => 3,
            Self::NotAuthorized(_) => 4,
        }
    }

    /// What programs and people are told; nothing if nobody listens
    pub(crate) fn document(&self) -> Option<ErrorDocument<'_>> {
        match self {
            Self::Deaf | Self::Told => None,
            Self::Failed(code, message) => Some(ErrorDocument::new(code, message)),
            Self::NotAuthorized(message) => Some(ErrorDocument::new("NotAuthorized", message)),
            Self::Unreachable(message) => Some(ErrorDocument::new("Unreachable", message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_tells_who_has_to_act() {
        let of = |error| Failure::of(error, &Bus::System).exit_code();

        assert_eq!(of(Error::NotUp("x".to_owned())), 1);
        assert_eq!(of(Error::Stopping("x".to_owned())), 3);
        assert_eq!(of(Error::NotAuthorized("x".to_owned())), 4);
    }

    #[test]
    fn absent_daemon_and_absent_bus_are_told_apart() {
        let nobody = fdo::Error::ServiceUnknown("x".to_owned());
        let nobody = Failure::of(Error::ZBus(zbus::Error::FDO(Box::new(nobody))), &Bus::System);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let no_bus = Failure::of(Error::ZBus(refused.into()), &Bus::System);

        assert_eq!((nobody.exit_code(), no_bus.exit_code()), (3, 3));
        assert!(nobody.document().unwrap().error.message.contains("systemctl start fastvpnd"));
        assert!(no_bus.document().unwrap().error.message.contains("cannot reach the system bus"));
    }
}
