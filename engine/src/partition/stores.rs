//! The stores of a shard: opening, commit rounds, and their events.

use std::path::Path;

use highwater_protocol::ids::{
    ClusterId, LeaderEpoch, LogIndex, Offset, ProducerId, StoreId, TopicPartition,
};
use highwater_protocol::topic::METADATA_PARTITION;
use highwater_replication::raft::{Config, ReplicaId};
use highwater_runtime::plane::{Completion, Disk, Plane, Token};
use highwater_storage::mac::MAC_KEY_BYTES;
use highwater_storage::{
    AppendError, DurableForm, MacKey, OpenError, PartitionFinding, PartitionSlot, RecoveryReport, Store,
    StoreConfig, StoreEvent, StoreLimits,
};

use super::consensus::{Consensus, Recovered};
use super::rejected::ProducerKey;
use super::replica::Partition;
use super::{PartitionEvent, Partitions, Replicas};
use crate::api::ApiError;
use crate::data_dir::store_dir;
use crate::limits::{EVENTS_PER_POLL_MAX, START_WARNINGS_MAX, STORES_PER_SHARD_MAX};
use crate::meta::Opened;

/// Token spaces: the top byte of a disk operation's token identifies the component that started it.
pub(crate) const META_SPACE: u8 = 1;
pub(crate) const OFFSETS_SPACE: u8 = 2;
pub(crate) const RESERVE_SPACE: u8 = 3;
const STORE_SPACE_FIRST: u8 = 8;
const _: () = assert!(STORE_SPACE_FIRST as usize + STORES_PER_SHARD_MAX <= 256);

/// A store of this shard.
pub(crate) struct StoreEntry {
    pub(super) id: StoreId,
    pub(super) store: Store,
    /// Whether the last allocation failed for lack of disk space.
    pub(super) full: bool,
    pub(super) closed: bool,
}

/// The stores of a broker, of which each shard opens its own.
pub(crate) struct StoresSetup<'a> {
    pub(crate) data_dir: &'a Path,
    /// The cluster that owns the data.
    pub(crate) cluster: ClusterId,
    /// This node's replicas.
    pub(crate) me: ReplicaId,
    /// The number of stores, at least as many as shards.
    pub(crate) stores: u16,
    /// The number of shards.
    pub(crate) shards: u16,
    pub(crate) limits: StoreLimits,
    pub(crate) durable_form: DurableForm,
}

/// Why the stores of a shard cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenStoresError {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("one core would serve more than {} stores; start with more cores", STORES_PER_SHARD_MAX)]
    TooMany,
}

/// Opens the stores of this shard. Returns them, and what they contain.
pub(crate) fn open_all<M>(
    plane: &mut dyn Plane<M>,
    setup: &StoresSetup<'_>,
) -> Result<(Vec<StoreEntry>, Opened), OpenStoresError> {
    let alone = Config::new([setup.me], []).expect("one voter is enough");
    let mut entries = Vec::new();
    let mut opened = Opened { epochs: Vec::new(), topics: Vec::new(), warnings: Vec::new() };
    let mine = (plane.shard()..setup.stores).step_by(usize::from(setup.shards));
    for (number, id) in mine.enumerate() {
        if number >= STORES_PER_SHARD_MAX {
            return Err(OpenStoresError::TooMany);
        }
        let config = StoreConfig {
            dir: store_dir(setup.data_dir, id),
            cluster: setup.cluster,
            store: StoreId(id),
            token_space: STORE_SPACE_FIRST + number as u8,
            new_mac_key: new_mac_key(plane),
            limits: setup.limits,
            durable_form: setup.durable_form,
        };
        let (store, report) = Store::open(config, plane)?;
        report_findings(StoreId(id), report, &mut opened.warnings);
        // The log of the metadata is not in the metadata.
        let of_topics = || store.partitions().filter(|(tp, _)| *tp != METADATA_PARTITION);
        opened.topics.extend(of_topics().map(|(tp, _)| tp.topic));
        for (tp, slot) in of_topics() {
            let consensus = Consensus::new(setup.me, &Recovered::of(&store, slot), &alone, 1);
            let epoch = consensus.term();
            opened.epochs.extend((epoch != LeaderEpoch(0)).then_some((tp, epoch)));
        }
        entries.push(StoreEntry { id: StoreId(id), store, full: false, closed: false });
    }
    opened.topics.sort_unstable();
    opened.topics.dedup();
    Ok((entries, opened))
}

/// Returns the key for a store that has none yet.
fn new_mac_key<M>(plane: &mut dyn Plane<M>) -> MacKey {
    let mut key = MacKey([0; MAC_KEY_BYTES]);
    for half in key.0.chunks_mut(size_of::<u64>()) {
        half.copy_from_slice(&plane.random_u64().to_le_bytes());
    }
    key
}

/// Logs what recovery found, and adds it to the start's warnings.
fn report_findings(store: StoreId, report: RecoveryReport, warnings: &mut Vec<String>) {
    tracing::info!(
        store = store.0,
        partitions = report.partitions,
        extents = report.extents,
        scanned = report.bytes_scanned,
        "store opened"
    );
    let mut faulty = Vec::new();
    for (tp, finding) in report.findings {
        match finding {
            PartitionFinding::Truncated { end } => {
                tracing::info!(%tp, %end, "frames that were never acknowledged are gone");
            }
            PartitionFinding::Faulty { at, why } => faulty.push(format!(
                "partition {tp} is damaged at offset {at}: {why}; it serves what can be read and takes no new records; `highwater log repair` shows what is lost"
            )),
        }
    }
    warn_some(warnings, faulty, "partitions that are damaged; `highwater topic describe` shows them");
    let of_store = |what: String| format!("store-{:03}: {what}", store.0);
    let of_this_store = report.warnings.into_iter().map(of_store).collect();
    warn_some(
        warnings,
        of_this_store,
        &format!("warnings of store-{:03}; `highwater log verify` finds all damage", store.0),
    );
    if report.map_rebuilt {
        warnings.push(of_store("its map was lost and rebuilt from the extents".into()));
    }
    let moved = report.quarantined.iter().map(|(from, to)| {
        format!(
            "{}: the broker does not know this file and has moved it to {}; look at it, and delete it if nobody needs it",
            from.display(),
            to.display()
        )
    });
    let kind = "files that the broker does not know were moved to quarantine/ in the data directory";
    warn_some(warnings, moved.collect(), kind);
}

/// Adds the first warnings of a kind, and the number of the others.
fn warn_some(warnings: &mut Vec<String>, mut of_a_kind: Vec<String>, what: &str) {
    let more = of_a_kind.len().saturating_sub(START_WARNINGS_MAX);
    of_a_kind.truncate(START_WARNINGS_MAX);
    warnings.append(&mut of_a_kind);
    if more > 0 {
        warnings.push(format!("and {more} more {what}"));
    }
}

/// A disk error on a write or a sync.
pub(crate) const EXIT_DISK: u8 = 74;

/// The index of the store that a token belongs to.
fn store_of(token: Token) -> Option<usize> {
    usize::from((token.0 >> 56) as u8).checked_sub(usize::from(STORE_SPACE_FIRST))
}

impl Partitions {
    /// Handles the end of a disk operation of a store.
    pub(crate) fn handle_disk(&mut self, disk: &mut dyn Disk, token: Token, completion: Completion) {
        let index = store_of(token).expect("tokens are numbered by their owners");
        self.store_mut(index).on_disk(disk, token, completion);
    }

    /// Starts commit rounds with everything appended since the last ones. Returns whether a store has more to do than one turn allows.
    pub(crate) fn flush(&mut self, disk: &mut dyn Disk) -> bool {
        let mut more = false;
        for entry in &mut self.replicas.stores {
            more |= entry.store.flush(disk);
        }
        self.replicas.list_unfrozen();
        more
    }

    /// Handles events of the stores, up to the limit of a turn. Returns whether there were any.
    pub(crate) fn poll_stores(&mut self, disk: &mut dyn Disk, wall_ms: i64) -> bool {
        let mut any = false;
        for store in 0..self.replicas.stores.len() {
            let mut space = false;
            let mut left = EVENTS_PER_POLL_MAX;
            while left > 0
                && let Some(event) = self.replicas.stores[store].store.poll_event()
            {
                left -= 1;
                any = true;
                space |= may_make_space(&event);
                self.replicas.handle_store_event(disk, store, event, wall_ms);
            }
            if space {
                self.replicas.retry_held(disk, store, wall_ms);
                self.replicas.ask_for_refused(disk, store, wall_ms);
                self.retry_pending(disk, store, wall_ms);
            }
        }
        self.retry_after_changes(disk, wall_ms);
        any
    }

    /// Continues searches while there is `work` left. Returns whether there is more to do.
    pub(crate) fn continue_searches(
        &mut self,
        disk: &mut dyn Disk,
        work: &mut highwater_protocol::batch::Work,
    ) -> bool {
        let mut more = false;
        for entry in &mut self.replicas.stores {
            more |= entry.store.continue_searches(disk, work);
        }
        more
    }

    /// Starts a round of retention, which [`run_retention`](Self::run_retention) carries out.
    pub(crate) fn begin_retention(&mut self) {
        self.retaining = (0..self.replicas.stores.len()).collect();
    }

    /// Continues the round of retention. Returns whether there is more to do.
    pub(crate) fn run_retention(&mut self, disk: &mut dyn Disk, wall_ms: i64) -> bool {
        let Some(store) = self.retaining.last().copied() else { return false };
        if !self.store_mut(store).enforce_retention(disk, wall_ms) {
            self.retaining.pop();
        }
        !self.retaining.is_empty()
    }

    /// Begins to return free space to the file system. Each store keeps this many bytes. Returns how many bytes are to be returned.
    pub(crate) fn release_space(&mut self, kept_bytes: u64) -> u64 {
        self.replicas.stores.iter_mut().map(|entry| entry.store.release_space(kept_bytes)).sum()
    }

    /// Returns a piece of free space of each store that has more than it keeps to the file system. Returns whether there may be more.
    pub(crate) fn return_space(&mut self, disk: &mut dyn Disk) -> bool {
        let mut more = false;
        for entry in &mut self.replicas.stores {
            more |= entry.store.return_space(disk);
        }
        more
    }

    /// Returns whether a disk is full, or something appended waits for space.
    pub(crate) fn is_full(&self) -> bool {
        self.replicas.stores.iter().any(|entry| entry.full || entry.store.is_stalled())
    }

    /// Returns whether something appended to a partition waits for space.
    pub(crate) fn is_stalled(&self, tp: TopicPartition) -> bool {
        self.of(tp).is_some_and(|partition| self.store(partition.store).waits_for_space(partition.slot))
    }

    /// Begins to close the stores.
    pub(crate) fn close(&mut self, disk: &mut dyn Disk) {
        for entry in &mut self.replicas.stores {
            entry.store.shutdown(disk);
        }
    }

    /// Returns whether every store has been closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.replicas.stores.iter().all(|entry| entry.closed)
    }

    /// Returns whether every store has been closed, or waits for space on a full disk.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.replicas.stores.iter().all(|entry| entry.closed || entry.store.is_stalled())
    }
}

/// Returns whether batches that wait for space may be appended after this. On a full disk they are rejected.
fn may_make_space(event: &StoreEvent) -> bool {
    matches!(
        event,
        StoreEvent::Durable { .. }
            | StoreEvent::SpaceAvailable
            | StoreEvent::RoomAvailable
            | StoreEvent::StorageFull(_)
            | StoreEvent::Stalled { .. }
    )
}

impl Replicas {
    fn handle_store_event(&mut self, disk: &mut dyn Disk, store: usize, event: StoreEvent, wall_ms: i64) {
        let entry = &mut self.stores[store];
        match event {
            StoreEvent::Durable { slot, durable_index, durable_offset } => {
                self.handle_durable(disk, (store, slot), (durable_index, durable_offset), wall_ms);
            }
            StoreEvent::ReplicaStateDurable { slot, state } => {
                self.change(disk, (store, slot), wall_ms, |consensus| consensus.handle_persisted(state));
            }
            StoreEvent::Truncated { slot, end: Ok(end) } => {
                self.change(disk, (store, slot), wall_ms, |consensus| consensus.handle_truncated(end));
            }
            StoreEvent::Truncated { slot, end: Err(error) } => {
                let id = self.table.of_slot(store, slot);
                let partition =
                    id.and_then(|id| self.table.get(id)).map_or_else(String::new, Partition::name);
                tracing::error!(
                    partition,
                    "the log cannot be cut off where that of the leader differs: {error}"
                );
            }
            StoreEvent::Started { slot } => {
                if !self.is_cutting(store, slot) {
                    // It began anew before its consensus did.
                    return;
                }
                let start = self.stores[store].store.first_point(slot);
                self.forget_rejected(store, slot);
                self.change(disk, (store, slot), wall_ms, |consensus| consensus.handle_started(start));
            }
            StoreEvent::Read { id, result } => {
                self.events.push_back(PartitionEvent::Read { store, id, result });
            }
            StoreEvent::Searched { id, result } => {
                self.events.push_back(PartitionEvent::Searched { store, id, result });
            }
            StoreEvent::LogStart { slot, offset } => self.handle_log_start(store, slot, offset),
            StoreEvent::Deleted { tp } => self.handle_freed(tp),
            StoreEvent::StorageFull(why) => {
                tracing::error!(store = entry.id.0, "the disk is full: {why}");
                entry.full = true;
                self.events.push_back(PartitionEvent::DiskFull);
            }
            StoreEvent::Stalled { slot } => self.fail_acks(store, slot),
            StoreEvent::SpaceAvailable => {
                tracing::info!(store = entry.id.0, "there is space on the disk again");
                entry.full = false;
            }
            // Batches that wait for space are retried after the last event.
            StoreEvent::RoomAvailable => {}
            StoreEvent::ReadByIndex { id, result } => {
                if let Some(result) = self.handle_peer_read((store, id), result) {
                    self.compaction.handle_read(store, id, result);
                }
            }
            StoreEvent::Rewritten { slot, outcome } => {
                self.compaction.handle_rewritten(store, slot, outcome);
            }
            StoreEvent::Fatal(why) => self.events.push_back(PartitionEvent::Fatal(why)),
            StoreEvent::Closed => entry.closed = true,
        }
    }

    /// More of a partition's log is on stable storage: producers are acknowledged, and more can be read.
    fn handle_durable(
        &mut self,
        disk: &mut dyn Disk,
        of: (usize, PartitionSlot),
        (index, offset): (LogIndex, Offset),
        wall_ms: i64,
    ) {
        self.change(disk, of, wall_ms, |consensus| consensus.handle_durable(index, offset));
    }

    /// Forgets the rejected batches of a partition: its log has restarted, and they may be in the part that is not here.
    fn forget_rejected(&mut self, store: usize, slot: PartitionSlot) {
        let Some(partition) = self.table.of_slot(store, slot).and_then(|id| self.table.get(id)) else {
            return;
        };
        let tp = partition.tp;
        let first = ProducerKey { partition: tp, producer: ProducerId(i64::MIN), epoch: i16::MIN };
        self.rejected.forget(&first, |partition| *partition == tp);
    }

    /// Returns whether the consensus of a partition waits for its log to be cut off or to begin anew.
    fn is_cutting(&self, store: usize, slot: PartitionSlot) -> bool {
        let partition = self.table.of_slot(store, slot).and_then(|id| self.table.get(id));
        partition.is_some_and(|partition| partition.consensus.is_cutting())
    }

    /// Brings an event to the consensus of a partition, and carries out what follows.
    fn change(
        &mut self,
        disk: &mut dyn Disk,
        (store, slot): (usize, PartitionSlot),
        wall_ms: i64,
        event: impl FnOnce(&mut Consensus),
    ) {
        let Some(id) = self.table.of_slot(store, slot) else { return };
        let Some(partition) = self.table.get_mut(id) else { return };
        event(&mut partition.consensus);
        self.settle(disk, id, wall_ms);
    }

    /// Frames of a partition wait for disk space: fails the pending acknowledgements instead of letting producers wait. Whether their batches
    /// become durable is unknown to them; a batch that is sent again is recognised.
    fn fail_acks(&mut self, store: usize, slot: PartitionSlot) {
        let Some(id) = self.table.of_slot(store, slot) else { return };
        let Some(partition) = self.table.get(id) else { return };
        let error = ApiError::Append { partition: partition.name(), error: AppendError::StorageFull };
        self.fail_pending(id, &error);
    }
}
