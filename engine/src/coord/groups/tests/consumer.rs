//! The consumer protocol (KIP-848).

use highwater_protocol::ids::GroupEpoch;

use super::*;

/// A member: its next request, and its assignment.
#[derive(Clone, Debug)]
pub(super) struct TestMember {
    pub(super) request: ConsumerHeartbeatRequest,
    /// Its last assignment, which it owns.
    pub(super) assignment: Vec<(TopicId, Vec<PartitionIndex>)>,
}

pub(super) fn test_member(group: &str, member: &str, names: &[&str]) -> TestMember {
    let request = ConsumerHeartbeatRequest {
        group: group.into(),
        member: member.into(),
        client: Client { id: "client".into(), host: "/127.0.0.1".into() },
        rebalance_timeout_ms: REBALANCE_MS,
        topic_names: Some(names.iter().map(|n| (*n).to_owned()).collect()),
        owned: Some(vec![]),
        ..ConsumerHeartbeatRequest::default()
    };
    TestMember { request, assignment: vec![] }
}

impl TestMember {
    /// Sends a full heartbeat, as after joining or a failure. The member reports its assignment as owned, and adopts the one in the reply.
    pub(super) fn full_heartbeat(&mut self, harness: &mut Harness) -> ConsumerHeartbeatReply {
        if self.request.epoch > GroupEpoch(0) {
            self.request.owned = Some(self.assignment.clone());
        }
        self.send_heartbeat(harness)
    }

    /// Sends the request as it is, and adopts the assignment in the reply.
    pub(super) fn send_heartbeat(&mut self, harness: &mut Harness) -> ConsumerHeartbeatReply {
        let reply = match harness.call(GroupRequest::ConsumerHeartbeat(self.request.clone())) {
            GroupReply::ConsumerHeartbeat(reply) => reply,
            other => panic!("{other:?}"),
        };
        if reply.error.is_none() {
            self.request.epoch = reply.epoch;
            if let Some(assignment) = &reply.assignment {
                self.assignment.clone_from(assignment);
            }
        }
        reply
    }

    pub(super) fn partition_count(&self) -> usize {
        self.assignment.iter().map(|(_, p)| p.len()).sum()
    }

    pub(super) fn heartbeat_error(&mut self, harness: &mut Harness) -> Option<GroupError> {
        self.send_heartbeat(harness).error
    }
}

pub(super) fn describe(harness: &mut Harness, group: &str) -> Result<DescribedConsumerGroup, GroupError> {
    match harness.call(GroupRequest::ConsumerDescribe(vec![group.into()])) {
        GroupReply::ConsumerDescribe(mut groups) => groups.remove(0).1,
        other => panic!("{other:?}"),
    }
}

/// Adds members "a" and "b", which share topic "one".
fn two_members(harness: &mut Harness) -> [TestMember; 2] {
    let [mut a, mut b] = ["a", "b"].map(|m| test_member("g", m, &["one"]));
    a.full_heartbeat(harness);
    b.full_heartbeat(harness);
    for _ in 0..3 {
        a.full_heartbeat(harness);
        b.full_heartbeat(harness);
    }
    assert_eq!((a.partition_count(), b.partition_count()), (2, 2));
    assert_eq!(describe(harness, "g").expect("the group exists").state, "Stable");
    [a, b]
}

#[test]
fn the_first_member_gets_all_partitions_immediately() {
    let mut harness = Harness::new();
    let mut a = test_member("g", "a", &["one", "two", "missing"]);
    let reply = a.full_heartbeat(&mut harness);
    assert_eq!((reply.error, reply.epoch.0, reply.heartbeat_interval_ms), (None, 1, 5_000));
    assert_eq!(a.assignment, [(topic(1), indexes([0, 1, 2, 3])), (topic(2), indexes([0, 1]))]);
}

#[test]
fn a_partition_moves_after_its_owner_confirms_the_revocation() {
    let mut harness = Harness::new();
    let [mut a, mut b] = ["a", "b"].map(|m| test_member("g", m, &["one"]));
    a.full_heartbeat(&mut harness);
    b.full_heartbeat(&mut harness);
    assert_eq!((b.request.epoch.0, b.partition_count()), (2, 0), "the other member owns all partitions");
    let all = a.assignment.clone();
    let reply = a.full_heartbeat(&mut harness);
    assert_eq!((reply.epoch.0, a.partition_count()), (1, 2), "it has to revoke two");
    assert_eq!(describe(&mut harness, "g").expect("the group exists").state, "Reconciling");
    let unconfirmed = ConsumerHeartbeatRequest { owned: Some(all), ..a.request.clone() };
    harness.call(GroupRequest::ConsumerHeartbeat(unconfirmed));
    b.full_heartbeat(&mut harness);
    assert_eq!(b.partition_count(), 0, "the other member has not confirmed the revocation");
    assert_eq!(a.full_heartbeat(&mut harness).epoch, GroupEpoch(2));
    b.full_heartbeat(&mut harness);
    assert_eq!(b.partition_count(), 2);
    assert_eq!(describe(&mut harness, "g").expect("the group exists").state, "Stable");
}

#[test]
fn the_reply_to_a_heartbeat_without_changes_has_no_assignment() {
    let mut harness = Harness::new();
    let [a, _] = two_members(&mut harness);
    let written = harness.log.len();
    let short = ConsumerHeartbeatRequest {
        rebalance_timeout_ms: -1,
        topic_names: None,
        owned: None,
        ..a.request.clone()
    };
    let GroupReply::ConsumerHeartbeat(reply) = harness.call(GroupRequest::ConsumerHeartbeat(short)) else {
        panic!("another reply");
    };
    assert_eq!((reply.error, reply.assignment), (None, None));
    assert_eq!(harness.log.len(), written, "nothing is persisted");
}

#[test]
fn a_member_that_does_not_revoke_in_time_is_fenced() {
    let mut harness = Harness::new();
    let [mut a, mut b] = ["a", "b"].map(|m| test_member("g", m, &["one"]));
    a.full_heartbeat(&mut harness);
    b.full_heartbeat(&mut harness);
    let all = a.assignment.clone();
    a.full_heartbeat(&mut harness);
    a.request.owned = Some(all);
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(a.send_heartbeat(&mut harness).error, None);
        b.full_heartbeat(&mut harness);
        assert_eq!(b.partition_count(), 0);
        harness.advance(5_000);
    }
    assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::UnknownMemberId));
    b.full_heartbeat(&mut harness);
    assert_eq!(b.partition_count(), 4);
}

#[test]
fn a_member_whose_session_expires_is_removed() {
    let mut harness = Harness::new();
    let [mut a, mut b] = two_members(&mut harness);
    harness.advance(44_000);
    b.full_heartbeat(&mut harness);
    harness.advance(1_000);
    b.full_heartbeat(&mut harness);
    assert_eq!(b.partition_count(), 4);
    assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::UnknownMemberId));
}

#[test]
fn a_member_that_leaves_frees_its_partitions() {
    let mut harness = Harness::new();
    let [mut a, mut b] = two_members(&mut harness);
    a.request.epoch = GroupEpoch(-1);
    assert_eq!(a.send_heartbeat(&mut harness).epoch, GroupEpoch(-1));
    b.full_heartbeat(&mut harness);
    assert_eq!(b.partition_count(), 4);
    b.request.epoch = GroupEpoch(-1);
    b.send_heartbeat(&mut harness);
    assert_eq!(describe(&mut harness, "g").expect("the group exists").state, "Empty");
}

#[test]
fn members_with_another_epoch_are_fenced() {
    let mut harness = Harness::new();
    let [mut a, _] = two_members(&mut harness);
    let epoch = a.request.epoch;
    a.request.epoch = epoch.next();
    assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::FencedMemberEpoch));
    a.request.epoch = GroupEpoch(epoch.0 - 1);
    a.request.owned = Some(vec![(topic(2), indexes([0]))]);
    assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::FencedMemberEpoch));
    let mut nobody = test_member("g", "nobody", &["one"]);
    nobody.request.epoch = GroupEpoch(1);
    assert_eq!(nobody.heartbeat_error(&mut harness), Some(GroupError::UnknownMemberId));
    nobody.request.group = "none".into();
    assert_eq!(nobody.heartbeat_error(&mut harness), Some(GroupError::GroupIdNotFound));
}

#[test]
fn a_member_that_missed_a_reply_may_retry_with_the_previous_epoch() {
    let mut harness = Harness::new();
    let [mut a, _] = two_members(&mut harness);
    let before = a.request.clone();
    let owned = a.assignment.clone();
    harness.coordinator.handle_topic(topic(1), "one", 6);
    let reply = a.full_heartbeat(&mut harness);
    assert!(reply.epoch > before.epoch);
    let again = ConsumerHeartbeatRequest { owned: Some(owned), ..before };
    let GroupReply::ConsumerHeartbeat(reply) = harness.call(GroupRequest::ConsumerHeartbeat(again)) else {
        panic!("another reply");
    };
    assert_eq!(reply.error, None);
}

#[test]
fn new_partitions_are_assigned_with_the_next_heartbeats() {
    let mut harness = Harness::new();
    let [mut a, mut b] = two_members(&mut harness);
    harness.coordinator.handle_topic(topic(1), "one", 6);
    for _ in 0..2 {
        a.full_heartbeat(&mut harness);
        b.full_heartbeat(&mut harness);
    }
    assert_eq!((a.partition_count(), b.partition_count()), (3, 3));
}

#[test]
fn a_deleted_topic_is_revoked() {
    let mut harness = Harness::new();
    let mut a = test_member("g", "a", &["one", "two"]);
    a.full_heartbeat(&mut harness);
    harness.coordinator.handle_topic_deleted(topic(1));
    harness.drain();
    a.full_heartbeat(&mut harness);
    assert_eq!(a.assignment, [(topic(2), indexes([0, 1]))]);
    a.full_heartbeat(&mut harness);
    assert_eq!(describe(&mut harness, "g").expect("the group exists").state, "Stable");
}

#[test]
fn a_regular_expression_matches_whole_names_and_new_topics() {
    let mut harness = Harness::new();
    let mut a = test_member("g", "a", &[]);
    a.request.topic_regex = Some("o.e|t".into());
    a.full_heartbeat(&mut harness);
    assert_eq!(a.assignment, [(topic(1), indexes([0, 1, 2, 3]))]);
    harness.coordinator.handle_topic(topic(3), "ore", 1);
    a.full_heartbeat(&mut harness);
    assert_eq!(a.assignment, [(topic(1), indexes([0, 1, 2, 3])), (topic(3), indexes([0]))]);
    harness.crash();
    harness.coordinator.handle_topic(topic(3), "ore", 1);
    assert_eq!(a.full_heartbeat(&mut harness).error, None);
    assert_eq!(a.partition_count(), 5);
}

#[test]
fn invalid_regular_expressions_are_rejected() {
    let mut harness = Harness::new();
    for regex in ["(", "a)|(b", "\\1", "(?=a)", &"x".repeat(2_000), "(((a{100}){100}){100})"] {
        let mut a = test_member("g", "a", &[]);
        a.request.topic_regex = Some(regex.into());
        assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::InvalidRegularExpression), "{regex}");
    }
    assert_eq!(harness.state("g"), "Dead");
}

#[test]
fn expressions_are_matched_with_many_topics_in_slices_while_their_members_wait() {
    let mut harness = Harness::new();
    for n in 0..40_000_u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        id[15] = 1;
        harness.coordinator.handle_topic(TopicId(id), &format!("topic-{n:06}"), 1);
    }
    let mut a = test_member("g", "a", &[]);
    a.request.topic_regex = Some("topic-.*7".into());
    let mut other = test_member("h", "b", &["one"]);
    let now = harness.now();
    harness.coordinator.handle(now, Token(1), GroupRequest::ConsumerHeartbeat(a.request.clone()), [1; 16]);
    harness.drain();
    assert_eq!(harness.reply(Token(1)), None, "matching takes more than a turn");
    harness.coordinator.handle(
        now,
        Token(2),
        GroupRequest::ConsumerHeartbeat(other.request.clone()),
        [2; 16],
    );
    assert!(harness.coordinator.run(now));
    harness.drain();
    assert!(harness.reply(Token(2)).is_some(), "a member that subscribes by name waits for one turn at most");
    assert_eq!(harness.reply(Token(1)), None);
    let mut turns = 2;
    while harness.coordinator.run(now) {
        turns += 1;
    }
    harness.drain();
    assert!(turns >= 3, "{turns}");
    let Some(GroupReply::ConsumerHeartbeat(reply)) = harness.reply(Token(1)) else { panic!("no reply") };
    // Assigning so many topics takes several turns, too. It is a member with an empty assignment meanwhile.
    assert_eq!((reply.epoch.0, reply.assignment.map(|topics| topics.len())), (1, Some(0)));
    harness.tokens = 2;
    a.request.epoch = GroupEpoch(1);
    a.full_heartbeat(&mut harness);
    assert_eq!((a.request.epoch.0, a.partition_count()), (2, 4_000));
    other.request.epoch = GroupEpoch(1);
    harness.coordinator.handle_topic(topic(3), "topic-x7", 1);
    assert_eq!(other.full_heartbeat(&mut harness).error, None);
}

#[test]
fn members_choose_the_assignor_and_unknown_ones_are_rejected() {
    let mut harness = Harness::new();
    let mut a = test_member("g", "a", &["one"]);
    a.request.assignor = Some("mine".into());
    assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::UnsupportedAssignor));
    a.request.assignor = Some("range".into());
    a.full_heartbeat(&mut harness);
    assert_eq!(describe(&mut harness, "g").expect("the group exists").assignor, "range");
}

#[test]
fn an_incomplete_first_heartbeat_is_rejected() {
    let mut harness = Harness::new();
    let good = test_member("g", "a", &["one"]).request;
    let owns = Some(vec![(topic(1), indexes([0]))]);
    for bad in [
        ConsumerHeartbeatRequest { group: String::new(), ..good.clone() },
        ConsumerHeartbeatRequest { rebalance_timeout_ms: -1, ..good.clone() },
        ConsumerHeartbeatRequest { owned: None, ..good.clone() },
        ConsumerHeartbeatRequest { owned: owns, ..good.clone() },
        ConsumerHeartbeatRequest { topic_names: None, ..good.clone() },
        ConsumerHeartbeatRequest { instance: Some(String::new()), ..good.clone() },
    ] {
        let mut member = TestMember { request: bad, assignment: vec![] };
        assert_eq!(member.heartbeat_error(&mut harness), Some(GroupError::InvalidRequest), "{member:?}");
    }
    let mut a = test_member("g", "a", &["one"]);
    a.full_heartbeat(&mut harness);
    a.request.epoch = GroupEpoch(-2);
    assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::InvalidRequest));
}

#[test]
fn members_commit_with_their_epoch_or_one_since_the_partition_was_assigned() {
    let mut harness = Harness::new();
    let [mut a, _] = two_members(&mut harness);
    let epoch = a.request.epoch;
    let kept = a.assignment[0].1[0];
    let with = |epoch: GroupEpoch, partition: PartitionIndex, knows_epochs: bool| {
        let mut request = CommitRequest { knows_epochs, ..commit("g", "a", epoch.0, 1) };
        request.offsets[0].partition = partition;
        request
    };
    assert_eq!(harness.commit(with(epoch, kept, true)), None);
    assert_eq!(harness.commit(with(epoch.next(), kept, true)), Some(GroupError::StaleMemberEpoch));
    assert_eq!(harness.commit(with(epoch, kept, false)), Some(GroupError::UnsupportedVersion));
    harness.coordinator.handle_topic(topic(1), "one", 8);
    a.full_heartbeat(&mut harness);
    assert!(a.request.epoch > epoch);
    let new = *a.assignment[0].1.last().expect("some");
    assert_eq!(harness.commit(with(epoch, kept, true)), None, "it has owned that partition since that epoch");
    assert_eq!(harness.commit(with(epoch, new, true)), Some(GroupError::StaleMemberEpoch));
    assert_eq!(harness.commit(commit("g", "", -1, 1)), Some(GroupError::UnknownMemberId));
}

#[test]
fn members_fetch_offsets_with_their_epoch() {
    let mut harness = Harness::new();
    let [a, _] = two_members(&mut harness);
    let mut fetch = |member: Option<(String, GroupEpoch)>| {
        let request = FetchRequest { group: "g".into(), member, partitions: None, require_stable: true };
        match harness.call(GroupRequest::Fetch(vec![request])) {
            GroupReply::Fetch(replies) => replies[0].error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fetch(Some(("a".into(), a.request.epoch))), None);
    assert_eq!(fetch(Some(("a".into(), GroupEpoch(0)))), Some(GroupError::StaleMemberEpoch));
    assert_eq!(fetch(Some(("x".into(), GroupEpoch(0)))), Some(GroupError::UnknownMemberId));
    assert_eq!(fetch(None), None);
}

#[test]
fn an_empty_group_can_change_its_protocol_and_keeps_its_offsets() {
    let mut harness = Harness::new();
    let joined = harness.stable_group("g", 1);
    harness.commit(commit("g", &joined[0].member, 1, 5));
    let mut a = test_member("g", "a", &["one"]);
    assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::GroupIdNotFound), "the group has members");
    harness.leave("g", &[(&joined[0].member, None)]);
    assert_eq!(a.full_heartbeat(&mut harness).error, None);
    assert_eq!((a.partition_count(), harness.offset("g", 1, 0)), (4, Some(5)));
    let token = harness.join("g", "");
    assert_eq!(
        harness.joined(token).error,
        Some(GroupError::InconsistentGroupProtocol),
        "the group has members again"
    );
    a.request.epoch = GroupEpoch(-1);
    a.send_heartbeat(&mut harness);
    harness.crash();
    harness.stable_group("g", 1);
    assert_eq!((harness.state("g"), harness.offset("g", 1, 0)), ("Stable", Some(5)));
}

#[test]
fn requests_of_the_other_protocol_are_rejected() {
    let mut harness = Harness::new();
    let [a, _] = two_members(&mut harness);
    assert_eq!(harness.heartbeat("g", "a", a.request.epoch.0), Some(GroupError::UnknownMemberId));
    let GroupReply::Describe(groups) = harness.call(GroupRequest::Describe(vec!["g".into()])) else {
        panic!("another reply");
    };
    assert_eq!(groups[0].1, Err(GroupError::GroupIdNotFound));
    harness.stable_group("c", 1);
    assert_eq!(describe(&mut harness, "c"), Err(GroupError::GroupIdNotFound));
    assert_eq!(harness.leave("g", &[("a", None), ("x", None)]), [None, Some(GroupError::UnknownMemberId)]);
}

#[test]
fn heartbeats_without_changes_are_accepted_when_the_group_has_reached_its_memory_limit() {
    let mut harness = Harness::new();
    let name = |n: usize| format!("{n:0>1000}");
    let mut a = test_member("g", "a", &[]);
    a.request.instance = Some("i".into());
    a.request.topic_names = Some((0..limits::GROUP_BYTES_MAX / 1_100).map(name).collect());
    assert_eq!(a.full_heartbeat(&mut harness).error, None);
    harness.advance(40_000);
    assert_eq!(a.full_heartbeat(&mut harness).error, None);
    harness.advance(40_000);
    assert_eq!(a.full_heartbeat(&mut harness).error, None, "its session was extended");
    a.request.topic_names = Some((0..limits::GROUP_BYTES_MAX / 1_000).map(name).collect());
    assert_eq!(a.heartbeat_error(&mut harness), Some(GroupError::GroupMaxSizeReached));
}

#[test]
fn an_empty_group_with_an_abandoned_join_is_the_same_after_a_restart() {
    let mut harness = Harness::new();
    let mut a = test_member("g", "a", &["one"]);
    a.full_heartbeat(&mut harness);
    a.request.epoch = GroupEpoch(-1);
    a.send_heartbeat(&mut harness);
    let token = harness.send(GroupRequest::Join(JoinRequest { requires_member_id: true, ..join("g", "") }));
    assert_eq!(harness.joined(token).error, Some(GroupError::MemberIdRequired));
    harness.advance(SESSION_MS as u64);
    let state = harness.state("g");
    harness.crash();
    assert_eq!(harness.state("g"), state);
    harness.advance(600_000);
    assert_eq!(harness.state("g"), "Dead");
    harness.crash();
    assert_eq!(harness.state("g"), "Dead");
}
