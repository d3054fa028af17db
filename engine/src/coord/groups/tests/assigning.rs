//! Assignments that take several turns.

use highwater_protocol::ids::GroupEpoch;

use super::consumer::{Worker, described, worker};
use super::*;
use crate::coord::groups::coordinator::Group;
use crate::coord::groups::limits::{ASSIGNING_HEARTBEAT_INTERVAL_MS, WORK_PER_TURN_MAX};

const TOPICS: u16 = 3_000;

fn wide(n: u16) -> TopicId {
    let mut id = [9; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    TopicId(id)
}

/// Returns a harness with `TOPICS` topics.
fn desk() -> Desk {
    let mut desk = Desk::new();
    for n in 0..TOPICS {
        desk.coordinator.handle_topic(wide(n), &format!("wide-{n}"), 1);
    }
    desk
}

/// Returns a member that subscribes to all of them with an expression of its own.
fn matching(member: &str, extra: usize) -> Worker {
    let mut worker = worker("g", member, &[]);
    worker.request.topic_regex = Some(format!("wide-.*{}", "(x)?".repeat(extra)));
    worker
}

impl Desk {
    /// Runs a turn. Returns whether there is more work.
    fn turn(&mut self) -> bool {
        let more = self.coordinator.run(self.now());
        self.settle();
        more
    }

    /// Sends a full heartbeat, and runs turns only until there is a reply.
    fn beat_now(&mut self, worker: &mut Worker) -> ConsumerHeartbeatReply {
        self.tokens += 1;
        let token = Token(self.tokens);
        worker.request.owned = Some(worker.told.clone());
        let request = GroupRequest::ConsumerHeartbeat(worker.request.clone());
        self.coordinator.handle(self.now(), token, request, [0; 16]);
        self.settle();
        let reply = (0..1000).find_map(|_| {
            self.reply(token).or_else(|| {
                self.turn();
                None
            })
        });
        let Some(GroupReply::ConsumerHeartbeat(reply)) = reply else { panic!("{reply:?}") };
        assert_eq!(reply.error, None);
        worker.request.epoch = reply.epoch;
        if let Some(assignment) = &reply.assignment {
            worker.told.clone_from(assignment);
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
fn settle_all(desk: &mut Desk, workers: &mut [Worker]) {
    for _ in 0..4 {
        for worker in &mut *workers {
            desk.beat_now(worker);
        }
        while desk.turn() {}
    }
}

fn assert_all_assigned_once(workers: &[Worker]) {
    let mut all: Vec<TopicId> = workers.iter().flat_map(|w| w.told.iter().map(|(topic, _)| *topic)).collect();
    all.sort_unstable();
    let mut expected: Vec<TopicId> = (0..TOPICS).map(wide).collect();
    expected.sort_unstable();
    assert!(all == expected, "{} of {TOPICS}", all.len());
}

#[test]
fn a_large_assignment_takes_several_turns_and_other_requests_are_served_meanwhile() {
    for assignor in ["uniform", "range"] {
        let mut desk = desk();
        let mut workers: Vec<Worker> = (0..20).map(|n| matching(&format!("m{n:02}"), n)).collect();
        for worker in &mut workers {
            worker.request.assignor = Some(assignor.into());
            let reply = desk.beat_now(worker);
            assert!(reply.epoch > GroupEpoch(0), "the member has joined");
            assert_eq!(reply.heartbeat_interval_ms, ASSIGNING_HEARTBEAT_INTERVAL_MS, "{assignor}");
            assert!(!reply.is_settled);
        }
        assert_eq!(desk.group_state("g").0, "Assigning");
        let mut turns = 0;
        while desk.turn() {
            turns += 1;
            let token = desk.begin(GroupRequest::Commit(commit("other", "", -1, 3)));
            desk.settle();
            assert!(desk.reply(token).is_some());
            desk.beat_now(&mut workers[0]);
        }
        assert!(turns >= 10, "{turns} turns");
        settle_all(&mut desk, &mut workers);
        assert_all_assigned_once(&workers);
        let is_even = workers.iter().all(|w| w.count() == usize::from(TOPICS) / 20);
        assert_eq!(
            is_even,
            assignor == "uniform",
            "`range` assigns all topics with one partition to the first member"
        );
        assert_eq!(described(&mut desk, "g").expect("the group exists").state, "Stable");
        let busiest = desk.coordinator.busiest_turn_work();
        assert!(busiest <= 3 * WORK_PER_TURN_MAX, "{assignor}: {busiest} in a turn");
    }
}

#[test]
fn a_group_gets_assignments_even_if_members_keep_joining() {
    let mut desk = desk();
    let mut first = matching("first", 1);
    desk.beat_now(&mut first);
    let mut target_epochs = std::collections::BTreeSet::new();
    for n in 0..300 {
        desk.beat_now(&mut worker("g", &format!("m{n:03}"), &["wide-1"]));
        desk.turn();
        let (state, epoch, target_epoch) = desk.group_state("g");
        assert_eq!((state == "Assigning", epoch > target_epoch), (true, true), "an assignment is always in progress");
        target_epochs.insert(target_epoch);
        desk.beat_now(&mut first);
    }
    assert!(target_epochs.len() > 3, "{target_epochs:?}");
    assert!(first.count() > usize::from(TOPICS) / 2, "{} partitions", first.count());
}

#[test]
fn an_assignment_that_a_crash_interrupts_is_restarted() {
    let mut desk = desk();
    let mut workers: Vec<Worker> = (0..4).map(|n| matching(&format!("m{n}"), n)).collect();
    for worker in &mut workers {
        desk.beat_now(worker);
    }
    // Crashes in every stage.
    for turns in [0, 1, 3, 5, 8, 12] {
        let mut more = matching(&format!("x{turns}"), turns + 5);
        desk.beat_now(&mut more);
        workers.push(more);
        for _ in 0..turns {
            desk.turn();
        }
        desk.crash();
        for n in 0..TOPICS {
            desk.coordinator.handle_topic(wide(n), &format!("wide-{n}"), 1);
        }
    }
    settle_all(&mut desk, &mut workers);
    assert_all_assigned_once(&workers);
}

#[test]
fn a_static_member_that_returns_with_another_id_during_an_assignment_gets_its_share() {
    let mut desk = desk();
    let mut workers: Vec<Worker> = (0..3).map(|n| matching(&format!("m{n}"), n)).collect();
    workers[0].request.instance = Some("i".into());
    for worker in &mut workers {
        desk.beat_now(worker);
    }
    settle_all(&mut desk, &mut workers);
    assert_all_assigned_once(&workers);
    // It leaves temporarily, another member joins, and it returns before the next assignment is finished.
    let leaving = ConsumerHeartbeatRequest { epoch: GroupEpoch(-2), ..workers[0].request.clone() };
    desk.ask(GroupRequest::ConsumerHeartbeat(leaving));
    let mut fourth = matching("m3", 7);
    desk.beat_now(&mut fourth);
    workers.push(fourth);
    let mut back = matching("back", 0);
    back.request.instance = Some("i".into());
    desk.beat_now(&mut back);
    workers[0] = back;
    settle_all(&mut desk, &mut workers);
    assert_all_assigned_once(&workers);
    assert!(workers.iter().all(|w| w.count() == usize::from(TOPICS) / 4));
}

#[test]
fn topics_created_during_an_assignment_are_part_of_the_next_one() {
    let mut desk = desk();
    let mut workers: Vec<Worker> = (0..3).map(|n| matching(&format!("m{n}"), n)).collect();
    for worker in &mut workers {
        desk.beat_now(worker);
    }
    desk.turn();
    desk.coordinator.handle_topic(topic(7), "wide-new", 1);
    settle_all(&mut desk, &mut workers);
    assert_eq!(workers.iter().map(Worker::count).sum::<usize>(), usize::from(TOPICS) + 1);
    // Deleted topics are assigned to no member.
    desk.coordinator.handle_topic_deleted(topic(7));
    settle_all(&mut desk, &mut workers);
    assert_all_assigned_once(&workers);
}

#[test]
fn no_assignment_is_persisted_while_the_disk_is_full() {
    let mut desk = desk();
    let mut workers: Vec<Worker> = (0..3).map(|n| matching(&format!("m{n}"), n)).collect();
    for worker in &mut workers {
        desk.beat_now(worker);
    }
    desk.stall(true);
    let before = desk.log.len();
    for _ in 0..1000 {
        assert!(!desk.coordinator.run(desk.now()), "the assignment waits for space");
    }
    desk.write();
    assert_eq!(desk.log.len(), before);
    desk.stall(false);
    settle_all(&mut desk, &mut workers);
    assert_all_assigned_once(&workers);
}
