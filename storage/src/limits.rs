//! Every limit of a store in one place, each with its unit in its name.

use highwater_protocol::batch::Work;
use highwater_protocol::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, frame_bytes};
use highwater_protocol::limits::{BATCH_BYTES_MAX, BATCH_BYTES_MAX_DEFAULT};

use crate::layout::{EXTENT_HEADER_BYTES, EXTENT_LOG2_BYTES, PAGE_BYTES};
use crate::state_log::SNAPSHOT_BYTES_PER_TURN;

/// Commit rounds in flight at once: while one is in flight the next one gathers and leaves; a third waits, so load makes rounds larger instead of slower.
pub const ROUNDS_IN_FLIGHT_MAX: usize = 2;

/// Bytes a gap may take before a frame that starts on a page: a padding frame needs room for its header, else it takes the next page too.
pub const PADDING_BYTES_MAX: usize = PAGE_BYTES + FRAME_HEADER_BYTES;

/// Bytes of the largest extent that any limits lead to: one that takes a frame of the largest batch.
pub const EXTENT_BYTES_MAX: u64 = 128 << 20;

/// Bytes that any limits allow to be appended and not yet durable in a partition. Recovery looks this far after a bad frame for proof that
/// it had been acknowledged: the run that wrote the frame may have had larger limits than the one that recovers it.
pub const UNACKED_BYTES_MAX: u64 = 128 << 20;

const _: () = {
    assert!(EXTENT_HEADER_BYTES + frame_bytes(BATCH_BYTES_MAX) <= EXTENT_BYTES_MAX as usize);
    assert!(frame_bytes(BATCH_BYTES_MAX) <= UNACKED_BYTES_MAX as usize);
    assert!(EXTENT_BYTES_MAX <= 1 << *EXTENT_LOG2_BYTES.end(), "positions within an extent are 32 bits");
};

/// How far recovery looks after a bad frame: plus the padding around frames that were not durable.
pub(crate) const SEARCH_BYTES_MAX: u32 = UNACKED_BYTES_MAX as u32 + 2 * PADDING_BYTES_MAX as u32;

/// Partitions of one store, including those that are being deleted. Four times a broker's limit: more is a bug.
pub const PARTITIONS_PER_STORE_MAX: usize = 1 << 22;

/// Epochs of one partition that are remembered. Each change of its leader begins one; the oldest are forgotten.
pub const EPOCHS_PER_PARTITION_MAX: usize = 1024;

/// Bytes of a configuration of a partition's replicas. It is kept in memory and in the map.
pub const CONFIGURATION_BYTES_MAX: usize = 1024;

/// Configurations of one partition that are remembered, beside the one at its log's start. Each change of its replicas makes two; the oldest are
/// forgotten, which are committed.
pub const CONFIGURATIONS_PER_PARTITION_MAX: usize = 64;

/// The smallest journal. Two entries have to fit, and one that frees space.
pub(crate) const JOURNAL_BYTES_MIN: u64 = 64 << 10;

/// The largest journal: a start after a crash reads all of it into memory.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 256 << 20;

/// Bytes that one batch of write-backs takes from the journal to the extents.
pub const WRITE_BACK_BYTES_MAX: usize = 4 << 20;

/// Partitions of one batch of write-backs.
pub const WRITE_BACK_PARTITIONS_MAX: usize = 512;

/// How often in a row returning a piece of free space is put off while the disk is busy. On a disk that is never idle the next one goes then.
pub const PUNCH_PAUSES_MAX: u32 = 64;

/// Bytes of a hole that are allocated again at once, unless an extent needs more.
pub const ALLOCATE_BYTES_MAX: u64 = 64 << 20;

/// Partitions that one step of retention looks at.
pub const RETENTION_PARTITIONS_PER_STEP: usize = 1024;

/// Checkpoints taken in one turn, as far as their partitions have few producers.
pub const CHECKPOINT_WORK_PER_TURN_MAX: usize = 512;

/// Write bounds that are recorded in one turn, beside urgent ones.
pub const BOUNDS_PER_TURN_MAX: usize = 512;

/// Bytes appended for each checkpoint of a round, so that the map takes a small part of what is written.
pub const APPENDED_PER_CHECKPOINT_BYTES: u64 = 64 << 10;

/// Producers that count as much as one more checkpoint.
pub const CHECKPOINT_PRODUCERS_PER_WORK: usize = 8;

/// Logs whose cutting off goes on in one turn.
pub const CUTS_PER_TURN_MAX: usize = 64;

/// Units of work that one step of a pass of compaction does for a batch that is filtered in steps: about two milliseconds.
pub const LARGE_BATCH_WORK_PER_STEP: Work = 2_000_000;

/// Extents that one rewrite replaces.
pub const REWRITE_EXTENTS_MAX: usize = 256;

/// How often a search for the largest timestamp begins again because the record that has it is gone. Each time a rewrite has to remove that record.
pub const LATEST_TRIES_MAX: u8 = 8;

/// Bytes of memory that one byte of a read's result may keep from being freed. Frames that are a smaller part of their buffer or chunk are copied.
pub const HELD_BYTES_PER_BYTE_MAX: usize = 4;

/// Bytes of memory per producer: its state, and its entry in the last checkpoint.
pub const PRODUCER_BYTES: u64 = 640;

/// Sizes that a store works with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreLimits {
    /// Size of the smallest slab. A disk that has no space for it is full: the rest is for the state logs. A power of two.
    pub slab_bytes_min: u64,
    /// Size of the first slab. A power of two.
    pub slab_bytes_first: u64,
    /// Each slab is twice the size of the one before, up to this. A power of two.
    pub slab_bytes_max: u64,
    /// Free space that is kept for the next extents. What is free beyond it for some time is returned to the file system.
    pub free_bytes_kept: u64,
    /// Free space is returned in pieces of this size at least: smaller ones would cut up the slabs. A power of two.
    pub punch_bytes_min: u64,
    /// And of this size at most. A power of two.
    pub punch_bytes_max: u64,
    /// Size of a partition's first extent: what a partition with a few small records takes on the disk. A power of two.
    pub extent_bytes_min: u64,
    /// From this size on each extent of a partition is twice the size of the one before. Smaller ones are followed by one of four times
    /// their size: a partition that grows leaves them soon, and one that does not takes little. A power of two.
    pub extent_bytes_doubling: u64,
    /// Extents grow up to this size. A power of two. A frame that does not fit gets a larger one.
    pub extent_bytes_max: u64,
    /// Payload bytes of the largest frame that is taken. Larger ones that are in the log already are read and recovered all the same.
    pub payload_bytes_max: usize,
    /// Frozen chunks kept for readers.
    pub cache_bytes_max: u64,
    /// Appended and not yet durable, per partition.
    pub unacked_bytes_max: u64,
    /// Appended and not yet durable, all partitions of the store together.
    pub store_unacked_bytes_max: u64,
    /// How far ahead of the appended frames the write bound of an extent is recorded, at least: so many bytes more are searched after a crash.
    pub bound_ahead_bytes_min: u32,
    /// The same, at most.
    pub bound_ahead_bytes_max: u32,
    /// Checkpoints are written every so many bytes appended, if many partitions need one. A start after a crash reads that much again, at most.
    pub checkpoint_bytes: u64,
    /// The same if few partitions need one.
    pub checkpoint_bytes_min: u64,
    /// Size of each copy of a new store's state log.
    pub state_log_bytes: u64,
    /// The same once it has been in use. Records in new extents wait while it is rewritten, so that should be rare.
    pub state_log_bytes_used: u64,
    /// Bytes of the map that are added to a snapshot in one turn, unless one partition takes more.
    pub snapshot_bytes_per_turn: u32,
    /// Size of the journal. 0: there is none, and each partition's records are written to its extents at once.
    pub journal_bytes: u64,
    /// A partition's new frames go into the journal if they are at most this many bytes in a round.
    pub journal_tail_bytes_max: u64,
    /// Small frames are gathered in buffers of this size.
    pub chunk_bytes_max: usize,
    /// Bytes of log between two entries of the sparse index.
    pub index_interval_bytes: u32,
    /// Size of a read from disk, unless one frame needs more.
    pub read_bytes_max: usize,
    /// Bytes of disk reads in flight, unless a single read is larger. Further reads are queued.
    pub reads_inflight_bytes_max: usize,
    /// Bytes of one read and of one write of a rewrite, unless one frame needs more. One of them is in flight at a time.
    pub rewrite_bytes_max: usize,
    /// Producers remembered per partition; the one that was silent longest is forgotten first.
    pub producers_max: usize,
    /// Producers remembered in all partitions of the store; the partition that has the most forgets some first.
    pub store_producers_max: usize,
    /// A producer that was silent this long is forgotten. Kafka's default: one day.
    pub producer_expiry_ms: i64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            slab_bytes_min: 256 << 10,
            slab_bytes_first: 64 << 20,
            slab_bytes_max: 1 << 30,
            free_bytes_kept: 1 << 30,
            punch_bytes_min: 256 << 10,
            punch_bytes_max: 4 << 20,
            extent_bytes_min: 16 << 10,
            extent_bytes_doubling: 256 << 10,
            extent_bytes_max: 64 << 20,
            payload_bytes_max: BATCH_BYTES_MAX_DEFAULT,
            cache_bytes_max: 256 << 20,
            unacked_bytes_max: 32 << 20,
            store_unacked_bytes_max: 256 << 20,
            bound_ahead_bytes_min: 32 << 10,
            bound_ahead_bytes_max: 8 << 20,
            checkpoint_bytes: 64 << 20,
            checkpoint_bytes_min: 16 << 20,
            state_log_bytes: 256 << 10,
            state_log_bytes_used: 2 << 20,
            snapshot_bytes_per_turn: SNAPSHOT_BYTES_PER_TURN as u32,
            journal_bytes: 16 << 20,
            journal_tail_bytes_max: 64 << 10,
            chunk_bytes_max: 256 << 10,
            index_interval_bytes: 32 << 10,
            read_bytes_max: 1 << 20,
            reads_inflight_bytes_max: 3 << 20,
            rewrite_bytes_max: 256 << 10,
            producers_max: 10_000,
            store_producers_max: 100_000,
            producer_expiry_ms: 24 * 60 * 60 * 1000,
        }
    }
}

impl StoreLimits {
    /// The preferred size of the extent after one of this size, both given by their binary logarithms.
    pub(crate) fn next_extent_log2(&self, last: u8) -> u8 {
        let grows_slowly = last >= self.extent_bytes_doubling.ilog2() as u8;
        (last + if grows_slowly { 1 } else { 2 }).min(self.extent_bytes_max.ilog2() as u8)
    }

    /// Limits with which a short run meets everything that production meets in a year: rolls, wraps, recycled extents, evictions, checkpoints.
    pub const fn tiny() -> Self {
        Self {
            slab_bytes_min: 16 << 10,
            slab_bytes_first: 256 << 10,
            slab_bytes_max: 1 << 20,
            free_bytes_kept: 128 << 10,
            punch_bytes_min: 16 << 10,
            punch_bytes_max: 32 << 10,
            extent_bytes_min: 16 << 10,
            extent_bytes_doubling: 16 << 10,
            extent_bytes_max: 64 << 10,
            payload_bytes_max: payload_bytes_of(64 << 10),
            cache_bytes_max: 128 << 10,
            unacked_bytes_max: 96 << 10,
            store_unacked_bytes_max: 256 << 10,
            bound_ahead_bytes_min: 8 << 10,
            bound_ahead_bytes_max: 8 << 10,
            checkpoint_bytes: 128 << 10,
            checkpoint_bytes_min: 32 << 10,
            state_log_bytes: 64 << 10,
            state_log_bytes_used: 64 << 10,
            snapshot_bytes_per_turn: 256,
            journal_bytes: 0,
            journal_tail_bytes_max: 4 << 10,
            chunk_bytes_max: 16 << 10,
            index_interval_bytes: 2 << 10,
            read_bytes_max: 16 << 10,
            reads_inflight_bytes_max: 32 << 10,
            rewrite_bytes_max: 8 << 10,
            producers_max: 4,
            store_producers_max: 64,
            producer_expiry_ms: 60_000,
        }
    }

    /// The same with a small journal.
    pub const fn tiny_with_journal() -> Self {
        Self { journal_bytes: JOURNAL_BYTES_MIN, ..Self::tiny() }
    }

    /// Panics when the sizes contradict each other: they are ours, not outside data.
    pub const fn assert_consistent(&self) {
        assert!(self.slab_bytes_first.is_power_of_two() && self.slab_bytes_max.is_power_of_two());
        assert!(self.extent_bytes_min.is_power_of_two() && self.extent_bytes_max.is_power_of_two());
        assert!(
            self.extent_bytes_min >= 2 * PAGE_BYTES as u64 && self.extent_bytes_min <= self.extent_bytes_max
        );
        assert!(self.extent_bytes_doubling.is_power_of_two());
        assert!(self.slab_bytes_min.is_power_of_two() && self.slab_bytes_min <= self.slab_bytes_first);
        assert!(self.extent_bytes_min <= self.slab_bytes_min);
        assert!(self.punch_bytes_min.is_power_of_two() && self.punch_bytes_max.is_power_of_two());
        assert!(
            self.extent_bytes_min <= self.punch_bytes_min && self.punch_bytes_min <= self.punch_bytes_max
        );
        assert!(
            self.extent_bytes_max <= self.slab_bytes_first && self.slab_bytes_first <= self.slab_bytes_max
        );
        assert!(self.extent_bytes_max <= EXTENT_BYTES_MAX && self.payload_bytes_max <= BATCH_BYTES_MAX);
        assert!(self.chunk_bytes_max.is_multiple_of(PAGE_BYTES) && self.chunk_bytes_max >= 2 * PAGE_BYTES);
        assert!(self.read_bytes_max.is_multiple_of(PAGE_BYTES) && self.read_bytes_max >= 2 * PAGE_BYTES);
        assert!(self.reads_inflight_bytes_max >= self.read_bytes_max);
        assert!(self.rewrite_bytes_max.is_multiple_of(PAGE_BYTES) && self.rewrite_bytes_max > 0);
        assert!(
            self.unacked_bytes_max >= frame_bytes(self.payload_bytes_max) as u64,
            "the largest frame may wait for the disk"
        );
        assert!(self.unacked_bytes_max <= UNACKED_BYTES_MAX, "recovery looks no further");
        assert!(0 < self.bound_ahead_bytes_min && self.bound_ahead_bytes_min <= self.bound_ahead_bytes_max);
        assert!(self.checkpoint_bytes_min <= self.checkpoint_bytes);
        assert!(self.journal_bytes == 0 || self.journal_bytes >= JOURNAL_BYTES_MIN);
        assert!(
            self.journal_bytes <= JOURNAL_BYTES_MAX && self.journal_bytes.is_multiple_of(PAGE_BYTES as u64)
        );
        assert!(self.index_interval_bytes > 0 && self.producers_max > 0);
        assert!(self.store_producers_max >= self.producers_max);
    }
}

/// Payload bytes of a frame that fits an extent of this size in whatever way it is laid.
const fn payload_bytes_of(extent_bytes: usize) -> usize {
    extent_bytes - EXTENT_HEADER_BYTES - FRAME_HEADER_BYTES - FRAME_ALIGN - PADDING_BYTES_MAX
}

const _: () = StoreLimits::tiny_with_journal().assert_consistent();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_production_and_of_simulation_are_consistent() {
        StoreLimits::default().assert_consistent();
        StoreLimits::tiny().assert_consistent();
    }

    #[test]
    fn extents_grow_fourfold_while_they_are_small_and_then_twofold() {
        let limits = StoreLimits::default();
        let first = limits.extent_bytes_min.ilog2() as u8;
        let sizes = std::iter::successors(Some(first), |last| Some(limits.next_extent_log2(*last)));
        let kib: Vec<u64> = sizes.take(12).map(|log2| (1 << log2) >> 10).collect();
        assert_eq!(kib, [16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 65536]);
    }
}
