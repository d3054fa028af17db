//! Kafka's error codes, with Kafka's names.

use core::fmt;

/// An error code. May be a number that has no name here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct KafkaError(pub i16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)+) => {
        impl KafkaError {
            $($(#[$doc])* pub const $name: Self = Self($number);)+

            /// All codes that have a name here.
            pub const NAMED: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name)),)+];
        }
    };
}

codes! {
    /// Something failed inside the broker; its log says what.
    UNKNOWN_SERVER_ERROR = -1;
    /// Success.
    NONE = 0;
    /// The offset is before the start or after the end of the partition.
    OFFSET_OUT_OF_RANGE = 1;
    /// The batch's checksum does not match its bytes.
    CORRUPT_MESSAGE = 2;
    /// Unknown topic or partition.
    UNKNOWN_TOPIC_OR_PARTITION = 3;
    /// The partition has no leader yet.
    LEADER_NOT_AVAILABLE = 5;
    /// This node does not lead the partition; refresh the metadata.
    NOT_LEADER_OR_FOLLOWER = 6;
    /// The client's timeout expired.
    REQUEST_TIMED_OUT = 7;
    /// A replica is unreachable.
    REPLICA_NOT_AVAILABLE = 9;
    /// The batch is over the topic's `max.message.bytes`.
    MESSAGE_TOO_LARGE = 10;
    /// The metadata of a committed offset is too long.
    OFFSET_METADATA_TOO_LARGE = 12;
    /// The coordinator is starting.
    COORDINATOR_LOAD_IN_PROGRESS = 14;
    /// The coordinator is not available, for example because the disk is full.
    COORDINATOR_NOT_AVAILABLE = 15;
    /// Another node is the coordinator.
    NOT_COORDINATOR = 16;
    /// Invalid topic name.
    INVALID_TOPIC_EXCEPTION = 17;
    /// The batch is larger than a segment.
    RECORD_LIST_TOO_LARGE = 18;
    /// Fewer in-sync replicas than `min.insync.replicas`; nothing was appended.
    NOT_ENOUGH_REPLICAS = 19;
    /// Fewer in-sync replicas than `min.insync.replicas`, after the append.
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20;
    /// Acks is not -1, 0 or 1.
    INVALID_REQUIRED_ACKS = 21;
    /// The group is in another generation.
    ILLEGAL_GENERATION = 22;
    /// The members have no protocol in common.
    INCONSISTENT_GROUP_PROTOCOL = 23;
    /// Invalid group id.
    INVALID_GROUP_ID = 24;
    /// Unknown member.
    UNKNOWN_MEMBER_ID = 25;
    /// The session timeout is outside the allowed range.
    INVALID_SESSION_TIMEOUT = 26;
    /// The group rebalances; join again.
    REBALANCE_IN_PROGRESS = 27;
    /// The commit is too large.
    INVALID_COMMIT_OFFSET_SIZE = 28;
    /// Not authorized for this topic.
    TOPIC_AUTHORIZATION_FAILED = 29;
    /// Not authorized for this group.
    GROUP_AUTHORIZATION_FAILED = 30;
    /// Not authorized for the cluster.
    CLUSTER_AUTHORIZATION_FAILED = 31;
    /// The timestamp of a record is outside the topic's range.
    INVALID_TIMESTAMP = 32;
    /// Unknown SASL mechanism.
    UNSUPPORTED_SASL_MECHANISM = 33;
    /// The connection is not in a state for SASL, for example because the listener is plain.
    ILLEGAL_SASL_STATE = 34;
    /// This version of the request is not served.
    UNSUPPORTED_VERSION = 35;
    /// A topic of this name exists.
    TOPIC_ALREADY_EXISTS = 36;
    /// Invalid number of partitions.
    INVALID_PARTITIONS = 37;
    /// Invalid replication factor: zero, or larger than the number of nodes.
    INVALID_REPLICATION_FACTOR = 38;
    /// Invalid replica assignment.
    INVALID_REPLICA_ASSIGNMENT = 39;
    /// Invalid configuration name or value.
    INVALID_CONFIG = 40;
    /// Another node is the controller.
    NOT_CONTROLLER = 41;
    /// The request is inconsistent, or violates the protocol.
    INVALID_REQUEST = 42;
    /// The record format does not support this.
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43;
    /// The topic's configuration forbids it.
    POLICY_VIOLATION = 44;
    /// The batch's sequence does not follow the producer's last one.
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45;
    /// The batch was already appended.
    DUPLICATE_SEQUENCE_NUMBER = 46;
    /// A newer instance of this producer exists.
    INVALID_PRODUCER_EPOCH = 47;
    /// The transaction is not in a state for this.
    INVALID_TXN_STATE = 48;
    /// The producer id belongs to another transactional id.
    INVALID_PRODUCER_ID_MAPPING = 49;
    /// The transaction timeout is outside the allowed range.
    INVALID_TRANSACTION_TIMEOUT = 50;
    /// The previous transaction has not ended.
    CONCURRENT_TRANSACTIONS = 51;
    /// Not authorized for this transactional id.
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53;
    /// Access control is not enabled.
    SECURITY_DISABLED = 54;
    /// Not attempted, because another part of the request failed.
    OPERATION_NOT_ATTEMPTED = 55;
    /// The disk is full or damaged; see the broker's log.
    KAFKA_STORAGE_ERROR = 56;
    /// Unknown producer id.
    UNKNOWN_PRODUCER_ID = 59;
    /// The group has members.
    NON_EMPTY_GROUP = 68;
    /// Unknown group.
    GROUP_ID_NOT_FOUND = 69;
    /// Unknown fetch session.
    FETCH_SESSION_ID_NOT_FOUND = 70;
    /// The epoch of the fetch session is not the expected one.
    INVALID_FETCH_SESSION_EPOCH = 71;
    /// Topic deletion is disabled.
    TOPIC_DELETION_DISABLED = 73;
    /// The client knows an older leader epoch.
    FENCED_LEADER_EPOCH = 74;
    /// The client knows a newer leader epoch.
    UNKNOWN_LEADER_EPOCH = 75;
    /// This version of the request does not support the codec.
    UNSUPPORTED_COMPRESSION_TYPE = 76;
    /// The high watermark is not known yet.
    OFFSET_NOT_AVAILABLE = 78;
    /// Join again with the member id of this response.
    MEMBER_ID_REQUIRED = 79;
    /// The group has reached its maximum size.
    GROUP_MAX_SIZE_REACHED = 81;
    /// Another member has taken over this instance id.
    FENCED_INSTANCE_ID = 82;
    /// The partition already has the right leader.
    ELECTION_NOT_NEEDED = 84;
    /// The group is subscribed to this topic.
    GROUP_SUBSCRIBED_TO_TOPIC = 86;
    /// Invalid record batch.
    INVALID_RECORD = 87;
    /// The offsets belong to a transaction that has not ended.
    UNSTABLE_OFFSET_COMMIT = 88;
    /// A quota is exceeded; retry later.
    THROTTLING_QUOTA_EXCEEDED = 89;
    /// A newer instance of this producer exists.
    PRODUCER_FENCED = 90;
    /// Unknown resource.
    RESOURCE_NOT_FOUND = 91;
    /// The request names a resource twice.
    DUPLICATE_RESOURCE = 92;
    /// Unknown topic id.
    UNKNOWN_TOPIC_ID = 100;
    /// The topic has another id: it was deleted and created again.
    INCONSISTENT_TOPIC_ID = 103;
    /// The request is for another cluster.
    INCONSISTENT_CLUSTER_ID = 104;
    /// Unknown transactional id.
    TRANSACTIONAL_ID_NOT_FOUND = 105;
    /// The fetch session uses topic names and the request uses ids, or the reverse.
    FETCH_SESSION_TOPIC_ID_ERROR = 106;
    /// The member's epoch is not the group's; it has to join again.
    FENCED_MEMBER_EPOCH = 110;
    /// Another member still holds this instance id.
    UNRELEASED_INSTANCE_ID = 111;
    /// Unknown assignor.
    UNSUPPORTED_ASSIGNOR = 112;
    /// The member's epoch is stale; it has to send a heartbeat first.
    STALE_MEMBER_EPOCH = 113;
    /// The listener has another endpoint type.
    MISMATCHED_ENDPOINT_TYPE = 114;
    /// Unknown endpoint type.
    UNSUPPORTED_ENDPOINT_TYPE = 115;
    /// The transaction has to be aborted.
    TRANSACTION_ABORTABLE = 120;
    /// Invalid regular expression.
    INVALID_REGULAR_EXPRESSION = 128;
    /// The client has to bootstrap again.
    REBOOTSTRAP_REQUIRED = 129;
}

impl KafkaError {
    /// Returns whether it is an error.
    pub const fn is_err(self) -> bool {
        self.0 != 0
    }

    /// Returns Kafka's name of it, if it has one here.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_in_order() {
        assert!(KafkaError::NAMED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(KafkaError(9999).to_string(), "error 9999");
        assert_eq!(KafkaError(100).to_string(), "UNKNOWN_TOPIC_ID");
    }
}
