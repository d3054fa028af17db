//! Groups whose partition is led by another replica.
//!
//! A partition that another replica leads, or has led since its groups were read here, is *elsewhere*: what memory has of its groups may be old, and changes of
//! them may be lost. Requests for them are rejected with [`ApiError::NotCoordinator`], also those that were pending, and the groups are forgotten.

use std::collections::BTreeSet;

use highwater_protocol::ids::PartitionIndex;

use super::Coordinators;
use crate::api::ApiError;
use crate::coord::groups::GroupRequest;
use crate::coord::placement::partition_of_group;
use crate::limits::GROUPS_RESTORED_PER_TURN_MAX;
use crate::mutants::{Mutant, is_planted};

impl Coordinators {
    /// Returns the partitions of the groups that a request names.
    pub(super) fn partitions_of(&self, request: &GroupRequest) -> Vec<PartitionIndex> {
        let partition = |group| PartitionIndex(partition_of_group(group, self.partitions));
        let mut partitions: Vec<_> = request.groups().into_iter().map(partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }

    /// Handles that another replica leads a partition, or none does: see the [module](self). Pending requests for its groups are rejected, because
    /// their changes may be lost.
    pub(crate) fn handle_not_leading(&mut self, partition: PartitionIndex) {
        self.stop_returning(partition);
        if self.damaged.remove(&partition) {
            self.elsewhere.insert(partition);
        }
        let Some(log) = self.logs.remove(&partition) else { return };
        tracing::warn!(tp = %log.tp, "the groups of this partition are coordinated elsewhere from now on");
        self.elsewhere.insert(partition);
        self.forgetting = Some(String::new());
        let mut gone = BTreeSet::new();
        for (token, sender) in self.waiting.extract_if(.., |_, sender| sender.partitions.contains(&partition))
        {
            gone.insert(token);
            self.rejected.push_back((sender.to, ApiError::NotCoordinator(partition)));
        }
        // They would create groups again that are forgotten.
        self.coordinator.drop_requests(|token| gone.contains(&token));
        for number in log.numbers() {
            self.undurable.remove(&number);
        }
        self.note_durable();
    }

    /// Forgets some of the groups that are elsewhere. Returns whether there may be more.
    pub(super) fn forget_some(&mut self) -> bool {
        let Some(after) = self.forgetting.take() else { return false };
        if is_planted(Mutant::GroupsKeptWhileElsewhere) {
            return false;
        }
        let (elsewhere, partitions) = (&self.elsewhere, self.partitions);
        let restored = self.returning.under_way();
        let is_elsewhere = |group: &str| {
            let partition = PartitionIndex(partition_of_group(group, partitions));
            elsewhere.contains(&partition) && restored != Some(partition)
        };
        self.forgetting = self.coordinator.forget_some(&after, GROUPS_RESTORED_PER_TURN_MAX, is_elsewhere);
        self.forgetting.is_some()
    }
}
