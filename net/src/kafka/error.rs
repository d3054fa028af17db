//! Kafka's error codes, under Kafka's names, and which of them our own become.

use core::fmt;

use highwater_protocol::error::ErrorCode;

/// An error code. Numbers that this build has no name for are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct KafkaError(pub i16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)+) => {
        impl KafkaError {
            $($(#[$doc])* pub const $name: Self = Self($number);)+

            /// Every code that has a name here.
            pub const NAMED: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name)),)+];
        }
    };
}

codes! {
    /// Something failed inside the broker; its log says what.
    UNKNOWN_SERVER_ERROR = -1;
    /// Done.
    NONE = 0;
    /// The offset is before the start or behind the end of the partition.
    OFFSET_OUT_OF_RANGE = 1;
    /// The batch's checksum does not match its bytes.
    CORRUPT_MESSAGE = 2;
    /// No such topic or partition.
    UNKNOWN_TOPIC_OR_PARTITION = 3;
    /// The partition has no leader yet.
    LEADER_NOT_AVAILABLE = 5;
    /// The partition is elsewhere; ask for metadata again.
    NOT_LEADER_OR_FOLLOWER = 6;
    /// It was not done in the time that the client gave.
    REQUEST_TIMED_OUT = 7;
    /// A replica cannot be reached.
    REPLICA_NOT_AVAILABLE = 9;
    /// The batch is over the topic's `max.message.bytes`.
    MESSAGE_TOO_LARGE = 10;
    /// The text kept with a committed offset is too long.
    OFFSET_METADATA_TOO_LARGE = 12;
    /// The coordinator is starting.
    COORDINATOR_LOAD_IN_PROGRESS = 14;
    /// There is no coordinator for now.
    COORDINATOR_NOT_AVAILABLE = 15;
    /// Another node coordinates this.
    NOT_COORDINATOR = 16;
    /// A topic name that cannot be used.
    INVALID_TOPIC_EXCEPTION = 17;
    /// The batch is larger than a segment.
    RECORD_LIST_TOO_LARGE = 18;
    /// Fewer replicas in sync than `min.insync.replicas`; nothing was appended.
    NOT_ENOUGH_REPLICAS = 19;
    /// As above, after it was appended.
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20;
    /// Acks are -1, 0 or 1.
    INVALID_REQUIRED_ACKS = 21;
    /// The group is in another generation.
    ILLEGAL_GENERATION = 22;
    /// The members have no protocol in common.
    INCONSISTENT_GROUP_PROTOCOL = 23;
    /// A group id that cannot be used.
    INVALID_GROUP_ID = 24;
    /// The group has no such member.
    UNKNOWN_MEMBER_ID = 25;
    /// A session timeout outside what the broker allows.
    INVALID_SESSION_TIMEOUT = 26;
    /// The group rebalances; join again.
    REBALANCE_IN_PROGRESS = 27;
    /// The commit is too large.
    INVALID_COMMIT_OFFSET_SIZE = 28;
    /// Not allowed on this topic.
    TOPIC_AUTHORIZATION_FAILED = 29;
    /// Not allowed on this group.
    GROUP_AUTHORIZATION_FAILED = 30;
    /// Not allowed on the cluster.
    CLUSTER_AUTHORIZATION_FAILED = 31;
    /// A record's timestamp is out of the range that the topic allows.
    INVALID_TIMESTAMP = 32;
    /// No such mechanism of authentication.
    UNSUPPORTED_SASL_MECHANISM = 33;
    /// The connection is not in a state to authenticate.
    ILLEGAL_SASL_STATE = 34;
    /// This version of the request is not served.
    UNSUPPORTED_VERSION = 35;
    /// A topic of that name exists.
    TOPIC_ALREADY_EXISTS = 36;
    /// A number of partitions that cannot be used.
    INVALID_PARTITIONS = 37;
    /// More replicas than nodes, or none.
    INVALID_REPLICATION_FACTOR = 38;
    /// An assignment that cannot be used.
    INVALID_REPLICA_ASSIGNMENT = 39;
    /// A configuration name or value that cannot be used.
    INVALID_CONFIG = 40;
    /// Another node is the controller.
    NOT_CONTROLLER = 41;
    /// The request contradicts itself or the protocol.
    INVALID_REQUEST = 42;
    /// The record format cannot do this.
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43;
    /// The topic's configuration forbids it.
    POLICY_VIOLATION = 44;
    /// The batch does not follow the last one of this producer.
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45;
    /// The batch is there already.
    DUPLICATE_SEQUENCE_NUMBER = 46;
    /// A newer instance of this producer exists.
    INVALID_PRODUCER_EPOCH = 47;
    /// The transaction is not in a state for this.
    INVALID_TXN_STATE = 48;
    /// The producer id belongs to another transactional id.
    INVALID_PRODUCER_ID_MAPPING = 49;
    /// A transaction timeout outside what the broker allows.
    INVALID_TRANSACTION_TIMEOUT = 50;
    /// The transaction before this one is still ending.
    CONCURRENT_TRANSACTIONS = 51;
    /// Not allowed for this transactional id.
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53;
    /// There is no access control.
    SECURITY_DISABLED = 54;
    /// Not tried, because another part of the request failed.
    OPERATION_NOT_ATTEMPTED = 55;
    /// The disk is full or damaged; see the broker's log.
    KAFKA_STORAGE_ERROR = 56;
    /// Nothing is known of this producer here any more.
    UNKNOWN_PRODUCER_ID = 59;
    /// The group has members.
    NON_EMPTY_GROUP = 68;
    /// No such group.
    GROUP_ID_NOT_FOUND = 69;
    /// No such fetch session.
    FETCH_SESSION_ID_NOT_FOUND = 70;
    /// The fetch session is elsewhere in its sequence.
    INVALID_FETCH_SESSION_EPOCH = 71;
    /// Topics cannot be deleted.
    TOPIC_DELETION_DISABLED = 73;
    /// The client knows an older leader epoch.
    FENCED_LEADER_EPOCH = 74;
    /// The client knows a newer leader epoch.
    UNKNOWN_LEADER_EPOCH = 75;
    /// This version of the request does not know the codec.
    UNSUPPORTED_COMPRESSION_TYPE = 76;
    /// The high watermark is not known yet.
    OFFSET_NOT_AVAILABLE = 78;
    /// Join again with the member id that was given.
    MEMBER_ID_REQUIRED = 79;
    /// The group has as many members as it may have.
    GROUP_MAX_SIZE_REACHED = 81;
    /// Another member has taken over this instance id.
    FENCED_INSTANCE_ID = 82;
    /// The partition has the leader that it should have.
    ELECTION_NOT_NEEDED = 84;
    /// The group still reads this topic.
    GROUP_SUBSCRIBED_TO_TOPIC = 86;
    /// The batch breaks a rule of its format.
    INVALID_RECORD = 87;
    /// Offsets of a transaction that has not ended.
    UNSTABLE_OFFSET_COMMIT = 88;
    /// A limit on memory or rate is reached; try again.
    THROTTLING_QUOTA_EXCEEDED = 89;
    /// A newer instance of this producer exists.
    PRODUCER_FENCED = 90;
    /// No such resource.
    RESOURCE_NOT_FOUND = 91;
    /// Named twice in one request.
    DUPLICATE_RESOURCE = 92;
    /// No topic has this id.
    UNKNOWN_TOPIC_ID = 100;
    /// The topic's id is another one: it was deleted and created again.
    INCONSISTENT_TOPIC_ID = 103;
    /// Meant for another cluster.
    INCONSISTENT_CLUSTER_ID = 104;
    /// No such transactional id.
    TRANSACTIONAL_ID_NOT_FOUND = 105;
    /// The fetch session uses topic names where ids are given, or the reverse.
    FETCH_SESSION_TOPIC_ID_ERROR = 106;
    /// The member's epoch is not the group's; it has to join again.
    FENCED_MEMBER_EPOCH = 110;
    /// Another member still holds this instance id.
    UNRELEASED_INSTANCE_ID = 111;
    /// No such assignor.
    UNSUPPORTED_ASSIGNOR = 112;
    /// The member's epoch is old; it has to send a heartbeat first.
    STALE_MEMBER_EPOCH = 113;
    /// This listener is not of that kind.
    MISMATCHED_ENDPOINT_TYPE = 114;
    /// No such kind of listener.
    UNSUPPORTED_ENDPOINT_TYPE = 115;
    /// The transaction has to be aborted.
    TRANSACTION_ABORTABLE = 120;
    /// A regular expression that cannot be used.
    INVALID_REGULAR_EXPRESSION = 128;
    /// The client has to begin again with its bootstrap addresses.
    REBOOTSTRAP_REQUIRED = 129;
}

impl KafkaError {
    /// Whether it is one.
    pub const fn is_err(self) -> bool {
        self.0 != 0
    }

    /// Kafka's name for it, if it has one here.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMED.iter().find(|(error, _)| *error == self).map(|(_, name)| *name)
    }
}

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl From<i16> for KafkaError {
    fn from(number: i16) -> Self {
        Self(number)
    }
}

impl From<ErrorCode> for KafkaError {
    /// What a Kafka client is told. Clients retry by the code, so one that may pass becomes one that they try again.
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Malformed
            | ErrorCode::BadHello
            | ErrorCode::BadSubscription
            | ErrorCode::InvalidArgument => Self::INVALID_REQUEST,
            ErrorCode::UnsupportedVersion => Self::UNSUPPORTED_VERSION,
            ErrorCode::TooLarge => Self::MESSAGE_TOO_LARGE,
            ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => Self::UNKNOWN_TOPIC_OR_PARTITION,
            ErrorCode::TopicExists => Self::TOPIC_ALREADY_EXISTS,
            ErrorCode::InvalidTopicName => Self::INVALID_TOPIC_EXCEPTION,
            ErrorCode::InvalidConfig => Self::INVALID_CONFIG,
            ErrorCode::WrongShard | ErrorCode::Unavailable => Self::NOT_LEADER_OR_FOLLOWER,
            ErrorCode::CorruptBatch => Self::CORRUPT_MESSAGE,
            ErrorCode::InvalidBatch => Self::INVALID_RECORD,
            ErrorCode::OutOfOrderSequence => Self::OUT_OF_ORDER_SEQUENCE_NUMBER,
            ErrorCode::ProducerFenced => Self::INVALID_PRODUCER_EPOCH,
            ErrorCode::OffsetOutOfRange => Self::OFFSET_OUT_OF_RANGE,
            // Java gives up on a full disk's own code only after a new look at the metadata, which is what it should do.
            ErrorCode::StorageFull | ErrorCode::PartitionFaulty => Self::KAFKA_STORAGE_ERROR,
            ErrorCode::Overloaded => Self::REQUEST_TIMED_OUT,
            ErrorCode::InvalidTimestamp => Self::INVALID_TIMESTAMP,
            _ => Self::UNKNOWN_SERVER_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_ours_becomes_one_of_kafkas_that_has_a_name() {
        for code in ErrorCode::ALL {
            let kafka = KafkaError::from(*code);
            assert!(kafka.is_err() && kafka.name().is_some(), "{code}: {kafka}");
        }
    }

    #[test]
    fn numbers_are_unique_and_in_order() {
        assert!(KafkaError::NAMED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(KafkaError(9999).to_string(), "error 9999");
        assert_eq!(KafkaError(100).to_string(), "UNKNOWN_TOPIC_ID");
    }
}
