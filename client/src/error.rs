//! Errors, one type per operation.
//!
//! Each has a `kind()` to match on, `is_retryable()` (the same call may succeed later, unchanged), `code()` (the
//! broker's error code, if the broker answered), and a text that says what failed, for which topic or address, and what
//! to do. Operations that change something also have an `outcome()`, which says whether the change was made. The text
//! is complete. `source()` is the typed cause for programs that match on it: the [`std::io::Error`] of a
//! [`ConnectError`], the [`ConnectError`] of a call that could not reach any broker, or the [`DamagedRange`] of lost
//! records.

use std::fmt;
use std::sync::Arc;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;

/// Whether a failed operation made its change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WriteOutcome {
    /// The change was not made and will not be made: repeating the call cannot make it twice.
    NotWritten,
    /// The change may have been made, or may still be made: the request was sent and no answer came.
    Unknown,
    /// The change was made.
    Written,
}

#[derive(Debug)]
struct Inner<K> {
    kind: K,
    outcome: WriteOutcome,
    retryable: bool,
    code: Option<ErrorCode>,
    text: String,
    source: Option<Source>,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

macro_rules! operation_error {
    (
        $(#[$error_doc:meta])* $error:ident;
        $(#[$kind_doc:meta])* $kind:ident { $($(#[$doc:meta])* $name:ident = $retryable:literal,)+ }
    ) => {
        $(#[$kind_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum $kind {
            $($(#[$doc])* $name,)+
        }

        impl $kind {
            const fn retryable(self) -> bool {
                match self {
                    $(Self::$name => $retryable,)+
                }
            }
        }

        $(#[$error_doc])*
        #[derive(Clone)]
        pub struct $error(Arc<Inner<$kind>>);

        impl $error {
            pub(crate) fn new(kind: $kind, outcome: WriteOutcome, text: impl Into<String>) -> Self {
                Self(Arc::new(Inner { kind, outcome, retryable: kind.retryable(), code: None, text: text.into(), source: None }))
            }

            pub(crate) fn with_code(
                kind: $kind,
                outcome: WriteOutcome,
                code: ErrorCode,
                text: impl Into<String>,
            ) -> Self {
                let retryable = kind.retryable() || code.is_retryable();
                Self(Arc::new(Inner { kind, outcome, retryable, code: Some(code), text: text.into(), source: None }))
            }

            /// Adds the typed cause to a newly created error.
            pub(crate) fn caused_by(mut self, source: impl Into<Source>) -> Self {
                let inner = Arc::get_mut(&mut self.0).expect("nobody else has it yet");
                inner.source = Some(source.into());
                self
            }

            /// Returns the kind of failure, to match on.
            pub fn kind(&self) -> $kind {
                self.0.kind
            }

            /// Returns whether the same call may succeed later, unchanged.
            pub fn is_retryable(&self) -> bool {
                self.0.retryable
            }

            /// Returns the broker's error code, if the broker answered.
            pub fn code(&self) -> Option<ErrorCode> {
                self.0.code
            }
        }

        impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.text)
            }
        }

        impl fmt::Debug for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($error))
                    .field("kind", &self.0.kind)
                    .field("outcome", &self.0.outcome)
                    .field("code", &self.0.code)
                    .field("text", &self.0.text)
                    .finish()
            }
        }

        impl std::error::Error for $error {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.0.source.as_deref().map(|source| source as _)
            }
        }
    };
}

macro_rules! with_outcome {
    ($($error:ident),+) => {
        $(
            impl $error {
                /// Returns whether the change was made.
                pub fn outcome(&self) -> WriteOutcome {
                    self.0.outcome
                }
            }
        )+
    };
}

with_outcome!(ProduceError, CommitError, AdminError);

operation_error! {
    /// Why no broker could be reached.
    ConnectError;
    /// What went wrong with a [`ConnectError`].
    ConnectErrorKind {
        /// No address was given, an address is not `host:port`, or its name cannot be resolved.
        Address = false,
        /// No broker answers at the address.
        Unreachable = true,
        /// The peer does not speak Highwater's protocol, or does not answer in time.
        NotHighwater = false,
        /// The broker belongs to a cluster other than the one the client connected to first.
        OtherCluster = false,
        /// The broker rejected the connection.
        Rejected = false,
        /// The client was closed.
        Closed = false,
    }
}

operation_error! {
    /// Why a record was not acknowledged.
    ProduceError;
    /// What went wrong with a [`ProduceError`].
    ProduceErrorKind {
        /// There is no such topic, or it has no such partition.
        UnknownTopic = false,
        /// The record is larger than the topic allows.
        TooLarge = false,
        /// The record or the batch violates a rule: its format, its timestamp, or a setting of the producer.
        Invalid = false,
        /// Not acknowledged within the delivery timeout.
        TimedOut = true,
        /// No broker could be reached, or the connection was lost.
        Unavailable = true,
        /// The broker stopped the partition because its data is damaged.
        Faulty = false,
        /// The broker's state of this producer does not match: another instance has taken over, or the broker lost
        /// data.
        Fenced = false,
        /// The producer or the client was closed.
        Closed = false,
        /// The broker rejected the record for another reason; see [`ProduceError::code`].
        Rejected = false,
    }
}

operation_error! {
    /// Why records cannot be read.
    FetchError;
    /// What went wrong with a [`FetchError`].
    FetchErrorKind {
        /// There is no such topic, or it has no such partition.
        UnknownTopic = false,
        /// The position is before the first available record or after the last one.
        OutOfRange = false,
        /// The received bytes did not match their checksum, and again when they were fetched a second time.
        Corrupt = false,
        /// Part of the partition cannot be read because it is damaged. If [`FetchError::damaged`] returns a range,
        /// reading continues after it; otherwise the partition stops until a seek.
        Faulty = false,
        /// An argument is invalid.
        Invalid = false,
        /// No broker answered in time.
        Unavailable = true,
        /// The client was closed.
        Closed = false,
        /// The group does not accept this member, or no longer does; [`FetchError::code`] and the text say why.
        Group = false,
        /// The broker rejected the request for another reason; see [`FetchError::code`].
        Rejected = false,
    }
}

/// Records that cannot be read because they are damaged or lost on the broker's disk. Reading continues after them. See
/// [`FetchError::damaged`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[error("{topic}/{partition}: the records at offsets {from} to {last} are damaged or lost on the broker's disk; reading continues at offset {to}", last = .to.get() - 1)]
pub struct DamagedRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first offset that cannot be read.
    pub from: Offset,
    /// The offset at which reading continues.
    pub to: Offset,
}

impl FetchError {
    /// Returns the range of unreadable records, if this error reports one. Its kind is then [`FetchErrorKind::Faulty`],
    /// the partition is not stopped, and the next call continues after the range.
    pub fn damaged(&self) -> Option<&DamagedRange> {
        std::error::Error::source(self)?.downcast_ref()
    }
}

operation_error! {
    /// Why a commit failed.
    CommitError;
    /// What went wrong with a [`CommitError`].
    CommitErrorKind {
        /// The consumer was built without a name to commit under.
        Unnamed = false,
        /// There is no such topic, or it has no such partition.
        UnknownTopic = false,
        /// No broker answered in time.
        Unavailable = true,
        /// The client or the consumer was closed.
        Closed = false,
        /// The partition was, or may have been, reassigned to another member of the group, which gets the records
        /// again.
        Fenced = false,
        /// The broker rejected the commit for another reason; see [`CommitError::code`].
        Rejected = false,
    }
}

operation_error! {
    /// Why an administrative call failed.
    AdminError;
    /// What went wrong with an [`AdminError`].
    AdminErrorKind {
        /// There is no such topic, or it has no such partition.
        NotFound = false,
        /// A topic of that name already exists.
        Exists = false,
        /// A name, a number or a configuration is invalid.
        Invalid = false,
        /// No broker answered in time.
        Unavailable = true,
        /// The client was closed.
        Closed = false,
        /// The broker rejected the call for another reason; see [`AdminError::code`].
        Rejected = false,
    }
}

/// The failure of a request on a connection, before it is converted to an operation's own error.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{text} ({code})")]
    Rejected { code: ErrorCode, text: String },
    #[error("the connection to {address} was lost: {reason}")]
    Lost { sent: bool, address: Arc<str>, reason: Arc<str> },
    #[error("no answer within {seconds} s")]
    TimedOut { sent: bool, seconds: f64 },
    #[error("{0}")]
    Unreachable(ConnectError),
    #[error("the broker's answer cannot be decoded: {0}")]
    Malformed(String),
    #[error("the client was closed")]
    Closed,
}

impl CallError {
    pub(crate) fn outcome(&self) -> WriteOutcome {
        match self {
            Self::Rejected { .. } | Self::Unreachable(_) | Self::Closed => WriteOutcome::NotWritten,
            Self::Lost { sent, .. } | Self::TimedOut { sent, .. } if !sent => WriteOutcome::NotWritten,
            Self::Lost { .. } | Self::TimedOut { .. } | Self::Malformed(_) => WriteOutcome::Unknown,
        }
    }

    /// Returns whether the same request may succeed later or on another connection.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Rejected { code, .. } => code.is_retryable(),
            Self::Lost { .. } | Self::TimedOut { .. } => true,
            Self::Unreachable(error) => error.is_retryable(),
            Self::Malformed(_) | Self::Closed => false,
        }
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected { code, .. } => Some(*code),
            _ => None,
        }
    }
}

macro_rules! from_call {
    ($error:ident, $kind:ident, $of:ident) => {
        impl $error {
            /// Converts a failed call. `what` names the operation and its object, as in `topic orders cannot be
            /// created`.
            pub(crate) fn from_call(what: impl fmt::Display, error: &CallError) -> Self {
                let text = format!("{what}: {error}");
                let kind = match error {
                    CallError::Rejected { code, .. } => $of(*code),
                    CallError::Closed => $kind::Closed,
                    CallError::Malformed(_) => $kind::Rejected,
                    CallError::Lost { .. } | CallError::TimedOut { .. } | CallError::Unreachable(_) => {
                        $kind::Unavailable
                    }
                };
                match (error, error.code()) {
                    (_, Some(code)) => Self::with_code(kind, error.outcome(), code, text),
                    (CallError::Unreachable(cause), _) => {
                        Self::new(kind, error.outcome(), text).caused_by(cause.clone())
                    }
                    _ => Self::new(kind, error.outcome(), text),
                }
            }
        }
    };
}

pub(crate) fn produce_kind(code: ErrorCode) -> ProduceErrorKind {
    match code {
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => ProduceErrorKind::UnknownTopic,
        ErrorCode::TooLarge => ProduceErrorKind::TooLarge,
        ErrorCode::CorruptBatch
        | ErrorCode::InvalidBatch
        | ErrorCode::InvalidTimestamp
        | ErrorCode::InvalidArgument => ProduceErrorKind::Invalid,
        ErrorCode::OutOfOrderSequence | ErrorCode::ProducerFenced => ProduceErrorKind::Fenced,
        ErrorCode::PartitionFaulty => ProduceErrorKind::Faulty,
        code if code.is_retryable() => ProduceErrorKind::Unavailable,
        _ => ProduceErrorKind::Rejected,
    }
}

pub(crate) fn fetch_kind(code: ErrorCode) -> FetchErrorKind {
    match code {
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => FetchErrorKind::UnknownTopic,
        ErrorCode::OffsetOutOfRange => FetchErrorKind::OutOfRange,
        ErrorCode::PartitionFaulty => FetchErrorKind::Faulty,
        ErrorCode::CorruptBatch | ErrorCode::InvalidBatch => FetchErrorKind::Corrupt,
        ErrorCode::InvalidArgument => FetchErrorKind::Invalid,
        ErrorCode::OtherGroupProtocol | ErrorCode::InstanceInUse | ErrorCode::InstanceFenced => {
            FetchErrorKind::Group
        }
        code if code.is_retryable() => FetchErrorKind::Unavailable,
        _ => FetchErrorKind::Rejected,
    }
}

pub(crate) fn commit_kind(code: ErrorCode) -> CommitErrorKind {
    match code {
        ErrorCode::UnknownMember
        | ErrorCode::FencedMember
        | ErrorCode::StaleEpoch
        | ErrorCode::UnknownGroup => CommitErrorKind::Fenced,
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => CommitErrorKind::UnknownTopic,
        code if code.is_retryable() => CommitErrorKind::Unavailable,
        _ => CommitErrorKind::Rejected,
    }
}

fn admin_kind(code: ErrorCode) -> AdminErrorKind {
    match code {
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition | ErrorCode::UnknownGroup => {
            AdminErrorKind::NotFound
        }
        ErrorCode::TopicExists => AdminErrorKind::Exists,
        ErrorCode::InvalidTopicName
        | ErrorCode::InvalidArgument
        | ErrorCode::InvalidConfig
        | ErrorCode::OffsetOutOfRange
        | ErrorCode::TooLarge => AdminErrorKind::Invalid,
        code if code.is_retryable() => AdminErrorKind::Unavailable,
        _ => AdminErrorKind::Rejected,
    }
}

from_call!(ProduceError, ProduceErrorKind, produce_kind);
from_call!(FetchError, FetchErrorKind, fetch_kind);
from_call!(CommitError, CommitErrorKind, commit_kind);
from_call!(AdminError, AdminErrorKind, admin_kind);

/// Why [`Producer::try_send`](crate::Producer::try_send) did not accept a record. Contains the record.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrySendError {
    /// The buffer is full; [`Producer::send`](crate::Producer::send) would wait.
    Full(crate::Record),
    /// The producer does not know the record's topic yet and is looking it up.
    /// [`Producer::send`](crate::Producer::send) waits for that, and fails if the topic does not exist.
    NotReady(crate::Record),
    /// The record can never be sent.
    Rejected {
        /// The record.
        record: crate::Record,
        /// Why.
        error: ProduceError,
    },
}

impl TrySendError {
    /// Returns the record that was not accepted.
    pub fn into_record(self) -> crate::Record {
        match self {
            Self::Full(record) | Self::NotReady(record) | Self::Rejected { record, .. } => record,
        }
    }
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the producer's buffer is full"),
            Self::NotReady(record) => {
                let topic = record.topic_name().unwrap_or_default();
                write!(f, "the producer is looking up topic {topic}")
            }
            Self::Rejected { error, .. } => error.fmt(f),
        }
    }
}

impl std::error::Error for TrySendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full(_) | Self::NotReady(_) => None,
            Self::Rejected { error, .. } => Some(error),
        }
    }
}
