//! The way of proposed records into the log of the metadata.
//!
//! ```text
//!   propose --> pending --(one batch at a time)--> appending --> in the log, committed or not
//!                                                     ^ |
//!                                             retry --+ +--> rejected: blocked
//! ```
//!
//! The log takes one batch at a time, so that the next one never overtakes a rejected one. Batches are numbered: the outcome of one that a deposed leader
//! has given up is that of no other.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::{Offset, Timestamp};

use crate::api::ApiError;
use crate::limits::METADATA_BATCH_BYTES_MAX;
use crate::meta::Record;

/// Records that begin a batch are compressed from this size on: those of many partitions say the same again and again.
const LARGE_RECORD_BYTES_MIN: usize = 4 << 10;

/// Returns the bytes of the batch with a record.
pub(super) fn batch_bytes(record: &Record) -> usize {
    let mut alone = Appends::new(METADATA_BATCH_BYTES_MAX);
    alone.push(record);
    alone.poll(0).map_or(0, |(_, batch)| batch.len())
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Appends {
    /// The log takes no larger batches.
    batch_bytes_max: usize,
    /// Encoded records that are in no batch.
    pending: VecDeque<Vec<u8>>,
    appending: Option<Appending>,
    /// The number of the last batch.
    number: u64,
    /// The offset of the next record of the log.
    next: Offset,
}

#[derive(Debug)]
struct Appending {
    number: u64,
    batch: Bytes,
    count: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Ready to be appended.
    Ready,
    /// The append is in flight.
    Sent,
    /// The append was rejected.
    Blocked(ApiError),
}

impl Appends {
    pub(super) fn new(batch_bytes_max: usize) -> Self {
        let batch_bytes_max = batch_bytes_max.min(METADATA_BATCH_BYTES_MAX);
        Self { batch_bytes_max, pending: VecDeque::new(), appending: None, number: 0, next: Offset(0) }
    }

    /// Begins with a log that ends here.
    pub(super) fn begin(&mut self, end: Offset) {
        self.next = end;
    }

    /// Forgets everything that is not in the log.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.appending = None;
    }

    /// Adds a record at the end.
    pub(super) fn push(&mut self, record: &Record) {
        self.pending.push_back(record.encode());
    }

    /// Returns the next batch to append with its number, if none is being appended.
    pub(super) fn poll(&mut self, wall_ms: i64) -> Option<(u64, Bytes)> {
        if self.appending.is_none() && !self.pending.is_empty() {
            self.appending = Some(self.next_batch(wall_ms));
        }
        let appending =
            self.appending.as_mut().filter(|appending| matches!(appending.state, State::Ready))?;
        appending.state = State::Sent;
        Some((appending.number, appending.batch.clone()))
    }

    /// Builds a batch from the first records that fit.
    fn next_batch(&mut self, wall_ms: i64) -> Appending {
        let is_large = self.pending.front().is_some_and(|value| value.len() > LARGE_RECORD_BYTES_MIN);
        let mut builder = BatchBuilder::new(if is_large { Compression::Lz4 } else { Compression::None }, 0);
        while let Some(value) = self.pending.front() {
            let record = NewRecord::new(Timestamp(wall_ms), None, Some(value));
            if !builder.is_empty() && builder.bytes_with(&record) > self.batch_bytes_max {
                break;
            }
            builder.append(&record).expect("a record of the metadata is far smaller than the largest batch");
            self.pending.pop_front();
        }
        self.number += 1;
        let count = builder.count();
        let batch = builder.finish(BatchProducer::NONE).map_or_else(Bytes::new, BytesMut::freeze);
        Appending { number: self.number, batch, count, state: State::Ready }
    }

    /// Handles the outcome of an append.
    pub(super) fn handle_appended(&mut self, number: u64, outcome: Result<Offset, ApiError>) {
        let Some(appending) = self.appending.as_mut().filter(|appending| appending.number == number) else {
            return;
        };
        match outcome {
            Ok(base_offset) => {
                assert!(base_offset == self.next, "records are at the offsets for which they were checked");
                self.next = base_offset.plus(i64::from(appending.count));
                self.appending = None;
            }
            Err(error) => {
                tracing::error!("the log of the metadata takes no records: {error}");
                appending.state = State::Blocked(error);
            }
        }
    }

    /// Makes a rejected batch ready to be appended again.
    pub(super) fn retry(&mut self) {
        if let Some(appending) = &mut self.appending
            && matches!(appending.state, State::Blocked(_))
        {
            appending.state = State::Ready;
        }
    }

    /// Returns why the batch was rejected that waits for [`Self::retry`].
    pub(super) fn blocked(&self) -> Option<&ApiError> {
        match &self.appending.as_ref()?.state {
            State::Blocked(error) => Some(error),
            State::Ready | State::Sent => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::batch::BatchView;

    use super::*;

    fn reserved(end: i64) -> Record {
        Record::ProducerIdsReserved { end }
    }

    /// Returns the records of a batch.
    fn records(batch: &Bytes) -> Vec<Record> {
        let batch = BatchView::parse(batch).expect("a batch");
        let mut scratch = Vec::new();
        let records = batch.records(&mut scratch).expect("it can be read");
        let decode = |value: Option<&[u8]>| Record::decode(value.expect("a value")).expect("a record");
        records.map(|record| decode(record.expect("it can be read").value)).collect()
    }

    #[test]
    fn a_batch_does_not_overtake_a_rejected_one() {
        let mut appends = Appends::new(METADATA_BATCH_BYTES_MAX);
        appends.begin(Offset(7));
        appends.push(&reserved(1));
        appends.push(&reserved(2));
        let (first, batch) = appends.poll(0).expect("there are records");
        assert_eq!(records(&batch), [reserved(1), reserved(2)]);
        appends.push(&reserved(3));
        assert!(appends.poll(0).is_none(), "one batch at a time");
        appends.handle_appended(first, Err(ApiError::MetadataLogFull));
        assert!(appends.poll(0).is_none() && appends.blocked() == Some(&ApiError::MetadataLogFull));
        appends.retry();
        assert_eq!(appends.poll(0), Some((first, batch)), "the same");
        appends.handle_appended(first, Ok(Offset(7)));
        let (second, batch) = appends.poll(0).expect("there is another");
        assert_eq!(records(&batch), [reserved(3)]);
        appends.handle_appended(second, Ok(Offset(9)));
        assert!(appends.poll(0).is_none());
    }

    #[test]
    fn the_outcome_of_a_batch_that_was_given_up_is_that_of_no_other() {
        let mut appends = Appends::new(METADATA_BATCH_BYTES_MAX);
        appends.push(&reserved(1));
        let (given_up, _) = appends.poll(0).expect("there is a record");
        appends.clear();
        appends.begin(Offset(5));
        appends.push(&reserved(2));
        let (number, _) = appends.poll(0).expect("there is a record");
        appends.handle_appended(given_up, Ok(Offset(0)));
        assert!(appends.poll(0).is_none(), "the second is in flight");
        appends.handle_appended(number, Ok(Offset(5)));
        assert!(appends.appending.is_none());
    }

    #[test]
    fn a_large_record_has_a_batch_of_its_own() {
        let mut appends = Appends::new(METADATA_BATCH_BYTES_MAX);
        let large = Record::TopicConfigured {
            id: [1; 16],
            configs: vec![("a".into(), Some("x".repeat(METADATA_BATCH_BYTES_MAX)))],
        };
        for record in [&reserved(1), &large, &reserved(2)] {
            appends.push(record);
        }
        let mut offset = Offset(0);
        for expected in [reserved(1), large, reserved(2)] {
            let (number, batch) = appends.poll(0).expect("there is a record");
            assert_eq!(records(&batch), [expected]);
            appends.handle_appended(number, Ok(offset));
            offset = offset.plus(1);
        }
    }
}
