//! Moves the start of a log on request. A move is done when the store has made the new start durable.

use std::collections::BTreeMap;

use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_runtime::plane::Disk;
use highwater_storage::{LogStartError, PartitionSlot};

use super::{PartitionEvent, Replicas};
use crate::api::ApiError;

/// The new start of a partition, or the reason why it was not moved.
pub(crate) type LogStartOutcome = Result<Offset, ApiError>;

/// Identifies a move; its outcome repeats it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogStartMove {
    /// The query that the move belongs to.
    pub(crate) query: u64,
    /// Its number in the query.
    pub(crate) number: u32,
}

/// A start that is being moved.
#[derive(Debug)]
struct Moving {
    to: Offset,
    id: LogStartMove,
}

/// The starts that are being moved, by store and partition.
#[derive(Default, Debug)]
pub(super) struct LogStartMoves(BTreeMap<(usize, PartitionSlot), Vec<Moving>>);

impl Replicas {
    /// Moves the start of a partition; `None` moves it to the end of what can be read. Its outcome comes as a
    /// [`PartitionEvent::LogStartMoved`].
    pub(super) fn move_log_start(
        &mut self,
        disk: &mut dyn Disk,
        tp: TopicPartition,
        to: Option<Offset>,
        id: LogStartMove,
    ) {
        match self.begin_move(disk, tp, to, id) {
            Ok(None) => {}
            Ok(Some(start)) => self.events.push_back(PartitionEvent::LogStartMoved(id, Ok(start))),
            Err(error) => self.events.push_back(PartitionEvent::LogStartMoved(id, Err(error))),
        }
    }

    /// Returns the current start if nothing has to be moved.
    fn begin_move(
        &mut self,
        disk: &mut dyn Disk,
        tp: TopicPartition,
        to: Option<Offset>,
        id: LogStartMove,
    ) -> Result<Option<Offset>, ApiError> {
        let id_here = self.table.find(tp);
        let partition = id_here.and_then(|id| self.table.get(id)).ok_or(ApiError::TopicDeleted)?;
        partition.topic.check_writable()?;
        partition.check_answers(None)?;
        let end = partition.high_watermark();
        let offset = to.unwrap_or(end);
        let store = &mut self.stores[partition.store].store;
        let start = store.bounds(partition.slot).log_start;
        let out_of_range = || ApiError::OffsetOutOfRange { partition: partition.name(), offset, start, end };
        if offset > end {
            return Err(out_of_range());
        }
        if offset <= start {
            return Ok(Some(start));
        }
        match store.set_log_start(disk, partition.slot, offset) {
            Ok(()) => {
                tracing::info!(partition = %partition.name(), from = start.0, to = offset.0, "records deleted on request");
                let moves = self.moves.0.entry((partition.store, partition.slot)).or_default();
                moves.push(Moving { to: offset, id });
                Ok(None)
            }
            Err(LogStartError::BeyondEnd { .. }) => Err(out_of_range()),
            Err(_) => Err(ApiError::TopicDeleted),
        }
    }

    /// Handles a log start that was moved durably.
    pub(super) fn handle_log_start(&mut self, store: usize, slot: PartitionSlot, offset: Offset) {
        let id = self.table.of_slot(store, slot);
        if let Some(partition) = id.and_then(|id| self.table.get_mut(id)) {
            let first = self.stores[store].store.first_point(slot);
            partition.consensus.handle_log_start(first.index);
        }
        self.end_moves((store, slot), |to| to <= offset, &Ok(offset));
    }

    /// Fails the pending moves of a deleted partition.
    pub(super) fn abandon_moves(&mut self, store: usize, slot: PartitionSlot) {
        self.end_moves((store, slot), |_| true, &Err(ApiError::TopicDeleted));
    }

    fn end_moves(
        &mut self,
        of: (usize, PartitionSlot),
        ends: impl Fn(Offset) -> bool,
        outcome: &LogStartOutcome,
    ) {
        let Some(mut here) = self.moves.0.remove(&of) else { return };
        for Moving { id, .. } in here.extract_if(.., |moving| ends(moving.to)) {
            self.events.push_back(PartitionEvent::LogStartMoved(id, outcome.clone()));
        }
        if !here.is_empty() {
            self.moves.0.insert(of, here);
        }
    }
}
