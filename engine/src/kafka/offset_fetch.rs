//! OffsetFetch: committed offsets of groups.
//!
//! ```text
//!   the request --> PrepareJob: deduplicates groups and topics, looks topics up --> the coordinator, which reads a slice per turn
//!   the response <-- encoded in pieces <-- FillJob: offsets, topic by topic <---------------'
//! ```
//!
//! A request may name a hundred thousand groups, and a group may have hundreds of thousands of offsets, so both halves are jobs.

use std::collections::{BTreeMap, VecDeque};
use std::vec::IntoIter;

use highwater_net::kafka::messages::OffsetFetchRequest;
use highwater_net::kafka::wire::Uuid;
use highwater_net::kafka::{KafkaError, KafkaReply};
use highwater_protocol::ids::{GroupEpoch, PartitionIndex, TopicId};
use highwater_runtime::plane::ConnId;

use super::Call;
use super::group_offsets::{TOPIC_ID_VERSION_MIN, resolve_topic};
use super::offset_answer::FillJob;
use crate::calls::FetchOffsets;
use crate::context::{AnswerTo, ClientJob, Context};
use crate::coord::groups;
use crate::coord::groups::limits::GROUPS_MAX;
use crate::counters::Work;

/// The first version with several groups in a request.
const GROUPS_FROM: i16 = 8;

/// The first version with member ids and epochs.
const MEMBERS_FROM: i16 = 9;

/// A group of a request.
pub(super) struct Group {
    pub(super) name: String,
    member: Option<(String, GroupEpoch)>,
    /// Whether all offsets of the group are requested.
    pub(super) all: bool,
    /// Topics that have not been looked up.
    named: VecDeque<NamedTopic>,
    /// Topics that have been looked up, without duplicates.
    pub(super) topics: Vec<RequestedTopic>,
    /// The index of each topic in `topics`, if there are several.
    places: BTreeMap<(String, Uuid), usize>,
}

struct NamedTopic {
    name: String,
    id: Uuid,
    partitions: Vec<i32>,
}

pub(super) struct RequestedTopic {
    pub(super) name: String,
    pub(super) id: Uuid,
    is_known: bool,
    /// The error for its partitions if it is unknown by id. A topic that is unknown by name has no offsets, which is not an error.
    pub(super) error: KafkaError,
    pub(super) partitions: Vec<i32>,
}

/// A request whose groups and topics are being looked up.
struct PrepareJob {
    call: Call,
    require_stable: bool,
    named: IntoIter<Group>,
    /// The groups, without duplicates.
    groups: Vec<Group>,
    places: BTreeMap<String, usize>,
    /// The requests to the coordinator, for the groups that are done.
    requests: Vec<groups::FetchRequest>,
}

impl ClientJob for PrepareJob {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        while !work.is_over()
            && let Some(group) = self.named.next()
        {
            work.spend(1);
            self.add(group);
        }
        let by_id = self.call.version() >= TOPIC_ID_VERSION_MIN;
        while !work.is_over()
            && self.named.len() == 0
            && let Some(group) = self.groups.get_mut(self.requests.len())
        {
            if let Some(named) = group.named.pop_front() {
                work.spend(1 + named.partitions.len() / 64);
                group.look_up(context, by_id, named);
            } else {
                work.spend(1 + group.topics.len() / 8);
                self.requests.push(group.take_request(self.require_stable));
            }
        }
        self.named.len() == 0 && self.requests.len() == self.groups.len()
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        fetch_offsets(context, *self);
    }
}

impl PrepareJob {
    /// Adds a group. A repeated group is merged with the first one: the metadata of an offset can be a thousand times as long as the request for it.
    fn add(&mut self, group: Group) {
        if let Some(first) = self.places.get(&group.name).and_then(|at| self.groups.get_mut(*at)) {
            first.all |= group.all;
            first.named.extend(group.named);
        } else {
            self.places.insert(group.name.clone(), self.groups.len());
            self.groups.push(group);
        }
    }
}

impl Group {
    fn new(name: &str, topics: Option<Vec<NamedTopic>>) -> Self {
        Self {
            name: name.to_owned(),
            member: None,
            all: topics.is_none(),
            named: topics.unwrap_or_default().into(),
            topics: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    fn look_up(&mut self, context: &Context<'_>, by_id: bool, named: NamedTopic) {
        let NamedTopic { name, id, partitions } = named;
        let is_alone = self.topics.is_empty() && self.named.is_empty();
        if !is_alone {
            let place = self.places.entry((name.clone(), id)).or_insert(self.topics.len());
            if let Some(first) = self.topics.get_mut(*place) {
                return first.partitions.extend(partitions);
            }
        }
        let found = resolve_topic(context, by_id, &name, id);
        self.topics.push(RequestedTopic {
            name,
            id: found.map_or(id, |topic| topic.0),
            is_known: found.is_some(),
            error: match found {
                None if by_id => KafkaError::UNKNOWN_TOPIC_ID,
                _ => KafkaError::NONE,
            },
            partitions,
        });
    }

    /// Returns the request to the coordinator, without duplicate partitions.
    fn take_request(&mut self, require_stable: bool) -> groups::FetchRequest {
        self.places = BTreeMap::new();
        let mut partitions = Vec::with_capacity(self.topics.len());
        for topic in &mut self.topics {
            if !topic.partitions.is_sorted_by(|a, b| a < b) {
                topic.partitions.sort_unstable();
                topic.partitions.dedup();
            }
            if topic.is_known {
                let indexes = topic.partitions.iter().filter_map(|index| u32::try_from(*index).ok());
                partitions.push((TopicId(topic.id), indexes.map(PartitionIndex).collect()));
            }
        }
        groups::FetchRequest {
            group: self.name.clone(),
            member: self.member.take(),
            partitions: (!self.all).then_some(partitions),
            require_stable,
        }
    }
}

pub(super) fn offset_fetch(context: &mut Context<'_>, call: Call, request: &OffsetFetchRequest<'_>) {
    if request.groups.len() > GROUPS_MAX {
        // There are never that many groups, and the response has no field for a request-level error.
        context.kafka_reply(call, KafkaReply::nothing());
        return context.close_after_replies(call);
    }
    let named = named_groups(call.version(), request);
    let job = PrepareJob {
        call,
        require_stable: request.require_stable,
        groups: Vec::with_capacity(named.len()),
        requests: Vec::with_capacity(named.len()),
        named: named.into_iter(),
        places: BTreeMap::new(),
    };
    context.begin_job(job);
}

fn fetch_offsets(context: &mut Context<'_>, job: PrepareJob) {
    let PrepareJob { call, groups, requests, .. } = job;
    context.ask_measured(AnswerTo::Kafka(call), FetchOffsets(requests), move |context, replies, memory| {
        context.begin_job(FillJob::new(call, groups, replies.map_err(KafkaError::from), memory));
    });
}

/// Copies the groups of a request.
fn named_groups(version: i16, request: &OffsetFetchRequest<'_>) -> Vec<Group> {
    if version < GROUPS_FROM {
        let topics = request.topics.as_ref().map(|topics| {
            let topics = topics.iter().map(|topic| NamedTopic {
                name: topic.name.to_owned(),
                id: Uuid::default(),
                partitions: topic.partition_indexes.clone(),
            });
            topics.collect()
        });
        return vec![Group::new(request.group_id, topics)];
    }
    let groups = request.groups.iter().map(|group| {
        let topics = group.topics.as_ref().map(|topics| {
            let topics = topics.iter().map(|topic| NamedTopic {
                name: topic.name.to_owned(),
                id: topic.topic_id,
                partitions: topic.partition_indexes.clone(),
            });
            topics.collect()
        });
        let is_member = version >= MEMBERS_FROM && (group.member_id.is_some() || group.member_epoch >= 0);
        let member = is_member
            .then(|| (group.member_id.unwrap_or_default().to_owned(), GroupEpoch(group.member_epoch)));
        Group { member, ..Group::new(group.group_id, topics) }
    });
    groups.collect()
}
