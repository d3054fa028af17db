//! Errors of the `highwater bench` commands.

use std::fmt;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A message for the user: what failed, on which thing, what to do.
    #[error("{0}")]
    Failed(String),
    /// Interrupted by Ctrl-C. Processes that were started are stopped, and temporary files removed.
    #[error("interrupted")]
    Interrupted,
    /// Writing to stdout failed.
    #[error("cannot write to stdout: {0}")]
    Stdout(std::io::Error),
}

impl BenchError {
    /// Creates an error with this message.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::Failed(message.to_string())
    }
}
