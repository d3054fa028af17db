//! Groups whose partition this replica has begun to lead, since the coordinator serves.
//!
//! ```text
//!   handle_leading --> what is left of its groups is forgotten --> read --> restored --> served
//!                  \-> handle_not_leading: elsewhere again
//! ```
//!
//! Their partition is read from its start, up to the high watermark with which the replica began to answer for it: that has everything that was acknowledged before.
//! One partition at a time is read and restored. Until its groups are, requests for them are rejected with [`ApiError::LoadingGroups`](crate::api::ApiError::LoadingGroups), and those
//! for other groups are carried out.

use std::collections::VecDeque;

use highwater_protocol::ids::PartitionIndex;

use super::{Coordinators, OwnPartition};
use crate::api::ApiError;
use crate::coord::groups::{Now, Replay};
use crate::coord::partition_log::PartitionLog;
use crate::limits::GROUPS_RESTORED_PER_TURN_MAX;
use crate::mutants::{Mutant, is_planted};

/// The partitions that this replica leads again, in the order in which their groups are read. They are elsewhere until then.
#[derive(Default, Debug)]
pub(super) struct Returning {
    queue: VecDeque<OwnPartition>,
    /// The groups of the first one are being read or restored.
    is_under_way: bool,
}

impl Returning {
    pub(super) fn has(&self, partition: PartitionIndex) -> bool {
        self.queue.iter().any(|of| of.tp.partition == partition)
    }

    /// Returns the partition whose groups are being read or restored.
    pub(super) fn under_way(&self) -> Option<PartitionIndex> {
        self.queue.front().filter(|_| self.is_under_way).map(|of| of.tp.partition)
    }
}

impl Coordinators {
    /// Handles that this replica has begun to answer for a partition. See the [module](self).
    pub(crate) fn handle_leading(&mut self, of: OwnPartition) {
        let partition = of.tp.partition;
        // Before it is open, all partitions are unknown.
        if !self.is_open() || self.check_serves(partition) != Some(ApiError::NotCoordinator(partition)) {
            return;
        }
        if of.is_damaged {
            tracing::error!("{}", ApiError::GroupsDamaged(partition));
            self.elsewhere.remove(&partition);
            self.damaged.insert(partition);
            return;
        }
        tracing::info!(tp = %of.tp, "the groups of this partition are coordinated here from now on");
        self.elsewhere.insert(partition);
        self.returning.queue.push_back(of);
    }

    /// Gives up the return of a partition, if it is under way.
    pub(super) fn stop_returning(&mut self, partition: PartitionIndex) {
        let is_under_way = self.returning.under_way() == Some(partition);
        self.returning.queue.retain(|of| of.tp.partition != partition);
        if !is_under_way {
            return;
        }
        self.returning.is_under_way = false;
        self.replay = Replay::default();
        if let Some(loading) = &mut self.loading {
            loading.retain(|load| load.tp.partition != partition);
        }
        // Some of its groups may have been restored.
        self.forgetting = Some(String::new());
    }

    /// Continues the return of the first partition. Returns whether the next turn can go on.
    pub(super) fn run_returning(&mut self, now: Now) -> bool {
        let Some(of) = self.returning.queue.front().copied() else { return false };
        if !self.returning.is_under_way {
            // What memory has of these groups is older than the log.
            if self.forgetting.is_some() {
                return true;
            }
            self.returning.is_under_way = true;
            if !is_planted(Mutant::ReturningGroupsNotRead) {
                self.load(of);
            }
            return true;
        }
        if !self.is_loaded() {
            return false;
        }
        for _ in 0..GROUPS_RESTORED_PER_TURN_MAX {
            let Some(group) = self.coordinator.restore_next(now, &mut self.replay) else {
                self.finish_returning();
                return !self.returning.queue.is_empty();
            };
            self.coordinator.resume_group(now, &group);
        }
        true
    }

    fn finish_returning(&mut self) {
        self.returning.is_under_way = false;
        let Some(of) = self.returning.queue.pop_front() else { return };
        self.elsewhere.remove(&of.tp.partition);
        self.logs.insert(of.tp.partition, PartitionLog::new(of.tp, of.batch_bytes_max));
    }
}
