//! Configurations of a partition's replicas in its log, and the state of its replica.

use highwater_protocol::frame::FrameKind;
use highwater_protocol::ids::{LeaderEpoch, LogIndex, NodeId, Offset};
use highwater_runtime::sim::CrashPolicy;
use highwater_storage::limits::{CONFIGURATION_BYTES_MAX, CONFIGURATIONS_PER_PARTITION_MAX};
use highwater_storage::{
    AppendError, FrameContent, PartitionConfig, PartitionSlot, ReplicaState, ReplicateError, ReplicatedFrame,
    StoreEvent,
};

use crate::gaps::frames_from;
use crate::support::{Bed, tp, without_map};
use crate::{append, fills, open, point, replica};

fn configure(bed: &mut Bed, slot: PartitionSlot, epoch: i32, fill: u8) {
    loop {
        let (wall_ms, payload) = (bed.wall_ms, vec![fill; 100].into());
        match bed.store.append_configuration(slot, LeaderEpoch(epoch), payload, wall_ms) {
            Err(AppendError::Busy) => assert!(bed.step(), "it is taken in the end"),
            Ok(_) => return,
            Err(e) => panic!("{e}"),
        }
    }
}

/// The index of each configuration, and what it is filled with.
fn configurations(bed: &Bed, slot: PartitionSlot) -> Vec<(u64, u8)> {
    bed.store.configurations(slot).map(|(index, payload)| (index.0, payload[0])).collect()
}

/// A log of thirty records in several extents, with configurations after 3, 12 and 28 of them.
fn configured() -> (Bed, PartitionSlot) {
    let mut bed = Bed::new(21);
    let slot = bed.slot(0);
    for n in 0..30 {
        append(&mut bed, slot, 1, n, 2500);
        if [3, 12, 28].contains(&n) {
            configure(&mut bed, slot, 1, n);
        }
        bed.settle();
    }
    (bed, slot)
}

#[test]
fn configurations_are_in_the_log_without_offsets_and_consumers_skip_them() {
    let (mut bed, slot) = configured();
    assert_eq!(fills(&mut bed, slot), (0..30).collect::<Vec<u8>>());
    let bounds = bed.store.bounds(slot);
    assert_eq!((bounds.durable_index, bounds.durable_end), (LogIndex(33), Offset(30)));
    let read = frames_from(&mut bed, slot, LogIndex(0));
    let kinds = read.iter().filter(|frame| frame.kind == FrameKind::Configuration);
    assert_eq!(kinds.map(|frame| frame.index).collect::<Vec<_>>(), [4, 14, 31]);
}

#[test]
fn configurations_survive_restarts_crashes_and_the_loss_of_the_map() {
    let (mut bed, _) = configured();
    for round in 0..6 {
        let slot = bed.slot(0);
        assert_eq!(bed.report.findings, []);
        assert_eq!(configurations(&bed, slot), [(4, 3), (14, 12), (31, 28)], "start {round}");
        bed = match round {
            0 | 3 => bed.crash(CrashPolicy::LOSE_ALL),
            1 | 4 => bed.restart(),
            _ => open(&without_map(bed.disk.disk().image())),
        };
    }
}

#[test]
fn retention_keeps_the_configuration_that_is_in_effect_at_the_start_of_the_log() {
    for (start, left) in [(2, &[4, 14, 31][..]), (14, &[14, 31]), (22, &[14, 31]), (29, &[14, 31])] {
        let (mut bed, slot) = configured();
        bed.store.set_log_start(&mut bed.disk, slot, Offset(start)).expect("it is committed");
        bed.settle();
        let indexes = |bed: &mut Bed| {
            let slot = bed.slot(0);
            bed.store.configurations(slot).map(|(index, _)| index.0).collect::<Vec<_>>()
        };
        let found = indexes(&mut bed);
        // How many extents are free depends on their sizes.
        assert!(found.ends_with(left), "{found:?} from offset {start} on");
        for round in 0..3 {
            bed = if round == 1 { bed.restart() } else { bed.crash(CrashPolicy::LOSE_ALL) };
            assert_eq!(indexes(&mut bed), found, "from offset {start} on, start {round}");
        }
        for _ in 0..2 {
            bed = open(&without_map(bed.disk.disk().image()));
            // Extents that were freed may come back.
            let left = indexes(&mut bed);
            assert!(found.ends_with(&left) || left.ends_with(&found), "{left:?}, {found:?} before");
        }
    }
}

#[test]
fn a_truncated_configuration_is_forgotten_and_the_one_before_it_is_in_effect_again() {
    let mut bed = Bed::new(22);
    let slot = replica(&mut bed);
    append(&mut bed, slot, 1, 0, 100);
    configure(&mut bed, slot, 1, 1);
    append(&mut bed, slot, 1, 2, 100);
    configure(&mut bed, slot, 1, 3);
    bed.settle();
    bed.store.note_commit(slot, point(2, 1));
    assert_eq!(configurations(&bed, slot), [(1, 1), (3, 3)]);
    bed.store.truncate_suffix(&mut bed.disk, slot, LogIndex(3)).expect("it is not committed");
    bed.settle();
    append(&mut bed, slot, 2, 4, 100);
    bed.settle();
    for _ in 0..3 {
        let slot = replica(&mut bed);
        assert_eq!(configurations(&bed, slot), [(1, 1)]);
        bed = bed.crash(CrashPolicy::LOSE_ALL);
    }
    let slot = replica(&mut bed);
    configure(&mut bed, slot, 2, 5);
    bed.settle();
    let mut bed = bed.restart();
    let slot = replica(&mut bed);
    assert_eq!(configurations(&bed, slot), [(1, 1), (4, 5)]);
}

#[test]
fn a_log_that_restarts_has_the_configuration_that_it_was_given() {
    for given in [600, 1005] {
        let mut bed = Bed::new(23);
        let slot = replica(&mut bed);
        configure(&mut bed, slot, 1, 1);
        bed.settle();
        let configuration = Some((LogIndex(given), vec![9; 100].into()));
        bed.store.start_at(&mut bed.disk, slot, point(1000, 950), vec![], configuration).expect("committed");
        bed.settle();
        for round in 0..3 {
            let slot = replica(&mut bed);
            assert_eq!(configurations(&bed, slot), [(given, 9)], "start {round}");
            append(&mut bed, slot, 4, 7, 100);
            bed.settle();
            bed = if round == 1 { bed.restart() } else { bed.crash(CrashPolicy::LOSE_ALL) };
        }
    }
}

#[test]
fn a_configuration_that_is_too_large_is_refused_and_the_oldest_of_too_many_are_forgotten() {
    let mut bed = Bed::new(24);
    let slot = replica(&mut bed);
    let (large, wall_ms) = (vec![1; CONFIGURATION_BYTES_MAX + 1], bed.wall_ms);
    let too_large = AppendError::TooLarge { bytes: large.len(), max: CONFIGURATION_BYTES_MAX };
    let refused = bed.store.append_configuration(slot, LeaderEpoch(1), large.clone().into(), wall_ms);
    assert_eq!(refused, Err(too_large));
    let frame = ReplicatedFrame {
        index: LogIndex(0),
        epoch: LeaderEpoch(1),
        offset: Offset(0),
        follows: point(0, 0),
        content: FrameContent::Configuration(&large),
    };
    let refused = bed.store.append_replicated(&mut bed.disk, slot, frame, wall_ms);
    assert_eq!(refused, Err(ReplicateError::Refused(too_large)));
    let all = CONFIGURATIONS_PER_PARTITION_MAX as u64 + 9;
    for n in 0..all {
        configure(&mut bed, slot, 1, n as u8);
        bed.settle();
    }
    let kept: Vec<u64> = (8..all).collect();
    for _ in 0..3 {
        let slot = replica(&mut bed);
        assert_eq!(configurations(&bed, slot).iter().map(|(index, _)| *index).collect::<Vec<_>>(), kept);
        bed = bed.restart();
    }
}

#[test]
fn a_configuration_that_is_lost_with_the_map_is_known_to_be_lost() {
    let mut bed = Bed::new(27);
    let (slot, other) = (bed.slot(0), bed.slot(1));
    configure(&mut bed, slot, 1, 1);
    for n in 0..30 {
        append(&mut bed, slot, 1, n, 2500);
        append(&mut bed, other, 1, n, 2500);
        bed.settle();
    }
    for slot in [slot, other] {
        bed.store.set_log_start(&mut bed.disk, slot, Offset(25)).expect("it is committed");
    }
    bed.settle();
    assert_eq!((configurations(&bed, slot), bed.store.has_lost_configuration(slot)), (vec![(0, 1)], false));
    // The space that was freed is used again.
    let third = bed.slot(2);
    for n in 0..100 {
        append(&mut bed, third, 1, n, 2500);
        bed.settle();
    }
    let mut bed = open(&without_map(bed.disk.disk().image()));
    for round in 0..3 {
        let (slot, other) = (bed.slot(0), bed.slot(1));
        assert_eq!([slot, other].map(|slot| configurations(&bed, slot)), [vec![], vec![]], "start {round}");
        assert!(bed.store.has_lost_configuration(slot), "start {round}");
        assert!(!bed.store.has_lost_configuration(other), "it never had one");
        assert_eq!(bed.report.findings, []);
        bed = if round == 0 { bed.restart() } else { bed.crash(CrashPolicy::LOSE_ALL) };
    }
    let slot = bed.slot(0);
    configure(&mut bed, slot, 1, 9);
    bed.settle();
    let mut bed = bed.restart();
    let slot = bed.slot(0);
    assert_eq!((configurations(&bed, slot).len(), bed.store.has_lost_configuration(slot)), (1, false));
}

fn state(term: i32) -> ReplicaState {
    ReplicaState { term: LeaderEpoch(term), vote: Some((NodeId(3), 1)), lost_in: None }
}

#[test]
fn the_state_of_a_replica_is_durable_when_that_is_reported_and_not_in_effect_before() {
    let mut bed = Bed::new(25);
    let (slot, other) = (replica(&mut bed), bed.slot(1));
    assert_eq!(bed.store.replica_state(slot), None);
    for (slot, term) in [(slot, 1), (other, 5), (slot, 2)] {
        bed.store.set_replica_state(slot, state(term));
    }
    bed.turn();
    assert_eq!(bed.store.replica_state(slot), None);
    bed.settle();
    let told = |event: &StoreEvent| match *event {
        StoreEvent::ReplicaStateDurable { slot, state } => Some((slot, state)),
        _ => None,
    };
    let told: Vec<_> = bed.events.iter().filter_map(told).collect();
    assert_eq!(told, [(slot, state(1)), (other, state(5)), (slot, state(2))]);
    for round in 0..4 {
        // Neither partition has a record.
        let (slot, other) = (replica(&mut bed), bed.slot(1));
        assert_eq!(bed.store.replica_state(slot), Some(state(2)), "start {round}");
        assert_eq!(bed.store.replica_state(other), Some(state(5)), "start {round}");
        bed = if round % 2 == 0 { bed.crash(CrashPolicy::LOSE_ALL) } else { bed.restart() };
    }
}

#[test]
fn the_state_of_a_replica_goes_with_its_partition_and_with_the_map() {
    let mut bed = Bed::new(26);
    let slots = [0, 1].map(|n| bed.store.ensure_partition(tp(n), PartitionConfig::KEEP_ALL));
    for slot in slots {
        append(&mut bed, slot, 1, 1, 100);
        bed.store.set_replica_state(slot, state(3));
    }
    bed.settle();
    bed.store.delete_partition(&mut bed.disk, slots[0]);
    bed.store.set_replica_state(slots[0], state(4));
    bed.settle();
    let mut bed = bed.restart();
    let slots = [bed.slot(0), bed.slot(1)];
    assert_eq!(slots.map(|slot| bed.store.replica_state(slot)), [None, Some(state(3))]);
    let mut bed = open(&without_map(bed.disk.disk().image()));
    let slot = bed.slot(1);
    assert_eq!((bed.store.replica_state(slot), fills(&mut bed, slot)), (None, vec![1]));
}
