//! The control side.
mod candidates;
#[cfg(test)]
pub(crate) mod fixture;
mod hub;
mod interface;
mod list;
mod network;
mod peer;
mod pings;
mod pulse;
mod roster;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
