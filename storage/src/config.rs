//! The configuration of a store and its partitions.

use std::path::PathBuf;

use highwater_protocol::ids::{ClusterId, StoreId};

use crate::limits::StoreLimits;
use crate::mac::MacKey;

/// How a commit round is made durable. Which one is faster depends on the disk and is measured at start-up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DurableForm {
    /// Every write is durable by itself (RWF_DSYNC).
    Dsync,
    /// Volatile writes, then one sync for each slab that the round touched.
    SyncPerRound,
}

/// The configuration of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The store's own folder, such as `highwater-data/store-000`.
    pub dir: PathBuf,
    /// The cluster that the data belongs to.
    pub cluster: ClusterId,
    /// Which store this is.
    pub store: StoreId,
    /// Top byte of every token of the store and of its state log's.
    pub token_space: u8,
    /// The key for a store that has none yet. Random, and secret.
    pub new_mac_key: MacKey,
    /// Sizes.
    pub limits: StoreLimits,
    /// How rounds become durable.
    pub durable_form: DurableForm,
}

/// When a frame of a partition counts as committed. Committed frames are never truncated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitRule {
    /// When it is durable here: this is the only replica.
    OwnDisk,
    /// When the owner says so: [`Store::note_commit`](crate::Store::note_commit).
    Quorum,
}

/// A topic's configuration, as far as it concerns the log of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionConfig {
    /// Records older than this may be deleted, in milliseconds. `None`: time deletes nothing.
    pub retention_ms: Option<i64>,
    /// The oldest records beyond this many bytes may be deleted. `None`: size deletes nothing.
    pub retention_bytes: Option<u64>,
    /// The active extent is closed when its first record is this old, so that retention can cut after it.
    pub segment_ms: i64,
    /// The active extent is closed when it holds this many bytes, so that retention can cut after it.
    pub segment_bytes: u64,
    /// When a frame counts as committed.
    pub commit: CommitRule,
    /// How the log is compacted. `None`: it is not.
    pub compaction: Option<CompactionConfig>,
}

/// When and how a log is compacted. See [`compaction`](crate::compaction).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactionConfig {
    /// A pass is due when more than this part of the log is dirty, in parts per million.
    pub dirty_ppm_min: u32,
    /// An extent is not compacted before all of its records are this old, in milliseconds.
    pub lag_ms_min: i64,
    /// A pass is due when a record has been dirty for this long, in milliseconds.
    pub lag_ms_max: i64,
    /// How long tombstones stay after the first pass that finds them, in milliseconds.
    pub delete_retention_ms: i64,
}

impl Default for CompactionConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            dirty_ppm_min: 500_000,
            lag_ms_min: 0,
            lag_ms_max: i64::MAX,
            delete_retention_ms: 24 * 60 * 60 * 1000,
        }
    }
}

impl PartitionConfig {
    /// Nothing is ever let go, and there is no other replica.
    pub const KEEP_ALL: Self = Self {
        retention_ms: None,
        retention_bytes: None,
        segment_ms: i64::MAX,
        segment_bytes: u64::MAX,
        commit: CommitRule::OwnDisk,
        compaction: None,
    };
}

impl Default for PartitionConfig {
    /// Kafka's defaults: a week, any size, segments of a week and 1 GiB.
    fn default() -> Self {
        const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
        Self {
            retention_ms: Some(WEEK_MS),
            retention_bytes: None,
            segment_ms: WEEK_MS,
            segment_bytes: 1 << 30,
            commit: CommitRule::OwnDisk,
            compaction: None,
        }
    }
}
