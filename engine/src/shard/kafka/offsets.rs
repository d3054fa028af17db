//! ListOffsets: asked of the owners of the partitions.

use std::collections::BTreeMap;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use highwater_protocol::ids::{Timestamp, TopicPartition};
use highwater_protocol::native::StartAt;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::Call;
use crate::message::{Message, Query, QueryAnswer};
use crate::shard::Shard;

/// What to look for.
enum Find {
    Start(StartAt),
    LastTime,
    /// What does not exist here.
    Nothing,
}

impl Shard {
    pub(super) fn kafka_list_offsets(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &ListOffsetsRequest<'_>,
    ) {
        let mut partitions = Vec::new();
        // What the leader's epoch is, where something is found.
        let mut epochs = Vec::new();
        let mut starts: BTreeMap<ShardIndex, Vec<(u32, TopicPartition, StartAt)>> = BTreeMap::new();
        let mut last_times: BTreeMap<ShardIndex, Vec<(u32, TopicPartition)>> = BTreeMap::new();
        for topic in &request.topics {
            let named = self.kafka_topic(topic.name, [0; 16]);
            for wanted in &topic.partitions {
                let number = partitions.len() as u32;
                let mut entry = ListOffsetsPartitionResponse {
                    partition_index: wanted.partition_index,
                    ..Default::default()
                };
                let tp = named.partition(wanted.partition_index);
                match tp.and_then(|tp| Some((tp, self.owner_of(tp)?))) {
                    None => entry.error_code = named.missing(),
                    Some((tp, owner)) => {
                        let find = to_find(wanted.timestamp, call.version());
                        match (self.check_leader_epoch(tp, wanted.current_leader_epoch), find) {
                            (Err(error), _) | (_, Err(error)) => entry.error_code = error,
                            (_, Ok(Find::Nothing)) => {}
                            (_, Ok(Find::Start(start))) => {
                                starts.entry(owner).or_default().push((number, tp, start));
                            }
                            (_, Ok(Find::LastTime)) => {
                                last_times.entry(owner).or_default().push((number, tp));
                            }
                        }
                    }
                }
                epochs.push(tp.map_or(-1, |tp| self.kafka_leader_epoch(tp)));
                partitions.push(entry);
            }
        }
        let queries = starts.into_iter().map(|(owner, list)| (owner, Query::Offsets(list)));
        let more = last_times.into_iter().map(|(owner, list)| (owner, Query::LastTimes(list)));
        let topics = counted(request.topics.iter().map(|topic| (topic.name, topic.partitions.len())));
        self.kafka_gather_from_owners(
            plane,
            call,
            queries.chain(more).collect(),
            move |shard, call, answers| {
                for answer in answers {
                    let QueryAnswer::Offsets(found) = answer else {
                        unreachable!("a question is answered in its own kind, not with {answer:?}")
                    };
                    for (number, found) in found {
                        let entry: &mut ListOffsetsPartitionResponse = &mut partitions[number as usize];
                        match found {
                            Ok(Some((offset, timestamp))) => {
                                entry.offset = offset.0;
                                entry.timestamp = timestamp.map_or(-1, |at| at.0);
                                entry.leader_epoch = epochs[number as usize];
                            }
                            Ok(None) => {}
                            Err(code) => entry.error_code = code.into(),
                        }
                    }
                }
                let mut partitions = partitions.into_iter();
                let topics = topics.into_iter().map(|(name, count)| ListOffsetsTopicResponse {
                    name: name.into(),
                    partitions: partitions.by_ref().take(count).collect(),
                });
                let response = ListOffsetsResponse { topics: topics.collect(), ..Default::default() };
                shard.kafka_answer(call, &response);
            },
        );
    }
}

/// Topics, each with how many partitions of it a request names.
pub(super) fn counted<'a>(topics: impl Iterator<Item = (&'a str, usize)>) -> Vec<(String, usize)> {
    topics.map(|(name, count)| (name.to_owned(), count)).collect()
}

/// What a request's timestamp means. Nothing is tiered here, so all of a log is local.
fn to_find(timestamp: i64, version: i16) -> Result<Find, KafkaError> {
    let since = |first: i16, find: Find| {
        if version >= first { Ok(find) } else { Err(KafkaError::UNSUPPORTED_VERSION) }
    };
    match timestamp {
        0.. => Ok(Find::Start(StartAt::Timestamp(Timestamp(timestamp)))),
        ListOffsetsPartition::LATEST => Ok(Find::Start(StartAt::Latest)),
        ListOffsetsPartition::EARLIEST => Ok(Find::Start(StartAt::Earliest)),
        ListOffsetsPartition::MAX_TIMESTAMP => since(7, Find::LastTime),
        ListOffsetsPartition::EARLIEST_LOCAL => since(8, Find::Start(StartAt::Earliest)),
        ListOffsetsPartition::LATEST_TIERED => since(9, Find::Nothing),
        ListOffsetsPartition::EARLIEST_PENDING_UPLOAD => since(11, Find::Nothing),
        _ => Err(KafkaError::INVALID_REQUEST),
    }
}
