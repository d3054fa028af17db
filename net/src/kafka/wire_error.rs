//! Errors of decoding Kafka's messages.

/// Why bytes cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes remain than the field needs.
    #[error("{field}: {need} bytes needed, {have} remain")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Minimum number of bytes needed.
        need: usize,
        /// Number of remaining bytes.
        have: usize,
    },
    /// The remaining bytes cannot hold that many entries.
    #[error("{field}: {count} entries do not fit in the remaining {have} bytes")]
    Count {
        /// The field.
        field: &'static str,
        /// Number of entries.
        count: usize,
        /// Number of remaining bytes.
        have: usize,
    },
    /// The decoded entries need too much memory for a message of this size.
    #[error("{field}: {bytes} bytes of memory needed, {have} allowed for a message of this length")]
    Memory {
        /// The field.
        field: &'static str,
        /// Memory that the entries need, in bytes.
        bytes: usize,
        /// Remaining memory, in bytes.
        have: usize,
    },
    /// Too many entries in this list, or in all lists up to this one.
    #[error("{field}: {count} entries so far exceed the limit of {max} per request; split the request")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Number of entries so far.
        count: usize,
        /// Maximum number of entries.
        max: usize,
    },
    /// Invalid length or number.
    #[error("{field}: {value} is not valid here")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The value.
        value: i64,
    },
    /// The field is not nullable in this version.
    #[error("{field}: null is not valid here")]
    Null {
        /// The field.
        field: &'static str,
    },
    /// A string is not UTF-8.
    #[error("{field}: not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// Bytes follow the last field.
    #[error("{bytes} bytes after the last field")]
    Trailing {
        /// Number of bytes.
        bytes: usize,
    },
    /// Unknown version of the message.
    #[error("{message} has no version {version}")]
    Version {
        /// The message.
        message: &'static str,
        /// The version.
        version: i16,
    },
}
