//! The state of the replica, and the configurations in its log.

use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId, Offset};
use highwater_storage::{AppendError, EpochStart, LogPoint, PartitionSlot, ReplicaState};

use super::{Frame, Log, World};

impl World {
    pub(super) fn append_configuration(&mut self, bytes: usize, replicated: bool) {
        if self.cutting.is_some() {
            return;
        }
        self.fill = self.fill.wrapping_add(1);
        let payload = vec![self.fill; bytes];
        let (end, slot) = (self.log.end(), self.slot());
        if !replicated {
            let last = self.bed.store.bounds(slot).last_epoch.map_or(0, |epoch| epoch.0);
            self.epoch = self.epoch.max(last);
        }
        let frame = Frame {
            index: end.index.0,
            epoch: self.epoch,
            offset: end.offset.0,
            batch: None,
            configuration: Some(payload.clone()),
        };
        if replicated {
            self.replicate(frame);
            return;
        }
        let (epoch, wall_ms) = (LeaderEpoch(self.epoch), self.bed.wall_ms);
        match self.bed.store.append_configuration(slot, epoch, payload.into(), wall_ms) {
            Ok(appended) => {
                assert_eq!((appended.index, appended.base_offset), (end.index, end.offset));
                assert_eq!(appended.next_offset, end.offset, "a configuration has no offset");
                self.note_appended(frame);
            }
            Err(AppendError::Busy) => {
                self.bed.step();
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// Abandons the log, and restarts it where a leader's begins.
    pub(super) fn start_at(&mut self, ahead: u64) {
        if self.cutting.is_some() {
            return;
        }
        let slot = self.slot();
        let end = self.log.end();
        let start = LogPoint {
            index: LogIndex(end.index.0 + ahead),
            offset: Offset(end.offset.0 + 2 * ahead as i64),
        };
        if start.index.0 == 0 {
            return;
        }
        let epochs = vec![EpochStart {
            epoch: LeaderEpoch(self.epoch),
            index: LogIndex(start.index.0 - 1),
            offset: end.offset,
        }];
        let configuration = self.next_base(start.index.0);
        let base = configuration.clone().map(|(index, payload)| (LogIndex(index), payload.into()));
        let begun = self.bed.store.start_at(&mut self.bed.disk, slot, start, epochs, base);
        begun.expect("nothing committed is lost");
        self.cutting = Some(Log { start, frames: Vec::new(), configuration });
        self.bed.settle();
        self.handle_events();
        assert!(self.bed.store.contains(slot, LogIndex(start.index.0 - 1), LeaderEpoch(self.epoch)));
    }

    /// Returns the configurations that the log has had, with their indexes and the offsets of their frames.
    fn known_configurations(&self) -> Vec<(u64, i64, Vec<u8>)> {
        let base = self.log.configuration.iter();
        let base = base.map(|(index, payload)| (*index, self.log.start.offset.0, payload.clone()));
        let first = self.log.configuration.as_ref().map_or(0, |(index, _)| index + 1);
        let later = self.log.frames.iter().filter(|frame| frame.index >= first);
        base.chain(later.filter_map(|frame| Some((frame.index, frame.offset, frame.configuration.clone()?))))
            .collect()
    }

    /// Returns the configuration that a leader gives with the start of its log: the last one that is known here, or a later one whose frame is
    /// to come.
    fn next_base(&mut self, start: u64) -> Option<(u64, Vec<u8>)> {
        self.fill = self.fill.wrapping_add(1);
        match self.fill % 3 {
            0 => None,
            1 => self.known_configurations().pop().map(|(index, _, payload)| (index, payload)),
            _ => Some((start + 2, vec![self.fill; 30])),
        }
    }

    /// Checks that all configurations of the log are known, but for those of deleted frames before the last of these.
    pub(super) fn check_configurations(&self, slot: PartitionSlot) {
        let store = &self.bed.store;
        let found: Vec<(u64, Vec<u8>)> =
            store.configurations(slot).map(|(index, payload)| (index.0, payload.to_vec())).collect();
        let known = self.known_configurations();
        let gone = known.len().checked_sub(found.len()).expect("none is invented");
        let wanted: Vec<(u64, Vec<u8>)> =
            known[gone..].iter().map(|(index, _, payload)| (*index, payload.clone())).collect();
        assert_eq!(found, wanted, "the configurations");
        let first = known.get(gone).map(|(_, offset, _)| *offset);
        let log_start = store.bounds(slot).log_start.0;
        assert!(
            gone == 0 || first.is_some_and(|first| first <= log_start),
            "{first:?} is the last at {log_start}"
        );
        assert_eq!(store.replica_state(slot), self.durable_states.checked_sub(1).map(|at| self.states[at]));
    }

    pub(super) fn set_replica_state(&mut self, by: i32) {
        let term = LeaderEpoch(self.states.last().map_or(0, |state| state.term.0) + by);
        let vote = (by == 1).then_some((NodeId(term.0 as u32 % 5), 7));
        let state = ReplicaState { term, vote, lost_in: (term.0 % 3 == 0).then_some(term) };
        self.states.push(state);
        let slot = self.slot();
        self.bed.store.set_replica_state(slot, state);
    }

    pub(super) fn note_durable_state(&mut self, state: ReplicaState) {
        assert_eq!(state, self.states[self.durable_states], "states become durable in order");
        self.durable_states += 1;
    }

    /// Handles that a crash may have lost states that were not durable.
    pub(super) fn recover_state(&mut self) {
        let slot = self.slot();
        let found = self.bed.store.replica_state(slot);
        let count = found.map_or(0, |found| {
            1 + self.states.iter().position(|state| *state == found).expect("a state that was set")
        });
        assert!(count >= self.durable_states, "a durable state is lost: {found:?}");
        self.states.truncate(count);
        self.durable_states = count;
    }
}
