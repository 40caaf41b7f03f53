//! Inner IP packets: borrowed views of headers, and prefixes.

mod prefix;

pub use prefix::{Prefix, PrefixError};
