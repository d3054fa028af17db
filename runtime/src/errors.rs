//! Why shards do not start, and why they end.

use std::io;

use crate::locked_memory::explain_lack;
use crate::plane::ShardIndex;

/// An error of the application, passed through.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the shards did not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is invalid.
    #[error("{0}")]
    Config(String),
    /// The machine does not allow this process to run shards.
    #[error("{0}")]
    Machine(String),
    /// A shard's application could not be created.
    #[error("shard {shard}: {source}")]
    App {
        /// Index of the shard.
        shard: ShardIndex,
        /// Error of the application.
        source: BoxError,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Os {
        /// What failed.
        what: String,
        /// The error.
        source: io::Error,
    },
}

impl StartError {
    /// Creates the error for a ring of one of these shards that could not be created.
    pub(crate) fn ring(what: impl Into<String>, shards: usize) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.raw_os_error() {
            Some(libc::ENOMEM) => Self::Machine(format!("{what}: {} ({source})", explain_lack(shards))),
            _ => Self::Os { what, source },
        }
    }

    pub(crate) fn os(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Os { what, source }
    }
}

/// Why the shards ended other than by [`Plane::exit`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A shard's thread panicked, which is a bug. The other shards were stopped without `on_shutdown`.
    #[error("shard {shard} panicked: {message}")]
    Panicked {
        /// Index of the shard.
        shard: ShardIndex,
        /// Panic message.
        message: String,
    },
}
