//! What tools ask about groups: which there are, what they look like, and that they be deleted.

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
use highwater_runtime::plane::Plane;

use super::Call;
use super::gather::{GroupAnswer, code, refusal};
use super::topics::distinct;
use crate::coord::groups::{self, GroupError, GroupReply, GroupRequest};
use crate::limits::{GROUPS_PER_ASK_MAX, KAFKA_FILTERS_MAX};
use crate::message::{Ask, Message};
use crate::shard::Shard;
use crate::shard::long_answers::AnswerTo;

/// The state of a group that is not there.
const DEAD: &str = "Dead";

/// Kafka's number for a member of the consumer protocol.
const CONSUMER_MEMBER: i8 = 1;

/// What may be done with a group, as bits of Kafka's operations: read, delete, describe, describe and alter its configuration.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

fn operations(are_wanted: bool) -> i32 {
    if are_wanted { GROUP_OPERATIONS } else { i32::MIN }
}

/// Names, each once: what is told of a group can be many times as long as its name.
fn owned(names: &[&str]) -> Vec<String> {
    distinct(names.iter().copied()).map(str::to_owned).collect()
}

/// The groups of a list.
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

impl Shard {
    pub(super) fn kafka_describe_groups(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &DescribeGroupsRequest<'_>,
    ) {
        let authorized_operations = operations(request.include_authorized_operations);
        let tells_of_unknown = call.origin.version >= 6;
        self.ask_about_groups(
            plane,
            call,
            &owned(&request.groups),
            GroupRequest::Describe,
            move |shard, call, told| {
                let mut groups = Vec::new();
                for (names, answer) in told {
                    match answer {
                        Ok(GroupReply::Describe(found)) => {
                            groups.extend(found.into_iter().map(|(name, found)| DescribedGroup {
                                authorized_operations,
                                ..described(name, found, tells_of_unknown)
                            }));
                        }
                        other => {
                            let error_code = refusal(other);
                            groups.extend(names.into_iter().map(|name| DescribedGroup {
                                error_code,
                                group_id: name.into(),
                                ..Default::default()
                            }));
                        }
                    }
                }
                shard.kafka_answer(call, &DescribeGroupsResponse { throttle_time_ms: 0, groups });
            },
        );
    }

    /// Asks the coordinator about groups, a few in each question. `finish` gets the names of each question with its answer.
    fn ask_about_groups(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        names: &[String],
        ask: impl Fn(Vec<String>) -> GroupRequest,
        finish: impl FnOnce(&mut Self, Call, Vec<(Vec<String>, GroupAnswer)>) + 'static,
    ) {
        let names: Vec<Vec<String>> = names.chunks(GROUPS_PER_ASK_MAX).map(<[String]>::to_vec).collect();
        let asks = names.iter().map(|names| Ask::Group(ask(names.clone()))).collect();
        self.kafka_gather(plane, call, asks, move |shard, call, answers| {
            let answers = answers.into_iter().map(|answer| shard.group_answer(answer));
            let told = names.into_iter().zip(answers).collect();
            finish(shard, call, told);
        });
    }

    pub(super) fn kafka_list_groups(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &ListGroupsRequest<'_>,
    ) {
        let ask = groups::ListRequest {
            states: owned(&request.states_filter),
            types: owned(&request.types_filter),
            ..Default::default()
        };
        if ask.states.len() + ask.types.len() > KAFKA_FILTERS_MAX {
            let error_code = KafkaError::INVALID_REQUEST;
            return self.kafka_answer(call, &ListGroupsResponse { error_code, ..Default::default() });
        }
        self.kafka_ask_group(plane, call, GroupRequest::List(ask), |shard, call, reply| {
            let (error_code, groups) = match reply {
                Ok(GroupReply::List(groups)) => (KafkaError::NONE, groups),
                other => (refusal(other), Vec::new()),
            };
            let version = call.version();
            let response = ListGroupsResponse { error_code, ..Default::default() };
            let Frame { front, back } = response.frame(version, groups.len());
            let pieces = Pieces::new(front, Listed { version, groups }, back);
            shard.answer_in_pieces(AnswerTo::Kafka(call), pieces);
        });
    }

    pub(super) fn kafka_delete_groups(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &DeleteGroupsRequest<'_>,
    ) {
        let names = owned(&request.groups_names);
        self.ask_about_groups(plane, call, &names, GroupRequest::Delete, |shard, call, told| {
            let mut outcomes: Vec<(String, KafkaError)> = Vec::new();
            for (names, answer) in told {
                match answer {
                    Ok(GroupReply::Delete(of)) => {
                        outcomes.extend(of.into_iter().map(|(name, error)| (name, code(error))));
                    }
                    other => {
                        let error = refusal(other);
                        outcomes.extend(names.into_iter().map(|name| (name, error)));
                    }
                }
            }
            let results = outcomes.into_iter();
            let results = results
                .map(|(name, error_code)| DeletedGroup { group_id: name.into(), error_code })
                .collect();
            shard.kafka_answer(call, &DeleteGroupsResponse { throttle_time_ms: 0, results });
        });
    }

    pub(super) fn kafka_consumer_group_describe(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &ConsumerGroupDescribeRequest<'_>,
    ) {
        let names = owned(&request.group_ids);
        let authorized_operations = operations(request.include_authorized_operations);
        self.ask_about_groups(
            plane,
            call,
            &names,
            GroupRequest::ConsumerDescribe,
            move |shard, call, told| {
                let mut groups = Vec::new();
                for (names, answer) in told {
                    match answer {
                        Ok(GroupReply::ConsumerDescribe(found)) => {
                            groups.extend(found.into_iter().map(|(name, found)| DescribedConsumerGroup {
                                authorized_operations,
                                ..shard.described_consumer_group(name, found)
                            }));
                        }
                        other => {
                            let error_code = refusal(other);
                            groups.extend(names.into_iter().map(|name| DescribedConsumerGroup {
                                error_code,
                                group_id: name.into(),
                                ..Default::default()
                            }));
                        }
                    }
                }
                shard.kafka_answer(call, &ConsumerGroupDescribeResponse { throttle_time_ms: 0, groups });
            },
        );
    }

    fn described_consumer_group(
        &self,
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
            assignment: self.named(member.assignment),
            target_assignment: self.named(member.target),
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

    /// Partitions with the names of their topics. A topic that was deleted meanwhile is nobody's.
    fn named(&self, topics: Vec<(TopicId, Vec<u32>)>) -> DescribedAssignment<'static> {
        let metadata = self.metadata.as_ref();
        let named = topics.into_iter().filter_map(|(id, partitions)| {
            Some(DescribedTopicPartitions {
                topic_id: id.0,
                topic_name: metadata?.topic_by_id(id)?.name.clone().into(),
                partitions: partitions.into_iter().map(|p| p as i32).collect(),
            })
        });
        DescribedAssignment { topic_partitions: named.collect() }
    }
}

fn described(
    name: String,
    found: Result<groups::DescribedGroup, GroupError>,
    tells_of_unknown: bool,
) -> DescribedGroup<'static> {
    let group = match found {
        Ok(group) => group,
        Err(error) => {
            // Old clients learn from the state alone that there is no such group.
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
