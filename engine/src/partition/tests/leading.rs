//! What a replica answers, as a leader and as none.

use std::collections::BTreeSet;

use highwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use highwater_replication::raft::{Envelope, LogEnd, Message, ProposeError};

use super::node::{TP, replica};
use super::world::World;
use crate::api::{ApiError, RequiredAcks};
use crate::partition::{Attached, FetchId, PeerMessage, ReaderId, Waiter};

fn answer(world: &World, node: usize, known: Option<i32>) -> Result<(), ApiError> {
    world.nodes[node].partition().expect("it runs").check_answers(known.map(LeaderEpoch))
}

#[test]
fn a_replica_that_does_not_lead_names_the_leader() {
    let mut world = World::of_three(1);
    let unknown = ApiError::NotLeader { partition: "t/0".into(), leader: None, epoch: LeaderEpoch(0) };
    assert_eq!(answer(&world, 0, None), Err(unknown));
    world.elect(0);
    assert_eq!(answer(&world, 0, None), Ok(()));
    let led = ApiError::NotLeader { partition: "t/0".into(), leader: Some(NodeId(0)), epoch: LeaderEpoch(1) };
    assert_eq!(answer(&world, 2, None), Err(led));
}

#[test]
fn a_request_that_names_another_leader_epoch_is_rejected_on_every_replica() {
    let mut world = World::of_three(1);
    world.elect(0);
    for node in 0..3 {
        let fenced = answer(&world, node, Some(0));
        assert!(matches!(fenced, Err(ApiError::FencedLeaderEpoch { .. })), "node {node}: {fenced:?}");
        let unknown = answer(&world, node, Some(2));
        assert!(matches!(unknown, Err(ApiError::UnknownLeaderEpoch { .. })), "node {node}: {unknown:?}");
    }
    assert_eq!(answer(&world, 0, Some(1)), Ok(()));
}

#[test]
fn a_new_leader_answers_when_an_entry_of_its_term_is_committed_and_on_its_disk() {
    let mut world = World::of_three(1);
    world.elect(0);
    world.send_batch(0, 0, RequiredAcks::All);
    world.run_until_quiet();
    world.cut_off(0, true);
    world.time_out_on(1);
    let mut answers = vec![answer(&world, 1, None)];
    while world.step_once() {
        let next = answer(&world, 1, None);
        if answers.last() != Some(&next) {
            answers.push(next);
        }
    }
    let is_not_ready = |answer: &Result<(), ApiError>| matches!(answer, Err(ApiError::LeaderNotReady { .. }));
    assert_eq!(answers.iter().position(is_not_ready), Some(answers.len() - 2), "{answers:?}");
    assert_eq!(answers.last(), Some(&Ok(())));
    assert_eq!(world.nodes[1].reader.high_watermark, Offset(2));
}

#[test]
fn a_follower_without_space_asks_for_entries_again_when_it_has_some() {
    let mut world = World::of_three(1);
    world.elect(0);
    for follower in 1..3 {
        world.nodes[follower].is_slow = true;
    }
    let batches: Vec<i32> = (0..100).map(|number| 2 * number).collect();
    for sequence in &batches {
        world.send_batch(0, *sequence, RequiredAcks::All);
        // With a follower that asks at once, this would not end.
        world.run_until_quiet();
    }
    for follower in 1..3 {
        world.nodes[follower].is_slow = false;
    }
    world.run_until_quiet();
    for sequence in batches {
        assert_eq!(world.outcome(sequence), Some(&Ok(Offset(i64::from(sequence)))));
    }
    assert_eq!(world.nodes[1].reader.high_watermark, Offset(200));
}

#[test]
fn followers_of_a_leader_that_is_deposed_look_for_another_one_although_its_channels_last() {
    let mut world = World::of_three(1);
    world.elect(0);
    // A replica that was a candidate, and could not be elected.
    let (from, to) = (replica(2), replica(0));
    let message = Message::Rejected { term: LeaderEpoch(2), hint: LogEnd::EMPTY };
    let envelope = Envelope { from, to, message };
    let message = PeerMessage { tp: TP, envelope, attached: Attached::Nothing };
    world.network.entry((2, 0)).or_default().push_back(message);
    world.run_until_quiet();
    for node in 0..3 {
        let partition = world.nodes[node].partition().expect("it runs");
        assert!(partition.consensus.lacks_leader(), "node {node}");
    }
    // Node 0 answers that its term is a later one.
    world.time_out_on(1);
    world.run_until_quiet();
    world.elect(1);
}

#[test]
fn leadership_is_handed_over_and_batches_that_wait_meanwhile_have_an_outcome() {
    let mut world = World::of_three(1);
    world.elect(0);
    world.nodes[1].is_slow = true;
    world.send_batch(0, 0, RequiredAcks::All);
    world.transfer(0, 1).expect("node 1 votes and can be reached");
    world.run_until_quiet();
    world.send_batch(0, 2, RequiredAcks::All);
    world.run_until_quiet();
    assert_eq!((world.outcome(0), world.outcome(2)), (Some(&Ok(Offset(0))), None), "the second one waits");
    world.nodes[1].is_slow = false;
    world.run_until_quiet();
    assert!(world.nodes[1].serves() && !world.nodes[0].serves());
    assert!(matches!(world.outcome(2), Some(Err(ApiError::NotLeader { .. }))), "{:?}", world.outcome(2));
    world.send_batch(1, 2, RequiredAcks::All);
    world.run_until_quiet();
    assert_eq!(world.outcome(2), Some(&Ok(Offset(2))));
}

#[test]
fn a_leader_goes_on_if_the_other_replica_does_not_take_over() {
    let mut world = World::of_three(1);
    world.elect(0);
    assert_eq!(world.transfer(1, 0), Err(ProposeError::NotLeader));
    assert_eq!(world.transfer(0, 7), Err(ProposeError::NotATarget(replica(7))));
    for ends_by in ["time", "a lost channel"] {
        world.nodes[1].is_slow = true;
        world.send_batch(0, 0, RequiredAcks::All);
        world.transfer(0, 1).expect("node 1 votes and can be reached");
        world.send_batch(0, 2, RequiredAcks::All);
        world.run_until_quiet();
        assert_eq!(world.outcome(2), None, "it waits");
        if ends_by == "time" {
            world.end_transfer(0);
        } else {
            world.cut_off(1, true);
        }
        world.run_until_quiet();
        assert_eq!(world.outcome(2), Some(&Ok(Offset(2))), "{ends_by}");
        world = World::of_three(1);
        world.elect(0);
    }
}

#[test]
fn readers_of_a_leader_that_is_deposed_are_ended_with_those_that_wait() {
    let mut world = World::of_three(1);
    world.elect(0);
    let process = world.nodes[0].process.as_mut().expect("it runs");
    let id = process.find(TP).expect("it is there");
    let partition = process.get_mut(id).expect("it is there");
    partition.readers = BTreeSet::from([ReaderId(7)]);
    assert!(partition.wait_for_more(Waiter::Kafka(FetchId(3)), Offset(0)));
    world.run_until_quiet();
    assert!(world.ended.is_empty());
    world.cut_off(0, true);
    assert!(matches!(world.ended[..], [ApiError::NotLeader { leader: None, .. }]), "{:?}", world.ended);
    let partition = world.nodes[0].partition().expect("it runs");
    assert!(partition.readers.is_empty() && partition.waiters.is_empty());
}

#[test]
fn only_acks_of_all_replicas_need_as_many_of_them_as_the_topic_asks_for() {
    let mut world = World::of_three(3);
    world.elect(0);
    world.cut_off(2, true);
    world.send_batch(0, 0, RequiredAcks::All);
    let missing = ApiError::NotEnoughReplicas { partition: "t/0".into(), live: 2, needed: 3 };
    assert_eq!(world.outcome(0), Some(&Err(missing)), "before anything is written");
    world.send_batch(0, 0, RequiredAcks::Leader);
    world.run_until_quiet();
    assert_eq!(world.outcome(0), Some(&Ok(Offset(0))));
}

#[test]
fn a_batch_whose_copies_cannot_be_made_any_more_fails_and_is_recognised_when_it_is_sent_again() {
    let mut world = World::of_three(3);
    world.elect(0);
    world.nodes[2].is_slow = true;
    world.send_batch(0, 0, RequiredAcks::All);
    world.run_until_quiet();
    assert_eq!(world.outcome(0), None, "two of three have it");
    world.cut_off(2, true);
    let missing = ApiError::NotEnoughReplicasAfterAppend { partition: "t/0".into(), live: 2, needed: 3 };
    assert_eq!(world.outcome(0), Some(&Err(missing)));
    world.nodes[2].is_slow = false;
    world.cut_off(2, false);
    world.run_until_quiet();
    world.send_batch(0, 0, RequiredAcks::All);
    assert_eq!(world.outcome(0), Some(&Ok(Offset(0))), "it has all copies by now");
}
