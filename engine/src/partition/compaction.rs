//! Compaction of the partitions of a shard: one pass at a time, of the partition of which the largest part is dirty.
//!
//! A scan looks at all partitions, some in each turn, and finds the one whose pass is most urgent. After a pass comes the next scan, until none is due.
//! Whoever drives this decides when scans begin, and how fast a pass goes.

use highwater_runtime::plane::Disk;
use highwater_storage::compaction::{Backlog, Pass, PassError, PassLimits, PassStep};
use highwater_storage::{
    CompactionConfig, IndexRead, MacKey, PartitionSlot, ReadId, RewriteAborted, Rewritten,
};

use super::Partitions;
use super::replica::{Partition, PartitionId};
use crate::api::CompactionDetails;
use crate::limits::COMPACTION_PARTITIONS_PER_SCAN_STEP;

/// The scan or the pass of a shard.
#[derive(Default)]
pub(super) struct Compaction {
    state: State,
    counted: CompactionCounters,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Scanning(Scan),
    /// A scan has found this one.
    Found(PartitionId),
    Running(Box<Running>),
}

/// A scan of all partitions.
#[derive(Default)]
struct Scan {
    /// The entry of the table that is next.
    next: usize,
    best: Option<(Urgency, PartitionId)>,
    dirty_bytes: u64,
}

/// How urgent a pass is: what has waited too long first, then what is dirtiest, then expired tombstones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Urgency {
    is_overdue: bool,
    dirty_ppm: u32,
    bytes: u64,
}

impl Urgency {
    fn of(backlog: &Backlog, config: &CompactionConfig, wall_ms: i64) -> Self {
        let is_too_dirty = backlog.is_too_dirty(config, wall_ms);
        Self {
            is_overdue: backlog.is_overdue(config, wall_ms),
            dirty_ppm: if is_too_dirty { backlog.dirty_ppm() } else { 0 },
            bytes: if is_too_dirty { backlog.dirty_bytes } else { backlog.expired_bytes },
        }
    }
}

struct Running {
    id: PartitionId,
    store: usize,
    pass: Pass,
}

/// What compaction has done.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct CompactionCounters {
    /// Passes that have ended in order.
    pub(crate) passes: u64,
    /// Passes that ended early.
    pub(crate) failed: u64,
    /// Records removed.
    pub(crate) removed: u64,
    /// Bytes of frames that were read and replaced.
    pub(crate) bytes_before: u64,
    /// Bytes of frames that replaced them.
    pub(crate) bytes_after: u64,
    /// Batches that were left as they are because they could not be read.
    pub(crate) unreadable: u64,
    /// Dirty bytes that the last scan found.
    pub(crate) dirty_bytes: u64,
}

/// What compaction can do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CompactionStep {
    /// Nothing, until a scan begins.
    Idle,
    /// It goes on in the next turn.
    More,
    /// A partition was found. [`Partitions::begin_pass`] starts its pass once there is memory for it.
    Found,
    /// The pass waits for the disk, or for being allowed more bytes.
    Waits,
    /// The pass has ended, in order or early.
    Ended {
        /// In order: there may be others.
        in_order: bool,
    },
}

impl Compaction {
    pub(super) fn handle_read(&mut self, store: usize, id: ReadId, read: IndexRead) {
        if let State::Running(running) = &mut self.state
            && running.store == store
        {
            running.pass.handle_read(id, read);
        }
    }

    pub(super) fn handle_rewritten(
        &mut self,
        store: usize,
        slot: PartitionSlot,
        outcome: Result<Rewritten, RewriteAborted>,
    ) {
        if let State::Running(running) = &mut self.state
            && (running.store, running.pass.slot()) == (store, slot)
        {
            running.pass.handle_rewritten(outcome);
        }
    }
}

impl Partitions {
    /// Returns what compaction has done.
    pub(crate) fn compacted(&self) -> &CompactionCounters {
        &self.replicas.compaction.counted
    }

    /// Returns what there is to compact in a partition; `None` if it is not compacted.
    pub(crate) fn backlog(&self, partition: &Partition, wall_ms: i64) -> Option<Backlog> {
        let config = partition.topic.config.compaction?;
        let extents = self.store(partition.store).rewritable_extents(partition.slot);
        Some(Backlog::of(extents, &config, wall_ms))
    }

    /// Returns how far a partition is compacted; `None` if it is not.
    pub(crate) fn compaction_details(
        &self,
        partition: &Partition,
        wall_ms: i64,
    ) -> Option<CompactionDetails> {
        let backlog = self.backlog(partition, wall_ms)?;
        let passes = partition.pass_history.as_deref().copied().unwrap_or_default();
        Some(CompactionDetails { backlog, passes })
    }

    /// Begins a scan, unless one is under way or a pass is.
    pub(crate) fn begin_compaction(&mut self) {
        let state = &mut self.replicas.compaction.state;
        if matches!(state, State::Idle | State::Found(_)) {
            *state = State::Scanning(Scan::default());
        }
    }

    /// Goes on with a scan, or with a pass while there are `bytes` left, which are reduced.
    pub(crate) fn run_compaction(
        &mut self,
        disk: &mut dyn Disk,
        bytes: &mut usize,
        wall_ms: i64,
    ) -> CompactionStep {
        match &self.replicas.compaction.state {
            State::Idle => CompactionStep::Idle,
            State::Found(_) => CompactionStep::Found,
            State::Scanning(_) => self.scan(wall_ms),
            State::Running(_) => self.run_pass(disk, bytes, wall_ms),
        }
    }

    fn scan(&mut self, wall_ms: i64) -> CompactionStep {
        let state = std::mem::take(&mut self.replicas.compaction.state);
        let State::Scanning(mut scan) = state else { return CompactionStep::Idle };
        let end = self.replicas.table.entry_count();
        let to = scan.next.saturating_add(COMPACTION_PARTITIONS_PER_SCAN_STEP).min(end);
        for at in scan.next..to {
            let Some(id) = self.replicas.table.id_at(at) else { continue };
            let Some(partition) = self.get(id) else { continue };
            let (Some(config), Some(backlog)) =
                (partition.topic.config.compaction, self.backlog(partition, wall_ms))
            else {
                continue;
            };
            scan.dirty_bytes += backlog.dirty_bytes;
            if partition.compaction_failed || !backlog.is_due(&config, wall_ms) {
                continue;
            }
            let urgency = Urgency::of(&backlog, &config, wall_ms);
            if scan.best.is_none_or(|(best, _)| urgency > best) {
                scan.best = Some((urgency, id));
            }
        }
        scan.next = to;
        let compaction = &mut self.replicas.compaction;
        if to < end {
            compaction.state = State::Scanning(scan);
            return CompactionStep::More;
        }
        compaction.counted.dirty_bytes = scan.dirty_bytes;
        match scan.best {
            Some((_, id)) => {
                compaction.state = State::Found(id);
                CompactionStep::Found
            }
            None => CompactionStep::Idle,
        }
    }

    /// Begins the pass over the partition that was found. `key` is random.
    pub(crate) fn begin_pass(&mut self, limits: PassLimits, key: MacKey, wall_ms: i64) {
        let state = std::mem::take(&mut self.replicas.compaction.state);
        let State::Found(id) = state else { return };
        let Some(partition) = self.get(id) else { return };
        let (Some(config), Some(backlog)) =
            (partition.topic.config.compaction, self.backlog(partition, wall_ms))
        else {
            return;
        };
        let (store, slot, name) = (partition.store, partition.slot, partition.name());
        let Some(pass) = Pass::new(slot, &backlog, &config, limits, key, wall_ms) else { return };
        tracing::debug!(
            partition = name,
            clean = backlog.clean_bytes,
            dirty = backlog.dirty_bytes,
            "compaction begins"
        );
        self.replicas.compaction.state = State::Running(Box::new(Running { id, store, pass }));
    }

    /// Whether a pass is under way.
    pub(crate) fn is_compacting(&self) -> bool {
        matches!(self.replicas.compaction.state, State::Running(_))
    }

    fn run_pass(&mut self, disk: &mut dyn Disk, bytes: &mut usize, wall_ms: i64) -> CompactionStep {
        let replicas = &mut self.replicas;
        let State::Running(running) = &mut replicas.compaction.state else { return CompactionStep::Idle };
        let store = &mut replicas.stores[running.store].store;
        let partition = replicas.table.get(running.id);
        if partition.is_none_or(|partition| partition.topic.config.compaction.is_none()) {
            running.pass.abort(store);
        }
        match running.pass.step(store, disk, bytes) {
            PassStep::More if *bytes > 0 => CompactionStep::More,
            PassStep::More | PassStep::Waits => CompactionStep::Waits,
            PassStep::Ended(result) => {
                self.end_pass(result, wall_ms);
                CompactionStep::Ended { in_order: result.is_ok() }
            }
        }
    }

    fn end_pass(&mut self, result: Result<(), PassError>, wall_ms: i64) {
        let state = std::mem::take(&mut self.replicas.compaction.state);
        let State::Running(running) = state else { return };
        let outcome = running.pass.outcome();
        let counted = &mut self.replicas.compaction.counted;
        counted.removed += outcome.cleaned.removed();
        counted.unreadable += outcome.cleaned.unreadable;
        counted.bytes_before += outcome.bytes_before;
        counted.bytes_after += outcome.bytes_after;
        match result {
            Ok(()) => counted.passes += 1,
            Err(_) => counted.failed += 1,
        }
        let Some(partition) = self.replicas.table.get_mut(running.id) else { return };
        let history = partition.pass_history.get_or_insert_default();
        history.bytes_before += outcome.bytes_before;
        history.bytes_after += outcome.bytes_after;
        if result.is_ok() {
            history.passes += 1;
            history.last_ms = Some(wall_ms);
        }
        let name = partition.name();
        if let Some((offset, why)) = outcome.cleaned.first_unreadable {
            tracing::warn!(
                partition = name,
                count = outcome.cleaned.unreadable,
                "compaction leaves batches as they are that it cannot read, and tombstones that may delete their records; \
                 the first is at offset {offset}: {why}"
            );
        }
        match result {
            Ok(()) => tracing::debug!(
                partition = name,
                before = outcome.bytes_before,
                after = outcome.bytes_after,
                "compaction ends"
            ),
            Err(PassError::Damaged) => {
                // Until the next start: what is damaged does not heal.
                partition.compaction_failed = true;
                tracing::error!(
                    partition = name,
                    "the partition is not compacted any more: a part of it is damaged; `highwater log verify` finds it"
                );
            }
            Err(why) => tracing::info!(partition = name, "compaction ended early: {why}"),
        }
    }
}
