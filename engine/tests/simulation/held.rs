//! The state of a native request is charged to the memory for requests until the request is answered.

use std::ops::RangeInclusive;
use std::time::Duration;

use highwater_engine::limits::{HELD_BYTES_PER_BYTE, ShardLimits};
use highwater_protocol::ids::{Offset, PartitionIndex};
use highwater_protocol::native::{Acks, CommitOffsetsRequest, CommittedOffset, produce_head};
use highwater_runtime::sim::{Latency, SimNode};

use crate::node::{TICK, World, batch_of, slow_rounds, takes_large_batches, world};
use crate::run::create;
use crate::wire::Wire;

/// Maximum memory of an idle connection.
const IDLE_BYTES_MAX: usize = 1024;

fn memory(world: &World, node: SimNode, shard: u16) -> usize {
    world.app(node, shard).expect("it runs").memory_bytes()
}

/// Duration of a commit round.
const ROUND: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(30);

#[test]
fn the_names_and_lists_of_a_request_are_charged_several_times_their_size() {
    let (mut world, node) = world(1);
    world.start(node).expect("a first start");
    let native = world.address(node, 0);
    let (topic, partitions) = create(&mut world, native, 1);
    let shard = partitions[0].1;
    let mut wire = Wire::connect(&mut world, native, Some(shard));
    slow_rounds(&world, node, ROUND);
    let position = |offset| CommittedOffset {
        partition: PartitionIndex(0),
        offset: Offset(offset),
        leader_epoch: -1,
        metadata: "kept".to_owned(),
    };
    let positions: Vec<_> = (0..500).map(position).collect();
    let bytes_min = positions.len() * 24;
    wire.send(&CommitOffsetsRequest { consumer: "reader".into(), topic, positions });
    world.run_for(4 * TICK);
    let held = memory(&world, node, shard);
    assert!(held >= HELD_BYTES_PER_BYTE * bytes_min, "{held} bytes for a request of more than {bytes_min}");
    world.disk(node).set_latency(Latency::default());
    wire.wait(&mut world).expect("an answer").body.expect("they are kept");
    assert!(memory(&world, node, shard) <= IDLE_BYTES_MAX);
}

#[test]
fn a_batch_without_a_reply_counts_while_it_waits_for_space() {
    // Large batches are received into pages of their own, which the connection no longer holds after it has passed them on.
    assert!(takes_large_batches(2));
    for (seed, bytes) in [(1, 12_000), (2, 70_000)] {
        check_batches_without_replies(seed, bytes);
    }
}

fn check_batches_without_replies(seed: u64, bytes: usize) {
    let (mut world, node) = world(seed);
    world.start(node).expect("a first start");
    let native = world.address(node, 0);
    let (_, partitions) = create(&mut world, native, 1);
    let (to, shard) = partitions[0];
    slow_rounds(&world, node, ROUND);
    let records = batch_of(bytes);
    let mut wires = Vec::new();
    for _ in 0..16 {
        let mut wire = Wire::connect(&mut world, native, Some(shard));
        world.run_for(2 * TICK);
        wire.send_with_id(|id| [&produce_head(id, to, Acks::None, records.len())[..], &records].concat());
        world.run_for(4 * TICK);
        wires.push(wire);
    }
    // A partition lets eight of them wait for the disk, unless the memory for requests is used up before.
    let held = memory(&world, node, shard);
    let idle = wires.len() * IDLE_BYTES_MAX;
    // Large ones may use half of that memory, but for the last one.
    let count = 4.min(ShardLimits::tiny().request_bytes_max / 2 / records.len() + 1);
    let batches = count * records.len();
    assert!(batches > idle, "{batches} bytes of batches, and {idle} of idle connections");
    assert!(held >= batches, "{held} bytes for {count} batches of {} each", records.len());
    world.disk(node).set_latency(Latency::default());
    world.run_for(Duration::from_mins(2));
    assert!(wires.iter().all(|wire| !wire.is_over()), "all of them were taken");
    assert!(memory(&world, node, shard) <= idle);
}
