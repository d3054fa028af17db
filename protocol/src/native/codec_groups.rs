//! Bodies of the messages about consumer groups.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BufMut;

use super::codec::{
    Body, POSITIONS_MAX, put_count, put_option, put_str, read_partition, read_positions, read_topic,
};
use super::header::MessageKind;
use super::messages_groups::{
    CommitGroupOffsetsReply, CommitGroupOffsetsRequest, DeleteGroupRequest, DescribeGroupReply,
    DescribeGroupRequest, GroupHeartbeatReply, GroupHeartbeatRequest, GroupInfo, GroupMemberInfo,
    ListGroupsReply, ListGroupsRequest, ReadGroupOffsetsReply, ReadGroupOffsetsRequest, RejectedPosition,
    TopicPartitions, TopicPositions,
};
use super::reader::{DecodeError, Reader};
use crate::error::ErrorCode;
use crate::ids::TopicId;
use crate::limits::{
    CLIENT_NAME_BYTES_MAX, CONTROL_BODY_BYTES_MAX, GROUP_NAME_BYTES_MAX, GROUP_WORD_BYTES_MAX,
    TOPIC_NAME_BYTES_MAX,
};

/// Entries of a list that only the size of its message limits.
const COUNT_MAX: usize = CONTROL_BODY_BYTES_MAX;

/// Minimum bytes of a topic with partitions or positions, of a rejected position, of a group and of a member, with empty strings and
/// lists.
const TOPIC_ENTRY_BYTES_MIN: usize = 20;
const REJECTED_BYTES: usize = 22;
const GROUP_BYTES_MIN: usize = 12;
const MEMBER_BYTES_MIN: usize = 29;

fn read_group(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    reader.string("group", GROUP_NAME_BYTES_MAX)
}

fn read_member(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    reader.string("member", GROUP_NAME_BYTES_MAX)
}

fn read_instance(reader: &mut Reader<'_>) -> Result<Option<String>, DecodeError> {
    reader.option("instance", |r| r.string("instance", GROUP_NAME_BYTES_MAX))
}

fn read_word(reader: &mut Reader<'_>, field: &'static str) -> Result<String, DecodeError> {
    reader.string(field, GROUP_WORD_BYTES_MAX)
}

fn put_names(out: &mut impl BufMut, names: &[String]) {
    put_count(out, names.len());
    for name in names {
        put_str(out, name);
    }
}

fn read_names(reader: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    reader.list("topics", 4, COUNT_MAX, |r| r.string("topic name", TOPIC_NAME_BYTES_MAX))
}

fn put_partitions(out: &mut impl BufMut, topics: &[TopicPartitions]) {
    put_count(out, topics.len());
    for TopicPartitions { topic, partitions } in topics {
        out.put_slice(&topic.0);
        put_count(out, partitions.len());
        for partition in partitions {
            out.put_u32_le(partition.0);
        }
    }
}

fn read_partitions(reader: &mut Reader<'_>) -> Result<Vec<TopicPartitions>, DecodeError> {
    reader.list("topics", TOPIC_ENTRY_BYTES_MIN, COUNT_MAX, |r| {
        Ok(TopicPartitions {
            topic: read_topic(r)?,
            partitions: r.list("partitions", 4, POSITIONS_MAX, read_partition)?,
        })
    })
}

fn put_topics(out: &mut impl BufMut, topics: &[TopicPositions]) {
    put_count(out, topics.len());
    for TopicPositions { topic, positions } in topics {
        TopicPositions::put_front(*topic, positions.len(), out);
        for position in positions {
            position.put(out);
        }
    }
}

fn read_topics(reader: &mut Reader<'_>) -> Result<Vec<TopicPositions>, DecodeError> {
    reader.list("topics", TOPIC_ENTRY_BYTES_MIN, COUNT_MAX, |r| {
        Ok(TopicPositions { topic: read_topic(r)?, positions: read_positions(r)? })
    })
}

impl Body for GroupHeartbeatRequest {
    const KIND: MessageKind = MessageKind::GroupHeartbeat;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.group);
        put_str(out, &self.member);
        out.put_i32_le(self.epoch);
        put_option(out, self.instance.as_ref(), |out, instance| put_str(out, instance));
        put_option(out, self.rebalance_timeout_ms, BufMut::put_u32_le);
        put_option(out, self.topics.as_ref(), |out, topics| put_names(out, topics));
        put_option(out, self.assignor.as_ref(), |out, assignor| put_str(out, assignor));
        put_option(out, self.owned.as_ref(), |out, owned| put_partitions(out, owned));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            group: read_group(reader)?,
            member: read_member(reader)?,
            epoch: reader.i32("epoch")?,
            instance: read_instance(reader)?,
            rebalance_timeout_ms: reader.option("rebalance timeout", |r| r.u32("rebalance timeout"))?,
            topics: reader.option("topics", read_names)?,
            assignor: reader.option("assignor", |r| read_word(r, "assignor"))?,
            owned: reader.option("owned", read_partitions)?,
        })
    }
}

impl Body for GroupHeartbeatReply {
    const KIND: MessageKind = MessageKind::GroupHeartbeat;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.member);
        out.put_i32_le(self.epoch);
        out.put_u32_le(self.heartbeat_interval_ms);
        out.put_u32_le(self.session_timeout_ms);
        put_option(out, self.assignment.as_ref(), |out, assignment| put_partitions(out, assignment));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            member: read_member(reader)?,
            epoch: reader.i32("epoch")?,
            heartbeat_interval_ms: reader.u32("heartbeat interval")?,
            session_timeout_ms: reader.u32("session timeout")?,
            assignment: reader.option("assignment", read_partitions)?,
        })
    }
}

impl Body for CommitGroupOffsetsRequest {
    const KIND: MessageKind = MessageKind::CommitGroupOffsets;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.group);
        put_str(out, &self.member);
        out.put_i32_le(self.epoch);
        put_topics(out, &self.topics);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            group: read_group(reader)?,
            member: read_member(reader)?,
            epoch: reader.i32("epoch")?,
            topics: read_topics(reader)?,
        })
    }
}

impl Body for CommitGroupOffsetsReply {
    const KIND: MessageKind = MessageKind::CommitGroupOffsets;

    fn encode(&self, out: &mut impl BufMut) {
        put_count(out, self.rejected.len());
        for RejectedPosition { topic, partition, error } in &self.rejected {
            out.put_slice(&topic.0);
            out.put_u32_le(partition.0);
            out.put_u16_le(*error as u16);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let rejected = reader.list("rejected", REJECTED_BYTES, COUNT_MAX, |r| {
            Ok(RejectedPosition {
                topic: read_topic(r)?,
                partition: read_partition(r)?,
                error: ErrorCode::from_u16(r.u16("position error")?),
            })
        })?;
        Ok(Self { rejected })
    }
}

impl Body for ReadGroupOffsetsRequest {
    const KIND: MessageKind = MessageKind::ReadGroupOffsets;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.group);
        put_option(out, self.member.as_ref(), |out, (member, epoch)| {
            put_str(out, member);
            out.put_i32_le(*epoch);
        });
        put_option(out, self.partitions.as_ref(), |out, partitions| put_partitions(out, partitions));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            group: read_group(reader)?,
            member: reader.option("member", |r| Ok((read_member(r)?, r.i32("epoch")?)))?,
            partitions: reader.option("partitions", read_partitions)?,
        })
    }
}

impl ReadGroupOffsetsReply {
    /// Appends the reply up to its topics; `topics` entries must follow.
    pub fn put_front(topics: usize, out: &mut impl BufMut) {
        put_count(out, topics);
    }
}

impl TopicPositions {
    /// Appends a topic's entry up to its positions; `positions` entries must follow.
    pub fn put_front(topic: TopicId, positions: usize, out: &mut impl BufMut) {
        out.put_slice(&topic.0);
        put_count(out, positions);
    }
}

impl Body for ReadGroupOffsetsReply {
    const KIND: MessageKind = MessageKind::ReadGroupOffsets;

    fn encode(&self, out: &mut impl BufMut) {
        put_topics(out, &self.topics);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { topics: read_topics(reader)? })
    }
}

impl Body for ListGroupsRequest {
    const KIND: MessageKind = MessageKind::ListGroups;

    fn encode(&self, out: &mut impl BufMut) {
        put_str(out, &self.after);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { after: read_group(reader)? })
    }
}

impl Body for ListGroupsReply {
    const KIND: MessageKind = MessageKind::ListGroups;

    fn encode(&self, out: &mut impl BufMut) {
        put_count(out, self.groups.len());
        for GroupInfo { name, protocol, state } in &self.groups {
            put_str(out, name);
            put_str(out, protocol);
            put_str(out, state);
        }
        out.put_u8(u8::from(self.more));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let groups = reader.list("groups", GROUP_BYTES_MIN, COUNT_MAX, |r| {
            Ok(GroupInfo {
                name: read_group(r)?,
                protocol: read_word(r, "protocol")?,
                state: read_word(r, "state")?,
            })
        })?;
        Ok(Self { groups, more: reader.bool("more")? })
    }
}

macro_rules! name_only_bodies {
    ($($name:ident: $kind:ident;)+) => {
        $(
            impl Body for $name {
                const KIND: MessageKind = MessageKind::$kind;

                fn encode(&self, out: &mut impl BufMut) {
                    put_str(out, &self.name);
                }

                fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                    Ok(Self { name: read_group(reader)? })
                }
            }
        )+
    };
}

name_only_bodies! {
    DescribeGroupRequest: DescribeGroup;
    DeleteGroupRequest: DeleteGroup;
}

impl DescribeGroupReply {
    /// Appends the reply up to its members; `members` entries must follow.
    pub fn put_front(&self, members: usize, out: &mut impl BufMut) {
        put_str(out, &self.protocol);
        put_str(out, &self.state);
        out.put_i32_le(self.epoch);
        put_str(out, &self.assignor);
        put_count(out, members);
    }
}

impl GroupMemberInfo {
    /// Appends the encoding to `out`.
    pub fn put(&self, out: &mut impl BufMut) {
        put_str(out, &self.member);
        put_option(out, self.instance.as_ref(), |out, instance| put_str(out, instance));
        put_str(out, &self.client_name);
        put_str(out, &self.host);
        out.put_i32_le(self.epoch);
        put_names(out, &self.topics);
        put_partitions(out, &self.assignment);
        put_partitions(out, &self.target);
    }
}

impl Body for DescribeGroupReply {
    const KIND: MessageKind = MessageKind::DescribeGroup;

    fn encode(&self, out: &mut impl BufMut) {
        self.put_front(self.members.len(), out);
        for member in &self.members {
            member.put(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            protocol: read_word(reader, "protocol")?,
            state: read_word(reader, "state")?,
            epoch: reader.i32("epoch")?,
            assignor: read_word(reader, "assignor")?,
            members: reader.list("members", MEMBER_BYTES_MIN, COUNT_MAX, |r| {
                Ok(GroupMemberInfo {
                    member: read_member(r)?,
                    instance: read_instance(r)?,
                    client_name: r.string("client name", CLIENT_NAME_BYTES_MAX)?,
                    host: read_word(r, "host")?,
                    epoch: r.i32("epoch")?,
                    topics: read_names(r)?,
                    assignment: read_partitions(r)?,
                    target: read_partitions(r)?,
                })
            })?,
        })
    }
}
