//! What compaction keeps of each batch.

use highwater_protocol::batch::{
    BatchError, BatchFilter, BatchHeader, BatchView, Record, StreamLimits, Work, stamp,
};
use highwater_protocol::ids::{Offset, Timestamp};

use super::index::{Full, KeyIndex};
use super::large::{Large, Stage};
use crate::mutants::{Mutant, is_planted};

/// Rules of one pass over a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanRules {
    /// Time of the pass.
    pub now: Timestamp,
    /// How long tombstones stay: `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// A batch that grows does not exceed this many bytes: with a delete horizon its timestamps take more space.
    pub batch_bytes_max: usize,
    /// A batch that decompresses to more than this many bytes is not decompressed at once.
    pub decompressed_bytes_max: usize,
    /// How it is filtered in steps instead. `None`: it stays as it is.
    pub stream: Option<StreamLimits>,
}

/// What stays of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// The batch as it is.
    Unchanged,
    /// A batch of the same offsets, which was appended to the output.
    Rewritten,
    /// No batch.
    Nothing,
}

/// What a pass has found and removed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cleaned {
    /// Records that stayed in batches that were looked at.
    pub kept: u64,
    /// Records removed because a later one has their key.
    pub superseded: u64,
    /// Tombstones removed after their time.
    pub tombstones: u64,
    /// Records removed because they have no key: they are from a time when the topic was not compacted.
    pub keyless: u64,
    /// Batches that could not be read when keys were noted or records selected. They stayed as they were.
    pub unreadable: u64,
    /// The first of these.
    pub first_unreadable: Option<(Offset, BatchError)>,
}

impl Cleaned {
    /// Returns the number of records removed.
    pub fn removed(&self) -> u64 {
        self.superseded + self.tombstones + self.keyless
    }
}

/// Cleans the batches of one pass.
#[derive(Debug)]
pub struct Cleaner {
    rules: CleanRules,
    filter: BatchFilter,
    cleaned: Cleaned,
    /// A batch stays that may hold a record that a later tombstone deletes. So tombstones stay, and get no delete horizon: a later pass may not
    /// know any more that they have to.
    keeps_tombstones: bool,
    /// The large batch that is being noted or selected.
    large: Option<Box<Large>>,
}

/// Counts of one batch.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    superseded: u64,
    tombstones: u64,
    keyless: u64,
    /// Tombstones that stay.
    tombstones_kept: u64,
    /// Those of them whose earlier records this pass removes.
    tombstones_noted: u64,
}

impl Cleaner {
    /// Starts a pass.
    pub fn new(rules: CleanRules) -> Self {
        Self {
            rules,
            filter: BatchFilter::default(),
            cleaned: Cleaned::default(),
            keeps_tombstones: false,
            large: None,
        }
    }

    /// Returns when the tombstones of a batch that stays may be removed. `None`: it has none, they may stay for ever, or that time has passed and
    /// something else keeps them.
    pub fn horizon(&self, kept: &BatchHeader) -> Option<Timestamp> {
        let horizon = Timestamp(kept.base_timestamp.get());
        (kept.has_delete_horizon() && kept.count() > 0 && horizon > self.rules.now).then_some(horizon)
    }

    /// Returns what was found and removed so far.
    pub fn cleaned(&self) -> &Cleaned {
        &self.cleaned
    }

    /// Notes the keys of a batch in `index`, and its end. Batches are noted in the order of their offsets.
    ///
    /// Without room for all of its keys the index is [`Full`], and ends before the batch. The keys that did fit are noted nevertheless: they are true.
    /// An index that has no key before takes the batch as far as its keys fit, and ends after it, so that every pass gets ahead; the records of other
    /// keys stay.
    pub fn note(&mut self, batch: BatchView<'_>, index: &mut KeyIndex) -> Result<(), Full> {
        while !self.note_some(batch, index, &mut Work::MAX.clone())? {}
        Ok(())
    }

    /// The same for a part of a large batch, as much as `work` allows. Returns whether the batch is noted; otherwise it is passed again.
    pub fn note_some(
        &mut self,
        batch: BatchView<'_>,
        index: &mut KeyIndex,
        work: &mut Work,
    ) -> Result<bool, Full> {
        let header = batch.header();
        if header.next_offset() <= index.end() {
            return Ok(true);
        }
        if has_keys(header) {
            let large = self.take_large(header);
            let takes_any = large.as_ref().map_or(index.keys() == 0, |large| large.takes_any());
            let noted = match large {
                Some(mut large) => {
                    let noted = large.note(batch, index, work);
                    self.large = Some(large).filter(|_| matches!(noted, Ok(false)));
                    noted
                }
                None => self.note_keys(batch, index, takes_any),
            };
            match noted {
                Ok(false) => return Ok(false),
                Err(NoteError::Full) if !takes_any => return Err(Full),
                Ok(true) | Err(NoteError::Full) => {}
                Err(NoteError::Unreadable(error)) => self.note_unreadable(header, error),
            }
        }
        index.advance(header.next_offset());
        Ok(true)
    }

    /// Decides what stays of a batch, and appends it to `out` if it changes. Batches are passed in the order of their offsets.
    ///
    /// `keeps_empty`: if no record stays, an empty batch does, because it has the last sequence of its producer or is the last of the log.
    pub fn retain(
        &mut self,
        batch: BatchView<'_>,
        index: &KeyIndex,
        keeps_empty: bool,
        out: &mut Vec<u8>,
    ) -> Kept {
        loop {
            if let Some(kept) = self.retain_some(batch, index, keeps_empty, out, &mut Work::MAX.clone()) {
                return kept;
            }
        }
    }

    /// The same for a part of a large batch, as much as `work` allows. `None`: nothing is decided yet, and the batch is passed again.
    pub fn retain_some(
        &mut self,
        batch: BatchView<'_>,
        index: &KeyIndex,
        keeps_empty: bool,
        out: &mut Vec<u8>,
        work: &mut Work,
    ) -> Option<Kept> {
        let header = batch.header();
        if header.next_offset() > index.end() || header.is_control() {
            return Some(Kept::Unchanged);
        }
        if header.count() == 0 {
            return Some(if keeps_empty { Kept::Unchanged } else { Kept::Nothing });
        }
        if header.is_transactional() {
            // Whether its records count is decided by a marker, which may be anywhere after it.
            self.keeps_tombstones = true;
            return Some(Kept::Unchanged);
        }
        let keeps_empty = keeps_empty && !is_planted(Mutant::DropEmptyBatch);
        let selected = match self.take_large(header) {
            Some(large) => self.select_large(large, batch, index, keeps_empty, out, work),
            None => self.select(batch, index, keeps_empty, out),
        };
        selected.unwrap_or_else(|error| {
            self.note_unreadable(header, error);
            Some(Kept::Unchanged)
        })
    }

    /// Takes what has been done of a large batch, if it is this one.
    fn take_large(&mut self, header: &BatchHeader) -> Option<Box<Large>> {
        self.large.take().filter(|large| large.offset == header.base_offset())
    }

    /// Goes on with a batch that cannot be decompressed at once, or fails with the reason why.
    fn begin_large(
        &mut self,
        header: &BatchHeader,
        error: BatchError,
        stage: Stage,
    ) -> Result<(), BatchError> {
        let limits = self.rules.stream.filter(|_| matches!(error, BatchError::DecompressedTooLarge { .. }));
        self.large = Some(Box::new(Large::new(header, limits.ok_or(error)?, stage)?));
        Ok(())
    }

    /// Returns whether the tombstones of a batch go.
    fn has_expired(&self, header: &BatchHeader) -> bool {
        header.has_delete_horizon()
            && (header.base_timestamp.get() <= self.rules.now.0 || is_planted(Mutant::DropTombstoneEarly))
            && !self.keeps_tombstones
    }

    fn select(
        &mut self,
        batch: BatchView<'_>,
        index: &KeyIndex,
        keeps_empty: bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<Kept>, BatchError> {
        let (header, rules) = (batch.header(), self.rules);
        // A batch that is written anew gets a new checksum, which must not cover damage.
        batch.check_checksum()?;
        let has_expired = self.has_expired(header);
        let mut counts = Counts::default();
        let mut keep = |record: &Record<'_>| counts.keep(record, index, has_expired);
        let mut selection = match self.filter.select(batch, rules.decompressed_bytes_max, &mut keep) {
            Ok(selection) => selection,
            Err(error) => {
                let stage = Stage::Selecting { counts: Counts::default(), has_expired };
                return self.begin_large(header, error, stage).map(|()| None);
            }
        };
        let kept = u64::from(selection.count());
        let horizon = counts.horizon(header, &rules, self.keeps_tombstones);
        let bytes_max = rules.batch_bytes_max.max(header.batch_bytes());
        let outcome = if kept == 0 && !keeps_empty {
            Kept::Nothing
        } else if selection.is_all() && horizon.is_none() {
            Kept::Unchanged
        } else if selection.write(horizon, bytes_max, out)
            || (!selection.is_all() && selection.write(None, bytes_max, out))
        {
            if is_planted(Mutant::MoveCompactedBatch) {
                stamp(out, header.base_offset().plus(1), header.leader_epoch());
            }
            Kept::Rewritten
        } else {
            // Without the records that go, it would take more space than it may: it is compressed anew, in less time.
            self.keeps_tombstones |= !selection.is_all();
            Kept::Unchanged
        };
        Ok(Some(self.count(outcome, header, kept, &counts)))
    }

    /// The same for a large batch. `None`: there is more to do.
    fn select_large(
        &mut self,
        mut large: Box<Large>,
        batch: BatchView<'_>,
        index: &KeyIndex,
        keeps_empty: bool,
        out: &mut Vec<u8>,
        work: &mut Work,
    ) -> Result<Option<Kept>, BatchError> {
        let (header, rules) = (batch.header(), self.rules);
        let bytes_max = rules.batch_bytes_max.max(header.batch_bytes());
        let (so_far, has_expired) = match large.stage {
            Stage::Selecting { counts, has_expired } | Stage::Writing { counts, has_expired, .. } => {
                (counts, has_expired)
            }
            Stage::Checking { .. } | Stage::Noting { .. } => {
                unreachable!("keys are noted first, all of them")
            }
        };
        let mut counts = so_far;
        let keep = |record: &Record<'_>| counts.keep(record, index, has_expired);
        let done = large.filter.step(batch.stored_records(), work, keep)?;
        let kept = u64::from(large.filter.count());
        let next = match large.stage {
            Stage::Writing { horizon, .. } if done => {
                // They were counted when they were selected.
                counts = so_far;
                let is_all = large.filter.is_all();
                if large.filter.finish(out) {
                    return Ok(Some(self.count(Kept::Rewritten, header, kept, &counts)));
                }
                if horizon.is_none() || is_all {
                    self.keeps_tombstones |= !is_all;
                    return Ok(Some(self.count(Kept::Unchanged, header, kept, &counts)));
                }
                large.filter.begin_write(None, bytes_max)?;
                Stage::Writing { counts, has_expired, horizon: None }
            }
            _ if done => {
                let horizon = counts.horizon(header, &rules, self.keeps_tombstones);
                if kept == 0 && !keeps_empty {
                    return Ok(Some(self.count(Kept::Nothing, header, kept, &counts)));
                }
                if large.filter.is_all() && horizon.is_none() {
                    return Ok(Some(self.count(Kept::Unchanged, header, kept, &counts)));
                }
                large.filter.begin_write(horizon, bytes_max)?;
                Stage::Writing { counts, has_expired, horizon }
            }
            Stage::Selecting { .. } => Stage::Selecting { counts, has_expired },
            stage => stage,
        };
        large.stage = next;
        self.large = Some(large);
        Ok(None)
    }

    /// Counts what was decided about a batch.
    fn count(&mut self, outcome: Kept, header: &BatchHeader, kept: u64, counts: &Counts) -> Kept {
        if outcome == Kept::Unchanged {
            self.cleaned.kept += u64::from(header.count());
        } else {
            self.cleaned.kept += kept;
            self.cleaned.superseded += counts.superseded;
            self.cleaned.tombstones += counts.tombstones;
            self.cleaned.keyless += counts.keyless;
        }
        outcome
    }

    fn note_keys(
        &mut self,
        batch: BatchView<'_>,
        index: &mut KeyIndex,
        takes_any: bool,
    ) -> Result<bool, NoteError> {
        batch.check_checksum()?;
        let records = match self.filter.records(batch, self.rules.decompressed_bytes_max) {
            Ok(records) => records,
            Err(error) => {
                self.begin_large(batch.header(), error, Stage::Checking { takes_any })?;
                return Ok(false);
            }
        };
        // Read all records before the first is noted: `select` can read all of them or none.
        for record in records.clone() {
            record?;
        }
        for record in records {
            let record = record?;
            if let Some(key) = record.key {
                index.note(key, record.offset).map_err(|Full| NoteError::Full)?;
            }
        }
        Ok(true)
    }

    /// Keeps all tombstones from here on: a part of the log could not be read, and may hold records that they delete.
    pub fn keep_tombstones(&mut self) {
        self.keeps_tombstones = true;
    }

    fn note_unreadable(&mut self, header: &BatchHeader, error: BatchError) {
        self.keeps_tombstones = !is_planted(Mutant::IgnoreUnreadable);
        self.cleaned.unreadable += 1;
        self.cleaned.first_unreadable.get_or_insert((header.base_offset(), error));
    }
}

impl Counts {
    /// Returns the delete horizon that a batch gets. `None`: none, or it has one.
    fn horizon(&self, header: &BatchHeader, rules: &CleanRules, keeps_tombstones: bool) -> Option<Timestamp> {
        let may_expire = self.tombstones_kept == self.tombstones_noted && !keeps_tombstones
            || is_planted(Mutant::ExpireEveryTombstone);
        (self.tombstones_kept > 0 && may_expire && !header.has_delete_horizon())
            .then(|| Timestamp(rules.now.0.saturating_add(rules.delete_retention_ms)))
    }

    /// Decides about a record. `has_expired`: the delete horizon of its batch has passed.
    fn keep(&mut self, record: &Record<'_>, index: &KeyIndex, has_expired: bool) -> bool {
        let Some(key) = record.key else {
            self.keyless += 1;
            return false;
        };
        let last = index.last(key);
        if last.map_or(is_planted(Mutant::SupersedeUnknownKeys), |last| last > record.offset) {
            self.superseded += 1;
            return false;
        }
        if record.value.is_some() {
            return true;
        }
        if has_expired {
            self.tombstones += 1;
            return false;
        }
        self.tombstones_kept += 1;
        self.tombstones_noted += u64::from(last == Some(record.offset));
        true
    }
}

/// Whether a batch has keys of records. Those of transactions are not known to count.
fn has_keys(header: &BatchHeader) -> bool {
    !header.is_control() && !header.is_transactional() && header.count() > 0
}

/// Why a batch is not in the index.
pub(super) enum NoteError {
    Full,
    Unreadable(BatchError),
}

impl From<BatchError> for NoteError {
    fn from(error: BatchError) -> Self {
        Self::Unreadable(error)
    }
}
