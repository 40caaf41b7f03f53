//! The system's side: interfaces, addresses and routes, by netlink.

mod plan;

pub use plan::InterfacePlan;
