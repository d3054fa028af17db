//! Logs to which nothing is appended any more: they are compacted to their end, and their tombstones go.

use highwater_protocol::batch::{BatchProducer, Compression};
use highwater_protocol::ids::Offset;
use highwater_runtime::sim::{CrashPolicy, DiskHarness, SimDisk};
use highwater_storage::compaction::{Pass, PassLimits};
use highwater_storage::{MacKey, PartitionConfig, StoreConfig};

use crate::support::{self, Bed, HOUR_MS, journal_in_half_of, tp, without_map};
use crate::{COMPACTION, LIMITS, append, backlog, batch, compact, records, start, turn};

/// Looks at the partitions as the broker does from time to time, until nothing follows from it.
fn retain(bed: &mut Bed) {
    for _ in 0..3 {
        let wall_ms = bed.wall_ms;
        while bed.store.enforce_retention(&mut bed.disk, wall_ms) {}
        bed.settle();
    }
}

/// What can happen to a store between two of its lives.
const ENDS: [fn(Bed) -> Bed; 4] = [
    |bed| bed,
    Bed::restart,
    |bed| bed.crash(CrashPolicy::LOSE_ALL),
    |bed| {
        let disk = SimDisk::from_image(&without_map(bed.disk.disk().image()), 7);
        Bed { wall_ms: bed.wall_ms, ..Bed::on(DiskHarness::on(disk), bed.config) }
    },
];

#[test]
pub(crate) fn the_last_extent_of_a_log_that_no_longer_grows_is_compacted_once_it_is_old_enough() {
    for (seed, end) in (0..8).zip(ENDS.into_iter().cycle()) {
        let limits = journal_in_half_of(seed / 4);
        let mut bed = Bed::with(seed, StoreConfig { limits, ..support::config() });
        let config =
            PartitionConfig { segment_ms: 500, compaction: Some(COMPACTION), ..PartitionConfig::KEEP_ALL };
        let slot = bed.store.ensure_partition(tp(0), config);
        append(&mut bed, slot, &[("a", Some("1")), ("b", Some("2"))]);
        append(&mut bed, slot, &[("a", Some("3"))]);
        append(&mut bed, slot, &[("b", None)]);
        retain(&mut bed);
        assert!(start(&bed, slot, 1 << 20).is_none(), "its segment has not ended");
        bed.wall_ms += 1000;
        retain(&mut bed);
        compact(&mut bed, slot);
        let left = [(2, "a".to_owned(), Some("3".to_owned())), (3, "b".to_owned(), None)];
        assert_eq!(records(&mut bed, slot), left);
        assert!(start(&bed, slot, 1 << 20).is_none(), "all of it is clean");
        bed.settle();
        let mut bed = end(bed);
        assert_eq!(bed.report.findings, []);
        let slot = bed.store.ensure_partition(tp(0), config);
        assert_eq!(records(&mut bed, slot), left);
        // The log goes on, and its next part is compacted with the first.
        append(&mut bed, slot, &[("a", None)]);
        bed.wall_ms += 500;
        retain(&mut bed);
        compact(&mut bed, slot);
        let left = [(3, "b".to_owned(), None), (4, "a".to_owned(), None)];
        assert_eq!(records(&mut bed, slot), left);
        bed.settle();
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = bed.store.ensure_partition(tp(0), config);
        assert_eq!((records(&mut bed, slot), &bed.report.findings[..]), (left.to_vec(), &[][..]));
        append(&mut bed, slot, &[("c", Some("4"))]);
        assert_eq!(bed.store.bounds(slot).durable_end, Offset(6));
    }
}

#[test]
pub(crate) fn tombstones_at_the_end_of_a_log_that_no_longer_grows_go_after_their_time() {
    let config =
        PartitionConfig { segment_ms: 1000, compaction: Some(COMPACTION), ..PartitionConfig::KEEP_ALL };
    for (seed, end) in (0..).zip(ENDS) {
        let mut bed = Bed::new(seed);
        let slot = bed.store.ensure_partition(tp(0), config);
        append(&mut bed, slot, &[("a", Some("1")), ("b", Some("2"))]);
        bed.wall_ms += 1000;
        append(&mut bed, slot, &[("a", Some("3")), ("c", None)]);
        append(&mut bed, slot, &[("b", None)]);
        bed.wall_ms += 1000;
        retain(&mut bed);
        compact(&mut bed, slot);
        let tombstones = |bed: &mut Bed| records(bed, slot).into_iter().filter(|r| r.2.is_none()).count();
        assert_eq!(tombstones(&mut bed), 2);
        bed.settle();
        bed.wall_ms += COMPACTION.delete_retention_ms - 1;
        let mut bed = end(bed);
        let again = bed.store.ensure_partition(tp(0), config);
        assert_eq!(again, slot);
        retain(&mut bed);
        assert!(start(&bed, slot, 1 << 20).is_none(), "their time has not come");
        bed.wall_ms += 1;
        let outcome = compact(&mut bed, slot);
        assert_eq!(outcome.cleaned.tombstones, 2);
        assert_eq!(records(&mut bed, slot), [(2, "a".to_owned(), Some("3".to_owned()))]);
        assert_eq!(bed.store.bounds(slot).durable_end, Offset(5));
        bed.wall_ms += HOUR_MS;
        assert!(start(&bed, slot, 1 << 20).is_none(), "nothing is left to remove");
    }
}

#[test]
fn tombstones_that_cannot_be_removed_cause_one_pass_and_not_one_after_the_other() {
    let mut bed = Bed::new(1);
    let config =
        PartitionConfig { segment_ms: 1000, compaction: Some(COMPACTION), ..PartitionConfig::KEEP_ALL };
    let slot = bed.store.ensure_partition(tp(0), config);
    let value = "x".repeat(300);
    let changes = [("a", None), ("b", Some(&*value))];
    bed.append_durably(slot, &batch(Compression::Lz4, BatchProducer::NONE, &changes));
    bed.wall_ms += 1000;
    retain(&mut bed);
    compact(&mut bed, slot);
    bed.wall_ms += COMPACTION.delete_retention_ms;
    // The batch cannot be decompressed any more: a shard has less memory.
    let limits = PassLimits { decompressed_bytes_max: 8, ..LIMITS };
    let backlog = backlog(&bed, slot, &COMPACTION);
    let mut pass =
        Pass::new(slot, &backlog, &COMPACTION, limits, MacKey([3; 16]), bed.wall_ms).expect("it is due");
    while turn(&mut bed, &mut pass).is_none() {}
    assert_eq!(pass.outcome().cleaned.unreadable, 1);
    assert_eq!(records(&mut bed, slot).len(), 2);
    assert!(start(&bed, slot, 1 << 20).is_none());
}
