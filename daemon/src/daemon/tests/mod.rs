//! Tests of the roles and of the whole control machine, in virtual time.

mod hub;
mod peer;
mod state;
