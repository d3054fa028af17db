//! Offsets: who may commit them, when they expire, and who may delete them.

use highwater_protocol::ids::GroupEpoch;

use super::consumer::worker;
use super::*;
use crate::limits::OFFSETS_BYTES_MAX;

const WEEK_MS: u64 = 7 * 24 * 3_600 * 1_000;
const CLEANUP_MS: u64 = 600_000;

fn delete(desk: &mut Desk, group: &str) -> Option<GroupError> {
    match desk.call(GroupRequest::Delete(vec![group.into()])) {
        GroupReply::Delete(outcomes) => outcomes[0].1,
        other => panic!("{other:?}"),
    }
}

fn delete_offsets(desk: &mut Desk, group: &str, of: u8) -> Result<Option<GroupError>, GroupError> {
    let request = DeleteOffsetsRequest {
        group: group.into(),
        partitions: vec![(topic(of), vec![PartitionIndex(0), PartitionIndex(1)])],
    };
    match desk.call(GroupRequest::DeleteOffsets(request)) {
        GroupReply::DeleteOffsets(outcomes) => outcomes.map(|o| o[0].2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_offset_is_returned_with_its_epoch_and_metadata() {
    let mut desk = Desk::new();
    assert_eq!(desk.commit(commit("g", "", -1, 42)), None);
    let all = FetchRequest { group: "g".into(), member: None, partitions: None, require_stable: false };
    let GroupReply::Fetch(mut replies) = desk.call(GroupRequest::Fetch(vec![all])) else {
        panic!("another reply")
    };
    let reply = replies.remove(0);
    assert_eq!(reply, FetchReply { error: None, offsets: commit("g", "", -1, 42).offsets });
    assert_eq!(desk.offset("g", 1, 1), None);
    assert_eq!(desk.offset("nobody", 1, 0), None);
}

#[test]
fn clients_that_are_not_members_can_commit_only_in_an_empty_group() {
    let mut desk = Desk::new();
    assert_eq!(desk.commit(commit("g", "", -1, 1)), None);
    let joined = desk.stable("g", 1);
    assert_eq!(desk.commit(commit("g", "", -1, 2)), Some(GroupError::UnknownMemberId));
    assert_eq!(desk.commit(commit("g", &joined[0].member, 1, 3)), None);
    assert_eq!(desk.commit(commit("g", &joined[0].member, 2, 4)), Some(GroupError::IllegalGeneration));
    assert_eq!(desk.commit(commit("g", "nobody", 1, 4)), Some(GroupError::UnknownMemberId));
    assert_eq!(desk.offset("g", 1, 0), Some(3));
}

#[test]
fn commits_of_members_of_an_unknown_group_are_rejected() {
    let mut desk = Desk::new();
    assert_eq!(desk.commit(commit("g", "m", 1, 1)), Some(GroupError::GroupIdNotFound));
    let old = CommitRequest { knows_epochs: false, ..commit("g", "m", 1, 1) };
    assert_eq!(desk.commit(old), Some(GroupError::IllegalGeneration));
}

#[test]
fn members_can_commit_during_a_rebalance_until_they_join_the_next_generation() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let leader = desk.join("g", &joined[0].member);
    assert_eq!(desk.commit(commit("g", &joined[1].member, 1, 8)), None);
    let follower = desk.join("g", &joined[1].member);
    assert_eq!((desk.joined(leader).generation, desk.joined(follower).generation), (2, 2));
    assert_eq!(desk.commit(commit("g", &joined[1].member, 2, 9)), Some(GroupError::RebalanceInProgress));
    assert_eq!(desk.offset("g", 1, 0), Some(8));
}

#[test]
fn a_commit_extends_the_session() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    for n in 0..4 {
        desk.pass(SESSION_MS as u64 - 1);
        assert_eq!(desk.commit(commit("g", &joined[0].member, 1, n)), None);
    }
}

#[test]
fn offset_metadata_is_limited_as_in_kafka() {
    let mut desk = Desk::new();
    let with = |metadata: String| {
        let mut request = commit("g", "", -1, 1);
        request.offsets[0].metadata = metadata;
        request
    };
    assert_eq!(desk.commit(with("é".repeat(4_096))), None);
    assert_eq!(desk.commit(with("x".repeat(4_097))), Some(GroupError::OffsetMetadataTooLarge));
}

#[test]
fn unknown_partitions_are_rejected_and_the_others_are_committed() {
    let mut desk = Desk::new();
    let mut request = commit("g", "", -1, 1);
    request.offsets.push(CommittedPartition { partition: PartitionIndex(4), ..request.offsets[0].clone() });
    request.offsets.push(CommittedPartition { topic: topic(9), ..request.offsets[0].clone() });
    let GroupReply::Commit(outcomes) = desk.call(GroupRequest::Commit(request)) else {
        panic!("another reply");
    };
    let unknown = Some(GroupError::UnknownTopicOrPartition);
    let at = PartitionIndex;
    assert_eq!(outcomes, [(topic(1), at(0), None), (topic(1), at(4), unknown), (topic(9), at(0), unknown)]);
}

#[test]
fn all_offsets_are_limited_by_the_configured_memory() {
    let mut desk = Desk::new();
    let max = OFFSETS_BYTES_MAX / 8;
    let config = GroupConfig { offsets_bytes_max: max, ..GroupConfig::default() };
    desk.coordinator = GroupCoordinator::keyed(config, desk.now());
    desk.add_topics();
    let metadata = "x".repeat(4_096);
    let names = (0..).map(|n| format!("g{n}"));
    let four = |name: &str, metadata: &str| {
        let mut request = commit(name, "", -1, 1);
        let of = CommittedPartition { metadata: metadata.to_owned(), ..request.offsets[0].clone() };
        request.offsets =
            (0..4).map(|n| CommittedPartition { partition: PartitionIndex(n), ..of.clone() }).collect();
        request
    };
    let mut refused = None;
    for name in names.take(2 * max / 4 / 4_096) {
        refused = desk.commit(four(&name, &metadata));
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused, Some(GroupError::InvalidCommitOffsetSize));
    assert!(desk.coordinator.encode_snapshot().len() <= max);
    assert_eq!(desk.coordinator.too_many_offsets(), None);
    assert_eq!(desk.commit(four("g0", &metadata)), None, "existing offsets may still be committed");
    assert_eq!(desk.commit(four("g0", "less")), None);

    // A start with less memory keeps all offsets, and warns.
    let config = GroupConfig { offsets_bytes_max: max / 2, ..config };
    desk.coordinator = desk.recovered(config);
    let warning = desk.coordinator.too_many_offsets().expect("the offsets exceed the limit");
    assert!(warning.contains(&(max / 2).to_string()) && warning.contains("--memory"), "{warning}");
}

#[test]
fn offsets_of_a_simple_group_expire_a_week_after_their_commit() {
    let mut desk = Desk::new();
    desk.commit(commit("g", "", -1, 1));
    desk.pass(WEEK_MS - CLEANUP_MS);
    assert_eq!(desk.offset("g", 1, 0), Some(1));
    desk.pass(2 * CLEANUP_MS);
    assert_eq!((desk.offset("g", 1, 0), desk.state("g")), (None, "Dead"));
    desk.crash();
    assert_eq!(desk.offset("g", 1, 0), None);
}

#[test]
fn offsets_of_a_named_consumer_never_expire() {
    let mut desk = Desk::new();
    desk.commit(CommitRequest { forever: true, ..commit("g", "", -1, 1) });
    desk.pass(10 * WEEK_MS);
    assert_eq!(desk.offset("g", 1, 0), Some(1));
    assert_eq!(delete(&mut desk, "g"), None);
    assert_eq!(desk.offset("g", 1, 0), None);
}

#[test]
fn offsets_of_a_group_expire_a_week_after_its_last_member_left() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    desk.commit(commit("g", &joined[0].member, 1, 1));
    for _ in 0..2 * WEEK_MS / 5_000_000 {
        for _ in 0..2 {
            assert_eq!(desk.heartbeat("g", &joined[0].member, 1), None);
        }
        // This is longer than the session timeout: the clock jumps, and the next heartbeat comes before the deadline is handled.
        desk.ms += 5_000_000;
    }
    desk.leave("g", &[(&joined[0].member, None)]);
    desk.crash();
    desk.pass(WEEK_MS - CLEANUP_MS);
    assert_eq!(desk.offset("g", 1, 0), Some(1), "it has been empty for less than a week");
    desk.pass(2 * CLEANUP_MS);
    assert_eq!((desk.offset("g", 1, 0), desk.state("g")), (None, "Dead"));
}

#[test]
fn offsets_of_topics_without_subscribers_expire_in_a_group_with_members() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    let mut request = commit("g", &joined[0].member, 1, 7);
    request.offsets.push(CommittedPartition { topic: topic(2), ..request.offsets[0].clone() });
    desk.commit(request);
    desk.ms += WEEK_MS + CLEANUP_MS;
    desk.heartbeat("g", &joined[0].member, 1);
    desk.pass(0);
    assert_eq!((desk.offset("g", 1, 0), desk.offset("g", 2, 0)), (Some(7), None));
}

#[test]
fn offsets_of_subscribed_topics_cannot_be_deleted() {
    let mut desk = Desk::new();
    assert_eq!(delete_offsets(&mut desk, "g", 1), Err(GroupError::GroupIdNotFound));
    let joined = desk.stable("g", 1);
    desk.commit(commit("g", &joined[0].member, 1, 7));
    assert_eq!(delete_offsets(&mut desk, "g", 1), Ok(Some(GroupError::GroupSubscribedToTopic)));
    assert_eq!(delete_offsets(&mut desk, "g", 2), Ok(None));
    desk.leave("g", &[(&joined[0].member, None)]);
    assert_eq!(delete_offsets(&mut desk, "g", 1), Ok(None));
    assert_eq!(desk.offset("g", 1, 0), None);
    desk.crash();
    assert_eq!(desk.offset("g", 1, 0), None);
}

#[test]
fn offsets_cannot_be_deleted_in_a_group_with_members_other_than_consumers() {
    let mut desk = Desk::new();
    let token =
        desk.ask(GroupRequest::Join(JoinRequest { protocol_type: "connect".into(), ..join("c", "") }));
    desk.pass(6_000);
    let joined = [desk.joined(token)];
    desk.sync_all("c", &joined);
    assert_eq!(delete_offsets(&mut desk, "c", 1), Err(GroupError::NonEmptyGroup));
}

#[test]
fn only_a_group_without_members_can_be_deleted() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    desk.commit(commit("g", &joined[0].member, 1, 7));
    assert_eq!(delete(&mut desk, "g"), Some(GroupError::NonEmptyGroup));
    desk.leave("g", &[(&joined[0].member, None)]);
    assert_eq!(delete(&mut desk, "g"), None);
    assert_eq!(delete(&mut desk, "g"), Some(GroupError::GroupIdNotFound));
    desk.crash();
    assert_eq!((desk.state("g"), desk.offset("g", 1, 0)), ("Dead", None));
}

#[test]
fn the_offsets_of_a_deleted_topic_are_deleted() {
    let mut desk = Desk::new();
    desk.commit(commit("g", "", -1, 1));
    desk.delete_topic(1);
    desk.settle();
    assert_eq!(desk.offset("g", 1, 0), None);
    desk.crash();
    assert_eq!(desk.offset("g", 1, 0), None);
}

#[test]
fn a_recreated_topic_neither_inherits_offsets_nor_loses_its_own() {
    const PARTITIONS: u32 = 2 * limits::LONG_ITEMS_PER_SLICE_MAX as u32;
    for crashes in [false, true] {
        let mut desk = Desk::new();
        desk.add_topic(1, "one", PARTITIONS);
        let mut old = commit("g", "", -1, 1);
        let first = old.offsets[0].clone();
        let of = |n| CommittedPartition { partition: PartitionIndex(n), ..first.clone() };
        old.offsets = (0..PARTITIONS).map(of).collect();
        assert_eq!(desk.commit(old), None);
        desk.delete_topic(1);
        desk.add_topic(9, "one", PARTITIONS);
        if crashes {
            desk.crash();
        }
        // The tombstone for the old offset in partition 0 is the last one; it would follow this commit.
        let mut new = commit("g", "", -1, 5);
        new.offsets[0].topic = topic(9);
        assert_eq!(desk.commit(new), None);
        let records = desk.log.iter().flat_map(|batch| &batch.records);
        let tombstones = records.filter(|(_, value)| value.is_none()).count() as u32;
        assert_eq!(tombstones, if crashes { PARTITIONS } else { PARTITIONS - 1 });
        desk.crash();
        assert_eq!([0, 1, PARTITIONS - 1].map(|n| desk.offset("g", 9, n)), [Some(5), None, None]);
    }
}

#[test]
fn offsets_of_a_consumer_protocol_group_expire_a_week_after_its_last_member_left() {
    let mut desk = Desk::new();
    let mut a = worker("g", "a", &["one"]);
    a.beat(&mut desk);
    desk.commit(commit("g", "a", a.request.epoch.0, 1));
    for _ in 0..2 * WEEK_MS / 5_000_000 {
        assert_eq!(a.beat(&mut desk).error, None);
        // This is longer than the session timeout: the clock jumps, and the next heartbeat comes before the deadline is handled.
        desk.ms += 5_000_000;
    }
    a.request.epoch = GroupEpoch(-1);
    a.send(&mut desk);
    for _ in 0..2 {
        desk.crash();
        desk.pass(WEEK_MS / 2 - CLEANUP_MS);
        assert_eq!(desk.offset("g", 1, 0), Some(1), "it has been empty for less than a week");
    }
    desk.pass(4 * CLEANUP_MS);
    assert_eq!((desk.offset("g", 1, 0), desk.state("g")), (None, "Dead"));
}

#[test]
fn offsets_of_topics_that_match_an_expression_cannot_be_deleted_even_after_a_restart() {
    let mut desk = Desk::new();
    let mut a = worker("g", "a", &[]);
    a.request.topic_regex = Some("on.".into());
    a.beat(&mut desk);
    desk.commit(commit("g", "a", a.request.epoch.0, 7));
    desk.crash();
    assert_eq!(delete_offsets(&mut desk, "g", 1), Ok(Some(GroupError::GroupSubscribedToTopic)));
    assert_eq!(delete_offsets(&mut desk, "g", 2), Ok(None));
}
