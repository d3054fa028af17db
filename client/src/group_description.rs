//! A group as administrators see it, with topics by name.

use std::collections::BTreeMap;

use highwater_protocol::ids::TopicId;
use highwater_protocol::native::{DescribeGroupReply, GroupMemberInfo, TopicPartitions};

/// Partitions by topic name. Topics that were deleted meanwhile are left out.
pub type PartitionsByTopic = BTreeMap<String, Vec<u32>>;

/// A group and its members, from [`Client::describe_group`](crate::Client::describe_group).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupDescription {
    /// See [`GroupInfo::protocol`](crate::GroupInfo::protocol).
    pub protocol: String,
    /// See [`GroupInfo::state`](crate::GroupInfo::state).
    pub state: String,
    /// Group epoch; 0 in the classic protocol.
    pub epoch: i32,
    /// Assignor, if it is known.
    pub assignor: String,
    /// Members, by id.
    pub members: Vec<GroupMember>,
}

/// A member of a [`GroupDescription`].
///
/// Only members of the classic protocol know what they subscribe to and own, so `topics`, `assignment` and `target` are empty for
/// these.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GroupMember {
    /// Member id.
    pub member_id: String,
    /// Instance id, if it has one.
    pub instance_id: Option<String>,
    /// Client name.
    pub client_name: String,
    /// Address of the client.
    pub host: String,
    /// Member epoch; 0 in the classic protocol.
    pub epoch: i32,
    /// Names of the topics it subscribes to.
    pub topics: Vec<String>,
    /// Partitions it owns.
    pub assignment: PartitionsByTopic,
    /// Partitions it will own once all members have reconciled.
    pub target: PartitionsByTopic,
}

/// Names of topics by id.
pub(crate) type TopicNames = BTreeMap<TopicId, String>;

impl GroupDescription {
    /// Whether a reply names topics by id.
    pub(crate) fn needs_names(reply: &DescribeGroupReply) -> bool {
        reply.members.iter().any(|member| !member.assignment.is_empty() || !member.target.is_empty())
    }

    pub(crate) fn new(reply: DescribeGroupReply, names: &TopicNames) -> Self {
        Self {
            protocol: reply.protocol,
            state: reply.state,
            epoch: reply.epoch,
            assignor: reply.assignor,
            members: reply.members.into_iter().map(|member| GroupMember::new(member, names)).collect(),
        }
    }
}

impl GroupMember {
    fn new(member: GroupMemberInfo, names: &TopicNames) -> Self {
        Self {
            member_id: member.member,
            instance_id: member.instance,
            client_name: member.client_name,
            host: member.host,
            epoch: member.epoch,
            topics: member.topics,
            assignment: named(member.assignment, names),
            target: named(member.target, names),
        }
    }
}

fn named(topics: Vec<TopicPartitions>, names: &TopicNames) -> PartitionsByTopic {
    let named = topics.into_iter().filter_map(|of| {
        let partitions = of.partitions.into_iter().map(|partition| partition.0).collect();
        Some((names.get(&of.topic)?.clone(), partitions))
    });
    named.collect()
}
