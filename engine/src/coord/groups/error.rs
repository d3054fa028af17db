//! Errors of the group coordinator, with Kafka's codes.

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)+) => {
        /// Why the coordinator rejects a request.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
        pub enum GroupError {
            $($(#[$doc])* #[error($text)] $name,)+
        }

        impl GroupError {
            /// Returns Kafka's code.
            pub const fn kafka_code(self) -> i16 {
                match self {
                    $(Self::$name => $code,)+
                }
            }
        }
    };
}

errors! {
    /// The topic does not exist, or was just deleted.
    UnknownTopicOrPartition = 3, "the topic or partition does not exist";
    /// The metadata of an offset is too long.
    OffsetMetadataTooLarge = 12, "the offset's metadata is longer than 4,096 UTF-16 units";
    /// The disk is full, so the coordinator cannot write records.
    CoordinatorNotAvailable = 15, "the disk is full, so changes of groups and offsets cannot be written; free disk space and retry";
    /// The generation is not the group's current one.
    IllegalGeneration = 22, "the generation is not the group's current one";
    /// The member and the group have no protocol in common, or the group uses another protocol type.
    InconsistentGroupProtocol = 23, "the member's protocol type or protocols do not match the group's";
    /// The group name is invalid.
    InvalidGroupId = 24, "the group name is empty or longer than 1,024 bytes";
    /// The member is unknown.
    UnknownMemberId = 25, "the member is unknown; it must rejoin the group";
    /// The session timeout is out of range.
    InvalidSessionTimeout = 26, "the session timeout is out of the configured range";
    /// A rebalance is in progress: members must rejoin.
    RebalanceInProgress = 27, "the group is rebalancing; rejoin it";
    /// There are too many groups, or the offsets of all groups have reached their limit.
    InvalidCommitOffsetSize = 28, "there are too many groups, or the offsets of all groups have reached their limit";
    /// The request is invalid.
    InvalidRequest = 42, "the request is invalid: a field is out of range, or fields contradict each other";
    /// A member of the consumer protocol commits with an old version of the request.
    UnsupportedVersion = 35, "members of the consumer protocol must commit offsets with version 9 or later";
    /// The group has members.
    NonEmptyGroup = 68, "the group has members";
    /// The group does not exist.
    GroupIdNotFound = 69, "the group does not exist";
    /// The member must rejoin with the id in the reply.
    MemberIdRequired = 79, "rejoin with the member id in this reply";
    /// The group, or all groups together, have reached a limit of members, bytes, regular expressions or groups.
    GroupMaxSizeReached = 81, "the group, or all groups together, have reached a limit of members, memory, regular expressions or groups";
    /// Another member has taken over the instance id.
    FencedInstanceId = 82, "another member has taken over this instance id";
    /// The group subscribes to the topic, so its offsets cannot be deleted.
    GroupSubscribedToTopic = 86, "the group is subscribed to the topic";
    /// The member's epoch does not match the coordinator's.
    FencedMemberEpoch = 110, "the member's epoch does not match the coordinator's; give up all partitions and rejoin";
    /// Another member has the instance id and has not left.
    UnreleasedInstanceId = 111, "another member has this instance id and has not left";
    /// The assignor is not supported.
    UnsupportedAssignor = 112, "the assignor is not supported; use uniform or range";
    /// The member's epoch is not the current one.
    StaleMemberEpoch = 113, "the member's epoch is not the current one";
    /// The regular expression is invalid, or its automaton would be too large.
    InvalidRegularExpression = 128, "the regular expression is invalid or too large";
}
