//! Single records out of batches.

use std::task::{Poll, ready};

use crate::batch::Batch;
use crate::error::FetchError;
use crate::record::ConsumedRecord;

/// The records of the current batch that have not been returned yet. A record counts as delivered when it is returned.
#[derive(Debug, Default)]
pub(crate) struct Records {
    batch: Option<Batch>,
    records: std::vec::IntoIter<ConsumedRecord>,
}

impl Records {
    /// Returns the next record of the current batch, or of the next batch that `poll_batch` returns.
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

    /// Makes this the current batch. The previous one must be exhausted.
    fn put(&mut self, batch: Batch) {
        let records: Vec<_> = batch.iter().map(|record| record.to_owned()).collect();
        self.records = records.into_iter();
        self.batch = Some(batch);
    }

    /// Returns the next record of the current batch. None at its end, and after its partition was sought, paused or
    /// reassigned: the remaining records belong to another member or are fetched again.
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
