//! Offsets of groups, through Kafka's protocol, on a simulated broker.

use crate::common::Client;
use crate::members::{Member, commit, committed, fetch_offsets, start, to_commit};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    OffsetCommitRequest, OffsetCommitTopic, OffsetFetchGroup, OffsetFetchGroupTopic, OffsetFetchRequest,
    OffsetFetchResponse,
};
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{
    Body as _, CommitOffsetsRequest, CommittedOffset, ReadOffsetsReply, ReadOffsetsRequest,
};

const NONE: KafkaError = KafkaError::NONE;

fn positions(client: &mut Client, consumer: &str, topic: TopicId) -> Vec<(u32, i64, String)> {
    let reply = client.call(&ReadOffsetsRequest { consumer: consumer.into(), topic }).ok();
    let reply = ReadOffsetsReply::decode(&reply).expect("a reply");
    reply.positions.into_iter().map(|p| (p.partition.0, p.offset.0, p.metadata)).collect()
}

#[test]
fn committed_offsets_are_the_same_in_both_protocols_and_survive_a_restart() {
    let broker = start();
    let topic = broker.native().created("orders", 3, &[]);
    let by_name = |name, partitions| OffsetCommitTopic { name, topic_id: [0; 16], partitions };
    let request = commit(
        "readers",
        vec![
            by_name("orders", vec![to_commit(0, 7), to_commit(9, 1), to_commit(-1, 1)]),
            by_name("nowhere", vec![to_commit(0, 1)]),
        ],
    );
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    let mut client = broker.kafka();
    assert_eq!(committed(&mut client, 2, &request), [NONE, unknown, unknown, unknown]);
    assert_eq!(positions(&mut broker.native(), "readers", topic), [(0, 7, "noted".into())]);

    let position = CommittedOffset {
        partition: PartitionIndex(1),
        offset: Offset(5),
        leader_epoch: -1,
        metadata: "natively".into(),
    };
    let request = CommitOffsetsRequest { consumer: "readers".into(), topic, positions: vec![position] };
    broker.native().call(&request).ok();
    let all =
        [(0, 7, "noted".to_owned(), NONE), (1, 5, "natively".to_owned(), NONE), (2, -1, String::new(), NONE)];
    assert_eq!(fetch_offsets(&mut client, "readers", "orders", &[0, 1, 2]), all);
    assert_eq!(fetch_offsets(&mut client, "readers", "nowhere", &[0]), [(0, -1, String::new(), NONE)]);
    assert_eq!(fetch_offsets(&mut client, "nobody", "orders", &[0]), [(0, -1, String::new(), NONE)]);
    broker.restart();
    assert_eq!(fetch_offsets(&mut broker.kafka(), "readers", "orders", &[0, 1, 2]), all);
    broker.stop();
}

#[test]
fn offsets_are_committed_and_fetched_by_topic_id() {
    let broker = start();
    let id = broker.native().created("orders", 2, &[]).0;
    let mut client = broker.kafka();
    let by_id = |topic_id, partitions| OffsetCommitTopic { name: "", topic_id, partitions };
    let request =
        commit("readers", vec![by_id(id, vec![to_commit(1, 3)]), by_id([9; 16], vec![to_commit(0, 1)])]);
    assert_eq!(committed(&mut client, 10, &request), [NONE, KafkaError::UNKNOWN_TOPIC_ID]);
    let requested =
        |topic_id, partitions| OffsetFetchGroupTopic { name: "", topic_id, partition_indexes: partitions };
    let group = |group_id, topics| OffsetFetchGroup { group_id, topics, ..Default::default() };
    let request = OffsetFetchRequest {
        groups: vec![
            group("readers", Some(vec![requested(id, vec![0, 1]), requested([9; 16], vec![0])])),
            group("nobody", None),
            // Repeated names are described once.
            group("readers", Some(vec![requested(id, vec![1; 10_000])])),
        ],
        ..Default::default()
    };
    let mut reported = |request| -> Vec<Vec<_>> {
        let reply = client.call(ApiKey::OffsetFetch, 10, &request);
        let answer: OffsetFetchResponse<'_> = reply.body();
        let groups = answer.groups.iter().map(|group| {
            assert_eq!(group.error_code, NONE);
            let partitions = group.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.topic_id, p)));
            partitions.map(|(id, p)| (id, p.partition_index, p.committed_offset, p.error_code)).collect()
        });
        groups.collect()
    };
    let unknown = ([9; 16], 0, -1, KafkaError::UNKNOWN_TOPIC_ID);
    assert_eq!(reported(request), [vec![(id, 0, -1, NONE), (id, 1, 3, NONE), unknown], vec![]]);
    let groups = vec![group("readers", Some(vec![requested(id, vec![0])])), group("readers", None)];
    let request = OffsetFetchRequest { groups, ..Default::default() };
    assert_eq!(reported(request), [vec![(id, 1, 3, NONE)]], "all is more than some");
    broker.stop();
}

#[test]
fn members_and_their_generation_outlive_a_restart_and_only_they_commit() {
    let broker = start();
    broker.native().created("orders", 1, &[]);
    let mut member = Member::new(&broker, "team");
    member.join_alone();
    broker.restart();
    member.client = broker.kafka();
    assert_eq!(member.heartbeat(), NONE);
    let topics =
        || vec![OffsetCommitTopic { name: "orders", topic_id: [0; 16], partitions: vec![to_commit(0, 4)] }];
    let of_member = OffsetCommitRequest {
        generation_id_or_member_epoch: member.generation,
        member_id: &member.id,
        ..commit("team", topics())
    };
    let mut client = broker.kafka();
    let stranger = commit("team", topics());
    assert_eq!(committed(&mut client, 8, &stranger), [KafkaError::UNKNOWN_MEMBER_ID]);
    let late = OffsetCommitRequest { generation_id_or_member_epoch: 7, ..of_member.clone() };
    assert_eq!(committed(&mut client, 8, &late), [KafkaError::ILLEGAL_GENERATION]);
    assert_eq!(committed(&mut client, 8, &of_member), [NONE]);
    let long = "x".repeat(5000);
    let mut too_long = of_member.clone();
    too_long.topics[0].partitions[0].committed_metadata = Some(&long);
    assert_eq!(committed(&mut client, 8, &too_long), [KafkaError::OFFSET_METADATA_TOO_LARGE]);
    assert_eq!(fetch_offsets(&mut client, "team", "orders", &[0]), [(0, 4, "noted".into(), NONE)]);
    broker.stop();
}
