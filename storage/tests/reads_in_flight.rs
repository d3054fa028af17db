//! Disk reads are queued, few bytes of them are in flight, and writes do not wait for them.

mod support;

use highwater_protocol::ids::Offset;
use highwater_storage::{Cursor, PartitionSlot, ReadId, ReadLimits, ReadOutcome, ReadResult, StoreLimits};
use support::{Bed, filled};

const BATCHES: i64 = 60;

/// A store with records in two partitions, none of them cached.
fn cold(seed: u64) -> Bed {
    let mut bed = Bed::new(seed);
    for partition in 0..2 {
        let slot = bed.slot(partition);
        for _ in 0..BATCHES {
            bed.append_durably(slot, &filled(partition as u8, 3000));
        }
    }
    bed.restart()
}

/// Starts a read at each of these offsets.
fn start_reads(bed: &mut Bed, slot: PartitionSlot, offsets: impl Iterator<Item = i64>) -> Vec<ReadId> {
    let limits = ReadLimits { bytes_max: 1, memory_bytes_max: usize::MAX };
    let mut start = |offset| {
        let cursor = Cursor::at(Offset(offset));
        match bed.store.read(&mut bed.disk, slot, cursor, limits, Offset(i64::MAX)) {
            ReadOutcome::Pending(id) => id,
            ReadOutcome::Ready(result) => panic!("{result:?}"),
        }
    };
    offsets.map(&mut start).collect()
}

#[test]
fn many_reads_are_served_a_few_at_a_time_and_a_write_is_started_at_once() {
    for seed in 0..4 {
        let mut bed = cold(seed);
        let (slot, other) = (bed.slot(0), bed.slot(1));
        let limits = StoreLimits::tiny();
        let reads_max = limits.reads_inflight_bytes_max / limits.read_bytes_max;
        let ids = start_reads(&mut bed, slot, 0..BATCHES);
        assert_eq!(bed.disk.in_flight(), reads_max);

        let appended = bed.append(other, &filled(7, 100));
        bed.turn();
        assert!(bed.disk.in_flight() > reads_max, "the write does not wait");
        let mut served = 0;
        while bed.store.bounds(other).durable_end < appended.next_offset {
            assert!(bed.step());
            served = bed.reads.len();
        }
        assert!(served < ids.len() / 2, "{served} reads came before the write");

        while bed.step() {
            // In addition to the reads: the write, and a record of the map, which is written to four files while these are replaced.
            assert!(bed.disk.in_flight() <= reads_max + 6, "{} operations", bed.disk.in_flight());
        }
        for (offset, id) in (0..).zip(ids) {
            let Some(ReadResult::Frames(frames)) = bed.reads.remove(&id) else {
                panic!("no answer to {id:?}")
            };
            assert_eq!(frames.next.offset(), Offset(offset + 1));
        }
    }
}

#[test]
fn reads_that_are_queued_when_their_partition_is_deleted_or_its_start_moves_are_answered() {
    let mut bed = cold(9);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    let ids = start_reads(&mut bed, slot, 0..BATCHES);
    let others = start_reads(&mut bed, other, 0..BATCHES);
    bed.store.delete_partition(&mut bed.disk, slot);
    bed.store.set_log_start(&mut bed.disk, other, Offset(BATCHES)).expect("it is durable");
    bed.settle();
    for id in ids {
        assert!(matches!(bed.reads.remove(&id), Some(ReadResult::AtEnd)));
    }
    for id in others {
        let result = bed.reads.remove(&id);
        assert!(matches!(result, Some(ReadResult::OutOfRange { .. } | ReadResult::Frames(_))), "{result:?}");
    }
}
