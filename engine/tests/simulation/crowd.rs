//! All clients of a run, and the checks of their observations against each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use highwater_protocol::ids::{TopicId, TopicPartition};
use highwater_runtime::sim::{SimRng, stream};
use rand::RngExt;

use crate::admin::Admin;
use crate::consumer::Consumer;
use crate::groups::Groups;
use crate::kafka::{KafkaConsumer, KafkaProducer};
use crate::lane::Lane;
use crate::member::{Group, Member};
use crate::node::{World, takes_large_batches};
use crate::producer::Producer;
use crate::seen::Seen;

pub(crate) struct Crowd {
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    kafka_producer: KafkaProducer,
    kafka_consumer: KafkaConsumer,
    members: Vec<Member>,
    group: Group,
    kafka_groups: Groups,
    admin: Admin,
}

impl Crowd {
    pub(crate) fn new(
        seed: u64,
        (topic, partitions): (TopicId, &[(TopicPartition, u16)]),
        shared: TopicId,
        rng: &mut SimRng,
    ) -> Self {
        let rng_of = |name, number: usize| stream(seed, name, number as u64);
        let large = takes_large_batches(seed);
        let mut lane = |name: String, to| Lane::new(name, to, rng.random_range(20..200), large);
        let producers = (0..3).map(|n| {
            let (to, shard) = partitions[n % partitions.len()];
            Producer::new(lane(format!("p{n}"), to), shard, rng_of("producer", n))
        });
        let producers = producers.collect();
        let lanes = partitions.iter().map(|(to, _)| lane(format!("k{}", to.partition.0), *to)).collect();
        let consumers = partitions
            .iter()
            .flat_map(|(from, shard)| [(*from, *shard, true), (*from, *shard, false)])
            .enumerate()
            .map(|(n, (from, shard, subscribes))| {
                Consumer::new(from, shard, subscribes, rng_of("consumer", n))
            });
        let seen = partitions.iter().map(|(from, _)| Seen::new(*from)).collect();
        Self {
            producers,
            consumers: consumers.collect(),
            kafka_producer: KafkaProducer::new(lanes, rng_of("kafka producer", 0)),
            kafka_consumer: KafkaConsumer::new(seen, rng_of("kafka consumer", 0)),
            members: (0..3).map(|n| Member::new(n, partitions, rng_of("member", n))).collect(),
            group: Group::default(),
            kafka_groups: Groups::new(seed, shared),
            admin: Admin::new(("main".into(), topic), rng_of("admin", 0)),
        }
    }

    /// Runs every client once. The addresses are those of the native and the Kafka listener. Members of the group crash now and then if that is
    /// allowed.
    pub(crate) fn poll(&mut self, world: &mut World, native: SocketAddr, kafka: SocketAddr, may_fail: bool) {
        for producer in &mut self.producers {
            producer.poll(world, native);
        }
        for consumer in &mut self.consumers {
            consumer.poll(world, native);
        }
        self.kafka_producer.poll(world, kafka);
        self.kafka_consumer.poll(world, kafka);
        for member in &mut self.members {
            member.poll(world, native, &mut self.group, may_fail);
        }
        self.kafka_groups.poll(world, kafka, may_fail);
        self.admin.poll(world, native);
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.producers.iter().map(|producer| &producer.lane).chain(&self.kafka_producer.lanes)
    }

    pub(crate) fn readers(&self) -> impl Iterator<Item = &Seen> {
        self.consumers.iter().map(|consumer| &consumer.seen).chain(&self.kafka_consumer.seen)
    }

    pub(crate) fn admin_answers(&self) -> u64 {
        self.admin.answers
    }

    /// Returns how often a partition was assigned to a member of the group.
    pub(crate) fn handovers(&self) -> u64 {
        self.group.handovers
    }

    /// Returns how often a partition was assigned to a member of a Kafka group.
    pub(crate) fn assignments(&self) -> u64 {
        self.kafka_groups.assignments()
    }

    /// Returns whether everything was acknowledged, read, and processed by the group.
    pub(crate) fn is_done(&self) -> bool {
        let ends = self.ends();
        self.lanes().all(Lane::is_done)
            && self.readers().all(|seen| seen.next() >= ends.get(&seen.from()).copied().unwrap_or(0))
            && ends.iter().all(|(tp, end)| self.group.has_all(*tp, *end))
            && self.kafka_groups.is_done()
    }

    /// Describes the state of all clients, for a run that does not finish.
    pub(crate) fn describe(&self) -> Vec<String> {
        let ends = self.ends();
        let native = self.consumers.iter().map(|consumer| (consumer.describe(), &consumer.seen));
        let kafka = self.kafka_consumer.seen.iter().map(|seen| ("Kafka fetches", seen));
        let readers = native.chain(kafka).map(|(name, seen)| {
            let (from, next) = (seen.from(), seen.next());
            format!("{name} of {}: at {next} of {:?}", from.partition, ends.get(&from))
        });
        let left = ends.iter().filter(|(tp, end)| !self.group.has_all(**tp, **end));
        let left = left.map(|(tp, end)| format!("the group has not processed all {end} of {}", tp.partition));
        self.lanes()
            .map(Lane::describe)
            .chain(readers)
            .chain(left)
            .chain(self.kafka_groups.describe())
            .collect()
    }

    /// Returns the minimum end of each partition, from all observations.
    fn ends(&self) -> BTreeMap<TopicPartition, i64> {
        let mut ends = BTreeMap::new();
        for lane in self.lanes() {
            let last = lane.acked.last().map_or(0, |(offset, _)| offset + 1);
            let end = ends.entry(lane.to()).or_insert(0);
            *end = last.max(*end);
        }
        ends
    }

    /// Checks that consumers have read the acknowledged records once each and in order.
    pub(crate) fn compare(&self) {
        let mut logs: BTreeMap<TopicPartition, &BTreeMap<i64, String>> = BTreeMap::new();
        for seen in self.readers() {
            let log = logs.entry(seen.from()).or_insert(&seen.records);
            let both = log.len().min(seen.records.len());
            assert!(log.iter().take(both).eq(seen.records.iter().take(both)), "two readers differ");
            if seen.records.len() > log.len() {
                *log = &seen.records;
            }
        }
        for lane in self.lanes() {
            let log = logs[&lane.to()];
            for (offset, value) in &lane.acked {
                assert_eq!(log.get(offset), Some(value), "acknowledged at {offset} of {}", lane.to());
            }
            let prefix = lane.prefix();
            let numbers: Vec<u32> = log
                .values()
                .filter_map(|value| value.strip_prefix(&prefix)?.split('-').next()?.parse().ok())
                .collect();
            assert!(
                numbers.iter().copied().eq(0..numbers.len() as u32),
                "once each and in order: {numbers:?}"
            );
            assert_eq!(numbers.len(), lane.acked.len(), "nothing that nobody sent");
        }
    }
}
