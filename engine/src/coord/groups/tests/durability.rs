//! What survives a restart, and which replies wait until it would.

use super::consumer::worker;
use super::*;

/// Returns a harness that holds back the writes to its log.
fn held() -> Desk {
    Desk { writes: false, ..Desk::new() }
}

#[test]
fn a_commit_is_acknowledged_and_readable_only_once_durable() {
    let mut desk = held();
    let committed = desk.ask(GroupRequest::Commit(commit("g", "", -1, 7)));
    let all = FetchRequest { group: "g".into(), member: None, partitions: None, require_stable: false };
    let read = desk.ask(GroupRequest::Fetch(vec![all]));
    assert!(desk.reply(committed).is_none() && desk.reply(read).is_none());
    desk.write();
    desk.settle();
    assert!(matches!(desk.reply(committed), Some(GroupReply::Commit(_))));
    let Some(GroupReply::Fetch(replies)) = desk.reply(read) else { panic!("no reply") };
    let reply = &replies[0];
    assert_eq!(reply.offsets[0].offset, Offset(7));
}

#[test]
fn assignments_are_sent_only_once_durable() {
    let mut desk = held();
    let token = desk.join("g", "");
    desk.pass(6_000);
    let joined = desk.joined(token);
    let synced = desk.sync(&joined, "g", &[(&joined.member, b"mine")]);
    assert!(desk.reply(synced).is_none());
    desk.write();
    desk.settle();
    assert_eq!(&desk.synced(synced).assignment[..], b"mine");
}

#[test]
fn other_groups_do_not_wait_for_a_commit() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    desk.writes = false;
    desk.ask(GroupRequest::Commit(commit("other", "", -1, 7)));
    assert_eq!(desk.heartbeat("g", &joined[0].member, 1), None);
}

#[test]
fn members_of_the_classic_protocol_continue_after_a_restart() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    desk.commit(commit("g", &joined[0].member, 1, 9));
    desk.pass(9_000);
    desk.crash();
    desk.pass(SESSION_MS as u64 - 1);
    assert_eq!(desk.heartbeat("g", &joined[0].member, 1), None, "sessions have restarted");
    let token = desk.sync(&joined[1], "g", &[]);
    assert_eq!(&desk.synced(token).assignment[..], [1]);
    assert_eq!((desk.state("g"), desk.offset("g", 1, 0)), ("Stable", Some(9)));
    desk.pass(1);
    assert_eq!(desk.heartbeat("g", &joined[0].member, 1), Some(GroupError::RebalanceInProgress));
}

#[test]
fn a_crash_during_a_rebalance_restores_the_last_complete_generation() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    let token = desk.join("g", &joined[0].member);
    let second = desk.joined(token);
    assert_eq!(second.generation, 2);
    desk.crash();
    assert_eq!(desk.heartbeat("g", &joined[0].member, 2), Some(GroupError::IllegalGeneration));
    let token = desk.join("g", &joined[0].member);
    assert_eq!(desk.joined(token).generation, 2);
}

#[test]
fn members_of_the_consumer_protocol_continue_after_a_restart() {
    let mut desk = Desk::new();
    let [mut a, mut b] = ["a", "b"].map(|m| worker("g", m, &["one"]));
    a.beat(&mut desk);
    b.beat(&mut desk);
    a.beat(&mut desk);
    desk.crash();
    assert_eq!(a.beat(&mut desk).error, None);
    assert_eq!(b.beat(&mut desk).error, None);
    assert_eq!((&a.told[0].1[..], &b.told[0].1[..]), (&indexes([0, 1])[..], &indexes([2, 3])[..]));
}

#[test]
fn the_timeout_of_a_revocation_restarts_after_a_restart() {
    let mut desk = Desk::new();
    let [mut a, mut b] = ["a", "b"].map(|m| worker("g", m, &["one"]));
    a.request.rebalance_timeout_ms = 20_000;
    a.beat(&mut desk);
    b.beat(&mut desk);
    a.beat(&mut desk);
    desk.crash();
    desk.pass(19_999);
    b.beat(&mut desk);
    assert!(b.told.is_empty());
    desk.pass(1);
    b.beat(&mut desk);
    assert_eq!(b.told, [(topic(1), indexes([0, 1, 2, 3]))]);
}

#[test]
fn a_snapshot_has_exactly_the_persisted_state() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let mut a = worker("h", "a", &["one"]);
    a.beat(&mut desk);
    desk.commit(commit("simple", "", -1, 3));
    desk.join("g", &joined[0].member);
    let before = desk.coordinator.encode_snapshot();
    let again =
        GroupCoordinator::recover(GroupConfig::default(), desk.now(), Some(&before[..]), std::iter::empty())
            .expect("readable");
    assert_eq!(again.encode_snapshot(), before);
    assert_eq!(desk.recovered(GroupConfig::default()).encode_snapshot(), before);
    desk.recover_payloads([&before[..]].into_iter());
    assert_eq!(desk.recovered(GroupConfig::default()).encode_snapshot(), before, "carried over");
}

#[test]
fn offsets_of_topics_that_are_missing_after_a_restart_are_deleted() {
    let mut desk = Desk::new();
    desk.commit(commit("g", "", -1, 3));
    desk.topics.retain(|(id, ..)| *id != topic(1));
    desk.crash();
    assert_eq!(desk.offset("g", 1, 0), None);
    let records = desk.log.iter().flat_map(|batch| &batch.records);
    assert_eq!(records.filter(|(_, value)| value.is_none()).count(), 1, "a tombstone");
}

const FULL: Option<GroupError> = Some(GroupError::CoordinatorNotAvailable);

#[test]
fn requests_that_need_a_record_are_rejected_when_the_disk_is_full() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    let mut member = worker("h", "a", &["one"]);
    member.beat(&mut desk);
    desk.stall(true);
    assert_eq!(desk.commit(commit("g", &joined[0].member, 1, 3)), FULL);
    let token = desk.join("new", "");
    assert_eq!(desk.joined(token).error, FULL);
    let token = desk.ask(GroupRequest::Leave(LeaveRequest {
        group: "g".into(),
        members: vec![(joined[0].member.clone(), None)],
    }));
    assert!(matches!(desk.reply(token), Some(GroupReply::Leave(reply)) if reply.error == FULL));
    assert_eq!(worker("x", "a", &["one"]).beat(&mut desk).error, FULL);
    let subscribed = member.request.topic_names.replace(vec!["two".into()]);
    assert_eq!(member.beat(&mut desk).error, FULL);
    member.request.topic_names = subscribed;
    assert!(
        desk.coordinator.poll_batch().is_none(),
        "rejected requests leave no records, however often they are retried"
    );

    // Members that need no new records are not affected.
    assert_eq!(desk.heartbeat("g", &joined[0].member, 1), None);
    assert_eq!(member.beat(&mut desk).error, None);
    let token = desk.sync(&joined[0], "g", &[]);
    assert_eq!(&desk.synced(token).assignment[..], [0]);

    desk.stall(false);
    assert_eq!(desk.commit(commit("g", &joined[0].member, 1, 3)), None);
}

#[test]
fn requests_that_wait_for_the_log_are_rejected_when_the_disk_is_full() {
    let mut desk = held();
    let committed = desk.ask(GroupRequest::Commit(commit("g", "", -1, 7)));
    let all = FetchRequest { group: "g".into(), member: None, partitions: None, require_stable: false };
    let read = desk.ask(GroupRequest::Fetch(vec![all.clone()]));
    let deleted = desk.ask(GroupRequest::Delete(vec!["none".into(), "g".into()]));
    let beat = desk.ask(GroupRequest::ConsumerHeartbeat(worker("h", "a", &["one"]).request));
    assert!(desk.replies.is_empty(), "nothing is durable");

    desk.stall(true);
    let Some(GroupReply::Commit(outcomes)) = desk.reply(committed) else { panic!("no reply") };
    assert_eq!(outcomes, [(topic(1), PartitionIndex(0), FULL)]);
    let Some(GroupReply::Fetch(replies)) = desk.reply(read) else { panic!("no reply") };
    let reply = &replies[0];
    assert_eq!((reply.error, reply.offsets.len()), (FULL, 0));
    let Some(GroupReply::Delete(outcomes)) = desk.reply(deleted) else { panic!("no reply") };
    let unknown = Some(GroupError::GroupIdNotFound);
    assert_eq!(outcomes, [("none".into(), unknown), ("g".into(), FULL)]);
    let Some(GroupReply::ConsumerHeartbeat(reply)) = desk.reply(beat) else { panic!("no reply") };
    assert_eq!((reply.error, &reply.member[..]), (FULL, "a"));

    // Replies report nothing that is not durable.
    let read = desk.ask(GroupRequest::Fetch(vec![all]));
    assert!(matches!(desk.reply(read), Some(GroupReply::Fetch(replies)) if replies[0].error == FULL));
    let again = desk.ask(GroupRequest::ConsumerHeartbeat(worker("h", "a", &["one"]).request));
    assert!(matches!(desk.reply(again), Some(GroupReply::ConsumerHeartbeat(reply)) if reply.error == FULL));

    desk.writes = true;
    desk.stall(false);
    let mut member = worker("h", "a", &["one"]);
    assert_eq!(member.beat(&mut desk).error, None);
    assert_eq!(member.told, [(topic(1), indexes([0, 1, 2, 3]))]);
}

#[test]
fn waiting_members_are_rejected_when_the_disk_is_full_and_can_continue_later() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let [leader, follower] = [&joined[0], &joined[1]];
    let waiting = desk.join("g", &leader.member);
    assert!(desk.reply(waiting).is_none(), "the request waits for the other member");
    desk.stall(true);
    assert_eq!(desk.joined(waiting).error, FULL);
    desk.stall(false);

    let tokens = [leader, follower].map(|member| desk.join("g", &member.member));
    let joined = tokens.map(|token| desk.joined(token));
    let waiting = desk.sync(&joined[1], "g", &[]);
    assert!(desk.reply(waiting).is_none(), "the request waits for the leader");
    desk.stall(true);
    assert_eq!(desk.synced(waiting).error, FULL);
    let refused = desk.sync(&joined[1], "g", &[]);
    assert_eq!(desk.synced(refused).error, FULL, "a member does not wait for a leader whose requests are rejected");
    desk.stall(false);
    desk.sync_all("g", &joined);
    assert_eq!(desk.state("g"), "Stable");
}

#[test]
fn sessions_restart_when_the_broker_resumes_service() {
    let mut desk = Desk::new();
    let joined = desk.stable("g", 2);
    let mut a = worker("h", "a", &["one"]);
    a.beat(&mut desk);
    desk.crash_for(100_000);
    desk.pass(SESSION_MS as u64 - 1);
    assert_eq!(desk.heartbeat("g", &joined[0].member, 1), None);
    assert_eq!(a.beat(&mut desk).error, None);
    desk.pass(1);
    assert_eq!(desk.heartbeat("g", &joined[0].member, 1), Some(GroupError::RebalanceInProgress));
}
