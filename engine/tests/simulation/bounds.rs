//! Requests with the largest possible fan-out, against a node that counts the work of each turn: no turn exceeds its limits, every client is
//! answered, and silent clients are disconnected.

use std::time::Duration;

use highwater_engine::groups::limits::WORK_PER_TURN_MAX as GROUP_WORK_PER_TURN_MAX;
use highwater_engine::limits::{
    BACKLOG_MAX, JOBS_WORK_PER_TURN_MIN, KAFKA_FETCH_BYTES_PER_TURN_MAX, KAFKA_FETCH_READS_PER_TURN_MAX,
    LONG_ANSWER_BYTES_PER_TURN_MAX, PUBLISH_WORK_PER_TURN_MIN, PUSH_BYTES_PER_TURN_MAX,
    REQUEST_ENTRIES_PER_TURN, ShardLimits, WORK_PER_STEP_MAX, WORK_PER_TURN_MAX,
};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    CreatableTopic, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, FetchPartition, FetchRequest,
    FetchResponse, FetchTopic, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopic, MetadataRequest, MetadataRequestTopic, MetadataResponse, OffsetFetchGroup,
    OffsetFetchRequest, OffsetFetchResponse, ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic,
};
use highwater_net::limits::REQUEST_ENTRIES_MAX;
use highwater_protocol::batch::{BatchBuilder, BatchProducer, Compression, NewRecord};
use highwater_protocol::ids::Timestamp;
use highwater_protocol::native::{Body as _, MessageKind, MetadataReply, MetadataRequest as NativeMetadata};
use highwater_runtime::sim::SimNode;

use crate::kafka::wire::Wire;
use crate::kafka_wire::Answer;
use crate::node::{SESSION_MS, SHARDS, World, world, world_with};
use crate::wire::Wire as Native;

/// Interval at which a client checks for a response: a turn or two.
pub(crate) const LOOK: Duration = Duration::from_micros(20);

/// Maximum number of checks before a response has to arrive.
pub(crate) const LOOKS_MAX: u32 = 2_000_000;

/// Maximum bytes written to disk in one turn, with these limits and requests: records of the metadata and the map, and snapshots.
const DISK_BYTES_PER_TURN_MAX: usize = 1 << 20;

pub(crate) struct Bed {
    pub(crate) world: World,
    pub(crate) node: SimNode,
    /// A client that keeps sending small requests.
    other: Wire,
}

impl Bed {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(world(seed))
    }

    /// The same with a larger send budget, for replies that exceed the regular one.
    pub(crate) fn for_large_replies(seed: u64) -> Self {
        let limits = ShardLimits { send_bytes_max: 16 << 20, ..ShardLimits::tiny() };
        Self::of(world_with(seed, &limits, SESSION_MS))
    }

    pub(crate) fn of((mut world, node): (World, SimNode)) -> Self {
        world.start(node).expect("a first start");
        world.run_for(Duration::from_secs(1));
        let address = world.address(node, 1);
        let other = Wire::connect(&mut world, address);
        Self { world, node, other }
    }

    pub(crate) fn kafka(&mut self) -> Wire {
        let address = self.world.address(self.node, 1);
        Wire::connect(&mut self.world, address)
    }

    /// Waits for the response on a connection. Returns it, and how often another client was answered meanwhile.
    pub(crate) fn wait(&mut self, wire: &mut Wire) -> (Answer, usize) {
        let mut served = 0;
        for _ in 0..LOOKS_MAX {
            if self.other.pending() == 0 {
                self.other.send(ApiKey::Metadata, 4, &named(&[]));
            }
            self.world.run_for(LOOK);
            assert_eq!(self.world.end(self.node), None, "the node keeps running");
            served += usize::from(self.other.receive(usize::MAX).is_some());
            if let Some((_, answer)) = wire.receive(usize::MAX) {
                return (answer, served);
            }
            assert!(!wire.is_over(), "the connection stays, with {} requests", wire.pending());
        }
        panic!("no answer");
    }

    pub(crate) fn call<'a>(
        &mut self,
        wire: &mut Wire,
        api: ApiKey,
        version: i16,
        body: &impl highwater_net::kafka::schema::Message<'a>,
    ) -> (Answer, usize) {
        wire.send(api, version, body);
        self.wait(wire)
    }

    /// Checks that no turn has exceeded its limits.
    pub(crate) fn check(&self) {
        let busiest = self.world.busiest_turn(self.node);
        // The calls of a turn may add to the backlog up to which requests are admitted.
        assert!(busiest.messages <= 2 * BACKLOG_MAX, "{busiest:?}");
        assert!(
            busiest.bytes_sent <= PUSH_BYTES_PER_TURN_MAX + 2 * LONG_ANSWER_BYTES_PER_TURN_MAX,
            "{busiest:?}"
        );
        assert!(busiest.disk_bytes <= DISK_BYTES_PER_TURN_MAX, "{busiest:?}");
        for shard in 0..SHARDS {
            let app = self.world.app(self.node, shard).expect("it runs");
            let (reads, bytes) = app.busiest_turn_fetches();
            assert!(
                reads <= KAFKA_FETCH_READS_PER_TURN_MAX,
                "shard {shard}: {reads} partitions read for fetches"
            );
            assert!(
                bytes <= 2 * KAFKA_FETCH_BYTES_PER_TURN_MAX,
                "shard {shard}: {bytes} bytes read for fetches"
            );
            let (units, entries) = (app.busiest_turn_units(), app.busiest_turn_entries());
            // The guaranteed shares of jobs, and the last step of each, which may exceed its share.
            let most = WORK_PER_TURN_MAX
                + PUBLISH_WORK_PER_TURN_MIN
                + JOBS_WORK_PER_TURN_MIN
                + 2 * WORK_PER_STEP_MAX;
            assert!(units <= most, "shard {shard}: {units} units");
            let group_work = app.busiest_turn_group_work();
            assert!(
                group_work <= 3 * GROUP_WORK_PER_TURN_MAX,
                "shard {shard}: {group_work} of work on groups"
            );
            // One request of any size, and small ones.
            let most = REQUEST_ENTRIES_MAX + REQUEST_ENTRIES_PER_TURN;
            assert!(entries <= most, "shard {shard}: {entries} entries of requests' lists");
        }
    }
}

pub(crate) fn named<'a>(names: &[&'a str]) -> MetadataRequest<'a> {
    let topic = |name: &&'a str| MetadataRequestTopic { topic_id: [0; 16], name: Some(*name) };
    MetadataRequest {
        topics: Some(names.iter().map(topic).collect()),
        allow_auto_topic_creation: true,
        ..Default::default()
    }
}

pub(crate) fn create(bed: &mut Bed, wire: &mut Wire, topics: &[(String, i32)]) -> usize {
    let body = CreateTopicsRequest {
        topics: topics
            .iter()
            .map(|(name, num_partitions)| CreatableTopic {
                name,
                num_partitions: *num_partitions,
                replication_factor: 1,
                ..Default::default()
            })
            .collect(),
        timeout_ms: 60_000,
        ..Default::default()
    };
    let (answer, served) = bed.call(wire, ApiKey::CreateTopics, 7, &body);
    let response: CreateTopicsResponse<'_> = answer.body();
    assert_eq!(response.topics.len(), topics.len());
    assert!(response.topics.iter().all(|topic| topic.error_code == KafkaError::NONE), "{response:?}");
    served
}

fn delete(bed: &mut Bed, wire: &mut Wire, names: &[&str]) -> usize {
    let body = DeleteTopicsRequest { topic_names: names.to_vec(), timeout_ms: 60_000, ..Default::default() };
    let (answer, served) = bed.call(wire, ApiKey::DeleteTopics, 5, &body);
    let response: DeleteTopicsResponse<'_> = answer.body();
    assert!(response.responses.iter().all(|topic| topic.error_code == KafkaError::NONE), "{response:?}");
    served
}

/// Number of partitions of a topic that takes many turns.
pub(crate) const WIDE: i32 = 30_000;

#[test]
fn a_topic_of_many_partitions_is_created_and_deleted_in_slices() {
    for seed in 0..2 {
        let mut bed = Bed::new(seed);
        let mut wire = bed.kafka();
        for _ in 0..2 {
            assert!(create(&mut bed, &mut wire, &[("wide".into(), WIDE)]) > 1, "others are served meanwhile");
            assert!(delete(&mut bed, &mut wire, &["wide"]) > 1, "others are served meanwhile");
        }
        bed.check();
    }
}

#[test]
fn thousands_of_topics_are_created_described_and_deleted_in_slices() {
    let mut bed = Bed::new(1);
    let mut wire = bed.kafka();
    let topics: Vec<_> = (0..1500).map(|n| (format!("topic-{n:04}"), 1)).collect();
    create(&mut bed, &mut wire, &topics);
    let more: Vec<String> = (0..1500).map(|n| format!("made-{n:04}")).collect();
    let names: Vec<&str> = more.iter().map(String::as_str).collect();
    let (answer, _) = bed.call(&mut wire, ApiKey::Metadata, 4, &named(&names));
    let response: MetadataResponse<'_> = answer.body();
    assert_eq!(response.topics.len(), 1500);
    assert!(response.topics.iter().all(|topic| topic.error_code == KafkaError::NONE));
    let resource =
        |name| DescribeConfigsResource { resource_type: 2, resource_name: name, configuration_keys: None };
    let body = DescribeConfigsRequest {
        resources: names.iter().map(|name| resource(*name)).collect(),
        include_synonyms: true,
        include_documentation: true,
    };
    let (answer, served) = bed.call(&mut wire, ApiKey::DescribeConfigs, 4, &body);
    let response: DescribeConfigsResponse<'_> = answer.body();
    assert_eq!(response.results.len(), 1500);
    assert!(response.results.iter().zip(&names).all(|(result, name)| result.resource_name == *name));
    assert!(served > 1, "others are served meanwhile");
    delete(&mut bed, &mut wire, &names);
    bed.check();
}

#[test]
fn requests_about_very_many_groups_and_partitions_are_answered_in_pieces() {
    let mut bed = Bed::new(2);
    let mut wire = bed.kafka();
    let groups: Vec<String> = (0..20_000).map(|n| format!("group-{n:05}")).collect();
    let body = OffsetFetchRequest {
        groups: groups
            .iter()
            .map(|name| OffsetFetchGroup { group_id: name, topics: None, ..Default::default() })
            .collect(),
        ..Default::default()
    };
    let (answer, _) = bed.call(&mut wire, ApiKey::OffsetFetch, 8, &body);
    let response: OffsetFetchResponse<'_> = answer.body();
    assert!(response.groups.iter().map(|group| &*group.group_id).eq(groups.iter().map(String::as_str)));
    create(&mut bed, &mut wire, &[("wide".into(), WIDE)]);
    let partition =
        |index| ListOffsetsPartition { partition_index: index, timestamp: -1, ..Default::default() };
    let topic = ListOffsetsTopic { name: "wide", partitions: (0..WIDE).map(partition).collect() };
    let body = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    let (answer, served) = bed.call(&mut wire, ApiKey::ListOffsets, 6, &body);
    let response: ListOffsetsResponse<'_> = answer.body();
    assert!(response.topics[0].partitions.iter().all(|p| (p.error_code, p.offset) == (KafkaError::NONE, 0)));
    assert_eq!(response.topics[0].partitions.len(), WIDE as usize);
    assert!(served > 0, "others are served meanwhile");
    bed.check();
}

#[test]
fn metadata_of_all_topics_is_sent_in_pieces_and_a_client_that_does_not_receive_costs_little() {
    // With some other seeds too many of the connections are on one shard, and those that do not receive are disconnected.
    let mut bed = Bed::new(19);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), WIDE), ("narrow".into(), 1)]);
    let all = MetadataRequest { topics: None, allow_auto_topic_creation: false, ..Default::default() };
    let mut unread: Vec<Wire> = (0..20).map(|_| bed.kafka()).collect();
    for other in &mut unread {
        for _ in 0..3 {
            other.send(ApiKey::Metadata, 9, &all);
        }
    }
    let (answer, served) = bed.call(&mut wire, ApiKey::Metadata, 9, &all);
    let response: MetadataResponse<'_> = answer.body();
    let counts: Vec<_> = response.topics.iter().map(|topic| topic.partitions.len()).collect();
    assert_eq!(counts, [1, WIDE as usize]);
    assert!(response.topics[1].partitions.iter().zip(0..).all(|(p, n)| p.partition_index == n));
    assert!(served > 0, "others are served meanwhile");
    let memory: usize =
        (0..SHARDS).map(|shard| bed.world.app(bed.node, shard).expect("it runs").memory_bytes()).sum();
    let whole = WIDE as usize * 30;
    assert!(memory < unread.len() * whole / 4, "{memory} bytes for {} answers of {whole}", unread.len());
    // A client that receives late gets the same response.
    let mut late: Vec<_> = unread.into_iter().map(|wire| (wire, 3)).collect();
    for _ in 0..LOOKS_MAX {
        bed.world.run_for(LOOK);
        for (wire, left) in &mut late {
            while let Some((_, answer)) = wire.receive(usize::MAX) {
                assert_eq!(answer.body::<MetadataResponse<'_>>().topics, response.topics);
                *left -= 1;
            }
        }
        late.retain(|(_, left)| *left > 0);
        if late.is_empty() {
            break;
        }
    }
    assert_eq!(late.len(), 0, "clients without all of their answers");
    bed.check();
}

#[test]
fn native_clients_get_the_complete_metadata_of_very_many_topics() {
    let mut bed = Bed::new(4);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), WIDE), ("narrow".into(), 2)]);
    let address = bed.world.address(bed.node, 0);
    let mut native = Native::connect(&mut bed.world, address, None);
    for topics in [None, Some(vec!["narrow".to_owned(), "none".to_owned(), "wide".to_owned()])] {
        native.send(&NativeMetadata { topics: topics.clone() });
        let body = (0..LOOKS_MAX).find_map(|_| {
            bed.world.run_for(LOOK);
            native.receive(usize::MAX);
            native.pop().filter(|answer| answer.kind == MessageKind::Metadata).map(|answer| answer.body)
        });
        let reply = MetadataReply::decode(&body.expect("an answer").expect("metadata")).expect("a reply");
        let told: Vec<_> = reply
            .topics
            .iter()
            .map(|topic| (topic.name.as_str(), topic.error, topic.partitions.len()))
            .collect();
        let unknown = highwater_protocol::error::ErrorCode::UnknownTopic;
        let (narrow, wide) = (("narrow", None, 2), ("wide", None, WIDE as usize));
        match topics {
            None => assert_eq!(told, [narrow, wide]),
            Some(_) => assert_eq!(told, [narrow, ("none", Some(unknown), 0), wide]),
        }
    }
    bed.check();
}

#[test]
fn very_many_long_polls_are_woken_and_removed_in_slices() {
    let mut bed = Bed::new(5);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("polled".into(), 1), ("wide".into(), 600)]);
    let fetch = |topic, partitions: i32| {
        let partition =
            |partition| FetchPartition { partition, partition_max_bytes: 1 << 20, ..Default::default() };
        let topic =
            FetchTopic { topic, topic_id: [0; 16], partitions: (0..partitions).map(partition).collect() };
        FetchRequest {
            max_wait_ms: 30_000,
            min_bytes: 1,
            max_bytes: 1 << 20,
            topics: vec![topic],
            ..Default::default()
        }
    };
    let mut polling: Vec<Wire> = (0..4).map(|_| bed.kafka()).collect();
    for poll in &mut polling {
        for _ in 0..80 {
            poll.send(ApiKey::Fetch, 12, &fetch("polled", 1));
        }
    }
    polling[0].send(ApiKey::Fetch, 12, &fetch("wide", 600));
    bed.world.run_for(Duration::from_secs(2));
    // The topic is deleted, and all of them get an error. The others end with their connection.
    delete(&mut bed, &mut wire, &["polled"]);
    for poll in polling.iter_mut().skip(1) {
        for _ in 0..80 {
            bed.wait(poll);
        }
    }
    drop(polling);
    bed.world.run_for(Duration::from_secs(2));
    bed.check();
}

#[test]
fn long_polls_that_are_woken_together_are_answered_over_several_turns() {
    let mut bed = Bed::new(7);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("polled".into(), 20)]);
    let partition =
        |partition| FetchPartition { partition, partition_max_bytes: 1 << 20, ..Default::default() };
    let topic =
        FetchTopic { topic: "polled", topic_id: [0; 16], partitions: (0..20).map(partition).collect() };
    let fetch = FetchRequest {
        max_wait_ms: 60_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![topic],
        ..Default::default()
    };
    let mut polling: Vec<Wire> = (0..70).map(|_| bed.kafka()).collect();
    for poll in &mut polling {
        poll.send(ApiKey::Fetch, 12, &fetch);
    }
    bed.world.run_for(Duration::from_secs(2));
    let mut record = BatchBuilder::new(Compression::None, 0);
    let value = b"wakes everybody".as_slice();
    record.append(&NewRecord::new(Timestamp(1_700_000_000_000), None, Some(value))).expect("it fits");
    let record = record.finish(BatchProducer::NONE).expect("there is a record");
    let partition = ProducePartition { index: 3, records: Some(&record[..]) };
    let topic = ProduceTopic { name: "polled", topic_id: [0; 16], partition_data: vec![partition] };
    let body = ProduceRequest { acks: -1, timeout_ms: 1000, topic_data: vec![topic], ..Default::default() };
    let (answer, _) = bed.call(&mut wire, ApiKey::Produce, 9, &body);
    assert_eq!(
        answer.body::<ProduceResponse<'_>>().responses[0].partition_responses[0].error_code,
        KafkaError::NONE
    );
    for poll in &mut polling {
        let (answer, _) = bed.wait(poll);
        let response: FetchResponse<'_> = answer.body();
        let records = response.responses[0].partitions.iter().filter_map(|partition| partition.records);
        assert_eq!(records.map(<[u8]>::len).sum::<usize>(), record.len());
    }
    bed.check();
}

#[test]
fn a_silent_client_is_disconnected_and_one_that_has_sent_something_is_not() {
    let mut bed = Bed::new(6);
    let mut speaks = bed.kafka();
    bed.call(&mut speaks, ApiKey::Metadata, 4, &named(&[]));
    let silent: Vec<Wire> = (0..20).map(|_| bed.kafka()).collect();
    bed.world.run_for(Duration::from_secs(5));
    assert!(silent.iter().all(|wire| !wire.is_over()));
    bed.world.run_for(Duration::from_secs(10));
    assert!(silent.iter().all(Wire::is_over));
    bed.call(&mut speaks, ApiKey::Metadata, 4, &named(&[]));
}
