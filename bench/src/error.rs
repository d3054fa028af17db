//! How a command of `highwater bench` ends when it does not end well.

use std::fmt;

use crate::backend::BackendError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// In words: what, which, what to do.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C. What had been started is stopped, what had been made is removed.
    #[error("interrupted")]
    Interrupted,
    /// Stdout takes no more.
    #[error("cannot write to stdout: {0}")]
    Stdout(std::io::Error),
}

impl BenchError {
    /// Something went wrong, in words.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::Failed(message.to_string())
    }
}

impl From<BackendError> for BenchError {
    fn from(error: BackendError) -> Self {
        Self::Failed(error.0)
    }
}
