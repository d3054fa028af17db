//! Errors of starting a broker, with the exit code of the process.

/// Why a broker did not start. Each error says what failed, on which thing, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is invalid.
    #[error("{0}")]
    Config(String),
    /// Another broker uses the data directory.
    #[error("{0}")]
    Locked(String),
    /// The data directory belongs to another cluster, was written by a newer version, or is damaged beyond repair.
    #[error("{0}")]
    Storage(String),
    /// The data directory is not writable for this user, or is read-only.
    #[error("{0}")]
    Permission(String),
    /// The disk reported an error.
    #[error("{0}")]
    Disk(String),
    /// An address cannot be listened on.
    #[error("{0}")]
    Listen(String),
    /// The kernel or a limit of the process does not allow what a broker needs.
    #[error("{0}")]
    Environment(String),
    /// The cluster does not take the node as a member.
    #[error("{0}")]
    Refused(String),
    /// A signal has stopped the process before the node was a member of a cluster.
    #[error("stopped before the node was a member of a cluster")]
    Stopped,
    /// A bug of the broker.
    #[error("{0}")]
    Internal(String),
}

impl StartError {
    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Locked(_) => 73,
            Self::Storage(_) => 75,
            Self::Permission(_) => 77,
            Self::Disk(_) => 74,
            Self::Listen(_) | Self::Environment(_) | Self::Refused(_) => 1,
            Self::Stopped => 0,
            Self::Internal(_) => EXIT_INTERNAL,
        }
    }
}

/// Exit code for a bug of the broker.
pub(crate) const EXIT_INTERNAL: u8 = 70;
