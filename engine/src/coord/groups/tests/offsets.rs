//! Offsets: who may commit them, when they expire, and who may delete them.

use highwater_protocol::ids::GroupEpoch;

use super::consumer::test_member;
use super::*;
use crate::limits::OFFSETS_BYTES_MAX;

const WEEK_MS: u64 = 7 * 24 * 3_600 * 1_000;
const CLEANUP_MS: u64 = 600_000;

fn delete(harness: &mut Harness, group: &str) -> Option<GroupError> {
    match harness.call(GroupRequest::Delete(vec![group.into()])) {
        GroupReply::Delete(outcomes) => outcomes[0].1,
        other => panic!("{other:?}"),
    }
}

fn delete_offsets(harness: &mut Harness, group: &str, of: u8) -> Result<Option<GroupError>, GroupError> {
    let request = DeleteOffsetsRequest {
        group: group.into(),
        partitions: vec![(topic(of), vec![PartitionIndex(0), PartitionIndex(1)])],
    };
    match harness.call(GroupRequest::DeleteOffsets(request)) {
        GroupReply::DeleteOffsets(outcomes) => outcomes.map(|o| o[0].2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_offset_is_returned_with_its_epoch_and_metadata() {
    let mut harness = Harness::new();
    assert_eq!(harness.commit(commit("g", "", -1, 42)), None);
    let all = FetchRequest { group: "g".into(), member: None, partitions: None, require_stable: false };
    let GroupReply::Fetch(mut replies) = harness.call(GroupRequest::Fetch(vec![all])) else {
        panic!("another reply")
    };
    let reply = replies.remove(0);
    assert_eq!(reply, FetchReply { error: None, offsets: commit("g", "", -1, 42).offsets });
    assert_eq!(harness.offset("g", 1, 1), None);
    assert_eq!(harness.offset("nobody", 1, 0), None);
}

#[test]
fn clients_that_are_not_members_can_commit_only_in_an_empty_group() {
    let mut harness = Harness::new();
    assert_eq!(harness.commit(commit("g", "", -1, 1)), None);
    let joined = harness.stable_group("g", 1);
    assert_eq!(harness.commit(commit("g", "", -1, 2)), Some(GroupError::UnknownMemberId));
    assert_eq!(harness.commit(commit("g", &joined[0].member, 1, 3)), None);
    assert_eq!(harness.commit(commit("g", &joined[0].member, 2, 4)), Some(GroupError::IllegalGeneration));
    assert_eq!(harness.commit(commit("g", "nobody", 1, 4)), Some(GroupError::UnknownMemberId));
    assert_eq!(harness.offset("g", 1, 0), Some(3));
}

#[test]
fn commits_of_members_of_an_unknown_group_are_rejected() {
    let mut harness = Harness::new();
    assert_eq!(harness.commit(commit("g", "m", 1, 1)), Some(GroupError::GroupIdNotFound));
    let old = CommitRequest { knows_epochs: false, ..commit("g", "m", 1, 1) };
    assert_eq!(harness.commit(old), Some(GroupError::IllegalGeneration));
}

#[test]
fn members_can_commit_during_a_rebalance_until_they_join_the_next_generation() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let leader = harness.join("g", &joined[0].member);
    assert_eq!(harness.commit(commit("g", &joined[1].member, 1, 8)), None);
    let follower = harness.join("g", &joined[1].member);
    assert_eq!((harness.joined(leader).generation, harness.joined(follower).generation), (2, 2));
    assert_eq!(harness.commit(commit("g", &joined[1].member, 2, 9)), Some(GroupError::RebalanceInProgress));
    assert_eq!(harness.offset("g", 1, 0), Some(8));
}

#[test]
fn a_commit_extends_the_session() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    for n in 0..4 {
        harness.advance(SESSION_MS as u64 - 1);
        assert_eq!(harness.commit(commit("g", &joined[0].member, 1, n)), None);
    }
}

#[test]
fn offset_metadata_is_limited_as_in_kafka() {
    let mut harness = Harness::new();
    let with = |metadata: String| {
        let mut request = commit("g", "", -1, 1);
        request.offsets[0].metadata = metadata;
        request
    };
    assert_eq!(harness.commit(with("é".repeat(4_096))), None);
    assert_eq!(harness.commit(with("x".repeat(4_097))), Some(GroupError::OffsetMetadataTooLarge));
}

#[test]
fn unknown_partitions_are_rejected_and_the_others_are_committed() {
    let mut harness = Harness::new();
    let mut request = commit("g", "", -1, 1);
    request.offsets.push(CommittedPartition { partition: PartitionIndex(4), ..request.offsets[0].clone() });
    request.offsets.push(CommittedPartition { topic: topic(9), ..request.offsets[0].clone() });
    let GroupReply::Commit(outcomes) = harness.call(GroupRequest::Commit(request)) else {
        panic!("another reply");
    };
    let unknown = Some(GroupError::UnknownTopicOrPartition);
    let at = PartitionIndex;
    assert_eq!(outcomes, [(topic(1), at(0), None), (topic(1), at(4), unknown), (topic(9), at(0), unknown)]);
}

#[test]
fn all_offsets_are_limited_by_the_configured_memory() {
    let mut harness = Harness::new();
    let max = OFFSETS_BYTES_MAX / 8;
    let config = GroupConfig { offsets_bytes_max: max, ..GroupConfig::default() };
    harness.coordinator = GroupCoordinator::keyed(config, harness.now());
    harness.add_topics();
    let metadata = "x".repeat(4_096);
    let names = (0..).map(|n| format!("g{n}"));
    let four = |name: &str, metadata: &str| {
        let mut request = commit(name, "", -1, 1);
        let of = CommittedPartition { metadata: metadata.to_owned(), ..request.offsets[0].clone() };
        request.offsets =
            (0..4).map(|n| CommittedPartition { partition: PartitionIndex(n), ..of.clone() }).collect();
        request
    };
    let mut error = None;
    for name in names.take(2 * max / 4 / 4_096) {
        error = harness.commit(four(&name, &metadata));
        if error.is_some() {
            break;
        }
    }
    assert_eq!(error, Some(GroupError::InvalidCommitOffsetSize));
    assert!(harness.coordinator.encode_snapshot().len() <= max);
    assert_eq!(harness.coordinator.too_many_offsets(), None);
    assert_eq!(harness.commit(four("g0", &metadata)), None, "existing offsets may still be committed");
    assert_eq!(harness.commit(four("g0", "less")), None);

    // A start with less memory keeps all offsets, and warns.
    let config = GroupConfig { offsets_bytes_max: max / 2, ..config };
    harness.coordinator = harness.recovered(config);
    let warning = harness.coordinator.too_many_offsets().expect("the offsets exceed the limit");
    assert!(warning.contains(&(max / 2).to_string()) && warning.contains("--memory"), "{warning}");
}

#[test]
fn offsets_of_a_simple_group_expire_a_week_after_their_commit() {
    let mut harness = Harness::new();
    harness.commit(commit("g", "", -1, 1));
    harness.advance(WEEK_MS - CLEANUP_MS);
    assert_eq!(harness.offset("g", 1, 0), Some(1));
    harness.advance(2 * CLEANUP_MS);
    assert_eq!((harness.offset("g", 1, 0), harness.state("g")), (None, "Dead"));
    harness.crash();
    assert_eq!(harness.offset("g", 1, 0), None);
}

#[test]
fn offsets_of_a_named_consumer_never_expire() {
    let mut harness = Harness::new();
    harness.commit(CommitRequest { forever: true, ..commit("g", "", -1, 1) });
    harness.advance(10 * WEEK_MS);
    assert_eq!(harness.offset("g", 1, 0), Some(1));
    assert_eq!(delete(&mut harness, "g"), None);
    assert_eq!(harness.offset("g", 1, 0), None);
}

#[test]
fn offsets_of_a_group_expire_a_week_after_its_last_member_left() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    harness.commit(commit("g", &joined[0].member, 1, 1));
    for _ in 0..2 * WEEK_MS / 5_000_000 {
        for _ in 0..2 {
            assert_eq!(harness.heartbeat("g", &joined[0].member, 1), None);
        }
        // This is longer than the session timeout: the clock jumps, and the next heartbeat comes before the deadline is handled.
        harness.ms += 5_000_000;
    }
    harness.leave("g", &[(&joined[0].member, None)]);
    harness.crash();
    harness.advance(WEEK_MS - CLEANUP_MS);
    assert_eq!(harness.offset("g", 1, 0), Some(1), "it has been empty for less than a week");
    harness.advance(2 * CLEANUP_MS);
    assert_eq!((harness.offset("g", 1, 0), harness.state("g")), (None, "Dead"));
}

#[test]
fn offsets_of_topics_without_subscribers_expire_in_a_group_with_members() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    let mut request = commit("g", &joined[0].member, 1, 7);
    request.offsets.push(CommittedPartition { topic: topic(2), ..request.offsets[0].clone() });
    harness.commit(request);
    harness.ms += WEEK_MS + CLEANUP_MS;
    harness.heartbeat("g", &joined[0].member, 1);
    harness.advance(0);
    assert_eq!((harness.offset("g", 1, 0), harness.offset("g", 2, 0)), (Some(7), None));
}

#[test]
fn offsets_of_subscribed_topics_cannot_be_deleted() {
    let mut harness = Harness::new();
    assert_eq!(delete_offsets(&mut harness, "g", 1), Err(GroupError::GroupIdNotFound));
    let joined = harness.stable_group("g", 1);
    harness.commit(commit("g", &joined[0].member, 1, 7));
    assert_eq!(delete_offsets(&mut harness, "g", 1), Ok(Some(GroupError::GroupSubscribedToTopic)));
    assert_eq!(delete_offsets(&mut harness, "g", 2), Ok(None));
    harness.leave("g", &[(&joined[0].member, None)]);
    assert_eq!(delete_offsets(&mut harness, "g", 1), Ok(None));
    assert_eq!(harness.offset("g", 1, 0), None);
    harness.crash();
    assert_eq!(harness.offset("g", 1, 0), None);
}

#[test]
fn offsets_cannot_be_deleted_in_a_group_with_members_other_than_consumers() {
    let mut harness = Harness::new();
    let token =
        harness.send(GroupRequest::Join(JoinRequest { protocol_type: "connect".into(), ..join("c", "") }));
    harness.advance(6_000);
    let joined = [harness.joined(token)];
    harness.sync_all("c", &joined);
    assert_eq!(delete_offsets(&mut harness, "c", 1), Err(GroupError::NonEmptyGroup));
}

#[test]
fn only_a_group_without_members_can_be_deleted() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    harness.commit(commit("g", &joined[0].member, 1, 7));
    assert_eq!(delete(&mut harness, "g"), Some(GroupError::NonEmptyGroup));
    harness.leave("g", &[(&joined[0].member, None)]);
    assert_eq!(delete(&mut harness, "g"), None);
    assert_eq!(delete(&mut harness, "g"), Some(GroupError::GroupIdNotFound));
    harness.crash();
    assert_eq!((harness.state("g"), harness.offset("g", 1, 0)), ("Dead", None));
}

#[test]
fn the_offsets_of_a_deleted_topic_are_deleted() {
    let mut harness = Harness::new();
    harness.commit(commit("g", "", -1, 1));
    harness.delete_topic(1);
    harness.drain();
    assert_eq!(harness.offset("g", 1, 0), None);
    harness.crash();
    assert_eq!(harness.offset("g", 1, 0), None);
}

#[test]
fn a_recreated_topic_neither_inherits_offsets_nor_loses_its_own() {
    const PARTITIONS: u32 = 2 * limits::LONG_ITEMS_PER_SLICE_MAX as u32;
    for crashes in [false, true] {
        let mut harness = Harness::new();
        harness.add_topic(1, "one", PARTITIONS);
        let mut old = commit("g", "", -1, 1);
        let first = old.offsets[0].clone();
        let of = |n| CommittedPartition { partition: PartitionIndex(n), ..first.clone() };
        old.offsets = (0..PARTITIONS).map(of).collect();
        assert_eq!(harness.commit(old), None);
        harness.delete_topic(1);
        harness.add_topic(9, "one", PARTITIONS);
        if crashes {
            harness.crash();
        }
        // The tombstone for the old offset in partition 0 is the last one; it would follow this commit.
        let mut new = commit("g", "", -1, 5);
        new.offsets[0].topic = topic(9);
        assert_eq!(harness.commit(new), None);
        let records = harness.log.iter().flat_map(|batch| &batch.records);
        let tombstones = records.filter(|(_, value)| value.is_none()).count() as u32;
        assert_eq!(tombstones, if crashes { PARTITIONS } else { PARTITIONS - 1 });
        harness.crash();
        assert_eq!([0, 1, PARTITIONS - 1].map(|n| harness.offset("g", 9, n)), [Some(5), None, None]);
    }
}

#[test]
fn offsets_of_a_consumer_protocol_group_expire_a_week_after_its_last_member_left() {
    let mut harness = Harness::new();
    let mut a = test_member("g", "a", &["one"]);
    a.full_heartbeat(&mut harness);
    harness.commit(commit("g", "a", a.request.epoch.0, 1));
    for _ in 0..2 * WEEK_MS / 5_000_000 {
        assert_eq!(a.full_heartbeat(&mut harness).error, None);
        // This is longer than the session timeout: the clock jumps, and the next heartbeat comes before the deadline is handled.
        harness.ms += 5_000_000;
    }
    a.request.epoch = GroupEpoch(-1);
    a.send_heartbeat(&mut harness);
    for _ in 0..2 {
        harness.crash();
        harness.advance(WEEK_MS / 2 - CLEANUP_MS);
        assert_eq!(harness.offset("g", 1, 0), Some(1), "it has been empty for less than a week");
    }
    harness.advance(4 * CLEANUP_MS);
    assert_eq!((harness.offset("g", 1, 0), harness.state("g")), (None, "Dead"));
}

#[test]
fn offsets_of_topics_that_match_an_expression_cannot_be_deleted_even_after_a_restart() {
    let mut harness = Harness::new();
    let mut a = test_member("g", "a", &[]);
    a.request.topic_regex = Some("on.".into());
    a.full_heartbeat(&mut harness);
    harness.commit(commit("g", "a", a.request.epoch.0, 7));
    harness.crash();
    assert_eq!(delete_offsets(&mut harness, "g", 1), Ok(Some(GroupError::GroupSubscribedToTopic)));
    assert_eq!(delete_offsets(&mut harness, "g", 2), Ok(None));
}
