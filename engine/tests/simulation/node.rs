//! The node under test.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use highwater_engine::groups::GroupConfig;
use highwater_engine::limits::ShardLimits;
use highwater_engine::shard::Shard;
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::Timestamp;
use highwater_runtime::sim::{Latency, NodeConfig, SimNode, SimWorld, WorldConfig};
use highwater_storage::{DurableForm, StoreLimits};

use crate::sim_node::{self, NodeSetup};

pub(crate) const SHARDS: u16 = 2;

/// Interval at which clients run.
pub(crate) const TICK: Duration = Duration::from_micros(500);

/// Session timeout of members, in milliseconds and in ticks of the test.
pub(crate) const SESSION_MS: u64 = 60;
pub(crate) const SESSION_TICKS: u64 = SESSION_MS * 1000 / TICK.as_micros() as u64;

pub(crate) type World = SimWorld<Shard>;

/// Creates a world with a node that is not started.
pub(crate) fn world(seed: u64) -> (World, SimNode) {
    world_with(seed, &limits(seed), SESSION_MS)
}

/// The same, started. Returns its address too.
pub(crate) fn started(seed: u64) -> (World, SimNode, SocketAddr) {
    let (mut world, node) = world(seed);
    world.start(node).expect("a first start");
    let address = world.address(node, 0);
    (world, node, address)
}

/// The same, with this session timeout for members of groups.
pub(crate) fn world_with_sessions(seed: u64, consumer_session_timeout_ms: u64) -> (World, SimNode) {
    world_with(seed, &limits(seed), consumer_session_timeout_ms)
}

/// The same with these limits.
pub(crate) fn world_with(
    seed: u64,
    limits: &ShardLimits,
    consumer_session_timeout_ms: u64,
) -> (World, SimNode) {
    let mut world = World::new(WorldConfig::new(seed));
    let durable_form = if seed.is_multiple_of(2) { DurableForm::Dsync } else { DurableForm::SyncPerRound };
    let groups = GroupConfig {
        initial_rebalance_delay_ms: 10,
        session_timeout_min_ms: 10,
        new_member_join_timeout_ms: 200,
        consumer_session_timeout_ms,
        consumer_heartbeat_interval_ms: 5,
        ..GroupConfig::default()
    };
    let setup = NodeSetup { limits: *limits, durable_form, default_partitions: 1, groups };
    let node = sim_node::add(&mut world, NodeConfig::new(SHARDS, 2), &setup);
    (world, node)
}

/// Disk writes take much longer than requests. Files are created at once.
pub(crate) fn slow_rounds(world: &World, node: SimNode, time: RangeInclusive<Duration>) {
    let job = Duration::from_micros(1)..=Duration::from_micros(2);
    let latency = Latency { sync: time.clone(), write: time, job, ..Latency::default() };
    world.disk(node).set_latency(latency);
}

/// Creates a batch of one record with a value of this size.
pub(crate) fn batch_of(value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    let value = vec![7; value_bytes];
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(&value))).expect("it fits");
    builder.finish(BatchProducer::NONE).expect("there is a record").to_vec()
}

/// Returns limits that are small enough to be reached. Every other seed allows batches that are large enough to be received into pages.
fn limits(seed: u64) -> ShardLimits {
    let tiny = ShardLimits::tiny();
    if seed % 4 < 2 {
        return tiny;
    }
    let store = StoreLimits {
        // With the smaller sizes, some batches need larger extents.
        extent_bytes_max: if seed.is_multiple_of(2) { 256 << 10 } else { 64 << 10 },
        payload_bytes_max: 200 << 10,
        unacked_bytes_max: 256 << 10,
        store_unacked_bytes_max: 512 << 10,
        ..tiny.store
    };
    ShardLimits { batch_bytes_max: store.payload_bytes_max, store, ..tiny }
}

/// Returns whether batches above the bulk threshold are allowed.
pub(crate) fn takes_large_batches(seed: u64) -> bool {
    seed % 4 >= 2
}
