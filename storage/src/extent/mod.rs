//! One extent of a partition's log, as the store knows it in memory.

mod bound;
mod index;

use highwater_protocol::batch::BatchHeader;
use highwater_protocol::frame::FRAME_HEADER_BYTES;
use highwater_protocol::ids::{
    ClusterId, ExtentSequence, Incarnation, LeaderEpoch, LogIndex, Offset, StoreId, TopicPartition,
};

use crate::layout::{EXTENT_HEADER_BYTES, EXTENT_VERSION, ExtentEnd, ExtentId, Place};
use crate::mac::StoreMacs;
use crate::position::{ExtentRef, LogPoint, Mark};
use crate::state_log::Seq;

pub(crate) use bound::{BoundNeed, WriteBound, bound_after};
pub(crate) use index::{Entry, SparseIndex};

/// Position of an extent's first frame.
pub(crate) const FIRST_POSITION: u32 = EXTENT_HEADER_BYTES as u32;

/// Stands for "no batch yet" where a largest timestamp is kept.
pub(crate) const NO_TIMESTAMP: i64 = i64::MIN;

/// Used for a time of appending that was not recorded: the latest there is, so that no record looks old for it.
pub(crate) const APPENDED_UNKNOWN: i64 = i64::MAX;

/// Used for the time at which an extent was begun if that is not known: it must not make the extent look old.
pub(crate) const CREATED_UNKNOWN: i64 = i64::MAX;

/// Returns the largest timestamp of a batch's records. The header of a batch that compaction has emptied still has that of a record that is gone.
pub(crate) fn latest_of(batch: &BatchHeader) -> i64 {
    if batch.count() == 0 { NO_TIMESTAMP } else { batch.max_timestamp.get() }
}

/// One extent. Invariant: `base_* <= end_*`, and only the last extent of a partition is not sealed.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each learnt by an event of its own")]
pub(crate) struct Extent {
    pub(crate) sequence: ExtentSequence,
    pub(crate) incarnation: Incarnation,
    /// See [`ExtentEntry::generation`](crate::map::ExtentEntry::generation).
    pub(crate) generation: u32,
    /// Version of its header. Only those of today's take frames.
    pub(crate) version: u16,
    /// Frames may be missing between its frames.
    pub(crate) has_gaps: bool,
    /// See [`ExtentId::configured`]. After a start it is known of those whose headers were read.
    pub(crate) configured: bool,
    pub(crate) log2_bytes: u8,
    /// Not known yet while the store waits for a new slab.
    pub(crate) place: Option<Place>,
    pub(crate) base_index: LogIndex,
    pub(crate) base_offset: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    /// By the broker's clock.
    pub(crate) created_ms: i64,
    /// Where the next frame goes; when sealed, where the last one ends.
    pub(crate) end: u32,
    pub(crate) end_index: LogIndex,
    pub(crate) end_offset: Offset,
    pub(crate) sealed: bool,
    /// The map of the store says so too.
    pub(crate) seal_recorded: bool,
    pub(crate) max_timestamp: i64,
    /// When the last batch without a timestamp was appended, by the broker's clock; [`NO_TIMESTAMP`] if there is none,
    /// [`APPENDED_UNKNOWN`] until the next look at the clock if that was not recorded.
    pub(crate) untimed_ms: i64,
    /// The latest delete horizon of its batches; [`NO_TIMESTAMP`] if none of them has one that is to come, or it is not known.
    pub(crate) horizon_ms: i64,
    /// The record of its allocation in the map: no frame in it is durable before that is.
    pub(crate) map_seq: Option<Seq>,
    /// Its header block has been handed to the disk, in place or with an entry of the journal.
    pub(crate) header_written: bool,
    /// Only the journal has its header block.
    pub(crate) header_journaled: bool,
    /// How far frames may be written to it.
    pub(crate) write_bound: WriteBound,
    pub(crate) index: SparseIndex,
}

impl Extent {
    /// An extent without frames.
    pub(crate) fn new(
        ExtentRef { sequence, incarnation }: ExtentRef,
        log2_bytes: u8,
        LogPoint { index, offset }: LogPoint,
        leader_epoch: LeaderEpoch,
        created_ms: i64,
    ) -> Self {
        Self {
            sequence,
            incarnation,
            generation: 0,
            version: EXTENT_VERSION,
            has_gaps: false,
            configured: false,
            log2_bytes,
            place: None,
            base_index: index,
            base_offset: offset,
            leader_epoch,
            created_ms,
            end: FIRST_POSITION,
            end_index: index,
            end_offset: offset,
            sealed: false,
            seal_recorded: false,
            max_timestamp: NO_TIMESTAMP,
            untimed_ms: NO_TIMESTAMP,
            horizon_ms: NO_TIMESTAMP,
            map_seq: None,
            header_written: false,
            header_journaled: false,
            write_bound: WriteBound::known(1 << log2_bytes),
            index: SparseIndex::default(),
        }
    }

    pub(crate) fn bytes(&self) -> u32 {
        1 << self.log2_bytes
    }

    pub(crate) fn reference(&self) -> ExtentRef {
        ExtentRef { sequence: self.sequence, incarnation: self.incarnation }
    }

    /// The content of its header. `None` while it has no place.
    pub(crate) fn id(
        &self,
        cluster: ClusterId,
        store: StoreId,
        tp: TopicPartition,
        macs: &StoreMacs,
    ) -> Option<ExtentId> {
        let end = ExtentEnd { position: self.end, index: self.end_index, offset: self.end_offset };
        Some(ExtentId {
            cluster,
            store,
            place: self.place?,
            version: self.version,
            log2_bytes: self.log2_bytes,
            sequence: self.sequence,
            generation: self.generation,
            incarnation: self.incarnation,
            tp,
            base_index: self.base_index,
            base_offset: self.base_offset,
            leader_epoch: self.leader_epoch,
            has_gaps: self.has_gaps,
            abandoned: false,
            configured: self.configured,
            end: (self.generation > 0 && self.sealed).then_some(end),
            macs: macs.of(self.incarnation).map(|_| *macs),
        })
    }

    /// Before its first frame.
    pub(crate) fn start_mark(&self) -> Mark {
        Mark {
            sequence: self.sequence,
            incarnation: self.incarnation,
            position: FIRST_POSITION,
            index: self.base_index,
            offset: self.base_offset,
        }
    }

    /// Bytes of frames in it.
    pub(crate) fn used_bytes(&self) -> u32 {
        self.end - FIRST_POSITION
    }

    pub(crate) fn room(&self) -> usize {
        (self.bytes() - self.end) as usize
    }

    pub(crate) fn has_frames(&self) -> bool {
        self.end > FIRST_POSITION
    }

    /// After its last frame.
    pub(crate) fn end_mark(&self) -> Mark {
        Mark {
            sequence: self.sequence,
            incarnation: self.incarnation,
            position: self.end,
            index: self.end_index,
            offset: self.end_offset,
        }
    }

    /// Moves the end to the end of a frame that was durable, if it is not there yet: the frames before it are lost. Readers have to be
    /// told so, and the end of the remaining frames must not be taken for the end of the log.
    pub(crate) fn extend_to(&mut self, known: Mark, max_timestamp: i64) {
        if known.index > self.end_index {
            self.max_timestamp = self.max_timestamp.max(max_timestamp);
            self.end = known.position;
            self.end_index = known.index;
            self.end_offset = known.offset;
        }
    }

    /// Ends the extent here: the frames that follow were cut off.
    pub(crate) fn cut_off(&mut self, end: Mark, max_timestamp: i64) {
        assert!((FIRST_POSITION..=self.end).contains(&end.position) && end.index >= self.base_index);
        self.end = end.position;
        self.end_index = end.index;
        self.end_offset = end.offset;
        self.max_timestamp = max_timestamp;
        self.index.truncate(end.position);
        self.sealed = true;
        self.seal_recorded = true;
    }

    /// Notes a frame that begins here, before which `max_timestamp` is the largest.
    pub(crate) fn note_index(
        &mut self,
        position: u32,
        LogPoint { index, offset }: LogPoint,
        interval_bytes: u32,
    ) {
        let entry = Entry { position, index, offset, max_timestamp_before: self.max_timestamp };
        self.note_entry(entry, interval_bytes);
    }

    /// Notes a frame that a reader passed.
    pub(crate) fn note_entry(&mut self, entry: Entry, interval_bytes: u32) {
        let interval = SparseIndex::interval(self.bytes(), interval_bytes);
        self.index.note(entry, interval);
    }

    /// Notes the largest timestamp of a batch appended at that time.
    pub(crate) fn note_times(&mut self, batch: &BatchHeader, appended_ms: i64) {
        if batch.count() == 0 {
            return;
        }
        let max_timestamp = batch.max_timestamp.get();
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
        if max_timestamp < 0 {
            self.untimed_ms = self.untimed_ms.max(appended_ms);
        }
    }

    /// The time that its age is counted from: the latest of its records' timestamps, and of the times at which batches without one were
    /// appended. Of an extent without batches, when it was begun.
    pub(crate) fn newest_ms(&self) -> i64 {
        let timed = if self.max_timestamp >= 0 { self.max_timestamp } else { NO_TIMESTAMP };
        match timed.max(self.untimed_ms) {
            NO_TIMESTAMP => self.created_ms,
            newest => newest,
        }
    }

    /// Moves the end past a frame of this many bytes.
    pub(crate) fn advance(&mut self, bytes: usize, next_index: LogIndex, next_offset: Offset) {
        assert!(!self.sealed, "no frame goes into a sealed extent");
        assert!(bytes <= self.room(), "a frame never crosses an extent");
        assert!(next_index >= self.end_index && next_offset >= self.end_offset);
        self.end += bytes as u32;
        self.end_index = next_index;
        self.end_offset = next_offset;
        if self.room() < FRAME_HEADER_BYTES {
            self.sealed = true;
        }
    }
}
