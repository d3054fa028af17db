//! What survives a restart, and which replies wait until their effects are durable.

use super::consumer::test_member;
use super::*;

/// Returns a harness that holds back the writes to its log.
fn harness_without_writes() -> Harness {
    Harness { persists_at_once: false, ..Harness::new() }
}

#[test]
fn a_commit_is_acknowledged_and_readable_only_once_durable() {
    let mut harness = harness_without_writes();
    let committed = harness.send(GroupRequest::Commit(commit("g", "", -1, 7)));
    let all = FetchRequest { group: "g".into(), member: None, partitions: None, require_stable: false };
    let read = harness.send(GroupRequest::Fetch(vec![all]));
    assert!(harness.reply(committed).is_none() && harness.reply(read).is_none());
    harness.write();
    harness.drain();
    assert!(matches!(harness.reply(committed), Some(GroupReply::Commit(_))));
    let Some(GroupReply::Fetch(replies)) = harness.reply(read) else { panic!("no reply") };
    let reply = &replies[0];
    assert_eq!(reply.offsets[0].offset, Offset(7));
}

#[test]
fn assignments_are_sent_only_once_durable() {
    let mut harness = harness_without_writes();
    let token = harness.join("g", "");
    harness.advance(6_000);
    let joined = harness.joined(token);
    let synced = harness.sync(&joined, "g", &[(&joined.member, b"mine")]);
    assert!(harness.reply(synced).is_none());
    harness.write();
    harness.drain();
    assert_eq!(&harness.synced(synced).assignment[..], b"mine");
}

#[test]
fn other_groups_do_not_wait_for_a_commit() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    harness.persists_at_once = false;
    harness.send(GroupRequest::Commit(commit("other", "", -1, 7)));
    assert_eq!(harness.heartbeat("g", &joined[0].member, 1), None);
}

#[test]
fn members_of_the_classic_protocol_continue_after_a_restart() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    harness.commit(commit("g", &joined[0].member, 1, 9));
    harness.advance(9_000);
    harness.crash();
    harness.advance(SESSION_MS as u64 - 1);
    assert_eq!(harness.heartbeat("g", &joined[0].member, 1), None, "sessions have restarted");
    let token = harness.sync(&joined[1], "g", &[]);
    assert_eq!(&harness.synced(token).assignment[..], [1]);
    assert_eq!((harness.state("g"), harness.offset("g", 1, 0)), ("Stable", Some(9)));
    harness.advance(1);
    assert_eq!(harness.heartbeat("g", &joined[0].member, 1), Some(GroupError::RebalanceInProgress));
}

#[test]
fn a_crash_during_a_rebalance_restores_the_last_complete_generation() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    let token = harness.join("g", &joined[0].member);
    let second = harness.joined(token);
    assert_eq!(second.generation, 2);
    harness.crash();
    assert_eq!(harness.heartbeat("g", &joined[0].member, 2), Some(GroupError::IllegalGeneration));
    let token = harness.join("g", &joined[0].member);
    assert_eq!(harness.joined(token).generation, 2);
}

#[test]
fn members_of_the_consumer_protocol_continue_after_a_restart() {
    let mut harness = Harness::new();
    let [mut a, mut b] = ["a", "b"].map(|m| test_member("g", m, &["one"]));
    a.full_heartbeat(&mut harness);
    b.full_heartbeat(&mut harness);
    a.full_heartbeat(&mut harness);
    harness.crash();
    assert_eq!(a.full_heartbeat(&mut harness).error, None);
    assert_eq!(b.full_heartbeat(&mut harness).error, None);
    assert_eq!(
        (&a.assignment[0].1[..], &b.assignment[0].1[..]),
        (&indexes([0, 1])[..], &indexes([2, 3])[..])
    );
}

#[test]
fn the_timeout_of_a_revocation_restarts_after_a_restart() {
    let mut harness = Harness::new();
    let [mut a, mut b] = ["a", "b"].map(|m| test_member("g", m, &["one"]));
    a.request.rebalance_timeout_ms = 20_000;
    a.full_heartbeat(&mut harness);
    b.full_heartbeat(&mut harness);
    a.full_heartbeat(&mut harness);
    harness.crash();
    harness.advance(19_999);
    b.full_heartbeat(&mut harness);
    assert!(b.assignment.is_empty());
    harness.advance(1);
    b.full_heartbeat(&mut harness);
    assert_eq!(b.assignment, [(topic(1), indexes([0, 1, 2, 3]))]);
}

#[test]
fn a_snapshot_has_exactly_the_persisted_state() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let mut a = test_member("h", "a", &["one"]);
    a.full_heartbeat(&mut harness);
    harness.commit(commit("simple", "", -1, 3));
    harness.join("g", &joined[0].member);
    let before = harness.coordinator.encode_snapshot();
    let again = GroupCoordinator::recover(
        GroupConfig::default(),
        harness.now(),
        Some(&before[..]),
        std::iter::empty(),
    )
    .expect("readable");
    assert_eq!(again.encode_snapshot(), before);
    assert_eq!(harness.recovered(GroupConfig::default()).encode_snapshot(), before);
    harness.recover_payloads([&before[..]].into_iter());
    assert_eq!(harness.recovered(GroupConfig::default()).encode_snapshot(), before, "carried over");
}

#[test]
fn offsets_of_topics_that_are_missing_after_a_restart_are_deleted() {
    let mut harness = Harness::new();
    harness.commit(commit("g", "", -1, 3));
    harness.topics.retain(|(id, ..)| *id != topic(1));
    harness.crash();
    assert_eq!(harness.offset("g", 1, 0), None);
    let records = harness.log.iter().flat_map(|batch| &batch.records);
    assert_eq!(records.filter(|(_, value)| value.is_none()).count(), 1, "a tombstone");
}

const FULL: Option<GroupError> = Some(GroupError::CoordinatorNotAvailable);

#[test]
fn requests_that_need_a_record_are_rejected_when_the_disk_is_full() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    let mut member = test_member("h", "a", &["one"]);
    member.full_heartbeat(&mut harness);
    harness.stall(true);
    assert_eq!(harness.commit(commit("g", &joined[0].member, 1, 3)), FULL);
    let token = harness.join("new", "");
    assert_eq!(harness.joined(token).error, FULL);
    let token = harness.send(GroupRequest::Leave(LeaveRequest {
        group: "g".into(),
        members: vec![(joined[0].member.clone(), None)],
    }));
    assert!(matches!(harness.reply(token), Some(GroupReply::Leave(reply)) if reply.error == FULL));
    assert_eq!(test_member("x", "a", &["one"]).full_heartbeat(&mut harness).error, FULL);
    let subscribed = member.request.topic_names.replace(vec!["two".into()]);
    assert_eq!(member.full_heartbeat(&mut harness).error, FULL);
    member.request.topic_names = subscribed;
    assert!(
        harness.coordinator.poll_batch().is_none(),
        "rejected requests leave no records, however often they are retried"
    );

    // Members that need no new records are not affected.
    assert_eq!(harness.heartbeat("g", &joined[0].member, 1), None);
    assert_eq!(member.full_heartbeat(&mut harness).error, None);
    let token = harness.sync(&joined[0], "g", &[]);
    assert_eq!(&harness.synced(token).assignment[..], [0]);

    harness.stall(false);
    assert_eq!(harness.commit(commit("g", &joined[0].member, 1, 3)), None);
}

#[test]
fn requests_that_wait_for_the_log_are_rejected_when_the_disk_is_full() {
    let mut harness = harness_without_writes();
    let committed = harness.send(GroupRequest::Commit(commit("g", "", -1, 7)));
    let all = FetchRequest { group: "g".into(), member: None, partitions: None, require_stable: false };
    let read = harness.send(GroupRequest::Fetch(vec![all.clone()]));
    let deleted = harness.send(GroupRequest::Delete(vec!["none".into(), "g".into()]));
    let beat = harness.send(GroupRequest::ConsumerHeartbeat(test_member("h", "a", &["one"]).request));
    assert!(harness.replies.is_empty(), "nothing is durable");

    harness.stall(true);
    let Some(GroupReply::Commit(outcomes)) = harness.reply(committed) else { panic!("no reply") };
    assert_eq!(outcomes, [(topic(1), PartitionIndex(0), FULL)]);
    let Some(GroupReply::Fetch(replies)) = harness.reply(read) else { panic!("no reply") };
    let reply = &replies[0];
    assert_eq!((reply.error, reply.offsets.len()), (FULL, 0));
    let Some(GroupReply::Delete(outcomes)) = harness.reply(deleted) else { panic!("no reply") };
    let unknown = Some(GroupError::GroupIdNotFound);
    assert_eq!(outcomes, [("none".into(), unknown), ("g".into(), FULL)]);
    let Some(GroupReply::ConsumerHeartbeat(reply)) = harness.reply(beat) else { panic!("no reply") };
    assert_eq!((reply.error, &reply.member[..]), (FULL, "a"));

    // Replies report nothing that is not durable.
    let read = harness.send(GroupRequest::Fetch(vec![all]));
    assert!(matches!(harness.reply(read), Some(GroupReply::Fetch(replies)) if replies[0].error == FULL));
    let again = harness.send(GroupRequest::ConsumerHeartbeat(test_member("h", "a", &["one"]).request));
    assert!(
        matches!(harness.reply(again), Some(GroupReply::ConsumerHeartbeat(reply)) if reply.error == FULL)
    );

    harness.persists_at_once = true;
    harness.stall(false);
    let mut member = test_member("h", "a", &["one"]);
    assert_eq!(member.full_heartbeat(&mut harness).error, None);
    assert_eq!(member.assignment, [(topic(1), indexes([0, 1, 2, 3]))]);
}

#[test]
fn waiting_members_are_rejected_when_the_disk_is_full_and_can_continue_later() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let [leader, follower] = [&joined[0], &joined[1]];
    let waiting = harness.join("g", &leader.member);
    assert!(harness.reply(waiting).is_none(), "the request waits for the other member");
    harness.stall(true);
    assert_eq!(harness.joined(waiting).error, FULL);
    harness.stall(false);

    let tokens = [leader, follower].map(|member| harness.join("g", &member.member));
    let joined = tokens.map(|token| harness.joined(token));
    let waiting = harness.sync(&joined[1], "g", &[]);
    assert!(harness.reply(waiting).is_none(), "the request waits for the leader");
    harness.stall(true);
    assert_eq!(harness.synced(waiting).error, FULL);
    let rejected = harness.sync(&joined[1], "g", &[]);
    assert_eq!(
        harness.synced(rejected).error,
        FULL,
        "a member does not wait for a leader whose requests are rejected"
    );
    harness.stall(false);
    harness.sync_all("g", &joined);
    assert_eq!(harness.state("g"), "Stable");
}

#[test]
fn sessions_restart_when_the_broker_resumes_service() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 2);
    let mut a = test_member("h", "a", &["one"]);
    a.full_heartbeat(&mut harness);
    harness.crash_for(100_000);
    harness.advance(SESSION_MS as u64 - 1);
    assert_eq!(harness.heartbeat("g", &joined[0].member, 1), None);
    assert_eq!(a.full_heartbeat(&mut harness).error, None);
    harness.advance(1);
    assert_eq!(harness.heartbeat("g", &joined[0].member, 1), Some(GroupError::RebalanceInProgress));
}
