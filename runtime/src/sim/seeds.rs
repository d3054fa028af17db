//! Which seeds a test runs.

use std::ops::Range;

/// Returns the seeds of a test: `0..count`, or those that an environment variable names, as `N` or `FROM..TO`.
pub fn seeds(variable: &str, count: u64) -> Range<u64> {
    let Ok(text) = std::env::var(variable) else { return 0..count };
    let number =
        |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("{variable} is N or FROM..TO"));
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&text),
    }
}
