//! Members of the native protocol in groups with Kafka clients.

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use highwater_protocol::native::{
    Body as _, CommitGroupOffsetsReply, CommitGroupOffsetsRequest, CommittedOffset, DeleteGroupRequest,
    DescribeGroupReply, DescribeGroupRequest, GroupHeartbeatReply, GroupHeartbeatRequest, JOIN_EPOCH,
    LEAVE_EPOCH, ListGroupsReply, ListGroupsRequest, ReadGroupOffsetsReply, ReadGroupOffsetsRequest,
    RejectedPosition, TopicPartitions, TopicPositions,
};

use crate::client::Kafka;
use crate::common::simulated::CLIENT_HOSTS;
use crate::common::{Answer, Client};
use crate::members::{Member, start};

/// Returns a heartbeat of a member without changes.
fn beat(group: &str, epoch: i32) -> GroupHeartbeatRequest {
    GroupHeartbeatRequest {
        group: group.into(),
        member: "native-1".into(),
        epoch,
        instance: None,
        rebalance_timeout_ms: None,
        topics: None,
        assignor: None,
        owned: None,
    }
}

fn join(group: &str) -> GroupHeartbeatRequest {
    GroupHeartbeatRequest {
        rebalance_timeout_ms: Some(60_000),
        topics: Some(vec!["orders".into()]),
        owned: Some(vec![]),
        ..beat(group, JOIN_EPOCH)
    }
}

fn expect_heartbeat(answer: Answer) -> GroupHeartbeatReply {
    GroupHeartbeatReply::decode(&answer.ok()).expect("a reply")
}

/// Returns the partitions of the only topic.
fn of(topic: TopicId, assignment: Option<&Vec<TopicPartitions>>) -> Option<Vec<u32>> {
    let assignment = assignment?;
    assert!(assignment.iter().all(|of| of.topic == topic));
    Some(assignment.iter().flat_map(|of| &of.partitions).map(|p| p.0).collect())
}

fn owned(topic: TopicId, partitions: &[u32]) -> Vec<TopicPartitions> {
    let partitions = partitions.iter().map(|p| PartitionIndex(*p)).collect();
    vec![TopicPartitions { topic, partitions }]
}

/// Sends a Kafka member's heartbeat. Returns the epoch, and the partitions if they have changed.
fn kafka_beat(client: &mut Kafka, epoch: i32) -> (i32, Option<Vec<i32>>) {
    let joins = epoch == JOIN_EPOCH;
    let request = ConsumerGroupHeartbeatRequest {
        group_id: "billing",
        member_id: "kafka-1",
        member_epoch: epoch,
        rebalance_timeout_ms: if joins { 60_000 } else { -1 },
        subscribed_topic_names: joins.then(|| vec!["orders"]),
        topic_partitions: joins.then(Vec::new),
        ..Default::default()
    };
    let reply = client.call(ApiKey::ConsumerGroupHeartbeat, 1, &request);
    let answer: ConsumerGroupHeartbeatResponse<'_> = reply.body();
    assert_eq!(answer.error_code, KafkaError::NONE, "{:?}", answer.error_message);
    let assignment =
        answer.assignment.map(|a| a.topic_partitions.into_iter().flat_map(|t| t.partitions).collect());
    (answer.member_epoch, assignment)
}

fn commit(client: &mut Client, topic: TopicId, epoch: i32, partitions: &[u32]) -> Answer {
    let positions = partitions.iter().map(|partition| CommittedOffset {
        partition: PartitionIndex(*partition),
        offset: Offset(i64::from(*partition) + 10),
        leader_epoch: 0,
        metadata: String::new(),
    });
    client.call(&CommitGroupOffsetsRequest {
        group: "billing".into(),
        member: "native-1".into(),
        epoch,
        topics: vec![TopicPositions { topic, positions: positions.collect() }],
    })
}

#[test]
fn a_native_and_a_kafka_member_share_partitions_and_each_is_revoked_before_it_is_assigned() {
    let broker = start();
    let (mut native, mut kafka) = (broker.native(), broker.kafka());
    let topic = native.created("orders", 4, &[]);
    let joined = expect_heartbeat(native.call(&join("billing")));
    assert_eq!((joined.heartbeat_interval_ms, joined.session_timeout_ms), (5_000, 45_000));
    assert_eq!(of(topic, joined.assignment.as_ref()), Some(vec![0, 1, 2, 3]));
    // The reply was lost: the same request again is from the same member.
    assert_eq!(expect_heartbeat(native.call(&join("billing"))).assignment, joined.assignment);

    let (epoch, assigned) = kafka_beat(&mut kafka, JOIN_EPOCH);
    assert_eq!(assigned, Some(vec![]), "everything has an owner");
    let reported = expect_heartbeat(native.call(&beat("billing", joined.epoch)));
    let kept = of(topic, reported.assignment.as_ref()).expect("it has to revoke something");
    assert_eq!((reported.epoch, kept.len()), (joined.epoch, 2));
    assert_eq!(kafka_beat(&mut kafka, epoch), (epoch, None), "nothing was revoked yet");
    // Partitions that are being revoked can still be committed.
    let reply = commit(&mut native, topic, reported.epoch, &[0, 1, 2, 3]).ok();
    assert_eq!(CommitGroupOffsetsReply::decode(&reply).expect("a reply").rejected, []);

    let owns = GroupHeartbeatRequest { owned: Some(owned(topic, &kept)), ..beat("billing", reported.epoch) };
    let settled = expect_heartbeat(native.call(&owns));
    assert!(settled.epoch > joined.epoch);
    let (kafka_epoch, assigned) = kafka_beat(&mut kafka, epoch);
    let assigned = assigned.expect("the revoked partitions");
    let mut all: Vec<u32> = kept.iter().copied().chain(assigned.iter().map(|p| *p as u32)).collect();
    all.sort_unstable();
    assert_eq!((all, kafka_epoch), (vec![0, 1, 2, 3], settled.epoch));

    // The previous epoch is valid for partitions that the member still has, and for no others.
    let reply = commit(&mut native, topic, joined.epoch, &[0, 1, 2, 3]).ok();
    let rejected = CommitGroupOffsetsReply::decode(&reply).expect("a reply").rejected;
    let stale = assigned.iter().map(|p| RejectedPosition {
        topic,
        partition: PartitionIndex(*p as u32),
        error: ErrorCode::StaleEpoch,
    });
    assert_eq!(rejected, stale.collect::<Vec<_>>());
    let fenced = native.call(&beat("billing", joined.epoch)).err();
    assert_eq!(fenced.0, ErrorCode::FencedMember, "{}", fenced.1);

    let read = |client: &mut Client, epoch| {
        let member = Some(("native-1".to_owned(), epoch));
        client.call(&ReadGroupOffsetsRequest { group: "billing".into(), member, partitions: None })
    };
    let topics =
        ReadGroupOffsetsReply::decode(&read(&mut native, settled.epoch).ok()).expect("a reply").topics;
    let offsets: Vec<i64> = topics.iter().flat_map(|t| &t.positions).map(|p| p.offset.0).collect();
    assert_eq!(offsets, [10, 11, 12, 13]);
    assert_eq!(read(&mut native, joined.epoch).err().0, ErrorCode::StaleEpoch);

    let name = "billing".to_owned();
    let described = native.call(&DescribeGroupRequest { name: name.clone() }).ok();
    let described = DescribeGroupReply::decode(&described).expect("a reply");
    assert_eq!(
        (&*described.protocol, &*described.state, &*described.assignor),
        ("consumer", "Stable", "uniform")
    );
    let members: Vec<_> = described.members.iter().map(|m| (&*m.member, &*m.client_name)).collect();
    assert!(described.members.iter().all(|m| m.host.starts_with(CLIENT_HOSTS)));
    assert_eq!(members, [("kafka-1", "engine-test"), ("native-1", "engine-test")]);
    assert!(described.members.iter().all(|m| m.assignment == m.target && m.topics == ["orders"]));
    assert_eq!(native.call(&DeleteGroupRequest { name }).err().0, ErrorCode::GroupNotEmpty);

    native.call(&beat("billing", LEAVE_EPOCH)).ok();
    let (_, assigned) = kafka_beat(&mut kafka, kafka_epoch);
    assert_eq!(assigned.map(|all| all.len()), Some(4), "a member that leaves releases everything at once");
    assert_eq!(native.call(&beat("billing", settled.epoch)).err().0, ErrorCode::UnknownMember);
    assert_eq!(commit(&mut native, topic, settled.epoch, &[0]).err().0, ErrorCode::UnknownMember);
    broker.stop();
}

#[test]
fn a_native_member_cannot_join_a_classic_group_until_that_is_deleted() {
    let broker = start();
    let mut client = broker.native();
    let topic = client.created("orders", 1, &[]);
    let mut member = Member::new(&broker, "classics");
    member.join_alone();
    let (code, text) = client.call(&join("classics")).err();
    assert_eq!(code, ErrorCode::OtherGroupProtocol, "{text}");
    assert!(text.contains("classics") && text.contains("classic protocol"), "{text}");
    let described = client.call(&DescribeGroupRequest { name: "classics".into() }).ok();
    let described = DescribeGroupReply::decode(&described).expect("a reply");
    assert_eq!((&*described.protocol, &*described.state, described.members.len()), ("classic", "Stable", 1));

    let mut bad = join("billing");
    bad.assignor = Some("sticky".into());
    assert_eq!(client.call(&bad).err().0, ErrorCode::InvalidArgument);
    assert_eq!(client.call(&beat("billing", 7)).err().0, ErrorCode::UnknownGroup);
    let joined = expect_heartbeat(client.call(&join("billing")));
    let list = |client: &mut Client, after: &str| {
        let reply = client.call(&ListGroupsRequest { after: after.into() }).ok();
        let reply = ListGroupsReply::decode(&reply).expect("a reply");
        assert!(!reply.more);
        reply.groups.into_iter().map(|g| (g.name, g.protocol, g.state)).collect::<Vec<_>>()
    };
    let row =
        |name: &str, protocol: &str, state: &str| (name.to_owned(), protocol.to_owned(), state.to_owned());
    assert_eq!(
        list(&mut client, ""),
        [row("billing", "consumer", "Stable"), row("classics", "classic", "Stable")]
    );
    assert_eq!(list(&mut client, "billing"), [row("classics", "classic", "Stable")]);

    commit(&mut client, topic, joined.epoch, &[0]).ok();
    client.call(&beat("billing", LEAVE_EPOCH)).ok();
    let name = "billing".to_owned();
    client.call(&DeleteGroupRequest { name: name.clone() }).ok();
    assert_eq!(client.call(&DescribeGroupRequest { name: name.clone() }).err().0, ErrorCode::UnknownGroup);
    assert_eq!(client.call(&DeleteGroupRequest { name }).err().0, ErrorCode::UnknownGroup);
    broker.stop();
}
