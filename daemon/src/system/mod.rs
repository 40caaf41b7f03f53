//! The system's side: interfaces, addresses and routes by netlink, names by systemd-resolved.
//!
//! What the system should look like for a network is a value, [`InterfacePlan`]. [`Netlink`] makes
//! it so, tells what is in its way and can undo it; [`monitor()`] tells when the system changed.
//!
//! [`Resolved`] tells whoever resolves names on this machine which of them are ours.
//!
//! An interface is ours if its alias is the plan's. What carries another alias is never touched.

mod monitor;
mod netlink;
mod plan;
mod resolved;
#[cfg(test)]
mod tests;
mod view;

pub use monitor::{SystemChange, monitor};
pub use netlink::{Netlink, SystemError};
pub use plan::{Announce, DnsPlan, Extent, InterfacePlan};
pub use resolved::{Announced, LinkNames, Resolved, ResolvedBus};

/// How the alias of each interface of ours begins, whichever network it belongs to
pub const ALIAS_PREFIX: &str = "fastvpn:";
