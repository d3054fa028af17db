//! Carries out what the consensus of a partition asks for, and tells those who wait for it.

use highwater_runtime::plane::Disk;
use highwater_storage::{AppendError, CommitRule, PartitionConfig};

use super::consensus::{LogAccess, MissingReplicas, NotAppendable};
use super::replica::{Partition, PartitionId};
use super::{PartitionEvent, Replicas};
use crate::api::ApiError;
use crate::mutants::{Mutant, is_planted};

impl Replicas {
    /// Carries out everything that the consensus of a partition asks for after an event. Acknowledges batches that are as durable as their
    /// producers required, and fails all that wait if this replica was deposed.
    pub(super) fn settle(&mut self, disk: &mut dyn Disk, id: PartitionId, wall_ms: i64) {
        let Some(partition) = self.table.get_mut(id) else { return };
        let (tp, at, slot) = (partition.tp, partition.store, partition.slot);
        self.carry_out(disk, id, wall_ms);
        if self.change_members(id) {
            self.carry_out(disk, id, wall_ms);
        }
        let Some(partition) = self.table.get_mut(id) else { return };
        let store = &mut self.stores[at].store;
        let changes = partition.consensus.take_changes();
        let rule = partition.consensus.commit_rule();
        if rule != partition.commit_rule {
            partition.commit_rule = rule;
            store.ensure_partition(tp, partition.storage_config());
            partition.consensus.set_min_insync(partition.topic.config.min_insync);
        }
        let mut is_due = false;
        if rule == CommitRule::Quorum {
            store.note_commit(slot, partition.consensus.committed_here());
            is_due = partition.consensus.due().next().is_some();
            if partition.consensus.lags() && !std::mem::replace(&mut partition.listed.as_lagging, true) {
                self.lagging.push(id);
            }
            if partition.consensus.lacks_leader()
                && !std::mem::replace(&mut partition.listed.as_leaderless, true)
            {
                self.leaderless.push(id);
            }
        }
        if changes.may_append && !self.retry.contains(&at) {
            self.retry.push(at);
        }
        if changes.is_deposed && !is_planted(Mutant::DeposedLeaderAcknowledges) {
            let error = partition.not_leader();
            self.fail_pending(id, &error);
        }
        if is_due {
            self.list_due(id);
        }
        self.list_report(id);
        self.acknowledge(id);
        self.fail_without_copies(id);
        self.end_readers(id, changes.is_deposed);
        if changes.high_watermark_moved {
            self.events.push_back(PartitionEvent::HighWatermarkMoved(id));
        }
        let partition = self.table.get_mut(id).filter(|_| rule == CommitRule::Quorum);
        if partition.is_some_and(|partition| partition.consensus.has_begun_to_answer()) {
            self.events.push_back(PartitionEvent::Answering(id));
        }
    }

    /// Carries out on the log what the consensus of a partition asks for.
    fn carry_out(&mut self, disk: &mut dyn Disk, id: PartitionId, wall_ms: i64) {
        let Some(partition) = self.table.get_mut(id) else { return };
        let (tp, slot, store) = (partition.tp, partition.slot, &mut self.stores[partition.store].store);
        let outgoing = &mut self.outgoing;
        partition.consensus.carry_out_actions(&mut LogAccess { tp, disk, store, slot, wall_ms, outgoing });
        if partition.consensus.is_held() {
            self.held.insert(id);
        }
    }

    /// Sends the acknowledgements that can be sent.
    fn acknowledge(&mut self, id: PartitionId) {
        let Some(partition) = self.table.get_mut(id) else { return };
        let Some(first) = partition.acks.pop(&partition.consensus) else { return };
        let log_start = self.stores[partition.store].store.bounds(partition.slot).log_start;
        let mut next = Some(first);
        while let Some(ack) = next {
            self.events.push_back(PartitionEvent::acknowledge(partition.tp, ack, log_start));
            next = partition.acks.pop(&partition.consensus);
        }
    }

    /// Fails the batches that are committed and cannot get as many copies as the topic asks for, because too few replicas are within reach. They
    /// are in the log: a producer that sends them again is acknowledged when they have the copies.
    fn fail_without_copies(&mut self, id: PartitionId) {
        let Some(partition) = self.table.get_mut(id) else { return };
        let Some(MissingReplicas { live, needed }) = partition.consensus.missing_replicas() else { return };
        let committed = partition.consensus.committed().offset;
        while let Some(ack) = partition.acks.pop_committed(committed) {
            let name = partition.name();
            let error = ApiError::NotEnoughReplicasAfterAppend { partition: name, live, needed };
            self.events.push_back(PartitionEvent::fail(partition.tp, ack, error));
        }
    }

    /// Fails the acknowledgements that wait.
    pub(super) fn fail_pending(&mut self, id: PartitionId, error: &ApiError) {
        let Some(partition) = self.table.get_mut(id) else { return };
        for ack in partition.acks.take_all() {
            self.events.push_back(PartitionEvent::fail(partition.tp, ack, error.clone()));
        }
    }

    /// Carries out what a store had no space for.
    pub(super) fn retry_held(&mut self, disk: &mut dyn Disk, store: usize, wall_ms: i64) {
        if self.held.is_empty() {
            return;
        }
        let is_here = |id: &PartitionId| self.table.get(*id).is_none_or(|partition| partition.store == store);
        let here: Vec<PartitionId> = self.held.iter().copied().filter(is_here).collect();
        for id in here {
            self.held.remove(&id);
            self.settle(disk, id, wall_ms);
        }
    }

    /// Asks the leaders for the frames that a store has refused.
    pub(super) fn ask_for_refused(&mut self, disk: &mut dyn Disk, store: usize, wall_ms: i64) {
        if self.refused.is_empty() {
            return;
        }
        let is_here = |id: &PartitionId| self.table.get(*id).is_none_or(|partition| partition.store == store);
        let here: Vec<PartitionId> = self.refused.iter().copied().filter(is_here).collect();
        for id in here {
            self.refused.remove(&id);
            if let Some(partition) = self.table.get_mut(id) {
                partition.consensus.handle_space();
            }
            self.settle(disk, id, wall_ms);
        }
    }
}

impl Partition {
    /// Returns the configuration for the partition's log.
    pub(super) fn storage_config(&self) -> PartitionConfig {
        PartitionConfig { commit: self.commit_rule, ..self.topic.config.for_storage() }
    }

    /// Returns the error for a batch that this partition cannot take; `None` if the batch can wait.
    pub(super) fn refusal(&self, why: NotAppendable) -> Option<ApiError> {
        let partition = || self.name();
        match why {
            NotAppendable::NotYet | NotAppendable::Store(AppendError::Busy) => None,
            NotAppendable::NotLeader => Some(self.not_leader()),
            NotAppendable::NotEnoughReplicas { live, needed } => {
                Some(ApiError::NotEnoughReplicas { partition: partition(), live, needed })
            }
            NotAppendable::Store(error) => Some(ApiError::Append { partition: partition(), error }),
        }
    }
}
