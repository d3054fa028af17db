//! OffsetForLeaderEpoch: where the epochs of leaders end, asked of the owners of the partitions.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    EpochPartitionResponse, EpochTopicResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use super::Call;
use super::names::{find_topic, target_in_epoch};
use crate::api::EpochEnds;
use crate::calls::FanOut;
use crate::shard::Context;

pub(super) fn epoch_ends(context: &mut Context<'_>, call: Call, request: &OffsetForLeaderEpochRequest<'_>) {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut items = FanOut::new();
    // Where the end of each number belongs.
    let mut places = Vec::new();
    for topic in &request.topics {
        let named = find_topic(context, topic.topic, [0; 16]);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let mut entry = EpochPartitionResponse { partition: wanted.partition, ..Default::default() };
            match target_in_epoch(context, &named, wanted.partition, wanted.current_leader_epoch) {
                Err(error) => entry.error_code = error,
                Ok((tp, owner)) => {
                    items.push(owner, (tp, wanted.leader_epoch));
                    places.push((topics.len(), partitions.len()));
                }
            }
            partitions.push(entry);
        }
        topics.push(EpochTopicResponse { topic: topic.topic.to_owned().into(), partitions });
    }
    context.query::<EpochEnds>(call.conn, items, move |context, found| {
        for ((topic, partition), found) in places.into_iter().zip(found) {
            let entry: &mut EpochPartitionResponse = &mut topics[topic].partitions[partition];
            match found {
                Some(Some(found)) => (entry.leader_epoch, entry.end_offset) = (found.epoch, found.end),
                Some(None) => {}
                None => entry.error_code = KafkaError::UNKNOWN_SERVER_ERROR,
            }
        }
        context.answer(call, &OffsetForLeaderEpochResponse { throttle_time_ms: 0, topics });
    });
}
