//! Names of a network's nodes, by DNS.
//!
//! A [`Zone`] says who has which name, [`answer`] what to say when somebody asks, and a [`Resolver`]
//! does so on an address. Names are the network's own: nothing is forwarded, and what is not ours is
//! refused.
//!
//! # Contract
//!
//! - Whatever a message holds, it is answered or dropped: none costs more than its own reading, and
//!   none is believed.

mod answer;
mod name;
mod server;
mod zone;

pub use answer::{Transport, answer};
pub use name::{Suffix, SuffixError, reverse_domains};
pub use server::{Known, Resolver};
pub use zone::{Host, HostKind, Zone};
