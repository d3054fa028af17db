//! Clients that send batches, close their connections and reconnect: batches that wait for the disk are charged to the memory for requests, whether
//! or not a client waits for their outcome.

use std::time::Duration;

use highwater_engine::limits::ShardLimits;
use highwater_runtime::sim::{Latency, SimNode};

use crate::kafka::wire::Wire;
use crate::node::{SHARDS, TICK, World, batch_of, slow_rounds, world};
use crate::run::create;

const BATCH_BYTES: usize = 12_000;

/// Number of batches per connection.
const BATCHES: usize = 8;

/// Number of successive connections. Together they send many times the memory for requests.
const CONNECTIONS: usize = 60;

/// Bytes of memory for requests on each shard.
fn memory(world: &World, node: SimNode) -> Vec<usize> {
    let app = |shard| world.app(node, shard).expect("it runs");
    (0..SHARDS).for_each(|shard| app(shard).assert_memory_adds_up());
    (0..SHARDS).map(|shard| app(shard).memory_bytes()).collect()
}

fn run(seed: u64) {
    let (mut world, node) = world(seed);
    world.start(node).expect("a first start");
    let native = world.address(node, 0);
    create(&mut world, native, u32::from(SHARDS));
    slow_rounds(&world, node, Duration::from_secs(30)..=Duration::from_secs(30));
    let records = batch_of(BATCH_BYTES);
    let max = ShardLimits::tiny().request_bytes_max + BATCHES * records.len() + (16 << 10);
    for number in 0..CONNECTIONS {
        let address = world.address(node, 1);
        let mut wire = Wire::connect(&mut world, address);
        for _ in 0..BATCHES {
            let acks = if number % 3 == 0 { 0 } else { -1 };
            wire.produce("main", (number % 2) as i32, acks, &records);
        }
        for _ in 0..10 {
            world.run_for(TICK);
            let memory = memory(&world, node);
            assert!(memory.iter().all(|bytes| *bytes <= max), "seed {seed}: {memory:?}, at most {max}");
        }
        wire.close();
        world.run_for(4 * TICK);
    }
    // No client is connected. Both shards have used their memory for requests, and handle no others.
    let held = memory(&world, node);
    let least = ShardLimits::tiny().request_bytes_max;
    assert!(
        held.iter().all(|bytes| *bytes >= least),
        "seed {seed}: {held:?} bytes count, of at least {least}"
    );
    world.disk(node).set_latency(Latency::default());
    world.run_for(Duration::from_mins(2));
    assert_eq!(memory(&world, node), [0, 0], "seed {seed}: all of it was appended");
}

#[test]
fn batches_of_closed_connections_count_until_they_are_appended() {
    for seed in 0..4 {
        println!("seed {seed}");
        run(seed);
    }
}
