//! The store: commands in, completions in, events out.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset, Timestamp, TopicPartition};
use highwater_runtime::plane::{Completion, Disk, Token};

use crate::api::{
    AppendError, Appended, Bounds, Cursor, FindOutcome, FindResult, LogStartError, Payload, ProducerCheck,
    ProducerStamp, ReadOutcome, ReadResult, Slot, StoreEvent, StoreStats,
};
use crate::config::{PartitionConfig, StoreConfig};
use crate::report::{OpenError, RecoveryReport};

/// The logs of the partitions of one shard. See the crate's doc.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    slots: BTreeMap<TopicPartition, Slot>,
    configs: Vec<PartitionConfig>,
    events: VecDeque<StoreEvent>,
    stats: StoreStats,
}

impl Store {
    /// Opens the store in its folder, making it if there is none, and recovers every partition found. Blocks.
    pub fn open(config: StoreConfig, disk: &mut dyn Disk) -> Result<(Self, RecoveryReport), OpenError> {
        config.limits.assert_consistent();
        disk.create_dir_all(&config.dir)
            .map_err(|source| OpenError::Io { path: config.dir.clone(), source })?;
        let store = Self {
            config,
            slots: BTreeMap::new(),
            configs: Vec::new(),
            events: VecDeque::new(),
            stats: StoreStats::default(),
        };
        Ok((store, RecoveryReport::default()))
    }

    /// The partitions of this store.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, Slot)> {
        self.slots.iter().map(|(tp, slot)| (*tp, *slot))
    }

    /// The slot of this partition, made (in memory only) if there is none. Updates its configuration.
    pub fn ensure_partition(&mut self, tp: TopicPartition, config: PartitionConfig) -> Slot {
        if let Some(slot) = self.slots.get(&tp) {
            self.configs[slot.0 as usize] = config;
            return *slot;
        }
        let slot = Slot(self.configs.len() as u32);
        self.configs.push(config);
        self.slots.insert(tp, slot);
        slot
    }

    /// Forgets a partition. Its space is used again once that is durable; [`StoreEvent::Deleted`] tells.
    pub fn delete_partition(&mut self, _disk: &mut dyn Disk, slot: Slot) {
        self.slots.retain(|_, s| *s != slot);
    }

    /// What the partition knows of a batch's producer.
    pub fn check_producer(&self, _slot: Slot, _stamp: &ProducerStamp) -> ProducerCheck {
        ProducerCheck::New
    }

    /// Appends a record batch: stamps its base offset and leader epoch and puts it into the tail. Durable after a later [`flush`](Self::flush).
    pub fn append(
        &mut self,
        _disk: &mut dyn Disk,
        _slot: Slot,
        _payload: Payload<'_>,
        _epoch: LeaderEpoch,
        _wall_ms: i64,
    ) -> Result<Appended, AppendError> {
        Err(AppendError::StorageFull)
    }

    /// Appends the first frame of a leader's epoch.
    pub fn append_epoch_start(
        &mut self,
        _disk: &mut dyn Disk,
        _slot: Slot,
        _epoch: LeaderEpoch,
        _wall_ms: i64,
    ) -> Result<LogIndex, AppendError> {
        Err(AppendError::StorageFull)
    }

    /// Starts a commit round with everything appended, if one may start now. Call it at the end of every turn.
    pub fn flush(&mut self, _disk: &mut dyn Disk) {}

    /// A completion of an operation that this store started: its token has the store's token space as its top byte.
    pub fn on_disk(&mut self, _disk: &mut dyn Disk, _token: Token, _completion: Completion) {}

    /// The next thing that the owner has to know.
    pub fn poll_event(&mut self) -> Option<StoreEvent> {
        self.events.pop_front()
    }

    /// Where the log of a partition begins and ends.
    pub fn bounds(&self, _slot: Slot) -> Bounds {
        Bounds {
            log_start: Offset(0),
            durable_end: Offset(0),
            append_end: Offset(0),
            durable_index: LogIndex(0),
            append_index: LogIndex(0),
            bytes: 0,
            faulty: false,
            last_epoch: None,
        }
    }

    /// Reads durable frames from the batch that holds the cursor's offset on, below `up_to`: at least one batch, then while `max_bytes` allows.
    pub fn read(
        &mut self,
        _disk: &mut dyn Disk,
        _slot: Slot,
        _cursor: Cursor,
        _max_bytes: usize,
        _up_to: Offset,
    ) -> ReadOutcome {
        ReadOutcome::Ready(ReadResult::AtEnd)
    }

    /// The first record at or after a timestamp.
    pub fn find_time(&mut self, _disk: &mut dyn Disk, _slot: Slot, _at: Timestamp) -> FindOutcome {
        FindOutcome::Ready(FindResult::None)
    }

    /// Moves the start of a log forward. [`StoreEvent::LogStart`] tells when that is durable.
    pub fn set_log_start(
        &mut self,
        _disk: &mut dyn Disk,
        slot: Slot,
        offset: Offset,
    ) -> Result<(), LogStartError> {
        self.events.push_back(StoreEvent::LogStart { slot, offset });
        Ok(())
    }

    /// Lets go of what the partitions' configurations do not keep, and tries again to get space if there was none. Call it from a timer.
    pub fn enforce_retention(&mut self, _disk: &mut dyn Disk, _wall_ms: i64) {}

    /// A last round and a checkpoint; [`StoreEvent::Closed`] tells when they are durable. No appends after this.
    pub fn shutdown(&mut self, _disk: &mut dyn Disk) {
        self.events.push_back(StoreEvent::Closed);
    }

    /// Counters.
    pub fn stats(&self) -> StoreStats {
        self.stats
    }

    /// Bytes of memory in buffers: the cache and what waits for the disk.
    pub fn memory_bytes(&self) -> u64 {
        self.stats.cache_bytes + self.stats.unacked_bytes
    }

    /// What the store was opened with.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }
}
