//! One run: set up, let everybody do something while the node fails now and then, heal, and compare what is there with what was
//! promised.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::Duration;

use highwater_protocol::ids::{TopicId, TopicPartition};
use highwater_protocol::native::{
    Body, CreateTopicReply, CreateTopicRequest, MessageKind, MetadataReply, MetadataRequest,
};
use highwater_runtime::sim::{CrashPolicy, NodeEnd, SimNode, SimRng, stream};
use rand::RngExt;

use crate::admin::Admin;
use crate::consumer::Consumer;
use crate::node::{World, takes_large_batches, world};
use crate::producer::Producer;
use crate::wire::Wire;

/// How often clients look at what has happened.
const TICK: Duration = Duration::from_micros(500);

/// Ticks in which the node may fail.
const UNSAFE_TICKS: u32 = 4000;

/// Ticks after which everything has to be done, once nothing fails any more.
const HEALED_TICKS_MAX: u32 = 60_000;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) acknowledged: usize,
    pub(crate) consumed: usize,
    pub(crate) crashes: u32,
    pub(crate) stops: u32,
    pub(crate) admin_answers: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.consumed += other.consumed;
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.admin_answers += other.admin_answers;
    }
}

pub(crate) struct Outcome {
    pub(crate) totals: Totals,
    pub(crate) trace: u64,
}

pub(crate) fn run(seed: u64) -> Outcome {
    let (mut world, node) = world(seed);
    world.start(node).expect("a first start");
    let address = world.address(node, 0);
    let mut rng = stream(seed, "test", 0);
    let (topic, partitions) = create(&mut world, address, rng.random_range(1..=4));
    let rng_of = |name, number: usize| stream(seed, name, number as u64);
    let mut producers: Vec<Producer> = (0..3)
        .map(|n| {
            let (to, shard) = partitions[n % partitions.len()];
            let goal = rng.random_range(20..200);
            Producer::new(n, to, shard, goal, takes_large_batches(seed), rng_of("producer", n))
        })
        .collect();
    let mut consumers: Vec<Consumer> = partitions
        .iter()
        .flat_map(|(from, shard)| [(*from, *shard, true), (*from, *shard, false)])
        .enumerate()
        .map(|(n, (from, shard, subscribes))| Consumer::new(from, shard, subscribes, rng_of("consumer", n)))
        .collect();
    let mut admin = Admin::new(("main".into(), topic), rng_of("admin", 0));
    let mut totals = Totals::default();
    let mut everybody = |world: &mut World, producers: &mut [Producer], consumers: &mut [Consumer]| {
        world.run_for(TICK);
        for producer in producers {
            producer.poll(world, address);
        }
        for consumer in consumers {
            consumer.poll(world, address);
        }
        admin.poll(world, address);
    };

    for _ in 0..UNSAFE_TICKS {
        everybody(&mut world, &mut producers, &mut consumers);
        fail_maybe(&mut world, node, &mut rng, &mut totals);
    }
    restart(&mut world, node, &mut totals);
    let mut ticks = 0;
    let done = |producers: &[Producer], consumers: &[Consumer]| {
        let ends = ends(producers);
        producers.iter().all(Producer::is_done)
            && consumers.iter().all(|c| c.next() >= ends.get(&c.from()).copied().unwrap_or(0))
    };
    while !done(&producers, &consumers) {
        assert_eq!(world.end(node), None, "the node goes on");
        everybody(&mut world, &mut producers, &mut consumers);
        ticks += 1;
        if ticks >= HEALED_TICKS_MAX {
            let waiting: Vec<String> = producers.iter().map(Producer::describe).collect();
            let reading: Vec<String> = consumers.iter().map(|c| c.describe(&ends(&producers))).collect();
            panic!("seed {seed}: somebody waits for ever: {waiting:#?} {reading:#?}");
        }
    }
    compare(&producers, &consumers);
    totals.admin_answers = admin.answers;
    totals.acknowledged = producers.iter().map(|p| p.acked.len()).sum();
    totals.consumed = consumers.iter().map(|c| c.seen.len()).sum();
    Outcome { totals, trace: world.trace_hash() }
}

/// A topic with its identity, its partitions and their shards.
pub(crate) fn create(
    world: &mut World,
    address: SocketAddr,
    partitions: u32,
) -> (TopicId, Vec<(TopicPartition, u16)>) {
    let mut wire = Wire::connect(world, address, None);
    let request =
        CreateTopicRequest { name: "main".into(), partitions, configs: Vec::new(), validate_only: false };
    wire.send(&request);
    let mut topic = None;
    for _ in 0..100_000 {
        world.run_for(TICK);
        wire.receive(usize::MAX);
        let Some(answer) = wire.pop() else { continue };
        match (answer.kind, answer.body) {
            (MessageKind::CreateTopic, Ok(body)) => {
                topic = Some(CreateTopicReply::decode(&body).expect("a reply").id);
                wire.send(&MetadataRequest { topics: Some(vec!["main".into()]) });
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

fn fail_maybe(world: &mut World, node: SimNode, rng: &mut SimRng, totals: &mut Totals) {
    if world.end(node).is_some() {
        if rng.random_bool(0.05) {
            restart(world, node, totals);
        }
        return;
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
        }
        3 => {
            totals.crashes += 1;
            world.kill(node);
        }
        4 => world.shutdown(node),
        5 => world.jump_wall_clock(node, rng.random_range(-3000..3000)),
        _ => {}
    }
}

/// Starts the node again if it does not run.
fn restart(world: &mut World, node: SimNode, totals: &mut Totals) {
    match world.end(node) {
        None => return,
        Some(NodeEnd::Exited) => totals.stops += 1,
        Some(NodeEnd::Crashed) => {}
        Some(other) => panic!("the node ended: {other:?}"),
    }
    world.start(node).expect("it starts again");
}

/// Where each partition has to end, as far as anybody was told.
fn ends(producers: &[Producer]) -> BTreeMap<TopicPartition, i64> {
    let mut ends = BTreeMap::new();
    for producer in producers {
        let last = producer.acked.last().map_or(0, |(offset, _)| offset + 1);
        let end = ends.entry(producer.to()).or_insert(0);
        *end = last.max(*end);
    }
    ends
}

/// What consumers have seen is what producers were told, once each and in order.
fn compare(producers: &[Producer], consumers: &[Consumer]) {
    let mut logs: BTreeMap<TopicPartition, &BTreeMap<i64, String>> = BTreeMap::new();
    for consumer in consumers {
        let log = logs.entry(consumer.from()).or_insert(&consumer.seen);
        let both = log.len().min(consumer.seen.len());
        assert!(log.iter().take(both).eq(consumer.seen.iter().take(both)), "two readers differ");
        if consumer.seen.len() > log.len() {
            *log = &consumer.seen;
        }
    }
    for producer in producers {
        let log = logs[&producer.to()];
        for (offset, value) in &producer.acked {
            assert_eq!(log.get(offset), Some(value), "acknowledged at {offset} of {}", producer.to());
        }
        let prefix = producer.prefix();
        let numbers: Vec<u32> = log
            .values()
            .filter_map(|value| value.strip_prefix(&prefix)?.split('-').next()?.parse().ok())
            .collect();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u32), "once each and in order: {numbers:?}");
        assert_eq!(numbers.len(), producer.acked.len(), "nothing that nobody sent");
    }
}
