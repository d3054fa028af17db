//! Groups: translates requests for the coordinator, and its replies. Requests with long replies are in `group_lists.rs`.

use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{GroupEpoch, LeaderEpoch, PartitionIndex, TopicId};
use highwater_protocol::native::{
    CommitGroupOffsetsReply, CommitGroupOffsetsRequest, CommitOffsetsRequest, CommittedOffset,
    DeleteGroupRequest, GroupHeartbeatReply, GroupHeartbeatRequest, JOIN_EPOCH, RejectedPosition,
    TopicPartitions, TopicPositions,
};

use super::Call;
use super::error::reply_of;
use crate::api::ApiError;
use crate::calls::DeleteGroups;
use crate::context::Context;
use crate::coord::groups::{
    Client, CommitOutcome, CommitRequest, CommittedPartition, ConsumerHeartbeatReply,
    ConsumerHeartbeatRequest, GroupConfig, GroupError,
};
use crate::limits::OFFSETS_BYTES_MAX;

/// Heartbeat interval of a member that waits for partitions that others are revoking.
const UNSETTLED_INTERVAL_MS: u32 = 500;

/// Commits offsets of a named consumer.
pub(super) fn commit(context: &mut Context<'_>, call: Call, request: CommitOffsetsRequest) {
    let topic = request.topic;
    if let Err(error) = context.targets().topic_by_id(topic) {
        return context.reply_error(call, &error);
    }
    context.ask_group(call.conn, named_consumer_commit(request), move |context, outcomes| {
        let reply = match outcomes {
            Ok(outcomes) => {
                match outcomes.into_iter().find_map(|(_, partition, error)| Some((partition, error?))) {
                    Some((_, GroupError::UnknownTopicOrPartition))
                        if context.targets().topic_by_id(topic).is_err() =>
                    {
                        reply_of(&ApiError::UnknownTopicId(topic))
                    }
                    Some((_, GroupError::InvalidCommitOffsetSize)) => {
                        Reply::error(ErrorCode::TooLarge, too_many_offsets(&context.setup.groups))
                    }
                    Some((partition, error)) => commit_error_reply(partition, error),
                    None => Reply::Empty,
                }
            }
            Err(error) => reply_of(&error),
        };
        context.reply(call, reply);
    });
}

/// Handles a member's heartbeat.
pub(super) fn member_heartbeat(context: &mut Context<'_>, call: Call, request: GroupHeartbeatRequest) {
    let (group, joins) = (request.group.clone(), request.epoch == JOIN_EPOCH);
    let request = to_heartbeat(request, context.client(call.conn, None));
    context.ask_group(call.conn, request, move |context, reply| {
        let config = &context.setup.groups;
        let reply = reply.map(|reply| heartbeat(&group, joins, reply, config));
        context.reply(call, reply.unwrap_or_else(|error| reply_of(&error)));
    });
}

/// Commits offsets of a member.
pub(super) fn commit_group_offsets(
    context: &mut Context<'_>,
    call: Call,
    request: CommitGroupOffsetsRequest,
) {
    context.ask_group(call.conn, member_commit(request), move |context, outcomes| {
        let reply = outcomes.map(|outcomes| commit_reply(&outcomes));
        context.reply(call, reply.unwrap_or_else(|error| reply_of(&error)));
    });
}

/// Deletes a group.
pub(super) fn delete_group(context: &mut Context<'_>, call: Call, request: DeleteGroupRequest) {
    context.ask_group(call.conn, DeleteGroups(vec![request.name]), move |context, outcomes| {
        let reply = match outcomes {
            Ok(mut outcomes) => match outcomes.pop() {
                Some(Ok(Some(error))) => error_reply(error, None),
                Some(Err(error)) => reply_of(&error),
                Some(Ok(None)) | None => Reply::Empty,
            },
            Err(error) => reply_of(&error),
        };
        context.reply(call, reply);
    });
}

fn to_committed(topic: TopicId, of: CommittedOffset) -> CommittedPartition {
    CommittedPartition {
        topic,
        partition: of.partition,
        offset: of.offset,
        leader_epoch: LeaderEpoch(of.leader_epoch),
        metadata: of.metadata,
    }
}

/// Returns the commit of a named consumer: a group without members, whose offsets do not expire.
fn named_consumer_commit(request: CommitOffsetsRequest) -> CommitRequest {
    let topic = request.topic;
    let offsets = request.positions.into_iter().map(|position| to_committed(topic, position));
    CommitRequest {
        group: request.consumer,
        member: String::new(),
        instance: None,
        generation: -1,
        knows_epochs: true,
        forever: true,
        offsets: offsets.collect(),
    }
}

fn member_commit(request: CommitGroupOffsetsRequest) -> CommitRequest {
    let offsets = request.topics.into_iter().flat_map(|TopicPositions { topic, positions }| {
        positions.into_iter().map(move |position| to_committed(topic, position))
    });
    CommitRequest {
        group: request.group,
        member: request.member,
        instance: None,
        generation: request.epoch,
        knows_epochs: true,
        forever: false,
        offsets: offsets.collect(),
    }
}

fn to_heartbeat(request: GroupHeartbeatRequest, client: Client) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        group: request.group,
        member: request.member,
        epoch: GroupEpoch(request.epoch),
        instance: request.instance,
        rack: None,
        client,
        rebalance_timeout_ms: request
            .rebalance_timeout_ms
            .map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX)),
        topic_names: request.topics,
        topic_regex: None,
        assignor: request.assignor,
        owned: request.owned.map(from_partitions),
    }
}

fn from_partitions(topics: Vec<TopicPartitions>) -> Vec<(TopicId, Vec<PartitionIndex>)> {
    topics.into_iter().map(|of| (of.topic, of.partitions)).collect()
}

pub(super) fn to_partitions(topics: Vec<(TopicId, Vec<PartitionIndex>)>) -> Vec<TopicPartitions> {
    topics.into_iter().map(|(topic, partitions)| TopicPartitions { topic, partitions }).collect()
}

fn heartbeat(group: &str, joins: bool, reply: ConsumerHeartbeatReply, config: &GroupConfig) -> Reply {
    match reply.error {
        // The coordinator reports, in Kafka's terms, that there is no consumer group with this name.
        Some(GroupError::GroupIdNotFound) if joins => Reply::error(
            ErrorCode::OtherGroupProtocol,
            format!("the members of {group} use Kafka's classic protocol; stop them or use another group"),
        ),
        Some(error) => error_reply(error, reply.message),
        None => Reply::body(&GroupHeartbeatReply {
            member: reply.member,
            epoch: reply.epoch.0,
            heartbeat_interval_ms: config
                .consumer_heartbeat_interval_ms
                .unsigned_abs()
                .min(if reply.is_settled { u32::MAX } else { UNSETTLED_INTERVAL_MS }),
            session_timeout_ms: u32::try_from(config.consumer_session_timeout_ms).unwrap_or(u32::MAX),
            assignment: reply.assignment.map(to_partitions),
        }),
    }
}

/// Returns the reply to a commit: an error for all, or one for each rejected partition.
fn commit_reply(outcomes: &[CommitOutcome]) -> Reply {
    let first = outcomes.first().and_then(|(.., error)| *error);
    if let Some(error) = first.filter(|first| outcomes.iter().all(|(.., error)| *error == Some(*first))) {
        return error_reply(error, None);
    }
    let rejected = outcomes.iter().filter_map(|(topic, partition, error)| {
        error.map(|error| RejectedPosition { topic: *topic, partition: *partition, error: code_of(error) })
    });
    Reply::body(&CommitGroupOffsetsReply { rejected: rejected.collect() })
}

/// Returns the native protocol's code for an error of the coordinator.
const fn code_of(error: GroupError) -> ErrorCode {
    match error {
        GroupError::UnknownTopicOrPartition => ErrorCode::UnknownPartition,
        GroupError::OffsetMetadataTooLarge | GroupError::InvalidCommitOffsetSize => ErrorCode::TooLarge,
        GroupError::CoordinatorNotAvailable => ErrorCode::StorageFull,
        GroupError::UnknownMemberId => ErrorCode::UnknownMember,
        GroupError::FencedMemberEpoch => ErrorCode::FencedMember,
        GroupError::StaleMemberEpoch | GroupError::IllegalGeneration => ErrorCode::StaleEpoch,
        GroupError::GroupIdNotFound => ErrorCode::UnknownGroup,
        GroupError::InconsistentGroupProtocol => ErrorCode::OtherGroupProtocol,
        GroupError::UnreleasedInstanceId => ErrorCode::InstanceInUse,
        GroupError::FencedInstanceId => ErrorCode::InstanceFenced,
        GroupError::NonEmptyGroup => ErrorCode::GroupNotEmpty,
        GroupError::GroupMaxSizeReached => ErrorCode::Overloaded,
        GroupError::RebalanceInProgress => ErrorCode::Unavailable,
        GroupError::InvalidGroupId
        | GroupError::InvalidSessionTimeout
        | GroupError::InvalidRequest
        | GroupError::UnsupportedVersion
        | GroupError::MemberIdRequired
        | GroupError::GroupSubscribedToTopic
        | GroupError::UnsupportedAssignor
        | GroupError::InvalidRegularExpression => ErrorCode::InvalidArgument,
    }
}

/// Returns the error reply. The client adds the operation and the group to the text.
pub(super) fn error_reply(error: GroupError, message: Option<String>) -> Reply {
    Reply::error(code_of(error), message.unwrap_or_else(|| error.to_string()))
}

/// Returns the error text for reaching the memory limit of offsets.
fn too_many_offsets(config: &GroupConfig) -> String {
    let max = config.offsets_bytes_max;
    let more = if max < OFFSETS_BYTES_MAX { ", or start the broker with a larger --memory" } else { "" };
    format!(
        "the committed offsets of all groups have reached the limit of {max} bytes; delete groups that are not needed{more}"
    )
}

/// Returns the reply to a commit that failed. The client adds the consumer and the topic to the text.
fn commit_error_reply(partition: PartitionIndex, error: GroupError) -> Reply {
    let (code, text) = match error {
        GroupError::CoordinatorNotAvailable => (ErrorCode::StorageFull, error.to_string()),
        GroupError::OffsetMetadataTooLarge => {
            (ErrorCode::TooLarge, format!("offset metadata too large for partition {partition}"))
        }
        GroupError::UnknownTopicOrPartition => {
            (ErrorCode::UnknownPartition, format!("the topic has no partition {partition}"))
        }
        GroupError::UnknownMemberId => (
            ErrorCode::InvalidArgument,
            "it is a group with members, and only its members can commit; stop them or use another name"
                .to_owned(),
        ),
        other => (ErrorCode::InvalidArgument, other.to_string()),
    };
    Reply::error(code, text)
}
