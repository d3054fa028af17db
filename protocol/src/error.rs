//! Error codes of the native protocol.

use core::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $n:literal, $retryable:literal;)+) => {
        /// What a broker answers when it does not do what was asked. The numbers never change their meaning.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $n,)+
            /// A code this build does not know.
            Unknown = 0xffff,
        }

        impl ErrorCode {
            /// Every code, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code with this number.
            pub const fn from_u16(n: u16) -> Self {
                match n {
                    $($n => Self::$name,)+
                    _ => Self::Unknown,
                }
            }

            /// Whether the same request may succeed later, unchanged.
            pub const fn is_retryable(self) -> bool {
                match self {
                    $(Self::$name => $retryable,)+
                    Self::Unknown => false,
                }
            }
        }
    };
}

codes! {
    /// The request cannot be read: truncated, trailing bytes, or a field out of range.
    Malformed = 1, false;
    /// This message, or this version of it, is not spoken here.
    UnsupportedVersion = 2, false;
    /// A length is over its limit.
    TooLarge = 3, false;
    /// No such topic.
    UnknownTopic = 4, false;
    /// The topic has no such partition.
    UnknownPartition = 5, false;
    /// A topic of that name exists.
    TopicExists = 6, false;
    /// A topic name that cannot be used.
    InvalidTopicName = 7, false;
    /// A number of partitions, replicas or another argument that cannot be used.
    InvalidArgument = 8, false;
    /// A configuration name or value that cannot be used.
    InvalidConfig = 9, false;
    /// The partition lives on another shard of this node; ask for metadata again.
    WrongShard = 10, true;
    /// The batch's checksum does not match its bytes.
    CorruptBatch = 11, false;
    /// The batch breaks a rule of its format.
    InvalidBatch = 12, false;
    /// The batch does not follow the last one of this producer.
    OutOfOrderSequence = 13, false;
    /// A newer instance of this producer exists.
    ProducerFenced = 14, false;
    /// The offset is before the start or behind the end of the partition.
    OffsetOutOfRange = 15, false;
    /// The disk is full: nothing was written. Reading, retention and deletion go on.
    StorageFull = 16, true;
    /// Part of this partition cannot be read or the partition was stopped for damage; see the broker's log.
    PartitionFaulty = 17, false;
    /// The broker is stopping or starting.
    Unavailable = 18, true;
    /// A limit on memory or queue length is reached; try again.
    Overloaded = 19, true;
    /// A record's timestamp is out of the range that the topic allows.
    InvalidTimestamp = 20, false;
    /// Something failed inside the broker; its log says what.
    Internal = 21, false;
    /// A hello was expected first, or came twice, or names a shard that does not exist.
    BadHello = 22, false;
    /// The subscription does not exist or its number is taken.
    BadSubscription = 23, false;
    /// There is no such group.
    UnknownGroup = 24, false;
    /// Not a member of the group, or not any more: join again.
    UnknownMember = 25, false;
    /// The member's epoch is not the one the group has for it: give up all partitions and join again.
    FencedMember = 26, false;
    /// The member's epoch is not the current one, or the partition is not the member's: not kept, not told.
    StaleEpoch = 27, false;
    /// The group's members speak Kafka's classic protocol, which others cannot join.
    OtherGroupProtocol = 28, false;
    /// Another member has the instance id and has not left.
    InstanceInUse = 29, false;
    /// Another member has taken over the instance id.
    InstanceFenced = 30, false;
    /// The group has members.
    GroupNotEmpty = 31, false;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
