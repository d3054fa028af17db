//! The log of one replica among others: truncated suffixes that a crash restores, the commit index after a crash, the start of a new replica, and
//! rewritten extents.

mod configurations;
mod frozen;
mod gaps;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use highwater_protocol::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Frames, frame_bytes};
use highwater_protocol::ids::{ExtentSequence, Incarnation, LeaderEpoch, LogIndex, Offset};
use highwater_runtime::sim::{CrashPolicy, DiskHarness, DiskImage, SimDisk};
use highwater_storage::inspect::{self, ExtentState};
use highwater_storage::layout::{EXTENT_HEADER_BYTES, ExtentEnd, ExtentId, PAGE_BYTES, Place};
use highwater_storage::{
    AppendError, CommitRule, CutError, EpochStart, LogPoint, PartitionConfig, PartitionSlot, StoreEvent,
};
use support::{Bed, config, filled, tp, without_map};
use zerocopy::{FromBytes as _, IntoBytes as _};

const QUORUM: PartitionConfig = PartitionConfig { commit: CommitRule::Quorum, ..PartitionConfig::KEEP_ALL };

fn replica(bed: &mut Bed) -> PartitionSlot {
    bed.store.ensure_partition(tp(0), QUORUM)
}

/// Appends as the leader of this epoch.
fn append(bed: &mut Bed, slot: PartitionSlot, epoch: i32, fill: u8, bytes: usize) {
    let batch = filled(fill, bytes);
    loop {
        let wall_ms = bed.wall_ms;
        let payload = support::small(&batch);
        match bed.store.append(&mut bed.disk, slot, payload, LeaderEpoch(epoch), wall_ms) {
            Err(AppendError::Busy) => assert!(bed.step(), "it is taken in the end"),
            Ok(_) => return,
            Err(e) => panic!("{e}"),
        }
    }
}

fn point(index: u64, offset: i64) -> LogPoint {
    LogPoint { index: LogIndex(index), offset: Offset(offset) }
}

fn fills(bed: &mut Bed, slot: PartitionSlot) -> Vec<u8> {
    bed.values(slot).iter().map(|value| value[0]).collect()
}

fn open(image: &DiskImage) -> Bed {
    Bed::on(DiskHarness::on(SimDisk::from_image(image, 2)), config())
}

/// Why a crash may restore a truncated suffix that was not overwritten:
///
/// - It does not count as committed: the replica serves records up to the earlier commit index, which no truncation passes.
/// - It has the epochs in which it was written. The leader compares them with its own log (`contains`), finds the same difference as before the
///   truncation, and truncates again. The replica is like one that never received the leader's message.
/// - Nothing that was appended after the truncation was acknowledged: it is durable only after the truncation is.
#[test]
fn a_truncated_suffix_that_a_crash_restores_is_not_committed_and_is_truncated_again() {
    let mut came_back = 0;
    for steps in 0..12 {
        let mut bed = Bed::new(1);
        let slot = replica(&mut bed);
        for n in 0..30 {
            append(&mut bed, slot, 1 + i32::from(n >= 20), n, 2000);
            if n == 12 {
                bed.store.note_commit(slot, point(10, 10));
            }
        }
        bed.settle();
        bed.store.truncate_suffix(&mut bed.disk, slot, LogIndex(15)).expect("it is not committed");
        // The new leader's records.
        let mut acknowledged = false;
        for _ in 0..steps {
            if bed.store.bounds(slot).append_index == LogIndex(15) {
                append(&mut bed, slot, 5, 99, 2000);
            }
            bed.step();
            acknowledged |= bed.store.bounds(slot).append_index == LogIndex(16)
                && bed.store.bounds(slot).durable_index == LogIndex(16);
        }
        let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
        let slot = replica(&mut bed);
        let bounds = bed.store.bounds(slot);
        assert_eq!(bounds.commit, point(10, 10), "what comes back is not committed");
        if bounds.durable_index == LogIndex(30) {
            came_back += 1;
            assert!(!acknowledged, "what was durable behind the cut stays");
            assert!(bed.store.contains(slot, LogIndex(15), LeaderEpoch(1)));
            assert!(
                !bed.store.contains(slot, LogIndex(15), LeaderEpoch(5)),
                "the leader sees that it differs"
            );
            bed.store.truncate_suffix(&mut bed.disk, slot, LogIndex(15)).expect("it is not committed");
            bed.settle();
        }
        if bed.store.bounds(slot).append_index == LogIndex(15) {
            append(&mut bed, slot, 5, 99, 2000);
            bed.settle();
        }
        for _ in 0..2 {
            let slot = replica(&mut bed);
            let expected: Vec<u8> = (0..15).chain([99]).collect();
            assert_eq!(fills(&mut bed, slot), expected);
            assert!(bed.store.contains(slot, LogIndex(15), LeaderEpoch(5)));
            bed = bed.crash(CrashPolicy::LOSE_ALL);
        }
    }
    assert!((1..12).contains(&came_back), "{came_back}");
}

#[test]
fn a_truncated_log_is_recovered_after_the_map_is_lost() {
    let mut bed = Bed::new(3);
    let slot = replica(&mut bed);
    for n in 0..40 {
        append(&mut bed, slot, 1, n, 3000);
    }
    bed.settle();
    bed.store.note_commit(slot, point(4, 4));
    bed.store.truncate_suffix(&mut bed.disk, slot, LogIndex(6)).expect("it is not committed");
    bed.settle();
    // Another partition gets the space that was freed first; the rest keeps its bytes.
    let other = bed.store.ensure_partition(tp(1), PartitionConfig::KEEP_ALL);
    for n in 0..3 {
        bed.append_durably(other, &filled(n, 3000));
    }
    let mut bed = open(&without_map(bed.disk.disk().image()));
    assert!(bed.report.map_rebuilt);
    assert_eq!(bed.report.findings, []);
    let slot = replica(&mut bed);
    // A crash may restore the end of the truncated extent. Everything committed is there.
    let found = fills(&mut bed, slot);
    assert_eq!(found[..6], [0, 1, 2, 3, 4, 5]);
    assert!(bed.store.bounds(slot).commit.index <= LogIndex(4));
    bed.store.truncate_suffix(&mut bed.disk, slot, LogIndex(6)).expect("it is not committed");
    bed.settle();
    append(&mut bed, slot, 2, 77, 100);
    bed.settle();
    let mut bed = open(&without_map(bed.disk.disk().image()));
    assert_eq!(bed.report.findings, []);
    let slot = replica(&mut bed);
    assert_eq!(fills(&mut bed, slot), [0, 1, 2, 3, 4, 5, 77]);
}

#[test]
fn nothing_committed_is_truncated_and_with_one_replica_nothing_at_all() {
    let mut bed = Bed::new(4);
    let (slot, alone) = (replica(&mut bed), bed.slot(1));
    for n in 0..5 {
        append(&mut bed, slot, 1, n, 100);
        append(&mut bed, alone, 1, n, 100);
    }
    bed.store.note_commit(slot, point(3, 3));
    let (index, commit) = (LogIndex(2), LogIndex(3));
    let refused = bed.store.truncate_suffix(&mut bed.disk, slot, index);
    assert_eq!(refused, Err(CutError::BelowCommit { index, commit }));
    let refused = bed.store.start_at(&mut bed.disk, slot, point(2, 2), vec![], None);
    assert_eq!(refused, Err(CutError::BelowCommit { index, commit }));
    let (index, commit) = (LogIndex(4), LogIndex(5));
    let refused = bed.store.truncate_suffix(&mut bed.disk, alone, index);
    assert_eq!(
        refused,
        Err(CutError::BelowCommit { index, commit }),
        "it will be committed once it is durable"
    );
    bed.settle();
    assert_eq!((fills(&mut bed, slot).len(), fills(&mut bed, alone).len()), (5, 5));
}

#[test]
fn a_restarted_replica_recovers_its_commit_index_from_frames_and_from_its_checkpoint() {
    let mut bed = Bed::new(5);
    let slot = replica(&mut bed);
    for n in 0..20 {
        append(&mut bed, slot, 1, n, 700);
        bed.settle();
        bed.store.note_commit(slot, point(u64::from(n), i64::from(n)));
    }
    assert_eq!(bed.store.bounds(slot).commit, point(19, 19));
    // The last frame was written before that was known.
    let mut bed = bed.crash(CrashPolicy::LOSE_ALL);
    let slot = replica(&mut bed);
    assert_eq!(bed.store.bounds(slot).commit, point(18, 18));
    bed.store.note_commit(slot, point(19, 19));
    let mut bed = bed.restart();
    let slot = replica(&mut bed);
    assert_eq!(bed.store.bounds(slot).commit, point(19, 19));
    // A commit index beyond the end of the log is limited to the end.
    bed.store.note_commit(slot, point(25, 25));
    assert_eq!(bed.store.bounds(slot).commit, point(19, 19));
    let alone = bed.store.ensure_partition(tp(0), PartitionConfig::KEEP_ALL);
    assert_eq!(bed.store.bounds(alone).commit, point(20, 20), "a single replica commits what is durable");
    let slot = replica(&mut bed);
    assert_eq!(bed.store.bounds(slot).commit, point(20, 20), "and it stays committed when others join it");
}

#[test]
fn a_replica_that_starts_in_the_middle_knows_the_preceding_epoch() {
    for had in [0, 25u8] {
        let mut bed = Bed::new(6);
        let slot = replica(&mut bed);
        for n in 0..had {
            append(&mut bed, slot, 1, n, 3000);
        }
        bed.settle();
        let epochs = [(1, 0, 0), (4, 900, 870)].map(|(epoch, index, offset)| EpochStart {
            epoch: LeaderEpoch(epoch),
            index: LogIndex(index),
            offset: Offset(offset),
        });
        bed.store
            .start_at(&mut bed.disk, slot, point(1000, 950), epochs.to_vec(), None)
            .expect("nothing is committed");
        bed.settle();
        assert!(bed.saw(|event| matches!(event, StoreEvent::Started { .. })));
        let freed = bed.store.stats();
        assert_eq!(freed.free_bytes, freed.slab_bytes, "what was here is free");
        for round in 0..3 {
            let slot = replica(&mut bed);
            let bounds = bed.store.bounds(slot);
            assert_eq!((bounds.log_start, bounds.commit), (Offset(950), point(1000, 950)));
            assert!(bed.store.contains(slot, LogIndex(999), LeaderEpoch(4)));
            assert!(bed.store.contains(slot, LogIndex(899), LeaderEpoch(1)));
            assert_eq!(bounds.append_index, LogIndex(1000 + round));
            append(&mut bed, slot, 4, 7, 100);
            bed.settle();
            bed = if round == 0 { bed.restart() } else { bed.crash(CrashPolicy::LOSE_ALL) };
        }
        // Abandoned extents are not restored when the map is lost.
        let mut bed = open(&without_map(bed.disk.disk().image()));
        assert_eq!(bed.report.findings, []);
        let slot = replica(&mut bed);
        let bounds = bed.store.bounds(slot);
        assert_eq!((bounds.log_start, bounds.durable_end), (Offset(950), Offset(953)));
        assert_eq!(fills(&mut bed, slot), [7, 7, 7]);
    }
}

/// Creates a log in several extents, and a disk on which the second one was rewritten without the frames of some offsets. The old one still exists.
fn rewritten(dropped: &[i64], is_finished: bool) -> (DiskImage, Vec<u8>) {
    let mut bed = Bed::new(7);
    let slot = bed.slot(0);
    for n in 0..30 {
        bed.append_durably(slot, &filled(n, 2500));
    }
    let mut image = bed.disk.disk().image();
    let mut disk = SimDisk::from_image(&image, 1);
    let listing = inspect::list(&mut disk, "/data".as_ref()).expect("readable");
    let extents =
        || listing.stores[0].slabs.iter().flat_map(|slab| slab.extents.iter().map(move |e| (slab, e)));
    let second = extents().filter_map(|(slab, e)| Some((slab, e, e.holds?))).nth(1).expect("it has several");
    let (slab, old, held) = second;
    let slab_bytes = image.read(&slab.path).expect("it is listed");
    let at = old.place.at as usize;
    let block = slab_bytes[at..at + EXTENT_HEADER_BYTES].try_into().expect("a block");
    let id = ExtentId::from_block(block).expect("a header");
    assert_eq!((id.sequence, id.generation), (ExtentSequence(2), 0));

    let size = old.bytes;
    let room = |e: &inspect::ExtentListing| {
        let at = e.place.at.next_multiple_of(size);
        let fits = e.state == ExtentState::Free && at + size <= e.place.at + e.bytes;
        fits.then_some(Place { at, ..e.place })
    };
    let (free_slab, place) =
        extents().find_map(|(slab, e)| Some((slab, room(e)?))).expect("there is room in some slab");
    let incarnation = Incarnation(1000);
    let macs =
        id.macs.expect("extents of today have codes").of(incarnation).expect("of this incarnation too");
    let mut extent = vec![0; old.bytes as usize];
    let mut position = EXTENT_HEADER_BYTES;
    for frame in Frames::new(&slab_bytes[at + EXTENT_HEADER_BYTES..at + held.used_bytes as usize]) {
        let frame = frame.expect("a good frame");
        if frame.kind() == FrameKind::Padding || dropped.contains(&frame.header().base_offset.get()) {
            continue;
        }
        let mut header: FrameHeader = *frame.header();
        header.incarnation = incarnation.0.into();
        header.mac = macs.at(position as u32).into();
        extent[position..position + FRAME_HEADER_BYTES].copy_from_slice(header.sealed().as_bytes());
        let payload = frame.payload();
        extent[position + FRAME_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
        position += frame_bytes(payload.len());
    }
    let end = ExtentEnd { position: position as u32, index: held.end_index, offset: held.end_offset };
    let new =
        ExtentId { place, incarnation, generation: 1, has_gaps: true, end: is_finished.then_some(end), ..id };
    extent[..EXTENT_HEADER_BYTES].copy_from_slice(&new.to_block());
    let mut bytes = image.read(&free_slab.path).expect("it is listed");
    bytes[place.at as usize..][..extent.len()].copy_from_slice(&extent);
    image.put(&free_slab.path, &bytes);
    assert!(FrameHeader::ref_from_prefix(&extent[EXTENT_HEADER_BYTES..]).is_ok());
    let kept = (0..30).filter(|n| !is_finished || !dropped.contains(&i64::from(*n))).collect();
    (without_map(image), kept)
}

/// Returns the readable offsets, and those that were reported lost.
fn read(bed: &mut Bed) -> (Vec<u8>, Vec<(i64, i64)>) {
    let slot = bed.slot(0);
    let mut cursor = highwater_storage::Cursor::at(Offset(0));
    let (mut fills, mut lost) = (Vec::new(), Vec::new());
    loop {
        match bed.read(slot, cursor, 9000) {
            highwater_storage::ReadResult::Frames(frames) => {
                let mut records = Vec::new();
                for bytes in &frames.bytes {
                    support::records_of(bytes, 0, &mut records);
                }
                fills.extend(records.iter().map(|record| record.2[0]));
                cursor = frames.next;
            }
            highwater_storage::ReadResult::Damaged { resume_at } => {
                lost.push((cursor.offset().0, resume_at.0));
                cursor = highwater_storage::Cursor::at(resume_at);
            }
            highwater_storage::ReadResult::AtEnd => return (fills, lost),
            other => panic!("{other:?}"),
        }
    }
}

/// The offsets in the second extent: the first, some in the middle, the last.
const DROPPED: [i64; 4] = [4, 8, 9, 13];

fn check_rewritten() {
    for dropped in [&[][..], &DROPPED, &DROPPED[1..3]] {
        for is_finished in [true, false] {
            let (image, kept) = rewritten(dropped, is_finished);
            let mut bed = open(&image);
            assert!(bed.report.map_rebuilt);
            for round in 0..3 {
                assert_eq!(bed.report.findings, [], "{dropped:?}, finished: {is_finished}, start {round}");
                let slot = bed.slot(0);
                assert_eq!(bed.store.bounds(slot).durable_end, Offset(30));
                assert_eq!(read(&mut bed), (kept.clone(), vec![]), "{dropped:?}, finished: {is_finished}");
                bed = if round == 0 { bed.restart() } else { bed.crash(CrashPolicy::LOSE_ALL) };
            }
            let slot = bed.slot(0);
            bed.append_durably(slot, &filled(99, 100));
            let mut disk = SimDisk::from_image(&bed.disk.disk().image(), 1);
            let verified = inspect::verify(&mut disk, Path::new("/data"), &mut |_| {}).expect("readable");
            assert_eq!(verified.findings, []);
        }
    }
}

#[test]
fn a_map_is_rebuilt_when_the_process_died_between_rewriting_an_extent_and_dropping_the_old_one() {
    check_rewritten();
}

/// Each frame has a page of its own, and the second one is replaced by the third: every checksum is right.
fn check_replaced() {
    let mut bed = Bed::new(8);
    let slot = bed.slot(0);
    for n in 0..3 {
        bed.try_append_bulk(slot, &filled(n, 3800)).expect("it is taken");
        bed.settle();
    }
    let image = bed.disk.disk().image();
    let slab = Path::new("/data/store-000/slab-000000");
    for is_stopped in [true, false] {
        let mut image = if is_stopped { open(&image).restart().disk.disk().image() } else { image.clone() };
        let mut bytes = image.read(slab).expect("it is there");
        bytes.copy_within(3 * PAGE_BYTES..4 * PAGE_BYTES, 2 * PAGE_BYTES);
        image.put(slab, &bytes);
        let mut bed = open(&image);
        assert_eq!(read(&mut bed), (vec![0, 2], vec![(1, 2)]), "stopped: {is_stopped}");
        let slot = bed.slot(0);
        assert_eq!(bed.store.bounds(slot).faulty, !is_stopped, "{:?}", bed.report);
    }
}

#[test]
fn a_frame_that_a_misdirected_write_replaced_is_reported_lost_and_not_skipped() {
    check_replaced();
}

#[cfg(feature = "mutants")]
mod mutants {
    use highwater_storage::mutants::Mutant;

    use super::support::is_found;

    #[test]
    fn preferring_the_old_generation_is_found() {
        is_found(Mutant::PreferOldGeneration, super::check_rewritten);
    }

    #[test]
    fn accepting_a_gap_that_is_not_allowed_is_found() {
        is_found(Mutant::AcceptGap, super::check_replaced);
    }
}
