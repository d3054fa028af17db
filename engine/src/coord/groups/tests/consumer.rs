//! The consumer protocol (KIP-848).

use highwater_protocol::ids::GroupEpoch;

use super::*;

/// A member: its next request, and its assignment.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) request: ConsumerHeartbeatRequest,
    /// Its last assignment, which it owns.
    pub(super) told: Vec<(TopicId, Vec<PartitionIndex>)>,
}

pub(super) fn worker(group: &str, member: &str, names: &[&str]) -> Worker {
    let request = ConsumerHeartbeatRequest {
        group: group.into(),
        member: member.into(),
        client: Client { id: "client".into(), host: "/127.0.0.1".into() },
        rebalance_timeout_ms: REBALANCE_MS,
        topic_names: Some(names.iter().map(|n| (*n).to_owned()).collect()),
        owned: Some(vec![]),
        ..ConsumerHeartbeatRequest::default()
    };
    Worker { request, told: vec![] }
}

impl Worker {
    /// Sends a full heartbeat, as after joining or a failure. The member reports its assignment as owned, and adopts the one in the reply.
    pub(super) fn beat(&mut self, desk: &mut Desk) -> ConsumerHeartbeatReply {
        if self.request.epoch > GroupEpoch(0) {
            self.request.owned = Some(self.told.clone());
        }
        self.send(desk)
    }

    /// Sends the request as it is, and adopts the assignment in the reply.
    pub(super) fn send(&mut self, desk: &mut Desk) -> ConsumerHeartbeatReply {
        let reply = match desk.call(GroupRequest::ConsumerHeartbeat(self.request.clone())) {
            GroupReply::ConsumerHeartbeat(reply) => reply,
            other => panic!("{other:?}"),
        };
        if reply.error.is_none() {
            self.request.epoch = reply.epoch;
            if let Some(assignment) = &reply.assignment {
                self.told.clone_from(assignment);
            }
        }
        reply
    }

    pub(super) fn count(&self) -> usize {
        self.told.iter().map(|(_, p)| p.len()).sum()
    }

    pub(super) fn refused(&mut self, desk: &mut Desk) -> Option<GroupError> {
        self.send(desk).error
    }
}

pub(super) fn described(desk: &mut Desk, group: &str) -> Result<DescribedConsumerGroup, GroupError> {
    match desk.call(GroupRequest::ConsumerDescribe(vec![group.into()])) {
        GroupReply::ConsumerDescribe(mut groups) => groups.remove(0).1,
        other => panic!("{other:?}"),
    }
}

/// Adds members "a" and "b", which share topic "one".
fn two(desk: &mut Desk) -> [Worker; 2] {
    let [mut a, mut b] = ["a", "b"].map(|m| worker("g", m, &["one"]));
    a.beat(desk);
    b.beat(desk);
    for _ in 0..3 {
        a.beat(desk);
        b.beat(desk);
    }
    assert_eq!((a.count(), b.count()), (2, 2));
    assert_eq!(described(desk, "g").expect("the group exists").state, "Stable");
    [a, b]
}

#[test]
fn the_first_member_gets_all_partitions_immediately() {
    let mut desk = Desk::new();
    let mut a = worker("g", "a", &["one", "two", "missing"]);
    let reply = a.beat(&mut desk);
    assert_eq!((reply.error, reply.epoch.0, reply.heartbeat_interval_ms), (None, 1, 5_000));
    assert_eq!(a.told, [(topic(1), indexes([0, 1, 2, 3])), (topic(2), indexes([0, 1]))]);
}

#[test]
fn a_partition_moves_after_its_owner_confirms_the_revocation() {
    let mut desk = Desk::new();
    let [mut a, mut b] = ["a", "b"].map(|m| worker("g", m, &["one"]));
    a.beat(&mut desk);
    b.beat(&mut desk);
    assert_eq!((b.request.epoch.0, b.count()), (2, 0), "the other member owns all partitions");
    let had = a.told.clone();
    let reply = a.beat(&mut desk);
    assert_eq!((reply.epoch.0, a.count()), (1, 2), "it has to revoke two");
    assert_eq!(described(&mut desk, "g").expect("the group exists").state, "Reconciling");
    let still = ConsumerHeartbeatRequest { owned: Some(had), ..a.request.clone() };
    desk.call(GroupRequest::ConsumerHeartbeat(still));
    b.beat(&mut desk);
    assert_eq!(b.count(), 0, "the other member has not confirmed the revocation");
    assert_eq!(a.beat(&mut desk).epoch, GroupEpoch(2));
    b.beat(&mut desk);
    assert_eq!(b.count(), 2);
    assert_eq!(described(&mut desk, "g").expect("the group exists").state, "Stable");
}

#[test]
fn the_reply_to_a_heartbeat_without_changes_has_no_assignment() {
    let mut desk = Desk::new();
    let [a, _] = two(&mut desk);
    let written = desk.log.len();
    let short = ConsumerHeartbeatRequest {
        rebalance_timeout_ms: -1,
        topic_names: None,
        owned: None,
        ..a.request.clone()
    };
    let GroupReply::ConsumerHeartbeat(reply) = desk.call(GroupRequest::ConsumerHeartbeat(short)) else {
        panic!("another reply");
    };
    assert_eq!((reply.error, reply.assignment), (None, None));
    assert_eq!(desk.log.len(), written, "nothing is persisted");
}

#[test]
fn a_member_that_does_not_revoke_in_time_is_fenced() {
    let mut desk = Desk::new();
    let [mut a, mut b] = ["a", "b"].map(|m| worker("g", m, &["one"]));
    a.beat(&mut desk);
    b.beat(&mut desk);
    let had = a.told.clone();
    a.beat(&mut desk);
    a.request.owned = Some(had);
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(a.send(&mut desk).error, None);
        b.beat(&mut desk);
        assert_eq!(b.count(), 0);
        desk.pass(5_000);
    }
    assert_eq!(a.refused(&mut desk), Some(GroupError::UnknownMemberId));
    b.beat(&mut desk);
    assert_eq!(b.count(), 4);
}

#[test]
fn a_member_whose_session_expires_is_removed() {
    let mut desk = Desk::new();
    let [mut a, mut b] = two(&mut desk);
    desk.pass(44_000);
    b.beat(&mut desk);
    desk.pass(1_000);
    b.beat(&mut desk);
    assert_eq!(b.count(), 4);
    assert_eq!(a.refused(&mut desk), Some(GroupError::UnknownMemberId));
}

#[test]
fn a_member_that_leaves_frees_its_partitions() {
    let mut desk = Desk::new();
    let [mut a, mut b] = two(&mut desk);
    a.request.epoch = GroupEpoch(-1);
    assert_eq!(a.send(&mut desk).epoch, GroupEpoch(-1));
    b.beat(&mut desk);
    assert_eq!(b.count(), 4);
    b.request.epoch = GroupEpoch(-1);
    b.send(&mut desk);
    assert_eq!(described(&mut desk, "g").expect("the group exists").state, "Empty");
}

#[test]
fn members_with_another_epoch_are_fenced() {
    let mut desk = Desk::new();
    let [mut a, _] = two(&mut desk);
    let epoch = a.request.epoch;
    a.request.epoch = epoch.next();
    assert_eq!(a.refused(&mut desk), Some(GroupError::FencedMemberEpoch));
    a.request.epoch = GroupEpoch(epoch.0 - 1);
    a.request.owned = Some(vec![(topic(2), indexes([0]))]);
    assert_eq!(a.refused(&mut desk), Some(GroupError::FencedMemberEpoch));
    let mut nobody = worker("g", "nobody", &["one"]);
    nobody.request.epoch = GroupEpoch(1);
    assert_eq!(nobody.refused(&mut desk), Some(GroupError::UnknownMemberId));
    nobody.request.group = "none".into();
    assert_eq!(nobody.refused(&mut desk), Some(GroupError::GroupIdNotFound));
}

#[test]
fn a_member_that_missed_a_reply_may_retry_with_the_previous_epoch() {
    let mut desk = Desk::new();
    let [mut a, _] = two(&mut desk);
    let before = a.request.clone();
    let owned = a.told.clone();
    desk.coordinator.handle_topic(topic(1), "one", 6);
    let reply = a.beat(&mut desk);
    assert!(reply.epoch > before.epoch);
    let again = ConsumerHeartbeatRequest { owned: Some(owned), ..before };
    let GroupReply::ConsumerHeartbeat(reply) = desk.call(GroupRequest::ConsumerHeartbeat(again)) else {
        panic!("another reply");
    };
    assert_eq!(reply.error, None);
}

#[test]
fn new_partitions_are_assigned_with_the_next_heartbeats() {
    let mut desk = Desk::new();
    let [mut a, mut b] = two(&mut desk);
    desk.coordinator.handle_topic(topic(1), "one", 6);
    for _ in 0..2 {
        a.beat(&mut desk);
        b.beat(&mut desk);
    }
    assert_eq!((a.count(), b.count()), (3, 3));
}

#[test]
fn a_deleted_topic_is_revoked() {
    let mut desk = Desk::new();
    let mut a = worker("g", "a", &["one", "two"]);
    a.beat(&mut desk);
    desk.coordinator.handle_topic_deleted(topic(1));
    desk.settle();
    a.beat(&mut desk);
    assert_eq!(a.told, [(topic(2), indexes([0, 1]))]);
    a.beat(&mut desk);
    assert_eq!(described(&mut desk, "g").expect("the group exists").state, "Stable");
}

#[test]
fn a_regular_expression_matches_whole_names_and_new_topics() {
    let mut desk = Desk::new();
    let mut a = worker("g", "a", &[]);
    a.request.topic_regex = Some("o.e|t".into());
    a.beat(&mut desk);
    assert_eq!(a.told, [(topic(1), indexes([0, 1, 2, 3]))]);
    desk.coordinator.handle_topic(topic(3), "ore", 1);
    a.beat(&mut desk);
    assert_eq!(a.told, [(topic(1), indexes([0, 1, 2, 3])), (topic(3), indexes([0]))]);
    desk.crash();
    desk.coordinator.handle_topic(topic(3), "ore", 1);
    assert_eq!(a.beat(&mut desk).error, None);
    assert_eq!(a.count(), 5);
}

#[test]
fn invalid_regular_expressions_are_rejected() {
    let mut desk = Desk::new();
    for regex in ["(", "a)|(b", "\\1", "(?=a)", &"x".repeat(2_000), "(((a{100}){100}){100})"] {
        let mut a = worker("g", "a", &[]);
        a.request.topic_regex = Some(regex.into());
        assert_eq!(a.refused(&mut desk), Some(GroupError::InvalidRegularExpression), "{regex}");
    }
    assert_eq!(desk.state("g"), "Dead");
}

#[test]
fn expressions_are_matched_with_many_topics_in_slices_while_their_members_wait() {
    let mut desk = Desk::new();
    for n in 0..40_000_u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        id[15] = 1;
        desk.coordinator.handle_topic(TopicId(id), &format!("topic-{n:06}"), 1);
    }
    let mut a = worker("g", "a", &[]);
    a.request.topic_regex = Some("topic-.*7".into());
    let mut other = worker("h", "b", &["one"]);
    let now = desk.now();
    desk.coordinator.handle(now, Token(1), GroupRequest::ConsumerHeartbeat(a.request.clone()), [1; 16]);
    desk.settle();
    assert_eq!(desk.reply(Token(1)), None, "matching takes more than a turn");
    desk.coordinator.handle(now, Token(2), GroupRequest::ConsumerHeartbeat(other.request.clone()), [2; 16]);
    assert!(desk.coordinator.run(now));
    desk.settle();
    assert!(desk.reply(Token(2)).is_some(), "a member that subscribes by name waits for one turn at most");
    assert_eq!(desk.reply(Token(1)), None);
    let mut turns = 2;
    while desk.coordinator.run(now) {
        turns += 1;
    }
    desk.settle();
    assert!(turns >= 3, "{turns}");
    let Some(GroupReply::ConsumerHeartbeat(reply)) = desk.reply(Token(1)) else { panic!("no reply") };
    // Assigning so many topics takes several turns, too. It is a member with an empty assignment meanwhile.
    assert_eq!((reply.epoch.0, reply.assignment.map(|topics| topics.len())), (1, Some(0)));
    desk.tokens = 2;
    a.request.epoch = GroupEpoch(1);
    a.beat(&mut desk);
    assert_eq!((a.request.epoch.0, a.count()), (2, 4_000));
    other.request.epoch = GroupEpoch(1);
    desk.coordinator.handle_topic(topic(3), "topic-x7", 1);
    assert_eq!(other.beat(&mut desk).error, None);
}

#[test]
fn members_choose_the_assignor_and_unknown_ones_are_rejected() {
    let mut desk = Desk::new();
    let mut a = worker("g", "a", &["one"]);
    a.request.assignor = Some("mine".into());
    assert_eq!(a.refused(&mut desk), Some(GroupError::UnsupportedAssignor));
    a.request.assignor = Some("range".into());
    a.beat(&mut desk);
    assert_eq!(described(&mut desk, "g").expect("the group exists").assignor, "range");
}

#[test]
fn an_incomplete_first_heartbeat_is_rejected() {
    let mut desk = Desk::new();
    let good = worker("g", "a", &["one"]).request;
    let owns = Some(vec![(topic(1), indexes([0]))]);
    for bad in [
        ConsumerHeartbeatRequest { group: String::new(), ..good.clone() },
        ConsumerHeartbeatRequest { rebalance_timeout_ms: -1, ..good.clone() },
        ConsumerHeartbeatRequest { owned: None, ..good.clone() },
        ConsumerHeartbeatRequest { owned: owns, ..good.clone() },
        ConsumerHeartbeatRequest { topic_names: None, ..good.clone() },
        ConsumerHeartbeatRequest { instance: Some(String::new()), ..good.clone() },
    ] {
        let mut worker = Worker { request: bad, told: vec![] };
        assert_eq!(worker.refused(&mut desk), Some(GroupError::InvalidRequest), "{worker:?}");
    }
    let mut a = worker("g", "a", &["one"]);
    a.beat(&mut desk);
    a.request.epoch = GroupEpoch(-2);
    assert_eq!(a.refused(&mut desk), Some(GroupError::InvalidRequest));
}

#[test]
fn members_commit_with_their_epoch_or_one_since_the_partition_was_assigned() {
    let mut desk = Desk::new();
    let [mut a, _] = two(&mut desk);
    let epoch = a.request.epoch;
    let kept = a.told[0].1[0];
    let with = |epoch: GroupEpoch, partition: PartitionIndex, knows_epochs: bool| {
        let mut request = CommitRequest { knows_epochs, ..commit("g", "a", epoch.0, 1) };
        request.offsets[0].partition = partition;
        request
    };
    assert_eq!(desk.commit(with(epoch, kept, true)), None);
    assert_eq!(desk.commit(with(epoch.next(), kept, true)), Some(GroupError::StaleMemberEpoch));
    assert_eq!(desk.commit(with(epoch, kept, false)), Some(GroupError::UnsupportedVersion));
    desk.coordinator.handle_topic(topic(1), "one", 8);
    a.beat(&mut desk);
    assert!(a.request.epoch > epoch);
    let new = *a.told[0].1.last().expect("some");
    assert_eq!(desk.commit(with(epoch, kept, true)), None, "it has owned that partition since that epoch");
    assert_eq!(desk.commit(with(epoch, new, true)), Some(GroupError::StaleMemberEpoch));
    assert_eq!(desk.commit(commit("g", "", -1, 1)), Some(GroupError::UnknownMemberId));
}

#[test]
fn members_fetch_offsets_with_their_epoch() {
    let mut desk = Desk::new();
    let [a, _] = two(&mut desk);
    let mut fetch = |member: Option<(String, GroupEpoch)>| {
        let request = FetchRequest { group: "g".into(), member, partitions: None, require_stable: true };
        match desk.call(GroupRequest::Fetch(vec![request])) {
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
    let mut desk = Desk::new();
    let joined = desk.stable("g", 1);
    desk.commit(commit("g", &joined[0].member, 1, 5));
    let mut a = worker("g", "a", &["one"]);
    assert_eq!(a.refused(&mut desk), Some(GroupError::GroupIdNotFound), "the group has members");
    desk.leave("g", &[(&joined[0].member, None)]);
    assert_eq!(a.beat(&mut desk).error, None);
    assert_eq!((a.count(), desk.offset("g", 1, 0)), (4, Some(5)));
    let token = desk.join("g", "");
    assert_eq!(desk.joined(token).error, Some(GroupError::InconsistentGroupProtocol), "the group has members again");
    a.request.epoch = GroupEpoch(-1);
    a.send(&mut desk);
    desk.crash();
    desk.stable("g", 1);
    assert_eq!((desk.state("g"), desk.offset("g", 1, 0)), ("Stable", Some(5)));
}

#[test]
fn requests_of_the_other_protocol_are_rejected() {
    let mut desk = Desk::new();
    let [a, _] = two(&mut desk);
    assert_eq!(desk.heartbeat("g", "a", a.request.epoch.0), Some(GroupError::UnknownMemberId));
    let GroupReply::Describe(groups) = desk.call(GroupRequest::Describe(vec!["g".into()])) else {
        panic!("another reply");
    };
    assert_eq!(groups[0].1, Err(GroupError::GroupIdNotFound));
    desk.stable("c", 1);
    assert_eq!(described(&mut desk, "c"), Err(GroupError::GroupIdNotFound));
    assert_eq!(desk.leave("g", &[("a", None), ("x", None)]), [None, Some(GroupError::UnknownMemberId)]);
}

#[test]
fn heartbeats_without_changes_are_accepted_when_the_group_has_reached_its_memory_limit() {
    let mut desk = Desk::new();
    let name = |n: usize| format!("{n:0>1000}");
    let mut a = worker("g", "a", &[]);
    a.request.instance = Some("i".into());
    a.request.topic_names = Some((0..limits::GROUP_BYTES_MAX / 1_100).map(name).collect());
    assert_eq!(a.beat(&mut desk).error, None);
    desk.pass(40_000);
    assert_eq!(a.beat(&mut desk).error, None);
    desk.pass(40_000);
    assert_eq!(a.beat(&mut desk).error, None, "its session was extended");
    a.request.topic_names = Some((0..limits::GROUP_BYTES_MAX / 1_000).map(name).collect());
    assert_eq!(a.refused(&mut desk), Some(GroupError::GroupMaxSizeReached));
}

#[test]
fn an_empty_group_with_an_abandoned_join_is_the_same_after_a_restart() {
    let mut desk = Desk::new();
    let mut a = worker("g", "a", &["one"]);
    a.beat(&mut desk);
    a.request.epoch = GroupEpoch(-1);
    a.send(&mut desk);
    let token = desk.ask(GroupRequest::Join(JoinRequest { requires_member_id: true, ..join("g", "") }));
    assert_eq!(desk.joined(token).error, Some(GroupError::MemberIdRequired));
    desk.pass(SESSION_MS as u64);
    let state = desk.state("g");
    desk.crash();
    assert_eq!(desk.state("g"), state);
    desk.pass(600_000);
    assert_eq!(desk.state("g"), "Dead");
    desk.crash();
    assert_eq!(desk.state("g"), "Dead");
}
