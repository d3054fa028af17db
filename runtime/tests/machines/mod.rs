//! What runs the suite's application.

mod simulated;

pub(crate) use simulated::{SEEDS, Simulated};
