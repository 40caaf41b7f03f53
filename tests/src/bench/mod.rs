//! The benchmark: fastvpn, the bare link and other programs over the same emulated links.
//!
//! Who is measured is a [`Contestant`], where is a [`Route`], what is a [`Measure`]. An
//! [`Experiment`](experiment::Experiment) builds an [`Arena`](arena::Arena), lets a contestant set
//! up its tunnel there and measures several things at once; [`run`] takes each several times and
//! makes a [`Report`](report::Report), which is shown as a table, kept as JSON, or printed for the
//! README.
//!
//! # Contract
//!
//! - All contestants meet the same links in the same run; nothing of the machine is changed.
//! - A figure is never judged, only shown beside its [`Bar`](bars::Bar).
//! - What cannot be measured is said, with the reason.

pub mod arena;
pub mod bars;
pub mod bulk;
pub mod cable;
pub mod compare;
pub mod contest;
pub mod datagrams;
pub mod experiment;
pub mod local;
pub mod markdown;
pub mod measures;
pub mod plan;
pub mod programs;
pub mod report;
pub mod routes;
pub mod run;
pub mod short;
pub mod stats;
pub mod table;

pub use contest::Contestant;
pub use measures::Measure;
pub use routes::Route;
