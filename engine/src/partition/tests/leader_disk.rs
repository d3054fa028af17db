//! Entries that leave before the leader's own disk has them.

use highwater_protocol::ids::Offset;
use highwater_runtime::sim::CrashPolicy;

use super::world::World;
use crate::api::{ApiError, RequiredAcks};

/// Node 0 leads, and a batch is acknowledged that its disk does not have. There is one, because the write under way has the last page of the
/// log: what comes later waits for it.
fn acknowledged_without_the_leaders_disk() -> World {
    let mut world = World::of_three(1);
    world.elect(0);
    world.nodes[0].is_slow = true;
    world.send_batch(0, 0, RequiredAcks::All);
    world.run_until_quiet();
    assert_eq!(world.outcome(0), Some(&Ok(Offset(0))), "two of three have it");
    assert_eq!(world.nodes[0].partition().expect("it runs").consensus.durable_end(), Offset(0));
    world
}

#[test]
fn a_batch_is_acknowledged_before_the_leaders_disk_has_it_and_read_there_afterwards() {
    let mut world = acknowledged_without_the_leaders_disk();
    assert_eq!(world.nodes[0].reader.high_watermark, Offset(0));
    for follower in 1..3 {
        assert_eq!(world.nodes[follower].reader.high_watermark, Offset(2), "its disk has it");
    }
    world.send_batch(0, 2, RequiredAcks::Leader);
    world.run_until_quiet();
    assert_eq!(world.outcome(2), None, "it asks for the leader's disk");
    world.nodes[0].is_slow = false;
    world.run_until_quiet();
    assert_eq!(world.outcome(2), Some(&Ok(Offset(2))));
    assert_eq!(world.nodes[0].reader.high_watermark, Offset(4));
}

#[test]
fn a_leader_whose_disk_stands_still_hands_over_and_one_whose_disk_goes_on_does_not() {
    let mut world = acknowledged_without_the_leaders_disk();
    world.send_batch(0, 2, RequiredAcks::All);
    world.run_until_quiet();
    assert_eq!(world.outcome(2), None, "it is in no round of the disk yet, and others do not have it");
    let seen = world.lagging(0).expect("its disk lacks what is committed");
    world.check_lag(0, seen);
    assert!(matches!(world.outcome(2), Some(Err(ApiError::NotLeader { .. }))), "{:?}", world.outcome(2));
    world.run_until_quiet();
    let leader = (1..3).find(|node| world.nodes[*node].serves()).expect("one of the others leads");
    for sequence in [2, 4, 6] {
        world.send_batch(leader, sequence, RequiredAcks::All);
        world.run_until_quiet();
        let expected = Ok(Offset(i64::from(sequence)));
        assert_eq!(world.outcome(sequence), Some(&expected), "the disk of node 0 still stands still");
    }
    world.nodes[0].is_slow = false;
    world.run_until_quiet();
    assert_eq!(world.nodes[0].reader.high_watermark, Offset(8));

    let mut world = acknowledged_without_the_leaders_disk();
    let seen = world.lagging(0).expect("its disk lacks what is committed");
    world.nodes[0].is_slow = false;
    world.run_until_quiet();
    world.check_lag(0, seen);
    assert!(world.nodes[0].serves());
}

#[test]
fn a_leader_that_crashes_without_what_it_has_sent_gets_it_back_from_the_next_one() {
    for policy in [CrashPolicy::LOSE_ALL, CrashPolicy::KEEP_ALL, CrashPolicy::TEAR_ALL, CrashPolicy::MIXED] {
        let mut world = acknowledged_without_the_leaders_disk();
        world.crash_with(0, policy);
        world.elect(1);
        assert_eq!(
            world.nodes[1].reader.high_watermark,
            Offset(2),
            "it has everything that was acknowledged"
        );
        world.send_batch(1, 2, RequiredAcks::All);
        world.run_until_quiet();
        assert_eq!(world.outcome(2), Some(&Ok(Offset(2))));
        world.nodes[0].is_slow = false;
        world.start(0);
        world.run_until_quiet();
        // Every record that a node can read was compared with those that others could.
        assert_eq!(
            (world.nodes[0].reader.high_watermark, world.nodes[0].reader.read_end),
            (Offset(4), Offset(4))
        );
    }
}

#[test]
fn what_only_the_crashed_leader_had_is_replaced_by_the_next_one() {
    let mut world = World::of_three(1);
    world.elect(0);
    world.cut_off(0, true);
    assert!(!world.nodes[0].serves(), "it does not reach a majority");
    world.cut_off(0, false);
    world.elect(0);
    world.nodes[1].is_slow = true;
    world.nodes[2].is_slow = true;
    world.send_batch(0, 0, RequiredAcks::All);
    // Its disk has the batch, and those of the others lose it.
    world.run_until_quiet();
    assert_eq!(world.outcome(0), None, "one of three has it");
    for node in 0..3 {
        world.crash_with(node, CrashPolicy::LOSE_ALL);
        world.nodes[node].is_slow = false;
    }
    world.start(1);
    world.start(2);
    world.elect(1);
    world.send_batch(1, 2, RequiredAcks::All);
    world.run_until_quiet();
    assert_eq!(world.outcome(2), Some(&Ok(Offset(0))), "in the place of the other one");
    world.start(0);
    world.run_until_quiet();
    assert_eq!(
        (world.nodes[0].reader.high_watermark, world.nodes[0].reader.read_end),
        (Offset(2), Offset(2))
    );
}
