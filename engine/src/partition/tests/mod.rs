//! Three nodes, each with a store on a simulated disk, whose replicas of one partition exchange messages directly. What happens next is random.
//!
//! Checked in every run: whatever is acknowledged is in the log for good, at its offset and once; the high watermark of a process never falls;
//! all replicas have the same records at the same offsets below their high watermarks; a term has one leader; and when everything works again,
//! all replicas have the whole log, every batch is acknowledged, and no request is left without an outcome.

mod healing;
mod helpers;
mod leader_disk;
mod leading;
pub(crate) mod node;
pub(crate) mod reader;
mod script;
mod wiped;
pub(crate) mod world;

use std::ops::Range;

use highwater_protocol::ids::Offset;

use world::World;

/// Number of random runs, unless `HIGHWATER_SIM_SEEDS` says N or FROM..TO.
const SEEDS: u64 = 30;

fn seeds() -> Range<u64> {
    highwater_runtime::sim::seeds("HIGHWATER_SIM_SEEDS", SEEDS)
}

#[test]
fn replicas_on_three_disks_keep_what_is_acknowledged_whatever_happens() {
    let mut totals = world::Totals::default();
    for seed in seeds() {
        println!("seed {seed}: HIGHWATER_SIM_SEEDS={seed}..{}", seed + 1);
        totals.add(&World::run(seed));
    }
    println!("{totals:?}");
    let runs = seeds().end - seeds().start;
    assert!(totals.leaders >= runs && totals.acknowledged >= runs, "{totals:?}");
    if runs >= SEEDS {
        assert!(totals.acknowledged > 10 * runs, "{totals:?}");
        assert!(totals.rejections > 0 && totals.restarts_of_logs > 0 && totals.refused > 0, "{totals:?}");
        assert!(totals.changes > 0 && totals.crashes > 0 && totals.wipes > 0, "{totals:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_of_three_nodes() {
    assert_eq!(format!("{:?}", World::run(7)), format!("{:?}", World::run(7)));
}

#[test]
fn a_partition_with_one_replica_needs_no_election_and_no_write_to_start() {
    let mut world = World::alone();
    assert!(world.nodes[0].serves(), "before anything is written");
    world.produce_until_acknowledged(0, 5);
    world.restart(0);
    assert!(world.nodes[0].serves(), "at once after a start");
    assert_eq!(world.nodes[0].reader.high_watermark, Offset(10));
    assert_eq!(world.nodes[0].replica().expect("it runs").term().0, 0, "in the same term");
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::world::World;
    use crate::mutants::{Mutant, assert_found};

    /// Maximum number of seeds before a bug has to be found.
    const SEEDS_MAX: u64 = 300;

    fn is_found(mutant: Mutant) {
        assert_found(mutant, SEEDS_MAX, World::run);
    }

    #[test]
    fn acknowledging_before_a_majority_has_a_batch_is_found() {
        is_found(Mutant::AckBeforeDurable);
    }

    #[test]
    fn a_deposed_leader_that_acknowledges_is_found() {
        is_found(Mutant::DeposedLeaderAcknowledges);
    }

    #[test]
    fn a_high_watermark_that_falls_on_a_replica_is_found() {
        is_found(Mutant::HighWatermarkFalls);
    }

    #[test]
    fn a_replica_that_answers_without_leading_is_found() {
        is_found(Mutant::FollowerAnswers);
    }

    #[test]
    fn records_that_are_read_before_they_are_on_the_replicas_disk_are_found() {
        is_found(Mutant::ReadableBeforeDurable);
    }

    #[test]
    fn records_that_are_read_before_they_are_committed_are_found() {
        is_found(Mutant::UncommittedIsReadable);
    }
}
