//! The messages against another implementation of them, and against input that was never meant well.

mod by_hand;
mod hostile;
mod oracle;
mod subjects;
mod tree;
mod vectors;
