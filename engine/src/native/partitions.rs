//! Requests about partitions of any shard: offsets, descriptions, and the deletion of records.

use std::fmt;
use std::sync::Arc;
use std::vec::IntoIter;

use bytes::{Bytes, BytesMut};
use highwater_net::{Entries, Pieces, Reply};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset, PartitionIndex, Timestamp, TopicPartition};
use highwater_protocol::native::{
    CompactionDetail, DeleteRecordsRequest, DescribeTopicReply, DescribeTopicRequest, ListOffsetsReply,
    ListOffsetsRequest, ListedOffset, LogDetail, PartitionDetail, Start,
};
use highwater_runtime::plane::{ConnId, ShardIndex};

use super::Call;
use super::cluster::place_of;
use super::error::{code_of, reply_of};
use crate::api::{
    ApiError, CompactionDetails, DeleteRecords, Details, FoundOffset, InEpoch, ListOffsets, NewStart,
    OffsetSpec, PartitionDetails,
};
use crate::calls::FanOut;
use crate::context::{AnswerTo, ClientJob, Context};
use crate::counters::Work;
use crate::meta::{Leadership, Topic, configs};

const fn offset_spec(start: Start) -> OffsetSpec {
    match start {
        Start::Earliest => OffsetSpec::Earliest,
        Start::Latest => OffsetSpec::Latest,
        Start::Offset(at) => OffsetSpec::At(at),
        Start::Timestamp(at) => OffsetSpec::Since(at),
    }
}

/// A request about partitions of one topic that are being looked up, with the results so far.
trait Resolve: 'static {
    /// The request's entry for a partition.
    type Item;

    /// Returns the partition's index.
    fn index(item: &Self::Item) -> PartitionIndex;

    /// Adds a partition with its owner, or the error of its lookup. An error that this returns fails the request.
    fn take(
        &mut self,
        item: Self::Item,
        found: Result<(TopicPartition, ShardIndex), ApiError>,
    ) -> Result<(), ApiError>;

    /// Carries out the request after everything was looked up.
    fn finish(self, context: &mut Context<'_>, call: Call);
}

/// Looks up the partitions of a request, as many as a turn allows: there may be a hundred thousand.
struct ResolveJob<R: Resolve> {
    call: Call,
    topic: Result<Arc<Topic>, ApiError>,
    item: IntoIter<R::Item>,
    request: R,
    error: Option<ApiError>,
}

impl<R: Resolve> ClientJob for ResolveJob<R> {
    fn conn(&self) -> ConnId {
        self.call.conn
    }

    fn run_slice(&mut self, context: &Context<'_>, work: &mut Work) -> bool {
        let targets = context.targets();
        while !work.is_over() {
            let Some(item) = self.item.next() else { return true };
            work.spend(1);
            let topic = self.topic.as_ref().map_err(Clone::clone);
            let found = topic.and_then(|topic| targets.partition(topic, R::index(&item)));
            self.error = self.request.take(item, found).err();
            if self.error.is_some() {
                return true;
            }
        }
        self.item.len() == 0
    }

    fn finish(self: Box<Self>, context: &mut Context<'_>) {
        match self.error {
            Some(error) => context.reply_error(self.call, &error),
            None => self.request.finish(context, self.call),
        }
    }
}

/// Looks up the partitions of a request, then carries it out.
fn resolve<R: Resolve>(
    context: &mut Context<'_>,
    call: Call,
    topic: Result<Arc<Topic>, ApiError>,
    item: Vec<R::Item>,
    request: R,
) {
    let item = item.into_iter();
    context.begin_job(ResolveJob { call, topic, item, request, error: None });
}

/// A ListOffsets request whose partitions are being looked up.
struct OffsetLookup {
    listed: Vec<ListedOffset>,
    items: FanOut<(InEpoch, OffsetSpec)>,
    /// The index of each item in `listed`.
    places: Vec<usize>,
}

impl Resolve for OffsetLookup {
    type Item = (PartitionIndex, Start);

    fn index((partition, _): &Self::Item) -> PartitionIndex {
        *partition
    }

    fn take(
        &mut self,
        (partition, start): Self::Item,
        found: Result<(TopicPartition, ShardIndex), ApiError>,
    ) -> Result<(), ApiError> {
        let found = match found {
            Ok((tp, owner)) => {
                self.items.push(owner, (InEpoch { tp, known: None }, offset_spec(start)));
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
            context.fill(call.conn, (call, listed), (places, found), fill_in, answer_offsets);
        });
    }
}

fn fill_in((_, listed): &mut (Call, Vec<ListedOffset>), place: usize, found: Option<FoundOffset>) {
    listed[place].found = match found {
        Some(Ok(found)) => Ok(found.map(|found| (found.offset, found.timestamp))),
        Some(Err(error)) => Err(code_of(&error)),
        None => Err(ErrorCode::Internal),
    };
}

fn answer_offsets(context: &mut Context<'_>, (call, listed): (Call, Vec<ListedOffset>)) {
    let mut front = BytesMut::new();
    ListOffsetsReply::put_front(listed.len(), &mut front);
    let pieces = Pieces::new(front.freeze(), List(listed, |entry, out| entry.put(out)), Bytes::new());
    context.answer_in_pieces(AnswerTo::Native(call), pieces);
}

/// The entries of a reply, and the function that encodes one.
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
    let lookup = OffsetLookup { listed, items: FanOut::new(), places: Vec::new() };
    resolve(context, call, topic, request.partitions, lookup);
}

/// A DescribeTopic request whose partitions are being looked up.
struct DescribeLookup {
    topic: Arc<Topic>,
    items: FanOut<TopicPartition>,
    details: Vec<PartitionDetail>,
    leadership: Leadership,
    /// This node. It describes the logs of the partitions that it leads.
    me: NodeId,
    /// The index of each item in `details`.
    places: Vec<usize>,
}

impl Resolve for DescribeLookup {
    type Item = PartitionIndex;

    fn index(item: &PartitionIndex) -> PartitionIndex {
        *item
    }

    fn take(
        &mut self,
        index: PartitionIndex,
        found: Result<(TopicPartition, ShardIndex), ApiError>,
    ) -> Result<(), ApiError> {
        let led = self.leadership.of(&self.topic, index);
        let is_led_here = led.leader.is_some_and(|place| place.node == self.me);
        if let Ok((tp, owner)) = found
            && is_led_here
        {
            self.items.push(owner, tp);
            self.places.push(self.details.len());
        }
        self.details.push(PartitionDetail {
            info: place_of(index, led),
            replicas: self.topic.replicas(index).to_vec(),
            in_sync: led.in_sync.to_vec(),
            log: None,
        });
        Ok(())
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        let Self { topic, items, details, places, .. } = self;
        context.query::<Details>(call.conn, items, move |context, found| {
            let missing = found.iter().any(Option::is_none);
            if missing {
                // The shard no longer has the partition: the topic was deleted meanwhile.
                return context.reply_error(call, &ApiError::UnknownTopic(topic.name.clone()));
            }
            let answer = (call, topic, details);
            context.fill(call.conn, answer, (places, found), fill_in_log, answer_details);
        });
    }
}

pub(super) fn describe_topic(context: &mut Context<'_>, call: Call, request: &DescribeTopicRequest) {
    let topic = match context.targets().topic(&request.name) {
        Ok(topic) => Arc::clone(topic),
        Err(error) => return context.reply_error(call, &error),
    };
    let Some(leadership) = context.leadership() else { return };
    let item = (0..topic.partition_count() as u32).map(PartitionIndex).collect();
    let lookup = DescribeLookup {
        topic: Arc::clone(&topic),
        items: FanOut::new(),
        details: Vec::with_capacity(topic.partition_count()),
        leadership,
        me: context.setup.identity.node,
        places: Vec::new(),
    };
    resolve(context, call, Ok(topic), item, lookup);
}

/// What is answered about a topic.
type DescribeAnswer = (Call, Arc<Topic>, Vec<PartitionDetail>);

fn fill_in_log((_, _, partitions): &mut DescribeAnswer, place: usize, found: Option<PartitionDetails>) {
    let Some(details) = found else { return };
    let partition = &mut partitions[place];
    partition.info.leader_epoch = details.epoch;
    partition.log = Some(LogDetail {
        log_start: details.log_start,
        high_watermark: details.high_watermark,
        bytes: details.bytes,
        faulty: details.faulty,
        compaction: details.compaction.map(|compaction| compaction_detail(&compaction, details.log_start)),
    });
}

fn answer_details(context: &mut Context<'_>, (call, topic, partitions): DescribeAnswer) {
    let configs = configs::describe(&topic.configs);
    let reply = DescribeTopicReply { id: topic.id, configs, partitions: Vec::new() };
    let mut front = BytesMut::new();
    reply.put_front(partitions.len(), &mut front);
    let pieces = Pieces::new(front.freeze(), List(partitions, PartitionDetail::put), Bytes::new());
    context.answer_in_pieces(AnswerTo::Native(call), pieces);
}

fn compaction_detail(compaction: &CompactionDetails, log_start: Offset) -> CompactionDetail {
    let CompactionDetails { backlog, passes } = compaction;
    CompactionDetail {
        clean_bytes: backlog.clean_bytes,
        dirty_bytes: backlog.dirty_bytes,
        compacted_to: backlog.compacted_to().unwrap_or(log_start),
        passes: passes.passes,
        last_pass: passes.last_ms.map(Timestamp),
        bytes_before: passes.bytes_before,
        bytes_after: passes.bytes_after,
    }
}

/// A DeleteRecords request whose partitions are being looked up.
struct DeleteRecordsLookup(FanOut<NewStart>);

impl Resolve for DeleteRecordsLookup {
    type Item = (PartitionIndex, Offset);

    fn index((partition, _): &Self::Item) -> PartitionIndex {
        *partition
    }

    fn take(
        &mut self,
        (_, offset): Self::Item,
        found: Result<(TopicPartition, ShardIndex), ApiError>,
    ) -> Result<(), ApiError> {
        let (tp, owner) = found?;
        self.0.push(owner, NewStart { tp, to: Some(offset) });
        Ok(())
    }

    fn finish(self, context: &mut Context<'_>, call: Call) {
        context.query::<DeleteRecords>(call.conn, self.0, move |context, moved| {
            let none = || Err(ApiError::Internal("a log start was not moved"));
            let error = moved.into_iter().find_map(|moved| moved.unwrap_or_else(none).err());
            context.reply(call, error.map_or(Reply::Empty, |error| reply_of(&error)));
        });
    }
}

pub(super) fn delete_records(context: &mut Context<'_>, call: Call, request: DeleteRecordsRequest) {
    let topic = context.targets().topic_by_id(request.topic).cloned();
    resolve(context, call, topic, request.partitions, DeleteRecordsLookup(FanOut::new()));
}
