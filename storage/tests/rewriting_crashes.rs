//! Rewriting over power cuts: at every step of the disk, whichever unsynced writes are lost, kept or torn, the log has every record that no filter
//! has dropped, with and without the map.

mod support;

use std::collections::BTreeSet;

use highwater_protocol::batch::BatchView;
use highwater_protocol::ids::Offset;
use highwater_runtime::sim::{DiskHarness, DiskImage, SimDisk};
use highwater_storage::{
    AppendError, BatchFilter, CompactionConfig, DurableForm, PartitionConfig, PartitionSlot, ReadResult,
    StoreConfig, StoreEvent, Verdict,
};
use support::{Bed, batch_at, config, filled, journal_in_half_of, tp, without_map};

const RECORDS: u8 = 36;

/// Drops every batch whose offset has this remainder.
#[derive(Clone, Copy, Debug)]
struct DropEvery {
    divisor: i64,
    rest: i64,
}

impl DropEvery {
    fn drops(self, offset: i64) -> bool {
        offset % self.divisor == self.rest
    }
}

impl BatchFilter for DropEvery {
    fn filter(&mut self, batch: &BatchView<'_>, _: bool, _: &mut Vec<u8>) -> Verdict {
        if self.drops(batch.header().base_offset().0) { Verdict::Drop } else { Verdict::Keep }
    }
}

/// Returns the offsets that may be missing: those that the filters of all rewrites so far drop.
type MayBeGone = BTreeSet<i64>;

/// Starts to rewrite extents from this number on.
fn begin(bed: &mut Bed, slot: PartitionSlot, at: usize, filter: DropEvery, gone: &mut MayBeGone) -> bool {
    let extents: Vec<_> = bed.store.rewritable_extents(slot).skip(at).collect();
    let Some(first) = extents.first() else { return false };
    let begun = |bed: &mut Bed, count| {
        bed.store.rewrite(slot, first.base_index, count, Box::new(filter)).is_ok().then_some(count)
    };
    let count =
        begun(bed, 3).or_else(|| begun(bed, 2)).or_else(|| begun(bed, 1)).expect("one can be rewritten");
    let range = first.base_offset.0..extents[count - 1].end_offset.0;
    gone.extend(range.filter(|offset| filter.drops(*offset)));
    true
}

/// Ends the last extent of the log, as happens when it is compacted and no longer grows: it can be rewritten too.
fn end_last_extent(bed: &mut Bed) {
    let config = PartitionConfig {
        segment_ms: 0,
        compaction: Some(CompactionConfig::default()),
        ..PartitionConfig::KEEP_ALL
    };
    let slot = bed.store.ensure_partition(tp(0), config);
    for _ in 0..2 {
        let wall_ms = bed.wall_ms;
        bed.store.enforce_retention(&mut bed.disk, wall_ms);
        bed.settle();
    }
    let last = bed.store.rewritable_extents(slot).last().expect("it has extents");
    assert_eq!(last.end_offset, Offset(i64::from(RECORDS)));
}

/// Appends to another log, which reuses freed space.
fn append_to_other_log(bed: &mut Bed, n: u8) {
    let config =
        PartitionConfig { retention_bytes: Some(20_000), segment_bytes: 9000, ..PartitionConfig::KEEP_ALL };
    let other = bed.store.ensure_partition(tp(1), config);
    match bed.try_append(other, &filled(n, 4000)) {
        Ok(_) | Err(AppendError::Busy | AppendError::StorageFull) => {}
        // Retention had freed extents of it, and their headers were found when the map was rebuilt.
        Err(AppendError::Faulty) if bed.report.map_rebuilt => {}
        Err(e) => panic!("{e}"),
    }
}

/// Checks that the first log has everything that it must have, in order, and nothing else.
fn check(bed: &mut Bed, gone: &MayBeGone, end: i64) -> Result<(), String> {
    if let Some((_, finding)) = bed.report.findings.iter().find(|(of, _)| *of == tp(0)) {
        return Err(format!("{finding:?}"));
    }
    let slot = bed.slot(0);
    let bounds = bed.store.bounds(slot);
    if (bounds.faulty, bounds.log_start, bounds.durable_end) != (false, Offset(0), Offset(end)) {
        return Err(format!("{bounds:?} {:?}", bed.report));
    }
    let (records, skipped) = bed.read_all(slot, 0, 9000);
    if !skipped.is_empty() {
        return Err(format!("{skipped:?} are damaged"));
    }
    let found: BTreeSet<i64> = records.iter().map(|record| record.0).collect();
    for (offset, _, value) in &records {
        if value[..] != vec![*offset as u8; value.len()][..] || value.len() != 2500 {
            return Err(format!("offset {offset} has other bytes"));
        }
    }
    let missing: Vec<i64> =
        (0..end).filter(|offset| !found.contains(offset) && !gone.contains(offset)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
}

/// Recovers an image, rewrites once more, and cuts the power again.
fn check_image(image: &DiskImage, config: &StoreConfig, gone: &MayBeGone, seed: u64) -> Result<(), String> {
    let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(image, seed)), config.clone());
    check(&mut bed, gone, i64::from(RECORDS))?;
    let mut gone = gone.clone();
    let slot = bed.slot(0);
    let filter = DropEvery { divisor: 5, rest: seed as i64 % 5 };
    if begin(&mut bed, slot, seed as usize % 2, filter, &mut gone) {
        for n in 0..(seed % 24) as u8 {
            append_to_other_log(&mut bed, n);
            bed.step();
        }
    }
    let policy = support::CRASH_POLICIES[seed as usize % 4];
    let mut bed = bed.crash(policy);
    check(&mut bed, &gone, i64::from(RECORDS)).map_err(|why| format!("after another power cut: {why}"))
}

/// Returns what is wrong, if anything is.
fn run(seed: u64) -> Result<usize, String> {
    let durable_form = if seed.is_multiple_of(3) { DurableForm::SyncPerRound } else { DurableForm::Dsync };
    let config = StoreConfig { durable_form, limits: journal_in_half_of(seed), ..config() };
    let mut bed = Bed::with(seed, config.clone());
    bed.rewrite_bytes = 6000;
    let slot = bed.slot(0);
    for n in 0..RECORDS {
        bed.append_durably(slot, &batch_at(1000, &[&[n; 2500]]));
        if n % 3 == 0 {
            append_to_other_log(&mut bed, n);
        }
    }
    bed.settle();
    bed.disk.disk().record();
    let (mut gone, mut gone_by_mark) = (MayBeGone::new(), vec![MayBeGone::new()]);
    for (round, at) in [1, 0, 2, 1, 0].into_iter().enumerate() {
        if round == 2 {
            end_last_extent(&mut bed);
        }
        let filter = DropEvery { divisor: 4, rest: (round as i64 + seed as i64) % 4 };
        let has_begun = begin(&mut bed, slot, at, filter, &mut gone);
        gone_by_mark.push(gone.clone());
        bed.disk.disk().mark(round as u64);
        bed.events.clear();
        let mut n: u8 = 0;
        while has_begun && !bed.saw(|event| matches!(event, StoreEvent::Rewritten { .. })) {
            append_to_other_log(&mut bed, n);
            bed.step();
            n = n.checked_add(1).expect("a rewrite comes to its end");
        }
        // Freed space is reused.
        for n in 0..8 {
            append_to_other_log(&mut bed, n);
            bed.step();
            bed.step();
        }
        let wall_ms = bed.wall_ms;
        bed.store.enforce_retention(&mut bed.disk, wall_ms);
    }
    bed.settle();
    let recording = bed.disk.disk().take_recording();
    let mut tried = 0;
    for (n, cut) in recording.crash_images(seed, 1).enumerate() {
        let gone = &gone_by_mark[cut.marks];
        let at = |why: String| {
            format!("seed {seed}, image {n} (event {}, variant {}): {why}", cut.events, cut.variant)
        };
        check_image(&cut.image, &config, gone, seed ^ n as u64).map_err(at)?;
        check_image(&without_map(cut.image), &config, gone, seed ^ n as u64)
            .map_err(|why| at(format!("without the map: {why}")))?;
        tried += 2;
    }
    Ok(tried)
}

#[test]
fn no_power_cut_during_a_rewrite_loses_a_kept_record_with_or_without_the_map() {
    let seeds = if std::env::var("HIGHWATER_PROOF").is_ok_and(|value| value == "long") { 60 } else { 4 };
    let tried: usize = (0..seeds).map(|seed| run(seed).unwrap_or_else(|why| panic!("{why}"))).sum();
    println!("{tried} images");
    assert!(tried > 1000, "{tried}");
}

/// Reads are in flight while their extents are replaced and the space is overwritten.
#[test]
fn a_read_of_an_extent_whose_space_was_reused_meanwhile_is_repeated() {
    let mut met = 0;
    for seed in 0..40 {
        let mut bed = Bed::new(seed);
        let slot = bed.slot(0);
        for n in 0..RECORDS {
            bed.append_durably(slot, &batch_at(1000, &[&[n; 2500]]));
        }
        let mut bed = bed.restart();
        let slot = bed.slot(0);
        let mut gone = MayBeGone::new();
        begin(&mut bed, slot, 0, DropEvery { divisor: 2, rest: 0 }, &mut gone);
        let limits = highwater_storage::ReadLimits { bytes_max: 3000, memory_bytes_max: usize::MAX };
        let mut pending = Vec::new();
        for n in 0..60 {
            let offset = i64::from(n) % 8;
            let cursor = highwater_storage::Cursor::at(Offset(offset));
            match bed.store.read(&mut bed.disk, slot, cursor, limits, Offset(i64::MAX)) {
                highwater_storage::ReadOutcome::Ready(result) => check_read(offset, &result),
                highwater_storage::ReadOutcome::Pending(id) => pending.push((id, offset)),
            }
            append_to_other_log(&mut bed, n);
            bed.step();
        }
        let is_done = bed.saw(|event| matches!(event, StoreEvent::Rewritten { .. }));
        met += usize::from(is_done && !pending.is_empty());
        bed.settle();
        for (id, offset) in pending {
            check_read(offset, &bed.reads[&id]);
        }
    }
    assert!(met > 10, "{met}");
}

/// Checks that a read at an offset returns its record, or the next one if it was dropped.
fn check_read(offset: i64, result: &ReadResult) {
    let ReadResult::Frames(frames) = result else { panic!("offset {offset}: {result:?}") };
    let mut records = Vec::new();
    support::records_of(&frames.bytes[0], offset, &mut records);
    let found = (records[0].0, records[0].2[0]);
    let next = offset + 1 - offset % 2;
    assert!([offset, next].iter().any(|o| found == (*o, *o as u8)), "offset {offset}: {found:?}");
}

/// Planted bugs, each of which the proof must find: `cargo test -p highwater-storage --features mutants --test rewriting_crashes mutants`.
#[cfg(feature = "mutants")]
mod mutants {
    use highwater_storage::mutants::Mutant;

    /// Maximum number of seeds before a bug has to be found.
    const SEEDS_MAX: u64 = 20;

    fn is_found(mutant: Mutant) {
        crate::support::is_found_within(SEEDS_MAX, mutant, super::run);
    }

    #[test]
    fn replacing_extents_before_the_frames_are_synced_is_found() {
        is_found(Mutant::SwapBeforeSync);
    }

    #[test]
    fn freeing_replaced_extents_before_the_map_is_durable_is_found() {
        is_found(Mutant::FreeReplacedAtOnce);
    }

    #[test]
    fn preferring_the_old_generation_is_found() {
        is_found(Mutant::PreferOldGeneration);
    }
}
