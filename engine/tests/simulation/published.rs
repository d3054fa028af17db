//! What one shard publishes, every owner knows. Shards apply a change of the metadata at different times, and a client of the first one uses
//! its partitions at once, most of which belong to other shards.

use std::time::Duration;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ListOffsetsPartition, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsTopic, ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic,
};
use highwater_protocol::native::{AlterTopicRequest, CreateTopicRequest};
use highwater_runtime::sim::{CrashPolicy, NetworkConfig, SimNode};

use crate::kafka::wire::Wire as KafkaWire;
use crate::kafka_wire::Answer;
use crate::node::{World, batch_of, world};
use crate::run::create_named;
use crate::wire::Wire;

/// Interval at which clients look for answers: less than a message between shards takes.
const LOOK: Duration = Duration::from_micros(20);

/// Maximum number of looks for an answer.
const LOOKS_MAX: u32 = 100_000;

/// Partitions of a topic that exists before a start.
const PARTITIONS: i32 = 100;

/// Starts in each run.
const STARTS: u32 = 6;

/// Topics that are created in each run.
const TOPICS: u32 = 8;

/// Connections of Kafka clients, which are distributed to the shards.
const CONNECTIONS: usize = 6;

/// Maximum number of requests of a connection in flight.
const REQUESTS_MAX: usize = 20;

fn produce<'a>(topic: &'a str, partitions: i32, records: &'a [u8]) -> ProduceRequest<'a> {
    let data = (0..partitions).map(|index| ProducePartition { index, records: Some(records) }).collect();
    ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![ProduceTopic { name: topic, topic_id: [0; 16], partition_data: data }],
    }
}

fn list_offsets(topic: &'static str, partitions: i32) -> ListOffsetsRequest<'static> {
    let of =
        |partition_index| ListOffsetsPartition { partition_index, current_leader_epoch: -1, timestamp: -2 };
    let topics = vec![ListOffsetsTopic { name: topic, partitions: (0..partitions).map(of).collect() }];
    ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }
}

fn fetch(topic: &'static str, partitions: i32) -> FetchRequest<'static> {
    let of = |partition| FetchPartition {
        partition,
        fetch_offset: 0,
        current_leader_epoch: -1,
        partition_max_bytes: 1000,
        ..Default::default()
    };
    let topics = vec![FetchTopic { topic, topic_id: [0; 16], partitions: (0..partitions).map(of).collect() }];
    FetchRequest { max_wait_ms: 0, max_bytes: 100_000, topics, ..Default::default() }
}

fn wait(world: &mut World, wire: &mut KafkaWire) -> (ApiKey, Answer) {
    for _ in 0..LOOKS_MAX {
        if let Some(answer) = wire.receive(usize::MAX) {
            return answer;
        }
        assert!(!wire.is_over(), "the connection ended");
        world.run_for(LOOK);
    }
    panic!("no answer");
}

/// Returns the error of each partition of a response.
fn errors_of(api: ApiKey, answer: &Answer) -> Vec<KafkaError> {
    match api {
        ApiKey::Produce => {
            let response: ProduceResponse<'_> = answer.body();
            response.responses[0].partition_responses.iter().map(|of| of.error_code).collect()
        }
        ApiKey::ListOffsets => {
            let response: ListOffsetsResponse<'_> = answer.body();
            response.topics[0].partitions.iter().map(|of| of.error_code).collect()
        }
        ApiKey::Fetch => {
            let response: FetchResponse<'_> = answer.body();
            response.responses[0].partitions.iter().map(|of| of.error_code).collect()
        }
        other => unreachable!("{other:?}"),
    }
}

/// A world whose network is faster than its messages between shards: requests are there before anything is published.
fn fast_world(seed: u64) -> (World, SimNode) {
    let (mut world, node) = world(seed);
    let micros = |from, to| Duration::from_micros(from)..=Duration::from_micros(to);
    world.set_network(NetworkConfig { delay: micros(1, 20), take: micros(0, 5), ..NetworkConfig::default() });
    (world, node)
}

pub(crate) fn at_a_start() {
    let records = batch_of(10);
    for seed in 0..12 {
        println!("seed {seed}");
        let (mut world, node) = fast_world(seed);
        world.start(node).expect("a first start");
        let native = world.address(node, 0);
        create_named(&mut world, native, "main", PARTITIONS as u32, &[]);
        for _ in 0..STARTS {
            world.crash(node, CrashPolicy::LOSE_ALL);
            world.start(node).expect("it starts again");
            use_at_once(&mut world, node, &records);
        }
    }
}

/// Sends requests that wait until the shard of their connection has published the metadata.
fn use_at_once(world: &mut World, node: SimNode, records: &[u8]) {
    let kafka = world.address(node, 1);
    let mut wires: Vec<_> = (0..CONNECTIONS).map(|_| KafkaWire::connect(world, kafka)).collect();
    for wire in &mut wires {
        wire.send(ApiKey::Produce, 9, &produce("main", PARTITIONS, records));
        wire.send(ApiKey::ListOffsets, 5, &list_offsets("main", PARTITIONS));
        wire.send(ApiKey::Fetch, 12, &fetch("main", PARTITIONS));
    }
    for wire in &mut wires {
        for _ in 0..3 {
            let (api, answer) = wait(world, wire);
            let errors = errors_of(api, &answer);
            assert!(!errors.contains(&KafkaError::UNKNOWN_TOPIC_OR_PARTITION), "{api:?}: {errors:?}");
        }
    }
}

/// Every connection keeps writing to all partitions of the topic, with requests at every moment, until its shard has published that there are
/// `partitions` of them; before, there are `before`. A request finds these or those, never partitions without an owner.
fn use_while_it_is_published(
    world: &mut World,
    wires: &mut [KafkaWire],
    topic: &str,
    (before, partitions): (usize, usize),
    records: &[u8],
) {
    let mut looks = 0;
    let mut is_over = vec![false; wires.len()];
    while !is_over.iter().all(|is_over| *is_over) {
        for (wire, is_over) in wires.iter_mut().zip(&mut is_over) {
            if !*is_over && wire.pending() < REQUESTS_MAX {
                wire.send(ApiKey::Produce, 9, &produce(topic, partitions as i32, records));
            }
            while let Some((api, answer)) = wire.receive(usize::MAX) {
                let errors = errors_of(api, &answer);
                let found = errors.iter().take_while(|error| **error == KafkaError::NONE).count();
                let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
                assert!(errors[found..].iter().all(|error| *error == unknown), "{errors:?}");
                assert!(found == before || found == partitions, "partitions without an owner: {errors:?}");
                *is_over = found == partitions;
            }
        }
        looks += 1;
        assert!(looks < LOOKS_MAX, "it is never published");
        world.run_for(LOOK);
    }
    for wire in wires {
        while wire.pending() > 0 {
            wait(world, wire);
        }
    }
}

pub(crate) fn of_new_topics() {
    let records = batch_of(10);
    for seed in 0..20 {
        println!("seed {seed}");
        let (mut world, node) = fast_world(seed);
        world.start(node).expect("a first start");
        let native = world.address(node, 0);
        create_named(&mut world, native, "main", 1, &[]);
        let kafka = world.address(node, 1);
        let mut wires: Vec<_> = (0..CONNECTIONS).map(|_| KafkaWire::connect(&mut world, kafka)).collect();
        let mut admin = Wire::connect(&mut world, native, None);
        for number in 0..TOPICS {
            let (name, configs) = (format!("late-{number}"), Vec::new());
            let create = CreateTopicRequest {
                name: name.clone(),
                partitions: 4,
                configs,
                validate_only: false,
                replicas: None,
            };
            admin.send(&create);
            use_while_it_is_published(&mut world, &mut wires, &name, (0, 4), &records);
            admin.wait(&mut world).expect("an answer").body.expect("it is created");
            let configs = Vec::new();
            admin.send(&AlterTopicRequest { name: name.clone(), configs, partitions: Some(8) });
            use_while_it_is_published(&mut world, &mut wires, &name, (4, 8), &records);
            admin.wait(&mut world).expect("an answer").body.expect("it has more partitions");
        }
    }
}

#[test]
fn after_a_start_no_client_is_told_that_an_existing_partition_is_unknown() {
    at_a_start();
}

#[test]
fn a_partition_that_one_shard_has_published_is_known_to_its_owner() {
    of_new_topics();
}
