//! One pass of compaction over a partition, on top of [`Store::rewrite`].
//!
//! The *clean* section of a log is the run of extents at its start that were rewritten before; the *dirty* section follows, up to the last extent
//! that may be rewritten and is old enough. [`Backlog`] measures both. A [`Pass`] notes the keys of the dirty section and then rewrites the log from
//! its start, a few extents at a time, up to where the keys are known. Extents take effect one after the other, in the order of their offsets.
//!
//! A log to which nothing is appended has no dirty section, and still has tombstones. For each clean extent the store knows the latest of their
//! horizons. When that has passed the extent is *expired*, and a pass that notes no keys rewrites such extents only. It may pass over the others: a
//! batch got a horizon only when nothing before it could hold a record that its tombstones delete.
//!
//! The generation of an extent says whether it is clean, so nothing else has to be stored: a pass that was interrupted has made some extents clean, and
//! the next one goes on after them. An extent with more keys than the index is made clean with those that fit; older records of the others stay until
//! their keys are written again.
//!
//! A pass goes in steps: [`Pass::step`] does as much as it is allowed to, and its owner passes on what the store reports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use highwater_protocol::batch::{BatchHeader, BatchView, StreamLimits};
use highwater_protocol::frame::Frames;
use highwater_protocol::ids::{LogIndex, Offset, Timestamp};
use highwater_runtime::plane::Disk;

use super::{CleanRules, Cleaned, Cleaner, Kept, KeyIndex};
use crate::api::{
    BatchFilter, IndexCursor, IndexRead, IndexReadOutcome, PartitionSlot, ReadId, ReadLimits,
    RewritableExtent, RewriteAborted, RewriteError, Rewritten, Verdict,
};
use crate::config::CompactionConfig;
use crate::layout::EXTENT_HEADER_BYTES;
use crate::limits::{LARGE_BATCH_WORK_PER_STEP, REWRITE_EXTENTS_MAX};
use crate::mac::MacKey;
use crate::mutants::{Mutant, is_planted};
use crate::store::Store;

/// What there is to compact in a log, apart from extents that may not be rewritten yet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Backlog {
    /// Bytes of frames that earlier passes have compacted.
    pub clean_bytes: u64,
    /// Bytes of frames after them.
    pub dirty_bytes: u64,
    /// When the first dirty extent was begun. `None`: there is none.
    pub dirty_since_ms: Option<i64>,
    /// Bytes of frames of clean extents whose tombstones may all be removed.
    pub expired_bytes: u64,
    section: Option<Section>,
    /// Where the clean section ends.
    clean_end: Option<(LogIndex, Offset)>,
}

/// The dirty extents of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Section {
    start_index: LogIndex,
    start_offset: Offset,
    /// End of its first extent.
    first_end_offset: Offset,
    end_index: LogIndex,
    end_offset: Offset,
}

impl Backlog {
    /// Measures a log by its extents that may be rewritten.
    pub fn of(
        extents: impl IntoIterator<Item = RewritableExtent>,
        config: &CompactionConfig,
        wall_ms: i64,
    ) -> Self {
        let newest_max = wall_ms.saturating_sub(config.lag_ms_min);
        let mut backlog = Self::default();
        for extent in extents {
            let is_clean = extent.generation > 0 && backlog.section.is_none();
            if is_clean {
                backlog.clean_bytes += extent.bytes;
                backlog.clean_end = Some((extent.end_index, extent.end_offset));
                if is_expired(&extent, wall_ms) {
                    backlog.expired_bytes += extent.bytes;
                }
                continue;
            }
            if config.lag_ms_min > 0 && extent.newest_ms > newest_max && !is_planted(Mutant::IgnoreMinLag) {
                break;
            }
            backlog.dirty_bytes += extent.bytes;
            backlog.dirty_since_ms.get_or_insert(extent.created_ms);
            let section = backlog.section.get_or_insert(Section {
                start_index: extent.base_index,
                start_offset: extent.base_offset,
                first_end_offset: extent.end_offset,
                end_index: extent.end_index,
                end_offset: extent.end_offset,
            });
            (section.end_index, section.end_offset) = (extent.end_index, extent.end_offset);
        }
        backlog
    }

    /// Returns the offset up to which everything is clean. `None`: nothing is.
    pub fn compacted_to(&self) -> Option<Offset> {
        self.clean_end.map(|(_, offset)| offset)
    }

    /// Returns the dirty part of all bytes, in parts per million.
    pub fn dirty_ppm(&self) -> u32 {
        let all = u128::from(self.clean_bytes + self.dirty_bytes).max(1);
        (u128::from(self.dirty_bytes) * 1_000_000 / all) as u32
    }

    /// Returns whether a pass is due: [for dirty records](Self::is_too_dirty), or because tombstones have expired.
    pub fn is_due(&self, config: &CompactionConfig, wall_ms: i64) -> bool {
        self.expired_bytes > 0 || self.is_too_dirty(config, wall_ms)
    }

    /// Returns whether more of the log is dirty than the configuration allows, or a record has been dirty for too long.
    pub fn is_too_dirty(&self, config: &CompactionConfig, wall_ms: i64) -> bool {
        self.dirty_bytes > 0 && (self.dirty_ppm() > config.dirty_ppm_min || self.is_overdue(config, wall_ms))
    }

    /// Returns the section whose keys a pass notes. That of a pass over expired extents is empty, and after them.
    fn section(&self, config: &CompactionConfig, wall_ms: i64) -> Option<(Section, Scope)> {
        if self.is_too_dirty(config, wall_ms) {
            return self.section.map(|section| (section, Scope::All));
        }
        let (index, offset) = self.clean_end.filter(|_| self.expired_bytes > 0)?;
        let section = Section {
            start_index: index,
            start_offset: offset,
            first_end_offset: offset,
            end_index: index,
            end_offset: offset,
        };
        Some((section, Scope::Expired { now_ms: wall_ms }))
    }

    /// Returns whether a record has been dirty for longer than the configuration allows.
    pub fn is_overdue(&self, config: &CompactionConfig, wall_ms: i64) -> bool {
        self.dirty_since_ms.is_some_and(|since| wall_ms.saturating_sub(since) > config.lag_ms_max)
    }
}

/// Returns whether time alone allows to remove all tombstones of an extent.
fn is_expired(extent: &RewritableExtent, wall_ms: i64) -> bool {
    extent.horizon_ms.is_some_and(|horizon| horizon <= wall_ms)
}

/// Which extents a pass rewrites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    /// All up to where the keys are known.
    All,
    /// Those whose tombstones have expired.
    Expired { now_ms: i64 },
}

impl Scope {
    fn includes(self, extent: &RewritableExtent) -> bool {
        match self {
            Self::All => true,
            Self::Expired { now_ms } => is_expired(extent, now_ms),
        }
    }
}

/// What a pass may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassLimits {
    /// Memory of the key index, in bytes.
    pub index_bytes_max: usize,
    /// Bytes that a batch may grow to.
    pub batch_bytes_max: usize,
    /// Bytes of a batch's decompressed records. Several buffers of this size may be in use.
    pub decompressed_bytes_max: usize,
    /// How batches with more are filtered in steps. `None`: they stay as they are.
    pub stream: Option<StreamLimits>,
}

/// Why a pass ended early. What it has compacted stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The log has changed: it was deleted or its start has moved, or the store is being closed.
    #[error("the log has changed meanwhile")]
    Changed,
    /// A part of the log is damaged.
    #[error("a part of the log is damaged")]
    Damaged,
    /// There is no space for a new extent.
    #[error("there is no space on the disk")]
    NoSpace,
}

impl From<RewriteAborted> for PassError {
    fn from(why: RewriteAborted) -> Self {
        match why {
            RewriteAborted::Damaged => Self::Damaged,
            RewriteAborted::NoSpace | RewriteAborted::TooLarge => Self::NoSpace,
            RewriteAborted::Changed | RewriteAborted::Requested => Self::Changed,
        }
    }
}

/// What a pass has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PassOutcome {
    /// Records found and removed.
    pub cleaned: Cleaned,
    /// Bytes of frames of the extents that were replaced.
    pub bytes_before: u64,
    /// Bytes of frames of those that replaced them.
    pub bytes_after: u64,
}

/// Whether a pass can go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PassStep {
    /// It can, once it is allowed more bytes.
    More,
    /// It waits for an event of the store.
    Waits,
    /// It has ended.
    Ended(Result<(), PassError>),
}

/// A pass over one partition.
#[derive(Debug)]
pub struct Pass {
    slot: PartitionSlot,
    section: Section,
    scope: Scope,
    state: State,
    cleaning: Arc<Mutex<Cleaning>>,
    bytes_before: u64,
    bytes_after: u64,
}

#[derive(Debug)]
enum State {
    /// Notes the keys of the dirty section.
    Noting(Noting),
    /// Rewrites extents. `next`: index after those that were rewritten, or are being rewritten.
    Rewriting {
        next: LogIndex,
        is_busy: bool,
    },
    Ended(Result<(), PassError>),
}

#[derive(Debug)]
struct Noting {
    next: IndexCursor,
    reading: Option<ReadId>,
    frames: Bytes,
    at: usize,
}

/// What the store's filter and the pass share.
#[derive(Debug)]
struct Cleaning {
    cleaner: Cleaner,
    index: KeyIndex,
}

#[derive(Debug)]
struct PassFilter(Arc<Mutex<Cleaning>>);

impl BatchFilter for PassFilter {
    fn filter(&mut self, batch: &BatchView<'_>, keeps_header: bool, out: &mut Vec<u8>) -> Verdict {
        let mut cleaning = lock(&self.0);
        let Cleaning { cleaner, index } = &mut *cleaning;
        let work = &mut LARGE_BATCH_WORK_PER_STEP.clone();
        match cleaner.retain_some(*batch, index, keeps_header, out, work) {
            None => Verdict::Unfinished,
            Some(Kept::Unchanged) => Verdict::Keep,
            Some(Kept::Rewritten) => Verdict::Replace,
            Some(Kept::Nothing) => Verdict::Drop,
        }
    }

    fn horizon_ms(&self, kept: &BatchHeader) -> Option<i64> {
        lock(&self.0).cleaner.horizon(kept).map(|horizon| horizon.0)
    }
}

/// One thread uses it; a panic of a filter ends the process.
fn lock(cleaning: &Mutex<Cleaning>) -> MutexGuard<'_, Cleaning> {
    cleaning.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pass {
    /// Starts a pass. `key` is random and secret: see [`KeyIndex`]. `None`: none is due.
    pub fn new(
        slot: PartitionSlot,
        backlog: &Backlog,
        config: &CompactionConfig,
        limits: PassLimits,
        key: MacKey,
        wall_ms: i64,
    ) -> Option<Self> {
        let (section, scope) = backlog.section(config, wall_ms)?;
        let records = (section.end_offset.0 - section.start_offset.0).max(0) as u64;
        let index = KeyIndex::new(key, section.start_offset, records, limits.index_bytes_max);
        let cleaner = Cleaner::new(CleanRules {
            now: Timestamp(wall_ms),
            delete_retention_ms: config.delete_retention_ms,
            batch_bytes_max: limits.batch_bytes_max,
            decompressed_bytes_max: limits.decompressed_bytes_max,
            stream: limits.stream,
        });
        let noting =
            Noting { next: IndexCursor::at(section.start_index), reading: None, frames: Bytes::new(), at: 0 };
        Some(Self {
            slot,
            section,
            scope,
            state: State::Noting(noting),
            cleaning: Arc::new(Mutex::new(Cleaning { cleaner, index })),
            bytes_before: 0,
            bytes_after: 0,
        })
    }

    /// Returns the partition.
    pub fn slot(&self) -> PartitionSlot {
        self.slot
    }

    /// Returns what was done so far.
    pub fn outcome(&self) -> PassOutcome {
        PassOutcome {
            cleaned: *lock(&self.cleaning).cleaner.cleaned(),
            bytes_before: self.bytes_before,
            bytes_after: self.bytes_after,
        }
    }

    /// Goes on, while there are `bytes` of frames left, and reduces them.
    pub fn step(&mut self, store: &mut Store, disk: &mut dyn Disk, bytes: &mut usize) -> PassStep {
        loop {
            match &mut self.state {
                State::Ended(result) => return PassStep::Ended(*result),
                State::Noting(noting) if noting.reading.is_some() => return PassStep::Waits,
                _ if *bytes == 0 => return PassStep::More,
                State::Noting(noting) if noting.at < noting.frames.len() => self.note_frame(bytes),
                State::Noting(noting) => {
                    let bytes_max = store.config().limits.rewrite_bytes_max;
                    let limits = ReadLimits { bytes_max, memory_bytes_max: usize::MAX };
                    let missed = u64::from(is_planted(Mutant::MissLastDirtyFrame));
                    let (next, end) = (noting.next, LogIndex(self.section.end_index.0 - missed));
                    match store.read_from_index(disk, self.slot, next, limits, end) {
                        IndexReadOutcome::Pending(id) => noting.reading = Some(id),
                        IndexReadOutcome::Ready(read) => self.take_read(read),
                    }
                }
                State::Rewriting { is_busy: true, .. } => {
                    let more = store.continue_rewrite(disk, bytes);
                    return if more { PassStep::More } else { PassStep::Waits };
                }
                State::Rewriting { next, .. } => {
                    let next = *next;
                    self.state = match self.begin_rewrite(store, next) {
                        Ok(Some(next)) => State::Rewriting { next, is_busy: true },
                        Ok(None) => State::Ended(Ok(())),
                        Err(_) => State::Ended(Err(PassError::Changed)),
                    };
                }
            }
        }
    }

    /// The store has read frames, perhaps for another reader.
    pub fn handle_read(&mut self, id: ReadId, read: IndexRead) {
        if let State::Noting(noting) = &mut self.state
            && noting.reading == Some(id)
        {
            noting.reading = None;
            self.take_read(read);
        }
    }

    /// The store has rewritten extents of this partition, or has given it up.
    pub fn handle_rewritten(&mut self, outcome: Result<Rewritten, RewriteAborted>) {
        let State::Rewriting { next, is_busy: true } = self.state else { return };
        self.state = match outcome {
            Ok(rewritten) => {
                self.bytes_before += rewritten.bytes_before;
                self.bytes_after += rewritten.bytes_after;
                State::Rewriting { next, is_busy: false }
            }
            Err(why) => State::Ended(Err(why.into())),
        };
    }

    /// Ends the pass. The store may still report the end of a rewrite.
    pub fn abort(&mut self, store: &mut Store) {
        if let State::Rewriting { is_busy: true, .. } = self.state {
            store.abort_rewrite();
        }
        self.state = State::Ended(Err(PassError::Changed));
    }

    fn take_read(&mut self, read: IndexRead) {
        let State::Noting(noting) = &mut self.state else { return };
        match read {
            IndexRead::Frames { bytes, next, .. } => {
                (noting.frames, noting.at, noting.next) = (bytes, 0, next);
            }
            IndexRead::AtEnd => {
                let end = self.section.end_offset;
                lock(&self.cleaning).index.advance(end);
                self.end_noting();
            }
            IndexRead::Damaged => self.state = State::Ended(Err(PassError::Damaged)),
            IndexRead::OutOfRange { .. } | IndexRead::NeedsMemory(_) => {
                self.state = State::Ended(Err(PassError::Changed));
            }
        }
    }

    /// Notes the keys of the next frame that was read.
    fn note_frame(&mut self, bytes: &mut usize) {
        let State::Noting(noting) = &mut self.state else { return };
        let rest = noting.frames.slice(noting.at..);
        let frame = Frames::new(&rest).next().and_then(Result::ok).expect("frames are whole");
        let frame_bytes = frame.header().frame_bytes();
        let mut cleaning = lock(&self.cleaning);
        let Cleaning { cleaner, index } = &mut *cleaning;
        let work = &mut LARGE_BATCH_WORK_PER_STEP.clone();
        let noted = frame.batch().map_or(Ok(true), |batch| cleaner.note_some(batch, index, work));
        if noted == Ok(false) {
            *bytes = 0;
            return;
        }
        noting.at += frame_bytes;
        *bytes = bytes.saturating_sub(frame_bytes);
        if noted.is_err() && is_planted(Mutant::TakeFullIndexForComplete) {
            index.advance(self.section.end_offset);
        }
        drop(cleaning);
        if noted.is_err() {
            self.end_noting();
        }
    }

    fn end_noting(&mut self) {
        self.state = State::Rewriting { next: LogIndex(0), is_busy: false };
    }

    /// Begins to rewrite the next extents, from this index on. Returns the index after them; `None`: there are none whose keys are known.
    fn begin_rewrite(&self, store: &mut Store, from: LogIndex) -> Result<Option<LogIndex>, RewriteError> {
        let noted = lock(&self.cleaning).index.end();
        let end = noted.max(self.section.first_end_offset).min(self.section.end_offset);
        let bytes_max = store.config().limits.extent_bytes_max - EXTENT_HEADER_BYTES as u64;
        let (mut group, mut count, mut bytes) = (None, 0, 0);
        for extent in store.rewritable_extents(self.slot).skip_while(|extent| extent.base_index < from) {
            if group.is_none() && !self.scope.includes(&extent) {
                continue;
            }
            bytes += extent.bytes;
            let is_too_much = count > 0 && bytes > bytes_max || count == REWRITE_EXTENTS_MAX;
            if extent.end_offset > end || is_too_much || !self.scope.includes(&extent) {
                break;
            }
            let (first, _) = group.unwrap_or((extent.base_index, extent.end_index));
            group = Some((first, extent.end_index));
            count += 1;
        }
        let Some((first, next)) = group else { return Ok(None) };
        let filter = Box::new(PassFilter(Arc::clone(&self.cleaning)));
        store.rewrite(self.slot, first, count, filter)?;
        Ok(Some(next))
    }
}
