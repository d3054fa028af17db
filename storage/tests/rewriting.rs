//! Rewriting part of a log: for every kind of reader, dropped records are gone and all others keep their offsets. An aborted rewrite changes
//! nothing.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use highwater_protocol::batch::{BatchView, Compression, stamp};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_runtime::sim::{CrashPolicy, DiskHarness, Fault, SimDisk};
use highwater_storage::{
    AppendError, BatchFilter, CommitRule, Cursor, FindResult, IndexCursor, IndexRead, IndexReadOutcome,
    LogPoint, PartitionConfig, PartitionSlot, ReadLimits, ReadResult, RewriteAborted, RewriteError,
    Rewritten, StoreEvent, Verdict, inspect,
};
use support::{Bed, batch_at, batch_of, config, filled, producer, tp, without_map};

/// Drops the batches with these offsets, except the last one of each producer.
#[derive(Debug)]
struct DropOffsets(BTreeSet<i64>);

impl BatchFilter for DropOffsets {
    fn filter(&mut self, batch: &BatchView<'_>, keeps_header: bool, _: &mut Vec<u8>) -> Verdict {
        let is_dropped = self.0.contains(&batch.header().base_offset().0) && !keeps_header;
        if is_dropped { Verdict::Drop } else { Verdict::Keep }
    }
}

/// Replaces each batch by one with the same offsets and this value.
#[derive(Debug)]
struct ReplaceAll(Vec<u8>);

impl BatchFilter for ReplaceAll {
    fn filter(&mut self, batch: &BatchView<'_>, _: bool, out: &mut Vec<u8>) -> Verdict {
        out.extend_from_slice(&batch_at(5, &[&self.0]));
        stamp(out, batch.header().base_offset(), batch.header().leader_epoch());
        Verdict::Replace
    }
}

/// Creates a log in several extents, with one record per batch, at these timestamps.
fn log(bed: &mut Bed, slot: PartitionSlot, records: u8) {
    for n in 0..records {
        bed.append_durably(slot, &batch_at(1000 + i64::from(n), &[&[n; 2500]]));
    }
}

/// Rewrites this many extents from the first one on, and waits for the end.
fn rewrite(
    bed: &mut Bed,
    slot: PartitionSlot,
    extents: usize,
    filter: impl BatchFilter + 'static,
) -> Result<Rewritten, RewriteAborted> {
    let first = bed.store.rewritable_extents(slot).next().expect("there is one").base_index;
    bed.store.rewrite(slot, first, extents, Box::new(filter)).expect("it begins");
    bed.settle();
    outcome(bed)
}

fn outcome(bed: &mut Bed) -> Result<Rewritten, RewriteAborted> {
    let at = bed.events.iter().position(|event| matches!(event, StoreEvent::Rewritten { .. }));
    match bed.events.remove(at.expect("it has ended")) {
        StoreEvent::Rewritten { outcome, .. } => outcome,
        _ => unreachable!("just matched"),
    }
}

fn drop_offsets(offsets: impl IntoIterator<Item = i64>) -> DropOffsets {
    DropOffsets(offsets.into_iter().collect())
}

/// Checks that every kind of reader finds exactly these records, whose first bytes are their offsets.
fn check(bed: &mut Bed, slot: PartitionSlot, kept: &[i64]) {
    let bounds = bed.store.bounds(slot);
    for from in bounds.log_start.0..bounds.durable_end.0 {
        let (records, skipped) = bed.read_all(slot, from, 6000);
        let found: Vec<i64> = records.iter().map(|record| i64::from(record.2[0])).collect();
        let wanted: Vec<i64> = kept.iter().copied().filter(|offset| *offset >= from).collect();
        assert_eq!((found, skipped), (wanted.clone(), vec![]), "from {from}");
        let next =
            kept.iter().find(|offset| 1000 + **offset >= 1000 + from && **offset >= bounds.log_start.0);
        let found = bed.find(slot, 1000 + from);
        let wanted = next.map_or(FindResult::None, |next| {
            FindResult::At(Offset(*next), highwater_protocol::ids::Timestamp(1000 + next))
        });
        assert_eq!(found, wanted, "at time {}", 1000 + from);
    }
    let last = *kept.last().expect("something is kept");
    let wanted = FindResult::At(Offset(last), highwater_protocol::ids::Timestamp(1000 + last));
    assert_eq!(bed.find_last(slot), wanted);
    for from in [bounds.log_start.0, i64::midpoint(bounds.log_start.0, bounds.durable_end.0)] {
        assert_eq!(
            by_index(bed, slot, from as u64),
            kept.iter().copied().filter(|o| *o >= from).collect::<Vec<_>>()
        );
    }
}

/// Returns the offsets of the batches from an index on, as another replica reads them.
fn by_index(bed: &mut Bed, slot: PartitionSlot, from: u64) -> Vec<i64> {
    let limits = ReadLimits { bytes_max: 6000, memory_bytes_max: usize::MAX };
    let mut cursor = IndexCursor::at(LogIndex(from));
    let mut offsets = Vec::new();
    loop {
        let end = bed.store.bounds(slot).durable_index;
        let read = match bed.store.read_from_index(&mut bed.disk, slot, cursor, limits, end) {
            IndexReadOutcome::Ready(read) => read,
            IndexReadOutcome::Pending(id) => loop {
                let is_it = |e: &StoreEvent| matches!(e, StoreEvent::ReadByIndex { id: of, .. } if *of == id);
                if let Some(at) = bed.events.iter().position(is_it) {
                    let StoreEvent::ReadByIndex { result, .. } = bed.events.remove(at) else {
                        unreachable!()
                    };
                    break result;
                }
                assert!(bed.step(), "a read was never answered");
            },
        };
        match read {
            IndexRead::Frames { bytes, next, .. } => {
                for frame in highwater_protocol::frame::Frames::new(&bytes) {
                    let frame = frame.expect("whole frames");
                    offsets.extend(frame.batch().map(|batch| batch.header().base_offset().0));
                }
                cursor = next;
            }
            IndexRead::AtEnd => return offsets,
            other => panic!("{other:?}"),
        }
    }
}

/// Checks the log now, after a stop, after a crash, and with the map lost, and the result of `verify`.
fn check_over_starts(mut bed: Bed, kept: &[i64]) -> Bed {
    for start in ["none", "stop", "crash", "lost map", "stop"] {
        bed = match start {
            "stop" => bed.restart(),
            "crash" => bed.crash(CrashPolicy::LOSE_ALL),
            "lost map" => {
                let image = without_map(bed.disk.disk().image());
                Bed::on(DiskHarness::on(SimDisk::from_image(&image, 2)), config())
            }
            _ => bed,
        };
        assert_eq!(bed.report.findings, [], "{start}");
        let slot = bed.slot(0);
        check(&mut bed, slot, kept);
        let mut disk = SimDisk::from_image(&bed.disk.disk().image(), 1);
        let verified = inspect::verify(&mut disk, Path::new("/data"), &mut |_| {}).expect("readable");
        assert_eq!(verified.findings, [], "{start}");
    }
    bed
}

#[test]
fn a_rewrite_removes_dropped_records_and_keeps_all_others_at_their_offsets() {
    let all: Vec<i64> = (0..40).collect();
    // These include the first and last records of extents; later ones are whole extents.
    let cases: [&[i64]; 5] = [&[], &[0, 3, 4, 5, 9, 10, 11, 13], &all[..5], &all[..14], &all[..40]];
    for dropped in cases {
        for together in [false, true] {
            let mut bed = Bed::new(7);
            let slot = bed.slot(0);
            log(&mut bed, slot, 40);
            let before = bed.store.bounds(slot);
            let extents: Vec<_> = bed.store.rewritable_extents(slot).collect();
            assert!(extents.len() > 2 && extents.iter().all(|extent| extent.generation == 0), "{extents:?}");
            // The smallest ones fit one extent together.
            let count = if together { 2 } else { 1 };
            let outcome =
                rewrite(&mut bed, slot, count, drop_offsets(dropped.iter().copied())).expect("it is whole");
            let range = 0..extents[count - 1].end_offset.0;
            let gone: Vec<i64> = dropped.iter().copied().filter(|offset| range.contains(offset)).collect();
            let batches = range.end as u64;
            assert_eq!((outcome.extents, outcome.batches_before), (count, batches));
            assert_eq!(outcome.batches_after, batches - gone.len() as u64);
            let after = bed.store.bounds(slot);
            assert_eq!(after.bytes, before.bytes - outcome.bytes_before + outcome.bytes_after);
            assert_eq!((after.log_start, after.append_end), (before.log_start, before.append_end));
            let first = bed.store.rewritable_extents(slot).next().expect("there is one");
            assert_eq!((first.generation, first.end_index), (1, extents[count - 1].end_index));
            let kept: Vec<i64> = all.iter().copied().filter(|offset| !gone.contains(offset)).collect();
            let mut bed = check_over_starts(bed, &kept);
            let slot = bed.slot(0);
            bed.append_durably(slot, &batch_at(1040, &[&[40; 100]]));
        }
    }
}

#[test]
fn extents_are_rewritten_repeatedly_and_their_space_is_reused() {
    let mut bed = Bed::new(9);
    let slot = bed.slot(0);
    log(&mut bed, slot, 60);
    let mut kept: Vec<i64> = (0..60).collect();
    let used = |bed: &Bed| bed.store.stats().slab_bytes - bed.store.stats().free_bytes;
    let used_before = used(&bed);
    for round in 1..=6 {
        let last = bed.store.rewritable_extents(slot).last().expect("there are some").end_offset.0;
        let dropped: Vec<i64> = (0..last).filter(|offset| offset % 7 == round % 7).collect();
        let mut at = 0;
        while at < bed.store.rewritable_extents(slot).count() {
            let from = bed.store.rewritable_extents(slot).nth(at).expect("counted").base_index;
            // Two together where they fit one extent.
            for extents in [2, 1] {
                match bed.store.rewrite(slot, from, extents, Box::new(drop_offsets(dropped.iter().copied())))
                {
                    Ok(()) => break,
                    Err(e) => assert_eq!((e, extents), (RewriteError::NotRewritable, 2)),
                }
            }
            bed.settle();
            assert!(outcome(&mut bed).is_ok());
            at += 1;
        }
        kept.retain(|offset| !dropped.contains(offset));
        bed = check_over_starts(bed, &kept);
    }
    assert!(used(&bed) < used_before, "{} of {used_before} bytes", used(&bed));
    let slot = bed.slot(0);
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.settle();
    let stats = bed.store.stats();
    assert_eq!(stats.free_bytes, stats.slab_bytes, "all space has come back");
}

#[test]
fn replaced_batches_may_grow() {
    for bytes in [10, 2400, 4000] {
        let mut bed = Bed::new(3);
        let slot = bed.slot(0);
        log(&mut bed, slot, 40);
        let extent = bed.store.rewritable_extents(slot).nth(1).expect("it has several");
        let filter = Box::new(ReplaceAll(vec![200; bytes]));
        bed.store.rewrite(slot, extent.base_index, 1, filter).expect("it begins");
        bed.settle();
        let outcome = outcome(&mut bed).expect("it is whole");
        assert_eq!(outcome.batches_before, outcome.batches_after);
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = bed.slot(0);
        let values = bed.values(slot);
        for (offset, value) in (0..).zip(&values) {
            let is_new = (extent.base_offset.0..extent.end_offset.0).contains(&offset);
            let expected = if is_new { vec![200; bytes] } else { vec![offset as u8; 2500] };
            assert!(*value == expected, "offset {offset}");
        }
    }
}

#[test]
fn a_reader_of_an_extent_that_is_replaced_continues_after_its_last_record() {
    for first_bytes in [3000, 9000] {
        for steps in 0..30 {
            let mut bed = Bed::new(5);
            let slot = bed.slot(0);
            log(&mut bed, slot, 40);
            // Evicts it from the cache.
            let mut bed = bed.restart();
            let slot = bed.slot(0);
            let extent = bed.store.rewritable_extents(slot).nth(1).expect("it has several");
            let ReadResult::Frames(frames) = bed.read(slot, Cursor::at(extent.base_offset), first_bytes)
            else {
                panic!("it is durable")
            };
            let cursor = frames.next;
            let dropped = extent.base_offset.0..cursor.offset().0 + 2;
            bed.store
                .rewrite(slot, extent.base_index, 1, Box::new(drop_offsets(dropped.clone())))
                .expect("it begins");
            for _ in 0..steps {
                bed.step();
            }
            // The read is in flight before, while or after the extents are replaced.
            let limits = ReadLimits { bytes_max: 3000, memory_bytes_max: usize::MAX };
            let outcome = bed.store.read(&mut bed.disk, slot, cursor, limits, Offset(i64::MAX));
            let other = bed.slot(1);
            for n in 0..6 {
                let _ = bed.try_append(other, &filled(n, 6000));
            }
            let result = match outcome {
                highwater_storage::ReadOutcome::Ready(result) => result,
                highwater_storage::ReadOutcome::Pending(id) => loop {
                    if let Some(result) = bed.reads.remove(&id) {
                        break result;
                    }
                    assert!(bed.step(), "a read was never answered");
                },
            };
            let ReadResult::Frames(frames) = result else { panic!("{result:?}") };
            let mut records = Vec::new();
            support::records_of(&frames.bytes[0], cursor.offset().0, &mut records);
            let found = (records[0].0, records[0].2[0]);
            let either = [cursor.offset().0, cursor.offset().0 + 2].map(|offset| (offset, offset as u8));
            assert!(either.contains(&found), "steps {steps}: {found:?}");
        }
    }
}

/// Creates a log of two epochs whose first extent does not begin with an epoch start.
#[test]
fn epochs_and_producers_are_recovered_without_the_map() {
    let mut bed = Bed::new(11);
    let slot = bed.slot(0);
    for n in 0..40_u8 {
        let epoch = LeaderEpoch(if n < 4 { 1 } else { 3 });
        let batch = if n < 6 {
            batch_of(Compression::None, producer(7, 0, i32::from(n)), 1000 + i64::from(n), &[&[n; 2500]])
        } else {
            batch_at(1000 + i64::from(n), &[&[n; 2500]])
        };
        loop {
            let payload = support::small(&batch);
            match bed.store.append(&mut bed.disk, slot, payload, epoch, 0) {
                Err(AppendError::Busy) => assert!(bed.step()),
                Ok(_) => break,
                Err(e) => panic!("{e}"),
            }
        }
        bed.settle();
    }
    let outcome = rewrite(&mut bed, slot, 2, drop_offsets(0..12)).expect("it is whole");
    assert_eq!(outcome.batches_before - outcome.batches_after, 11, "the last batch of the producer stays");
    let kept: Vec<i64> = (0..40).filter(|offset| *offset == 5 || *offset >= 12).collect();
    let mut bed = check_over_starts(bed, &kept);
    let slot = bed.slot(0);
    for (index, epoch) in [(0, 1), (3, 1), (4, 3), (11, 3), (39, 3)] {
        assert!(bed.store.contains(slot, LogIndex(index), LeaderEpoch(epoch)), "index {index}");
    }
    let end = bed.store.epoch_end(slot, LeaderEpoch(1)).end;
    assert_eq!(end, Some(LogPoint { index: LogIndex(4), offset: Offset(4) }));
    let again = batch_of(Compression::None, producer(7, 0, 5), 1005, &[&[5; 2500]]);
    let is_known = |outcome| matches!(outcome, Err(AppendError::Duplicate { base_offset: Offset(5), .. }));
    assert!(is_known(bed.try_append(slot, &again)));
}

/// What happens to a log while it is being rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meanwhile {
    Deleted,
    StartMoved,
    StartMovedWithin,
    Requested,
    Stopped,
    NoSpaceForWrite,
    NoSpaceForSync,
}

#[test]
fn an_aborted_rewrite_changes_nothing() {
    use Meanwhile::*;
    for what in [Deleted, StartMoved, StartMovedWithin, Requested, Stopped, NoSpaceForWrite, NoSpaceForSync] {
        for steps in 0..8 {
            let mut bed = Bed::new(13);
            let slot = bed.slot(0);
            log(&mut bed, slot, 40);
            let used = |bed: &Bed| bed.store.stats().slab_bytes - bed.store.stats().free_bytes;
            let used_before = used(&bed);
            let second = bed.store.rewritable_extents(slot).nth(1).expect("it has several");
            bed.rewrite_bytes = 4000;
            bed.store.rewrite(slot, second.base_index, 1, Box::new(drop_offsets(0..30))).expect("it begins");
            for _ in 0..steps {
                bed.step();
            }
            if bed.saw(|e| matches!(e, StoreEvent::Rewritten { .. })) {
                assert!(steps > 4, "{steps}");
                break;
            }
            let start = if what == StartMovedWithin { second.base_offset.0 + 1 } else { second.end_offset.0 };
            let slab = "/data/store-000/slab-000000";
            match what {
                Deleted => bed.store.delete_partition(&mut bed.disk, slot),
                StartMoved | StartMovedWithin => {
                    bed.store.set_log_start(&mut bed.disk, slot, Offset(start)).expect("it is in the log");
                }
                Requested => bed.store.abort_rewrite(),
                Stopped => bed.store.shutdown(&mut bed.disk),
                NoSpaceForWrite => bed.disk.disk().inject(Fault::write_no_space(slab).times(1)),
                NoSpaceForSync => bed.disk.disk().inject(Fault::sync_no_space(slab).times(1)),
            }
            bed.settle();
            let expected = match what {
                Deleted | StartMoved | Stopped => Some(RewriteAborted::Changed),
                StartMovedWithin => None,
                Requested => Some(RewriteAborted::Requested),
                NoSpaceForWrite | NoSpaceForSync => Some(RewriteAborted::NoSpace),
            };
            bed.disk.disk().clear_faults();
            let ended = outcome(&mut bed);
            if what == NoSpaceForWrite || what == NoSpaceForSync {
                // The last write or sync may have completed.
                assert!(ended.is_ok() || ended.err() == expected, "{what:?} after {steps}: {ended:?}");
            } else {
                assert_eq!(ended.err(), expected, "{what:?} after {steps}");
            }
            match what {
                Deleted => assert_eq!(used(&bed), 0, "after {steps}"),
                Requested => assert_eq!(used(&bed), used_before, "after {steps}"),
                Stopped => assert!(bed.saw(|e| matches!(e, StoreEvent::Closed)), "after {steps}"),
                _ => {}
            }
            let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
            assert_eq!(bed.report.findings, []);
            let slot = bed.slot(0);
            if what == Deleted {
                assert_eq!(bed.store.bounds(slot).append_end, Offset(0));
                continue;
            }
            let from = if what == StartMoved || what == StartMovedWithin { start } else { 0 };
            let gone = ended.map(|_| second.base_offset.0..second.end_offset.0.min(30)).unwrap_or_default();
            let kept: Vec<i64> = (from..40).filter(|offset| !gone.contains(offset)).collect();
            check(&mut bed, slot, &kept);
        }
    }
}

#[test]
fn a_log_is_not_rewritten_while_it_is_truncated() {
    let mut bed = Bed::new(17);
    let quorum = PartitionConfig { commit: CommitRule::Quorum, ..PartitionConfig::KEEP_ALL };
    let slot = bed.store.ensure_partition(tp(0), quorum);
    log(&mut bed, slot, 40);
    assert_eq!(bed.store.rewritable_extents(slot).count(), 0, "nothing is committed");
    bed.store.note_commit(slot, LogPoint { index: LogIndex(20), offset: Offset(20) });
    let extents: Vec<_> = bed.store.rewritable_extents(slot).collect();
    assert!(extents.last().is_some_and(|last| last.end_index <= LogIndex(20)), "{extents:?}");
    bed.store.rewrite(slot, extents[0].base_index, 1, Box::new(drop_offsets(0..3))).expect("it begins");
    bed.step();
    bed.store.truncate_suffix(&mut bed.disk, slot, LogIndex(20)).expect("it is not committed");
    assert_eq!(bed.store.rewrite(slot, LogIndex(0), 1, Box::new(drop_offsets([]))), Err(RewriteError::Busy));
    bed.settle();
    assert_eq!(outcome(&mut bed), Err(RewriteAborted::Changed));
    let kept: Vec<i64> = (0..20).collect();
    check(&mut bed, slot, &kept);
}

#[test]
fn a_damaged_frame_aborts_a_rewrite() {
    let mut bed = Bed::new(19);
    let slot = bed.slot(0);
    log(&mut bed, slot, 40);
    let mut bed = bed.restart();
    let slot = bed.slot(0);
    let second = bed.store.rewritable_extents(slot).nth(1).expect("it has several");
    let mut image = bed.restart().disk.disk().image();
    let slab = Path::new("/data/store-000/slab-000000");
    let mut bytes = image.read(slab).expect("it is there");
    let value = [second.base_offset.0 as u8 + 1; 1000];
    let at = bytes.windows(value.len()).position(|window| window == value).expect("the record is there");
    bytes[at] ^= 1;
    image.put(slab, &bytes);
    let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(&image, 2)), config());
    let slot = bed.slot(0);
    bed.store.rewrite(slot, second.base_index, 1, Box::new(drop_offsets([]))).expect("it begins");
    bed.settle();
    assert_eq!(outcome(&mut bed), Err(RewriteAborted::Damaged));
    let (records, skipped) = bed.read_all(slot, 0, 6000);
    assert_eq!((records.len(), skipped.len()), (39, 1));
}

/// Planted bugs, each of which these tests must find: `cargo test -p highwater-storage --features mutants --test rewriting mutants`.
#[cfg(feature = "mutants")]
mod mutants {
    use highwater_storage::mutants::Mutant;

    use super::support::is_found;

    #[test]
    fn forgetting_that_frames_may_be_missing_is_found() {
        is_found(
            Mutant::ForgetGapFlag,
            super::a_rewrite_removes_dropped_records_and_keeps_all_others_at_their_offsets,
        );
    }

    #[test]
    fn continuing_to_append_to_a_replaced_extent_is_found() {
        is_found(
            Mutant::ReadReplacedExtent,
            super::a_reader_of_an_extent_that_is_replaced_continues_after_its_last_record,
        );
    }

    #[test]
    fn dropping_the_last_batch_of_a_producer_is_found() {
        is_found(Mutant::DropLastOfProducer, super::epochs_and_producers_are_recovered_without_the_map);
    }
}
