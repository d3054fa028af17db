//! Batches that wait for space while another topic is deleted that has batches in flight to the disk.

use std::time::Duration;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    CreatableTopic, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    ProduceResponse,
};
use highwater_net::kafka::schema::Message;

use super::wire::Wire;
use crate::kafka_wire::Answer;
use crate::node::{TICK, World, batch_of, slow_rounds, world};

/// Virtual time within which everything has to be answered.
const TICKS_MAX: u32 = 20_000;

/// Number of partitions of each topic, half of them on each store.
const PARTITIONS: i32 = 6;

const BATCH_BYTES: usize = 12_000;

/// Number of batches to each partition of the deleted topic: more than its store lets wait for the disk.
const BATCHES: u32 = 12;

fn wait(world: &mut World, wire: &mut Wire, what: &str) -> Answer {
    for _ in 0..TICKS_MAX {
        if let Some((_, answer)) = wire.receive(usize::MAX) {
            return answer;
        }
        assert!(!wire.is_over(), "{what}: the connection ended");
        world.run_for(TICK);
    }
    panic!("{what} is not answered");
}

fn call<'a>(
    world: &mut World,
    wire: &mut Wire,
    api: ApiKey,
    version: i16,
    body: &impl Message<'a>,
) -> Answer {
    wire.send(api, version, body);
    wait(world, wire, api.api().name)
}

fn run(seed: u64) {
    let (mut world, node) = world(seed);
    world.start(node).expect("a first start");
    let address = world.address(node, 1);
    let mut admin = Wire::connect(&mut world, address);
    let topic = |name| CreatableTopic {
        name,
        num_partitions: PARTITIONS,
        replication_factor: 1,
        ..Default::default()
    };
    let create = CreateTopicsRequest { topics: vec![topic("goes"), topic("stays")], ..Default::default() };
    let answer = call(&mut world, &mut admin, ApiKey::CreateTopics, 5, &create);
    let created: CreateTopicsResponse<'_> = answer.body();
    assert!(created.topics.iter().all(|topic| topic.error_code == KafkaError::NONE), "{created:?}");

    // Appended batches stay in flight to the disk.
    slow_rounds(&world, node, Duration::from_millis(20)..=Duration::from_millis(30));
    let records = batch_of(BATCH_BYTES);
    let mut filling = Vec::new();
    for index in 0..PARTITIONS {
        let mut wire = Wire::connect(&mut world, address);
        for _ in 0..BATCHES {
            wire.produce("goes", index, 0, &records);
        }
        filling.push(wire);
    }
    world.run_for(4 * TICK);
    let mut waiting = Vec::new();
    for index in 0..PARTITIONS {
        for (topic, acks) in [("goes", -1), ("stays", -1)] {
            let mut wire = Wire::connect(&mut world, address);
            wire.produce(topic, index, acks, &records);
            waiting.push((topic, wire));
        }
    }
    world.run_for(4 * TICK);
    let delete = DeleteTopicsRequest { topic_names: vec!["goes"], ..Default::default() };
    let answer = call(&mut world, &mut admin, ApiKey::DeleteTopics, 5, &delete);
    let deleted: DeleteTopicsResponse<'_> = answer.body();
    assert_eq!(deleted.responses[0].error_code, KafkaError::NONE);
    for (topic, mut wire) in waiting {
        let answer = wait(&mut world, &mut wire, topic);
        let response: ProduceResponse<'_> = answer.body();
        let error = response.responses[0].partition_responses[0].error_code;
        let expected =
            if topic == "goes" { KafkaError::UNKNOWN_TOPIC_OR_PARTITION } else { KafkaError::NONE };
        assert_eq!(error, expected, "{topic}");
    }
}

#[test]
fn batches_that_wait_for_space_are_appended_when_the_topic_that_used_it_is_deleted() {
    for seed in 0..8 {
        println!("seed {seed}");
        run(seed);
    }
}
