//! Why the coordinator refuses something, with the codes that Kafka gives these reasons.

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)+) => {
        /// Why something is refused.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
        pub enum GroupError {
            $($(#[$doc])* #[error($text)] $name,)+
        }

        impl GroupError {
            /// Kafka's code for it.
            pub const fn kafka_code(self) -> i16 {
                match self {
                    $(Self::$name => $code,)+
                }
            }
        }
    };
}

errors! {
    /// The topic is not there, or was deleted a moment ago.
    UnknownTopicOrPartition = 3, "there is no such topic or partition";
    /// What is to be kept with an offset is too long.
    OffsetMetadataTooLarge = 12, "the metadata of the offset is too long";
    /// The log has no space.
    CoordinatorNotAvailable = 15, "the disk is full: the log of the groups cannot grow; free some space and try again";
    /// The generation is not the group's.
    IllegalGeneration = 22, "the generation is not the group's current one";
    /// No protocol is common to all members, or the group speaks another one.
    InconsistentGroupProtocol = 23, "the member has no protocol in common with the group";
    /// A group's name that cannot be used.
    InvalidGroupId = 24, "a group's name has 1 to 1,024 bytes";
    /// Not a member.
    UnknownMemberId = 25, "the member is not known; it has to join the group again";
    /// A session timeout out of bounds.
    InvalidSessionTimeout = 26, "the session timeout is out of the bounds that are configured";
    /// The members have to join again.
    RebalanceInProgress = 27, "the group rebalances; join again";
    /// All offsets together have reached their limit.
    InvalidCommitOffsetSize = 28, "the offsets of all groups have reached their limit";
    /// The request makes no sense.
    InvalidRequest = 42, "the request contradicts itself";
    /// A member of the consumer protocol commits with an old version of the request.
    UnsupportedVersion = 35, "members of the consumer protocol commit with version 9 or later";
    /// The group has members.
    NonEmptyGroup = 68, "the group has members";
    /// No such group.
    GroupIdNotFound = 69, "there is no such group";
    /// The member shall join again with the id that it is given.
    MemberIdRequired = 79, "join again with the member id of this answer";
    /// The group has as many members, or takes as much memory, as it may.
    GroupMaxSizeReached = 81, "the group, or all groups together, have reached their limit";
    /// Another member has taken over the instance id.
    FencedInstanceId = 82, "another member has taken over this instance id";
    /// Offsets of a topic that the group reads.
    GroupSubscribedToTopic = 86, "the group is subscribed to the topic";
    /// The member has an epoch that is not the coordinator's.
    FencedMemberEpoch = 110, "the member's epoch is not the coordinator's; give up all partitions and join again";
    /// Another member has the instance id and has not left.
    UnreleasedInstanceId = 111, "another member has this instance id and has not left";
    /// The coordinator does not have that assignor.
    UnsupportedAssignor = 112, "there is no such assignor; there are uniform and range";
    /// The member's epoch is not the current one.
    StaleMemberEpoch = 113, "the member's epoch is not the current one";
    /// A regular expression that cannot be used.
    InvalidRegularExpression = 128, "the regular expression cannot be used";
}
