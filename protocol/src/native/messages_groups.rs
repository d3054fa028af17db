//! Bodies of native messages about consumer groups.

use super::messages::CommittedOffset;
use crate::error::ErrorCode;
use crate::ids::{PartitionIndex, TopicId};

/// Bit of [`Hello::features`](super::Hello::features): the messages about groups are supported.
pub const FEATURE_GROUPS: u64 = 1;

/// Epoch of a heartbeat that joins the group.
pub const JOIN_EPOCH: i32 = 0;

/// Epoch of a heartbeat that leaves the group.
pub const LEAVE_EPOCH: i32 = -1;

/// Epoch of a heartbeat with which a static member leaves temporarily: it keeps its partitions until its session times out.
pub const TEMPORARY_LEAVE_EPOCH: i32 = -2;

/// Partitions of one topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TopicPartitions {
    /// The topic.
    pub topic: TopicId,
    /// Its partitions.
    pub partitions: Vec<PartitionIndex>,
}

/// Committed offsets in one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicPositions {
    /// The topic.
    pub topic: TopicId,
    /// Committed offsets.
    pub positions: Vec<CommittedOffset>,
}

/// Heartbeat with which a member joins a group, stays in it, reports its state, or leaves. `None` means unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupHeartbeatRequest {
    /// Name of the group.
    pub group: String,
    /// Member id, which the member chooses when it first joins.
    pub member: String,
    /// Member epoch, or [`JOIN_EPOCH`], [`LEAVE_EPOCH`], [`TEMPORARY_LEAVE_EPOCH`].
    pub epoch: i32,
    /// Instance id, which identifies a static member across restarts.
    pub instance: Option<String>,
    /// Time that the member may take to release partitions, in milliseconds. Required when joining.
    pub rebalance_timeout_ms: Option<u32>,
    /// Names of the topics it subscribes to. Required when joining.
    pub topics: Option<Vec<String>>,
    /// Preferred assignor: `uniform` or `range`.
    pub assignor: Option<String>,
    /// Partitions it owns. Required, and empty, when joining.
    pub owned: Option<Vec<TopicPartitions>>,
}

/// Reply to [`GroupHeartbeatRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupHeartbeatReply {
    /// Member id.
    pub member: String,
    /// New member epoch.
    pub epoch: i32,
    /// Time until the next heartbeat, in milliseconds.
    pub heartbeat_interval_ms: u32,
    /// Time without heartbeats after which the member is removed from the group, in milliseconds.
    pub session_timeout_ms: u32,
    /// Partitions assigned to the member. `None`: unchanged since the last reply.
    pub assignment: Option<Vec<TopicPartitions>>,
}

/// Commits offsets of a group for a member. The reply is sent once they are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitGroupOffsetsRequest {
    /// Name of the group.
    pub group: String,
    /// Member id; empty for a non-member, which a group without members accepts.
    pub member: String,
    /// Member epoch, or -1.
    pub epoch: i32,
    /// Offsets to commit.
    pub topics: Vec<TopicPositions>,
}

/// Reply to [`CommitGroupOffsetsRequest`]. All offsets that are not listed were committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitGroupOffsetsReply {
    /// Rejected offsets, in the order of the request.
    pub rejected: Vec<RejectedPosition>,
}

/// A rejected offset in [`CommitGroupOffsetsReply`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RejectedPosition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Why it was rejected.
    pub error: ErrorCode,
}

/// Requests the committed offsets of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadGroupOffsetsRequest {
    /// Name of the group.
    pub group: String,
    /// The member that sends the request and its epoch, which must be current. `None` for a non-member.
    pub member: Option<(String, i32)>,
    /// Partitions to return; `None` for all that have a committed offset.
    pub partitions: Option<Vec<TopicPartitions>>,
}

/// Reply to [`ReadGroupOffsetsRequest`]. Partitions without a committed offset are left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadGroupOffsetsReply {
    /// Committed offsets, by topic.
    pub topics: Vec<TopicPositions>,
}

/// Lists groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListGroupsRequest {
    /// Only groups whose name is after this one in byte order; empty to start at the first.
    pub after: String,
}

/// Reply to [`ListGroupsRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListGroupsReply {
    /// Groups, by name.
    pub groups: Vec<GroupInfo>,
    /// Whether there are more groups after the last one.
    pub more: bool,
}

/// A group in [`ListGroupsReply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupInfo {
    /// Name.
    pub name: String,
    /// `consumer`, `classic` for Kafka's older protocol, or `named` for offsets committed without members.
    pub protocol: String,
    /// `Empty`, `Assigning`, `Reconciling`, `Stable`; in the classic protocol also `PreparingRebalance`, `CompletingRebalance`.
    pub state: String,
}

/// Requests a group's details.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeGroupRequest {
    /// Name.
    pub name: String,
}

/// Reply to [`DescribeGroupRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeGroupReply {
    /// See [`GroupInfo::protocol`].
    pub protocol: String,
    /// See [`GroupInfo::state`].
    pub state: String,
    /// Group epoch; 0 in the classic protocol.
    pub epoch: i32,
    /// Assignor, if it is known.
    pub assignor: String,
    /// Members, by id.
    pub members: Vec<GroupMemberInfo>,
}

/// A member in [`DescribeGroupReply`].
///
/// Only members of the classic protocol know what they subscribe to and own, so their lists are empty here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMemberInfo {
    /// Member id.
    pub member: String,
    /// Instance id, if it has one.
    pub instance: Option<String>,
    /// Client name.
    pub client_name: String,
    /// Address of the client.
    pub host: String,
    /// Member epoch; 0 in the classic protocol.
    pub epoch: i32,
    /// Names of the topics it subscribes to.
    pub topics: Vec<String>,
    /// Partitions it owns.
    pub assignment: Vec<TopicPartitions>,
    /// Partitions it will own once all members have reconciled.
    pub target: Vec<TopicPartitions>,
}

/// Deletes a group without members, and its committed offsets. The reply has an empty body and is sent once that is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteGroupRequest {
    /// Name.
    pub name: String,
}
