//! One run: sets up, runs all clients while the node fails now and then, heals, and compares the contents of the node with its promises.

use std::net::SocketAddr;
use std::ops::AddAssign;

use highwater_protocol::ids::{TopicId, TopicPartition};
use highwater_protocol::native::{
    Body, CreateTopicReply, CreateTopicRequest, MessageKind, MetadataReply, MetadataRequest,
};
use highwater_runtime::fs::Fs;
use highwater_runtime::sim::{CrashPolicy, Fault, NodeEnd, SimNode, SimRng, stream};
use rand::RngExt;

use crate::crowd::Crowd;
use crate::groups;
use crate::node::{SHARDS, TICK, World, started};
use crate::wire::Wire;

/// Number of ticks during which the node may fail.
const UNSAFE_TICKS: u32 = 4000;

/// Maximum number of ticks to finish after the last failure.
const HEALED_TICKS_MAX: u32 = 60_000;

/// Maximum number of ticks for a shutdown: the time for clients, and a little more.
const STOP_TICKS_MAX: u32 = 11_000;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) acknowledged: usize,
    pub(crate) consumed: usize,
    pub(crate) handovers: u64,
    /// Partitions that were assigned to members of Kafka groups.
    pub(crate) assignments: u64,
    pub(crate) crashes: u32,
    pub(crate) stops: u32,
    pub(crate) full_disks: u32,
    pub(crate) admin_answers: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.consumed += other.consumed;
        self.handovers += other.handovers;
        self.assignments += other.assignments;
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.full_disks += other.full_disks;
        self.admin_answers += other.admin_answers;
    }
}

pub(crate) struct Outcome {
    pub(crate) totals: Totals,
    pub(crate) trace: u64,
}

pub(crate) fn run(seed: u64) -> Outcome {
    let (mut world, node, address) = started(seed);
    let mut rng = stream(seed, "test", 0);
    let (topic, partitions) = create(&mut world, address, rng.random_range(1..=4));
    let (shared, _) = create_named(&mut world, address, groups::TOPIC, groups::PARTITIONS_AT_FIRST, &[]);
    let mut crowd = Crowd::new(seed, (topic, &partitions), shared, &mut rng);
    let mut totals = Totals::default();
    let kafka = world.address(node, 1);
    let everybody = |world: &mut World, crowd: &mut Crowd, may_fail: bool| {
        world.run_for(TICK);
        for app in (0..SHARDS).filter_map(|shard| world.app(node, shard)) {
            app.assert_memory_adds_up();
        }
        crowd.poll(world, address, kafka, may_fail);
    };

    let mut is_stopping = false;
    for _ in 0..UNSAFE_TICKS {
        everybody(&mut world, &mut crowd, true);
        is_stopping = maybe_fail(&mut world, node, &mut rng, &mut totals, is_stopping);
    }
    free_disk(&world, node);
    // It may still be stopping.
    let mut ticks = 0;
    while is_stopping && world.end(node).is_none() {
        everybody(&mut world, &mut crowd, false);
        ticks += 1;
        assert!(ticks < STOP_TICKS_MAX, "seed {seed}: the node does not stop");
    }
    restart(&mut world, node, &mut totals);
    ticks = 0;
    while !crowd.is_done() {
        assert_eq!(world.end(node), None, "the node keeps running");
        everybody(&mut world, &mut crowd, false);
        ticks += 1;
        assert!(ticks < HEALED_TICKS_MAX, "seed {seed}: somebody waits for ever: {:#?}", crowd.describe());
    }
    crowd.compare();
    totals.admin_answers = crowd.admin_answers();
    totals.acknowledged = crowd.lanes().map(|lane| lane.acked.len()).sum();
    totals.handovers = crowd.handovers();
    totals.assignments = crowd.assignments();
    totals.consumed = crowd.readers().map(|seen| seen.records.len()).sum();
    Outcome { totals, trace: world.trace_hash() }
}

/// Creates the topic `main`. Returns its id, its partitions and their shards.
pub(crate) fn create(
    world: &mut World,
    address: SocketAddr,
    partitions: u32,
) -> (TopicId, Vec<(TopicPartition, u16)>) {
    create_named(world, address, "main", partitions, &[])
}

/// Creates a topic with these settings.
pub(crate) fn create_named(
    world: &mut World,
    address: SocketAddr,
    name: &str,
    partitions: u32,
    configs: &[(&str, &str)],
) -> (TopicId, Vec<(TopicPartition, u16)>) {
    let mut wire = Wire::connect(world, address, None);
    let configs = configs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let request =
        CreateTopicRequest { name: name.into(), partitions, configs, validate_only: false, replicas: None };
    wire.send(&request);
    let mut topic = None;
    for _ in 0..100_000 {
        world.run_for(TICK);
        wire.receive(usize::MAX);
        let Some(answer) = wire.pop() else { continue };
        match (answer.kind, answer.body) {
            (MessageKind::CreateTopic, Ok(body)) => {
                topic = Some(CreateTopicReply::decode(&body).expect("a reply").id);
                wire.send(&MetadataRequest { topics: Some(vec![name.into()]) });
            }
            (MessageKind::Metadata, Ok(body)) => {
                let reply = MetadataReply::decode(&body).expect("a reply");
                let topic = topic.expect("created before");
                let of = |p: &highwater_protocol::native::PartitionInfo| {
                    (TopicPartition { topic, partition: p.index }, p.shard.0)
                };
                return (topic, reply.topics[0].partitions.iter().map(of).collect());
            }
            (_, Err((code, _))) if code.is_retryable() => {
                wire.send(&request);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no topic was created");
}

/// Lets the node fail, or starts it again, or does nothing. `is_stopping` tracks whether it is stopping.
fn maybe_fail(
    world: &mut World,
    node: SimNode,
    rng: &mut SimRng,
    totals: &mut Totals,
    is_stopping: bool,
) -> bool {
    if world.end(node).is_some() {
        if rng.random_bool(0.05) {
            restart(world, node, totals);
        }
        return false;
    }
    match rng.random_range(0..2000) {
        0..=2 => {
            totals.crashes += 1;
            let policy = match rng.random_range(0..4) {
                0 => CrashPolicy::LOSE_ALL,
                1 => CrashPolicy::KEEP_ALL,
                2 => CrashPolicy::TEAR_ALL,
                _ => CrashPolicy::MIXED,
            };
            world.crash(node, policy);
            false
        }
        3 => {
            totals.crashes += 1;
            world.kill(node);
            false
        }
        4 => {
            world.shutdown(node);
            true
        }
        6 => {
            free_disk(world, node);
            is_stopping
        }
        7 if rng.random_bool(0.3) => {
            totals.full_disks += 1;
            fill_disk(world, node);
            is_stopping
        }
        5 => {
            world.jump_wall_clock(node, rng.random_range(-3000..3000));
            is_stopping
        }
        _ => is_stopping,
    }
}

/// Fills the disk, as a file system that copies on write: nothing can be allocated, and neither records nor the offsets of groups can be written.
fn fill_disk(world: &World, node: SimNode) {
    let mut disk = world.disk(node);
    // A disk that was full before may have no space.
    let _ = disk.remove_file("/data/reserve".as_ref());
    disk.set_capacity(Some(0));
    for store in 0..SHARDS {
        for file in ["slab-000000", "journal"] {
            disk.inject(Fault::write_no_space(format!("/data/store-{store:03}/{file}")));
        }
    }
}

/// Frees space on the disk.
fn free_disk(world: &World, node: SimNode) {
    let disk = world.disk(node);
    disk.set_capacity(None);
    disk.clear_faults();
}

/// Starts the node again if it is not running.
fn restart(world: &mut World, node: SimNode, totals: &mut Totals) {
    match world.end(node) {
        None => return,
        Some(NodeEnd::Exited) => totals.stops += 1,
        Some(NodeEnd::Crashed) => {}
        Some(other) => panic!("the node ended: {other:?}"),
    }
    // A start that cannot apply the journal takes partitions out of service, for which clients wait until the next start. `full_disk.rs` has
    // such starts.
    world.disk(node).clear_faults();
    world.start(node).expect("it starts again");
}
