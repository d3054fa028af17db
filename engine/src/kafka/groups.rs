//! Requests of group members: join, sync, heartbeat, leave.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    AssignedPartitions, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatAssignment,
    HeartbeatRequest, HeartbeatResponse, JoinGroupMember, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupMemberResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use highwater_net::{Entries, Pieces};
use highwater_protocol::ids::{GroupEpoch, PartitionIndex, TopicId};

use super::Call;
use super::error::code;
use crate::context::{AnswerTo, Context};
use crate::coord::groups::{self, GroupError, JoinReply, JoinedMember};

pub(super) fn join_group(
    context: &mut Context<'_>,
    call: Call,
    client: &str,
    request: &JoinGroupRequest<'_>,
) {
    let version = call.origin.version;
    let protocols = request.protocols.iter();
    let ask = groups::JoinRequest {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        instance: request.group_instance_id.map(str::to_owned),
        client: context.client(call.conn, Some(client)),
        protocol_type: request.protocol_type.to_owned(),
        protocols: protocols.map(|p| (p.name.to_owned(), Bytes::copy_from_slice(p.metadata))).collect(),
        session_timeout_ms: request.session_timeout_ms,
        // Version 0 has one timeout for both.
        rebalance_timeout_ms: match version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        },
        requires_member_id: version >= 4,
        can_skip_assignment: version >= 9,
    };
    let member = request.member_id.to_owned();
    context.ask_group_and_wait(call.conn, ask, move |context, reply| {
        let (mut response, members) = match reply {
            Ok(reply) => join_response(reply),
            Err(error) => {
                let (error_code, member_id) = (error.into(), member.into());
                (JoinGroupResponse { error_code, member_id, ..Default::default() }, Vec::new())
            }
        };
        if version < 7 {
            response.protocol_name.get_or_insert_default();
        }
        let Frame { front, back } = response.frame(version, members.len());
        let pieces = Pieces::new(front, JoinedMembers { version, members }, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    });
}

/// The members in the JoinGroup response to a leader.
#[derive(Debug)]
struct JoinedMembers {
    version: i16,
    members: Vec<JoinedMember>,
}

impl Entries for JoinedMembers {
    fn count(&self) -> usize {
        self.members.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let member = &self.members[entry];
        let member = JoinGroupMember {
            member_id: Cow::Borrowed(&member.member),
            group_instance_id: member.instance.as_deref().map(Cow::Borrowed),
            metadata: Cow::Borrowed(&member.metadata),
        };
        member.put(self.version, out);
        false
    }

    fn memory_bytes(&self) -> usize {
        let of = |member: &JoinedMember| {
            member.member.len() + member.instance.as_ref().map_or(0, String::len) + member.metadata.len()
        };
        size_of_val(&self.members[..]) + self.members.iter().map(of).sum::<usize>()
    }
}

pub(super) fn sync_group(context: &mut Context<'_>, call: Call, request: &SyncGroupRequest<'_>) {
    let lacks_protocol = request.protocol_type.is_none() || request.protocol_name.is_none();
    if call.origin.version >= 5 && lacks_protocol {
        let error_code = KafkaError::INCONSISTENT_GROUP_PROTOCOL;
        return context.answer(call, &SyncGroupResponse { error_code, ..Default::default() });
    }
    let assignments = request.assignments.iter();
    let ask = groups::SyncRequest {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        instance: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(str::to_owned),
        protocol: request.protocol_name.map(str::to_owned),
        assignments: assignments
            .map(|a| (a.member_id.to_owned(), Bytes::copy_from_slice(a.assignment)))
            .collect(),
    };
    context.ask_group_and_wait(call.conn, ask, move |context, reply| {
        let response = match reply {
            Ok(reply) => SyncGroupResponse {
                throttle_time_ms: 0,
                error_code: code(reply.error),
                protocol_type: reply.protocol_type.map(Into::into),
                protocol_name: reply.protocol.map(Into::into),
                assignment: Vec::from(reply.assignment).into(),
            },
            Err(error) => SyncGroupResponse { error_code: error.into(), ..Default::default() },
        };
        context.answer(call, &response);
    });
}

pub(super) fn heartbeat(context: &mut Context<'_>, call: Call, request: &HeartbeatRequest<'_>) {
    let ask = groups::HeartbeatRequest {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        instance: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id,
    };
    context.ask_group(call.conn, ask, move |context, reply| {
        let error_code = match reply {
            Ok(error) => code(error),
            Err(error) => error.into(),
        };
        context.answer(call, &HeartbeatResponse { throttle_time_ms: 0, error_code });
    });
}

pub(super) fn leave_group(context: &mut Context<'_>, call: Call, request: &LeaveGroupRequest<'_>) {
    let is_single_leave = call.origin.version < 3;
    let members = if is_single_leave {
        vec![(request.member_id.to_owned(), None)]
    } else {
        let members = request.members.iter();
        members.map(|m| (m.member_id.to_owned(), m.group_instance_id.map(str::to_owned))).collect()
    };
    let ask = groups::LeaveRequest { group: request.group_id.to_owned(), members };
    context.ask_group(call.conn, ask, move |context, reply| {
        let (error_code, members) = match reply {
            Ok(reply) if is_single_leave => {
                let of_member = reply.members.first().and_then(|(_, _, error)| *error);
                (code(reply.error.or(of_member)), Vec::new())
            }
            Ok(reply) => (code(reply.error), reply.members),
            Err(error) => (error.into(), Vec::new()),
        };
        let response = LeaveGroupResponse { error_code, ..Default::default() };
        if is_single_leave {
            return context.answer(call, &response);
        }
        let version = call.version();
        let Frame { front, back } = response.frame(version, members.len());
        let pieces = Pieces::new(front, LeaveResults { version, members }, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    });
}

/// The result for a member of a LeaveGroup request: its id, its instance id, and the error if it could not leave.
type LeaveResult = (String, Option<String>, Option<GroupError>);

/// The members of a LeaveGroup response.
#[derive(Debug)]
struct LeaveResults {
    version: i16,
    members: Vec<LeaveResult>,
}

impl Entries for LeaveResults {
    fn count(&self) -> usize {
        self.members.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let (member, instance, error) = &self.members[entry];
        let member = LeaveGroupMemberResponse {
            member_id: Cow::Borrowed(member),
            group_instance_id: instance.as_deref().map(Cow::Borrowed),
            error_code: code(*error),
        };
        member.put(self.version, out);
        false
    }

    fn memory_bytes(&self) -> usize {
        let of =
            |(member, instance, _): &LeaveResult| member.len() + instance.as_ref().map_or(0, String::len);
        size_of_val(&self.members[..]) + self.members.iter().map(of).sum::<usize>()
    }
}

pub(super) fn consumer_group_heartbeat(
    context: &mut Context<'_>,
    call: Call,
    client: &str,
    request: &ConsumerGroupHeartbeatRequest<'_>,
) {
    if call.origin.version >= 1 && request.member_id.is_empty() {
        let response = ConsumerGroupHeartbeatResponse {
            error_code: KafkaError::INVALID_REQUEST,
            error_message: Some(
                "the member id is missing; since version 1, members generate it themselves".into(),
            ),
            ..Default::default()
        };
        return context.answer(call, &response);
    }
    let owned = request.topic_partitions.as_ref().map(|topics| {
        let topics = topics
            .iter()
            .map(|t| (TopicId(t.topic_id), t.partitions.iter().map(|p| PartitionIndex(*p as u32))));
        topics.map(|(id, partitions)| (id, partitions.collect())).collect()
    });
    let names = request.subscribed_topic_names.as_ref();
    let ask = groups::ConsumerHeartbeatRequest {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        epoch: GroupEpoch(request.member_epoch),
        instance: request.instance_id.map(str::to_owned),
        rack: request.rack_id.map(str::to_owned),
        client: context.client(call.conn, Some(client)),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topic_names: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        topic_regex: request.subscribed_topic_regex.map(str::to_owned),
        assignor: request.server_assignor.map(str::to_owned),
        owned,
    };
    context.ask_group(call.conn, ask, move |context, reply| {
        let response = match reply {
            Ok(reply) => ConsumerGroupHeartbeatResponse {
                throttle_time_ms: 0,
                error_code: code(reply.error),
                error_message: reply.message.map(Into::into),
                member_id: Some(reply.member.into()),
                member_epoch: reply.epoch.0,
                heartbeat_interval_ms: reply.heartbeat_interval_ms,
                assignment: reply.assignment.map(heartbeat_assignment),
            },
            Err(error) => ConsumerGroupHeartbeatResponse { error_code: error.into(), ..Default::default() },
        };
        context.answer(call, &response);
    });
}

fn join_response(reply: JoinReply) -> (JoinGroupResponse<'static>, Vec<JoinedMember>) {
    let response = JoinGroupResponse {
        throttle_time_ms: 0,
        error_code: code(reply.error),
        generation_id: reply.generation,
        protocol_type: reply.protocol_type.map(Into::into),
        protocol_name: reply.protocol.map(Into::into),
        leader: reply.leader.into(),
        skip_assignment: reply.skip_assignment,
        member_id: reply.member.into(),
        members: Vec::new(),
    };
    (response, reply.members)
}

fn heartbeat_assignment(topics: Vec<(TopicId, Vec<PartitionIndex>)>) -> HeartbeatAssignment {
    let topics = topics.into_iter().map(|(topic, partitions)| AssignedPartitions {
        topic_id: topic.0,
        partitions: partitions.into_iter().map(|p| p.0 as i32).collect(),
    });
    HeartbeatAssignment { topic_partitions: topics.collect() }
}
