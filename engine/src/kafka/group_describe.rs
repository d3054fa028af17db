//! DescribeGroups and ConsumerGroupDescribe: descriptions of groups of the two protocols, with their members.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use highwater_net::Entries;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::long::Frame;
use highwater_net::kafka::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, DescribedAssignment, DescribedConsumerGroup, DescribedConsumerGroupMember,
    DescribedGroup, DescribedGroupMember, DescribedTopicPartitions,
};
use highwater_protocol::ids::{PartitionIndex, TopicId};
use highwater_runtime::plane::ConnId;

use super::Call;
use super::error::code;
use super::group_admin::distinct_names;
use crate::api::ApiError;
use crate::calls::{DescribeConsumerGroups, DescribeGroups};
use crate::context::{AnswerTo, ClientJob, Context, ReplyMemory};
use crate::coord::groups::{self, GroupError};
use crate::counters::Work;
use crate::meta::Topic;

/// The state of an unknown group.
const DEAD: &str = "Dead";

/// Kafka's code for a member of the consumer protocol.
const CONSUMER_MEMBER: i8 = 1;

/// The allowed operations on a group, as a bit set of Kafka's operations: read, delete, describe, describe and alter configuration.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Returns the allowed operations, or Kafka's value for operations that were not requested.
fn operations(are_requested: bool) -> i32 {
    if are_requested { GROUP_OPERATIONS } else { i32::MIN }
}

/// Why a group is not described: an error of the whole request, or of the group.
#[derive(Debug)]
enum DescribeError {
    Request(ApiError),
    Group(GroupError),
}

impl DescribeError {
    fn code(&self) -> KafkaError {
        match self {
            Self::Request(error) => error.into(),
            Self::Group(error) => code(Some(*error)),
        }
    }

    /// Returns the state to report for the group.
    fn state(&self) -> &'static str {
        match self {
            Self::Request(_) => "",
            Self::Group(_) => DEAD,
        }
    }

    fn text(&self, group: &str) -> String {
        match self {
            Self::Request(error) => error.to_string(),
            Self::Group(error) => format!("group {group}: {error}"),
        }
    }
}

/// A group by name, with its description.
type GroupResult<D> = (String, Result<D, DescribeError>);

/// The coordinator's reply.
type Reply<D> = Result<Vec<(String, Result<D, GroupError>)>, ApiError>;

/// Returns each group with its description or its error.
fn group_results<D>(names: Vec<String>, reply: Reply<D>) -> Vec<GroupResult<D>> {
    match reply {
        Ok(found) => {
            found.into_iter().map(|(name, found)| (name, found.map_err(DescribeError::Group))).collect()
        }
        Err(error) => {
            names.into_iter().map(|name| (name, Err(DescribeError::Request(error.clone())))).collect()
        }
    }
}

pub(super) fn describe_groups(context: &mut Context<'_>, call: Call, request: &DescribeGroupsRequest<'_>) {
    let authorized_operations = operations(request.include_authorized_operations);
    let names = distinct_names(&request.groups);
    let ask = DescribeGroups(names.clone());
    context.ask_measured(AnswerTo::Kafka(call), ask, move |context, reply, memory| {
        let version = call.version();
        let groups = group_results(names, reply);
        let Frame { front, back } = DescribeGroupsResponse::default().frame(version, groups.len());
        let entries = GroupEntries { version, authorized_operations, groups, topics: BTreeMap::new() };
        let pieces = memory.hold(front, entries, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    });
}

/// The groups of a response, encoded group by group. Each member is a part; a group without members has one part.
#[derive(Debug)]
struct GroupEntries<D> {
    version: i16,
    authorized_operations: i32,
    groups: Vec<GroupResult<D>>,
    /// The topics of members of the consumer protocol. Topics that were deleted meanwhile are missing.
    topics: BTreeMap<TopicId, Arc<Topic>>,
}

/// The description of a group, as encoded in the responses of its protocol.
trait Description: fmt::Debug + Send + Sized {
    /// Returns the number of members.
    fn members(&self) -> usize;

    /// Writes the fields before the members, of which there are `members`.
    fn put_front(entries: &GroupEntries<Self>, group: &GroupResult<Self>, members: usize, out: &mut BytesMut);

    /// Writes a member.
    fn put_member(&self, entries: &GroupEntries<Self>, member: usize, out: &mut BytesMut);

    /// Writes the fields after the members.
    fn put_back(entries: &GroupEntries<Self>, group: &GroupResult<Self>, out: &mut BytesMut);
}

impl<D: Description> Entries for GroupEntries<D> {
    fn count(&self) -> usize {
        self.groups.len()
    }

    fn put(&self, entry: usize, part: usize, out: &mut BytesMut) -> bool {
        let group = &self.groups[entry];
        let members = group.1.as_ref().map_or(0, D::members);
        if part == 0 {
            D::put_front(self, group, members, out);
        }
        if let (_, Ok(description)) = group
            && part < members
        {
            description.put_member(self, part, out);
        }
        let more = part + 1 < members;
        if !more {
            D::put_back(self, group, out);
        }
        more
    }

    fn memory_bytes(&self) -> usize {
        // The `ReplyMemory` counts it.
        0
    }
}

impl Description for groups::DescribedGroup {
    fn members(&self) -> usize {
        self.members.len()
    }

    fn put_front(
        entries: &GroupEntries<Self>,
        group: &GroupResult<Self>,
        members: usize,
        out: &mut BytesMut,
    ) {
        entries.head(group).put_front(entries.version, members, out);
    }

    fn put_member(&self, entries: &GroupEntries<Self>, member: usize, out: &mut BytesMut) {
        let member = &self.members[member];
        let member = DescribedGroupMember {
            member_id: Cow::Borrowed(&member.member),
            group_instance_id: member.instance.as_deref().map(Cow::Borrowed),
            client_id: Cow::Borrowed(&member.client_id),
            client_host: Cow::Borrowed(&member.client_host),
            member_metadata: Cow::Borrowed(&member.metadata),
            member_assignment: Cow::Borrowed(&member.assignment),
        };
        member.put(entries.version, out);
    }

    fn put_back(entries: &GroupEntries<Self>, group: &GroupResult<Self>, out: &mut BytesMut) {
        entries.head(group).put_back(entries.version, out);
    }
}

impl GroupEntries<groups::DescribedGroup> {
    fn head<'a>(&self, (name, found): &'a GroupResult<groups::DescribedGroup>) -> DescribedGroup<'a> {
        let base = DescribedGroup {
            group_id: Cow::Borrowed(name),
            authorized_operations: self.authorized_operations,
            ..Default::default()
        };
        match found {
            Ok(group) => DescribedGroup {
                group_state: Cow::Borrowed(group.state),
                protocol_type: Cow::Borrowed(&group.protocol_type),
                protocol_data: Cow::Borrowed(&group.protocol),
                ..base
            },
            // Old clients recognise an unknown group only by its state.
            Err(DescribeError::Group(GroupError::GroupIdNotFound)) if self.version < 6 => {
                DescribedGroup { group_state: Cow::Borrowed(DEAD), ..base }
            }
            Err(error) => DescribedGroup {
                error_code: error.code(),
                error_message: Some(error.text(name).into()),
                group_state: Cow::Borrowed(error.state()),
                ..base
            },
        }
    }
}

pub(super) fn consumer_group_describe(
    context: &mut Context<'_>,
    call: Call,
    request: &ConsumerGroupDescribeRequest<'_>,
) {
    let authorized_operations = operations(request.include_authorized_operations);
    let names = distinct_names(&request.group_ids);
    let ask = DescribeConsumerGroups(names.clone());
    context.ask_measured(AnswerTo::Kafka(call), ask, move |context, reply, memory| {
        let groups = group_results(names, reply);
        let entries =
            GroupEntries { version: call.version(), authorized_operations, groups, topics: BTreeMap::new() };
        context.begin_job(ResolveTopicsJob { call, memory, entries, group: 0, member: 0 });
    });
}

/// A response whose topics are being looked up, member by member.
struct ResolveTopicsJob {
    call: Call,
    memory: ReplyMemory,
    entries: GroupEntries<groups::DescribedConsumerGroup>,
    group: usize,
    member: usize,
}

impl ClientJob for ResolveTopicsJob {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        let GroupEntries { groups, topics, .. } = &mut self.entries;
        while !work.is_over()
            && let Some((_, found)) = groups.get(self.group)
        {
            work.spend(1);
            let Some(member) = found.as_ref().ok().and_then(|group| group.members.get(self.member)) else {
                (self.group, self.member) = (self.group + 1, 0);
                continue;
            };
            self.member += 1;
            work.spend((member.assignment.len() + member.target.len()) / 4);
            for (id, _) in member.assignment.iter().chain(&member.target) {
                if let Some(topic) = context.metadata.and_then(|metadata| metadata.topic_by_id(*id)) {
                    topics.entry(*id).or_insert_with(|| Arc::clone(topic));
                }
            }
        }
        self.group == groups.len()
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        let Self { call, memory, entries, .. } = *self;
        let Frame { front, back } =
            ConsumerGroupDescribeResponse::default().frame(call.version(), entries.groups.len());
        let pieces = memory.hold(front, entries, back);
        context.answer_in_pieces(AnswerTo::Kafka(call), pieces);
    }
}

impl Description for groups::DescribedConsumerGroup {
    fn members(&self) -> usize {
        self.members.len()
    }

    fn put_front(
        entries: &GroupEntries<Self>,
        group: &GroupResult<Self>,
        members: usize,
        out: &mut BytesMut,
    ) {
        entries.head(group).put_front(entries.version, members, out);
    }

    fn put_member(&self, entries: &GroupEntries<Self>, member: usize, out: &mut BytesMut) {
        let member = &self.members[member];
        let names = member.topic_names.iter().map(|name| Cow::Borrowed(&name[..]));
        let member = DescribedConsumerGroupMember {
            member_id: Cow::Borrowed(&member.member),
            instance_id: member.instance.as_deref().map(Cow::Borrowed),
            rack_id: member.rack.as_deref().map(Cow::Borrowed),
            member_epoch: member.epoch.0,
            client_id: Cow::Borrowed(&member.client_id),
            client_host: Cow::Borrowed(&member.client_host),
            subscribed_topic_names: names.collect(),
            subscribed_topic_regex: Some(Cow::Borrowed(&member.topic_regex)),
            assignment: entries.with_topic_names(&member.assignment),
            target_assignment: entries.with_topic_names(&member.target),
            member_type: CONSUMER_MEMBER,
        };
        member.put(entries.version, out);
    }

    fn put_back(entries: &GroupEntries<Self>, group: &GroupResult<Self>, out: &mut BytesMut) {
        entries.head(group).put_back(entries.version, out);
    }
}

impl GroupEntries<groups::DescribedConsumerGroup> {
    fn head<'a>(
        &self,
        (name, found): &'a GroupResult<groups::DescribedConsumerGroup>,
    ) -> DescribedConsumerGroup<'a> {
        let base = DescribedConsumerGroup {
            group_id: Cow::Borrowed(name),
            authorized_operations: self.authorized_operations,
            ..Default::default()
        };
        match found {
            Ok(group) => DescribedConsumerGroup {
                group_state: Cow::Borrowed(group.state),
                group_epoch: group.epoch.0,
                assignment_epoch: group.assignment_epoch.0,
                assignor_name: Cow::Borrowed(&group.assignor),
                ..base
            },
            Err(error) => DescribedConsumerGroup {
                error_code: error.code(),
                error_message: Some(error.text(name).into()),
                group_state: Cow::Borrowed(error.state()),
                ..base
            },
        }
    }

    /// Returns partitions with the names of their topics. Topics that were deleted meanwhile are left out.
    fn with_topic_names<'a>(&'a self, topics: &[(TopicId, Vec<PartitionIndex>)]) -> DescribedAssignment<'a> {
        let named = topics.iter().filter_map(|(id, partitions)| {
            Some(DescribedTopicPartitions {
                topic_id: id.0,
                topic_name: Cow::Borrowed(&self.topics.get(id)?.name),
                partitions: partitions.iter().map(|p| p.0 as i32).collect(),
            })
        });
        DescribedAssignment { topic_partitions: named.collect() }
    }
}
