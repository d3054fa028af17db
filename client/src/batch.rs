//! Batches of received records, as views into the buffer they arrived in.

use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::batch::{self, Records};
use highwater_protocol::ids::{Offset, PartitionIndex, Timestamp};
use highwater_protocol::native::CommittedOffset;

use crate::HeaderRef;
use crate::core::decode::BatchPart;
use crate::core::subscription::Origin;
use crate::error::CommitError;
use crate::io::consumer::ConsumerShared;
use crate::record::{ConsumedRecord, RecordHeader};

/// Consecutive records of one partition. Never empty.
///
/// Iterating borrows: keys and values point into the receive buffer, or into the buffer they were decompressed into. A
/// batch does not depend on the consumer and can be handed to another task.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) consumer: Arc<ConsumerShared>,
    pub(crate) partition: u32,
    /// The partition it was read from, and the assignment and seek it was read under.
    pub(crate) origin: Origin,
    pub(crate) parts: Vec<BatchPart>,
    pub(crate) records: usize,
    pub(crate) next_offset: Offset,
    pub(crate) leader_epoch: i32,
    pub(crate) high_watermark: Offset,
}

impl Batch {
    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.consumer.topic
    }

    /// Returns the partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Always false: a batch has at least one record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Returns the offset after the last record of this batch: the position that [`Batch::commit`] commits.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Returns the partition's high watermark when this batch arrived: the offset after its last acknowledged record.
    /// Subtract `next_offset` to get the lag.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Iterates over the records.
    pub fn iter(&self) -> BatchIter<'_> {
        let topic = &self.consumer.topic;
        BatchIter { topic, partition: self.partition, parts: self.parts.iter(), current: None }
    }

    /// Like [`Batch::commit`], for a batch of which only the records before `offset` have been processed.
    pub async fn commit_until(&self, offset: Offset) -> Result<(), CommitError> {
        let position = CommittedOffset {
            partition: PartitionIndex(self.partition),
            offset: offset.min(self.next_offset),
            leader_epoch: self.leader_epoch,
            metadata: String::new(),
        };
        self.consumer.commit_batch(self.origin.generation, position).await
    }

    /// Commits the position after this batch under the consumer's name, or for its group. Returns once the position is
    /// durable: a consumer of this name that starts later, or the next member of the group that is assigned the
    /// partition, starts there.
    ///
    /// In a group this fails with [`CommitErrorKind::Fenced`](crate::CommitErrorKind::Fenced) if the partition was
    /// reassigned to another member. It does nothing if a later position is committed already.
    ///
    /// If the future is dropped, the commit continues in the background. If it then fails, closing the consumer returns
    /// the error.
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
    /// Returns the topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Returns the partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Returns the offset.
    pub fn offset(&self) -> Offset {
        self.record.offset
    }

    /// Returns the timestamp: the producer's, or the broker's if the topic uses log append time.
    pub fn timestamp(&self) -> Timestamp {
        self.record.timestamp
    }

    /// Returns the key, if the record has one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.record.key
    }

    /// Returns the value; empty for a tombstone.
    pub fn value(&self) -> &'a [u8] {
        self.record.value.unwrap_or_default()
    }

    /// Returns whether the record has no value. In a compacted topic such a record deletes its key.
    pub fn is_tombstone(&self) -> bool {
        self.record.value.is_none()
    }

    /// Returns the headers.
    pub fn headers(&self) -> impl Iterator<Item = HeaderRef<'a>> + use<'a> {
        self.record.headers.clone()
    }

    /// Returns an owned record that shares the buffer. Nothing is copied.
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
