//! The whole engine in the simulated world: one node with two shards that crashes, stops and starts again, and native and Kafka clients,
//! including members of groups, that record every response and compare. One seed determines everything.
//!
//! `HIGHWATER_SIM_SEEDS=2000 cargo test -p highwater-engine --test simulation` runs 2,000 seeds, `HIGHWATER_SIM_SEEDS=7..8` runs seed 7
//! only. A failure reports its seed.

mod admin;
mod bounds;
mod carry_over;
mod closed;
mod cluster;
mod compaction;
mod consumer;
mod crowd;
mod damaged_end;
mod decoders;
mod fan_out;
mod faults;
mod full_disk;
mod groups;
mod held;
mod joining;
mod kafka;
#[path = "../common/kafka.rs"]
mod kafka_wire;
mod lane;
mod large_answers;
mod large_replies;
mod large_requests;
mod leaders;
mod member;
mod memory;
#[cfg(feature = "mutants")]
mod mutants;
mod node;
mod parked;
mod peers;
mod producer;
mod published;
mod random_cluster;
mod rejected;
mod reported;
mod run;
mod seen;
#[path = "../common/sim_node.rs"]
mod sim_node;
mod wire;

use std::ops::Range;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 60;

fn seeds() -> Range<u64> {
    highwater_runtime::sim::seeds("HIGHWATER_SIM_SEEDS", SEEDS)
}

#[test]
fn acknowledged_records_survive_crashes_exactly_once_and_in_order() {
    let mut total = run::Totals::default();
    for seed in seeds() {
        // Printed by the test harness only when the run fails.
        println!("seed {seed}: HIGHWATER_SIM_SEEDS={seed}..{}", seed + 1);
        total += run::run(seed).totals;
    }
    println!("{total:?}");
    if seeds().end - seeds().start < SEEDS {
        // A single run need not meet everything.
        return;
    }
    assert!(total.acknowledged > 0 && total.crashes > 0 && total.consumed > 0, "{total:?}");
    assert!(total.handovers > 0 && total.assignments > 0 && total.full_disks > 0, "{total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 41] {
        let (first, second) = (run::run(seed), run::run(seed));
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}
