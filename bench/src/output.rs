//! Results on stdout.

use std::io::Write as _;

use crate::BenchError;

/// Prints to stdout.
pub(crate) fn print(text: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(BenchError::Stdout)
}
