//! What partitions know of their idempotent producers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use highwater_net::kafka::messages::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::Call;
use super::topics::check_count;
use crate::message::{Message, Query, QueryAnswer};
use crate::shard::Shard;

impl Shard {
    pub(super) fn kafka_describe_producers(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &DescribeProducersRequest<'_>,
    ) {
        let count = check_count(request.topics.iter().map(|topic| 1 + topic.partition_indexes.len()).sum());
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut owners: BTreeMap<ShardIndex, Vec<(u32, TopicPartition)>> = BTreeMap::new();
        let mut places = Vec::new();
        for topic in &request.topics {
            let named = self.kafka_topic(topic.name, [0; 16]);
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for index in &topic.partition_indexes {
                let mut response = PartitionResponse { partition_index: *index, ..Default::default() };
                match count
                    .clone()
                    .and_then(|()| self.kafka_target(&named, *index).map_err(|e| (e, String::new())))
                {
                    Ok((tp, owner)) => {
                        owners.entry(owner).or_default().push((places.len() as u32, tp));
                        places.push((topics.len(), partitions.len()));
                    }
                    Err((error, text)) => {
                        response.error_code = error;
                        response.error_message = (!text.is_empty()).then_some(text.into());
                    }
                }
                partitions.push(response);
            }
            topics.push(TopicResponse { name: topic.name.to_owned().into(), partitions });
        }
        let queries = owners.into_iter().map(|(owner, list)| (owner, Query::Producers(list))).collect();
        self.kafka_gather_from_owners(plane, call, queries, move |shard, call, answers| {
            for answer in answers {
                let QueryAnswer::Producers(found) = answer else {
                    unreachable!("a question is answered in its own kind, not with {answer:?}")
                };
                for (number, found) in found {
                    let (topic, partition) = places[number as usize];
                    let response: &mut PartitionResponse<'_> = &mut topics[topic].partitions[partition];
                    match found {
                        Ok(producers) => {
                            let producers = producers.into_iter().map(|producer| ProducerState {
                                producer_id: producer.id.0,
                                producer_epoch: producer.epoch.into(),
                                last_sequence: producer.last_sequence,
                                last_timestamp: producer.last_timestamp.0,
                                ..Default::default()
                            });
                            response.active_producers = producers.collect();
                        }
                        Err((code, text)) => {
                            response.error_code = code.into();
                            response.error_message = Some(Cow::Owned(text));
                        }
                    }
                }
            }
            shard.kafka_answer(call, &DescribeProducersResponse { throttle_time_ms: 0, topics });
        });
    }
}
