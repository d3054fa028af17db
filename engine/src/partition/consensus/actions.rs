//! Carries out the actions of the core on the log.

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_protocol::ids::{LeaderEpoch, LogIndex, TopicPartition};
use highwater_replication::raft::{Action, ConfigEntry, LogEnd};
use highwater_runtime::plane::Disk;
use highwater_storage::{AppendError, CutError, EpochStart, LogPoint, PartitionSlot, Store};

use super::{Attached, Consensus, PeerMessage, replica_state};

/// The log of a partition, and what its consensus needs beside it.
pub(crate) struct LogAccess<'a> {
    pub(crate) tp: TopicPartition,
    pub(crate) disk: &'a mut dyn Disk,
    pub(crate) store: &'a mut Store,
    pub(crate) slot: PartitionSlot,
    pub(crate) wall_ms: i64,
    /// Messages for other replicas.
    pub(crate) outgoing: &'a mut VecDeque<PeerMessage>,
}

impl Consensus {
    /// Carries out everything that the core asks for, up to the first thing for which the store has no space.
    pub(crate) fn carry_out_actions(&mut self, log: &mut LogAccess<'_>) {
        loop {
            let held = self.held.take().map(|held| held.0);
            let Some(action) = held.or_else(|| self.replica.poll_action()) else { return };
            if let Err(error) = self.carry_out(log, &action) {
                self.held = Some(Box::new((action, error)));
                return;
            }
        }
    }

    fn carry_out(&mut self, log: &mut LogAccess<'_>, action: &Action) -> Result<(), AppendError> {
        match action {
            Action::Persist(hard) => log.store.set_replica_state(log.slot, replica_state(*hard)),
            Action::AppendEpochStart { index, epoch } => {
                let at = log.store.append_epoch_start(log.disk, log.slot, *epoch, log.wall_ms)?;
                assert!(at == *index, "the log ends where the core says");
                self.term_start = log.store.bounds(log.slot).append_end;
                self.mark_end(log);
            }
            Action::AppendConfig { entry, epoch } => self.append_config(log, entry, *epoch)?,
            Action::Truncate { from } => {
                let outcome = log.store.truncate_suffix(log.disk, log.slot, *from);
                Self::start_cut(log, outcome)?;
            }
            Action::StartAt { start, config } => self.start_at(log, *start, config)?,
            Action::Send(envelope) => {
                let envelope = envelope.clone();
                log.outgoing.push_back(PeerMessage { tp: log.tp, envelope, attached: Attached::Nothing });
            }
            // What was lost in the middle of a log is not fetched from other replicas yet, so none asks for it.
            Action::SendCommitted { .. }
            // The caller looks at both after all actions.
            | Action::Committed
            | Action::RoleChanged => {}
        }
        Ok(())
    }

    /// Notes where the log ends after a frame without records.
    fn mark_end(&mut self, log: &LogAccess<'_>) {
        let bounds = log.store.bounds(log.slot);
        self.mark(LogPoint { index: bounds.append_index, offset: bounds.append_end });
    }

    fn append_config(
        &mut self,
        log: &mut LogAccess<'_>,
        entry: &ConfigEntry,
        epoch: LeaderEpoch,
    ) -> Result<(), AppendError> {
        let payload = Bytes::from(entry.config.to_stored());
        let appended = log.store.append_configuration(log.slot, epoch, payload, log.wall_ms)?;
        assert!(appended.index == entry.index, "the log ends where the core says");
        self.mark_end(log);
        Ok(())
    }

    fn start_cut(log: &LogAccess<'_>, outcome: Result<(), CutError>) -> Result<(), AppendError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(CutError::Busy) => Err(AppendError::Busy),
            Err(error) => {
                assert!(
                    !matches!(error, CutError::BelowCommit { .. }),
                    "nothing that is committed is cut off: {error}"
                );
                // The log stays as it is, and takes no entries: the leader's are not these.
                tracing::error!(partition = %log.tp, "the log cannot be cut off where that of the leader differs: {error}");
                Ok(())
            }
        }
    }

    fn start_at(
        &self,
        log: &mut LogAccess<'_>,
        start: LogEnd,
        config: &ConfigEntry,
    ) -> Result<(), AppendError> {
        let point = LogPoint { index: start.end, offset: self.start_offset };
        // Of the frames that are not here, only the epoch of the last one matters.
        let before = start.end.0.checked_sub(1);
        let last = before.map(|index| EpochStart {
            epoch: start.epoch,
            index: LogIndex(index),
            offset: self.start_offset,
        });
        let stored = (config.index.0 > 0).then(|| (config.index, Bytes::from(config.config.to_stored())));
        let outcome = log.store.start_at(log.disk, log.slot, point, last.into_iter().collect(), stored);
        Self::start_cut(log, outcome)
    }
}
