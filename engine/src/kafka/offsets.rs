//! ListOffsets: looks offsets up at the owners of the partitions.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopicResponse,
};
use highwater_protocol::ids::Timestamp;

use super::Call;
use super::names::{Named, known_epoch, target};
use super::resolve::{NamedTopic, Resolve, resolve};
use super::topic_answer::TopicsAnswer;
use crate::api::{FoundOffset, InEpoch, ListOffsets, OffsetSpec};
use crate::calls::FanOut;
use crate::context::Context;

/// A request whose partitions are being looked up.
struct OffsetLookup {
    version: i16,
    topics: Vec<ListOffsetsTopicResponse<'static>>,
    items: FanOut<(InEpoch, OffsetSpec)>,
    /// The position of each item in the response.
    places: Vec<(usize, usize)>,
}

impl Resolve for OffsetLookup {
    type Partition = ListOffsetsPartition;

    fn index_to_compare(partition: &ListOffsetsPartition) -> Option<i32> {
        Some(partition.partition_index)
    }

    fn topic(&mut self, named: &Named, partitions: usize) {
        let name = named.name().to_owned().into();
        self.topics.push(ListOffsetsTopicResponse { name, partitions: Vec::with_capacity(partitions) });
    }

    fn partition(
        &mut self,
        context: &Context<'_>,
        named: &Named,
        partition: ListOffsetsPartition,
        is_repeated: bool,
    ) {
        let Some(topic) = self.topics.len().checked_sub(1) else { return };
        let partitions = &mut self.topics[topic].partitions;
        let index = partition.partition_index;
        let target =
            if is_repeated { Err(KafkaError::INVALID_REQUEST) } else { target(context, named, index) };
        let found = target.and_then(|target| Ok((target, spec_of(partition.timestamp, self.version)?)));
        let error_code = match found {
            Err(error) => error,
            Ok((_, None)) => KafkaError::NONE,
            Ok(((tp, owner), Some(spec))) => {
                let of = InEpoch { tp, known: known_epoch(partition.current_leader_epoch) };
                self.items.push(owner, (of, spec));
                self.places.push((topic, partitions.len()));
                KafkaError::NONE
            }
        };
        partitions.push(ListOffsetsPartitionResponse {
            partition_index: index,
            error_code,
            ..Default::default()
        });
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        let Self { topics, items, places, .. } = self;
        context.query::<ListOffsets>(call.conn, items, move |context, found| {
            let answer = TopicsAnswer { call, topics };
            context.fill(call.conn, answer, (places, found), fill_in, |context, answer| answer.send(context));
        });
    }
}

/// Sets the result of a partition.
fn fill_in(
    answer: &mut TopicsAnswer<ListOffsetsTopicResponse<'static>>,
    (topic, partition): (usize, usize),
    found: Option<FoundOffset>,
) {
    let entry = &mut answer.topics[topic].partitions[partition];
    match found {
        Some(Ok(Some(found))) => {
            entry.offset = found.offset.0;
            entry.timestamp = found.timestamp.map_or(-1, |at| at.0);
            entry.leader_epoch = found.epoch.0;
        }
        Some(Ok(None)) => {}
        Some(Err(error)) => entry.error_code = error.into(),
        None => entry.error_code = KafkaError::UNKNOWN_SERVER_ERROR,
    }
}

pub(super) fn list_offsets(context: &mut Context<'_>, call: Call, request: &ListOffsetsRequest<'_>) {
    let topics = request.topics.iter();
    let topics = topics.map(|topic| NamedTopic::new(topic.name, [0; 16], topic.partitions.clone())).collect();
    let lookup = OffsetLookup {
        version: call.version(),
        topics: Vec::with_capacity(request.topics.len()),
        items: FanOut::new(),
        places: Vec::new(),
    };
    resolve(context, call, topics, lookup);
}

/// Returns what a request's timestamp asks for; `None` for positions in tiered storage, which does not exist here.
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
