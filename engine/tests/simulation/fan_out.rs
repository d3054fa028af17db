//! Every request of both protocols that can have many entries, with about as many as it may: its response is complete, others are served meanwhile,
//! and no turn exceeds its limits. Requests whose responses need closer checks have their own cases in `bounds.rs` and
//! `large_requests.rs`: Metadata, CreateTopics, DeleteTopics, DescribeConfigs, Produce, Fetch, ListOffsets, DeleteRecords, OffsetFetch,
//! OffsetCommit and ListGroups of Kafka's, and the native Metadata and DescribeTopic.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::*;
use highwater_protocol::ids::{Offset, PartitionIndex};
use highwater_protocol::native::{
    self, AlterTopicRequest, Body, CommitGroupOffsetsRequest, CommitOffsetsRequest, CommittedOffset,
    GroupHeartbeatRequest, ListOffsetsReply, MetadataReply, ReadGroupOffsetsRequest, ReadOffsetsReply,
    ReadOffsetsRequest, Start, SubscribeRequest, TopicPartitions as NativePartitions, TopicPositions,
};

use crate::bounds::{Bed, LOOK, LOOKS_MAX, create, named};
use crate::kafka::wire::Wire;
use crate::node::{SHARDS, world_with_sessions};
use crate::wire::{Answer, Wire as Native};

/// Number of entries of a request.
const MANY: usize = 20_000;

/// Number of entries of a request that changes something, which may have fewer.
const CHANGES: usize = 10_000;

/// Number of partitions of the topic.
const WIDE: i32 = 20_000;

struct Names(Vec<String>);

impl Names {
    fn new() -> Self {
        Self((0..MANY).map(|n| format!("name-{n:05}")).collect())
    }

    fn map<'a, T>(&'a self, count: usize, make: impl Fn(&'a str) -> T) -> Vec<T> {
        self.0.iter().take(count).map(|name| make(name.as_str())).collect()
    }
}

/// Sends a request, and counts the entries of the response.
macro_rules! count {
    ($bed:expr, $wire:expr, $api:ident $version:literal, $request:expr, $response:ident, $count:expr) => {{
        let (answer, _) = $bed.call($wire, ApiKey::$api, $version, &$request);
        let response: $response<'_> = answer.body();
        let count: fn(&$response<'_>) -> usize = $count;
        (stringify!($api), count(&response))
    }};
}

fn bed(seed: u64) -> (Bed, Wire) {
    let mut bed = Bed::for_large_replies(seed);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), WIDE)]);
    (bed, wire)
}

#[test]
fn requests_about_very_many_groups_and_members_get_complete_responses() {
    let (mut bed, mut wire) = bed(31);
    let (names, wire) = (Names::new(), &mut wire);
    let groups = || names.map(MANY, |name| name);
    let describe = DescribeGroupsRequest { groups: groups(), include_authorized_operations: false };
    let delete = DeleteGroupsRequest { groups_names: groups() };
    let consumer = ConsumerGroupDescribeRequest { group_ids: groups(), include_authorized_operations: false };
    let leave = LeaveGroupRequest {
        group_id: "g",
        members: names.map(MANY, |member_id| LeaveGroupMember { member_id, ..Default::default() }),
        ..Default::default()
    };
    let partitions = (0..WIDE).map(|partition_index| OffsetDeletePartition { partition_index }).collect();
    let topics = vec![OffsetDeleteTopic { name: "wide", partitions }];
    let offsets = OffsetDeleteRequest { group_id: "g", topics };
    for (what, count) in [
        count!(bed, wire, DescribeGroups 5, describe, DescribeGroupsResponse, |r| r.groups.len()),
        count!(bed, wire, DeleteGroups 2, delete, DeleteGroupsResponse, |r| r.results.len()),
        count!(bed, wire, ConsumerGroupDescribe 0, consumer, ConsumerGroupDescribeResponse, |r| r.groups.len()),
        count!(bed, wire, LeaveGroup 4, leave, LeaveGroupResponse, |r| {
            if r.error_code.is_err() { MANY } else { r.members.len() }
        }),
        count!(bed, wire, OffsetDelete 0, offsets, OffsetDeleteResponse, |r| {
            if r.error_code.is_err() { MANY } else { r.topics[0].partitions.len() }
        }),
    ] {
        assert_eq!(count, MANY, "{what}");
    }
    bed.check();
}

#[test]
fn members_with_very_many_topics_protocols_and_assignments_are_answered() {
    let (mut bed, mut wire) = bed(32);
    let (names, wire) = (Names::new(), &mut wire);
    let join = JoinGroupRequest {
        group_id: "classic",
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 1000,
        protocol_type: "consumer",
        protocols: names.map(MANY, |name| JoinGroupProtocol { name, metadata: b"x" }),
        ..Default::default()
    };
    bed.call(wire, ApiKey::JoinGroup, 3, &join);
    let sync = SyncGroupRequest {
        group_id: "classic",
        generation_id: 1,
        member_id: "nobody",
        assignments: names.map(MANY, |member_id| SyncGroupAssignment { member_id, assignment: b"x" }),
        ..Default::default()
    };
    let (answer, _) = bed.call(wire, ApiKey::SyncGroup, 3, &sync);
    assert!(answer.body::<SyncGroupResponse<'_>>().error_code.is_err(), "there is no such member");
    let heartbeat = ConsumerGroupHeartbeatRequest {
        group_id: "new",
        member_id: "member",
        rebalance_timeout_ms: 1000,
        subscribed_topic_names: Some(names.map(MANY, |name| name)),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    bed.call(wire, ApiKey::ConsumerGroupHeartbeat, 0, &heartbeat);
    bed.check();
}

#[test]
fn requests_with_very_many_changes_get_complete_responses() {
    let (mut bed, mut wire) = bed(33);
    let (names, wire) = (Names::new(), &mut wire);
    let extend = CreatePartitionsRequest {
        topics: names.map(CHANGES, |name| CreatePartitionsTopic { name, count: 2, assignments: None }),
        timeout_ms: 60_000,
        validate_only: false,
    };
    let alter = AlterConfigsRequest {
        resources: names.map(CHANGES, |resource_name| AlterConfigsResource {
            resource_type: 2,
            resource_name,
            configs: Vec::new(),
        }),
        validate_only: false,
    };
    let incremental = IncrementalAlterConfigsRequest {
        resources: names.map(CHANGES, |resource_name| IncrementalAlterConfigsResource {
            resource_type: 2,
            resource_name,
            configs: Vec::new(),
        }),
        validate_only: false,
    };
    for (what, count) in [
        count!(bed, wire, CreatePartitions 3, extend, CreatePartitionsResponse, |r| r.results.len()),
        count!(bed, wire, AlterConfigs 2, alter, AlterConfigsResponse, |r| r.responses.len()),
        count!(bed, wire, IncrementalAlterConfigs 1, incremental, IncrementalAlterConfigsResponse, |r| r.responses.len()),
    ] {
        assert_eq!(count, CHANGES, "{what}");
    }
    bed.check();
}

#[test]
fn administrative_requests_about_very_many_partitions_get_complete_responses() {
    let (mut bed, mut wire) = bed(34);
    let (names, wire) = (Names::new(), &mut wire);
    let indexes: Vec<i32> = (0..WIDE).collect();
    let topics = Some(vec![DescribableLogDirTopic { topic: "wide", partitions: indexes.clone() }]);
    let sizes = DescribeLogDirsRequest { topics };
    let topics = vec![TopicRequest { name: "wide", partition_indexes: indexes.clone() }];
    let producers = DescribeProducersRequest { topics };
    // The topic counts as an entry too.
    let partitions = indexes[..CHANGES - 1].to_vec();
    let topic_partitions = Some(vec![TopicPartitions { topic: "wide", partitions }]);
    let elect = ElectLeadersRequest { topic_partitions, ..Default::default() };
    let users = Some(names.map(MANY, |name| UserName { name }));
    let scram = DescribeUserScramCredentialsRequest { users };
    let topics = names.map(MANY, |name| DescribeTopicPartitionsRequestTopic { name });
    let describe =
        DescribeTopicPartitionsRequest { topics, response_partition_limit: i32::MAX, cursor: None };
    let whole = DescribeTopicPartitionsRequest {
        topics: vec![DescribeTopicPartitionsRequestTopic { name: "wide" }],
        response_partition_limit: i32::MAX,
        cursor: None,
    };
    for (what, count) in [
        count!(bed, wire, DescribeLogDirs 4, sizes, DescribeLogDirsResponse, |r| {
            r.results.iter().flat_map(|dir| &dir.topics).map(|topic| topic.partitions.len()).sum()
        }),
        count!(bed, wire, DescribeProducers 0, producers, DescribeProducersResponse, |r| {
            r.topics[0].partitions.len()
        }),
        count!(bed, wire, ElectLeaders 2, elect, ElectLeadersResponse, |r| {
            MANY - CHANGES + 1 + r.replica_election_results[0].partition_result.len()
        }),
        count!(bed, wire, DescribeUserScramCredentials 0, scram, DescribeUserScramCredentialsResponse, |r| {
            if r.results.is_empty() { MANY } else { r.results.len() }
        }),
    ] {
        assert_eq!(count, MANY, "{what}");
    }
    // The response has its own limit, and a cursor to continue from.
    for request in [describe, whole] {
        let (answer, _) = bed.call(wire, ApiKey::DescribeTopicPartitions, 0, &request);
        let response: DescribeTopicPartitionsResponse<'_> = answer.body();
        assert!(!response.topics.is_empty());
    }
    bed.check();
}

#[test]
fn every_partition_of_a_large_transaction_gets_an_error() {
    let (mut bed, mut wire) = bed(35);
    let wire = &mut wire;
    let topics = vec![AddPartitionsToTxnTopic { name: "wide", partitions: (0..WIDE).collect() }];
    let add = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: "t",
        v3_and_below_topics: topics,
        ..Default::default()
    };
    let partition =
        |partition_index| TxnOffsetCommitRequestPartition { partition_index, ..Default::default() };
    let partitions = (0..WIDE).map(partition).collect();
    let topics = vec![TxnOffsetCommitRequestTopic { name: "wide", partitions }];
    let commit =
        TxnOffsetCommitRequest { transactional_id: "t", group_id: "g", topics, ..Default::default() };
    for (what, count) in [
        count!(bed, wire, AddPartitionsToTxn 3, add, AddPartitionsToTxnResponse, |r| {
            r.results_by_topic_v3_and_below[0].results_by_partition.len()
        }),
        count!(bed, wire, TxnOffsetCommit 3, commit, TxnOffsetCommitResponse, |r| {
            r.topics[0].partitions.len()
        }),
    ] {
        assert_eq!(count, MANY, "{what}");
    }
    bed.check();
}

/// Sends a native request. Returns the reply.
fn ask(bed: &mut Bed, native: &mut Native, body: &impl Body) -> Answer {
    native.send(body);
    let answer = (0..LOOKS_MAX).find_map(|_| {
        bed.world.run_for(LOOK);
        native.receive(usize::MAX);
        assert!(!native.is_over(), "the connection stays");
        native.pop()
    });
    answer.expect("an answer")
}

#[test]
fn native_requests_about_very_many_partitions_get_complete_replies() {
    let (mut bed, mut wire) = bed(36);
    let (answer, _) = bed.call(&mut wire, ApiKey::Metadata, 12, &named(&["wide"]));
    let response: MetadataResponse<'_> = answer.body();
    let topic = highwater_protocol::ids::TopicId(response.topics[0].topic_id);
    let address = bed.world.address(bed.node, 0);
    let native = &mut Native::connect(&mut bed.world, address, Some(0));
    let indexes = || (0..WIDE as u32).map(PartitionIndex);

    let partitions = indexes().map(|partition| (partition, Start::Latest)).collect();
    let body =
        ask(&mut bed, native, &native::ListOffsetsRequest { topic, partitions }).body.expect("no error");
    let reply = ListOffsetsReply::decode(&body).expect("a reply");
    assert!(reply.partitions.iter().map(|listed| listed.partition).eq(indexes()));
    assert!(reply.partitions.iter().all(|listed| listed.found == Ok(Some((Offset(0), None)))));

    let partitions = indexes().map(|partition| (partition, Offset(0))).collect();
    ask(&mut bed, native, &native::DeleteRecordsRequest { topic, partitions }).body.expect("no error");

    let position = |partition| CommittedOffset {
        partition,
        offset: Offset(0),
        leader_epoch: -1,
        metadata: String::new(),
    };
    let positions: Vec<_> = indexes().map(position).collect();
    let consumer = "named".to_owned();
    let commit = CommitOffsetsRequest { consumer: consumer.clone(), topic, positions: positions.clone() };
    ask(&mut bed, native, &commit).body.expect("no error");
    let body = ask(&mut bed, native, &ReadOffsetsRequest { consumer, topic }).body.expect("no error");
    assert_eq!(ReadOffsetsReply::decode(&body).expect("a reply").positions.len(), MANY);

    let topics = vec![TopicPositions { topic, positions }];
    let commit = CommitGroupOffsetsRequest { group: "g".into(), member: String::new(), epoch: -1, topics };
    ask(&mut bed, native, &commit);
    let partitions = Some(vec![NativePartitions { topic, partitions: indexes().collect() }]);
    ask(&mut bed, native, &ReadGroupOffsetsRequest { group: "g".into(), member: None, partitions });
    let heartbeat = GroupHeartbeatRequest {
        group: "members".into(),
        member: "member".into(),
        epoch: 0,
        instance: None,
        rebalance_timeout_ms: Some(1000),
        topics: Some(Names::new().0),
        assignor: None,
        owned: Some(Vec::new()),
    };
    ask(&mut bed, native, &heartbeat);

    let alter =
        AlterTopicRequest { name: "wide".into(), configs: Vec::new(), partitions: Some(2 * WIDE as u32) };
    ask(&mut bed, native, &alter).body.expect("no error");
    bed.check();
}

/// Number of subscriptions of one connection.
const SUBSCRIPTIONS: usize = 5_000;

#[test]
fn very_many_subscriptions_to_a_deleted_topic_end_in_slices() {
    let mut bed = Bed::new(37);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), 2 * SUBSCRIPTIONS as i32)]);
    let (answer, _) = bed.call(&mut wire, ApiKey::Metadata, 12, &named(&["wide"]));
    let topic = highwater_protocol::ids::TopicId(answer.body::<MetadataResponse<'_>>().topics[0].topic_id);
    let mut clients: Vec<Native> = (0..SHARDS)
        .map(|shard| {
            let address = bed.world.address(bed.node, 0);
            Native::connect(&mut bed.world, address, Some(shard))
        })
        .collect();
    let info = native::MetadataRequest { topics: Some(vec!["wide".to_owned()]) };
    let body = ask(&mut bed, &mut clients[0], &info).body.expect("no error");
    let partitions = MetadataReply::decode(&body).expect("a reply").topics.remove(0).partitions;
    for (client, shard) in clients.iter_mut().zip(0..) {
        let mut here = partitions.iter().filter(|info| info.shard.0 == shard);
        for _ in 0..SUBSCRIPTIONS {
            let partition = here.next().expect("they are distributed").index;
            let start = Start::Earliest;
            client.send(&SubscribeRequest { topic, partition, start, credit_bytes: 1 << 20 });
        }
        let mut missing = SUBSCRIPTIONS;
        for _ in 0..LOOKS_MAX {
            bed.world.run_for(LOOK);
            client.receive(usize::MAX);
            while let Some(answer) = client.pop() {
                answer.body.expect("it is subscribed to");
                missing -= 1;
            }
            if missing == 0 {
                break;
            }
        }
        assert_eq!(missing, 0);
    }
    let body = DeleteTopicsRequest { topic_names: vec!["wide"], timeout_ms: 60_000, ..Default::default() };
    let (_, served) = bed.call(&mut wire, ApiKey::DeleteTopics, 5, &body);
    assert!(served > 1, "others are served meanwhile");
    for client in &mut clients {
        let mut missing = SUBSCRIPTIONS;
        for _ in 0..LOOKS_MAX {
            client.receive(usize::MAX);
            while let Some(answer) = client.pop() {
                answer.body.expect_err("its topic was deleted");
                missing -= 1;
            }
            if missing == 0 {
                break;
            }
            bed.world.run_for(LOOK);
        }
        assert_eq!(missing, 0, "subscriptions that were not ended");
    }
    bed.check();
}

#[test]
fn the_assignment_of_very_many_partitions_to_members_with_many_expressions_is_made_in_slices() {
    let mut bed = Bed::of(world_with_sessions(38, 60_000));
    let mut wire = bed.kafka();
    let topics: Vec<_> = (0..2_000).map(|n| (format!("wide-{n:04}"), 3)).collect();
    create(&mut bed, &mut wire, &topics);
    let mut members: Vec<Member> = (0..5).map(Member::new).collect();
    for _ in 0..LOOKS_MAX {
        for member in &mut members {
            member.beat(&mut bed, &mut wire);
        }
        if members.iter().map(Member::count).sum::<usize>() == 3 * topics.len() {
            return bed.check();
        }
    }
    panic!("there are partitions that nobody has");
}

/// Adds a member to a group of the consumer protocol, with its own regular expression.
struct Member {
    id: String,
    regex: String,
    epoch: i32,
    owned: Vec<OwnedPartitions>,
}

impl Member {
    fn new(n: usize) -> Self {
        let regex = format!("wide-.*{}", "(x)?".repeat(n));
        Self { id: format!("member-{n}"), regex, epoch: 0, owned: Vec::new() }
    }

    fn beat(&mut self, bed: &mut Bed, wire: &mut Wire) {
        let heartbeat = ConsumerGroupHeartbeatRequest {
            group_id: "large",
            member_id: &self.id,
            member_epoch: self.epoch,
            rebalance_timeout_ms: 60_000,
            subscribed_topic_regex: Some(&self.regex),
            topic_partitions: Some(self.owned.clone()),
            ..Default::default()
        };
        let (answer, _) = bed.call(wire, ApiKey::ConsumerGroupHeartbeat, 1, &heartbeat);
        let response: ConsumerGroupHeartbeatResponse<'_> = answer.body();
        assert!(response.error_code == KafkaError::NONE && response.member_epoch > 0, "{response:?}");
        self.epoch = response.member_epoch;
        if let Some(assignment) = response.assignment {
            let topics = assignment.topic_partitions.into_iter();
            let owned = topics.map(|of| OwnedPartitions { topic_id: of.topic_id, partitions: of.partitions });
            self.owned = owned.collect();
        }
    }

    fn count(&self) -> usize {
        self.owned.iter().map(|topic| topic.partitions.len()).sum()
    }
}
