//! From batches to single records.

use std::task::{Poll, ready};

use crate::batch::Batch;
use crate::error::FetchError;
use crate::record::ConsumedRecord;

/// The records of a batch that are not given out yet. Each counts as delivered when it is.
#[derive(Debug, Default)]
pub(crate) struct Records {
    batch: Option<Batch>,
    records: std::vec::IntoIter<ConsumedRecord>,
}

impl Records {
    /// The next record, of the batch that is given out or of the next one that `poll_batch` returns.
    pub(crate) fn poll(
        &mut self,
        mut poll_batch: impl FnMut() -> Poll<Result<Option<Batch>, FetchError>>,
    ) -> Poll<Option<Result<ConsumedRecord, FetchError>>> {
        loop {
            if let Some(record) = self.next() {
                return Poll::Ready(Some(Ok(record)));
            }
            match ready!(poll_batch()) {
                Ok(Some(batch)) => self.put(batch),
                Ok(None) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Gives out the records of this batch. Those of another one must be used up.
    fn put(&mut self, batch: Batch) {
        let records: Vec<_> = batch.iter().map(|record| record.to_owned()).collect();
        self.records = records.into_iter();
        self.batch = Some(batch);
    }

    /// The next record. None at the end of the batch, and when its partition is sought, paused or given to another member: the rest is
    /// not this consumer's business any more, or comes again.
    fn next(&mut self) -> Option<ConsumedRecord> {
        let batch = self.batch.as_ref()?;
        if let Some(record) = self.records.next() {
            let is_last = self.records.as_slice().is_empty();
            let next = if is_last { batch.next_offset } else { record.offset.plus(1) };
            if batch.consumer.core().deliver_record(batch.origin, next) {
                return Some(record);
            }
        }
        *self = Self::default();
        None
    }
}
