//! From the daemon's errors to the API's named ones.

use fastvpn_dbus::Error;

use crate::handle::{HandleError, NameError};

/// Gives an error of the daemon its name on the bus
pub(super) fn named(error: HandleError) -> Error {
    let text = error.to_string();
    match error {
        HandleError::Busy(_) => Error::Busy(text),
        HandleError::Config(_) => Error::Config(text),
        HandleError::Configured(_) => Error::Configured(text),
        HandleError::Conflict(_) => Error::Conflict(text),
        HandleError::InUse(_) => Error::InUse(text),
        HandleError::Invalid(_) => Error::InvalidArgument(text),
        HandleError::NoInvitation(_) => Error::NoInvitation(text),
        HandleError::NoMember(_) => Error::NoMember(text),
        HandleError::NotHub(_) => Error::NotHub(text),
        HandleError::NoPeer(..) => Error::NoPeer(text),
        HandleError::NotPeer(_) => Error::NotPeer(text),
        HandleError::NotUp(_) => Error::NotUp(text),
        HandleError::Refused(_) => Error::Refused(text),
        HandleError::Stopping => Error::Stopping(text),
        HandleError::System(_) => Error::System(text),
        HandleError::Timeout(_) => Error::Timeout(text),
        HandleError::UnknownNetwork(_) => Error::UnknownNetwork(text),
    }
}

/// Gives a text that cannot be the name of a network its name on the bus
pub(super) fn misnamed(error: NameError) -> Error {
    Error::InvalidArgument(error.to_string())
}
