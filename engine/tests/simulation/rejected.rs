//! Batches of an idempotent producer do not overtake an earlier one that was rejected.
//!
//! A log accepts any first sequence number of an unknown producer. So when the first of several batches in flight is rejected because the disk is
//! full, and there is space again when the second arrives, only the note of the rejection keeps the order. The same is true when a topic appears
//! between the two.

use std::time::Duration;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::ProduceResponse;
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{ProducerId, Timestamp};
use highwater_protocol::native::{
    AlterTopicRequest, Body, CreateTopicRequest, DeleteTopicRequest, ProduceReply,
};
use highwater_runtime::sim::{Fault, Latency, SimNode};

use crate::kafka::wire::Wire as KafkaWire;
use crate::node::{TICK, World, slow_rounds, started, world};
use crate::run::create;
use crate::wire::Wire;

/// Virtual time within which a request has to be answered.
const TICKS_MAX: u32 = 20_000;

fn batch(sequence: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(b"value"))).expect("it fits");
    let producer = BatchProducer { id: ProducerId(77), epoch: 0, sequence };
    builder.finish(producer).expect("there is a record").to_vec()
}

/// Makes all disk operations fail, until [`heal`].
fn fill(world: &mut World, node: SimNode) {
    world.disk(node).set_capacity(Some(0));
    for store in 0..2 {
        let slab = format!("/data/store-{store:03}/slab-000000");
        world.disk(node).inject(Fault::write_no_space(&slab));
        world.disk(node).inject(Fault::sync_no_space(&slab));
    }
}

fn heal(world: &mut World, node: SimNode) {
    world.disk(node).clear_faults();
    world.disk(node).set_capacity(None);
    world.run_for(Duration::from_secs(3));
}

pub(crate) fn native() {
    let (mut world, node, address) = started(1);
    let (_, partitions) = create(&mut world, address, 1);
    let (to, shard) = partitions[0];
    let mut wire = Wire::connect(&mut world, address, Some(shard));
    fill(&mut world, node);
    wire.send_batch(to, &batch(0));
    let (code, text) = wire.wait(&mut world).expect("an answer").body.expect_err("the disk is full");
    assert_eq!(code, ErrorCode::StorageFull, "{text}");
    heal(&mut world, node);
    wire.send_batch(to, &batch(1));
    let (code, text) =
        wire.wait(&mut world).expect("an answer").body.expect_err("the first batch is missing");
    assert_eq!(code, ErrorCode::OutOfOrderSequence, "{text}");
    for sequence in 0..2 {
        wire.send_batch(to, &batch(sequence));
        let body = wire.wait(&mut world).expect("an answer").body.expect("in order");
        assert_eq!(ProduceReply::decode(&body).expect("a reply").base_offset.get(), i64::from(sequence));
    }
}

/// A Kafka client that sends batches to partitions of topics.
struct KafkaProducer(KafkaWire);

impl KafkaProducer {
    fn connect(world: &mut World, node: SimNode) -> Self {
        let address = world.address(node, 1);
        Self(KafkaWire::connect(world, address))
    }

    fn send(&mut self, topic: &str, index: i32, sequence: i32) {
        self.0.produce(topic, index, -1, &batch(sequence));
    }

    /// Returns the error and offset of the next response.
    fn outcome(&mut self, world: &mut World) -> (KafkaError, i64) {
        for _ in 0..TICKS_MAX {
            world.run_for(TICK);
            if let Some((_, answer)) = self.0.receive(usize::MAX) {
                let response: ProduceResponse<'_> = answer.body();
                let outcome = &response.responses[0].partition_responses[0];
                return (outcome.error_code, outcome.base_offset);
            }
        }
        panic!("no answer");
    }

    fn produce(&mut self, world: &mut World, topic: &str, index: i32, sequence: i32) -> (KafkaError, i64) {
        self.send(topic, index, sequence);
        self.outcome(world)
    }

    /// Checks that the first batch was rejected, and that the second one waits for it.
    fn sends_the_rest_in_order(&mut self, world: &mut World, topic: &str, index: i32) {
        let second = self.produce(world, topic, index, 1);
        assert_eq!(second.0, KafkaError::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(self.produce(world, topic, index, 0), (KafkaError::NONE, 0));
        assert_eq!(self.produce(world, topic, index, 1), (KafkaError::NONE, 1));
    }
}

pub(crate) fn kafka() {
    let (mut world, node) = world(1);
    world.start(node).expect("a first start");
    let native = world.address(node, 0);
    create(&mut world, native, 1);
    let mut producer = KafkaProducer::connect(&mut world, node);
    fill(&mut world, node);
    assert_eq!(producer.produce(&mut world, "main", 0, 0).0, KafkaError::KAFKA_STORAGE_ERROR);
    heal(&mut world, node);
    producer.sends_the_rest_in_order(&mut world, "main", 0);
}

/// The shard of the connection does not know the partition when the first batch arrives, and does when the second one arrives.
pub(crate) fn kafka_unknown_partition() {
    for seed in 0..4 {
        println!("seed {seed}");
        let (mut world, node) = world(seed);
        world.start(node).expect("a first start");
        let native = world.address(node, 0);
        let mut producer = KafkaProducer::connect(&mut world, node);
        let first = producer.produce(&mut world, "main", 0, 0);
        assert_eq!(first.0, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
        create(&mut world, native, 1);
        producer.sends_the_rest_in_order(&mut world, "main", 0);

        for index in 1..4 {
            let first = producer.produce(&mut world, "main", index, 0);
            assert_eq!(first.0, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
        }
        let mut admin = Wire::connect(&mut world, native, None);
        let partitions = Some(4);
        admin.send(&AlterTopicRequest { name: "main".into(), configs: Vec::new(), partitions });
        admin.wait(&mut world).expect("an answer").body.expect("more partitions");
        for index in 1..4 {
            producer.sends_the_rest_in_order(&mut world, "main", index);
        }
    }
}

/// The owner of the partition deletes it before it appends the first batch; the topic was created again when the second one arrives.
pub(crate) fn kafka_deleted_partition() {
    let mut deleted = 0;
    for seed in 0..40 {
        let (mut world, node) = world(seed);
        world.start(node).expect("a first start");
        let native = world.address(node, 0);
        create(&mut world, native, 1);
        let mut producer = KafkaProducer::connect(&mut world, node);
        // The connection is assigned to its shard.
        assert_eq!(producer.produce(&mut world, "other", 0, 0).0, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
        let mut admin = Wire::connect(&mut world, native, None);
        admin.send(&DeleteTopicRequest { name: "main".into() });
        // At some moment while the shards apply the change.
        world.run_for(Duration::from_micros(20 * seed));
        producer.send("main", 0, 0);
        let (error, offset) = producer.outcome(&mut world);
        admin.wait(&mut world).expect("an answer").body.expect("it is deleted");
        create(&mut world, native, 1);
        if error == KafkaError::NONE {
            assert_eq!(offset, 0);
            continue;
        }
        assert_eq!(error, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
        deleted += 1;
        producer.sends_the_rest_in_order(&mut world, "main", 0);
    }
    assert!(deleted > 0, "no batch came too late");
}

/// The topic is deleted and created again while the first batch is with its owner; the second one arrives before the outcome of the first.
pub(crate) fn kafka_recreated_partition() {
    let mut deleted = 0;
    for seed in 0..100 {
        let (mut world, node) = world(seed);
        world.start(node).expect("a first start");
        let native = world.address(node, 0);
        create(&mut world, native, 2);
        let mut producer = KafkaProducer::connect(&mut world, node);
        assert_eq!(producer.produce(&mut world, "other", 0, 0).0, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
        // The first batches stay in flight to the disk.
        let round = Duration::from_secs(4);
        slow_rounds(&world, node, round..=round);
        producer.send("main", 0, 0);
        producer.send("main", 1, 0);
        world.run_for(4 * TICK);
        world.disk(node).set_latency(Latency::default());
        let mut admin = Wire::connect(&mut world, native, None);
        world.run_for(4 * TICK);
        admin.send(&DeleteTopicRequest { name: "main".into() });
        admin.send(&CreateTopicRequest {
            name: "main".into(),
            partitions: 2,
            configs: Vec::new(),
            validate_only: false,
            replicas: None,
        });
        // At some moment while the shards apply the change.
        world.run_for(Duration::from_micros(10 * seed));
        producer.send("main", 0, 1);
        producer.send("main", 1, 1);
        let outcomes: Vec<_> = (0..4).map(|_| producer.outcome(&mut world)).collect();
        for index in 0..2 {
            let (first, second) = (outcomes[index], outcomes[2 + index]);
            if first.0 == KafkaError::NONE {
                continue;
            }
            deleted += 1;
            assert_eq!(first.0, KafkaError::UNKNOWN_TOPIC_OR_PARTITION, "seed {seed}");
            assert_ne!(second.0, KafkaError::NONE, "seed {seed}: it has overtaken the first");
            world.run_for(Duration::from_secs(1));
            producer.sends_the_rest_in_order(&mut world, "main", index as i32);
        }
    }
    assert!(deleted > 0, "no batch was with its owner");
}

#[test]
fn a_batch_after_one_whose_topic_was_deleted_does_not_overtake_it_in_the_next_topic_of_that_name() {
    kafka_recreated_partition();
}

#[test]
fn a_batch_after_a_rejected_one_of_its_producer_is_rejected_until_that_is_sent_again_in_the_native_protocol()
{
    native();
}

#[test]
fn a_batch_after_a_rejected_one_of_its_producer_is_rejected_until_that_is_sent_again_in_kafkas_protocol() {
    kafka();
}

#[test]
fn a_batch_after_one_for_an_unknown_partition_is_rejected_until_that_is_sent_again() {
    kafka_unknown_partition();
}

#[test]
fn a_batch_after_one_for_a_deleted_topic_is_rejected_until_that_is_sent_again_to_the_next_topic_of_that_name()
{
    kafka_deleted_partition();
}
