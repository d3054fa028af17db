//! OffsetForLeaderEpoch: where the epochs of leaders end, asked of the owners of the partitions.

use std::collections::BTreeMap;

use highwater_net::kafka::messages::{
    EpochPartitionResponse, EpochTopicResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::Call;
use crate::message::{Message, Query, QueryAnswer};
use crate::shard::Shard;

impl Shard {
    pub(super) fn kafka_epoch_ends(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &OffsetForLeaderEpochRequest<'_>,
    ) {
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut by_owner: BTreeMap<ShardIndex, Vec<(u32, TopicPartition, i32)>> = BTreeMap::new();
        // Where the end of each number belongs.
        let mut places = Vec::new();
        for topic in &request.topics {
            let named = self.kafka_topic(topic.topic, [0; 16]);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let mut entry = EpochPartitionResponse { partition: wanted.partition, ..Default::default() };
                match self.kafka_target_in_epoch(&named, wanted.partition, wanted.current_leader_epoch) {
                    Err(error) => entry.error_code = error,
                    Ok((tp, owner)) => {
                        let number = places.len() as u32;
                        by_owner.entry(owner).or_default().push((number, tp, wanted.leader_epoch));
                        places.push((topics.len(), partitions.len()));
                    }
                }
                partitions.push(entry);
            }
            topics.push(EpochTopicResponse { topic: topic.topic.to_owned().into(), partitions });
        }
        let queries = by_owner.into_iter().map(|(owner, list)| (owner, Query::EpochEnds(list))).collect();
        self.kafka_gather_from_owners(plane, call, queries, move |shard, call, answers| {
            for answer in answers {
                let QueryAnswer::EpochEnds(found) = answer else {
                    unreachable!("a question is answered in its own kind, not with {answer:?}")
                };
                for (number, found) in found {
                    let (topic, partition) = places[number as usize];
                    let entry: &mut EpochPartitionResponse = &mut topics[topic].partitions[partition];
                    if let Some((epoch, end)) = found {
                        entry.leader_epoch = epoch;
                        entry.end_offset = end;
                    }
                }
            }
            shard.kafka_answer(call, &OffsetForLeaderEpochResponse { throttle_time_ms: 0, topics });
        });
    }
}
