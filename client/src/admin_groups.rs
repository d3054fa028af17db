//! Administration of groups.

use std::collections::BTreeMap;

use highwater_protocol::ids::{Offset, TopicId};
use highwater_protocol::native::{
    DeleteGroupRequest, DescribeGroupReply, DescribeGroupRequest, GroupInfo, ListGroupsReply,
    ListGroupsRequest, ReadGroupOffsetsReply, ReadGroupOffsetsRequest,
};

use crate::admin::{AdminResult, failed};
use crate::client::Client;
use crate::io::calls::Repeat;

/// # Groups
impl Client {
    /// All groups by name, those of Kafka's clients and named consumers among them.
    pub async fn list_groups(&self) -> AdminResult<Vec<GroupInfo>> {
        let mut groups: Vec<GroupInfo> = Vec::new();
        loop {
            let after = groups.last().map_or_else(String::new, |last| last.name.clone());
            let request = ListGroupsRequest { after };
            let reply: Result<ListGroupsReply, _> = self.cluster.call(&request, Repeat::Always).await;
            let reply = reply.map_err(failed(format_args!("groups cannot be listed")))?;
            let is_done = !reply.more || reply.groups.is_empty();
            groups.extend(reply.groups);
            if is_done {
                return Ok(groups);
            }
        }
    }

    /// A group with its members.
    pub async fn describe_group(&self, name: impl Into<String>) -> AdminResult<DescribeGroupReply> {
        let request = DescribeGroupRequest { name: name.into() };
        let result = self.cluster.call(&request, Repeat::Always).await;
        result.map_err(failed(format_args!("group {} cannot be described", request.name)))
    }

    /// Forgets a group without members, and its positions.
    pub async fn delete_group(&self, name: impl Into<String>) -> AdminResult<()> {
        let request = DeleteGroupRequest { name: name.into() };
        let result = self.cluster.call_empty(&request, Repeat::Unsent).await;
        result.map_err(failed(format_args!("group {} cannot be deleted", request.name)))
    }

    /// Where a group has got to: by topic and partition, the next offset it reads.
    pub async fn group_positions(
        &self,
        name: impl Into<String>,
    ) -> AdminResult<BTreeMap<(TopicId, u32), Offset>> {
        let request = ReadGroupOffsetsRequest { group: name.into(), member: None, partitions: None };
        let reply: Result<ReadGroupOffsetsReply, _> = self.cluster.call(&request, Repeat::Always).await;
        let reply =
            reply.map_err(failed(format_args!("positions of group {} cannot be read", request.group)))?;
        let positions = reply
            .topics
            .into_iter()
            .flat_map(|of| of.positions.into_iter().map(move |p| ((of.topic, p.partition.get()), p.offset)));
        Ok(positions.collect())
    }
}
