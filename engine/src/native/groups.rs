//! Groups: translates requests for the coordinator, and its replies.

use highwater_net::Reply;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{LeaderEpoch, PartitionIndex, TopicId};
use highwater_protocol::limits::CONTROL_BODY_BYTES_MAX;
use highwater_protocol::native::{
    CommitGroupOffsetsReply, CommitGroupOffsetsRequest, CommitOffsetsRequest, CommittedOffset,
    DeleteGroupRequest, DescribeGroupReply, DescribeGroupRequest, GroupHeartbeatReply, GroupHeartbeatRequest,
    GroupInfo, GroupMemberInfo, JOIN_EPOCH, ListGroupsReply, ListGroupsRequest, ReadGroupOffsetsReply,
    ReadGroupOffsetsRequest, ReadOffsetsReply, ReadOffsetsRequest, RejectedPosition, TopicPartitions,
    TopicPositions,
};

use super::Call;
use super::error::reply_of;
use crate::api::{ApiError, DeleteGroups, DescribeOneGroup, DescribedOneGroup};
use crate::coord::groups::{
    Client, CommitOutcome, CommitRequest, CommittedPartition, ConsumerHeartbeatReply,
    ConsumerHeartbeatRequest, DescribedConsumerGroup, DescribedConsumerMember, DescribedGroup, FetchReply,
    FetchRequest, GroupConfig, GroupError, ListRequest, ListedGroup,
};
use crate::limits::OFFSETS_BYTES_MAX;
use crate::shard::Context;

/// Maximum bytes of group names in one reply to a list. The client requests the rest.
const LIST_BYTES_MAX: usize = CONTROL_BODY_BYTES_MAX / 2;

/// Heartbeat interval of a member that waits for partitions that others are revoking.
const UNSETTLED_INTERVAL_MS: u32 = 500;

/// Commits offsets of a named consumer.
pub(super) fn commit(context: &mut Context<'_>, call: Call, request: CommitOffsetsRequest) {
    let topic = request.topic;
    if let Err(error) = context.targets().topic_by_id(topic) {
        return context.refuse(call, &error);
    }
    let consumer = request.consumer.clone();
    context.ask(call.conn, of_named(request), move |context, outcomes| {
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
                    Some((partition, error)) => refuse_commit(&consumer, topic, partition, error),
                    None => Reply::Empty,
                }
            }
            Err(error) => reply_of(&error),
        };
        context.reply(call, reply);
    });
}

/// Reads the committed offsets of a named consumer.
pub(super) fn read(context: &mut Context<'_>, call: Call, request: ReadOffsetsRequest) {
    let topic = request.topic;
    if let Err(error) = context.targets().topic_by_id(topic) {
        return context.refuse(call, &error);
    }
    context.ask(call.conn, to_fetch(request.consumer, None, None), move |context, reply| {
        let reply = match reply {
            Ok(FetchReply { error: Some(error), .. }) => refuse(error, None),
            Ok(FetchReply { error: None, offsets }) => {
                let positions = offsets.into_iter().filter(|p| p.topic == topic).map(to_position);
                Reply::body(&ReadOffsetsReply { positions: positions.collect() })
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
    context.ask(call.conn, request, move |context, reply| {
        let config = &context.setup.groups;
        let reply = reply.map(|reply| heartbeat(&group, joins, reply, config));
        context.reply(call, reply.unwrap_or_else(|error| reply_of(&error)));
    });
}

/// Commits offsets of a member.
pub(super) fn commit_of_member(context: &mut Context<'_>, call: Call, request: CommitGroupOffsetsRequest) {
    context.ask(call.conn, of_member(request), move |context, outcomes| {
        let reply = outcomes.map(|outcomes| committed(&outcomes));
        context.reply(call, reply.unwrap_or_else(|error| reply_of(&error)));
    });
}

/// Reads the committed offsets of a group, for a member or another client.
pub(super) fn read_of_group(context: &mut Context<'_>, call: Call, request: ReadGroupOffsetsRequest) {
    let partitions =
        request.partitions.map(|topics| topics.into_iter().map(|of| (of.topic, of.partitions)).collect());
    let request = to_fetch(request.group, request.member, partitions);
    context.ask(call.conn, request, move |context, reply| {
        let reply = match reply {
            Ok(FetchReply { error: Some(error), .. }) => refuse(error, None),
            Ok(FetchReply { error: None, offsets }) => bounded(
                &ReadGroupOffsetsReply { topics: by_topic(offsets) },
                "ask for the positions of fewer partitions",
            ),
            Err(error) => reply_of(&error),
        };
        context.reply(call, reply);
    });
}

/// Lists groups.
pub(super) fn list_groups(context: &mut Context<'_>, call: Call, request: ListGroupsRequest) {
    let after = request.after;
    let request = ListRequest { after: after.clone(), bytes_max: Some(LIST_BYTES_MAX), ..Default::default() };
    context.ask(call.conn, request, move |context, groups| {
        let reply = groups.map(|groups| list(&after, groups));
        context.reply(call, reply.unwrap_or_else(|error| reply_of(&error)));
    });
}

/// Describes a group, whichever protocol its members speak.
pub(super) fn describe_group(context: &mut Context<'_>, call: Call, request: DescribeGroupRequest) {
    context.ask(call.conn, DescribeOneGroup(request.name), move |context, found| {
        let reply = match found {
            Ok(Ok(DescribedOneGroup::Classic(group))) => describe(&of_classic(group)),
            Ok(Ok(DescribedOneGroup::Consumer(group))) => describe(&of_consumers(group)),
            Ok(Err(error)) => refuse(error, None),
            Err(error) => reply_of(&error),
        };
        context.reply(call, reply);
    });
}

/// Deletes a group.
pub(super) fn delete_group(context: &mut Context<'_>, call: Call, request: DeleteGroupRequest) {
    context.ask(call.conn, DeleteGroups(vec![request.name]), move |context, outcomes| {
        let reply = match outcomes {
            Ok(outcomes) => match outcomes.into_iter().find_map(|(_, error)| error) {
                Some(error) => refuse(error, None),
                None => Reply::Empty,
            },
            Err(error) => reply_of(&error),
        };
        context.reply(call, reply);
    });
}

fn to_fetch(
    group: String,
    member: Option<(String, i32)>,
    partitions: Option<Vec<(TopicId, Vec<PartitionIndex>)>>,
) -> FetchRequest {
    FetchRequest { group, member, partitions, require_stable: false }
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

/// A named consumer is a group without members, whose offsets are kept until they are deleted.
fn of_named(request: CommitOffsetsRequest) -> CommitRequest {
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

fn of_member(request: CommitGroupOffsetsRequest) -> CommitRequest {
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
        epoch: request.epoch,
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

fn from_partitions(topics: Vec<TopicPartitions>) -> Vec<(TopicId, Vec<u32>)> {
    let topics = topics.into_iter();
    topics.map(|of| (of.topic, of.partitions.into_iter().map(|p| p.0).collect())).collect()
}

fn to_partitions(topics: Vec<(TopicId, Vec<u32>)>) -> Vec<TopicPartitions> {
    let topics = topics.into_iter().map(|(topic, partitions)| TopicPartitions {
        topic,
        partitions: partitions.into_iter().map(PartitionIndex).collect(),
    });
    topics.collect()
}

fn to_position(of: CommittedPartition) -> CommittedOffset {
    CommittedOffset {
        partition: of.partition,
        offset: of.offset,
        leader_epoch: of.leader_epoch.0,
        metadata: of.metadata,
    }
}

/// Offsets come in the order of their topics, or of the request.
fn by_topic(offsets: Vec<CommittedPartition>) -> Vec<TopicPositions> {
    let mut topics: Vec<TopicPositions> = Vec::new();
    for of in offsets {
        let topic = of.topic;
        match topics.last_mut() {
            Some(last) if last.topic == topic => last.positions.push(to_position(of)),
            _ => topics.push(TopicPositions { topic, positions: vec![to_position(of)] }),
        }
    }
    topics
}

fn heartbeat(group: &str, joins: bool, reply: ConsumerHeartbeatReply, config: &GroupConfig) -> Reply {
    match reply.error {
        // The coordinator reports, in Kafka's terms, that there is no consumer group with this name.
        Some(GroupError::GroupIdNotFound) if joins => Reply::error(
            ErrorCode::OtherGroupProtocol,
            format!("the members of {group} speak Kafka's classic protocol; stop them or use another group"),
        ),
        Some(error) => refuse(error, reply.message),
        None => Reply::body(&GroupHeartbeatReply {
            member: reply.member,
            epoch: reply.epoch,
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
fn committed(outcomes: &[CommitOutcome]) -> Reply {
    let first = outcomes.first().and_then(|(.., error)| *error);
    if let Some(error) = first.filter(|first| outcomes.iter().all(|(.., error)| *error == Some(*first))) {
        return refuse(error, None);
    }
    let rejected = outcomes.iter().filter_map(|(topic, partition, error)| {
        error.map(|error| RejectedPosition { topic: *topic, partition: *partition, error: code_of(error) })
    });
    Reply::body(&CommitGroupOffsetsReply { rejected: rejected.collect() })
}

fn list(after: &str, groups: Vec<ListedGroup>) -> Reply {
    let mut bytes = 0;
    let mut listed = Vec::new();
    let mut more = false;
    for group in groups.into_iter().filter(|group| group.group.as_str() > after) {
        bytes += group.group.len();
        if bytes > LIST_BYTES_MAX {
            more = true;
            break;
        }
        let protocol = protocol_name(group.group_type, &group.protocol_type);
        let (protocol, state) = (protocol.to_owned(), group.state.to_owned());
        listed.push(GroupInfo { name: group.group, protocol, state });
    }
    Reply::body(&ListGroupsReply { groups: listed, more })
}

/// Returns the protocol of a group. Offsets that are committed under a name without being a member are a classic group to Kafka's clients.
fn protocol_name<'a>(group_type: &'a str, protocol_type: &str) -> &'a str {
    if group_type == "classic" && protocol_type.is_empty() { "named" } else { group_type }
}

fn describe(group: &DescribeGroupReply) -> Reply {
    bounded(group, "the group has too many members and partitions for one message")
}

/// Returns a reply, or an error if it is too long. Its size depends on the data of other clients.
fn bounded(body: &impl highwater_protocol::native::Body, or: &str) -> Reply {
    match Reply::body(body) {
        Reply::Body(bytes) if bytes.len() > CONTROL_BODY_BYTES_MAX => {
            let text = format!("the answer has {} bytes, over the limit of a message: {or}", bytes.len());
            Reply::error(ErrorCode::TooLarge, text)
        }
        reply => reply,
    }
}

fn of_classic(group: DescribedGroup) -> DescribeGroupReply {
    let members = group.members.into_iter().map(|member| GroupMemberInfo {
        member: member.member,
        instance: member.instance,
        client_name: member.client_id,
        host: member.client_host,
        epoch: 0,
        topics: Vec::new(),
        assignment: Vec::new(),
        target: Vec::new(),
    });
    DescribeGroupReply {
        protocol: protocol_name("classic", &group.protocol_type).to_owned(),
        state: group.state.to_owned(),
        epoch: 0,
        assignor: group.protocol,
        members: members.collect(),
    }
}

fn of_consumers(group: DescribedConsumerGroup) -> DescribeGroupReply {
    let members = group.members.into_iter().map(|member: DescribedConsumerMember| GroupMemberInfo {
        member: member.member,
        instance: member.instance,
        client_name: member.client_id,
        host: member.client_host,
        epoch: member.epoch,
        topics: member.topic_names,
        assignment: to_partitions(member.assignment),
        target: to_partitions(member.target),
    });
    DescribeGroupReply {
        protocol: "consumer".to_owned(),
        state: group.state.to_owned(),
        epoch: group.epoch,
        assignor: group.assignor,
        members: members.collect(),
    }
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
fn refuse(error: GroupError, message: Option<String>) -> Reply {
    Reply::error(code_of(error), message.unwrap_or_else(|| error.to_string()))
}

/// Why no more offsets are kept.
fn too_many_offsets(config: &GroupConfig) -> String {
    let max = config.offsets_bytes_max;
    let more = if max < OFFSETS_BYTES_MAX { ", or start the broker with a larger --memory" } else { "" };
    format!(
        "the offsets of all groups and consumers have reached their limit of {max} bytes; delete groups and consumers that are not needed{more}"
    )
}

fn refuse_commit(consumer: &str, topic: TopicId, partition: PartitionIndex, error: GroupError) -> Reply {
    let (code, text) = match error {
        GroupError::CoordinatorNotAvailable => {
            (ErrorCode::StorageFull, "the disk is full: positions cannot be kept".to_owned())
        }
        GroupError::OffsetMetadataTooLarge => (
            ErrorCode::TooLarge,
            format!("the metadata of the position of partition {partition} is too long"),
        ),
        GroupError::UnknownTopicOrPartition => {
            (ErrorCode::UnknownPartition, format!("topic {topic} has no partition {partition}"))
        }
        GroupError::UnknownMemberId => (
            ErrorCode::InvalidArgument,
            format!(
                "{consumer} is a group with members, and only these commit; stop them or use another name"
            ),
        ),
        other => (ErrorCode::InvalidArgument, format!("positions of {consumer} cannot be kept: {other}")),
    };
    Reply::error(code, text)
}
