//! A replica's log, and its model.

mod after;
mod gaps;
mod replica;

use highwater_protocol::batch::{BatchHeader, Compression, stamp};
use highwater_protocol::frame::{FrameKind, Frames};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_storage::{
    AppendError, CommitRule, CutError, DurableForm, FrameContent, IndexCursor, IndexRead, IndexReadOutcome,
    LogPoint, PartitionConfig, PartitionSlot, ReadLimits, ReplicaState, ReplicateError, Replicated,
    ReplicatedFrame, StoreConfig, StoreEvent,
};

use crate::Op;
use crate::support::{Bed, batch_of, bulk, config, journal_in_half_of, producer, small, tp};

/// A frame as it must be read: the fields of its header, and its batch or its configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Frame {
    index: u64,
    epoch: i32,
    offset: i64,
    batch: Option<Vec<u8>>,
    configuration: Option<Vec<u8>>,
}

impl Frame {
    fn next_offset(&self) -> i64 {
        let records = |batch| i64::from(header(batch).last_offset_delta.get()) + 1;
        self.offset + self.batch.as_ref().map_or(0, |batch| records(batch))
    }
}

fn header(batch: &[u8]) -> &BatchHeader {
    BatchHeader::parse(batch).expect("a batch of this test")
}

#[derive(Clone, Debug)]
struct Log {
    /// Where its first frame would be.
    start: LogPoint,
    frames: Vec<Frame>,
    /// The configuration that it was started with.
    configuration: Option<(u64, Vec<u8>)>,
}

impl Log {
    fn end(&self) -> LogPoint {
        self.frames.last().map_or(self.start, |last| LogPoint {
            index: LogIndex(last.index + 1),
            offset: Offset(last.next_offset()),
        })
    }

    /// The first frame with this index or a higher one, or where the next would be.
    fn point(&self, index: u64) -> LogPoint {
        self.frames.iter().find(|frame| frame.index >= index).map_or(self.end(), |frame| LogPoint {
            index: LogIndex(frame.index),
            offset: Offset(frame.offset),
        })
    }

    /// Where it ended if it had only the frames below this index.
    fn end_below(&self, index: u64) -> LogPoint {
        let frames = self.frames.iter().filter(|frame| frame.index < index).cloned().collect();
        Self { frames, ..self.clone() }.end()
    }
}

pub(crate) struct World {
    bed: Bed,
    log: Log,
    /// Logs that a crash may restore: each was truncated, and nothing appended after that is durable.
    before: Vec<Log>,
    /// Every frame of `log` with a lower index was durable.
    durable: u64,
    /// The log after a truncation that is in progress.
    cutting: Option<Log>,
    commit: LogPoint,
    epoch: i32,
    /// Records below this offset may be missing.
    log_start: i64,
    producer: (i16, i32),
    fill: u8,
    /// The states of the replica that were set, and how many of them are durable.
    states: Vec<ReplicaState>,
    durable_states: usize,
}

const PRODUCER: i64 = 9;

impl World {
    pub(crate) fn new(seed: u64, form: DurableForm) -> Self {
        let zero = LogPoint { index: LogIndex(0), offset: Offset(0) };
        Self {
            bed: Bed::with(
                seed,
                StoreConfig { durable_form: form, limits: journal_in_half_of(seed), ..config() },
            ),
            log: Log { start: zero, frames: Vec::new(), configuration: None },
            before: Vec::new(),
            durable: 0,
            cutting: None,
            commit: zero,
            epoch: 1,
            log_start: 0,
            producer: (0, 0),
            fill: 0,
            states: Vec::new(),
            durable_states: 0,
        }
    }

    fn slot(&mut self) -> PartitionSlot {
        let config = PartitionConfig {
            segment_bytes: 40_000,
            commit: CommitRule::Quorum,
            ..PartitionConfig::KEEP_ALL
        };
        self.bed.store.ensure_partition(tp(0), config)
    }

    pub(crate) fn run(mut self, ops: &[Op]) {
        for op in ops {
            self.apply(op);
            self.handle_events();
        }
        self.bed.settle();
        self.handle_events();
        assert!(self.cutting.is_none(), "a cut ends");
        self.check();
        self.restart();
    }

    fn apply(&mut self, op: &Op) {
        let len = self.log.frames.len();
        match *op {
            Op::Append { bytes, records, is_bulk, replicated } => {
                self.append(bytes, records, is_bulk, replicated);
            }
            Op::AppendAfterGap { frames, offsets, bytes } => self.append_after_gap(frames, offsets, bytes),
            Op::NewEpoch { by, start } => {
                self.epoch += by;
                if start {
                    let end = self.log.end();
                    self.replicate(Frame {
                        index: end.index.0,
                        epoch: self.epoch,
                        offset: end.offset.0,
                        batch: None,
                        configuration: None,
                    });
                }
            }
            Op::Again { at, other_epoch } => self.append_unexpected(at % (len + 2), other_epoch),
            Op::Configuration { bytes, replicated } => self.append_configuration(bytes, replicated),
            Op::ReplicaState { by } => self.set_replica_state(by),
            Op::Commit { up_to } => self.commit(up_to),
            Op::Truncate { at, wait } => self.truncate(at, wait),
            Op::StartAt { ahead } => self.start_at(ahead),
            Op::NewProducerEpoch => self.producer = (self.producer.0 + 1, 0),
            Op::LogStart { at } => self.move_log_start(at),
            Op::Read { from, max_bytes } => self.read_from(from % (len + 1), max_bytes),
            Op::Turn => drop(self.bed.turn()),
            Op::Steps(n) => (0..n).for_each(|_| {
                self.bed.step();
            }),
            Op::Settle => self.bed.settle(),
            Op::Tick => {
                let wall_ms = self.bed.wall_ms;
                self.bed.store.enforce_retention(&mut self.bed.disk, wall_ms);
            }
            Op::Crash(policy) => self.crash(policy),
            Op::Restart => self.restart(),
        }
    }

    fn append(&mut self, bytes: usize, records: usize, is_bulk: bool, replicated: bool) {
        self.fill = self.fill.wrapping_add(1);
        let value = vec![self.fill; bytes / records];
        let values = vec![&value[..]; records];
        let (epoch, sequence) = self.producer;
        let mut batch = batch_of(Compression::None, producer(PRODUCER, epoch, sequence), 5, &values).to_vec();
        let end = self.log.end();
        let slot = self.slot();
        let last = self.bed.store.bounds(slot).last_epoch.map_or(0, |epoch| epoch.0);
        if !replicated {
            self.epoch = self.epoch.max(last);
        }
        stamp(&mut batch, end.offset, LeaderEpoch(self.epoch));
        let frame = Frame {
            index: end.index.0,
            epoch: self.epoch,
            offset: end.offset.0,
            batch: Some(batch.clone()),
            configuration: None,
        };
        if replicated {
            self.replicate(frame);
            return;
        }
        let payload = || if is_bulk { bulk(&batch) } else { small(&batch) };
        let (epoch, wall_ms) = (LeaderEpoch(self.epoch), self.bed.wall_ms);
        match self.bed.store.append(&mut self.bed.disk, slot, payload(), epoch, wall_ms) {
            Ok(appended) => {
                assert_eq!((appended.index, appended.base_offset), (end.index, end.offset));
                self.note_appended(frame);
            }
            Err(AppendError::Busy) => {
                self.bed.step();
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn replicate(&mut self, frame: Frame) {
        let end = self.log.end();
        match self.send(&frame, end) {
            Ok(Replicated::Appended) => self.note_appended(frame),
            Err(ReplicateError::Refused(AppendError::Busy)) => {
                self.bed.step();
            }
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, frame: &Frame, follows: LogPoint) -> Result<Replicated, ReplicateError> {
        let slot = self.slot();
        let frame = ReplicatedFrame {
            index: LogIndex(frame.index),
            epoch: LeaderEpoch(frame.epoch),
            offset: Offset(frame.offset),
            follows,
            content: match (&frame.batch, &frame.configuration) {
                (Some(batch), _) if batch.len() % 2 == 0 => FrameContent::Batch(bulk(batch)),
                (Some(batch), _) => FrameContent::Batch(small(batch)),
                (None, Some(configuration)) => FrameContent::Configuration(configuration),
                (None, None) => FrameContent::EpochStart,
            },
        };
        let wall_ms = self.bed.wall_ms;
        self.bed.store.append_replicated(&mut self.bed.disk, slot, frame, wall_ms)
    }

    fn note_appended(&mut self, frame: Frame) {
        assert!(self.cutting.is_none(), "nothing is appended while the log is cut");
        if let Some(batch) = &frame.batch {
            let next = header(batch).base_sequence.get() + header(batch).last_offset_delta.get() + 1;
            self.producer = (header(batch).producer_epoch.get(), next);
        }
        self.log.frames.push(frame);
    }

    /// Frames that are not the next one.
    fn append_unexpected(&mut self, at: usize, other_epoch: bool) {
        if self.cutting.is_some() {
            return;
        }
        let end = self.log.end();
        let Some(mut frame) = self.log.frames.get(at).cloned() else {
            let index = end.index.0 + 1;
            let ahead = epoch_start(index, self.epoch, end.offset);
            let itself = LogPoint { index: LogIndex(index), offset: end.offset };
            assert_eq!(self.send(&ahead, itself), Err(ReplicateError::Ahead { end: end.index }));
            return;
        };
        let slot = self.slot();
        // Records before the log start may be missing.
        let may_be_gone = self.first_readable().is_none_or(|first| frame.index < first);
        let is_here = self.bed.store.contains(slot, LogIndex(frame.index), LeaderEpoch(frame.epoch));
        assert!(is_here || may_be_gone);
        if other_epoch {
            frame.epoch += 1;
        }
        let conflict = Err(ReplicateError::Conflict { index: LogIndex(frame.index) });
        let sent = self.send(&frame, end);
        let expected = if other_epoch { conflict } else { Ok(Replicated::AlreadyThere) };
        assert!(sent == expected || (may_be_gone && sent == Ok(Replicated::AlreadyThere)), "{sent:?}");
        let falls = epoch_start(end.index.0, -1, end.offset);
        let sent = self.send(&falls, end);
        assert!(matches!(sent, Err(ReplicateError::EpochFalls { .. })), "{sent:?}");
    }

    fn commit(&mut self, up_to: usize) {
        if self.cutting.is_some() {
            return;
        }
        let span = self.log.end().index.0 - self.commit.index.0;
        let index = self.commit.index.0 + up_to as u64 % (span + 1);
        let point = self.log.point(index);
        if point.index > self.commit.index {
            self.commit = point;
        }
        let slot = self.slot();
        self.bed.store.note_commit(slot, self.commit);
    }

    fn truncate(&mut self, at: usize, wait: bool) {
        let slot = self.slot();
        let first = self.log.start.index.0;
        let index = first + at as u64 % (self.log.end().index.0 - first + 2);
        if index < self.log.end().index.0 && self.log.point(index) != self.log.end_below(index) {
            // What compaction has removed was committed, and so was what is before it.
            return;
        }
        let asked = self.bed.store.truncate_suffix(&mut self.bed.disk, slot, LogIndex(index));
        if self.cutting.is_some() {
            assert_eq!(asked, Err(CutError::Busy));
            return;
        }
        if index < self.commit.index.0 {
            let refused = CutError::BelowCommit { index: LogIndex(index), commit: self.commit.index };
            assert_eq!(asked, Err(refused), "nothing committed is cut off");
            return;
        }
        assert_eq!(asked, Ok(()));
        let mut left = self.log.clone();
        left.frames.retain(|frame| frame.index < index);
        self.cutting = Some(left);
        if wait {
            self.bed.settle();
        }
    }

    fn move_log_start(&mut self, at: usize) {
        let slot = self.slot();
        let bounds = self.bed.store.bounds(slot);
        let end = bounds.durable_end.min(bounds.commit.offset).0;
        if self.cutting.is_some() || end < bounds.log_start.0 {
            return;
        }
        let to = bounds.log_start.0 + at as i64 % (end - bounds.log_start.0 + 1);
        self.bed.store.set_log_start(&mut self.bed.disk, slot, Offset(to)).expect("it is committed");
        self.log_start = self.log_start.max(to);
    }

    /// Handles the events since the last call.
    fn handle_events(&mut self) {
        let slot = self.slot();
        while let Some(event) = self.bed.store.poll_event() {
            self.bed.events.push(event);
        }
        for event in std::mem::take(&mut self.bed.events) {
            match event {
                StoreEvent::Truncated { end, .. } => {
                    let left = self.cutting.take().expect("somebody asked for it");
                    if left.end().offset.0 < self.log_start {
                        // Deleted records had been committed.
                        assert!(matches!(end, Err(CutError::BelowCommit { .. })), "{end:?}");
                        continue;
                    }
                    assert_eq!(end, Ok(left.end()));
                    if left.frames.len() < self.log.frames.len() {
                        // Everything was durable before the truncation.
                        self.durable = left.end().index.0;
                        self.before.push(std::mem::replace(&mut self.log, left));
                    }
                    self.rewind_producer();
                }
                StoreEvent::Started { .. } => {
                    let left = self.cutting.take().expect("somebody asked for it");
                    (self.durable, self.commit) = (left.start.index.0, left.start);
                    self.log_start = left.start.offset.0;
                    self.before.push(std::mem::replace(&mut self.log, left));
                    self.producer = (self.producer.0, 0);
                }
                StoreEvent::ReplicaStateDurable { state, .. } => self.note_durable_state(state),
                _ => {}
            }
        }
        let bounds = self.bed.store.bounds(slot);
        if self.cutting.is_none() {
            let end = self.log.end();
            assert_eq!((bounds.append_index, bounds.append_end), (end.index, end.offset));
            assert!(bounds.durable_index.0 >= self.durable, "what is durable stays");
            let cut = self.before.last().is_some().then_some(self.durable);
            self.durable = bounds.durable_index.0;
            if cut.is_some_and(|cut| self.durable > cut) {
                // A record that was appended after the truncation is durable, so the truncation is too.
                self.before.clear();
            }
        }
        assert_eq!(bounds.commit, self.commit);
    }

    /// Sets the producer's next sequence to continue after its last batch in the log.
    fn rewind_producer(&mut self) {
        let last = self.log.frames.iter().rev().find_map(|frame| frame.batch.as_deref());
        self.producer = last.map_or((self.producer.0, 0), |batch| {
            let header = header(batch);
            (header.producer_epoch.get(), header.base_sequence.get() + header.last_offset_delta.get() + 1)
        });
    }

    /// Reads the frames from an index to the durable end.
    fn frames(&mut self, from: u64, max_bytes: usize) -> Vec<Frame> {
        let slot = self.slot();
        let limits = ReadLimits { bytes_max: max_bytes, memory_bytes_max: usize::MAX };
        let mut cursor = IndexCursor::at(LogIndex(from));
        let mut frames = Vec::new();
        loop {
            let up_to = LogIndex(u64::MAX);
            let result = match self.bed.store.read_from_index(&mut self.bed.disk, slot, cursor, limits, up_to)
            {
                IndexReadOutcome::Ready(result) => result,
                IndexReadOutcome::Pending(id) => loop {
                    let is_it = |event: &StoreEvent| matches!(event, StoreEvent::ReadByIndex { id: of, .. } if *of == id);
                    if let Some(at) = self.bed.events.iter().position(is_it) {
                        let StoreEvent::ReadByIndex { result, .. } = self.bed.events.remove(at) else {
                            unreachable!("just matched")
                        };
                        break result;
                    }
                    assert!(self.bed.step(), "a read was never answered");
                },
            };
            match result {
                IndexRead::Frames { bytes, next, .. } => {
                    let before = frames.len();
                    collect(&bytes, &mut frames);
                    assert!(
                        frames.len() > before && (bytes.len() <= max_bytes || frames.len() == before + 1)
                    );
                    assert_eq!(next.index().0, frames.last().expect("there is one").index + 1);
                    cursor = next;
                }
                IndexRead::AtEnd => return frames,
                other => panic!("at {cursor:?}: {other:?}"),
            }
        }
    }

    fn read_from(&mut self, at: usize, max_bytes: usize) {
        let Some(first) = self.first_readable() else { return };
        let index = self.log.frames.get(at).map_or(self.log.end().index.0, |frame| frame.index).max(first);
        // The log may be truncated meanwhile.
        let log = self.log.clone();
        let read = self.frames(index, max_bytes);
        self.handle_events();
        let wanted = log.frames.iter().filter(|frame| frame.index >= index);
        let wanted: Vec<Frame> = wanted.take(read.len()).cloned().collect();
        assert!(read == wanted, "from index {index} on");
    }

    /// Returns the index of the first frame that must be readable, if there is one.
    fn first_readable(&self) -> Option<u64> {
        first_from(&self.log, self.log_start)
    }
}

fn epoch_start(index: u64, epoch: i32, offset: Offset) -> Frame {
    Frame { index, epoch, offset: offset.0, batch: None, configuration: None }
}

/// Returns the index of the first batch at or after an offset. An epoch start before it may have been deleted with the records before that.
fn first_from(log: &Log, offset: i64) -> Option<u64> {
    let has_batch = |frame: &&Frame| frame.offset >= offset && frame.batch.is_some();
    log.frames.iter().find(has_batch).map(|frame| frame.index)
}

/// Parses the frames in these bytes, without padding. Every bit is checked.
fn collect(bytes: &[u8], frames: &mut Vec<Frame>) {
    for frame in Frames::new(bytes) {
        let frame = frame.expect("reads give whole frames");
        frame.check().expect("reads give good frames");
        if frame.kind() != FrameKind::Padding {
            let header = frame.header();
            frames.push(Frame {
                index: header.index.get(),
                epoch: header.leader_epoch.get(),
                offset: header.base_offset.get(),
                batch: (frame.kind() == FrameKind::Batch).then(|| frame.payload().to_vec()),
                configuration: (frame.kind() == FrameKind::Configuration).then(|| frame.payload().to_vec()),
            });
        }
    }
}
