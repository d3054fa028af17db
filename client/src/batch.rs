//! Records as they arrive: views into one buffer.

use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::batch::{self, Header, Records};
use highwater_protocol::ids::{Offset, PartitionIndex, Timestamp};
use highwater_protocol::native::CommittedOffset;

use crate::core::decode::BatchPart;
use crate::core::subscription::Origin;
use crate::error::CommitError;
use crate::io::consumer::ConsumerShared;
use crate::record::{ConsumedRecord, RecordHeader};

/// Records of one partition, in order. Never empty.
///
/// Iterating borrows: keys and values are where they arrived, or where they were decompressed to. The batch is independent of the consumer and
/// can be handed to another task.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) consumer: Arc<ConsumerShared>,
    pub(crate) partition: u32,
    /// Where it was read, and for which time the partition was this consumer's then.
    pub(crate) origin: Origin,
    pub(crate) parts: Vec<BatchPart>,
    pub(crate) records: usize,
    pub(crate) next_offset: Offset,
    pub(crate) leader_epoch: i32,
    pub(crate) high_watermark: Offset,
}

impl Batch {
    /// The topic.
    pub fn topic(&self) -> &str {
        &self.consumer.topic
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Always false: a batch has at least one record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Where the partition goes on behind this batch: what [`Batch::commit`] commits.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Offset behind the last acknowledged record of the partition, when this batch arrived. Less `next_offset`: the lag.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Iterates over the records.
    pub fn iter(&self) -> BatchIter<'_> {
        let topic = &self.consumer.topic;
        BatchIter { topic, partition: self.partition, parts: self.parts.iter(), current: None }
    }

    /// As [`Batch::commit`], for a batch of which only the records before `offset` are processed.
    pub async fn commit_until(&self, offset: Offset) -> Result<(), CommitError> {
        let position = CommittedOffset {
            partition: PartitionIndex(self.partition),
            offset: offset.min(self.next_offset),
            leader_epoch: self.leader_epoch,
            metadata: String::new(),
        };
        self.consumer.commit_batch(self.origin.generation, position).await
    }

    /// Stores the position behind this batch under the consumer's name, or for its group. Returns once that is durable: a consumer of this
    /// name that starts later, or the next member of the group to have the partition, starts here.
    ///
    /// In a group it fails with [`CommitErrorKind::Fenced`](crate::CommitErrorKind::Fenced) if the partition has gone to another member,
    /// and does nothing if a position behind this one is committed already.
    ///
    /// Dropped before it is done, it goes on in the background. If it fails then, closing the consumer returns the error.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.commit_until(self.next_offset).await
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = RecordRef<'a>;
    type IntoIter = BatchIter<'a>;

    fn into_iter(self) -> BatchIter<'a> {
        self.iter()
    }
}

/// Iterates over the records of a [`Batch`].
#[derive(Clone, Debug)]
pub struct BatchIter<'a> {
    topic: &'a Arc<str>,
    partition: u32,
    parts: std::slice::Iter<'a, BatchPart>,
    current: Option<(&'a BatchPart, Records<'a>)>,
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<RecordRef<'a>> {
        loop {
            if let Some((part, records)) = &mut self.current {
                for record in records {
                    let record = record.expect("every record was read when the batch was decoded");
                    if part.wants(record.offset) {
                        let Self { topic, partition, .. } = *self;
                        return Some(RecordRef { topic, partition, buffer: &part.records, record });
                    }
                }
            }
            let part = self.parts.next()?;
            self.current = Some((part, Records::new(&part.header, &part.records)));
        }
    }
}

/// A record in a [`Batch`].
#[derive(Clone, Debug)]
pub struct RecordRef<'a> {
    topic: &'a Arc<str>,
    partition: u32,
    buffer: &'a Bytes,
    record: batch::Record<'a>,
}

impl<'a> RecordRef<'a> {
    /// The topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Its offset.
    pub fn offset(&self) -> Offset {
        self.record.offset
    }

    /// Its timestamp; the broker's if the topic uses log append time.
    pub fn timestamp(&self) -> Timestamp {
        self.record.timestamp
    }

    /// Its key, if it has one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.record.key
    }

    /// Its value; empty for a tombstone.
    pub fn value(&self) -> &'a [u8] {
        self.record.value.unwrap_or_default()
    }

    /// Whether it has no value: in a compacted topic it deletes its key.
    pub fn is_tombstone(&self) -> bool {
        self.record.value.is_none()
    }

    /// Its headers.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        self.record.headers.clone()
    }

    /// The record with its own share of the buffer. Nothing is copied.
    pub fn to_owned(&self) -> ConsumedRecord {
        let own = |bytes: &'a [u8]| self.buffer.slice_ref(bytes);
        ConsumedRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.record.offset,
            timestamp: self.record.timestamp,
            key: self.record.key.map(own),
            value: self.record.value.map(own),
            headers: self
                .headers()
                .map(|header| RecordHeader { key: own(header.key), value: header.value.map(own) })
                .collect(),
        }
    }
}
