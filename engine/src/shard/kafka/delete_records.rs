//! DeleteRecords: moves the start of partitions.

use std::collections::BTreeMap;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    DeleteRecordsPartitionResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResponse,
};
use highwater_protocol::ids::Offset;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::topics::repeated;
use super::{Call, Named};
use crate::message::{Message, NewStart, Query, QueryAnswer};
use crate::meta::configs;
use crate::shard::Shard;

/// In place of an offset: everything that can be read.
const ALL: i64 = -1;

/// In place of the start of a partition, if there is an error.
const NO_OFFSET: i64 = -1;

impl Shard {
    pub(super) fn kafka_delete_records(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &DeleteRecordsRequest<'_>,
    ) {
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut by_owner: BTreeMap<ShardIndex, Vec<NewStart>> = BTreeMap::new();
        // Where the outcome of each number belongs.
        let mut places = Vec::new();
        let all =
            request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name, p.partition_index)));
        let twice = repeated(all);
        for topic in &request.topics {
            let named = self.kafka_topic(topic.name, [0; 16]);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let to = match partition.offset {
                    _ if twice.contains(&(topic.name, index)) => Err(KafkaError::INVALID_REQUEST),
                    ALL => Ok(None),
                    offset @ 0.. => Ok(Some(Offset(offset))),
                    _ => Err(KafkaError::OFFSET_OUT_OF_RANGE),
                };
                let target = check_policy(&named).and_then(|()| self.kafka_target(&named, index));
                let checked = target.and_then(|(tp, owner)| {
                    let number = places.len() as u32;
                    by_owner.entry(owner).or_default().push(NewStart { number, tp, to: to? });
                    places.push((topics.len(), partitions.len()));
                    Ok(())
                });
                partitions.push(DeleteRecordsPartitionResponse {
                    partition_index: index,
                    low_watermark: NO_OFFSET,
                    error_code: checked.err().unwrap_or_default(),
                });
            }
            topics.push(DeleteRecordsTopicResponse { name: topic.name.to_owned().into(), partitions });
        }
        let queries = by_owner.into_iter().map(|(owner, list)| (owner, Query::DeleteRecords(list))).collect();
        self.kafka_gather_from_owners(plane, call, queries, move |shard, call, answers| {
            for answer in answers {
                let QueryAnswer::DeleteRecords(outcomes) = answer else {
                    unreachable!("a question is answered in its own kind, not with {answer:?}")
                };
                for (number, outcome) in outcomes {
                    let (topic, partition) = places[number as usize];
                    let response: &mut DeleteRecordsPartitionResponse =
                        &mut topics[topic].partitions[partition];
                    match outcome {
                        Ok(start) => response.low_watermark = start.0,
                        Err((code, _)) => response.error_code = code.into(),
                    }
                }
            }
            shard.kafka_answer(call, &DeleteRecordsResponse { throttle_time_ms: 0, topics });
        });
    }
}

/// Records of a topic that is only compacted are not deleted by their age or place.
fn check_policy(named: &Named) -> Result<(), KafkaError> {
    match named {
        Named::Known(topic) if configs::only_compacts(&topic.configs) => Err(KafkaError::POLICY_VIOLATION),
        _ => Ok(()),
    }
}
