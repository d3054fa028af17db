//! Groups that an earlier build kept elsewhere: they are written to their partitions before anything is served. See [`crate::coord::carry_over`].

use highwater_protocol::ids::PartitionIndex;

use super::Coordinators;
use crate::coord::groups::GroupBatch;
use crate::coord::partition_log::PartitionLog;
use crate::coord::placement::partition_of_group;
use crate::limits::GROUPS_RESTORED_PER_TURN_MAX;

/// The sequence number of changes that no reply waits for.
const NO_REPLY: u64 = 0;

impl Coordinators {
    /// Holds requests until [`Self::end_carry_over`], because groups of an earlier build are carried over.
    pub(crate) fn await_carry_over(&mut self) {
        self.awaits_carry_over = true;
    }

    /// Accepts the changes that are carried over to this shard.
    pub(crate) fn carry_over(&mut self, changes: Vec<GroupBatch>) {
        self.carried = Some(changes.into());
    }

    /// Ends the migration, after all shards have carried over their groups.
    pub(crate) fn end_carry_over(&mut self) {
        self.awaits_carry_over = false;
    }

    /// Applies and writes some of the carried-over changes, once all partitions have been read. Returns true once, when all of them are durable.
    pub(crate) fn run_carry_over(&mut self) -> bool {
        // A partition that is damaged or elsewhere cannot be written. The old files stay until a start finds all partitions intact.
        if !self.is_loaded() || !self.damaged.is_empty() || !self.elsewhere.is_empty() {
            return false;
        }
        let Some(carried) = &mut self.carried else { return false };
        for _ in 0..GROUPS_RESTORED_PER_TURN_MAX {
            let Some(change) = carried.pop_front() else { break };
            for (key, value) in &change.records {
                if let Err(error) = self.replay.apply(key, value.as_deref()) {
                    tracing::error!(group = change.group, "skipped a record of an earlier build: {error}");
                }
            }
            let partition = PartitionIndex(partition_of_group(&change.group, self.partitions));
            if let Some(log) = self.logs.get_mut(&partition) {
                log.push(NO_REPLY, change);
            }
        }
        let is_durable = carried.is_empty() && self.logs.values().all(PartitionLog::is_idle);
        if is_durable {
            self.carried = None;
        }
        is_durable
    }
}
