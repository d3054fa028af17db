//! The messages against another implementation of them, and against input that was never meant well.

mod by_hand;
mod hostile;
mod oracle;
pub(crate) mod samples;
mod subjects;
mod tree;
mod vectors;
