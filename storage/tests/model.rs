//! A store against a model of it: after appends, flushes, deletions, crashes and restarts in any order, everything durable is there, nothing else
//! is, and offsets and producers continue where they were.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::batch::{BatchView, Compression};
use highwater_protocol::ids::Offset;
use highwater_runtime::sim::{CrashPolicy, Fault};
use highwater_storage::{
    AppendError, BatchFilter, Cursor, DurableForm, PartitionConfig, PartitionSlot, ReadResult, StoreConfig,
    StoreEvent, Verdict,
};
use proptest::prelude::*;
use support::{Bed, CRASH_POLICIES, batch_of, config, journal_in_half_of, producer, tp};

const PARTITIONS: u32 = 3;

/// Prefixes of files whose writes may fail for lack of space. Syncs may fail only for the first one: slabs.
const SLABS: usize = 2;
const FILES: [&str; 4] = ["slab-000000", "slab-000001", "state.a", "state.b"];

#[derive(Clone, Debug)]
enum Op {
    Append {
        partition: u32,
        bytes: usize,
        records: usize,
        bulk: bool,
        retry: bool,
    },
    Turn,
    Steps(usize),
    Settle,
    Read {
        partition: u32,
        from: usize,
        max_bytes: usize,
    },
    LogStart {
        partition: u32,
        at: usize,
    },
    Retain {
        partition: u32,
        bytes: u64,
    },
    Delete {
        partition: u32,
    },
    EpochStart {
        partition: u32,
    },
    Tick,
    /// Rewrites extents without some of their batches.
    Rewrite {
        partition: u32,
        from: usize,
        divisor: i64,
    },
    /// Aborts a rewrite.
    AbortRewrite,
    /// The disk has no space for some writes or syncs.
    NoSpace {
        file: usize,
        sync: bool,
        times: u32,
    },
    Crash(CrashPolicy),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let partition = 0..PARTITIONS;
    let size = prop_oneof![4 => 1..300usize, 2 => 300..5000usize, 1 => 5000..30_000usize];
    let policy = prop::sample::select(&CRASH_POLICIES[..]);
    let append = (partition.clone(), size, 1..5usize, any::<bool>(), prop::bool::weighted(0.1));
    prop_oneof![
        30 => append.prop_map(|(partition, bytes, records, bulk, retry)| Op::Append { partition, bytes, records, bulk, retry }),
        10 => Just(Op::Turn),
        10 => (1..8usize).prop_map(Op::Steps),
        4 => Just(Op::Settle),
        4 => (partition.clone(), 0..1000usize, 1..40_000usize)
            .prop_map(|(partition, from, max_bytes)| Op::Read { partition, from, max_bytes }),
        1 => (partition.clone(), 0..1000usize).prop_map(|(partition, at)| Op::LogStart { partition, at }),
        1 => (partition.clone(), 0..100_000u64).prop_map(|(partition, bytes)| Op::Retain { partition, bytes }),
        1 => partition.prop_map(|partition| Op::Delete { partition }),
        2 => (0..PARTITIONS).prop_map(|partition| Op::EpochStart { partition }),
        3 => Just(Op::Tick),
        4 => (0..PARTITIONS, 0..3usize, 1..4i64)
            .prop_map(|(partition, from, divisor)| Op::Rewrite { partition, from, divisor }),
        1 => Just(Op::AbortRewrite),
        2 => (0..FILES.len(), any::<bool>(), 1..5u32)
            .prop_map(|(file, sync, times)| Op::NoSpace { file, sync, times }),
        2 => policy.prop_map(Op::Crash),
        1 => Just(Op::Restart),
    ]
}

/// A batch as the model knows it.
#[derive(Clone, Debug)]
struct Sent {
    base: i64,
    sequence: i32,
    values: Vec<Vec<u8>>,
}

/// A partition in the model. After a deletion, the topic partition has a new generation.
#[derive(Default)]
struct Known {
    generation: u32,
    sent: Vec<Sent>,
    next_offset: i64,
    next_sequence: i32,
    /// The durable end at the last check.
    durable: i64,
    log_start: i64,
    /// Base offsets of the batches that a rewrite may have dropped.
    droppable: BTreeSet<i64>,
    /// The bounds of the log start after a crash.
    log_start_asked: i64,
}

/// Drops batches by their base offset, except the last one of each producer.
#[derive(Debug)]
struct DropMultiples(i64);

impl BatchFilter for DropMultiples {
    fn filter(&mut self, batch: &BatchView<'_>, keeps_header: bool, _: &mut Vec<u8>) -> Verdict {
        let is_dropped = batch.header().base_offset().0 % self.0 == 0 && !keeps_header;
        if is_dropped { Verdict::Drop } else { Verdict::Keep }
    }
}

struct World {
    bed: Bed,
    known: Vec<Known>,
    fill: u8,
}

impl World {
    fn new(seed: u64, form: DurableForm) -> Self {
        let config = StoreConfig { durable_form: form, limits: journal_in_half_of(seed), ..config() };
        let known = (0..PARTITIONS).map(|_| Known::default()).collect();
        Self { bed: Bed::with(seed, config), known, fill: 0 }
    }

    fn slot(&mut self, partition: u32) -> PartitionSlot {
        let generation = self.known[partition as usize].generation;
        let keep = PartitionConfig { segment_bytes: 40_000, ..PartitionConfig::KEEP_ALL };
        self.bed.store.ensure_partition(tp(partition + PARTITIONS * generation), keep)
    }

    fn run(mut self, ops: Vec<Op>) {
        for op in ops {
            self.apply(&op);
            self.note_durable();
        }
        self.settle_with_space();
        self.check_all();
        self.bed = self.bed.restart();
        self.check_all();
    }

    /// Frees space on the disk, and makes everything durable.
    fn settle_with_space(&mut self) {
        self.bed.disk.disk().clear_faults();
        self.bed.settle();
        self.run_timer();
        self.bed.settle();
        self.note_durable();
        assert_eq!(self.bed.store.stats().unacked_bytes, 0);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append { partition, bytes, records, bulk, retry } => {
                self.append(partition, bytes, records, bulk, retry);
            }
            Op::Turn => drop(self.bed.turn()),
            Op::Steps(n) => (0..n).for_each(|_| {
                self.bed.step();
            }),
            Op::Settle => self.bed.settle(),
            Op::Tick => self.run_timer(),
            Op::EpochStart { partition } => {
                let slot = self.slot(partition);
                let epoch = self.bed.epoch(slot);
                let started = self.bed.store.append_epoch_start(&mut self.bed.disk, slot, epoch, 0);
                let refused = matches!(started, Err(AppendError::Busy | AppendError::StorageFull));
                assert!(started.is_ok() || refused, "{started:?}");
            }
            Op::NoSpace { file, sync, times } => {
                let path = self.bed.config.dir.join(FILES[file]);
                let fault = if sync && file < SLABS {
                    Fault::sync_no_space(path)
                } else {
                    Fault::write_no_space(path)
                };
                self.bed.disk.disk().inject(fault.times(times));
            }
            Op::Rewrite { partition, from, divisor } => self.rewrite(partition, from, divisor),
            Op::AbortRewrite => self.bed.store.abort_rewrite(),
            Op::Read { partition, from, max_bytes } => self.read(partition, from, max_bytes),
            Op::LogStart { partition, at } => self.move_log_start(partition, at),
            Op::Retain { partition, bytes } => self.retain(partition, bytes),
            Op::Delete { partition } => {
                let slot = self.slot(partition);
                self.bed.store.delete_partition(&mut self.bed.disk, slot);
                let generation = self.known[partition as usize].generation + 1;
                self.known[partition as usize] = Known { generation, ..Known::default() };
            }
            Op::Crash(policy) => {
                self.bed.disk.disk().clear_faults();
                replace_with(&mut self.bed, |bed| bed.crash(policy));
                self.after_crash();
            }
            Op::Restart => {
                self.settle_with_space();
                replace_with(&mut self.bed, Bed::restart);
                for known in &mut self.known {
                    known.log_start = known.log_start_asked;
                }
                assert_eq!(self.bed.report.findings, [], "an orderly restart finds everything in order");
                self.check_all();
            }
        }
    }

    fn append(&mut self, partition: u32, bytes: usize, records: usize, bulk: bool, retry: bool) {
        let slot = self.slot(partition);
        self.fill = self.fill.wrapping_add(1);
        let fill = self.fill;
        let id = i64::from(partition);
        let known = &mut self.known[partition as usize];
        if retry && let Some(last) = known.sent.last() {
            let values: Vec<&[u8]> = last.values.iter().map(Vec::as_slice).collect();
            let batch = batch_of(Compression::None, producer(id, 0, last.sequence), 5, &values);
            let again = self.bed.try_append(slot, &batch);
            let is_known = matches!(again, Err(AppendError::Duplicate { base_offset, .. }) if base_offset.0 == last.base);
            assert!(is_known || again == Err(AppendError::StorageFull), "{again:?}");
            return;
        }
        let values: Vec<Vec<u8>> =
            (0..records).map(|n| vec![fill.wrapping_add(n as u8); bytes / records]).collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let batch = batch_of(Compression::None, producer(id, 0, known.next_sequence), 5, &slices);
        let outcome =
            if bulk { self.bed.try_append_bulk(slot, &batch) } else { self.bed.try_append(slot, &batch) };
        match outcome {
            Ok(appended) => {
                assert_eq!(appended.base_offset.0, known.next_offset);
                known.sent.push(Sent { base: known.next_offset, sequence: known.next_sequence, values });
                known.next_offset += records as i64;
                known.next_sequence += records as i32;
            }
            Err(AppendError::Busy | AppendError::StorageFull) => {}
            Err(e) => panic!("{e}"),
        }
    }

    fn read(&mut self, partition: u32, from: usize, max_bytes: usize) {
        let slot = self.slot(partition);
        let bounds = self.bed.store.bounds(slot);
        let span = (bounds.durable_end.0 - bounds.log_start.0) as usize;
        let from = bounds.log_start.0 + (from % (span + 1)) as i64;
        let result = self.bed.read(slot, Cursor::at(Offset(from)), max_bytes);
        let known = &self.known[partition as usize];
        let is_after =
            |sent: &&Sent| sent.base + sent.values.len() as i64 > from && sent.base < bounds.durable_end.0;
        let mut rest = known.sent.iter().filter(is_after);
        let may_be_end = rest.all(|sent| known.droppable.contains(&sent.base));
        let is_end = matches!(result, ReadResult::AtEnd);
        assert!(if is_end { may_be_end } else { from < bounds.durable_end.0 }, "{result:?}");
    }

    fn rewrite(&mut self, partition: u32, from: usize, divisor: i64) {
        let slot = self.slot(partition);
        let extents: Vec<_> = self.bed.store.rewritable_extents(slot).skip(from).take(2).collect();
        for count in (1..=extents.len()).rev() {
            let filter = Box::new(DropMultiples(divisor));
            if self.bed.store.rewrite(slot, extents[0].base_index, count, filter).is_ok() {
                let range = extents[0].base_offset.0..extents[count - 1].end_offset.0;
                let known = &mut self.known[partition as usize];
                known.droppable.extend(range.filter(|offset| offset % divisor == 0));
                return;
            }
        }
    }

    fn move_log_start(&mut self, partition: u32, at: usize) {
        let slot = self.slot(partition);
        let bounds = self.bed.store.bounds(slot);
        let span = (bounds.durable_end.0 - bounds.log_start.0) as usize;
        let to = bounds.log_start.0 + (at % (span + 1)) as i64;
        self.bed.store.set_log_start(&mut self.bed.disk, slot, Offset(to)).expect("it is within the log");
        self.known[partition as usize].log_start_asked = to;
    }

    fn retain(&mut self, partition: u32, bytes: u64) {
        let slot = self.slot(partition);
        let generation = self.known[partition as usize].generation;
        let limited = PartitionConfig {
            retention_bytes: Some(bytes),
            segment_bytes: 40_000,
            ..PartitionConfig::KEEP_ALL
        };
        self.bed.store.ensure_partition(tp(partition + PARTITIONS * generation), limited);
        let wall_ms = self.bed.wall_ms;
        self.bed.store.enforce_retention(&mut self.bed.disk, wall_ms);
        let log_start = self.bed.store.bounds(slot).log_start.0;
        self.known[partition as usize].log_start_asked = log_start;
    }

    /// Does the work of a timer, and applies the last retention setting.
    fn run_timer(&mut self) {
        let wall_ms = self.bed.wall_ms;
        self.bed.store.enforce_retention(&mut self.bed.disk, wall_ms);
        for partition in 0..PARTITIONS {
            let slot = self.slot(partition);
            let log_start = self.bed.store.bounds(slot).log_start.0;
            self.known[partition as usize].log_start_asked = log_start;
        }
    }

    /// Notes the durable end, and checks that it never moves back.
    fn note_durable(&mut self) {
        for event in std::mem::take(&mut self.bed.events) {
            match event {
                StoreEvent::Durable { .. }
                | StoreEvent::Deleted { .. }
                | StoreEvent::RoomAvailable
                | StoreEvent::StorageFull(_)
                | StoreEvent::Stalled { .. }
                | StoreEvent::SpaceAvailable
                | StoreEvent::Rewritten { .. }
                | StoreEvent::Closed => {}
                StoreEvent::LogStart { slot, offset } => {
                    for partition in 0..PARTITIONS {
                        if self.slot(partition) == slot {
                            let known = &mut self.known[partition as usize];
                            known.log_start = known.log_start.max(offset.0);
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        for partition in 0..PARTITIONS {
            let slot = self.slot(partition);
            let bounds = self.bed.store.bounds(slot);
            let known = &mut self.known[partition as usize];
            assert!(bounds.durable_end.0 >= known.durable, "what is durable stays");
            assert_eq!(bounds.append_end.0, known.next_offset);
            assert_eq!(bounds.log_start.0, known.log_start_asked);
            known.durable = bounds.durable_end.0;
        }
    }

    fn after_crash(&mut self) {
        for partition in 0..PARTITIONS {
            let slot = self.slot(partition);
            let bounds = self.bed.store.bounds(slot);
            let known = &mut self.known[partition as usize];
            assert!(!bounds.faulty, "partition {partition}: {:?}", self.bed.report);
            let end = bounds.durable_end.0;
            assert!(
                end >= known.durable,
                "partition {partition}: {} was durable, {end} is left: {:?}",
                known.durable,
                self.bed.report
            );
            assert!(end <= known.next_offset, "nothing is invented");
            known.sent.retain(|sent| sent.base < end);
            known.next_sequence =
                known.sent.last().map_or(known.next_sequence, |s| s.sequence + s.values.len() as i32);
            if known.sent.is_empty() {
                known.next_sequence = 0;
            }
            known.next_offset = end;
            let start = bounds.log_start.0;
            assert!((known.log_start..=known.log_start_asked).contains(&start), "the log starts at {start}");
            known.log_start_asked = start;
            known.log_start = start;
        }
        self.check_all();
    }

    fn check_all(&mut self) {
        for partition in 0..PARTITIONS {
            let slot = self.slot(partition);
            let bounds = self.bed.store.bounds(slot);
            let known = &self.known[partition as usize];
            let records: BTreeMap<i64, (i64, Vec<u8>)> = known
                .sent
                .iter()
                .flat_map(|sent| {
                    (sent.base..).zip(sent.values.iter().cloned()).map(|(at, v)| (at, (sent.base, v)))
                })
                .collect();
            let mut expected: Vec<(i64, (i64, Vec<u8>))> = records
                .range(bounds.log_start.0..bounds.durable_end.0)
                .map(|(at, r)| (*at, r.clone()))
                .collect();
            let droppable = known.droppable.clone();
            let (found, skipped) = self.bed.read_all(slot, bounds.log_start.0, 64 << 10);
            assert_eq!(skipped, [], "partition {partition}");
            let found: BTreeMap<i64, Vec<u8>> = found.into_iter().map(|(at, _, value)| (at, value)).collect();
            expected.retain(|(at, (base, _))| found.contains_key(at) || !droppable.contains(base));
            let expected: BTreeMap<i64, Vec<u8>> =
                expected.into_iter().map(|(at, (_, value))| (at, value)).collect();
            assert!(
                found.keys().eq(expected.keys()),
                "partition {partition}: records are missing, or were invented"
            );
            assert!(found == expected, "partition {partition}: a record is not as it was sent");
        }
    }
}

fn replace_with(bed: &mut Bed, with: impl FnOnce(Bed) -> Bed) {
    // Only the disk survives.
    let placeholder = Bed::new(0);
    *bed = with(std::mem::replace(bed, placeholder));
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_with_durable_writes_does_what_the_model_says(seed in any::<u64>(), ops in prop::collection::vec(op(), 1..150)) {
        World::new(seed, DurableForm::Dsync).run(ops);
    }

    #[test]
    fn a_store_with_one_sync_per_round_does_what_the_model_says(seed in any::<u64>(), ops in prop::collection::vec(op(), 1..150)) {
        World::new(seed, DurableForm::SyncPerRound).run(ops);
    }
}
