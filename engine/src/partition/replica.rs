//! A partition on its owner: its consensus, the pending acknowledgements and the readers; and the table of partitions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use highwater_protocol::ids::{LeaderEpoch, Offset, TopicPartition};
use highwater_replication::raft::ReplicaId;
use highwater_runtime::slab::{Key, Slab};
use highwater_storage::{CommitRule, PartitionSlot};

use super::acks::{Ack, PendingAcks};
use super::consensus::Consensus;
use super::reports::ReportState;
use crate::api::{PassHistory, RequiredAcks};
use crate::meta::Topic;
use crate::mutants::{Mutant, is_planted};
use crate::partition::{ReaderId, Waiter};

/// Identifies a partition of this shard. Refers to nothing once the partition is deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PartitionId(pub(crate) Key);

/// Whether a partition is listed because it may have something for other replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DueState {
    Unlisted,
    /// With the receiver that was looked at last.
    Listed(Option<ReplicaId>),
}

/// What else a partition is listed for.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Listed {
    /// It has no leader.
    pub(super) as_leaderless: bool,
    /// It leads, and its disk does not keep up.
    pub(super) as_lagging: bool,
}

pub(crate) struct Partition {
    pub(crate) tp: TopicPartition,
    pub(crate) topic: Arc<Topic>,
    /// Index of the store on this shard.
    pub(crate) store: usize,
    pub(crate) slot: PartitionSlot,
    pub(super) consensus: Consensus,
    pub(super) acks: PendingAcks,
    /// When a frame counts as committed for the store.
    pub(super) commit_rule: CommitRule,
    /// Whether it is among the partitions that have something for other replicas.
    pub(super) due: DueState,
    pub(super) listed: Listed,
    /// What it has reported as a leader.
    pub(super) report: ReportState,
    /// The replicas that are to take part, until those do.
    pub(super) members: Option<Box<[ReplicaId]>>,
    /// The broker's log has reported damage that readers found.
    pub(crate) damage_logged: bool,
    /// Compaction found damage. It is not tried again.
    pub(crate) compaction_failed: bool,
    /// The passes of compaction so far, if there was one.
    pub(crate) pass_history: Option<Box<PassHistory>>,
    /// Readers that have read everything and wait for more.
    pub(crate) waiters: BTreeSet<Waiter>,
    /// Native readers.
    pub(crate) readers: BTreeSet<ReaderId>,
}

impl Partition {
    /// A partition as its store has it.
    pub(crate) fn new(
        tp: TopicPartition,
        topic: Arc<Topic>,
        store: usize,
        slot: PartitionSlot,
        consensus: Consensus,
    ) -> Self {
        Self {
            tp,
            topic,
            store,
            slot,
            commit_rule: consensus.commit_rule(),
            consensus,
            acks: PendingAcks::default(),
            due: DueState::Unlisted,
            listed: Listed::default(),
            report: ReportState::default(),
            members: None,
            damage_logged: false,
            compaction_failed: false,
            pass_history: None,
            waiters: BTreeSet::new(),
            readers: BTreeSet::new(),
        }
    }

    /// Returns the leader epoch.
    pub(crate) fn epoch(&self) -> LeaderEpoch {
        self.consensus.term()
    }

    /// Returns the offset after the last record that is committed: the end for readers.
    pub(crate) fn high_watermark(&self) -> Offset {
        self.consensus.high_watermark()
    }

    /// Returns the offset after the last record that may be read. `append_end` is the end of the log in memory.
    pub(crate) fn readable_end(&self, append_end: impl FnOnce() -> Offset) -> Offset {
        if is_planted(Mutant::FetchAboveHighWatermark) { append_end() } else { self.high_watermark() }
    }

    /// Queues an acknowledgement until `acks` is satisfied. Returns true if it is already, as for a batch that was sent again.
    pub(crate) fn wait(&mut self, acks: RequiredAcks, ack: Ack) -> bool {
        self.acks.wait(&self.consensus, acks, ack)
    }

    /// Lists a reader that has read up to `seen` as waiting. Returns false, and does not list it, if there is more already.
    pub(crate) fn wait_for_more(&mut self, waiter: Waiter, seen: Offset) -> bool {
        let waits = self.high_watermark() <= seen;
        if waits {
            self.waiters.insert(waiter);
        }
        waits
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.topic.name, self.tp.partition)
    }
}

/// The partitions of a shard.
pub(super) struct Table {
    all: Slab<Box<Partition>>,
    by_tp: HashMap<TopicPartition, PartitionId, ahash::RandomState>,
    by_slot: HashMap<(usize, PartitionSlot), PartitionId, ahash::RandomState>,
}

impl Table {
    pub(crate) fn new() -> Self {
        // Fixed keys: the same run has the same order everywhere. The keys are the broker's own ids, not a client's choice.
        let state = || ahash::RandomState::with_seeds(1, 2, 3, 4);
        Self {
            all: Slab::new(u32::MAX),
            by_tp: HashMap::with_hasher(state()),
            by_slot: HashMap::with_hasher(state()),
        }
    }

    pub(crate) fn insert(&mut self, partition: Partition) -> PartitionId {
        let (tp, slot) = (partition.tp, (partition.store, partition.slot));
        let id = PartitionId(self.all.insert(Box::new(partition)));
        self.by_tp.insert(tp, id);
        self.by_slot.insert(slot, id);
        id
    }

    pub(crate) fn remove(&mut self, id: PartitionId) -> Option<Box<Partition>> {
        let partition = self.all.remove(id.0)?;
        self.by_tp.remove(&partition.tp);
        self.by_slot.remove(&(partition.store, partition.slot));
        Some(partition)
    }

    pub(crate) fn find(&self, tp: TopicPartition) -> Option<PartitionId> {
        self.by_tp.get(&tp).copied()
    }

    pub(crate) fn of_slot(&self, store: usize, slot: PartitionSlot) -> Option<PartitionId> {
        self.by_slot.get(&(store, slot)).copied()
    }

    /// The number of entries, for iterating while partitions come and go.
    pub(crate) fn entry_count(&self) -> usize {
        self.all.entry_count()
    }

    /// The partition in an entry.
    pub(crate) fn id_at(&self, at: usize) -> Option<PartitionId> {
        self.all.key_at(at).map(PartitionId)
    }

    pub(crate) fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.all.get(id.0).map(|partition| &**partition)
    }

    pub(crate) fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.all.get_mut(id.0).map(|partition| &mut **partition)
    }
}
