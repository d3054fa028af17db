//! Assignments that take several turns.

use highwater_protocol::ids::GroupEpoch;

use super::consumer::{TestMember, describe, test_member};
use super::*;
use crate::coord::groups::coordinator::Group;
use crate::coord::groups::limits::{ASSIGNING_HEARTBEAT_INTERVAL_MS, WORK_PER_TURN_MAX};

const TOPICS: u16 = 3_000;

fn wide_topic(n: u16) -> TopicId {
    let mut id = [9; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    TopicId(id)
}

/// Returns a harness with `TOPICS` topics.
fn harness_with_many_topics() -> Harness {
    let mut harness = Harness::new();
    for n in 0..TOPICS {
        harness.coordinator.handle_topic(wide_topic(n), &format!("wide-{n}"), 1);
    }
    harness
}

/// Returns a member that subscribes to all of them with an expression of its own.
fn matching_member(member: &str, extra: usize) -> TestMember {
    let mut member = test_member("g", member, &[]);
    member.request.topic_regex = Some(format!("wide-.*{}", "(x)?".repeat(extra)));
    member
}

impl Harness {
    /// Runs a turn. Returns whether there is more work.
    fn run_turn(&mut self) -> bool {
        let more = self.coordinator.run(self.now());
        self.drain();
        more
    }

    /// Sends a full heartbeat, and runs turns only until there is a reply.
    fn heartbeat_promptly(&mut self, member: &mut TestMember) -> ConsumerHeartbeatReply {
        self.tokens += 1;
        let token = Token(self.tokens);
        member.request.owned = Some(member.assignment.clone());
        let request = GroupRequest::ConsumerHeartbeat(member.request.clone());
        self.coordinator.handle(self.now(), token, request, [0; 16]);
        self.drain();
        let reply = (0..1000).find_map(|_| {
            self.reply(token).or_else(|| {
                self.run_turn();
                None
            })
        });
        let Some(GroupReply::ConsumerHeartbeat(reply)) = reply else { panic!("{reply:?}") };
        assert_eq!(reply.error, None);
        member.request.epoch = reply.epoch;
        if let Some(assignment) = &reply.assignment {
            member.assignment.clone_from(assignment);
        }
        reply
    }

    fn group_state(&self, group: &str) -> (&'static str, GroupEpoch, GroupEpoch) {
        let group = self.coordinator.groups.get(group).and_then(Group::as_consumer);
        let group = group.expect("the group exists").describe();
        (group.state, group.epoch, group.assignment_epoch)
    }
}

/// Sends heartbeats of all members until they have their targets.
fn reconcile_all(harness: &mut Harness, members: &mut [TestMember]) {
    for _ in 0..4 {
        for member in &mut *members {
            harness.heartbeat_promptly(member);
        }
        while harness.run_turn() {}
    }
}

fn assert_all_assigned_once(members: &[TestMember]) {
    let mut all: Vec<TopicId> =
        members.iter().flat_map(|w| w.assignment.iter().map(|(topic, _)| *topic)).collect();
    all.sort_unstable();
    let mut expected: Vec<TopicId> = (0..TOPICS).map(wide_topic).collect();
    expected.sort_unstable();
    assert!(all == expected, "{} of {TOPICS}", all.len());
}

#[test]
fn a_large_assignment_takes_several_turns_and_other_requests_are_served_meanwhile() {
    for assignor in ["uniform", "range"] {
        let mut harness = harness_with_many_topics();
        let mut members: Vec<TestMember> = (0..20).map(|n| matching_member(&format!("m{n:02}"), n)).collect();
        for member in &mut members {
            member.request.assignor = Some(assignor.into());
            let reply = harness.heartbeat_promptly(member);
            assert!(reply.epoch > GroupEpoch(0), "the member has joined");
            assert_eq!(reply.heartbeat_interval_ms, ASSIGNING_HEARTBEAT_INTERVAL_MS, "{assignor}");
            assert!(!reply.is_settled);
        }
        assert_eq!(harness.group_state("g").0, "Assigning");
        let mut turns = 0;
        while harness.run_turn() {
            turns += 1;
            let token = harness.submit(GroupRequest::Commit(commit("other", "", -1, 3)));
            harness.drain();
            assert!(harness.reply(token).is_some());
            harness.heartbeat_promptly(&mut members[0]);
        }
        assert!(turns >= 10, "{turns} turns");
        reconcile_all(&mut harness, &mut members);
        assert_all_assigned_once(&members);
        let is_even = members.iter().all(|w| w.partition_count() == usize::from(TOPICS) / 20);
        assert_eq!(
            is_even,
            assignor == "uniform",
            "`range` assigns all topics with one partition to the first member"
        );
        assert_eq!(describe(&mut harness, "g").expect("the group exists").state, "Stable");
        let busiest = harness.coordinator.busiest_turn_work();
        assert!(busiest <= 3 * WORK_PER_TURN_MAX, "{assignor}: {busiest} in a turn");
    }
}

#[test]
fn a_group_gets_assignments_even_if_members_keep_joining() {
    let mut harness = harness_with_many_topics();
    let mut first = matching_member("first", 1);
    harness.heartbeat_promptly(&mut first);
    let mut target_epochs = std::collections::BTreeSet::new();
    for n in 0..300 {
        harness.heartbeat_promptly(&mut test_member("g", &format!("m{n:03}"), &["wide-1"]));
        harness.run_turn();
        let (state, epoch, target_epoch) = harness.group_state("g");
        assert_eq!(
            (state == "Assigning", epoch > target_epoch),
            (true, true),
            "an assignment is always in progress"
        );
        target_epochs.insert(target_epoch);
        harness.heartbeat_promptly(&mut first);
    }
    assert!(target_epochs.len() > 3, "{target_epochs:?}");
    assert!(first.partition_count() > usize::from(TOPICS) / 2, "{} partitions", first.partition_count());
}

#[test]
fn an_assignment_that_a_crash_interrupts_is_restarted() {
    let mut harness = harness_with_many_topics();
    let mut members: Vec<TestMember> = (0..4).map(|n| matching_member(&format!("m{n}"), n)).collect();
    for member in &mut members {
        harness.heartbeat_promptly(member);
    }
    // Crashes in every stage.
    for turns in [0, 1, 3, 5, 8, 12] {
        let mut more = matching_member(&format!("x{turns}"), turns + 5);
        harness.heartbeat_promptly(&mut more);
        members.push(more);
        for _ in 0..turns {
            harness.run_turn();
        }
        harness.crash();
        for n in 0..TOPICS {
            harness.coordinator.handle_topic(wide_topic(n), &format!("wide-{n}"), 1);
        }
    }
    reconcile_all(&mut harness, &mut members);
    assert_all_assigned_once(&members);
}

#[test]
fn a_static_member_that_returns_with_another_id_during_an_assignment_gets_its_share() {
    let mut harness = harness_with_many_topics();
    let mut members: Vec<TestMember> = (0..3).map(|n| matching_member(&format!("m{n}"), n)).collect();
    members[0].request.instance = Some("i".into());
    for member in &mut members {
        harness.heartbeat_promptly(member);
    }
    reconcile_all(&mut harness, &mut members);
    assert_all_assigned_once(&members);
    // It leaves temporarily, another member joins, and it returns before the next assignment is finished.
    let leaving = ConsumerHeartbeatRequest { epoch: GroupEpoch(-2), ..members[0].request.clone() };
    harness.send(GroupRequest::ConsumerHeartbeat(leaving));
    let mut fourth = matching_member("m3", 7);
    harness.heartbeat_promptly(&mut fourth);
    members.push(fourth);
    let mut back = matching_member("back", 0);
    back.request.instance = Some("i".into());
    harness.heartbeat_promptly(&mut back);
    members[0] = back;
    reconcile_all(&mut harness, &mut members);
    assert_all_assigned_once(&members);
    assert!(members.iter().all(|w| w.partition_count() == usize::from(TOPICS) / 4));
}

#[test]
fn topics_created_during_an_assignment_are_part_of_the_next_one() {
    let mut harness = harness_with_many_topics();
    let mut members: Vec<TestMember> = (0..3).map(|n| matching_member(&format!("m{n}"), n)).collect();
    for member in &mut members {
        harness.heartbeat_promptly(member);
    }
    harness.run_turn();
    harness.coordinator.handle_topic(topic(7), "wide-new", 1);
    reconcile_all(&mut harness, &mut members);
    assert_eq!(members.iter().map(TestMember::partition_count).sum::<usize>(), usize::from(TOPICS) + 1);
    // Deleted topics are assigned to no member.
    harness.coordinator.handle_topic_deleted(topic(7));
    reconcile_all(&mut harness, &mut members);
    assert_all_assigned_once(&members);
}

#[test]
fn no_assignment_is_persisted_while_the_disk_is_full() {
    let mut harness = harness_with_many_topics();
    let mut members: Vec<TestMember> = (0..3).map(|n| matching_member(&format!("m{n}"), n)).collect();
    for member in &mut members {
        harness.heartbeat_promptly(member);
    }
    harness.stall(true);
    let before = harness.log.len();
    for _ in 0..1000 {
        assert!(!harness.coordinator.run(harness.now()), "the assignment waits for space");
    }
    harness.write();
    assert_eq!(harness.log.len(), before);
    harness.stall(false);
    reconcile_all(&mut harness, &mut members);
    assert_all_assigned_once(&members);
}
