//! Responses with very many entries are built and written in slices, and their topics and partitions are looked up in slices.

use highwater_engine::limits::LONG_ANSWER_BYTES_PER_TURN_MAX;
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, EpochPartition, EpochTopic,
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ListOffsetsPartition, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsTopic, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use highwater_protocol::ids::{Offset, PartitionIndex};
use highwater_protocol::native::{
    self, Body as _, DescribeTopicReply, DescribeTopicRequest, MessageKind, Start,
};

use crate::bounds::{Bed, create};
use crate::large_requests::reply;
use crate::wire::Wire as Native;

const NONE: KafkaError = KafkaError::NONE;

/// Returns the units of work that all shards have done so far.
fn units(bed: &Bed) -> usize {
    let of = |shard| bed.world.app(bed.node, shard).expect("it runs").work_units();
    (0..crate::node::SHARDS).map(of).sum()
}

#[test]
fn responses_about_very_many_partitions_are_written_in_pieces() {
    const COUNT: i32 = 60_000;
    let mut bed = Bed::new(21);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), 3)]);
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    let check = |partitions: Vec<(i32, KafkaError)>| {
        let expected = |n| (n, if n < 3 { NONE } else { unknown });
        assert!(partitions.into_iter().eq((0..COUNT).map(expected)));
    };

    let partition =
        |partition_index| ListOffsetsPartition { partition_index, timestamp: -1, ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: "wide", partitions: (0..COUNT).map(partition).collect() }];
    let body = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let (answer, _) = bed.call(&mut wire, ApiKey::ListOffsets, 6, &body);
    let response: ListOffsetsResponse<'_> = answer.body();
    check(response.topics[0].partitions.iter().map(|p| (p.partition_index, p.error_code)).collect());

    let partition = |partition_index| DeleteRecordsPartition { partition_index, offset: -1 };
    let topics = vec![DeleteRecordsTopic { name: "wide", partitions: (0..COUNT).map(partition).collect() }];
    let (answer, _) =
        bed.call(&mut wire, ApiKey::DeleteRecords, 2, &DeleteRecordsRequest { topics, timeout_ms: 1000 });
    let response: DeleteRecordsResponse<'_> = answer.body();
    check(response.topics[0].partitions.iter().map(|p| (p.partition_index, p.error_code)).collect());

    let partition = |partition| EpochPartition { partition, current_leader_epoch: -1, ..Default::default() };
    let topics = vec![EpochTopic { topic: "wide", partitions: (0..COUNT).map(partition).collect() }];
    let body = OffsetForLeaderEpochRequest { replica_id: -1, topics };
    let (answer, _) = bed.call(&mut wire, ApiKey::OffsetForLeaderEpoch, 3, &body);
    let response: OffsetForLeaderEpochResponse<'_> = answer.body();
    check(response.topics[0].partitions.iter().map(|p| (p.partition, p.error_code)).collect());

    bed.check();
    let sent = bed.world.busiest_turn(bed.node).bytes_sent;
    assert!(sent <= LONG_ANSWER_BYTES_PER_TURN_MAX + (64 << 10), "{sent} bytes in a turn");
}

#[test]
fn native_requests_about_very_many_partitions_are_looked_up_and_answered_in_slices() {
    const COUNT: u32 = 60_000;
    let mut bed = Bed::new(22);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), 3)]);
    let address = bed.world.address(bed.node, 0);
    let mut native = Native::connect(&mut bed.world, address, Some(0));
    native.send(&DescribeTopicRequest { name: "wide".to_owned() });
    let told = reply(&mut bed, &mut native, MessageKind::DescribeTopic);
    let topic = DescribeTopicReply::decode(&told).expect("a reply").id;
    let before = units(&bed);
    let partitions = (0..COUNT).map(|n| (PartitionIndex(n % 3), Start::Latest)).collect();
    native.send(&native::ListOffsetsRequest { topic, partitions });
    let told = reply(&mut bed, &mut native, MessageKind::ListOffsets);
    let told = native::ListOffsetsReply::decode(&told).expect("a reply").partitions;
    assert!(told.iter().map(|listed| listed.partition.0).eq((0..COUNT).map(|n| n % 3)));
    assert!(told.iter().all(|listed| listed.found == Ok(Some((Offset(0), None)))));
    // Each partition is looked up here and by its owner, filled in and written.
    let done = units(&bed) - before;
    assert!(done >= 2 * COUNT as usize + 1000, "{done} units");

    let before = units(&bed);
    let partitions = (0..COUNT).map(|n| (PartitionIndex(n % 3), Offset(0))).collect();
    native.send(&native::DeleteRecordsRequest { topic, partitions });
    reply(&mut bed, &mut native, MessageKind::DeleteRecords);
    let done = units(&bed) - before;
    assert!(done >= 2 * COUNT as usize, "{done} units");
    bed.check();
    let sent = bed.world.busiest_turn(bed.node).bytes_sent;
    assert!(sent <= LONG_ANSWER_BYTES_PER_TURN_MAX + (64 << 10), "{sent} bytes in a turn");
}

#[test]
fn the_response_to_a_fetch_of_very_many_partitions_is_built_in_slices() {
    const COUNT: i32 = 40_000;
    let mut bed = Bed::new(23);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), 3)]);
    let before = units(&bed);
    let partition = |partition| FetchPartition { partition, ..Default::default() };
    let topics = vec![FetchTopic {
        topic: "wide",
        topic_id: [0; 16],
        partitions: (3..COUNT).map(partition).collect(),
    }];
    let body = FetchRequest { max_bytes: 1 << 20, topics, ..Default::default() };
    let (answer, _) = bed.call(&mut wire, ApiKey::Fetch, 12, &body);
    let partitions = &answer.body::<FetchResponse<'_>>().responses[0].partitions;
    assert!(partitions.iter().map(|p| p.partition_index).eq(3..COUNT));
    let done = units(&bed) - before;
    assert!(done >= COUNT as usize + COUNT as usize / 10, "{done} units");
    bed.check();
}

#[test]
fn very_many_resources_of_one_request_are_looked_up_in_slices() {
    const COUNT: usize = 30_000;
    let mut bed = Bed::new(24);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), 3)]);
    let names: Vec<String> =
        (0..COUNT).map(|n| if n == 7 { "wide".into() } else { format!("t{n}") }).collect();
    let resource = |name, configuration_keys| DescribeConfigsResource {
        resource_type: 2,
        resource_name: name,
        configuration_keys,
    };
    // Every topic twice, and one topic with many entries.
    let mut resources: Vec<_> =
        names.iter().chain(&names).map(|name| resource(name.as_str(), None)).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).chain(["retention.ms"]).collect();
    resources[7].configuration_keys = Some(keys);
    let before = units(&bed);
    let body = DescribeConfigsRequest { resources, ..Default::default() };
    let (answer, _) = bed.call(&mut wire, ApiKey::DescribeConfigs, 4, &body);
    let response: DescribeConfigsResponse<'_> = answer.body();
    assert!(
        response.results.iter().map(|result| &*result.resource_name).eq(names.iter().map(String::as_str))
    );
    for (n, result) in response.results.iter().enumerate() {
        let expected = if n == 7 { NONE } else { KafkaError::UNKNOWN_TOPIC_OR_PARTITION };
        assert_eq!(result.error_code, expected, "{n}");
    }
    let configs: Vec<&str> = response.results[7].configs.iter().map(|entry| &*entry.name).collect();
    assert_eq!(configs, ["retention.ms"]);
    let done = units(&bed) - before;
    assert!(done >= 2 * 2 * COUNT + COUNT, "{done} units");
    bed.check();
}
