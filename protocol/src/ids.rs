//! Newtypes for numbers that are easily confused.
//!
//! None of them has a `Default`: an offset 0 that meant "unknown" has cost other brokers acknowledged data.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Returns the number itself.
            #[inline]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// Position of a record in a partition, as users see it. Never negative once assigned.
    Offset(i64)
}
number! {
    /// Position of a frame in a partition's replicated log. Internal frames have an index but no [`Offset`].
    LogIndex(u64)
}
number! {
    /// Epoch of the leader that appended a frame; Kafka's `partitionLeaderEpoch`.
    LeaderEpoch(i32)
}
number! {
    /// Epoch of a group of the consumer protocol, of its assignment, or of a member: the last assignment that it has reached. A member joins with 0,
    /// and leaves with -1, or with -2 if it will return with the same instance id.
    GroupEpoch(i32)
}

impl GroupEpoch {
    /// Returns the epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns whether a member leaves with it, or whoever commits with it is no member.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
}

number! {
    /// Number of a partition within its topic.
    PartitionIndex(u32)
}
number! {
    /// A broker process in a cluster.
    NodeId(u32)
}
number! {
    /// A shard of a broker: one core, one thread, one ring.
    ShardId(u16)
}
number! {
    /// A store: the folder in which a shard keeps the logs of its partitions. Stores survive a change of the number of shards.
    StoreId(u16)
}
number! {
    /// Incarnation of an extent. Extents are recycled; frames of an earlier incarnation must never look valid.
    Incarnation(u64)
}
number! {
    /// Position of an extent in its partition's chain of extents; it increases along the chain. An extent that replaces others gets the
    /// position of the first of them and a new [`Incarnation`].
    ExtentSequence(u64)
}
number! {
    /// Identity of an idempotent producer, allocated by the broker. Negative means none.
    ProducerId(i64)
}
number! {
    /// Milliseconds since the Unix epoch, as stored in records.
    Timestamp(i64)
}

impl Offset {
    /// Returns the offset `n` records later.
    #[inline]
    #[must_use]
    pub const fn plus(self, n: i64) -> Self {
        Self(self.0 + n)
    }
}

impl LogIndex {
    /// Returns the index of the following frame.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ExtentSequence {
    /// Returns the next position.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ProducerId {
    /// Producer id of a batch that was sent without idempotence.
    pub const NONE: Self = Self(-1);
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&uuid::Uuid::from_bytes(self.0).hyphenated(), f)
            }
        }

        impl core::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Ok(Self(uuid::Uuid::parse_str(text)?.into_bytes()))
            }
        }
    };
}

uuid_id! {
    /// Identity of a topic. A topic that is deleted and created again gets a new id.
    TopicId
}
uuid_id! {
    /// Identity of a cluster; a data directory belongs to exactly one.
    ClusterId
}

/// One partition of a topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl TopicPartition {
    /// Returns a 32-bit tag that is stored in every frame, so that a frame found in another partition's extent is recognised as
    /// misdirected.
    pub fn tag(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.topic.0), &self.partition.0.to_le_bytes())
    }
}
