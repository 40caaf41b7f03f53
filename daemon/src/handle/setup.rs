//! What a network is set up from: the wishes for a hub, or an invitation.

use super::NetworkName;
use crate::invitation::Invitation;

/// A hub that is to be made here
///
/// Values are texts, as a configuration file would hold them: who makes the file judges them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubSpec {
    /// Name of the network
    pub name: NetworkName,
    /// The overlay's subnets, at least one
    pub subnets: Vec<String>,
    /// The hub's own addresses, each with the length of its subnet; none: the lowest of each subnet
    pub addresses: Vec<String>,
    /// How others reach it, `HOST:PORT`
    pub endpoint: Option<String>,
    /// UDP address to listen on
    pub listen: Option<String>,
    /// Whether it comes up now, and whenever the daemon starts
    pub autoconnect: bool,
}

/// A network that this machine is to join
#[derive(Clone, Debug)]
pub struct JoinSpec {
    /// What the hub's administrator gave
    pub invitation: Invitation,
    /// Name of the network on this machine; nothing: as the hub calls it
    pub name: Option<NetworkName>,
    /// Who brings it up
    pub bringer: Bringer,
}

/// Who brings a network up that was joined
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Bringer {
    /// Whoever asked for it, later: the network registers with its hub only then
    Caller,
    /// The daemon, now and whenever it starts
    #[default]
    Daemon,
}
