//! The memory of a read: within its limit, and in proportion to the records that it returns.

mod support;

use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord, Work};
use highwater_protocol::ids::{Offset, Timestamp};
use highwater_storage::{Cursor, FindResult, ReadLimits, ReadResult, SearchMemory};
use support::{Bed, batch_of, filled, records_of};

/// Reads everything with a limit on memory. Returns the number of reads, and the most memory that one of them held.
fn read_all_within(bed: &mut Bed, memory_bytes_max: usize) -> (Vec<u8>, usize, usize) {
    let slot = bed.slot(0);
    let limits = ReadLimits { bytes_max: 1 << 20, memory_bytes_max };
    let (mut cursor, mut reads, mut most) = (Cursor::at(Offset(0)), 0, 0);
    let mut records = Vec::new();
    loop {
        match bed.read_within(slot, cursor, limits, Offset(i64::MAX)) {
            ReadResult::Frames(frames) => {
                let bytes: usize = frames.bytes.iter().map(bytes::Bytes::len).sum();
                assert!(frames.memory_bytes >= bytes && frames.memory_bytes <= memory_bytes_max);
                most = most.max(frames.memory_bytes);
                for slice in &frames.bytes {
                    records_of(slice, 0, &mut records);
                }
                cursor = frames.next;
                reads += 1;
            }
            ReadResult::AtEnd => return (records.iter().map(|record| record.2[0]).collect(), reads, most),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_read_returns_no_more_than_fits_its_memory_from_the_cache_and_from_disk() {
    let mut bed = Bed::new(1);
    let slot = bed.slot(0);
    let expected: Vec<u8> = (0..40).collect();
    for fill in &expected {
        bed.append_durably(slot, &filled(*fill, 1000));
    }
    for is_cold in [false, true] {
        if is_cold {
            bed = bed.restart();
        }
        let (values, few, most) = read_all_within(&mut bed, 64 << 10);
        assert_eq!(values, expected);
        assert!(most > 8 << 10);
        let (values, many, _) = read_all_within(&mut bed, 8 << 10);
        assert_eq!(values, expected);
        assert!(many > few, "{many} reads, and {few} with more memory");
        assert_eq!(bed.store.stats().reads_disk > 0, is_cold);
    }
}

#[test]
fn a_read_without_memory_for_a_frame_reports_how_much_it_needs_and_succeeds_with_that() {
    let mut bed = Bed::new(2);
    let slot = bed.slot(0);
    bed.append_durably(slot, &filled(1, 500));
    bed.append_durably(slot, &filled(2, 20_000));
    let limits = |memory_bytes_max| ReadLimits { bytes_max: 1, memory_bytes_max };
    for is_cold in [false, true] {
        if is_cold {
            bed = bed.restart();
        }
        let slot = bed.slot(0);
        let small = bed.read_within(slot, Cursor::at(Offset(0)), limits(8 << 10), Offset(i64::MAX));
        assert!(matches!(&small, ReadResult::Frames(_)), "{small:?}");
        let at = Cursor::at(Offset(1));
        let needs = bed.read_within(slot, at, limits(8 << 10), Offset(i64::MAX));
        let ReadResult::NeedsMemory(bytes) = needs else { panic!("{needs:?}") };
        assert!(bytes > 20_000 && bytes <= 64 << 10, "{bytes}");
        let comes = bed.read_within(slot, at, limits(bytes), Offset(i64::MAX));
        let ReadResult::Frames(frames) = comes else { panic!("{comes:?}") };
        assert_eq!(frames.next.offset(), Offset(2));
        assert!(frames.memory_bytes <= bytes);
    }
}

#[test]
fn a_small_part_of_a_buffer_is_copied_so_that_the_buffer_is_freed() {
    let mut bed = Bed::new(3);
    let slot = bed.slot(0);
    for fill in 0..15 {
        bed.append(slot, &filled(fill, 900));
    }
    bed.settle();
    for is_cold in [false, true] {
        if is_cold {
            bed = bed.restart();
        }
        let slot = bed.slot(0);
        let limits = |bytes_max| ReadLimits { bytes_max, memory_bytes_max: 64 << 10 };
        let one = bed.read_within(slot, Cursor::at(Offset(3)), limits(1), Offset(i64::MAX));
        let ReadResult::Frames(frames) = one else { panic!("{one:?}") };
        assert_eq!(frames.memory_bytes, frames.bytes[0].len());
        let all = bed.read_within(slot, Cursor::at(Offset(0)), limits(1 << 20), Offset(i64::MAX));
        let ReadResult::Frames(frames) = all else { panic!("{all:?}") };
        assert!(frames.memory_bytes > frames.bytes.iter().map(bytes::Bytes::len).sum(), "not copied");
    }
}

#[test]
fn a_search_by_time_stays_within_its_memory_and_reports_how_much_a_large_frame_needs() {
    let mut bed = Bed::new(3);
    let slot = bed.slot(0);
    for offset in 0..40 {
        bed.append_durably(slot, &timed(1000, offset));
    }
    bed.append_durably(slot, &timed(20_000, 40));
    for is_cold in [false, true] {
        if is_cold {
            bed = bed.restart();
        }
        let slot = bed.slot(0);
        let within = |buffer_bytes_max| SearchMemory { buffer_bytes_max, ..SearchMemory::UNLIMITED };
        let found = bed.find_within(slot, 30, within(8 << 10));
        assert_eq!(found, FindResult::At(Offset(30), Timestamp(30)));
        let FindResult::NeedsMemory(bytes) = bed.find_within(slot, 40, within(8 << 10)) else {
            panic!("it is large")
        };
        assert!(bytes > 20_000 && bytes <= 64 << 10, "{bytes}");
        assert_eq!(bed.find_within(slot, 40, within(bytes)), FindResult::At(Offset(40), Timestamp(40)));
    }
}

#[test]
fn a_search_by_time_decompresses_within_its_limit_and_reports_how_much_it_needs() {
    for codec in [Compression::Zstd, Compression::Gzip, Compression::Snappy, Compression::Lz4] {
        let mut bed = Bed::new(4);
        let slot = bed.slot(0);
        let mut builder = BatchBuilder::new(codec, 0);
        // The stored batch has to fit an extent.
        let value = vec![0; 100_000];
        for at in 0..10 {
            builder.append(&NewRecord::new(Timestamp(at), None, Some(&value))).expect("it fits");
        }
        bed.append_durably(slot, &builder.finish(BatchProducer::NONE).expect("there are records"));
        for search_work in [Work::MAX, 1000] {
            bed.search_work = search_work;
            let within = |decoder_bytes_max| SearchMemory { decoder_bytes_max, ..SearchMemory::UNLIMITED };
            let mut most = 0;
            let mut bytes_max = 1000;
            // Each time it may use twice as much as before.
            let found = loop {
                match bed.find_within(slot, 9, within(bytes_max)) {
                    FindResult::NeedsDecoder(bytes) => {
                        assert!(
                            bytes > bytes_max && bytes < bytes_max + (1 << 20),
                            "{codec}: {bytes} of {bytes_max}"
                        );
                        (most, bytes_max) = (bytes, 2 * bytes);
                    }
                    found => break found,
                }
            };
            assert_eq!(found, FindResult::At(Offset(9), Timestamp(9)), "{codec}");
            assert!(most > 30_000, "{codec}: {most} bytes");
            assert_eq!(bed.find_within(slot, 9, within(8 << 20)), found, "{codec}");
        }
    }
}

/// Creates a batch with one record of this size and timestamp.
fn timed(bytes: usize, at: i64) -> bytes::Bytes {
    batch_of(Compression::None, BatchProducer::NONE, at, &[&vec![0; bytes]])
}
