//! OffsetCommit and OffsetDelete. OffsetFetch is in `offset_fetch.rs`.
//!
//! The coordinator identifies topics by id. Names are resolved here; unknown ones are answered here.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    OffsetCommitPartitionResponse, OffsetCommitRequest, OffsetCommitTopicResponse,
    OffsetDeletePartitionResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteTopicResponse,
};
use highwater_net::kafka::wire::Uuid;
use highwater_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};

use super::Call;
use super::error::code;
use super::topic_answer::TopicsAnswer;
use crate::coord::groups::{self, CommittedPartition, GroupError};
use crate::shard::Context;

/// The first version in which requests about offsets name topics by id.
pub(super) const BY_ID_FROM: i16 = 10;

pub(super) fn resolve_topic(context: &Context<'_>, by_id: bool, name: &str, id: Uuid) -> Option<TopicId> {
    let metadata = context.metadata?;
    let topic = if by_id { metadata.topic_by_id(TopicId(id)) } else { metadata.topic(name) };
    topic.map(|topic| topic.id)
}

pub(super) fn offset_commit(context: &mut Context<'_>, call: Call, request: &OffsetCommitRequest<'_>) {
    let by_id = call.origin.version >= BY_ID_FROM;
    let unknown = if by_id { KafkaError::UNKNOWN_TOPIC_ID } else { KafkaError::UNKNOWN_TOPIC_OR_PARTITION };
    let mut topics: Vec<OffsetCommitTopicResponse<'static>> = Vec::with_capacity(request.topics.len());
    let mut offsets = Vec::new();
    // The position of each outcome in the response.
    let mut places = Vec::new();
    for topic in &request.topics {
        let id = resolve_topic(context, by_id, topic.name, topic.topic_id);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let error_code = match (id, u32::try_from(index)) {
                (Some(topic), Ok(number)) => {
                    places.push((topics.len(), partitions.len()));
                    offsets.push(CommittedPartition {
                        topic,
                        partition: PartitionIndex(number),
                        offset: Offset(partition.committed_offset),
                        leader_epoch: LeaderEpoch(partition.committed_leader_epoch),
                        metadata: partition.committed_metadata.unwrap_or_default().to_owned(),
                    });
                    KafkaError::NONE
                }
                (None, _) => unknown,
                (Some(_), Err(_)) => KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
            };
            partitions.push(OffsetCommitPartitionResponse { partition_index: index, error_code });
        }
        topics.push(OffsetCommitTopicResponse {
            name: topic.name.to_owned().into(),
            topic_id: topic.topic_id,
            partitions,
        });
    }
    let answer = TopicsAnswer { call, topics };
    if offsets.is_empty() {
        return answer.send(context);
    }
    let ask = groups::CommitRequest {
        group: request.group_id.to_owned(),
        member: request.member_id.to_owned(),
        instance: request.group_instance_id.map(str::to_owned),
        generation: request.generation_id_or_member_epoch,
        knows_epochs: call.origin.version >= 9,
        forever: false,
        offsets,
    };
    context.ask(call.conn, ask, move |context, outcomes| {
        let found: Vec<Committed> = match outcomes {
            // A topic that was deleted meanwhile is as unknown as one that never existed.
            Ok(outcomes) if by_id => outcomes
                .into_iter()
                .map(|(topic, _, error)| {
                    let is_gone = error == Some(GroupError::UnknownTopicOrPartition)
                        && context.metadata.is_none_or(|m| m.topic_by_id(topic).is_none());
                    if is_gone { unknown } else { code(error) }
                })
                .collect(),
            Ok(outcomes) => outcomes.into_iter().map(|(.., error)| code(error)).collect(),
            Err(error) => vec![error.into(); places.len()],
        };
        context.fill(call.conn, answer, (places, found), fill_in, |context, answer| answer.send(context));
    });
}

type Committed = KafkaError;

/// Takes the outcome of a partition.
fn fill_in(
    answer: &mut TopicsAnswer<OffsetCommitTopicResponse<'static>>,
    (topic, partition): (usize, usize),
    outcome: Committed,
) {
    answer.topics[topic].partitions[partition].error_code = outcome;
}

pub(super) fn offset_delete(context: &mut Context<'_>, call: Call, request: &OffsetDeleteRequest<'_>) {
    let mut topics: Vec<OffsetDeleteTopicResponse<'static>> = Vec::with_capacity(request.topics.len());
    let mut partitions = Vec::new();
    let mut places = Vec::new();
    for topic in &request.topics {
        let id = resolve_topic(context, false, topic.name, Uuid::default());
        let mut outcomes = Vec::with_capacity(topic.partitions.len());
        let mut numbers = Vec::new();
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let mut error_code = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
            if let (Some(_), Ok(number)) = (id, u32::try_from(index)) {
                places.push((topics.len(), outcomes.len()));
                numbers.push(PartitionIndex(number));
                error_code = KafkaError::NONE;
            }
            outcomes.push(OffsetDeletePartitionResponse { partition_index: index, error_code });
        }
        partitions.extend(id.map(|id| (id, numbers)));
        let name = topic.name.to_owned().into();
        topics.push(OffsetDeleteTopicResponse { name, partitions: outcomes });
    }
    let ask = groups::DeleteOffsetsRequest { group: request.group_id.to_owned(), partitions };
    context.ask(call.conn, ask, move |context, outcomes| {
        let error_code = match outcomes {
            Ok(Ok(outcomes)) => {
                for ((topic, partition), (_, _, error)) in places.into_iter().zip(outcomes) {
                    topics[topic].partitions[partition].error_code = code(error);
                }
                return TopicsAnswer { call, topics }.send(context);
            }
            Ok(Err(error)) => code(Some(error)),
            Err(error) => error.into(),
        };
        context.answer(call, &OffsetDeleteResponse { error_code, ..Default::default() });
    });
}
