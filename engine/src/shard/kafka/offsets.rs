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
use super::topics::repeated;
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
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut starts: BTreeMap<ShardIndex, Vec<(u32, TopicPartition, StartAt)>> = BTreeMap::new();
        let mut last_times: BTreeMap<ShardIndex, Vec<(u32, TopicPartition)>> = BTreeMap::new();
        // Where what is found of each number belongs, and the epoch of its leader.
        let mut places = Vec::new();
        let all =
            request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name, p.partition_index)));
        let twice = repeated(all);
        for topic in &request.topics {
            let named = self.kafka_topic(topic.name, [0; 16]);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let index = wanted.partition_index;
                let mut place = |tp| {
                    places.push((topics.len(), partitions.len(), self.kafka_leader_epoch(tp)));
                    places.len() as u32 - 1
                };
                let target = if twice.contains(&(topic.name, index)) {
                    Err(KafkaError::INVALID_REQUEST)
                } else {
                    self.kafka_target_in_epoch(&named, index, wanted.current_leader_epoch)
                };
                let find = target.and_then(|target| Ok((target, to_find(wanted.timestamp, call.version())?)));
                let mut error_code = KafkaError::NONE;
                match find {
                    Err(error) => error_code = error,
                    Ok((_, Find::Nothing)) => {}
                    Ok(((tp, owner), Find::Start(start))) => {
                        starts.entry(owner).or_default().push((place(tp), tp, start));
                    }
                    Ok(((tp, owner), Find::LastTime)) => {
                        last_times.entry(owner).or_default().push((place(tp), tp));
                    }
                }
                partitions.push(ListOffsetsPartitionResponse {
                    partition_index: index,
                    error_code,
                    ..Default::default()
                });
            }
            topics.push(ListOffsetsTopicResponse { name: topic.name.to_owned().into(), partitions });
        }
        let starts = starts.into_iter().map(|(owner, list)| (owner, Query::Offsets(list)));
        let last_times = last_times.into_iter().map(|(owner, list)| (owner, Query::LastTimes(list)));
        let queries = starts.chain(last_times).collect();
        self.kafka_gather_from_owners(plane, call, queries, move |shard, call, answers| {
            for answer in answers {
                let QueryAnswer::Offsets(found) = answer else {
                    unreachable!("a question is answered in its own kind, not with {answer:?}")
                };
                for (number, found) in found {
                    let (topic, partition, epoch) = places[number as usize];
                    let entry: &mut ListOffsetsPartitionResponse = &mut topics[topic].partitions[partition];
                    match found {
                        Ok(Some((offset, timestamp))) => {
                            entry.offset = offset.0;
                            entry.timestamp = timestamp.map_or(-1, |at| at.0);
                            entry.leader_epoch = epoch;
                        }
                        Ok(None) => {}
                        Err(code) => entry.error_code = code.into(),
                    }
                }
            }
            shard.kafka_answer(call, &ListOffsetsResponse { throttle_time_ms: 0, topics });
        });
    }
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
        _ => Err(KafkaError::UNSUPPORTED_VERSION),
    }
}
