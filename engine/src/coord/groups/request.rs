//! What the coordinator is asked, independent of any protocol's encoding.

use bytes::Bytes;
use highwater_protocol::ids::{GroupEpoch, LeaderEpoch, Offset, PartitionIndex, TopicId};

/// Names a request; its reply repeats it. The caller takes care that it is unique.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// The time, by both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; it may begin anywhere.
    pub ms: u64,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: i64,
}

/// A request. Group names and member ids are as the client sent them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupRequest {
    /// Become a member, or begin the next generation.
    Join(JoinRequest),
    /// Get the assignment; the leader brings all.
    Sync(SyncRequest),
    /// Still there.
    Heartbeat(HeartbeatRequest),
    /// Removes members.
    Leave(LeaveRequest),
    /// Commits offsets.
    Commit(CommitRequest),
    /// Reads offsets of groups.
    Fetch(Vec<FetchRequest>),
    /// Deletes offsets.
    DeleteOffsets(DeleteOffsetsRequest),
    /// Which groups there are.
    List(ListRequest),
    /// What groups of the classic protocol look like.
    Describe(Vec<String>),
    /// Forget groups.
    Delete(Vec<String>),
    /// Everything a member of the consumer protocol says.
    ConsumerHeartbeat(ConsumerHeartbeatRequest),
    /// What groups of the consumer protocol look like.
    ConsumerDescribe(Vec<String>),
    /// What a group looks like, whichever protocol its members speak.
    DescribeOne(String),
    /// One of those that list, describe or read offsets, whose reply may hold only so much memory. If it would hold more, the reply is
    /// [`NeedsMemory`](super::GroupReply::NeedsMemory).
    Within {
        /// The request.
        request: Box<GroupRequest>,
        /// Maximum bytes of the reply in memory.
        bytes_max: usize,
    },
}

impl GroupRequest {
    /// Returns the groups that it names.
    pub fn groups(&self) -> Vec<&str> {
        match self {
            Self::Join(JoinRequest { group, .. })
            | Self::Sync(SyncRequest { group, .. })
            | Self::Heartbeat(HeartbeatRequest { group, .. })
            | Self::Leave(LeaveRequest { group, .. })
            | Self::Commit(CommitRequest { group, .. })
            | Self::DeleteOffsets(DeleteOffsetsRequest { group, .. })
            | Self::ConsumerHeartbeat(ConsumerHeartbeatRequest { group, .. })
            | Self::DescribeOne(group) => vec![group],
            Self::Fetch(requests) => requests.iter().map(|request| request.group.as_str()).collect(),
            Self::Describe(groups) | Self::Delete(groups) | Self::ConsumerDescribe(groups) => {
                groups.iter().map(String::as_str).collect()
            }
            Self::List(_) => Vec::new(),
            Self::Within { request, .. } => request.groups(),
        }
    }
}

/// Who sent a request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Client {
    /// The client id it gave.
    pub id: String,
    /// Its address, as it is shown to people: Kafka writes `/127.0.0.1`.
    pub host: String,
}

/// Become a member of a group of the classic protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    /// The group.
    pub group: String,
    /// The member's id, or empty.
    pub member: String,
    /// Its instance id, if it is static.
    pub instance: Option<String>,
    /// The client.
    pub client: Client,
    /// What kind of group this is: `consumer`, `connect`, `sr`, or anything else.
    pub protocol_type: String,
    /// What it can do, best first, with bytes that only members understand.
    pub protocols: Vec<(String, Bytes)>,
    /// It is gone when nothing is heard from it for so long.
    pub session_timeout_ms: i32,
    /// How long it may take to join again when the group rebalances.
    pub rebalance_timeout_ms: i32,
    /// Whether it knows that it may be told to come again with an id (version 4).
    pub requires_member_id: bool,
    /// Whether it knows that a leader may be told not to assign (version 9).
    pub can_skip_assignment: bool,
}

/// Get the assignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncRequest {
    /// The group.
    pub group: String,
    /// The member.
    pub member: String,
    /// Its instance id, if it is static.
    pub instance: Option<String>,
    /// The generation it joined.
    pub generation: i32,
    /// The protocol type it expects (version 5).
    pub protocol_type: Option<String>,
    /// The protocol it expects (version 5).
    pub protocol: Option<String>,
    /// From the leader: each member's assignment.
    pub assignments: Vec<(String, Bytes)>,
}

/// A heartbeat of a member of the classic protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: String,
    /// The member.
    pub member: String,
    /// Its instance id, if it is static.
    pub instance: Option<String>,
    /// Its generation.
    pub generation: i32,
}

/// Removes members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaveRequest {
    /// The group.
    pub group: String,
    /// The members: member id (may be empty for a static one) and instance id.
    pub members: Vec<(String, Option<String>)>,
}

/// Commits offsets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitRequest {
    /// The group.
    pub group: String,
    /// The member, or empty.
    pub member: String,
    /// Its instance id, if it is static.
    pub instance: Option<String>,
    /// Its generation or epoch; −1 if it is no member.
    pub generation: i32,
    /// Whether the request's version knows member epochs (version 9).
    pub knows_epochs: bool,
    /// Whether the offsets are kept until they are deleted: those of named consumers of the native protocol are.
    pub forever: bool,
    /// The offsets.
    pub offsets: Vec<CommittedPartition>,
}

/// An offset of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The next offset to read.
    pub offset: Offset,
    /// The epoch of the last record read, or −1.
    pub leader_epoch: LeaderEpoch,
    /// The client's metadata.
    pub metadata: String,
}

/// Reads offsets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchRequest {
    /// The group.
    pub group: String,
    /// The member and its epoch (version 9): checked if the group speaks the consumer protocol.
    pub member: Option<(String, GroupEpoch)>,
    /// The partitions; `None` for all that have offsets.
    pub partitions: Option<Vec<(TopicId, Vec<PartitionIndex>)>>,
    /// Whether to wait for transactions that have offsets of the group. There are none yet, so all offsets are stable.
    pub require_stable: bool,
}

/// Deletes offsets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteOffsetsRequest {
    /// The group.
    pub group: String,
    /// The partitions.
    pub partitions: Vec<(TopicId, Vec<PartitionIndex>)>,
}

/// Lists groups. An empty filter matches all.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ListRequest {
    /// States, in any case.
    pub states: Vec<String>,
    /// Types (`classic`, `consumer`), in any case.
    pub types: Vec<String>,
    /// Only groups after this name.
    pub after: String,
    /// Stops once the list takes more bytes than this in memory.
    pub cut_at_bytes: Option<usize>,
}

/// A heartbeat of a member of the consumer protocol. `None` means unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerHeartbeatRequest {
    /// The group.
    pub group: String,
    /// The member's id; empty only at the first join of a client that speaks version 0.
    pub member: String,
    /// Its epoch; 0 joins, −1 leaves, −2 leaves for a while with the instance id kept.
    pub epoch: GroupEpoch,
    /// Its instance id, if it is static.
    pub instance: Option<String>,
    /// Its rack.
    pub rack: Option<String>,
    /// The client.
    pub client: Client,
    /// How long it may take to revoke partitions; −1 means unchanged.
    pub rebalance_timeout_ms: i32,
    /// Its subscription: topics by name.
    pub topic_names: Option<Vec<String>>,
    /// Its subscription: topics by regular expression.
    pub topic_regex: Option<String>,
    /// The assignor it prefers.
    pub assignor: Option<String>,
    /// The partitions it owns.
    pub owned: Option<Vec<(TopicId, Vec<PartitionIndex>)>>,
}

#[cfg(test)]
impl Default for ConsumerHeartbeatRequest {
    /// A member without an id joins.
    fn default() -> Self {
        Self {
            group: String::new(),
            member: String::new(),
            epoch: GroupEpoch(0),
            instance: None,
            rack: None,
            client: Client::default(),
            rebalance_timeout_ms: 0,
            topic_names: None,
            topic_regex: None,
            assignor: None,
            owned: None,
        }
    }
}
