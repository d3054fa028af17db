//! Three nodes of two shards, each with stores on simulated disks, whose replicas of several partitions exchange messages over channels of the
//! simulated network. What happens next is random.
//!
//! Checked in every run: whatever is acknowledged is in the log for good, at its offset and once; the high watermark of a process never falls;
//! all replicas have the same records at the same offsets below their high watermarks; a term has one leader. When everything works again: all
//! replicas have the whole log, every batch is acknowledged, all channels are there, no received frame is held, nobody begins an election, and all nodes
//! know who leads what.

mod cluster;
mod node;

use std::ops::Range;
use std::time::Duration;

use highwater_protocol::ids::NodeId;

use crate::limits::NODE_OFFLINE_AFTER;
use cluster::{Cluster, Totals};

/// Number of random runs, unless `HIGHWATER_SIM_SEEDS` says N or FROM..TO.
const SEEDS: u64 = 20;

fn seeds() -> Range<u64> {
    highwater_runtime::sim::seeds("HIGHWATER_SIM_SEEDS", SEEDS)
}

#[test]
fn replicas_over_channels_keep_what_is_acknowledged_whatever_happens() {
    let mut totals = Totals::default();
    for seed in seeds() {
        println!("seed {seed}: HIGHWATER_SIM_SEEDS={seed}..{}", seed + 1);
        totals.add(&Cluster::run(seed));
    }
    println!("{totals:?}");
    let runs = seeds().end - seeds().start;
    if runs >= SEEDS {
        assert!(totals.acknowledged > 10 * runs && totals.leaders > 4 * runs, "{totals:?}");
        assert!(
            totals.crashes > 0 && totals.blocked > 0 && totals.resets > 0 && totals.changes > 0,
            "{totals:?}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run_over_channels() {
    assert_eq!(format!("{:?}", Cluster::run(3)), format!("{:?}", Cluster::run(3)));
}

#[test]
fn every_partition_finds_its_replicas_whichever_shards_have_them() {
    let mut cluster = Cluster::new(11);
    cluster.converge();
    assert!(cluster.learned() > 0, "some of the guesses were wrong");
}

#[test]
fn a_calm_cluster_begins_no_election_and_sends_heartbeats_only() {
    let mut cluster = Cluster::new(1);
    cluster.converge();
    let (elections, sent) = (cluster.elections(), cluster.sent_bytes());
    let time = Duration::from_secs(20);
    cluster.run_for(time);
    assert_eq!(cluster.elections(), elections);
    let heartbeats = cluster.channels() as u64 * (time.as_millis() / 100) as u64;
    let bytes = cluster.sent_bytes() - sent;
    assert!(bytes <= heartbeats * 16 * 11 / 10, "{bytes} bytes for {heartbeats} heartbeats");
}

#[test]
fn a_leader_that_dies_is_replaced_and_its_partitions_go_on() {
    let mut cluster = Cluster::new(2);
    cluster.converge();
    let leader = cluster.leader(0).expect("it has converged");
    cluster.kill(leader);
    let acknowledged = cluster.acknowledged(0);
    let took = cluster.produce_until(0, |cluster| cluster.acknowledged(0) > acknowledged);
    // One second, in the terms of the simulation.
    assert!(took <= Duration::from_secs(1), "{took:?}");
    let next = cluster.leader(0).expect("it has gone on");
    cluster.run_for(NODE_OFFLINE_AFTER);
    for node in (0..node::NODES).filter(|node| *node != leader) {
        let leaders = cluster.known_leaders(node).expect("it runs");
        let led = leaders.get(node::tp(0)).expect("it is known");
        assert_eq!(led.leader.map(|place| place.node.0 as usize), Some(next), "on node {node}");
        assert_eq!(led.in_sync.len(), node::NODES - 1);
        assert!(leaders.is_offline(NodeId(leader as u32)) && !leaders.is_offline(NodeId(next as u32)));
    }
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::cluster::Cluster;
    use crate::mutants::{Mutant, assert_found};

    /// Maximum number of seeds before a bug has to be found.
    const SEEDS_MAX: u64 = 20;

    fn is_found(mutant: Mutant) {
        assert_found(mutant, SEEDS_MAX, Cluster::run);
    }

    #[test]
    fn an_election_while_the_lease_lasts_is_found() {
        is_found(Mutant::ElectionWhileLeaseLasts);
    }

    #[test]
    fn a_lease_that_outlives_its_session_is_found() {
        is_found(Mutant::LeaseOutlivesSession);
    }

    #[test]
    fn an_acknowledgement_that_is_credited_to_another_partition_is_found() {
        is_found(Mutant::AckOfAnotherPartition);
    }

    #[test]
    fn a_message_to_the_wrong_shard_that_is_not_refused_is_found() {
        is_found(Mutant::WrongShardNotRefused);
    }

    #[test]
    fn credit_that_is_never_released_is_found() {
        is_found(Mutant::CreditNeverReleased);
    }
}
