//! Coordinators on three nodes that fail over with their partition: each node has a replica of one partition of groups, on a simulated disk of its own.
//!
//! Checked in every run: an offset that was committed and acknowledged is never followed by an earlier one, whichever node answers; members of a group go on in
//! their generation. When everything works again, every request is answered.

mod clients;
mod cluster;

use highwater_protocol::ids::PartitionIndex;
use highwater_runtime::sim::{CrashPolicy, seeds};

use clients::Client;
use cluster::Cluster;

use crate::api::{ApiError, RequiredAcks};
use crate::coord::groups::GroupReply;

/// The partition of all groups.
const PARTITION: PartitionIndex = PartitionIndex(0);
/// Number of random runs, unless `HIGHWATER_SIM_SEEDS` says N or FROM..TO.
const SEEDS: u64 = 20;

#[test]
fn offsets_never_go_back_and_members_stay_whoever_coordinates_their_groups() {
    let (mut moves, mut commits) = (0, 0);
    let seeds = seeds("HIGHWATER_SIM_SEEDS", SEEDS);
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        println!("seed {seed}: HIGHWATER_SIM_SEEDS={seed}..{}", seed + 1);
        let totals = clients::run(seed);
        moves += totals.moves;
        commits += totals.commits;
    }
    println!("{moves} moves of the coordinator, {commits} commits");
    assert!(moves >= 3 * runs && commits >= 20 * runs);
}

/// Three nodes of which node 0 coordinates a group, whose only member is in generation 1 and has committed offset 5.
fn with_a_member() -> (Cluster, Client) {
    let mut cluster = Cluster::new(4);
    cluster.elect(0);
    let mut client = Client::new("g");
    client.join(&mut cluster, 0);
    assert_eq!(client.commit(&mut cluster, 0, 5), Ok(()));
    (cluster, client)
}

#[test]
fn a_coordinator_that_is_killed_is_replaced_and_members_go_on_in_their_generation() {
    let (mut cluster, client) = with_a_member();
    let elsewhere = Err(ApiError::NotCoordinator(PARTITION));
    assert_eq!(client.heartbeat(&mut cluster, 1), elsewhere);
    cluster.crash(0, CrashPolicy::LOSE_ALL);
    cluster.elect(1);
    assert_eq!(client.heartbeat(&mut cluster, 1), Ok(()));
    assert_eq!(client.fetch(&mut cluster, 1), Ok(Some(5)));
    assert_eq!(client.commit(&mut cluster, 1, 6), Ok(()));
    assert_eq!(client.heartbeat(&mut cluster, 2), elsewhere);
}

#[test]
fn a_coordinator_that_gets_its_partition_back_knows_what_was_committed_meanwhile() {
    let (mut cluster, client) = with_a_member();
    for (node, offset) in [(1, 6), (0, 7), (2, 8), (0, 9)] {
        cluster.elect_instead(node);
        assert_eq!(client.fetch(&mut cluster, node), Ok(Some(offset - 1)), "node {node}");
        assert_eq!(client.heartbeat(&mut cluster, node), Ok(()), "node {node}");
        assert_eq!(client.commit(&mut cluster, node, offset), Ok(()), "node {node}");
    }
}

#[test]
fn requests_are_rejected_with_load_in_progress_until_the_groups_have_been_read() {
    let (mut cluster, client) = with_a_member();
    // The log has to be read from disk.
    for offset in 6..60 {
        assert_eq!(client.commit(&mut cluster, 0, offset), Ok(()));
    }
    cluster.restart(1);
    cluster.cut_off(0, true);
    cluster.world.time_out_on(1);
    let mut seen = Vec::new();
    while cluster.step_once() {
        let answer = client.heartbeat(&mut cluster, 1);
        if seen.last() != Some(&answer) {
            seen.push(answer);
        }
    }
    let (other, loading) = (ApiError::NotCoordinator(PARTITION), ApiError::LoadingGroups(PARTITION));
    assert_eq!(seen, [Err(other), Err(loading), Ok(())]);
    assert_eq!(client.fetch(&mut cluster, 1), Ok(Some(59)));
}

#[test]
fn requests_that_wait_fail_at_once_when_another_node_coordinates_and_what_they_did_is_forgotten() {
    let (mut cluster, client) = with_a_member();
    // The only one to which the coordinator can write is itself.
    cluster.world.nodes[1].is_slow = true;
    cluster.world.nodes[2].is_slow = true;
    let joins = cluster.send(0, Client::new("other").join_request());
    let commits = cluster.send(0, client.commit_request(1, 77));
    cluster.run_until_quiet();
    assert_eq!((cluster.reply(joins), cluster.reply(commits)), (None, None));
    for node in 1..3 {
        // What it has received is not on its disk.
        cluster.crash(node, CrashPolicy::LOSE_ALL);
        cluster.world.nodes[node].is_slow = false;
    }
    for call in [joins, commits] {
        assert_eq!(cluster.reply(call), Some(Err(ApiError::NotCoordinator(PARTITION))));
    }
    cluster.start(1);
    cluster.start(2);
    cluster.elect(1);
    cluster.elect_instead(0);
    assert_eq!(client.fetch(&mut cluster, 0), Ok(Some(5)));
    let fetched = cluster.call(0, client.fetch_request());
    let Some(Ok(GroupReply::Fetch(replies))) = fetched else { panic!("{fetched:?}") };
    assert_eq!(replies[0].offsets.len(), 1, "the other partition's offset was not committed: {replies:?}");
    assert_eq!(cluster.groups_on(0), 1, "nor was the other group");
}

#[test]
fn a_coordinator_whose_partition_others_write_to_stays_within_its_memory() {
    let (mut cluster, client) = with_a_member();
    // Batches that are not of groups are skipped.
    cluster.world.send_batch(0, 0, RequiredAcks::All);
    cluster.run_until_quiet();
    let before = cluster.usage_on(0);
    for node in [1, 0, 1, 0] {
        cluster.elect_instead(node);
        assert_eq!(client.heartbeat(&mut cluster, node), Ok(()));
    }
    assert_eq!(cluster.usage_on(0), before, "nothing is counted twice");
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::clients;
    use crate::mutants::{Mutant, assert_found};

    #[test]
    fn groups_that_are_not_read_when_their_partition_returns_are_found() {
        assert_found(Mutant::ReturningGroupsNotRead, 20, clients::run);
    }

    #[test]
    fn groups_that_are_not_forgotten_when_they_are_elsewhere_are_found() {
        let run = |_| super::a_coordinator_whose_partition_others_write_to_stays_within_its_memory();
        assert_found(Mutant::GroupsKeptWhileElsewhere, 1, run);
    }
}
