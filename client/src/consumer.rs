//! Receiving records.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::limits::CREDIT_BYTES_MAX;
use highwater_protocol::native::{ReadOffsetsReply, ReadOffsetsRequest, StartAt};
use highwater_protocol::text::counted;
use tokio::sync::oneshot;

use crate::batch::Batch;
use crate::core::subscription::ConsumerCore;
use crate::error::{CallError, CommitError, FetchError, FetchErrorKind, Outcome};
use crate::group::GroupBuilder;
use crate::io::calls::RetryPolicy;
use crate::io::cluster::Cluster;
use crate::io::consumer::{CommitTarget, ConsumerShared, watch_partitions};
use crate::reader::Reader;
use crate::record::ConsumedRecord;
use crate::records::Records;

/// Configures a consumer; await it to have the consumer. Made by [`Client::consumer`](crate::Client::consumer).
#[derive(Debug)]
#[must_use = "a builder does nothing until it is awaited"]
pub struct ConsumerBuilder {
    cluster: Arc<Cluster>,
    topic: String,
    partitions: Option<Vec<u32>>,
    name: Option<String>,
    create: Option<u32>,
    reading: ReadSettings,
}

/// How partitions are read, whoever says which.
#[derive(Debug)]
pub(crate) struct ReadSettings {
    /// Where a partition begins that has no committed position.
    pub(crate) start: StartAt,
    pub(crate) buffer_bytes: usize,
    pub(crate) until_end: bool,
    /// Where to go on when the position no longer exists.
    pub(crate) reset: Option<StartAt>,
}

impl ConsumerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>, topic: String) -> Self {
        Self {
            cluster,
            topic,
            partitions: None,
            name: None,
            create: None,
            reading: ReadSettings {
                start: StartAt::Earliest,
                buffer_bytes: 16 << 20,
                until_end: false,
                reset: None,
            },
        }
    }

    /// The partitions to read. Default: all, and those that the topic gets later.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = u32>) -> Self {
        self.partitions = Some(partitions.into_iter().collect());
        self
    }

    /// Where to begin in partitions without a committed position. Default: [`StartAt::Earliest`], the first record there is, as on the
    /// command line. [`StartAt::Latest`] skips everything that is written already.
    pub fn start(mut self, start: StartAt) -> Self {
        self.reading.start = start;
        self
    }

    /// The name under which positions are committed, and from whose positions it goes on. Two consumers of one name at the same time
    /// each read everything, and overwrite each other's positions; to share the work, see [`ConsumerBuilder::group`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Shares the topic's partitions with the other members of a group, instead of reading all: Highwater's own clients and
    /// Kafka's with `group.protocol=consumer`. What was set on this builder holds, but for partitions and name: the group assigns, and
    /// positions are the group's.
    pub fn group(self, group: impl Into<String>) -> GroupBuilder {
        GroupBuilder::new(self.cluster, group.into(), self.topic, self.create, self.reading)
    }

    /// Creates the topic if it is missing, with so many partitions and the broker's default configuration. Default: a missing topic is an error.
    pub fn create_if_missing(mut self, partitions: u32) -> Self {
        self.create = Some(partitions);
        self
    }

    /// Bytes that may have arrived and wait to be taken, shared by the partitions, each of which has
    /// at least 64 KiB. Default: 16 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.reading.buffer_bytes = bytes;
        self
    }

    /// End at what is the end of each partition when it is first reached: [`Consumer::next_batch`] then returns none. A partition that an
    /// error has stopped is not waited for.
    pub fn until_end(mut self) -> Self {
        self.reading.until_end = true;
        self
    }

    /// Where to go on when the position does not exist: retention has removed it, or the topic was deleted and created anew and has not as many
    /// records. [`Event::PositionReset`](crate::Event::PositionReset) tells of it. Without this, `next_batch` returns an error of
    /// the kind [`FetchErrorKind::OutOfRange`], and the partition stops until [`Consumer::seek`].
    pub fn on_out_of_range(mut self, start: StartAt) -> Self {
        self.reading.reset = Some(start);
        self
    }

    async fn start_up(self) -> Result<Consumer, FetchError> {
        let topic: Arc<str> = self.topic.into();
        let failed =
            |error: CallError| FetchError::from_call(format_args!("cannot consume topic {topic}"), &error);
        let info = self.cluster.topic_or_create(&topic, self.create).await.map_err(failed)?;
        let count = info.partitions.len() as u32;
        let all = self.partitions.is_none();
        let mut partitions = self.partitions.unwrap_or_else(|| (0..count).collect());
        partitions.sort_unstable();
        partitions.dedup();
        if let Some(unknown) = partitions.iter().find(|partition| **partition >= count) {
            let count = counted(count as usize, "partition");
            let text = format!("topic {topic} has {count}, numbered from 0, and no partition {unknown}");
            let code = ErrorCode::UnknownPartition;
            return Err(FetchError::with_code(FetchErrorKind::UnknownTopic, Outcome::NotWritten, code, text));
        }
        let committed = match &self.name {
            Some(name) => {
                let request = ReadOffsetsRequest { consumer: name.clone(), topic: info.id };
                let reply: ReadOffsetsReply =
                    self.cluster.call(&request, RetryPolicy::Always).await.map_err(failed)?;
                reply.positions
            }
            None => Vec::new(),
        };
        let starts = partitions.into_iter().map(|partition| {
            let committed = committed.iter().find(|position| position.partition.0 == partition);
            (partition, committed.map_or(self.reading.start, |position| StartAt::Offset(position.offset)))
        });
        let buffer_bytes = self.reading.buffer_bytes.min(CREDIT_BYTES_MAX as usize);
        let core = ConsumerCore::new(starts, buffer_bytes, self.reading.until_end);
        let commit_target = self.name.map_or(CommitTarget::None, CommitTarget::Named);
        let shared = Arc::new(ConsumerShared::new(
            topic,
            info.id,
            commit_target,
            self.cluster,
            self.reading.reset,
            core,
        ));
        shared.start();
        let (guard, gone) = oneshot::channel();
        if all && !self.reading.until_end {
            shared.cluster.runtime.spawn(watch_partitions(Arc::downgrade(&shared), gone));
        }
        Ok(Consumer { reader: Reader::new(shared.clone()), shared, _guard: guard })
    }
}

impl IntoFuture for ConsumerBuilder {
    type Output = Result<Consumer, FetchError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start_up())
    }
}

/// Reads a topic. The broker pushes records as they become durable, as far as the buffer has room; there is no polling interval.
///
/// A lost connection is made again and reading goes on at the same record.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<ConsumerShared>,
    reader: Reader,
    /// Tells the task that watches for partitions that the consumer is gone.
    _guard: oneshot::Sender<()>,
}

/// Where a consumer stands in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The partition.
    pub partition: u32,
    /// The offset behind the last record delivered. None until the broker has said where the consumer begins.
    pub position: Option<Offset>,
    /// First offset that can be read, as last heard.
    pub log_start: Option<Offset>,
    /// Offset behind the last acknowledged record, as last heard.
    pub high_watermark: Option<Offset>,
    /// With [`ConsumerBuilder::until_end`]: where it ends.
    pub end: Option<Offset>,
}

impl Consumer {
    /// The topic.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// The next records, of whatever partition has some. None at the end that was asked for, if one was.
    ///
    /// After an error the other partitions go on; call again. The partition of the error goes on, too, if it tells of records that are
    /// lost ([`FetchError::damaged`]); otherwise it stops until a [seek](Consumer::seek), and counts as having reached its end.
    ///
    /// Cancel-safe: nothing is taken that is not returned.
    pub async fn next_batch(&mut self) -> Result<Option<Batch>, FetchError> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// [`Consumer::next_batch`] for those who poll.
    pub fn poll_next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Batch>, FetchError>> {
        self.reader.poll(cx)
    }

    /// Stores the positions behind all records delivered so far under the consumer's name. Returns once that is durable.
    ///
    /// Dropped before it is done, it goes on in the background. If it fails then, [`Consumer::close`] returns the error.
    pub async fn commit(&self) -> Result<(), CommitError> {
        let positions = self.shared.core().delivered_positions();
        self.shared.commit(positions).await
    }

    /// The offset behind the last record delivered of a partition. None for a partition that it does not read, and until the broker has
    /// said where it begins.
    pub fn position(&self, partition: u32) -> Option<Offset> {
        let core = self.shared.core();
        core.partitions()[core.index_of(partition)?].position()
    }

    /// Where it stands in each partition.
    pub fn status(&self) -> Vec<PartitionStatus> {
        let core = self.shared.core();
        let status = core.partitions().iter().map(|state| PartitionStatus {
            partition: state.partition,
            position: state.position(),
            log_start: state.log_start,
            high_watermark: state.high_watermark,
            end: state.end,
        });
        status.collect()
    }

    /// Goes on somewhere else in a partition. Nothing that was there before is delivered after this.
    pub fn seek(&mut self, partition: u32, to: StartAt) -> Result<(), FetchError> {
        self.with_partition(partition, |core, index| core.seek(index, to))
    }

    /// Stops reading a partition until [`Consumer::resume`]. What has arrived of it and was not delivered is fetched again then.
    pub fn pause(&mut self, partition: u32) -> Result<(), FetchError> {
        self.with_partition(partition, ConsumerCore::pause)
    }

    /// Goes on with a partition that was paused, behind the last record that was delivered of it.
    pub fn resume(&mut self, partition: u32) -> Result<(), FetchError> {
        self.with_partition(partition, ConsumerCore::resume)
    }

    fn with_partition(
        &self,
        partition: u32,
        change: impl FnOnce(&mut ConsumerCore, usize),
    ) -> Result<(), FetchError> {
        let mut core = self.shared.core();
        let Some(index) = core.index_of(partition) else {
            let text = format!("{}/{partition} is not read by this consumer", self.shared.topic);
            return Err(FetchError::new(FetchErrorKind::Invalid, Outcome::NotWritten, text));
        };
        change(&mut core, index);
        drop(core);
        self.shared.changed(index);
        Ok(())
    }

    /// The records one by one, each with its share of the buffer.
    pub fn into_stream(mut self) -> RecordStream {
        self.reader.deliver_by_record();
        RecordStream { consumer: self, records: Records::default() }
    }

    /// Ends it. The error is that of a commit that failed and that nobody waited for, if no later one made up for it.
    ///
    /// Nothing is committed by this.
    pub async fn close(self) -> Result<(), CommitError> {
        self.shared.unreported_commit_failure().await
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The records of a consumer. See [`Consumer::into_stream`].
///
/// Cancel-safe: a record is taken only when it is returned.
#[derive(Debug)]
pub struct RecordStream {
    consumer: Consumer,
    records: Records,
}

impl RecordStream {
    /// The next record; none at the end that was asked for, if one was.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, FetchError>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// As [`Consumer::commit`]: the position behind the last record that was returned, in each partition.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.consumer.commit().await
    }

    /// The consumer, to [seek](Consumer::seek), [pause](Consumer::pause) and [resume](Consumer::resume), or to see where it
    /// [stands](Consumer::status).
    pub fn consumer(&mut self) -> &mut Consumer {
        &mut self.consumer
    }

    /// As [`Consumer::close`].
    pub async fn close(self) -> Result<(), CommitError> {
        self.consumer.close().await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ConsumedRecord, FetchError>>> {
        let Self { consumer, records } = self;
        records.poll(|| consumer.poll_next_batch(cx))
    }
}

impl Stream for RecordStream {
    type Item = Result<ConsumedRecord, FetchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}
