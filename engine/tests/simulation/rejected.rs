//! Batches of an idempotent producer that were sent after one that was rejected do not overtake it.
//!
//! A log that does not know a producer accepts any first sequence number. So when the first of several batches in flight is rejected by a
//! full disk, and there is space again when the second arrives, only the memory of what was rejected keeps the order.

use std::time::Duration;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic};
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{ProducerId, Timestamp};
use highwater_protocol::native::{Body, ProduceReply};
use highwater_runtime::sim::{Fault, SimNode};

use crate::kafka::wire::Wire as KafkaWire;
use crate::node::{TICK, World, world};
use crate::run::create;
use crate::wire::Wire;

/// Virtual time after which a request has to be answered.
const TICKS_MAX: u32 = 20_000;

fn batch(sequence: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(b"value"))).expect("it fits");
    let producer = BatchProducer { id: ProducerId(77), epoch: 0, sequence };
    builder.finish(producer).expect("there is a record").to_vec()
}

/// Makes the disk refuse everything, until [`heal`].
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
    let (mut world, node) = world(1);
    world.start(node).expect("a first start");
    let address = world.address(node, 0);
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

pub(crate) fn kafka() {
    let (mut world, node) = world(1);
    world.start(node).expect("a first start");
    let native = world.address(node, 0);
    create(&mut world, native, 1);
    let address = world.address(node, 1);
    let mut wire = KafkaWire::connect(&mut world, address);
    let mut produce = |world: &mut World, sequence: i32| {
        let records = batch(sequence);
        let partition_data = vec![ProducePartition { index: 0, records: Some(&records) }];
        let topic_data = vec![ProduceTopic { name: "main", topic_id: [0; 16], partition_data }];
        let request = ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topic_data };
        wire.send(ApiKey::Produce, 9, &request);
        for _ in 0..TICKS_MAX {
            world.run_for(TICK);
            if let Some((_, answer)) = wire.receive(usize::MAX) {
                let response: ProduceResponse<'_> = answer.body();
                let outcome = &response.responses[0].partition_responses[0];
                return (outcome.error_code, outcome.base_offset);
            }
        }
        panic!("no answer");
    };
    fill(&mut world, node);
    assert_eq!(produce(&mut world, 0).0, KafkaError::KAFKA_STORAGE_ERROR);
    heal(&mut world, node);
    assert_eq!(produce(&mut world, 1).0, KafkaError::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(produce(&mut world, 0), (KafkaError::NONE, 0));
    assert_eq!(produce(&mut world, 1), (KafkaError::NONE, 1));
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
