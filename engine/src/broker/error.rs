//! Why a broker does not start, and the exit code of its process then.

/// Why a broker did not start. Each says what, which and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Something in the configuration cannot be.
    #[error("{0}")]
    Config(String),
    /// Another broker runs on the data directory.
    #[error("{0}")]
    Locked(String),
    /// The data directory belongs to another cluster, or a newer version wrote it, or it is damaged beyond what can be repaired.
    #[error("{0}")]
    Storage(String),
    /// This user may not write to the data directory, or nobody may.
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
    /// Our bug.
    #[error("{0}")]
    Internal(String),
}

impl StartError {
    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Locked(_) => 73,
            Self::Storage(_) => 75,
            Self::Permission(_) => 77,
            Self::Disk(_) => 74,
            Self::Listen(_) | Self::Environment(_) => 1,
            Self::Internal(_) => EXIT_INTERNAL,
        }
    }
}

/// A bug of ours.
pub(super) const EXIT_INTERNAL: u8 = 70;
