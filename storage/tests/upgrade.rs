//! Stores written by earlier versions can be opened, read and continued.

mod support;

use std::io::Read as _;

use flate2::read::GzDecoder;
use highwater_protocol::batch::Compression;
use highwater_protocol::frame::{
    FRAME_VERSION, FRAME_VERSION_WITHOUT_COMMIT, FRAME_VERSION_WITHOUT_MAC, Frames,
};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_runtime::sim::{CrashPolicy, DiskHarness, DiskImage, SimDisk};
use highwater_storage::{AppendError, Cursor, LogPoint, PartitionSlot, ReadResult, StoreConfig, StoreLimits};
use support::{Bed, batch_of, config, filled, producer, without_map};

/// Two partitions of twelve records each, from the last version whose frames had no codes: stopped cleanly, and killed.
const STOPPED: &[u8] = include_bytes!("data/frames-1-stopped.gz");
const KILLED: &[u8] = include_bytes!("data/frames-1-killed.gz");

/// Two partitions, from the last version whose extents had no sequence: stopped cleanly, and killed.
///
/// Partition 0 has 40 records of producer 7, of which the first 22 are deleted, in several extents. Partition 1 has 40 records. In both, an
/// epoch begins after 25 records, in the middle of an extent. A third partition was deleted, and its space reused.
const STOPPED_2: &[u8] = include_bytes!("data/frames-2-stopped.gz");
const KILLED_2: &[u8] = include_bytes!("data/frames-2-killed.gz");

/// Two partitions of 40 records each, of producer 7 in partition 0, whose first 22 records are deleted: from the last version without a journal.
const STOPPED_5: &[u8] = include_bytes!("data/map-5-stopped.gz");
const KILLED_5: &[u8] = include_bytes!("data/map-5-killed.gz");

/// The same, with a journal whose last entries the extents lack, and a third partition that was deleted: from the last version without write bounds.
const STOPPED_6: &[u8] = include_bytes!("data/map-6-stopped.gz");
const KILLED_6: &[u8] = include_bytes!("data/map-6-killed.gz");

/// Parses the files: for each the length of its path, the path, its length and its content.
fn image_of(packed: &[u8]) -> DiskImage {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).expect("it was packed like this");
    let mut image = DiskImage::default();
    let mut rest = &bytes[..];
    let mut field = || {
        let (length, behind) = rest.split_first_chunk().expect("a length");
        let (field, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        rest = behind;
        (field.to_vec(), rest.is_empty())
    };
    loop {
        let (path, _) = field();
        let (content, is_last) = field();
        image.put(std::str::from_utf8(&path).expect("a path").as_ref(), &content);
        if is_last {
            return image;
        }
    }
}

fn open(image: &DiskImage) -> Bed {
    Bed::on(DiskHarness::on(SimDisk::from_image(image, 2)), config())
}

fn expected() -> Vec<Vec<u8>> {
    (0..12u8).map(|n| vec![n; 1000 + 300 * usize::from(n)]).collect()
}

/// Returns the versions of the frames from an offset on.
fn versions(bed: &mut Bed, slot: PartitionSlot, from: i64) -> Vec<u8> {
    let mut cursor = Cursor::at(Offset(from));
    let mut versions = Vec::new();
    while let ReadResult::Frames(frames) = bed.read(slot, cursor, 4 << 10) {
        for bytes in &frames.bytes {
            versions.extend(Frames::new(bytes).map(|frame| frame.expect("a good frame").header().version));
        }
        cursor = frames.next;
    }
    versions
}

#[test]
fn a_store_whose_frames_have_no_codes_is_read_and_continued_with_frames_that_have_them() {
    for packed in [STOPPED, KILLED] {
        let mut bed = open(&image_of(packed));
        assert_eq!(
            (bed.report.partitions, &bed.report.findings[..], bed.report.map_rebuilt),
            (2, &[][..], false)
        );
        for partition in 0..2 {
            let slot = bed.slot(partition);
            assert_eq!(bed.values(slot), expected());
            assert!(versions(&mut bed, slot, 0).iter().all(|version| *version == FRAME_VERSION_WITHOUT_MAC));
        }
        let slot = bed.slot(0);
        bed.append_durably(slot, &filled(100, 500));
        bed.append_durably(slot, &filled(101, 500));
        let whole: Vec<_> = expected().into_iter().chain([vec![100; 500], vec![101; 500]]).collect();
        assert_eq!(bed.values(slot), whole);
        // Twice: after a crash, and after a stop.
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = bed.slot(0);
        assert_eq!((bed.values(slot), &bed.report.findings[..]), (whole.clone(), &[][..]));
        assert!(versions(&mut bed, slot, 12).iter().all(|version| *version > FRAME_VERSION_WITHOUT_MAC));
        let mut bed = bed.restart();
        let (slot, other) = (bed.slot(0), bed.slot(1));
        assert_eq!((bed.values(slot), bed.values(other)), (whole, expected()));
    }
}

/// The contents of the partitions of the second kind of store.
fn expected_2() -> [Vec<Vec<u8>>; 2] {
    let values =
        |range: std::ops::Range<u8>, bytes: fn(u8) -> usize| range.map(|n| vec![n; bytes(n)]).collect();
    [values(22..40, |n| 500 + 40 * usize::from(n)), values(0..40, |_| 300)]
}

fn sent(sequence: i32) -> bytes::Bytes {
    batch_of(Compression::None, producer(7, 0, sequence), 1000, &[&[sequence as u8; 700]])
}

/// Checks that both partitions are unchanged and know their epochs.
fn check_2(bed: &mut Bed, more: &[Vec<u8>]) {
    let [first, second] = expected_2();
    let (slot, other) = (bed.slot(0), bed.slot(1));
    assert_eq!(bed.report.findings, []);
    assert_eq!(bed.values(slot), [&first[..], more].concat());
    assert_eq!(bed.values(other), second);
    let bounds = bed.store.bounds(slot);
    assert_eq!((bounds.last_epoch, bounds.epoch_is_new), (Some(LeaderEpoch(3)), false));
    assert_eq!((bounds.commit.index, bounds.commit.offset), (bounds.durable_index, bounds.durable_end));
    for (slot, last) in [(slot, 3), (other, 2)] {
        let end = bed.store.epoch_end(slot, LeaderEpoch(1));
        let begin = LogPoint { index: LogIndex(25), offset: Offset(25) };
        assert_eq!((end.epoch, end.end), (LeaderEpoch(1), Some(begin)));
        let contains = |index, epoch| bed.store.contains(slot, LogIndex(index), LeaderEpoch(epoch));
        assert!(contains(24, 1) && contains(25, last) && contains(40, last));
        assert!(!contains(24, last) && !contains(25, 1) && !contains(99, last));
    }
}

#[test]
fn a_store_whose_extents_have_no_sequence_is_read_continued_and_knows_its_epochs() {
    for packed in [STOPPED_2, KILLED_2] {
        let mut bed = open(&image_of(packed));
        assert_eq!((bed.report.partitions, bed.report.map_rebuilt), (2, false));
        let slot = bed.slot(0);
        assert_eq!(bed.store.bounds(slot).log_start, Offset(22));
        check_2(&mut bed, &[]);
        assert!(versions(&mut bed, slot, 22).iter().all(|version| *version == FRAME_VERSION_WITHOUT_COMMIT));
        let again = bed.try_append(slot, &sent(39));
        assert!(matches!(again, Err(AppendError::Duplicate { base_offset: Offset(39), .. })), "{again:?}");
        let again = bed.try_append(slot, &sent(41));
        assert_eq!(again, Err(AppendError::OutOfOrder { expected: 40 }));
        bed.append_durably(slot, &sent(40));
        let more = [vec![40; 700]];
        check_2(&mut bed, &more);
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = bed.slot(0);
        check_2(&mut bed, &more);
        assert_eq!(versions(&mut bed, slot, 40), [FRAME_VERSION]);
        let mut bed = bed.restart();
        check_2(&mut bed, &more);
    }
}

#[test]
fn the_map_of_a_store_is_rebuilt_from_headers_with_and_without_a_sequence() {
    for (packed, appends) in [(STOPPED_2, 0), (KILLED_2, 0), (STOPPED_2, 1), (KILLED_2, 5)] {
        let mut bed = open(&image_of(packed));
        let slot = bed.slot(0);
        let more: Vec<_> = (0..appends).map(|n| vec![40 + n; 700]).collect();
        for n in 0..appends {
            bed.append_durably(slot, &sent(40 + i32::from(n)));
        }
        let mut bed = open(&without_map(bed.disk.disk().image()));
        assert!(bed.report.map_rebuilt);
        let slot = bed.slot(0);
        assert!(bed.store.bounds(slot).log_start <= Offset(22), "what was deleted may come back");
        let start = Offset(22);
        bed.store.set_log_start(&mut bed.disk, slot, start).expect("it is in the log");
        for _ in 0..2 {
            bed.settle();
            check_2(&mut bed, &more);
            bed = bed.crash(CrashPolicy::LOSE_ALL);
        }
    }
}

#[test]
fn a_store_without_a_journal_is_read_and_gets_one() {
    for packed in [STOPPED_5, KILLED_5] {
        let disk = DiskHarness::on(SimDisk::from_image(&image_of(packed), 2));
        let limits = StoreLimits::tiny_with_journal();
        let mut bed = Bed::on(disk, StoreConfig { limits, ..config() });
        assert_eq!((bed.report.partitions, &bed.report.findings[..]), (2, &[][..]));
        let (a, b) = (bed.slot(0), bed.slot(1));
        assert_eq!(bed.store.bounds(a).log_start, Offset(22));
        let again = batch_of(Compression::None, producer(7, 0, 39), 1039, &[&[39; 900]]);
        let again = bed.try_append(a, &again);
        assert!(matches!(again, Err(AppendError::Duplicate { base_offset: Offset(39), .. })), "{again:?}");
        for n in 40..44 {
            bed.append_durably(b, &filled(n, 300));
        }
        assert!(bed.store.stats().journal_entries > 1);
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        assert_eq!(bed.report.findings, []);
        let (a, b) = (bed.slot(0), bed.slot(1));
        assert_eq!(bed.values(a), (22..40).map(|n| vec![n; 900]).collect::<Vec<_>>());
        assert_eq!(bed.values(b), (0..44).map(|n| vec![n; 300]).collect::<Vec<_>>());
    }
}

#[test]
fn a_store_from_before_there_were_write_bounds_is_read_and_goes_on_with_them() {
    for packed in [STOPPED_6, KILLED_6] {
        let disk = DiskHarness::on(SimDisk::from_image(&image_of(packed), 2));
        let limits = StoreLimits::tiny_with_journal();
        let mut bed = Bed::on(disk, StoreConfig { limits, ..config() });
        assert_eq!((bed.report.partitions, bed.report.map_rebuilt), (2, false));
        let mut more = Vec::new();
        for n in 40..60u8 {
            assert_eq!(bed.report.findings, []);
            let (a, b) = (bed.slot(0), bed.slot(1));
            assert_eq!(bed.store.bounds(a).log_start, Offset(22));
            assert_eq!(bed.values(a), (22..40).map(|n| vec![n; 900]).collect::<Vec<_>>());
            assert_eq!(bed.values(b), [(0..40).map(|n| vec![n; 300]).collect(), more.clone()].concat());
            // In the extent that was begun without a bound, then in others.
            bed.append_durably(b, &filled(n, 3000));
            more.push(vec![n; 3000]);
            bed = if n % 2 == 0 { bed.crash(CrashPolicy::LOSE_ALL) } else { bed.restart() };
        }
    }
}

#[test]
fn the_map_of_a_store_with_extents_of_both_versions_is_rebuilt_from_their_headers() {
    let mut bed = open(&image_of(STOPPED));
    let slot = bed.slot(1);
    bed.append_durably(slot, &filled(100, 500));
    let mut bed = open(&without_map(bed.disk.disk().image()));
    assert!(bed.report.map_rebuilt);
    for _ in 0..2 {
        assert_eq!(bed.report.findings, []);
        let (slot, other) = (bed.slot(1), bed.slot(0));
        let whole: Vec<_> = expected().into_iter().chain([vec![100; 500]]).collect();
        assert_eq!((bed.values(slot), bed.values(other)), (whole, expected()));
        bed = bed.crash(CrashPolicy::LOSE_ALL);
    }
}
