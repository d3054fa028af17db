//! Another replica's log that was compacted: its frames arrive with gaps.

use highwater_protocol::batch::{BatchHeader, BatchView};
use highwater_protocol::frame::{FrameKind, Frames};
use highwater_protocol::ids::{LeaderEpoch, LogIndex, Offset};
use highwater_runtime::sim::CrashPolicy;
use highwater_storage::{
    AppendError, BatchFilter, EpochEnd, FrameContent, IndexCursor, IndexRead, IndexReadOutcome,
    PartitionSlot, ReadLimits, ReplicateError, Replicated, ReplicatedFrame, StoreEvent, Verdict,
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

/// A frame that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) index: u64,
    pub(crate) kind: FrameKind,
    epoch: i32,
    offset: i64,
    payload: Vec<u8>,
}

/// Every frame from an index on.
pub(crate) fn frames_from(bed: &mut Bed, slot: PartitionSlot, index: LogIndex) -> Vec<Frame> {
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
        frames.extend(frames_in(&bytes));
        cursor = next;
    }
}

/// The frames in the result of a read, without padding.
pub(crate) fn frames_in(bytes: &[u8]) -> Vec<Frame> {
    let frames = Frames::new(bytes).map(|frame| frame.expect("whole frames"));
    let frames = frames.filter(|frame| frame.kind() != FrameKind::Padding);
    let frame = |frame: highwater_protocol::frame::Frame<'_>| Frame {
        index: frame.header().index.get(),
        kind: frame.kind(),
        epoch: frame.header().leader_epoch.get(),
        offset: frame.header().base_offset.get(),
        payload: frame.payload().to_vec(),
    };
    frames.map(frame).collect()
}

/// Sends what the follower lacks.
fn replicate(leader: &mut Bed, from: PartitionSlot, follower: &mut Bed, to: PartitionSlot) {
    let end = follower.store.bounds(to);
    let mut follows = point(end.append_index.0, end.append_end.0);
    for Frame { index, kind, epoch, offset, payload } in frames_from(leader, from, end.append_index) {
        let frame = || ReplicatedFrame {
            index: LogIndex(index),
            epoch: LeaderEpoch(epoch),
            offset: Offset(offset),
            follows,
            content: match kind {
                FrameKind::Batch => FrameContent::Batch(support::small(&payload)),
                FrameKind::Configuration => FrameContent::Configuration(&payload),
                FrameKind::EpochStart | FrameKind::Padding => FrameContent::EpochStart,
            },
        };
        let wall_ms = follower.wall_ms;
        loop {
            match follower.store.append_replicated(&mut follower.disk, to, frame(), wall_ms) {
                Ok(appended) => break assert_eq!(appended, Replicated::Appended),
                Err(ReplicateError::Refused(AppendError::Busy)) => assert!(follower.step(), "it is taken"),
                Err(e) => panic!("{e}"),
            }
        }
        let is_batch = kind == FrameKind::Batch;
        let next =
            if is_batch { BatchHeader::parse(&payload).expect("a batch").next_offset().0 } else { offset };
        follows = point(index + 1, next);
    }
    follower.settle();
}

/// The epoch of every index from `first` to the end of a log, and the end of every epoch, as the log knows them. Compaction may have removed
/// the frames.
fn epochs(bed: &Bed, slot: PartitionSlot, first: u64) -> (Vec<Option<i32>>, Vec<EpochEnd>) {
    let store = &bed.store;
    let of = |index| (0..9).find(|epoch| store.contains(slot, LogIndex(index), LeaderEpoch(*epoch)));
    let end = store.bounds(slot).append_index.0;
    let ends = (0..9).map(|epoch| store.epoch_end(slot, LeaderEpoch(epoch)));
    ((first..end).map(of).collect(), ends.collect())
}

fn configurations(bed: &Bed, slot: PartitionSlot) -> Vec<(u64, Vec<u8>)> {
    bed.store.configurations(slot).map(|(index, payload)| (index.0, payload.to_vec())).collect()
}

/// A log of three epochs with two configurations, in several extents.
fn leader() -> (Bed, PartitionSlot) {
    let mut bed = Bed::new(11);
    let slot = bed.slot(0);
    for n in 0..40 {
        let epoch = if n < 10 { 1 } else { 2 + i32::from(n >= 25) };
        if n == 7 || n == 30 {
            let wall_ms = bed.wall_ms;
            let payload = vec![n; 40].into();
            bed.store.append_configuration(slot, LeaderEpoch(epoch), payload, wall_ms).expect("it is taken");
        }
        append(&mut bed, slot, epoch, n, 3000);
    }
    bed.settle();
    (bed, slot)
}

fn compact(bed: &mut Bed, slot: PartitionSlot, at: usize) {
    let extent = bed.store.rewritable_extents(slot).nth(at).expect("it is there");
    bed.store.rewrite(slot, extent.base_index, 1, Box::new(DropThirds)).expect("it is sealed");
    bed.settle();
    assert!(bed.saw(|event| matches!(event, StoreEvent::Rewritten { outcome: Ok(_), .. })));
}

#[test]
fn a_replica_receives_a_compacted_log_with_its_gaps_and_keeps_it_without_the_map() {
    let (mut leader, from) = leader();
    for at in [2, 0] {
        compact(&mut leader, from, at);
    }
    let mut follower = Bed::new(12);
    let to = replica(&mut follower);
    replicate(&mut leader, from, &mut follower, to);
    let all = frames_from(&mut leader, from, LogIndex(0));
    assert!(all.len() < 40, "otherwise this test shows nothing");
    assert_eq!(configurations(&leader, from), [(7, vec![7; 40]), (31, vec![30; 40])]);
    for round in 0..3 {
        assert_eq!(follower.report.findings, [], "{round}");
        let to = replica(&mut follower);
        assert_eq!(frames_from(&mut follower, to, LogIndex(0)), all, "{round}");
        assert_eq!(epochs(&follower, to, 0), epochs(&leader, from, 0), "{round}");
        assert_eq!(configurations(&follower, to), configurations(&leader, from), "{round}");
        let (ours, theirs) = (follower.store.bounds(to), leader.store.bounds(from));
        assert_eq!((ours.append_index, ours.append_end), (theirs.append_index, theirs.append_end));
        follower = if round == 0 {
            follower.crash(CrashPolicy::LOSE_ALL)
        } else {
            open(&without_map(follower.disk.disk().image()))
        };
    }
    append(&mut leader, from, 3, 77, 100);
    leader.settle();
    let to = replica(&mut follower);
    replicate(&mut leader, from, &mut follower, to);
    assert_eq!(frames_from(&mut follower, to, LogIndex(0)).len(), all.len() + 1);
}

#[test]
fn the_epochs_of_frames_that_compaction_has_removed_are_known_whatever_is_lost_with_the_map() {
    let (bed, _) = leader();
    let image = bed.disk.disk().image();
    let extents =
        bed.store.rewritable_extents(bed.store.partitions().next().expect("there is one").1).count();
    for freed in 0..extents {
        let mut bed = open(&image);
        let slot = bed.slot(0);
        let before = epochs(&bed, slot, 0);
        let first = bed.store.rewritable_extents(slot).nth(freed).expect("it is there");
        bed.store.set_log_start(&mut bed.disk, slot, first.base_offset).expect("it is committed");
        bed.settle();
        compact(&mut bed, slot, 0);
        let wanted = (before.0[first.base_index.0 as usize..].to_vec(), before.1);
        for round in 0..3 {
            let slot = bed.slot(0);
            let (epochs, ends) = epochs(&bed, slot, first.base_index.0);
            assert_eq!(epochs, wanted.0, "{freed} extents freed, start {round}");
            let last = epochs[0].expect("known") as usize;
            assert_eq!(ends[last..], wanted.1[last..], "{freed} extents freed, start {round}");
            bed = if round == 0 { bed.restart() } else { open(&without_map(bed.disk.disk().image())) };
        }
    }
}
