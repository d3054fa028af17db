//! Administration of groups.

use std::collections::BTreeMap;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::native::{
    CommitGroupOffsetsReply, CommitGroupOffsetsRequest, DeleteGroupRequest, DescribeGroupReply,
    DescribeGroupRequest, GroupInfo, ListGroupsReply, ListGroupsRequest, ReadGroupOffsetsReply,
    ReadGroupOffsetsRequest, TopicPositions,
};

use crate::admin::{AdminResult, failed, to_committed};
use crate::client::Client;
use crate::error::CallError;
use crate::group_description::{GroupDescription, TopicNames};
use crate::io::calls::RetryPolicy;

/// # Groups
impl Client {
    /// Returns all groups in order of name, including those of Kafka clients and named consumers.
    pub async fn list_groups(&self) -> AdminResult<Vec<GroupInfo>> {
        let mut groups: Vec<GroupInfo> = Vec::new();
        loop {
            let after = groups.last().map_or_else(String::new, |last| last.name.clone());
            let request = ListGroupsRequest { after };
            let reply: Result<ListGroupsReply, _> = self.cluster.call(&request, RetryPolicy::Always).await;
            let reply = reply.map_err(failed(format_args!("groups cannot be listed")))?;
            let is_done = !reply.more || reply.groups.is_empty();
            groups.extend(reply.groups);
            if is_done {
                return Ok(groups);
            }
        }
    }

    /// Returns a group with its members, and the partitions of these by topic name.
    pub async fn describe_group(&self, name: impl Into<String>) -> AdminResult<GroupDescription> {
        let request = DescribeGroupRequest { name: name.into() };
        let failed = failed(format_args!("group {} cannot be described", request.name));
        let reply: DescribeGroupReply =
            self.cluster.call_group(&request, RetryPolicy::Always).await.map_err(&failed)?;
        let names = if GroupDescription::needs_names(&reply) {
            self.topic_names().await.map_err(failed)?
        } else {
            TopicNames::new()
        };
        Ok(GroupDescription::new(reply, &names))
    }

    /// Returns the names of all topics by id.
    async fn topic_names(&self) -> Result<TopicNames, CallError> {
        let topics = self.cluster.metadata(None).await?.topics;
        Ok(topics.into_iter().map(|topic| (topic.id, topic.name)).collect())
    }

    /// Forgets a group without members, and its positions.
    pub async fn delete_group(&self, name: impl Into<String>) -> AdminResult<()> {
        let request = DeleteGroupRequest { name: name.into() };
        let result = self.cluster.call_group_empty(&request, RetryPolicy::IfUnsent).await;
        result.map_err(failed(format_args!("group {} cannot be deleted", request.name)))
    }

    /// Sets the positions of a group, which must have no members. Creates the group if it does not exist. Unlike
    /// positions set with [`Client::commit_offsets`], a group's positions expire when it has had no members for some
    /// time.
    pub async fn alter_group_offsets(
        &self,
        name: impl Into<String>,
        topic: &str,
        positions: impl IntoIterator<Item = (u32, Offset)>,
    ) -> AdminResult<()> {
        let group = name.into();
        let failed = failed(format_args!("positions of group {group} in topic {topic} cannot be set"));
        let positions = positions.into_iter().map(to_committed).collect();
        let topic = self.topic_id(topic).await.map_err(&failed)?;
        let topics = vec![TopicPositions { topic, positions }];
        let request = CommitGroupOffsetsRequest { group, member: String::new(), epoch: -1, topics };
        let reply: Result<CommitGroupOffsetsReply, _> =
            self.cluster.call_group(&request, RetryPolicy::Always).await;
        let rejected = match reply {
            Ok(reply) => match reply.rejected.first() {
                None => return Ok(()),
                Some(rejected) => {
                    let text = format!("the broker rejected partition {}", rejected.partition);
                    CallError::Rejected { code: rejected.error, text }
                }
            },
            // The broker's error for an unknown member.
            Err(CallError::Rejected { code: ErrorCode::UnknownMember, .. }) => {
                let text = "the group has members, which would overwrite them; stop them first".to_owned();
                CallError::Rejected { code: ErrorCode::GroupNotEmpty, text }
            }
            Err(error) => error,
        };
        Err(failed(rejected))
    }

    /// Returns the positions of a group: by topic and partition, the offset of the next record to read. Positions in
    /// deleted topics are omitted.
    pub async fn list_group_offsets(
        &self,
        name: impl Into<String>,
    ) -> AdminResult<BTreeMap<(String, u32), Offset>> {
        let request = ReadGroupOffsetsRequest { group: name.into(), member: None, partitions: None };
        let failed = failed(format_args!("positions of group {} cannot be read", request.group));
        let reply: ReadGroupOffsetsReply =
            self.cluster.call_group(&request, RetryPolicy::Always).await.map_err(&failed)?;
        if reply.topics.is_empty() {
            return Ok(BTreeMap::new());
        }
        let names = self.topic_names().await.map_err(failed)?;
        let named = reply.topics.into_iter().filter_map(|of| Some((names.get(&of.topic)?, of.positions)));
        let positions = named.flat_map(|(topic, positions)| {
            positions.into_iter().map(move |p| ((topic.clone(), p.partition.get()), p.offset))
        });
        Ok(positions.collect())
    }
}
