//! Leaders whose own disk does not keep up.
//!
//! A commit round of a store waits for the one before it where both have the same page, so a partition has one round on its way beyond a disk that is stuck: the others can
//! have no more of it, although their disks work. A leader whose disk has not moved for [`DISK_LAG_MAX`](crate::limits::DISK_LAG_MAX), while entries that it lacks are
//! committed, hands over to a replica that has them. As a follower it holds up nobody.
//!
//! The caller has the clock: [`Partitions::poll_lagging`] returns each such partition once, and [`Partitions::check_lag`] is to be called after that time.

use highwater_protocol::ids::LogIndex;
use highwater_runtime::plane::Disk;

use super::Partitions;
use super::replica::PartitionId;

impl Partitions {
    /// Returns the next partition with committed entries that are not on the disk of this replica, which leads, and the end of what is.
    pub(crate) fn poll_lagging(&mut self) -> Option<(PartitionId, LogIndex)> {
        let id = self.replicas.lagging.pop()?;
        let end = self.get(id).map_or(LogIndex(0), |partition| partition.consensus.durable_index());
        Some((id, end))
    }

    /// Stops leading a partition if the log on this replica's disk has still the end that it had a while ago. Returns the end if it is to be looked at again.
    pub(crate) fn check_lag(
        &mut self,
        disk: &mut dyn Disk,
        id: PartitionId,
        seen: LogIndex,
        wall_ms: i64,
    ) -> Option<LogIndex> {
        let partition = self.get_mut(id)?;
        let end = partition.consensus.durable_index();
        if partition.consensus.lags() && end > seen {
            return Some(end);
        }
        partition.listed.as_lagging = false;
        if partition.consensus.lags() {
            tracing::warn!(
                partition = partition.name(),
                "the disk does not keep up; another replica is to lead"
            );
            partition.consensus.resign();
            self.replicas.settle(disk, id, wall_ms);
            self.retry_after_changes(disk, wall_ms);
        }
        None
    }
}
