//! Static members of the consumer protocol.

use highwater_protocol::ids::GroupEpoch;

use super::super::record::{ConsumerMemberRecord, ConsumerRecord, Record};
use super::consumer::{described, worker};
use super::*;

#[test]
fn a_static_member_that_leaves_temporarily_keeps_its_partitions() {
    let mut desk = Desk::new();
    let mut a = worker("g", "a", &["one"]);
    a.request.instance = Some("i".into());
    a.beat(&mut desk);
    let mut early = worker("g", "early", &["one"]);
    early.request.instance = Some("i".into());
    assert_eq!(early.refused(&mut desk), Some(GroupError::UnreleasedInstanceId));
    a.request.epoch = GroupEpoch(-2);
    assert_eq!(a.send(&mut desk).epoch, GroupEpoch(-2));
    let mut b = worker("g", "b", &["one"]);
    b.beat(&mut desk);
    assert_eq!(b.count(), 0);
    desk.pass(10_000);
    let mut again = worker("g", "again", &["one"]);
    again.request.instance = Some("i".into());
    let reply = again.beat(&mut desk);
    assert_eq!((reply.error, again.count()), (None, 2), "the other two are assigned to the new member");
    a.request.epoch = GroupEpoch(1);
    assert_eq!(a.refused(&mut desk), Some(GroupError::FencedInstanceId));
    b.beat(&mut desk);
    assert_eq!(b.count(), 2);
}

#[test]
fn a_static_member_that_does_not_return_is_removed_after_its_session_timeout() {
    let mut desk = Desk::new();
    let mut a = worker("g", "a", &["one"]);
    a.request.instance = Some("i".into());
    a.beat(&mut desk);
    a.request.epoch = GroupEpoch(-2);
    a.send(&mut desk);
    desk.pass(45_000);
    assert_eq!(described(&mut desk, "g").expect("the group exists").state, "Empty");
}

#[test]
fn a_member_cannot_change_its_instance_id() {
    let mut desk = Desk::new();
    let mut m = worker("g", "m", &["one"]);
    m.request.instance = Some("i1".into());
    m.beat(&mut desk);
    let named = |instance: &str, epoch: i32| {
        let mut again = worker("g", "m", &["one"]);
        again.request.instance = Some(instance.into());
        again.request.epoch = GroupEpoch(epoch);
        again
    };
    assert_eq!(named("i2", 0).refused(&mut desk), Some(GroupError::InvalidRequest));
    assert_eq!(named("i2", -1).refused(&mut desk), Some(GroupError::UnknownMemberId));
    assert_eq!(named("i1", -1).refused(&mut desk), None);
    // The instance id is free, also after a restart.
    for _ in 0..2 {
        let mut next = worker("g", "next", &["one"]);
        next.request.instance = Some("i1".into());
        assert_eq!(next.beat(&mut desk).error, None);
        next.request.epoch = GroupEpoch(-1);
        next.send(&mut desk);
        desk.crash();
    }
}

#[test]
fn a_member_cannot_take_over_another_static_member() {
    let mut desk = Desk::new();
    let [mut a, mut b] = ["a", "b"].map(|m| worker("g", m, &["one"]));
    a.request.instance = Some("ia".into());
    b.request.instance = Some("ib".into());
    a.beat(&mut desk);
    b.beat(&mut desk);
    b.request.epoch = GroupEpoch(-2);
    b.send(&mut desk);
    let mut greedy = worker("g", "a", &["one"]);
    greedy.request.instance = Some("ib".into());
    assert_eq!(greedy.refused(&mut desk), Some(GroupError::InvalidRequest));
    assert_eq!(described(&mut desk, "g").expect("the group exists").members.len(), 2);
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
        let mut desk = Desk::new();
        let records: Vec<_> = changed.iter().chain(&gone).map(Record::encode).collect();
        desk.recover_payloads(records.iter().map(Vec::as_slice));
        desk.crash();
        let mut next = worker("g", "next", &["one"]);
        next.request.instance = Some("i1".into());
        assert_eq!(next.beat(&mut desk).error, None, "the instance id is free");
        let members = described(&mut desk, "g").expect("the group exists").members;
        assert_eq!(members.len(), if gone.is_some() { 1 } else { 2 });
    }
}
