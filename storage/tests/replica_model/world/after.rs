//! Checks of a replica's log after a crash and after a restart.

use std::ops::Range;

use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_runtime::sim::CrashPolicy;
use highwater_storage::{LogPoint, ProducerCheck};

use super::{Frame, Log, World, first_from, header};
use crate::support::Bed;

impl World {
    pub(super) fn crash(&mut self, policy: CrashPolicy) {
        let bed = std::mem::replace(&mut self.bed, Bed::new(0));
        self.bed = bed.crash(policy);
        self.bed.events.clear();
        let slot = self.slot();
        let bounds = self.bed.store.bounds(slot);
        assert!(!bounds.faulty, "{:?}", self.bed.report);
        let found = bounds.durable_index.0;
        let reaches = |log: &Log, least: u64| {
            (least..=log.end().index.0).contains(&found) && found >= log.start.index.0
        };
        let is = |log: &Log, world: &mut Self| {
            let first = first_from(log, bounds.log_start.0.max(world.log_start));
            let Some(first) = first.filter(|first| *first < found) else {
                return log.end_below(found).offset == bounds.durable_end;
            };
            let wanted = log.frames.iter().filter(|frame| (first..found).contains(&frame.index));
            let wanted: Vec<Frame> = wanted.cloned().collect();
            world.frames(first, 30_000) == wanted
        };
        let mut candidates = vec![(self.log.clone(), self.durable)];
        // A log that was truncated was entirely durable.
        candidates.extend(self.before.drain(..).rev().map(|log| (log.clone(), log.end().index.0)));
        if let Some(cut) = self.cutting.take() {
            candidates.push((cut.clone(), cut.end().index.0));
        }
        let told = |log: &Log| -> Vec<(u64, i32, i64)> {
            log.frames.iter().map(|frame| (frame.index, frame.epoch, frame.offset)).collect()
        };
        let known: Vec<_> = candidates.iter().map(|(log, least)| (told(log), *least)).collect();
        let log = candidates.into_iter().find(|(log, least)| reaches(log, *least) && is(log, self));
        let Some((mut log, _)) = log else {
            panic!("{bounds:?} is none of the logs that there can be: {known:?}; {:?}", self.bed.report)
        };
        log.frames.retain(|frame| frame.index < found);
        self.log = log;
        assert!(
            bounds.commit.index <= self.commit.index.max(self.log.start.index),
            "{bounds:?}: {:?} was committed",
            self.commit
        );
        self.commit = bounds.commit;
        self.log_start = bounds.log_start.0;
        self.durable = found;
        self.rewind_producer();
        self.recover_state();
        self.check();
    }

    pub(super) fn restart(&mut self) {
        self.bed.settle();
        self.handle_events();
        let bed = std::mem::replace(&mut self.bed, Bed::new(0));
        self.bed = bed.restart();
        self.before.clear();
        assert_eq!(self.bed.report.findings, []);
        let slot = self.slot();
        let commit = self.bed.store.bounds(slot).commit;
        assert!(commit.index <= self.commit.index, "what is known is kept lazily, and nothing is invented");
        self.commit = commit;
        assert_eq!(self.durable_states, self.states.len(), "everything is durable");
        self.handle_events();
        self.check();
    }

    /// Checks all state of the log.
    pub(super) fn check(&mut self) {
        let slot = self.slot();
        if let Some(first) = self.first_readable() {
            let read = self.frames(first, 20_000);
            self.handle_events();
            let bounds = self.bed.store.bounds(slot);
            let range: Range<u64> = first..bounds.durable_index.0;
            let wanted: Vec<Frame> =
                self.log.frames.iter().filter(|frame| range.contains(&frame.index)).cloned().collect();
            assert!(read == wanted, "the frames from {first} on");
        }
        let store = &self.bed.store;
        let first = self.first_readable().unwrap_or(u64::MAX);
        let here = self.log.frames.iter().filter(|frame| frame.index >= first);
        for frame in here.clone() {
            let (index, epoch) = (LogIndex(frame.index), LeaderEpoch(frame.epoch));
            assert!(store.contains(slot, index, epoch), "{index:?} of {epoch:?}");
            assert!(!store.contains(slot, index, LeaderEpoch(frame.epoch + 1)));
            let next = self.log.frames.iter().find(|other| other.epoch > frame.epoch);
            let end = next.map(|next| LogPoint { index: LogIndex(next.index), offset: Offset(next.offset) });
            assert_eq!((store.epoch_end(slot, epoch).epoch, store.epoch_end(slot, epoch).end), (epoch, end));
        }
        assert!(!store.contains(slot, self.log.end().index, LeaderEpoch(self.epoch)));
        self.check_configurations(slot);
        if let Some(last) = here.rev().find(|frame| frame.batch.is_some()) {
            let batch = last.batch.as_deref().expect("it was looked for");
            let check = store.check_producer(slot, header(batch));
            let is_known =
                matches!(check, ProducerCheck::Duplicate { base_offset, .. } if base_offset.0 == last.offset);
            assert!(is_known, "the last batch: {check:?}");
        }
    }
}
