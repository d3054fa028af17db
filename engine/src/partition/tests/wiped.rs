//! A node whose disk was wiped: it has forgotten its votes and what it acknowledged, and is another replica.

use highwater_protocol::ids::Offset;
use highwater_replication::raft::Config;
use highwater_runtime::sim::CrashPolicy;

use super::node::replica;
use super::world::World;
use crate::api::{ApiError, RequiredAcks};

/// Node 0 leads, a batch is acknowledged, and node 2 has come back with an empty disk.
fn with_a_wiped_node() -> World {
    with_a_wiped_node_of(1)
}

/// The same, with this `min.insync.replicas`.
fn with_a_wiped_node_of(min_insync: usize) -> World {
    let mut world = World::of_three(min_insync);
    world.elect(0);
    world.send_batch(0, 0, RequiredAcks::All);
    world.run_until_quiet();
    world.crash_with(2, CrashPolicy::LOSE_ALL);
    world.nodes[2].wipe();
    world.start(2);
    world.run_until_quiet();
    world
}

#[test]
fn a_wiped_node_neither_votes_nor_acknowledges_under_its_old_identity() {
    let mut world = with_a_wiped_node();
    assert_eq!(
        world.nodes[2].reader.high_watermark,
        Offset(0),
        "nothing is sent to another replica than that of before"
    );
    // Of the three, node 0 alone is left.
    world.crash_with(1, CrashPolicy::KEEP_ALL);
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
    let mut world = with_a_wiped_node_of(3);
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
fn a_wiped_node_joins_as_a_learner_under_a_new_identity_and_becomes_a_voter() {
    let mut world = with_a_wiped_node();
    let new = world.nodes[2].id();
    let joins = Config::new([replica(0), replica(1)], [new]).expect("valid");
    world.change_to(&joins);
    world.run_until_quiet();
    assert_eq!(world.nodes[2].reader.high_watermark, Offset(2), "it has what was acknowledged before");
    let votes = Config::new([replica(0), replica(1), new], []).expect("valid");
    world.change_to(&votes);
    world.run_until_quiet();
    assert_eq!(world.nodes[0].replica().expect("it runs").config(), &votes);

    // Its vote counts from now on.
    world.crash_with(0, CrashPolicy::LOSE_ALL);
    world.elect(2);
    world.send_batch(2, 2, RequiredAcks::All);
    world.run_until_quiet();
    assert_eq!(world.outcome(2), Some(&Ok(Offset(2))));
}
