//! Error codes of the native protocol.

use core::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $n:literal, $retryable:literal;)+) => {
        /// Error that a broker returns for a request that it does not carry out. The numbers never change their meaning.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $n,)+
            /// A code this build does not know.
            Unknown = 0xffff,
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Returns the code with this number.
            pub const fn from_u16(n: u16) -> Self {
                match n {
                    $($n => Self::$name,)+
                    _ => Self::Unknown,
                }
            }

            /// Returns whether the request went to a shard or node that does not have the partition, or does not lead it: the metadata of the
            /// client is old.
            pub const fn is_misrouted(self) -> bool {
                matches!(self, Self::WrongShard | Self::NotLeader)
            }

            /// Returns whether the same request may succeed later, unchanged.
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
    /// The request is malformed: truncated, trailing bytes, or a field out of range.
    Malformed = 1, false;
    /// This message, or this version of it, is not supported.
    UnsupportedVersion = 2, false;
    /// A length exceeds its limit.
    TooLarge = 3, false;
    /// The topic does not exist.
    UnknownTopic = 4, false;
    /// The topic has no such partition.
    UnknownPartition = 5, false;
    /// A topic with this name already exists.
    TopicExists = 6, false;
    /// The topic name is not allowed.
    InvalidTopicName = 7, false;
    /// The number of partitions, the number of replicas or another argument is not allowed.
    InvalidArgument = 8, false;
    /// The configuration name or value is not allowed.
    InvalidConfig = 9, false;
    /// Another shard of the node has the partition; refresh the metadata.
    WrongShard = 10, true;
    /// The batch's checksum does not match its bytes.
    CorruptBatch = 11, false;
    /// The batch violates a rule of its format.
    InvalidBatch = 12, false;
    /// The batch's sequence does not follow the producer's last batch.
    OutOfOrderSequence = 13, false;
    /// A newer instance of this producer exists.
    ProducerFenced = 14, false;
    /// The offset is before the start or after the end of the partition.
    OffsetOutOfRange = 15, false;
    /// The disk is full and nothing was written. Reads, retention and deletion still work.
    StorageFull = 16, true;
    /// Part of the partition cannot be read, or the partition was stopped because of damage; see the broker's log.
    PartitionFaulty = 17, false;
    /// The broker is stopping or starting.
    Unavailable = 18, true;
    /// A limit on memory or on a queue was reached; retry.
    Overloaded = 19, true;
    /// A record's timestamp is outside the range that the topic allows.
    InvalidTimestamp = 20, false;
    /// An internal error; the broker's log has the details.
    Internal = 21, false;
    /// The connection did not start with a hello, sent a second one, or named a shard that does not exist.
    BadHello = 22, false;
    /// The subscription does not exist or its id is already in use.
    BadSubscription = 23, false;
    /// The group does not exist.
    UnknownGroup = 24, false;
    /// Not, or no longer, a member of the group: join again.
    UnknownMember = 25, false;
    /// The member's epoch is not the one that the group has for it: release all partitions and join again.
    FencedMember = 26, false;
    /// The member's epoch is not current, or it does not own the partition: no offset was committed or returned.
    StaleEpoch = 27, false;
    /// The group's members use Kafka's classic protocol, which a member of this protocol cannot join.
    OtherGroupProtocol = 28, false;
    /// Another member has this instance id and has not left.
    InstanceInUse = 29, false;
    /// Another member has taken over this instance id.
    InstanceFenced = 30, false;
    /// The group has members.
    GroupNotEmpty = 31, false;
    /// Fewer replicas can be reached than an acknowledgement needs; nothing was written.
    NotEnoughReplicas = 32, true;
    /// The batch was written, and fewer replicas can be reached than its acknowledgement needs. Sent again, it is recognised.
    NotEnoughReplicasAfterAppend = 33, true;
    /// Another node leads the partition, or none does; refresh the metadata. The details name the leader and its epoch, if the node knows them.
    NotLeader = 34, true;
    /// Another node coordinates the group, or none does: the one that leads the group's partition.
    NotCoordinator = 35, true;
    /// Another node leads the metadata of the cluster, or none does; send the request to another node.
    NotController = 36, true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
