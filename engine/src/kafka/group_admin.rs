//! Requests of tools: lists, describes and deletes groups.

use std::borrow::Cow;

use bytes::BytesMut;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DeletedGroup, DescribeGroupsRequest, DescribeGroupsResponse, DescribedAssignment, DescribedConsumerGroup,
    DescribedConsumerGroupMember, DescribedGroup, DescribedGroupMember, DescribedTopicPartitions,
    ListGroupsRequest, ListGroupsResponse, ListedGroup,
};
use highwater_net::kafka::schema::Message as _;
use highwater_net::kafka::wire::Wire as _;
use highwater_net::{Entries, Pieces};
use highwater_protocol::ids::TopicId;

use super::Call;
use super::error::code;
use super::names::distinct;
use crate::api::{ApiError, ControllerCall, DeleteGroups, DescribeConsumerGroups, DescribeGroups};
use crate::coord::groups::{self, GroupError};
use crate::limits::{GROUPS_PER_CALL_MAX, KAFKA_FILTERS_MAX};
use crate::shard::{AnswerTo, Context};

/// The state of an unknown group.
const DEAD: &str = "Dead";

/// Kafka's number for a member of the consumer protocol.
const CONSUMER_MEMBER: i8 = 1;

/// The allowed operations on a group, as a bit set of Kafka's operations: read, delete, describe, describe and alter configuration.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

fn operations(are_wanted: bool) -> i32 {
    if are_wanted { GROUP_OPERATIONS } else { i32::MIN }
}

/// Returns the names without duplicates: the description of a group can be many times as long as its name.
fn owned(names: &[&str]) -> Vec<String> {
    distinct(names.iter().copied()).map(str::to_owned).collect()
}

/// The groups of a ListGroups response.
#[derive(Debug)]
struct Listed {
    version: i16,
    groups: Vec<groups::ListedGroup>,
}

impl Entries for Listed {
    fn count(&self) -> usize {
        self.groups.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        let group = &self.groups[entry];
        let listed = ListedGroup {
            group_id: Cow::Borrowed(&group.group),
            protocol_type: Cow::Borrowed(&group.protocol_type),
            group_state: Cow::Borrowed(group.state),
            group_type: Cow::Borrowed(group.group_type),
        };
        listed.write(out, ListGroupsResponse::form(self.version));
        false
    }
}

pub(super) fn describe_groups(context: &mut Context<'_>, call: Call, request: &DescribeGroupsRequest<'_>) {
    let authorized_operations = operations(request.include_authorized_operations);
    let tells_of_unknown = call.origin.version >= 6;
    let names = owned(&request.groups);
    ask_about_groups(context, call, &names, DescribeGroups, move |context, told| {
        let mut groups = Vec::new();
        for (names, found) in told {
            match found {
                Ok(found) => groups.extend(found.into_iter().map(|(name, found)| DescribedGroup {
                    authorized_operations,
                    ..described(name, found, tells_of_unknown)
                })),
                Err(error) => groups.extend(names.into_iter().map(|name| DescribedGroup {
                    error_code: (&error).into(),
                    group_id: name.into(),
                    ..Default::default()
                })),
            }
        }
        context.answer(call, &DescribeGroupsResponse { throttle_time_ms: 0, groups });
    });
}

/// Asks the coordinator about groups, a few in each request. `finish` gets the names of each request with its reply.
fn ask_about_groups<C: ControllerCall>(
    context: &mut Context<'_>,
    call: Call,
    names: &[String],
    request: impl Fn(Vec<String>) -> C,
    finish: impl FnOnce(&mut Context<'_>, Vec<(Vec<String>, Result<C::Reply, ApiError>)>) + 'static,
) {
    let names: Vec<Vec<String>> = names.chunks(GROUPS_PER_CALL_MAX).map(<[String]>::to_vec).collect();
    let requests = names.iter().map(|names| request(names.clone())).collect();
    context.ask_each(call.conn, requests, move |context, replies| {
        finish(context, names.into_iter().zip(replies).collect());
    });
}

pub(super) fn list_groups(context: &mut Context<'_>, call: Call, request: &ListGroupsRequest<'_>) {
    let ask = groups::ListRequest {
        states: owned(&request.states_filter),
        types: owned(&request.types_filter),
        ..Default::default()
    };
    if ask.states.len() + ask.types.len() > KAFKA_FILTERS_MAX {
        let error_code = KafkaError::INVALID_REQUEST;
        return context.answer(call, &ListGroupsResponse { error_code, ..Default::default() });
    }
    context.ask(call.conn, ask, move |context, reply| {
        let (error_code, groups) = match reply {
            Ok(groups) => (KafkaError::NONE, groups),
            Err(error) => (error.into(), Vec::new()),
        };
        let version = call.version();
        let response = ListGroupsResponse { error_code, ..Default::default() };
        let Frame { front, back } = response.frame(version, groups.len());
        let pieces = Pieces::new(front, Listed { version, groups }, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    });
}

pub(super) fn delete_groups(context: &mut Context<'_>, call: Call, request: &DeleteGroupsRequest<'_>) {
    let names = owned(&request.groups_names);
    ask_about_groups(context, call, &names, DeleteGroups, move |context, told| {
        let mut results = Vec::new();
        for (names, outcomes) in told {
            match outcomes {
                Ok(outcomes) => results.extend(
                    outcomes
                        .into_iter()
                        .map(|(name, error)| DeletedGroup { group_id: name.into(), error_code: code(error) }),
                ),
                Err(error) => results.extend(
                    names
                        .into_iter()
                        .map(|name| DeletedGroup { group_id: name.into(), error_code: (&error).into() }),
                ),
            }
        }
        context.answer(call, &DeleteGroupsResponse { throttle_time_ms: 0, results });
    });
}

pub(super) fn consumer_group_describe(
    context: &mut Context<'_>,
    call: Call,
    request: &ConsumerGroupDescribeRequest<'_>,
) {
    let names = owned(&request.group_ids);
    let authorized_operations = operations(request.include_authorized_operations);
    ask_about_groups(context, call, &names, DescribeConsumerGroups, move |context, told| {
        let mut groups = Vec::new();
        for (names, found) in told {
            match found {
                Ok(found) => groups.extend(found.into_iter().map(|(name, found)| DescribedConsumerGroup {
                    authorized_operations,
                    ..described_consumer_group(context, name, found)
                })),
                Err(error) => groups.extend(names.into_iter().map(|name| DescribedConsumerGroup {
                    error_code: (&error).into(),
                    group_id: name.into(),
                    ..Default::default()
                })),
            }
        }
        context.answer(call, &ConsumerGroupDescribeResponse { throttle_time_ms: 0, groups });
    });
}

fn described_consumer_group(
    context: &Context<'_>,
    name: String,
    found: Result<groups::DescribedConsumerGroup, GroupError>,
) -> DescribedConsumerGroup<'static> {
    let group = match found {
        Ok(group) => group,
        Err(error) => {
            return DescribedConsumerGroup {
                error_code: code(Some(error)),
                error_message: Some(format!("group {name}: {error}").into()),
                group_id: name.into(),
                group_state: DEAD.into(),
                ..Default::default()
            };
        }
    };
    let members = group.members.into_iter().map(|member| DescribedConsumerGroupMember {
        member_id: member.member.into(),
        instance_id: member.instance.map(Into::into),
        rack_id: member.rack.map(Into::into),
        member_epoch: member.epoch,
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        subscribed_topic_names: member.topic_names.into_iter().map(Into::into).collect(),
        subscribed_topic_regex: Some(member.topic_regex.into()),
        assignment: named(context, member.assignment),
        target_assignment: named(context, member.target),
        member_type: CONSUMER_MEMBER,
    });
    DescribedConsumerGroup {
        group_id: name.into(),
        group_state: group.state.into(),
        group_epoch: group.epoch,
        assignment_epoch: group.assignment_epoch,
        assignor_name: group.assignor.into(),
        members: members.collect(),
        ..Default::default()
    }
}

/// Returns partitions with the names of their topics. Topics that were deleted meanwhile are left out.
fn named(context: &Context<'_>, topics: Vec<(TopicId, Vec<u32>)>) -> DescribedAssignment<'static> {
    let metadata = context.metadata;
    let named = topics.into_iter().filter_map(|(id, partitions)| {
        Some(DescribedTopicPartitions {
            topic_id: id.0,
            topic_name: metadata?.topic_by_id(id)?.name.clone().into(),
            partitions: partitions.into_iter().map(|p| p as i32).collect(),
        })
    });
    DescribedAssignment { topic_partitions: named.collect() }
}

fn described(
    name: String,
    found: Result<groups::DescribedGroup, GroupError>,
    tells_of_unknown: bool,
) -> DescribedGroup<'static> {
    let group = match found {
        Ok(group) => group,
        Err(error) => {
            // Old clients recognise an unknown group only by its state.
            let is_told = tells_of_unknown || error != GroupError::GroupIdNotFound;
            return DescribedGroup {
                error_code: if is_told { code(Some(error)) } else { KafkaError::NONE },
                error_message: is_told.then(|| format!("group {name}: {error}").into()),
                group_id: name.into(),
                group_state: DEAD.into(),
                ..Default::default()
            };
        }
    };
    let members = group.members.into_iter().map(|member| DescribedGroupMember {
        member_id: member.member.into(),
        group_instance_id: member.instance.map(Into::into),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: Vec::from(member.metadata).into(),
        member_assignment: Vec::from(member.assignment).into(),
    });
    DescribedGroup {
        group_id: name.into(),
        group_state: group.state.into(),
        protocol_type: group.protocol_type.into(),
        protocol_data: group.protocol.into(),
        members: members.collect(),
        ..Default::default()
    }
}
