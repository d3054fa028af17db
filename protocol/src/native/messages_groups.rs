//! The bodies of native messages about consumer groups.

use super::messages::CommittedOffset;
use crate::error::ErrorCode;
use crate::ids::{PartitionIndex, TopicId};

/// Bit of [`Hello::features`](super::Hello::features): the messages about groups are understood.
pub const FEATURE_GROUPS: u64 = 1;

/// Epoch of a heartbeat that joins.
pub const JOIN_EPOCH: i32 = 0;

/// Epoch of a heartbeat that leaves.
pub const LEAVE_EPOCH: i32 = -1;

/// Epoch of a heartbeat with which a member with an instance id leaves for a while: its partitions wait for it until its session ends.
pub const AWAY_EPOCH: i32 = -2;

/// Partitions of one topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TopicPartitions {
    /// The topic.
    pub topic: TopicId,
    /// Its partitions.
    pub partitions: Vec<PartitionIndex>,
}

/// Positions in one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicPositions {
    /// The topic.
    pub topic: TopicId,
    /// The positions.
    pub positions: Vec<CommittedOffset>,
}

/// Everything that a member of a group says: that it joins, is there, wants and has, leaves. `None` is: as before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupHeartbeatRequest {
    /// The group.
    pub group: String,
    /// The member's id, which it chooses when it first joins.
    pub member: String,
    /// Its epoch, or [`JOIN_EPOCH`], [`LEAVE_EPOCH`], [`AWAY_EPOCH`].
    pub epoch: i32,
    /// The id by which it is known across restarts, if it has one.
    pub instance: Option<String>,
    /// How long it may take to give partitions up. Set by one that joins.
    pub rebalance_timeout_ms: Option<u32>,
    /// The topics it reads, by name. Set by one that joins.
    pub topics: Option<Vec<String>>,
    /// How it would like partitions to be assigned: `uniform` or `range`.
    pub assignor: Option<String>,
    /// The partitions it has. Set, and empty, by one that joins.
    pub owned: Option<Vec<TopicPartitions>>,
}

/// Answer to [`GroupHeartbeatRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupHeartbeatReply {
    /// The member's id.
    pub member: String,
    /// Its epoch from here on.
    pub epoch: i32,
    /// When to come again.
    pub heartbeat_interval_ms: u32,
    /// The member is out of the group when nothing is heard from it for so long.
    pub session_timeout_ms: u32,
    /// The partitions it shall have. None: those it was told of last.
    pub assignment: Option<Vec<TopicPartitions>>,
}

/// Stores positions of a group, on behalf of a member. Answered once they are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitGroupOffsetsRequest {
    /// The group.
    pub group: String,
    /// The member; empty for somebody who is none, which a group without members allows.
    pub member: String,
    /// Its epoch, or -1.
    pub epoch: i32,
    /// The positions.
    pub topics: Vec<TopicPositions>,
}

/// Answer to [`CommitGroupOffsetsRequest`]: what was not stored. All the rest was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitGroupOffsetsReply {
    /// The positions refused, in the order of the request.
    pub refused: Vec<RefusedPosition>,
}

/// An entry of [`CommitGroupOffsetsReply`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefusedPosition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Why.
    pub error: ErrorCode,
}

/// Asks for the positions of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadGroupOffsetsRequest {
    /// The group.
    pub group: String,
    /// The member that asks and its epoch, to be told if that is not the current one any more. None: somebody else asks.
    pub member: Option<(String, i32)>,
    /// Of which partitions; none: all that have one.
    pub partitions: Option<Vec<TopicPartitions>>,
}

/// Answer to [`ReadGroupOffsetsRequest`]: those of the partitions that have a position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadGroupOffsetsReply {
    /// The positions, by topic.
    pub topics: Vec<TopicPositions>,
}

/// Asks which groups there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListGroupsRequest {
    /// Only groups whose name comes behind this one, byte by byte; empty: from the first.
    pub after: String,
}

/// Answer to [`ListGroupsRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListGroupsReply {
    /// The groups, by name.
    pub groups: Vec<GroupInfo>,
    /// There are more behind the last one.
    pub more: bool,
}

/// A group in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// `consumer`, `classic` for Kafka's older protocol, or `named` for positions that are committed without being a member.
    pub protocol: String,
    /// `Empty`, `Assigning`, `Reconciling`, `Stable`; of the classic protocol also `PreparingRebalance`, `CompletingRebalance`.
    pub state: String,
}

/// Asks for a group in detail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeGroupRequest {
    /// Its name.
    pub name: String,
}

/// Answer to [`DescribeGroupRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeGroupReply {
    /// As in [`GroupInfo`].
    pub protocol: String,
    /// As in [`GroupInfo`].
    pub state: String,
    /// The group's epoch; of the classic protocol 0.
    pub epoch: i32,
    /// How partitions are assigned, if that is known.
    pub assignor: String,
    /// The members, by id.
    pub members: Vec<GroupMemberInfo>,
}

/// A member in [`DescribeGroupReply`].
///
/// What members of the classic protocol read and have is known to themselves only: their lists are empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMemberInfo {
    /// Its id.
    pub member: String,
    /// Its instance id, if it has one.
    pub instance: Option<String>,
    /// The name that its client gave.
    pub client_name: String,
    /// Its address.
    pub host: String,
    /// Its epoch; of the classic protocol 0.
    pub epoch: i32,
    /// The topics it reads, by name.
    pub topics: Vec<String>,
    /// What it has.
    pub assignment: Vec<TopicPartitions>,
    /// What it is to have once all have followed.
    pub target: Vec<TopicPartitions>,
}

/// Forgets a group without members, and its positions. The reply has an empty body, and comes once that is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteGroupRequest {
    /// Its name.
    pub name: String,
}
