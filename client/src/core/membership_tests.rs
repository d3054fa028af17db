//! A member with a broker that is played by the test.

use super::*;
use highwater_protocol::ids::PartitionIndex;
use highwater_protocol::native::{CommittedOffset, ReadGroupOffsetsReply, TopicPartitions, TopicPositions};
use std::collections::BTreeMap;

const TOPIC: TopicId = TopicId([1; 16]);
const INTERVAL: Duration = Duration::from_secs(5);
const SESSION: Duration = Duration::from_secs(45);

/// The member, the time, and what its partitions need.
struct Scene {
    membership: Membership,
    now: Instant,
    needs: BTreeMap<u32, Need>,
    changes: Vec<(u32, What)>,
}

impl Scene {
    fn new() -> Self {
        Self::of(None, Some(Duration::from_secs(1)))
    }

    fn of(instance: Option<&str>, commit_every: Option<Duration>) -> Self {
        let now = Instant::now();
        let member = Member {
            group: "billing".into(),
            id: "m".into(),
            instance: instance.map(str::to_owned),
            assignor: None,
            rebalance_timeout: Duration::from_mins(1),
            topics: vec![("orders".into(), TOPIC)],
            commit_every,
        };
        let pause = Backoff::new(Duration::from_millis(10), Duration::from_millis(10));
        let membership = Membership::new(member, now, pause);
        Self { membership, now, needs: BTreeMap::new(), changes: Vec::new() }
    }

    /// What it does next, but for changes of partitions, which are noted.
    fn next(&mut self) -> Action {
        let needs = &self.needs;
        let need = |tp: TopicPartition| needs.get(&tp.partition.get()).copied().unwrap_or(Need::Nothing);
        let action = self.membership.next(self.now, need);
        while let Some(change) = self.membership.poll_change() {
            self.changes.push((change.partition, change.what));
        }
        action
    }

    fn changed(&mut self) -> Vec<(u32, What)> {
        std::mem::take(&mut self.changes)
    }

    /// It has to send a heartbeat; which one.
    fn beat(&mut self) -> (u64, GroupHeartbeatRequest) {
        match self.next() {
            Action::Beat(life, request) => (life, request),
            other => panic!("no heartbeat but {other:?}"),
        }
    }

    fn answer(&mut self, life: u64, epoch: i32, assignment: Option<&[u32]>) {
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
        assert_eq!(self.membership.handle_beat(self.now, life, Ok(reply)), Beaten::Fine);
    }

    fn fail(&mut self, life: u64, failure: Failure) -> Beaten {
        self.membership.handle_beat(self.now, life, Err(failure))
    }

    /// It reads positions; these are there.
    fn positions(&mut self, there: &[(u32, i64)]) {
        let Action::Read(life, request) = self.next() else { panic!("no positions wanted") };
        let positions = there.iter().map(|(partition, offset)| CommittedOffset {
            partition: PartitionIndex(*partition),
            offset: Offset(*offset),
            leader_epoch: 0,
            metadata: String::new(),
        });
        let topics = vec![TopicPositions { topic: TOPIC, positions: positions.collect() }];
        self.membership.handle_positions(self.now, life, &request, Ok(ReadGroupOffsetsReply { topics }));
    }

    fn sleeps(&mut self) -> Duration {
        match self.next() {
            Action::Sleep(until) => until - self.now,
            other => panic!("it does not sleep but {other:?}"),
        }
    }

    /// Sleeps as long as it wants to.
    fn wait(&mut self) {
        let pause = self.sleeps();
        self.now += pause;
    }

    fn owned(request: &GroupHeartbeatRequest) -> Option<Vec<u32>> {
        let owned = request.owned.as_ref()?;
        Some(partitions(owned).map(|tp| tp.partition.get()).collect())
    }

    /// A member that reads these partitions, in epoch 1.
    fn joined(mut self, has: &[u32]) -> Self {
        let (life, request) = self.beat();
        assert_eq!((request.epoch, Self::owned(&request)), (JOIN_EPOCH, Some(vec![])));
        assert_eq!(request.topics, Some(vec!["orders".to_owned()]));
        self.answer(life, 1, Some(has));
        self.positions(&[]);
        self.sleeps();
        assert!(self.membership.is_settled());
        self.changed();
        self
    }
}

#[test]
fn it_joins_reads_positions_and_begins_there_or_where_the_user_wants() {
    let mut scene = Scene::new();
    let (life, request) = scene.beat();
    assert_eq!(request.rebalance_timeout_ms, Some(60_000));
    assert!(!scene.membership.is_in());
    scene.answer(life, 1, Some(&[0, 1]));
    assert!(scene.membership.is_in() && !scene.membership.is_settled());
    scene.positions(&[(1, 70)]);
    let sleep = scene.sleeps();
    assert_eq!(scene.changed(), [(0, What::Start(None)), (1, What::Start(Some(Offset(70))))]);
    assert_eq!(sleep, Duration::from_secs(1), "until the next commit is due");
    scene.now += INTERVAL;
    let (life, request) = scene.beat();
    assert_eq!((request.epoch, request.topics.clone(), Scene::owned(&request)), (1, None, Some(vec![0, 1])));
    scene.answer(life, 1, None);
    scene.now += INTERVAL;
    let (_, request) = scene.beat();
    assert_eq!(Scene::owned(&request), None, "nothing is new");
}

#[test]
fn what_is_taken_away_is_stopped_at_once_and_given_up_when_it_is_processed_and_committed() {
    let mut scene = Scene::new().joined(&[0, 1]);
    scene.needs.insert(1, Need::Processing);
    scene.now += INTERVAL;
    let (life, _) = scene.beat();
    scene.answer(life, 1, Some(&[0]));
    scene.sleeps();
    assert_eq!(scene.changed(), [(1, What::Stop)]);
    // Heartbeats go on meanwhile, and say that it has both.
    scene.now += INTERVAL;
    let (life, request) = scene.beat();
    assert_eq!(Scene::owned(&request), None);
    scene.answer(life, 1, None);
    scene.needs.insert(1, Need::Commit);
    let Action::Commit(life) = scene.next() else { panic!("it commits") };
    assert!(matches!(scene.next(), Action::Sleep(_)), "one at a time");
    scene.needs.remove(&1);
    scene.membership.handle_committed(scene.now, life, Ok(()));
    // Others wait for it: at once.
    let (life, request) = scene.beat();
    assert_eq!(scene.changed(), [(1, What::Free)]);
    assert_eq!((request.epoch, Scene::owned(&request)), (1, Some(vec![0])));
    scene.answer(life, 2, None);
    scene.sleeps();
    assert!(scene.membership.is_settled());
}

#[test]
fn a_commit_that_fails_is_made_again_and_the_partition_kept_until_then() {
    let mut scene = Scene::new().joined(&[0]);
    scene.now += INTERVAL;
    let (life, _) = scene.beat();
    scene.answer(life, 1, Some(&[]));
    scene.needs.insert(0, Need::Commit);
    for _ in 0..3 {
        let Action::Commit(life) = scene.next() else { panic!("it commits") };
        scene.membership.handle_committed(scene.now, life, Err(Failure::Unanswered));
        let pause = scene.sleeps();
        assert!(pause <= Duration::from_millis(10) && pause > Duration::ZERO);
        scene.now += pause;
    }
    assert_eq!(scene.changed(), [(0, What::Stop)]);
}

#[test]
fn a_commit_that_fails_again_and_again_keeps_nothing_else_waiting() {
    let mut scene = Scene::new().joined(&[0]);
    scene.now += INTERVAL;
    let (life, _) = scene.beat();
    scene.answer(life, 1, Some(&[1]));
    scene.needs.insert(0, Need::Commit);
    let Action::Commit(life) = scene.next() else { panic!("it commits") };
    scene.membership.handle_committed(scene.now, life, Err(Failure::Refused(ErrorCode::TooLarge)));
    scene.wait();
    let Action::Read(life, asked) = scene.next() else { panic!("it reads positions") };
    scene.membership.handle_positions(scene.now, life, &asked, Err(Failure::Unanswered));
    scene.wait();
    let Action::Commit(life) = scene.next() else { panic!("nor does the commit wait") };
    scene.membership.handle_committed(scene.now, life, Err(Failure::Refused(ErrorCode::TooLarge)));
    scene.wait();
    scene.positions(&[(1, 3)]);
    assert!(matches!(scene.next(), Action::Commit(_)));
    assert_eq!(scene.changed(), [(0, What::Stop), (1, What::Start(Some(Offset(3))))]);
}

#[test]
fn who_commits_by_hand_is_only_waited_for_while_processing() {
    let mut scene = Scene::of(None, None).joined(&[0]);
    scene.now += INTERVAL;
    let (life, _) = scene.beat();
    scene.needs.insert(0, Need::Processing);
    scene.answer(life, 1, Some(&[]));
    scene.sleeps();
    scene.needs.insert(0, Need::Commit);
    let (_, request) = scene.beat();
    assert_eq!(Scene::owned(&request), Some(vec![]));
    assert_eq!(scene.changed(), [(0, What::Stop), (0, What::Free)]);
}

#[test]
fn a_lost_answer_makes_it_say_everything_once_more() {
    let mut scene = Scene::new().joined(&[0]);
    scene.now += INTERVAL;
    let (life, _) = scene.beat();
    assert_eq!(scene.fail(life, Failure::Unanswered), Beaten::Fine);
    scene.now += Duration::from_millis(10);
    let (life, request) = scene.beat();
    assert!(request.topics.is_some() && request.rebalance_timeout_ms.is_some());
    assert_eq!((request.epoch, Scene::owned(&request)), (1, Some(vec![0])));
    scene.answer(life, 2, Some(&[0]));
    scene.sleeps();
    assert!(scene.membership.is_settled());
    assert_eq!(scene.changed(), [], "reading was not interrupted");
}

#[test]
fn a_fenced_member_drops_everything_uncommitted_and_joins_again() {
    for code in [ErrorCode::FencedMember, ErrorCode::UnknownMember, ErrorCode::UnknownGroup] {
        let mut scene = Scene::new().joined(&[0, 1]);
        scene.needs.insert(0, Need::Commit);
        scene.needs.insert(1, Need::Processing);
        scene.now += INTERVAL;
        let Action::Commit(old) = scene.next() else { panic!("a commit is due") };
        let (life, _) = scene.beat();
        assert_eq!(scene.fail(life, Failure::Refused(code)), Beaten::Fine);
        let (life, request) = scene.beat();
        assert_eq!(scene.changed(), [(0, What::Free), (1, What::Free)]);
        assert_eq!((request.epoch, Scene::owned(&request)), (JOIN_EPOCH, Some(vec![])));
        scene.answer(life, 7, Some(&[1]));
        // What came of the commit of the life before does not matter any more.
        scene.membership.handle_committed(scene.now, old, Err(Failure::Refused(code)));
        scene.needs.clear();
        scene.positions(&[(1, 3)]);
        scene.sleeps();
        assert_eq!(scene.changed(), [(1, What::Start(Some(Offset(3))))]);
    }
}

#[test]
fn silence_for_the_session_timeout_is_taken_for_being_fenced() {
    let mut scene = Scene::new().joined(&[0]);
    // What counts is when the heartbeat was sent that was answered last.
    let answered = scene.now;
    scene.now += INTERVAL;
    let (life, _) = scene.beat();
    scene.now = answered + Duration::from_millis(44_999);
    assert_eq!(scene.sleeps(), Duration::from_millis(1));
    assert_eq!(scene.changed(), []);
    scene.now += Duration::from_millis(1);
    scene.sleeps();
    assert_eq!(scene.changed(), [(0, What::Free)]);
    // An answer that comes after that is none.
    scene.answer(life, 1, Some(&[0]));
    let (_, request) = scene.beat();
    assert_eq!(request.epoch, JOIN_EPOCH);
}

#[test]
fn it_leaves_when_all_is_committed_and_says_so() {
    for (instance, epoch) in [(None, LEAVE_EPOCH), (Some("i-1"), AWAY_EPOCH)] {
        let mut scene = Scene::of(instance, Some(Duration::from_secs(1))).joined(&[0, 1]);
        scene.needs.insert(0, Need::Commit);
        scene.membership.leave(scene.now);
        let Action::Commit(life) = scene.next() else { panic!("it commits") };
        assert_eq!(scene.changed(), [(0, What::Stop), (1, What::Stop), (1, What::Free)]);
        scene.needs.clear();
        scene.membership.handle_committed(scene.now, life, Ok(()));
        let (life, request) = scene.beat();
        assert_eq!((request.epoch, request.owned.clone()), (epoch, None));
        scene.answer(life, epoch, None);
        assert!(matches!(scene.next(), Action::Over));
    }
}

#[test]
fn it_leaves_even_if_nothing_can_be_committed_or_answered() {
    let mut scene = Scene::new().joined(&[0]);
    scene.needs.insert(0, Need::Commit);
    scene.membership.leave(scene.now);
    let Action::Commit(life) = scene.next() else { panic!("it commits") };
    scene.membership.handle_committed(scene.now, life, Err(Failure::Unanswered));
    let (life, request) = scene.beat();
    assert_eq!(request.epoch, LEAVE_EPOCH);
    assert_eq!(scene.fail(life, Failure::Unanswered), Beaten::Fine);
    assert!(matches!(scene.next(), Action::Over));
}

#[test]
fn who_leaves_while_joining_still_tells_the_broker() {
    let mut scene = Scene::new();
    let (life, _) = scene.beat();
    scene.membership.leave(scene.now);
    scene.answer(life, 1, Some(&[0]));
    let (life, request) = scene.beat();
    assert_eq!(request.epoch, LEAVE_EPOCH);
    scene.answer(life, LEAVE_EPOCH, None);
    assert!(matches!(scene.next(), Action::Over));
    let mut never = Scene::new();
    never.membership.leave(never.now);
    assert!(matches!(never.next(), Action::Over), "nobody was told of it");
}

#[test]
fn a_group_that_does_not_take_the_member_is_the_end() {
    let mut scene = Scene::new();
    let (life, _) = scene.beat();
    assert_eq!(scene.fail(life, Failure::Refused(ErrorCode::OtherGroupProtocol)), Beaten::Rejected);
    assert!(matches!(scene.next(), Action::Over));
    let mut scene = Scene::new().joined(&[0]);
    scene.now += INTERVAL;
    let (life, _) = scene.beat();
    assert_eq!(scene.fail(life, Failure::Refused(ErrorCode::InstanceFenced)), Beaten::Rejected);
    assert!(matches!(scene.next(), Action::Over));
    assert_eq!(scene.changed(), [(0, What::Free)]);
}

#[test]
fn a_partition_that_comes_back_while_it_leaves_begins_anew() {
    let mut scene = Scene::new().joined(&[0]);
    scene.needs.insert(0, Need::Processing);
    for assignment in [&[][..], &[0]] {
        scene.now += INTERVAL;
        let (life, _) = scene.beat();
        scene.answer(life, 1, Some(assignment));
        scene.sleeps();
    }
    assert_eq!(scene.changed(), [(0, What::Stop)]);
    scene.needs.clear();
    scene.positions(&[(0, 9)]);
    scene.sleeps();
    assert_eq!(scene.changed(), [(0, What::Free), (0, What::Start(Some(Offset(9))))]);
}

#[test]
fn partitions_of_a_topic_that_was_made_again_begin_when_its_id_is_known() {
    let mut scene = Scene::new().joined(&[0]);
    scene.now += INTERVAL;
    let (life, _) = scene.beat();
    let new = TopicId([2; 16]);
    let reply = GroupHeartbeatReply {
        member: "m".into(),
        epoch: 2,
        heartbeat_interval_ms: 5_000,
        session_timeout_ms: 45_000,
        assignment: Some(vec![TopicPartitions { topic: new, partitions: vec![PartitionIndex(0)] }]),
    };
    scene.membership.handle_beat(scene.now, life, Ok(reply));
    let Action::Resolve(life) = scene.next() else { panic!("it looks the topic up") };
    scene.membership.handle_topics(scene.now, life, &[Some(new)]);
    let Action::Read(life, request) = scene.next() else { panic!("it reads positions") };
    assert_eq!(request.partitions.as_ref().unwrap()[0].topic, new);
    scene.membership.handle_positions(
        scene.now,
        life,
        &request,
        Ok(ReadGroupOffsetsReply { topics: Vec::new() }),
    );
    let (life, _) = scene.beat();
    scene.answer(life, 2, None);
    scene.sleeps();
    assert!(scene.membership.is_settled());
    assert_eq!(scene.changed().last(), Some(&(0, What::Start(None))));
}
