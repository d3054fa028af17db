//! Another replica's log that was compacted: its frames arrive with gaps.

use highwater_protocol::batch::{BatchHeader, BatchView};
use highwater_protocol::frame::{FrameKind, Frames};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_runtime::sim::CrashPolicy;
use highwater_storage::{
    AppendError, BatchFilter, IndexCursor, IndexRead, IndexReadOutcome, PartitionSlot, ReadLimits,
    ReplicateError, Replicated, ReplicatedFrame, StoreEvent, Verdict,
};

use crate::support::{self, Bed, without_map};
use crate::{append, open, point, replica};

/// Drops every third batch.
#[derive(Debug)]
struct DropThirds;

impl BatchFilter for DropThirds {
    fn filter(&mut self, batch: &BatchView<'_>, _: bool, _: &mut Vec<u8>) -> Verdict {
        if batch.header().base_offset().0 % 3 == 1 { Verdict::Drop } else { Verdict::Keep }
    }
}

/// Index, epoch, offset and batch of every frame from an index on.
fn frames_from(bed: &mut Bed, slot: PartitionSlot, index: LogIndex) -> Vec<(u64, i32, i64, Vec<u8>)> {
    let limits = ReadLimits { bytes_max: 9000, memory_bytes_max: usize::MAX };
    let (mut cursor, mut frames) = (IndexCursor::at(index), Vec::new());
    loop {
        let read = bed.store.read_from_index(&mut bed.disk, slot, cursor, limits, LogIndex(u64::MAX));
        let read = match read {
            IndexReadOutcome::Ready(read) => read,
            IndexReadOutcome::Pending(_) => loop {
                let found =
                    bed.events.iter().position(|event| matches!(event, StoreEvent::ReadByIndex { .. }));
                match found.map(|at| bed.events.remove(at)) {
                    Some(StoreEvent::ReadByIndex { result, .. }) => break result,
                    _ => assert!(bed.step(), "a read is answered"),
                }
            },
        };
        let IndexRead::Frames { bytes, next, .. } = read else {
            assert!(matches!(read, IndexRead::AtEnd), "{read:?}");
            return frames;
        };
        for frame in Frames::new(&bytes).map(|frame| frame.expect("whole frames")) {
            if frame.kind() != FrameKind::Padding {
                let header = frame.header();
                let (epoch, offset) = (header.leader_epoch.get(), header.base_offset.get());
                frames.push((header.index.get(), epoch, offset, frame.payload().to_vec()));
            }
        }
        cursor = next;
    }
}

/// Sends what the follower lacks.
fn replicate(leader: &mut Bed, from: PartitionSlot, follower: &mut Bed, to: PartitionSlot) {
    let end = follower.store.bounds(to);
    let mut follows = point(end.append_index.0, end.append_end.0);
    for (index, epoch, offset, batch) in frames_from(leader, from, end.append_index) {
        let header = (!batch.is_empty()).then(|| *BatchHeader::parse(&batch).expect("a batch"));
        let frame = || ReplicatedFrame {
            index: LogIndex(index),
            epoch: LeaderEpoch(epoch),
            offset: Offset(offset),
            follows,
            batch: header.map(|_| support::small(&batch)),
        };
        let wall_ms = follower.wall_ms;
        loop {
            match follower.store.append_replicated(&mut follower.disk, to, frame(), wall_ms) {
                Ok(appended) => break assert_eq!(appended, Replicated::Appended),
                Err(ReplicateError::Refused(AppendError::Busy)) => assert!(follower.step(), "it is taken"),
                Err(e) => panic!("{e}"),
            }
        }
        follows = point(index + 1, header.map_or(offset, |header| header.next_offset().0));
    }
    follower.settle();
}

#[test]
fn a_replica_receives_a_compacted_log_with_its_gaps_and_keeps_it_without_the_map() {
    let mut leader = Bed::new(11);
    let from = leader.slot(0);
    for n in 0..40 {
        append(&mut leader, from, 1 + i32::from(n >= 25), n, 3000);
    }
    leader.settle();
    for at in [2, 0] {
        let extent = leader.store.rewritable_extents(from).nth(at).expect("it is there");
        leader.store.rewrite(from, extent.base_index, 1, Box::new(DropThirds)).expect("it is sealed");
        leader.settle();
        assert!(leader.saw(|event| matches!(event, StoreEvent::Rewritten { outcome: Ok(_), .. })));
    }
    let mut follower = Bed::new(12);
    let to = replica(&mut follower);
    replicate(&mut leader, from, &mut follower, to);
    let all = frames_from(&mut leader, from, LogIndex(0));
    assert!(all.len() < 38, "otherwise this test shows nothing");
    for round in 0..3 {
        assert_eq!(follower.report.findings, [], "{round}");
        let to = replica(&mut follower);
        assert_eq!(frames_from(&mut follower, to, LogIndex(0)), all, "{round}");
        let (ours, theirs) = (follower.store.bounds(to), leader.store.bounds(from));
        assert_eq!((ours.append_index, ours.append_end), (theirs.append_index, theirs.append_end));
        follower = if round == 0 {
            follower.crash(CrashPolicy::LOSE_ALL)
        } else {
            open(&without_map(follower.disk.disk().image()))
        };
    }
    append(&mut leader, from, 2, 77, 100);
    leader.settle();
    let to = replica(&mut follower);
    replicate(&mut leader, from, &mut follower, to);
    assert_eq!(frames_from(&mut follower, to, LogIndex(0)).len(), all.len() + 1);
}
