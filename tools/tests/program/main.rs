//! The real program in real processes: what a person with a shell sees.
#![forbid(unsafe_code)]

mod support;

mod hostile;
mod start;
