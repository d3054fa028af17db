//! Static members of the consumer protocol.

use highwater_protocol::ids::GroupEpoch;

use super::super::record::{ConsumerMemberRecord, ConsumerRecord, Record};
use super::consumer::{describe, test_member};
use super::*;

#[test]
fn a_static_member_that_leaves_temporarily_keeps_its_partitions() {
    let mut harness = Harness::new();
    let mut a = test_member("g", "a", &["one"]);
    a.request.instance = Some("i".into());
    a.full_heartbeat(&mut harness);
    let mut early = test_member("g", "early", &["one"]);
    early.request.instance = Some("i".into());
    assert_eq!(early.heartbeat_error(&mut harness), Some(GroupError::UnreleasedInstanceId));
    a.request.epoch = GroupEpoch(-2);
    assert_eq!(a.send_heartbeat(&mut harness).epoch, GroupEpoch(-2));
    let mut b = test_member("g", "b", &["one"]);
    b.full_heartbeat(&mut harness);
    assert_eq!(b.partition_count(), 0);
    harness.advance(10_000);
    let mut again = test_member("g", "again", &["one"]);
    again.request.instance = Some("i".into());
    let reply = again.full_heartbeat(&mut harness);
    assert_eq!(
        (reply.error, again.partition_count()),
        (None, 2),
        "the other two are assigned to the new member"
    );
    a.request.epoch = GroupEpoch(1);
    assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::FencedInstanceId));
    b.full_heartbeat(&mut harness);
    assert_eq!(b.partition_count(), 2);
}

#[test]
fn a_static_member_that_does_not_return_is_removed_after_its_session_timeout() {
    let mut harness = Harness::new();
    let mut a = test_member("g", "a", &["one"]);
    a.request.instance = Some("i".into());
    a.full_heartbeat(&mut harness);
    a.request.epoch = GroupEpoch(-2);
    a.send_heartbeat(&mut harness);
    harness.advance(45_000);
    assert_eq!(describe(&mut harness, "g").expect("the group exists").state, "Empty");
}

#[test]
fn a_member_cannot_change_its_instance_id() {
    let mut harness = Harness::new();
    let mut m = test_member("g", "m", &["one"]);
    m.request.instance = Some("i1".into());
    m.full_heartbeat(&mut harness);
    let named = |instance: &str, epoch: i32| {
        let mut again = test_member("g", "m", &["one"]);
        again.request.instance = Some(instance.into());
        again.request.epoch = GroupEpoch(epoch);
        again
    };
    assert_eq!(named("i2", 0).heartbeat_error(&mut harness), Some(GroupError::InvalidRequest));
    assert_eq!(named("i2", -1).heartbeat_error(&mut harness), Some(GroupError::UnknownMemberId));
    assert_eq!(named("i1", -1).heartbeat_error(&mut harness), None);
    // The instance id is free, also after a restart.
    for _ in 0..2 {
        let mut next = test_member("g", "next", &["one"]);
        next.request.instance = Some("i1".into());
        assert_eq!(next.full_heartbeat(&mut harness).error, None);
        next.request.epoch = GroupEpoch(-1);
        next.send_heartbeat(&mut harness);
        harness.crash();
    }
}

#[test]
fn a_member_cannot_take_over_another_static_member() {
    let mut harness = Harness::new();
    let [mut a, mut b] = ["a", "b"].map(|m| test_member("g", m, &["one"]));
    a.request.instance = Some("ia".into());
    b.request.instance = Some("ib".into());
    a.full_heartbeat(&mut harness);
    b.full_heartbeat(&mut harness);
    b.request.epoch = GroupEpoch(-2);
    b.send_heartbeat(&mut harness);
    let mut greedy = test_member("g", "a", &["one"]);
    greedy.request.instance = Some("ib".into());
    assert_eq!(greedy.heartbeat_error(&mut harness), Some(GroupError::InvalidRequest));
    assert_eq!(describe(&mut harness, "g").expect("the group exists").members.len(), 2);
}

#[test]
fn a_log_in_which_a_member_changed_its_instance_id_is_readable() {
    let m = |instance: &str| ConsumerMemberRecord {
        member: "m".into(),
        instance: Some(instance.into()),
        rack: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: REBALANCE_MS,
        topic_names: vec!["one".into()],
        topic_regex: String::new(),
        assignor: None,
        epoch: 1,
        previous_epoch: 0,
        state: 0,
        assigned: vec![],
        revoking: vec![],
        target: vec![],
    };
    let record = |epoch: i32, removed: &[&str], members: Vec<ConsumerMemberRecord>| {
        let removed = removed.iter().map(|id| (*id).to_owned()).collect();
        let (group, topics_hash) = ("g".to_owned(), 0);
        let (target_epoch, empty_since_ms) = (1, None);
        let record =
            ConsumerRecord { group, epoch, target_epoch, topics_hash, removed, members, empty_since_ms };
        Record::Consumer(record)
    };
    let changed = [record(1, &[], vec![m("i1")]), record(2, &[], vec![m("i2")])];
    for gone in [Some(record(3, &["m"], vec![])), None] {
        let mut harness = Harness::new();
        let records: Vec<_> = changed.iter().chain(&gone).map(Record::encode).collect();
        harness.recover_payloads(records.iter().map(Vec::as_slice));
        harness.crash();
        let mut next = test_member("g", "next", &["one"]);
        next.request.instance = Some("i1".into());
        assert_eq!(next.full_heartbeat(&mut harness).error, None, "the instance id is free");
        let members = describe(&mut harness, "g").expect("the group exists").members;
        assert_eq!(members.len(), if gone.is_some() { 1 } else { 2 });
    }
}
