//! A member against a broker played by the test.

use super::*;
use highwater_protocol::ids::PartitionIndex;
use highwater_protocol::native::{CommittedOffset, ReadGroupOffsetsReply, TopicPartitions, TopicPositions};
use std::collections::BTreeMap;

const TOPIC: TopicId = TopicId([1; 16]);
const INTERVAL: Duration = Duration::from_secs(5);
const SESSION: Duration = Duration::from_secs(45);

/// The member, the current time, and what its partitions wait for.
struct MemberHarness {
    membership: Membership,
    now: Instant,
    needs: BTreeMap<u32, ReleaseBlocker>,
    changes: Vec<(u32, ChangeKind)>,
}

impl MemberHarness {
    fn new() -> Self {
        Self::of(None, Some(Duration::from_secs(1)))
    }

    fn of(instance: Option<&str>, auto_commit_interval: Option<Duration>) -> Self {
        let now = Instant::now();
        let member = Member {
            group: "billing".into(),
            id: "m".into(),
            instance: instance.map(str::to_owned),
            assignor: None,
            rebalance_timeout: Duration::from_mins(1),
            topics: vec![("orders".into(), TOPIC)],
            auto_commit_interval,
        };
        let pause = Backoff::new(Duration::from_millis(10), Duration::from_millis(10));
        let membership = Membership::new(member, now, pause);
        Self { membership, now, needs: BTreeMap::new(), changes: Vec::new() }
    }

    /// Returns the next action, and collects changes to partitions.
    fn next(&mut self) -> MembershipAction {
        let needs = &self.needs;
        let need =
            |tp: TopicPartition| needs.get(&tp.partition.get()).copied().unwrap_or(ReleaseBlocker::None);
        let action = self.membership.next(self.now, need);
        while let Some(change) = self.membership.poll_change() {
            self.changes.push((change.partition, change.kind));
        }
        action
    }

    fn changed(&mut self) -> Vec<(u32, ChangeKind)> {
        std::mem::take(&mut self.changes)
    }

    /// Expects a heartbeat and returns it.
    fn beat(&mut self) -> (u64, GroupHeartbeatRequest) {
        match self.next() {
            MembershipAction::Heartbeat(incarnation, request) => (incarnation, request),
            other => panic!("no heartbeat but {other:?}"),
        }
    }

    fn answer(&mut self, incarnation: u64, epoch: i32, assignment: Option<&[u32]>) {
        let assignment = assignment.map(|partitions| {
            let partitions = partitions.iter().map(|p| PartitionIndex(*p)).collect();
            vec![TopicPartitions { topic: TOPIC, partitions }]
        });
        let reply = GroupHeartbeatReply {
            member: "m".into(),
            epoch,
            heartbeat_interval_ms: INTERVAL.as_millis() as u32,
            session_timeout_ms: SESSION.as_millis() as u32,
            assignment,
        };
        assert_eq!(self.membership.handle_heartbeat(self.now, incarnation, Ok(reply)), HeartbeatOutcome::Ok);
    }

    fn fail(&mut self, incarnation: u64, failure: RequestFailure) -> HeartbeatOutcome {
        self.membership.handle_heartbeat(self.now, incarnation, Err(failure))
    }

    /// Expects a request for positions and answers with these.
    fn positions(&mut self, there: &[(u32, i64)]) {
        let MembershipAction::ReadPositions(incarnation, request) = self.next() else {
            panic!("no positions wanted")
        };
        let positions = there.iter().map(|(partition, offset)| CommittedOffset {
            partition: PartitionIndex(*partition),
            offset: Offset(*offset),
            leader_epoch: 0,
            metadata: String::new(),
        });
        let topics = vec![TopicPositions { topic: TOPIC, positions: positions.collect() }];
        self.membership.handle_positions(
            self.now,
            incarnation,
            &request,
            Ok(ReadGroupOffsetsReply { topics }),
        );
    }

    fn sleeps(&mut self) -> Duration {
        match self.next() {
            MembershipAction::Sleep(until) => until - self.now,
            other => panic!("it does not sleep but {other:?}"),
        }
    }

    /// Advances the time to the end of the next sleep.
    fn wait(&mut self) {
        let pause = self.sleeps();
        self.now += pause;
    }

    fn owned(request: &GroupHeartbeatRequest) -> Option<Vec<u32>> {
        let owned = request.owned.as_ref()?;
        Some(partitions(owned).map(|tp| tp.partition.get()).collect())
    }

    /// Joins as a member that reads these partitions, in epoch 1.
    fn joined(mut self, owned: &[u32]) -> Self {
        let (incarnation, request) = self.beat();
        assert_eq!((request.epoch, Self::owned(&request)), (JOIN_EPOCH, Some(vec![])));
        assert_eq!(request.topics, Some(vec!["orders".to_owned()]));
        self.answer(incarnation, 1, Some(owned));
        self.positions(&[]);
        self.sleeps();
        assert!(self.membership.is_settled());
        self.changed();
        self
    }
}

#[test]
fn a_member_joins_and_starts_at_committed_positions_or_at_the_configured_start() {
    let mut harness = MemberHarness::new();
    let (incarnation, request) = harness.beat();
    assert_eq!(request.rebalance_timeout_ms, Some(60_000));
    assert!(!harness.membership.is_joined());
    harness.answer(incarnation, 1, Some(&[0, 1]));
    assert!(harness.membership.is_joined() && !harness.membership.is_settled());
    harness.positions(&[(1, 70)]);
    let sleep = harness.sleeps();
    assert_eq!(harness.changed(), [(0, ChangeKind::Start(None)), (1, ChangeKind::Start(Some(Offset(70))))]);
    assert_eq!(sleep, Duration::from_secs(1), "until the next commit is due");
    harness.now += INTERVAL;
    let (incarnation, request) = harness.beat();
    assert_eq!(
        (request.epoch, request.topics.clone(), MemberHarness::owned(&request)),
        (1, None, Some(vec![0, 1]))
    );
    harness.answer(incarnation, 1, None);
    harness.now += INTERVAL;
    let (_, request) = harness.beat();
    assert_eq!(MemberHarness::owned(&request), None, "nothing is new");
}

#[test]
fn a_revoked_partition_stops_at_once_and_is_released_once_processed_and_committed() {
    let mut harness = MemberHarness::new().joined(&[0, 1]);
    harness.needs.insert(1, ReleaseBlocker::Processing);
    harness.now += INTERVAL;
    let (incarnation, _) = harness.beat();
    harness.answer(incarnation, 1, Some(&[0]));
    harness.sleeps();
    assert_eq!(harness.changed(), [(1, ChangeKind::Stop)]);
    // Heartbeats continue, and the member still owns both partitions.
    harness.now += INTERVAL;
    let (incarnation, request) = harness.beat();
    assert_eq!(MemberHarness::owned(&request), None);
    harness.answer(incarnation, 1, None);
    harness.needs.insert(1, ReleaseBlocker::Commit);
    let MembershipAction::Commit(incarnation) = harness.next() else { panic!("it commits") };
    assert!(matches!(harness.next(), MembershipAction::Sleep(_)), "one at a time");
    harness.needs.remove(&1);
    harness.membership.handle_committed(harness.now, incarnation, Ok(()));
    // Other members wait for the partition: the heartbeat is sent at once.
    let (incarnation, request) = harness.beat();
    assert_eq!(harness.changed(), [(1, ChangeKind::Release)]);
    assert_eq!((request.epoch, MemberHarness::owned(&request)), (1, Some(vec![0])));
    harness.answer(incarnation, 2, None);
    harness.sleeps();
    assert!(harness.membership.is_settled());
}

#[test]
fn a_failed_commit_is_retried_and_its_partition_kept_until_it_succeeds() {
    let mut harness = MemberHarness::new().joined(&[0]);
    harness.now += INTERVAL;
    let (incarnation, _) = harness.beat();
    harness.answer(incarnation, 1, Some(&[]));
    harness.needs.insert(0, ReleaseBlocker::Commit);
    for _ in 0..3 {
        let MembershipAction::Commit(incarnation) = harness.next() else { panic!("it commits") };
        harness.membership.handle_committed(harness.now, incarnation, Err(RequestFailure::Unanswered));
        let pause = harness.sleeps();
        assert!(pause <= Duration::from_millis(10) && pause > Duration::ZERO);
        harness.now += pause;
    }
    assert_eq!(harness.changed(), [(0, ChangeKind::Stop)]);
}

#[test]
fn a_commit_that_keeps_failing_does_not_delay_other_requests() {
    let mut harness = MemberHarness::new().joined(&[0]);
    harness.now += INTERVAL;
    let (incarnation, _) = harness.beat();
    harness.answer(incarnation, 1, Some(&[1]));
    harness.needs.insert(0, ReleaseBlocker::Commit);
    let MembershipAction::Commit(incarnation) = harness.next() else { panic!("it commits") };
    harness.membership.handle_committed(
        harness.now,
        incarnation,
        Err(RequestFailure::Rejected(ErrorCode::TooLarge)),
    );
    harness.wait();
    let MembershipAction::ReadPositions(incarnation, asked) = harness.next() else {
        panic!("it reads positions")
    };
    harness.membership.handle_positions(harness.now, incarnation, &asked, Err(RequestFailure::Unanswered));
    harness.wait();
    let MembershipAction::Commit(incarnation) = harness.next() else { panic!("nor does the commit wait") };
    harness.membership.handle_committed(
        harness.now,
        incarnation,
        Err(RequestFailure::Rejected(ErrorCode::TooLarge)),
    );
    harness.wait();
    harness.positions(&[(1, 3)]);
    assert!(matches!(harness.next(), MembershipAction::Commit(_)));
    assert_eq!(harness.changed(), [(0, ChangeKind::Stop), (1, ChangeKind::Start(Some(Offset(3))))]);
}

#[test]
fn with_manual_commits_a_revoked_partition_waits_only_for_processing() {
    let mut harness = MemberHarness::of(None, None).joined(&[0]);
    harness.now += INTERVAL;
    let (incarnation, _) = harness.beat();
    harness.needs.insert(0, ReleaseBlocker::Processing);
    harness.answer(incarnation, 1, Some(&[]));
    harness.sleeps();
    harness.needs.insert(0, ReleaseBlocker::Commit);
    let (_, request) = harness.beat();
    assert_eq!(MemberHarness::owned(&request), Some(vec![]));
    assert_eq!(harness.changed(), [(0, ChangeKind::Stop), (0, ChangeKind::Release)]);
}

#[test]
fn after_a_lost_answer_the_next_heartbeat_contains_everything() {
    let mut harness = MemberHarness::new().joined(&[0]);
    harness.now += INTERVAL;
    let (incarnation, _) = harness.beat();
    assert_eq!(harness.fail(incarnation, RequestFailure::Unanswered), HeartbeatOutcome::Ok);
    harness.now += Duration::from_millis(10);
    let (incarnation, request) = harness.beat();
    assert!(request.topics.is_some() && request.rebalance_timeout_ms.is_some());
    assert_eq!((request.epoch, MemberHarness::owned(&request)), (1, Some(vec![0])));
    harness.answer(incarnation, 2, Some(&[0]));
    harness.sleeps();
    assert!(harness.membership.is_settled());
    assert_eq!(harness.changed(), [], "reading was not interrupted");
}

#[test]
fn a_fenced_member_releases_everything_without_committing_and_rejoins() {
    for code in [ErrorCode::FencedMember, ErrorCode::UnknownMember, ErrorCode::UnknownGroup] {
        let mut harness = MemberHarness::new().joined(&[0, 1]);
        harness.needs.insert(0, ReleaseBlocker::Commit);
        harness.needs.insert(1, ReleaseBlocker::Processing);
        harness.now += INTERVAL;
        let MembershipAction::Commit(old) = harness.next() else { panic!("a commit is due") };
        let (incarnation, _) = harness.beat();
        assert_eq!(harness.fail(incarnation, RequestFailure::Rejected(code)), HeartbeatOutcome::Ok);
        let (incarnation, request) = harness.beat();
        assert_eq!(harness.changed(), [(0, ChangeKind::Release), (1, ChangeKind::Release)]);
        assert_eq!((request.epoch, MemberHarness::owned(&request)), (JOIN_EPOCH, Some(vec![])));
        harness.answer(incarnation, 7, Some(&[1]));
        // The result of the previous incarnation's commit is ignored.
        harness.membership.handle_committed(harness.now, old, Err(RequestFailure::Rejected(code)));
        harness.needs.clear();
        harness.positions(&[(1, 3)]);
        harness.sleeps();
        assert_eq!(harness.changed(), [(1, ChangeKind::Start(Some(Offset(3))))]);
    }
}

#[test]
fn a_member_without_an_answer_for_the_session_timeout_counts_as_fenced() {
    let mut harness = MemberHarness::new().joined(&[0]);
    // The session lasts from the sending of the last heartbeat that was answered.
    let answered = harness.now;
    harness.now += INTERVAL;
    let (incarnation, _) = harness.beat();
    harness.now = answered + Duration::from_millis(44_999);
    assert_eq!(harness.sleeps(), Duration::from_millis(1));
    assert_eq!(harness.changed(), []);
    harness.now += Duration::from_millis(1);
    harness.sleeps();
    assert_eq!(harness.changed(), [(0, ChangeKind::Release)]);
    // A later answer is ignored.
    harness.answer(incarnation, 1, Some(&[0]));
    let (_, request) = harness.beat();
    assert_eq!(request.epoch, JOIN_EPOCH);
}

#[test]
fn a_member_leaves_once_everything_is_committed_and_notifies_the_broker() {
    for (instance, epoch) in [(None, LEAVE_EPOCH), (Some("i-1"), TEMPORARY_LEAVE_EPOCH)] {
        let mut harness = MemberHarness::of(instance, Some(Duration::from_secs(1))).joined(&[0, 1]);
        harness.needs.insert(0, ReleaseBlocker::Commit);
        harness.membership.leave(harness.now);
        let MembershipAction::Commit(incarnation) = harness.next() else { panic!("it commits") };
        assert_eq!(
            harness.changed(),
            [(0, ChangeKind::Stop), (1, ChangeKind::Stop), (1, ChangeKind::Release)]
        );
        harness.needs.clear();
        harness.membership.handle_committed(harness.now, incarnation, Ok(()));
        let (incarnation, request) = harness.beat();
        assert_eq!((request.epoch, request.owned.clone()), (epoch, None));
        harness.answer(incarnation, epoch, None);
        assert!(matches!(harness.next(), MembershipAction::Ended));
    }
}

#[test]
fn a_member_leaves_even_if_commits_and_heartbeats_fail() {
    let mut harness = MemberHarness::new().joined(&[0]);
    harness.needs.insert(0, ReleaseBlocker::Commit);
    harness.membership.leave(harness.now);
    let MembershipAction::Commit(incarnation) = harness.next() else { panic!("it commits") };
    harness.membership.handle_committed(harness.now, incarnation, Err(RequestFailure::Unanswered));
    let (incarnation, request) = harness.beat();
    assert_eq!(request.epoch, LEAVE_EPOCH);
    assert_eq!(harness.fail(incarnation, RequestFailure::Unanswered), HeartbeatOutcome::Ok);
    assert!(matches!(harness.next(), MembershipAction::Ended));
}

#[test]
fn a_member_that_leaves_while_joining_notifies_the_broker() {
    let mut harness = MemberHarness::new();
    let (incarnation, _) = harness.beat();
    harness.membership.leave(harness.now);
    harness.answer(incarnation, 1, Some(&[0]));
    let (incarnation, request) = harness.beat();
    assert_eq!(request.epoch, LEAVE_EPOCH);
    harness.answer(incarnation, LEAVE_EPOCH, None);
    assert!(matches!(harness.next(), MembershipAction::Ended));
    let mut never = MemberHarness::new();
    never.membership.leave(never.now);
    assert!(matches!(never.next(), MembershipAction::Ended), "nobody was told of it");
}

#[test]
fn a_member_rejected_by_the_group_ends() {
    let mut harness = MemberHarness::new();
    let (incarnation, _) = harness.beat();
    assert_eq!(
        harness.fail(incarnation, RequestFailure::Rejected(ErrorCode::OtherGroupProtocol)),
        HeartbeatOutcome::Rejected
    );
    assert!(matches!(harness.next(), MembershipAction::Ended));
    let mut harness = MemberHarness::new().joined(&[0]);
    harness.now += INTERVAL;
    let (incarnation, _) = harness.beat();
    assert_eq!(
        harness.fail(incarnation, RequestFailure::Rejected(ErrorCode::InstanceFenced)),
        HeartbeatOutcome::Rejected
    );
    assert!(matches!(harness.next(), MembershipAction::Ended));
    assert_eq!(harness.changed(), [(0, ChangeKind::Release)]);
}

#[test]
fn a_partition_reassigned_while_it_is_revoked_starts_anew() {
    let mut harness = MemberHarness::new().joined(&[0]);
    harness.needs.insert(0, ReleaseBlocker::Processing);
    for assignment in [&[][..], &[0]] {
        harness.now += INTERVAL;
        let (incarnation, _) = harness.beat();
        harness.answer(incarnation, 1, Some(assignment));
        harness.sleeps();
    }
    assert_eq!(harness.changed(), [(0, ChangeKind::Stop)]);
    harness.needs.clear();
    harness.positions(&[(0, 9)]);
    harness.sleeps();
    assert_eq!(harness.changed(), [(0, ChangeKind::Release), (0, ChangeKind::Start(Some(Offset(9))))]);
}

#[test]
fn partitions_of_a_recreated_topic_start_once_its_id_is_known() {
    let mut harness = MemberHarness::new().joined(&[0]);
    harness.now += INTERVAL;
    let (incarnation, _) = harness.beat();
    let new = TopicId([2; 16]);
    let reply = GroupHeartbeatReply {
        member: "m".into(),
        epoch: 2,
        heartbeat_interval_ms: 5_000,
        session_timeout_ms: 45_000,
        assignment: Some(vec![TopicPartitions { topic: new, partitions: vec![PartitionIndex(0)] }]),
    };
    harness.membership.handle_heartbeat(harness.now, incarnation, Ok(reply));
    let MembershipAction::Resolve(incarnation) = harness.next() else { panic!("it looks the topic up") };
    harness.membership.handle_topics(harness.now, incarnation, &[Some(new)]);
    let MembershipAction::ReadPositions(incarnation, request) = harness.next() else {
        panic!("it reads positions")
    };
    assert_eq!(request.partitions.as_ref().unwrap()[0].topic, new);
    harness.membership.handle_positions(
        harness.now,
        incarnation,
        &request,
        Ok(ReadGroupOffsetsReply { topics: Vec::new() }),
    );
    let (incarnation, _) = harness.beat();
    harness.answer(incarnation, 2, None);
    harness.sleeps();
    assert!(harness.membership.is_settled());
    assert_eq!(harness.changed().last(), Some(&(0, ChangeKind::Start(None))));
}
