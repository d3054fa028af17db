//! Stores that were written by earlier versions open, are read, and go on.

mod support;

use std::io::Read as _;

use flate2::read::GzDecoder;
use highwater_protocol::frame::{FRAME_VERSION_WITHOUT_MAC, Frames};
use highwater_runtime::sim::{CrashPolicy, DiskHarness, DiskImage, SimDisk};
use highwater_storage::{Cursor, ReadResult, Slot};
use support::{Bed, config, filled};

/// Two partitions of twelve records each, from the last version whose frames had no codes: stopped in order, and killed.
const STOPPED: &[u8] = include_bytes!("data/frames-1-stopped.gz");
const KILLED: &[u8] = include_bytes!("data/frames-1-killed.gz");

/// The files: of each the length of its path, the path, its length and its content.
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

/// The versions of the frames from an offset on.
fn versions(bed: &mut Bed, slot: Slot, from: i64) -> Vec<u8> {
    let mut cursor = Cursor::at(highwater_protocol::ids::Offset(from));
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
fn a_store_whose_frames_have_no_codes_is_read_and_goes_on_with_frames_that_have() {
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

#[test]
fn the_map_of_a_store_with_extents_of_both_versions_is_rebuilt_from_their_headers() {
    let mut bed = open(&image_of(STOPPED));
    let slot = bed.slot(1);
    bed.append_durably(slot, &filled(100, 500));
    let mut image = bed.disk.disk().image();
    for copy in ["a", "b"] {
        let path = format!("/data/store-000/state.{copy}");
        let bytes = image.read(path.as_ref()).expect("it is there").len();
        image.put(path.as_ref(), &vec![0; bytes]);
    }
    let mut bed = open(&image);
    assert!(bed.report.map_rebuilt);
    for _ in 0..2 {
        assert_eq!(bed.report.findings, []);
        let (slot, other) = (bed.slot(1), bed.slot(0));
        let whole: Vec<_> = expected().into_iter().chain([vec![100; 500]]).collect();
        assert_eq!((bed.values(slot), bed.values(other)), (whole, expected()));
        bed = bed.crash(CrashPolicy::LOSE_ALL);
    }
}
