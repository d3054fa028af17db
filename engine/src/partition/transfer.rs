//! Leadership that is handed over to another replica, such as the preferred one, or before the node stops.
//!
//! The leader takes no batches until the other one has the whole log and has asked for votes; they wait. If that takes too long, it goes on. The caller has the clock:
//! [`Partitions::poll_transfer`] returns the partition once, and [`Partitions::end_transfer`] is to be called when its time is over.

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_replication::raft::ProposeError;
use highwater_runtime::plane::Disk;

use super::Partitions;
use super::replica::PartitionId;

impl Partitions {
    /// Hands leadership of a partition over to the replica on a node: a voter that can be reached. Fails unless this replica leads.
    #[cfg_attr(not(test), expect(dead_code, reason = "no request hands leadership over yet"))]
    pub(crate) fn transfer_leadership(
        &mut self,
        disk: &mut dyn Disk,
        tp: TopicPartition,
        to: NodeId,
        wall_ms: i64,
    ) -> Result<(), ProposeError> {
        let Some(id) = self.find(tp) else { return Err(ProposeError::NotLeader) };
        let Some(partition) = self.get_mut(id) else { return Err(ProposeError::NotLeader) };
        partition.consensus.transfer_leadership(to)?;
        self.replicas.transfers.push(id);
        self.replicas.settle(disk, id, wall_ms);
        Ok(())
    }

    /// Returns the next partition whose leadership is being handed over.
    pub(crate) fn poll_transfer(&mut self) -> Option<PartitionId> {
        self.replicas.transfers.pop()
    }

    /// Ends the time in which leadership of a partition could be handed over. A replica that still leads takes batches again.
    pub(crate) fn end_transfer(&mut self, disk: &mut dyn Disk, id: PartitionId, wall_ms: i64) {
        let Some(partition) = self.get_mut(id) else { return };
        partition.consensus.abort_transfer();
        self.replicas.settle(disk, id, wall_ms);
        self.retry_after_changes(disk, wall_ms);
    }
}
