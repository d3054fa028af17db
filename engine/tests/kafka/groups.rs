//! Groups, through Kafka's protocol, on a simulated broker.

use crate::client::Kafka;
use crate::common::simulated::CLIENT_HOSTS;
use crate::members::{Member, commit, committed, fetch_offsets, join, start, to_commit};
use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupMember, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, OffsetCommitRequest, OffsetCommitTopic, OffsetDeletePartition, OffsetDeleteRequest,
    OffsetDeleteResponse, OffsetDeleteTopic, OffsetFetchGroup, OffsetFetchRequest, OffsetFetchResponse,
    OwnedPartitions, SyncGroupRequest, SyncGroupResponse,
};

const NONE: KafkaError = KafkaError::NONE;

#[test]
fn two_members_share_a_group_until_one_leaves() {
    let broker = start();
    let mut first = Member::new(&broker, "team");
    first.join_alone();
    assert_eq!(first.generation, 1);
    assert_eq!(first.heartbeat(), NONE);

    let mut second = Member::new(&broker, "team");
    second.send_join();
    while first.heartbeat() == NONE {}
    assert_eq!(first.heartbeat(), KafkaError::REBALANCE_IN_PROGRESS);
    first.send_join();
    let (leads, members) = first.joined();
    assert!(leads, "the leader stays");
    assert_eq!(members.len(), 2);
    assert!(members.contains(&first.id) && members.contains(&second.id));
    assert_eq!(second.joined(), (false, vec![]));
    assert_eq!((first.generation, second.generation), (2, 2));

    second.send_sync(&[]);
    let (one, two) = (first.id.clone(), second.id.clone());
    first.send_sync(&[(&one, b"partition 0"), (&two, b"partition 1")]);
    assert_eq!(first.synced(), b"partition 0");
    assert_eq!(second.synced(), b"partition 1");
    assert_eq!((first.heartbeat(), second.heartbeat()), (NONE, NONE));

    second.generation = 1;
    assert_eq!(second.heartbeat(), KafkaError::ILLEGAL_GENERATION);
    let member = LeaveGroupMember { member_id: &two, ..Default::default() };
    let stranger = LeaveGroupMember { member_id: "stranger", ..Default::default() };
    let request =
        LeaveGroupRequest { group_id: "team", members: vec![member, stranger], ..Default::default() };
    let reply = second.client.call(ApiKey::LeaveGroup, 5, &request);
    let answer: LeaveGroupResponse<'_> = reply.body();
    assert_eq!(answer.error_code, NONE);
    let errors: Vec<_> = answer.members.iter().map(|m| m.error_code).collect();
    assert_eq!(errors, [NONE, KafkaError::UNKNOWN_MEMBER_ID]);
    assert_eq!(first.heartbeat(), KafkaError::REBALANCE_IN_PROGRESS);
    assert_eq!(second.heartbeat(), KafkaError::UNKNOWN_MEMBER_ID);
    first.join_alone();
    assert_eq!(first.generation, 3);
    broker.stop();
}

#[test]
fn old_versions_join_at_once_and_leave_with_one_error() {
    let broker = start();
    let mut client = broker.kafka();
    let reply = client.call(ApiKey::JoinGroup, 0, &join("old", ""));
    let answer: JoinGroupResponse<'_> = reply.body();
    assert_eq!((answer.error_code, answer.generation_id), (NONE, 1));
    assert_eq!(answer.members.len(), 1);
    let member = answer.member_id.to_string();
    for (member, error) in [("stranger", KafkaError::UNKNOWN_MEMBER_ID), (&member, NONE)] {
        let request = LeaveGroupRequest { group_id: "old", member_id: member, ..Default::default() };
        let reply = client.call(ApiKey::LeaveGroup, 0, &request);
        assert_eq!(reply.body::<LeaveGroupResponse<'_>>().error_code, error);
    }
    let request = JoinGroupRequest { session_timeout_ms: 1, ..join("old", "") };
    let reply = client.call(ApiKey::JoinGroup, 5, &request);
    let answer: JoinGroupResponse<'_> = reply.body();
    assert_eq!(answer.error_code, KafkaError::INVALID_SESSION_TIMEOUT);
    let reply =
        client.call(ApiKey::SyncGroup, 5, &SyncGroupRequest { group_id: "old", ..Default::default() });
    let answer: SyncGroupResponse<'_> = reply.body();
    assert_eq!(answer.error_code, KafkaError::INCONSISTENT_GROUP_PROTOCOL);
    broker.stop();
}

#[test]
fn this_node_coordinates_groups_and_no_transactions() {
    let broker = start();
    let mut client = broker.kafka();
    let (host, port) = (broker.kafka_addr().ip().to_string(), i32::from(broker.kafka_addr().port()));
    for version in 0..=3 {
        let request = FindCoordinatorRequest { key: "team", ..Default::default() };
        let reply = client.call(ApiKey::FindCoordinator, version, &request);
        let answer: FindCoordinatorResponse<'_> = reply.body();
        assert_eq!((answer.error_code, answer.node_id), (NONE, 0));
        assert_eq!((&*answer.host, answer.port), (&*host, port));
    }
    let refused = KafkaError::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    for (key_type, error) in [(0, NONE), (1, refused), (7, KafkaError::INVALID_REQUEST)] {
        let request =
            FindCoordinatorRequest { key_type, coordinator_keys: vec!["a", "b", "a"], ..Default::default() };
        let reply = client.call(ApiKey::FindCoordinator, 6, &request);
        let answer: FindCoordinatorResponse<'_> = reply.body();
        let found: Vec<_> = answer.coordinators.iter().map(|c| (&*c.key, c.error_code)).collect();
        assert_eq!(found, [("a", error), ("b", error)]);
        assert_eq!(answer.coordinators[0].port, if error == NONE { port } else { -1 });
    }
    broker.stop();
}

#[test]
fn groups_are_listed_described_and_deleted() {
    let broker = start();
    broker.native().created("orders", 2, &[]);
    let mut client = broker.kafka();
    let topics = vec![OffsetCommitTopic {
        name: "orders",
        topic_id: [0; 16],
        partitions: vec![to_commit(0, 4), to_commit(1, 5)],
    }];
    assert_eq!(committed(&mut client, 8, &commit("simple", topics)), [NONE, NONE]);
    let mut member = Member::new(&broker, "team");
    member.join_alone();

    let list = |client: &mut Kafka, states: Vec<&str>, types: Vec<&str>| -> Vec<(String, String)> {
        let request = ListGroupsRequest { states_filter: states, types_filter: types };
        let reply = client.call(ApiKey::ListGroups, 5, &request);
        let answer: ListGroupsResponse<'_> = reply.body();
        assert_eq!(answer.error_code, NONE);
        answer.groups.iter().map(|g| (g.group_id.to_string(), g.group_state.to_string())).collect()
    };
    let simple = ("simple".to_owned(), "Empty".to_owned());
    let team = ("team".to_owned(), "Stable".to_owned());
    assert_eq!(list(&mut client, vec![], vec![]), [simple.clone(), team.clone()]);
    assert_eq!(list(&mut client, vec!["stable"], vec!["classic"]), std::slice::from_ref(&team));
    assert!(list(&mut client, vec![], vec!["consumer"]).is_empty());
    let names: Vec<_> = (0..200).map(|number| format!("state {number}")).collect();
    let states_filter = names.iter().map(String::as_str).collect();
    let request = ListGroupsRequest { states_filter, types_filter: vec![] };
    let reply = client.call(ApiKey::ListGroups, 5, &request);
    assert_eq!(reply.body::<ListGroupsResponse<'_>>().error_code, KafkaError::INVALID_REQUEST);

    // Repeated names are described once.
    let groups = [vec!["team"; 10_000], vec!["nobody", "team", "nobody"]].concat();
    let request = DescribeGroupsRequest { groups, include_authorized_operations: true };
    for (version, error) in [(5, NONE), (6, KafkaError::GROUP_ID_NOT_FOUND)] {
        let reply = client.call(ApiKey::DescribeGroups, version, &request);
        let answer: DescribeGroupsResponse<'_> = reply.body();
        let [team, nobody] = &answer.groups[..] else { panic!("two were requested") };
        assert_eq!((team.error_code, &*team.group_state, &*team.protocol_data), (NONE, "Stable", "range"));
        assert_eq!(&*team.protocol_type, "consumer");
        assert_eq!(&*team.members[0].client_id, "engine-test");
        assert!(team.members[0].client_host.starts_with(CLIENT_HOSTS), "{}", team.members[0].client_host);
        assert_eq!(&*team.members[0].member_assignment, b"all");
        assert!(team.authorized_operations > 0);
        assert_eq!((nobody.error_code, &*nobody.group_state), (error, "Dead"));
    }

    let partitions = [0, 7].map(|partition_index| OffsetDeletePartition { partition_index });
    let topic = |name| OffsetDeleteTopic { name, partitions: partitions.to_vec() };
    let request = OffsetDeleteRequest { group_id: "simple", topics: vec![topic("orders"), topic("nowhere")] };
    let reply = client.call(ApiKey::OffsetDelete, 0, &request);
    let answer: OffsetDeleteResponse<'_> = reply.body();
    assert_eq!(answer.error_code, NONE);
    let errors: Vec<_> = answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect();
    let unknown = KafkaError::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!((errors[0], &errors[2..]), (NONE, &[unknown, unknown][..]));
    assert_eq!(fetch_offsets(&mut client, "simple", "orders", &[0]), [(0, -1, String::new(), NONE)]);
    let request = OffsetDeleteRequest { group_id: "nobody", topics: vec![topic("orders")] };
    let reply = client.call(ApiKey::OffsetDelete, 0, &request);
    let answer: OffsetDeleteResponse<'_> = reply.body();
    assert_eq!(answer.error_code, KafkaError::GROUP_ID_NOT_FOUND);

    let request = DeleteGroupsRequest { groups_names: vec!["simple", "team", "nobody"] };
    let reply = client.call(ApiKey::DeleteGroups, 2, &request);
    let answer: DeleteGroupsResponse<'_> = reply.body();
    let errors: Vec<_> = answer.results.iter().map(|r| r.error_code).collect();
    assert_eq!(errors, [NONE, KafkaError::NON_EMPTY_GROUP, KafkaError::GROUP_ID_NOT_FOUND]);
    assert_eq!(list(&mut client, vec![], vec![]), [team]);
    broker.stop();
}

/// Returns the first heartbeat of a member of the consumer protocol, "one" in the group "modern".
fn consumer_join() -> ConsumerGroupHeartbeatRequest<'static> {
    ConsumerGroupHeartbeatRequest {
        group_id: "modern",
        member_id: "one",
        member_epoch: 0,
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec!["orders"]),
        topic_partitions: Some(vec![]),
        ..Default::default()
    }
}

/// Returns a heartbeat of the same member after it owns partitions 0 and 1 of this topic.
fn consumer_heartbeat(topic: [u8; 16], member_epoch: i32) -> ConsumerGroupHeartbeatRequest<'static> {
    ConsumerGroupHeartbeatRequest {
        member_epoch,
        rebalance_timeout_ms: -1,
        subscribed_topic_names: None,
        topic_partitions: Some(vec![OwnedPartitions { topic_id: topic, partitions: vec![0, 1] }]),
        ..consumer_join()
    }
}

/// Sends a heartbeat that is accepted. Returns the member's epoch.
fn accepted(client: &mut Kafka, heartbeat: &ConsumerGroupHeartbeatRequest<'_>) -> i32 {
    let reply = client.call(ApiKey::ConsumerGroupHeartbeat, 1, heartbeat);
    let answer: ConsumerGroupHeartbeatResponse<'_> = reply.body();
    assert_eq!(answer.error_code, NONE);
    answer.member_epoch
}

#[test]
fn a_heartbeat_without_a_member_id_or_with_an_unknown_assignor_is_rejected() {
    let broker = start();
    broker.native().created("orders", 2, &[]);
    let mut client = broker.kafka();
    let nameless = ConsumerGroupHeartbeatRequest { member_id: "", ..consumer_join() };
    let reply = client.call(ApiKey::ConsumerGroupHeartbeat, 1, &nameless);
    let answer: ConsumerGroupHeartbeatResponse<'_> = reply.body();
    assert_eq!(answer.error_code, KafkaError::INVALID_REQUEST);
    assert!(answer.error_message.is_some());
    let assignor = ConsumerGroupHeartbeatRequest { server_assignor: Some("best"), ..consumer_join() };
    let reply = client.call(ApiKey::ConsumerGroupHeartbeat, 1, &assignor);
    let answer: ConsumerGroupHeartbeatResponse<'_> = reply.body();
    assert_eq!(answer.error_code, KafkaError::UNSUPPORTED_ASSIGNOR);
    broker.stop();
}

#[test]
fn a_member_of_the_consumer_protocol_gets_its_partitions() {
    let broker = start();
    let id = broker.native().created("orders", 2, &[]).0;
    let mut client = broker.kafka();
    let reply = client.call(ApiKey::ConsumerGroupHeartbeat, 1, &consumer_join());
    let answer: ConsumerGroupHeartbeatResponse<'_> = reply.body();
    assert_eq!((answer.error_code, answer.member_id.as_deref()), (NONE, Some("one")));
    assert_eq!(answer.heartbeat_interval_ms, 5_000);
    let epoch = answer.member_epoch;
    let assigned = answer.assignment.clone().expect("an assignment").topic_partitions;
    assert_eq!(assigned.len(), 1);
    assert_eq!((assigned[0].topic_id, &assigned[0].partitions[..]), (id, &[0, 1][..]));

    let alive = consumer_heartbeat(id, epoch);
    assert_eq!(accepted(&mut client, &alive), epoch);

    let request = ConsumerGroupDescribeRequest {
        group_ids: vec!["modern", "nobody"],
        include_authorized_operations: false,
    };
    let reply = client.call(ApiKey::ConsumerGroupDescribe, 1, &request);
    let answer: ConsumerGroupDescribeResponse<'_> = reply.body();
    let [modern, nobody] = &answer.groups[..] else { panic!("two were requested") };
    assert_eq!(
        (modern.error_code, &*modern.group_state, &*modern.assignor_name),
        (NONE, "Stable", "uniform")
    );
    let member = &modern.members[0];
    assert_eq!((&*member.member_id, member.member_epoch, member.member_type), ("one", epoch, 1));
    assert_eq!(&*member.assignment.topic_partitions[0].topic_name, "orders");
    assert_eq!(nobody.error_code, KafkaError::GROUP_ID_NOT_FOUND);

    let leave = ConsumerGroupHeartbeatRequest { member_epoch: -1, ..alive.clone() };
    assert_eq!(accepted(&mut client, &leave), -1);
    let reply = client.call(ApiKey::ConsumerGroupHeartbeat, 1, &alive);
    let answer: ConsumerGroupHeartbeatResponse<'_> = reply.body();
    assert!(answer.error_code.is_err());
    broker.stop();
}

#[test]
fn offsets_of_a_member_are_committed_and_read_with_its_current_epoch_only() {
    let broker = start();
    let id = broker.native().created("orders", 2, &[]).0;
    let mut client = broker.kafka();
    let epoch = accepted(&mut client, &consumer_join());
    assert_eq!(accepted(&mut client, &consumer_heartbeat(id, epoch)), epoch);

    let topics = || vec![OffsetCommitTopic { name: "", topic_id: id, partitions: vec![to_commit(0, 4)] }];
    let of_member = |generation_id_or_member_epoch| OffsetCommitRequest {
        generation_id_or_member_epoch,
        member_id: "one",
        ..commit("modern", topics())
    };
    assert_eq!(committed(&mut client, 10, &of_member(epoch)), [NONE]);
    assert_eq!(committed(&mut client, 10, &of_member(epoch + 9)), [KafkaError::STALE_MEMBER_EPOCH]);
    for (epoch, error) in [(epoch, NONE), (epoch + 9, KafkaError::STALE_MEMBER_EPOCH)] {
        let group = OffsetFetchGroup {
            group_id: "modern",
            member_id: Some("one"),
            member_epoch: epoch,
            topics: None,
        };
        let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
        let reply = client.call(ApiKey::OffsetFetch, 10, &request);
        let answer: OffsetFetchResponse<'_> = reply.body();
        assert_eq!(answer.groups[0].error_code, error);
        assert_eq!(answer.groups[0].topics.len(), usize::from(error == NONE));
    }
    broker.stop();
}

#[test]
fn a_broker_stops_while_members_wait_for_each_other() {
    let broker = start();
    let mut first = Member::new(&broker, "team");
    first.join_alone();
    let mut second = Member::new(&broker, "team");
    second.send_join();
    while first.heartbeat() == NONE {}
    broker.shutdown();
    let reply = second.client.read(ApiKey::JoinGroup, 9).expect("an answer");
    let answer: JoinGroupResponse<'_> = reply.body();
    assert_eq!(answer.error_code, KafkaError::NOT_COORDINATOR);
    broker.wait();
}
