//! Damage that readers find.

use std::mem;

use highwater_protocol::ids::Offset;

use super::{PartitionId, Partitions};
use crate::api::ApiError;

impl Partitions {
    /// Notes that a reader has found damage, and returns the error for its client. The broker's log reports it once, however many readers
    /// of both protocols find it.
    pub(crate) fn note_damage(&mut self, id: PartitionId, offset: Offset, resume_at: Offset) -> ApiError {
        self.replicas.counted.damaged_reads += 1;
        let error = ApiError::RecordsDamaged { partition: self.name(id), offset, resume_at };
        self.log_damage(id, &error);
        error
    }

    /// Notes that a reader is after the end of a damaged partition, and returns the error for its client. The broker's log reports damage once.
    pub(crate) fn note_offset_after_damage(
        &mut self,
        id: PartitionId,
        offset: Offset,
        end: Offset,
    ) -> ApiError {
        let error = ApiError::OffsetAfterDamage { partition: self.name(id), offset, end };
        self.log_damage(id, &error);
        error
    }

    fn log_damage(&mut self, id: PartitionId, error: &ApiError) {
        if let Some(partition) = self.get_mut(id)
            && !mem::replace(&mut partition.damage_logged, true)
        {
            tracing::error!("{error}");
        }
    }
}
