//! A batch that is too large to be decompressed at once: its keys are noted, and its records selected, in steps.

use highwater_protocol::batch::{BatchError, BatchHeader, BatchView, StreamFilter, StreamLimits, Work};
use highwater_protocol::ids::{Offset, Timestamp};

use super::cleaner::{Counts, NoteError};
use super::index::KeyIndex;

/// What is being done with a large batch.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) offset: Offset,
    pub(super) filter: StreamFilter,
    pub(super) stage: Stage,
}

/// A walk over the records.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Reads all of them: keys are noted of batches only that can be read. `takes_any`: the index was empty.
    Checking { takes_any: bool },
    /// Notes their keys.
    Noting { takes_any: bool },
    /// Counts those that stay. `has_expired`: tombstones go.
    Selecting { counts: Counts, has_expired: bool },
    /// Writes those that stay.
    Writing { counts: Counts, has_expired: bool, horizon: Option<Timestamp> },
}

impl Large {
    pub(super) fn new(header: &BatchHeader, limits: StreamLimits, stage: Stage) -> Result<Self, BatchError> {
        Ok(Self { offset: header.base_offset(), filter: StreamFilter::new(header, limits)?, stage })
    }

    /// Returns whether the index was empty when the batch began.
    pub(super) fn takes_any(&self) -> bool {
        matches!(self.stage, Stage::Checking { takes_any: true } | Stage::Noting { takes_any: true })
    }

    /// Notes the keys of the batch. Returns whether all are noted.
    pub(super) fn note(
        &mut self,
        batch: BatchView<'_>,
        index: &mut KeyIndex,
        work: &mut Work,
    ) -> Result<bool, NoteError> {
        let stored = batch.stored_records();
        if let Stage::Checking { takes_any } = self.stage {
            if !self.filter.step(stored, work, |_| true)? {
                return Ok(false);
            }
            self.filter.begin()?;
            self.stage = Stage::Noting { takes_any };
        }
        let mut is_full = false;
        let done = self.filter.step(stored, work, |record| {
            is_full = is_full || record.key.is_some_and(|key| index.note(key, record.offset).is_err());
            true
        })?;
        if is_full { Err(NoteError::Full) } else { Ok(done) }
    }
}
