//! Why a channel is closed.

use std::time::Duration;

use highwater_protocol::frame::FrameError;
use highwater_protocol::ids::{LogIndex, TopicPartition};
use highwater_protocol::native::DecodeError;

use super::header::Kind;
use super::hello::Refusal;

/// What a peer that follows the protocol never sends. It costs the peer its channel, and not this process.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The first bytes are not those of a hello.
    #[error("the connection does not begin with the hello of a node; is this a client?")]
    NotAPeer,
    /// The kind of a message is unknown.
    #[error("unknown message kind {0}")]
    UnknownKind(u16),
    /// The message is not allowed at this point.
    #[error("{kind:?}: not expected {when}")]
    Unexpected {
        /// The message.
        kind: Kind,
        /// When it came.
        when: &'static str,
    },
    /// The message is longer than its kind allows.
    #[error("{kind:?}: a body of {bytes} bytes exceeds the limit of {max}")]
    BodyTooLarge {
        /// The message.
        kind: Kind,
        /// Bytes of its body.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The checksum does not match.
    #[error("{kind:?}: checksum mismatch")]
    Checksum {
        /// The message.
        kind: Kind,
    },
    /// The message belongs to another session.
    #[error("{kind:?}: message of another session ({found:#010x} instead of {session:#010x})")]
    OtherSession {
        /// The message.
        kind: Kind,
        /// Tag of the channel's session.
        session: u32,
        /// Tag in the message.
        found: u32,
    },
    /// A message is missing or came twice.
    #[error("{kind:?}: message {found} instead of {expected}")]
    Sequence {
        /// The message.
        kind: Kind,
        /// Number that the message should have.
        expected: u16,
        /// Number that it has.
        found: u16,
    },
    /// The body cannot be decoded.
    #[error("{kind:?}: {error}")]
    Body {
        /// The message.
        kind: Kind,
        /// What is wrong with the body.
        error: DecodeError,
    },
    /// The peer names a partition by a handle that it has not bound, or has released.
    #[error("{kind:?}: handle {handle} is not bound to a partition")]
    UnboundHandle {
        /// The message.
        kind: Kind,
        /// The handle.
        handle: u32,
    },
    /// Handles are given away in order, each once in a session.
    #[error("Bind: handle {found} instead of {expected}")]
    HandleOrder {
        /// The next handle.
        expected: u32,
        /// The handle in the message.
        found: u32,
    },
    /// The end of a log would be too large.
    #[error("{kind:?}: log end {end} is above the maximum")]
    LogEnd {
        /// The message.
        kind: Kind,
        /// The end.
        end: LogIndex,
    },
    /// Frames came for which there was no credit.
    #[error("Group: {bytes} bytes of frames without credit")]
    NoCredit {
        /// Bytes of the frames.
        bytes: usize,
    },
    /// The peer grants more credit than it may.
    #[error("Credit: more than {max} bytes")]
    TooMuchCredit {
        /// The limit.
        max: u64,
    },
    /// A frame of an append is damaged, or ends after the append.
    #[error("Group: {partition}: {error}")]
    Frame {
        /// The partition.
        partition: TopicPartition,
        /// What is wrong with the frame.
        error: FrameError,
    },
}

/// Why this side says goodbye.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Goodbye {
    /// The node stops.
    Stopping = 1,
    /// Another connection between the two shards has replaced this one.
    Replaced = 2,
    /// The peer has violated the protocol; the text says how.
    Violation = 3,
    /// The peer was silent for too long, or does not receive.
    Lost = 4,
}

impl Goodbye {
    /// Returns the reason with this number, if there is one.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Stopping),
            2 => Some(Self::Replaced),
            3 => Some(Self::Violation),
            4 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// Why a channel was closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer has violated the protocol.
    #[error("protocol violation: {0}")]
    Violation(#[from] PeerError),
    /// The peer did not accept the hello.
    #[error("the peer refused the connection: {0}")]
    Refused(Refusal),
    /// The peer closed the channel and said why.
    #[error("the peer said goodbye ({why:?}): {text}")]
    Goodbye {
        /// Why.
        why: Goodbye,
        /// Details.
        text: String,
    },
    /// This side closed the channel.
    #[error("closed by this node ({0:?})")]
    Local(Goodbye),
    /// Nothing came from the peer for this long.
    #[error("the peer was silent for {0:?}")]
    Silent(Duration),
    /// The handshake took too long.
    #[error("no answer to the hello within {0:?}")]
    HandshakeTimeout(Duration),
    /// The peer does not receive what is queued for it.
    #[error("more than {0} bytes are queued for the peer")]
    QueueFull(usize),
    /// All handles of the session are used up.
    #[error("the session has no free handles")]
    OutOfHandles,
    /// The connection ended.
    #[error("the connection ended")]
    Disconnected,
}
