//! DeleteRecords: moves the log start of partitions.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    DeleteRecordsPartition, DeleteRecordsPartitionResponse, DeleteRecordsRequest, DeleteRecordsTopicResponse,
};
use highwater_protocol::ids::Offset;

use super::Call;
use super::names::{Named, target};
use super::resolve::{NamedTopic, Resolve, resolve};
use super::topic_answer::TopicsAnswer;
use crate::api::{ApiError, DeleteRecords, NewStart};
use crate::calls::FanOut;
use crate::context::Context;
use crate::meta::configs;

/// Requests the high watermark, in place of an offset.
const ALL: i64 = -1;

/// Replaces the low watermark if there is an error.
const NO_OFFSET: i64 = -1;

/// A request whose partitions are being looked up.
struct DeleteRecordsLookup {
    topics: Vec<DeleteRecordsTopicResponse<'static>>,
    items: FanOut<NewStart>,
    /// The position of each item in the response.
    places: Vec<(usize, usize)>,
}

impl Resolve for DeleteRecordsLookup {
    type Partition = DeleteRecordsPartition;

    fn index_to_compare(partition: &DeleteRecordsPartition) -> Option<i32> {
        Some(partition.partition_index)
    }

    fn topic(&mut self, named: &Named, partitions: usize) {
        let name = named.name().to_owned().into();
        self.topics.push(DeleteRecordsTopicResponse { name, partitions: Vec::with_capacity(partitions) });
    }

    fn partition(
        &mut self,
        context: &Context<'_>,
        named: &Named,
        partition: DeleteRecordsPartition,
        is_repeated: bool,
    ) {
        let Some(topic) = self.topics.len().checked_sub(1) else { return };
        let partitions = &mut self.topics[topic].partitions;
        let index = partition.partition_index;
        let to = match partition.offset {
            _ if is_repeated => Err(KafkaError::INVALID_REQUEST),
            ALL => Ok(None),
            offset @ 0.. => Ok(Some(Offset(offset))),
            _ => Err(KafkaError::OFFSET_OUT_OF_RANGE),
        };
        let target = check_policy(named).and_then(|()| target(context, named, index));
        let checked = target.and_then(|(tp, owner)| {
            self.items.push(owner, NewStart { tp, to: to? });
            self.places.push((topic, partitions.len()));
            Ok(())
        });
        partitions.push(DeleteRecordsPartitionResponse {
            partition_index: index,
            low_watermark: NO_OFFSET,
            error_code: checked.err().unwrap_or_default(),
        });
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        let Self { topics, items, places } = self;
        context.query::<DeleteRecords>(call.conn, items, move |context, moved| {
            let answer = TopicsAnswer { call, topics };
            context.fill(call.conn, answer, (places, moved), fill_in, |context, answer| answer.send(context));
        });
    }
}

/// Sets the outcome of a partition.
fn fill_in(
    answer: &mut TopicsAnswer<DeleteRecordsTopicResponse<'static>>,
    (topic, partition): (usize, usize),
    moved: Option<Result<Offset, ApiError>>,
) {
    let entry = &mut answer.topics[topic].partitions[partition];
    match moved {
        Some(Ok(start)) => entry.low_watermark = start.0,
        Some(Err(error)) => entry.error_code = error.into(),
        None => entry.error_code = KafkaError::UNKNOWN_SERVER_ERROR,
    }
}

pub(super) fn delete_records(context: &mut Context<'_>, call: Call, request: &DeleteRecordsRequest<'_>) {
    let topics = request.topics.iter();
    let topics = topics.map(|topic| NamedTopic::new(topic.name, [0; 16], topic.partitions.clone())).collect();
    let (items, places) = (FanOut::new(), Vec::new());
    resolve(context, call, topics, DeleteRecordsLookup { topics: Vec::new(), items, places });
}

/// Rejects topics that are only compacted: their records are not deleted by offset.
fn check_policy(named: &Named) -> Result<(), KafkaError> {
    match named {
        Named::Known(topic) if configs::only_compacts(&topic.configs) => Err(KafkaError::POLICY_VIOLATION),
        _ => Ok(()),
    }
}
