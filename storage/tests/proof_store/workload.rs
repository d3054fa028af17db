//! Random work on a store: several partitions, small and bulk batches, rolls, checkpoints, retention, deletes, reads. Appends are added to the
//! model, and promises of the store are marked in the recording of the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord, stamp};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId, Offset, ProducerId, Timestamp, TopicPartition};
use highwater_storage::{
    AppendError, CommitRule, Cursor, CutError, LogPoint, PartitionConfig, PartitionSlot, ReadResult,
    ReplicaState, StoreEvent,
};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::{
    Ack, Configuration, DropSome, EarlierLog, Entry, Log, Model, Promises, Rewrite, next_sequence, promise,
};
use crate::node::{Node, tp};

/// The configuration of a replicated partition.
pub(crate) const REPLICATED: PartitionConfig =
    PartitionConfig { segment_bytes: 12 << 10, commit: CommitRule::Quorum, ..PartitionConfig::KEEP_ALL };

pub(crate) struct Workload {
    pub(crate) rng: SmallRng,
    pub(crate) node: Node,
    pub(crate) model: Model,
    /// Promises from before the recording began.
    pub(crate) base: Promises,
    /// Promises since then: mark `n` of the recording is `acks[n]`.
    pub(crate) acks: Vec<Ack>,
    pub(crate) wall_ms: i64,
    epoch: i32,
    slots: BTreeMap<TopicPartition, PartitionSlot>,
    /// Partitions whose log is being truncated.
    truncating: BTreeSet<TopicPartition>,
    topics: u8,
}

impl Workload {
    pub(crate) fn new(node: Node, seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            node,
            model: Model::default(),
            base: Promises::new(),
            acks: Vec::new(),
            wall_ms: 1_700_000_000_000,
            epoch: 0,
            slots: BTreeMap::new(),
            truncating: BTreeSet::new(),
            topics: 0,
        }
    }

    /// Begins another life of the same store, after a crash or a stop, from its current contents.
    pub(crate) fn begin(&mut self) {
        self.model.adopt(&mut self.node);
        self.acks.clear();
        self.base.clear();
        self.slots.clear();
        self.truncating.clear();
        for (tp, log) in &self.model.logs {
            let slot = self.node.ensure(*tp, log.config);
            let bounds = self.node.store.bounds(slot);
            self.slots.insert(*tp, slot);
            self.epoch = self.epoch.max(bounds.last_epoch.map_or(0, |epoch| epoch.0));
            promise(&mut self.base, Ack::Durable(*tp, bounds.durable_end.0));
            promise(&mut self.base, Ack::LogStart(*tp, bounds.log_start.0));
            let promise = self.base.entry(*tp).or_default();
            (promise.rewrites, promise.states) = (log.rewrites.len(), log.states.len());
        }
        self.epoch += 1;
        while self.slots.len() < 5 {
            self.new_partition();
        }
    }

    /// Continues with the same partitions after a clean stop.
    pub(crate) fn resume_with(&mut self, node: Node) {
        self.node = node;
        for (tp, log) in &self.model.logs {
            self.slots.insert(*tp, self.node.ensure(*tp, log.config));
        }
    }

    fn new_partition(&mut self) {
        let config = match self.topics % 5 {
            // This partition rolls often and retains little.
            1 => PartitionConfig {
                retention_bytes: Some(60 << 10),
                segment_bytes: 12 << 10,
                ..PartitionConfig::default()
            },
            2 => PartitionConfig { retention_ms: Some(3000), segment_ms: 800, ..PartitionConfig::default() },
            3 => REPLICATED,
            _ => PartitionConfig { retention_ms: None, ..PartitionConfig::default() },
        };
        let tp = tp(self.topics, u32::from(self.topics));
        self.topics += 1;
        self.add_partition(tp, config);
    }

    pub(crate) fn add_partition(&mut self, tp: TopicPartition, config: PartitionConfig) {
        let slot = self.node.ensure(tp, config);
        self.slots.insert(tp, slot);
        self.model.logs.insert(tp, Log { config, ..Log::default() });
    }

    /// Performs one random operation.
    pub(crate) fn step(&mut self) {
        self.wall_ms += self.rng.random_range(0..20);
        match self.rng.random_range(0..111) {
            0..34 => {
                let bytes = if self.rng.random_bool(0.7) { self.rng.random_range(10..700) } else { 2500 };
                self.append(bytes, false);
            }
            34..41 => {
                let bytes = self.rng.random_range(2000..30_000);
                self.append(bytes, true);
            }
            41..58 => drop(self.node.flush()),
            58..61 => self.rewrite(),
            61..91 => {
                for _ in 0..self.rng.random_range(1..5) {
                    self.node.step();
                }
            }
            91 => self.move_start(),
            92..94 => {
                self.wall_ms += self.rng.random_range(0..500);
                self.model.logs.values_mut().for_each(|log| log.wall_ms = self.wall_ms);
                self.node.store.enforce_retention(&mut self.node.disk, self.wall_ms);
                self.node.take_events();
            }
            94 => self.epoch_start(),
            95 => self.delete(),
            96 => self.truncate(),
            97 => self.commit(),
            98..100 => self.read(),
            106..109 => self.configure(),
            109.. => self.set_replica_state(),
            _ => self.return_space(),
        }
        self.note_events();
    }

    pub(crate) fn random_partition(&mut self) -> (TopicPartition, PartitionSlot) {
        // The first partitions get more than the others.
        let n = self.rng.random_range(0..self.slots.len()).min(self.rng.random_range(0..self.slots.len()));
        self.slots.iter().nth(n).map(|(tp, slot)| (*tp, *slot)).expect("there are some")
    }

    pub(crate) fn append(&mut self, bytes: usize, bulk: bool) {
        let (tp, slot) = self.random_partition();
        let producer = self.rng.random_range(-1..2);
        self.append_to(tp, slot, bytes, bulk, producer);
    }

    pub(crate) fn append_to(
        &mut self,
        tp: TopicPartition,
        slot: PartitionSlot,
        bytes: usize,
        bulk: bool,
        producer: i64,
    ) {
        let log = self.model.logs.get_mut(&tp).expect("a partition of this test");
        let producer = match producer {
            id @ 0.. => BatchProducer { id: ProducerId(id), epoch: 0, sequence: next_sequence(log, id) },
            _ => BatchProducer::NONE,
        };
        let records = self.rng.random_range(1..4);
        let mut batch = batch(&mut self.rng, records, bytes, self.wall_ms, producer);
        match self.node.append(slot, &batch, bulk, self.epoch, self.wall_ms) {
            Ok(appended) => {
                stamp(&mut batch, appended.base_offset, LeaderEpoch(self.epoch));
                assert_eq!(appended.base_offset.0, log.end(), "{tp}: offsets are contiguous");
                log.entries.push(Entry {
                    index: appended.index.0,
                    base: appended.base_offset.0,
                    next: appended.next_offset.0,
                    written_ms: self.wall_ms,
                    batch: Rc::from(batch),
                });
            }
            Err(AppendError::Busy | AppendError::StorageFull) => {
                self.node.flush();
                self.node.step();
            }
            Err(e) => panic!("{tp}: producer {producer:?} at {}: {e}", log.end()),
        }
    }

    fn move_start(&mut self) {
        let (tp, slot) = self.random_partition();
        let bounds = self.node.store.bounds(slot);
        // Deleted records have been committed.
        let end = if self.is_replicated(tp) { bounds.commit.offset } else { bounds.durable_end };
        let offset = self.rng.random_range(bounds.log_start.0..=end.0.max(bounds.log_start.0));
        let log = self.model.logs.get_mut(&tp).expect("a partition of this test");
        log.start_asked = log.start_asked.max(offset);
        self.node.store.set_log_start(&mut self.node.disk, slot, Offset(offset)).expect("not behind the end");
        self.node.take_events();
    }

    fn is_replicated(&self, tp: TopicPartition) -> bool {
        self.model.logs.get(&tp).is_some_and(|log| log.config.commit == CommitRule::Quorum)
    }

    fn random_replicated(&mut self) -> Option<(TopicPartition, PartitionSlot)> {
        let all: Vec<_> = self.partitions().into_iter().filter(|(tp, _)| self.is_replicated(*tp)).collect();
        if all.is_empty() { None } else { Some(all[self.rng.random_range(0..all.len())]) }
    }

    /// Commits more of a log.
    fn commit(&mut self) {
        if let Some((tp, slot)) = self.random_replicated() {
            let share = self.rng.random_range(0.0..1.0);
            self.commit_share(tp, slot, share);
        }
    }

    /// Commits this share of the durable, uncommitted records.
    pub(crate) fn commit_share(&mut self, tp: TopicPartition, slot: PartitionSlot, share: f64) {
        if self.truncating.contains(&tp) {
            return;
        }
        let bounds = self.node.store.bounds(slot);
        let log = self.model.logs.get_mut(&tp).expect("a partition of this test");
        let durable: Vec<&Entry> = log
            .entries
            .iter()
            .filter(|entry| entry.index >= bounds.commit.index.0 && entry.next <= bounds.durable_end.0)
            .collect();
        let Some(last) = ((durable.len() as f64 * share) as usize).checked_sub(1).map(|at| durable[at])
        else {
            return;
        };
        let commit = LogPoint { index: LogIndex(last.index + 1), offset: Offset(last.next) };
        log.commit_asked = log.commit_asked.max(last.next);
        self.node.store.note_commit(slot, commit);
    }

    /// Truncates a log, or checks that it is not truncated below its commit index.
    fn truncate(&mut self) {
        let Some((tp, slot)) = self.random_replicated() else { return };
        let bounds = self.node.store.bounds(slot);
        let lowest = bounds.commit.index.0.saturating_sub(3);
        let index = LogIndex(self.rng.random_range(lowest..=bounds.append_index.0.max(lowest)));
        self.truncate_at(tp, slot, index);
    }

    pub(crate) fn truncate_at(&mut self, tp: TopicPartition, slot: PartitionSlot, index: LogIndex) {
        let commit = self.node.store.bounds(slot).commit.index;
        let asked = self.node.store.truncate_suffix(&mut self.node.disk, slot, index);
        if self.truncating.contains(&tp) {
            assert_eq!(asked, Err(CutError::Busy), "{tp}");
        } else if index < commit {
            assert_eq!(asked, Err(CutError::BelowCommit { index, commit }), "{tp}: committed frames stay");
        } else {
            assert_eq!(asked, Ok(()), "{tp}");
            self.truncating.insert(tp);
            self.note(Ack::Truncating(tp));
        }
        self.node.take_events();
    }

    /// Rewrites part of a log, unless another part is being rewritten.
    fn rewrite(&mut self) {
        let (tp, slot) = self.random_partition();
        let divisor = self.rng.random_range(1..5);
        let filter = DropSome { divisor, rest: self.rng.random_range(0..divisor) };
        let from = self.rng.random_range(0..3);
        self.rewrite_from(tp, slot, from, filter);
    }

    /// Starts to rewrite extents from this number on.
    pub(crate) fn rewrite_from(
        &mut self,
        tp: TopicPartition,
        slot: PartitionSlot,
        from: usize,
        filter: DropSome,
    ) {
        let extents: Vec<_> = self.node.store.rewritable_extents(slot).skip(from).take(3).collect();
        for count in (1..=extents.len()).rev() {
            if self.node.store.rewrite(slot, extents[0].base_index, count, Box::new(filter)).is_ok() {
                let offsets = extents[0].base_offset.0..extents[count - 1].end_offset.0;
                let log = self.model.logs.get_mut(&tp).expect("a partition of this test");
                log.rewrites.push(Rewrite { offsets, filter });
                return self.note(Ack::Rewriting(tp));
            }
        }
    }

    fn on_truncated(&mut self, tp: TopicPartition, end: LogPoint) -> Ack {
        self.truncating.remove(&tp);
        let log = self.model.logs.get_mut(&tp).expect("a partition of this test");
        let (entries, configurations) = (log.entries.clone(), log.configurations.clone());
        log.entries.retain(|entry| entry.next <= end.offset.0);
        log.configurations.retain(|known| known.index < end.index.0);
        log.earlier.push(EarlierLog { entries, configurations, cut: end.offset.0 });
        // Another leader has requested it.
        self.epoch += 1;
        Ack::Truncated(tp, end.offset.0)
    }

    fn note(&mut self, ack: Ack) {
        self.node.disk.disk().mark(self.acks.len() as u64);
        self.acks.push(ack);
    }

    fn epoch_start(&mut self) {
        let (tp, slot) = self.random_partition();
        if self.model.logs[&tp].delete_asked {
            return;
        }
        let epoch = LeaderEpoch(self.epoch);
        let _ = self.node.store.append_epoch_start(&mut self.node.disk, slot, epoch, self.wall_ms);
    }

    fn configure(&mut self) {
        let (tp, slot) = self.random_partition();
        self.configure_partition(tp, slot);
    }

    /// Appends a configuration.
    pub(crate) fn configure_partition(&mut self, tp: TopicPartition, slot: PartitionSlot) {
        let mut payload = vec![0; self.rng.random_range(1..300)];
        self.rng.fill(&mut payload[..]);
        let epoch = LeaderEpoch(self.epoch);
        let appended =
            self.node.store.append_configuration(slot, epoch, payload.clone().into(), self.wall_ms);
        let Ok(appended) = appended else { return };
        let log = self.model.logs.get_mut(&tp).expect("a partition of this test");
        let (index, offset) = (appended.index.0, appended.base_offset.0);
        log.configurations.push(Configuration { index, offset, payload });
    }

    fn set_replica_state(&mut self) {
        let (tp, slot) = self.random_partition();
        self.set_state_of(tp, slot);
    }

    /// Sets the next state of a replica.
    pub(crate) fn set_state_of(&mut self, tp: TopicPartition, slot: PartitionSlot) {
        let log = self.model.logs.get_mut(&tp).expect("a partition of this test");
        let term = LeaderEpoch(log.states.last().map_or(0, |state| state.term.0) + 1);
        let vote = (term.0 % 2 == 0).then_some((NodeId(7), 1));
        let state = ReplicaState { term, vote, lost_in: None };
        log.states.push(state);
        self.node.store.set_replica_state(slot, state);
    }

    /// Free space goes back to the file system, some of it because somebody asked.
    fn return_space(&mut self) {
        if self.rng.random_bool(0.3) {
            self.node.store.release_space(0);
        }
        self.node.store.return_space(&mut self.node.disk);
    }

    fn delete(&mut self) {
        if self.rng.random_bool(0.7) {
            return;
        }
        let (tp, slot) = self.random_partition();
        self.node.store.delete_partition(&mut self.node.disk, slot);
        self.node.take_events();
        self.model.logs.get_mut(&tp).expect("a partition of this test").delete_asked = true;
        self.slots.remove(&tp);
        self.new_partition();
    }

    /// Reads from a random offset and compares.
    fn read(&mut self) {
        let (tp, slot) = self.random_partition();
        let bounds = self.node.store.bounds(slot);
        if bounds.log_start == bounds.durable_end {
            return;
        }
        let at = self.rng.random_range(bounds.log_start.0..bounds.durable_end.0);
        let result = self.node.read(slot, Cursor::at(Offset(at)), 8 << 10, bounds.durable_end);
        let ReadResult::Frames(frames) = result else {
            // The start or the end of the log may have moved while the read was in flight.
            let bounds = self.node.store.bounds(slot);
            let log = &self.model.logs[&tp];
            let mut rest = log.entries.iter().filter(|entry| entry.next > at);
            let is_gone = rest.all(|entry| log.may_be_missing(entry.base, usize::MAX));
            let is_outside = !(bounds.log_start.0..bounds.durable_end.0).contains(&at);
            assert!(is_outside || is_gone, "{tp} offset {at} of {bounds:?}: {result:?}");
            return;
        };
        let log = &self.model.logs[&tp];
        let mut found = false;
        for bytes in &frames.bytes {
            for frame in highwater_protocol::frame::Frames::new(bytes) {
                let frame = frame.expect("reads give whole frames");
                let Some(batch) = frame.batch() else { continue };
                let base = batch.header().base_offset().0;
                let entry = log.entries.iter().find(|entry| entry.base == base).expect("appended");
                assert_eq!(*entry.batch, *batch.bytes(), "{tp} offset {base}");
                found |= entry.base <= at && at < entry.next;
            }
        }
        let holder = log.entries.iter().find(|entry| entry.base <= at && at < entry.next).expect("appended");
        let is_gone = log.may_be_missing(holder.base, usize::MAX);
        assert!(found || is_gone, "{tp}: a read at {at} gives the batch that holds it");
    }

    fn tp_of(&self, slot: PartitionSlot) -> Option<TopicPartition> {
        self.slots.iter().find(|(_, of)| **of == slot).map(|(tp, _)| *tp)
    }

    /// Notes the promises of the store since the last call, and marks them in the recording.
    pub(crate) fn note_events(&mut self) {
        for event in std::mem::take(&mut self.node.events) {
            let ack = match event {
                StoreEvent::Durable { slot, durable_offset, .. } => {
                    self.tp_of(slot).map(|tp| Ack::Durable(tp, durable_offset.0))
                }
                StoreEvent::LogStart { slot, offset } => {
                    self.tp_of(slot).map(|tp| Ack::LogStart(tp, offset.0))
                }
                StoreEvent::ReplicaStateDurable { slot, .. } => self.tp_of(slot).map(Ack::ReplicaState),
                StoreEvent::Deleted { tp } => Some(Ack::Deleted(tp)),
                StoreEvent::Truncated { slot, end } => {
                    let end = end.expect("the disk did nothing wrong");
                    self.tp_of(slot).map(|tp| self.on_truncated(tp, end))
                }
                _ => None,
            };
            if let Some(ack) = ack {
                self.note(ack);
            }
        }
    }

    /// Makes everything appended durable.
    pub(crate) fn settle(&mut self) {
        self.node.settle();
        self.note_events();
    }

    pub(crate) fn partitions(&self) -> Vec<(TopicPartition, PartitionSlot)> {
        self.slots.iter().map(|(tp, slot)| (*tp, *slot)).collect()
    }
}

/// Creates a batch of this many records in about this many bytes.
pub(crate) fn batch(
    rng: &mut SmallRng,
    records: usize,
    bytes: usize,
    wall_ms: i64,
    producer: BatchProducer,
) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for n in 0..records {
        let mut value = vec![0; bytes / records];
        rng.fill(&mut value[..]);
        let record = NewRecord::new(Timestamp(wall_ms + n as i64), None, Some(&value));
        builder.append(&record).expect("it is small");
    }
    builder.finish(producer).expect("it is not empty").to_vec()
}
