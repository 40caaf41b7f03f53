//! What travels: messages, the frames inside them, and the segments inside those.
//!
//! Parsing borrows and refuses before anything is allocated.

pub mod frame;
pub mod lane;
pub mod message;
pub mod segment;
mod varint;
