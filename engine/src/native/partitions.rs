//! Requests about partitions of any shard: offsets, descriptions, and the deletion of records.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use highwater_net::{Entries, Pieces, Reply};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, PartitionIndex, ShardId};
use highwater_protocol::native::{
    DeleteRecordsRequest, DescribeTopicReply, DescribeTopicRequest, ListOffsetsReply, ListOffsetsRequest,
    ListedOffset, PartitionDetail, PartitionInfo, StartAt,
};

use super::Call;
use super::error::{code_of, reply_of};
use crate::api::{ApiError, DeleteRecords, Details, ListOffsets, NewStart, OffsetSpec, PartitionDetails};
use crate::calls::FanOut;
use crate::meta::{Topic, configs};
use crate::shard::{AnswerTo, Context};

const fn offset_spec(start: StartAt) -> OffsetSpec {
    match start {
        StartAt::Earliest => OffsetSpec::Earliest,
        StartAt::Latest => OffsetSpec::Latest,
        StartAt::Offset(at) => OffsetSpec::At(at),
        StartAt::Timestamp(at) => OffsetSpec::Since(at),
    }
}

pub(super) fn list_offsets(context: &mut Context<'_>, call: Call, request: &ListOffsetsRequest) {
    let targets = context.targets();
    let topic = targets.topic_by_id(request.topic);
    let mut items = FanOut::new();
    let mut places = Vec::with_capacity(request.partitions.len());
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for (partition, start) in &request.partitions {
        let target = topic.as_ref().map_err(code_of);
        let target =
            target.and_then(|topic| targets.partition(topic, *partition).map_err(|error| code_of(&error)));
        let found = match target {
            Ok((tp, owner)) => {
                items.push(owner, (tp, offset_spec(*start)));
                places.push(partitions.len());
                Ok(None)
            }
            Err(code) => Err(code),
        };
        partitions.push(ListedOffset { partition: *partition, found });
    }
    context.query::<ListOffsets>(call.conn, items, move |context, found| {
        for (place, found) in places.into_iter().zip(found) {
            partitions[place].found = match found {
                Some(found) => found.map_err(|error| code_of(&error)),
                None => Err(ErrorCode::Internal),
            };
        }
        context.reply(call, Reply::body(&ListOffsetsReply { partitions }));
    });
}

pub(super) fn describe_topic(context: &mut Context<'_>, call: Call, request: &DescribeTopicRequest) {
    let targets = context.targets();
    let topic = match targets.topic(&request.name) {
        Ok(topic) => Arc::clone(topic),
        Err(error) => return context.refuse(call, &error),
    };
    let mut items = FanOut::new();
    for (tp, _) in topic.partitions() {
        match targets.partition(&topic, tp.partition) {
            Ok((tp, owner)) => items.push(owner, tp),
            Err(error) => return context.refuse(call, &error),
        }
    }
    context.query::<Details>(call.conn, items, move |context, found| {
        answer_details(context, call, &topic, found);
    });
}

fn answer_details(
    context: &mut Context<'_>,
    call: Call,
    topic: &Arc<Topic>,
    found: Vec<Option<PartitionDetails>>,
) {
    let Some(partitions) = found.into_iter().collect::<Option<Vec<_>>>() else {
        // A shard does not have a partition any more: the topic was deleted meanwhile.
        return context.refuse(call, &ApiError::UnknownTopic(topic.name.clone()));
    };
    let leader: NodeId = context.setup.identity.node;
    let details = (0..).zip(partitions).zip(&topic.stores).map(|((index, details), store)| PartitionDetail {
        info: PartitionInfo {
            index: PartitionIndex(index),
            leader,
            shard: ShardId(store.0 % context.setup.shards),
            leader_epoch: details.epoch,
        },
        log_start: details.log_start,
        high_watermark: details.high_watermark,
        bytes: details.bytes,
        faulty: details.faulty,
    });
    let details: Vec<_> = details.collect();
    let configs = configs::describe(&topic.configs);
    let reply = DescribeTopicReply { id: topic.id, configs, partitions: Vec::new() };
    let mut front = BytesMut::new();
    reply.put_front(details.len(), &mut front);
    let pieces = Pieces::new(front.freeze(), AllDetails(details), Bytes::new());
    context.answer_in_pieces(AnswerTo::Native(call), pieces);
}

/// The partitions of a topic that is described.
#[derive(Debug)]
struct AllDetails(Vec<PartitionDetail>);

impl Entries for AllDetails {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        self.0[entry].put(out);
        false
    }
}

pub(super) fn delete_records(context: &mut Context<'_>, call: Call, request: &DeleteRecordsRequest) {
    let targets = context.targets();
    let mut items = FanOut::new();
    for (partition, offset) in &request.partitions {
        let target = targets.topic_by_id(request.topic);
        match target.and_then(|topic| targets.partition(topic, *partition)) {
            Ok((tp, owner)) => items.push(owner, NewStart { tp, to: Some(*offset) }),
            Err(error) => return context.refuse(call, &error),
        }
    }
    context.query::<DeleteRecords>(call.conn, items, move |context, moved| {
        let none = || Err(ApiError::Internal("a start was not moved"));
        let error = moved.into_iter().find_map(|moved| moved.unwrap_or_else(none).err());
        context.reply(call, error.map_or(Reply::Empty, |error| reply_of(&error)));
    });
}
