//! OffsetCommit and OffsetDelete. OffsetFetch is in `offset_fetch.rs`.
//!
//! The coordinator identifies topics by id. Names are resolved here, over several turns if there are many, and unknown names are rejected here.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    OffsetCommitPartitionResponse, OffsetCommitRequest, OffsetCommitTopicResponse,
    OffsetDeletePartitionResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteTopicResponse,
};
use highwater_net::kafka::wire::Uuid;
use highwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};

use super::Call;
use super::error::code;
use super::names::Named;
use super::resolve::{NamedTopic, Resolve, resolve};
use super::topic_answer::TopicsAnswer;
use crate::context::Context;
use crate::coord::groups::{self, CommittedPartition, GroupError};

/// The first version in which requests about offsets identify topics by id.
pub(super) const TOPIC_ID_VERSION_MIN: i16 = 10;

pub(super) fn resolve_topic(context: &Context<'_>, by_id: bool, name: &str, id: Uuid) -> Option<TopicId> {
    let metadata = context.metadata?;
    let topic = if by_id { metadata.topic_by_id(TopicId(id)) } else { metadata.topic(name) };
    topic.map(|topic| topic.id)
}

/// A commit whose topics are being looked up.
struct CommitLookup {
    topics: Vec<OffsetCommitTopicResponse<'static>>,
    /// The position of each offset in the response.
    positions: Vec<(usize, usize)>,
    request: groups::CommitRequest,
    by_id: bool,
}

/// The offset of a partition in a request.
#[derive(Clone)]
struct PartitionOffset {
    index: i32,
    offset: Offset,
    leader_epoch: LeaderEpoch,
    metadata: String,
}

impl CommitLookup {
    /// Returns the error for an unknown topic.
    fn unknown(by_id: bool) -> KafkaError {
        if by_id { KafkaError::UNKNOWN_TOPIC_ID } else { KafkaError::UNKNOWN_TOPIC_OR_PARTITION }
    }
}

impl Resolve for CommitLookup {
    type Partition = PartitionOffset;

    fn index_to_compare(_: &PartitionOffset) -> Option<i32> {
        None
    }

    fn topic(&mut self, named: &Named, partitions: usize) {
        // The response identifies topics as the request does: by name or by id.
        let (name, topic_id) = if self.by_id { ("", named.id()) } else { (named.name(), [0; 16]) };
        self.topics.push(OffsetCommitTopicResponse {
            name: name.to_owned().into(),
            topic_id,
            partitions: Vec::with_capacity(partitions),
        });
    }

    fn partition(&mut self, _: &Context<'_>, named: &Named, partition: PartitionOffset, _: bool) {
        let Some(topic) = self.topics.len().checked_sub(1) else { return };
        let partitions = &mut self.topics[topic].partitions;
        let PartitionOffset { index: partition_index, offset, leader_epoch, metadata } = partition;
        let error_code = match (named.known(), u32::try_from(partition_index)) {
            (Some(known), Ok(index)) => {
                self.positions.push((topic, partitions.len()));
                let partition = PartitionIndex(index);
                let topic = known.id;
                self.request.offsets.push(CommittedPartition {
                    topic,
                    partition,
                    offset,
                    leader_epoch,
                    metadata,
                });
                KafkaError::NONE
            }
            (None, _) => Self::unknown(self.by_id),
            (Some(_), Err(_)) => KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
        };
        partitions.push(OffsetCommitPartitionResponse { partition_index, error_code });
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        let Self { topics, positions, request, by_id } = self;
        let answer = TopicsAnswer { call, topics };
        if positions.is_empty() {
            return answer.send(context);
        }
        context.ask_group(call.conn, request, move |context, outcomes| {
            let codes: Vec<KafkaError> = match outcomes {
                // A topic that was deleted meanwhile is an unknown id, too.
                Ok(outcomes) if by_id => outcomes
                    .into_iter()
                    .map(|(topic, _, error)| {
                        let is_gone = error == Some(GroupError::UnknownTopicOrPartition)
                            && context.metadata.is_none_or(|m| m.topic_by_id(topic).is_none());
                        if is_gone { Self::unknown(by_id) } else { code(error) }
                    })
                    .collect(),
                Ok(outcomes) => outcomes.into_iter().map(|(.., error)| code(error)).collect(),
                Err(error) => vec![error.into(); positions.len()],
            };
            context.fill(call.conn, answer, (positions, codes), set_commit_code, |context, answer| {
                answer.send(context);
            });
        });
    }
}

pub(super) fn offset_commit(context: &mut Context<'_>, call: Call, request: &OffsetCommitRequest<'_>) {
    let by_id = call.origin.version >= TOPIC_ID_VERSION_MIN;
    let topics = request.topics.iter().map(|topic| {
        let offsets = topic
            .partitions
            .iter()
            .map(|partition| PartitionOffset {
                index: partition.partition_index,
                offset: Offset(partition.committed_offset),
                leader_epoch: LeaderEpoch(partition.committed_leader_epoch),
                metadata: partition.committed_metadata.unwrap_or_default().to_owned(),
            })
            .collect();
        NamedTopic::new(topic.name, topic.topic_id, offsets)
    });
    let topics = topics.collect();
    let request = groups::CommitRequest {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        instance: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id_or_member_epoch,
        knows_epochs: call.origin.version >= 9,
        forever: false,
        offsets: Vec::new(),
    };
    resolve(
        context,
        call,
        topics,
        CommitLookup { topics: Vec::new(), positions: Vec::new(), request, by_id },
    );
}

/// Sets the error code of a partition.
fn set_commit_code(
    answer: &mut TopicsAnswer<OffsetCommitTopicResponse<'static>>,
    (topic, partition): (usize, usize),
    code: KafkaError,
) {
    answer.topics[topic].partitions[partition].error_code = code;
}

/// A deletion of offsets whose topics are being looked up.
struct DeleteOffsetsLookup {
    topics: Vec<OffsetDeleteTopicResponse<'static>>,
    /// The position of each offset in the response.
    positions: Vec<(usize, usize)>,
    request: groups::DeleteOffsetsRequest,
}

impl Resolve for DeleteOffsetsLookup {
    type Partition = i32;

    fn index_to_compare(_: &i32) -> Option<i32> {
        None
    }

    fn topic(&mut self, named: &Named, partitions: usize) {
        let name = named.name().to_owned().into();
        self.topics.push(OffsetDeleteTopicResponse { name, partitions: Vec::with_capacity(partitions) });
        self.request.partitions.extend(named.known().map(|topic| (topic.id, Vec::new())));
    }

    fn partition(&mut self, _: &Context<'_>, named: &Named, partition_index: i32, _: bool) {
        let Some(topic) = self.topics.len().checked_sub(1) else { return };
        let outcomes = &mut self.topics[topic].partitions;
        let mut error_code = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
        if named.known().is_some()
            && let Ok(index) = u32::try_from(partition_index)
            && let Some((_, partitions)) = self.request.partitions.last_mut()
        {
            self.positions.push((topic, outcomes.len()));
            partitions.push(PartitionIndex(index));
            error_code = KafkaError::NONE;
        }
        outcomes.push(OffsetDeletePartitionResponse { partition_index, error_code });
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        let Self { topics, positions, request } = self;
        context.ask_group(call.conn, request, move |context, outcomes| {
            let error_code = match outcomes {
                Ok(Ok(outcomes)) => {
                    let answer = TopicsAnswer { call, topics };
                    let codes = outcomes.into_iter().map(|(_, _, error)| code(error)).collect();
                    return context.fill(
                        call.conn,
                        answer,
                        (positions, codes),
                        set_delete_code,
                        |context, answer| {
                            answer.send(context);
                        },
                    );
                }
                Ok(Err(error)) => code(Some(error)),
                Err(error) => error.into(),
            };
            context.answer(call, &OffsetDeleteResponse { error_code, ..Default::default() });
        });
    }
}

/// Sets the error code of a partition.
fn set_delete_code(
    answer: &mut TopicsAnswer<OffsetDeleteTopicResponse<'static>>,
    (topic, partition): (usize, usize),
    code: KafkaError,
) {
    answer.topics[topic].partitions[partition].error_code = code;
}

pub(super) fn offset_delete(context: &mut Context<'_>, call: Call, request: &OffsetDeleteRequest<'_>) {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        NamedTopic::new(topic.name, Uuid::default(), partitions)
    });
    let topics = topics.collect();
    let request = groups::DeleteOffsetsRequest { group: request.group_id.to_owned(), partitions: Vec::new() };
    resolve(
        context,
        call,
        topics,
        DeleteOffsetsLookup { topics: Vec::new(), positions: Vec::new(), request },
    );
}
