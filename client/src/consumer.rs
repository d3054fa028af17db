//! Consumers outside of groups.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::Offset;
use highwater_protocol::limits::CREDIT_BYTES_MAX;
use highwater_protocol::native::{ReadOffsetsReply, ReadOffsetsRequest, Start};
use highwater_protocol::text::counted;
use tokio::sync::oneshot;

use crate::batch::Batch;
use crate::core::subscription::ConsumerCore;
use crate::error::{CallError, CommitError, FetchError, FetchErrorKind, WriteOutcome};
use crate::group::GroupBuilder;
use crate::io::calls::RetryPolicy;
use crate::io::cluster::Cluster;
use crate::io::consumer::{CommitTarget, ConsumerShared, watch_partitions};
use crate::reader::{ReadSettings, Reader};
use crate::record::ConsumedRecord;
use crate::records::Records;

/// Configures a consumer; await it to create the consumer. Made by [`Client::consumer`](crate::Client::consumer).
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

impl ConsumerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>, topic: String) -> Self {
        Self {
            cluster,
            topic,
            partitions: None,
            name: None,
            create: None,
            reading: ReadSettings {
                start: Start::Earliest,
                buffer_bytes: 16 << 20,
                until_end: false,
                reset: None,
            },
        }
    }

    /// Sets the partitions to read. Default: all, including partitions that are added to the topic later.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = u32>) -> Self {
        self.partitions = Some(partitions.into_iter().collect());
        self
    }

    /// Sets where to start in partitions without a committed position. Default: [`Start::Earliest`], the first
    /// available record, as on the command line. [`Start::Latest`] skips all records written so far.
    pub fn start(mut self, start: Start) -> Self {
        self.reading.start = start;
        self
    }

    /// Sets the name under which positions are committed, and whose committed positions the consumer starts from. Two
    /// consumers that use the same name at the same time each read everything and overwrite each other's positions; to
    /// share the work, see [`ConsumerBuilder::group`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Joins a group, which shares the topic's partitions among its members: Highwater's own clients and Kafka's with
    /// `group.protocol=consumer`. The settings of this builder are kept, except partitions and name: the group assigns
    /// the partitions, and positions are committed for the group.
    pub fn group(self, group: impl Into<String>) -> GroupBuilder {
        GroupBuilder::new(self.cluster, group.into(), self.topic, self.create, self.reading)
    }

    /// Creates the topic if it is missing, with this many partitions and the broker's default configuration. Default: a
    /// missing topic is an error.
    pub fn create_if_not_exists(mut self, partitions: u32) -> Self {
        self.create = Some(partitions);
        self
    }

    /// Sets how many received bytes may be buffered. The partitions share them, and each gets at least 64 KiB. Default:
    /// 16 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.reading.buffer_bytes = bytes;
        self
    }

    /// Ends at the end that each partition has when the consumer first subscribes to it: [`Consumer::next_batch`]
    /// then returns none. Does not wait for a partition that an error has stopped.
    pub fn until_end(mut self) -> Self {
        self.reading.until_end = true;
        self
    }

    /// Sets where to continue when the position does not exist: retention removed the record, or the topic was deleted
    /// and recreated and has fewer records. The client emits [`Event::PositionReset`](crate::Event::PositionReset).
    /// Without this setting, `next_batch` returns an error of the kind [`FetchErrorKind::OutOfRange`], and the
    /// partition stops until [`Consumer::seek`].
    pub fn on_out_of_range(mut self, start: Start) -> Self {
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
            return Err(FetchError::with_code(
                FetchErrorKind::UnknownTopic,
                WriteOutcome::NotWritten,
                code,
                text,
            ));
        }
        let committed = match &self.name {
            Some(name) => {
                let request = ReadOffsetsRequest { consumer: name.clone(), topic: info.id };
                let reply: ReadOffsetsReply =
                    self.cluster.call_group(&request, RetryPolicy::Always).await.map_err(failed)?;
                reply.positions
            }
            None => Vec::new(),
        };
        let starts = partitions.into_iter().map(|partition| {
            let committed = committed.iter().find(|position| position.partition.0 == partition);
            (partition, committed.map_or(self.reading.start, |position| Start::Offset(position.offset)))
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

/// Reads a topic. The broker pushes records as they become durable, as far as the buffer has room; there is no polling
/// interval.
///
/// After a lost connection, the consumer reconnects and continues at the same record.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<ConsumerShared>,
    reader: Reader,
    /// Notifies the task that watches for new partitions when the consumer is dropped.
    _guard: oneshot::Sender<()>,
}

/// A consumer's progress in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The partition.
    pub partition: u32,
    /// The offset after the last record delivered. None until the broker has answered where the consumer starts.
    pub position: Option<Offset>,
    /// The first available offset, as last reported by the broker.
    pub log_start: Option<Offset>,
    /// The offset after the last acknowledged record, as last reported by the broker.
    pub high_watermark: Option<Offset>,
    /// With [`ConsumerBuilder::until_end`]: the offset at which the consumer ends.
    pub end: Option<Offset>,
}

impl Consumer {
    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// Returns the next records, from any partition that has some. None at the end with [`ConsumerBuilder::until_end`].
    ///
    /// After an error the other partitions continue; call again. If the error reports lost records
    /// ([`FetchError::damaged`]), its own partition continues as well. Otherwise that partition stops until a
    /// [seek](Consumer::seek), and counts as having reached its end.
    ///
    /// Cancel-safe: no records are taken unless they are returned.
    pub async fn next_batch(&mut self) -> Result<Option<Batch>, FetchError> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// Polls for the next records; see [`Consumer::next_batch`].
    pub fn poll_next_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Batch>, FetchError>> {
        self.reader.poll(cx)
    }

    /// Commits the positions after all records delivered so far under the consumer's name. Returns once they are
    /// durable.
    ///
    /// If the future is dropped, the commit continues in the background. If it then fails, [`Consumer::close`] returns
    /// the error.
    pub async fn commit(&self) -> Result<(), CommitError> {
        let positions = self.shared.core().delivered_positions();
        self.shared.commit(positions).await
    }

    /// Returns the offset after the last record delivered from a partition. None if the consumer does not read the
    /// partition, and until the broker has answered where the consumer starts.
    pub fn position(&self, partition: u32) -> Option<Offset> {
        let core = self.shared.core();
        core.partitions()[core.index_of(partition)?].position()
    }

    /// Returns the consumer's progress in each partition.
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

    /// Continues at another position of a partition. Records fetched before the call are not delivered after it.
    pub fn seek(&mut self, partition: u32, to: Start) -> Result<(), FetchError> {
        self.with_partition(partition, |core, index| core.seek(index, to))
    }

    /// Stops reading a partition until [`Consumer::resume`], which fetches again what was received but not delivered.
    pub fn pause(&mut self, partition: u32) -> Result<(), FetchError> {
        self.with_partition(partition, ConsumerCore::pause)
    }

    /// Continues with a paused partition after the last record delivered from it.
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
            return Err(FetchError::new(FetchErrorKind::Invalid, WriteOutcome::NotWritten, text));
        };
        change(&mut core, index);
        drop(core);
        self.shared.changed(index);
        Ok(())
    }

    /// Converts the consumer to a stream of single records, each of which shares the receive buffer.
    pub fn into_stream(mut self) -> RecordStream {
        self.reader.deliver_by_record();
        RecordStream { consumer: self, records: Records::default() }
    }

    /// Closes the consumer. Returns the error of a commit that failed after its future was dropped, unless a later
    /// commit succeeded.
    ///
    /// Commits nothing.
    pub async fn close(self) -> Result<(), CommitError> {
        self.shared.unreported_commit_failure().await
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// A stream of a consumer's records. See [`Consumer::into_stream`].
///
/// Cancel-safe: a record is taken only when it is returned.
#[derive(Debug)]
pub struct RecordStream {
    consumer: Consumer,
    records: Records,
}

impl RecordStream {
    /// Returns the next record; none at the end with [`ConsumerBuilder::until_end`].
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, FetchError>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Like [`Consumer::commit`]: commits the position after the last record returned, in each partition.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.consumer.commit().await
    }

    /// Returns the consumer, to [seek](Consumer::seek), [pause](Consumer::pause) and [resume](Consumer::resume), or to
    /// see its [progress](Consumer::status).
    pub fn consumer(&mut self) -> &mut Consumer {
        &mut self.consumer
    }

    /// Like [`Consumer::close`].
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
