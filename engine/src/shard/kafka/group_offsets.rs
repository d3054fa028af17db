//! Offsets of groups: committed, given, forgotten.
//!
//! The coordinator knows topics by their ids. Names are resolved here, and what has no id is answered here.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use highwater_net::kafka::messages::{
    OffsetCommitPartitionResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetCommitTopicResponse,
    OffsetDeletePartitionResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteTopicResponse,
    OffsetFetchGroupPartitionResponse, OffsetFetchGroupResponse, OffsetFetchGroupTopicResponse,
    OffsetFetchPartitionResponse, OffsetFetchRequest, OffsetFetchResponse, OffsetFetchTopicResponse,
};
use highwater_net::kafka::wire::Uuid;
use highwater_net::kafka::{KafkaError, KafkaReply};
use highwater_protocol::ids::TopicId;
use highwater_runtime::plane::Plane;

use super::Call;
use super::gather::{code, refusal};
use crate::groups::limits::GROUPS_MAX;
use crate::groups::{self, CommittedPartition, FetchReply, GroupError, GroupReply, GroupRequest};
use crate::limits::{GROUPS_PER_ASK_MAX, PARTITIONS_PER_ASK_MAX};
use crate::message::{Ask, Message};
use crate::shard::Shard;

/// From this version on, requests about offsets name topics by id.
const BY_ID_FROM: i16 = 10;

/// What is told of partitions that have no offset.
const NO_OFFSET: i64 = -1;

/// What one group is asked for.
struct Wanted {
    group: String,
    /// None for all that there are.
    topics: Option<Vec<WantedTopic>>,
}

struct WantedTopic {
    name: String,
    id: Uuid,
    is_known: bool,
    /// What is told of its partitions if it is not. A name without a topic has no offsets, which is no error.
    error: KafkaError,
    partitions: Vec<i32>,
}

type FoundTopic = OffsetFetchGroupTopicResponse<'static>;
type FoundPartition = OffsetFetchGroupPartitionResponse<'static>;

impl Shard {
    fn resolve(&self, by_id: bool, name: &str, id: Uuid) -> Option<TopicId> {
        let metadata = self.metadata.as_ref()?;
        let topic = if by_id { metadata.topic_by_id(TopicId(id)) } else { metadata.topic(name) };
        topic.map(|topic| topic.id)
    }

    fn topic_name(&self, id: TopicId) -> Option<String> {
        self.metadata.as_ref()?.topic_by_id(id).map(|topic| topic.name.clone())
    }

    pub(super) fn kafka_offset_commit(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &OffsetCommitRequest<'_>,
    ) {
        let by_id = call.origin.version >= BY_ID_FROM;
        let unknown =
            if by_id { KafkaError::UNKNOWN_TOPIC_ID } else { KafkaError::UNKNOWN_TOPIC_OR_PARTITION };
        let mut response = OffsetCommitResponse::default();
        let mut offsets = Vec::new();
        // Where the outcome of each offset belongs.
        let mut places = Vec::new();
        for topic in &request.topics {
            let id = self.resolve(by_id, topic.name, topic.topic_id);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let error_code = match (id, u32::try_from(index)) {
                    (Some(topic), Ok(number)) => {
                        places.push((response.topics.len(), partitions.len()));
                        offsets.push(CommittedPartition {
                            topic,
                            partition: number,
                            offset: partition.committed_offset,
                            leader_epoch: partition.committed_leader_epoch,
                            metadata: partition.committed_metadata.unwrap_or_default().to_owned(),
                        });
                        KafkaError::NONE
                    }
                    (None, _) => unknown,
                    (Some(_), Err(_)) => KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
                };
                partitions.push(OffsetCommitPartitionResponse { partition_index: index, error_code });
            }
            response.topics.push(OffsetCommitTopicResponse {
                name: topic.name.to_owned().into(),
                topic_id: topic.topic_id,
                partitions,
            });
        }
        if offsets.is_empty() {
            return self.kafka_answer(call, &response);
        }
        let ask = |offsets| {
            Ask::Group(GroupRequest::Commit(groups::CommitRequest {
                group: request.group_id.to_owned(),
                member: request.member_id.to_owned(),
                instance: request.group_instance_id.map(str::to_owned),
                generation: request.generation_id_or_member_epoch,
                knows_epochs: call.origin.version >= 9,
                forever: false,
                offsets,
            }))
        };
        let (asks, counts) = chunked(offsets, ask);
        self.kafka_gather(plane, call, asks, move |shard, call, answers| {
            let mut places = places.into_iter();
            for (count, answer) in counts.into_iter().zip(answers) {
                let places = places.by_ref().take(count);
                let mut set = |(topic, partition): (usize, usize), error_code| {
                    response.topics[topic].partitions[partition].error_code = error_code;
                };
                match shard.group_answer(answer) {
                    Ok(GroupReply::Commit(outcomes)) => {
                        for (place, (topic, _, error)) in places.zip(outcomes) {
                            let is_gone = error == Some(GroupError::UnknownTopicOrPartition)
                                && shard.topic_name(topic).is_none();
                            set(place, if is_gone { unknown } else { code(error) });
                        }
                    }
                    other => {
                        let error = refusal(other);
                        for place in places {
                            set(place, error);
                        }
                    }
                }
            }
            shard.kafka_answer(call, &response);
        });
    }

    pub(super) fn kafka_offset_fetch(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &OffsetFetchRequest<'_>,
    ) {
        let version = call.origin.version;
        let by_id = version >= BY_ID_FROM;
        if request.groups.len() > GROUPS_MAX {
            // There are not so many, and the answer has no place to say so.
            self.kafka_reply(call, KafkaReply::nothing());
            return self.kafka_end(call);
        }
        let mut wanted = Vec::new();
        let mut members = Vec::new();
        if version < 8 {
            let topics = request.topics.as_ref().map(|topics| {
                let topics =
                    topics.iter().map(|t| self.wanted(false, t.name, Uuid::default(), &t.partition_indexes));
                topics.collect()
            });
            wanted.push(Wanted { group: request.group_id.to_owned(), topics });
            members.push(None);
        } else {
            let mut places = BTreeMap::new();
            for group in &request.groups {
                let topics: Option<Vec<_>> = group.topics.as_ref().map(|topics| {
                    let topics =
                        topics.iter().map(|t| self.wanted(by_id, t.name, t.topic_id, &t.partition_indexes));
                    topics.collect()
                });
                match places.entry(group.group_id) {
                    Entry::Vacant(place) => place.insert(wanted.len()),
                    Entry::Occupied(place) => {
                        // Named again: what is wanted of a group is told once.
                        let first: &mut Wanted = &mut wanted[*place.get()];
                        first.topics = first
                            .topics
                            .take()
                            .zip(topics)
                            .map(|(first, more)| first.into_iter().chain(more).collect());
                        continue;
                    }
                };
                wanted.push(Wanted { group: group.group_id.to_owned(), topics });
                let is_member = version >= 9 && (group.member_id.is_some() || group.member_epoch >= 0);
                let member = group.member_id.unwrap_or_default().to_owned();
                members.push(is_member.then_some((member, group.member_epoch)));
            }
        }
        wanted.iter_mut().filter_map(|of| of.topics.as_mut()).for_each(|topics| name_once(topics));
        let mut asks = FetchAsks::default();
        for (number, (wanted, member)) in wanted.iter().zip(members).enumerate() {
            let ask = |partitions| groups::FetchRequest {
                group: wanted.group.clone(),
                member: member.clone(),
                partitions,
                require_stable: request.require_stable,
            };
            match &wanted.topics {
                None => asks.add(number, PARTITIONS_PER_ASK_MAX, ask(None)),
                Some(topics) => {
                    for (count, part) in parts_to_ask(topics) {
                        asks.add(number, count, ask(Some(part)));
                    }
                }
            }
        }
        let (asks, numbers) = asks.finish();
        self.kafka_gather(plane, call, asks, move |shard, call, answers| {
            let mut found: Vec<Result<FetchReply, KafkaError>> = Vec::new();
            found.resize_with(wanted.len(), || Ok(FetchReply { error: None, offsets: Vec::new() }));
            for (numbers, answer) in numbers.into_iter().zip(answers) {
                match shard.group_answer(answer) {
                    Ok(GroupReply::FetchEach(replies)) => {
                        for (number, reply) in numbers.into_iter().zip(replies) {
                            if let Ok(all) = &mut found[number] {
                                all.error = all.error.or(reply.error);
                                all.offsets.extend(reply.offsets);
                            }
                        }
                    }
                    other => {
                        let error = refusal(other);
                        for number in numbers {
                            found[number] = Err(error);
                        }
                    }
                }
            }
            let mut groups = Vec::with_capacity(wanted.len());
            for (wanted, found) in wanted.into_iter().zip(found) {
                groups.push(shard.found(version, wanted, found));
            }
            let response = match version {
                8.. => OffsetFetchResponse { groups, ..Default::default() },
                _ => of_one_group(groups.pop().expect("one was asked for")),
            };
            shard.kafka_answer(call, &response);
        });
    }

    fn wanted(&self, by_id: bool, name: &str, id: Uuid, partitions: &[i32]) -> WantedTopic {
        let found = self.resolve(by_id, name, id);
        WantedTopic {
            name: name.to_owned(),
            id: found.map_or(id, |topic| topic.0),
            is_known: found.is_some(),
            error: match found {
                None if by_id => KafkaError::UNKNOWN_TOPIC_ID,
                _ => KafkaError::NONE,
            },
            partitions: partitions.to_vec(),
        }
    }

    fn found(
        &self,
        version: i16,
        wanted: Wanted,
        found: Result<FetchReply, KafkaError>,
    ) -> OffsetFetchGroupResponse<'static> {
        let (error_code, offsets) = match found {
            Ok(FetchReply { error, offsets }) => (code(error), offsets),
            Err(error) => (error, Vec::new()),
        };
        let topics = match wanted.topics {
            // The oldest version has no other place for the error.
            Some(topics) if version < 2 => fill(topics, offsets, error_code),
            _ if error_code.is_err() => Vec::new(),
            Some(topics) => fill(topics, offsets, KafkaError::NONE),
            None => self.all(offsets),
        };
        OffsetFetchGroupResponse { group_id: wanted.group.into(), topics, error_code }
    }

    /// All offsets of a group, by topic.
    fn all(&self, offsets: Vec<CommittedPartition>) -> Vec<FoundTopic> {
        let mut by_topic: BTreeMap<TopicId, Vec<FoundPartition>> = BTreeMap::new();
        for offset in offsets {
            by_topic.entry(offset.topic).or_default().push(found_partition(offset));
        }
        let named = by_topic.into_iter().filter_map(|(id, partitions)| {
            let name = self.topic_name(id)?;
            Some(FoundTopic { name: name.into(), topic_id: id.0, partitions })
        });
        named.collect()
    }

    pub(super) fn kafka_offset_delete(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &OffsetDeleteRequest<'_>,
    ) {
        let mut response = OffsetDeleteResponse::default();
        let mut partitions: Vec<(TopicId, Vec<u32>)> = Vec::new();
        let mut places = Vec::new();
        for topic in &request.topics {
            let id = self.resolve(false, topic.name, Uuid::default());
            let mut outcomes = Vec::with_capacity(topic.partitions.len());
            let mut numbers = Vec::new();
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let mut error_code = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
                if let (Some(_), Ok(number)) = (id, u32::try_from(index)) {
                    places.push((response.topics.len(), outcomes.len()));
                    numbers.push(number);
                    error_code = KafkaError::NONE;
                }
                outcomes.push(OffsetDeletePartitionResponse { partition_index: index, error_code });
            }
            partitions.extend(id.map(|id| (id, numbers)));
            let name = topic.name.to_owned().into();
            response.topics.push(OffsetDeleteTopicResponse { name, partitions: outcomes });
        }
        let ask = groups::DeleteOffsetsRequest { group: request.group_id.to_owned(), partitions };
        self.kafka_ask_group(plane, call, GroupRequest::DeleteOffsets(ask), move |shard, call, reply| {
            match reply {
                Ok(GroupReply::DeleteOffsets(Ok(outcomes))) => {
                    for ((topic, partition), (_, _, error)) in places.into_iter().zip(outcomes) {
                        response.topics[topic].partitions[partition].error_code = code(error);
                    }
                }
                Ok(GroupReply::DeleteOffsets(Err(error))) => {
                    response = OffsetDeleteResponse { error_code: code(Some(error)), ..Default::default() };
                }
                other => {
                    response = OffsetDeleteResponse { error_code: refusal(other), ..Default::default() };
                }
            }
            shard.kafka_answer(call, &response);
        });
    }
}

/// Each partition once: what is kept with an offset can be a thousand times as long as its number.
fn name_once(topics: &mut [WantedTopic]) {
    let mut seen = BTreeSet::new();
    for topic in topics {
        let WantedTopic { name, id, partitions, .. } = topic;
        partitions.retain(|partition| seen.insert((name.as_str(), *id, *partition)));
    }
}

/// Questions of some entries each, with their numbers.
fn chunked<T>(entries: Vec<T>, ask: impl Fn(Vec<T>) -> Ask) -> (Vec<Ask>, Vec<usize>) {
    let (mut asks, mut counts) = (Vec::new(), Vec::new());
    let mut entries = entries.into_iter();
    while entries.len() > 0 {
        let some: Vec<T> = entries.by_ref().take(PARTITIONS_PER_ASK_MAX).collect();
        counts.push(some.len());
        asks.push(ask(some));
    }
    (asks, counts)
}

/// Questions about the offsets of many groups, a few groups in each.
#[derive(Default)]
struct FetchAsks {
    asks: Vec<Ask>,
    /// Of each of them, which groups it is about.
    numbers: Vec<Vec<usize>>,
    /// Those of the question that is being put together.
    requests: Vec<groups::FetchRequest>,
    of: Vec<usize>,
    partitions: usize,
}

impl FetchAsks {
    /// Adds what is asked of a group, which concerns this many partitions.
    fn add(&mut self, number: usize, partitions: usize, request: groups::FetchRequest) {
        if self.requests.len() >= GROUPS_PER_ASK_MAX || self.partitions + partitions > PARTITIONS_PER_ASK_MAX
        {
            self.end_ask();
        }
        self.requests.push(request);
        self.of.push(number);
        self.partitions += partitions;
    }

    fn end_ask(&mut self) {
        self.partitions = 0;
        if !self.requests.is_empty() {
            self.asks.push(Ask::Group(GroupRequest::FetchEach(std::mem::take(&mut self.requests))));
            self.numbers.push(std::mem::take(&mut self.of));
        }
    }

    fn finish(mut self) -> (Vec<Ask>, Vec<Vec<usize>>) {
        self.end_ask();
        (self.asks, self.numbers)
    }
}

/// Partitions of topics.
type Part = Vec<(TopicId, Vec<u32>)>;

/// The partitions of topics that are known, with their number, in parts that one question may concern. At least one part: the group itself is
/// asked about too.
fn parts_to_ask(topics: &[WantedTopic]) -> Vec<(usize, Part)> {
    let mut parts = Vec::new();
    let (mut count, mut part) = (0, Vec::new());
    for topic in topics.iter().filter(|topic| topic.is_known) {
        let numbers: Vec<u32> = topic.partitions.iter().filter_map(|p| u32::try_from(*p).ok()).collect();
        for numbers in numbers.chunks(PARTITIONS_PER_ASK_MAX) {
            if count + numbers.len() > PARTITIONS_PER_ASK_MAX {
                parts.push((std::mem::take(&mut count), std::mem::take(&mut part)));
            }
            count += numbers.len();
            part.push((TopicId(topic.id), numbers.to_vec()));
        }
    }
    if !part.is_empty() || parts.is_empty() {
        parts.push((count, part));
    }
    parts
}

fn found_partition(offset: CommittedPartition) -> FoundPartition {
    FoundPartition {
        partition_index: offset.partition as i32,
        committed_offset: offset.offset,
        committed_leader_epoch: offset.leader_epoch,
        metadata: Some(offset.metadata.into()),
        error_code: KafkaError::NONE,
    }
}

/// What was asked for, with what there is.
fn fill(topics: Vec<WantedTopic>, offsets: Vec<CommittedPartition>, error: KafkaError) -> Vec<FoundTopic> {
    let mut found: BTreeMap<(Uuid, i32), CommittedPartition> =
        offsets.into_iter().map(|o| ((o.topic.0, o.partition as i32), o)).collect();
    let filled = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|index| match found.remove(&(topic.id, index)) {
            Some(offset) => found_partition(offset),
            None => FoundPartition {
                partition_index: index,
                committed_offset: NO_OFFSET,
                committed_leader_epoch: -1,
                metadata: Some("".into()),
                error_code: if topic.error.is_err() { topic.error } else { error },
            },
        });
        FoundTopic { name: topic.name.into(), topic_id: topic.id, partitions: partitions.collect() }
    });
    filled.collect()
}

/// The answer of the versions that know one group.
fn of_one_group(group: OffsetFetchGroupResponse<'static>) -> OffsetFetchResponse<'static> {
    let topics = group.topics.into_iter().map(|topic| OffsetFetchTopicResponse {
        name: topic.name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|p| OffsetFetchPartitionResponse {
                partition_index: p.partition_index,
                committed_offset: p.committed_offset,
                committed_leader_epoch: p.committed_leader_epoch,
                metadata: p.metadata,
                error_code: p.error_code,
            })
            .collect(),
    });
    OffsetFetchResponse { topics: topics.collect(), error_code: group.error_code, ..Default::default() }
}
