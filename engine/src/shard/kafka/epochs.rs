//! OffsetForLeaderEpoch: where the epochs of leaders end, asked of the owners of the partitions.

use std::collections::BTreeMap;

use highwater_net::kafka::messages::{
    EpochPartitionResponse, EpochTopicResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use highwater_protocol::ids::TopicPartition;
use highwater_runtime::plane::{Plane, ShardIndex};

use super::Call;
use super::offsets::counted;
use crate::message::{Message, Query, QueryAnswer};
use crate::shard::Shard;

impl Shard {
    pub(super) fn kafka_epoch_ends(
        &mut self,
        plane: &mut dyn Plane<Message>,
        call: Call,
        request: &OffsetForLeaderEpochRequest<'_>,
    ) {
        let mut partitions = Vec::new();
        let mut by_owner: BTreeMap<ShardIndex, Vec<(u32, TopicPartition, i32)>> = BTreeMap::new();
        for topic in &request.topics {
            let named = self.kafka_topic(topic.topic, [0; 16]);
            for wanted in &topic.partitions {
                let number = partitions.len() as u32;
                let mut entry = EpochPartitionResponse { partition: wanted.partition, ..Default::default() };
                let tp = named.partition(wanted.partition);
                match tp.and_then(|tp| Some((tp, self.owner_of(tp)?))) {
                    None => entry.error_code = named.missing(),
                    Some((tp, owner)) => match self.check_leader_epoch(tp, wanted.current_leader_epoch) {
                        Err(error) => entry.error_code = error,
                        Ok(()) => {
                            by_owner.entry(owner).or_default().push((number, tp, wanted.leader_epoch));
                        }
                    },
                }
                partitions.push(entry);
            }
        }
        let queries = by_owner.into_iter().map(|(owner, list)| (owner, Query::EpochEnds(list))).collect();
        let topics = counted(request.topics.iter().map(|topic| (topic.topic, topic.partitions.len())));
        self.kafka_gather_from_owners(plane, call, queries, |shard, call, answers| {
            for answer in answers {
                let QueryAnswer::EpochEnds(found) = answer else {
                    unreachable!("a question is answered in its own kind, not with {answer:?}")
                };
                for (number, found) in found {
                    let entry: &mut EpochPartitionResponse = &mut partitions[number as usize];
                    if let Some((epoch, end)) = found {
                        entry.leader_epoch = epoch;
                        entry.end_offset = end;
                    }
                }
            }
            let mut partitions = partitions.into_iter();
            let topics = topics.into_iter().map(|(name, count)| EpochTopicResponse {
                topic: name.into(),
                partitions: partitions.by_ref().take(count).collect(),
            });
            let response = OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() };
            shard.kafka_answer(call, &response);
        });
    }
}
