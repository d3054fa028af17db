//! The machines that run the conformance suite's application.

mod real;
mod simulated;

pub(crate) use real::Real;
pub(crate) use simulated::{SEEDS, Simulated};
