//! The coordinator's output: batches of keys and values.

use bytes::BytesMut;
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::group_records::{encode_key, encode_value};
use highwater_protocol::ids::Timestamp;

use super::coordinator::GroupCoordinator;
use super::keyed::{KeyedRecord, Written, records_of};
use super::limits::{BATCH_BYTES_PER_RECORD, BATCH_BYTES_SPLIT};
use super::record::Record;
use super::snapshot::SnapshotCursor;

/// Records of a group, to be written together and in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupBatch {
    /// The group.
    pub group: String,
    /// Keys and values; a key without a value is a tombstone.
    pub records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl GroupBatch {
    fn new(group: &str) -> Self {
        Self { group: group.to_owned(), records: Vec::new() }
    }

    /// Encodes the records as a record batch with this timestamp, after `prefix_bytes` of free space.
    pub fn encode(&self, at: Timestamp, prefix_bytes: usize) -> BytesMut {
        let mut builder = BatchBuilder::new(Compression::None, prefix_bytes);
        for (key, value) in &self.records {
            let record = NewRecord::new(at, Some(key), value.as_deref());
            builder.append(&record).expect("a group's batch is far smaller than the largest batch");
        }
        builder.finish(BatchProducer::NONE).expect("a batch has at least one record")
    }

    /// Returns the approximate bytes of the records in the log.
    pub(crate) fn bytes(&self) -> usize {
        let of = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
            BATCH_BYTES_PER_RECORD + key.len() + value.as_ref().map_or(0, Vec::len)
        };
        self.records.iter().map(of).sum()
    }
}

/// Encodes records of a group as batches of about [`BATCH_BYTES_SPLIT`] bytes or less. A larger record gets its own batch.
fn batches_of(group: &str, records: &[KeyedRecord]) -> Vec<GroupBatch> {
    let mut batches: Vec<GroupBatch> = Vec::new();
    let mut bytes = BATCH_BYTES_SPLIT;
    for (key, value) in records {
        let (key, value) = (encode_key(key), value.as_ref().map(encode_value));
        let more = BATCH_BYTES_PER_RECORD + key.len() + value.as_ref().map_or(0, Vec::len);
        bytes += more;
        if bytes > BATCH_BYTES_SPLIT {
            batches.push(GroupBatch::new(group));
            bytes = more;
        }
        batches.last_mut().expect("the first record begins a batch").records.push((key, value));
    }
    batches
}

impl GroupCoordinator {
    /// Queues a record to be written. `written` is the kind of records that the log already has of its group. Returns the sequence number of the
    /// record, or of its last batch.
    pub(super) fn append(&mut self, record: &Record, written: Written) -> u64 {
        if !self.is_keyed {
            return self.append_payload(record.encode());
        }
        let records = records_of(record, written, &self.topics);
        let group = records.first().map_or("", |(key, _)| key.group());
        self.append_keyed(group, &records)
    }

    /// Queues keys and values of a group to be written. Returns the sequence number of their last batch.
    pub(super) fn append_keyed(&mut self, group: &str, records: &[KeyedRecord]) -> u64 {
        for batch in batches_of(group, records) {
            self.appended += 1;
            self.batches.push_back((self.appended, batch));
        }
        self.appended
    }

    /// Returns the next batch to write, with its sequence number. Sequence numbers begin with 1 and have no gaps.
    pub fn poll_batch(&mut self) -> Option<(u64, GroupBatch)> {
        self.batches.pop_front()
    }

    /// Returns the next piece of a snapshot of all groups as batches, of about `bytes_max` bytes in total. `None` at the end.
    pub fn batches_of_all(&self, cursor: &mut SnapshotCursor, bytes_max: usize) -> Option<Vec<GroupBatch>> {
        let snapshot = self.snapshot_record(cursor, bytes_max)?;
        let commits = snapshot.commits.into_iter().map(Record::Commits);
        let classic = snapshot.classic.into_iter().map(Record::Classic);
        let consumer = snapshot.consumer.into_iter().map(Record::Consumer);
        let mut batches = Vec::new();
        for record in commits.chain(classic).chain(consumer) {
            let records = records_of(&record, Written::OffsetsOnly, &self.topics);
            let Some((key, _)) = records.first() else { continue };
            batches.append(&mut batches_of(key.group(), &records));
        }
        Some(batches)
    }
}
