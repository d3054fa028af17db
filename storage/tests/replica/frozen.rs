//! Reads for other replicas of frames that are not durable yet.

use highwater_protocol::ids::LogIndex;
use highwater_storage::{IndexCursor, IndexRead, IndexReadOutcome, PartitionSlot, ReadLimits};

use crate::gaps::{Frame, frames_from, frames_in};
use crate::support::{Bed, bulk, filled};
use crate::{append, replica};

/// Returns the frames from an index on that are in memory, read `bytes_max` bytes at a time.
fn in_memory(bed: &mut Bed, slot: PartitionSlot, from: u64, bytes_max: usize) -> Vec<Frame> {
    let limits = ReadLimits { bytes_max, memory_bytes_max: usize::MAX };
    let (mut cursor, mut frames) = (IndexCursor::at(LogIndex(from)), Vec::new());
    loop {
        match bed.store.read_for_replica(&mut bed.disk, slot, cursor, limits) {
            IndexReadOutcome::Ready(IndexRead::Frames { bytes, next, .. }) => {
                let more = frames_in(&bytes);
                assert_eq!(next.index().0, more.last().expect("a frame").index + 1);
                assert!(bytes.len() <= bytes_max || more.len() == 1, "one that is larger comes alone");
                frames.extend(more);
                cursor = next;
            }
            IndexReadOutcome::Ready(IndexRead::AtEnd) => return frames,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn frames_are_read_for_other_replicas_when_a_commit_round_has_taken_them() {
    let mut bed = Bed::new(31);
    let slot = replica(&mut bed);
    append(&mut bed, slot, 1, 1, 700);
    bed.settle();
    let durable = bed.store.bounds(slot).durable_index;
    for fill in 2..6 {
        append(&mut bed, slot, 1, fill, 700);
    }
    assert_eq!(bed.store.frozen_index(slot), durable);
    assert!(
        in_memory(&mut bed, slot, durable.0, 9000).is_empty(),
        "more may be added to the page that they are in"
    );
    bed.store.flush(&mut bed.disk);
    let end = bed.store.bounds(slot).append_index;
    assert_eq!((bed.store.frozen_index(slot), bed.store.bounds(slot).durable_index), (end, durable));
    let early: Vec<Vec<Frame>> =
        [1, 2000, 9000].into_iter().map(|max| in_memory(&mut bed, slot, durable.0, max)).collect();
    let last = in_memory(&mut bed, slot, end.0 - 1, 9000);
    bed.settle();
    let late = frames_from(&mut bed, slot, durable);
    assert_eq!(late.len(), 4);
    assert!(early.iter().all(|frames| *frames == late), "they are the same when they are durable");
    assert_eq!(last, late[3..]);
}

#[test]
fn a_bulk_frame_is_read_from_the_pages_that_are_written() {
    let mut bed = Bed::new(32);
    let slot = replica(&mut bed);
    append(&mut bed, slot, 1, 1, 300);
    let batch = filled(2, 40 << 10);
    let wall_ms = bed.wall_ms;
    let epoch = highwater_protocol::ids::LeaderEpoch(1);
    loop {
        match bed.store.append(&mut bed.disk, slot, bulk(&batch), epoch, wall_ms) {
            Ok(_) => break,
            Err(highwater_storage::AppendError::Busy) => assert!(bed.step(), "it is taken in the end"),
            Err(error) => panic!("{error}"),
        }
    }
    let durable = bed.store.bounds(slot).durable_index;
    bed.store.flush(&mut bed.disk);
    let early = in_memory(&mut bed, slot, durable.0, 9000);
    bed.settle();
    assert_eq!(early, frames_from(&mut bed, slot, durable));
}
