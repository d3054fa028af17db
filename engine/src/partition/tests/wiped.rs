//! A node whose disk was wiped: it has forgotten its votes and what it acknowledged, and is another replica.

use highwater_protocol::ids::Offset;
use highwater_replication::raft::Config;
use highwater_runtime::sim::CrashPolicy;

use super::node::replica;
use super::world::{World, voters};
use crate::api::{ApiError, RequiredAcks};

/// Node 0 leads, a batch is acknowledged, and the disk of node 2 has been replaced while it was down.
fn with_a_replaced_disk(min_insync: usize) -> World {
    let mut world = World::of_three(min_insync);
    world.elect(0);
    world.send_batch(0, 0, RequiredAcks::All);
    world.run_until_quiet();
    world.crash_with(2, CrashPolicy::LOSE_ALL);
    world.nodes[2].wipe();
    world
}

#[test]
fn a_wiped_node_neither_votes_nor_acknowledges_under_its_old_identity() {
    let mut world = with_a_replaced_disk(1);
    // Of the three, node 0 alone is left.
    world.crash_with(1, CrashPolicy::KEEP_ALL);
    world.start(2);
    world.run_until_quiet();
    assert_eq!(world.nodes[2].reader.high_watermark, Offset(0), "nothing is sent to it as to the one before");
    world.restart(0);
    world.run_until_quiet();
    for node in [0, 2] {
        world.time_out_on(node);
        world.run_until_quiet();
        assert!(!world.nodes[node].serves(), "node {node} has one vote of two that it needs");
    }
    world.send_batch(2, 2, RequiredAcks::All);
    let refused = world.outcome(2);
    assert!(matches!(refused, Some(Err(ApiError::NotLeader { .. }))), "{refused:?}");
}

#[test]
fn a_wiped_node_is_not_counted_as_the_replica_that_it_had() {
    let mut world = with_a_replaced_disk(3);
    // It does not catch up.
    world.nodes[2].is_slow = true;
    world.start(2);
    world.run_until_quiet();
    world.send_batch(0, 2, RequiredAcks::All);
    let missing = ApiError::NotEnoughReplicas { partition: "t/0".into(), live: 2, needed: 3 };
    assert_eq!(world.outcome(2), Some(&Err(missing.clone())), "it waits for no copy that nobody makes");
    // Nor does a leader count it that has never reached the old one.
    world.elect_in_place_of(0, 1);
    world.send_batch(1, 2, RequiredAcks::All);
    assert_eq!(world.outcome(2), Some(&Err(missing)));
    // Without node 0, the leader has no majority: node 2 is none of the three.
    world.cut_off(0, true);
    assert!(!world.nodes[1].serves());
}

#[test]
fn a_wiped_node_comes_back_as_a_learner_under_a_new_identity_and_becomes_a_voter() {
    let mut world = with_a_replaced_disk(1);
    world.start(2);
    world.run_until_quiet();
    let new = world.nodes[2].id();
    let votes = Config::new([replica(0), replica(1), new], []).expect("valid");
    assert_eq!(world.nodes[0].replica().expect("it runs").config(), &votes);
    assert_eq!(world.nodes[2].reader.high_watermark, Offset(2), "it has what was acknowledged before");

    // Its vote counts from now on.
    world.crash_with(0, CrashPolicy::LOSE_ALL);
    world.elect(2);
    world.send_batch(2, 2, RequiredAcks::All);
    world.run_until_quiet();
    assert_eq!(world.outcome(2), Some(&Ok(Offset(2))));
}

#[test]
fn replicas_are_replaced_step_by_step_and_the_leader_says_when_it_is_done() {
    let mut world = World::new(0, &voters(0..1), 1);
    world.time_out_on(0);
    world.run_until_quiet();
    world.send_batch(0, 0, RequiredAcks::All);
    world.run_until_quiet();
    world.set_members(0, &[replica(1), replica(2)]);
    assert_eq!(world.outcome(0), Some(&Ok(Offset(0))));
    world.run_until_quiet();
    let leader = (1..3).find(|node| world.nodes[*node].serves()).expect("one of the new ones leads");
    let config = Config::new([replica(1), replica(2)], []).expect("valid");
    assert_eq!(world.nodes[leader].replica().expect("it runs").config(), &config);
    world.send_batch(leader, 2, RequiredAcks::All);
    world.run_until_quiet();
    assert_eq!(world.outcome(2), Some(&Ok(Offset(2))));
    // Each leader says so, because the one before may not have had the time.
    assert!(!world.has_said_members_changed());
    world.set_members(leader, &[replica(1), replica(2)]);
    assert!(world.has_said_members_changed());
}

#[test]
fn a_change_of_replicas_goes_on_with_the_next_leader() {
    let mut world = World::of_three(1);
    world.elect(0);
    world.change_to(&Config::new([replica(0), replica(1)], []).expect("valid"));
    world.run_until_quiet();
    world.nodes[2].is_slow = true;
    world.set_members(0, &[replica(0), replica(1), replica(2)]);
    world.run_until_quiet();
    let learning = Config::new([replica(0), replica(1)], [replica(2)]).expect("valid");
    assert_eq!(world.nodes[0].replica().expect("it runs").config(), &learning);
    world.crash_with(0, CrashPolicy::LOSE_ALL);
    world.start(0);
    world.elect(1);
    world.nodes[2].is_slow = false;
    world.run_until_quiet();
    assert_eq!(world.nodes[1].replica().expect("it runs").config(), &world.all_voters());
}
