//! What the system should look like for one network, as a value.

use fastvpn_proto::ip::Prefix;

/// Interface, addresses and routes of one network
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct InterfacePlan {
    /// Name of the interface
    pub interface: String,
    /// Its alias: `fastvpn:NAME`
    pub alias: String,
    /// Its MTU, in bytes
    pub mtu: u16,
    /// Addresses with their subnets, ordered
    pub addresses: Vec<Prefix>,
    /// Further prefixes to route into it, ordered; the subnets of `addresses` need no route
    pub routes: Vec<Prefix>,
}
