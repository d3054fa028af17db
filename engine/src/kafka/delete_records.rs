//! DeleteRecords: moves the start of partitions.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    DeleteRecordsPartitionResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResponse,
};
use highwater_protocol::ids::Offset;

use super::Call;
use super::names::{Named, find_topic, repeated, target};
use crate::api::{DeleteRecords, NewStart};
use crate::calls::FanOut;
use crate::meta::configs;
use crate::shard::Context;

/// In place of an offset: everything that can be read.
const ALL: i64 = -1;

/// In place of the start of a partition, if there is an error.
const NO_OFFSET: i64 = -1;

pub(super) fn delete_records(context: &mut Context<'_>, call: Call, request: &DeleteRecordsRequest<'_>) {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut items = FanOut::new();
    // Where the outcome of each number belongs.
    let mut places = Vec::new();
    let all = request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name, p.partition_index)));
    let twice = repeated(all);
    for topic in &request.topics {
        let named = find_topic(context, topic.name, [0; 16]);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let to = match partition.offset {
                _ if twice.contains(&(topic.name, index)) => Err(KafkaError::INVALID_REQUEST),
                ALL => Ok(None),
                offset @ 0.. => Ok(Some(Offset(offset))),
                _ => Err(KafkaError::OFFSET_OUT_OF_RANGE),
            };
            let target = check_policy(&named).and_then(|()| target(context, &named, index));
            let checked = target.and_then(|(tp, owner)| {
                items.push(owner, NewStart { tp, to: to? });
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
    context.query::<DeleteRecords>(call.conn, items, move |context, moved| {
        for ((topic, partition), moved) in places.into_iter().zip(moved) {
            let response: &mut DeleteRecordsPartitionResponse = &mut topics[topic].partitions[partition];
            match moved {
                Some(Ok(start)) => response.low_watermark = start.0,
                Some(Err(error)) => response.error_code = error.into(),
                None => response.error_code = KafkaError::UNKNOWN_SERVER_ERROR,
            }
        }
        context.answer(call, &DeleteRecordsResponse { throttle_time_ms: 0, topics });
    });
}

/// Records of a topic that is only compacted are not deleted by their age or place.
fn check_policy(named: &Named) -> Result<(), KafkaError> {
    match named {
        Named::Known(topic) if configs::only_compacts(&topic.configs) => Err(KafkaError::POLICY_VIOLATION),
        _ => Ok(()),
    }
}
