//! Requests to the coordinator, independent of any protocol's encoding.

use bytes::Bytes;
use highwater_protocol::ids::{GroupEpoch, LeaderEpoch, Offset, PartitionIndex, TopicId};

/// Identifies a request; its reply has the same token. The caller makes it unique.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// The current time by a monotonic clock and by the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds of a monotonic clock with an arbitrary origin.
    pub ms: u64,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: i64,
}

/// A request. Group names and member ids are as the client sent them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupRequest {
    /// Joins a group, or its next generation.
    Join(JoinRequest),
    /// Gets the member's assignment; the leader's request has the assignments of all members.
    Sync(SyncRequest),
    /// Keeps the session of a member of the classic protocol alive.
    Heartbeat(HeartbeatRequest),
    /// Removes members.
    Leave(LeaveRequest),
    /// Commits offsets.
    Commit(CommitRequest),
    /// Reads offsets of groups.
    Fetch(Vec<FetchRequest>),
    /// Deletes offsets.
    DeleteOffsets(DeleteOffsetsRequest),
    /// Lists groups.
    List(ListRequest),
    /// Describes groups of the classic protocol.
    Describe(Vec<String>),
    /// Deletes groups.
    Delete(Vec<String>),
    /// Joins, updates, keeps alive or removes a member of the consumer protocol.
    ConsumerHeartbeat(ConsumerHeartbeatRequest),
    /// Describes groups of the consumer protocol.
    ConsumerDescribe(Vec<String>),
    /// Describes a group of either protocol.
    DescribeOne(String),
    /// A request to list or describe groups or to read offsets, with a memory limit of its reply. If the reply would exceed it, the reply is
    /// [`NeedsMemory`](super::GroupReply::NeedsMemory) instead.
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

/// The client that sent a request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Client {
    /// Its client id.
    pub id: String,
    /// Its address as Kafka shows it: `/127.0.0.1`.
    pub host: String,
}

/// Joins a group of the classic protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    /// The group.
    pub group: String,
    /// The member's id; empty for a new member.
    pub member: String,
    /// Its instance id, if it is static.
    pub instance: Option<String>,
    /// The client.
    pub client: Client,
    /// The kind of group: `consumer`, `connect`, `sr`, or anything else.
    pub protocol_type: String,
    /// The protocols that it supports, in order of preference, each with metadata that is opaque to the coordinator.
    pub protocols: Vec<(String, Bytes)>,
    /// The member is removed after this time without a request.
    pub session_timeout_ms: i32,
    /// How long it may take to rejoin when the group rebalances.
    pub rebalance_timeout_ms: i32,
    /// Whether a new member must rejoin with the id that the reply gives it (version 4).
    pub requires_member_id: bool,
    /// Whether the client supports a leader that need not assign partitions (version 9).
    pub can_skip_assignment: bool,
}

/// Gets a member's assignment.
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
    /// Each member's assignment, from the leader only.
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
    /// Member id (may be empty for a static member) and instance id of each.
    pub members: Vec<(String, Option<String>)>,
}

/// Commits offsets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitRequest {
    /// The group.
    pub group: String,
    /// The member; may be empty.
    pub member: String,
    /// Its instance id, if it is static.
    pub instance: Option<String>,
    /// Its generation or epoch; −1 if it is not a member.
    pub generation: i32,
    /// Whether the request's version has member epochs (version 9).
    pub knows_epochs: bool,
    /// Whether the offsets never expire, like those of the native protocol's named consumers.
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
    /// The member and its epoch (version 9), checked if the group uses the consumer protocol.
    pub member: Option<(String, GroupEpoch)>,
    /// The partitions; `None` for all partitions with offsets.
    pub partitions: Option<Vec<(TopicId, Vec<PartitionIndex>)>>,
    /// Whether to wait for pending transactional offsets. There are no transactions yet, so all offsets are stable.
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
    /// States; case-insensitive.
    pub states: Vec<String>,
    /// Types (`classic`, `consumer`); case-insensitive.
    pub types: Vec<String>,
    /// Only groups after this name.
    pub after: String,
    /// Ends the list once it takes more bytes than this in memory.
    pub cut_at_bytes: Option<usize>,
}

/// A heartbeat of a member of the consumer protocol. `None` means unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerHeartbeatRequest {
    /// The group.
    pub group: String,
    /// The member's id; empty only at the first join of a client that uses version 0.
    pub member: String,
    /// Its epoch; 0 joins, −1 leaves, −2 leaves temporarily and keeps the instance id.
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
    /// Returns a heartbeat that joins without a member id.
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
