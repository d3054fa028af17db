//! Tests of the messages against another implementation, and with invalid input.

mod by_hand;
mod hostile;
mod oracle;
mod subjects;
mod tree;
mod vectors;
