//! What a replica must never forget, and the configurations in its log. Both are kept for replication, and mean nothing here.

use bytes::Bytes;
use highwater_protocol::ids::{LeaderEpoch, LogIndex};

use super::Store;
use crate::api::{AppendError, Appended, FramePlacement, PartitionSlot, ReplicaState, StoreEvent};
use crate::configurations::Configuration;
use crate::limits::CONFIGURATION_BYTES_MAX;
use crate::map::{MapRecord, PartitionKey};
use crate::mutants::{Mutant, is_planted};
use crate::partition::Gaps;

impl Store {
    /// Records the state of a partition's replica. The next flush writes it, together with those of other partitions.
    /// [`StoreEvent::ReplicaStateDurable`] reports when it is durable, in the order of the calls. For a deleted partition, nothing happens.
    pub fn set_replica_state(&mut self, slot: PartitionSlot, state: ReplicaState) {
        let Some(partition) = self.partition_mut(slot) else { return };
        partition.replica.recorded = Some(state);
        let key = PartitionKey::from(partition.tp);
        let seq = self.record(&MapRecord::ReplicaState { key, state: state.into() });
        let event = StoreEvent::ReplicaStateDurable { slot, state };
        if is_planted(Mutant::ReplicaStateNotDurable) {
            self.note_replica_state(&event);
            return self.push_event(event);
        }
        self.promise(seq, event);
    }

    /// Returns the last durable state of a partition's replica. `None`: none was ever recorded, or the map was lost and rebuilt from the
    /// extents, which do not have it. Then the replica has forgotten its vote, and may not vote under the same identity, unless it is the only
    /// voter.
    pub fn replica_state(&self, slot: PartitionSlot) -> Option<ReplicaState> {
        self.partition(slot).and_then(|partition| partition.replica.durable)
    }

    /// Appends a frame with a configuration of the partition's replicas. It has an index and no offset. What is in it is not looked at.
    pub fn append_configuration(
        &mut self,
        slot: PartitionSlot,
        epoch: LeaderEpoch,
        payload: Bytes,
        wall_ms: i64,
    ) -> Result<Appended, AppendError> {
        check_configuration(&payload)?;
        let partition = self.partition(slot).ok_or(AppendError::Deleted)?;
        self.check_phase(partition)?;
        partition.assert_leads(epoch);
        self.check_stall(partition)?;
        self.check_backlog(partition, payload.len())?;
        self.ensure_room(slot, payload.len(), (FramePlacement::Packed, Gaps::None), epoch, wall_ms)?;
        Ok(self.append_with(slot, wall_ms, |partition, context| {
            partition.push_configuration(context, payload, epoch)
        }))
    }

    /// Returns the configurations in the log of a partition with the indexes of their frames, in order: the last one at or before the log's
    /// start, and all later ones, durable or not. If there are more than
    /// [`CONFIGURATIONS_PER_PARTITION_MAX`](crate::limits::CONFIGURATIONS_PER_PARTITION_MAX), the first ones are missing.
    ///
    /// They survive retention, compaction and restarts; after the map of the store was lost, those are left whose frames are in the log: see
    /// [`has_lost_configuration`](Self::has_lost_configuration).
    pub fn configurations(&self, slot: PartitionSlot) -> impl Iterator<Item = (LogIndex, &Bytes)> {
        let all = self.partition(slot).into_iter().flat_map(|partition| partition.configurations.iter());
        all.map(|Configuration { index, payload }| (*index, payload))
    }

    /// Returns whether the partition had a configuration, and none is known: the map of the store was lost, and retention had removed the frame. A
    /// partition without configurations of which this is false never had any.
    pub fn has_lost_configuration(&self, slot: PartitionSlot) -> bool {
        self.partition(slot).is_some_and(|partition| partition.configurations.is_lost())
    }

    /// Records the configurations in the durable part of a log, if the map has others. A checkpoint follows: from there on they are found in
    /// the frames.
    pub(super) fn record_configurations(&mut self, slot: PartitionSlot) {
        let Some(partition) = self.partition_mut(slot) else { return };
        if !partition.configurations.is_unrecorded {
            return;
        }
        let end = partition.durable.index;
        partition.configurations.is_unrecorded = !partition.configurations.are_below(end);
        let key = PartitionKey::from(partition.tp);
        let configurations = partition.configurations.entry(end);
        self.record(&MapRecord::Configurations { key, configurations });
    }

    /// Notes that the state of a replica is durable, before the owner is told.
    pub(super) fn note_replica_state(&mut self, event: &StoreEvent) {
        if let StoreEvent::ReplicaStateDurable { slot, state } = *event
            && let Some(partition) = self.partition_mut(slot)
        {
            partition.replica.durable = Some(state);
        }
    }
}

/// Returns an error if a configuration is too large.
pub(super) fn check_configuration(payload: &[u8]) -> Result<(), AppendError> {
    let (bytes, max) = (payload.len(), CONFIGURATION_BYTES_MAX);
    if bytes > max { Err(AppendError::TooLarge { bytes, max }) } else { Ok(()) }
}
