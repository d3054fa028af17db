//! Three brokers whose nodes are killed, lose their power and are cut off at random while topics are created: all have the same metadata when that ends, and
//! nothing that was acknowledged is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use highwater_runtime::sim::CrashPolicy;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::cluster::{Cluster, NODES, new_topic};
use crate::wire::Wire;

/// Steps of a run.
const STEPS: usize = 40;
/// Seeds of an ordinary test run.
const SEEDS: u64 = 12;

/// What has happened in a run.
#[derive(Default, Debug)]
struct Totals {
    acknowledged: usize,
    outages: usize,
}

/// Creates topics while nodes are killed, lose their power and are cut off at random. Then all nodes have the same metadata, with everything that was
/// acknowledged.
fn run_at_random(seed: u64, totals: &mut Totals) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(seed);
    cluster.agreed(&[0, 1, 2]);
    let mut acknowledged = BTreeSet::new();
    let mut pending: Vec<(String, Wire)> = Vec::new();
    let mut is_running = [true; NODES as usize];
    for step in 0..STEPS {
        let number = rng.random_range(0..NODES as usize);
        let node = cluster.nodes[number];
        match rng.random_range(0..10) {
            0..5 if is_running[number] => {
                let name = format!("topic-{step}");
                let address = cluster.address(number);
                let mut wire = Wire::connect(&mut cluster.world, address, None);
                wire.send(&new_topic(&name, rng.random_range(1..4)));
                pending.push((name, wire));
            }
            5 if is_running[number] => {
                let policy = [CrashPolicy::LOSE_ALL, CrashPolicy::TEAR_ALL, CrashPolicy::KEEP_ALL];
                cluster.world.crash(node, policy[rng.random_range(0..policy.len())]);
                is_running[number] = false;
                totals.outages += 1;
            }
            6..8 if !is_running[number] => {
                cluster.world.start(node).expect("it starts again");
                is_running[number] = true;
            }
            8 => {
                cluster.world.isolate(node);
                totals.outages += 1;
            }
            9 => cluster.world.rejoin(node),
            _ => {}
        }
        cluster.world.run_for(Duration::from_millis(rng.random_range(0..400)));
        pending.retain_mut(|(name, wire)| {
            wire.receive(usize::MAX);
            let Some(answer) = wire.pop() else { return !wire.is_over() };
            match answer.body {
                Ok(_) => {
                    acknowledged.insert(name.clone());
                }
                // As many replicas are asked for as there are nodes, and some of them may be known to be out of reach.
                Err((code, text)) => {
                    assert!(code.is_retryable() || text.contains("can be reached"), "{code:?}: {text}");
                }
            }
            false
        });
    }
    for (node, is_running) in cluster.nodes.clone().into_iter().zip(is_running) {
        cluster.world.rejoin(node);
        if !is_running {
            cluster.world.start(node).expect("it starts again");
        }
    }
    let topics: BTreeSet<String> = cluster.agreed(&[0, 1, 2]).into_iter().map(|(name, ..)| name).collect();
    let lost: Vec<_> = acknowledged.difference(&topics).collect();
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are not among {topics:?}");
    totals.acknowledged += acknowledged.len();
}

#[test]
fn whatever_happens_to_nodes_they_have_the_same_metadata_when_it_ends_and_nothing_acknowledged_is_lost() {
    let mut totals = Totals::default();
    for seed in highwater_runtime::sim::seeds("HIGHWATER_SIM_SEEDS", SEEDS) {
        println!("seed {seed}: HIGHWATER_SIM_SEEDS={seed}..{}", seed + 1);
        run_at_random(seed, &mut totals);
    }
    println!("{totals:?}");
    assert!(totals.acknowledged > 0 && totals.outages > 0, "{totals:?}");
}
