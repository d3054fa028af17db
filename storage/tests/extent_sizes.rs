//! Sizes of extents: small partitions use little space, growing ones soon get larger extents, and freed space is merged.

mod support;

use highwater_protocol::ids::Offset;
use highwater_protocol::limits::BATCH_BYTES_MAX;
use highwater_runtime::fs::Fs as _;
use highwater_runtime::sim::{CrashPolicy, DiskHarness, SimDisk};
use highwater_storage::limits::UNACKED_BYTES_MAX;
use highwater_storage::{StoreConfig, StoreEvent, StoreLimits};
use support::{Bed, batch, config, filled, tp, without_map};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn with(limits: StoreLimits) -> StoreConfig {
    StoreConfig { limits, ..config() }
}

/// Returns the size of the store's files whose names begin with the prefix.
fn file_bytes(bed: &mut Bed, prefix: &str) -> u64 {
    let files = bed.disk.list("/data/store-000".as_ref()).expect("the folder is there");
    files.iter().filter(|file| file.name.starts_with(prefix)).map(|file| file.bytes).sum()
}

#[test]
fn ten_thousand_partitions_with_a_small_record_use_16_kib_each_and_free_all_of_it() {
    const PARTITIONS: u32 = 10_000;
    let limits = StoreLimits {
        payload_bytes_max: BATCH_BYTES_MAX,
        unacked_bytes_max: UNACKED_BYTES_MAX,
        ..StoreLimits::default()
    };
    let mut bed = Bed::with(1, with(limits));
    for n in 0..PARTITIONS {
        let slot = bed.slot(n);
        bed.append(slot, &batch(&[b"one small record"]));
        if n % 500 == 499 {
            bed.settle();
        }
    }
    let used = |bed: &Bed| bed.store.stats().slab_bytes - bed.store.stats().free_bytes;
    assert_eq!(used(&bed), u64::from(PARTITIONS) * 16 * KIB);
    // Slabs are made ahead, each twice as large as the one before.
    assert!(file_bytes(&mut bed, "slab-") <= 2 * used(&bed));
    // The journal and two copies of the map.
    assert!(file_bytes(&mut bed, "") - file_bytes(&mut bed, "slab-") <= 40 * MIB);
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    assert_eq!((bed.report.partitions, &bed.report.findings[..]), (PARTITIONS as usize, &[][..]));
    assert_eq!(used(&bed), u64::from(PARTITIONS) * 16 * KIB);
    for n in 0..PARTITIONS {
        let slot = bed.slot(n);
        if n % 1000 == 0 {
            assert_eq!(bed.values(slot), [b"one small record".to_vec()]);
        }
        bed.store.delete_partition(&mut bed.disk, slot);
        if n % 500 == 499 {
            bed.settle();
        }
    }
    bed.settle();
    for n in [0, PARTITIONS / 2, PARTITIONS - 1] {
        assert!(bed.saw(|e| matches!(e, StoreEvent::Deleted { tp: gone } if *gone == tp(n))));
    }
    // Entirely free slabs have been removed, except for one, whose free space has been merged.
    let slab_bytes = bed.store.stats().slab_bytes;
    assert_eq!((used(&bed), slab_bytes), (0, file_bytes(&mut bed, "slab-")));
    assert!(slab_bytes <= 2 * limits.slab_bytes_first);
    let slot = bed.slot(0);
    bed.append(slot, &filled(1, slab_bytes as usize * 9 / 16));
    assert_eq!((used(&bed), bed.store.stats().slab_bytes), (slab_bytes, slab_bytes));
    bed.settle();
}

#[test]
fn a_growing_partition_uses_few_extents() {
    let mut bed = Bed::with(2, with(StoreLimits::default()));
    let slot = bed.slot(0);
    let mut sizes = Vec::new();
    for n in 0..1500u32 {
        bed.append_durably(slot, &filled(n as u8, 1000));
        let stats = bed.store.stats();
        let used = stats.slab_bytes - stats.free_bytes;
        if sizes.last() != Some(&used) {
            sizes.push(used);
        }
    }
    assert_eq!(sizes, [16, 80, 336, 848, 1872].map(|kib| kib * KIB));
    let bed = bed.restart();
    assert_eq!((bed.report.extents, &bed.report.findings[..]), (5, &[][..]));
}

#[test]
fn a_large_first_batch_gets_the_smallest_extent_that_holds_it() {
    let mut bed = Bed::with(3, with(StoreLimits::default()));
    for (n, (bytes, extent)) in
        [(11_000, 16), (13_000, 32), (40_000, 64), (70_000, 128)].into_iter().enumerate()
    {
        let before = bed.store.stats();
        let slot = bed.slot(n as u32);
        bed.append_durably(slot, &filled(7, bytes));
        let after = bed.store.stats();
        let used = (after.slab_bytes - after.free_bytes) - (before.slab_bytes - before.free_bytes);
        assert_eq!(used, extent * KIB, "{bytes} bytes");
    }
}

#[test]
fn a_store_with_extents_of_256_kib_and_more_is_continued_with_small_ones_and_rebuilt_with_both() {
    let earlier = StoreLimits { extent_bytes_min: 256 << 10, ..StoreLimits::default() };
    for journal_bytes in [0, earlier.journal_bytes] {
        let mut bed = Bed::with(4, with(StoreLimits { journal_bytes, ..earlier }));
        let mut expected: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 6];
        for n in 0..90u8 {
            let at = usize::from(n) % 3;
            let slot = bed.slot(at as u32);
            bed.append_durably(slot, &filled(n, 9_000));
            expected[at].push(vec![n; 9_000]);
        }
        bed.disk.crash(CrashPolicy::LOSE_ALL);
        let mut bed = Bed::on(bed.disk, with(StoreLimits { journal_bytes, ..StoreLimits::default() }));
        for n in 90..200u8 {
            let at = usize::from(n) % 6;
            let slot = bed.slot(at as u32);
            bed.append_durably(slot, &filled(n, 9_000));
            expected[at].push(vec![n; 9_000]);
        }
        let disk = SimDisk::from_image(&without_map(bed.disk.disk().image()), 4);
        let lost = Bed::on(DiskHarness::on(disk), bed.config.clone());
        assert!(lost.report.map_rebuilt);
        for mut bed in [bed.crash(CrashPolicy::LOSE_ALL), lost.crash(CrashPolicy::LOSE_ALL)] {
            assert_eq!(bed.report.findings, []);
            for (at, expected) in expected.iter().enumerate() {
                let slot = bed.slot(at as u32);
                assert_eq!(&bed.values(slot), expected);
            }
        }
    }
}

#[test]
fn stale_frames_of_a_freed_extent_are_not_mistaken_for_an_extent_without_a_header() {
    let mut bed = Bed::new(5);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    // Bulk frames: some of them begin where the first frame of a small extent would.
    for n in 0..60u8 {
        bed.try_append_bulk(slot, &filled(n, 12_000)).expect("it is taken");
        bed.settle();
    }
    bed.store.set_log_start(&mut bed.disk, slot, Offset(50)).expect("it is in the log");
    bed.settle();
    for n in 2..12 {
        let small = bed.slot(n);
        bed.append_durably(small, &batch(&[b"takes the place of the header"]));
    }
    bed.append_durably(other, &batch(&[b"x"]));
    let lost = without_map(bed.disk.disk().image());
    let mut bed = Bed::on(DiskHarness::on(SimDisk::from_image(&lost, 5)), config());
    assert!(bed.report.map_rebuilt);
    assert_eq!(bed.report.findings, []);
    assert!(bed.report.warnings.iter().all(|w| !w.contains("without its header")), "{:?}", bed.report);
    let slot = bed.slot(0);
    bed.append_durably(slot, &filled(60, 500));
}
