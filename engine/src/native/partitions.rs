//! Requests about partitions of any shard: offsets, descriptions, and the deletion of records.

use std::fmt;
use std::sync::Arc;
use std::vec::IntoIter;

use bytes::{Bytes, BytesMut};
use highwater_net::{Entries, Pieces, Reply};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset, PartitionIndex, ShardId, TopicPartition};
use highwater_protocol::native::{
    DeleteRecordsRequest, DescribeTopicReply, DescribeTopicRequest, ListOffsetsReply, ListOffsetsRequest,
    ListedOffset, PartitionDetail, PartitionInfo, Start,
};
use highwater_runtime::plane::{ConnId, ShardIndex};

use super::Call;
use super::error::{code_of, reply_of};
use crate::api::{
    ApiError, DeleteRecords, Details, FoundOffset, ListOffsets, NewStart, OffsetSpec, PartitionDetails,
};
use crate::calls::FanOut;
use crate::meta::{Topic, configs};
use crate::shard::{AnswerTo, ClientJob, Context, Work};

const fn offset_spec(start: Start) -> OffsetSpec {
    match start {
        Start::Earliest => OffsetSpec::Earliest,
        Start::Latest => OffsetSpec::Latest,
        Start::Offset(at) => OffsetSpec::At(at),
        Start::Timestamp(at) => OffsetSpec::Since(at),
    }
}

/// A request about partitions of one topic, with what was found of those that were looked up so far.
trait Resolve: 'static {
    /// What is wanted of a partition.
    type Wanted;

    /// The partition's number.
    fn index(wanted: &Self::Wanted) -> PartitionIndex;

    /// Takes a partition with its owner, or why there is none. An error refuses the request.
    fn take(
        &mut self,
        wanted: Self::Wanted,
        found: Result<(TopicPartition, ShardIndex), ApiError>,
    ) -> Result<(), ApiError>;

    /// Carries out the request, when all is found.
    fn finish(self, context: &mut Context<'_>, call: Call);
}

/// Partitions that are looked up, as many as a turn allows: there may be a hundred thousand.
struct Resolving<R: Resolve> {
    call: Call,
    topic: Result<Arc<Topic>, ApiError>,
    wanted: IntoIter<R::Wanted>,
    request: R,
    refused: Option<ApiError>,
}

impl<R: Resolve> ClientJob for Resolving<R> {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn go_on(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        let targets = context.targets();
        while !work.is_over() {
            let Some(wanted) = self.wanted.next() else { return true };
            work.spend(1);
            let topic = self.topic.as_ref().map_err(Clone::clone);
            let found = topic.and_then(|topic| targets.partition(topic, R::index(&wanted)));
            self.refused = self.request.take(wanted, found).err();
            if self.refused.is_some() {
                return true;
            }
        }
        self.wanted.len() == 0
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        match self.refused {
            Some(error) => context.refuse(self.call, &error),
            None => self.request.finish(context, self.call),
        }
    }
}

/// Looks up what a request names, and has it carried out then.
fn resolve<R: Resolve>(
    context: &mut Context<'_>,
    call: Call,
    topic: Result<Arc<Topic>, ApiError>,
    wanted: Vec<R::Wanted>,
    request: R,
) {
    let wanted = wanted.into_iter();
    context.begin_job(Resolving { call, topic, wanted, request, refused: None });
}

/// A ListOffsets whose partitions are looked up.
struct Listing {
    listed: Vec<ListedOffset>,
    items: FanOut<(TopicPartition, OffsetSpec)>,
    /// Where what is found of each item belongs.
    places: Vec<usize>,
}

impl Resolve for Listing {
    type Wanted = (PartitionIndex, Start);

    fn index((partition, _): &Self::Wanted) -> PartitionIndex {
        *partition
    }

    fn take(
        &mut self,
        (partition, start): Self::Wanted,
        found: Result<(TopicPartition, ShardIndex), ApiError>,
    ) -> Result<(), ApiError> {
        let found = match found {
            Ok((tp, owner)) => {
                self.items.push(owner, (tp, offset_spec(start)));
                self.places.push(self.listed.len());
                Ok(None)
            }
            Err(error) => Err(code_of(&error)),
        };
        self.listed.push(ListedOffset { partition, found });
        Ok(())
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        let Self { listed, items, places } = self;
        context.query::<ListOffsets>(call.conn, items, move |context, found| {
            context.fill(call.conn, (call, listed), (places, found), fill_in, answer_listed);
        });
    }
}

fn fill_in((_, listed): &mut (Call, Vec<ListedOffset>), place: usize, found: Option<FoundOffset>) {
    listed[place].found = match found {
        Some(found) => found.map_err(|error| code_of(&error)),
        None => Err(ErrorCode::Internal),
    };
}

fn answer_listed(context: &mut Context<'_>, (call, listed): (Call, Vec<ListedOffset>)) {
    let mut front = BytesMut::new();
    ListOffsetsReply::put_front(listed.len(), &mut front);
    let pieces = Pieces::new(front.freeze(), List(listed, |entry, out| entry.put(out)), Bytes::new());
    context.answer_in_pieces(AnswerTo::Native(call), pieces);
}

/// The entries of a reply, each encoded by the function.
#[derive(Debug)]
struct List<T>(Vec<T>, fn(&T, &mut BytesMut));

impl<T: fmt::Debug + Send> Entries for List<T> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn put(&self, entry: usize, _: usize, out: &mut BytesMut) -> bool {
        self.1(&self.0[entry], out);
        false
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&self.0[..])
    }
}

pub(super) fn list_offsets(context: &mut Context<'_>, call: Call, request: ListOffsetsRequest) {
    let topic = context.targets().topic_by_id(request.topic).cloned();
    let listed = Vec::with_capacity(request.partitions.len());
    let listing = Listing { listed, items: FanOut::new(), places: Vec::new() };
    resolve(context, call, topic, request.partitions, listing);
}

/// A DescribeTopic whose partitions are looked up.
struct Describing {
    topic: Arc<Topic>,
    items: FanOut<TopicPartition>,
}

impl Resolve for Describing {
    type Wanted = PartitionIndex;

    fn index(wanted: &PartitionIndex) -> PartitionIndex {
        *wanted
    }

    fn take(
        &mut self,
        _: PartitionIndex,
        found: Result<(TopicPartition, ShardIndex), ApiError>,
    ) -> Result<(), ApiError> {
        let (tp, owner) = found?;
        self.items.push(owner, tp);
        Ok(())
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        let Self { topic, items } = self;
        context.query::<Details>(call.conn, items, move |context, found| {
            answer_details(context, call, &topic, found);
        });
    }
}

pub(super) fn describe_topic(context: &mut Context<'_>, call: Call, request: &DescribeTopicRequest) {
    let topic = match context.targets().topic(&request.name) {
        Ok(topic) => Arc::clone(topic),
        Err(error) => return context.refuse(call, &error),
    };
    let wanted = (0..topic.stores.len() as u32).map(PartitionIndex).collect();
    let describing = Describing { topic: Arc::clone(&topic), items: FanOut::new() };
    resolve(context, call, Ok(topic), wanted, describing);
}

fn answer_details(
    context: &mut Context<'_>,
    call: Call,
    topic: &Arc<Topic>,
    found: Vec<Option<PartitionDetails>>,
) {
    let Some(partitions) = found.into_iter().collect::<Option<Vec<_>>>() else {
        // The shard no longer has the partition: the topic was deleted meanwhile.
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
    let pieces = Pieces::new(front.freeze(), List(details, PartitionDetail::put), Bytes::new());
    context.answer_in_pieces(AnswerTo::Native(call), pieces);
}

/// A DeleteRecords whose partitions are looked up.
struct Deleting(FanOut<NewStart>);

impl Resolve for Deleting {
    type Wanted = (PartitionIndex, Offset);

    fn index((partition, _): &Self::Wanted) -> PartitionIndex {
        *partition
    }

    fn take(
        &mut self,
        (_, offset): Self::Wanted,
        found: Result<(TopicPartition, ShardIndex), ApiError>,
    ) -> Result<(), ApiError> {
        let (tp, owner) = found?;
        self.0.push(owner, NewStart { tp, to: Some(offset) });
        Ok(())
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        context.query::<DeleteRecords>(call.conn, self.0, move |context, moved| {
            let none = || Err(ApiError::Internal("a start was not moved"));
            let error = moved.into_iter().find_map(|moved| moved.unwrap_or_else(none).err());
            context.reply(call, error.map_or(Reply::Empty, |error| reply_of(&error)));
        });
    }
}

pub(super) fn delete_records(context: &mut Context<'_>, call: Call, request: DeleteRecordsRequest) {
    let topic = context.targets().topic_by_id(request.topic).cloned();
    resolve(context, call, topic, request.partitions, Deleting(FanOut::new()));
}
