//! The header in front of every native message.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a [`WireHeader`].
pub const WIRE_HEADER_BYTES: usize = 16;

/// In front of every message, both ways.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WireHeader {
    /// Bytes behind this header.
    pub body_bytes: U32,
    /// A [`MessageKind`].
    pub kind: U16,
    /// In a reply: 0, or an [`ErrorCode`](crate::error::ErrorCode); the body is then a UTF-8 message for people. In a request: 0.
    pub status: U16,
    /// Chosen by the client, repeated in the reply. For a subscription's messages: the subscription's number.
    pub request_id: U64,
}

const _: () = assert!(core::mem::size_of::<WireHeader>() == WIRE_HEADER_BYTES);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $n:literal,)+) => {
        /// What a message is. A reply has the kind of its request.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum MessageKind {
            $($(#[$doc])* $name = $n,)+
        }

        impl MessageKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The kind with this number, if there is one.
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
    /// Nodes, topics, partitions and where they live.
    Metadata = 2,
    /// Creates a topic.
    CreateTopic = 3,
    /// Deletes a topic.
    DeleteTopic = 4,
    /// Changes configuration or adds partitions.
    AlterTopic = 5,
    /// A topic with its configuration and the bounds of its partitions.
    DescribeTopic = 6,
    /// Allocates a producer id.
    InitProducer = 7,
    /// Appends one record batch.
    Produce = 8,
    /// Opens a subscription: the server pushes frames as far as credit allows.
    Subscribe = 9,
    /// Gives a subscription more credit. Has no reply.
    Credit = 10,
    /// Ends a subscription.
    Unsubscribe = 11,
    /// Frames of a subscription, pushed by the server.
    Data = 12,
    /// Frames from one offset on, once.
    Fetch = 13,
    /// Offsets by time, or the first and last ones.
    ListOffsets = 14,
    /// Stores a named consumer's positions.
    CommitOffsets = 15,
    /// Reads a named consumer's positions.
    ReadOffsets = 16,
    /// Moves the start of partitions forward.
    DeleteRecords = 17,
    /// What the broker has done so far, in numbers.
    Stats = 18,
    /// A member of a group joins, is there, or leaves.
    GroupHeartbeat = 19,
    /// Stores positions of a group.
    CommitGroupOffsets = 20,
    /// Reads positions of a group.
    ReadGroupOffsets = 21,
    /// Which groups there are.
    ListGroups = 22,
    /// A group with its members.
    DescribeGroup = 23,
    /// Forgets a group.
    DeleteGroup = 24,
}
