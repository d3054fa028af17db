//! The message header, which precedes every native message.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a [`WireHeader`].
pub const WIRE_HEADER_BYTES: usize = 16;

/// Header of every message, in both directions.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireHeader {
    /// Bytes after this header.
    pub body_bytes: U32,
    /// A [`MessageKind`].
    pub kind: U16,
    /// In a reply: 0, or an [`ErrorCode`](crate::error::ErrorCode); the body is then an error text in UTF-8. In a request: 0.
    pub status: U16,
    /// Chosen by the client and repeated in the reply. In messages of a subscription: the id of the subscription.
    pub request_id: U64,
}

const _: () = assert!(core::mem::size_of::<WireHeader>() == WIRE_HEADER_BYTES);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $n:literal,)+) => {
        /// Kind of a message. A reply has the kind of its request.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum MessageKind {
            $($(#[$doc])* $name = $n,)+
        }

        impl MessageKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Returns the kind with this number, if there is one.
            pub const fn from_u16(n: u16) -> Option<Self> {
                match n {
                    $($n => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// First message of a connection.
    Hello = 1,
    /// Returns nodes, topics, and the location of partitions.
    Metadata = 2,
    /// Creates a topic.
    CreateTopic = 3,
    /// Deletes a topic.
    DeleteTopic = 4,
    /// Changes a topic's configuration or adds partitions.
    AlterTopic = 5,
    /// Returns a topic with its configuration and the offset range of its partitions.
    DescribeTopic = 6,
    /// Allocates a producer id.
    InitProducer = 7,
    /// Appends one record batch.
    Produce = 8,
    /// Opens a subscription: the server pushes frames as far as credit allows.
    Subscribe = 9,
    /// Adds credit to a subscription. Has no reply.
    Credit = 10,
    /// Ends a subscription.
    Unsubscribe = 11,
    /// Frames of a subscription, pushed by the server.
    Data = 12,
    /// Returns frames starting at one offset, once.
    Fetch = 13,
    /// Returns offsets by timestamp, or the first and last ones.
    ListOffsets = 14,
    /// Commits offsets of a named consumer.
    CommitOffsets = 15,
    /// Returns the committed offsets of a named consumer.
    ReadOffsets = 16,
    /// Advances the start of partitions.
    DeleteRecords = 17,
    /// Returns the broker's counters.
    Stats = 18,
    /// Joins a group, stays in it, or leaves it.
    GroupHeartbeat = 19,
    /// Commits offsets of a group.
    CommitGroupOffsets = 20,
    /// Returns the committed offsets of a group.
    ReadGroupOffsets = 21,
    /// Lists groups.
    ListGroups = 22,
    /// Returns a group with its members.
    DescribeGroup = 23,
    /// Deletes a group.
    DeleteGroup = 24,
    /// Returns free space of the broker to the file system.
    ReleaseSpace = 25,
}
