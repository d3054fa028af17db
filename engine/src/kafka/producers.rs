//! DescribeProducers: the idempotent producers of partitions.

use std::borrow::Cow;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use super::Call;
use super::error::refused;
use super::names::{check_count, find_topic, target};
use crate::api::Producers;
use crate::calls::FanOut;
use crate::shard::Context;

pub(super) fn describe_producers(
    context: &mut Context<'_>,
    call: Call,
    request: &DescribeProducersRequest<'_>,
) {
    let count = check_count(request.topics.iter().map(|topic| 1 + topic.partition_indexes.len()).sum());
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut items = FanOut::new();
    let mut places = Vec::new();
    for topic in &request.topics {
        let named = find_topic(context, topic.name, [0; 16]);
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in &topic.partition_indexes {
            let mut response = PartitionResponse { partition_index: *index, ..Default::default() };
            match count.clone().and_then(|()| target(context, &named, *index).map_err(|e| (e, String::new())))
            {
                Ok((tp, owner)) => {
                    items.push(owner, tp);
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
    context.query::<Producers>(call.conn, items, move |context, found| {
        for ((topic, partition), found) in places.into_iter().zip(found) {
            let response: &mut PartitionResponse<'_> = &mut topics[topic].partitions[partition];
            match found {
                Some(Ok(producers)) => {
                    let producers = producers.into_iter().map(|producer| ProducerState {
                        producer_id: producer.id.0,
                        producer_epoch: producer.epoch.into(),
                        last_sequence: producer.last_sequence,
                        last_timestamp: producer.last_timestamp.0,
                        ..Default::default()
                    });
                    response.active_producers = producers.collect();
                }
                Some(Err(error)) => {
                    let (code, text) = refused(&error);
                    (response.error_code, response.error_message) = (code, Some(Cow::Owned(text)));
                }
                None => response.error_code = KafkaError::UNKNOWN_SERVER_ERROR,
            }
        }
        context.answer(call, &DescribeProducersResponse { throttle_time_ms: 0, topics });
    });
}
