//! The fastvpn protocol as a pure state machine.
//!
//! Time and bytes come in, bytes and deadlines go out. Nothing here does I/O, reads a clock or knows
//! of threads: a caller owns a [`node::Node`] and drives it. `PROTOCOL.md` is the normative text.

#![forbid(unsafe_code)]

pub mod buffers;
pub mod control;
pub mod crypto;
pub mod datagram;
pub mod handshake;
pub mod ip;
pub mod lane;
pub mod limits;
pub mod node;
pub mod path;
pub mod rate;
pub mod router;
pub mod sched;
pub mod session;
pub mod tcp;
pub mod time;
pub mod wire;
