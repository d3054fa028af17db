//! ListOffsets: asked of the owners of the partitions.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use highwater_protocol::ids::Timestamp;

use super::Call;
use super::cluster::leader_epoch;
use super::names::{find_topic, repeated, target_in_epoch};
use crate::api::{ListOffsets, OffsetSpec};
use crate::calls::FanOut;
use crate::shard::Context;

pub(super) fn list_offsets(context: &mut Context<'_>, call: Call, request: &ListOffsetsRequest<'_>) {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut items = FanOut::new();
    // Where what is found of each number belongs, and the epoch of its leader.
    let mut places = Vec::new();
    let all = request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name, p.partition_index)));
    let twice = repeated(all);
    for topic in &request.topics {
        let named = find_topic(context, topic.name, [0; 16]);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let index = wanted.partition_index;
            let target = if twice.contains(&(topic.name, index)) {
                Err(KafkaError::INVALID_REQUEST)
            } else {
                target_in_epoch(context, &named, index, wanted.current_leader_epoch)
            };
            let found = target.and_then(|target| Ok((target, spec_of(wanted.timestamp, call.version())?)));
            let error_code = match found {
                Err(error) => error,
                Ok((_, None)) => KafkaError::NONE,
                Ok(((tp, owner), Some(spec))) => {
                    items.push(owner, (tp, spec));
                    places.push((topics.len(), partitions.len(), leader_epoch(context, tp)));
                    KafkaError::NONE
                }
            };
            partitions.push(ListOffsetsPartitionResponse {
                partition_index: index,
                error_code,
                ..Default::default()
            });
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name.to_owned().into(), partitions });
    }
    context.query::<ListOffsets>(call.conn, items, move |context, found| {
        for ((topic, partition, epoch), found) in places.into_iter().zip(found) {
            let entry: &mut ListOffsetsPartitionResponse = &mut topics[topic].partitions[partition];
            match found {
                Some(Ok(Some((offset, timestamp)))) => {
                    entry.offset = offset.0;
                    entry.timestamp = timestamp.map_or(-1, |at| at.0);
                    entry.leader_epoch = epoch;
                }
                Some(Ok(None)) => {}
                Some(Err(error)) => entry.error_code = error.into(),
                None => entry.error_code = KafkaError::UNKNOWN_SERVER_ERROR,
            }
        }
        context.answer(call, &ListOffsetsResponse { throttle_time_ms: 0, topics });
    });
}

/// What a request's timestamp means; none for what does not exist here. Nothing is tiered, so all of a log is local.
fn spec_of(timestamp: i64, version: i16) -> Result<Option<OffsetSpec>, KafkaError> {
    let since = |first: i16, spec: Option<OffsetSpec>| {
        if version >= first { Ok(spec) } else { Err(KafkaError::UNSUPPORTED_VERSION) }
    };
    match timestamp {
        0.. => Ok(Some(OffsetSpec::Since(Timestamp(timestamp)))),
        ListOffsetsPartition::LATEST => Ok(Some(OffsetSpec::Latest)),
        ListOffsetsPartition::EARLIEST => Ok(Some(OffsetSpec::Earliest)),
        ListOffsetsPartition::MAX_TIMESTAMP => since(7, Some(OffsetSpec::MaxTimestamp)),
        ListOffsetsPartition::EARLIEST_LOCAL => since(8, Some(OffsetSpec::Earliest)),
        ListOffsetsPartition::LATEST_TIERED => since(9, None),
        ListOffsetsPartition::EARLIEST_PENDING_UPLOAD => since(11, None),
        _ => Err(KafkaError::UNSUPPORTED_VERSION),
    }
}
