//! Requests with very many entries: they are decoded one at a time and handled in slices, and others are served in between.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic, EpochPartition,
    EpochTopic, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FindCoordinatorRequest,
    FindCoordinatorResponse, ListGroupsRequest, ListGroupsResponse, ListOffsetsPartition, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsTopic, MetadataRequest, MetadataRequestTopic, MetadataResponse,
    OffsetCommitPartition, OffsetCommitRequest, OffsetCommitResponse, OffsetCommitTopic, OffsetFetchGroup,
    OffsetFetchGroupTopic, OffsetFetchRequest, OffsetFetchResponse, OffsetFetchTopic,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProducePartition, ProduceRequest,
    ProduceResponse, ProduceTopic,
};
use highwater_protocol::native::{
    Body as _, DescribeTopicReply, DescribeTopicRequest, MessageKind, MetadataReply,
};

use crate::bounds::{Bed, LOOK, LOOKS_MAX, WIDE, create, named};
use crate::kafka::wire::Wire;
use crate::wire::Wire as Native;

const NONE: KafkaError = KafkaError::NONE;

/// Minimum number of replies to another client while a lookup takes dozens of turns.
const MANY_TURNS: usize = 4;

fn commit(group: &str, partitions: std::ops::Range<i32>) -> OffsetCommitRequest<'_> {
    let partition = |partition_index| OffsetCommitPartition {
        partition_index,
        committed_offset: i64::from(partition_index) + 7,
        ..Default::default()
    };
    let topic = OffsetCommitTopic {
        name: "wide",
        topic_id: [0; 16],
        partitions: partitions.map(partition).collect(),
    };
    OffsetCommitRequest { group_id: group, topics: vec![topic], ..Default::default() }
}

fn is_committed(response: &OffsetCommitResponse<'_>, count: usize) -> bool {
    let partitions = &response.topics[0].partitions;
    partitions.len() == count && partitions.iter().all(|partition| partition.error_code == NONE)
}

#[test]
fn very_many_offsets_of_one_group_are_stored_and_returned_in_pieces() {
    let mut bed = Bed::for_large_replies(11);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), WIDE)]);
    let (answer, served) = bed.call(&mut wire, ApiKey::OffsetCommit, 8, &commit("g", 0..WIDE));
    assert!(is_committed(&answer.body(), WIDE as usize));
    assert!(served > 1, "others are served meanwhile");
    let indexes: Vec<i32> = (0..WIDE).collect();
    let of_one = |topics| OffsetFetchRequest { group_id: "g", topics, ..Default::default() };
    let of_several = |topics| {
        let group = OffsetFetchGroup { group_id: "g", topics, ..Default::default() };
        OffsetFetchRequest { groups: vec![group], ..Default::default() }
    };
    let old = OffsetFetchTopic { name: "wide", partition_indexes: indexes.clone() };
    let new = OffsetFetchGroupTopic { name: "wide", topic_id: [0; 16], partition_indexes: indexes };
    let requests = [
        (7, of_one(None)),
        (7, of_one(Some(vec![old]))),
        (8, of_several(None)),
        (8, of_several(Some(vec![new]))),
    ];
    for (version, request) in requests {
        let (answer, served) = bed.call(&mut wire, ApiKey::OffsetFetch, version, &request);
        let response: OffsetFetchResponse<'_> = answer.body();
        let offsets: Vec<(i32, i64)> = match version {
            7 => response.topics[0]
                .partitions
                .iter()
                .map(|p| (p.partition_index, p.committed_offset))
                .collect(),
            _ => response.groups[0].topics[0]
                .partitions
                .iter()
                .map(|p| (p.partition_index, p.committed_offset))
                .collect(),
        };
        assert!(offsets.into_iter().eq((0..WIDE).map(|n| (n, i64::from(n) + 7))), "version {version}");
        assert!(served > 1, "others are served meanwhile");
    }
    bed.check();
}

#[test]
fn very_many_groups_are_listed_in_pieces() {
    let mut bed = Bed::for_large_replies(12);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), 1)]);
    let names: Vec<String> = (0..5000).map(|n| format!("group-{n:04}")).collect();
    for some in names.chunks(250) {
        for name in some {
            wire.send(ApiKey::OffsetCommit, 8, &commit(name, 0..1));
        }
        for _ in some {
            assert!(is_committed(&bed.wait(&mut wire).0.body(), 1));
        }
    }
    let (answer, _) = bed.call(&mut wire, ApiKey::ListGroups, 4, &ListGroupsRequest::default());
    let response: ListGroupsResponse<'_> = answer.body();
    assert!(response.groups.iter().map(|group| &*group.group_id).eq(names.iter().map(String::as_str)));
    bed.check();
}

#[test]
fn a_produce_request_for_very_many_partitions_is_handled_in_slices() {
    let mut bed = Bed::new(13);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), WIDE)]);
    // Nothing is appended, because each partition with records uses space on disk.
    let records = [0; 70];
    let partition = |index| ProducePartition { index, records: Some(&records[..]) };
    let topic =
        ProduceTopic { name: "wide", topic_id: [0; 16], partition_data: (0..WIDE).map(partition).collect() };
    let body = ProduceRequest { acks: -1, timeout_ms: 1000, topic_data: vec![topic], ..Default::default() };
    let (answer, served) = bed.call(&mut wire, ApiKey::Produce, 9, &body);
    let response: ProduceResponse<'_> = answer.body();
    let partitions = &response.responses[0].partition_responses;
    assert_eq!(partitions.len(), WIDE as usize);
    assert!(partitions.iter().zip(0..).all(|(p, index)| p.index == index && p.error_code.is_err()));
    assert!(served > 1, "others are served meanwhile");
    bed.check();
}

#[test]
fn very_many_partitions_are_read_and_trimmed_in_slices() {
    let mut bed = Bed::new(14);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), WIDE)]);
    let partition =
        |partition| FetchPartition { partition, partition_max_bytes: 1 << 20, ..Default::default() };
    let topic =
        FetchTopic { topic: "wide", topic_id: [0; 16], partitions: (0..WIDE).map(partition).collect() };
    let body = FetchRequest { max_bytes: 1 << 20, topics: vec![topic], ..Default::default() };
    let (answer, served) = bed.call(&mut wire, ApiKey::Fetch, 12, &body);
    let response: FetchResponse<'_> = answer.body();
    let partitions = &response.responses[0].partitions;
    assert!(partitions.len() == WIDE as usize && partitions.iter().all(|p| p.error_code == NONE));
    assert!(served > 0, "others are served meanwhile");
    let partition = |partition_index| DeleteRecordsPartition { partition_index, offset: -1 };
    let topic = DeleteRecordsTopic { name: "wide", partitions: (0..WIDE).map(partition).collect() };
    let body = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 };
    let (answer, served) = bed.call(&mut wire, ApiKey::DeleteRecords, 2, &body);
    let response: DeleteRecordsResponse<'_> = answer.body();
    let partitions = &response.topics[0].partitions;
    assert!(partitions.len() == WIDE as usize && partitions.iter().all(|p| p.error_code == NONE));
    assert!(served > 0, "others are served meanwhile");
    bed.check();
}

/// Returns the reply to the only request of a native client.
pub(crate) fn reply(bed: &mut Bed, native: &mut Native, kind: MessageKind) -> Vec<u8> {
    let body = (0..LOOKS_MAX).find_map(|_| {
        bed.world.run_for(LOOK);
        native.receive(usize::MAX);
        native.pop().filter(|answer| answer.kind == kind).map(|answer| answer.body)
    });
    body.expect("an answer").expect("no error")
}

#[test]
fn very_many_topics_are_looked_up_in_slices_and_described_once() {
    let mut bed = Bed::new(15);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), WIDE)]);
    let mut names: Vec<String> = (0..40_000).map(|n| format!("topic-{n:05}")).collect();
    names[7] = "wide".to_owned();
    let twice: Vec<String> = names.iter().chain(&names).cloned().collect();
    let topic = |name| MetadataRequestTopic { topic_id: [0; 16], name: Some(name) };
    let topics = Some(twice.iter().map(|name| topic(name.as_str())).collect());
    let body = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
    let (answer, served) = bed.call(&mut wire, ApiKey::Metadata, 9, &body);
    let response: MetadataResponse<'_> = answer.body();
    assert!(
        response
            .topics
            .iter()
            .map(|topic| topic.name.as_deref())
            .eq(names.iter().map(|name| Some(name.as_str())))
    );
    assert!(response.topics.iter().enumerate().all(|(n, topic)| (topic.error_code == NONE) == (n == 7)));
    assert!(served > 1, "others are served meanwhile");

    let address = bed.world.address(bed.node, 0);
    let mut native = Native::connect(&mut bed.world, address, None);
    native.send(&highwater_protocol::native::MetadataRequest { topics: Some(twice) });
    let told = MetadataReply::decode(&reply(&mut bed, &mut native, MessageKind::Metadata)).expect("a reply");
    assert!(told.topics.iter().map(|topic| &topic.name).eq(&names));
    assert_eq!(told.topics[7].partitions.len(), WIDE as usize);
    native.send(&DescribeTopicRequest { name: "wide".to_owned() });
    let told = DescribeTopicReply::decode(&reply(&mut bed, &mut native, MessageKind::DescribeTopic))
        .expect("a reply");
    assert!(told.partitions.iter().zip(0..).all(|(partition, n)| partition.info.index.0 == n));
    assert_eq!(told.partitions.len(), WIDE as usize);
    bed.check();
}

#[test]
fn large_requests_of_several_clients_are_decoded_one_at_a_time() {
    let mut bed = Bed::new(16);
    let mut clients: Vec<_> = (0..6).map(|_| bed.kafka()).collect();
    let groups: Vec<String> = (0..70_000).map(|n| format!("{n:05}")).collect();
    let group = |group_id| OffsetFetchGroup { group_id, topics: None, ..Default::default() };
    let body = OffsetFetchRequest {
        groups: groups.iter().map(|name| group(name.as_str())).collect(),
        ..Default::default()
    };
    for _ in 0..2 {
        for client in &mut clients {
            client.send(ApiKey::OffsetFetch, 8, &body);
        }
    }
    let mut missing = 2 * clients.len();
    for _ in 0..LOOKS_MAX {
        bed.world.run_for(LOOK);
        // All of them receive: unreceived responses would hold the memory for further requests.
        for client in &mut clients {
            if let Some((_, answer)) = client.receive(usize::MAX) {
                assert_eq!(answer.body::<OffsetFetchResponse<'_>>().groups.len(), groups.len());
                missing -= 1;
            }
        }
        if missing == 0 {
            break;
        }
    }
    assert_eq!(missing, 0, "answers that have not come");
    bed.check();
    for shard in 0..crate::node::SHARDS {
        let app = bed.world.app(bed.node, shard).expect("it runs");
        assert!(app.busiest_turn_entries() < 2 * groups.len(), "shard {shard} read two at once");
    }
}

#[test]
fn small_requests_are_answered_while_large_ones_use_all_the_memory_that_these_may_use() {
    let mut bed = Bed::for_large_replies(21);
    let names = many_names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut large: Vec<_> = (0..8).map(|_| bed.kafka()).collect();
    let mut small: Vec<_> = (0..8).map(|_| bed.kafka()).collect();
    let undisturbed = longest_answer(&mut bed, &mut [], &mut small);
    for wire in &mut large {
        let request = MetadataRequest { allow_auto_topic_creation: false, ..named(&names) };
        wire.send(ApiKey::Metadata, 4, &request);
    }
    let longest = longest_answer(&mut bed, &mut large, &mut small);
    assert!(
        longest < undisturbed + undisturbed / 4,
        "an answer took {longest} looks, and {undisturbed} when nobody asked for more"
    );
    bed.check();
}

/// Lets clients ask for little all the time, until all of `large` are answered or a few hundred looks are over. Returns how many looks an answer took at
/// most.
fn longest_answer(bed: &mut Bed, large: &mut [Wire], small: &mut [Wire]) -> usize {
    let mut asked_at = vec![None; small.len()];
    let (mut longest, mut missing) = (0, large.len());
    for look in 0_usize.. {
        if missing == 0 && look >= 500 {
            break;
        }
        for (wire, asked_at) in small.iter_mut().zip(&mut asked_at) {
            if wire.receive(usize::MAX).is_some()
                && let Some(asked_at) = asked_at.take()
            {
                longest = longest.max(look - asked_at);
            }
            if asked_at.is_none() {
                wire.send(ApiKey::Metadata, 4, &named(&[]));
                *asked_at = Some(look);
            }
        }
        bed.world.run_for(LOOK);
        missing -= large.iter_mut().filter_map(|wire| wire.receive(usize::MAX)).count();
    }
    longest
}

/// Returns names of topics of which only one exists, the one with many partitions.
fn many_names() -> Vec<String> {
    let mut names: Vec<String> = (0..40_000).map(|n| format!("topic-{n:05}")).collect();
    "wide".clone_into(&mut names[7]);
    names
}

#[test]
fn very_many_different_topics_of_one_request_are_looked_up_in_slices() {
    let mut bed = Bed::new(17);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), 3)]);
    let names = many_names();
    let errors = |errors: Vec<KafkaError>, served| {
        assert_eq!(errors.len(), names.len());
        let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
        let right = |(n, error): (usize, &KafkaError)| *error == if n == 7 { NONE } else { unknown };
        assert!(errors.iter().enumerate().all(right));
        assert!(served >= MANY_TURNS, "others are served meanwhile: {served}");
    };

    let partitions = vec![FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() }];
    let topic = |name| FetchTopic { topic: name, topic_id: [0; 16], partitions: partitions.clone() };
    let topics = names.iter().map(|name| topic(name.as_str())).collect();
    let body = FetchRequest { max_bytes: 1 << 20, topics, ..Default::default() };
    let (answer, served) = bed.call(&mut wire, ApiKey::Fetch, 12, &body);
    let response: FetchResponse<'_> = answer.body();
    errors(response.responses.iter().map(|topic| topic.partitions[0].error_code).collect(), served);

    let partitions = vec![ListOffsetsPartition { timestamp: -1, ..Default::default() }];
    let topic = |name| ListOffsetsTopic { name, partitions: partitions.clone() };
    let topics = names.iter().map(|name| topic(name.as_str())).collect();
    let body = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let (answer, served) = bed.call(&mut wire, ApiKey::ListOffsets, 6, &body);
    let response: ListOffsetsResponse<'_> = answer.body();
    errors(response.topics.iter().map(|topic| topic.partitions[0].error_code).collect(), served);

    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: -1 }];
    let topic = |name| DeleteRecordsTopic { name, partitions: partitions.clone() };
    let topics = names.iter().map(|name| topic(name.as_str())).collect();
    let body = DeleteRecordsRequest { topics, timeout_ms: 1000 };
    let (answer, served) = bed.call(&mut wire, ApiKey::DeleteRecords, 2, &body);
    let response: DeleteRecordsResponse<'_> = answer.body();
    errors(response.topics.iter().map(|topic| topic.partitions[0].error_code).collect(), served);

    let partitions = vec![EpochPartition { current_leader_epoch: -1, ..Default::default() }];
    let topic = |topic| EpochTopic { topic, partitions: partitions.clone() };
    let topics = names.iter().map(|name| topic(name.as_str())).collect();
    let body = OffsetForLeaderEpochRequest { replica_id: -1, topics };
    let (answer, served) = bed.call(&mut wire, ApiKey::OffsetForLeaderEpoch, 3, &body);
    let response: OffsetForLeaderEpochResponse<'_> = answer.body();
    errors(response.topics.iter().map(|topic| topic.partitions[0].error_code).collect(), served);

    let body = FindCoordinatorRequest {
        coordinator_keys: names.iter().chain(&names).map(String::as_str).collect(),
        ..Default::default()
    };
    let (answer, served) = bed.call(&mut wire, ApiKey::FindCoordinator, 4, &body);
    let response: FindCoordinatorResponse<'_> = answer.body();
    assert!(response.coordinators.iter().map(|found| &*found.key).eq(names.iter().map(String::as_str)));
    assert!(response.coordinators.iter().all(|found| found.error_code == NONE && found.port > 0));
    assert!(served >= MANY_TURNS, "others are served meanwhile: {served}");
    bed.check();
}

#[test]
fn partitions_that_a_large_request_lists_twice_get_an_error_and_the_others_are_answered() {
    let mut bed = Bed::new(18);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), 3000)]);
    let partition =
        |index| ListOffsetsPartition { partition_index: index, timestamp: -1, ..Default::default() };
    // Once more in the same entry and once in another of the same name.
    let all = (0..3000).chain([2999]).map(partition).collect();
    let topics = vec![
        ListOffsetsTopic { name: "wide", partitions: all },
        ListOffsetsTopic { name: "wide", partitions: vec![partition(5)] },
    ];
    let body = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let (answer, _) = bed.call(&mut wire, ApiKey::ListOffsets, 6, &body);
    let response: ListOffsetsResponse<'_> = answer.body();
    let told = response.topics.iter().flat_map(|topic| &topic.partitions);
    assert!(told.clone().map(|p| p.partition_index).eq((0..3000).chain([2999, 5])));
    for partition in told {
        let is_twice = [5, 2999].contains(&partition.partition_index);
        let expected = if is_twice { KafkaError::INVALID_REQUEST } else { NONE };
        assert_eq!(partition.error_code, expected, "{partition:?}");
    }
    bed.check();
}

#[test]
fn requests_after_a_fetch_of_very_many_topics_are_answered_in_order() {
    let mut bed = Bed::new(19);
    let mut wire = bed.kafka();
    create(&mut bed, &mut wire, &[("wide".into(), 3)]);
    let names = many_names();
    let partitions = vec![FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() }];
    let topic = |name| FetchTopic { topic: name, topic_id: [0; 16], partitions: partitions.clone() };
    for count in [500, 1, 3000] {
        let topics = names.iter().take(count).map(|name| topic(name.as_str())).collect();
        let body = FetchRequest { max_bytes: 1 << 20, topics, ..Default::default() };
        wire.send(ApiKey::Fetch, 12, &body);
        wire.send(ApiKey::Metadata, 9, &crate::bounds::named(&["wide"]));
    }
    for count in [500, 1, 3000] {
        let (answer, _) = bed.wait(&mut wire);
        assert_eq!(answer.body::<FetchResponse<'_>>().responses.len(), count);
        let (answer, _) = bed.wait(&mut wire);
        assert_eq!(answer.body::<MetadataResponse<'_>>().topics.len(), 1);
    }
    bed.check();
}

#[test]
fn large_requests_of_native_clients_are_decoded_one_at_a_time() {
    let mut bed = Bed::new(20);
    let address = bed.world.address(bed.node, 0);
    let mut clients: Vec<_> = (0..6).map(|_| Native::connect(&mut bed.world, address, Some(0))).collect();
    let names: Vec<String> = (0..70_000).map(|n| format!("{n:05}")).collect();
    let body = highwater_protocol::native::MetadataRequest { topics: Some(names.clone()) };
    for client in &mut clients {
        client.send(&body);
    }
    let mut missing = clients.len();
    for _ in 0..LOOKS_MAX {
        bed.world.run_for(LOOK);
        for client in &mut clients {
            client.receive(usize::MAX);
            while let Some(answer) = client.pop() {
                let told = MetadataReply::decode(&answer.body.expect("no error")).expect("a reply");
                assert_eq!(told.topics.len(), names.len());
                missing -= 1;
            }
        }
        if missing == 0 {
            break;
        }
    }
    assert_eq!(missing, 0, "answers that have not come");
    bed.check();
    let app = bed.world.app(bed.node, 0).expect("it runs");
    assert!(app.busiest_turn_entries() < 2 * names.len(), "{} entries in a turn", app.busiest_turn_entries());
}
