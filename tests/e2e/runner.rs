//! What runs the cases, from the laboratory.

pub(crate) use fastvpn_tests::cases;
pub(crate) use fastvpn_tests::runner::{Case, skip};
