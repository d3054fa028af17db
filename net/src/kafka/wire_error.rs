//! What can be wrong with the fields of Kafka's messages.

/// Why bytes cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes remain than the field needs.
    #[error("{field}: {need} bytes needed, {have} remain")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Bytes needed, at least.
        need: usize,
        /// Bytes that remain.
        have: usize,
    },
    /// A count of entries that the remaining bytes cannot hold.
    #[error("{field}: {count} entries claimed, {have} bytes remain")]
    Count {
        /// The field.
        field: &'static str,
        /// What is claimed.
        count: usize,
        /// Bytes that remain.
        have: usize,
    },
    /// The entries would take many times the memory of the message.
    #[error("{field}: {bytes} bytes of memory needed, {have} allowed for a message of this length")]
    Memory {
        /// The field.
        field: &'static str,
        /// Bytes that the entries need.
        bytes: usize,
        /// Bytes that may still be used.
        have: usize,
    },
    /// More entries than are served, in this list or in all up to this one.
    #[error("{field}: {count} entries up to here, {max} at most are served in one request; split it")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// A length or number that the field cannot have.
    #[error("{field}: {value} is not valid here")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it was.
        value: i64,
    },
    /// A field that must not be null in this version.
    #[error("{field}: null is not valid here")]
    Null {
        /// The field.
        field: &'static str,
    },
    /// A text is not UTF-8.
    #[error("{field}: not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// Bytes follow the last field.
    #[error("{bytes} bytes behind the last field")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// No such version of the message.
    #[error("{message} has no version {version}")]
    Version {
        /// The message.
        message: &'static str,
        /// The version.
        version: i16,
    },
}
