//! Tests of a shard's coordinator.

use highwater_protocol::ids::{LeaderEpoch, TopicId};

use super::*;
use crate::coord::groups::{CommitRequest, CommittedPartition, FetchRequest};
use crate::partition::AppendedAt;

const NOW: Now = Now { ms: 1_000, wall_ms: 1_000_000 };
const TOPIC: TopicId = TopicId([3; 16]);

fn tp(partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(partition) }
}

/// Creates a coordinator that knows a topic with four partitions.
fn coordinators() -> Coordinators {
    let mut coordinators = Coordinators::new(GroupConfig::default(), NOW);
    coordinators.coordinator.handle_topic(TOPIC, "t", 4);
    coordinators
}

fn open(coordinators: &mut Coordinators, ends: [i64; 2]) {
    let own = (0..).zip(ends).map(|(partition, end)| OwnPartition {
        tp: tp(partition),
        log_start: Offset(0),
        end: Offset(end),
        batch_bytes_max: usize::MAX,
        is_damaged: false,
        is_led: true,
    });
    coordinators.open(2, own.collect());
}

fn to(call: u64) -> (ShardIndex, Ticket) {
    (0, Ticket { call, number: 0 })
}

/// Returns the name of a group in this partition.
fn group_in(partition: u32) -> String {
    let names = (0..).map(|n| format!("g{n}"));
    names.into_iter().find(|name| partition_of_group(name, 2) == partition).expect("there are many")
}

fn commit(group: String, offset: i64) -> GroupRequest {
    GroupRequest::Commit(CommitRequest {
        group,
        member: String::new(),
        instance: None,
        generation: -1,
        knows_epochs: false,
        forever: false,
        offsets: vec![CommittedPartition {
            topic: TOPIC,
            partition: PartitionIndex(0),
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(-1),
            metadata: String::new(),
        }],
    })
}

fn appended(base: i64) -> AppendedAt {
    AppendedAt {
        base_offset: Offset(base),
        log_append_time: highwater_protocol::batch::NO_TIMESTAMP,
        log_start: Offset(0),
    }
}

/// Returns the batches to append, by partition.
fn batches(coordinators: &mut Coordinators) -> BTreeMap<u32, Bytes> {
    coordinators.run(NOW);
    let batches = std::iter::from_fn(|| coordinators.poll_append(NOW));
    batches.map(|(tp, batch)| (tp.partition.0, batch)).collect()
}

#[test]
fn a_reply_waits_for_its_own_record_and_all_earlier_ones() {
    let mut coordinators = coordinators();
    open(&mut coordinators, [0, 0]);
    assert!(coordinators.try_serve(NOW));
    for partition in 0..2 {
        let request = commit(group_in(partition), 5);
        coordinators.handle(NOW, to(partition.into()), request, [0; 16]);
    }
    assert_eq!(batches(&mut coordinators).into_keys().collect::<Vec<_>>(), [0, 1]);
    for partition in 0..2 {
        coordinators.handle_appended(PartitionIndex(partition), Ok(appended(10)));
    }
    assert!(coordinators.poll().is_none());
    coordinators.handle_high_watermark(PartitionIndex(1), Offset(11));
    assert!(coordinators.poll().is_none(), "the earlier record is not durable");
    coordinators.handle_high_watermark(PartitionIndex(0), Offset(11));
    let replied: Vec<_> = std::iter::from_fn(|| coordinators.poll()).map(|(to, _)| to).collect();
    assert_eq!(replied, [to(0), to(1)]);
}

#[test]
fn requests_are_held_until_all_partitions_have_been_read() {
    let mut before = coordinators();
    open(&mut before, [0, 0]);
    before.try_serve(NOW);
    before.handle(NOW, to(0), commit(group_in(1), 77), [0; 16]);
    let batch = batches(&mut before).remove(&1).expect("it is in partition 1");

    let mut after = coordinators();
    let fetch = FetchRequest { group: group_in(1), member: None, partitions: None, require_stable: true };
    after.handle(NOW, to(9), GroupRequest::Fetch(vec![fetch]), [0; 16]);
    assert!(after.poll().is_none(), "the request is held");
    open(&mut after, [0, 1]);
    assert!(!after.try_serve(NOW) && after.next_deadline().is_none());
    assert_eq!(after.next_load().map(|load| load.tp), Some(tp(1)));
    after.handle_loaded([&batch[..]].into_iter(), Cursor::at(Offset(1)));
    assert!(after.next_load().is_none());
    while !after.try_serve(NOW) {}
    after.run(NOW);
    let Some((to_whom, Ok(GroupReply::Fetch(replies)))) = after.poll() else { panic!("no offsets") };
    assert_eq!((to_whom, replies[0].offsets[0].offset), (to(9), Offset(77)));
}

#[test]
fn the_number_of_held_requests_is_limited() {
    let mut coordinators = coordinators();
    for n in 0..HELD_GROUP_REQUESTS_MAX as u64 {
        coordinators.handle(NOW, to(n), commit("g".into(), 1), [0; 16]);
    }
    assert!(coordinators.poll().is_none());
    coordinators.handle(NOW, to(7), commit("g".into(), 1), [0; 16]);
    assert_eq!(coordinators.poll(), Some((to(7), Err(ApiError::Starting(Service::Groups)))));
    assert_eq!(coordinators.take_held().count(), HELD_GROUP_REQUESTS_MAX);
}

#[test]
fn nothing_is_served_before_all_old_groups_are_carried_over_and_durable() {
    let mut old = coordinators();
    open(&mut old, [0, 0]);
    old.try_serve(NOW);
    old.handle(NOW, to(0), commit(group_in(0), 3), [0; 16]);
    old.coordinator.run(NOW);
    let (_, change) = old.coordinator.poll_batch().expect("a change");

    let mut new = coordinators();
    new.await_carry_over();
    new.carry_over(vec![change]);
    assert!(!new.run_carry_over() && !new.can_restore(), "the partitions are unknown");
    open(&mut new, [0, 0]);
    assert!(!new.run_carry_over() && !new.try_serve(NOW));
    assert!(new.poll_append(NOW).is_some());
    new.handle_appended(PartitionIndex(0), Ok(appended(0)));
    assert!(!new.run_carry_over());
    new.handle_high_watermark(PartitionIndex(0), Offset(1));
    assert!(new.run_carry_over(), "everything is durable");
    assert!(!new.run_carry_over(), "reported once");
    assert!(!new.try_serve(NOW), "other shards may not be done");
    new.end_carry_over();
    while !new.try_serve(NOW) {}
    assert_eq!(new.usage().groups, 1);
}

#[test]
fn groups_of_a_damaged_partition_are_out_of_service_and_those_of_others_are_not() {
    let mut coordinators = coordinators();
    let own = |partition, is_damaged| OwnPartition {
        tp: tp(partition),
        log_start: Offset(0),
        end: Offset(if is_damaged { 5 } else { 0 }),
        batch_bytes_max: usize::MAX,
        is_damaged,
        is_led: true,
    };
    // This request is held before the partitions are known.
    coordinators.handle(NOW, to(0), commit(group_in(1), 5), [0; 16]);
    coordinators.open(2, vec![own(0, false), own(1, true)]);
    assert!(coordinators.next_load().is_none(), "its records are incomplete, so they are not read");
    while !coordinators.try_serve(NOW) {}
    let fetch = |partition| FetchRequest {
        group: group_in(partition),
        member: None,
        partitions: None,
        require_stable: true,
    };
    coordinators.handle(NOW, to(1), GroupRequest::Fetch(vec![fetch(0), fetch(1)]), [0; 16]);
    for call in 0..2 {
        let rejected = Err(ApiError::GroupsDamaged(PartitionIndex(1)));
        assert_eq!(coordinators.poll(), Some((to(call), rejected)));
    }
    coordinators.handle(NOW, to(2), commit(group_in(0), 5), [0; 16]);
    assert_eq!(batches(&mut coordinators).into_keys().collect::<Vec<_>>(), [0]);
    coordinators.handle_appended(PartitionIndex(0), Ok(appended(0)));
    coordinators.handle_high_watermark(PartitionIndex(0), Offset(1));
    assert!(coordinators.poll().is_some_and(|(_, reply)| reply.is_ok()));
}

#[test]
fn groups_of_a_partition_that_is_led_elsewhere_are_not_answered_for_and_forgotten() {
    let mut coordinators = coordinators();
    open(&mut coordinators, [0, 0]);
    assert!(coordinators.try_serve(NOW));
    for partition in 0..2 {
        coordinators.handle(NOW, to(partition.into()), commit(group_in(partition), 5), [0; 16]);
    }
    batches(&mut coordinators);
    for partition in 0..2 {
        coordinators.handle_appended(PartitionIndex(partition), Ok(appended(10)));
    }
    // The change of the lost partition was the first of the two, and is never durable.
    coordinators.handle_not_leading(PartitionIndex(0));
    coordinators.handle_high_watermark(PartitionIndex(1), Offset(11));
    let not_coordinator = Err(ApiError::NotCoordinator(PartitionIndex(0)));
    assert_eq!(coordinators.poll(), Some((to(0), not_coordinator.clone())), "it may be lost");
    assert!(matches!(coordinators.poll(), Some((whom, Ok(GroupReply::Commit(_)))) if whom == to(1)));
    assert_eq!(coordinators.poll(), None);

    let fetch = |partition| {
        let group = group_in(partition);
        GroupRequest::Fetch(vec![FetchRequest {
            group,
            member: None,
            partitions: None,
            require_stable: true,
        }])
    };
    coordinators.handle(NOW, to(2), fetch(0), [0; 16]);
    coordinators.handle(NOW, to(3), commit(group_in(0), 6), [0; 16]);
    coordinators.handle(NOW, to(4), fetch(1), [0; 16]);
    assert!(batches(&mut coordinators).is_empty());
    assert_eq!(coordinators.poll(), Some((to(2), not_coordinator.clone())));
    assert_eq!(coordinators.poll(), Some((to(3), not_coordinator)));
    assert!(matches!(coordinators.poll(), Some((whom, Ok(GroupReply::Fetch(_)))) if whom == to(4)));
    assert_eq!(coordinators.usage().groups, 1, "the other one is forgotten");
}

#[test]
fn a_partition_that_another_replica_leads_at_the_start_is_not_read() {
    let mut coordinators = coordinators();
    let own = |partition, is_led| OwnPartition {
        tp: tp(partition),
        log_start: Offset(0),
        end: Offset(7),
        batch_bytes_max: usize::MAX,
        is_damaged: false,
        is_led,
    };
    coordinators.open(2, vec![own(0, false), own(1, true)]);
    assert_eq!(coordinators.next_load().map(|load| load.tp), Some(tp(1)));
    coordinators.finish_load();
    assert!(coordinators.next_load().is_none());
    while !coordinators.try_serve(NOW) {}
    coordinators.handle(NOW, to(0), commit(group_in(0), 5), [0; 16]);
    assert_eq!(coordinators.poll(), Some((to(0), Err(ApiError::NotCoordinator(PartitionIndex(0))))));
}

#[test]
fn nothing_is_carried_over_while_a_partition_is_damaged() {
    let mut coordinators = coordinators();
    coordinators.await_carry_over();
    coordinators.carry_over(Vec::new());
    let own = OwnPartition {
        tp: tp(0),
        log_start: Offset(0),
        end: Offset(0),
        batch_bytes_max: usize::MAX,
        is_damaged: true,
        is_led: true,
    };
    coordinators.open(2, vec![own]);
    assert!(!coordinators.run_carry_over() && !coordinators.can_restore() && !coordinators.try_serve(NOW));
}
