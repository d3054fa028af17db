//! Readers of old records beside the tail: what they read from disk, and that they leave the cache alone.

mod support;

use bytes::Bytes;
use highwater_protocol::ids::Offset;
use highwater_storage::{
    Cursor, PartitionSlot, ReadLimits, ReadOutcome, ReadResult, StoreConfig, StoreLimits,
};
use support::{Bed, config, filled, records_of};

const PAGE_BYTES: u64 = 4096;

const READ_BYTES_MAX: usize = 128 << 10;

/// Reads that are small beside the extents, as in production.
fn limits() -> StoreLimits {
    StoreLimits {
        slab_bytes_first: 4 << 20,
        slab_bytes_max: 16 << 20,
        extent_bytes_min: 512 << 10,
        extent_bytes_doubling: 512 << 10,
        extent_bytes_max: 1 << 20,
        slab_bytes_min: 512 << 10,
        punch_bytes_min: 512 << 10,
        punch_bytes_max: 512 << 10,
        payload_bytes_max: 256 << 10,
        cache_bytes_max: 1 << 20,
        unacked_bytes_max: 1 << 20,
        store_unacked_bytes_max: 4 << 20,
        checkpoint_bytes: 4 << 20,
        chunk_bytes_max: 64 << 10,
        index_interval_bytes: 32 << 10,
        read_bytes_max: READ_BYTES_MAX,
        reads_inflight_bytes_max: 2 * READ_BYTES_MAX,
        ..StoreLimits::tiny()
    }
}

fn bed(seed: u64) -> Bed {
    Bed::with(seed, StoreConfig { limits: limits(), ..config() })
}

/// The offset from which on the log is in the cache.
fn cached_from(bed: &Bed, slot: PartitionSlot) -> Offset {
    let end = bed.store.bounds(slot).durable_end.0;
    let first = (0..end).find(|offset| bed.store.is_cached(slot, Cursor::at(Offset(*offset))));
    Offset(first.unwrap_or(end))
}

/// What reading a log from a cursor to its end took.
#[derive(Debug)]
struct Taken {
    records: i64,
    /// Bytes of the frames that came from disk, and of those that did not.
    from_disk: u64,
    cached: u64,
    /// Disk reads, and their bytes.
    reads: u64,
    read_bytes: u64,
}

fn read_to_end(bed: &mut Bed, slot: PartitionSlot, from: Offset) -> Taken {
    let before = bed.store.stats();
    let limits = ReadLimits { bytes_max: READ_BYTES_MAX, memory_bytes_max: usize::MAX };
    let mut cursor = Cursor::at(from);
    let mut taken = Taken { records: 0, from_disk: 0, cached: 0, reads: 0, read_bytes: 0 };
    loop {
        let is_cached = bed.store.is_cached(slot, cursor);
        let reads = bed.store.stats().reads_disk;
        match bed.read_within(slot, cursor, limits, Offset(i64::MAX)) {
            ReadResult::Frames(frames) => {
                let bytes: usize = frames.bytes.iter().map(Bytes::len).sum();
                let mut records = Vec::new();
                for slice in &frames.bytes {
                    records_of(slice, cursor.offset().0, &mut records);
                }
                taken.records += records.len() as i64;
                assert_eq!(
                    is_cached,
                    bed.store.stats().reads_disk == reads,
                    "memory is read without the disk"
                );
                *(if is_cached { &mut taken.cached } else { &mut taken.from_disk }) += bytes as u64;
                cursor = frames.next;
            }
            ReadResult::AtEnd => break,
            other => panic!("{other:?}"),
        }
    }
    let after = bed.store.stats();
    taken.reads = after.reads_disk - before.reads_disk;
    taken.read_bytes = after.bytes_read - before.bytes_read;
    taken
}

#[test]
fn a_cold_reader_reads_each_byte_once_in_large_reads_whatever_the_size_of_batches() {
    for record_bytes in [100, 1000, 9000, 20_000, 45_000, 70_000, 90_000, 120_000] {
        let mut bed = bed(1);
        let slot = bed.slot(0);
        let log_bytes: u64 = 6 << 20;
        let count = log_bytes / (record_bytes + 200);
        let batch = filled(7, record_bytes as usize);
        for at in 0..count {
            bed.append(slot, &batch);
            if at % 4 == 3 {
                bed.settle();
            }
        }
        bed.settle();
        // After a restart nothing is in memory, and of the index only what recovery has read.
        let mut bed = bed.restart();
        let slot = bed.slot(0);
        let taken = read_to_end(&mut bed, slot, Offset(0));
        assert_eq!(taken.records, count as i64);
        assert_eq!(taken.cached, 0);
        println!("records of {record_bytes} bytes: {taken:?}");
        let twice = taken.read_bytes as f64 / taken.from_disk as f64;
        assert!(twice < 1.15, "records of {record_bytes} bytes: {twice} bytes read for each byte: {taken:?}");
        let mean = taken.read_bytes / taken.reads;
        assert!(mean > READ_BYTES_MAX as u64 / 2, "records of {record_bytes} bytes: reads of {mean} bytes");
    }
}

#[test]
fn what_memory_has_is_not_read_from_disk_when_a_cold_reader_reaches_it() {
    for record_bytes in [100, 1000, 20_000, 70_000] {
        let mut bed = bed(2);
        let slot = bed.slot(0);
        let batch = filled(7, record_bytes);
        for at in 0..(3 << 20) / (record_bytes + 200) {
            bed.append(slot, &batch);
            if at % 7 == 0 {
                bed.settle();
            }
        }
        bed.settle();
        let cached_from = cached_from(&bed, slot);
        assert!(cached_from > Offset(0) && cached_from < bed.store.bounds(slot).durable_end);
        let taken = read_to_end(&mut bed, slot, Offset(0));
        println!("records of {record_bytes} bytes: {taken:?}");
        assert_eq!(taken.records, bed.store.bounds(slot).durable_end.0);
        assert!(taken.cached > 500_000, "{taken:?}");
        // The first and the last page of a read may have a part of a frame.
        let most = taken.from_disk + 2 * PAGE_BYTES * taken.reads;
        assert!(taken.read_bytes <= most, "records of {record_bytes} bytes: {taken:?}");
        // Just before the cache: one read that ends where the cache begins, however close that is.
        let before = Offset(cached_from.0 - 1);
        let taken = read_to_end(&mut bed, slot, before);
        assert_eq!(taken.reads, 1, "{taken:?}");
    }
}

/// The tail of a log while records are appended, with a reader at the end and perhaps one that starts at the beginning again and again. Returns where
/// the cache began after each append.
fn run_tail(is_cold: bool) -> Vec<Offset> {
    let mut bed = bed(3);
    let slot = bed.slot(0);
    let batch = filled(7, 3000);
    let limits = ReadLimits { bytes_max: READ_BYTES_MAX, memory_bytes_max: 1 << 20 };
    let (mut tail, mut cold, mut cold_records) = (Cursor::at(Offset(0)), Cursor::at(Offset(0)), 0);
    let mut begins = Vec::new();
    for _ in 0..800 {
        bed.append_durably(slot, &batch);
        let ReadOutcome::Ready(ReadResult::Frames(frames)) =
            bed.store.read(&mut bed.disk, slot, tail, limits, Offset(i64::MAX))
        else {
            panic!("the reader at the tail waits for the disk");
        };
        tail = frames.next;
        assert_eq!(tail.offset(), bed.store.bounds(slot).durable_end);
        begins.push(cached_from(&bed, slot));
        if is_cold {
            cold = match bed.read_within(slot, cold, limits, begins[begins.len() - 1]) {
                ReadResult::Frames(frames) => {
                    cold_records += frames.next.offset().0 - cold.offset().0;
                    frames.next
                }
                ReadResult::AtEnd => Cursor::at(Offset(0)),
                other => panic!("{other:?}"),
            };
        }
    }
    assert_eq!(is_cold, cold_records > 2000, "{cold_records} old records read");
    assert_eq!(is_cold, bed.store.stats().reads_disk > 0);
    begins
}

#[test]
fn a_cold_reader_beside_a_live_tail_evicts_nothing() {
    assert_eq!(run_tail(true), run_tail(false));
}
