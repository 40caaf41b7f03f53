//! What goes over the wire: the kinds of messages and their layout.
//!
//! Parsing looks at type and length before anything else, borrows from the message and allocates
//! nothing. What a message *means*, and whether its seals and MACs hold, is not here.

pub mod message;
