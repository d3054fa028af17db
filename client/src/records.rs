//! From batches to single records.

use crate::batch::Batch;
use crate::record::ConsumedRecord;

/// The records of a batch that are not given out yet. Each counts as delivered when it is.
#[derive(Debug, Default)]
pub(crate) struct Records {
    batch: Option<Batch>,
    records: std::vec::IntoIter<ConsumedRecord>,
}

impl Records {
    /// Gives out the records of this batch. Those of another one must be used up.
    pub(crate) fn put(&mut self, batch: Batch) {
        let records: Vec<_> = batch.iter().map(|record| record.to_owned()).collect();
        self.records = records.into_iter();
        self.batch = Some(batch);
    }

    /// The next record. None at the end of the batch, and when its partition is sought, paused or given to another member: the rest is
    /// not this consumer's business any more, or comes again.
    pub(crate) fn next(&mut self) -> Option<ConsumedRecord> {
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
