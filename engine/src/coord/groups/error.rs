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
    UnknownTopicOrPartition = 3, "there is no such topic or partition";
    /// The metadata of an offset is too long.
    OffsetMetadataTooLarge = 12, "the metadata of the offset is too long";
    /// The log cannot grow: the disk is full.
    CoordinatorNotAvailable = 15, "the disk is full: the log of the groups cannot grow; free some space and try again";
    /// The generation is not the group's current one.
    IllegalGeneration = 22, "the generation is not the group's current one";
    /// Not all members support a common protocol, or the group uses another protocol type.
    InconsistentGroupProtocol = 23, "the member has no protocol in common with the group";
    /// The group name is invalid.
    InvalidGroupId = 24, "a group's name has 1 to 1,024 bytes";
    /// Not a member.
    UnknownMemberId = 25, "the member is not known; it has to join the group again";
    /// The session timeout is out of range.
    InvalidSessionTimeout = 26, "the session timeout is out of the bounds that are configured";
    /// A rebalance is in progress: members have to rejoin.
    RebalanceInProgress = 27, "the group rebalances; join again";
    /// All offsets together have reached their limit.
    InvalidCommitOffsetSize = 28, "the offsets of all groups have reached their limit";
    /// The request is invalid.
    InvalidRequest = 42, "the request contradicts itself";
    /// A member of the consumer protocol commits with an old version of the request.
    UnsupportedVersion = 35, "members of the consumer protocol commit with version 9 or later";
    /// The group has members.
    NonEmptyGroup = 68, "the group has members";
    /// No such group.
    GroupIdNotFound = 69, "there is no such group";
    /// The member has to join again with the id in the reply.
    MemberIdRequired = 79, "join again with the member id of this answer";
    /// The group has reached its limit of members or memory.
    GroupMaxSizeReached = 81, "the group, or all groups together, have reached their limit";
    /// Another member has taken over the instance id.
    FencedInstanceId = 82, "another member has taken over this instance id";
    /// The group subscribes to the topic, so its offsets cannot be deleted.
    GroupSubscribedToTopic = 86, "the group is subscribed to the topic";
    /// The member has an epoch that is not the coordinator's.
    FencedMemberEpoch = 110, "the member's epoch is not the coordinator's; give up all partitions and join again";
    /// Another member has the instance id and has not left.
    UnreleasedInstanceId = 111, "another member has this instance id and has not left";
    /// The coordinator does not have that assignor.
    UnsupportedAssignor = 112, "there is no such assignor; there are uniform and range";
    /// The member's epoch is not the current one.
    StaleMemberEpoch = 113, "the member's epoch is not the current one";
    /// The regular expression is invalid.
    InvalidRegularExpression = 128, "the regular expression cannot be used";
}
